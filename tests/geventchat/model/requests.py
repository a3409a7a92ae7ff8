"""The requests of clients, independent of dialects, and the names and texts that tests use. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Refusal(Enum):
    """Why a request is refused."""

    NAME_LENGTH = auto()
    NAME_INVALID = auto()
    NAME_TAKEN = auto()
    ALREADY_LOGGED_IN = auto()
    NOT_LOGGED_IN = auto()
    EMPTY_MESSAGE = auto()
    EMPTY_DIRECT_MESSAGE = auto()
    USER_NOT_FOUND = auto()
    UNKNOWN_COMMAND = auto()
    LINE_TOO_LONG = auto()
    NOT_UTF8 = auto()
    NOT_JSON = auto()
    ROOM_NAME_INVALID = auto()
    NO_SUCH_ROOM = auto()
    NOT_IN_ROOM = auto()
    ALREADY_IN_LOBBY = auto()
    TOO_MANY_ROOMS = auto()
    TOPIC_TOO_LONG = auto()
    NOT_PERMITTED = auto()
    WRONG_KEY = auto()
    INVITATION_REQUIRED = auto()
    BANNED = auto()
    MUTED = auto()
    NO_VOICE = auto()
    KEY_TOO_LONG = auto()
    NO_SUCH_MESSAGE = auto()
    INVALID_ARGUMENT = auto()
    PASSWORD_REQUIRED = auto()
    WRONG_PASSWORD = auto()
    WEAK_PASSWORD = auto()
    NAME_RESERVED = auto()
    TOO_MANY_ATTEMPTS = auto()
    MAILBOX_FULL = auto()


@dataclass(frozen=True, slots=True)
class Name:
    """A name as typed, as shown, and the key that makes it unique; or why it is not allowed."""

    typed: str
    shown: str = ""
    key: str = ""
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A text as typed, and as the others see it; empty if nothing of it is left."""

    typed: str
    shown: str


@dataclass(frozen=True, slots=True)
class Login:
    name: Name
    password: Text | None = None
    """`shown` is what it comes to; empty if no password can be like this."""


@dataclass(frozen=True, slots=True)
class Say:
    text: Text


@dataclass(frozen=True, slots=True)
class DirectMessage:
    to: Name
    text: Text


@dataclass(frozen=True, slots=True)
class Who:
    pass


@dataclass(frozen=True, slots=True)
class EnterRoom:
    room: Name
    key: str = ""


@dataclass(frozen=True, slots=True)
class LeaveRoom:
    pass


@dataclass(frozen=True, slots=True)
class ListRooms:
    pass


@dataclass(frozen=True, slots=True)
class AskTopic:
    pass


@dataclass(frozen=True, slots=True)
class SetTopic:
    topic: Text


@dataclass(frozen=True, slots=True)
class AskHistory:
    limit: int = 20
    with_ids: bool = False


class Sanction(Enum):
    """A ban or a mute: its sentence, and the word."""

    BAN = "banned"
    MUTE = "muted"


@dataclass(frozen=True, slots=True)
class Kick:
    who: Name
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Impose:
    """Without `seconds`, until it is lifted."""

    sanction: Sanction
    who: Name
    seconds: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Lift:
    sanction: Sanction
    who: Name


@dataclass(frozen=True, slots=True)
class ListBans:
    pass


@dataclass(frozen=True, slots=True)
class Invite:
    who: Name


@dataclass(frozen=True, slots=True)
class SetPrivate:
    on: bool


@dataclass(frozen=True, slots=True)
class SetKey:
    key: str


@dataclass(frozen=True, slots=True)
class SetModerated:
    on: bool


@dataclass(frozen=True, slots=True)
class SetVoice:
    who: Name
    on: bool


@dataclass(frozen=True, slots=True)
class SetModerator:
    who: Name
    on: bool


@dataclass(frozen=True, slots=True)
class PassOwnership:
    who: Name


@dataclass(frozen=True, slots=True)
class Delete:
    id: int


@dataclass(frozen=True, slots=True)
class Ignore:
    who: Name
    on: bool


@dataclass(frozen=True, slots=True)
class Register:
    password: Text


@dataclass(frozen=True, slots=True)
class ChangePassword:
    old: Text
    new: Text


@dataclass(frozen=True, slots=True)
class RevokeTokens:
    pass


@dataclass(frozen=True, slots=True)
class Misused:
    """A known command without what it needs; `usage` is how `slash` shows it."""

    usage: str


@dataclass(frozen=True, slots=True)
class Past:
    """A message of a room's history; without a text, its place."""

    id: int
    name: str
    text: str
    time_ms: int
    author: str = ""


@dataclass(frozen=True, slots=True)
class Ping:
    token: str = ""


@dataclass(frozen=True, slots=True)
class Help:
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Quit:
    pass


@dataclass(frozen=True, slots=True)
class Blank:
    """A line that asks for nothing."""


@dataclass(frozen=True, slots=True)
class UnknownCommand:
    """Reported as unknown only after login."""

    verb: str = ""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Not a request at all; reported before login too."""

    refusal: Refusal


RoomRequest = EnterRoom | LeaveRoom | ListRooms | AskTopic | SetTopic | AskHistory
OwnersRequest = (
    Kick
    | Impose
    | Lift
    | ListBans
    | SetPrivate
    | SetKey
    | SetModerated
    | SetVoice
    | SetModerator
    | PassOwnership
    | Delete
)
ModerationRequest = OwnersRequest | Invite | Ignore | Misused
Request = (
    Login
    | Say
    | DirectMessage
    | Who
    | Ping
    | Help
    | Quit
    | Blank
    | UnknownCommand
    | Malformed
    | RoomRequest
    | ModerationRequest
    | Register
    | ChangePassword
    | RevokeTokens
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it is sent, without its newline, and its request."""

    wire: bytes
    request: Request


