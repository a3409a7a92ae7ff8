"""The `json` dialect: one object per line in both directions, ASCII out. Made for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

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
    Announcement,
    BanList,
    Broadcast,
    Confirmed,
    DirectMessage,
    DirectMessageSent,
    DisconnectNotice,
    Entered,
    Goodbye,
    Greeting,
    HelpText,
    HistoryPage,
    Invited,
    Joined,
    Kicked,
    Left,
    LeftRoom,
    MessageDeleted,
    MessageKept,
    Missed,
    NoticeReason,
    Pong,
    PrivateEvent,
    Rejected,
    Rejection,
    RoomList,
    Roster,
    Said,
    TokenIssued,
    Topic,
    TopicChanged,
    Typing,
    Welcome,
)
from geventchat.chat.text import visible
from geventchat.dialects.codec import (
    NO_ID,
    NO_ROOM,
    NO_TIME,
    CannotEncode,
    ClientCodec,
    Fences,
    ServerEvent,
    UnknownError,
    UnknownLine,
)
from geventchat.dialects.dialect import Interpreter, OtherDialect, Reading
from geventchat.dialects.framing import Unit
from geventchat.dialects.json_objects import (
    INVALID,
    InvalidField,
    encoded,
    error_text,
    notice_text,
    parse,
    quoted,
    string,
)
from geventchat.exhaustive import assert_never

_UNKNOWN = InvalidCommand(ParseError.UNKNOWN_COMMAND)
_VERSION_2 = OtherDialect("json2")

_TYPES: dict[str, Callable[[dict[str, Any]], Command | str]] = {
    "chat": lambda request: visible(string(request, "message")),
    "dm": lambda request: SendDirectMessage(string(request, "to"), visible(string(request, "message"))),
    "users": lambda request: Who(),
    "ping": lambda request: Ping(string(request, "token")),
    "quit": lambda request: Quit(),
}


def _join(request: dict[str, Any], logged_in: bool) -> Login | OtherDialect:
    version = request.get("v", 1)
    if type(version) is not int or version not in {1, 2}:
        raise InvalidField("v")
    # A client that has logged in has joined already, whichever version it asks for.
    return _VERSION_2 if version == 2 and not logged_in else Login(string(request, "username"))


# The texts of messages that JSON's own rules do not change: printable ASCII without escapes, in the order that everyone
# writes.
_plain_messages = re.compile(
    r'^\{"type": ?"chat", ?"message": ?"([!#-\[\]-~][ !#-\[\]-~]*)(?<! )"\}$', re.MULTILINE
).findall
_KICKED = notice_text(NoticeReason.KICKED) + ": "
# A name that is reserved by default.
_ANNOUNCER = "server"


class JsonDialect:
    """The `json` dialect."""

    name = "json"
    port = 12345
    idle_s = 0.0
    telnet = False
    signatures = (b'{"', b"{ ")

    def interpreter(self) -> Interpreter:
        """Itself: lines are independent of each other."""
        return self

    def read(self, line: bytes, logged_in: bool) -> Reading:
        """Parse a line."""
        request = parse(line)
        if not isinstance(request, dict):
            return request
        kind = request.get("type")
        if type(kind) is not str:
            return INVALID
        command = _TYPES.get(kind)
        try:
            if command:
                return command(request)
            return _join(request, logged_in) if kind == "join" else _UNKNOWN
        except InvalidField:
            return INVALID

    def read_texts(self, lines: Sequence[Unit]) -> list[str] | None:
        """The texts of these lines if all are plain messages: the parser would take three times as long for them."""
        try:
            together = b"\n".join(lines).decode("ascii")  # type: ignore[arg-type]
        except (TypeError, UnicodeDecodeError):
            return None  # Not only lines, or not only ASCII.
        texts: list[str] = _plain_messages(together)
        # A message of WebSocket can contain newlines.
        return texts if len(texts) == len(lines) == together.count("\n") + 1 else None

    def encode(self, event: Broadcast) -> bytes:
        """The bytes of a broadcast event."""
        match event:
            case Said():
                return _chat(event)
            case Joined(name=name):
                return _presence("user_joined", name, f"{name} joined the chat", event.time_ms)
            case Left(name=name):
                return _presence("user_left", name, f"{name} left the chat", event.time_ms)
            case Announcement(text, time_ms):
                # Clients show only objects of types that they know.
                return _chat(Said("", _ANNOUNCER, (text,), 0, time_ms))
            case TopicChanged() | Typing() | MessageDeleted():
                return b""
            case _:
                assert_never(event)

    def echoes(self, event: Broadcast) -> bool:
        """True for messages, since speakers receive their own, and for departures that the author has caused."""
        match event:
            case Said() | Left():
                return True
            case Joined() | TopicChanged() | Typing() | MessageDeleted() | Announcement():
                return False
            case _:
                assert_never(event)

    def encode_private(self, event: PrivateEvent) -> bytes:
        """The bytes of a private event."""
        match event:
            case Welcome(name=name, users=users):
                return encoded(
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
                return encoded(type="users", users=list(users))
            case Pong(token):
                return encoded(type="pong", token=token) if token else encoded(type="pong")
            case (
                HelpText()
                | Entered()
                | LeftRoom()
                | RoomList()
                | Topic()
                | Accepted()
                | TokenIssued()
                | MessageKept()
                | Confirmed()
                | BanList()
            ):
                # Answers to commands that this version does not have.
                return b""
            case Greeting():
                # Clients expect only objects of types that they know.
                return b""
            case Kicked() | Invited() | HistoryPage() | Missed():
                # About rooms other than the lobby, or answers to commands that this version does not have.
                return b""
            case Goodbye():
                return encoded(type="goodbye")
            case Rejected(reason=reason):
                return encoded(type="error", message=error_text(reason))
            case DisconnectNotice(reason=notice, text=text):
                return encoded(type="error", message=f"{_KICKED}{text}" if text else notice_text(notice))
            case _:
                assert_never(event)

    def client(self) -> ClientCodec:
        """The client half of the dialect, for one connection."""
        return JsonClient()


def _chat(said: Said) -> bytes:
    # The hot path: the same bytes as the encoder makes of the object, in a third of the time, and many in less.
    before = f'{{"type": "chat", "username": {quoted(said.name)}, "message": "'
    after = f'", "timestamp": {said.time_ms // 1000}}}\n'
    texts = said.texts
    together = "".join(texts)
    if len(quoted(together)) > len(together) + len('""'):
        texts = tuple([quoted(text)[1:-1] for text in texts])
    return f"{before}{f'{after}{before}'.join(texts)}{after}".encode()


def _presence(kind: str, name: str, message: str, time_ms: int) -> bytes:
    return encoded(type=kind, username=name, message=message, timestamp=time_ms // 1000)


def _dm(message: DirectMessage) -> bytes:
    return encoded(
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
    many_rooms = False
    answers_in_prose = False

    def __init__(self) -> None:
        self._name = ""
        self._fences = Fences()

    def encode(self, command: Command, ref: str = "") -> bytes:
        """The bytes of a command."""
        data = self._encoded(command)
        if isinstance(command, Ping):
            self._fences.add(command, ref)
        elif ref:
            self._fences.add(command, ref)
            data += encoded(type="ping")
        return data

    def _encoded(self, command: Command) -> bytes:
        match command:
            case Login(name, password=None):
                self._name = name
                return encoded(type="join", username=name)
            case Login():
                raise CannotEncode("This version of the json dialect knows no passwords.")
            case Say(texts):
                return b"".join([encoded(type="chat", message=text) for text in texts])
            case SendDirectMessage(to, text):
                return encoded(type="dm", to=to, message=text)
            case Who():
                return encoded(type="users")
            case Ping(token):
                return encoded(type="ping", token=token) if token else encoded(type="ping")
            case Quit():
                return encoded(type="quit")
            case Help() | InvalidCommand():
                raise CannotEncode("The json dialect has no such command.")
            case _:
                raise CannotEncode("This server knows no rooms: it speaks version 1 of the json dialect.")

    def decode(self, line: bytes) -> ServerEvent | None:
        """The event on this line."""
        text = line.decode("utf-8", "replace")
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return UnknownLine(text)
        return self._event(message, text) if isinstance(message, dict) else UnknownLine(text)

    def _event(self, message: dict[str, Any], line: str) -> ServerEvent | None:
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
                return self._fences.pong(token if isinstance(token, str) else "")
            case {"type": "goodbye"}:
                return Goodbye()
            case {"type": "error", "message": str(text)} if text in _NOTICES:
                return DisconnectNotice(_NOTICES[text])
            case {"type": "error", "message": str(text)} if text.startswith(_KICKED):
                return DisconnectNotice(NoticeReason.KICKED, text=text.removeprefix(_KICKED))
            case {"type": "error", "message": str(text)}:
                return self._fences.refusal(
                    Rejected(_REASONS[text]) if text in _REASONS else UnknownError(text)
                )
            case _:
                return UnknownLine(line)


def _users(listed: object) -> tuple[str, ...]:
    return tuple([user for user in listed if isinstance(user, str)]) if isinstance(listed, list) else ()


DIALECT = JsonDialect()
