"""Fences wait until everything has happened; a grade says how well that is proven.

- A fence returns once every client has received everything that the acting clients caused, as far as its grade goes.
- The exact fence asks the server's own loop; the answer fence asks the server with a line that it must answer; the
  quiet fence waits until nothing has come for a while. `heard_fence` has the one for lines that other clients hear.
- An answer proves that the server has handled the client's earlier lines, and that everything it wrote to that client
  before the answer has arrived. A server that delivers in another thread or task can write afterwards, so an answer fence
  can distrust the answers: it then waits for quiet as well. Bytes behind an answer show that a server does so.
- If a client cannot be asked, the answer fence waits for quiet, and its grade is that of a quiet fence.
- A fence never asks on a connection that the server is expected to close: that would reset it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from harness.language.escapes import render_bytes
from harness.language.fences import Fence, Place
from harness.stage.connection import Connection, ConnectionState, End, Mark
from harness.stage.event_loop import EventLoop

SETTLE_S = 0.1
"""The default time without input after which a server counts as quiet."""

MOMENTS = 20
"""In most turns, the fence waits for one part in this many of that time after the answers: enough for a message that another
thread or task of the server is just delivering."""

HANG_UP_S = 0.003
"""How long a server that has read a line can take to close the connection before a fence line is sent."""

POLL_S = 0.0002


def hides_traceback(excinfo: Any) -> bool:
    """For pytest's `__tracebackhide__`: show the line of the test when the harness reports a failure of the server.
    Errors of the harness itself stay visible."""
    return type(excinfo.value).__module__.partition(".")[0] == "harness"


__tracebackhide__ = hides_traceback


class Grade(enum.IntEnum):
    """How certain it is that nothing more comes; a lower value is weaker."""

    SETTLED = 1
    ANSWERED = 2
    HEARD = 3
    EXACT = 4

    def __str__(self) -> str:
        return self.name.lower()


class FenceFailed(Exception):
    """A fence timed out: for this client, or for the server as a whole if `client` is empty."""

    def __init__(self, client: str, waited_s: float, why: str) -> None:
        super().__init__(f"{client or 'the server'} {why} within {waited_s:g} s")
        self.client = client
        self.waited_s = waited_s


class NeverIdle(FenceFailed):
    """The server's loop never becomes idle: it spins, or a thread of its pool does not return."""


@dataclass(slots=True)
class FenceLineSent:
    """A fence line that was sent to the server, and its answer, if there was one."""

    client: str
    line: bytes
    at_s: float
    answer: bytes | None = None
    behind: bytes = b""
    """The bytes before a possible answer that can also be the end of another line."""
    token: str = ""
    heard_by: list[str] | None = None
    """The clients that have heard it; None for a line that no client hears."""
    unheard_by: tuple[str, ...] = ()
    """The clients that had not heard it when the fence returned."""

    @property
    def way_out(self) -> str:
        """A hint for an answer that follows bytes without a line end; empty for others."""
        if not self.behind:
            return ""
        before = render_bytes(self.behind)
        return (
            f"an answer behind bytes without a line end, such as `{before}`, is found if the turn expects these bytes "
            f"(`{self.client}<< {before}`), if an adapter removes them (`prompts: {before}`), or if the server repeats the "
            "${token} of the fence line; `fence: none` needs no answer"
        )


class NoFenceAnswer(FenceFailed):
    """The server did not answer a fence line; with the last line that it sent instead, if any."""

    def __init__(self, waited_s: float, fence: Fence, sent: FenceLineSent, last_line: str) -> None:
        self.fence = fence
        self.sent = sent
        self.last_line = last_line
        super().__init__(sent.client, waited_s, "was not answered")

    def __str__(self) -> str:
        why = f"{self.explained()} (asked by {self.client}, waited {self.waited_s:g} s)"
        return f"{why}; {self.sent.way_out}" if self.sent.behind else why

    def explained(self, where: str = "") -> str:
        """The whole explanation in one sentence; `where` follows the fence line."""
        answers = " or ".join(f"`{answer}`" for answer in self.fence.answers)
        # The last line can be the answer to an earlier one, so the report only quotes it.
        last = f"what it said last is `{self.last_line}`" if self.last_line else "it said nothing more"
        return (
            f"the server did not answer the fence line `{self.fence.question}`{where} with {answers}; {last}"
        )


