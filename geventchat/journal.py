"""The log on a stream: one event per line, as text or JSON, written by a thread of its own.

Whoever reads the stream may be slow or stuck; the server must not notice. So an event is queued and the queue is bounded:
what does not fit is counted, and the count is logged as soon as there is room.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
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
_GOODBYE_S = 2.0


class Journal:
    """A `Log` that writes lines to a stream and never blocks who calls it."""

    def __init__(self, stream: TextIO, style: str, level: str, clock: Clock) -> None:
        self._stream = stream
        self._as_json = style == "json"
        self._level = LEVELS[level]
        self._clock = clock
        self._lost = 0
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="geventchat-journal", daemon=True)
        self._writer.start()

    def __call__(self, happening: Happening, **fields: object) -> None:
        """Queue one line."""
        level = severity(happening)
        if level < self._level:
            return
        if self._lines.qsize() >= _QUEUED_EVENTS:
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self(Happening.LOG_LOST, events=lost)
        self._lines.put(self._line(level, happening, fields))

    def close(self) -> None:
        """Write what is queued, within a moment."""
        self._lines.put(None)
        self._writer.join(_GOODBYE_S)

    def _line(self, level: int, happening: Happening, fields: dict[str, object]) -> str:
        moment = datetime.fromtimestamp(self._clock.time(), timezone.utc)
        stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        name = logging.getLevelName(level)
        if self._as_json:
            return (
                json.dumps({"time": stamp, "level": name.lower(), "event": happening.value, **fields}) + "\n"
            )
        return f"{stamp} {name} {happening.value} {fields_text(fields)}".rstrip() + "\n"

    def _write(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                self._stream.write(line)
                if self._lines.empty():
                    self._stream.flush()
            self._stream.flush()
        except (OSError, ValueError):
            # Nobody reads the log any more, and there is nowhere left to say so; people still chat.
            return
