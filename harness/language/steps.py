"""Everything a transcript can say, as frozen data.

Pure values: this module knows no layout of text (see parsing and rendering), no sockets and no clock, so that
a Script can be made by hand, by a generator of conversations, by the recorder or by the parser.
"""

from __future__ import annotations

import enum
import errno
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from harness.language.header import Eol as Eol
from harness.language.header import FenceLine as FenceLine
from harness.language.header import LineEnd as LineEnd
from harness.language.header import Needs as Needs
from harness.language.header import Server as Server
from harness.language.header import Setting as Setting
from harness.language.header import Title as Title
from harness.language.header import Within as Within
from harness.language.header import no_line
from harness.language.patterns import Pattern

NAME = re.compile(r"[^\W\d]\w*(?:[.-]\w+)*")
PARAMETER = re.compile(r"[A-Z][A-Z0-9_]*")
RESERVED = frozenset({"wait", "together", "repeat", "define", "include", "in"})


def is_literal(text: str) -> bool:
    """True when the text can stand on a line of a transcript: nothing in it is invisible."""
    return text == text.rstrip() and not any(unicodedata.category(c) in ("Cc", "Cs") for c in text)


class ConnectionAction(enum.Enum):
    """What a client does to its connection."""

    CLOSES = "closes"
    HALF_CLOSES = "half-closes"
    ABORTS = "aborts"
    STOPS_READING = "stops reading"
    READS_AGAIN = "reads again"
    VANISHES = "vanishes"


class SocketCall(enum.Enum):
    """What a server does with its sockets that may go wrong."""

    ACCEPT = "accepting"
    READ = "reading from"
    SEND = "sending to"


class Ending(enum.Enum):
    """How a script says that a connection ended."""

    REFUSED = "is refused"
    CLOSED = "is closed"
    RESET = "is reset"
    DISCONNECTED = "is disconnected"


# --- things done ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connects:
    client: str
    endpoint: str | None = None
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class Send:
    client: str
    text: str
    line: int = no_line()

    def __post_init__(self) -> None:
        _require_literal(self.text, "SendBytes")


@dataclass(frozen=True, slots=True)
class SendBytes:
    client: str
    data: bytes
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class SendPattern:
    client: str
    pattern: Pattern
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class Acts:
    client: str
    action: ConnectionAction
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class Wait:
    microseconds: int
    line: int = no_line()

    @property
    def seconds(self) -> float:
        return self.microseconds / 1_000_000


# --- faults: what the world does to a server of this process ----------------------------------------


@dataclass(frozen=True, slots=True)
class CallFails:
    """The server's next calls of this kind fail. Accepting is for no client in particular, the others for one."""

    call: SocketCall
    client: str | None
    error: str
    times: int = 1
    line: int = no_line()

    def __post_init__(self) -> None:
        if (self.client is None) is not (self.call is SocketCall.ACCEPT):
            raise ValueError(f"{self.call.value} needs {'no' if self.client else 'a'} client")
        if self.error not in errno.errorcode.values() or self.times < 1:
            raise ValueError(f"{self.error} {self.times} times is no way to fail")


@dataclass(frozen=True, slots=True)
class CallTakes:
    """From here on the server's calls take so many bytes at most; None: as many as there are, as ever."""

    call: SocketCall
    client: str
    most: int | None
    line: int = no_line()

    def __post_init__(self) -> None:
        if self.call is SocketCall.ACCEPT or (self.most is not None and self.most < 0):
            raise ValueError(f"{self.call.value} cannot take {self.most} bytes")


@dataclass(frozen=True, slots=True)
class ClockJumps:
    """The time of day is set to another one, back where it is below zero. How long things take is as ever."""

    microseconds: int
    line: int = no_line()


# --- things received ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Receive:
    """A line heard. In `in any order, the same for b c:` an empty client stands for each of those."""

    client: str
    text: str
    line: int = no_line()

    def __post_init__(self) -> None:
        _require_literal(self.text, "ReceiveBytes")


@dataclass(frozen=True, slots=True)
class ReceiveBytes:
    client: str
    data: bytes
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class ReceivePattern:
    client: str
    pattern: Pattern
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class ReceivesNothing:
    client: str
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class Ends:
    client: str
    ending: Ending
    line: int = no_line()


# --- things made of others ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comment:
    """A line of its own that begins with #; the text is everything after it."""

    text: str
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class Blank:
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class Together:
    body: tuple[TogetherItem, ...]
    line: int = no_line()

    def __post_init__(self) -> None:
        _require_steps(self.body)