Connections = Callable[[], Sequence[Connection]]
"""Returns the current connection of every client."""


def replied_bytes(connections: Connections) -> int:
    """How many bytes the clients have sent as automatic replies. Each is a new action, whose effects are not ordered with
    earlier fence lines."""
    return sum(one.replied_bytes for one in connections())


class Transit:
    """What the harness itself holds back between the parts of a server. This one holds nothing."""

    passed_on = 0
    """How much it has held back and then passed on."""

    def held(self) -> Callable[[], bool]:
        """A function that says whether anything of what is held back at this moment still is."""
        return lambda: False


_TRANSITS = 2
"""How often the quiet fence waits for what is held back before it takes that for talk among the parts of the server: twice, so
that a question and its answer arrive."""

_TRANSIT_POLL_S = 0.001


class QuietFence:
    """Waits until nothing has come for a while since the last thing that was held back has been passed on. Weak: a line that
    comes later is attributed to a later turn."""

    grade = Grade.SETTLED
    answers_alone = False

    def __init__(
        self,
        loop: EventLoop,
        connections: Connections,
        within_s: float,
        settle_s: float,
        transit: Transit = Transit(),  # noqa: B008  # has no state
    ) -> None:
        self._loop = loop
        self._connections = connections
        self._within_s = within_s
        self._settle_s = settle_s
        self._transit = transit

    def everything(self, actors: Iterable[Connection]) -> None:
        limits, transit = self._loop.limits, self._transit
        left_s, transits = self._within_s, _TRANSITS
        while True:
            began_s = limits.now()
            came, passed_on = self._wait_for_quiet(left_s)
            left_s -= limits.now() - began_s
            held = transit.held()
            if came:
                transits = _TRANSITS
            if not transits or (transit.passed_on == passed_on and not held()):
                return
            transits -= 1
            if self._let_pass(held):
                transits = _TRANSITS

    def _wait_for_quiet(self, within_s: float) -> tuple[bool, int]:
        """Whether anything has come, and how much had been passed on when the quiet began."""
        limits = self._loop.limits
        limit, quiet = limits.limit(within_s), limits.limit(self._settle_s)
        before, passed_on, came = self.state(), self._transit.passed_on, False
        while not quiet.over:
            self._loop.pause(quiet.pause_s)
            now = self.state()
            if now != before:
                before, passed_on, came = now, self._transit.passed_on, True
                quiet = limits.limit(self._settle_s)
            if limit.over:
                raise FenceFailed("", self._within_s, "was not quiet")
        return came, passed_on

    def _let_pass(self, held: Callable[[], bool]) -> bool:
        """Wait until nothing of this is held back any longer; True if anything has come."""
        before = self.state()
        while held():
            self._loop.pause(_TRANSIT_POLL_S)
        return self.state() != before

    def one(self, connection: Connection) -> bool:
        return False

    def more_within(self, seconds: float) -> bool:
        """True if anything comes within this time; this then waits for quiet."""
        before, limit = self.state(), self._loop.limits.limit(seconds)
        while not limit.over:
            self._loop.pause(limit.pause_s)
            if self.state() != before:
                self.try_everything()
                return True
        return False

    def try_everything(self) -> None:
        """Wait for quiet, but not for a server that is never quiet."""
        with suppress(FenceFailed):
            self.everything(())

    def state(self) -> list[ConnectionState]:
        return [one.state for one in self._connections()]


class ExactFence:
    """Waits until the server's loop is idle and no byte is in flight."""

    answers_alone = False

    def __init__(self, loop: EventLoop, quiet: QuietFence) -> None:
        self._loop = loop
        self._quiet = quiet
        self.grade = Grade.EXACT

    def everything(self, actors: Iterable[Connection]) -> None:
        while not self._loop.settle():
            # The loop does not see threads or processes that the server starts, so the fence has to wait for quiet.
            self.grade = Grade.SETTLED
            self._quiet.everything(())
            before = self._quiet.state()
            self._loop.settle()
            if self._quiet.state() == before:
                return
        if self._loop.unseen:  # during a wait, or at a look between two turns
            self.grade = Grade.SETTLED

    def one(self, connection: Connection) -> bool:
        self.everything((connection,))
        return True


