"""Translates one connection with an adapter: sent lines to the words of the server, and received lines to those of the script.

- Only complete lines are translated. Bytes that are not sent as a line are sent as they are.
- Fence lines of other clients are in the words of the server, so they are removed before the translation.
- An unfinished line is held back until it is complete, or until the turn or the connection ends. Then it counts as received
  when its bytes came, and what follows it is the rest of a line, not a line.
- If the greeting that the adapter promises is missing, the client receives everything, and the difference shows.
- Every line that is removed or translated is recorded.
"""

from __future__ import annotations

from itertools import pairwise

from harness.language.adapter import Adapter, Greeting, Prompt, Spelling, respelled
from harness.language.patterns import match
from harness.stage.rules import FindHeard, Rules, Take, TakenLine


class Translation:
    def __init__(
        self, adapter: Adapter, eol: bytes, client: str, take: Take, find_heard: FindHeard | None = None
    ) -> None:
        self._adapter = adapter
        self._eol = eol
        self._client = client
        self._take = take
        self._find_heard = find_heard
        self._ignore = Rules([(one, adapter.file) for one in adapter.ignore], eol, take).of(client)
        self._greetings = list(adapter.greets)
        self._unfinished = bytearray()
        self._arrivals: dict[int, float] = {}
        """When the bytes from each of these offsets of the unfinished line on came."""
        self._continues = False
        """Whether the unfinished line continues one that was released."""

    def outgoing(self, data: bytes, mid_line: bool) -> bytes:
        """The bytes to send for these lines."""
        if mid_line or not data.endswith(self._eol):
            return data
        lines = data[: -len(self._eol)].split(self._eol)
        return b"".join(self._in_other_words(self._adapter.sends, line + self._eol) for line in lines)

    def incoming(self, data: bytes, now_s: float) -> bytes:
        """The translated bytes that these complete."""
        self._arrivals[len(self._unfinished)] = now_s
        self._unfinished += data
        out: list[bytes] = []
        while True:
            self._remove_prompts()
            end = self._unfinished.find(self._eol) + len(self._eol)
            if end < len(self._eol):
                return b"".join(out)
            line = bytes(self._unfinished[:end])
            heard = self._find_heard(line) if self._find_heard is not None else None
            if heard is not None:
                self._cut(heard, end)
                continue
            self._cut(0, end)
            if self._continues:
                out.append(line)
                self._continues = False
            elif not self._removed(line):
                out.append(self._in_other_words(self._adapter.receives, line))

    @property
    def unfinished(self) -> bytes:
        """The unfinished line that is held back."""
        return bytes(self._unfinished)

    def release(self) -> list[tuple[bytes, float]]:
        """Let go of the unfinished line, which is received as it is: its bytes in the pieces that came, and when."""
        starts = [*self._arrivals, len(self._unfinished)]
        pieces = [
            (bytes(self._unfinished[start:end]), self._arrivals[start]) for start, end in pairwise(starts)
        ]
        if self._unfinished:
            self._continues = True
            self._greetings.clear()
        self._unfinished.clear()
        self._arrivals.clear()
        return [(piece, when) for piece, when in pieces if piece]

    def _cut(self, start: int, end: int) -> None:
        del self._unfinished[start:end]
        self._arrivals = {at - max(0, min(at, end) - start): when for at, when in self._arrivals.items()}

    def _remove_prompts(self) -> None:
        found = not self._continues
        while found:
            found = False
            for prompt in self._adapter.prompts:
                if self._unfinished.startswith(prompt.data):
                    self._cut(0, len(prompt.data))
                    self._record(prompt.data, prompt)
                    found = True

    def _removed(self, line: bytes) -> bool:
        """Whether the script does not see this line."""
        if self._greetings:
            if match(self._greetings[0].pattern, self._text(line), {}) is not None:
                self._record(line, self._greetings.pop(0))
                return True
            self._greetings.clear()
        return self._ignore is not None and self._ignore(line) is not None

    def _in_other_words(self, spellings: tuple[Spelling, ...], line: bytes) -> bytes:
        text, spelling = respelled(spellings, self._text(line))
        if spelling is None:
            return line
        instead = text.encode("utf-8", "surrogateescape") + self._eol
        self._record(line, spelling, instead)
        return instead

    def _text(self, line: bytes) -> str:
        return line[: -len(self._eol)].decode("utf-8", "surrogateescape")

    def _record(self, data: bytes, by: Greeting | Prompt | Spelling, instead: bytes = b"") -> None:
        self._take(TakenLine(self._client, data, by, self._adapter.file, instead))
