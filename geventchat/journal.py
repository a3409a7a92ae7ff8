"""The log on a stream: one event per line, as text or JSON, written by a thread of its own.

Whoever reads the stream may be slow or stuck; the server must not notice. So an event is queued and the queue is bounded:
what does not fit is counted, and the count is logged as soon as there is room.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from datetime import datetime, timezone
from typing import TextIO

from geventchat.clock import Clock
from geventchat.log import Happening, fields_text, severity

FORMATS = ("text", "json")
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_QUEUED_EVENTS = 10_000
# A thread that is woken for each line takes the interpreter from the server each time; it may as well come for many.
_GATHER_S = 0.05
_GOODBYE_S = 2.0


_Event = tuple[float, int, Happening, dict[str, object]]


class Journal:
    """A `Log` that writes lines to a stream and never blocks who calls it."""

    def __init__(self, stream: TextIO, style: str, level: str, clock: Clock) -> None:
        self._stream = stream
        self._as_json = style == "json"
        self._level = LEVELS[level]
        self._clock = clock
        self._lost = 0
        self._second = 0
        self._stamp = ""
        self._events: deque[_Event] = deque()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write, name="geventchat-journal", daemon=True)
        self._writer.start()

    def __call__(self, happening: Happening, **fields: object) -> None:
        """Queue one event. It is put into words by the writer, many at a time, which is cheaper than each in its turn."""
        level = severity(happening)
        if level < self._level:
            return
        if len(self._events) >= _QUEUED_EVENTS:
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self(Happening.LOG_LOST, events=lost)
        self._events.append((self._clock.time(), level, happening, fields))
        if not self._news.is_set():
            self._news.set()

    def close(self) -> None:
        """Write what is queued, within a moment."""
        self._closing.set()
        self._news.set()
        self._writer.join(_GOODBYE_S)

    def _line(self, time: float, level: int, happening: Happening, fields: dict[str, object]) -> str:
        stamp = self._moment(time)
        name = logging.getLevelName(level)
        if self._as_json:
            return (
                json.dumps({"time": stamp, "level": name.lower(), "event": happening.value, **fields}) + "\n"
            )
        return f"{stamp} {name} {happening.value} {fields_text(fields)}".rstrip() + "\n"

    def _moment(self, time: float) -> str:
        milliseconds = int(time * 1000)
        second, rest = divmod(milliseconds, 1000)
        if second != self._second:
            self._second = second
            self._stamp = datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._stamp}.{rest:03d}Z"

    def _write(self) -> None:
        try:
            while not self._closing.is_set():
                self._news.wait()
                self._closing.wait(_GATHER_S)
                self._news.clear()
                self._write_queued()
            self._write_queued()
        except (OSError, ValueError):
            # Nobody reads the log any more, and there is nowhere left to say so; people still chat.
            return

    def _write_queued(self) -> None:
        # One queue, never exchanged for another: the server may be appending to it at this moment.
        lines = [self._line(*self._events.popleft()) for _ in range(len(self._events))]
        self._stream.write("".join(lines))
        self._stream.flush()
