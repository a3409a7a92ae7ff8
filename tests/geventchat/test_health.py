"""`geventchat health` against real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import made_certificate
from tests.geventchat.processes import called, environment, port_of, ready_lines, run, running
from tests.patience import HANG_S
from tests.ports import free_port


def assert_healthy(ended: subprocess.CompletedProcess[str], address: str, state: str = "answers") -> None:
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"healthy: {address} {state}\n", "")


def test_a_server_that_answers_is_healthy():
    with running("0") as server:
        port = port_of(ready_lines(server)[0])
        assert_healthy(run("health", str(port)), f"127.0.0.1:{port}")
        assert_healthy(run("health", "--port", str(port)), f"127.0.0.1:{port}")
        assert_healthy(run("health", CHAT_PORT=str(port)), f"127.0.0.1:{port}")
        assert_healthy(run("health", str(port), "--host", "localhost"), f"localhost:{port}")


def test_a_server_that_greets_is_healthy():
    with running("0", "--greeting", "Goodbye!") as server:
        port = port_of(ready_lines(server)[0])
        assert_healthy(called("health", str(port)), f"127.0.0.1:{port}")


def test_a_server_is_asked_in_the_way_that_its_address_says(tmp_path: Path):
    cert, key = made_certificate()
    path, port = tmp_path / "chat.sock", free_port()
    files = ("--tls-cert", str(cert), "--tls-key", str(key))
    tls, unix = ("--listen", f"line+tls://127.0.0.1:{port}", *files), ("--listen", f"line+unix://{path}")
    proxies = ("--proxy-from", "127.0.0.0/8")
    with running(*tls, *unix, *proxies) as server:
        ready_lines(server)
        assert_healthy(run("health", *tls[:2], *proxies), f"127.0.0.1:{port}")
        assert_healthy(run("health", *unix), str(path))


def test_the_check_leaves_without_a_trace_in_the_chat():
    with running("0") as server:
        port = port_of(ready_lines(server)[0])
        with socket.create_connection(("127.0.0.1", port), HANG_S) as client:
            client.sendall(b"LOGIN alice\n")
            assert client.recv(100) == b"OK\n"
            assert called("health", str(port)).returncode == 0
            client.sendall(b"PING\n")
            assert client.recv(100) == b"PONG\n"


@pytest.mark.parametrize(
    ("option", "state"),
    [
        ("--max-clients", "answers, and is full"),
        ("--max-per-address", "answers, and has too many connections from this address"),
    ],
)
def test_a_full_server_is_healthy(option: str, state: str):
    with running("0", option, "1") as server:
        port = port_of(ready_lines(server)[0])
        with socket.create_connection(("127.0.0.1", port), HANG_S) as client:
            client.sendall(b"LOGIN alice\n")
            assert client.recv(100) == b"OK\n"
            assert_healthy(called("health", str(port)), f"127.0.0.1:{port}", state)


def test_a_full_server_that_only_speaks_tls_is_healthy():
    cert, key = made_certificate()
    port = free_port()
    tls = ("--listen", f"line+tls://127.0.0.1:{port}", "--tls-cert", str(cert), "--tls-key", str(key))
    trusting = ssl.create_default_context(cafile=cert)
    with running(*tls, "--max-clients", "1") as server:
        ready_lines(server)
        with (
            socket.create_connection(("127.0.0.1", port), HANG_S) as connected,
            trusting.wrap_socket(connected, server_hostname="localhost") as client,
        ):
            client.sendall(b"LOGIN alice\n")
            assert client.recv(100) == b"OK\n"
            state = "answers, and refuses this connection"
            assert_healthy(called("health", *tls), f"127.0.0.1:{port}", state)


def test_a_server_that_has_banned_the_address_of_the_check_is_healthy(tmp_path: Path):
    bans = tmp_path / "bans"
    bans.write_text("127.0.0.0/8\n")
    with running("0", "--host", "127.0.0.1", "--ban-list", str(bans)) as server:
        port = port_of(ready_lines(server)[0])
        state = "answers, and has banned this address"
        assert_healthy(called("health", str(port)), f"127.0.0.1:{port}", state)


# --- Finding the server of a process ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "more", "host"),
    [
        (["{port}"], {}, "127.0.0.1"),
        (["--host", "127.0.0.1", "-p", "{port}", "--rate", "5"], {}, "127.0.0.1"),
        (["--host", "", "--port={port}"], {}, "localhost"),
        (["--listen", "line://[::1]:{port}"], {"PORT": "1"}, "[::1]"),
        ([], {"PORT": "{port}"}, "127.0.0.1"),
        ([], {"GEVENTCHAT_PORT": "{port}", "GEVENTCHAT_HOST": "::", "PORT": "1"}, "[::1]"),
        (["--config", "chat.toml"], {}, "127.0.0.1"),
        ([], {"GEVENTCHAT_CONFIG": "chat.toml"}, "127.0.0.1"),
    ],
)
def test_a_process_is_asked_where_its_own_settings_say(
    words: list[str], more: dict[str, str], host: str, tmp_path: Path
):
    port = str(free_port())
    (tmp_path / "chat.toml").write_text(f"port = {port}\n")
    words = [word.format(port=port) for word in words]
    env = {key: text.format(port=port) for key, text in more.items()}
    with running(*words, env=env, cwd=tmp_path) as server:
        ready_lines(server)
        # The environment of the check itself counts for nothing.
        assert_healthy(called("health", "--pid", str(server.pid), PORT="2"), f"{host}:{port}")


def test_an_argument_of_the_check_overrides_the_settings_of_the_process():
    with running("0") as server:
        port = port_of(ready_lines(server)[0])
        ended = called("health", "--pid", str(server.pid))
        assert ended.returncode == 3
        assert "port: the server listens on any free port (0); pass its real PORT" in ended.stderr
        assert_healthy(called("health", str(port), "--pid", str(server.pid)), f"127.0.0.1:{port}")
        assert_healthy(called("health", "-p", str(port), "--pid", str(server.pid)), f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "program",
    [
        [os.path.join(os.path.dirname(sys.executable), "geventchat")],
        [sys.executable, "-W", "error", "-m", "geventchat"],
        ["sh", "-c", f'"{sys.executable}" -m geventchat "$@"; exit', "entrypoint"],
        ["sh", "-c", f'sleep 0 & (exec "{sys.executable}" -m geventchat "$@"); exit', "entrypoint"],
    ],
    ids=["command", "module", "shell", "shell-with-other-children"],
)
def test_a_server_is_found_however_it_was_started(program: list[str]):
    port = str(free_port())
    with subprocess.Popen(
        [*program, port], stdout=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    ) as started:
        try:
            ready_lines(started)
            assert_healthy(called("health", "--pid", str(started.pid)), f"127.0.0.1:{port}")
        finally:
            os.killpg(started.pid, signal.SIGKILL)


def test_a_process_that_is_not_a_server_is_named():
    # This one can have an argument such as tests/geventchat.
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as other:
        ended = called("health", "--pid", str(other.pid))
        other.kill()
    assert ended.returncode == 3
    assert f"process {other.pid} is not a geventchat server" in ended.stderr


def test_a_process_that_does_not_exist_is_named():
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait(HANG_S)
    checked = called("health", "--pid", str(ended.pid))
    assert checked.returncode == 3
    assert f"cannot read /proc/{ended.pid}/cmdline: No such file or directory" in checked.stderr


def test_the_health_check_and_the_settings_of_the_container_work():
    dockerfile = (Path(__file__).parents[2] / "docs" / "deploy" / "Dockerfile").read_text()
    variables = dict(re.findall(r"^ENV (GEVENTCHAT_\w+)=(.*)$", dockerfile, re.MULTILINE))
    assert variables
    command = json.loads(re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", dockerfile, re.MULTILINE)[1])
    assert command[0] == "geventchat"
    port = str(free_port())
    with running(port, env=variables) as server:
        ready_lines(server)
        words = [str(server.pid) if word == "1" else word for word in command[1:]]
        assert_healthy(called(*words), f"127.0.0.1:{port}")


# --- Servers that are not healthy ------------------------------------------------------------------------------------


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port on which another program answers one client like this."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                answer(client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(HANG_S)


def test_a_port_without_a_server_is_not_healthy():
    port = free_port()
    ended = called("health", str(port))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"not healthy: 127.0.0.1:{port} refuses connections\n"


def test_a_server_that_does_not_answer_in_time_is_not_healthy():
    with running("0") as server:
        port = port_of(ready_lines(server)[0])
        server.send_signal(signal.SIGSTOP)
        ended = called("health", str(port), "--timeout", "0.5")
    assert ended.returncode == 1
    assert ended.stderr == f"not healthy: 127.0.0.1:{port} has not answered within 0.5 s\n"


def test_an_answer_that_never_ends_is_not_healthy():
    def drip(client: socket.socket) -> None:
        try:
            while client.recv(1000, socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            pass
        try:
            while True:
                client.sendall(b"x")
                client.settimeout(0.05)
                try:
                    if not client.recv(1000):
                        return
                except TimeoutError:
                    continue
        except OSError:
            return

    with answering(drip) as port:
        ended = called("health", str(port), "--timeout", "0.5")
    assert ended.returncode == 1
    assert ended.stderr == f"not healthy: 127.0.0.1:{port} has not answered within 0.5 s\n"


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1 400 Bad Request\\r\\n\\r\\n"),
        (b"Goodbye!", "Goodbye!"),
        (b"Goodbye\n", "Goodbye\\n"),
        (b"", ""),
    ],
)
def test_another_program_on_the_port_is_not_healthy(answer: bytes, shown: str):
    def reply(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(answer)

    with answering(reply) as port:
        ended = called("health", str(port))
    assert ended.returncode == 1
    assert f"127.0.0.1:{port} answered '{shown}', which is not what geventchat answers" in ended.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["abc"], 3, "port: 'abc' is not a port from 0 to 65535 (from the argument PORT)"),
        (["1", "--port", "2"], 2, "two ports: 1 and --port 2"),
        (["--pid", "one"], 2, "argument --pid: 'one' is not the number of a process"),
        (["--timeout", "0"], 2, "argument --timeout: '0' is not a number of seconds above 0"),
        (["--timeout", "nan"], 2, "argument --timeout: 'nan' is not a number of seconds above 0"),
        (["--timeout", "soon"], 2, "argument --timeout: 'soon' is not a number of seconds above 0"),
        (["--time", "1"], 2, "unknown option --time"),
    ],
)
def test_wrong_usage_is_reported(words: list[str], code: int, message: str):
    ended = called("health", *words)
    assert ended.returncode == code
    assert ended.stderr.startswith(f"geventchat health: {message}")
    assert ended.stdout == ""


def test_the_help_says_what_is_checked():
    shown = called("health", "--help").stdout
    for word in ("--pid", "--timeout", "--port", "--listen", "Exit codes"):
        assert word in shown
