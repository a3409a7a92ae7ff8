"""A gevent server in this process, made by a factory: the target with virtual time, the exact fence and faults.

The only target that needs gevent. Decides on which loop a server runs. Knows no particular server.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import gevent
from gevent.baseserver import BaseServer

from harness.interception.faults import Faults
from harness.interception.interceptor import Interceptor
from harness.interception.loop import ControlledLoop
from harness.interception.sockets import SocketPatch
from harness.language.steps import Fault
from harness.stage.connection import Connection
from harness.stage.fence import NeverIdle
from harness.stage.kernel import SocketAddress
from harness.stage.target import (
    ONLY,
    RunningServer,
    ServerError,
    ServerSpec,
    Target,
    TargetError,
    UnsupportedSpec,
    reachable,
    require_endpoints,
)
from harness.stage.virtual_time import ErrorLog, VirtualLoop, VirtualTime, World, fresh_world


class InProcess(Target):
    """The server that `factory(spec)` makes: a gevent server, or any object with start(), stop() and addresses by endpoint.

    `interceptors` change the behaviour of the server's sockets and loop. `features` are its features beyond those of
    every such target, for `needs:` in scripts.
    """

    def __init__(
        self,
        factory: Callable[[ServerSpec], Any],
        *,
        interceptors: Sequence[Interceptor] = (),
        features: Iterable[str] = (),
    ) -> None:
        self._faults = next((one for one in interceptors if isinstance(one, Faults)), None)
        self._factory = factory
        self._interceptors = tuple(interceptors)
        self._features = frozenset(features)

    def intercepted_by(self, interceptor: Interceptor) -> InProcess:
        """The same server for one play, with one more interceptor."""
        interceptors = (*self._interceptors, interceptor)
        return InProcess(self._factory, interceptors=interceptors, features=self._features)

    def with_faults(self) -> InProcess:
        return self.intercepted_by(Faults())

    @property
    def features(self) -> frozenset[str]:
        own = {"virtual-time", "in-process", "restart", "stderr", "proven-split", "faults"}
        return self._features | own

    def __str__(self) -> str:
        factory = self._factory
        return f"{factory.__module__}:{getattr(factory, '__qualname__', type(factory).__name__)}"

    @contextmanager
    def start(self, spec: ServerSpec, within_s: float) -> Iterator[RunningServer]:
        interceptors = self._interceptors
        make_loop = partial(ControlledLoop, interceptors) if interceptors else VirtualLoop
        patch = SocketPatch(interceptors) if interceptors else nullcontext()
        with fresh_world(make_loop) as world, patch:
            loop = VirtualTime(world, within_s)
            run = partial(self._run, loop, world.error_log)
            try:
                app = self._started(replace(spec, clock=loop.clock), run)
                try:
                    server = _Application(app, loop, world, self._faults)
                    if isinstance(app, BaseServer):
                        require_endpoints(spec, server.addresses)
                    try:
                        yield server
                    finally:
                        server.print_unshown_output()
                finally:
                    self._stop(app, run)
            finally:
                world.end_greenlets()

    def _started(self, spec: ServerSpec, run: Callable[[Callable[[], Any]], Any]) -> Any:
        try:
            app = run(lambda: self._factory(spec))
            run(app.start)
        except (UnsupportedSpec, TargetError, gevent.Timeout):
            raise
        except Exception as error:
            raise TargetError(f"{self} does not start: {error!r}", traceback.format_exc()) from error
        return app

    def _stop(self, app: Any, run: Callable[[Callable[[], Any]], Any]) -> None:
        try:
            run(app.stop)
        except (TargetError, gevent.Timeout):
            raise
        except Exception as error:
            raise TargetError(f"{self} does not stop: {error!r}", traceback.format_exc()) from error

    def _run(self, loop: VirtualTime, error_log: ErrorLog, work: Callable[[], Any]) -> Any:
        try:
            return loop.run(work)
        except NeverIdle as never_idle:
            raise TargetError(f"{self}: {never_idle}", error_log.getvalue()) from never_idle


class _Application(RunningServer):
    """A started application in this process."""

    def __init__(self, app: Any, loop: VirtualTime, world: World, faults: Faults | None) -> None:
        super().__init__(loop, _addresses(app))
        self._error_log = world.error_log
        self._errors: list[ServerError] = world.hub.errors
        self._faults = faults
        self._shown = False

    def how_it_ended(self) -> str:
        return "runs in this process"

    def output(self) -> str:
        self._shown = True
        return self._error_log.getvalue()

    def print_unshown_output(self) -> None:
        """Print a traceback that no report has shown, so that it does not disappear with the stage."""
        if not self._shown:
            sys.stderr.write(self._error_log.getvalue())

    def take_errors(self) -> tuple[ServerError, ...]:
        taken = tuple(self._errors)
        self._errors.clear()
        self._shown = self._shown or bool(taken)  # whoever takes them reports them, or has expected them
        return taken

    def inject(self, fault: Fault, connection: Connection | None) -> None:
        if self._faults is None:
            super().inject(fault, connection)
        else:
            self._faults.inject(fault, connection)

    def vanish(self, connection: Connection) -> None:
        if self._faults is None:
            super().vanish(connection)
        else:
            self._faults.vanish(connection)


def _addresses(app: Any) -> Mapping[str, SocketAddress]:
    found: Mapping[str, Any] = {ONLY: app.address} if isinstance(app, BaseServer) else app.addresses
    if not found:
        raise TargetError(f"{app!r} has started but listens nowhere: its addresses are empty")
    return {
        endpoint: reachable((address,) if isinstance(address, str) else tuple(address))
        for endpoint, address in found.items()
    }
