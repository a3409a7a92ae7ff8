"""Which native threads have appeared since a stage began: the one thing in this process that no loop can see.

Threads of gevent's own pools do not count, for the work given to them is tracked by the loop itself.
"""

from __future__ import annotations

import sys
from types import FrameType

from gevent import threadpool

_Worker = threadpool._WorkerGreenlet  # type: ignore[attr-defined]
_POOL_CODE = {_Worker.run.__code__, _Worker._begin.__code__}


class ForeignThreads:
    """Remembers which threads were there, and whether others were ever seen at work since."""

    def __init__(self) -> None:
        self._before = frozenset(sys._current_frames())
        self.seen = False

    def look(self) -> bool:
        """Whether there are threads that came since and do not belong to a pool of gevent's."""
        frames = sys._current_frames()
        if len(frames) > 1:
            for ident in frames.keys() - self._before:
                if not _of_a_pool(frames[ident]):
                    self.seen = True
                    return True
        return False


def _of_a_pool(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _POOL_CODE:
            return True
        frame = frame.f_back
    return False
