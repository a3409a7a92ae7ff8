"""The `json` dialect: one object per line both ways, ASCII out. Made for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from geventchat.chat.commands import Command, Fault, Login, Ping, Quit, Say, Tell, Violation, Who
from geventchat.chat.events import (
    Dismissed,
    Goodbye,
    Helped,
    Joined,
    Left,
    Parting,
    Pong,
    Reason,
    Refused,
    Relayed,
    Roster,
    Said,
    Told,
    Welcome,
)
from geventchat.chat.text import clean
from geventchat.dialects.dialect import Dialect, Writers, writer

_INVALID = Violation(Fault.NOT_JSON)


# More digits than any number here could want; a longer one would only cost time to convert.
_LONGEST_NUMBER = 100
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _number(digits: str) -> None:
    # No field of this dialect is a number, so none is ever converted.
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError("a number too long")


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key twice")
    return fields


# The scanner and the string encoder themselves: decode() and encode() around them cost as much again for a short line.
_decoder = json.JSONDecoder(
    parse_constant=_no_constant, parse_int=_number, parse_float=_number, object_pairs_hook=_object_of
)
_scan: Callable[[str, int], tuple[object, int]] = json.scanner.make_scanner(_decoder)  # type: ignore[attr-defined]
_quoted = json.encoder.encode_basestring_ascii
_encode = json.JSONEncoder().encode


def _field(said: dict[str, Any], key: str) -> str:
    value = said.get(key, "")
    if type(value) is not str:
        raise TypeError(f"{key} is no text")
    if not value.isprintable() and _LONE_SURROGATE.search(value):
        raise ValueError(f"half a character in {key}")
    return clean(value)


_TYPES: dict[str, Callable[[dict[str, Any]], Command]] = {
    "join": lambda said: Login(_field(said, "username")),
    "chat": lambda said: Say(_field(said, "message")),
    "dm": lambda said: Tell(_field(said, "to"), _field(said, "message")),
    "users": lambda said: Who(),
    "ping": lambda said: Ping(_field(said, "token")),
    "quit": lambda said: Quit(),
}


def _read(line: bytes, joined: bool) -> Command | None:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return Violation(Fault.NOT_UTF8)
    text = text.strip()
    if not text:
        return None
    try:
        said, end = _scan(text, 0)
        if type(said) is not dict or end != len(text):
            return _INVALID
        kind = said.get("type")
        if type(kind) is not str:
            return _INVALID
        command = _TYPES.get(kind)
        return command(said) if command else Violation(Fault.UNKNOWN_COMMAND)
    except (ValueError, TypeError, StopIteration, RecursionError):
        return _INVALID


_REFUSALS: dict[Reason | Fault, str] = {
    Reason.NAME_LENGTH: "Invalid username",
    Reason.NAME_INVALID: "Invalid username",
    Reason.NAME_TAKEN: "Username already taken",
    Reason.ALREADY_IN: "Already joined",
    Reason.NOT_IN: "Join first",
    Reason.EMPTY_MESSAGE: "Empty message",
    Reason.TELL_WHOM: "User not found",
    Reason.TELL_WHAT: "Empty message",
    Reason.NOBODY: "User not found",
    Fault.TOO_LONG: "Line too long",
    Fault.NOT_UTF8: "Invalid UTF-8",
    Fault.NOT_JSON: "Invalid JSON",
    Fault.UNKNOWN_COMMAND: "Unknown message type",
}

_PARTINGS: dict[Parting, str] = {
    Parting.IDLE: "Idle timeout",
    Parting.FULL: "Server full",
    Parting.ADDRESS_FULL: "Too many connections",
    Parting.SHUTDOWN: "Server shutting down",
}


def _object(**fields: object) -> str:
    return _encode(fields) + "\n"


def _error(message: str) -> str:
    return _object(type="error", message=message)


def _chat(said: Said) -> str:
    # The hot path: the same bytes as the encoder would make of the object, in half the time.
    before = f'{{"type": "chat", "username": {_quoted(said.name)}, "message": '
    after = f', "timestamp": {said.at}}}\n'
    return "".join([f"{before}{_quoted(text)}{after}" for text in said.texts])


def _dm(told: Told) -> str:
    return _object(type="dm", username=told.name, to=told.to, message=told.text, timestamp=told.at)


def _welcome(welcome: Welcome) -> str:
    return _object(
        type="welcome",
        message=f"Welcome to the chat, {welcome.name}!",
        users=list(welcome.users),
        timestamp=welcome.at,
    )


_WRITERS: Writers = {
    Joined: lambda joined: _object(
        type="user_joined",
        username=joined.name,
        message=f"{joined.name} joined the chat",
        timestamp=joined.at,
    ),
    Said: _chat,
    Left: lambda left: _object(
        type="user_left", username=left.name, message=f"{left.name} left the chat", timestamp=left.at
    ),
    Welcome: _welcome,
    Told: _dm,
    # To oneself it has been told already, in the very same object.
    Relayed: lambda relayed: "" if relayed.told.name == relayed.told.to else _dm(relayed.told),
    Roster: lambda roster: _object(type="users", users=list(roster.users)),
    Pong: lambda pong: _object(type="pong", token=pong.token) if pong.token else _object(type="pong"),
    Helped: lambda helped: "",
    Goodbye: lambda goodbye: _object(type="goodbye"),
    Refused: lambda refused: _error(_REFUSALS[refused.why]),
    Dismissed: lambda dismissed: _error(_PARTINGS[dismissed.why]),
}

DIALECT = Dialect(
    "json", port=12345, idle_s=0.0, read=_read, write=writer(_WRITERS), echoes=frozenset({Said})
)