@dataclass(frozen=True, slots=True)
class Asked:
    """A client whose fence line was sent."""

    connection: Connection
    mark: Mark
    """Where the answer is looked for, or was."""
    sent: FenceLineSent

    @property
    def start(self) -> int:
        """The offset in the inbox of the first byte since then."""
        return self.mark.at

    @property
    def followed(self) -> bool:
        """Whether anything has come behind the answer, except bytes that are expected without a line end: a prompt."""
        behind = bytes(self.connection.inbox[self.mark.at :]) if self.sent.answer is not None else b""
        return bool(behind) and behind not in self.connection.unended


class AnswerFence:
    """The acting clients send the fence line, then all others. Works for servers that handle each client's lines in order, and
    that write all effects of a line, to every client, before they answer the next."""

    def __init__(
        self,
        fence: Fence,
        unfenced: frozenset[str],
        eol: bytes,
        loop: EventLoop,
        connections: Connections,
        within_s: float,
        settle_s: float,
    ) -> None:
        self._fence = fence
        self._unfenced = unfenced
        self._eol = eol
        self._loop = loop
        self._connections = connections
        self._within_s = within_s
        self._settle_s = settle_s
        self._tokens = count(1)
        self._quiet = QuietFence(loop, connections, within_s, settle_s)
        self._trusted = True
        self.grade = Grade.ANSWERED
        self.answers_alone = False
        """True if the last fence returned because of answers, without waiting for quiet. The grade, by contrast, is that of the
        whole run."""
        self.overtaken = False
        """True once something has come behind an answer that proved something, although nothing happened any more."""
        self.sent: list[FenceLineSent] = []
        """The fence lines sent since this list was last emptied."""

    def distrust(self) -> None:
        """Answers prove nothing about this server: from here on wait for quiet as well."""
        self._trusted = False
        self.answers_alone = False
        self.grade = Grade.SETTLED

    def everything(self, actors: Iterable[Connection]) -> None:
        limit = self._loop.limits.limit(self._within_s)
        replied = replied_bytes(self._connections)
        self._everything(actors)
        while (now := replied_bytes(self._connections)) != replied:
            if limit.over:
                raise FenceFailed(
                    "", self._within_s, "was not quiet: it kept sending lines that are replied to"
                )
            replied = now
            self._everything(one for one in self._connections() if one.end is End.OPEN)

    def _everything(self, actors: Iterable[Connection]) -> None:
        actors, replied = tuple(actors), replied_bytes(self._connections)
        asked: list[Asked] = []
        proven = self._ask(actors, asked)
        if len(actors) > 1:
            asked.clear()  # what one of them caused can follow the answer to another
        others = [
            one for one in self._connections() if one not in actors and one.end is End.OPEN and one.reads
        ]
        proven = self._ask(others, asked, may_end=True) and proven
        self.answers_alone = proven and self._trusted
        if self.answers_alone and replied_bytes(self._connections) == replied:
            self.overtaken = self.overtaken or any(one.followed for one in asked)
        if not self.answers_alone:
            # The effects of a client without a fence line are not ordered with the answers to others, and lines to that client
            # are not ordered with anything.
            self.grade = Grade.SETTLED
            self._quiet.everything(())

    def one(self, connection: Connection) -> bool:
        return self._ask((connection,), []) and self._trusted

    def _ask(self, connections: Iterable[Connection], all_asked: list[Asked], may_end: bool = False) -> bool:
        """Ask these clients; True if each was asked and was answered, or has ended where that is allowed."""
        asked, proven = [], True
        for connection in connections:
            one = self._put(connection)
            if one is not None:
                asked.append(one)
            elif not may_end or connection.end is End.OPEN:
                proven = False
        all_asked += asked
        for one in asked:
            if not self._answered(one) and not may_end:
                proven = False
        return proven

    def _put(self, connection: Connection) -> Asked | None:
        """Send the fence line as this client; None if it cannot."""
        if connection.expects_close:
            self._let_it_close(connection)
        if self._can_be_asked(connection):
            self._let_it_be_read(connection)
        if not self._can_be_asked(connection):
            return None
        asked = Asked(connection, connection.inbox.mark(), self._sending(connection))
        self.sent.append(asked.sent)
        connection.write(asked.sent.line)
        return asked

    def _sending(self, connection: Connection) -> FenceLineSent:
        token = self._new_token()
        line = self._fence.wire(token) + self._eol
        return FenceLineSent(connection.name, line, self._loop.now(), token=token)

    def _new_token(self) -> str:
        return f"f{next(self._tokens)}"

    def _answered(self, asked: Asked) -> bool:
        """Wait for the answer and remove it; False if the connection has ended instead."""
        asked.sent.answer = self._await(asked)
        return asked.sent.answer is not None

    def _can_be_asked(self, connection: Connection) -> bool:
        return connection.answers and connection.introduced and connection.name not in self._unfenced

    def _await(self, asked: Asked) -> bytes | None:
        """Wait for the answer and remove it from the inbox; None if the connection has ended instead."""
        connection, limit = asked.connection, self._loop.limits.limit(self._within_s)
        while True:
            seen = len(connection.inbox)
            found = self._answer(asked)
            if found is not None:
                return self._removed(asked, found)
            pause_s = limit.pause_s
            if connection.end is not End.OPEN:
                return None
            if pause_s <= 0:
                raise self._no_answer(asked)
            # A line that the script expects can look like the answer, and the answer can follow unknown bytes. Only the next
            # bytes can tell, so wait for them.
            lookalike = self._last_lookalike(asked)
            found = lookalike or self._fence.find_own_behind(connection.inbox, asked.start, asked.sent.token)
            if found is None:
                self._loop.pause(pause_s)
                continue
            self._quiet.everything(())
            if len(connection.inbox) == seen:
                if lookalike is not None:
                    self.grade = Grade.SETTLED
                return self._removed(asked, found)

    def _no_answer(self, asked: Asked) -> NoFenceAnswer:
        lines = bytes(asked.connection.inbox[asked.start :]).splitlines()
        last_line = lines[-1] if lines else b""
        found = self._fence.find_at_end(last_line, asked.sent.token)
        asked.sent.behind = last_line[: found[0]] if found is not None else b""
        return NoFenceAnswer(self._within_s, self._fence, asked.sent, render_bytes(last_line))

    def _removed(self, asked: Asked, found: Place) -> bytes:
        inbox = asked.connection.inbox
        answer = bytes(inbox[found[0] : sum(found)])
        inbox.discard(*found)
        asked.mark.at = found[0]
        return answer

    def _answer(self, asked: Asked) -> Place | None:
        """The place of the answer. Lookalikes that the script expects belong to earlier lines, so they come first."""
        connection, start, token = asked.connection, asked.start, asked.sent.token
        inbox, unended = connection.inbox, connection.unended
        own = self._fence.find_own_answer(inbox, start, token, unended)
        if own is not None or not connection.lookalikes:
            return own or next(self._fence.find_answers(inbox, start, token, unended), None)
        found = list(self._fence.find_answers(inbox, 0, token, unended))
        if not found or found[-1][0] < start:
            return None
        if connection.has_all is not None:
            return found[-1] if connection.has_all(bytes(inbox[: found[-1][0]])) else None
        all_came = len(found) > connection.lookalikes or inbox.count(b"\n") > connection.expected_lines
        return found[-1] if all_came else None

    def _last_lookalike(self, asked: Asked) -> Place | None:
        connection = asked.connection
        if not connection.lookalikes:
            return None
        found = list(
            self._fence.find_answers(connection.inbox, asked.start, asked.sent.token, connection.unended)
        )
        return found[-1] if found else None

    def _let_it_be_read(self, connection: Connection) -> None:
        """Wait until a server on this machine has read the last line, and then a moment for it to close the connection. A fence
        line on a closed connection would make the kernel reset it, and so hide an orderly end."""
        if connection.peer_state() is None:
            return  # not on this machine
        limit, waited = self._loop.limits.limit(self._within_s), False
        while not limit.over and connection.answers and not connection.read_by_server:
            waited = True
            self._loop.pause(POLL_S)
        if waited:
            self._loop.pause(HANG_UP_S)

    def _let_it_close(self, connection: Connection) -> None:
        limit = self._loop.limits.limit(self._within_s)
        while connection.end is End.OPEN and connection.reads and not limit.over:
            self._loop.pause(limit.pause_s)
