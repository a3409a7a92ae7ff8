"""The commands of a client, as values. Does not know how a dialect spells them.

A room is given as it was typed; an empty one means the room that the client is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from geventchat.chat.passwords import Secret


class ParseError(Enum):
    """Why a line is not a command."""

    TOO_LONG = auto()
    NOT_UTF8 = auto()
    NOT_JSON = auto()
    INVALID_FIELD = auto()
    UNKNOWN_COMMAND = auto()
    # The command is known; `subject` is how it is used.
    INVALID_ARGUMENT = auto()


class Sanction(Enum):
    """A ban keeps a person out, a mute keeps it silent; the value is the word of the command."""

    BAN = "ban"
    MUTE = "mute"


@dataclass(frozen=True, slots=True)
class Login:
    """Enter the chat under this name, as typed; the chat decides whether the name is allowed.

    With `rooms` the client is in exactly these, and can be in many; without, it is in one at a time, in the lobby first.
    `epoch` is that of the ids which the client has seen. `password` is the password of the account or one of its tokens.
    """

    name: str
    rooms: Sequence[EnterRoom] | None = None
    epoch: str = ""
    password: Secret | None = None


@dataclass(frozen=True, slots=True)
class Say:
    """Say these texts, one after the other, to everyone in the room. The chat refuses an empty text.

    A text with a key is not said again when it is sent again. `confirm`: tell the client its id.
    """

    texts: Sequence[str]
    room: str = ""
    message_key: str = ""
    confirm: bool = False


@dataclass(frozen=True, slots=True)
class SendDirectMessage:
    """Send a text to one person. The chat refuses an empty name or text. With a key and `confirm` as with `Say`."""

    to: str
    text: str
    message_key: str = ""
    confirm: bool = False


@dataclass(frozen=True, slots=True)
class Who:
    """List the people in the room. A client that can be in many rooms gets a page: those behind the name `after`."""

    room: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class EnterRoom:
    """Enter a room. A client that can be in one room at a time leaves the one it is in.

    `after` is the id of the last message that it has seen there; None for live messages only.
    """

    room: str
    room_key: str = ""
    after: int | None = None


@dataclass(frozen=True, slots=True)
class LeaveRoom:
    """Leave a room. A client that can be in one room at a time is in the lobby then."""

    room: str = ""


@dataclass(frozen=True, slots=True)
class ListRooms:
    """List the rooms that the client can see."""


@dataclass(frozen=True, slots=True)
class AskTopic:
    """Ask for the topic of a room."""

    room: str = ""


@dataclass(frozen=True, slots=True)
class SetTopic:
    """Change the room's topic; an empty one removes it."""

    topic: str
    room: str = ""


@dataclass(frozen=True, slots=True)
class AskHistory:
    """List the latest messages of the room, or of those before this id the latest; at most this many."""

    limit: int
    before: int | None = None
    room: str = ""
    # Show the ids, in a dialect that otherwise does not.
    with_ids: bool = False


@dataclass(frozen=True, slots=True)
class AnnounceTyping:
    """Tell the others in the room that the client is writing something."""

    room: str = ""


@dataclass(frozen=True, slots=True)
class Kick:
    """Remove someone from the room; in the lobby, from the server."""

    who: str
    reason: str = ""
    room: str = ""


@dataclass(frozen=True, slots=True)
class Impose:
    """Ban or mute someone in the room; in the lobby, on the server.

    `seconds` is at least 1; None means until it is lifted. Operators can name `name:NAME`, `account:NAME`, an address or a
    range of addresses instead of a person.
    """

    sanction: Sanction
    who: str
    seconds: int | None = None
    reason: str = ""
    room: str = ""


@dataclass(frozen=True, slots=True)
class Lift:
    """Lift a ban or a mute."""

    sanction: Sanction
    who: str
    room: str = ""


@dataclass(frozen=True, slots=True)
class ListBans:
    """List the bans of the room; in the lobby, those of the server.

    A client that can be in many rooms gets a page: those behind the ban that is listed as `after`.
    """

    room: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Invite:
    """Invite someone to the room."""

    who: str
    room: str = ""


@dataclass(frozen=True, slots=True)
class SetPrivate:
    """List the room no longer and let only people in who are invited or have the key; or the opposite."""

    on: bool
    room: str = ""


@dataclass(frozen=True, slots=True)
class SetKey:
    """Require a key for entering; an empty one removes it."""

    room_key: str
    room: str = ""


@dataclass(frozen=True, slots=True)
class SetModerated:
    """Let only people with voice speak, or everyone."""

    on: bool
    room: str = ""


@dataclass(frozen=True, slots=True)
class SetVoice:
    """Give someone voice, or take it away."""

    who: str
    on: bool
    room: str = ""


@dataclass(frozen=True, slots=True)
class SetModerator:
    """Make someone with an account a moderator of the room, or no longer."""

    who: str
    on: bool
    room: str = ""


@dataclass(frozen=True, slots=True)
class PassOwnership:
    """Let someone else own the room."""

    who: str
    room: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the text of a message in the room; its place stays."""

    id: int
    room: str = ""


@dataclass(frozen=True, slots=True)
class Ignore:
    """Hear nothing that someone writes any more, or hear it again."""

    who: str
    on: bool


@dataclass(frozen=True, slots=True)
class Register:
    """Reserve the name that the client is using."""

    password: Secret


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """Change the password of the client's account."""

    old: Secret
    new: Secret


@dataclass(frozen=True, slots=True)
class AskToken:
    """Make a token, which can be used in place of the password."""


@dataclass(frozen=True, slots=True)
class RevokeTokens:
    """Make a token of the client's account useless, or without one all of them."""

    token: Secret | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """Say a text in a room for the account with this token, which need not be logged in. With a key as with `Say`."""

    token: Secret | None
    text: str
    room: str
    message_key: str = ""


@dataclass(frozen=True, slots=True)
class ReadMessages:
    """List messages of a room for the account with this token: the first ones behind the id `after`, or the latest ones."""

    token: Secret | None
    limit: int
    room: str
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a Pong with the same token."""

    token: str


@dataclass(frozen=True, slots=True)
class Help:
    """List the commands; `everything` asks for those that a short list leaves out, where a dialect has two."""

    everything: bool = False


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave."""


@dataclass(frozen=True, slots=True)
class InvalidCommand:
    """A line that is not a command. The client is sent an error and stays."""

    error: ParseError
    subject: str = ""


RoomCommand = EnterRoom | LeaveRoom | ListRooms | AskTopic | SetTopic | AskHistory | AnnounceTyping
ModerationCommand = (
    Kick
    | Impose
    | Lift
    | ListBans
    | Invite
    | SetPrivate
    | SetKey
    | SetModerated
    | SetVoice
    | SetModerator
    | PassOwnership
    | Delete
)
AccountCommand = Register | ChangePassword | AskToken | RevokeTokens
# Commands that need no login.
VisitCommand = Post | ReadMessages
Command = (
    Login
    | Say
    | SendDirectMessage
    | Who
    | Ping
    | Help
    | Quit
    | RoomCommand
    | ModerationCommand
    | AccountCommand
    | VisitCommand
    | Ignore
    | InvalidCommand
)
