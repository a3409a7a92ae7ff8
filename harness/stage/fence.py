"""Fences, which prove that everything has happened, and the grades of that proof.

- A fence returns once everything that the acting clients caused has been received by every client.
- The exact fence asks the server's own loop; the answer fence asks the server with a line that it must answer; the
  quiet fence waits until nothing has come for a while.
- A fence never asks on a connection that the server is expected to close: that would reset it.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from harness.language.escapes import unescape
from harness.stage.connection import Connection, End
from harness.stage.event_loop import EventLoop

SETTLE_S = 0.1
"""How long nothing must come before a server without a fence line counts as quiet."""

HANG_UP_S = 0.003
"""How long to wait, after a server has read a line, for it to close the connection, before a fence line is sent."""

POLL_S = 0.0002

_TOKEN = "${token}"
_ANYTHING = b"${_}"


def hides_traceback(excinfo: Any) -> bool:
    """For pytest's `__tracebackhide__`: show the line of the test when the harness reports a failure of the server.
    Errors of the harness itself stay visible."""
    return type(excinfo.value).__module__.startswith("harness.")


__tracebackhide__ = hides_traceback


class Grade(enum.IntEnum):
    """How certain it is that nothing more comes; a lower value is weaker."""

    SETTLED = 1
    ANSWERED = 2
    EXACT = 3

    def __str__(self) -> str:
        return self.name.lower()


class FenceFailed(Exception):
    """A fence did not hold: for which client, and how long it waited. No client: the server as a whole."""

    def __init__(self, client: str, waited_s: float, why: str) -> None:
        super().__init__(f"{client or 'the server'} {why} within {waited_s:g} s")
        self.client = client
        self.waited_s = waited_s


class NeverIdle(FenceFailed):
    """The server's loop never becomes idle: it spins, or a thread of its pool does not return."""


class NoFenceAnswer(FenceFailed):
    """The server did not answer a fence line; with the last line that it sent instead, if any."""

    def __init__(self, client: str, waited_s: float, fence: Fence, last_line: str) -> None:
        self.fence = fence
        self.last_line = last_line
        super().__init__(client, waited_s, "was not answered")

    def __str__(self) -> str:
        return f"{self.explained()} (asked by {self.client}, waited {self.waited_s:g} s)"

    def explained(self, where: str = "") -> str:
        """All of it in one sentence; `where` follows the fence line."""
        answers = " or ".join(f"`{answer}`" for answer in self.fence.answers)
        # It can also be an answer to an earlier line, so the report claims no more.
        last = f"what it said last is `{self.last_line}`" if self.last_line else "it said nothing more"
        return (
            f"the server did not answer the fence line `{self.fence.question}`{where} with {answers}; {last}"
        )


@dataclass(frozen=True, slots=True)
class Fence:
    """A line that the server must answer, and the answers that count.

    `${token}` in either stands for a word that is new each time; with it an answer cannot be taken for another.
    `${_}` in an answer stands for anything up to the end of the line.
    Backslash escapes as in byte lines are decoded, for answers of more than one line.
    """

    question: str
    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.question or not self.answers or not all(self.answers):
            raise ValueError(f"a fence is a line and its answers, such as PING -> PONG, not {self}")

    @classmethod
    def parse(cls, text: str) -> Fence:
        """From `PING -> PONG | ERR must-login-first`."""
        question, arrow, answers = text.partition(" -> ")
        if not arrow:
            raise ValueError(f"expected `LINE -> ANSWER` or `LINE -> ANSWER | ANSWER`, got {text!r}")
        return cls(question.strip(), tuple(answer.strip() for answer in answers.split(" | ")))

    def __str__(self) -> str:
        return f"{self.question} -> {' | '.join(self.answers)}"

    def wire(self, token: str) -> bytes:
        """The question as it is sent, without a line end."""
        return unescape(self.question.replace(_TOKEN, token))

    def find_answer(self, inbox: bytes | bytearray, start: int, token: str) -> tuple[int, int] | None:
        """Where the first answer stands and how long it is: at the beginning of a line, or of what came after the
        question. An answer is a line or, written with a line end in it, exactly those bytes."""
        for found in self._pattern(token).finditer(inbox, start):
            if found.start() == start or inbox[found.start() - 1] == 0x0A:
                return found.start(), found.end() - found.start()
        return None

    def _pattern(self, token: str) -> re.Pattern[bytes]:
        ways = []
        for answer in self.answers:
            wire = unescape(answer.replace(_TOKEN, token))
            end = b"" if b"\n" in wire else rb"\r?\n"
            ways.append(rb"[^\r\n]*".join(map(re.escape, wire.split(_ANYTHING))) + end)
        return re.compile(b"|".join(ways))


