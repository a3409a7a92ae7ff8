"""The cases of Autobahn, the test suite for WebSockets, in its sections 1 to 7 and 9, played against `/ws`.

That suite expects an echo. Here a client receives its own messages in the objects of `json`, so a text that comes back in one
is the echo. A binary message ends the connection (1003), which RFC 6455 allows. Sections 10, 12 and 13 are about compression,
which is declined.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from websockets.frames import Opcode

from tests.fire.clients import State
from tests.fire.simulation import Simulation
from tests.geventchat.web_client import Socket, frame, masked, web

TEXT, BINARY, CONT, CLOSE, PING, PONG = (
    Opcode.TEXT,
    Opcode.BINARY,
    Opcode.CONT,
    Opcode.CLOSE,
    Opcode.PING,
    Opcode.PONG,
)
LARGEST = 1_048_576
MAX_LINE = LARGEST + 1_000
Frames = list[tuple[Opcode, bytes]]


@pytest.fixture(scope="module")
def server() -> Iterator[Simulation]:
    """One server for all cases; each case uses a new client."""
    plenty = {"lines_per_s": 0, "bytes_per_s": 0, "address_bytes_per_s": 0, "address_connections_per_s": 0}
    with web(line_bytes=MAX_LINE, queue_bytes=16 * MAX_LINE, typing_interval_s=0, **plenty) as simulation:
        yield simulation
        assert not simulation.faults, simulation.faults


@pytest.fixture
def socket(server: Simulation) -> Iterator[Socket]:
    """A logged-in client; after the case no other client is left."""
    opened = Socket(server)
    opened.join("alice")
    yield opened
    opened.client.close()
    server.run_until_idle()


def chat(text: str) -> bytes:
    """A json message with this text."""
    return json.dumps({"type": "chat", "message": text}, ensure_ascii=False).encode()


def padded(size: int) -> bytes:
    """A json message of this many bytes."""
    return chat("x" * (size - len(chat(""))))


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def chopped(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def fragmented(message: bytes, *cuts: int) -> list[bytes]:
    """A message in frames, cut at these offsets."""
    ends = [0, *cuts, len(message)]
    pieces = [message[at:end] for at, end in pairwise(ends)]
    last = len(pieces) - 1
    return [masked(0x80 * (at == last) | (CONT if at else TEXT), piece) for at, piece in enumerate(pieces)]


def send(socket: Socket, pieces: list[bytes]) -> None:
    """Send these frames; each waits until the last has been handled."""
    for piece in pieces:
        socket.client.send(piece)
        socket.simulation.run_until_idle()


def seen(socket: Socket) -> list[object]:
    """The frames that have arrived: texts of messages as str, pongs as bytes, and the code of a Close frame."""
    found: list[object] = []
    for opcode, data in socket.frames():
        match opcode:
            case Opcode.TEXT:
                answer = json.loads(data)
                found.append(
                    answer["message"] if answer["type"] == "chat" else answer.get("code", answer["type"])
                )
            case Opcode.PONG:
                found.append(data)
            case _:
                found.append(int.from_bytes(data[:2], "big"))
    return found


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(code.to_bytes(2, "big") + reason, CLOSE)


NORMAL = close(1000)


# --- 1: Sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chop", [0, 997])
@pytest.mark.parametrize("size", [60, 125, 126, 127, 128, 65_535, 65_536, LARGEST])
def test_a_text_of_any_size_comes_back(socket: Socket, size: int, chop: int):
    message = padded(size)
    assert len(message) == size
    data = frame(message)
    send(socket, chopped(data, chop * max(1, size // 65_536)) if chop else [data])
    assert seen(socket) == [json.loads(message)["message"]]


def test_an_empty_text_is_an_empty_line(socket: Socket):
    send(socket, [frame("") + HI])
    assert seen(socket) == ["hi"]


@pytest.mark.parametrize("size", [0, 125, 126, 127, 128, 65_535, 65_536])
def test_a_binary_message_is_not_understood(socket: Socket, size: int):
    send(socket, [frame(b"\xfe" * size, BINARY) + NORMAL])
    assert seen(socket) == [1003]


# --- 2: Pings and pongs ----------------------------------------------------------------------------------------------

MOST = bytes(range(125))
PINGS: list[tuple[str, list[bytes], list[object]]] = [
    ("2.1 empty", [frame("", PING)], [b""]),
    ("2.2 text", [frame("Hello, world!", PING)], [b"Hello, world!"]),
    ("2.3 binary", [frame(b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", PING)], [b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"]),
    ("2.4 longest", [frame(MOST, PING)], [MOST]),
    ("2.5 too long", [frame(b"x" * 126, PING) + NORMAL], [1002]),
    ("2.6 byte by byte", one_by_one(frame(MOST, PING)), [MOST]),
    ("2.7 empty pong", [frame("", PONG) + NORMAL], [1000]),
    ("2.8 pong", [frame("unsolicited", PONG) + NORMAL], [1000]),
    ("2.9 pong, then ping", [frame("unsolicited", PONG) + frame("p", PING) + NORMAL], [b"p", 1000]),
    ("2.10 ten", [frame(f"{n}", PING) for n in range(10)], [b"%d" % n for n in range(10)]),
    (
        "2.11 ten, byte by byte",
        one_by_one(b"".join([frame(f"{n}", PING) for n in range(10)])),
        [b"%d" % n for n in range(10)],
    ),
]

# --- 3: Reserved bits ------------------------------------------------------------------------------------------------


def reserved(bits: int, opcode: Opcode, data: bytes = b"") -> bytes:
    return masked(0x80 | bits << 4 | opcode, data)


HI = frame(chat("hi"))
BITS: list[tuple[str, list[bytes], list[object]]] = [
    ("3.1 text", [reserved(1, TEXT, chat("x"))], [1002]),
    ("3.2 behind a text", [HI + reserved(2, TEXT, chat("x")) + frame("", PING)], ["hi", 1002]),
    ("3.3 frame by frame", [HI, reserved(3, TEXT, chat("x")), frame("", PING)], ["hi", 1002]),
    ("3.4 byte by byte", one_by_one(HI + reserved(4, TEXT, chat("x")) + frame("", PING)), ["hi", 1002]),
    ("3.5 binary", [reserved(5, BINARY, b"\x00\xff")], [1002]),
    ("3.6 ping", [reserved(6, PING, b"p")], [1002]),
    ("3.7 close", [reserved(7, CLOSE)], [1002]),
]

# --- 4: Opcodes ------------------------------------------------------------------------------------------------------

OPCODES: list[tuple[str, list[bytes], list[object]]] = [
    (f"4 opcode {opcode}, {how}", pieces, [*before, 1002])
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    for how, pieces, before in (
        ("empty", [masked(0x80 | opcode, b"")], []),
        ("with data", [masked(0x80 | opcode, b"reserved")], []),
        ("behind a text", [HI + masked(0x80 | opcode, b"") + frame("", PING)], ["hi"]),
        ("byte by byte", one_by_one(HI + masked(0x80 | opcode, b"r") + frame("", PING)), ["hi"]),
    )
]

# --- 5: Fragments ----------------------------------------------------------------------------------------------------

PARTS = fragmented(chat("fragments"), 20)
FIVE = fragmented(chat("fragments"), 5, 10, 20, 25)
MIDDLE, END = masked(CONT, b"x"), masked(0x80 | CONT, b"x")
PINGED = frame("p", PING)
FRAGMENTS: list[tuple[str, list[bytes], list[object]]] = [
    ("5.1 ping", [masked(PING, b"f1") + masked(0x80 | CONT, b"f2")], [1002]),
    ("5.2 pong", [masked(PONG, b"f1") + masked(0x80 | CONT, b"f2")], [1002]),
    ("5.3 two", [b"".join(PARTS)], ["fragments"]),
    ("5.4 two, frame by frame", PARTS, ["fragments"]),
    ("5.5 two, byte by byte", one_by_one(b"".join(PARTS)), ["fragments"]),
    ("5.6 ping between", [PARTS[0] + PINGED + PARTS[1]], [b"p", "fragments"]),
    ("5.7 ping between, frame by frame", [PARTS[0], PINGED, PARTS[1]], [b"p", "fragments"]),
    ("5.8 ping between, byte by byte", one_by_one(PARTS[0] + PINGED + PARTS[1]), [b"p", "fragments"]),
    ("5.9 end of nothing", [END + HI], [1002]),
    ("5.10 end of nothing, frame by frame", [END, HI], [1002]),
    ("5.11 end of nothing, byte by byte", one_by_one(END + HI), [1002]),
    ("5.12 middle of nothing", [MIDDLE + HI], [1002]),
    ("5.13 middle of nothing, frame by frame", [MIDDLE, HI], [1002]),
    ("5.14 middle of nothing, byte by byte", one_by_one(MIDDLE + HI), [1002]),
    ("5.15 behind a message", [b"".join(PARTS) + MIDDLE + HI], ["fragments", 1002]),
    ("5.16 middle before a message", [MIDDLE + b"".join(PARTS)], [1002]),
    ("5.17 end before a message", [END + b"".join(PARTS)], [1002]),
    ("5.18 text in a message", [PARTS[0] + HI], [1002]),
    (
        "5.19 five, pings between",
        [FIVE[0] + FIVE[1] + PINGED, FIVE[2] + FIVE[3] + PINGED, FIVE[4]],
        [b"p", b"p", "fragments"],
    ),
    (
        "5.20 five, pings between, frame by frame",
        [*FIVE[:2], PINGED, *FIVE[2:4], PINGED, FIVE[4]],
        [b"p", b"p", "fragments"],
    ),
]

# --- 6: UTF-8 --------------------------------------------------------------------------------------------------------

GREEK = "κ\u1f79σμε"
EACH_BYTE = fragmented(chat(GREEK), *range(1, len(chat(GREEK))))
BAD = chat(GREEK).replace("σ".encode(), b"\xf4\x90\x80\x80")
BAD_AT = BAD.index(b"\xf4")
EMPTY_ENDS = fragmented(chat("hi"), 0, len(chat("hi")))
UTF_8: list[tuple[str, list[bytes], list[object]]] = [
    ("6.1.2 three empty fragments", [*fragmented(b"", 0, 0), HI], ["hi"]),
    ("6.1.3 empty at both ends", EMPTY_ENDS, ["hi"]),
    ("6.2.1 whole", [frame(chat(GREEK))], [GREEK]),
    ("6.2.2 two fragments", fragmented(chat(GREEK), chat(GREEK).index("σ".encode())), [GREEK]),
    ("6.2.3 a fragment for each byte", EACH_BYTE, [GREEK]),
    ("6.2.4 the same in one segment", [b"".join(EACH_BYTE)], [GREEK]),
    ("6.3.1 not UTF-8", [frame(BAD)], [1007]),
    ("6.3.2 not UTF-8, a fragment for each byte", fragmented(BAD, *range(1, len(BAD))), [1007]),
    # Invalid UTF-8 fails as soon as it is seen, not at the end of the message.
    ("6.4.1 at the second of three", fragmented(BAD, BAD_AT, BAD_AT + 4)[:2], [1007]),
    ("6.4.2 cut in the character", fragmented(BAD, BAD_AT + 1, BAD_AT + 4)[:2], [1007]),
    ("6.4.3 at the byte", fragmented(BAD, *range(1, len(BAD)))[: BAD_AT + 2], [1007]),
]
# The sections of M. Kuhn's UTF-8 decoder test.
VALID = {
    "6.5": [
        b"hello$world",
        b"hello\xc2\xa2world",
        b"hello\xe2\x82\xacworld",
        b"hello\xf0\xa4\xad\xa2world",
        GREEK.encode(),
    ],
    "6.7 first of each length": [b"\xc2\xa0", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"],
    "6.9 last of each length": [b"~", b"\xdf\xbf"],
    "6.11 boundaries": [b"\xed\x9f\xbf", b"\xef\xbf\xbd"],
    "6.23 replacement character": [b"\xef\xbf\xbd", b"\xef\xbf\xbc"],
}
# Valid UTF-8 with code points that the chat replaces.
CLEANED = {
    "6.7 null": [b"\x00", b"\xc2\x80"],
    "6.9 last of each length": [b"\x7f", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"],
    "6.11 boundaries": [b"\xee\x80\x80", b"\xf4\x8f\xbf\xbf"],
    "6.22 not characters": [
        (plane << 16 | low).to_bytes(4, "big").decode("utf-32-be").encode()
        for plane in range(17)
        for low in (0xFFFE, 0xFFFF)
    ],
    "6.23 specials": [b"\xef\xbf\xb9", b"\xef\xbf\xba", b"\xef\xbf\xbb"],
}
CUT = [b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"]
CUT += [b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"]
HIGH, LOW = (
    (b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf"),
    (b"\xed\xb0\x80", b"\xed\xbf\xbf"),
)
INVALID = {
    "6.6 cut text": [GREEK.encode()[:end] for end in (1, 3, 4, 6, 8, 10)],
    "6.8 first of 5 and 6 bytes": [b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"],
    "6.10 beyond Unicode": [b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"],
    "6.11 beyond Unicode": [b"\xf4\x90\x80\x80"],
    "6.12 continuations": [
        *((b"\x80\xbf" * 3)[:size] for size in range(1, 7)),
        b"\xbf",
        bytes(range(0x80, 0xC0)),
    ],
    "6.13 lonely starts": [bytes((start, 0x20)) for start in range(0xC0, 0xFE)],
    "6.14 cut sequences": CUT,
    "6.15 cut sequences together": [b"".join(CUT)],
    "6.16 impossible": [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"],
    "6.17 overlong": [
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xf8\x80\x80\x80\xaf",
        b"\xfc\x80\x80\x80\x80\xaf",
    ],
    "6.18 most overlong": [
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf8\x87\xbf\xbf\xbf",
        b"\xfc\x83\xbf\xbf\xbf\xbf",
    ],
    "6.19 overlong null": [
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        b"\xf8\x80\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80\x80",
    ],
    "6.20 surrogates": [*HIGH, *LOW],
    "6.21 pairs of surrogates": [high + low for high in HIGH for low in LOW],
}


def containing(text: bytes) -> bytes:
    """A json message with these bytes in the middle of its text."""
    return b'{"type": "chat", "message": "a' + text + b'b"}'


@pytest.mark.parametrize("section", VALID)
def test_what_is_utf_8_comes_back(socket: Socket, section: str):
    for text in VALID[section]:
        send(socket, [frame(containing(text))])
        send(socket, one_by_one(frame(containing(text))))
        send(socket, fragmented(containing(text), *range(1, len(containing(text)))))
        assert seen(socket) == [f"a{text.decode()}b"] * 3, text


@pytest.mark.parametrize("section", CLEANED)
def test_what_is_utf_8_and_not_text_does_not_end_the_connection(socket: Socket, section: str):
    for text in CLEANED[section]:
        send(socket, [frame(containing(text)), *fragmented(containing(text), 31)])
        assert len(seen(socket)) == 2, text
        assert socket.client.state is State.OPEN


@pytest.mark.parametrize("section", INVALID)
def test_what_is_not_utf_8_ends_the_connection(server: Simulation, section: str):
    for text in INVALID[section]:
        message = containing(text)
        for pieces in (
            [frame(message)],
            fragmented(message, *range(1, len(message))),
            fragmented(text, len(text)),
        ):
            alice = Socket(server)
            send(alice, pieces)
            assert seen(alice) == [1007], text
            alice.client.close()


# --- 7: The end ------------------------------------------------------------------------------------------------------

ENDS: list[tuple[str, list[bytes], list[object]]] = [
    ("7.1.1 behind a text", [HI + NORMAL], ["hi", 1000]),
    ("7.1.2 twice", [NORMAL + NORMAL], [1000]),
    ("7.1.3 before a ping", [NORMAL + frame("", PING)], [1000]),
    ("7.1.4 before a text", [NORMAL + HI], [1000]),
    ("7.1.5 in a message", [PARTS[0] + NORMAL + PARTS[1]], [1000]),
    (
        "7.1.6 behind a large text",
        [frame(padded(262_144)) + HI + NORMAL],
        ["x" * (262_144 - len(chat(""))), "hi", 1000],
    ),
    ("7.3.1 without a code", [frame("", CLOSE)], [0]),
    ("7.3.2 with one byte", [frame("a", CLOSE)], [1002]),
    ("7.3.3 with a code", [NORMAL], [1000]),
    ("7.3.4 with a reason", [close(1000, b"Hello World!")], [1000]),
    ("7.3.5 with the longest reason", [close(1000, b"*" * 123)], [1000]),
    ("7.3.6 with too long a reason", [close(1000, b"*" * 124)], [1002]),
    ("7.5.1 with a reason that is not UTF-8", [close(1000, BAD)], [1007]),
    *(
        (f"7.7 code {code}", [close(code)], [code])
        for code in (
            1000,
            1001,
            1002,
            1003,
            1007,
            1008,
            1009,
            1010,
            1011,
            1012,
            1013,
            1014,
            3000,
            3999,
            4000,
            4999,
        )
    ),
    *(
        (f"7.9 code {code}", [close(code, reason)], [1002])
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
        for reason in (b"", b"reason")
    ),
]


# --- 9: Limits -------------------------------------------------------------------------------------------------------

LARGE = padded(LARGEST)
LARGE_TEXT = json.loads(LARGE)["message"]
LIMITS: list[tuple[str, list[bytes], list[object]]] = [
    *(
        (f"9.3 fragments of {size}", fragmented(LARGE, *range(size, LARGEST, size)), [LARGE_TEXT])
        for size in (4_096, 16_384, 65_536, 262_144)
    ),
    *((f"9.5 segments of {size}", chopped(frame(LARGE), size), [LARGE_TEXT]) for size in (8_192, 65_536)),
    ("as long as it can be", [frame(padded(MAX_LINE))], ["x" * (MAX_LINE - len(chat("")))]),
    ("a byte longer", [frame(b" " * (MAX_LINE + 1))[:14]], [1009]),
    ("16 MB", [b"\x81\xff" + (1 << 24).to_bytes(8, "big")], [1009]),
    ("the longest that the protocol has", [b"\x81\xff" + b"\x7f" + b"\xff" * 7], [1009]),
    ("a byte longer in fragments", [*fragmented(LARGE, LARGEST)[:1], masked(CONT, b" " * 1_001)[:8]], [1009]),
    (
        "a thousand fragments of one byte",
        fragmented(padded(1_000), *range(1, 1_000)),
        ["x" * (1_000 - len(chat("")))],
    ),
    ("not masked", [b"\x81\x02hi"], [1002]),
    ("not masked, and long", [b"\x81\x7e\x10\x00"], [1002]),
]
CASES = [*PINGS, *BITS, *OPCODES, *FRAGMENTS, *UTF_8, *ENDS, *LIMITS]


@pytest.mark.parametrize(
    ("pieces", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_case(socket: Socket, pieces: list[bytes], expected: list[object]):
    send(socket, pieces)
    found = seen(socket)
    assert found == expected
    ends = bool(found) and isinstance(found[-1], int)
    assert socket.client.state is (State.FIN if ends else State.OPEN)


def test_many_messages_come_back_in_order(socket: Socket):
    # 9.7 and 9.8.
    for size in (0, 16, 64, 256, 1_024):
        texts = ["x" * size + f"{n}" for n in range(200)]
        send(socket, [b"".join([frame(chat(text)) for text in texts])])
        assert seen(socket) == texts
