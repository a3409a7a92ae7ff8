"""The contents of a transcript, as frozen data: header settings, steps and the script itself.

Pure values. The text of each is in `forms`. The recorder and generators build scripts from these values directly.

- `line` is the line of the item in its file, or 0. Comparisons ignore it.
- A block has at least one step, and no blank line at its end.
- A literal (`Send`, `Receive`) holds only visible text: no control characters, no white space at its end.
"""

from __future__ import annotations

import enum
import errno
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from harness.language.fences import Fence
from harness.language.patterns import Pattern

NAME = re.compile(r"[^\W\d]\w*(?:[.-]\w+)*")
PARAMETER = re.compile(r"[A-Z][A-Z0-9_]*")
RESERVED = frozenset({"wait", "together", "repeat", "define", "include", "in"})


MOST_IN_A_RANGE = 1000
_RANGE = re.compile(r"(?P<stem>\S*?)(?P<first>[0-9]+)\.\.(?P<again>\S*?)(?P<last>[0-9]+)")
COUNTER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""In the name of a client: a counter of a `repeat`, or a parameter."""


def client_names(client: str) -> tuple[str, ...]:
    """`c1..c3` as the three names; any other name as itself, and so is a range whose counters have no values yet. ValueError,
    with the reason, for a range that is none."""
    if ".." not in client or COUNTER.search(client):
        return (client,)
    found = _RANGE.fullmatch(client)
    if found is None or found["stem"] != found["again"]:
        raise ValueError(f"{client!r} is not a range of clients")
    first, last = int(found["first"]), int(found["last"])
    if last < first:
        raise ValueError(f"{client} is an empty range")
    if last - first >= MOST_IN_A_RANGE:
        raise ValueError(f"{client} names more than {MOST_IN_A_RANGE} clients")
    digits = len(found["first"]) if found["first"].startswith("0") else 1
    return tuple(f"{found['stem']}{number:0{digits}}" for number in range(first, last + 1))


def names_in(clients: Iterable[str]) -> tuple[str, ...]:
    """All names of a list of clients, in which ranges can stand."""
    return tuple(name for client in clients for name in client_names(client))


_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of surrogate pairs, which stand for bytes that are not UTF-8."""


def is_literal(text: str) -> bool:
    """True when the text can be written on a line of a transcript as it is."""
    return text == text.rstrip() and _INVISIBLE.search(text) is None


@dataclass(frozen=True, slots=True)
class _InFile:
    line: int = field(default=0, compare=False, kw_only=True, repr=False)


class Eol(enum.Enum):
    """The line end on the wire."""

    LF = "lf"
    CRLF = "crlf"

    @property
    def wire(self) -> bytes:
        return b"\n" if self is Eol.LF else b"\r\n"


class ConnectionAction(enum.Enum):
    """Actions of a client on its connection."""

    CLOSES = "closes"
    HALF_CLOSES = "half-closes"
    ABORTS = "aborts"
    STOPS_READING = "stops reading"
    READS_AGAIN = "reads again"
    VANISHES = "vanishes"


class SocketCall(enum.Enum):
    """A call on the server's sockets that can fail."""

    ACCEPT = "accepting"
    READ = "reading from"
    SEND = "sending to"


class NodeFate(enum.Enum):
    """An event of a process of the target."""

    KILLED = "killed"
    STOPPED = "stopped"
    CONTINUED = "continued"
    STARTED = "started"


class LinkChange(enum.Enum):
    """A change of the whole link of a node."""

    CUT = "cut"
    """Its connections are reset, and each new one is closed."""
    BLOCKED = "blocked"
    """Nothing passes, and no connection ends."""
    RESTORED = "restored"


class Ending(enum.Enum):
    """How a script says that a connection ended."""

    REFUSED = "is refused"
    CLOSED = "is closed"
    RESET = "is reset"
    DISCONNECTED = "is disconnected"


@dataclass(frozen=True, slots=True)
class Transport:
    """The layers of a connection: TCP or a Unix socket, and perhaps TLS, a WebSocket, or both."""

    tls: bool = False
    websocket: bool = False
    path: str = "/"
    """Of the WebSocket, with its query."""


