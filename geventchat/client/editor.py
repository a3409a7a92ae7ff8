"""The input line: keys in, edits and requests out. Sans-I/O; knows no terminal, no server and no commands.

Invariants:
- Nothing that was typed or pasted disappears but by a key that says so, and what Ctrl-C or `n` clears comes back with Ctrl-Y.
- `literal` is true while the text begins with a paste: it is then text, never a command.
- A line with a password in it is never in the history or among what Ctrl-Y brings back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from geventchat.client.cells import following, previous
from geventchat.client.keys import Key, KeyEvent, Paste, Text

MAX_UNDO = 200
MAX_DRAFT_CHARACTERS = 2 * 1024 * 1024
TAB_COLUMNS = 4
MASK = "*"
# Characters that act on a terminal, or are not in a message.
UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Submitted(NamedTuple):
    """Enter was pressed."""

    text: str
    literal: bool = False


class Requested(NamedTuple):
    """A key that is about something else than the input line; `what` is what it asks for."""

    what: str


Action = Submitted | Requested

# Keys that the input line does not handle.
_REQUESTS = {
    "escape": "cancel",
    "ctrl-z": "suspend",
    "ctrl-l": "redraw",
    "page-up": "page-up",
    "page-down": "page-down",
    "shift-page-up": "page-up",
    "shift-page-down": "page-down",
    "ctrl-home": "top",
    "ctrl-end": "bottom",
    "wheel-up": "wheel-up",
    "wheel-down": "wheel-down",
    "ctrl-n": "next-room",
    "ctrl-p": "previous-room",
    "alt-right": "next-room",
    "alt-left": "previous-room",
    "alt-a": "active-room",
    **{f"alt-{digit}": f"room-{digit}" for digit in "1234567890"},
}


class Completions(NamedTuple):
    """The words that can be in place of the one before the cursor. Not `complete`: more can follow shortly."""

    word: str
    candidates: Sequence[str]
    complete: bool = True


class EditorView(Protocol):
    """What the input line has to know of the session."""

    @property
    def hidden(self) -> bool:
        """True while a password is asked for."""

    @property
    def paste_lines(self) -> int:
        """A paste with more lines is sent only after a question."""

    def is_secret(self, text: str) -> bool:
        """True for a line with a password in it."""

    def complete(self, before_cursor: str) -> Completions:
        """The completions of what is before the cursor."""

    def accepts(self, text: str) -> bool:
        """True when this input can be handled now; otherwise it stays in the input line."""


@dataclass(slots=True)
class _Cycle:
    """Completions that Tab goes through: where they begin, and which is shown."""

    start: int
    candidates: Sequence[str]
    shown: int
    text: str


@dataclass(slots=True)
class _Search:
    """A search backwards through the history."""

    before: tuple[str, bool]
    wanted: str = ""
    at: int | None = None


@dataclass(slots=True)
class Editor:
    """One input line, which can have several rows."""

    view: EditorView
    history: list[str] = field(default_factory=list)
    text: str = ""
    cursor: int = 0
    literal: bool = False
    # The number of lines of a paste that waits for an answer to whether it is to be sent.
    confirming: int = 0
    candidates: Sequence[str] = ()
    _killed: str = ""
    _undo: list[tuple[str, int, bool]] = field(default_factory=list)
    # Where in the history this is, and what was typed before that.
    _at: int | None = None
    _draft: tuple[str, bool] = ("", False)
    _cycle: _Cycle | None = None
    _search: _Search | None = None
    # The last paste ended with a line end, which is in the text only if more is pasted behind it.
    _line_ended: bool = False
    # The text for which completions were asked.
    _awaited: tuple[str, int] | None = None
    # Lines of this session that were added to the history.
    _unsaved: list[str] = field(default_factory=list)

    # For the terminal.

    @property
    def search(self) -> str | None:
        """What is being searched for in the history."""
        return self._search.wanted if self._search is not None else None

    def masked(self) -> str:
        """The text without its passwords."""
        if self.view.hidden:
            return MASK * len(self.text)
        if self.view.is_secret(self.text):
            verb, blank, rest = self.text.partition(" ")
            return verb + blank + MASK * len(rest)
        return self.text

    def take_unsaved(self) -> list[str]:
        """The lines to be saved in the history file."""
        unsaved, self._unsaved = self._unsaved, []
        return unsaved

    def put(self, text: str) -> None:
        """Begin a text that is to be completed."""
        self._change(text, len(text))
        self.literal = False

    def completions_arrived(self) -> None:
        """More completions are known: use them if the text is still the one for which they were asked."""
        if self._awaited == (self.text, self.cursor):
            self._awaited = None
            self._complete()

    # Events.

    def handle(self, event: KeyEvent) -> list[Action]:
        """Handle one event."""
        if self.confirming:
            return self._confirm(event)
        match event:
            case Key("tab") if not self._search:
                self._complete()
                return []
            case Key("shift-tab") if self._cycle is not None:
                self._turn(-1)
                return []
        self._cycle, self.candidates, self._awaited = None, (), None
        match event:
            case Text(text):
                if self._search is not None:
                    self._search.wanted += text
                    self._find(again=False)
                else:
                    self._line_ended = False
                    self._insert(text)
                return []
            case Paste(text, joined, guessed=guessed):
                self._end_search(keep=True)
                self._paste(text, joined, guessed=guessed)
                return []
            case Key(name):
                return self._key(name)

    def _key(self, name: str) -> list[Action]:
        if self._search is not None and not self._searching(name):
            return []
        match name:
            case "enter":
                return self._submit()
            case "ctrl-c":
                if not self.text:
                    return [Requested("interrupt")]
                self._clear()
                return []
            case "ctrl-d" if not self.text:
                return [Requested("end")]
            case _ if name in _REQUESTS:
                return [Requested(_REQUESTS[name])]
            case _:
                self._edit(name)
                return []

    def _submit(self) -> list[Action]:
        text, literal = self.text.rstrip("\n"), self.literal
        if not self.view.accepts(text):
            return []
        self._remember(text, literal=literal)
        self._undo.clear()
        self._reset("")
        return [Submitted(text, literal)]

    def _clear(self) -> None:
        if not self.view.is_secret(self.text):
            self._killed = self.text
            self._change("", 0)
        self._reset("")

    def _reset(self, text: str) -> None:
        self.text, self.cursor, self.literal = text, len(text), False
        self.confirming, self._at, self._draft, self._line_ended = 0, None, ("", False), False

    # Pastes.

    def _paste(self, text: str, joined: bool, *, guessed: bool = False) -> None:
        if self.view.hidden:
            self._insert(text.strip("\n").partition("\n")[0])
            return
        begins = joined or self.cursor == 0
        if self._line_ended and self.cursor == len(self.text):
            text = "\n" + text
        self._line_ended = text.endswith("\n") and not guessed
        # The end of the last line is not the wish to send it. But if these lines were typed, the next one is not a part of it.
        text = text if guessed else text.removesuffix("\n")
        self._insert(UNSAFE.sub("\ufffd", _expanded(text)))
        # A blank line can begin it that says nothing.
        if begins and self.text.strip():
            self.literal = True
        lines = self.text.strip("\n").count("\n") + 1
        if lines > self.view.paste_lines and (self.literal or not self.text.startswith("/")):
            self.confirming = lines

    def _confirm(self, event: KeyEvent) -> list[Action]:
        match event:
            case Key("enter") | Text("y" | "Y"):
                self.confirming = 0
                return self._submit()
            case Key("ctrl-c" | "escape") | Text("n" | "N"):
                self._clear()
            case Text("e" | "E"):
                self.confirming = 0
            case Paste(text) | Text(text):
                # The rest of a paste that came in two pieces.
                self._paste(text, joined=True)
            case Key(name) if name in _REQUESTS:
                return [Requested(_REQUESTS[name])]
        return []

    # Editing.

    def _insert(self, text: str) -> None:
        text = text[: MAX_DRAFT_CHARACTERS - len(self.text)]
        self._change(self.text[: self.cursor] + text + self.text[self.cursor :], self.cursor + len(text))

    def _change(self, text: str, cursor: int) -> None:
        self._undo.append((self.text, self.cursor, self.literal))
        del self._undo[:-MAX_UNDO]
        self.text, self.cursor = text, cursor
        self.literal = self.literal and bool(text)

    def _delete(self, start: int, end: int, *, keep: bool = False) -> None:
        if start == end:
            return
        if keep and not self.view.is_secret(self.text):
            self._killed = self.text[start:end]
        self._change(self.text[:start] + self.text[end:], start)

    def _edit(self, name: str) -> None:
        text, cursor = self.text, self.cursor
        row_start = text.rfind("\n", 0, cursor) + 1
        row_end = len(text) if (end := text.find("\n", cursor)) < 0 else end
        match name:
            case "alt-enter":
                self._insert("\n")
            case "left" | "ctrl-b":
                self.cursor = previous(text, cursor)
            case "right" | "ctrl-f":
                self.cursor = following(text, cursor)
            case "home" | "ctrl-a":
                self.cursor = row_start
            case "end" | "ctrl-e":
                self.cursor = row_end
            case "alt-b" | "ctrl-left":
                self.cursor = _word_start(text, cursor)
            case "alt-f" | "ctrl-right":
                self.cursor = _word_end(text, cursor)
            case "backspace":
                self._delete(previous(text, cursor), cursor)
            case "delete" | "ctrl-d":
                self._delete(cursor, following(text, cursor))
            case "ctrl-w":
                self._delete(_blank_start(text, cursor), cursor, keep=True)
            case "alt-backspace":
                self._delete(_word_start(text, cursor), cursor, keep=True)
            case "alt-d":
                self._delete(cursor, _word_end(text, cursor), keep=True)
            case "ctrl-k":
                self._delete(cursor, row_end if row_end > cursor else following(text, cursor), keep=True)
            case "ctrl-u":
                self._delete(row_start, cursor, keep=True)
            case "ctrl-y":
                self._insert(self._killed)
            case "ctrl-t" if cursor:
                middle = previous(text, following(text, cursor))
                left, right = previous(text, middle), following(text, middle)
                swapped = text[middle:right] + text[left:middle]
                self._change(text[:left] + swapped + text[right:], right)
            case "ctrl-_":
                if self._undo:
                    self.text, self.cursor, self.literal = self._undo.pop()
            case "up":
                self._up(row_start)
            case "down":
                self._down(row_start, row_end)
            case "ctrl-r":
                self._search = _Search((text, self.literal))

    def _up(self, row_start: int) -> None:
        if row_start:
            above = self.text.rfind("\n", 0, row_start - 1) + 1
            self.cursor = min(above + self.cursor - row_start, row_start - 1)
        else:
            at = len(self.history) if self._at is None else self._at
            self._recall(at - 1)

    def _down(self, row_start: int, row_end: int) -> None:
        if row_end < len(self.text):
            below_end = self.text.find("\n", row_end + 1)
            below_end = len(self.text) if below_end < 0 else below_end
            self.cursor = min(row_end + 1 + self.cursor - row_start, below_end)
        elif self._at is not None:
            self._recall(self._at + 1)

    # The history.

    def _remember(self, text: str, *, literal: bool) -> None:
        # It comes back as if it had been typed.
        typed = _as_typed(text) if literal else text
        if self.view.is_secret(typed) or not text.strip():
            return
        if not self.history or self.history[-1] != typed:
            self.history.append(typed)
            # From the file, each of its lines comes back alone.
            first, *rest = text.split("\n")
            rest = [_as_typed(line) for line in rest if not self.view.is_secret(line)]
            self._unsaved += [_as_typed(first) if literal else first, *rest]

    def _recall(self, at: int) -> None:
        if not 0 <= at <= len(self.history):
            return
        if self._at is None:
            self._draft = self.text, self.literal
        if at == len(self.history):
            self._at, (self.text, self.literal) = None, self._draft
        else:
            self._at, self.text, self.literal = at, self.history[at], False
        self.cursor = len(self.text)

    def _searching(self, name: str) -> bool:
        """Handle a key during a search; True if it ends the search and still has its meaning."""
        assert self._search is not None
        match name:
            case "ctrl-r":
                self._find(again=True)
            case "backspace":
                self._search.wanted = self._search.wanted[:-1]
                self._search.at = None
                self._find(again=False)
            case "ctrl-c" | "ctrl-g" | "escape":
                self._end_search(keep=False)
            case _:
                self._end_search(keep=True)
                return True
        return False

    def _find(self, *, again: bool) -> None:
        assert self._search is not None
        wanted = self._search.wanted.casefold()
        newest = len(self.history) if self._search.at is None else self._search.at + (not again)
        for at in range(newest - 1, -1, -1):
            if wanted in self.history[at].casefold():
                self._search.at = at
                self.text, self.cursor, self.literal = self.history[at], len(self.history[at]), False
                return

    def _end_search(self, *, keep: bool) -> None:
        if self._search is not None and not keep:
            self.text, self.literal = self._search.before
            self.cursor = len(self.text)
        self._search = None

    # Completion.

    def _complete(self) -> None:
        if self._cycle is not None and self._cycle.text == self.text:
            self._turn(1)
            return
        found = self.view.complete(self.text[: self.cursor])
        start = self.cursor - len(found.word)
        self.candidates = ()
        match found.candidates:
            case []:
                self._awaited = None if found.complete else (self.text, self.cursor)
            case [one]:
                # People type on after Tab without waiting for a list.
                self._replace(start, one)
            case several:
                common = _common_beginning(several)
                if len(common) > len(found.word):
                    self._replace(start, common)
                self.candidates = several
                self._cycle = _Cycle(start, several, -1, self.text)

    def _turn(self, step: int) -> None:
        cycle = self._cycle
        assert cycle is not None
        cycle.shown = (max(cycle.shown, -1 if step > 0 else 0) + step) % len(cycle.candidates)
        self._replace(cycle.start, cycle.candidates[cycle.shown])
        cycle.text = self.text

    def _replace(self, start: int, text: str) -> None:
        self._change(self.text[:start] + text + self.text[self.cursor :], start + len(text))


def _as_typed(text: str) -> str:
    """A message as it has to be typed: with another slash where one would begin a command."""
    begun = text.lstrip()
    return f"{text[: len(text) - len(begun)]}/{begun}" if begun.startswith("/") else text


def _expanded(text: str) -> str:
    return "\n".join([line.expandtabs(TAB_COLUMNS) for line in text.split("\n")])


def _word_start(text: str, cursor: int) -> int:
    while cursor and not text[cursor - 1].isalnum():
        cursor -= 1
    while cursor and text[cursor - 1].isalnum():
        cursor -= 1
    return cursor


def _word_end(text: str, cursor: int) -> int:
    while cursor < len(text) and not text[cursor].isalnum():
        cursor += 1
    while cursor < len(text) and text[cursor].isalnum():
        cursor += 1
    return cursor


def _blank_start(text: str, cursor: int) -> int:
    while cursor and text[cursor - 1].isspace():
        cursor -= 1
    while cursor and not text[cursor - 1].isspace():
        cursor -= 1
    return cursor


def _common_beginning(words: Sequence[str]) -> str:
    """What all words begin with, in any case, as the first one spells it."""
    first = words[0]
    for end in range(len(first), 0, -1):
        if all(word[:end].casefold() == first[:end].casefold() for word in words):
            return first[:end]
    return ""
