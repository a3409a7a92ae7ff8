"""A program that makes and runs its event loop itself, such as `def main(): asyncio.run(serve())`, in a separate thread.

- Only one of the two threads runs at any time: the program's runs during an iteration of its loop, and waits in the
  selector between two iterations.
- Everything that makes an event loop in that thread gets the loop of the stage. A program that asks for another kind of
  loop, or runs another one, is refused, because its time cannot be virtual.
- The handlers of signals that it sets in that thread, where Python allows none, are never called: the signals of this process
  are for the test run.
"""

from __future__ import annotations

import asyncio
import os
import signal as signals
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from harness.stage.asyncio_loop import AsyncioLoop
from harness.stage.fence import NeverIdle
from harness.stage.limits import LimitClock

_STANDARD = {"_UnixSelectorEventLoop", "SelectorEventLoop", "EventLoop", "new_event_loop"}


class UnsupportedLoop(Exception):
    """The program asks for an event loop whose time cannot be virtual."""


class _Abandoned(SystemExit):
    """Raised in the program's thread when the stage ends without it."""


class ProgramThread:
    """Runs `main()` on the loop of a stage."""

    def __init__(self, main: Callable[[], Any], loop: AsyncioLoop, within_s: float) -> None:
        self.app = None
        self.holds = False
        """Never: a program does not say when it has started."""
        self.over = False
        self.error: BaseException | None = None
        """The exception that ended it, besides an orderly exit."""
        self._main = main
        self._loop = loop
        self._within_s = within_s
        self._limits = LimitClock(lambda: (os.getpid(),))
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._in_iteration = False
        self._abandoned = self._closes_loop = False
        self._thread = threading.Thread(target=self._run, name=f"program {main!r}", daemon=True)
        self._thread.start()
        loop.program = self

    # In the thread of the stage

    def iterate(self, patience_s: float = 0.0) -> None:
        if not self._in_iteration:
            self._in_iteration = True
            self._go.release()
        limit = self._limits.limit(self._within_s + patience_s)
        while not self._back.acquire(timeout=limit.pause_s):
            if limit.over:
                raise NeverIdle("", self._within_s, "did not return to its event loop")
        self._in_iteration = False

    def stop(self) -> None:
        """End it as Ctrl-C would: cancel the future that it runs until complete."""
        if self.over:
            return
        if self._loop.main is not None and not self._loop.main.done():
            self._loop.call_soon_threadsafe(self._loop.main.cancel)
        else:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def end(self) -> None:
        """Let the thread end. One that does not return to its loop cannot be ended from outside; NeverIdle says so, and the
        thread closes the loop if it ever ends."""
        self._abandoned = True
        try:
            while not self.over:
                self.iterate()
        except NeverIdle:
            self._closes_loop = True
            raise
        self._thread.join()

    # In the thread of the program

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._abandoned:
                with self._replacing():
                    asyncio.set_event_loop(self._loop)
                    self._main()
        except (_Abandoned, asyncio.CancelledError, KeyboardInterrupt):
            pass
        except SystemExit as exit:
            self.error = exit if exit.code else None
        except BaseException as error:
            self.error = error
            self._loop.call_exception_handler({"message": "the program ended", "exception": error})
        finally:
            asyncio.set_event_loop(None)
            self.over = True
            if self._closes_loop:
                self._loop.end()
            self._back.release()

    def park(self) -> None:
        if threading.current_thread() is self._thread:
            self._back.release()
            self._go.acquire()
            if self._abandoned:
                raise _Abandoned

    # Event loops and signals

    @contextmanager
    def _replacing(self) -> Iterator[None]:
        """While inside, everything that makes an event loop in this thread gets the one of the stage, and no signal is the
        program's."""
        make, set_loop = asyncio.new_event_loop, asyncio.set_event_loop
        run, set_handler = asyncio.BaseEventLoop.run_forever, signals.signal

        def new_event_loop() -> Any:
            return self._instead_of(_policy_name(), make)

        def set_event_loop(loop: Any) -> None:
            if loop is not None and loop is not self._loop:
                self._instead_of(_name(type(loop)), lambda: loop)
            set_loop(loop)

        def run_forever(loop: asyncio.BaseEventLoop) -> None:
            if loop is not self._loop and threading.current_thread() is self._thread:
                raise UnsupportedLoop(
                    f"runs its own loop, {_name(type(loop))}, whose time cannot be virtual; play it with --server, or"
                    " let it call asyncio.run or asyncio.new_event_loop"
                )
            run(loop)

        def signal(number: Any, handler: Any) -> Any:
            ours = threading.current_thread() is self._thread
            return signals.getsignal(number) if ours else set_handler(number, handler)

        with ExitStack() as stack:
            modules: tuple[Any, ...] = (asyncio, asyncio.events)
            for module in modules:
                _replace(stack, module, new_event_loop)
                _replace(stack, module, set_event_loop)
            _replace(stack, asyncio.BaseEventLoop, run_forever)
            _replace(stack, signals, signal)
            if sys.version_info >= (3, 11):
                create = asyncio.Runner.__init__

                def __init__(runner: Any, *, debug: Any = None, loop_factory: Any = None) -> None:
                    factory = loop_factory and partial(self._instead_of, _name(loop_factory), loop_factory)
                    create(runner, debug=debug, loop_factory=factory)

                _replace(stack, asyncio.Runner, __init__)
            yield

    def _instead_of(self, name: str, make: Callable[[], Any]) -> Any:
        """The loop of the stage, in the program's thread; in others, the loop that was asked for by this name."""
        if threading.current_thread() is not self._thread:
            return make()
        if name.partition(".")[0] != "asyncio" or name.rpartition(".")[2] not in _STANDARD:
            raise UnsupportedLoop(
                f"asks for {name}, whose time cannot be virtual; play it with --server, or let it use asyncio's own loop"
            )
        return self._loop


def _replace(stack: ExitStack, owner: Any, function: Callable[..., Any]) -> None:
    """Replace the function of this name until the stack is left."""
    stack.callback(setattr, owner, function.__name__, getattr(owner, function.__name__))
    setattr(owner, function.__name__, function)


def _policy_name() -> str:
    """The loop that `asyncio.new_event_loop` would make, by the policy that is installed."""
    # Asking in public is deprecated since Python 3.14, where policies are on their way out.
    policy = getattr(asyncio.events, "_get_event_loop_policy", asyncio.get_event_loop_policy)()
    own = type(policy).__module__.partition(".")[0] == "asyncio"
    return "asyncio.new_event_loop" if own else _name(type(policy))


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{getattr(thing, '__name__', type(thing).__name__)}"
