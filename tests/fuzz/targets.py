"""What is fuzzed: one function of bytes for each thing that reads them; it raises where anything is amiss.

Pure: no sockets, no gevent, and no fuzzer either, so that the corpus can be played wherever Python runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from geventchat.chat.commands import Fault, Login, Say, Violation
from geventchat.chat.events import Broadcast, Dismissed, Event, Parting, Relayed, Said, Told
from geventchat.chat.hub import Hub, Session
from geventchat.chat.room import Feed as RoomFeed
from geventchat.dialects import DIALECTS
from geventchat.dialects.dialect import Dialect, Marked
from geventchat.dialects.framing import Framer
from geventchat.dialects.telnet import TIMING_MARK
from geventchat.net.opening import Opening

LIMIT_BYTES = 64
_HUB_LIMIT_BYTES = 4_096
# What no reader of ours may be made to print: controls, bidirectional overrides and isolates, other line breaks.
_HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")
_AT = 1_234_567_890


def framing(data: bytes) -> None:
    """The first byte says how the rest is cut; the lines must be those of the definition, and memory bounded."""
    if not data:
        return
    step, wire = data[0] % 17 + 1, data[1:]
    expected = lines_of(wire, LIMIT_BYTES)
    for size in (step, 1, max(1, len(wire))):
        framer, found = Framer(LIMIT_BYTES), list[bytes | None]()
        for at in range(0, len(wire), size):
            found += framer.feed(wire[at : at + size])
            assert len(framer.unfinished) <= LIMIT_BYTES + 1, "it holds more than a line may have"
        assert found == expected, f"in pieces of {size}: {found} instead of {expected}"
    stranger = {Opening(LIMIT_BYTES).judge(wire)}
    assert len(stranger) == 1


def lines_of(wire: bytes, limit: int) -> list[bytes | None]:
    """The definition: a line ends in a newline, less one carriage return; one over the limit is None."""
    lines = [line[:-1] if line.endswith(b"\r") else line for line in wire.split(b"\n")[:-1]]
    return [line if len(line) <= limit else None for line in lines]


def reader(dialect: Dialect) -> Callable[[bytes], None]:
    """A whole conversation in one dialect, beside one listener in each: nobody is told anything that could do harm."""

    def converse(data: bytes) -> None:
        hub = Hub(lambda: float(_AT))
        feeds = {name: _Feed(each) for name, each in DIALECTS.items()}
        others = [Session(_Ear(feed)) for feed in feeds.values()]
        for n, other in enumerate(others):
            hub.handle(other, Login(f"listener{n}"))
        session = Session(_Ear(feeds[dialect.name]))
        for line in Framer(_HUB_LIMIT_BYTES).feed(data + b"\n"):
            joined = session.name is not None
            command = Violation(Fault.TOO_LONG) if line is None else dialect.read(line, joined)
            if isinstance(command, Marked):
                assert command.answer == TIMING_MARK
                command = command.command
            if isinstance(command, Say) and command.text and joined:
                # Twice in one breath: a frame of two lines.
                hub.say(session, (command.text, command.text))
            elif command is not None and not hub.handle(session, command):
                break
        session.ear.hear(Dismissed(Parting.IDLE))
        hub.leave(session)
        assert len(hub.room) == len(others)
        for feed in feeds.values():
            feed.check()

    return converse


class _Feed:
    """A feed that checks every frame; `own` frames come through the ears."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._wire: list[bytes] = []

    def publish(self, event: Broadcast, author: object) -> None:
        self.write(event)

    def write(self, event: Event) -> None:
        frame = self.dialect.write(event)
        lines = _lines_of(event, self.dialect)
        assert not frame or lines is None or frame.count(b"\n") == lines, f"not {lines} lines: {frame!r}"
        assert not frame or frame.endswith(b"\n"), f"half a line: {frame!r}"
        self._wire.append(frame)

    def check(self) -> None:
        """All that was written in this dialect."""
        wire = b"".join(self._wire)
        text = wire.decode("ascii" if self.dialect.name == "json" else "utf-8")
        found = _HARMFUL.search(text)
        assert found is None, f"{found!r} in {text!r}"
        if self.dialect.name == "json":
            for line in text.splitlines():
                said = json.loads(line)
                for value in said.values():
                    words = value if isinstance(value, list) else [value]
                    assert not any(_HARMFUL.search(word) for word in words if isinstance(word, str)), line
                    "".join([word for word in words if isinstance(word, str)]).encode()


def _lines_of(event: Event, dialect: Dialect) -> int | None:
    """How many lines such an event is; None where a roster, the help or a welcome are lines by right."""
    if isinstance(event, Said):
        return len(event.texts)
    if dialect.name == "json" or isinstance(event, Broadcast | Told | Relayed | Dismissed):
        return 1
    return None


class _Ear:
    """One client: what it alone is told is checked like what all are told."""

    def __init__(self, feed: _Feed) -> None:
        self._feed = feed

    @property
    def feed(self) -> RoomFeed:
        return self._feed

    def hear(self, event: Event) -> None:
        self._feed.write(event)

    def begin(self) -> None: ...

    def cease(self) -> None: ...

    def skip(self, start: int, end: int) -> None: ...


TARGETS: dict[str, Callable[[bytes], None]] = {
    "framing": framing,
    **{name: reader(dialect) for name, dialect in DIALECTS.items()},
}
