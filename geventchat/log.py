"""The server's log: events with a fixed name and some fields, limited per address and network, written by a thread.

Knows neither the server nor the settings.

Invariants of LineWriter, and so of LogWriter:
- The caller never waits, however slow, stuck, full or closed the descriptor is.
- Lines are written whole and in order. An error in the middle of a line keeps the rest of it for the next attempt.
- At most `_MOST_QUEUED` events wait. Later ones are dropped and counted, and `log-lost` says how many, in their place.
- No error is final, nor is a lack of memory: writing is retried until it works or the writer is closed.

Invariants of AddressLog:
- Every event of an address is logged, or counted in the next `log-suppressed` of that address or of its network.
- A `log-suppressed` of an address is a line of its network, too: without a place for it, its events are added to the network's.
- An address or network is remembered until its limit has recovered and its dropped events have been reported.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from enum import Enum
from typing import Protocol, TypeVar, runtime_checkable

from geventchat.clock import Clock
from geventchat.rate import Rate, TokenBucket
from geventchat.worker import Worker

FORMATS = ("text", "json")
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_LEVEL_NAMES = {level: name for name, level in LEVELS.items()}

_MOST_QUEUED = 10_000
_MOST_WRITTEN_AT_ONCE = 1_000
_GATHER_S = 0.05
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0
_POLL_MS = 250
# Remembered addresses that are checked for expiry with each new one.
_SWEEP = 2
# What moves a cursor, ends a line or turns the direction of a text, where a terminal shows the log.
_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_CONTROL = re.compile(f"[{_CONTROLS}]")
_PLAIN = re.compile(rf"[^\s\"={_CONTROLS}]+")


class LogEvent(Enum):
    """The names of events in the log. They never change; docs/operations.md explains each."""

    LISTENING = "listening"
    LISTEN_REPLACED = "listen-replaced"
    UPGRADING = "upgrading"
    UPGRADED = "upgraded"
    UPGRADE_FAILED = "upgrade-failed", logging.ERROR
    RELOADED = "reloaded"
    RELOAD_REFUSED = "reload-refused", logging.ERROR
    CLIENT_LIMIT_LOWERED = "client-limit-lowered", logging.WARNING
    LIMITS_ABOVE_NETWORK = "limits-above-network", logging.WARNING
    PASSWORDS_IN_CLEAR = "passwords-in-clear", logging.WARNING
    CERTIFICATE_LOADED = "certificate-loaded"
    CERTIFICATE_REFUSED = "certificate-refused", logging.ERROR
    CONNECTED = "connected"
    REFUSED = "refused", logging.WARNING
    LOGIN = "login"
    LOGIN_FAILED = "login-failed", logging.WARNING
    DISCONNECTED = "disconnected"
    FAULT = "fault", logging.ERROR
    ACCEPT_PAUSED = "accept-paused", logging.WARNING
    ACCEPT_RESUMED = "accept-resumed"
    MESSAGE = "message"
    CALLBACK_FAILED = "callback-failed", logging.ERROR
    CALLBACK_BEHIND = "callback-behind", logging.WARNING
    EVENTS_MISSED = "events-missed", logging.WARNING
    STOPPING = "stopping"
    STOPPED = "stopped"
    STORAGE_OPENED = "storage-opened"
    HISTORY_STOPPED = "history-stopped", logging.ERROR
    HISTORY_RESUMED = "history-resumed"
    HISTORY_LOST = "history-lost", logging.WARNING
    ADMIN = "admin"
    LOG_LOST = "log-lost", logging.WARNING
    LOG_SUPPRESSED = "log-suppressed", logging.WARNING

    severity: int
    """The level of the event, as a number of the standard library."""
    heading: str
    """The level and the name of the event, as a line of the log begins after its time."""

    def __new__(cls, name: str, severity: int = logging.INFO) -> LogEvent:
        event = object.__new__(cls)
        event._value_ = name
        event.severity = severity
        event.heading = f"{_LEVEL_NAMES[severity].upper()} {name}"
        return event


class Log(Protocol):
    """Records an event and returns at once. A function is enough."""

    def __call__(self, event: LogEvent, /, **fields: object) -> None:
        """Record an event."""


@runtime_checkable
class LogWithLevel(Log, Protocol):
    """A log that does not record every event. Those it ignores do not count towards the limits of addresses and networks."""

    def enabled(self, event: LogEvent) -> bool:
        """True if it records events of this kind."""


@runtime_checkable
class LogWithQueue(Log, Protocol):
    """A log that drops events when too many wait."""

    @property
    def lost(self) -> int:
        """How many events it has dropped, in all."""


class StandardLog:
    """Logs to the standard library's logger `geventchat`, where a program that embeds the server expects it."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("geventchat")
        # Without a handler, the standard library prints warnings to the terminal of a program that has set up no logging.
        self._logger.addHandler(logging.NullHandler())

    def __call__(self, event: LogEvent, /, **fields: object) -> None:
        """Log an event at its level, as its name and `key=value` for each field."""
        if self.enabled(event):
            self._logger.log(event.severity, "%s %s", event.value, fields_text(fields))

    def enabled(self, event: LogEvent) -> bool:
        """True if the logger records events of this level."""
        return self._logger.isEnabledFor(event.severity)


