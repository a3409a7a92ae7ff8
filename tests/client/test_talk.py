"""The pace of a script: what is under way stays small, whatever the server's pace is."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from geventchat.client.conversation import Clock, Conversation
from geventchat.client.exits import Ended, Exit
from geventchat.client.inbox import Inbox
from geventchat.client.line_speech import LineSpeech
from geventchat.client.link import Link
from geventchat.client.notes import Note
from geventchat.client.talk import LINES_FOR_A_PING, PINGS_UNDER_WAY, Talk
from geventchat.client.terminal import InputEnded, Scene, Typed


class FakePipe:
    """A script's end: more lines than anyone can take, each given only when it is wanted."""

    has_person = False
    keeps_typed_lines = False

    def __init__(self, inbox: Inbox, lines: int) -> None:
        self.given = 0
        self.shown: list[Note] = []
        self._inbox = inbox
        self._lines = lines

    async def ask(self, question: str) -> str:
        raise AssertionError(f"nobody is here to be asked {question}")

    def open(self, scene: Scene) -> None:
        self.next_line()

    def next_line(self) -> None:
        if self.given == self._lines:
            self._inbox.put(InputEnded())
        else:
            self.given += 1
            self._inbox.put(Typed(f"line {self.given}"))

    def show(self, note: Note) -> None:
        self.shown.append(note)

    def ring(self) -> None:
        raise AssertionError("nobody was mentioned")

    def interrupted(self) -> None:
        raise AssertionError("nobody pressed a key")

    async def close(self) -> None:
        pass


class SlowServer(asyncio.Transport):
    """Takes everything and answers nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.lines += bytes(data).splitlines()

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


async def until_quiet(server: SlowServer) -> None:
    """Let the talk deal with all that has happened: nothing more is sent, however often the loop turns."""
    quiet_turns, sent = 0, len(server.lines)
    while quiet_turns < 50:
        await asyncio.sleep(0)
        quiet_turns = quiet_turns + 1 if len(server.lines) == sent else 0
        sent = len(server.lines)


async def a_slow_evening(lines: int) -> tuple[list[int], list[bytes], int]:
    inbox = Inbox()
    pipe = FakePipe(inbox, lines)
    link, server, speech = Link(inbox.put), SlowServer(), LineSpeech()
    link.connection_made(server)
    conversation = Conversation(speech, "ci", Clock(datetime.now, lambda: 0.0), shows_own=True)
    talking = asyncio.ensure_future(Talk(link, speech, conversation, pipe, inbox, None).run(None))
    pipe.next_line()
    given: list[int] = []
    answered = 0
    while b"QUIT" not in server.lines:
        await until_quiet(server)
        given.append(pipe.given)
        if server.lines.count(b"PING") == answered:
            break
        answered += 1
        link.data_received(b"PONG\n")
    await until_quiet(server)
    assert server.lines[-1] == b"QUIT"
    link.data_received(b"Goodbye!\n")
    link.connection_lost(None)
    with pytest.raises(Ended) as ended:
        await talking
    return given, server.lines, ended.value.exit_code


def test_a_script_waits_for_a_server_that_does_not_answer() -> None:
    window = LINES_FOR_A_PING * PINGS_UNDER_WAY
    lines = LINES_FOR_A_PING * 4
    given, sent, exit_code = asyncio.run(a_slow_evening(lines))
    # Each answered ping brings the next few lines, and not one more.
    assert given[:3] == [window, window + LINES_FOR_A_PING, window + 2 * LINES_FOR_A_PING]
    assert [line for line in sent if line.startswith(b"MSG")] == [
        b"MSG line %d" % (n + 1) for n in range(lines)
    ]
    assert exit_code == Exit.LEFT
