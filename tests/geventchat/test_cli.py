"""The program itself: what it prints, how it ends. Each test runs it, as people do."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MOMENT_S = 20


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in {"PORT", "CHAT_PORT"}}
    return {**{key: value for key, value in kept.items() if not key.startswith("GEVENTCHAT_")}, **more}


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "geventchat", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=MOMENT_S, env=environment(**more), check=False
    )


@contextmanager
def running(*words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "geventchat", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more)
    ) as server:
        try:
            yield server
        finally:
            server.kill()


def started(server: subprocess.Popen[str]) -> list[str]:
    """The ready lines, up to the last of them."""
    lines = []
    for line in server.stdout:
        lines.append(line.rstrip("\n"))
        if "Waiting for connections" in line:
            break
    return lines


def ask_without_listening(client: socket.socket) -> None:
    """More than the kernel holds, reading none of it, so that the goodbye to this client has to wait."""
    client.settimeout(0.2)
    questions = (b"PING " + b"x" * 4000 + b"\n") * 100
    try:
        for _ in range(1000):
            client.sendall(questions)
    except TimeoutError:
        return
    raise AssertionError("the server took 400 MB of questions")


def port_of(line: str) -> int:
    return int(re.search(r":(\d+)(?: \(\w+\))?$", line)[1])


def test_the_ready_lines_are_those_of_the_document_with_the_real_port():
    with running("0", "--listen", "json://127.0.0.1:0", "--listen", "slash://[::1]:0") as server:
        lines = started(server)
        assert re.fullmatch(r"\[SERVER\] Chat server started on 0\.0\.0\.0:[1-9]\d*", lines[0])
        assert re.fullmatch(r"\[SERVER\] Chat server started on 127\.0\.0\.1:[1-9]\d* \(json\)", lines[1])
        assert re.fullmatch(r"\[SERVER\] Chat server started on \[::1\]:[1-9]\d* \(slash\)", lines[2])
        assert lines[3] == "[SERVER] Waiting for connections..."
        with socket.create_connection(("127.0.0.1", port_of(lines[0])), MOMENT_S) as client:
            client.sendall(b"LOGIN alice\n")
            assert client.recv(100) == b"OK\n"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(signum: signal.Signals):
    with running("-p", "0") as server:
        port = port_of(started(server)[0])
        with socket.create_connection(("127.0.0.1", port), MOMENT_S) as client:
            client.sendall(b"LOGIN alice\n")
            assert client.recv(100) == b"OK\n"
            server.send_signal(signum)
            assert client.makefile("rb").read() == b"INFO server-shutdown\n"
        out, err = server.communicate(timeout=MOMENT_S)
        assert out == "[SERVER] Shutting down...\n[SERVER] Server stopped.\n"
        assert server.returncode == 0
        assert "Traceback" not in err


def test_a_second_signal_ends_it_at_once():
    with running("-p", "0", "--rate", "0") as server:
        port = port_of(started(server)[0])
        with socket.create_connection(("127.0.0.1", port), MOMENT_S) as client:
            client.sendall(b"LOGIN alice\n")
            ask_without_listening(client)
            server.send_signal(signal.SIGTERM)
            assert server.stdout.readline() == "[SERVER] Shutting down...\n"
            server.send_signal(signal.SIGTERM)
            assert server.wait(MOMENT_S) == 128 + signal.SIGTERM


def test_clients_left_at_the_deadline_are_an_exit_code_of_their_own():
    with running("-p", "0", "--rate", "0", "--shutdown-timeout", "0.2") as server:
        port = port_of(started(server)[0])
        with socket.create_connection(("127.0.0.1", port), MOMENT_S) as client:
            client.sendall(b"LOGIN alice\n")
            ask_without_listening(client)
            server.send_signal(signal.SIGTERM)
            assert server.wait(MOMENT_S) == 5


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["{}"], {}),
        (["-p", "{}"], {}),
        (["--port", "{}"], {}),
        ([], {"CHAT_PORT": "{}"}),
        ([], {"PORT": "{}"}),
    ],
    ids=["positional", "-p", "--port", "CHAT_PORT", "PORT"],
)
def test_a_port_in_use_is_said_with_another_to_try(words: list[str], more: dict[str, str]):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run(
            *[word.format(port) for word in words], **{key: value.format(port) for key, value in more.items()}
        )
    assert ended.returncode == 4
    assert f"port {port} is in use" in ended.stderr
    assert f"such as {int(port) + 1}" in ended.stderr
    assert ended.stdout == ""


def test_an_address_that_is_not_here_is_said():
    ended = run("--host", "192.0.2.1", "-p", "0")
    assert ended.returncode == 4
    assert "cannot listen on 192.0.2.1:0" in ended.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--port", "abc"], 3, "port: 'abc' is not a port from 0 to 65535 (from --port)"),
        (["--max-clients", "0"], 3, "max-clients: '0' is not a whole number of at least 1"),
        (["--config", "/nowhere/chat.toml"], 3, "/nowhere/chat.toml"),
        (["--frobnicate"], 2, "unrecognized arguments"),
        (["5000", "--port", "5001"], 2, "two ports: 5000 and --port 5001"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_a_code(words: list[str], code: int, said: str):
    ended = run(*words)
    assert ended.returncode == code
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_check_prints_the_settings_in_force_and_where_each_came_from(tmp_path: Path):
    file = tmp_path / "chat.toml"
    file.write_text("burst = 9\n")
    ended = run("--check", "--rate", "5", "--config", str(file), GEVENTCHAT_MAX_LINE="100", PORT="7")
    assert ended.returncode == 0
    rows = {line.split()[0]: line.split(None, 1)[1] for line in ended.stdout.splitlines()}
    assert rows["rate"].split() == ["5", "--rate"]
    assert rows["max-line"].split() == ["100", "GEVENTCHAT_MAX_LINE"]
    assert rows["burst"].split() == ["9", str(file)]
    assert rows["port"].split() == ["7", "PORT"]
    assert rows["listen"].split() == ["line://0.0.0.0:7", "(default)"]
    assert rows["max-clients"].split() == ["10000", "(default)"]


def test_version_and_help():
    assert re.fullmatch(r"geventchat \d+\.\d+\.\d+\n", run("--version").stdout)
    shown = run("--help").stdout
    for option in (
        "--port",
        "--listen",
        "--idle-timeout",
        "--max-per-address",
        "--check",
        "connect",
        "Exit codes",
    ):
        assert option in shown


def test_the_log_is_one_event_per_line_without_anyone_s_words():
    with running("-p", "0", "--log-format", "json") as server:
        port = port_of(started(server)[0])
        with socket.create_connection(("127.0.0.1", port), MOMENT_S) as client:
            client.sendall(b"LOGIN alice\nMSG secret words\nQUIT\n")
            client.makefile("rb").read()
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=MOMENT_S)
    events = [json.loads(line) for line in err.splitlines()]
    assert [event["event"] for event in events] == [
        *("listening", "connected", "login", "disconnected", "stopping", "stopped")
    ]
    assert events[1] | {"conn": 1, "address": "127.0.0.1", "dialect": "line"} == events[1]
    assert events[2]["name"] == "alice"
    assert events[3] | {"conn": 1, "name": "alice", "reason": "quit"} == events[3]
    assert "secret" not in err


def test_messages_are_logged_when_that_is_asked_for():
    with running("-p", "0", "--log-messages") as server:
        port = port_of(started(server)[0])
        with socket.create_connection(("127.0.0.1", port), MOMENT_S) as client:
            client.sendall(b"LOGIN alice\nMSG not so secret\nDM alice a note\nQUIT\n")
            client.makefile("rb").read()
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=MOMENT_S)
    assert re.search(r'INFO message name=alice text="not so secret"\n', err)
    assert re.search(r'INFO message name=alice to=alice text="a note"\n', err)


def test_a_reader_of_the_ready_lines_who_goes_away_does_not_end_the_chat():
    with running("-p", "0") as server:
        port = port_of(started(server)[0])
        server.stdout.close()
        with socket.create_connection(("127.0.0.1", port), MOMENT_S) as client:
            client.sendall(b"LOGIN alice\n")
            assert client.recv(100) == b"OK\n"
            server.send_signal(signal.SIGTERM)
            assert client.makefile("rb").read() == b"INFO server-shutdown\n"
        assert server.wait(MOMENT_S) == 0


def test_the_client_limit_is_kept_under_the_limit_on_open_files():
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)); "
        "from geventchat.cli import main; sys.exit(main(['-p', '0']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as server:
        started(server)
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=MOMENT_S)
    assert re.search(r"WARNING client-limit-lowered asked=10000 clients=124\n", err)