to_logging = StandardLog()


def fields_text(fields: dict[str, object]) -> str:
    """The fields as `key=value` on one line, quoted where a value would not read as one word."""
    values = list(map(str, fields.values()))
    if not all(map(_PLAIN.fullmatch, values)):
        values = [value if _PLAIN.fullmatch(value) else _quoted(value) for value in values]
    return " ".join(map("{}={}".format, fields, values))


def _quoted(value: str) -> str:
    """A value as JSON, with every control character escaped."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


# --- Limits per address and network ----------------------------------------------------------------------------------


class _Lines(TokenBucket):
    """One address or network: how much of its limit is used up, and how many of its events were dropped."""

    __slots__ = ("dropped", "name", "network")

    def __init__(self, rate: Rate, name: str, network: str) -> None:
        super().__init__(rate)
        self.name = name
        # Empty for one without a network, and for a network itself.
        self.network = network
        self.dropped = 0


class _LineLimit:
    """The limit on the lines of each address, or of each network: `field` is the word for them in the log."""

    def __init__(self, field: str, rate: Rate, network_of: Callable[[str], str]) -> None:
        self.field = field
        self.rate = rate
        self._network_of = network_of
        self.known: dict[str, _Lines] = {}
        # Those whose events are dropped, the earliest first.
        self.silent: dict[str, _Lines] = {}

    def lines_of(self, name: str, now: float) -> _Lines:
        """Those of this address or network, which is remembered from now on."""
        lines = self.known.get(name)
        if lines is None:
            for oldest in [known for known, _ in zip(self.known, range(_SWEEP), strict=False)]:
                lines = self.known.pop(oldest)
                if lines.dropped or not lines.is_full(now):
                    self.known[oldest] = lines
            lines = self.known[name] = _Lines(self.rate, name, self._network_of(name))
        return lines

    def admit(self, lines: _Lines, events: int, now: float) -> bool:
        """Count a line, which tells of this many events; False if they are dropped."""
        if not lines.dropped and lines.take(1, now):
            return True
        lines.dropped += events
        self.silent[lines.name] = lines
        return False

    def to_report(self, now: float, everything: bool) -> Iterator[_Lines]:
        """Those who have recovered, or everyone who has lost events. Each is silent no more once it has been reported."""
        # One second's worth, or the whole burst if that is less.
        regained = min(self.rate.burst, max(1.0, self.rate.per_s))
        # Events are dropped from once everything is used up, so the earliest recovers first.
        while self.silent:
            lines = next(iter(self.silent.values()))
            if lines.delay_s(regained, now) and not everything:
                return
            yield lines
            del self.silent[lines.name]
            lines.dropped = 0


class AddressLog:
    """A server's log with a limit on the lines of each address, and on those of each network.

    Events of an address or network over its limit are dropped until it has recovered one second's worth, or its whole burst
    if that is less. Then one `log-suppressed` says how many were dropped. It is written with the next event of any address,
    or on close, so no timer is needed. Both rates can change at any time.
    """

    def __init__(
        self, log: Log, of_address: Rate, of_network: Rate, network_of: Callable[[str], str], clock: Clock
    ) -> None:
        """`network_of` names the network of an address; it is empty for an address without one."""
        self._log = log
        self._enabled = log.enabled if isinstance(log, LogWithLevel) else lambda event: True
        self._monotonic = clock.monotonic
        self.address_rate = of_address
        self.network_rate = of_network
        self._addresses = _LineLimit("address", of_address, network_of)
        self._networks = _LineLimit("network", of_network, lambda name: "")
        # How many events of addresses or networks were dropped, in all.
        self.suppressed = 0

    def __call__(self, event: LogEvent, /, **fields: object) -> None:
        """Log an event of the server itself."""
        self._report_recovered(self._monotonic())
        self._log(event, **fields)

    def of_address(self, origin: str, event: LogEvent, /, **fields: object) -> None:
        """Log an event of a client. `origin` is its address for the limit: an IPv4 address or an IPv6 /64."""
        if self.address_rate.per_s or self.network_rate.per_s:
            if not self._enabled(event):
                return
            now = self._monotonic()
            self._report_recovered(now)
            lines = self._addresses.lines_of(origin, now)
            if not self._addresses.admit(lines, 1, now) or not self._network_admits(lines.network, 1, now):
                self.suppressed += 1
                return
        self._log(event, **fields)

    @property
    def lost(self) -> int:
        """How many events the log itself has dropped, in all."""
        return self._log.lost if isinstance(self._log, LogWithQueue) else 0

    def close(self) -> None:
        """Report everything that was dropped and has not been reported."""
        now = self._monotonic()
        for limit in (self._addresses, self._networks):
            self._report(limit, now, everything=True)

    def __len__(self) -> int:
        """The number of addresses and networks that are remembered."""
        return len(self._addresses.known) + len(self._networks.known)

    def _network_admits(self, network: str, events: int, now: float) -> bool:
        return not network or self._networks.admit(self._networks.lines_of(network, now), events, now)

    def _report_recovered(self, now: float) -> None:
        for limit in (self._networks, self._addresses):
            if limit.silent:
                self._report(limit, now, everything=False)

    def _report(self, limit: _LineLimit, now: float, everything: bool) -> None:
        for lines in limit.to_report(now, everything):
            if self._network_admits(lines.network, lines.dropped, now):
                self._log(LogEvent.LOG_SUPPRESSED, **{limit.field: lines.name, "events": lines.dropped})


# --- Writing ---------------------------------------------------------------------------------------------------------

_Item = TypeVar("_Item")


class LineWriter(Worker[_Item]):
    """Writes lines to a descriptor from a thread. The module's docstring lists what it guarantees."""

    def __init__(self, descriptor: int, name: str, gather_s: float = 0.0) -> None:
        super().__init__(name, gather_s)
        self._descriptor = descriptor
        # The items that the thread has taken and not formatted yet, and the formatted text that is not written yet.
        self._items: list[_Item] = []
        self._rest = memoryview(b"")
        # How many items were dropped, in all, and since that was last written.
        self.lost = 0
        self._lost = 0
        self._lost_lock = threading.Lock()
        self._thread.start()

    def put(self, item: _Item) -> None:
        """Queue an item. Call this from one thread only."""
        if len(self._queue) >= _MOST_QUEUED or not self._append(item):
            self.lost += 1
            with self._lost_lock:
                self._lost += 1
            return
        self.wake()

    def _append(self, item: _Item) -> bool:
        """Append it, after the item that counts those lost before it; False if memory is lacking."""
        try:
            if self._lost:
                self._queue.extend(self._take_lost())
            self._queue.append(item)
        except MemoryError:
            return False
        return True

    def _line(self, item: _Item) -> str:
        """Turn an item into a line, without its line ending."""
        return str(item)

    def _lost_items(self, lost: int) -> list[_Item]:
        """The item that is written in place of this many lost ones."""
        return []

    def _take_lost(self) -> list[_Item]:
        with self._lost_lock:
            lost, self._lost = self._lost, 0
        return self._lost_items(lost) if lost else []

    def _run(self) -> None:
        starved = False
        while not self._abandoned:
            try:
                if starved:
                    # Waiting for an event would take more memory.
                    select.select((), (), (), _FIRST_RETRY_S)
                starved = True
                self._complete = self._write_until_closed()
            except MemoryError:
                continue  # Its position is in `_items` and `_rest`.
            return

    def _write_until_closed(self) -> bool:
        closing = False
        while not closing:
            closing = self._wait(0 if self._items or self._rest else None)
            while self._rest or self._take_items():
                if not self._rest:
                    text = "".join([f"{self._line(item)}\n" for item in self._items])
                    self._rest = memoryview(text.encode(errors="backslashreplace"))
                    self._items = []
                if not self._write_rest():
                    return False
        return True

    def _take_items(self) -> bool:
        if not self._items:
            self._items = self._take(_MOST_WRITTEN_AT_ONCE) or self._take_lost()
        return bool(self._items)

    def _write_rest(self) -> bool:
        """Write all of it, and retry after errors; False if the writer was closed first."""
        pause_s = _FIRST_RETRY_S
        while self._rest:
            written = self._try_to_write(self._rest)
            if written:
                self._rest = self._rest[written:]
                pause_s = _FIRST_RETRY_S
            elif self._abandoned or (written is None and self._closing.is_set()):
                return False
            elif written is None:
                self._closing.wait(pause_s)
                pause_s = min(2 * pause_s, _LAST_RETRY_S)
        return True

    def _try_to_write(self, data: memoryview) -> int | None:
        """Write some of it. 0 if a reader is slow, None if it is impossible now."""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll(_POLL_MS)
            return 0
        except OSError:
            # A disk can get space again, and a named pipe a new reader. A pipe without one costs an attempt every 5 s.
            return None