@dataclass(frozen=True, slots=True)
class AnyOrder:
    body: tuple[AnyOrderItem, ...]
    same_for: tuple[str, ...] = ()
    line: int = no_line()

    def __post_init__(self) -> None:
        _require_steps(self.body)


@dataclass(frozen=True, slots=True)
class Repeat:
    times: int
    body: tuple[Step, ...]
    name: str | None = None
    line: int = no_line()

    def __post_init__(self) -> None:
        _require_steps(self.body)


@dataclass(frozen=True, slots=True)
class Define:
    """A verb of one's own; the words in capitals of its head are parameters."""

    words: tuple[str, ...]
    body: tuple[Step, ...]
    line: int = no_line()

    def __post_init__(self) -> None:
        _require_steps(self.body)

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(word for word in self.words if PARAMETER.fullmatch(word))


@dataclass(frozen=True, slots=True)
class Call:
    """A sentence that some `define` explains."""

    sentence: str
    line: int = no_line()


@dataclass(frozen=True, slots=True)
class Include:
    """Another file's definitions and headers; `script` is that file once it was read."""

    path: str
    script: Script | None = field(default=None, compare=False, repr=False)
    line: int = no_line()


Layout = Comment | Blank
Sending = Send | SendBytes | SendPattern
Receiving = Receive | ReceiveBytes | ReceivePattern
ActionStep = (
    Connects | Send | SendBytes | SendPattern | Acts | Wait | Together | CallFails | CallTakes | ClockJumps
)
ExpectationStep = Receive | ReceiveBytes | ReceivePattern | ReceivesNothing | Ends | AnyOrder
TogetherItem = Send | SendBytes | SendPattern | Comment | Blank
AnyOrderItem = Receive | ReceiveBytes | ReceivePattern | Comment | Blank
Step = ActionStep | ExpectationStep | Repeat | Call | Comment | Blank
Item = Step | Define | Include

SENDING = (Send, SendBytes, SendPattern)
RECEIVING = (Receive, ReceiveBytes, ReceivePattern)
FAULTS = (CallFails, CallTakes, ClockJumps)

AnySetting = TypeVar("AnySetting", Title, Server, Needs, FenceLine, LineEnd, Within)


@dataclass(frozen=True, slots=True)
class Script:
    """One transcript: its header, then what happens. Comments and blank lines are part of both."""

    header: tuple[Setting | Layout, ...] = ()
    body: tuple[Item, ...] = ()
    file: str = field(default="<script>", compare=False)
    source: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        settings = [item for item in self.header if not isinstance(item, (Comment, Blank))]
        if self.header and not settings:
            raise ValueError("a header needs a setting; comments alone belong to the body")
        if settings:
            first = self.header.index(settings[0])
            if any(isinstance(item, Blank) for item in self.header[first:]):
                raise ValueError("a blank line ends the header, so it cannot stand inside it")

    @property
    def title(self) -> str | None:
        found = self.setting(Title)
        return found.text if found else None

    def setting(self, kind: type[AnySetting]) -> AnySetting | None:
        """The script's own setting of this kind, or that of the first included file which has one."""
        for item in self.header:
            if isinstance(item, kind):
                return item
        if kind is Title:
            return None  # a title names one script; an included file's is its own
        for included in self.included():
            found = included.setting(kind)
            if found is not None:
                return found
        return None

    def included(self) -> Iterator[Script]:
        for item in self.body:
            if isinstance(item, Include) and item.script is not None:
                yield item.script


def as_send(client: str, line: bytes, eol: bytes = b"\n") -> Send | SendBytes:
    """The step that sends exactly these bytes: a literal line where that is possible, bytes elsewhere."""
    text = _literal_line(line, eol)
    return SendBytes(client, line) if text is None else Send(client, text)


def as_receive(client: str, line: bytes, eol: bytes = b"\n") -> Receive | ReceiveBytes:
    """The step that expects exactly these bytes: a literal line where that is possible, bytes elsewhere."""
    text = _literal_line(line, eol)
    return ReceiveBytes(client, line) if text is None else Receive(client, text)


def _literal_line(line: bytes, eol: bytes) -> str | None:
    if not line.endswith(eol):
        return None
    try:
        text = line[: -len(eol)].decode()
    except UnicodeDecodeError:
        return None
    return text if is_literal(text) else None


def _require_literal(text: str, instead: str) -> None:
    if not is_literal(text):
        raise ValueError(
            f"{text!r} cannot be a literal line (control character or white space at its end); use {instead}"
        )


def _require_steps(body: tuple[object, ...]) -> None:
    if all(isinstance(item, (Comment, Blank)) for item in body):
        raise ValueError("a block needs at least one step")
    if isinstance(body[-1], Blank):
        raise ValueError("a blank line at the end of a block belongs after the block")
