"""A person's terminal: keys in, frames out. The only module that knows how a terminal is switched to raw keys and back.

It has two phases. Questions and errors before the login are lines of the ordinary screen, with the input line below them. From
the login on, it is the whole alternate screen, until `leave_screen`.

Invariants:
- The answer to a question is typed into a separate input line, which ends with the question. So no part of a password is said,
  shown or kept, and what was typed before the question is there again behind it.
- Nothing here waits for a slow terminal: what it does not take is written later, and only the newest frame is.
- Whatever happens, `close` leaves the terminal as `open` found it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
from collections.abc import Mapping
from datetime import date

from geventchat.client.cells import Span
from geventchat.client.editor import Action, Editor, Requested, Submitted
from geventchat.client.history import HistoryFile
from geventchat.client.keys import KeyEvent, KeyReader
from geventchat.client.loop import Loop, Timer
from geventchat.client.options import Options
from geventchat.client.render import Look, look_of, paint, row_text, safe
from geventchat.client.terminal import (
    Cancelled,
    InputEnded,
    Interrupted,
    LineEntered,
    OutputClosed,
    Resumed,
    SessionView,
    TerminalHandler,
)
from geventchat.client.view import Frame, View, changed_rows
from geventchat.client.windows import Entry, Window

READ_BYTES = 64 * 1024
# Frames follow each other no faster than this.
FRAME_S = 0.025
# How long the terminal can take to be restored.
CLOSE_TIMEOUT_S = 1.0
WHEEL_ROWS = 3
NOTIFICATION_CHARACTERS = 200

_ENTER = "\x1b[?1049h\x1b[?7l\x1b[?1007l\x1b[2J\x1b[H"
# Cleared first, for terminals that have no alternate screen.
_LEAVE = "\x1b[2J\x1b[H\x1b[?7h\x1b[?1007h\x1b[?1049l"
_PASTES_ON, _PASTES_OFF = "\x1b[?2004h", "\x1b[?2004l"
_MOUSE_ON, _MOUSE_OFF = "\x1b[?1000h\x1b[?1006h", "\x1b[?1006l\x1b[?1000l"
_FRAME_BEGINS, _FRAME_ENDS = "\x1b[?2026h\x1b[?25l", "\x1b[?25h\x1b[?2026l"
_SAVE, _RESTORE = "\x1b7", "\x1b8"
_SAVE_TITLE, _RESTORE_TITLE = "\x1b[22;2t", "\x1b[23;2t"
_END = "\x1b\\"
# These show the text of a title or an address instead of understanding it.
_WITHOUT_OSC = ("linux", "vt", "ansi", "dumb", "cons", "emacs")


def knows_osc(term: str) -> bool:
    """True for a terminal that understands titles and addresses of links."""
    return not term.startswith(_WITHOUT_OSC)


class Screen:
    """A person's terminal."""

    interactive = True
    echoes_input = False
    linear = False

    def __init__(
        self,
        loop: Loop,
        handle: TerminalHandler,
        options: Options,
        colours: Mapping[str, str],
        *,
        colour: bool,
        term: str,
        history: HistoryFile | None,
    ) -> None:
        self._loop = loop
        self._handle = handle
        self._options = options
        self._colours = colours
        self._colour = colour
        self._osc = knows_osc(term)
        self._history = history
        self._in = sys.stdin.fileno()
        self._out, self._can_wait = _own_output()
        self._settings = termios.tcgetattr(self._in)
        self._keys = KeyReader()
        self._key_timer: Timer | None = None
        self._paint_timer: Timer | None = None
        self._painted_at = float("-inf")
        self._unwritten = bytearray()
        self._is_raw = False
        self._full = False
        self._prompt_shown = False
        self._left = False
        self._frame: Frame | None = None
        self._title = ""
        self._mouse = False
        # Why the input history cannot be used; empty if it can.
        self.history_problem = ""
        self._session: SessionView
        self._draft: Editor
        self._answer: Editor
        self._size = _size(self._out)
        self._view = View(self._look(), *self._size)

    # The session's interface.

    def open(self, view: SessionView) -> None:
        """Take the terminal."""
        self._session = view
        try:
            past = self._history.lines() if self._history is not None else []
        except OSError:
            past = []
        self._draft, self._answer = Editor(view, past), Editor(view)
        view.conversation.people_arrived = self._people_arrived
        self._take_terminal()
        if self.history_problem:
            view.conversation.history_failed(self.history_problem)
        self._loop.on_readable(self._in, self._read)
        for number, call in (
            (signal.SIGWINCH, self._resized),
            (signal.SIGTSTP, self._suspend),
            (signal.SIGCONT, self._continued),
        ):
            self._loop.on_signal(number, call)

    def ask(self) -> None:
        """Show the question, which is the prompt."""
        self._answer = Editor(self._session)
        self.refresh()

    def request_line(self) -> None:
        """Do nothing: people type slower than servers read."""

    def show(self, window: Window, entry: Entry) -> None:
        """An entry was added."""
        if not self._session.is_online or self._left:
            for row in self._view.rows(entry):
                self._print(paint(row))
        self.refresh()

    def show_error(self, text: str) -> None:
        """Do nothing: a person reads errors in the conversation."""

    def refresh(self) -> None:
        """Paint soon."""
        if self._paint_timer is None:
            at = max(self._painted_at + FRAME_S, self._loop.now())
            self._paint_timer = self._loop.call_at(at, self._paint_now)

    def configure(self, options: Options) -> None:
        """Use other settings."""
        self._options = options
        self._new_view()
        if self._full:
            self._set_mouse(options.mouse)
        self.refresh()

    def ring(self) -> None:
        """Ring the bell."""
        self._write("\a")

    def notify(self, title: str, text: str) -> None:
        """Show a notification on the desktop."""
        title, text = (safe(part)[:NOTIFICATION_CHARACTERS] for part in (title, text))
        if self._options.notify == "osc9":
            self._write(f"\x1b]9;{title}: {text}{_END}")
        elif self._options.notify == "osc777":
            # A semicolon would end the title.
            self._write(f"\x1b]777;notify;{title.replace(';', ',')};{text}{_END}")

    def leave_screen(self) -> None:
        """Go back to the ordinary screen: what is shown from now on stays there."""
        self._clear_prompt()
        self._leave_full()
        self._left = True

    def close(self) -> None:
        """Give the terminal back as it was."""
        if self._paint_timer is not None:
            self._paint_timer.cancel()
        self._loop.on_readable(self._in, None)
        self._give_terminal_back()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        while self._unwritten and time.monotonic() < deadline:
            select.select([], [self._out], [], 0.05)
            self._flush()
        self._loop.on_writable(self._out, None)
        os.close(self._out)

    # Input.

    @property
    def _editor(self) -> Editor:
        return self._answer if self._session.asking else self._draft

    def _read(self) -> None:
        try:
            data = os.read(self._in, READ_BYTES)
        except OSError:
            # The terminal is gone.
            data = b""
        if not data:
            self._loop.on_readable(self._in, None)
            self._handle(InputEnded())
            return
        self._handle_keys(self._keys.feed(data, self._loop.now()))

    def _keys_expired(self) -> None:
        self._handle_keys(self._keys.expire(self._loop.now()))

    def _handle_keys(self, events: list[KeyEvent]) -> None:
        for event in events:
            editor = self._editor
            before = editor.text
            for action in editor.handle(event):
                self._act(action)
            if editor is self._draft and editor.text != before:
                self._session.conversation.typed(editor.text)
        if self._key_timer is not None:
            self._key_timer.cancel()
        deadline = self._keys.deadline
        self._key_timer = None if deadline is None else self._loop.call_at(deadline, self._keys_expired)
        self._save_history()
        draft = self._session.conversation.draft
        if draft is not None:
            self._session.conversation.draft = None
            self._draft.put(draft)
        self.refresh()

    def _act(self, action: Action) -> None:
        match action:
            case Submitted(text, literal):
                if self._session.asking:
                    self._print_answer(text)
                elif self._full:
                    self._view.to_bottom(self._session.conversation.current)
                self._handle(LineEntered(text, literal))
            case Requested("interrupt"):
                self._handle(Interrupted())
            case Requested("end"):
                self._handle(InputEnded())
            case Requested("cancel"):
                self._handle(Cancelled())
            case Requested("suspend"):
                self._suspend()
            case Requested("redraw"):
                self._frame = None
            case Requested(what) if self._session.is_online:
                self._move(what)

    def _move(self, what: str) -> None:
        talk = self._session.conversation
        rows = {
            "page-up": self._view.page(),
            "page-down": -self._view.page(),
            "wheel-up": WHEEL_ROWS,
            "wheel-down": -WHEEL_ROWS,
        }
        match what:
            case "top":
                self._view.to_top(self._session)
            case "bottom":
                self._view.to_bottom(talk.current)
            case "next-room":
                talk.select_next(1)
            case "previous-room":
                talk.select_next(-1)
            case "active-room":
                talk.select_active()
            case _ if what in rows:
                self._view.scroll(self._session, rows[what])
            case _ if what.startswith("room-"):
                talk.select_number(int(what.removeprefix("room-")) or 10)

    def _save_history(self) -> None:
        lines = self._draft.take_unsaved()
        if self._history is None:
            return
        try:
            for line in lines:
                self._history.append(line)
        except OSError as error:
            self._history = None
            self._session.conversation.history_failed(str(error))

    def _people_arrived(self) -> None:
        self._draft.completions_arrived()
        self.refresh()

    # Output.

    def _paint_now(self) -> None:
        self._paint_timer = None
        if self._unwritten:
            # Painted when the terminal has taken what it was sent.
            return
        self._painted_at = self._loop.now()
        if self._session.is_online and not self._left:
            self._enter_full()
            self._paint_frame()
        elif not self._left:
            self._paint_prompt()

    def _paint_frame(self) -> None:
        frame = self._view.frame(self._session, self._editor, date.today())
        out = [
            f"\x1b[{row + 1};1H\x1b[2K{paint(frame.rows[row])}"
            for row in changed_rows(self._frame, frame)
            if row != frame.cursor_row
        ]
        behind = row_text(frame.rows[frame.cursor_row])[len(row_text(frame.before_cursor)) :]
        out.append(f"\x1b[{frame.cursor_row + 1};1H\x1b[2K{paint(frame.before_cursor)}{_SAVE}")
        out.append(paint((Span("", behind),)) + _RESTORE)
        self._frame = frame
        self._write("".join([_FRAME_BEGINS, *out, _FRAME_ENDS]))
        self._show_title(frame.title)

    def _paint_prompt(self) -> None:
        before, behind = self._view.single_row(self._session, self._editor)
        self._prompt_shown = True
        self._write(f"\r\x1b[2K{paint(before)}{_SAVE}{paint(behind)}{_RESTORE}")

    def _clear_prompt(self) -> None:
        if self._prompt_shown and not self._full:
            self._write("\r\x1b[2K")
            self._prompt_shown = False

    def _print(self, line: str) -> None:
        """A line of the ordinary screen, above the prompt."""
        self._clear_prompt()
        self._write(f"{line}\r\n")

    def _print_answer(self, text: str) -> None:
        if not self._full:
            shown = "" if self._session.hidden else safe(text)
            self._print(f"{safe(self._session.prompt + '|')[:-1]}{shown}")

    def _show_title(self, title: str) -> None:
        if self._osc and self._options.title and title != self._title:
            if not self._title:
                self._write(_SAVE_TITLE)
            self._title = title
            self._write(f"\x1b]2;{title}{_END}")

    def _write(self, text: str) -> None:
        self._unwritten += text.encode("utf-8", "replace")
        self._flush()

    def _flush(self) -> None:
        try:
            while self._unwritten:
                # Of a terminal that can make this program wait, no more is asked than it takes for certain.
                if self._can_wait and not select.select([], [self._out], [], 0)[1]:
                    break
                sent = os.write(self._out, self._unwritten[: 512 if self._can_wait else len(self._unwritten)])
                del self._unwritten[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._unwritten.clear()
            self._loop.call_soon(lambda: self._handle(OutputClosed()))
        self._loop.on_writable(self._out, self._written if self._unwritten else None)

    def _written(self) -> None:
        self._flush()
        if not self._unwritten:
            self.refresh()

    # The terminal.

    def _look(self) -> Look:
        return look_of(
            self._options,
            self._colours,
            colour=self._colour,
            links=self._osc,
            columns=self._size[0],
        )

    def _new_view(self) -> None:
        page = self._view.page()
        self._view = View(self._look(), *self._size)
        self._view.remember_page(page)
        self._frame = None

    def _resized(self) -> None:
        self._size = _size(self._out)
        self._new_view()
        if self._full:
            # Some terminals keep what no longer has room.
            self._write("\x1b[2J")
        self.refresh()

    def _take_terminal(self) -> None:
        raw = termios.tcgetattr(self._in)
        raw[0] &= ~(termios.ICRNL | termios.INLCR | termios.IXON | termios.ISTRIP)
        raw[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._in, termios.TCSANOW, raw)
        self._is_raw = True
        self._write(_PASTES_ON)
        self._frame = None
        self.refresh()

    def _give_terminal_back(self) -> None:
        if not self._is_raw:
            return
        self._leave_full()
        self._write(_PASTES_OFF)
        if self._prompt_shown:
            # The shell's prompt begins on a new line.
            self._write("\r\n")
            self._prompt_shown = False
        self._is_raw = False
        try:
            termios.tcsetattr(self._in, termios.TCSANOW, self._settings)
        except termios.error:
            # The terminal is gone.
            pass

    def _enter_full(self) -> None:
        if not self._full:
            self._clear_prompt()
            self._full, self._frame = True, None
            self._write(_ENTER)
            self._set_mouse(self._options.mouse)

    def _leave_full(self) -> None:
        if self._full:
            self._set_mouse(False)
            if self._title:
                self._title = ""
                self._write(_RESTORE_TITLE)
            self._full = False
            self._write(_LEAVE)

    def _set_mouse(self, on: bool) -> None:
        if on is not self._mouse:
            self._mouse = on
            self._write(_MOUSE_ON if on else _MOUSE_OFF)

    def _suspend(self) -> None:
        """Stop this program as Ctrl-Z stops others; it goes on here when it is continued."""
        self._give_terminal_back()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        while self._unwritten and time.monotonic() < deadline:
            select.select([], [self._out], [], 0.05)
            self._flush()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(0, signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, ours)

    def _continued(self) -> None:
        self._size = _size(self._out)
        self._new_view()
        self._full = False
        self._take_terminal()
        self._handle(Resumed())


def _own_output() -> tuple[int, bool]:
    """A descriptor for the terminal that does not block, and whether it can make this program wait all the same.

    Opened anew, because a descriptor that is shared with other programs must not be changed.
    """
    stdout = sys.stdout.fileno()
    try:
        return os.open(os.ttyname(stdout), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY), False
    except OSError:
        return os.dup(stdout), True


def _size(descriptor: int) -> tuple[int, int]:
    """Columns and lines of the terminal."""
    try:
        columns, lines = os.get_terminal_size(descriptor)
    except OSError:
        columns, lines = 0, 0
    return columns or 80, lines or 24
