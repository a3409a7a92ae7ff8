"""The screen as rows: a title, what is read, a status bar and the input line. Pure: knows no terminal.

Invariants:
- A frame has as many rows as the window, and no row is wider than it.
- A window that is scrolled up stays where it is, whatever arrives.
- No row has a character that acts on the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import NamedTuple

from geventchat.client.cells import Row, Span, cut, grapheme_width, graphemes, row_width, width, wrap
from geventchat.client.editor import UNSAFE, Editor
from geventchat.client.emoji import with_code
from geventchat.client.render import Look, drawn, goes_on, safe, waiting
from geventchat.client.terminal import SessionView
from geventchat.client.windows import Entry, Window

# A smaller screen has no title, or no status bar.
ROWS_FOR_TITLE = 8
ROWS_FOR_STATUS = 3
# The status bar lists the windows only if the connection's problem leaves this many columns.
COLUMNS_FOR_WINDOWS = 4
# Of a longer draft, only the part around the cursor is shown.
SHOWN_DRAFT_CHARACTERS = 8000
_BLANK: Row = ()


class Frame(NamedTuple):
    """A picture of the screen. The cursor's column is given as the text before it, whose width only the terminal knows."""

    rows: tuple[Row, ...]
    cursor_row: int
    before_cursor: Row
    title: str


