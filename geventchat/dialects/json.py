"""The `json` dialect: one object per line in both directions, ASCII out. Made for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from geventchat.chat.commands import (
    Command,
    Help,
    InvalidCommand,
    Login,
    ParseError,
    Ping,
    Quit,
    Say,
    SendDirectMessage,
    Who,
)
from geventchat.chat.events import (
    Accepted,
    BanList,
    Broadcast,
    DirectMessage,
    DirectMessageSent,
    DisconnectNotice,
    Entered,
    Goodbye,
    HelpText,
    Invited,
    Joined,
    Kicked,
    Left,
    LeftRoom,
    NoticeReason,
    Pong,
    PrivateEvent,
    Rejected,
    Rejection,
    RoomList,
    Roster,
    Said,
    Topic,
    TopicChanged,
    Welcome,
)
from geventchat.chat.text import WHITE_SPACE, clean_line, visible
from geventchat.dialects.codec import (
    NO_ID,
    NO_ROOM,
    NO_TIME,
    CannotEncode,
    ClientCodec,
    ServerEvent,
    UnknownError,
    UnknownLine,
)
from geventchat.dialects.dialect import Interpreter
from geventchat.exhaustive import assert_never

_INVALID = InvalidCommand(ParseError.NOT_JSON)

# No request needs more digits, and converting longer numbers takes time.
_MAX_DIGITS = 100
# No request needs more objects, arrays and members; parsing thousands of tiny ones costs twenty times as much as a
# text.
_MAX_VALUES = 200
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _number(digits: str) -> None:
    # No field of this dialect is a number, so none is converted.
    if len(digits) > _MAX_DIGITS:
        raise ValueError("a number with too many digits")


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("duplicate key")
    return fields


# The scanner and the string encoder themselves: calling decode() and encode() doubles the cost of a short line.
_decoder = json.JSONDecoder(
    parse_constant=_no_constant, parse_int=_number, parse_float=_number, object_pairs_hook=_object_of
)
_scan: Callable[[str, int], tuple[object, int]] = json.scanner.make_scanner(_decoder)  # type: ignore[attr-defined]
_quoted = json.encoder.encode_basestring_ascii
_encode = json.JSONEncoder().encode


def _field(request: dict[str, Any], key: str) -> str:
    value = request.get(key, "")
    if type(value) is not str:
        raise TypeError(f"{key} is not a string")
    if not value.isprintable() and _LONE_SURROGATE.search(value):
        raise ValueError(f"half a surrogate pair in {key}")
    return clean_line(value)


_TYPES: dict[str, Callable[[dict[str, Any]], Command | str]] = {
    "join": lambda request: Login(_field(request, "username")),
    "chat": lambda request: visible(_field(request, "message")),
    "dm": lambda request: SendDirectMessage(_field(request, "to"), visible(_field(request, "message"))),
    "users": lambda request: Who(),
    "ping": lambda request: Ping(_field(request, "token")),
    "quit": lambda request: Quit(),
}


def _too_many_values(line: bytes) -> bool:
    # Without its escapes, every second piece between quotes is inside a string, an unfinished one too. A backslash outside
    # a string would be misread, but no JSON has one, and nothing behind it is parsed.
    pieces = line.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    outside = b"".join(pieces[::2])
    return outside.count(b",") + outside.count(b"[") + outside.count(b"{") > _MAX_VALUES


def error_text(reason: Rejection | ParseError) -> str:
    """The message of an error object."""
    match reason:
        case Rejection.NAME_LENGTH | Rejection.NAME_INVALID:
            return "Invalid username"
        case Rejection.NAME_TAKEN:
            return "Username already taken"
        case Rejection.ALREADY_LOGGED_IN:
            return "Already joined"
        case Rejection.NOT_LOGGED_IN:
            return "Join first"
        case Rejection.EMPTY_MESSAGE | Rejection.EMPTY_DIRECT_MESSAGE:
            return "Empty message"
        case Rejection.NO_RECIPIENT | Rejection.USER_NOT_FOUND:
            return "User not found"
        case Rejection.ROOM_NAME_INVALID:
            return "Invalid room name"
        case Rejection.NO_SUCH_ROOM:
            return "No such room"
        case Rejection.NOT_IN_ROOM:
            return "Not in the room"
        case Rejection.ALREADY_IN_LOBBY:
            return "Already in the lobby"
        case Rejection.TOO_MANY_ROOMS:
            return "Too many rooms"
        case Rejection.TOPIC_TOO_LONG:
            return "Topic too long"
        case Rejection.NOT_PERMITTED:
            return "Not permitted"
        case Rejection.WRONG_KEY:
            return "Wrong key"
        case Rejection.INVITATION_REQUIRED:
            return "Invitation required"
        case Rejection.BANNED_FROM_ROOM:
            return "Banned from the room"
        case Rejection.MUTED:
            return "Muted"
        case Rejection.NO_VOICE:
            return "The room is moderated"
        case Rejection.KEY_TOO_LONG:
            return "Key too long"
        case Rejection.LIST_FULL:
            return "List full"
        case ParseError.TOO_LONG:
            return "Line too long"
        case ParseError.NOT_UTF8:
            return "Invalid UTF-8"
        case ParseError.NOT_JSON:
            return "Invalid JSON"
        case ParseError.UNKNOWN_COMMAND:
            return "Unknown message type"
        case ParseError.INVALID_ARGUMENT:
            return "Invalid argument"
        case _:
            assert_never(reason)


def notice_text(reason: NoticeReason) -> str:
    """The message of the error object that a client gets when the server closes its connection."""
    match reason:
        case NoticeReason.IDLE:
            return "Idle timeout"
        case NoticeReason.SERVER_FULL:
            return "Server full"
        case NoticeReason.ADDRESS_FULL:
            return "Too many connections"
        case NoticeReason.SHUTDOWN:
            return "Server shutting down"
        case NoticeReason.KICKED:
            return "Kicked"
        case NoticeReason.BANNED:
            return "Banned"
        case _:
            assert_never(reason)


_KICKED = notice_text(NoticeReason.KICKED) + ": "


class JsonDialect:
    """The `json` dialect."""

    name = "json"
    port = 12345
    idle_s = 0.0
    signatures = (b'{"', b"{ ")

    def interpreter(self) -> Interpreter:
        """Itself: lines are independent of each other."""
        return self

    def read(self, line: bytes, logged_in: bool) -> Command | str | None:
        """Parse a line."""
        try:
            text = line.decode()
        except UnicodeDecodeError:
            return InvalidCommand(ParseError.NOT_UTF8)
        text = text.strip(WHITE_SPACE)
        if not text:
            return None
        if line.count(b",") + line.count(b"[") + line.count(b"{") > _MAX_VALUES and _too_many_values(line):
            return _INVALID
        try:
            request, end = _scan(text, 0)
            if type(request) is not dict or end != len(text):
                return _INVALID
            kind = request.get("type")
            if type(kind) is not str:
                return _INVALID
            command = _TYPES.get(kind)
            return command(request) if command else InvalidCommand(ParseError.UNKNOWN_COMMAND)
        except (ValueError, TypeError, StopIteration, RecursionError):
            return _INVALID

    def encode(self, event: Broadcast) -> bytes:
        """The bytes of a broadcast event."""
        match event:
            case Said():
                return _chat(event)
            case Joined(name=name):
                return _presence("user_joined", name, f"{name} joined the chat", event.time_ms)
            case Left(name=name):
                return _presence("user_left", name, f"{name} left the chat", event.time_ms)
            case TopicChanged():
                return b""
            case _:
                assert_never(event)

    def echoes(self, event: Broadcast) -> bool:
        """True for messages, since speakers receive their own, and for departures that the author has caused."""
        match event:
            case Said() | Left():
                return True
            case Joined() | TopicChanged():
                return False
            case _:
                assert_never(event)

    def encode_private(self, event: PrivateEvent) -> bytes:
        """The bytes of a private event."""
        match event:
            case Welcome(name=name, users=users):
                return _object(
                    type="welcome",
                    message=f"Welcome to the chat, {name}!",
                    users=list(users),
                    timestamp=event.time_ms // 1000,
                )
            case DirectMessage():
                return _dm(event)
            case DirectMessageSent(message=message):
                # A message to yourself has already arrived as the very same object.
                return b"" if message.sender == message.recipient else _dm(message)
            case Roster(users):
                return _object(type="users", users=list(users))
            case Pong(token):
                return _object(type="pong", token=token) if token else _object(type="pong")
            case HelpText() | Entered() | LeftRoom() | RoomList() | Topic() | Accepted() | BanList():
                # Answers to commands that this version does not have.
                return b""
            case Kicked() | Invited():
                # About rooms other than the lobby.
                return b""
            case Goodbye():
                return _object(type="goodbye")
            case Rejected(reason=reason):
                return _object(type="error", message=error_text(reason))
            case DisconnectNotice(reason=notice, text=text):
                return _object(type="error", message=f"{_KICKED}{text}" if text else notice_text(notice))
            case _:
                assert_never(event)

    def client(self) -> ClientCodec:
        """The client half of the dialect, for one connection."""
        return JsonClient()


def _object(**fields: object) -> bytes:
    return (_encode(fields) + "\n").encode()


def _chat(said: Said) -> bytes:
    # The hot path: the same bytes as the encoder makes of the object, in half the time.
    before = f'{{"type": "chat", "username": {_quoted(said.name)}, "message": '
    after = f', "timestamp": {said.time_ms // 1000}}}\n'
    return "".join([f"{before}{_quoted(text)}{after}" for text in said.texts]).encode()


def _presence(kind: str, name: str, message: str, time_ms: int) -> bytes:
    return _object(type=kind, username=name, message=message, timestamp=time_ms // 1000)


def _dm(message: DirectMessage) -> bytes:
    return _object(
        type="dm",
        username=message.sender,
        to=message.recipient,
        message=message.text,
        timestamp=message.time_ms // 1000,
    )


# Where two reasons share a text, the later one wins, because it is more common.
_REASONS: dict[str, Rejection | ParseError] = {
    error_text(reason): reason for reason in (*Rejection, *ParseError)
}
_NOTICES = {notice_text(reason): reason for reason in NoticeReason}


class JsonClient:
    """The client's half of the `json` dialect."""

    echoes_messages = True
    confirms_direct_messages = True

    def __init__(self) -> None:
        self._name = ""

    def encode(self, command: Command) -> bytes:
        """The bytes of a command."""
        match command:
            case Login(name):
                self._name = name
                return _object(type="join", username=name)
            case Say(texts):
                return b"".join([_object(type="chat", message=text) for text in texts])
            case SendDirectMessage(to, text):
                return _object(type="dm", to=to, message=text)
            case Who():
                return _object(type="users")
            case Ping(token):
                return _object(type="ping", token=token) if token else _object(type="ping")
            case Quit():
                return _object(type="quit")
            case Help() | InvalidCommand():
                raise CannotEncode("The json dialect has no such command.")
            case _:
                raise CannotEncode("This version of the json dialect knows no rooms.")

    def decode(self, line: bytes) -> ServerEvent | None:
        """The event on this line."""
        text = line.decode("utf-8", "replace")
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return UnknownLine(text)
        return (self._event(message) if isinstance(message, dict) else None) or UnknownLine(text)

    def _event(self, message: dict[str, Any]) -> ServerEvent | None:
        seconds = message.get("timestamp")
        time_ms = seconds * 1000 if type(seconds) is int else NO_TIME
        match message:
            case {"type": "welcome"}:
                users = _users(message.get("users"))
                # The users are in login order: the last one is this client, spelt as everyone else sees it.
                self._name = users[-1] if users else self._name
                return Welcome(NO_ROOM, self._name, users, time_ms)
            case {"type": "chat", "username": str(name), "message": str(text)}:
                return Said(NO_ROOM, name, (text,), NO_ID, time_ms)
            case {"type": "dm", "username": str(sender), "to": str(to), "message": str(text)}:
                direct = DirectMessage(sender, to, text, time_ms)
                # The sender gets the same object as the recipient. A message to yourself arrives once.
                return DirectMessageSent(direct, to) if sender == self._name != to else direct
            case {"type": "user_joined", "username": str(name)}:
                return Joined(NO_ROOM, name, time_ms)
            case {"type": "user_left", "username": str(name)}:
                return Left(NO_ROOM, name, time_ms)
            case {"type": "users", "users": list(listed)}:
                return Roster(_users(listed))
            case {"type": "pong"}:
                token = message.get("token")
                return Pong(token if isinstance(token, str) else "")
            case {"type": "goodbye"}:
                return Goodbye()
            case {"type": "error", "message": str(text)} if text in _NOTICES:
                return DisconnectNotice(_NOTICES[text])
            case {"type": "error", "message": str(text)} if text.startswith(_KICKED):
                return DisconnectNotice(NoticeReason.KICKED, text=text.removeprefix(_KICKED))
            case {"type": "error", "message": str(text)}:
                return Rejected(_REASONS[text]) if text in _REASONS else UnknownError(text)
            case _:
                return None


def _users(listed: object) -> tuple[str, ...]:
    return tuple([user for user in listed if isinstance(user, str)]) if isinstance(listed, list) else ()


DIALECT = JsonDialect()
