"""The client in a pipe: lines in a script, and an exit code that can be trusted."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import BinaryIO

import pytest

from geventchat.client.outgoing_queue import MAX_UNDER_WAY
from tests.client.raw_client import RawClient
from tests.client.real_server import ROOT, RealServer, client_argv
from tests.client.scripted_server import ScriptedServer
from tests.patience import HANG_S, killed_at_the_end

Pipe = Callable[..., "subprocess.CompletedProcess[bytes]"]
LogIn = Callable[[str], RawClient]
StartServer = Callable[..., RealServer]
StartScripted = Callable[..., ScriptedServer]

DIALECTS = ("line", "json", "slash")
STAMP = re.compile(rb"\[\d\d:\d\d:\d\d\]")


pytestmark = pytest.mark.usefixtures("free_names")


@pytest.fixture
def server(lasting_server: RealServer) -> RealServer:
    """One server for most tests here: these do not end it."""
    return lasting_server


def running_client(
    server: RealServer, name: str, environment: dict[str, str], stdout: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """A client whose input stays open."""
    return subprocess.Popen(
        client_argv([server.at("line"), "--name", name]),
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=ROOT,
    )


def say_hello(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"hello\n")
    process.stdin.flush()


def printed(output: bytes) -> list[str]:
    """The lines of the output with every time replaced by the same."""
    return STAMP.sub(b"[..:..:..]", output).decode().splitlines()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_line_is_delivered(server: RealServer, pipe: Pipe, raw_client: LogIn, dialect: str) -> None:
    carol = raw_client("carol")
    done = pipe(server.at(dialect), "--name", "ci", stdin=b"deploy done\n")
    carol.expect("MSG ci deploy done")
    carol.expect("INFO ci disconnected")
    assert (done.returncode, printed(done.stdout), done.stderr) == (0, ["[..:..:..] ci: deploy done"], b"")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_closed_standard_stream_is_like_the_null_device(
    server: RealServer, environment: dict[str, str], raw_client: LogIn, closed: tuple[int, ...]
) -> None:
    """As with `<&-` in a shell, or under a supervisor that gives no streams."""
    carol = raw_client("carol")
    close = "import os, sys; [os.close(int(number)) for number in sys.argv[1]]; os.execv(sys.argv[2], sys.argv[2:])"
    client = client_argv([server.at("line"), "--name", "ci"])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", close, "".join(map(str, closed)), *client],
        input=b"deploy done\n",
        capture_output=True,
        env=environment,
        cwd=ROOT,
        timeout=HANG_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert printed(done.stdout) == ([] if {0, 1} & {*closed} else ["[..:..:..] ci: deploy done"])
    if 0 not in closed:
        carol.expect("MSG ci deploy done")
    carol.expect("INFO ci disconnected")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_all_answers_arrive_before_the_end(
    server: RealServer, pipe: Pipe, raw_client: LogIn, dialect: str
) -> None:
    carol = raw_client("carol")
    done = pipe(server.at(dialect), "--name", "ci", stdin=b"/users\r\n/dm carol psst\n/ping\n\nno line end")
    carol.expect("DM ci psst")
    carol.expect("MSG ci no line end")
    assert done.returncode == 0
    assert done.stderr == b""
    lines = printed(done.stdout)
    assert {"👥 2 here: carol, ci", "[..:..:..] you → carol: psst", "[..:..:..] ci: no line end"} <= set(
        lines
    )
    assert sum(line.startswith("🏓 The server answered in ") for line in lines) == 1
    assert len(lines) == 4


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_refused_line_is_on_stderr_and_in_the_exit_code(
    server: RealServer, pipe: Pipe, raw_client: LogIn, dialect: str
) -> None:
    carol = raw_client("carol")
    done = pipe(server.at(dialect), "--name", "ci", stdin=b"/dm zoe hi\nthe rest\n")
    carol.expect("MSG ci the rest")
    assert done.returncode == 1
    assert done.stderr == b"geventchat: No such user. /who lists the people in the room.\n"


def test_a_line_that_is_too_long_for_the_server_is_reported(server: RealServer, pipe: Pipe) -> None:
    done = pipe(server.at("line"), "--name", "ci", stdin=b"x" * 5000 + b"\n")
    assert done.returncode == 1
    assert done.stderr == b"geventchat: The message is too long for the server and was not delivered.\n"


def test_input_that_cannot_be_sent_is_reported_with_its_line_number(
    server: RealServer, pipe: Pipe, raw_client: LogIn
) -> None:
    carol = raw_client("carol")
    done = pipe(server.at("line"), "--name", "ci", stdin=b"one\n\xff\xfe\nthree\n" + b"y" * 2_000_000 + b"\n")
    carol.expect("MSG ci one")
    carol.expect("MSG ci three")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "geventchat: Line 2 of the input is not valid UTF-8 and was not sent.",
        "geventchat: Line 4 of the input is longer than 1048576 bytes and was not sent.",
    ]


def test_a_message_that_begins_with_a_slash_needs_two(
    server: RealServer, pipe: Pipe, raw_client: LogIn
) -> None:
    carol = raw_client("carol")
    assert pipe(server.at("line"), "--name", "ci", stdin=b"//etc/hosts changed\n").returncode == 0
    carol.expect("MSG ci /etc/hosts changed")
    refused = pipe(server.at("slash"), "--name", "ci", stdin=b"//etc/hosts changed\n")
    assert refused.returncode == 1
    assert b"every line that begins with / as a command" in refused.stderr
    mistaken = pipe(server.at("line"), "--name", "ci", stdin=b"/etc/hosts changed\n")
    assert mistaken.returncode == 1
    assert mistaken.stderr.startswith(b"geventchat: Unknown command /etc/hosts. ")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_taken_name_ends_a_script(server: RealServer, pipe: Pipe, raw_client: LogIn, dialect: str) -> None:
    raw_client("ci")
    done = pipe(server.at(dialect), "--name", "ci", stdin=b"hello\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"geventchat: The name ci is taken.\n"


def test_an_invalid_name_ends_a_script_before_it_connects(pipe: Pipe) -> None:
    done = pipe("127.0.0.1:1", "--name", "a b", stdin=b"hello\n")
    assert (done.returncode, done.stderr) == (
        1,
        b"geventchat: Invalid name 'a b': use 1 to 20 letters, digits, '_', '-' or '.'.\n",
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), b"geventchat: not a terminal: HOST[:PORT] is required\n"),
        (("localhost",), b"geventchat: not a terminal: --name NAME is required\n"),
    ],
)
def test_a_script_has_to_name_the_server_and_the_user(
    pipe: Pipe, words: tuple[str, ...], complaint: bytes
) -> None:
    done = pipe(*words)
    assert (done.returncode, done.stderr) == (2, complaint)


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("127.0.0.1:1", b"geventchat: Connection refused by 127.0.0.1:1.\n"),
        ("[::1]:1", b"geventchat: Connection refused by [::1]:1.\n"),
        ("localhost:1", b"geventchat: Connection refused by localhost:1.\n"),
        ("a" * 80 + ".invalid", b"geventchat: Unknown host " + b"a" * 80 + b".invalid.\n"),
    ],
)
def test_a_failed_connection_is_one_line(pipe: Pipe, address: str, complaint: bytes) -> None:
    if address == "[::1]:1" and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    done = pipe(address, "--name", "ci", stdin=b"hello\n")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", complaint)


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_an_ipv6_address_works(pipe: Pipe) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    server = subprocess.Popen(
        [sys.executable, "-m", "geventchat", "--listen=line://[::1]:0", "--log-level=error"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    with killed_at_the_end(server):
        assert server.stdout is not None
        started = re.search(r":(\d+)$", server.stdout.readline().strip())
        assert started is not None
        done = pipe(f"[::1]:{started[1]}", "--name", "ci", stdin=b"/users\n")
        assert (done.returncode, done.stdout.decode()) == (0, "👥 1 here: ci\n")


@pytest.mark.parametrize(("asked", "spoken"), [("line", "json"), ("json", "slash"), ("slash", "line")])
def test_the_right_dialect_is_named_when_the_wrong_one_was_chosen(
    server: RealServer, pipe: Pipe, asked: str, spoken: str
) -> None:
    done = pipe(server.at(spoken), "--dialect", asked, "--name", "ci", stdin=b"hello\n")
    assert done.returncode == 1
    assert done.stderr.decode() == f"geventchat: The server speaks {spoken}: try --dialect {spoken}.\n"


@pytest.mark.parametrize("dialect", ["line", "json"])
def test_a_long_file_arrives_whole_at_a_slow_server(
    start_server: StartServer, pipe: Pipe, dialect: str
) -> None:
    server = start_server("--rate=400", "--burst=20")
    carol = RawClient(server.host, server.ports["line"], "carol")
    done = pipe(
        server.at(dialect), "--name", "ci", stdin=b"".join(b"line %d\n" % number for number in range(200))
    )
    carol.expect("INFO ci disconnected")
    carol.close()
    assert (done.returncode, done.stderr) == (0, b"")
    assert printed(done.stdout) == [f"[..:..:..] ci: line {number}" for number in range(200)]
    said = [line for line in carol.received.decode().splitlines() if line.startswith("MSG")]
    assert said == [f"MSG ci line {number}" for number in range(200)]


def test_a_server_that_does_not_answer_stops_the_input(scripted_server: StartScripted, pipe: Pipe) -> None:
    heard = []

    def behave(client: socket.socket, lines: BinaryIO) -> None:
        assert lines.readline() == b"LOGIN ci\n"
        client.sendall(b"OK\n")
        # Without an answer, no more arrives than can be under way.
        heard.extend(lines.readline() for _ in range(2 * MAX_UNDER_WAY))
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(HANG_S)
        client.sendall(b"PONG\n" * MAX_UNDER_WAY)
        rest = client.makefile("rb")
        for line in rest:
            heard.append(line)
            if line.startswith(b"PING"):
                client.sendall(b"PONG\n")
            elif line == b"QUIT\n":
                client.sendall(b"Goodbye!\n")
                return

    server = scripted_server(behave)
    done = pipe(server.address, "--name", "ci", stdin=b"x\n" * 100)
    assert (done.returncode, done.stderr) == (0, b"")
    assert heard == [line for number in range(1, 101) for line in (b"MSG x\n", b"PING %d\n" % number)] + [
        b"QUIT\n"
    ]


def test_a_server_that_hangs_up_without_a_goodbye_fails_a_script(
    scripted_server: StartScripted, pipe: Pipe
) -> None:
    def behave(client: socket.socket, lines: BinaryIO) -> None:
        lines.readline()
        client.sendall(b"OK\n")
        assert [lines.readline() for _ in range(3)] == [b"MSG hello\n", b"PING 1\n", b"QUIT\n"]

    done = pipe(scripted_server(behave).address, "--name", "ci", stdin=b"hello\n")
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "geventchat: The server closed the connection before it had answered everything: "
        "the last lines may not have been delivered.\n"
    )


@pytest.mark.parametrize(
    ("last_words", "complaint"),
    [
        (b"ERR server-full\n", "Login failed: the server is full."),
        (
            b"ERR too-many-connections\n",
            "Login failed: the server has too many connections from this address.",
        ),
        (b"", "Login failed: the server closed it."),
        (
            b"220 mail.example ready\n",
            'Login failed: the server closed it. The server said: "220 mail.example ready".',
        ),
        (b"\x1b[2Jboo\n", 'Login failed: the server closed it. The server said: "\ufffd[2Jboo".'),
    ],
)
def test_a_failed_login_says_why(
    scripted_server: StartScripted, pipe: Pipe, last_words: bytes, complaint: str
) -> None:
    def behave(client: socket.socket, lines: BinaryIO) -> None:
        lines.readline()
        client.sendall(last_words)

    done = pipe(scripted_server(behave).address, "--name", "ci", stdin=b"hello\n")
    assert (done.returncode, done.stdout, done.stderr.decode()) == (1, b"", f"geventchat: {complaint}\n")


def test_a_signal_has_an_exit_code(
    server: RealServer, raw_client: LogIn, environment: dict[str, str]
) -> None:
    carol = raw_client("carol")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with killed_at_the_end(running_client(server, f"ci{code}", environment)) as process:
            say_hello(process)
            carol.expect(f"MSG ci{code} hello")
            process.send_signal(number)
            carol.expect(f"INFO ci{code} disconnected")
            assert process.wait(timeout=HANG_S) == code
            assert process.stderr is not None
            assert process.stderr.read() == b""


def test_a_lost_connection_fails_a_script(start_server: StartServer, environment: dict[str, str]) -> None:
    server = start_server()
    carol = RawClient(server.host, server.ports["line"], "carol")
    with killed_at_the_end(running_client(server, "ci", environment)) as process:
        say_hello(process)
        carol.expect("MSG ci hello")
        server.kill()
        assert process.wait(timeout=HANG_S) == 1
        assert process.stderr is not None
        assert process.stderr.read().startswith(b"geventchat: Lost the connection to ")
    carol.close()


def test_a_password_comes_from_the_environment(server: RealServer, pipe: Pipe) -> None:
    first = pipe(server.at("json"), "--name", "bot", stdin=b"/register correct horse\n")
    assert (first.returncode, first.stdout) == (
        0,
        "✅ The name is yours now: logging in with it needs the password.\n".encode(),
    )
    refused = pipe(server.at("json"), "--name", "bot", stdin=b"hi\n")
    assert (refused.returncode, refused.stderr) == (
        1,
        b"geventchat: The name belongs to someone and needs a password.\n",
    )
    done = pipe(server.at("line"), "--name", "bot", stdin=b"hi\n", GEVENTCHAT_PASSWORD="correct horse")
    assert (done.returncode, printed(done.stdout)) == (0, ["[..:..:..] bot: hi"])


def test_a_script_can_talk_in_rooms(server: RealServer, pipe: Pipe, raw_client: LogIn) -> None:
    carol = raw_client("carol")
    carol.send("JOIN dev")
    carol.expect_end("OK", 2)
    for dialect in ("json", "line"):
        done = pipe(
            server.at(dialect), "--name", "ci", stdin=b"/join dev\nto dev\n/leave\nto the lobby\n/topic\n"
        )
        carol.expect("MSG ci to dev")
        assert (done.returncode, done.stderr) == (0, b"")
        assert printed(done.stdout) == [
            "[..:..:..] ci: to dev",
            "[..:..:..] ci: to the lobby",
            "📌 No topic.",
        ]
    assert b"to the lobby" not in carol.received


def test_a_closed_output_ends_the_client_without_an_error_message(
    server: RealServer, raw_client: LogIn, environment: dict[str, str]
) -> None:
    carol = raw_client("carol")
    reading, writing = os.pipe()
    with killed_at_the_end(running_client(server, "ci", environment, stdout=writing)) as process:
        os.close(writing)
        os.close(reading)
        say_hello(process)
        carol.expect("INFO ci disconnected")
        assert process.wait(timeout=HANG_S) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_pipe_has_neither_colours_nor_bells(server: RealServer, pipe: Pipe) -> None:
    done = pipe(
        server.at("json"), "--name", "ci", stdin=b"/dm ci alice\n/help\nci ci\n", TERM="xterm-256color"
    )
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    assert b"\a" not in done.stdout
