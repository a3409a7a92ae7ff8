"""The events that clients receive, as values. Does not know how a dialect spells them.

`Broadcast` events go to everyone in a room and are encoded once for all who share an encoding. `PrivateEvent`s are
for one client. A `Message` is what someone wrote, to a room or to one person. `Observed` is what the program that the chat
is part of can learn. Times are milliseconds since 1970. Message ids count per room.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from geventchat.chat.commands import ParseError
from geventchat.chat.passwords import Secret


@dataclass(frozen=True, slots=True)
class Joined:
    """Someone entered the room."""

    room: str
    name: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Said:
    """Someone said one text, or several in a row with nothing in between.

    The texts have consecutive ids, beginning with `first_id`.
    """

    room: str
    name: str
    texts: Sequence[str]
    first_id: int
    time_ms: int


class Departure(Enum):
    """How someone left a room."""

    DISCONNECTED = auto()
    LEFT = auto()
    # By someone else. That one is the author of the event.
    KICKED = auto()


@dataclass(frozen=True, slots=True)
class Left:
    """Someone left the room."""

    room: str
    name: str
    time_ms: int
    how: Departure = Departure.DISCONNECTED


@dataclass(frozen=True, slots=True)
class TopicChanged:
    """Someone changed the topic of the room; an empty one is none."""

    room: str
    name: str
    topic: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Typing:
    """Someone in the room is writing something."""

    room: str
    name: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Greeting:
    """The operator's greeting for each client that connects."""

    text: str


@dataclass(frozen=True, slots=True)
class MessageDeleted:
    """The text of a message is gone."""

    room: str
    id: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Announcement:
    """An announcement by the operator to all logged-in users, whatever rooms they are in."""

    text: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """Your login succeeded. `users` is a live view: read it while encoding, never keep it.

    A client that can be in many rooms gets `rooms`, in place of `room` and `users`, and the epoch of the ids; and the
    operator's greeting, which its dialect could not show before.
    """

    room: str
    name: str
    users: Collection[str]
    time_ms: int
    epoch: str = ""
    rooms: Sequence[Entered] = ()
    greeting: str = ""


@dataclass(frozen=True, slots=True)
class DirectMessage:
    """Someone sent you a message that only you receive."""

    sender: str
    recipient: str
    text: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class DirectMessageSent:
    """Your direct message was delivered. `typed` is the recipient's name as you wrote it."""

    message: DirectMessage
    typed: str


@dataclass(frozen=True, slots=True)
class MessageKept:
    """The recipient of your direct message is away, and gets it at the next login."""

    message: DirectMessage


@dataclass(frozen=True, slots=True)
class Roster:
    """The people in the room, in the order in which they entered.

    `users` is a live view: read it while encoding, never keep it. For a client that can be in many rooms it is one page of
    `user_count` names.
    """

    users: Collection[str]
    room: str = ""
    user_count: int = 0


@dataclass(frozen=True, slots=True)
class Entered:
    """You are in this room now. `users` is a live view: read it while encoding, never keep it.

    For a client that can be in many rooms `users` is the first page of `user_count` names. Messages up to
    `last_id` were sent before; from `replay_from` on, the client receives them.
    """

    room: str
    users: Collection[str]
    topic: str = ""
    user_count: int = 0
    last_id: int = 0
    replay_from: int = 1


@dataclass(frozen=True, slots=True)
class LeftRoom:
    """You have left this room. `now_in` is the room you are in now, for a client that is in one at a time."""

    room: str
    now_in: str = ""


@dataclass(frozen=True, slots=True)
class RoomListing:
    """A room that you can see, and how many people are in it."""

    room: str
    people: int
    topic: str


@dataclass(frozen=True, slots=True)
class RoomList:
    """The rooms that you can see, the lobby first."""

    rooms: Collection[RoomListing]


@dataclass(frozen=True, slots=True)
class Topic:
    """The topic of a room; empty if there is none."""

    room: str
    topic: str


@dataclass(frozen=True, slots=True)
class PastMessage:
    """A message of a room's history. One that has been deleted keeps its place and has no text."""

    id: int
    name: str
    text: str
    time_ms: int
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Messages of a room, oldest first. `more`: there are older ones. `with_ids` as in the command."""

    room: str
    messages: Sequence[PastMessage]
    more: bool
    with_ids: bool = False


@dataclass(frozen=True, slots=True)
class Missed:
    """The events of a room that you missed. A deleted text is empty."""

    events: Sequence[Broadcast]


class Action(Enum):
    """A command that was carried out and has no other answer. The value is the word in the audit log."""

    TOPIC_SET = "topic"
    KICKED = "kick"
    BANNED = "ban"
    UNBANNED = "unban"
    MUTED = "mute"
    UNMUTED = "unmute"
    INVITED = "invite"
    MADE_PRIVATE = "private on"
    MADE_PUBLIC = "private off"
    KEY_SET = "key"
    KEY_REMOVED = "key -"
    MODERATION_ON = "moderated on"
    MODERATION_OFF = "moderated off"
    VOICE_GIVEN = "voice"
    VOICE_TAKEN = "unvoice"
    MODERATOR_ADDED = "mod"
    MODERATOR_REMOVED = "unmod"
    OWNERSHIP_PASSED = "owner"
    DELETED = "delete"
    IGNORED = "ignore"
    HEARD_AGAIN = "unignore"
    REGISTERED = "register"
    PASSWORD_CHANGED = "password"
    TOKENS_REVOKED = "token revoke"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The command has been carried out. `subject` is the person, the text or the id that it was about."""

    action: Action
    room: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class TokenIssued:
    """Your new token, which is shown once."""

    token: Secret


