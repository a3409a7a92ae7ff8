"""Errors in scripts: each names its place, what is wrong and what was expected; and what scripts expand to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import ScriptError, check, load, parse
from harness.language.expansion import expand
from harness.language.loading import shown
from harness.language.patterns import Pattern
from harness.language.steps import (
    Acts,
    AnyOrder,
    ConnectionAction,
    Connects,
    Either,
    Or,
    Receive,
    ReceiveBytes,
    Send,
    SendPattern,
    Together,
    as_receive,
)

WRONG = [
    # text, line, column, message, expected
    ("alice conects\n", 1, 1, "unrecognised step", "perhaps `alice connects`"),
    ("a> x \n", 1, 5, "white space at the end of a literal", "a>> with \\x20"),
    ("a> x\u3000\n", 1, 5, "white space at the end of a literal", "a>>"),
    ("a> \n", 1, 3, "a space at the end of the line", "a> alone"),
    ("a> x\ty\n", 1, 5, "a tab in a literal", "\\t"),
    ("a> x\x1by\n", 1, 5, "the control character U+001B", "\\xNN"),
    ("a>x\n", 1, 3, "no space after >", "one space"),
    ("a>>\n", 1, 4, "no bytes here", "at least one byte"),
    ("a>> x\\q\n", 1, 6, "unknown escape", "\\xNN"),
    ("a>> x \n", 1, 6, "space at the end of the line", "\\x20"),
    ("a>~ $x\n", 1, 5, "a lone $", "$$"),
    ("a>~ ${_}\n", 1, 5, "what is sent must be known", "${x}"),
    ("a>~ ${x}\n", 1, 5, "${x} is not bound yet", "a<~"),
    ("a> x\na<~ ${x:/(/}\n", 2, 10, "invalid regular expression", "/re/"),
    ("a> x\na<~ ${x:/(a)/}\n", 2, 10, "capturing groups", "${x"),
    ("a> x\na<~ ${x:/(?i)a/}\n", 2, 10, "invalid regular expression", "/re/"),
    ("a> x\na<~ ${x:/a\n", 2, 10, "unterminated", "/re/"),
    ("1a> x\n", 1, 1, "not a name for a client", "a letter"),
    ("wait> x\n", 1, 1, "a word of the language", "another name"),
    ("< x\n", 1, 1, "no client is named here", "a client"),
    ("wait 60\n", 1, 6, "'60' is not a duration", "60s"),
    ("wait 0.1us\n", 1, 6, "finer than a microsecond", "microseconds"),
    ("wait 5s \n", 1, 8, "white space at the end of the line", "no white space"),
    ("together\n", 1, 1, "not quite `together:`", "together:"),
    ("together:\n", 1, 10, "nothing is indented below this line", "indented steps"),
    ("together:\n    # only a comment\n", 1, 10, "nothing is indented below this line", "indented steps"),
    ("together:\n    a< x\n", 2, 5, "a receive inside together:", "sends"),
    ("a> x\nin any order:\n    a> x\n", 3, 5, "a send inside in any order:", "receives"),
    ("in any order\n", 1, 1, "not quite `in any order:`", "in any order:"),
    ("in any order, the same for b:\n    < x\n", 1, 28, "two different clients", "b c"),
    ("in any order, the same for b c:\n    d< x\n", 2, 5, "d is not among the clients", "b or c"),
    ("repeat 0:\n    a> x\n", 1, 8, "a count of 0", "from 1"),
    ("repeat often:\n    a> x\n", 1, 1, "not quite `repeat 3:`", "repeat 3:"),
    ("repeat 2:\n    define X y:\n        a> x\n", 2, 5, "a define inside a block", "left margin"),
    ("define X connects:\n    X> x\n", 1, 8, "already a step of the language", "a new verb"),
    ("define X X y:\n    X> x\n", 1, 10, "X twice in one head", "once"),
    ("define logs:\n    a> x\n", 1, 12, "nothing is defined here", "define X logs in:"),
    ("define X logs in:\n    X> LOGIN X\n", 2, 14, "a literal means X itself", "X>~ with ${X}"),
    ("define X y:\n    X y\n\na y\n", 2, 5, "this step calls itself", "ends"),
    ("define X y:\n    X> a\ndefine Z y:\n    Z> a\n", 3, 8, "already defined in s.chat:1", "another verb"),
    ("define X y:\n    X> a\n\n< y\n", 4, 1, "no client is named here", "a client"),
    ("define A b C:\n    C> a\n\nx b 1y\n", 2, 5, "C is '1y' here (s.chat:4)", "the name of a client"),
    ("  a> x\n", 1, 3, "indented more", "no indentation"),
    ("repeat 2:\n    a> x\n      a> y\n", 3, 7, "indented more", "4 spaces"),
    ("\ta> x\n", 1, 1, "a tab in the indentation", "spaces"),
    ("a> x\r\n", 1, 5, "lines end in CR LF", "eol: crlf"),
    ("\ufeffa> x\n", 1, 1, "byte order mark", "UTF-8"),
    ("titel: x\n\na> x\n", 1, 1, "unknown header 'titel'", "title:"),
    ("title: x\na> x\n", 2, 1, "a step right below the header", "a blank line"),
    ("title: x\ntitle: y\n\na> x\n", 2, 1, "already set in line 1", "once"),
    ("a> x\ntitle: y\n", 2, 1, "a header below the header", "at the top"),
    ("eol: cr\n\na> x\n", 1, 6, "'cr' is not a line end", "lf or crlf"),
    (
        "target: python x\n\na> x\n",
        1,
        9,
        "'python x' does not name a target",
        "server COMMAND, connect HOST:PORT",
    ),
    ("target: server\n\na> x\n", 1, 9, "'server' does not name a target", "app MODULE:FACTORY"),
    ("fence: PING\n\na> x\n", 1, 8, "a line without its answer", "PING -> PONG"),
    ("within: 0s\n\na> x\n", 1, 9, "no time at all", "above zero"),
    ("server: idle=\n\na> x\n", 1, 9, "neither an endpoint nor an option", "key=value"),
    ("a< x\n", 1, 1, "a has not connected yet", "none so far"),
    ("a> x\nb receives nothing\n", 2, 1, "b has not connected yet", "client: a"),
    ("a> x\na is closed\na> y\n", 3, 1, "a lost the connection in line 2", "`a connects`"),
    ("a> x\na is closed\na< y\n", 3, 1, "a lost the connection in line 2", "before the end"),
    ("a> x\na half-closes\na> y\n", 3, 1, "a half-closed in line 2", "`a connects`"),
    ("a> x\na closes\na is closed\n", 3, 1, "a already closed in line 2", "single"),
    ("a closes\n", 1, 1, "a has not connected yet", "`a connects`"),
    ("a connects\na connects\n", 2, 1, "a has been connected since line 1", "another client"),
    ("a> x\na< y\na receives nothing\n", 3, 1, "a receives something in line 2", "one of the two"),
    ("a> x\na receives nothing\na< y\n", 3, 1, "according to line 2", "one of the two"),
    ("include x.chat\n", 1, 1, "this include has not been read", "load()"),
    ("a connects to port ${p}\n", 1, 20, "${p} is not bound yet", "a turn above"),
    (
        "a> x\na<~ ${p}\na connects to port ${p}\n",
        3,
        1,
        "a has been connected since line 1",
        "another client",
    ),
    ("a connects to port 2*3*4\n", 1, 20, "'2*3*4' is not a port", "256*${a}+${b}"),
    ("a connects to port ${p\n", 1, 20, "'${p' is not a port", "a sum"),
    ("define X at N:\n    X connects to port ${N}\n\na at y\n", 2, 5, "${N} is 'y' here", "a number"),
    ("c5..c1> x\n", 1, 1, "c5..c1 is an empty range", "the lower number first"),
    ("c1..d5> x\n", 1, 1, "'c1..d5' is not a range of clients", "c1..c50"),
    ("1..5> x\n", 1, 1, "not a name for a client", "a letter"),
    ("c1..c1001> x\n", 1, 1, "names more than 1000 clients", "c1..c50"),
    ("c1> x\nc1..c2< x\n", 2, 1, "c2 has not connected yet", "c1"),
    ("a> x\nin any order, the same for c1..c1:\n    < x\n", 2, 28, "two different clients", "b c"),
    (
        "a> x\nin any order, the same for c1..c3:\n    c2..c4< x\n",
        3,
        5,
        "c4 is not among the clients",
        "c1..c3",
    ),
    ("unfenced: c1..c3 c3..c4\n\nc1> x\n", 1, 18, "'c3..c4' twice", "once"),
    ("unfenced: c1..c3\n\nc1..c2> x\n", 1, 15, "no client is called c3", "c1, c2"),
    ("ignore c1..c3: x\n\nc1..c2> x\n", 1, 12, "no client is called c3", "c1, c2"),
    ("ignore c1..c2: x\n\nc1..c3> x\nc1..c3< x\n", 4, 1, "would take this line", "narrower"),
    ("c${n}> x\n", 1, 1, "${n} is not a counter here", "`repeat 3 as n:`"),
    ("repeat 2 as n:\n    c${m}> x\n", 2, 5, "${m} is not a counter here", "`repeat 3 as m:`"),
    ("repeat 2 as n:\n    c${n>> x\n", 2, 5, "'c${n' is not a name", "a letter"),
    ("repeat 1000:\n    repeat 101:\n        a> x\n", 1, 1, "more than 100000 steps", "fewer rounds"),
    ("repeat 9999999999:\n    a> x\n", 1, 8, "a count of 999999999", "nine digits"),
]


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "expected"), WRONG, ids=[case[0] for case in WRONG]
)
def test_an_error_names_its_place_and_what_was_expected(text, line, column, message, expected):
    with pytest.raises(ScriptError) as caught:
        check(parse(text, "s.chat"))
    wrong = caught.value.problem
    assert (wrong.line, wrong.column) == (line, column)
    assert message in wrong.message
    assert expected in wrong.expected
    shown = str(wrong).splitlines()
    assert shown[0].startswith(f"s.chat:{line}:{column}: ")
    # The caret is below the column in the first line.
    assert shown[2].index("^") - shown[1].index("|") - 2 == column - 1


def test_a_problem_is_a_value():
    with pytest.raises(ScriptError) as caught:
        parse("alice conects\nbob\n", "hello.chat")
    problem = caught.value.problem
    assert problem == replace(problem)
    assert (problem.file, problem.line, problem.column, problem.source_line) == ("hello.chat", 2, 1, "bob")


def test_a_file_that_cannot_be_read_is_a_problem_too(tmp_path):
    with pytest.raises(ScriptError) as caught:
        load(tmp_path / "none.chat")
    assert str(caught.value) == f"cannot read {tmp_path / 'none.chat'}: No such file or directory"


def test_how_an_error_looks():
    with pytest.raises(ScriptError) as caught:
        parse("alice> LOGIN alice\n\n    bob> hi\n", "hello.chat")
    assert str(caught.value) == (
        "hello.chat:3:5: indented more than the line above\n"
        "    3 |     bob> hi\n"
        "      |     ^\n"
        "      expected: no indentation"
    )


def test_a_byte_that_is_not_utf_8_is_reported_with_its_place(tmp_path):
    (tmp_path / "x.chat").write_bytes(b"# ok\na> caf\xe9\n")
    with pytest.raises(ScriptError, match=r"x.chat:2:7: this byte is not UTF-8"):
        load(tmp_path / "x.chat")


@pytest.mark.parametrize("name", ["round.chat", 300 * "x"])
def test_whatever_makes_a_file_unreadable_is_a_problem_with_a_place(tmp_path, name):
    (tmp_path / "round.chat").symlink_to("round.chat")
    (tmp_path / "a.chat").write_text(f"include {name}\na> x\n")
    with pytest.raises(ScriptError, match=r"a\.chat:1:9: cannot read "):
        load(tmp_path / "a.chat")
    assert shown(tmp_path / "round.chat") == str(tmp_path / "round.chat")


def test_included_files_give_definitions_and_headers_but_their_title_is_their_own(tmp_path):
    (tmp_path / "deeper.chat").write_text(
        "title: deeper\neol: crlf\n\ndefine X logs in:\n    X>~ LOGIN ${X}\n"
    )
    (tmp_path / "common.chat").write_text("fence: PING -> PONG\n\ninclude deeper.chat\n")
    (tmp_path / "a.chat").write_text("within: 2s\n\ninclude common.chat\nalice logs in\n")
    script = load(tmp_path / "a.chat")
    made = check(script)
    assert script.title is None
    from harness.language.fences import Fence
    from harness.language.steps import LineEnd

    assert script.setting(Fence).question == "PING"
    assert parse((tmp_path / "a.chat").read_text()).setting(Fence) is None  # it has not been read
    assert script.setting(LineEnd).eol.wire == b"\r\n"
    assert made.turns[0].actions[0].script.file.endswith("deeper.chat")


def test_a_file_can_be_included_by_several_ways(tmp_path):
    (tmp_path / "words.chat").write_text("define X greets:\n    X> hi\n")
    (tmp_path / "one.chat").write_text("include words.chat\n")
    (tmp_path / "link.chat").symlink_to("words.chat")
    (tmp_path / "two.chat").write_text("include link.chat\n\ndefine X meets Y:\n    X greets\n    Y greets\n")
    (tmp_path / "a.chat").write_text("include one.chat\ninclude two.chat\ninclude words.chat\na meets b\n")
    made = check(load(tmp_path / "a.chat"))
    assert [one.step for turn in made.turns for one in turn.actions] == [Send("a", "hi"), Send("b", "hi")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "include b.chat\na> x\n"}, "a.chat:1:9: cannot read .*b.chat: No such file"),
        ({"a": "include a.chat\na> x\n"}, "a.chat:1:9: this file includes itself"),
        ({"a": "include b.chat\na> x\n", "b": "include a.chat\n"}, "b.chat:1:9: this file includes itself"),
        ({"a": "include b.chat\na> x\n", "b": "a> x\n"}, "b.chat:1:1: a step in an included file"),
    ],
)
def test_an_include_that_cannot_be_used_is_an_error(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / f"{name}.chat").write_text(text)
    with pytest.raises(ScriptError, match=message):
        check(load(tmp_path / "a.chat"))


INCLUDED = """define X greets:
    X> hi
    X< hello

