"""Lines as WebSocket messages, RFC 6455: a text message is a line without an ending. Sans-I/O.

`websockets` opens the connection, and reads the frames of clients except short text frames. Frames for clients are made here:
a server does not mask them, so a message is the same bytes for everyone.

Invariants of WebSocketFraming:
- Every frame is a unit: a line, or a FramingAnswer. So the limits on lines bound pings and fragments, too.
- It holds at most one unfinished message of `line_bytes`, with its unfinished frame. A longer message ends the connection as
  soon as its length is known, and invalid UTF-8 ends it with the frame that it is in.
- Nothing is read after a Close frame or an error.
- An answer, such as a pong, consists of complete frames, and nothing follows a Close frame.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.frames import apply_mask as unmasked  # type: ignore[attr-defined]
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from geventchat.dialects.framing import End, FramingAnswer, Unit

_TOO_LONG = 1009
_NOT_UTF8 = 1007
_NOT_TEXT = 1003
# The code and reason of the Close frame, by the word for the close reason in the log. A client that is reset, such as one that
# reads too slowly, gets no Close frame.
CLOSE_CODES = {
    "quit": (1000, ""),
    "shutdown": (1001, "the server is stopping"),
    "fault": (1011, "internal error"),
    "replaced": (4001, "logged in elsewhere"),
    "idle": (4002, "idle"),
    "kicked": (4003, "kicked"),
    "banned": (4004, "banned"),
}

_new_decoder = codecs.getincrementaldecoder("utf-8")
_WHOLE_TEXT = 0x81
_MASKED = 0x80
_CONTROL = 0x08
_MASK_BYTES = 4
# The greatest length that fits into the second byte, and the size of the head of such a frame from a client.
_ONE_BYTE_LENGTHS = 125
_SHORT_HEAD = 2 + _MASK_BYTES
# How many more bytes a greater length takes, by the second byte without its mask bit.
_WIDTHS = {126: 2, 127: 8}
_NOTHING = FramingAnswer()
_NEVER = -1


def _head(size: int) -> bytes:
    """The head of an unfragmented text frame from the server."""
    if size <= _ONE_BYTE_LENGTHS:
        return bytes((_WHOLE_TEXT, size))
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


# By the length of the message: nearly all are shorter.
_HEADS = tuple(map(_head, range(1024)))
# The server logs what happens to connections itself.
_SILENT = logging.Logger("websockets", logging.CRITICAL + 1)
# Nothing in a handshake that counts has other bytes, and releases of `websockets` before 17 fail when they refuse one that has.
_AS_ASCII = bytes(range(128)) + b"?" * 128
_REFUSAL_FIELDS = ("Upgrade", "Sec-WebSocket-Version")


class HandshakeRefused(Exception):
    """The request does not open a WebSocket: answer it with the status, the message and the header fields."""

    def __init__(self, status: int, message: str, fields: tuple[tuple[str, str], ...]) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.fields = fields


def accept(head: bytes) -> bytes:
    """The answer to the HTTP request with this head, which opens a WebSocket. Raises HandshakeRefused.

    Whatever extensions and subprotocols the client offers, none is chosen.
    """
    protocol = ServerProtocol(logger=_SILENT)
    try:
        return _accept(protocol, head)
    finally:
        _release(protocol)


def _accept(protocol: ServerProtocol, head: bytes) -> bytes:
    protocol.receive_data(head.translate(_AS_ASCII))
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


def _release(protocol: ServerProtocol) -> None:
    """Break the reference cycles of a protocol that is no longer needed, so that it is freed without the garbage collector."""
    protocol.parser.close()
    for error in (protocol.parser_exc, protocol.handshake_exc):
        if error is not None:
            error.__traceback__ = None


class WebSocketFraming:
    """The messages of one client, once the connection is open."""

    __slots__ = ("_decoder", "_fragments", "_limit", "_open", "_protocol", "_rest", "_short")
    # Between two frames, the protocol and the decoder can be restored from the unfinished message. Only open connections are
    # handed over.
    TRANSIENT = frozenset({"_decoder", "_limit", "_open", "_protocol", "_short"})

    def __init__(self, limit: int) -> None:
        """`limit` is the most bytes a message can have."""
        self._limit = limit
        # The most bytes in a frame that is read here and not by the protocol.
        self._short = min(limit, _ONE_BYTE_LENGTHS)
        self._protocol = self._new_protocol()
        self._open = True
        # The beginning of an incomplete frame.
        self._rest = b""
        # The frames of an incomplete message, joined, because any number of them can be empty.
        self._fragments: bytearray | None = None
        # Checks the fragments incrementally: one can end in the middle of a character.
        self._decoder: Any = None

    def count(self, chunk: bytes) -> int:
        """0: messages can be counted only by reading them."""
        return 0

    def batches(self, chunk: bytes, size: int, lines: int) -> Iterator[Sequence[Unit]]:
        """The units that this chunk completes, in batches of at most `lines` units or about `size` bytes."""
        data = self._rest + chunk if self._rest else chunk
        self._rest = b""
        units: list[Unit] = []
        at = begin = 0
        available = len(data)
        while at < available and self._open:
            if (
                data[at] == _WHOLE_TEXT
                and available - at > _SHORT_HEAD
                and 0 <= (length := data[at + 1] - _MASKED) <= self._short
                and (end := at + _SHORT_HEAD + length) <= available
                and self._fragments is None
            ):
                # Nearly all messages are short and in one frame; the protocol would take ten times as long for them.
                text_at = at + _SHORT_HEAD
                message = unmasked(data[text_at:end], data[at + 2 : text_at])
                units.append(message if message.isascii() else self._message(message))
            else:
                end = self._end_of_frame(data, at)
                if end == _NEVER:
                    units.append(self._fail(_TOO_LONG, f"more than {self._limit} bytes"))
                    break
                if end > available:
                    self._rest = data[at:]
                    break
                units.append(self._read(data[at:end]))
            at = end
            if len(units) >= lines or at - begin >= size:
                # The client can be handed over before the next batch: `to_state` needs the rest.
                self._rest = data[at:]
                yield units
                self._rest = b""
                units, begin = [], at
        if units:
            yield units

    def close(self, reason: str) -> bytes:
        """Stop reading; returns a Close frame, or nothing if one was sent already or the reason has no code."""
        protocol = self._protocol
        if self._open and reason in CLOSE_CODES:
            protocol.send_close(*CLOSE_CODES[reason])
        self._open = False
        _release(protocol)
        return b"".join(protocol.data_to_send())

    def to_state(self) -> dict[str, Any]:
        """The unfinished message and the unread bytes, to be handed over."""
        fragments = self._fragments
        return {
            "rest": self._rest.decode("latin-1"),
            "fragments": None if fragments is None else fragments.decode("latin-1"),
        }

    def take_state(self, state: dict[str, Any]) -> bytes:
        """Continue where another process stopped; returns the bytes to read next."""
        if state["fragments"] is not None:
            fragments = state["fragments"].encode("latin-1")
            self._fragment(fragments, False)
            # Otherwise the protocol would refuse the continuation frames of the unfinished message.
            self._protocol.receive_data(Frame(Opcode.TEXT, fragments, fin=False).serialize(mask=True))
            self._protocol.events_received()
        rest: str = state["rest"]
        return rest.encode("latin-1")

    @staticmethod
    def wrap(payload: bytes) -> bytes:
        """Each of these lines as a text message."""
        lines = payload.split(b"\n")
        # The empty string after the last line end.
        lines.pop()
        try:
            return b"".join([_HEADS[len(line)] + line for line in lines])
        except IndexError:
            return b"".join([_head(len(line)) + line for line in lines])

    def _new_protocol(self) -> ServerProtocol:
        # No `max_size`: the protocol would count pings between fragments, too.
        return ServerProtocol(state=State.OPEN, max_size=None, logger=_SILENT)

    def _end_of_frame(self, data: bytes, at: int) -> int:
        """The end of the frame that begins at `at`: beyond the data if it is incomplete, _NEVER if it is too long."""
        if len(data) - at < 2:
            return len(data) + 1
        size, head = data[at + 1] & ~_MASKED, 2
        if size > _ONE_BYTE_LENGTHS:
            head += _WIDTHS[size]
            if len(data) - at < head:
                return len(data) + 1
            size = int.from_bytes(data[at + 2 : at + head], "big")
        if not data[at + 1] & _MASKED:
            # The protocol refuses a frame without a mask.
            return at + head
        if size > self._limit - self._held_for(data[at]):
            return _NEVER
        return at + head + _MASK_BYTES + size

    def _held_for(self, first: int) -> int:
        """The size so far of the message that a frame with this first byte continues."""
        return 0 if self._fragments is None or first & _CONTROL else len(self._fragments)

    def _read(self, data: bytes) -> Unit:
        """The unit of a complete frame, or of the head of a refused one."""
        if self._fragments is not None and data[0] & 0x0F == Opcode.CLOSE:
            # The protocol would refuse a Close frame inside an unfinished message; RFC 6455 allows it.
            _release(self._protocol)
            self._protocol = self._new_protocol()
        protocol = self._protocol
        protocol.receive_data(data)
        frames = protocol.events_received()
        answer = b"".join(protocol.data_to_send())
        self._open = protocol.state is State.OPEN
        if not frames:
            return FramingAnswer(answer, End.BROKEN)
        frame = frames[0]
        assert isinstance(frame, Frame)
        match frame.opcode:
            case Opcode.TEXT | Opcode.CONT:
                return self._fragment(bytes(frame.data), frame.fin)
            case Opcode.BINARY:
                return self._fail(_NOT_TEXT, "only text messages are understood")
            case Opcode.CLOSE:
                return FramingAnswer(answer, End.CLOSED)
            case _:
                return FramingAnswer(answer) if answer else _NOTHING

    def _fragment(self, data: bytes, is_last: bool) -> Unit:
        if self._fragments is None:
            if is_last:
                return self._message(data)
            self._fragments, self._decoder = bytearray(), _new_decoder()
        try:
            self._decoder.decode(data, is_last)
        except UnicodeDecodeError:
            return self._fail(_NOT_UTF8, "not UTF-8")
        self._fragments += data
        if not is_last:
            return _NOTHING
        message = bytes(self._fragments)
        self._fragments = None
        return message

    def _message(self, message: bytes) -> Unit:
        if not message.isascii():
            try:
                message.decode()
            except UnicodeDecodeError:
                return self._fail(_NOT_UTF8, "not UTF-8")
        return message

    def _fail(self, code: int, reason: str) -> FramingAnswer:
        self._protocol.fail(code, reason)
        self._open = False
        return FramingAnswer(b"".join(self._protocol.data_to_send()), End.BROKEN)
