"""WebSocket messages as lines: what opens a connection, what is read, what ends it, and what is sent."""

from __future__ import annotations

import threading

import pytest
from websockets.frames import Close, Opcode
from websockets.server import ServerProtocol

from geventchat.dialects.framing import End, FramingAnswer, Unit
from geventchat.dialects.websocket import HandshakeRefused, WebSocketFraming, accept
from tests.geventchat.web_client import frame
from tests.patience import HANG_S
from tests.websocket_echo import EchoServer

LIMIT = 300
HEAD = (
    b"GET /ws HTTP/1.1\r\nHost: chat.example\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASK = b"\x01\x02\x03\x04"


def opened(limit: int = LIMIT) -> WebSocketFraming:
    return WebSocketFraming(limit)


def raw(first: int, second: int, rest: bytes = MASK) -> bytes:
    """A frame that no library writes."""
    return bytes((first, second)) + rest


def units(framing: WebSocketFraming, *chunks: bytes) -> list[Unit]:
    return [unit for chunk in chunks for batch in framing.batches(chunk, 8192, 64) for unit in batch]


def sent(data: bytes) -> list[tuple[int, bytes]]:
    """The kind and the content of each frame of a server, which is neither masked nor fragmented."""
    found = []
    while data:
        kind, size, at = data[0] & 0x0F, data[1], 2
        assert data[0] & 0xF0 == 0x80
        assert not size & 0x80
        if size > 125:
            at = {126: 4, 127: 10}[size]
            size = int.from_bytes(data[2:at], "big")
        found.append((kind, data[at : at + size]))
        data = data[at + size :]
    return found


def ending(unit: Unit) -> tuple[End | None, int, str]:
    """How a unit ends the connection, and the code and the reason that the client gets."""
    assert isinstance(unit, FramingAnswer)
    ((kind, content),) = sent(unit.frame)
    assert kind == Opcode.CLOSE
    close = Close.parse(content)
    return unit.end, close.code, close.reason


def test_the_answer_to_a_handshake_accepts_no_extension_and_no_subprotocol():
    offers = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    head = HEAD[:-2] + offers
    answer = accept(head)
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert b"extensions" not in answer.lower()
    assert b"protocol:" not in answer.lower()


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ=", 400),
        (b"Version: 13", b"Version: 12", 400),
        (b"Upgrade: websocket", b"Upgrade: h2c", 426),
        (b"keep-alive, Upgrade", b"keep-alive", 426),
        (b"HTTP/1.1", b"HTTP/1.0", 505),
    ],
)
def test_a_request_that_opens_no_websocket_is_refused(old: bytes, new: bytes, status: int):
    with pytest.raises(HandshakeRefused) as caught:
        accept(HEAD.replace(old, new))
    # Releases of `websockets` differ in what they say about versions.
    assert caught.value.status in {status, 400}
    assert caught.value.message
    if status == 426:
        assert ("Upgrade", "websocket") in caught.value.fields


def test_a_handshake_with_other_bytes_than_ascii_is_accepted_or_refused_as_any(
    monkeypatch: pytest.MonkeyPatch,
):
    passed: list[bytes] = []
    receive = ServerProtocol.receive_data
    # Releases of `websockets` differ in what they do with such bytes.
    monkeypatch.setattr(
        ServerProtocol, "receive_data", lambda one, data: (passed.append(data), receive(one, data))[1]
    )
    assert accept(HEAD[:-2] + b"Cookie: name=J\xf6rg\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    for old, new in (
        (b"13\r", b"1\xe9\r"),
        (b"dGhlIHN", b"\xff\xfe"),
        (b"Upgrade: websocket", b"Upgrade: \xe9"),
    ):
        with pytest.raises(HandshakeRefused) as caught:
            accept(HEAD.replace(old, new))
        assert caught.value.status in {400, 426}
    assert len(passed) == 4
    assert all(map(bytes.isascii, passed))


