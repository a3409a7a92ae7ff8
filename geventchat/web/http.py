"""HTTP/1.1 for a server: bytes to requests, responses to bytes. Sans-I/O; knows no sockets, no time-outs and no chat.

Strict: what two programs could read in two ways is refused, because a proxy in front may read it in the other way.

Invariants of RequestReader:
- The requests, and the first error, are the same however the bytes are divided into chunks.
- It holds at most a head of `head_bytes`, a body of `body_bytes`, and what it has been fed since `take` returned None. If the
  caller feeds it only then, this is bounded: pipelined requests wait in the socket.
- After an error every `take` raises it again: nothing behind it is read as a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

MAX_TARGET_BYTES = 2_048
MAX_FIELDS = 64
_MAX_LENGTH_DIGITS = 15
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# What these requests are about is in their bodies, so one without a length is a mistake.
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([!-~]+) HTTP/([0-9])\.([0-9])")
# No control characters but the tab. Bytes from 0x80 on are read as Latin-1.
_FIELD = re.compile(rf"({_TOKEN}):[ \t]*([\t -~\x80-\xff]*)")
_NAME = re.compile(_TOKEN)
_VALUE = re.compile(r"[\t -~]*")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::[0-9]{1,5})?")
_LENGTH = re.compile(r"[0-9]+")
_ABSOLUTE = re.compile(r"https?://([^/?]*)(.*)", re.IGNORECASE)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class BadRequest(Exception):
    """A request that is answered with an error, after which the connection is closed. The message is for its sender."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    method: str
    # Decoded: `/api/rooms/caf%C3%A9` is ("api", "rooms", "café"). A slash at the end makes an empty last segment.
    path: tuple[str, ...]
    # As it was sent, without the question mark.
    query: str
    # The host, and the port if there is one, in lower case. Empty only in HTTP/1.0.
    host: str
    # By lower-case name. The values of a field that was sent several times are joined with ", ".
    fields: Mapping[str, str]
    # True if the sender expects to send further requests on the connection.
    keep_alive: bool
    # The request line and the fields as they were sent, for the protocol that the connection changes to.
    head: bytes
    body: bytes = b""

    def tokens(self, field: str) -> frozenset[str]:
        """The comma-separated words of a field, in lower case."""
        return _tokens(self.fields.get(field, ""))

    def parameters(self) -> dict[str, str]:
        """The parameters of the query. Raises BadRequest for a duplicate one, and for one that is not UTF-8."""
        found: dict[str, str] = {}
        for pair in filter(None, self.query.split("&")):
            name, _, value = pair.replace("+", " ").partition("=")
            name, value = _decoded(name), _decoded(value)
            if name in found:
                raise BadRequest(400, f"duplicate parameter {name}")
            found[name] = value
        return found


