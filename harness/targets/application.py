"""The common part of all servers in this process, on any loop. Knows no loop and no particular server."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed lacks it
import inspect
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from harness.interception.faults import Faults
from harness.interception.interceptor import Interceptor
from harness.language.steps import Fault
from harness.stage.connection import Connection
from harness.stage.event_loop import EventLoop
from harness.stage.kernel import SocketAddress
from harness.stage.target import RunningServer, ServerError, Target

_Self = TypeVar("_Self", bound="ApplicationTarget")


def made_for_asyncio(factory: Callable[..., Any]) -> bool:
    """Whether it can be seen that this makes an asyncio server: it is a coroutine function, or its result is used in an
    `async with`."""
    function = function_of(factory)
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or (inspect.isclass(function) and hasattr(function, "__aenter__"))
    )


def function_of(factory: Callable[..., Any]) -> Any:
    """The function or class inside decorators, partials and callable objects."""
    while isinstance(factory, partial):
        factory = factory.func
    inner = inspect.unwrap(factory)
    return inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner).__call__


_SIGNALS = signal.valid_signals()
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


@contextmanager
def signals_put_back() -> Iterator[None]:
    """Put back the signal handlers of this process that the server has replaced, and stop the interval timers that it has
    started."""
    # Not the functions of `signal`: they are much slower, and gevent replaces one of them.
    handlers = {number: _signal.getsignal(number) for number in _SIGNALS}
    idle = [timer for timer in _TIMERS if not any(signal.getitimer(timer))]
    try:
        yield
    finally:
        for timer in idle:
            if any(signal.getitimer(timer)):
                signal.setitimer(timer, 0)
        with suppress(
            ValueError
        ):  # another thread than the main one, where the server has set no handler either
            for number, handler in handlers.items():
                if handler is not None and _signal.getsignal(number) != handler:
                    _signal.signal(number, handler)


class ApplicationTarget(Target):
    """A server that a factory makes in this process.

    `interceptors` change the behaviour of the server's sockets and loop. `features` are its features beyond those of
    every such target, for `needs:` in scripts.
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        *,
        interceptors: Sequence[Interceptor] = (),
        features: Iterable[str] = (),
    ) -> None:
        self._faults = next((one for one in interceptors if isinstance(one, Faults)), None)
        self._factory = factory
        self._interceptors = tuple(interceptors)
        self._features = frozenset(features)

    def intercepted_by(self: _Self, interceptor: Interceptor) -> _Self:
        """The same server for one play, with one more interceptor."""
        interceptors = (*self._interceptors, interceptor)
        return type(self)(self._factory, interceptors=interceptors, features=self._features)

    def with_faults(self: _Self) -> _Self:
        return self.intercepted_by(Faults())

    @property
    def features(self) -> frozenset[str]:
        own = {"virtual-time", "in-process", "restart", "stderr", "proven-split", "faults"}
        return self._features | own

    def __str__(self) -> str:
        factory = self._factory
        return f"{factory.__module__}:{getattr(factory, '__qualname__', type(factory).__name__)}"


class Application(RunningServer):
    """A started server in this process.

    `read_log` returns what its loop has reported, and `take_errors` the exceptions that nothing has handled since the last
    call.
    """

    outlives_scripts = False

    def __init__(
        self,
        loop: EventLoop,
        addresses: Mapping[str, SocketAddress],
        read_log: Callable[[], str],
        take_errors: Callable[[], tuple[ServerError, ...]],
        faults: Faults | None,
    ) -> None:
        super().__init__(loop, addresses)
        self._read_log = read_log
        self._take_errors = take_errors
        self._faults = faults
        self._shown = False

    def how_it_ended(self) -> str:
        return "runs in this process"

    def output(self) -> str:
        self._shown = True
        return self._read_log()

    def print_unshown_output(self) -> None:
        """Print a traceback that no report has shown, so that it does not disappear with the stage."""
        if not self._shown:
            sys.stderr.write(self._read_log())

    def take_errors(self) -> tuple[ServerError, ...]:
        taken = self._take_errors()
        self._shown = self._shown or bool(taken)  # the caller reports them, or has expected them
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