def test_each_text_message_is_a_line_whatever_its_length():
    texts = ["", "x" * 125, "x" * 126, "é" * (LIMIT // 2), '{"type":\n"ping"}']
    assert units(opened(), b"".join(map(frame, texts))) == [text.encode() for text in texts]


def test_fragments_are_joined_and_a_ping_between_them_is_answered():
    first, second = "né".encode()[:2], "né".encode()[2:]
    stream = frame(first, fin=False) + frame("42", Opcode.PING) + frame(second, Opcode.CONT)
    begun, ping, message = units(opened(), stream)
    assert begun == FramingAnswer()
    assert sent(ping.frame) == [(Opcode.PONG, b"42")]
    assert ping.end is None
    assert message == "né".encode()


@pytest.mark.parametrize("limit", [3, 125, 126, 70_000])
def test_a_message_of_the_limit_is_read_and_one_byte_more_ends_the_connection(limit: int):
    assert units(opened(limit), frame("x" * limit)) == [b"x" * limit]
    (refusal,) = units(opened(limit), frame("x" * (limit + 1)))
    assert isinstance(refusal, FramingAnswer)
    assert sent(refusal.frame)[0][1][:2] == (1009).to_bytes(2, "big")


def test_every_frame_is_a_unit_so_that_limits_count_it():
    stream = frame("a", fin=False) + frame("", Opcode.CONT, fin=False) * 3 + frame("", Opcode.PONG) * 2
    assert units(opened(), stream) == [FramingAnswer()] * 6


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (b"\x81\x05hello", 1002),
        (b"\x81\x7e\x01\x00", 1002),
        (raw(0xC1, 0x80), 1002),
        (raw(0xA1, 0x80), 1002),
        (raw(0x91, 0x80), 1002),
        (raw(0x83, 0x80), 1002),
        (raw(0x8F, 0x80), 1002),
        (raw(0x09, 0x80), 1002),
        (raw(0x89, 0xFE, b"\x00\x7e" + MASK + b"x" * 126), 1002),
        (frame("x", Opcode.CONT), 1002),
        (frame("x", fin=False) + frame("y"), 1002),
        (raw(0x88, 0x81, MASK + b"x"), 1002),
        (frame((999).to_bytes(2, "big"), Opcode.CLOSE), 1002),
        (frame((1005).to_bytes(2, "big"), Opcode.CLOSE), 1002),
        (frame((1000).to_bytes(2, "big") + b"\xff", Opcode.CLOSE), 1007),
        (frame(b"\xff"), 1007),
        (frame(b"\xff" * 200), 1007),
        (frame(b"\xed\xa0\x80"), 1007),
        (frame(b"n\xc3", fin=False) + frame("x", Opcode.CONT), 1007),
        (frame(b"\xff", fin=False), 1007),
        (frame("x", Opcode.BINARY), 1003),
        (frame("x", Opcode.BINARY, fin=False) + frame("x", Opcode.CONT), 1003),
        (frame("x" * (LIMIT + 1)), 1009),
        # Nothing but its length has arrived.
        (raw(0x81, 0xFF, (16 * 1024 * 1024).to_bytes(8, "big")), 1009),
        (raw(0x81, 0xFF, b"\xff" * 8), 1009),
        (frame("x" * LIMIT, fin=False) + frame("x", Opcode.CONT), 1009),
    ],
)
def test_what_the_protocol_does_not_allow_ends_the_connection_with_its_code(stream: bytes, code: int):
    for chunks in ([stream + frame("ignored")], [stream[at : at + 1] for at in range(len(stream))]):
        framing = opened()
        found = units(framing, *chunks)
        assert ending(found[-1])[:2] == (End.BROKEN, code)
        assert all(unit == FramingAnswer() for unit in found[:-1])
        assert units(framing, frame("ignored")) == []
        assert framing.close("quit") == b""


