"""Any script, rendered and parsed, is the same script; and any text is a script or an error with its place."""

from __future__ import annotations

import errno
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from harness.language import escapes
from harness.language import patterns as patterns_module
from harness.language.fences import Fence
from harness.language.forms import parse_duration, render_duration
from harness.language.loading import parse, render
from harness.language.patterns import Capture, Kind, Pattern
from harness.language.steps import (
    RESERVED,
    Acts,
    AnyOrder,
    Blank,
    CallFails,
    CallTakes,
    ClockJumps,
    Comment,
    ConnectionAction,
    Connects,
    ConnectsToPort,
    DefaultTransport,
    Define,
    Either,
    Ending,
    Ends,
    Eol,
    ExpectedToFail,
    FenceAfter,
    Ignore,
    Include,
    InTime,
    LineEnd,
    LinkChange,
    LinkChanges,
    LinkDelays,
    LinkSplits,
    Needs,
    NodeChanges,
    NodeFate,
    OneOf,
    Or,
    Raises,
    Receive,
    ReceiveBody,
    ReceiveBytes,
    ReceivePattern,
    ReceivesNothing,
    ReceiveUntil,
    Repeat,
    Reply,
    Script,
    Send,
    SendBytes,
    SendPattern,
    Server,
    Settle,
    Skip,
    SocketCall,
    Start,
    Tagged,
    TargetKind,
    TargetLine,
    Term,
    TimeFactor,
    Title,
    Together,
    Transport,
    Unfenced,
    Wait,
    Within,
    is_literal,
)

single_names = st.from_regex(r"[a-zé][a-z0-9_]{0,5}([.-][a-z0-9]{1,2})?", fullmatch=True).filter(
    lambda n: n not in RESERVED
)
names_in_headers = single_names | st.sampled_from(["c1..c5", "c01..c10", "a.b7..a.b7"])
names = names_in_headers | st.sampled_from(["c${n}", "c${n}.x1", "c2..c${n}"])
literals = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20).filter(is_literal)
words = st.from_regex(r"[a-z0-9_.-]{1,8}", fullmatch=True)
some_bytes = st.binary(min_size=1, max_size=12) | st.text(min_size=1, max_size=8).map(
    lambda text: text.encode("utf-8", "replace")
)
regexes = st.sampled_from([r"[0-9]+", r"a/b", r"(?:x|y)", r"\$\{", r"\\", r"[}]", r"\w{3}"])
captures = st.builds(
    lambda name, kind, regex: Capture(name, kind, regex if kind is Kind.REGEX else ""),
    st.sampled_from(["_", "x", "id", "N"]),
    st.sampled_from(Kind),
    regexes,
)
patterns = st.lists(literals | captures, max_size=5).map(lambda parts: Pattern(tuple(parts)))
patterns = patterns.filter(lambda pattern: is_literal(patterns_module.render_pattern(pattern)))
known_patterns = st.lists(literals | st.builds(Capture, st.just("known")), max_size=3).map(
    lambda parts: Pattern(tuple(parts))
)
known_patterns = known_patterns.filter(lambda pattern: is_literal(patterns_module.render_pattern(pattern)))
unbinding = st.lists(literals | captures.map(lambda one: replace(one, name="_")), min_size=1, max_size=3)
rule_patterns = unbinding.map(lambda parts: Pattern(tuple(parts))).filter(
    lambda pattern: (text := patterns_module.render_pattern(pattern)) and is_literal(text) and text[0] != " "
)
replied_patterns = rule_patterns.filter(
    lambda pattern: " -> " not in patterns_module.render_pattern(pattern)
).map(lambda pattern: Pattern((*pattern.parts, Capture("known"))))
replies = known_patterns.filter(lambda pattern: pattern.parts)
microseconds = st.integers(0, 10_000_000_000)

receives = (
    st.builds(Receive, names, literals, optional=st.booleans())
    | st.builds(ReceiveBytes, names, some_bytes, optional=st.booleans())
    | st.builds(ReceivePattern, names, patterns, optional=st.booleans())
)
untils = st.builds(
    ReceiveUntil, names, patterns.filter(lambda pattern: patterns_module.render_pattern(pattern))
)
sends = (
    st.builds(Send, names, literals)
    | st.builds(SendBytes, names, some_bytes)
    | st.builds(SendPattern, names, known_patterns)
)
silences = st.builds(ReceivesNothing, names)
ends = st.builds(Ends, names, st.sampled_from(Ending)) | st.builds(
    Ends, names, st.sampled_from([Ending.CLOSED, Ending.REFUSED]), words
)
comments = st.builds(Comment, literals)
errors = st.sampled_from(sorted(errno.errorcode.values()))
client_calls = st.sampled_from([SocketCall.READ, SocketCall.SEND])


def is_a_port(terms: tuple[Term, ...]) -> bool:
    """True unless the numbers alone are already more than a port can be."""
    return sum(term.value * term.times for term in terms if isinstance(term.value, int)) <= 65_535