class View:
    """Draws frames of one size."""

    def __init__(self, look: Look, columns: int, lines: int) -> None:
        self.look = look
        self.columns = max(columns, 2)
        self.lines = max(lines, 1)
        self._log_rows = 1
        self._today = date.min

    def frame(self, session: SessionView, editor: Editor, today: date) -> Frame:
        """The current frame."""
        self._today = today
        window = session.conversation.current
        inputs, cursor_row, before = self._input(session, editor)
        top = [self._title(window)] if self.lines >= ROWS_FOR_TITLE else []
        bar = [self._status(session, editor)] if self.lines >= ROWS_FOR_STATUS else []
        self._log_rows = max(self.lines - len(top) - len(bar) - len(inputs), 0)
        log = self._log(window, session)
        rows = [*top, *log, *bar, *inputs]
        return Frame(tuple(rows), len(rows) - len(inputs) + cursor_row, before, self._caption(session))

    def rows(self, entry: Entry) -> list[Row]:
        """An entry alone, as on the ordinary screen."""
        return self._entry_rows(entry, None)

    def single_row(self, session: SessionView, editor: Editor) -> tuple[Row, Row]:
        """The input line alone, in one row that moves sideways: what is before the cursor, and what is behind it."""
        prompt = cut(session.prompt, self.columns // 2)
        text, cursor = _around(editor.masked(), editor.cursor)
        text = text.replace("\n", " ")
        room = max(self.columns - width(prompt) - 1, 1)
        start = cursor
        while start and width(text[start - 1 : cursor]) <= room:
            start -= 1
        end = cursor
        while end < len(text) and width(text[start : end + 1]) <= room:
            end += 1
        return (Span("", prompt + text[start:cursor]),), (Span("", text[cursor:end]),)

    # Scrolling.

    def scroll(self, session: SessionView, rows: int) -> None:
        """Scroll up by this many rows, or down if negative. Loads older messages where the oldest one is reached."""
        window = session.conversation.current
        if not window.entries:
            return
        at = len(window.entries) - 1 if window.bottom is None else _index(window, window.bottom)
        below = 0 if window.bottom is None else window.bottom_rows
        below += rows
        while below >= (height := len(self._block(window, at))) and at:
            below -= height
            at -= 1
        while below < 0 and at < len(window.entries) - 1:
            at += 1
            below += len(self._block(window, at))
        if below < 0 or (below == 0 and at == len(window.entries) - 1):
            self.to_bottom(window)
            return
        window.bottom, window.bottom_rows = window.entries[at], below
        if self._clamp(window, at, below):
            session.conversation.older(window)

    def page(self) -> int:
        """How many rows PageUp moves."""
        return max(self._log_rows - 1, 1)

    def remember_page(self, rows: int) -> None:
        """Until the first frame, PageUp moves as far as before."""
        self._log_rows = rows + 1

    def to_top(self, session: SessionView) -> None:
        """Scroll to the oldest message that is loaded."""
        window = session.conversation.current
        if window.entries:
            window.bottom, window.bottom_rows = window.entries[0], 0
            self._clamp(window, 0, 0)
            session.conversation.older(window)

    def to_bottom(self, window: Window) -> None:
        """Scroll to the end, and stay there."""
        window.bottom, window.bottom_rows = None, 0
        window.read()

    def _clamp(self, window: Window, at: int, below: int) -> bool:
        """Not further up than the first entry at the top; True if it is there."""
        above = len(self._block(window, at)) - below
        while above < self._log_rows and at:
            at -= 1
            above += len(self._block(window, at))
        if above >= self._log_rows and at:
            return False
        # From the first entry down, as many as there is room for.
        rows = 0
        for at in range(len(window.entries)):
            rows += len(self._block(window, at))
            if rows >= self._log_rows:
                window.bottom, window.bottom_rows = window.entries[at], rows - self._log_rows
                if at == len(window.entries) - 1 and rows == self._log_rows:
                    self.to_bottom(window)
                return True
        self.to_bottom(window)
        return True

    # Parts.

    def _log(self, window: Window, session: SessionView) -> list[Row]:
        wanted = self._log_rows
        rows: list[Row] = []
        at, below = len(window.entries) - 1, 0
        if window.bottom is None:
            for outgoing in reversed(window.pending[-wanted:] if wanted else []):
                line = waiting(outgoing, session.conversation.name, self.look)
                rows[:0] = wrap(line.spans, self.columns, self._indent(line.indent))
                if len(rows) >= wanted:
                    break
        else:
            at, below = _index(window, window.bottom), window.bottom_rows
        while len(rows) < wanted and at >= 0:
            block = self._block(window, at)
            rows[:0] = block[: len(block) - below] if below else block
            below = 0
            at -= 1
        rows = rows[len(rows) - wanted :] if len(rows) > wanted else rows
        # A conversation begins at the top and grows.
        return [*rows, *[_BLANK] * (wanted - len(rows))]

    def _block(self, window: Window, at: int) -> list[Row]:
        """The rows of an entry, and of what stands above it: a new day, and where what is new begins."""
        entry = window.entries[at]
        before = window.entries[at - 1] if at else None
        rows: list[Row] = []
        day = entry.at.date()
        # The first entry of today needs no date.
        if before.at.date() != day if before is not None else (day != self._today):
            rows.append(self._line(f"{entry.at:%A, %d %B %Y}", "day"))
        if entry is window.first_unread:
            rows.append(self._line("new since you left", "marker"))
        return rows + self._entry_rows(entry, before)

    def _entry_rows(self, entry: Entry, before: Entry | None) -> list[Row]:
        follows = goes_on(entry, before)
        key = (id(self.look), self.columns, follows)
        if entry.drawn is None or entry.drawn[0] != key:
            line = drawn(entry, self.look, goes_on=follows)
            rows = wrap(line.spans, self.columns, self._indent(line.indent), words=line.words)
            entry.drawn = key, rows
        rows_again = entry.drawn[1]
        assert isinstance(rows_again, list)
        return rows_again

    def _indent(self, wanted: int) -> int:
        # A narrow window has no room for a deep indentation.
        return wanted if wanted <= max(self.columns // 3, self.columns - 50) else 2

    def _line(self, text: str, role: str) -> Row:
        text = cut(f" {text} ", self.columns)
        left = min(2, max(self.columns - width(text), 0))
        right = max(self.columns - width(text) - left, 0)
        return (Span(self.look.style(role), f"{'─' * left}{text}{'─' * right}"),)

    def _title(self, window: Window) -> Row:
        people = "" if window.is_person or not window.user_count else f" · {window.user_count} here"
        away = "" if window.joined or window.is_person else " · not entered"
        text = f" {safe(window.title)}{people}{away}" + (f" · {safe(window.topic)}" if window.topic else "")
        return self._bar([Span(self.look.style("status"), cut(text, self.columns))])

    def _bar(self, spans: Sequence[Span]) -> Row:
        room = max(self.columns - row_width(spans), 0)
        return (*spans, Span(self.look.style("status"), " " * room))

    def _status(self, session: SessionView, editor: Editor) -> Row:
        question = self._hint(session, editor)
        if question:
            return self._bar([Span(self.look.style("question"), cut(f" {question} ", self.columns))])
        talk = session.conversation
        words = [*session.status]
        if talk.current.bottom is not None:
            new = f", {talk.current.unread} new" if talk.current.unread else ""
            words.append(f"scrolled up{new}: PageDown")
        writers = [safe(name) for name in talk.writers()]
        if writers:
            words.append(f"{', '.join(writers[:3])} {'is' if len(writers) == 1 else 'are'} writing")
        right = cut(f" {' · '.join(words)} ", self.columns) if words else ""
        room = self.columns - width(right)
        left = (
            self._windows(talk.windows, talk.current, safe(talk.name), room)
            if room >= COLUMNS_FOR_WINDOWS
            else []
        )
        gap = Span(self.look.style("status"), " " * max(room - row_width(left), 0))
        style = "alert" if session.status else "status"
        return (*left, gap, Span(self.look.style(style), right)) if right else (*left, gap)

    def _hint(self, session: SessionView, editor: Editor) -> str:
        if editor.confirming:
            where = safe(session.conversation.current.title)
            question = f"Send {editor.confirming} lines to {where}? y: send, n: drop, e: edit"
            # In a narrow window, the answers matter more than what is asked.
            return (
                question
                if width(question) + 2 <= self.columns
                else f"Send {editor.confirming} lines? y/n, e: edit"
            )
        if editor.search is not None:
            return f"search: {safe(editor.search)}"
        if editor.candidates:
            return " ".join([with_code(candidate.strip()) for candidate in editor.candidates])
        if editor.literal and editor.text.startswith("/"):
            return "pasted: this is a message, not a command"
        return ""

    def _windows(self, windows: Sequence[Window], current: Window, name: str, room: int) -> list[Span]:
        """The windows that have room; the current one and those with something new come first."""
        labels = [
            (window, *self._label(number, window, window is current))
            for number, window in enumerate(windows, 1)
        ]
        status = self.look.style("status")
        head = f" {name} " if room >= 40 else ""
        important = sorted(
            labels, key=lambda one: (one[0] is not current, not one[0].mentions, not one[0].unread)
        )
        kept: set[int] = set()
        used = width(head)
        for window, text, _ in important:
            if used + width(text) + 1 > room and kept:
                break
            used += width(text) + 1
            kept.add(id(window))
        spans = [Span(status, head)] if head else []
        for window, text, style in labels:
            if id(window) in kept:
                spans += [Span(status, " "), Span(style, cut(text, max(room - 1, 1)))]
        if len(kept) < len(labels) and used + 2 <= room:
            spans.append(Span(status, " …"))
        return spans

    def _label(self, number: int, window: Window, is_current: bool) -> tuple[str, str]:
        text = f"{number}:{safe(window.title)}"
        if window.unread:
            text += f"({window.unread}{'!' if window.mentions else ''})"
        if is_current:
            return f"[{text}]", self.look.style("current")
        if not window.joined and not window.is_person:
            text = f"({text})"
        role = "alert" if window.mentions else "unread" if window.unread else "status"
        return text, self.look.style(role)

    def _caption(self, session: SessionView) -> str:
        """The title of the terminal."""
        talk = session.conversation
        unread = sum(window.unread for window in talk.windows)
        mark = "!" if any(window.mentions for window in talk.windows) else ""
        return safe(f"{f'({unread}{mark}) ' if unread else ''}{talk.current.title} · {talk.name}")

    def _input(self, session: SessionView, editor: Editor) -> tuple[list[Row], int, Row]:
        """The rows of the input line, the one with the cursor, and what is before the cursor in it."""
        prompt = cut(session.prompt, max(self.columns - 2, 1))
        text, cursor = _around(editor.masked(), editor.cursor)
        rows: list[str] = [prompt]
        used = width(prompt)
        cursor_row, before = 0, prompt
        position = 0
        for piece in [*graphemes(text), ""]:
            columns = grapheme_width(piece) if piece and piece != "\n" else 0
            if used + columns > self.columns or (used == self.columns and position == cursor):
                rows.append("")
                used = 0
            if position <= cursor < position + max(len(piece), 1) or (not piece and cursor >= position):
                cursor_row, before = len(rows) - 1, rows[-1]
            position += len(piece)
            if piece == "\n":
                rows.append("")
                used = 0
            else:
                rows[-1] += piece
                used += columns
        most = max(self.lines // 3, 1)
        first = min(max(cursor_row - most + 1, 0), max(len(rows) - most, 0))
        shown = rows[first : first + most]
        return [(Span("", row),) for row in shown], cursor_row - first, (Span("", before),)


def _around(text: str, cursor: int) -> tuple[str, int]:
    """A draft as it can be shown; of a long one, what is around the cursor."""
    start = 0
    if len(text) > 2 * SHOWN_DRAFT_CHARACTERS:
        start = max(cursor - SHOWN_DRAFT_CHARACTERS, 0)
        text = text[start : cursor + SHOWN_DRAFT_CHARACTERS]
    return UNSAFE.sub("\ufffd", text), cursor - start


def _index(window: Window, entry: Entry) -> int:
    """Where an entry is. Searched from the end, where it most likely is."""
    return next(
        (at for at in range(len(window.entries) - 1, -1, -1) if window.entries[at] is entry),
        len(window.entries) - 1,
    )


def changed_rows(old: Frame | None, new: Frame) -> Iterator[int]:
    """The rows that have to be written again."""
    for row in range(len(new.rows)):
        same = old is not None and len(old.rows) == len(new.rows) and old.rows[row] == new.rows[row]
        if not same:
            yield row