define X leaves:
    X closes

define X perhaps hears:
    optional X<~ HI ${name}
"""


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("a greets\na receives nothing\n", "a receives something in line 3 of inc.chat"),
        ("a greets\na connects\n", "a has been connected since line 2 of inc.chat"),
        ("a greets\na leaves\na> x\n", "a closed in line 6 of inc.chat, so this cannot be sent"),
        ("a> x\na perhaps hears\na>~ ${name}\n", "where line 9 of inc.chat is not received"),
        ("a> x\na receives nothing\na greets\na connects\n", "a has been connected since line 2"),
    ],
)
def test_a_problem_names_the_other_line_with_its_file_if_that_is_another(
    tmp_path, monkeypatch, steps, message
):
    monkeypatch.chdir(tmp_path)
    Path("inc.chat").write_text(INCLUDED)
    Path("a.chat").write_text(f"include inc.chat\n{steps}")
    with pytest.raises(ScriptError) as problem:
        check(load(Path("a.chat")))
    assert message in str(problem.value)
    assert ("inc.chat" in str(problem.value)) is ("inc.chat" in message)


def test_a_turn_is_actions_and_then_what_is_received():
    made = check(parse("a> 1\nb> 2\na< x\nb< y\nwait 1s\na receives nothing\nb> 3\n"))
    assert [(len(turn.actions), len(turn.expectations)) for turn in made.turns] == [(2, 2), (1, 1), (1, 0)]
    assert made.clients == ("a", "b")


def test_definitions_and_repeats_expand_to_plain_steps():
    text = (
        "define X greets WHO with WORDS:\n    X>~ ${WORDS}, ${WHO} ${n}\n\n"
        "repeat 2 as n:\n    a greets b with good morning to you\n"
    )
    with pytest.raises(ScriptError, match=r"\$\{n\} is not bound yet"):
        check(parse(text))  # a definition sees its own parameters alone
    made = check(parse(text.replace(" ${n}", "")))
    sent = [located.step.pattern.parts for turn in made.turns for located in turn.actions]
    assert sent == [("good morning to you, b",)] * 2


def test_a_line_that_cannot_be_literal_becomes_bytes():
    assert as_receive("a", b"OK\n") == Receive("a", "OK")
    assert as_receive("a", b"OK\r\n", b"\r\n") == Receive("a", "OK")
    for wire in (b"OK", b"OK \n", b"O\tK\n", b"\xff\n", b"OK\r\n", b"two\nlines\n"):
        assert as_receive("a", wire) == ReceiveBytes("a", wire)


def test_a_step_that_cannot_be_written_cannot_be_created():
    with pytest.raises(ValueError, match="SendBytes"):
        Send("a", "tab\there")
    with pytest.raises(ValueError, match="at least one step"):
        Together(())


# --- many clients -------------------------------------------------------------------------------------------


def steps_of(text: str) -> list[object]:
    return [located.step for located in expand(parse(text)).steps]


def test_a_range_stands_for_each_of_its_clients():
    assert steps_of("c09..c11> hi\n") == [Send("c09", "hi"), Send("c10", "hi"), Send("c11", "hi")]
    assert steps_of("a.b1..a.b2 connects\n") == [Connects("a.b1"), Connects("a.b2")]
    together = steps_of("together:\n    c1..c2> hi\n    d> ho\n")
    assert together == [Together((Send("c1", "hi"), Send("c2", "hi"), Send("d", "ho")))]
    assert steps_of("one of c1..c2 d< x\n") == [
        Either((Receive("c1", "x"),)), Or((Receive("c2", "x"),)), Or((Receive("d", "x"),)),
    ]  # fmt: skip
    assert steps_of("in any order, the same for c1..c2:\n    < x\n    c1..c2< y\n") == [
        AnyOrder((Receive("", "x"), Receive("c1", "y"), Receive("c2", "y")), ("c1", "c2"))
    ]


def test_a_defined_step_is_called_for_each_client_of_a_range():
    text = "define X logs in:\n    X>~ LOGIN ${X}\n    X< OK\n\nc1..c2 logs in\n"
    c1, c2 = Pattern(("LOGIN c1",)), Pattern(("LOGIN c2",))
    assert steps_of(text) == [
        SendPattern("c1", c1),
        Receive("c1", "OK"),
        SendPattern("c2", c2),
        Receive("c2", "OK"),
    ]
    text = "define X tells Y:\n    X> hi\n    Y< hi\n\na tells c1..c2\n"
    assert steps_of(text) == [Send("a", "hi"), Receive("c1", "hi"), Receive("c2", "hi")]
    # A word of a sentence that only looks like one is left as it is.
    text = "define X says TEXT:\n    X>~ ${TEXT}\n\na says see a1..a5\n"
    assert steps_of(text) == [SendPattern("a", Pattern(("see a1..a5",)))]


def test_a_counter_can_be_a_part_of_a_name():
    text = "repeat 2 as n:\n    c${n}> hi\n    c${n} leaves\n\ndefine X leaves:\n    X closes\n"
    closes = ConnectionAction.CLOSES
    assert steps_of(text) == [Send("c1", "hi"), Acts("c1", closes), Send("c2", "hi"), Acts("c2", closes)]
    text = "repeat 3 as n:\n    c1..c${n}> hi\n"
    assert [step.client for step in steps_of(text)] == ["c1", "c1", "c2", "c1", "c2", "c3"]
    text = "define X to N say hi:\n    c2..c${N}> hi\n\nc2 to 3 say hi\n"
    assert [step.client for step in steps_of(text)] == ["c2", "c3"]


def test_a_counter_can_be_in_a_range_of_a_list():
    text = "repeat 2 as n:\n    one of c1..c${n} d< task\n"
    ways = [[one.client for one in step.body] for step in steps_of("c1..c2> hi\nd> hi\n" + text)[3:]]
    assert ways == [["c1"], ["d"], ["c1"], ["c2"], ["d"]]
    text = "repeat 2 as n:\n    in any order, the same for c1..c${n} d:\n        c1..c${n}< x\n"
    orders = steps_of("c1..c2> hi\nd> hi\n" + text)[3:]
    assert [step.same_for for step in orders] == [("c1", "d"), ("c1", "c2", "d")]
    assert [[one.client for one in step.body] for step in orders] == [["c1"], ["c1", "c2"]]


def test_a_parameter_is_a_word_and_a_counter_is_not():
    define = "define X says TEXT:\n    X>~ ${TEXT}\n\n"
    text = define + "repeat 2 as a:\n    bob says pick a, not ${a}b\n    a says hi\n    a> hi\n"
    assert steps_of(text) == [
        SendPattern("bob", Pattern(("pick a, not 1b",))),
        SendPattern("a", Pattern(("hi",))),
        Send("a", "hi"),
        SendPattern("bob", Pattern(("pick a, not 2b",))),
        SendPattern("a", Pattern(("hi",))),
        Send("a", "hi"),
    ]
    text = define + "define X greets WHO:\n    X says hello WHO, ${WHO} WHO!\n\nann greets bob\n"
    assert steps_of(text) == [SendPattern("ann", Pattern(("hello WHO, bob WHO!",)))]
