"""A gevent server in this very process, made by a factory: the target with virtual time and the exact fence.

Here alone it is chosen on which loop such a server runs and what is wrapped around one script. Knows no server.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import gevent
from gevent.baseserver import BaseServer

from harness.interception.controlled_loop import ControlledLoop
from harness.interception.interceptor import Interceptor
from harness.interception.sockets import SocketPatch
from harness.stage.isolation import World, fresh_world
from harness.stage.kernel import SocketAddress
from harness.stage.virtual_time import VirtualLoop
from harness.targets.target import (
    Drive,
    RunningServer,
    ServerSpec,
    TargetError,
    UnsupportedSpec,
    endpoints_only,
    reachable,
)

ONLY = ""
"""The name of the endpoint of a server that has just one."""


class InProcess:
    """What `factory(ask)` makes: a gevent server, or anything with start(), stop() and addresses by endpoint.

    `loop` makes the loop that the script plays on; `around` is entered around each script, inside its fresh hub and
    before the server is made. `sways` change what its sockets and its loop do; with them the loop is one that can be
    steered. `features` is what it has beyond what every such target has, for scripts that say `needs:`.
    """

    def __init__(
        self,
        factory: Callable[[ServerSpec], Any],
        *,
        loop: Callable[[], VirtualLoop] = VirtualLoop,
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
        interceptors: Sequence[Interceptor] = (),
        features: Iterable[str] = (),
    ) -> None:
        self._factory = factory
        self._loop = loop
        self._around = around
        self._interceptors = tuple(interceptors)
        self._features = frozenset(features)

    def intercepted_by(self, interceptor: Interceptor) -> InProcess:
        """The same server for one play, with this sway over its sockets and its loop as well."""
        interceptors = (*self._interceptors, interceptor)
        return InProcess(
            self._factory,
            loop=self._loop,
            around=self._around,
            interceptors=interceptors,
            features=self._features,
        )

    @property
    def features(self) -> frozenset[str]:
        own = {"virtual-time", "in-process", "restart", "stderr", "proven-split", "faults"}
        return self._features | own

    def __str__(self) -> str:
        factory = self._factory
        return f"{factory.__module__}:{getattr(factory, '__qualname__', type(factory).__name__)}"

    @contextmanager
    def world(self) -> Iterator[World]:
        interceptors = self._interceptors
        make = partial(ControlledLoop, interceptors) if interceptors else self._loop
        with (
            fresh_world(make) as world,
            self._around(),
            SocketPatch(interceptors) if interceptors else nullcontext(),
        ):
            try:
                yield world
            finally:
                _end_greenlets(world)

    @contextmanager
    def start(self, spec: ServerSpec, drive: Drive) -> Iterator[RunningServer]:
        error_log = gevent.get_hub().exception_stream
        try:
            app = drive(lambda: self._factory(spec))
            drive(app.start)
        except (UnsupportedSpec, gevent.Timeout):
            raise
        except Exception as error:
            raise TargetError(f"{self} does not start: {error!r}", traceback.format_exc()) from error
        running = _App(app, error_log)
        try:
            if isinstance(app, BaseServer):
                endpoints_only(ServerSpec(spec.endpoints), running.addresses, str(self))
            yield running
        finally:
            drive(app.stop)


class _App:
    """A started application of this process."""

    def __init__(self, app: Any, error_log: Any) -> None:
        self._app = app
        self._error_log = error_log
        self._addresses = _addresses(app)

    @property
    def addresses(self) -> Mapping[str, SocketAddress]:
        return self._addresses

    def alive(self, patience_s: float = 0.0) -> bool:
        return True  # as long as this process does

    def how_it_ended(self) -> str:
        return "runs in this process"

    def server_output(self) -> str:
        return str(self._error_log.getvalue())


def _addresses(app: Any) -> Mapping[str, SocketAddress]:
    if isinstance(app, BaseServer):
        found: Mapping[str, Any] = {ONLY: app.address}
    else:
        found = app.addresses
    if not found:
        raise TargetError(f"{app!r} has started but listens nowhere: its addresses are empty")
    return {endpoint: reachable(tuple(address)) for endpoint, address in found.items()}


def _end_greenlets(world: World) -> None:
    """End what the server left behind, now and in order: a greenlet that is merely dropped runs its `finally` some
    time later, in the middle of another script."""
    loop = world.loop
    if not isinstance(loop, VirtualLoop):
        return
    current = gevent.getcurrent()
    for _ in range(3):  # what ends may start something else, but not for ever
        left = [g for g in list(loop.greenlets) if not g.dead and g is not current and g is not world.hub]
        if not left:
            return
        for one in left:
            gevent.kill(one)
        gevent.idle(loop.MINPRI)