@dataclass(frozen=True, slots=True)
class Kicked:
    """Someone removed you from this room. `now_in` is the room you are in now, for a client that is in one at a time."""

    room: str
    reason: str
    time_ms: int
    now_in: str = ""


@dataclass(frozen=True, slots=True)
class Invited:
    """Someone invites you to a room."""

    room: str
    name: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class BanListing:
    """Someone or something that is banned; without a time, until it is lifted."""

    who: str
    until_ms: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class BanList:
    """The bans of a room, the longest-standing first; those of the lobby are the server's.

    A client that can be in many rooms gets a page; `more`: others follow.
    """

    room: str
    bans: Collection[BanListing]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Your message has been sent, now, or before with the same key; or your typing has been announced.

    Only a message to a room has the room and an id.
    """

    room: str = ""
    message_id: int = 0


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping."""

    token: str


@dataclass(frozen=True, slots=True)
class HelpText:
    """The list of commands; `everything` as in the command."""

    everything: bool = False


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The answer to `Quit`, and the last thing a client is sent."""


class Rejection(Enum):
    """Why the chat refuses a command."""

    NAME_LENGTH = auto()
    NAME_INVALID = auto()
    NAME_TAKEN = auto()
    ALREADY_LOGGED_IN = auto()
    NOT_LOGGED_IN = auto()
    EMPTY_MESSAGE = auto()
    NO_RECIPIENT = auto()
    EMPTY_DIRECT_MESSAGE = auto()
    USER_NOT_FOUND = auto()
    ROOM_NAME_INVALID = auto()
    NO_SUCH_ROOM = auto()
    NOT_IN_ROOM = auto()
    ALREADY_IN_LOBBY = auto()
    TOO_MANY_ROOMS = auto()
    TOPIC_TOO_LONG = auto()
    NO_SUCH_MESSAGE = auto()
    NOT_PERMITTED = auto()
    WRONG_KEY = auto()
    INVITATION_REQUIRED = auto()
    BANNED_FROM_ROOM = auto()
    MUTED = auto()
    # The room is moderated.
    NO_VOICE = auto()
    KEY_TOO_LONG = auto()
    # One more ban, mute, moderator, person with voice, ignored name, account or token would be too many.
    LIST_FULL = auto()
    PASSWORD_REQUIRED = auto()
    WRONG_PASSWORD = auto()
    WEAK_PASSWORD = auto()
    NAME_RESERVED = auto()
    TOO_MANY_ATTEMPTS = auto()
    MAILBOX_FULL = auto()


@dataclass(frozen=True, slots=True)
class Rejected:
    """The command was refused or could not be parsed.

    `subject` is the name or word at fault, where that helps; `room` the room that was meant, as typed.
    """

    reason: Rejection | ParseError
    subject: str = ""
    room: str = ""


class NoticeReason(Enum):
    """Why the server closes a connection; the value is the word in the log."""

    IDLE = "idle"
    SERVER_FULL = "full"
    ADDRESS_FULL = "address_full"
    SHUTDOWN = "shutdown"
    KICKED = "kicked"
    BANNED = "banned"
    # Another connection has logged in to the same account.
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class DisconnectNotice:
    """The server is about to close this connection. `as_error` picks the wording where a dialect has two.

    `text` is what the one who kicked this client gave as the reason.
    """

    reason: NoticeReason
    as_error: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Someone is in the chat."""

    name: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """Someone is no longer in the chat, and the name is free."""

    name: str
    time_ms: int


Broadcast = Joined | Said | Left | TopicChanged | Typing | MessageDeleted | Announcement
Message = Said | DirectMessage
Observed = Broadcast | DirectMessage | LoggedIn | LoggedOut
PrivateEvent = (
    Greeting
    | Welcome
    | DirectMessage
    | DirectMessageSent
    | MessageKept
    | Roster
    | Entered
    | LeftRoom
    | RoomList
    | Topic
    | HistoryPage
    | Missed
    | Accepted
    | TokenIssued
    | Kicked
    | Invited
    | BanList
    | Confirmed
    | Pong
    | HelpText
    | Goodbye
    | Rejected
    | DisconnectNotice
)
Event = Broadcast | PrivateEvent
