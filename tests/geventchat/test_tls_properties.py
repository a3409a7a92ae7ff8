"""Whatever is sent, in whichever pieces, and however little the socket takes: the other end receives exactly that."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.geventchat.test_tls import Pair

PIECES = st.lists(
    st.sampled_from([1, 20, 4_095, 4_096, 4_097, 16_384, 16_385, 50_000]), min_size=1, max_size=6
)


def text(size: int, seed: int) -> bytes:
    return bytes((seed + 7 * n) % 251 for n in range(size))


@settings(deadline=None, max_examples=60)
@given(PIECES, st.lists(st.integers(1, 30_000), min_size=1, max_size=30), st.booleans())
def test_what_is_sent_arrives_once_and_in_order_however_little_fits(
    sizes: list[int], free: list[int], gathered: bool
):
    pair = Pair()
    pieces: list[memoryview] = [memoryview(text(size, n)) for n, size in enumerate(sizes)]
    wanted = b"".join(pieces)
    pair.wire.free_bytes = 0
    turn = received = 0
    while pieces:
        pair.wire.free_bytes += free[turn % len(free)]
        turn += 1
        try:
            sent = pair.transport.sendmsg(pieces) if gathered else pair.transport.send(pieces[0])
        except BlockingIOError:
            continue
        # Taken bytes have arrived completely, and what was not taken is passed again.
        received += sent
        pair.deliver()
        assert len(pair.client.received) >= received
        while sent:
            first = pieces[0]
            pieces[0] = first[sent:]
            sent -= min(sent, len(first))
            if not pieces[0]:
                del pieces[0]
    assert pair.client.received == wanted


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 20_000), min_size=1, max_size=8),
    st.lists(st.integers(1, 9_000), min_size=1),
    st.integers(1, 5_000),
)
def test_what_arrives_is_read_once_and_in_order_however_it_is_cut(
    sizes: list[int], cuts: list[int], most: int
):
    pair = Pair()
    wire = (
        b"".join([pair.client.send(text(size, n)) for n, size in enumerate(sizes)])
        + pair.client.close_notify()
    )
    wanted = b"".join(text(size, n) for n, size in enumerate(sizes))
    received = b""
    ended = False
    turn = 0
    while wire and not ended:
        cut = cuts[turn % len(cuts)]
        turn += 1
        pair.wire.arrived += wire[:cut]
        wire = wire[cut:]
        while not ended:
            before = pair.transport.has_input() or bool(pair.wire.arrived)
            try:
                chunk = pair.transport.recv(most)
            except BlockingIOError:
                if not pair.wire.arrived:
                    break
                continue
            assert before, "it had something although it said that it had nothing"
            assert len(chunk) <= most
            received += chunk
            ended = not chunk
    assert received == wanted
    assert ended
