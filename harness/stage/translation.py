"""One connection through an adapter: what a client sends as the server understands it, and what it receives as a script does.

- Whole lines are translated; bytes that are not a whole line are sent as they are.
- Fence lines that other clients sent are in the words of the server: they are taken out first.
- An unfinished line is held back until it is finished, or the connection ends.
- A connection without the greeting that its adapter promises receives everything: that is a difference.
"""

from __future__ import annotations

from harness.language.adapter import Adapter
from harness.language.patterns import match
from harness.stage.rules import Takes


class Translation:
    def __init__(self, adapter: Adapter, eol: bytes, takes: Takes | None = None) -> None:
        self._adapter = adapter
        self._eol = eol
        self._takes = takes
        self._greetings = list(adapter.greets)
        self._unfinished = b""

    def outgoing(self, data: bytes, mid_line: bool) -> bytes:
        """What to send instead."""
        if mid_line or not data.endswith(self._eol):
            return data
        lines = data[: -len(self._eol)].split(self._eol)
        return b"".join(_encoded(self._adapter.sent(_decoded(line))) + self._eol for line in lines)

    def incoming(self, data: bytes) -> bytes:
        """What has been received instead."""
        self._unfinished += data
        out: list[bytes] = []
        while True:
            self._remove_prompts()
            line, eol, rest = self._unfinished.partition(self._eol)
            if not eol:
                return b"".join(out)
            taken = self._takes(line + eol) if self._takes is not None else None
            if taken is not None:
                self._unfinished = line[:taken] + rest
                continue
            self._unfinished = rest
            translated = self._translated(_decoded(line))
            if translated is not None:
                out.append(_encoded(translated) + eol)

    def rest(self) -> bytes:
        """What was held back, when the connection has ended."""
        rest, self._unfinished = self._unfinished, b""
        return rest

    def _remove_prompts(self) -> None:
        found = True
        while found:
            found = False
            for prompt in self._adapter.prompts:
                if self._unfinished.startswith(prompt):
                    self._unfinished = self._unfinished[len(prompt) :]
                    found = True

    def _translated(self, line: str) -> str | None:
        if self._greetings:
            if match(self._greetings[0], line, {}) is not None:
                del self._greetings[0]
                return None
            self._greetings.clear()
        return self._adapter.received(line)


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "surrogateescape")
