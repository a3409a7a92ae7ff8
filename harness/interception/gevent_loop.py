"""A virtual loop under control: interceptors choose the order of ready callbacks, and can keep a descriptor from being ready.

gevent keeps its own queue of callbacks and lets the backend call watchers in any order. Here both go through one list,
from which the next to run is chosen. Each runs within the same iteration of the loop unless it is delayed. Knows no seeds,
no sockets and no servers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import greenlet

from harness.interception.interceptor import Interceptor
from harness.stage.gevent_loop import VirtualLoop


class _Ready:
    """Takes the place of a gevent callback: it can be stopped until it runs."""

    __slots__ = ("args", "callback")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.args: tuple[Any, ...] | None = args

    @property
    def pending(self) -> bool:
        return self.callback is not None

    def __bool__(self) -> bool:
        # gevent reads this to decide whether to schedule another callback; true while this one runs, too.
        return self.args is not None

    def stop(self) -> None:
        self.callback = self.args = None

    close = stop

    def run(self) -> None:
        callback, args = self.callback, self.args
        self.callback = None
        try:
            if callback is not None:
                callback(*(args or ()))
        finally:
            self.args = None


def _of_the_watcher(name: str) -> property:
    """An attribute that gevent can also set."""
    return property(
        lambda watch: getattr(watch._watcher, name),
        lambda watch, value: setattr(watch._watcher, name, value),
    )


class _Watch:
    """Takes the place of a gevent io watcher: same methods, but its callback joins the ready list first."""

    __slots__ = ("_loop", "_passes_events", "_queued", "_watcher", "args", "blocked", "callback")

    def __init__(self, loop: ControlledLoop, watcher: Any) -> None:
        self._loop = loop
        self._watcher = watcher
        self._queued: _Ready | None = None
        self._passes_events = False
        self.callback: Callable[..., Any] | None = None
        self.args: tuple[Any, ...] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._watcher, name)

    events, priority, ref = map(_of_the_watcher, ("events", "priority", "ref"))

    @property
    def active(self) -> bool:
        return self.callback is not None

    @property
    def pending(self) -> bool:
        return self._queued is not None or bool(self._watcher.pending)

    def start(self, callback: Callable[..., Any], *args: Any, pass_events: bool = False) -> None:
        self.stop()
        self.callback, self.args, self._passes_events = callback, args, pass_events
        self._listen()

    def _listen(self) -> None:
        self._watcher.start(self._fired, pass_events=True)

    def stop(self) -> None:
        self._watcher.stop()
        if self._queued is not None:
            self._queued.stop()
            self._queued = None
        self._loop.blocked.discard(self)
        self.callback = self.args = None

    def close(self) -> None:
        self.stop()
        self._watcher.close()

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fired(self, events: int) -> None:
        if self._loop.is_blocked(self._watcher.fd, events):
            # It stays ready, so the watcher would fire again and again until it is unblocked.
            self._watcher.stop()
            self._loop.blocked.add(self)
        elif self._queued is None:
            self._queued = self._loop.run_callback(self._run, events)

    def reopen(self) -> None:
        """Watch again."""
        self._loop.blocked.discard(self)
        self._listen()

    def _run(self, events: int) -> None:
        self._queued = None
        callback, args = self.callback, self.args or ()
        if callback is not None:
            callback(*((events, *args) if self._passes_events else args))


class ControlledLoop(VirtualLoop):
    """Runs what is ready in the order that its interceptors choose."""

    def __new__(cls, interceptors: Sequence[Interceptor]) -> ControlledLoop:
        # gevent's loop reads its arguments when it is created, and must not see the interceptors.
        made: ControlledLoop = super().__new__(cls)
        return made

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._interceptors = tuple(interceptors)
        self._ready: list[_Ready] = []
        self._delaying: set[Any] = set()
        self.blocked: set[_Watch] = set()
        super().__init__()
        for interceptor in self._interceptors:
            interceptor.loop_created(self)

    def run_callback(self, func: Callable[..., Any], *args: Any) -> Any:
        owner = getattr(func, "__self__", None)
        if isinstance(owner, greenlet.greenlet):
            self.greenlets.add(owner)
        one = _Ready(func, args)
        self._ready.append(one)
        super().run_callback(self._next)
        return one

    def io(self, fd: int, events: int, ref: bool = True, priority: int | None = None) -> Any:
        return _Watch(self, super().io(fd, events, ref, priority))

    def is_blocked(self, fileno: int, events: int) -> bool:
        return any(interceptor.is_blocked(fileno, events) for interceptor in self._interceptors)

    def recheck_blocked(self) -> None:
        """Start all blocked watchers again."""
        for watch in list(self.blocked):
            watch.reopen()

    def _next(self) -> None:
        ready = self._ready
        ready[:] = [one for one in ready if one.pending]
        if not ready:
            return
        at = (
            max(interceptor.choose(len(ready)) for interceptor in self._interceptors) if len(ready) > 1 else 0
        )
        one = ready.pop(at)
        iterations = max(interceptor.delay() for interceptor in self._interceptors)
        if iterations:
            self._delay(one, iterations)
        else:
            one.run()

    def _delay(self, one: _Ready, iterations: int) -> None:
        # A timer of zero seconds: due in the loop's next iteration, and until then the loop does not count as idle.
        timer = self.real_timer(0.0)
        self._delaying.add(timer)

        def go_on() -> None:
            self._delaying.discard(timer)
            timer.close()
            if iterations > 1:
                self._delay(one, iterations - 1)
            else:
                one.run()

        timer.start(go_on)
