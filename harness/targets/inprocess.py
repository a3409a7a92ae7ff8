"""A gevent server in this process, made by a factory: the target with virtual time, the exact fence and faults.

The only target that needs gevent. Decides on which loop a server runs. Knows no particular server.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import gevent
from gevent import _socket3  # type: ignore[attr-defined]
from gevent.baseserver import BaseServer

from harness.interception.gevent_loop import ControlledLoop
from harness.interception.sockets import SocketPatch
from harness.stage.fence import NeverIdle
from harness.stage.gevent_loop import GeventTime, VirtualLoop, fresh_world
from harness.stage.kernel import RealSocket, SocketAddress
from harness.stage.target import (
    ONLY,
    RunningServer,
    ServerSpec,
    TargetError,
    UnsupportedSpec,
    ends_the_process,
    reachable,
    require_endpoints,
)
from harness.stage.virtual_time import ErrorLog, errors_of_threads, started_by_a_server
from harness.targets.application import Application, ApplicationTarget, made_for_asyncio, signals_put_back

# The classes of sockets that a gevent server can hold: the one that gevent's sockets wrap, and the standard library's.
_SOCKETS: tuple[type, ...] = (RealSocket, _socket3._wrefsocket)


class InProcess(ApplicationTarget):
    """The server that `factory(spec)` makes: a gevent server, or any object with start(), stop() and addresses by endpoint."""

    @contextmanager
    def start(self, spec: ServerSpec, within_s: float) -> Iterator[RunningServer]:
        if made_for_asyncio(self._factory):
            raise self._not_for_gevent()
        interceptors = self._interceptors
        make_loop = partial(ControlledLoop, interceptors) if interceptors else VirtualLoop
        patch = SocketPatch(interceptors, _SOCKETS) if interceptors else nullcontext()
        with (
            signals_put_back(),
            started_by_a_server(),
            fresh_world(make_loop) as world,
            patch,
            errors_of_threads(world.note_error_of_thread),
        ):
            loop = GeventTime(world, within_s)
            run = partial(self._run, loop, world.error_log)
            try:
                app = self._started(replace(spec, clock=loop.clock), run)
                try:
                    server = Application(
                        loop, _addresses(app), world.error_log.getvalue, world.take_errors, self._faults
                    )
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
        def start() -> Any:
            app = self._factory(spec)
            if hasattr(app, "__aenter__") or inspect.iscoroutinefunction(app.start):
                raise self._not_for_gevent()
            app.start()
            return app

        with self._reporting("does not start"):
            return run(start)

    def _not_for_gevent(self) -> TargetError:
        return TargetError(
            f"{self} makes an asyncio server, and was to be played on gevent; use asyncio:MODULE:FACTORY or InProcessAsyncio"
        )

    def _stop(self, app: Any, run: Callable[[Callable[[], Any]], Any]) -> None:
        with self._reporting("does not stop"):
            run(app.stop)

    @contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        """Report an exception of the server's code; one with which it ends its process would end the test run."""
        try:
            yield
        except (UnsupportedSpec, TargetError, gevent.Timeout):
            raise
        except (Exception, SystemExit, gevent.GreenletExit) as error:
            if isinstance(error, SystemExit) and not ends_the_process(error):
                raise
            raise TargetError(f"{self} {what}: {error!r}", traceback.format_exc()) from error

    def _run(self, loop: GeventTime, error_log: ErrorLog, work: Callable[[], Any]) -> Any:
        try:
            return loop.run(work)
        except NeverIdle as never_idle:
            raise TargetError(f"{self}: {never_idle}", error_log.getvalue()) from never_idle


def _addresses(app: Any) -> Mapping[str, SocketAddress]:
    found: Mapping[str, Any] = {ONLY: app.address} if isinstance(app, BaseServer) else app.addresses
    if not found:
        raise TargetError(f"{app!r} has started but listens nowhere: its addresses are empty")
    return {endpoint: reachable(address) for endpoint, address in found.items()}
