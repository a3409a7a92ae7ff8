"""An event loop: file descriptors, timers, signals and calls from threads. Standard library only.

asyncio would do, but loading it takes a third of the time in which the client starts.

Invariants:
- Everything is called from `run`, one call after the other.
- A timer that was cancelled is not called.
"""

from __future__ import annotations

import heapq
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from itertools import count


class Timer:
    """A scheduled call."""

    __slots__ = ("at", "call", "number")

    def __init__(self, at: float, number: int, call: Callable[[], None]) -> None:
        self.at = at
        self.number = number
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Call nothing."""
        self.call = None

    def __lt__(self, other: Timer) -> bool:
        return (self.at, self.number) < (other.at, other.number)


class Loop:
    """One thread's event loop."""

    def __init__(self) -> None:
        # poll also takes regular files, as which standard input can be redirected.
        self._selector = selectors.PollSelector()
        self._timers: list[Timer] = []
        self._numbers = count()
        self._ready: deque[Callable[[], None]] = deque()
        self._watched: dict[int, dict[int, Callable[[], None]]] = {}
        self._signals: dict[int, Callable[[], None]] = {}
        self._stopped = False
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self.on_readable(self._wake_read, self._woken)
        self._signals_before: dict[int, object] = {}
        self._wakeup_before = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def now(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call when the current call has returned."""
        self._ready.append(call)

    def call_from_thread(self, call: Callable[[], None]) -> None:
        """The same, from another thread."""
        self._ready.append(call)
        try:
            os.write(self._wake_write, b"\0")
        except OSError:
            # Full, so the loop wakes up anyway; or closed, so this has come too late.
            pass

    def call_at(self, at: float, call: Callable[[], None]) -> Timer:
        """Call at this time."""
        timer = Timer(at, next(self._numbers), call)
        heapq.heappush(self._timers, timer)
        return timer

    def on_readable(self, descriptor: int, call: Callable[[], None] | None) -> None:
        """Call whenever this can be read; None to stop that."""
        self._watch(descriptor, selectors.EVENT_READ, call)

    def on_writable(self, descriptor: int, call: Callable[[], None] | None) -> None:
        """Call whenever this can be written; None to stop that."""
        self._watch(descriptor, selectors.EVENT_WRITE, call)

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        """Call when this signal arrives."""
        self._signals[number] = call
        before = signal.signal(number, lambda *_: self._ready.append(self._signals[number]))
        self._signals_before.setdefault(number, before)

    def stop(self) -> None:
        """Let `run` return."""
        self._stopped = True

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Call what there is to call until `stop`, or until this is true."""
        self._stopped = False
        while not self._stopped and not until():
            for _ in range(len(self._ready)):
                self._ready.popleft()()
                if self._stopped:
                    return
            self._call_timers()
            if not self._stopped and not until():
                self._poll()

    def close(self) -> None:
        """Give signals and descriptors back."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, before in self._signals_before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _watch(self, descriptor: int, event: int, call: Callable[[], None] | None) -> None:
        calls = self._watched.setdefault(descriptor, {})
        known = bool(calls)
        if call is None:
            calls.pop(event, None)
        else:
            calls[event] = call
        if not calls:
            del self._watched[descriptor]
            if known:
                self._selector.unregister(descriptor)
        elif known:
            self._selector.modify(descriptor, sum(calls))
        else:
            self._selector.register(descriptor, event)

    def _call_timers(self) -> None:
        now = self.now()
        while self._timers and self._timers[0].at <= now and not self._stopped:
            timer = heapq.heappop(self._timers)
            if timer.call is not None:
                timer.call()

    def _poll(self) -> None:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        timeout = max(self._timers[0].at - self.now(), 0.0) if self._timers else None
        for key, events in self._selector.select(0 if self._ready else timeout):
            for event in (selectors.EVENT_READ, selectors.EVENT_WRITE):
                call = self._watched.get(key.fd, {}).get(event)
                if events & event and call is not None and not self._stopped:
                    call()

    def _woken(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
