"""Limits in time that a busy machine does not use up.

- A limit ends a hang; it does not measure a server. A server that waits for a processor does not hang, so that time does not
  count. Linux says how long each thread has waited; elsewhere, and for servers on other machines, it is unknown.
- Time counts only as far as it was watched: where this process was not run for a while, a single look counts.
- Every limit ends after twenty times as long at the latest.

Knows processes by their number, and no servers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.stage.threads import is_runnable, threads_of, times, waited_s

LOOK_S = 0.05
"""How long a wait pauses at most before it looks at the clock again, unless looking at very many threads takes long."""

_LOOKING_SHARE = 0.05
_LOOKS_AT_ONCE = 2
_MOST_STRETCHED = 20

Processes = Callable[[], Iterable[int]]
"""The processes of a server at this moment, without their descendants."""


@dataclass(slots=True)
class _Seen:
    """A thread at the last look."""

    times: bytes
    noticed_s: float = 0.0
    """How much of its present wait, which the kernel adds when it is over, has been noticed."""


_NOT_RUN = _Seen(b"0 0 0")


class LimitClock:
    """A clock that stands still while the server, or this process, waits for a processor."""

    def __init__(self, processes: Processes = tuple) -> None:
        self._processes = processes
        self._threads = {thread: _Seen(times(thread)) for thread in threads_of(processes())}
        self._looked_s = time.monotonic()
        self._stood_still_s = self._left_over_s = 0.0
        self.look_s = LOOK_S
        """How long to pause between two looks."""

    def now(self) -> float:
        return self.at(time.monotonic())

    def at(self, now_s: float) -> float:
        """The time of this clock now, which is this time of the monotonic clock."""
        if now_s - self._looked_s >= self.look_s:
            self._look(now_s)
        return now_s - self._stood_still_s

    def limit(self, seconds: float) -> Limit:
        """A limit that begins now."""
        return Limit(self, seconds)

    def _look(self, now_s: float) -> None:
        gap_s, began_s = now_s - self._looked_s, time.thread_time()
        counts_s = min(gap_s - self._waited_s(gap_s), _LOOKS_AT_ONCE * self.look_s)
        self.look_s = max(LOOK_S, (time.thread_time() - began_s) / _LOOKING_SHARE)
        self._stood_still_s += gap_s - counts_s
        self._looked_s = now_s

    def _waited_s(self, gap_s: float) -> float:
        """How much of the time since the last look the server has waited for a processor."""
        before, self._threads = self._threads, {}
        waited = self._left_over_s
        for thread in threads_of(self._processes()):
            now = self._threads[thread] = _Seen(times(thread))
            earlier = before.get(thread, _NOT_RUN)  # it has been started since then
            if not earlier.times or not now.times:
                continue
            if now.times != earlier.times:
                waited += max(0.0, waited_s(now.times) - waited_s(earlier.times) - earlier.noticed_s)
            elif is_runnable(thread):
                waited += gap_s
                now.noticed_s = earlier.noticed_s + gap_s
        # A wait that is over now can have begun before the last look.
        self._left_over_s = min(max(0.0, waited - gap_s), self.look_s)
        return min(waited, gap_s)


class Limit:
    """How long something can take from now on."""

    __slots__ = ("_at_the_latest_s", "_clock", "_until_s")

    def __init__(self, clock: LimitClock, seconds: float) -> None:
        now_s = time.monotonic()
        self._clock = clock
        self._until_s = clock.at(now_s) + seconds
        self._at_the_latest_s = now_s + _MOST_STRETCHED * seconds

    @property
    def over(self) -> bool:
        now_s = time.monotonic()
        return self._clock.at(now_s) >= self._until_s or now_s >= self._at_the_latest_s

    @property
    def pause_s(self) -> float:
        """How long to pause before the next look; 0 when it is over."""
        now_s = time.monotonic()
        left_s = min(self._until_s - self._clock.at(now_s), self._at_the_latest_s - now_s)
        return min(max(0.0, left_s), self._clock.look_s)
