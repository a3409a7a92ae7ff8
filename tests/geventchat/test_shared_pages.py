"""Pages that many sockets send: the bytes arrive as they were, whatever is sent after them and whoever reads late."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest

from geventchat.net import shared_pages as module
from geventchat.net.shared_pages import SharedPages, shared_pages
from tests.geventchat.delivery_world import World, in_world

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")

BYTES, COPIED = module._LEAST_BYTES, module._LEAST_COPIED
# Enough of them for any batch that is long enough.
RECEIVERS = -(-COPIED // BYTES)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection whose first end does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(10)
        yield ours, theirs


def received(peer: socket.socket, size: int) -> bytes:
    stream = bytearray()
    while len(stream) < size:
        stream += peer.recv(size - len(stream))
    return bytes(stream)


def until_refused(send: Callable[[], int]) -> list[int]:
    """How many bytes each call has taken, until one would have had to wait."""
    taken: list[int] = []
    with suppress(BlockingIOError):
        while len(taken) < 10_000:
            taken.append(send())
        raise AssertionError("never full")
    return taken


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def batch(letter: str) -> bytes:
    return letter.encode() * (BYTES + 1)


def test_what_a_peer_reads_late_is_what_was_sent(pair: tuple[socket.socket, socket.socket]):
    ours, theirs = pair
    for letter in "abcd":
        with closing(SharedPages(batch(letter))) as pages:
            assert pages.send_to(ours) == len(batch(letter))
    for letter in "abcd":
        assert received(theirs, len(batch(letter))) == batch(letter)


def test_a_socket_takes_what_fits_and_refuses_the_rest(pair: tuple[socket.socket, socket.socket]):
    ours, theirs = pair
    data = os.urandom(100_000)
    with closing(SharedPages(data)) as pages:
        taken = until_refused(lambda: pages.send_to(ours))
    assert 0 < taken[-1] < len(data)
    stream = b"".join(data[:size] for size in taken)
    assert received(theirs, len(stream)) == stream


def test_a_peer_that_has_gone_is_an_error_of_its_socket(pair: tuple[socket.socket, socket.socket]):
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    with closing(SharedPages(batch("a"))) as pages, pytest.raises(ConnectionError):
        until_refused(lambda: pages.send_to(ours))


@pytest.mark.parametrize(
    ("size", "receivers", "shared"),
    [
        (BYTES, RECEIVERS, True),
        (BYTES, RECEIVERS - 1, False),
        (BYTES - 1, 2 * RECEIVERS, False),
        (COPIED // 100, 100, True),
        (COPIED // 100 - 1, 100, False),
    ],
)
def test_only_large_batches_for_many_are_shared(size: int, receivers: int, shared: bool):
    pages = shared_pages(b"x" * size, receivers)
    assert (pages is not None) == shared
    if pages is not None:
        pages.close()


def _fails(*_: object) -> int:
    raise OSError("not here")


def _lacks_memory(*_: object) -> int:
    raise MemoryError


@pytest.mark.parametrize("call", ["memfd_create", "sendfile"])
def test_a_system_that_refuses_them_is_sent_copies(call: str, monkeypatch: pytest.MonkeyPatch):
    before = descriptors()
    module._can_be_sent.cache_clear()
    monkeypatch.setattr(os, call, _fails)
    assert shared_pages(batch("a"), RECEIVERS) is None
    module._can_be_sent.cache_clear()
    assert descriptors() == before


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ("memfd_create", _fails),
        ("memfd_create", _lacks_memory),
        ("write", _fails),
        ("write", lambda *_: 1),
    ],
)
def test_without_memory_or_descriptors_copies_are_sent(
    call: str, result: object, monkeypatch: pytest.MonkeyPatch
):
    assert module._can_be_sent()
    before = descriptors()
    monkeypatch.setattr(os, call, result)
    assert shared_pages(batch("a"), RECEIVERS) is None
    assert descriptors() == before


def test_members_are_sent_the_pages_and_one_that_has_gone_costs_the_others_no_byte(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(module, "_LEAST_BYTES", 1)
    monkeypatch.setattr(module, "_LEAST_COPIED", 1)

    def body(world: World) -> None:
        talker, *members = [world.member("line") for _ in range(5)]
        world.flush()
        before = descriptors()
        peers = []
        for member in members:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            peers.append((ours, theirs))
            member.subscriber.plain_socket = ours
        # Its peer has gone; the next one's socket is full.
        peers[0][1].close()
        until_refused(lambda: peers[1][0].send(b"x" * 65_536))
        world.say(talker, "hello")
        world.flush()
        assert members[0].subscriber.closed
        assert b"".join(members[1].subscriber._backlog or ()).startswith(b"MSG p0 hello\n")
        for _, theirs in peers[2:]:
            assert theirs.recv(100).startswith(b"MSG p0 hello\n")
        for ours, theirs in peers:
            ours.close()
            theirs.close()
        assert descriptors() == before

    in_world(body)