MAX_LINE = 200
"""The line limit in generated conversations: `server: … max-line=200`."""

NAMES = (
    Name("ann", "ann", "ann"),
    Name("bob", "bob", "bob"),
    Name("Ann", "Ann", "ann"),
    Name("BOB", "BOB", "bob"),
    Name("zoë", "zoë", "zoë"),
    Name("ZOE\u0308", "ZOË", "zoë"),
    Name("ａｎｎ", "ann", "ann"),
    Name("a.b-c_1", "a.b-c_1", "a.b-c_1"),
    Name("twenty-letters-long.", "twenty-letters-long.", "twenty-letters-long."),
    Name("Straße", "Straße", "strasse"),
    Name("STRASSE", "STRASSE", "strasse"),
    # Four combining marks in a row are allowed.
    Name("q\u0323\u0324\u0325\u0331", "q\u0323\u0324\u0325\u0331", "q\u0323\u0324\u0325\u0331"),
    # Five marks as typed, of which normalising joins one with its base.
    Name(
        "s\u0323\u0324\u0325\u0331\u0323",
        "\u1e63\u0324\u0325\u0331\u0323",
        "\u1e63\u0324\u0325\u0331\u0323",
    ),
)
INVALID_NAMES = (
    Name("a/b", refusal=Refusal.NAME_INVALID),
    Name("ann!", refusal=Refusal.NAME_INVALID),
    Name("", refusal=Refusal.NAME_LENGTH),
    Name("twenty-one-letters-it", refusal=Refusal.NAME_LENGTH),
    Name("a\u202eb", refusal=Refusal.NAME_INVALID),
    Name("a b", refusal=Refusal.NAME_INVALID),
    # Three marks as typed, six when normalised.
    Name("q\u0344\u0344\u0344", refusal=Refusal.NAME_INVALID),
    Name("x" * 81, refusal=Refusal.NAME_LENGTH),
    # Texts lose invisible characters and stacked marks; names are refused for them.
    Name("a\u200bnn", refusal=Refusal.NAME_INVALID),
    Name("q\u0323\u0324\u0325\u0331\u0323", refusal=Refusal.NAME_INVALID),
)
ROOMS = (
    Name("lobby", "lobby", "lobby"),
    Name("#LOBBY", "LOBBY", "lobby"),
    Name("dev", "dev", "dev"),
    Name("#Dev", "Dev", "dev"),
    Name("Straße", "Straße", "strasse"),
    Name("#STRASSE", "STRASSE", "strasse"),
    Name("ｄｅｖ", "dev", "dev"),
    Name(
        "thirty-two-letters-make-a-long-1",
        "thirty-two-letters-make-a-long-1",
        "thirty-two-letters-make-a-long-1",
    ),
)
INVALID_ROOMS = tuple(
    Name(typed, refusal=Refusal.ROOM_NAME_INVALID)
    for typed in ("", "#", "##dev", "a/b", "thirty-three-letters-are-too-many", "a\u200bb", "x" * 129)
)
MAX_ROOMS = 3
"""The limit on rooms in generated conversations: `server: … max-rooms=3`."""
MAX_OWNED = 1
"""How many rooms one client can own in them: `server: … max-rooms-per-client=1`."""
EMPTY_ROOM_MS = 600_000
INVITATION_MS = 7 * 86_400_000
MAX_KEY = 64
MAX_TOPIC = 300
MAX_PAGE = 200

TEXTS = (
    Text("hi", "hi"),
    Text("", ""),
    Text("two  words", "two  words"),
    Text("/quit", "/quit"),
    Text("a\tb", "a b"),
    Text("bell \x07 rings", "bell \ufffd rings"),
    Text("\u202eevil", "\ufffdevil"),
    Text("\U0001f469\u200d\U0001f680 flies", "\U0001f469\u200d\U0001f680 flies"),
    Text("  padded ", "padded"),
    Text('"quoted" \\ {}', '"quoted" \\ {}'),
    Text("nel \x85 here", "nel \ufffd here"),
    Text("zero\u200bwidth", "zerowidth"),
    Text("\u2060\ufeff", ""),
    Text("za\u0301\u0302\u0303\u0304\u0305\u0306lgo", "za\u0301\u0302\u0303\u0304lgo"),
    Text("left\u200eright", "leftright"),
    Text("\u05e9\u05dc\u05d5\u05dd\u200e!", "\u05e9\u05dc\u05d5\u05dd\u200e!"),
)
# As typed into a login: what is not shown does not count, and a character can be typed in several ways.
PASSWORDS = (
    Text("first-password", "first-password"),
    Text(" first-\u200bpassword ", "first-password"),
    Text("caf\u00e9-au-lait", "caf\u00e9-au-lait"),
    Text("cafe\u0301-au-lait", "caf\u00e9-au-lait"),
    Text("another-password", "another-password"),
    Text("seven77", ""),
)
MAX_MAIL_OF_SENDER = 10
MAIL_MS = 30 * 86_400_000
NOT_UTF8 = b"caf\xe9"
