"""The common part of both versions of `json`: objects as lines of ASCII, bounded parsing, and the texts of errors.

Knows no type of object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeGuard

from geventchat.chat.commands import InvalidCommand, ParseError
from geventchat.chat.events import NoticeReason, Rejection
from geventchat.chat.text import WHITE_SPACE, clean_line
from geventchat.exhaustive import assert_never

# No request needs more digits, and converting longer numbers takes time.
MAX_DIGITS = 100
# No request needs more objects, arrays and members; parsing thousands of tiny ones costs twenty times as much as a
# text.
MAX_VALUES = 200
# The largest integer that every JSON library reads exactly.
MAX_INTEGER = 2**53 - 1
_INTEGER_DIGITS = len(str(MAX_INTEGER))
# In place of a number that no field can have.
_OTHER_NUMBER = object()
INVALID = InvalidCommand(ParseError.NOT_JSON)

_NOT_UTF8 = InvalidCommand(ParseError.NOT_UTF8)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _not_converted(digits: str) -> object:
    if len(digits) > MAX_DIGITS:
        raise ValueError("a number with too many digits")
    return _OTHER_NUMBER


def _integer(digits: str) -> object:
    return int(digits) if len(digits) <= _INTEGER_DIGITS else _not_converted(digits)


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("duplicate key")
    return fields


_Scan = Callable[[str, int], tuple[object, int]]


def _scanner(unique: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None) -> _Scan:
    decoder = json.JSONDecoder(
        parse_constant=_no_constant, parse_int=_integer, parse_float=_not_converted, object_pairs_hook=unique
    )
    made: _Scan = json.scanner.make_scanner(decoder)  # type: ignore[attr-defined]
    return made


# The scanners and the string encoder themselves: calling decode() and encode() doubles the cost of a short line.
_scan = _scanner(None)
_scan_unique = _scanner(_object_of)
_encode = json.JSONEncoder().encode
quoted = json.encoder.encode_basestring_ascii


class InvalidField(ValueError):
    """A field of a request has a value that it cannot have."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} has an invalid value")
        self.key = key


def parse(line: bytes) -> dict[str, Any] | InvalidCommand | None:
    """The object on a line; None if the line is blank.

    Only those of its numbers are converted that are integers with no more digits than MAX_INTEGER.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return _NOT_UTF8
    text = text.strip(WHITE_SPACE)
    if not text:
        return None
    if len(line) > MAX_VALUES and _too_many_values(line):
        return INVALID
    try:
        request, end = _scan(text, 0)
        if type(request) is not dict or end != len(text):
            return INVALID
        # With one colon for each key, no key was there twice. Others can be in texts or in inner objects.
        if text.count(":") != len(request):
            _scan_unique(text, 0)
    except (ValueError, StopIteration, RecursionError):
        return INVALID
    return request


def _too_many_values(line: bytes) -> bool:
    if _values(line) <= MAX_VALUES:
        return False
    # Without its escapes, every second piece between quotes is inside a string, an unfinished one too. A backslash outside
    # a string would be misread, but no JSON has one, and nothing behind it is parsed.
    pieces = line.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    return _values(b"".join(pieces[::2])) > MAX_VALUES


def _values(line: bytes) -> int:
    """An upper bound of the number of values: counts separators in strings, too."""
    return line.count(b",") + line.count(b"[") + line.count(b"{")


def is_text(value: object) -> TypeGuard[str]:
    """True for a string that can be encoded as UTF-8: without half surrogate pairs."""
    return type(value) is str and (value.isprintable() or not _LONE_SURROGATE.search(value))


def string(request: dict[str, Any], key: str) -> str:
    """A string of a request, safe to print; empty if it is missing. Raises InvalidField if it is anything else."""
    value = request.get(key, "")
    if type(value) is str and value.isprintable():
        # The fast path for nearly all strings: is_text and clean_line would scan the string twice more.
        return value.strip()
    if not is_text(value):
        raise InvalidField(key)
    return clean_line(value)


def encoded(**fields: object) -> bytes:
    """An object as a line."""
    return (_encode(fields) + "\n").encode()


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
        case Rejection.NO_SUCH_MESSAGE:
            return "No such message"
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
        case Rejection.PASSWORD_REQUIRED:
            return "Password required"
        case Rejection.WRONG_PASSWORD:
            return "Wrong password"
        case Rejection.WEAK_PASSWORD:
            return "Weak password"
        case Rejection.NAME_RESERVED:
            return "Name reserved"
        case Rejection.TOO_MANY_ATTEMPTS:
            return "Too many attempts"
        case Rejection.MAILBOX_FULL:
            return "Mailbox full"
        case ParseError.TOO_LONG:
            return "Line too long"
        case ParseError.NOT_UTF8:
            return "Invalid UTF-8"
        case ParseError.NOT_JSON:
            return "Invalid JSON"
        case ParseError.INVALID_FIELD:
            return "Invalid field"
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
        case NoticeReason.REPLACED:
            return "Logged in elsewhere"
        case _:
            assert_never(reason)
