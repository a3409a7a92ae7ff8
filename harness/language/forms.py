"""Every line of a transcript as one table of forms, for both parsing and rendering.

- A form is a template such as `{client} connects[ to {endpoint}]`; the part in brackets is optional, and
  a template can have only one such part.
- A slot names an attribute of the step and, after a colon, the field that reads and writes it.
- Columns of errors count from 0 within the line, without its indentation.

Knows single lines only: the parser handles blocks and indentation, the renderer handles layout.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import errno
import itertools
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from harness.language import steps
from harness.language.escapes import parse_bytes, render_bytes
from harness.language.fences import Fence
from harness.language.patterns import ANONYMOUS, Kind, Pattern, parse_pattern, render_pattern
from harness.language.problems import LineError, columns_from

# --- fields: the values in a line ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """One kind of value: its text as a regular expression, how it is read and written, and how it is shown."""

    regex: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]
    examples: tuple[str, ...]
    values: tuple[Any, ...] = ()
    """All possible values, where they are few."""


_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>us|ms|s|m|h)")
_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_AMOUNT = re.compile(r"(?P<most>[0-9]+) bytes?|nothing|all again")
MOST_DIGITS = 9
"""Of a number, so that it is one for the operating system as well."""
_WORD = re.compile(r"[A-Za-z0-9_.-]+")


def parse_duration(text: str, column: int = 0) -> int:
    """`60s`, `1.5s`, `200ms`, `2m` as microseconds."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise LineError(
            column, f"{text!r} is not a duration", "a number and its unit: 60s, 1.5s, 200ms, 2m, 1h, 50us"
        )
    whole, _, fraction = found["number"].partition(".")
    if max(len(whole), len(fraction)) > MOST_DIGITS:
        raise LineError(column, f"a duration of {len(whole + fraction)} digits", "at most nine digits")
    # In integers: 59.999 s as a float is not 59 seconds and 999 milliseconds.
    scaled: int = int(whole + fraction) * _UNITS[found["unit"]]
    microseconds, lost = divmod(scaled, 10 ** len(fraction))
    if lost:
        raise LineError(column, f"{text!r} is finer than a microsecond", "whole microseconds")
    return int(microseconds)


def render_duration(microseconds: int) -> str:
    """The shortest notation of a duration in s, ms or us."""
    if microseconds % 1_000 or 0 < microseconds < 1_000:
        unit, size = ("us", 1) if microseconds < 1_000 else ("ms", 1_000)
    else:
        unit, size = ("ms", 1_000) if 0 < microseconds < 1_000_000 else ("s", 1_000_000)
    whole, rest = divmod(microseconds, size)
    fraction = f".{rest:0{len(str(size)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}{fraction}{unit}"


def check_client(client: str) -> str:
    """The name or the range itself; LineError where a client cannot be called that."""
    if client in steps.RESERVED:
        raise LineError(0, f"{client!r} is a word of the language", "another name for this client")
    try:
        names = steps.client_names(client)
    except ValueError as wrong:
        raise LineError(0, str(wrong), "a range, the lower number first: c1..c50") from None
    if steps.COUNTER.search(client):
        # Which range it is depends on the values.
        names = tuple(steps.COUNTER.sub("1", client).split("..", 1))
    if not all(map(steps.NAME.fullmatch, names)):
        raise LineError(
            0, f"{client!r} is not a name for a client", "a letter, then letters, digits, _ and single - or ."
        )
    return client


def _check_client_of_header(client: str) -> None:
    counter = steps.COUNTER.search(client)
    if counter is not None:
        raise LineError(
            counter.start(), f"{counter[0]} has no value in the header", "a name, or a range: c1..c50"
        )
    check_client(client)


def _enum(*members: enum.Enum) -> Field:
    by_text = {str(member.value): member for member in members}
    return Field("|".join(by_text), by_text.__getitem__, lambda one: str(one.value), tuple(by_text), members)


def _read_error(text: str) -> str:
    if text not in errno.errorcode.values():
        raise LineError(0, f"{text!r} is not an error", "the name of one: ECONNRESET, EPIPE, EMFILE")
    return text


def _read_count(text: str) -> int:
    if len(text) > MOST_DIGITS or int(text) < 1:
        raise LineError(0, f"a count of {text[:MOST_DIGITS]}", "a number from 1, of at most nine digits")
    return int(text)


