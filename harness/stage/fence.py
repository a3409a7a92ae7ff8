"""How it is known that everything has happened: the grades of proof, and the fences for targets seen from outside.

The fence from inside, for servers in this process, is in `exact`. This module knows no scripts and no targets.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from harness.stage.connection import Connection, End
from harness.stage.traceback_hiding import hides_traceback

__tracebackhide__ = hides_traceback

SETTLE_S = 0.1
"""How long nothing must come before an unfenced target counts as quiet."""

HANG_UP_S = 0.003
"""How long a server that has read a line is given to hang up over it, before it is asked a question."""

POLL_S = 0.0002

TOKEN = "${token}"
ANYTHING = b"${_}"

_ESCAPE = re.compile(rb"\\(?:([nrt\\])|x([0-9A-Fa-f]{2}))")
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\"}


class Grade(enum.IntEnum):
    """How sure it is that nothing more comes; a lower one is weaker."""

    SETTLED = 1
    ANSWERED = 2
    EXACT = 3

    def __str__(self) -> str:
        return self.name.lower()


class FenceFailed(Exception):
    """A fence that did not hold: for whom, and how long it was waited. No client: the server's own loop."""

    def __init__(self, client: str, waited_s: float, why: str) -> None:
        who = client or "the server"
        super().__init__(f"{who} {why} within {waited_s:g} s")
        self.client = client
        self.waited_s = waited_s


class NoFenceAnswer(FenceFailed):
    """The server has said nothing to a fence line that counts, and what it said last instead, if anything."""

    def __init__(self, client: str, waited_s: float, fence: Fence, last_line: str) -> None:
        self.fence = fence
        self.last_line = last_line
        super().__init__(client, waited_s, "was not answered")

    def __str__(self) -> str:
        return f"{self.told()} (asked by {self.client}, waited {self.waited_s:g} s)"

    def told(self, where: str = "") -> str:
        """The whole of it in one sentence; `where` is put behind the fence line."""
        counts = " or ".join(f"`{answer}`" for answer in self.fence.answers)
        # It may also be an answer to what was sent before, so nothing more is said of it.
        last_line = f"what it said last is `{self.last_line}`" if self.last_line else "it said nothing more"
        return f"the server did not answer the fence line `{self.fence.question}`{where} with {counts}; {last_line}"