# --- header settings ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Title(_InFile):
    text: str


@dataclass(frozen=True, slots=True)
class Server(_InFile):
    """The endpoints and options that the script requires of its server."""

    endpoints: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


class TargetKind(enum.Enum):
    """How a target is named, as the options of the command line name it."""

    SERVER = "server"
    CONNECT = "connect"
    APP = "app"


@dataclass(frozen=True, slots=True)
class TargetLine(_InFile):
    """The server that the script is played against where the options name none."""

    kind: TargetKind
    text: str


@dataclass(frozen=True, slots=True)
class Tagged(_InFile):
    """The words by which scripts are selected."""

    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Skip(_InFile):
    """Why the script is not played."""

    reason: str


@dataclass(frozen=True, slots=True)
class ExpectedToFail(_InFile):
    """Why it is known that the script fails."""

    reason: str


@dataclass(frozen=True, slots=True)
class Needs(_InFile):
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FenceAfter(_InFile):
    """How the line begins that a client sends before it is asked a fence line."""

    beginning: str


@dataclass(frozen=True, slots=True)
class Unfenced(_InFile):
    """The clients that are never asked a fence line."""

    clients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LineEnd(_InFile):
    eol: Eol


@dataclass(frozen=True, slots=True)
class Within(_InFile):
    """How long a single operation can take, in real time."""

    microseconds: int


@dataclass(frozen=True, slots=True)
class Settle(_InFile):
    """How long nothing must come before a server counts as quiet, in real time."""

    microseconds: int


@dataclass(frozen=True, slots=True)
class Start(_InFile):
    """How long the server can take until it listens, in real time."""

    microseconds: int


@dataclass(frozen=True, slots=True)
class Ignore(_InFile):
    """Lines that are as if they had never come: to this client, or to all of them. There can be any number of these."""

    pattern: Pattern
    client: str | None = None


@dataclass(frozen=True, slots=True)
class Reply(_InFile):
    """Lines that this client, or each, answers by itself; the script need not expect them. There can be any number of these."""

    pattern: Pattern
    answer: Pattern
    client: str | None = None


@dataclass(frozen=True, slots=True)
class TimeFactor(_InFile):
    """How many times faster than real time the time of a server command passes."""

    factor: int


@dataclass(frozen=True, slots=True)
class DefaultTransport(_InFile):
    """The transport of connections whose step does not name one."""

    transport: Transport


# --- actions ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connects(_InFile):
    client: str
    endpoint: str | None = None
    transport: Transport | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a sum: a number or the value of a capture, times a factor."""

    value: int | str
    times: int = 1


@dataclass(frozen=True, slots=True)
class ConnectsToPort(_InFile):
    """Connects to the server's host, at the port that this sum is."""

    client: str
    port: tuple[Term, ...]

    @property
    def names(self) -> frozenset[str]:
        """The captures that it needs."""
        return frozenset(term.value for term in self.port if isinstance(term.value, str))


@dataclass(frozen=True, slots=True)
class Send(_InFile):
    client: str
    text: str

    def __post_init__(self) -> None:
        _require_literal(self.text, "SendBytes")


@dataclass(frozen=True, slots=True)
class SendBytes(_InFile):
    client: str
    data: bytes


@dataclass(frozen=True, slots=True)
class SendPattern(_InFile):
    client: str
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Acts(_InFile):
    """A client does something to its connection."""

    client: str
    action: ConnectionAction


@dataclass(frozen=True, slots=True)
class Wait(_InFile):
    microseconds: int


@dataclass(frozen=True, slots=True)
class CallFails(_InFile):
    """The server's next calls of this kind fail. Only accepting has no client."""

    call: SocketCall
    client: str | None
    error: str
    times: int = 1

    def __post_init__(self) -> None:
        if (self.client is None) is not (self.call is SocketCall.ACCEPT):
            raise ValueError(f"{self.call.value} takes {'no' if self.client else 'a'} client")
        if self.error not in errno.errorcode.values() or self.times < 1:
            raise ValueError(f"a call cannot fail with {self.error} {self.times} times")


