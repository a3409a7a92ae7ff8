"""One scripted client: what it says, what it has heard and not yet accounted for, and how it ended.

It knows one connection at a time and asks the stage when things have been dealt with; it knows no script.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from typing import Protocol

from harness.stage.connection import Connection, End
from harness.stage.kernel import SocketAddress
from harness.stage.traceback_hiding import hides_traceback

__all__ = ["Client", "End", "Unexpected"]
__tracebackhide__ = hides_traceback


class Unexpected(AssertionError):
    """A client heard something other than what was expected of it."""


class Backstage(Protocol):
    """What a client needs of its stage."""

    eol: bytes
    within_s: float

    def now(self) -> float: ...

    def new_connection(self, client: Client) -> Connection: ...

    def address(self, endpoint: str | None) -> SocketAddress: ...

    def wake(self) -> None: ...

    def wait_until_processed(self, client: Client) -> None: ...

    def wait_until_read(self, client: Client) -> None: ...

    def wait_for_more(self, client: Client, seconds: float) -> bool: ...

    def unexpected(self, client: Client, expected: str, got: bytes) -> Exception: ...


class Client:
    def __init__(self, name: str, stage: Backstage) -> None:
        self.name = name
        self.inbox = bytearray()
        """What was received and is not yet claimed, in order, without the answers to a fence."""
        self.arrivals: list[tuple[float, int]] = []
        """When what came: pairs of stage time and the offset, over all that was ever received, where it began."""
        self.expects_close = False
        """Whether the server is expected to end this connection now: a fence then waits for that and asks nothing."""
        self.connection: Connection = stage.new_connection(self)
        self._stage = stage
        self.mid_line = False
        """Whether the last byte sent ended no line."""
        self._claimed = 0
        self._split = False

    def __repr__(self) -> str:
        return f"<Client {self.name}: {self.end.value}, {len(self.inbox)} bytes unclaimed>"

    # What it does

    @property
    def connected(self) -> bool:
        return self.end is End.OPEN

    @property
    def end(self) -> End:
        return self.connection.end

    def connect(self, endpoint: str | None = None) -> None:
        """A new connection. Being refused is not an error: `end` tells."""
        address = self._stage.address(endpoint)
        if self.end is not End.NEVER:
            self.connection.close()
            self.connection = self._stage.new_connection(self)
            self.expects_close = self.mid_line = self._split = False
        self.connection.open(address)

    def send(self, line: str) -> None:
        """Send the line; returns once the server has dealt with it."""
        self.post(line.encode() + self._stage.eol)
        self._stage.wait_until_processed(self)

    def post(self, data: bytes) -> None:
        """Send the bytes and return at once."""
        if self.end is End.NEVER:
            self.connect()
        if self._split:
            self._stage.wait_until_read(self)
            self._split = False
        self._write(data)

    def send_bytes(self, data: bytes) -> None:
        """Send the bytes so that they reach the server as a read of their own: what was sent before has been read."""
        if self.end is End.NEVER:
            self.connect()
        self._stage.wait_until_read(self)
        self._write(data)
        self._split = True

    def _write(self, data: bytes) -> None:
        if data:
            self.mid_line = not data.endswith(b"\n")
            self.connection.write(data)

    def close(self) -> None:
        self.connection.close()

    def half_close(self) -> None:
        self.connection.half_close()

    def abort(self) -> None:
        """Reset the connection."""
        self.connection.abort()

    def stop_reading(self) -> None:
        self.connection.stop_reading()

    def read_again(self) -> None:
        self.connection.read_again()

    # What it has heard

    def take(self, size: int) -> bytes:
        """Claim the first bytes of the inbox."""
        taken = bytes(self.inbox[:size])
        del self.inbox[:size]
        self._claimed += len(taken)
        return taken

    def arrived_at(self, offset: int) -> float:
        """When the byte at this offset of the inbox came, in stage time."""
        at = bisect_right(self.arrivals, self._claimed + offset, key=lambda arrival: arrival[1])
        return self.arrivals[at - 1][0] if at else 0.0

    def received(self, data: bytes) -> None:
        self.arrivals.append((self._stage.now(), self._claimed + len(self.inbox)))
        self.inbox += data
        self._stage.wake()

    def ended(self, end: End) -> None:
        self._stage.wake()

    def discard(self, start: int, size: int) -> None:
        """Take out of the inbox what only the fence asked for."""
        del self.inbox[start : start + size]
        begin = self._claimed + start
        self.arrivals = [
            (when, offset if offset <= begin else max(begin, offset - size)) for when, offset in self.arrivals
        ]

    # For conversations written in Python

    def expect(self, line: str) -> None:
        """The next thing received is this line."""
        self._expect(line.encode() + self._stage.eol)

    def expect_bytes(self, data: bytes) -> None:
        """The next things received are these bytes."""
        self._expect(data)

    def expect_nothing(self) -> None:
        """Nothing is there, and nothing is under way."""
        self._stage.wait_until_processed(self)
        if self.inbox:
            raise self._stage.unexpected(self, "nothing", bytes(self.inbox))

    def expect_closed(self) -> None:
        """The server has ended the connection in an orderly way, and nothing is left to read."""
        self.expects_close = True
        self._stage.wait_until_processed(self)
        deadline = time.monotonic() + self._stage.within_s
        while self.end is End.OPEN and self._more(deadline):
            pass
        if self.inbox or self.end is not End.CLOSED:
            raise self._stage.unexpected(self, "a closed connection", bytes(self.inbox))

    def _expect(self, wire: bytes) -> None:
        deadline = time.monotonic() + self._stage.within_s
        while len(self.inbox) < len(wire) and wire.startswith(self.inbox) and self.end is End.OPEN:
            if not self._more(deadline):
                break
        if not self.inbox.startswith(wire):
            raise self._stage.unexpected(self, repr(wire), bytes(self.inbox))
        self.take(len(wire))

    def _more(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        return left > 0 and self._stage.wait_for_more(self, left)