class RequestReader:
    """Reads the requests of one connection."""

    __slots__ = (
        "_body_bytes",
        "_buffer",
        "_continued",
        "_error",
        "_head_bytes",
        "_length",
        "_lines",
        "_request",
        "_searched",
        "_start",
    )

    def __init__(self, head_bytes: int, body_bytes: int) -> None:
        self._head_bytes = head_bytes
        self._body_bytes = body_bytes
        self._buffer = bytearray()
        # The complete lines of an unfinished head, where the next line begins, and up to where no end of it has been found.
        self._lines: list[str] = []
        self._start = 0
        self._searched = 0
        # A request whose body has not arrived, and the length of that.
        self._request: Request | None = None
        self._length = 0
        self._continued = False
        # The status and the message of the first error. Not the exception, whose traceback would lead back here.
        self._error: tuple[int, str] | None = None

    @property
    def is_idle(self) -> bool:
        """True when nothing of the next request has arrived."""
        return not self._buffer and self._request is None and self._error is None

    @property
    def rest(self) -> bytes:
        """What has arrived behind the last request."""
        return bytes(self._buffer)

    def feed(self, chunk: bytes) -> None:
        """Take in bytes of the connection."""
        self._buffer += chunk

    def take(self) -> Request | None:
        """The next request; None while it is not complete. Raises BadRequest."""
        if self._error is not None:
            raise BadRequest(*self._error)
        try:
            if self._request is None and not self._take_head():
                return None
            return self._take_body()
        except BadRequest as error:
            self._error = error.status, error.message
            self._buffer.clear()
            raise

    def take_continue(self) -> bool:
        """True, once, when the sender of an unfinished request waits for "100 Continue" before it sends the body."""
        request = self._request
        if request is None or self._continued or self._buffer or "expect" not in request.fields:
            return False
        self._continued = True
        return True

    def _take_head(self) -> bool:
        """Read lines up to the empty one; False if it has not arrived. A line is checked as soon as it is complete."""
        buffer, most = self._buffer, self._head_bytes
        while True:
            end = buffer.find(b"\n", self._searched, most)
            if end < 0:
                self._searched = min(len(buffer), most)
                if len(buffer) < most:
                    return False
                if not self._lines:
                    raise BadRequest(414, f"the request line has more than {most} bytes")
                raise BadRequest(431, f"the header has more than {most} bytes")
            if end == self._start or buffer[end - 1] != 0x0D:
                raise BadRequest(400, "a line does not end in CR LF")
            line = buffer[self._start : end - 1].decode("latin-1")
            self._start = self._searched = end + 1
            if line:
                _check_line(line, len(self._lines))
                self._lines.append(line)
            elif self._lines:
                self._request = self._finish_head(bytes(buffer[: end + 1]).lstrip(b"\r\n"))
                self._forget(end + 1)
                return True
            elif end > 1:
                raise BadRequest(400, "the request line is empty")
            # Else it is the first line: some clients send an empty one behind a body.

    def _finish_head(self, head: bytes) -> Request:
        request, self._length = _parse(self._lines, head)
        if self._length > self._body_bytes:
            raise BadRequest(413, f"the body has more than {self._body_bytes} bytes")
        self._continued = False
        return request

    def _take_body(self) -> Request | None:
        request, length = self._request, self._length
        if request is None or len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        self._forget(length)
        self._request = None
        return replace(request, body=body) if body else request

    def _forget(self, size: int) -> None:
        del self._buffer[:size]
        self._lines = []
        self._start = self._searched = 0


def _check_line(line: str, index: int) -> None:
    """Refuse a line of a head that cannot be read. `index` is 0 for the request line."""
    if not index:
        _check_request_line(line)
    elif line[0] in " \t":
        raise BadRequest(400, "a line of the header is folded")
    elif not _FIELD.fullmatch(line):
        raise BadRequest(400, f"a line of the header is not a field: {line[:50]!r}")
    elif index > MAX_FIELDS:
        raise BadRequest(431, f"the header has more than {MAX_FIELDS} fields")


def _check_request_line(line: str) -> None:
    matched = _REQUEST_LINE.fullmatch(line)
    if matched is None:
        raise BadRequest(400, f"not a request line: {line[:50]!r}")
    method, target, major, minor = matched.groups()
    if (major, minor) not in (("1", "0"), ("1", "1")):
        raise BadRequest(505, f"HTTP/{major}.{minor} is not HTTP/1.1")
    if method not in _METHODS:
        raise BadRequest(501, f"unknown method {method[:20]}")
    if len(target) > MAX_TARGET_BYTES:
        raise BadRequest(414, f"the target has more than {MAX_TARGET_BYTES} bytes")


def _parse(lines: Sequence[str], head: bytes) -> tuple[Request, int]:
    """The request with these lines, which have been checked, and the length of its body."""
    method, target, version = lines[0].split(" ")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name in fields:
            if name in ("host", "content-length", "transfer-encoding", "expect"):
                raise BadRequest(400, f"duplicate field {name}")
            value = f"{fields[name]}, {value}"
        fields[name] = value
    path, query, host = _parse_target(target, _parse_host(fields.get("host"), version))
    if version == "HTTP/1.0":
        # Such a client does not know the answer 100, and has to be sent none.
        fields.pop("expect", None)
    if fields.get("expect", "100-continue").lower() != "100-continue":
        raise BadRequest(417, f"unknown expectation {fields['expect'][:50]}")
    connection = _tokens(fields.get("connection", ""))
    keep_alive = "close" not in connection and (version == "HTTP/1.1" or "keep-alive" in connection)
    length = _length_of_body(method, fields)
    return Request(method, path, query, host, fields, keep_alive, head), length


