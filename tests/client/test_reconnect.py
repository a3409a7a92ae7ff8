"""The client in a real terminal, connected to servers that refuse, hang up or do not answer."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from tests.client.scripted_server import Script, ScriptedServer

if TYPE_CHECKING:
    from tests.client.pty_program import PtyProgram

Open = Callable[..., "PtyProgram"]
StartScripted = Callable[..., ScriptedServer]


def refuse_login(answer: bytes) -> Script:
    """A server that answers a login with this and waits for the client to hang up."""

    def script(client: socket.socket, lines: BinaryIO) -> None:
        assert lines.readline().startswith(b"LOGIN ")
        client.sendall(answer)
        assert lines.readline() == b""

    return script


def serve(*, until: bytes, received: list[bytes] | None = None) -> Script:
    """A server that answers every command, and hangs up behind this line."""

    def script(client: socket.socket, lines: BinaryIO) -> None:
        for line in lines:
            if received is not None:
                received.append(line)
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

    return script


def test_a_name_that_the_server_still_holds_is_waited_for(
    scripted_server: StartScripted, terminal: Open
) -> None:
    server = scripted_server(
        serve(until=b"MSG hang up\n"), refuse_login(b"ERR username-taken\n"), serve(until=b"QUIT\n")
    )
    alice = terminal(server.address, "--name", "alice")
    alice.expect(" here: ")
    alice.type("hang up\r")
    alice.expect("The name alice is still in use on the server. Reconnecting in 1 s.")
    alice.expect("✅ Reconnected as alice.")
    alice.type("/q\r")
    assert alice.exit_code() == 0


def test_a_name_that_the_server_no_longer_allows_ends_the_session(
    scripted_server: StartScripted, terminal: Open
) -> None:
    server = scripted_server(serve(until=b"MSG hang up\n"), refuse_login(b"ERR invalid-username\n"))
    alice = terminal(server.address, "--name", "alice")
    alice.expect(" here: ")
    alice.type("hang up\r")
    alice.expect("❌ The server does not allow the name alice.")
    assert alice.exit_code() == 1


def test_a_server_that_hangs_up_during_a_question_is_connected_to_again(
    scripted_server: StartScripted, terminal: Open
) -> None:
    def refuse_and_hang_up(client: socket.socket, lines: BinaryIO) -> None:
        lines.readline()
        client.sendall(b"ERR username-taken\n")

    received: list[bytes] = []
    server = scripted_server(refuse_and_hang_up, serve(until=b"QUIT\n", received=received))
    alice = terminal(server.address, "--name", "alice")
    alice.expect("❌ The name alice is taken.")
    alice.expect_at_cursor("Enter your username:")
    alice.type("bob\r")
    alice.expect("Welcome to the chat, bob!")
    alice.type("/q\r")
    assert alice.exit_code() == 0
    assert received[0] == b"LOGIN bob\n"


def test_ctrl_c_ends_the_wait_for_a_goodbye(scripted_server: StartScripted, terminal: Open) -> None:
    def answer_nothing_but_the_login(client: socket.socket, lines: BinaryIO) -> None:
        for line in lines:
            if line.startswith(b"LOGIN "):
                client.sendall(b"OK\n")

    alice = terminal(scripted_server(answer_nothing_but_the_login).address, "--name", "alice")
    alice.expect("Welcome to the chat, alice!")
    alice.type("/q\r")
    alice.type("\x03")
    assert alice.exit_code() == 0
    assert alice.lines()[-1].endswith("👋 Goodbye, alice!")