terms = st.builds(Term, st.integers(0, 999) | st.just("p"), st.just(1) | st.integers(0, 999))
node_names = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
transports = st.builds(
    lambda tls, websocket, path: Transport(tls, websocket, path if websocket else "/"),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["/", "/chat", "/a?b=c"]),
)
plain = (
    sends
    | receives
    | untils
    | comments
    | st.builds(Blank)
    | st.builds(Connects, names, st.none() | words, st.none() | transports)
    | silences
    | st.builds(ConnectsToPort, names, st.lists(terms, min_size=1, max_size=3).map(tuple).filter(is_a_port))
    | st.builds(ReceiveBody, names, st.integers(0, 999999999) | st.just("size"), st.none() | some_bytes)
    | st.builds(Acts, names, st.sampled_from(ConnectionAction))
    | st.builds(Raises, st.sampled_from(["ValueError", "_Odd1"]))
    | ends
    | st.builds(Wait, microseconds)
    | st.builds(CallFails, st.just(SocketCall.ACCEPT), st.none(), errors, st.integers(1, 9))
    | st.builds(CallFails, client_calls, names, errors, st.integers(1, 9))
    | st.builds(CallTakes, client_calls, names, st.none() | st.integers(0, 99))
    | st.builds(NodeChanges, node_names, st.sampled_from(NodeFate))
    | st.builds(LinkChanges, node_names, st.sampled_from(LinkChange))
    | st.builds(LinkDelays, node_names, microseconds)
    | st.builds(LinkSplits, node_names, st.integers(1, 9999))
    | st.builds(ClockJumps, st.integers(-10_000_000_000, 10_000_000_000))
)


def block(items, needed):
    """The body of a block: one step at least, and no blank line at its end."""
    return st.tuples(st.lists(items, max_size=3), needed).map(lambda pair: (*pair[0], pair[1]))


shared = st.builds(Receive, st.just(""), literals, optional=st.booleans()) | st.builds(
    ReceivePattern, st.just(""), patterns
)
one_of = st.builds(
    OneOf,
    st.lists(single_names, min_size=2, max_size=3, unique=True).map(tuple) | st.just(("c1..c3", "c7")),
    shared.map(lambda step: replace(step, optional=False)),
)
blocks = (
    st.builds(Together, block(sends | comments, sends))
    | st.builds(InTime, microseconds.filter(bool), block(receives | untils | comments, receives))
    | st.builds(Either, block(receives | untils | ends | comments, receives | silences))
    | st.builds(Or, block(receives | untils | silences | comments, untils | ends))
    | st.builds(AnyOrder, block(receives | comments, receives))
    | st.builds(AnyOrder, block(shared | comments, shared), st.just(("b", "c")))
)
steps = st.recursive(
    plain | one_of | blocks,
    lambda inner: st.builds(
        Repeat,
        st.integers(1, 99),
        block(inner, sends),
        st.none() | st.just("n"),
    ),
    max_leaves=6,
)
heads = st.tuples(st.sampled_from(["X", "WHO"]), st.sampled_from(["logs", "leaves"]), words).filter(
    lambda head: head[2] != "in"
)
items = steps | st.builds(Define, heads, block(plain, sends)) | st.builds(Include, words)
reasons = literals.filter(lambda text: text and not text.startswith(" "))
settings = st.tuples(
    st.builds(Title, literals.filter(lambda text: text and not text.startswith(" "))),
    st.builds(
        Server, st.lists(words, unique=True, max_size=2).map(tuple), st.dictionaries(words, words, max_size=2)
    ).filter(lambda server: server.endpoints or server.options),
    st.builds(
        TargetLine, st.sampled_from(TargetKind), literals.filter(lambda text: text == text.strip() != "")
    ),
    st.builds(Needs, st.lists(words, min_size=1, max_size=2).map(tuple)),
    st.builds(Fence, words, st.lists(words, min_size=1, max_size=2).map(tuple)),
    st.builds(LineEnd, st.sampled_from(Eol)),
    st.builds(Within, st.integers(1, 60_000_000)),
    st.builds(Settle, st.integers(1, 60_000_000)),
    st.builds(Start, st.integers(1, 60_000_000)),
    st.builds(TimeFactor, st.integers(1, 1000)),
    st.builds(DefaultTransport, transports),
    st.builds(FenceAfter, words),
    st.builds(Unfenced, st.lists(single_names, min_size=1, unique=True).map(tuple)),
    st.just(Fence()),
    st.builds(
        lambda line, heard, replies, always: Fence(
            f"{line} ${{token}}",
            replies if always else (),
            f"{heard} ${{_}}${{token}}",
            () if always else replies,
        ),
        words,
        words,
        st.lists(words, max_size=2).map(tuple),
        st.booleans(),
    ),
    st.builds(Tagged, st.lists(words, min_size=1, max_size=3, unique=True).map(tuple)),
    st.builds(Skip, reasons),
    st.builds(ExpectedToFail, reasons),
    st.builds(Ignore, rule_patterns, st.none() | names_in_headers),
    st.builds(Reply, replied_patterns, replies, st.none() | names_in_headers),
)
headers = settings.flatmap(lambda chosen: st.lists(st.sampled_from(chosen), unique_by=type, max_size=9)).map(
    tuple
)


@given(headers, st.lists(items, max_size=6).map(tuple))
def test_a_rendered_script_reads_back_as_itself(header, body):
    script = Script(header, body)
    if not header and body and isinstance(body[0], Comment):
        # Comments above the first step belong to the body unless a header follows them.
        script = Script((), (Blank(), *body))
    text = render(script)
    again = parse(text)
    assert again == script
    assert render(again) == text


@given(st.binary())
def test_bytes_read_back_as_themselves(data):
    assert escapes.parse_bytes(escapes.render_bytes(data)) == data


@given(st.text())
def test_any_text_is_a_script_or_an_error_that_names_its_place(text):
    from harness.language.problems import ScriptError

    wrong = None
    try:
        script = parse(text, "any.chat")
    except ScriptError as error:
        wrong = error.problem
    if wrong is None:
        assert parse(render(script)) == script
    else:
        assert str(wrong).startswith(f"any.chat:{wrong.line}:{wrong.column}: ")
        assert "^" in str(wrong)
        assert wrong.expected


@given(microseconds)
def test_durations_read_back_to_the_microsecond(duration):
    assert parse_duration(render_duration(duration), 0) == duration