def _tokens(value: str) -> frozenset[str]:
    return frozenset(word.strip(" \t").lower() for word in value.split(",")) - {""}


def _parse_host(host: str | None, version: str) -> str:
    if host is None:
        if version == "HTTP/1.1":
            raise BadRequest(400, "the field Host is missing")
        return ""
    if not _HOST.fullmatch(host):
        raise BadRequest(400, f"not a host: {host[:50]!r}")
    return host.lower()


def _parse_target(target: str, host: str) -> tuple[tuple[str, ...], str, str]:
    """The path, the query and the host."""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        # What a client sends to a proxy. A server has to read it, too.
        named, target = absolute[1].lower(), absolute[2] or "/"
        if not _HOST.fullmatch(named) or (host and named != host):
            raise BadRequest(400, "the target names another host than the field Host")
        host = named
        target = target if target.startswith("/") else f"/{target}"
    if not target.startswith("/") or "#" in target:
        raise BadRequest(400, f"not a path: {target[:50]!r}")
    path, _, query = target.partition("?")
    return tuple(map(_decoded, path[1:].split("/"))), query, host


def _length_of_body(method: str, fields: Mapping[str, str]) -> int:
    length = fields.get("content-length")
    coding = fields.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise BadRequest(400, "both Content-Length and Transfer-Encoding")
        if coding.lower() == "chunked":
            raise BadRequest(411, "a body needs a Content-Length")
        raise BadRequest(501, f"unknown transfer coding {coding[:50]}")
    if length is None:
        if method in _WITH_BODY:
            raise BadRequest(411, f"{method} needs a Content-Length")
        return 0
    if not _LENGTH.fullmatch(length):
        raise BadRequest(400, f"not a length: {length[:50]!r}")
    if len(length.lstrip("0")) > _MAX_LENGTH_DIGITS:
        raise BadRequest(413, "the body is too large")
    return int(length)


def _decoded(text: str) -> str:
    """Text with its percent-encodings decoded."""
    if "%" not in text:
        return text
    if _BAD_PERCENT.search(text):
        raise BadRequest(400, f"not a percent-encoding: {text[:50]!r}")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise BadRequest(400, f"not UTF-8: {text[:50]!r}") from None


# --- Responses -------------------------------------------------------------------------------------------------------

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# These have no body, and so no type and no length.
_WITHOUT_BODY = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Response:
    """One response. The writer adds Date, Content-Length and Connection."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    fields: tuple[tuple[str, str], ...] = ()


def error_response(error: BadRequest) -> Response:
    """What the sender of a bad request gets, before the connection is closed."""
    return Response(error.status, f"{error.message}\n".encode("utf-8", "replace"))


def written(response: Response, now: float, *, keep_alive: bool, is_head: bool = False) -> bytes:
    """The bytes of a response at a time, in seconds since 1970. One to HEAD has the same fields and no body."""
    status = response.status
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Date: {date(int(now))}"]
    if status not in _WITHOUT_BODY:
        lines.append(f"Content-Type: {response.content_type}")
        lines.append(f"Content-Length: {len(response.body)}")
    for name, value in response.fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"{name}: {value!r} is not a field")
        lines.append(f"{name}: {value}")
    lines.append(f"Connection: {'keep-alive' if keep_alive else 'close'}")
    head = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
    return head if is_head or status in _WITHOUT_BODY else head + response.body


@lru_cache(maxsize=4)
def date(seconds: int) -> str:
    """A time as HTTP writes it, in whole seconds since 1970."""
    at = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at:%Y %H:%M:%S} GMT"