def _read_amount(text: str) -> int | None:
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise LineError(0, f"{text!r} is not an amount", "1 byte, 20 bytes, nothing, or all again")
    return None if text == "all again" else _read_whole(found["most"] or "0")


def _write_amount(most: int | None) -> str:
    if most is None:
        return "all again"
    return "nothing" if most == 0 else f"{most} byte{'' if most == 1 else 's'}"


def _some_time(value: str) -> int:
    microseconds = parse_duration(value)
    if microseconds == 0:
        raise LineError(0, "no time at all", "a duration above zero")
    return microseconds


def _read_body_size(text: str) -> int | str:
    return text[2:-1] if text.startswith("$") else _read_whole(text)


def _read_whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise LineError(0, f"a number of {len(text)} digits", "at most nine digits")
    return int(text)


_LAST_PORT = 65_535
_ATOM = r"(?:\$\{[A-Za-z_][A-Za-z0-9_]*\}|[0-9]+)"
_TERM = rf"(?:[0-9]+\*)?{_ATOM}"


def _read_sum(text: str) -> tuple[steps.Term, ...]:
    if not re.fullmatch(rf"{_TERM}(?:\+{_TERM})*", text):
        raise LineError(0, f"{text!r} is not a port", "5000, ${p} or a sum such as 256*${a}+${b}")
    terms = []
    for term in text.split("+"):
        times, star, value = term.rpartition("*")
        terms.append(steps.Term(_read_body_size(value), _read_whole(times) if star else 1))
    known = sum(one.times * one.value for one in terms if isinstance(one.value, int))
    if known > _LAST_PORT:
        raise LineError(0, f"no port is so high: {text}", f"a port up to {_LAST_PORT}")
    return tuple(terms)


def _write_sum(terms: tuple[steps.Term, ...]) -> str:
    return "+".join(
        f"{'' if one.times == 1 else f'{one.times}*'}{_write_body_size(one.value)}" for one in terms
    )


def _write_body_size(size: int | str) -> str:
    return f"${{{size}}}" if isinstance(size, str) else str(size)


def _read_size(text: str) -> int:
    return _read_count(text.split()[0])


def _read_jump(text: str) -> int:
    back = text.startswith("back ")
    microseconds = parse_duration(text.removeprefix("back "), 5 if back else 0)
    return -microseconds if back else microseconds


def _write_jump(microseconds: int) -> str:
    return ("back " if microseconds < 0 else "") + render_duration(abs(microseconds))


def _read_clients(
    text: str, why: str = "agreement", example: str = "in any order, the same for b c:"
) -> tuple[str, ...]:
    clients = tuple(text.split())
    for client in clients:
        with columns_from(text.index(client)):
            check_client(client)
    if not any(map(steps.COUNTER.search, clients)) and not are_different(steps.names_in(clients)):
        raise LineError(0, f"{why} needs at least two different clients", example)
    return clients


def are_different(clients: Sequence[str]) -> bool:
    """Whether these are at least two clients, each of them once."""
    return 1 < len(clients) == len(set(clients))


def _read_words(text: str) -> tuple[str, ...]:
    words = tuple(text.split())
    if len(words) < 2 or all(steps.PARAMETER.fullmatch(word) for word in words):
        raise LineError(len(text), "nothing is defined here", "a client and a new verb: define X logs in:")
    parameters = [word for word in words if steps.PARAMETER.fullmatch(word)]
    for word in parameters:
        if parameters.count(word) > 1:
            raise LineError(text.rindex(word), f"{word} twice in one head", "each parameter once")
    if _has_meaning(" ".join("x" if word in parameters else word for word in words)):
        raise LineError(0, "this is already a step of the language", "a new verb: define X logs in:")
    return words


def _literal(bytes_form: str) -> Field:
    def read(text: str) -> str:
        for at, char in enumerate(text):
            if unicodedata.category(char) == "Cc":
                what = "a tab" if char == "\t" else f"the control character U+{ord(char):04X}"
                raise LineError(
                    at, f"{what} in a literal", f"visible text; {bytes_form} with \\t or \\xNN is exact"
                )
        if text != text.rstrip():
            raise LineError(
                len(text.rstrip()),
                "white space at the end of a literal",
                f"{bytes_form} with \\x20 for a space that is meant",
            )
        return text

    return Field(r".*", read, str, ("text",))


