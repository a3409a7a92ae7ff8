"""The protocol between `geventchat admin` and a server: one JSON object per line in both directions. Also finds the socket.

A request is `{"v": 1, "act": "kick", "who": "bob"}`. The server answers with any number of lines with `rows` or `progress`,
then with `done` or `error`, and reads the next request. docs/operations.md describes the protocol for other programs.

Invariants:
- A request has at most `MOST_REQUEST_BYTES`, and a line of an answer at most `MOST_ANSWER_BYTES`.
- A request with an unknown field is refused: the server never ignores what it does not understand.
- A request of an unknown version is refused with the version that the server speaks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = 1
SOCKET = "admin.sock"
MOST_REQUEST_BYTES = 16_384
MOST_ANSWER_BYTES = 1_048_576
# Names, topics and reasons are short, so this many rows fit into a line.
ROWS_AT_ONCE = 100
# The acts of the audit log in one answer, if the request does not say how many, and at most.
AUDITED = 50
MOST_AUDITED = 1_000
# More digits than any number has.
_MOST_INTEGER = 2**53
# The longest path in a `sockaddr_un`.
_MOST_PATH_BYTES = 107

Request = Mapping[str, Any]
Answer = dict[str, Any]


class BadRequest(Exception):
    """A line that is not a request; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Field:
    """The type and the values of a field of a request."""

    kind: type
    required: bool = False
    words: tuple[str, ...] = ()
    # Of a number.
    least: int = 0
    most: int = _MOST_INTEGER


_WHO = Field(str, required=True)
_TEXT = Field(str)
ROLES = ("operator", "owner", "moderator", "voice")
# Each act with its fields.
ACTS: dict[str, dict[str, Field]] = {
    "status": {},
    "who": {},
    "rooms": {},
    "announce": {"text": Field(str, required=True)},
    "kick": {"who": _WHO, "room": _TEXT, "reason": _TEXT},
    "ban": {"who": _WHO, "room": _TEXT, "seconds": Field(int), "reason": _TEXT},
    "unban": {"who": _WHO, "room": _TEXT},
    "bans": {"room": _TEXT},
    "audit": {"limit": Field(int, least=1, most=MOST_AUDITED)},
    "grant": {
        "who": _WHO,
        "role": Field(str, required=True, words=ROLES),
        "room": _TEXT,
        "revoke": Field(bool),
    },
    "password": {"who": _WHO, "password": Field(str, required=True)},
    "reload": {},
    "backup": {"file": Field(str, required=True)},
    "log-level": {"level": _TEXT},
    "upgrade": {"python": _TEXT},
}


def encode(one: Mapping[str, Any]) -> bytes:
    """A request or an answer as its line."""
    return json.dumps({"v": VERSION, **one}).encode() + b"\n"


def read_request(line: bytes) -> Request:
    """Read a line. Raises BadRequest."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRequest("invalid", "not a JSON object on one line") from None
    if not isinstance(request, dict):
        raise BadRequest("invalid", "not a JSON object on one line")
    version = request.get("v")
    if type(version) is not int or version != VERSION:
        raise BadRequest(
            "version", f"this server speaks version {VERSION} of the protocol, not {version!r:.20}"
        )
    act = request.get("act")
    fields = ACTS.get(act) if isinstance(act, str) else None
    if fields is None:
        raise BadRequest("invalid", f"unknown act {act!r:.40}; known: {', '.join(ACTS)}")
    for key, value in request.items():
        if key not in ("v", "act"):
            _check(f"{act}: ", key, value, fields)
    for key, field in fields.items():
        if field.required and key not in request:
            raise BadRequest("invalid", f"{act}: {key} is missing")
    return request


def _check(where: str, key: str, value: object, fields: Mapping[str, Field]) -> None:
    field = fields.get(key)
    if field is None:
        raise BadRequest("invalid", f"{where}unknown field {key!r:.40}")
    if type(value) is not field.kind or (field.words and value not in field.words):
        wanted = (
            " or ".join(field.words)
            or {str: "a text", int: "a whole number", bool: "true or false"}[field.kind]
        )
        raise BadRequest("invalid", f"{where}{key} is {value!r:.40}, not {wanted}")
    if isinstance(value, int) and not field.least <= value <= field.most:
        raise BadRequest(
            "invalid", f"{where}{key} is {value!r:.40}, out of range {field.least} to {field.most}"
        )
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            # Half of a surrogate pair.
            raise BadRequest("invalid", f"{where}{key} is not Unicode") from None


def read_answer(line: bytes) -> Answer:
    """Read a line from a server. Raises BadRequest if it is not an answer, or has another version."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or type(answer.get("v")) is not int:
        raise BadRequest("invalid", "something else than a geventchat server answers there")
    error = answer.get("error")
    if answer["v"] != VERSION or (isinstance(error, dict) and error.get("code") == "version"):
        text = error.get("message") if isinstance(error, dict) else None
        raise BadRequest("version", str(text or f"the server speaks version {answer['v']} of the protocol"))
    return answer


def error(code: str, message: str) -> Answer:
    """The last line of an answer: the act was not carried out."""
    return {"error": {"code": code, "message": message}}


def socket_path(named: str, data: str) -> Path | None:
    """The path of the socket of a server with these settings; None if it has no socket."""
    if named:
        return Path(named)
    return Path(data) / SOCKET if data else None


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """The path, shortened to fit into a socket address: through a descriptor of its directory if it is too long."""
    if len(os.fsencode(path)) <= _MOST_PATH_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