Connections = Callable[[], Sequence[Connection]]
"""The present connection of every client."""


class QuietFence:
    """Nothing came for a while. Weak: a later line is missed, and attributed to a later turn."""

    grade = Grade.SETTLED

    def __init__(self, loop: EventLoop, connections: Connections, within_s: float) -> None:
        self._loop = loop
        self._connections = connections
        self._within_s = within_s

    def everything(self, actors: Iterable[Connection]) -> None:
        deadline = time.monotonic() + self._within_s
        before, since = self.state(), time.monotonic()
        while (quiet := time.monotonic() - since) < SETTLE_S:
            self._loop.pause(SETTLE_S - quiet)
            now = self.state()
            if now != before:
                before, since = now, time.monotonic()
            if time.monotonic() > deadline:
                raise FenceFailed("", self._within_s, "was not quiet")

    def one(self, connection: Connection) -> None:
        self.everything((connection,))

    def state(self) -> list[tuple[int, End]]:
        return [(len(one.inbox), one.end) for one in self._connections()]


class ExactFence:
    """The server's loop is idle, and no byte is in flight."""

    def __init__(self, loop: EventLoop, quiet: QuietFence) -> None:
        self._loop = loop
        self._quiet = quiet
        self.grade = Grade.EXACT

    def everything(self, actors: Iterable[Connection]) -> None:
        while not self._loop.settle():
            # The loop does not see threads that the server starts, so only waiting can tell.
            self.grade = Grade.SETTLED
            self._quiet.everything(())
            before = self._quiet.state()
            self._loop.settle()
            if self._quiet.state() == before:
                return

    def one(self, connection: Connection) -> None:
        self.everything((connection,))


class AnswerFence:
    """The acting clients ask a question, then all others. True of servers that handle each client's lines in order."""

    def __init__(
        self, fence: Fence, eol: bytes, loop: EventLoop, connections: Connections, within_s: float
    ) -> None:
        self._fence = fence
        self._eol = eol
        self._loop = loop
        self._connections = connections
        self._within_s = within_s
        self._tokens = count(1)
        self._quiet = QuietFence(loop, connections, within_s)
        self.grade = Grade.ANSWERED

    def everything(self, actors: Iterable[Connection]) -> None:
        actors = tuple(actors)
        self._ask(actors)
        unasked = [actor for actor in actors if not actor.answers]
        self._ask([one for one in self._connections() if one not in actors])
        if unasked:
            # What a connection that ended caused is in no order with the answers to others.
            self.grade = Grade.SETTLED
            self._quiet.everything(())

    def one(self, connection: Connection) -> None:
        self._ask((connection,))

    def _ask(self, connections: Iterable[Connection]) -> None:
        asked = []
        for connection in connections:
            if connection.expects_close:
                self._let_it_close(connection)
            if connection.answers:
                self._let_it_be_read(connection)
            if connection.answers:
                token = f"f{next(self._tokens)}"
                start = len(connection.inbox)
                connection.write(self._fence.wire(token) + self._eol)
                asked.append((connection, start, token))
        for connection, start, token in asked:
            self._await(connection, start, token)

    def _await(self, connection: Connection, start: int, token: str) -> None:
        deadline = time.monotonic() + self._within_s
        while True:
            found = self._fence.find_answer(connection.inbox, start, token)
            if found is not None:
                connection.inbox.discard(*found)
                return
            left = deadline - time.monotonic()
            if connection.end is not End.OPEN:
                return
            if left <= 0:
                lines = bytes(connection.inbox[start:]).decode("utf-8", "backslashreplace").splitlines()
                raise NoFenceAnswer(connection.name, self._within_s, self._fence, lines[-1] if lines else "")
            self._loop.pause(left)

    def _let_it_be_read(self, connection: Connection) -> None:
        """A question that reaches a server which has just closed makes its kernel reset the connection, and an orderly
        end looks like none. So a server on this machine is given a moment once it has read the last line."""
        if connection.peer_state() is None:
            return  # not on this machine
        until = time.monotonic() + self._within_s
        waited = False
        while time.monotonic() < until and connection.answers and not connection.read_by_server:
            waited = True
            self._loop.pause(POLL_S)
        if waited:
            self._loop.pause(HANG_UP_S)

    def _let_it_close(self, connection: Connection) -> None:
        deadline = time.monotonic() + self._within_s
        while connection.answers and (left := deadline - time.monotonic()) > 0:
            self._loop.pause(left)