@dataclass(frozen=True, slots=True)
class Fence:
    """A line that the server must answer, and the answers that count.

    `${token}` in either stands for a word that is new each time; with it an answer cannot be taken for another.
    `${_}` in an answer stands for anything up to the end of the line.
    Backslash escapes as in byte lines are understood, for answers of more than one line.
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


class Fenced(Protocol):
    """What a fence needs of a client."""

    name: str
    connection: Connection
    inbox: bytearray
    expects_close: bool
    mid_line: bool

    def discard(self, start: int, size: int) -> None: ...


class Sleeper(Protocol):
    """Lets the loop run until something arrives or the time is up, whichever is first."""

    def __call__(self, seconds: float) -> None: ...


class QuietFence:
    """Nothing came for a while. Weak: what comes later than that is missed, and blamed on a later turn."""

    def __init__(self, clients: Callable[[], Sequence[Fenced]], sleep: Sleeper, within_s: float) -> None:
        self._clients = clients
        self._sleep = sleep
        self._within_s = within_s

    def everything(self, actors: Iterable[Any]) -> None:
        deadline = time.monotonic() + self._within_s
        before, since = self.state(), time.monotonic()
        while (quiet := time.monotonic() - since) < SETTLE_S:
            self._sleep(SETTLE_S - quiet)
            now = self.state()
            if now != before:
                before, since = now, time.monotonic()
            if time.monotonic() > deadline:
                raise FenceFailed("", self._within_s, "was not quiet")

    def one(self, client: Fenced) -> None:
        self.everything((client,))

    def state(self) -> list[tuple[int, End]]:
        return [(len(c.inbox), c.connection.end) for c in self._clients()]


class AnswerFence:
    """The doer is asked a question, then everyone. True of servers that handle each client's lines in order."""

    def __init__(
        self,
        fence: Fence,
        eol: bytes,
        clients: Callable[[], Sequence[Fenced]],
        sleep: Sleeper,
        within_s: float,
    ) -> None:
        self._fence = fence
        self._eol = eol
        self._clients = clients
        self._sleep = sleep
        self._within_s = within_s
        self._tokens = count(1)
        self._quiet = QuietFence(clients, sleep, within_s)
        self.weakened = False
        """Whether a doer could not be asked, so that only time could tell what its leaving caused."""

    def everything(self, actors: Iterable[Fenced]) -> None:
        actors = tuple(actors)
        self._ask(actors)
        unasked = [executor for executor in actors if not _answers(executor)]
        self._ask([client for client in self._clients() if client not in actors])
        if unasked:
            # What a connection that ended caused is in no order with anyone's answers.
            self.weakened = True
            self._quiet.everything(())

    def one(self, client: Fenced) -> None:
        self._ask((client,))

    def _ask(self, clients: Iterable[Fenced]) -> None:
        asked = []
        for client in clients:
            if client.expects_close:
                self._let_it_hang_up(client)
            if _answers(client):
                self._let_it_be_read(client)
            if _answers(client):
                token = f"f{next(self._tokens)}"
                start = len(client.inbox)
                client.connection.write(_wire(self._fence.question, token) + self._eol)
                answer = _answer_pattern(_wire(one, token) for one in self._fence.answers)
                asked.append((client, start, answer))
        for client, start, answer in asked:
            self._await(client, start, answer)

    def _await(self, client: Fenced, start: int, answer: re.Pattern[bytes]) -> None:
        deadline = time.monotonic() + self._within_s
        while True:
            found = _find(client.inbox, start, answer)
            if found is not None:
                client.discard(*found)
                return
            left = deadline - time.monotonic()
            if client.connection.end is not End.OPEN:
                return
            if left <= 0:
                last_line = bytes(client.inbox[start:]).decode("utf-8", "backslashreplace").splitlines()
                raise NoFenceAnswer(
                    client.name, self._within_s, self._fence, last_line[-1] if last_line else ""
                )
            self._sleep(left)

    def _let_it_be_read(self, client: Fenced) -> None:
        """A question that reaches a server which has just hung up makes it reset the connection, and what was an
        orderly end looks like none. So a server on this machine is given a moment once it has read the last line."""
        until = time.monotonic() + self._within_s
        waited = False
        while time.monotonic() < until and _answers(client):
            far = client.connection.peer_state()
            if far is None or (far.unread == 0 and not client.connection.in_flight):
                break
            waited = True
            self._sleep(POLL_S)
        if waited:
            self._sleep(HANG_UP_S)

    def _let_it_hang_up(self, client: Fenced) -> None:
        deadline = time.monotonic() + self._within_s
        while _answers(client) and (left := deadline - time.monotonic()) > 0:
            self._sleep(left)


def _answers(client: Fenced) -> bool:
    connection = client.connection
    # A question put to someone in the middle of a line would become part of that line.
    return connection.end is End.OPEN and connection.writes and connection.reads and not client.mid_line


def _wire(text: str, token: str) -> bytes:
    """The bytes of one side of a fence; backslashes that write no byte stand for themselves, as JSON needs them."""
    return _ESCAPE.sub(_unescaped, text.replace(TOKEN, token).encode())


def _unescaped(escape: re.Match[bytes]) -> bytes:
    return _LETTERS[escape[1]] if escape[1] else bytes.fromhex(escape[2].decode())


def _answer_pattern(answers: Iterable[bytes]) -> re.Pattern[bytes]:
    """An answer is a line, or, written with a line end in it, just those bytes."""
    ways = [
        rb"[^\r\n]*".join(map(re.escape, answer.split(ANYTHING))) + (rb"" if b"\n" in answer else rb"\r?\n")
        for answer in answers
    ]
    return re.compile(b"|".join(ways))


def _find(inbox: bytearray, start: int, answer: re.Pattern[bytes]) -> tuple[int, int] | None:
    """Where the first answer stands: at the beginning of a line, or of what came after the question."""
    for found in answer.finditer(inbox, start):
        if found.start() == start or inbox[found.start() - 1] == 0x0A:
            return found.start(), found.end() - found.start()
    return None
