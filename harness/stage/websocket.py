"""A WebSocket as a client, RFC 6455: the handshake, masked frames, pongs, Close frames. Sans-I/O.

- A line that a client says is a text message without its line end; what has no line end is a binary message.
- A text message that arrives becomes a line, whole; a binary message becomes its bytes.
- What is incomplete when it is released, or when the connection ends, is received as it is. What completes the message is then
  its rest.
- Pings are answered, and a Close frame with another; `end_detail` has its code, and its reason as visible text.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import struct

from harness.language.escapes import render_bytes
from harness.stage.transport import HandshakeFailed, Plain, first_line

_HEAD_BYTES = 65536
_MESSAGE_BYTES = 64 * 1024 * 1024
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HTTP = b"HTTP/1."
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([0-9]{3})(?: .*)?", re.DOTALL)
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FIN, _MASKED = 0x80, 0x80
_NORMAL, _NO_CODE, _ABNORMAL = 1000, 1005, 1006
_CODES = (range(1000, 1004), range(1007, 1015), range(3000, 5000))
"""The codes that a Close frame can have. Others say how a connection ended that had none, or mean nothing yet."""


class _Violation(Exception):
    """The server has violated the protocol; the text says how."""


class WebSocket(Plain):
    """A WebSocket as a client. A line is a text message without its line end; other bytes are a binary message."""

    def __init__(self, host: str, path: str) -> None:
        self.ready = False
        self.messages = True
        self.ended = False
        self.end_detail = ""
        self.violation = ""
        self._host, self._path = host, path
        self._key = base64.b64encode(os.urandom(16)).decode()
        self._in = bytearray()
        self._out = bytearray()
        self._message = bytearray()
        self._released = 0
        """How many bytes of the incomplete message, and of the incomplete frame behind it, have been released."""
        self._opcode: int | None = None
        self._sent_close = False

    def begin(self) -> bytes:
        return (
            f"GET {self._path} HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {self._key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()

    def send(self, data: bytes, eol: bytes) -> bytes:
        lines = data.split(eol)
        out = b"".join(_frame(_TEXT, line) for line in lines[:-1])
        return out + _frame(_BINARY, lines[-1]) if lines[-1] else out

    def receive(self, data: bytes, eol: bytes) -> bytes:
        self._in += data
        if not self.ready and not self._answered():
            return b""
        received = bytearray()
        try:
            while (frame := self._next_frame()) is not None:
                received += self._understand(*frame, eol)
        except _Violation as wrong:
            self.violation = str(wrong)
        return bytes(received)

    @property
    def unfinished(self) -> bytes:  # type: ignore[override]
        if not self.ready:
            return b""
        incomplete = self._message if self.violation else self._message + self._in
        return bytes(incomplete[self._released :])

    def release(self) -> bytes:
        released = self.unfinished
        self._released += len(released)
        return released

    def take_reply(self) -> bytes:
        reply = bytes(self._out)
        self._out.clear()
        return reply

    def end(self) -> bytes:
        if self._sent_close or not self.ready:
            return b""
        self._sent_close = True
        return _frame(_CLOSE, struct.pack("!H", _NORMAL))

    def closed(self) -> None:
        if not self.ready:
            came = first_line(self._in) if self._in else "nothing"
            raise HandshakeFailed(
                f"the server closed the connection during the WebSocket handshake; it had sent {came}"
            )
        if not self.ended:
            self.end_detail = str(_ABNORMAL)

    # The handshake

    def _answered(self) -> bool:
        """Whether the server's whole answer has come and accepts."""
        head, end, rest = bytes(self._in).partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        status_line = _STATUS_LINE.fullmatch(first)
        begins = not (end or lines) and (first.startswith(_HTTP) or _HTTP.startswith(first))
        if status_line is None and not begins:
            raise HandshakeFailed(
                f"the server did not answer the WebSocket handshake with HTTP, but {first_line(head)}"
            )
        if not end or status_line is None:
            if len(self._in) > _HEAD_BYTES:
                raise HandshakeFailed(f"the answer to the WebSocket handshake has no end: {first_line(head)}")
            return False
        version, status = (group.decode() for group in status_line.groups())
        if status != "101":
            raise HandshakeFailed(
                f"the server answered the WebSocket handshake with {first_line(first)}", status
            )
        if version == "0":
            raise HandshakeFailed(
                f"the server accepted the WebSocket handshake with {first_line(first)}; expected HTTP/1.1"
            )
        fields: dict[str, str] = {}
        for line in lines:
            name, value = (render_bytes(part.strip()) for part in line.partition(b":")[::2])
            # A field in several lines is one list.
            earlier = fields.get(name.lower())
            fields[name.lower()] = value if earlier is None else f"{earlier}, {value}"
        accept = base64.b64encode(hashlib.sha1((self._key + _GUID).encode()).digest()).decode()
        self._require(fields, "upgrade", "websocket")
        self._require(fields, "connection", "upgrade")
        self._require(fields, "sec-websocket-accept", accept)
        for name in ("sec-websocket-extensions", "sec-websocket-protocol"):
            if name in fields:
                raise HandshakeFailed(f"the server chose `{name}: {fields[name]}`, which was not offered")
        self.ready = True
        self._in[:] = rest
        return True

    def _require(self, fields: dict[str, str], name: str, value: str) -> None:
        given = fields.get(name)
        same = (
            given == value
            if name.endswith("accept")
            else value in [one.strip() for one in (given or "").lower().split(",")]
        )
        if not same:
            came = "is missing" if given is None else f"is `{given}`"
            raise HandshakeFailed(
                f"in the answer to the WebSocket handshake `{name}` {came}; expected `{value}`"
            )

    # Frames

    def _next_frame(self) -> tuple[int, bool, bytes] | None:
        """The opcode of the next whole frame, whether it is the last of its message, and what is in it."""
        data = self._in
        if len(data) < 2:
            return None
        first, size, start = data[0], data[1], 2
        opcode, final = first & 0x0F, bool(first & _FIN)
        if first & 0x70:
            raise _Violation("a frame with a reserved bit")
        if size & _MASKED:
            raise _Violation("a masked frame")
        if opcode not in (_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG):
            raise _Violation(f"a frame of the unknown kind {opcode}")
        if opcode >= _CLOSE and (not final or size > 125):
            raise _Violation("a control frame that is fragmented or longer than 125 bytes")
        if size >= 126:
            wide = 2 if size == 126 else 8
            if len(data) < start + wide:
                return None
            size = int.from_bytes(data[start : start + wide], "big")
            start += wide
            if size < (126 if wide == 2 else 65536):
                raise _Violation(f"a length of {size} in {wide} bytes")
        if len(self._message) + size > _MESSAGE_BYTES:
            raise _Violation(f"a message of more than {_MESSAGE_BYTES} bytes")
        if len(data) < start + size:
            return None
        payload = bytes(data[start : start + size])
        # The payload of a message stays after its head is gone; a control frame is gone as a whole.
        gone = start + size if opcode >= _CLOSE else start
        self._released -= max(0, min(gone, self._released - len(self._message)))
        del data[: start + size]
        return opcode, final, payload

    def _understand(self, opcode: int, final: bool, payload: bytes, eol: bytes) -> bytes:
        if self.ended:
            raise _Violation("a frame after the Close frame")
        match opcode:
            case 8:
                self._close(payload)
                return b""
            case 9:
                if not self._sent_close:
                    self._out += _frame(_PONG, payload)
                return b""
            case 10:
                return b""
        if (opcode == _CONTINUATION) is (self._opcode is None):
            raise _Violation(
                "a continuation of no message" if self._opcode is None else "a message inside another one"
            )
        if self._opcode is None:
            self._opcode = opcode
        self._message += payload
        if not final:
            return b""
        kind, message, rest = self._opcode, bytes(self._message), bytes(self._message[self._released :])
        self._opcode, self._released = None, 0
        self._message.clear()
        if kind == _BINARY:
            return rest
        _require_utf8(message)
        return rest + eol

    def _close(self, payload: bytes) -> None:
        self.ended = True
        if len(payload) == 1:
            raise _Violation("a Close frame with half a code")
        code = int.from_bytes(payload[:2], "big") if payload else _NO_CODE
        if payload and not any(code in codes for codes in _CODES):
            raise _Violation(f"a Close frame with the code {code}")
        reason = payload[2:]
        _require_utf8(reason)
        if reason:
            self.end_detail = f"{code} {render_bytes(reason)}"
        elif code not in (_NORMAL, _NO_CODE):
            self.end_detail = str(code)
        if not self._sent_close:
            self._sent_close = True
            self._out += _frame(_CLOSE, payload[:2])


def _frame(opcode: int, payload: bytes) -> bytes:
    """A whole masked frame, as a client must send it."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", _FIN | opcode, _MASKED | size)
    elif size < 65536:
        head = struct.pack("!BBH", _FIN | opcode, _MASKED | 126, size)
    else:
        head = struct.pack("!BBQ", _FIN | opcode, _MASKED | 127, size)
    mask = os.urandom(4)
    stream = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return head + mask + masked.to_bytes(size, "big")


def _require_utf8(text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError:
        raise _Violation(f"text that is not UTF-8: {first_line(text)}") from None