@dataclass(frozen=True, slots=True)
class CallTakes(_InFile):
    """From here on the server's calls take at most this many bytes each; None lifts the limit."""

    call: SocketCall
    client: str
    most: int | None

    def __post_init__(self) -> None:
        if self.call is SocketCall.ACCEPT or (self.most is not None and self.most < 0):
            raise ValueError(f"{self.call.value} cannot take {self.most} bytes")


@dataclass(frozen=True, slots=True)
class ClockJumps(_InFile):
    """The time of day is set forward, or back where this is negative; measured time is not affected."""

    microseconds: int


@dataclass(frozen=True, slots=True)
class NodeChanges(_InFile):
    node: str
    fate: NodeFate


@dataclass(frozen=True, slots=True)
class LinkChanges(_InFile):
    node: str
    change: LinkChange


@dataclass(frozen=True, slots=True)
class LinkDelays(_InFile):
    """Everything that arrives at the link from here on is passed on that much later."""

    node: str
    microseconds: int


@dataclass(frozen=True, slots=True)
class LinkSplits(_InFile):
    """Everything that arrives at the link from here on is passed on in pieces of at most this size."""

    node: str
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"nothing can be split into pieces of {self.size} bytes")


# --- expectations -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Receive(_InFile):
    """A line received. In `in any order, the same for b c:` an empty client means each of them."""

    client: str
    text: str
    optional: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        _require_literal(self.text, "ReceiveBytes")


@dataclass(frozen=True, slots=True)
class ReceiveBytes(_InFile):
    client: str
    data: bytes
    optional: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class ReceivePattern(_InFile):
    client: str
    pattern: Pattern
    optional: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class ReceiveUntil(_InFile):
    """Any lines, up to and including the first that matches."""

    client: str
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class ReceiveBody(_InFile):
    """A number of bytes, given or captured, with any content or this one. It does not include a line end."""

    client: str
    size: int | str
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class OneOf(_InFile):
    """Exactly one of these clients receives this, the others do not; the client of the receive is empty."""

    clients: tuple[str, ...]
    receive: ReceivingOne


@dataclass(frozen=True, slots=True)
class ReceivesNothing(_InFile):
    client: str


@dataclass(frozen=True, slots=True)
class Ends(_InFile):
    client: str
    ending: Ending
    detail: str = ""
    """The code and the reason of a WebSocket's end, or the status with which a handshake was refused."""


@dataclass(frozen=True, slots=True)
class Raises(_InFile):
    """The server's own code raises an exception of this class and does not handle it."""

    error: str


# --- layout, blocks, definitions ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comment(_InFile):
    """A whole line that begins with #; the text is everything after it."""

    text: str


@dataclass(frozen=True, slots=True)
class Blank(_InFile):
    pass


@dataclass(frozen=True, slots=True)
class Together(_InFile):
    body: tuple[TogetherItem, ...]

    def __post_init__(self) -> None:
        _require_steps(self.body)


@dataclass(frozen=True, slots=True)
class AnyOrder(_InFile):
    body: tuple[AnyOrderItem, ...]
    same_for: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_steps(self.body)


@dataclass(frozen=True, slots=True)
class Either(_InFile):
    """The first of several ways in which a turn can go; those after it are each an `Or`."""

    body: tuple[WayItem, ...]

    def __post_init__(self) -> None:
        _require_steps(self.body)


@dataclass(frozen=True, slots=True)
class Or(_InFile):
    """Another way than the `Either` or `Or` that it follows."""

    body: tuple[WayItem, ...]

    def __post_init__(self) -> None:
        _require_steps(self.body)


@dataclass(frozen=True, slots=True)
class InTime(_InFile):
    """Each of these arrives within this time of the turn's only action."""

    microseconds: int
    body: tuple[TimedItem, ...]

    def __post_init__(self) -> None:
        _require_steps(self.body)


