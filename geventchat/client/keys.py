"""What a terminal sends -> keys, text and pastes. Sans-I/O: the time is passed in.

A paste is text, whatever is in it. A terminal that marks pastes (bracketed paste) says where each begins and ends. Where it
does not, a paste is recognised by its speed: people do not go on behind Enter within a few milliseconds. So an Enter that comes
in one burst with other characters is held for a moment. If more text follows, all of it is a paste; if not, it is an Enter.

Invariants:
- Each byte belongs to exactly one event, or to a sequence that means nothing here.
- While `deadline` is not None, `expire` has to be called at that time.
- No paste has more than MAX_PASTE_BYTES; the rest of it is dropped, and its event says so.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

MAX_PASTE_BYTES = 1024 * 1024
# An Escape key and the beginning of a sequence are the same byte.
ESCAPE_S = 0.05
UNFINISHED_SEQUENCE_S = 1.0
# Characters that follow each other faster than this come from one burst.
BURST_GAP_S = 0.01
# How long an Enter in a burst is held.
HELD_S = 0.01
# A terminal that never marks the end of a paste must not swallow everything.
UNFINISHED_PASTE_S = 3.0

_PASTE_BEGINS, _PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"
_SEQUENCE = re.compile(rb"\x1b(?:\[[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]|O[\x40-\x7e]|[^\x1b\[O])", re.DOTALL)
_UNFINISHED = re.compile(rb"\x1b(?:\[[\x30-\x3f]*[\x20-\x2f]*|O)?", re.DOTALL)
_WHEEL = re.compile(rb"\x1b\[<(\d+);\d+;\d+M")

_CONTROL = {
    **{code: f"ctrl-{chr(code + 64).lower()}" for code in range(1, 32)},
    0: "ctrl-space",
    8: "backspace",
    9: "tab",
    10: "enter",
    13: "enter",
    27: "escape",
    127: "backspace",
}
_FINAL = {
    b"A": "up",
    b"B": "down",
    b"C": "right",
    b"D": "left",
    b"H": "home",
    b"F": "end",
    b"Z": "shift-tab",
    b"P": "f1",
    b"Q": "f2",
    b"R": "f3",
    b"S": "f4",
}
_TILDE = {
    1: "home",
    2: "insert",
    3: "delete",
    4: "end",
    5: "page-up",
    6: "page-down",
    7: "home",
    8: "end",
    11: "f1",
    12: "f2",
    13: "f3",
    14: "f4",
    15: "f5",
    17: "f6",
    18: "f7",
    19: "f8",
    20: "f9",
    21: "f10",
}
_MODIFIED = {2: "shift-", 3: "alt-", 4: "alt-shift-", 5: "ctrl-", 6: "ctrl-shift-", 7: "ctrl-alt-"}
_NEWLINE = re.compile(r"\r\n|\r|\n")
# In one burst: text, and after it an Enter with more text behind it.
_BURST = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*[\r\n][^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+")
_TEXT = re.compile(r"[^\x00-\x1f\x7f]+")
_GOES_ON = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+")


class Key(NamedTuple):
    """A key that is not a character, such as `enter`, `ctrl-a` or `alt-b`."""

    name: str


class Text(NamedTuple):
    """Characters that were typed."""

    text: str


class Paste(NamedTuple):
    """Text that was pasted, with newlines as line ends. `joined`: what was typed just before belongs to it.

    `guessed`: only its speed says that it was pasted. It can also have been typed while this program had to wait.
    """

    text: str
    joined: bool = False
    truncated: bool = False
    guessed: bool = False


KeyEvent = Key | Text | Paste


class KeyReader:
    """One terminal's input."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # The beginning of a sequence.
        self._rest = b""
        # A paste that the terminal marks.
        self._paste: bytearray | None = None
        self._truncated = False
        # A paste that is recognised by its speed; and an Enter of which it is not known yet.
        self._burst: list[str] | None = None
        self._holding = False
        self._last_at = float("-inf")

    def feed(self, data: bytes, now: float) -> list[KeyEvent]:
        """The events that these bytes complete."""
        events: list[KeyEvent] = []
        data, self._rest = self._rest + data, b""
        while data:
            if self._paste is not None:
                data = self._feed_paste(data, events)
            elif data[0] == 0x1B:
                data = self._feed_escape(data, events)
            else:
                plain, escape, after = data.partition(b"\x1b")
                self._feed_plain(self._decoder.decode(plain), events, now, alone=not (escape or after))
                data = escape + after
        self._last_at = now
        self._set_deadline(now)
        return events

    def expire(self, now: float) -> list[KeyEvent]:
        """The events that waited for more bytes, if their time is up."""
        events: list[KeyEvent] = []
        if self.deadline is None or now < self.deadline:
            return events
        self.deadline = None
        self._end_burst(events)
        if self._paste is not None:
            self._end_paste(events)
        rest, self._rest = self._rest, b""
        if rest == b"\x1b":
            events.append(Key("escape"))
        elif len(rest) == 2:
            # Alt and a key that also begins sequences.
            events.append(Key(f"alt-{rest[1:].decode('ascii', 'replace')}"))
        return events

    def _set_deadline(self, now: float) -> None:
        if self._paste is not None:
            self.deadline = now + UNFINISHED_PASTE_S
        elif self._burst is not None or self._holding:
            self.deadline = now + HELD_S
        elif self._rest:
            # A lone Escape byte can be the key. Any longer beginning is a sequence, whose rest can take long on a slow link.
            self.deadline = now + (ESCAPE_S if len(self._rest) == 1 else UNFINISHED_SEQUENCE_S)
        else:
            self.deadline = None

    def _feed_plain(self, text: str, events: list[KeyEvent], now: float, *, alone: bool) -> None:
        gap_s = now - self._last_at
        if self._burst is not None or self._holding:
            text = self._go_on(text, events)
        while text:
            # A paste that comes without marks is in one piece with its line ends.
            burst = _BURST.match(text)
            if burst and burst[0].strip("\r\n"):
                self._burst = [burst[0]]
                text = text[burst.end() :]
                if text:
                    self._end_burst(events)
                continue
            typed = _TEXT.match(text)
            if typed:
                events.append(Text(typed[0]))
                text = text[typed.end() :]
                gap_s = 0.0
                continue
            last = len(text) == 1
            if text[0] in "\r\n" and last and alone and gap_s < BURST_GAP_S:
                self._holding = True
            else:
                events.append(Key(_CONTROL[ord(text[0])]))
            text = text[1:]

    def _go_on(self, text: str, events: list[KeyEvent]) -> str:
        """Add to the burst what belongs to it, and return the rest."""
        more = _GOES_ON.match(text)
        if not more:
            self._end_burst(events)
            return text
        if self._burst is None:
            self._holding = False
            # What was typed before the Enter that was held is the beginning of the paste.
            self._burst = ["\n", more[0]]
        elif sum(map(len, self._burst)) < MAX_PASTE_BYTES:
            self._burst.append(more[0])
        else:
            self._truncated = True
        rest = text[more.end() :]
        if rest:
            self._end_burst(events)
        return rest

    def _end_burst(self, events: list[KeyEvent]) -> None:
        if self._holding:
            self._holding = False
            events.append(Key("enter"))
        if self._burst is not None:
            joined = self._burst[0] == "\n"
            text, self._burst = "".join(self._burst), None
            events.append(Paste(_with_newlines(text), joined, self._truncated, guessed=True))
            self._truncated = False

    def _feed_escape(self, data: bytes, events: list[KeyEvent]) -> bytes:
        self._end_burst(events)
        if data.startswith(_PASTE_BEGINS):
            self._paste = bytearray()
            return data[len(_PASTE_BEGINS) :]
        sequence = _SEQUENCE.match(data)
        if sequence is None:
            if _UNFINISHED.fullmatch(data):
                self._rest = data
                return b""
            # Escape, and behind it another sequence.
            events.append(Key("escape"))
            return data[1:]
        name = _name_of(sequence[0])
        if name is not None:
            events.append(Key(name))
        elif sequence[0][1] >= 0x80:
            # Alt and a character of several bytes.
            return data[1:]
        return data[sequence.end() :]

    def _feed_paste(self, data: bytes, events: list[KeyEvent]) -> bytes:
        assert self._paste is not None
        before, end, after = data.partition(_PASTE_ENDS)
        if not end:
            # The mark can be cut in two.
            keep = next((n for n in range(len(_PASTE_ENDS) - 1, 0, -1) if data.endswith(_PASTE_ENDS[:n])), 0)
            before, self._rest = data[: len(data) - keep], data[len(data) - keep :]
        room = MAX_PASTE_BYTES - len(self._paste)
        self._truncated = self._truncated or len(before) > room
        self._paste += before[:room]
        if end:
            self._end_paste(events)
        return after

    def _end_paste(self, events: list[KeyEvent]) -> None:
        assert self._paste is not None
        text = bytes(self._paste).decode("utf-8", "ignore" if self._truncated else "replace")
        self._paste = None
        events.append(Paste(_with_newlines(text), truncated=self._truncated))
        self._truncated = False


def _with_newlines(text: str) -> str:
    return _NEWLINE.sub("\n", text)


def _name_of(sequence: bytes) -> str | None:
    """The key that a sequence stands for; None if it means nothing here."""
    wheel = _WHEEL.fullmatch(sequence)
    if wheel:
        return {64: "wheel-up", 65: "wheel-down"}.get(int(wheel[1]))
    introducer, final = sequence[1:2], sequence[-1:]
    if introducer == b"O":
        return _FINAL.get(final)
    if introducer != b"[":
        char = sequence[1:]
        name = _CONTROL.get(char[0], char.decode("ascii")) if char[0] < 0x80 else None
        return f"alt-{name}" if name else None
    numbers = sequence[2:-1].split(b";")
    if not all(number.isdigit() or not number for number in numbers):
        return None
    first, modifier = (int(number[:4] or 1) for number in (*numbers, b"", b"")[:2])
    name = _TILDE.get(first) if final == b"~" else _FINAL.get(final) if first == 1 else None
    if name is None or modifier not in {1, *_MODIFIED}:
        return None
    return _MODIFIED.get(modifier, "") + name
