"""The client in a real terminal, connected to servers that stop, hang, refuse or do not answer."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest

from tests.client.raw_client import RawClient
from tests.client.real_server import ROOT, RealServer, client_argv
from tests.client.scripted_server import ScriptedServer
from tests.patience import HANG_S, killed_at_the_end

if TYPE_CHECKING:
    from tests.client.pty_program import PtyProgram

Open = Callable[..., "PtyProgram"]
StartServer = Callable[..., RealServer]
StartScripted = Callable[..., ScriptedServer]


def test_what_was_typed_while_the_server_hung_is_said_once(
    server: RealServer, terminal: Open, environment: dict[str, str]
) -> None:
    """SIGSTOP, a message, then SIGCONT; SIGSTOP, a message, then SIGKILL, a message, and another server."""
    config = Path(environment["HOME"], ".config", "geventchat", "client.toml")
    config.parent.mkdir(parents=True)
    config.write_text("reconnect-after = 5\n")
    alice = terminal(server.at("json"), "--name", "alice")
    alice.expect_at_cursor("alice>")
    alice.expect("1 here: alice")
    server.signal(signal.SIGSTOP)
    alice.type("while it hung\r")
    alice.expect("… alice: while it hung")
    server.signal(signal.SIGCONT)
    alice.expect("] alice: while it hung")
    server.signal(signal.SIGSTOP)
    alice.type("before it died\r")
    alice.expect("… alice: before it died")
    alice.wait_for(
        lambda: any("no answer for" in line and line.endswith("1 not confirmed") for line in alice.lines()),
        "in the status bar for how long the server has not answered",
    )
    alice.expect("no answer for 5 s. ")
    server.kill()
    alice.type("while it was dead\r")
    alice.expect("… alice: while it was dead")
    server.start()
    alice.expect("✅ Reconnected as alice")
    alice.expect("] alice: while it was dead")
    carol = RawClient(server.host, server.ports["line"], "carol")
    carol.send("HISTORY")
    carol.expect_end("OK", 2)
    carol.close()
    said = [line.split(" ", 4)[4] for line in carol.received.decode().splitlines() if line.startswith("HIST")]
    assert said == ["before it died", "while it was dead"]
    # One line says what happened, however many attempts failed.
    assert sum("🔌" in line for line in alice.lines()) == 1


def test_someone_who_only_reads_stays_while_someone_who_is_not_kept_alive_goes(
    start_server: StartServer, terminal: Open, environment: dict[str, str]
) -> None:
    """In a terminal and in a pipe, with a server that disconnects idle clients after four seconds."""
    server = start_server("--idle-timeout=4")
    alice = terminal(server.at("json"), "--name", "alice", "--keep-alive=1")
    alice.expect("1 here: alice")
    argv = client_argv([server.at("line"), "--name", "ci", "--keep-alive=1"])
    script = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, cwd=ROOT
    )
    with killed_at_the_end(script):
        alice.expect("🟢 ci joined the room")
        bob = terminal(server.at("line"), "--name", "bob", "--no-keep-alive")
        bob.expect("the server disconnected you for being idle. Press Enter to reconnect.")
        # Both have been idle for longer than bob.
        alice.type("still here\r")
        alice.expect("] alice: still here")
        assert not any("🔌" in line or "🔴 ci" in line for line in alice.lines())
        script.communicate(b"so am I\n", timeout=HANG_S)
        assert script.returncode == 0
        alice.expect("] ci: so am I")


def test_a_server_shutdown_is_reported(server: RealServer, terminal: Open) -> None:
    alice = terminal(server.at("line"), "--name", "alice")
    alice.expect(" here: alice")
    server.stop()
    alice.expect("the server is shutting down.")
    alice.type("/quit\r")
    assert alice.exit_code() == 0
    alice.expect("👋 Goodbye, alice!")


def test_the_plain_mode_restores_a_lost_connection(server: RealServer, terminal: Open) -> None:
    alice = terminal(server.at("line"), "--name", "alice", "--plain")
    alice.expect(" here: alice")
    server.kill()
    alice.expect("🔌 Lost the connection to")
    alice.type("anyone?\n")
    server.start()
    alice.expect("✅ Reconnected as alice")
    carol = RawClient(server.host, server.ports["line"], "carol")
    carol.send("HISTORY")
    carol.expect_end("OK", 2)
    carol.close()
    assert b" alice anyone?\n" in carol.received


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


def test_a_question_in_the_middle_of_typing_leaves_the_typing_whole(
    scripted_server: StartScripted, terminal: Open
) -> None:
    typed = threading.Event()

    def hang_up(client: socket.socket, lines: BinaryIO) -> None:
        lines.readline()
        client.sendall(b"OK\n")
        assert typed.wait(HANG_S)

    def ask_for_the_password(client: socket.socket, lines: BinaryIO) -> None:
        lines.readline()
        client.sendall(b"ERR password-required\n")
        assert lines.readline() == b"LOGIN alice correct horse\n"
        client.sendall(b"OK\n")
        said = next(line for line in lines if line.startswith(b"MSG"))
        assert said == b"MSG half a sentence\n"

    alice = terminal(scripted_server(hang_up, ask_for_the_password).address, "--name", "alice")
    alice.expect("Welcome to the chat, alice!")
    alice.type("half a sen")
    alice.expect_at_cursor("alice> half a sen")
    typed.set()
    alice.expect_at_cursor("Password for alice (empty: another name):")
    alice.type("correct horse\r")
    alice.expect_at_cursor("alice> half a sen")
    alice.type("tence\r")
    alice.expect("alice: half a sentence")


HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b2J\u202egnp.exe\r\x08hidden"
HARMLESS = "\ufffd]0;owned\ufffd\ufffd[31mred\ufffd2J\ufffdgnp.exe\ufffd\ufffdhidden"


def hostile_server(client: socket.socket, lines: BinaryIO) -> None:
    lines.readline()
    client.sendall(b"OK\n")
    for word in ("MSG", "DM"):
        client.sendall(f"{word} eve {HOSTILE}\n".encode())
    client.sendall(f"INFO e{HOSTILE}ve disconnected\nERR {HOSTILE}\n{HOSTILE}\nUSER {HOSTILE}\n".encode())
    client.sendall(f"TOPIC {HOSTILE}\nMSG {HOSTILE} x\nDM {HOSTILE} x\nMSG eve http://a/{HOSTILE}\n".encode())
    client.sendall(b"MSG eve " + b"z" * 100_000 + b"\nMSG eve the end\n")
    for line in lines:
        if line == b"PING end-of-users\n":
            client.sendall(b"PONG end-of-users\n")
        if line == b"QUIT\n":
            client.sendall(b"Goodbye!\n")
            return


@pytest.mark.parametrize("arguments", [[], ["--plain"]])
def test_nothing_that_a_server_sends_acts_on_the_terminal(
    scripted_server: StartScripted, terminal: Open, arguments: list[str]
) -> None:
    server = scripted_server(hostile_server)
    alice = terminal(
        server.address, "--name", "alice", "--no-bell", *arguments, NO_COLOR="1", rows=80, columns=200
    )
    alice.expect(f"] eve → you: {HARMLESS}")
    alice.expect(f"👥 1 here: {HARMLESS}")
    alice.expect("] eve: the end")
    alice.type("/q\r")
    assert alice.exit_code() == 0
    for forbidden in (b"\x1b]0", b"\x1b[31m", b"\x9b2J", b"\a", b"\x08hidden", "\u202e".encode()):
        assert forbidden not in alice.raw.replace("\ufffd".encode(), b"")
    assert "… (91808 characters more)".encode() in alice.raw