_Record = tuple[float, LogEvent, dict[str, object]]


class LogWriter(LineWriter[_Record]):
    """Logs to a descriptor, one event per line, as text or as JSON."""

    def __init__(self, descriptor: int, style: str, level: str, clock: Clock) -> None:
        self._as_json = style == "json"
        self._level = LEVELS[level]
        self._clock = clock
        self._second = 0
        self._stamp = ""
        super().__init__(descriptor, "geventchat-log", _GATHER_S)

    def __call__(self, event: LogEvent, /, **fields: object) -> None:
        """Queue an event. The thread formats many at a time, which is cheaper than formatting each as it comes."""
        if event.severity >= self._level:
            self.put((self._clock.time(), event, fields))

    def enabled(self, event: LogEvent) -> bool:
        """True if events of this level are written."""
        return event.severity >= self._level

    @property
    def level(self) -> str:
        """The lowest level that is written; can be changed."""
        return _LEVEL_NAMES[self._level]

    @level.setter
    def level(self, level: str) -> None:
        self._level = LEVELS[level]

    def change_format(self, style: str) -> None:
        """Write the lines that follow in this format."""
        self._as_json = style == "json"

    def _line(self, record: _Record) -> str:
        time, event, fields = record
        stamp = self._time_text(time)
        if self._as_json:
            level = _LEVEL_NAMES[event.severity]
            return json.dumps({"time": stamp, "level": level, "event": event.value, **fields}, default=str)
        return f"{stamp} {event.heading} {fields_text(fields)}" if fields else f"{stamp} {event.heading}"

    def _lost_items(self, lost: int) -> list[_Record]:
        return [(self._clock.time(), LogEvent.LOG_LOST, {"events": lost})]

    def _time_text(self, time: float) -> str:
        second, millisecond = divmod(int(time * 1000), 1000)
        if second != self._second:
            self._second = second
            self._stamp = datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._stamp}.{millisecond:03d}Z"
