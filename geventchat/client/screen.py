"""The terminal with prompt_toolkit: an input line that stays whole while notes appear above it.

The only module that imports prompt_toolkit. Knows no dialect and no connection.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import NoneType

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.vt100 import Vt100_Output

from geventchat.client.cleaning import clean
from geventchat.client.completing import candidates
from geventchat.client.history import HistoryFile
from geventchat.client.notes import Note
from geventchat.client.rendering import Look, render
from geventchat.client.terminal import InputEnded, Interrupted, Scene, Sink, Typed, WalkedOut
from geventchat.client.words import split_lines


@dataclass(frozen=True, slots=True)
class ScreenManners:
    """How the terminal behaves."""

    bell: bool
    look: Look
    history: HistoryFile | None


class Screen:
    """A person's terminal."""

    has_person = True
    keeps_typed_lines = False

    def __init__(self, sink: Sink, manners: ScreenManners) -> None:
        self._sink = sink
        self._manners = manners
        self._output = Vt100_Output.from_pty(sys.stdout, term=os.environ.get("TERM"))
        # A terminal that is asked where its cursor is answers into what is being typed, and a late answer
        # misplaces the input line. Nothing here needs to know.
        self._output.enable_cpr = False
        self._pending: list[str] = []
        self._prompt: PromptSession[str] | None = None
        self._running: asyncio.Task[str] | None = None

    async def ask(self, question: str) -> str:
        self._flush()
        asking: PromptSession[str] = PromptSession(output=self._output, key_bindings=_walking_out())
        return await asking.prompt_async(question)

    def open(self, scene: Scene) -> None:
        prompt: PromptSession[str] = PromptSession(
            message=lambda: f"{clean(scene.name())}> ",
            output=self._output,
            history=_PromptHistory(self._manners.history),
            completer=_PromptCompleter(scene),
            complete_while_typing=False,
            key_bindings=self._keys(scene),
            erase_when_done=True,
        )
        # One prompt for the whole session: were it to end with each line, keys in between would be lost.
        prompt.default_buffer.accept_handler = lambda buffer: self._accept(buffer, scene)
        self._prompt = prompt
        self._running = asyncio.ensure_future(prompt.prompt_async())
        self._running.add_done_callback(lambda _: self._sink(InputEnded()))

    def next_line(self) -> None:
        """Lines come as they are typed; nobody is faster than the server."""

    def show(self, note: Note) -> None:
        if not self._pending:
            # All that is shown in one turn of the loop is one redrawing of the input line.
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.append(render(note, self._manners.look))

    def ring(self) -> None:
        if self._manners.bell:
            self._output.bell()
            self._output.flush()

    def interrupted(self) -> None:
        """A prompt sees Ctrl-C itself; without one there is nothing on the line that would need an end."""

    async def close(self) -> None:
        self._flush()
        if self._prompt is not None and self._running is not None and not self._running.done():
            if self._prompt.app.is_running:
                self._prompt.app.exit(result="")
            await asyncio.wait({self._running})
        self._prompt = None
        if self._running is not None and not isinstance(self._running.exception(), EOFError | NoneType):
            # Ended by a fault of ours, not by a terminal that went away: it must not pass for a quiet exit.
            self._running.result()

    def _flush(self) -> None:
        if not self._pending:
            return
        text = "".join(f"{shown}\n" for shown in self._pending).replace("\n", "\r\n")
        self._pending.clear()
        app = None if self._prompt is None or not self._prompt.app.is_running else self._prompt.app
        if app is not None:
            app.renderer.erase()
        self._output.write_raw(text)
        self._output.flush()
        if app is not None:
            app.renderer.reset()
            app.renderer.render(app, app.layout)

    def _accept(self, buffer: Buffer, scene: Scene) -> bool:
        """Take the line; true leaves it where it is."""
        if not scene.takes(buffer.text):
            return True
        for line in split_lines(buffer.text):
            self._sink(Typed(line))
        return False

    def _keys(self, scene: Scene) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("c-c")
        @keys.add("<sigint>")
        def _(event: KeyPressEvent) -> None:
            self._sink(Interrupted())

        @keys.add(
            "c-d", filter=Condition(lambda: self._prompt is not None and not self._prompt.default_buffer.text)
        )
        def _(event: KeyPressEvent) -> None:
            self._sink(InputEnded())

        @keys.add("tab")
        def _(event: KeyPressEvent) -> None:
            _complete(event.current_buffer, scene)

        return keys


def _complete(buffer: Buffer, scene: Scene) -> None:
    if buffer.complete_state is not None:
        buffer.complete_next()
        return
    word, words = candidates(buffer.document.text_before_cursor, scene.people())
    if len(words) == 1:
        # At once, not when the menu would be ready: whoever types on behind the Tab must not be faster.
        buffer.delete_before_cursor(len(word))
        buffer.insert_text(words[0])
    else:
        buffer.start_completion(insert_common_part=True)


class _PromptHistory(History):
    """The history file as prompt_toolkit wants it."""

    def __init__(self, file: HistoryFile | None) -> None:
        super().__init__()
        self._file = file

    def load_history_strings(self) -> Iterable[str]:
        return reversed(self._file.lines()) if self._file is not None else ()

    def store_string(self, string: str) -> None:
        if self._file is not None:
            for line in split_lines(string):
                self._file.append(line)


class _PromptCompleter(Completer):
    """The candidates as prompt_toolkit wants them."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        word, words = candidates(document.text_before_cursor, self._scene.people())
        for candidate in words:
            yield Completion(candidate, start_position=-len(word), display=candidate.strip())


def _walking_out() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        event.app.exit(exception=WalkedOut(interrupted=True))

    @keys.add("c-d")
    def _(event: KeyPressEvent) -> None:
        event.app.exit(exception=WalkedOut(interrupted=False))

    return keys
