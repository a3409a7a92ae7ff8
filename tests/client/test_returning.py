"""Doors that open late, or not at all: servers whose every word is the test's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import BinaryIO

import pytest

from geventchat.client import arriving
from geventchat.client.address import Address
from geventchat.client.arriving import Login, TurnedAway, log_in
from geventchat.client.inbox import Inbox
from geventchat.client.line_speech import LineSpeech
from geventchat.client.link import connect
from geventchat.client.speech import Dialect
from tests.client.pty_program import PtyProgram
from tests.client.scripted_server import Behave, ScriptedServer

Open = Callable[..., PtyProgram]
Script = Callable[..., ScriptedServer]


def refuses(answer: bytes) -> Behave:
    """A server that answers a login with this and waits for the client to hang up."""

    def behave(client: socket.socket, lines: BinaryIO) -> None:
        assert lines.readline().startswith(b"LOGIN ")
        client.sendall(answer)
        assert lines.readline() == b""

    return behave


def talks(*, until: bytes, said: list[bytes] | None = None) -> Behave:
    """A server that lets in, answers questions, and hangs up at this line, or after its goodbye at QUIT."""

    def behave(client: socket.socket, lines: BinaryIO) -> None:
        for line in lines:
            if said is not None:
                said.append(line)
            if line.startswith(b"LOGIN "):
                client.sendall(b"OK\n")
            elif line == b"WHO\n":
                client.sendall(b"USER alice\n")
            elif line.startswith(b"PING"):
                client.sendall(line.replace(b"PING", b"PONG"))
            elif line == b"QUIT\n":
                client.sendall(b"Goodbye!\n")
            if line == until:
                return

    return behave


def test_a_name_that_is_still_held_is_waited_for(script: Script, terminal: Open) -> None:
    server = script(
        talks(until=b"MSG lose me\n"),
        refuses(b"ERR username-taken\n"),
        talks(until=b"QUIT\n"),
    )
    alice = terminal(server.address, "--name", "alice")
    alice.sees(" here: ")
    alice.type("lose me\r")
    alice.sees("The name alice is still in use on the server. Reconnecting in 1 s.")
    alice.sees("✅ Reconnected as alice.")
    alice.type("/q\r")
    assert alice.exit_code() == 0


def test_a_full_server_is_tried_again(script: Script, terminal: Open) -> None:
    def full(client: socket.socket, lines: BinaryIO) -> None:
        lines.readline()
        client.sendall(b"ERR server-full\n")

    server = script(talks(until=b"MSG lose me\n"), full, talks(until=b"QUIT\n"))
    alice = terminal(server.address, "--name", "alice")
    alice.sees(" here: ")
    alice.type("lose me\r")
    alice.sees("Login failed: the server is full. Reconnecting in 1 s.")
    alice.sees("✅ Reconnected as alice.")
    alice.type("/q\r")
    assert alice.exit_code() == 0


def test_a_server_that_does_not_want_the_name_any_more_ends_the_visit(script: Script, terminal: Open) -> None:
    server = script(talks(until=b"MSG lose me\n"), refuses(b"ERR invalid-username\n"))
    alice = terminal(server.address, "--name", "alice")
    alice.sees(" here: ")
    alice.type("lose me\r")
    alice.sees("❌ The server does not allow the name alice.")
    assert alice.exit_code() == 1


def test_a_server_that_hangs_up_at_the_question_is_called_again(script: Script, terminal: Open) -> None:
    def impatient(client: socket.socket, lines: BinaryIO) -> None:
        lines.readline()
        client.sendall(b"ERR username-taken\n")

    said: list[bytes] = []
    server = script(impatient, talks(until=b"QUIT\n", said=said))
    alice = terminal(server.address, "--name", "alice")
    alice.sees("❌ The name alice is taken")
    alice.has_at_cursor("Enter your username:")
    alice.type("bob\r")
    alice.sees("Welcome to the chat, bob!")
    alice.type("/q\r")
    assert alice.exit_code() == 0
    assert said[0] == b"LOGIN bob\n"


def test_a_server_that_never_says_goodbye_is_left_all_the_same(script: Script, terminal: Open) -> None:
    def mute(client: socket.socket, lines: BinaryIO) -> None:
        for line in lines:
            if line.startswith(b"LOGIN "):
                client.sendall(b"OK\n")

    alice = terminal(script(mute).address, "--name", "alice")
    alice.sees("Welcome to the chat, alice!")
    alice.type("/q\r")
    # The second wish to leave is not kept waiting.
    alice.type("\x03")
    assert alice.exit_code() == 0
    assert alice.lines()[-1].endswith("👋 Goodbye, alice!")


def test_a_login_that_is_never_answered_is_given_up(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "LOGIN_WITHIN_S", 0.05)
    server = script(refuses(b"220 ready\n"))
    host, port = server.address.split(":")

    async def come() -> None:
        inbox = Inbox()
        link = await connect(Address(host, int(port)), inbox.put)
        try:
            await log_in(link, LineSpeech(), Login(Dialect.LINE, "alice"), inbox, lambda _: None)
        finally:
            await link.close(1.0)

    with pytest.raises(TurnedAway, match=r"No answer to the login within 0 s\."):
        asyncio.run(come())
