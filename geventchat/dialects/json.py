"""The `json` dialect: one object per line in both directions, ASCII out. Made for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from geventchat.chat.commands import (
    Command,
    InvalidCommand,
    Login,
    ParseError,
    Ping,
    Quit,
    SendDirectMessage,
    Who,
)
from geventchat.chat.events import (
    Broadcast,
    DirectMessage,
    DirectMessageSent,
    DisconnectNotice,
    Goodbye,
    HelpText,
    Joined,
    Left,
    NoticeReason,
    Pong,
    PrivateEvent,
    Rejected,
    Rejection,
    Roster,
    Said,
    Welcome,
)
from geventchat.chat.text import clean
from geventchat.dialects.dialect import Reader
from geventchat.exhaustive import assert_never

_INVALID = InvalidCommand(ParseError.NOT_JSON)

# No request needs more digits; converting a longer number would only cost time.
_MAX_DIGITS = 100
# No request needs more objects, arrays and members; parsing thousands of tiny ones costs twenty times as much as a
# text.
_MAX_VALUES = 200
# Matches an unfinished string too: looking for the end of one from each of its quotes would take quadratic time.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)')
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


# The scanner and the string encoder themselves: decode() and encode() around them cost as much again for a short line.
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
    return clean(value)


_TYPES: dict[str, Callable[[dict[str, Any]], Command | str]] = {
    "join": lambda request: Login(_field(request, "username")),
    "chat": lambda request: _field(request, "message"),
    "dm": lambda request: SendDirectMessage(_field(request, "to"), _field(request, "message")),
    "users": lambda request: Who(),
    "ping": lambda request: Ping(_field(request, "token")),
    "quit": lambda request: Quit(),
}


class JsonReader:
    """Reads one object per line."""

    def read(self, line: bytes, logged_in: bool) -> Command | str | None:
        """What this line asks for."""
        try:
            text = line.decode()
        except UnicodeDecodeError:
            return InvalidCommand(ParseError.NOT_UTF8)
        text = text.strip()
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


def _too_many_values(line: bytes) -> bool:
    outside = _STRING.sub(b"", line)
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
        case ParseError.TOO_LONG:
            return "Line too long"
        case ParseError.NOT_UTF8:
            return "Invalid UTF-8"
        case ParseError.NOT_JSON:
            return "Invalid JSON"
        case ParseError.UNKNOWN_COMMAND:
            return "Unknown message type"
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
        case _:
            assert_never(reason)


class JsonDialect:
    """The `json` dialect."""

    name = "json"
    port = 12345
    idle_s = 0.0

    _reader = JsonReader()

    def reader(self) -> Reader:
        """The same reader for everyone: each line stands for itself."""
        return self._reader

    def encode(self, event: Broadcast) -> bytes:
        """The bytes of an event for everyone who hears it."""
        match event:
            case Said():
                return _chat(event)
            case Joined(name=name):
                return _presence("user_joined", name, f"{name} joined the chat", event.time_ms)
            case Left(name=name):
                return _presence("user_left", name, f"{name} left the chat", event.time_ms)
            case _:
                assert_never(event)

    def echoes(self, event: Broadcast) -> bool:
        """Speakers hear themselves."""
        return isinstance(event, Said)

    def encode_private(self, event: PrivateEvent) -> bytes:
        """The bytes of an event for one client."""
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
            case HelpText():
                return b""
            case Goodbye():
                return _object(type="goodbye")
            case Rejected(reason=reason):
                return _object(type="error", message=error_text(reason))
            case DisconnectNotice(reason=notice):
                return _object(type="error", message=notice_text(notice))
            case _:
                assert_never(event)


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


DIALECT = JsonDialect()
