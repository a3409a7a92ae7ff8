"""Lines as WebSocket messages, RFC 6455: a text message is a line without an ending. Sans-I/O.

`websockets` opens the connection and reads what clients send, frame by frame. What clients are sent is framed here: frames of
a server are not masked, so one message is the same bytes for everyone.

Invariants of WebSocketFraming:
- Every frame is a unit: a line, or a FramingAnswer. So the limits on lines bound pings and fragments, too.
- It holds at most one unfinished frame and one unfinished message, both of `line_bytes` at most: what would be longer ends the
  connection as soon as its length has been read.
- Nothing is read behind a Close frame or an error.
- An answer, such as a pong, is whole frames, and nothing follows a Close frame.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from websockets.frames import Frame, Opcode
from websockets.frames import apply_mask as unmasked  # type: ignore[attr-defined]
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from geventchat.dialects.framing import End, FramingAnswer, Unit

_NOT_UTF8 = 1007
_NOT_TEXT = 1003
# Why the server ends a connection, by the word in its log. A client that is reset is sent none of these; so is one that
# reads too slowly.
CLOSE_CODES = {
    "quit": (1000, ""),
    "shutdown": (1001, "the server is stopping"),
    "fault": (1011, "internal error"),
    "replaced": (4001, "logged in elsewhere"),
    "idle": (4002, "idle"),
    "kicked": (4003, "kicked"),
    "banned": (4004, "banned"),
}

_WHOLE_TEXT = 0x81
_MASKED = 0x80
_MASK_BYTES = 4
# How many bytes a length takes behind the first two, by the second one without its mask bit.
_WIDTHS = {126: 2, 127: 8}
_NOTHING = FramingAnswer()
# How a whole text frame of a server begins, by its length.
_HEADS = tuple(bytes((_WHOLE_TEXT, size)) for size in range(126))
# What happens to connections is in the server's log.
_SILENT = logging.Logger("websockets", logging.CRITICAL + 1)


_REFUSAL_FIELDS = ("Upgrade", "Sec-WebSocket-Version")


class HandshakeRefused(Exception):
    """The request does not open a WebSocket. Its sender gets the status, the message and the fields."""

    def __init__(self, status: int, message: str, fields: tuple[tuple[str, str], ...]) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.fields = fields


def accept(head: bytes) -> bytes:
    """The answer to the HTTP request with this head, which opens a WebSocket. Raises HandshakeRefused.

    No extension and no subprotocol is chosen, whatever the client offers.
    """
    protocol = ServerProtocol(logger=_SILENT)
    protocol.receive_data(head)
    events = protocol.events_received()
    if len(events) != 1 or not isinstance(events[0], Request):
        raise HandshakeRefused(400, "not a WebSocket handshake", ())
    response = protocol.accept(events[0])
    if response.status_code != 101:
        fields = [(name, value) for name, value in response.headers.raw_items() if name in _REFUSAL_FIELDS]
        message = bytes(response.body or b"").decode().strip()
        raise HandshakeRefused(response.status_code, message, tuple(fields))
    protocol.send_response(response)
    return b"".join(protocol.data_to_send())


class WebSocketFraming:
    """The messages of one client, once the connection is open."""

    __slots__ = ("_fragments", "_limit", "_protocol", "_rest")

    def __init__(self, limit: int) -> None:
        """`limit` is the most bytes a message can have."""
        self._protocol = ServerProtocol(state=State.OPEN, max_size=limit, logger=_SILENT)
        self._limit = limit
        # Of a frame that is not complete, and of a message that is not.
        self._rest = b""
        self._fragments: list[bytes] = []

    def count(self, chunk: bytes) -> int:
        """0: messages can be counted only by reading them."""
        return 0

    def batches(self, chunk: bytes, size: int, lines: int) -> Iterator[Sequence[Unit]]:
        """What this chunk completes, by pieces of at most this many units, or of about this many bytes."""
        data = self._rest + chunk if self._rest else chunk
        self._rest = b""
        units: list[Unit] = []
        at = begin = 0
        while at < len(data) and self._protocol.state is State.OPEN:
            end = self._end_of_frame(data, at)
            if end > len(data):
                self._rest = data[at:]
                break
            units.append(self._read(data, at, end))
            at = end
            if len(units) >= lines or at - begin >= size:
                yield units
                units, begin = [], at
        if units:
            yield units

    def close(self, reason: str) -> bytes:
        """A Close frame, unless one has been sent or there is no code for this reason."""
        if self._protocol.state is not State.OPEN or reason not in CLOSE_CODES:
            return b""
        self._protocol.send_close(*CLOSE_CODES[reason])
        return b"".join(self._protocol.data_to_send())

    @staticmethod
    def wrap(payload: bytes) -> bytes:
        """Each of these lines as a text message."""
        lines = payload.split(b"\n")
        # Behind the ending of the last line.
        lines.pop()
        return _framed(lines[0]) if len(lines) == 1 else b"".join(map(_framed, lines))

    def _end_of_frame(self, data: bytes, at: int) -> int:
        """Where the frame that begins here ends, as far as can be told; behind the data if it is not complete."""
        if len(data) - at < 2:
            return len(data) + 1
        size, head = data[at + 1] & ~_MASKED, 2
        if size > 125:
            head += _WIDTHS[size]
            if len(data) - at < head:
                return len(data) + 1
            size = int.from_bytes(data[at + 2 : at + head], "big")
        if not data[at + 1] & _MASKED or size > self._limit:
            # It is refused, and the rest of it is not waited for.
            return at + head
        return at + head + _MASK_BYTES + size

    def _read(self, data: bytes, at: int, end: int) -> Unit:
        """The unit of a complete frame, or of the head of one that is refused."""
        text_at = at + 2 + _MASK_BYTES
        if data[at] == _WHOLE_TEXT and end - text_at == data[at + 1] - _MASKED >= 0 and not self._fragments:
            # A short message in one frame, which nearly all are: the protocol would take five times as long for it.
            return self._message(unmasked(data[text_at:end], data[at + 2 : text_at]))
        protocol = self._protocol
        protocol.receive_data(data[at:end])
        frames = protocol.events_received()
        answer = b"".join(protocol.data_to_send())
        if not frames:
            return FramingAnswer(answer, End.BROKEN)
        frame = frames[0]
        assert isinstance(frame, Frame)
        match frame.opcode:
            case Opcode.TEXT | Opcode.CONT:
                self._fragments.append(bytes(frame.data))
                if not frame.fin:
                    return _NOTHING
                message = b"".join(self._fragments)
                self._fragments.clear()
                return self._message(message)
            case Opcode.BINARY:
                return self._fail(_NOT_TEXT, "only text messages are understood")
            case Opcode.CLOSE:
                return FramingAnswer(answer, End.CLOSED)
            case _:
                return FramingAnswer(answer) if answer else _NOTHING

    def _message(self, message: bytes) -> Unit:
        if not message.isascii():
            try:
                message.decode()
            except UnicodeDecodeError:
                return self._fail(_NOT_UTF8, "not UTF-8")
        return message

    def _fail(self, code: int, reason: str) -> FramingAnswer:
        self._protocol.fail(code, reason)
        return FramingAnswer(b"".join(self._protocol.data_to_send()), End.BROKEN)


def _framed(line: bytes) -> bytes:
    size = len(line)
    if size < 126:
        return _HEADS[size] + line
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + line
    return b"\x81\x7f" + size.to_bytes(8, "big") + line
