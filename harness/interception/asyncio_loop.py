"""A virtual asyncio loop under control: interceptors choose the order of what is ready, and can keep it from being ready.

asyncio guarantees the order of `call_soon`, and its own transports rely on it, so that order is kept. The kernel decides in
which order sockets are ready, and in which iteration, so that can change. Knows no seeds and no servers.
"""

from __future__ import annotations

import selectors
from collections.abc import Sequence

from harness.interception.interceptor import Interceptor
from harness.stage.asyncio_loop import AsyncioLoop, Ready

_EVENTS = (selectors.EVENT_READ, selectors.EVENT_WRITE)

_DRAWS = 4
"""A loop of gevent asks about each callback. This one asks about sockets only, which are far fewer, so it asks more often."""


class ControlledAsyncioLoop(AsyncioLoop):
    """Sees what is ready in the order, and at the time, that its interceptors choose."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._interceptors = tuple(interceptors)
        self._delayed: dict[int, int] = {}
        """For how many more iterations each descriptor is held back."""
        super().__init__()
        for interceptor in self._interceptors:
            interceptor.loop_created(self)

    def recheck_blocked(self) -> None:
        """Do nothing: what is blocked stays ready, and is looked at in each iteration."""

    def selected(self, ready: Ready) -> Ready:
        unblocked = [(key, events) for key, mask in ready if (events := self._unblocked(key.fd, mask))]
        seen = [one for one in unblocked if not self._delays(one[0].fd)]
        self.activity += len(unblocked)
        return self._ordered(seen)

    def _unblocked(self, fileno: int, mask: int) -> int:
        return sum(event for event in _EVENTS if mask & event and not self._is_blocked(fileno, event))

    def _is_blocked(self, fileno: int, event: int) -> bool:
        return any(interceptor.is_blocked(fileno, event) for interceptor in self._interceptors)

    def _delays(self, fileno: int) -> bool:
        before = self._delayed.pop(fileno, None)
        iterations = self._drawn() if before is None else before - 1
        if iterations > 0:
            self._delayed[fileno] = iterations
        return iterations > 0

    def _drawn(self) -> int:
        return max(one.delay() for one in self._interceptors for _ in range(_DRAWS))

    def _ordered(self, ready: Ready) -> Ready:
        out = []
        while len(ready) > 1:
            out.append(ready.pop(max(interceptor.choose(len(ready)) for interceptor in self._interceptors)))
        return out + ready