@dataclass(frozen=True, slots=True)
class Repeat(_InFile):
    times: int
    body: tuple[Step, ...]
    name: str | None = None

    def __post_init__(self) -> None:
        _require_steps(self.body)


@dataclass(frozen=True, slots=True)
class Define(_InFile):
    """A step that the script defines itself; the words in capitals of its head are parameters."""

    words: tuple[str, ...]
    body: tuple[Step, ...]

    def __post_init__(self) -> None:
        _require_steps(self.body)

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(word for word in self.words if PARAMETER.fullmatch(word))


@dataclass(frozen=True, slots=True)
class Call(_InFile):
    """A sentence that a `define` explains."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Include(_InFile):
    """Another file's definitions and headers; `script` is that file once it has been read."""

    path: str
    script: Script | None = field(default=None, compare=False, repr=False)


# The one list of each kind: `isinstance` takes these unions, and `get_args` lists their members.
Rule = Ignore | Reply
Setting = (
    Title
    | Tagged
    | Skip
    | ExpectedToFail
    | TargetLine
    | Server
    | Needs
    | Fence
    | FenceAfter
    | Unfenced
    | LineEnd
    | Within
    | Settle
    | Start
    | TimeFactor
    | DefaultTransport
    | Rule
)
OF_ONE_SCRIPT = (Title, Skip, ExpectedToFail)
"""The settings of an included file that are for that file alone."""

Layout = Comment | Blank
Sending = Send | SendBytes | SendPattern
ReceivingOne = Receive | ReceiveBytes | ReceivePattern
Receiving = ReceivingOne | ReceiveUntil | ReceiveBody
Fault = CallFails | CallTakes | ClockJumps
Way = Either | Or
LinkStep = LinkChanges | LinkDelays | LinkSplits
NodeStep = NodeChanges | LinkStep
ActionStep = Connects | ConnectsToPort | Sending | Acts | Wait | Together | Fault | NodeStep
ExpectationStep = Receiving | ReceivesNothing | Ends | Raises | AnyOrder | Way | InTime
TogetherItem = Sending | Layout
AnyOrderItem = ReceivingOne | Layout
InOneWay = Receiving | ReceivesNothing | Ends
"""The expectations that a way of `either:` can have."""
WayItem = InOneWay | Layout
TimedItem = Receiving | Layout
PlainStep = ActionStep | ExpectationStep
Step = PlainStep | OneOf | Repeat | Call | Layout
Item = Step | Define | Include
Block = Together | AnyOrder | Way | InTime | Repeat | Define

AnySetting = TypeVar("AnySetting", bound=Setting)


@dataclass(frozen=True, slots=True)
class Script:
    """One transcript: its header, then its steps. Comments and blank lines are part of both."""

    header: tuple[Setting | Layout, ...] = ()
    body: tuple[Item, ...] = ()
    file: str = field(default="<script>", compare=False)
    source: tuple[str, ...] = field(default=(), compare=False, repr=False)
    included: tuple[Script, ...] = field(init=False, compare=False, repr=False)
    """The scripts that it includes itself."""

    def __post_init__(self) -> None:
        included = (item.script for item in self.body if isinstance(item, Include))
        object.__setattr__(self, "included", tuple(script for script in included if script is not None))
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
        """The script's own setting of this kind, or else that of the first included file which has one."""
        for item in self.header:
            if isinstance(item, kind):
                return item
        if kind in OF_ONE_SCRIPT:
            return None
        for included in self.included:
            found = included.setting(kind)
            if found is not None:
                return found
        return None

    def rules(self) -> Iterator[tuple[Ignore | Reply, Script]]:
        """The rules for lines that need not be expected, of this script and then of those that it includes, each with the
        script that has it."""
        yield from ((item, self) for item in self.header if isinstance(item, Rule))
        for included in self.included:
            yield from included.rules()


def as_receive(client: str, line: bytes, eol: bytes = b"\n") -> Receive | ReceiveBytes:
    """The step that expects exactly these bytes: a literal line where possible, bytes elsewhere."""
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