def _read_content(text: str) -> bytes:
    if not text:
        raise LineError(-1, "no bytes here", "at least one byte, such as \\n")
    return parse_bytes(text)


def _pattern(literal: Field, sent: bool) -> Field:
    def read(text: str) -> Pattern:
        pattern = parse_pattern(literal.read(text))
        for capture in pattern.captures:
            if sent and (capture.name == ANONYMOUS or capture.kind is not Kind.TEXT):
                raise LineError(
                    text.index("${" + capture.name),
                    "what is sent must be known",
                    "${x} with a name that is bound before",
                )
        return pattern

    return Field(r".*", read, render_pattern, ("pattern",))


_SENT, _RECEIVED = _literal("a>>"), _literal("a<<")
_BYTES = Field(r".*", _read_content, render_bytes, ("bytes",))

_TRANSPORT = re.compile(r"tcp|(?P<tls>tls)|(?P<secure>tls )?(?P<websocket>websocket)(?: (?P<path>/[!-~]*))?")
_TRANSPORTS = "tcp, tls, websocket, websocket /PATH, tls websocket, or tls websocket /PATH"


def _read_transport(text: str) -> steps.Transport:
    found = _TRANSPORT.fullmatch(text)
    if found is None:
        raise LineError(0, f"{text!r} is not a transport", _TRANSPORTS)
    tls = bool(found["tls"] or found["secure"])
    return steps.Transport(tls, bool(found["websocket"]), found["path"] or "/")


def _write_transport(transport: steps.Transport) -> str:
    words = ["tls"] * transport.tls + ["websocket"] * transport.websocket
    if transport.websocket and transport.path != "/":
        words.append(transport.path)
    return " ".join(words) or "tcp"


_FIELDS = {
    "client": Field(r"\S+", check_client, str, ("a",)),
    "endpoint": Field(r"\S+", str, str, ("ENDPOINT",)),
    "node": Field(r"[A-Za-z][A-Za-z0-9_]*", str, str, ("b",)),
    "fate": _enum(*steps.NodeFate),
    "change": _enum(*steps.LinkChange),
    "size": Field(r"[0-9]+ bytes?", _read_size, _write_amount, ("1 byte",)),
    "transport": Field(r".+", _read_transport, _write_transport, ("tls", "websocket")),
    "detail": Field(r"\S.*", str, str, ("1001",)),
    "explained": _enum(steps.Ending.REFUSED, steps.Ending.CLOSED),
    "action": _enum(*steps.ConnectionAction),
    "ending": _enum(*steps.Ending),
    "accept": _enum(steps.SocketCall.ACCEPT),
    "call": _enum(steps.SocketCall.READ, steps.SocketCall.SEND),
    "exception": Field(r"[A-Za-z_][A-Za-z0-9_]*", str, str, ("ValueError",)),
    "error": Field(r"\S+", _read_error, str, ("EPIPE",)),
    "body_size": Field(
        r"\$\{[A-Za-z_][A-Za-z0-9_]*\}|[0-9]+",
        _read_body_size,
        _write_body_size,
        ("${size}",),
    ),
    "sum": Field(r"\S+", _read_sum, _write_sum, ("${p}",)),
    "content": dataclasses.replace(_BYTES, regex=r".+"),
    "count": Field(r"[0-9]+", _read_count, str, ("3",)),
    "amount": Field(r".+", _read_amount, _write_amount, ("1 byte",)),
    "jump": Field(r".+", _read_jump, _write_jump, ("1h",)),
    "duration": Field(r".+", parse_duration, render_duration, ("60s",)),
    "limit": Field(r"\S+", _some_time, render_duration, ("100ms",)),
    "word": Field(r"[A-Za-z][A-Za-z0-9_]*", str, str, ("n",)),
    "clients": Field(r".+", _read_clients, " ".join, ("b c",)),
    "words": Field(r".+", _read_words, " ".join, ("X logs in",)),
    "path": Field(r".+", str.strip, str, ("FILE",)),
    "awaited": dataclasses.replace(_pattern(_RECEIVED, sent=False), regex=r".+", examples=("PATTERN",)),
}


