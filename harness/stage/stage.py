"""The stage: clients, a target, a fence and a clock together. Knows no script.

For conversations written in Python it is used as it is; the player plays scripts on it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from gevent.event import Event

from harness.stage.client import Client, End, Unexpected
from harness.stage.connection import Connection
from harness.stage.exact_fence import ExactFence, NeverIdle
from harness.stage.fence import POLL_S, AnswerFence, Fence, FenceFailed, Grade, QuietFence
from harness.stage.foreign_threads import ForeignThreads
from harness.stage.isolation import World
from harness.stage.kernel import SocketAddress, SocketDiagnostics
from harness.stage.traceback_hiding import hides_traceback
from harness.stage.virtual_time import RealClock, VirtualClock, VirtualLoop
from harness.targets.target import RunningServer, ServerSpec, Target, TargetError, address_of

__tracebackhide__ = hides_traceback
_DYING_S = 0.05

__all__ = ["Stage", "Unexpected"]


class Stage:
    """Use it in a `with`: the server runs inside, and everything is ended outside.

    `within` bounds, in real seconds, how long any one thing may take.
    """

    def __init__(
        self,
        target: Target,
        spec: ServerSpec = ServerSpec(),  # noqa: B008  # frozen
        *,
        fence: Fence | None = None,
        eol: bytes = b"\n",
        within: float = 5.0,
    ) -> None:
        self.eol = eol
        self.within_s = within
        self._target = target
        self._spec = spec
        self._fence = fence
        self._clients: dict[str, Client] = {}
        self._leaving: list[Connection] = []
        self._exact_fence: ExactFence | None = None
        self._came: Any = None
        self._output_shown = False

    # Coming and going

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            self._kernel = SocketDiagnostics()
            stack.callback(self._kernel.close)
            self._foreign_threads = ForeignThreads()
            self._world: World = stack.enter_context(self._target.world())
            self._choose_proof()
            spec = replace(self._spec, clock=self._clock)
            self._running: RunningServer = stack.enter_context(self._target.start(spec, self._drive))
            stack.callback(self._print_unshown_output)
            stack.callback(self._close_clients)
            self._began = self._clock.monotonic()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _choose_proof(self) -> None:
        self._quiet = QuietFence(self._everyone, self._pause, self.within_s)
        self._answer_fence: AnswerFence | None = None
        self._clock: Any = RealClock()
        if isinstance(self._world.loop, VirtualLoop):
            self._clock = VirtualClock(self._world.loop)
            self._exact_fence = ExactFence(self._world, self._connections, self.within_s)
        elif self._fence is not None:
            self._answer_fence = AnswerFence(
                self._fence, self.eol, self._everyone, self._pause, self.within_s
            )

    def _drive(self, work: Any) -> Any:
        if self._exact_fence is None:
            return work()
        try:
            return self._exact_fence.drive(work)
        except NeverIdle as never_idle:
            raise TargetError(
                f"{self._target}: {never_idle}", self._world.error_log.getvalue()
            ) from never_idle

    def _close_clients(self) -> None:
        for client in self._clients.values():
            client.close()
        if self._exact_fence is not None:
            try:
                self._exact_fence.settle()
            except NeverIdle as never_idle:
                raise TargetError(f"{self._target}: {never_idle}", self.server_output()) from never_idle

    def _print_unshown_output(self) -> None:
        # A traceback that no report has shown must not vanish with the stage.
        if self._exact_fence is not None and not self._output_shown:
            sys.stderr.write(self._world.error_log.getvalue())

    # The clients

    def client(self, name: str) -> Client:
        """The client of that name, the same one each time; it connects with its first word."""
        if name not in self._clients:
            self._clients[name] = Client(name, self)
        return self._clients[name]

    def clients(self, *names: str) -> tuple[Client, ...]:
        return tuple(self.client(name) for name in names)

    # Proof

    @property
    def grade(self) -> Grade:
        """How sure it is that nothing more comes."""
        if self._exact_fence is not None:
            return Grade.SETTLED if self._foreign_threads.seen else Grade.EXACT
        if self._answer_fence is not None:
            return Grade.SETTLED if self._answer_fence.weakened else Grade.ANSWERED
        return Grade.SETTLED

    def fence(self, actors: Iterable[Client] = ()) -> None:
        """Returns once all that the doers caused has been received by every client."""
        if self._exact_fence is not None:
            self._settle_exactly()
        elif self._answer_fence is not None:
            self._answer_fence.everything(actors)
        else:
            self._quiet.everything(actors)
        self._require_life()

    def wait(self, seconds: float) -> None:
        """Time passes: at once where it is virtual, really elsewhere. What is due earlier is received earlier."""
        if self._exact_fence is not None:
            self._exact_fence.wait(seconds)
        else:
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                self._pause(left)
        self._require_life()

    def settle(self) -> None:
        """Fails if anyone holds anything that nobody expected."""
        self.fence(self._clients.values())
        for client in self._clients.values():
            if client.inbox:
                raise self.unexpected(client, "nothing", bytes(client.inbox))

    def now(self) -> float:
        """Seconds since the stage was ready, in the server's time."""
        return float(self._clock.monotonic() - self._began)

    def alive(self) -> bool:
        """Whether the server lives. One that has just hung up on a client is looked at for a moment longer: the
        kernel ends the connections of a dying process before the process itself."""
        ended = any(c.end in (End.CLOSED, End.RESET, End.REFUSED) for c in self._clients.values())
        return self._running.alive(_DYING_S if ended else 0.0)

    def server_output(self) -> str:
        """What the server had to say for itself: its standard error, or the tracebacks of its greenlets."""
        self._output_shown = True
        return self._running.server_output()

    # What the clients ask

    def new_connection(self, client: Client) -> Connection:
        if client.name in self._clients:
            self._leaving.append(client.connection)
        return Connection(self._world, self._kernel, client, self.within_s)

    def address(self, endpoint: str | None) -> SocketAddress:
        asked = self._spec.endpoints
        return address_of(self._running.addresses, endpoint or (asked[0] if asked else None))

    def wake(self) -> None:
        if self._came is not None:
            self._came.set()

    def wait_until_processed(self, client: Client) -> None:
        """The server has dealt with all that this client sent."""
        if self._exact_fence is not None:
            self._settle_exactly()
        elif self._answer_fence is not None:
            self._answer_fence.one(client)
        else:
            self._quiet.one(client)
        self._require_life()

    def wait_until_read(self, client: Client) -> None:
        """The server has read all that this client sent, as far as this machine's kernel can tell."""
        connection = client.connection
        if self._exact_fence is not None:
            self._settle_exactly()
        deadline = time.monotonic() + self.within_s
        while connection.end is End.OPEN and connection.writes:
            far = connection.peer_state()
            if not connection.in_flight and (far is None or far.unread == 0):
                return
            if self._exact_fence is not None or time.monotonic() > deadline:
                waited = 0.0 if self._exact_fence is not None else self.within_s
                raise FenceFailed(client.name, waited, "sent bytes that the server did not read")
            self._pause(POLL_S)

    def wait_for_more(self, client: Client, seconds: float) -> bool:
        """Let something more come; False once it is known that nothing will."""
        before = len(client.inbox), client.end
        if self._exact_fence is not None:
            self._settle_exactly()
            return (len(client.inbox), client.end) != before
        self._pause(seconds)
        self._require_life()
        return True

    def unexpected(self, client: Client, expected: str, got: bytes) -> Exception:
        if not self.alive():
            return TargetError(f"{self._target} {self._running.how_it_ended()}", self.server_output())
        shown = "nothing" if not got else "\n              ".join(map(repr, got.splitlines(keepends=True)))
        ended = "" if client.end is End.OPEN else f"\n  {client.name} is {client.end.value}"
        output = self.server_output()
        output = f"\n  the server said\n{output}" if output else ""
        return Unexpected(
            f"{client.name} heard what was not expected  ({self.grade}, at {self.now():.3f} s)\n"
            f"  expected    {expected}\n  {client.name} got   {shown}{ended}{output}"
        )

    # How things pass

    def _everyone(self) -> list[Client]:
        return list(self._clients.values())

    def _connections(self) -> list[Connection]:
        return [client.connection for client in self._clients.values()] + self._leaving

    def _settle_exactly(self) -> None:
        assert self._exact_fence is not None
        self._exact_fence.settle()
        while self._foreign_threads.look():
            # Threads of the server's own are seen by no loop, so only time can tell.
            self._quiet.everything(())
            before = self._quiet.state()
            self._exact_fence.settle()
            if self._quiet.state() == before:
                return

    def _pause(self, seconds: float) -> None:
        """Let the loop run until something arrives, `seconds` at most, in real time."""
        self._came = Event()
        timer = self._world.loop.real_timer(max(seconds, 0.0))
        try:
            timer.start(self._came.set)
            self._came.wait()
        finally:
            self._came = None
            timer.close()

    def _require_life(self) -> None:
        if not self._running.alive():
            raise TargetError(f"{self._target} {self._running.how_it_ended()}", self.server_output())
