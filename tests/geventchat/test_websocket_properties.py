"""Reading a WebSocket does not depend on how its bytes are divided, and a client reads exactly the sent lines."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from websockets.protocol import Protocol, Side

from geventchat.dialects.framing import Unit
from geventchat.dialects.websocket import WebSocketFraming
from tests.geventchat.test_websocket import opened, units
from tests.geventchat.web_client import masked

TEXT, PART, MIDDLE, LAST, PING, PONG, CLOSE, PART_OF_PING, RESERVED = (
    0x81,
    1,
    0,
    0x80,
    0x89,
    0x8A,
    0x88,
    9,
    0xC1,
)
FRAMES = st.builds(
    masked,
    st.sampled_from([TEXT] * 4 + [PART, MIDDLE, LAST, PING, PONG] * 2 + [CLOSE, PART_OF_PING, RESERVED]),
    st.one_of(
        st.text(max_size=140).map(str.encode),
        st.text("a\u00e9", max_size=3).map(str.encode),
        st.binary(max_size=4),
    ),
)
STREAMS = st.lists(st.one_of(*[FRAMES] * 9, st.binary(max_size=6)), max_size=8).map(b"".join)


def outcome(chunks: list[bytes]) -> list[Unit]:
    return units(opened(), *chunks)


@given(STREAMS, st.lists(st.integers(0, 400)))
def test_any_division_into_chunks_gives_the_same_units(stream: bytes, cuts: list[int]):
    whole = outcome([stream])
    ends = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    assert outcome([stream[at:end] for at, end in pairwise(ends)]) == whole
    assert outcome([stream[at : at + 1] for at in range(len(stream))]) == whole


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=300), max_size=5
    )
)
def test_a_client_reads_the_lines_that_were_sent(lines: list[str]):
    client = Protocol(Side.CLIENT)
    client.receive_data(WebSocketFraming.wrap("".join(f"{line}\n" for line in lines).encode()))
    assert [bytes(event.data).decode() for event in client.events_received()] == lines