# --- forms: the table of steps ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BlockHead:
    """The first line of a block: the type of the block, and all of its attributes but the body."""

    kind: type
    values: Mapping[str, Any]


_Part = str | tuple[str, Field]
"""Literal text, or an attribute and its field."""


class Form:
    """A template and the step that it reads and writes."""

    def __init__(
        self,
        template: str,
        kind: type,
        *,
        listed: bool = True,
        implied: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.kind = kind
        self.listed = listed
        self._implied = implied
        self._is_block = any(one.name == "body" for one in dataclasses.fields(kind))
        self._defaults = {one.name: one.default for one in dataclasses.fields(kind)}
        head, _, rest = template.partition("[")
        optional, _, tail = rest.partition("]")
        self._pieces = (_parts(head), _parts(optional), _parts(tail))
        before, between, after = map(_regex, self._pieces)
        self._regex = re.compile(f"{before}(?:{between})?{after}" if between else before)
        slots = (part for piece in self._pieces for part in piece if isinstance(part, tuple))
        self._fields = dict(slots)

    def read(self, text: str, number: int) -> Any:
        """The step or block head that the line says; None where the line is of another form."""
        found = self._regex.fullmatch(text)
        if found is None:
            return None
        values = dict(self._implied)
        for attribute, field in self._fields.items():
            if found[attribute] is not None:
                with columns_from(found.start(attribute)):
                    values[attribute] = field.read(found[attribute])
        return BlockHead(self.kind, values) if self._is_block else self.kind(**values, line=number)

    def accepts(self, item: Any) -> bool:
        """Whether this form can write the item: two forms of one kind differ in an enumerated value, or one leaves out what
        the other says."""
        if type(item) is not self.kind:
            return False
        values = {name: getattr(item, name) for name in self._defaults if name not in ("body", "line")}
        return all(
            (not self._fields[name].values or value in self._fields[name].values)
            if name in self._fields
            else value == self._implied.get(name, self._defaults[name])
            for name, value in values.items()
        )

    def write(self, item: Any) -> str:
        """The line that says the item."""
        before, optional, after = self._pieces
        given = [part[0] for part in optional if isinstance(part, tuple)]
        wanted = any(getattr(item, name) not in (None, (), self._defaults[name]) for name in given)
        shown = (*before, *(optional if wanted else ()), *after)
        return "".join(p if isinstance(p, str) else p[1].write(getattr(item, p[0])) for p in shown)

    def shown(self) -> list[str]:
        """The form as it is listed for readers, once for each way to say it."""
        before, optional, after = self._pieces
        ways = [(*before, *after), *([(*before, *optional, *after)] if optional else [])]
        return [
            "".join(words)
            for way in ways
            for words in itertools.product(*((p,) if isinstance(p, str) else p[1].examples for p in way))
        ]


def _parts(template: str) -> tuple[_Part, ...]:
    """`wait {microseconds:duration}` as literal text and slots."""
    parts: list[_Part] = []
    for literal, attribute, field in re.findall(r"([^{]+)|\{(\w+):?(\w*)\}", template):
        parts.append(literal or (attribute, _FIELDS[field or attribute]))
    return tuple(parts)


def _regex(parts: Sequence[_Part]) -> str:
    return "".join(re.escape(p) if isinstance(p, str) else f"(?P<{p[0]}>{p[1].regex})" for p in parts)


_KEYWORD_FORMS = (
    Form("wait {microseconds:duration}", steps.Wait),
    Form("together:", steps.Together),
    Form("in any order[, the same for {same_for:clients}]:", steps.AnyOrder),
    Form("repeat {times:count}[ as {name:word}]:", steps.Repeat),
    Form("define {words}:", steps.Define),
    Form("include {path}", steps.Include),
)
# The words of faults are not reserved: a client can be called `the`, and a defined step can begin with any of them. Only
# a complete sentence of a fault is parsed as one.
_SENTENCE_FORMS = (
    Form(
        "{call:accept} fails with {error}[ {times:count} times]",
        steps.CallFails,
        listed=False,
        implied={"client": None},
    ),
    Form("{call} {client} fails with {error}[ {times:count} times]", steps.CallFails, listed=False),
    Form("{call} {client} takes {most:amount}", steps.CallTakes, listed=False),
    Form("node {node} is {fate}", steps.NodeChanges, listed=False),
    Form("the link of node {node} is {change}", steps.LinkChanges, listed=False),
    Form("the link of node {node} is delayed {microseconds:duration}", steps.LinkDelays, listed=False),
    Form("the link of node {node} is split into {size}", steps.LinkSplits, listed=False),
    Form("the clock jumps {microseconds:jump}", steps.ClockJumps, listed=False),
    Form("the server raises {error:exception}", steps.Raises, listed=False),
    Form("{client} connects[ to {endpoint}]", steps.Connects),
    Form("{client} connects to port {port:sum}", steps.ConnectsToPort),
    Form("{client} connects[ to {endpoint}] with {transport}", steps.Connects),
    Form("{client} receives nothing", steps.ReceivesNothing),
    Form("{client} receives any lines until {pattern:awaited}", steps.ReceiveUntil),
    Form("{client} receives {size:body_size} bytes[: {content}]", steps.ReceiveBody),
    Form("within {microseconds:limit}:", steps.InTime, listed=False),
    Form("either:", steps.Either, listed=False),
    Form("or:", steps.Or, listed=False),
    Form("{client} {ending}", steps.Ends),
    Form("{client} {ending:explained} with {detail}", steps.Ends),
    Form("{client} {action}", steps.Acts),
)
_NEAR_MISSES = (
    (
        re.compile(r"node \w+ is (?P<at>.+)"),
        "this cannot happen to a node",
        "killed, stopped, continued or started",
    ),
    (
        re.compile(r"the link of node \w+ is (?P<at>.+)"),
        "this cannot happen to a link",
        "cut, blocked, restored, delayed 50ms, or split into 1 byte",
    ),
    (
        re.compile(r"accepting (?P<at>\S+) (?:fails with|takes) .+"),
        "accepting concerns no client in particular",
        "accepting fails with EMFILE",
    ),
    (
        re.compile(r"(?:reading from|sending to) (?P<at>)(?:fails with|takes) .+"),
        "no client is named here",
        "the name of a client: sending to bob takes 1 byte",
    ),
    (
        re.compile(r"\S+(?P<at> )(?:>~|<~|>>|<<|>|<)(?: .*)?"),
        "a space before the arrow",
        "a> text, a< text, a>> bytes, a<< bytes, a>~ pattern or a<~ pattern",
    ),
    (
        re.compile(r"\S+ receives any lines until(?P<at>)"),
        "no line that ends it",
        "a receives any lines until PATTERN",
    ),
    (
        re.compile(r"\S+ receives (?P<at>\S+) bytes(?:: .*)?"),
        "this is not a number of bytes",
        "a receives 10 bytes   or   a receives ${size} bytes",
    ),
    (
        re.compile(r"optional (?P<at>.+)"),
        "only a line or bytes can be missing",
        "optional a< text",
    ),
)


# --- messages: the lines in which a client sends or receives ------------------------------------------------


_MESSAGES: dict[str, tuple[type, str, Field]] = {
    ">": (steps.Send, "text", _SENT),
    "<": (steps.Receive, "text", _RECEIVED),
    ">>": (steps.SendBytes, "data", _BYTES),
    "<<": (steps.ReceiveBytes, "data", _BYTES),
    ">~": (steps.SendPattern, "pattern", _pattern(_SENT, sent=True)),
    "<~": (steps.ReceivePattern, "pattern", _pattern(_RECEIVED, sent=False)),
}
_OPTIONAL = "optional "
_MESSAGE = re.compile(rf"(?P<optional>{_OPTIONAL})?(?P<client>[^\s<>]*)(?P<arrow>>~|>>|>|<~|<<|<)")
_ONE_OF = re.compile(r"one of (?P<clients>[^<>]+)(?=[<>])")
_ARROWS = {kind: arrow for arrow, (kind, _, _) in _MESSAGES.items()}


def _read_message(text: str, number: int) -> steps.Item | None:
    several = _ONE_OF.match(text)
    if several is not None:
        at = several.end("clients")
        with columns_from(several.start("clients")):
            clients = _read_clients(several["clients"], "a choice", "one of b c< text")
        if text[at] == ">":
            raise LineError(at, "which client sends is never left open", "one of b c< text")
        with columns_from(at):
            receive: Any = _read_message(text[at:], number)
        return steps.OneOf(clients, receive, line=number)
    found = _MESSAGE.match(text)
    if found is None:
        return None
    client, arrow, rest = found["client"], found["arrow"], text[found.end() :]
    kind, attribute, field = _MESSAGES[arrow]
    if found["optional"] and arrow[0] == ">":
        raise LineError(0, "a send is never optional", "what can be missing is received: optional a< text")
    if client:
        with columns_from(found.start("client")):
            check_client(client)
    if rest and not rest.startswith(" "):
        raise LineError(
            found.end(),
            f"no space after {arrow}",
            f"one space, then what is {'sent' if arrow[0] == '>' else 'received'}: {client}{arrow} text",
        )
    if rest == " ":
        raise LineError(
            found.end(), "a space at the end of the line", f"{client}{arrow} alone for an empty line"
        )
    with columns_from(found.end() + 1):
        content = field.read(rest[1:])
    optional = {"optional": True} if found["optional"] else {}
    step: steps.Item = kind(client, **{attribute: content}, **optional, line=number)
    return step


def _write_message(step: Any) -> str:
    arrow = _ARROWS[type(step)]
    _, attribute, field = _MESSAGES[arrow]
    content = field.write(getattr(step, attribute))
    head = f"{_OPTIONAL if getattr(step, 'optional', False) else ''}{step.client}{arrow}"
    return f"{head} {content}" if content else head


# --- the header ---------------------------------------------------------------------------------------------


def _read_server(value: str) -> steps.Server:
    endpoints: list[str] = []
    options: dict[str, str] = {}
    for word in value.split():
        at = value.index(word)
        key, equals, setting = word.partition("=")
        if not _WORD.fullmatch(key) or (equals and not setting):
            raise LineError(at, f"{word!r} is neither an endpoint nor an option", "a word, or key=value")
        if key in options or (not equals and key in endpoints):
            raise LineError(value.rindex(word), f"{key!r} twice", "each endpoint and each option once")
        if equals:
            options[key] = setting
        else:
            endpoints.append(key)
    return steps.Server(tuple(endpoints), options)


def _write_server(server: steps.Server) -> str:
    return " ".join((*server.endpoints, *(f"{key}={value}" for key, value in server.options.items())))


def _read_target(value: str) -> steps.TargetLine:
    kind, _, text = value.partition(" ")
    if kind not in {one.value for one in steps.TargetKind} or not text.strip():
        raise LineError(
            0, f"{value!r} does not name a target", "server COMMAND, connect HOST:PORT, or app MODULE:FACTORY"
        )
    return steps.TargetLine(steps.TargetKind(kind), text.lstrip())


def _read_needs(value: str) -> steps.Needs:
    for word in value.split():
        if not _WORD.fullmatch(word):
            raise LineError(value.index(word), f"{word!r} is not a feature", "words: virtual-time in-process")
    return steps.Needs(tuple(value.split()))


def _read_tags(value: str) -> steps.Tagged:
    tags = tuple(value.split())
    for tag in tags:
        if not _WORD.fullmatch(tag):
            raise LineError(value.index(tag), f"{tag!r} is not a tag", "words: smoke slow")
        if tags.count(tag) > 1:
            raise LineError(value.rindex(tag), f"{tag!r} twice", "each tag once")
    return steps.Tagged(tags)


def _read_unfenced(value: str) -> steps.Unfenced:
    names = tuple(value.split())
    for name in names:
        with columns_from(value.index(name)):
            _check_client_of_header(name)
        if steps.names_in(names).count(steps.client_names(name)[0]) > 1:
            raise LineError(value.rindex(name), f"{name!r} twice", "each client once")
    return steps.Unfenced(names)


def _read_eol(value: str) -> steps.LineEnd:
    try:
        return steps.LineEnd(steps.Eol(value))
    except ValueError:
        raise LineError(0, f"{value!r} is not a line end", "lf or crlf") from None


def _time_setting(kind: type) -> tuple[type, Callable[[str], steps.Setting], Callable[[Any], str]]:
    return kind, lambda value: kind(_some_time(value)), lambda setting: render_duration(setting.microseconds)


def _read_ignore(value: str) -> steps.Ignore:
    pattern = parse_pattern(value)
    for capture in pattern.captures:
        if capture.name != ANONYMOUS:
            raise LineError(
                value.index("${" + capture.name),
                "a line that is ignored binds nothing",
                "${_}, ${_:int} or ${_:/re/}",
            )
    return steps.Ignore(pattern)


_ANSWERED_BY = " -> "


def _read_reply(value: str) -> steps.Reply:
    line, arrow, answer = value.partition(_ANSWERED_BY)
    if not (arrow and line and answer):
        raise LineError(0, "a line without its answer", "reply: PING ${t} -> PONG ${t}")
    pattern = parse_pattern(line)
    with columns_from(len(line) + len(arrow)):
        said = _pattern(_SENT, sent=True).read(answer)
        known = {capture.name for capture in pattern.captures}
        for capture in said.captures:
            if capture.name not in known:
                raise LineError(
                    answer.index("${" + capture.name),
                    f"${{{capture.name}}} is not in the line that is answered",
                    f"reply: PING ${{{capture.name}}} -> PONG ${{{capture.name}}}",
                )
    return steps.Reply(pattern, said)


def _write_reply(reply: steps.Reply) -> str:
    return f"{render_pattern(reply.pattern)}{_ANSWERED_BY}{render_pattern(reply.answer)}"


def _read_factor(value: str) -> steps.TimeFactor:
    found = re.fullmatch(r"x([1-9][0-9]{0,3})", value)
    if found is None or int(found[1]) > FASTEST:
        raise LineError(0, f"{value!r} is not how many times faster time passes", f"x1 to x{FASTEST}")
    return steps.TimeFactor(int(found[1]))


FASTEST = 1000
"""How many times faster time can pass: a timeout of poll, in whole milliseconds, is then a second for the server."""
_HEADER: dict[str, tuple[type, Callable[[str], steps.Setting], Callable[[Any], str]]] = {
    "title": (steps.Title, steps.Title, lambda title: title.text),
    "tags": (steps.Tagged, _read_tags, lambda tagged: " ".join(tagged.tags)),
    "skip": (steps.Skip, steps.Skip, lambda skip: skip.reason),
    "xfail": (steps.ExpectedToFail, steps.ExpectedToFail, lambda expected: expected.reason),
    "target": (steps.TargetLine, _read_target, lambda target: f"{target.kind.value} {target.text}"),
    "server": (steps.Server, _read_server, _write_server),
    "needs": (steps.Needs, _read_needs, lambda needs: " ".join(needs.features)),
    "fence": (Fence, Fence.parse, str),
    "fence-after": (steps.FenceAfter, steps.FenceAfter, lambda after: after.beginning),
    "unfenced": (steps.Unfenced, _read_unfenced, lambda unfenced: " ".join(unfenced.clients)),
    "eol": (steps.LineEnd, _read_eol, lambda end: end.eol.value),
    "within": _time_setting(steps.Within),
    "settle": _time_setting(steps.Settle),
    "start": _time_setting(steps.Start),
    "reply": (steps.Reply, _read_reply, _write_reply),
    "ignore": (steps.Ignore, _read_ignore, lambda ignore: render_pattern(ignore.pattern)),
    "transport": (
        steps.DefaultTransport,
        lambda value: steps.DefaultTransport(_read_transport(value)),
        lambda setting: _write_transport(setting.transport),
    ),
    "time": (steps.TimeFactor, _read_factor, lambda time: f"x{time.factor}"),
}
_FOR_A_CLIENT = ("ignore", "reply")
HEADER_LINE = re.compile(
    rf"(?:[a-z][a-z_-]*|(?:{'|'.join(_FOR_A_CLIENT)}) \S+):(?!$)|(?:{'|'.join(_HEADER)}):$"
)
"""The beginning of a `key: value` line; some settings can be for one client: `ignore alice: …`."""
HEADER_KEYS = {kind: key for key, (kind, _, _) in _HEADER.items()}


def header_line(text: str, number: int = 0) -> steps.Setting:
    """The setting of one `key: value` line."""
    head, _, value = text.partition(":")
    key, _, client = head.partition(" ")
    if key not in _HEADER or (client and key not in _FOR_A_CLIENT):
        near = difflib.get_close_matches(head, _HEADER, n=1)
        known = (
            f"perhaps {near[0]}:"
            if near
            else ", ".join(f"{known}:" for known in _HEADER) + ", or a step: a> text"
        )
        raise LineError(0, f"unknown header {head!r}", known)
    if client:
        with columns_from(len(key) + 1):
            _check_client_of_header(client)
    if not value.strip():
        raise LineError(len(head) + 1, "no value", f"one space, then the value: {head}: …")
    if not value.startswith(" ") or value.startswith("  "):
        wrong = "more than one space" if value.startswith(" ") else "no space"
        raise LineError(len(head) + 1, f"{wrong} after the colon", f"one space, then the value: {head}: …")
    if value != value.rstrip():
        raise LineError(len(text.rstrip()), "white space at the end of the line", "no white space there")
    if not steps.is_literal(value):
        at = next(at for at, char in enumerate(text) if not steps.is_literal(f"{char}."))
        raise LineError(at, f"the control character U+{ord(text[at]):04X}", "visible text")
    with columns_from(len(head) + 2):
        setting = _HEADER[key][1](value[1:])
    changes: dict[str, Any] = {"line": number, **({"client": client} if client else {})}
    return dataclasses.replace(setting, **changes)


# --- reading and writing a line -----------------------------------------------------------------------------

VERBS = tuple(
    example.removeprefix("a ") for form in _SENTENCE_FORMS if form.listed for example in form.shown()
)
_HEADS = (
    "either:",
    "or:",
    "within 100ms:",
    *(example for form in _KEYWORD_FORMS for example in form.shown()),
)
KNOWN = (
    "a> text, a< text, a>> bytes, a<< bytes, a>~ pattern, a<~ pattern, optional a< text, one of a b< text, "
    "either:, or:, within 100ms:, "
    + ", ".join(f"a {verb}" for verb in VERBS)
    + ", "
    + ", ".join(example for form in _KEYWORD_FORMS for example in form.shown())
    + ", or a defined step"
)


def read_step(text: str, number: int) -> steps.Item | BlockHead:
    """The step, or the head of a block, that this line says; LineError where it says neither."""
    message = _read_message(text, number)
    if message is not None:
        return message
    if text != text.rstrip():
        raise LineError(len(text.rstrip()), "white space at the end of the line", "no white space there")
    keyword = re.split(r"[ :,]", text, maxsplit=1)[0]
    for form in _KEYWORD_FORMS if keyword in steps.RESERVED else _SENTENCE_FORMS:
        made: steps.Item | BlockHead | None = form.read(text, number)
        if made is not None:
            return made
    if keyword in steps.RESERVED:
        ways = [
            example
            for form in _KEYWORD_FORMS
            for example in form.shown()
            if re.match(rf"{keyword}\b", example)
        ]
        raise LineError(0, f"not quite `{ways[0]}`", "   or   ".join(ways))
    for regex, wrong, expected in _NEAR_MISSES:
        found = regex.fullmatch(text)
        if found is not None:
            raise LineError(found.start("at"), wrong, expected)
    if " " not in text or text.endswith(":"):
        near = difflib.get_close_matches(text, _HEADS, n=1)
        raise LineError(0, "unrecognised step", f"perhaps `{near[0]}`" if near else KNOWN)
    return steps.Call(text, line=number)


def _has_meaning(sentence: str) -> bool:
    """Whether the sentence is a step of the language, so that it cannot be defined."""
    try:
        return not isinstance(read_step(sentence, 0), steps.Call)
    except LineError:
        return True


def write_line(item: steps.Item | steps.Setting) -> str:
    """The line that says this item; of a block, its head."""
    match item:
        case steps.Comment(text):
            return f"#{text}"
        case steps.Blank():
            return ""
        case steps.Call(sentence):
            return sentence
        case steps.OneOf(clients, receive):
            return f"one of {' '.join(clients)}{_write_message(receive)}"
        case _ if type(item) in _ARROWS:
            return _write_message(item)
        case _ if type(item) in HEADER_KEYS:
            key = HEADER_KEYS[type(item)]
            client = getattr(item, "client", None)
            return f"{key}{f' {client}' if client else ''}: {_HEADER[key][2](item)}"
        case _:
            forms = (*_KEYWORD_FORMS, *_SENTENCE_FORMS)
            return next(form.write(item) for form in forms if form.accepts(item))
