"""The connection: what it hands on, when it stops reading, how it explains a failure."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from geventchat.client.address import Address
from geventchat.client.inbox import Inbox
from geventchat.client.link import (
    PAUSE_AT_LINES,
    RESUME_AT_LINES,
    Closed,
    Link,
    LinkEvent,
    Received,
    Writable,
    explain,
)
from geventchat.client.terminal import Interrupted, Typed

HERE = Address("chat.example", 4000)


class FakeTransport(asyncio.Transport):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def pause_reading(self) -> None:
        self.asked.append("pause")

    def resume_reading(self) -> None:
        self.asked.append("resume")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.asked.append(f"write {bytes(data)!r}")


def connected() -> tuple[Link, FakeTransport, list[LinkEvent]]:
    events: list[LinkEvent] = []
    link, transport = Link(events.append), FakeTransport()
    link.connection_made(transport)
    return link, transport, events


def test_lines_are_handed_on_whole_and_in_order() -> None:
    link, _, events = connected()
    link.data_received(b"one\r\ntw")
    link.data_received(b"o\nthr")
    assert events == [Received(link, b"one"), Received(link, b"two")]


def test_a_reader_that_falls_behind_stops_the_server_and_not_the_memory() -> None:
    link, transport, events = connected()
    link.data_received(b"x\n" * PAUSE_AT_LINES)
    assert transport.asked == []
    link.data_received(b"x\n")
    assert transport.asked == ["pause"]
    for _ in range(PAUSE_AT_LINES + 1 - RESUME_AT_LINES):
        link.dealt_with()
    assert transport.asked == ["pause"]
    link.dealt_with()
    assert transport.asked == ["pause", "resume"]
    assert len(events) == PAUSE_AT_LINES + 1


def test_a_full_way_out_is_known_and_its_end_is_told() -> None:
    link, _, events = connected()
    link.pause_writing()
    assert link.blocked
    link.resume_writing()
    assert not link.blocked
    assert events == [Writable(link)]


def test_what_is_sent_after_the_end_goes_nowhere() -> None:
    link, transport, events = connected()
    link.send(b"in time")
    link.connection_lost(None)
    link.send(b"too late")
    assert transport.asked == ["write b'in time'"]
    assert events == [Closed(link, "the server closed it")]


def test_a_reset_is_told_in_words() -> None:
    link, _, events = connected()
    link.connection_lost(ConnectionResetError(errno.ECONNRESET, "whatever"))
    assert events == [Closed(link, "connection reset by peer")]


@pytest.mark.parametrize(
    ("fault", "explanation"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "x"),
            "Nobody listens at chat.example:4000 (connection refused).",
        ),
        (
            OSError(
                "Multiple exceptions: [Errno 111] Connect call failed ('::1', 4000, 0, 0), "
                "[Errno 111] Connect call failed ('127.0.0.1', 4000)"
            ),
            "Nobody listens at chat.example:4000 (connection refused).",
        ),
        (OSError(errno.EHOSTUNREACH, "x"), "Cannot connect to chat.example:4000: no route to host."),
        (OSError(errno.ENETUNREACH, "x"), "Cannot connect to chat.example:4000: network is unreachable."),
        (socket.gaierror(socket.EAI_NONAME, "x"), "There is no host named chat.example."),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "The name chat.example could not be looked up just now."),
        (UnicodeError("label too long"), "There is no host named chat.example."),
    ],
)
def test_a_failed_connection_is_explained_in_one_line(
    fault: OSError | UnicodeError, explanation: str
) -> None:
    assert explain(HERE, fault) == explanation


def test_what_happens_during_work_is_dealt_with_and_can_end_it() -> None:
    class Enough(Exception):
        pass

    async def visit() -> list[object]:
        inbox = Inbox()
        dealt: list[object] = []
        inbox.put(Typed("one"))
        assert await inbox.meanwhile(asyncio.sleep(0.01, "done"), dealt.append) == "done"
        for_ever = asyncio.ensure_future(asyncio.Event().wait())

        def stop(happening: object) -> None:
            dealt.append(happening)
            raise Enough

        inbox.put(Interrupted())
        with pytest.raises(Enough):
            await inbox.meanwhile(for_ever, stop)
        await asyncio.wait({for_ever})
        assert for_ever.cancelled()
        inbox.put(Typed("left for later"))
        assert await inbox.next() == Typed("left for later")
        assert await inbox.next(0.0) is None
        return dealt

    assert asyncio.run(visit()) == [Typed("one"), Interrupted()]
