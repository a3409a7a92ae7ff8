"""A terminal with prompt_toolkit: an input line that stays intact while output appears above it.

The only module that imports prompt_toolkit.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from types import NoneType

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.vt100 import Vt100_Output

from geventchat.client import render
from geventchat.client.history import HistoryFile, has_secret
from geventchat.client.input import completions, split_lines
from geventchat.client.render import Line
from geventchat.client.terminal import InputEnded, Interrupted, LineEntered, SessionView, TerminalHandler


class Screen:
    """A person's terminal."""

    interactive = True
    echoes_input = False

    def __init__(
        self, handle: TerminalHandler, *, bell: bool, colour: bool, history: HistoryFile | None
    ) -> None:
        self._handle = handle
        self._bell = bell
        self._colour = colour
        self._history = history
        self._output = Vt100_Output.from_pty(sys.stdout, term=os.environ.get("TERM"))
        # A terminal that is asked for its cursor's position answers in the middle of the input, and a late answer
        # misplaces the input line. Nothing here needs the position.
        self._output.enable_cpr = False
        self._pending: list[str] = []
        self._view: SessionView
        self._prompt: PromptSession[str]
        self._running: asyncio.Task[str] | None = None

    def open(self, view: SessionView) -> None:
        self._view = view
        self._prompt = PromptSession(
            message=lambda: view.prompt,
            output=self._output,
            history=_History(self._history, view),
            completer=_Completer(view),
            complete_while_typing=False,
            key_bindings=self._key_bindings(),
            erase_when_done=True,
        )
        # One prompt for the whole session: between two prompts, keys would be lost.
        self._prompt.default_buffer.accept_handler = self._accept
        self._running = asyncio.get_running_loop().create_task(self._prompt.prompt_async())
        self._running.add_done_callback(lambda _: self._handle(InputEnded()))

    def ask(self) -> None:
        self._prompt.app.invalidate()

    def request_line(self) -> None:
        """Do nothing: people type slower than servers read."""

    def show(self, line: Line) -> None:
        self._print(render.paint(line, colour=self._colour))

    def show_error(self, text: str) -> None:
        self.show(render.error(text))

    def ring(self) -> None:
        if self._bell:
            self._output.bell()
            self._output.flush()

    def end_input_line(self) -> None:
        """Do nothing: the input line handles Ctrl-C itself."""

    async def close(self) -> None:
        self._flush()
        if self._running is None:
            return
        if self._prompt.app.is_running:
            self._prompt.app.exit(result="")
        else:
            self._running.cancel()
        await asyncio.wait({self._running})
        if not self._running.cancelled() and not isinstance(self._running.exception(), EOFError | NoneType):
            # A bug, not a closed terminal: do not exit as if all were well.
            self._running.result()

    def _print(self, text: str) -> None:
        if not self._pending:
            # All lines of one iteration of the loop redraw the input line once.
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.append(text)

    def _flush(self) -> None:
        # prompt_toolkit's patch_stdout would put the terminal into cooked mode for each write, and the keys pressed at that
        # moment would be echoed into the output.
        if not self._pending:
            return
        text = "".join([f"{line}\r\n" for line in self._pending])
        self._pending.clear()
        app = self._prompt.app if self._running is not None and self._prompt.app.is_running else None
        if app is not None:
            app.renderer.erase()
        self._output.write_raw(text)
        self._output.flush()
        if app is not None:
            app.renderer.reset()
            app.renderer.render(app, app.layout)

    def _accept(self, buffer: Buffer) -> bool:
        """Handle the input; True leaves it where it is."""
        if not self._view.accepts(buffer.text):
            return True
        if self._view.asking:
            self._print(f"{self._view.prompt}{render.safe(buffer.text)}")
        for line in split_lines(buffer.text):
            self._handle(LineEntered(line))
        return False

    def _key_bindings(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("c-c")
        @keys.add("<sigint>")
        def _(event: KeyPressEvent) -> None:
            self._handle(Interrupted())

        @keys.add("c-d", filter=Condition(lambda: not self._prompt.default_buffer.text))
        def _(event: KeyPressEvent) -> None:
            self._handle(InputEnded())

        @keys.add("tab")
        def _(event: KeyPressEvent) -> None:
            _complete(event.current_buffer, self._view)

        return keys


def _complete(buffer: Buffer, view: SessionView) -> None:
    if view.asking:
        return
    if buffer.complete_state is not None:
        buffer.complete_next()
        return
    word, words = completions(buffer.document.text_before_cursor, view.others)
    if len(words) == 1:
        # Inserted at once, because people type on after Tab without waiting for a menu.
        buffer.delete_before_cursor(len(word))
        buffer.insert_text(words[0])
    else:
        buffer.start_completion(insert_common_part=True)


class _History(History):
    """The history file as prompt_toolkit wants it. Answers to questions and passwords are not kept."""

    def __init__(self, file: HistoryFile | None, view: SessionView) -> None:
        super().__init__()
        self._file = file
        self._view = view

    def load_history_strings(self) -> Iterable[str]:
        return reversed(self._file.lines()) if self._file is not None else ()

    def append_string(self, string: str) -> None:
        if not self._view.asking and not any(map(has_secret, split_lines(string))):
            super().append_string(string)

    def store_string(self, string: str) -> None:
        if self._file is not None:
            for line in split_lines(string):
                self._file.append(line)


class _Completer(Completer):
    """The completions as prompt_toolkit wants them."""

    def __init__(self, view: SessionView) -> None:
        self._view = view

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        word, words = completions(document.text_before_cursor, self._view.others)
        for completion in words:
            yield Completion(completion, start_position=-len(word), display=completion.strip())