def test_a_close_frame_is_answered_and_nothing_behind_it_is_read():
    framing = opened()
    code = (4321).to_bytes(2, "big")
    found = units(framing, frame("bye") + frame(code + b"reason", Opcode.CLOSE) + frame("ignored"))
    assert found[0] == b"bye"
    assert ending(found[1]) == (End.CLOSED, 4321, "reason")
    assert len(found) == 2
    assert units(framing, frame("ignored")) == []
    (empty,) = units(opened(), frame("", Opcode.CLOSE))
    assert sent(empty.frame) == [(Opcode.CLOSE, b"")]


def test_a_message_can_stay_unfinished():
    stream = frame(b"n\xc3", fin=False) + frame((1000).to_bytes(2, "big"), Opcode.CLOSE)
    begun, end = units(opened(), stream + frame(b"\xa9", Opcode.CONT))
    assert begun == FramingAnswer()
    assert ending(end)[:2] == (End.CLOSED, 1000)


@pytest.mark.parametrize(
    ("reason", "code"), [("replaced", 4001), ("shutdown", 1001), ("idle", 4002), ("quit", 1000)]
)
def test_the_server_says_why_it_closes(reason: str, code: int):
    framing = opened()
    ((kind, content),) = sent(framing.close(reason))
    assert (kind, Close.parse(content).code) == (Opcode.CLOSE, code)
    assert framing.close(reason) == b""
    assert units(framing, frame("too late")) == []


def test_a_connection_that_ended_without_a_close_frame_gets_none():
    assert opened().close("closed") == b""


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_each_line_is_its_own_text_message(size: int):
    line = b"x" * size
    assert sent(WebSocketFraming.wrap(line + b"\n")) == [(Opcode.TEXT, line)]
    assert sent(WebSocketFraming.wrap(b"one\n" + line + b"\n")) == [
        (Opcode.TEXT, b"one"),
        (Opcode.TEXT, line),
    ]


def test_nothing_is_sent_for_an_event_that_the_dialect_does_not_show():
    assert WebSocketFraming.wrap(b"") == b""


def test_tiny_frames_come_in_bounded_batches():
    batches = list(opened().batches(frame("x") * 500, 8192, 64))
    assert [len(batch) for batch in batches] == [64] * 7 + [52]
    sizes = [sum(map(len, batch)) for batch in opened().batches(frame("x" * 100) * 100, 1000, 64)]
    assert max(sizes) <= 1000
    assert sum(sizes) == 10_000


def test_no_more_than_one_frame_and_one_message_are_held():
    framing = opened()
    units(framing, frame("x" * LIMIT, fin=False), frame("", Opcode.CONT, fin=False) * 1000)
    assert framing._fragments == b"x" * LIMIT
    units(framing, raw(0x89, 0xFD) + b"x" * 124)
    assert sum(map(len, (framing._fragments, framing._rest))) == LIMIT + 6 + 124
    # Of a frame that would make it longer nothing is held.
    pong, too_long = units(framing, b"x" + raw(0x80, 0x81))
    assert len(pong.frame) == 2 + 125
    assert ending(too_long)[:2] == (End.BROKEN, 1009)


def test_the_echo_for_the_autobahn_suite_sends_back_what_it_gets_and_ends_as_the_framing_does():
    from websockets.exceptions import ConnectionClosedError
    from websockets.sync.client import connect

    with EchoServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            host, port = server.server_address[:2]
            with connect(f"ws://{host!s}:{port}", compression=None) as client:
                for text in ("", "a\nb", "x" * 100_000):
                    client.send(text)
                    assert client.recv(HANG_S) == text
                client.send(["in ", "pieces"])
                assert client.recv(HANG_S) == "in pieces"
                client.send(b"binary")
                with pytest.raises(ConnectionClosedError) as ended:
                    client.recv(HANG_S)
                assert ended.value.rcvd is not None
                assert ended.value.rcvd.code == 1003
        finally:
            server.shutdown()
            thread.join(HANG_S)
