"""The program: its messages, its help, its signals and how it ends. Most tests run it, as people do."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from geventchat.settings import SERVICES, SETTINGS
from harness.stage.limits import LimitClock
from tests.certificates import made_certificate
from tests.geventchat.processes import (
    called,
    full_pipe,
    port_of,
    ready_lines,
    run,
    running,
)
from tests.patience import HANG_S, until
from tests.ports import free_port


def log_in(port: int, name: bytes = b"alice") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), HANG_S)
    client.sendall(b"LOGIN " + name + b"\n")
    assert client.recv(100) == b"OK\n"
    return client


def ask_without_reading(client: socket.socket, server: subprocess.Popen[str]) -> None:
    """Ask for more than the kernel holds and read none of it, so that this client cannot be sent its notice."""
    client.setblocking(False)
    questions = (b"PING " + b"x" * 4000 + b"\n") * 100
    limits = LimitClock(lambda: (server.pid,))
    taken, refusing = 0, limits.limit(0.2)
    while taken < 400_000_000:
        _, takes, _ = select.select([], [client], [], refusing.pause_s)
        if takes:
            taken += client.send(questions[taken % len(questions) :])
            refusing = limits.limit(0.2)
        elif refusing.over:
            client.setblocking(True)
            return
    raise AssertionError("the server took 400 MB of questions")


# --- Starting --------------------------------------------------------------------------------------------------------


def test_the_ready_lines_are_those_of_the_protocol_documents_with_the_real_port():
    with running("0", "--listen", "json://127.0.0.1:0", "--listen", "slash://[::1]:0") as server:
        lines = ready_lines(server)
        assert re.fullmatch(r"\[SERVER\] Chat server started on 0\.0\.0\.0:[1-9]\d*", lines[0])
        assert re.fullmatch(r"\[SERVER\] Chat server started on 127\.0\.0\.1:[1-9]\d* \(json\)", lines[1])
        assert re.fullmatch(r"\[SERVER\] Chat server started on \[::1\]:[1-9]\d* \(slash\)", lines[2])
        assert lines[3] == "[SERVER] Waiting for connections..."
        log_in(port_of(lines[0])).close()


def test_the_ready_lines_name_the_scheme_of_every_kind_of_listener(tmp_path: Path):
    pytest.importorskip("websockets")
    pytest.importorskip("prometheus_client")
    cert, key = made_certificate()
    schemes = ["line+tls", "json+tls", "slash+tls", "web", "web+tls", "metrics", "metrics+tls"]
    places = [f"{scheme}://127.0.0.1:0" for scheme in schemes]
    listen = [f"--listen={place}" for place in (*places, f"line+unix://{tmp_path}/chat")]
    with running(*listen, "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        *lines, unix, _ = ready_lines(server)
        assert [re.sub(":[1-9][0-9]* ", ":PORT ", line) for line in lines] == [
            f"[SERVER] Chat server started on 127.0.0.1:PORT ({scheme})" for scheme in schemes
        ]
        assert unix == f"[SERVER] Chat server started on {tmp_path}/chat (line+unix)"


def test_the_ready_lines_are_those_in_the_documentation(tmp_path: Path):
    pytest.importorskip("websockets")
    pytest.importorskip("prometheus_client")
    page = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()
    found = re.search(r"^```\n((?:\[SERVER\] .*\n)+)```$", page, re.MULTILINE)
    assert found is not None
    lines = found[1].replace("/run/chat", str(tmp_path))
    # With any free port.
    listen = [
        f"--listen={scheme or 'line'}://{place}{port and ':0'}"
        for place, port, scheme in re.findall(r"started on (\S+?)(:\d+)?(?: \((.+)\))?$", lines, re.MULTILINE)
    ]
    # Of each service; `slash` is like `json`.
    assert {service for service in SERVICES if not any(f"={service}" in one for one in listen)} == {"slash"}
    cert, key = made_certificate()
    with running(*listen, "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        printed = ready_lines(server)
    assert re.sub(r":\d+", ":PORT", "\n".join([*printed, ""])) == re.sub(r":\d+", ":PORT", lines)


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
def test_a_port_in_use_is_reported_with_another_to_try(words: list[str], more: dict[str, str]):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run(
            *[word.format(port) for word in words], **{key: value.format(port) for key, value in more.items()}
        )
    assert ended.returncode == 4
    assert f"port {port} is in use" in ended.stderr
    assert f"such as {int(port) + 1}" in ended.stderr
    assert ended.stdout == ""


def test_an_address_of_another_machine_is_reported():
    ended = run("--host", "192.0.2.1", "-p", "0")
    assert ended.returncode == 4
    assert "cannot listen on 192.0.2.1:0" in ended.stderr


def test_the_client_limit_is_kept_under_the_hard_limit_on_open_files():
    with running(
        "-p", "0", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
    ) as server:
        ready_lines(server)
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=HANG_S)
    assert re.search(r"WARNING client-limit-lowered asked=10000 clients=124\n", err)


def test_a_reload_says_that_the_limit_on_open_files_allows_fewer_clients(tmp_path: Path):
    file = tmp_path / "chat.toml"
    file.write_text("port = 0\nmax-clients = 50\n")
    with running(
        "--config",
        str(file),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200)),
    ) as server:
        ready_lines(server)
        file.write_text("port = 0\nmax-clients = 10000\n")
        server.send_signal(signal.SIGHUP)
        logged = []
        for line in server.stderr:
            logged.append(line.partition(" WARNING ")[2])
            if " reloaded " in line:
                break
        assert "client-limit-lowered asked=10000 clients=124\n" in logged


# --- Messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--port", "abc"], 3, "port: 'abc' is not a port from 0 to 65535 (from --port)"),
        (["-p", "abc"], 3, "port: 'abc' is not a port from 0 to 65535 (from --port)"),
        (["70000"], 3, "port: '70000' is not a port from 0 to 65535 (from the argument PORT)"),
        (
            ["--max-clients", "many"],
            3,
            "max-clients: 'many' is not a whole number of at least 1 (from --max-clients)",
        ),
        (
            ["--config", "/nowhere/a.toml"],
            3,
            "config: cannot read /nowhere/a.toml: No such file or directory",
        ),
        (["--frobnicate"], 2, "unknown option --frobnicate"),
        (["--max-client=5"], 2, "unknown option --max-client; did you mean --max-clients?"),
        (["5000", "5001"], 2, "unexpected argument '5001'"),
        (["--port"], 2, "argument -p/--port: expected one argument"),
        (["5000", "--port", "5001"], 2, "two ports: 5000 and --port 5001"),
        (["-p", "5000", "--port", "5000"], 2, "duplicate option --port"),
        (["--rate", "5", "--rate=6"], 2, "duplicate option --rate"),
        (["--log-messages", "--no-log-messages"], 2, "duplicate option --no-log-messages"),
        (["--config", "a.toml", "--config", "b.toml"], 2, "duplicate option --config"),
        (["conect"], 2, "unknown command 'conect'; did you mean connect?"),
        (["healt", "-p", "1"], 2, "unknown command 'healt'; did you mean health?"),
        (["help"], 2, "unknown command 'help'; did you mean --help?"),
        (["-p", "1", "connect"], 2, "connect has to be the first argument"),
    ],
)
def test_an_error_is_reported_in_plain_words_with_an_exit_code(words: list[str], code: int, message: str):
    ended = called(*words)
    assert ended.returncode == code
    hint = "Try: geventchat --help\n" if code == 2 else ""
    assert ended.stderr == f"geventchat: {message}\n{hint}"
    assert ended.stdout == ""


def test_an_option_with_a_list_can_be_repeated():
    words = ["--operators", "alice", "--operators", "bob, carol", "--proxy-from=10.0.0.1", "--proxy-from=::1"]
    words += [
        "--reserved-names",
        "ann",
        "--reserved-names",
        "you",
        "--web-origin",
        "a.b",
        "--web-origin",
        "c.d",
    ]
    shown = called(*words, "--check").stdout
    for line in (
        "operators alice bob carol --operators",
        "proxy-from 10.0.0.1 ::1 --proxy-from",
        "reserved-names ann you --reserved-names",
        "web-origin a.b c.d --web-origin",
    ):
        assert line in re.sub(" +", " ", shown)


def test_check_prints_the_effective_settings_and_where_each_came_from(tmp_path: Path):
    file = tmp_path / "chat.toml"
    file.write_text("burst = 9\nlog-messages = true\n")
    ended = called(
        "--check",
        "--rate",
        "5",
        "--config",
        str(file),
        "--no-log-messages",
        GEVENTCHAT_MAX_LINE="100",
        PORT="7",
    )
    assert ended.returncode == 0
    rows = {line.split()[0]: line.split(None, 1)[1] for line in ended.stdout.splitlines()}
    assert list(rows) == list(SETTINGS)
    assert rows["rate"].split() == ["5", "--rate"]
    assert rows["max-line"].split() == ["100", "GEVENTCHAT_MAX_LINE"]
    assert rows["burst"].split() == ["9", str(file)]
    assert rows["port"].split() == ["7", "PORT"]
    assert rows["listen"].split() == ["line://0.0.0.0:7", "(default)"]
    assert rows["max-clients"].split() == ["10000", "(default)"]
    assert rows["byte-rate"].split() == ["16384", "(default)"]
    assert rows["log-messages"].split() == ["no", "--log-messages"]
    assert re.fullmatch(r"line 60, json 0, slash 0 +\(default\)", rows["idle-timeout"])


def test_check_shows_the_limits_that_a_rate_of_zero_turns_off():
    rows = dict(line.split(None, 1) for line in called("--check", "--rate", "0").stdout.splitlines())
    off = {
        "byte-rate",
        *(
            f"{whose}-{what}-rate"
            for whose in ("address", "network")
            for what in ("byte", "connection", "login", "room", "account")
        ),
    }
    assert {key for key, rest in rows.items() if rest.split(None, 1) == ["0", "(because rate is 0)"]} == off


def test_check_notes_each_limit_of_an_address_that_is_above_its_networks():
    words = ("--address-login-rate", "21", "--network-room-burst", "99", "--max-per-address", "4000")
    rows = dict(line.split(None, 1) for line in called("--check", *words).stdout.splitlines())
    assert {key: rest.split(None, 1) for key, rest in rows.items() if "above" in rest} == {
        "address-login-rate": ["21", "--address-login-rate (above network-login-rate, which applies)"],
        "address-room-burst": ["100", "(default) (above network-room-burst, which applies)"],
    }


def test_check_finds_what_keeps_a_certificate_from_being_used(tmp_path: Path):
    missing = tmp_path / "missing.pem"
    ended = run("--check", "--listen", f"line+tls://:6697?cert={missing}")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr == f"geventchat: tls-cert: cannot read {missing}: No such file or directory\n"


def test_check_finds_what_is_wrong_with_the_ban_list(tmp_path: Path):
    bans = tmp_path / "bans"
    bans.write_text("10.0.0.0/8\n10.0.0.0/33\n")
    ended = called("--check", "--ban-list", str(bans))
    assert (ended.returncode, ended.stdout) == (3, "")
    assert (
        ended.stderr
        == f"geventchat: ban-list: {bans}: line 2: '10.0.0.0/33' is neither a name nor an address\n"
    )


def test_the_help_names_every_option_with_its_default_and_the_commands():
    shown = called("--help", COLUMNS="1000").stdout
    for row in SETTINGS.values():
        assert f"  {row.flag}" in shown or f", {row.flag}" in shown
        assert row.help in shown
    assert "(default: line 60, json 0, slash 0)" in shown
    for word in (
        "geventchat connect",
        "geventchat health",
        "geventchat passwd",
        "--check",
        "--version",
        "Exit codes",
    ):
        assert word in shown


def test_the_version_is_printed():
    assert re.fullmatch(r"geventchat \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize("option", ["--help", "--check", "--options-page", "--version"])
def test_a_reader_that_wants_no_more_ends_the_program_quietly(option: str):
    read, write = os.pipe()
    os.close(read)
    with running(option, stdout=write) as ended:
        os.close(write)
        _, err = ended.communicate(timeout=HANG_S)
    assert (ended.returncode, err) == (0, "")


@pytest.mark.parametrize("option", ["--help", "--check"])
def test_output_that_cannot_be_written_is_an_error(option: str):
    with open("/dev/full", "w") as full, running(option, stdout=full) as ended:
        _, err = ended.communicate(timeout=HANG_S)
    assert ended.returncode == 1
    assert err == "geventchat: cannot write to standard output: No space left on device\n"


def test_the_command_line_starts_without_gevent():
    program = (
        "import sys, geventchat.cli, geventchat.health; print({'gevent', 'greenlet'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


# --- Stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_in_order(signum: signal.Signals):
    with running("-p", "0") as server:
        with log_in(port_of(ready_lines(server)[0])) as client:
            server.send_signal(signum)
            assert client.makefile("rb").read() == b"INFO server-shutdown\n"
        out, err = server.communicate(timeout=HANG_S)
        assert out == "[SERVER] Shutting down...\n[SERVER] Server stopped.\n"
        assert server.returncode == 0
        events = [line.split()[2] for line in err.splitlines()]
        assert events == [
            "listening",
            "passwords-in-clear",
            "connected",
            "login",
            "stopping",
            "disconnected",
            "stopped",
        ]


def test_a_terminal_that_closes_and_sends_its_hangup_twice_does_not_cut_the_goodbyes_short():
    master, slave = pty.openpty()

    def start_session() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    with running("-p", "0", preexec_fn=start_session) as server:
        os.close(slave)
        with log_in(port_of(ready_lines(server)[0])) as client:
            os.close(master)
            assert server.stdout.readline() == "[SERVER] Shutting down...\n"
            server.send_signal(signal.SIGHUP)
            assert client.makefile("rb").read() == b"INFO server-shutdown\n"
        assert server.wait(HANG_S) == 0


# A shell that starts the server in the background, and says its process id.
SHELL = """
import os, subprocess, sys, time
server = subprocess.Popen(sys.argv[1:], preexec_fn=os.setpgrp)
print(server.pid, flush=True)
time.sleep(999)
"""
# Looks for the terminal all the time, and notes in a file how often it was gone.
LOOKING = """
import geventchat.daemon as one
from geventchat.cli import main
one._TERMINAL_S = 0.001
has_terminal = one._has_terminal
def noting():
    found = has_terminal()
    if not found:
        with open({noted!r}, "a") as noted:
            noted.write("x")
    return found
one._has_terminal = noting
raise SystemExit(main())
"""


def test_a_hangup_reloads_the_settings_after_the_terminal_has_gone_without_one(tmp_path: Path):
    master, slave = pty.openpty()
    noted, log = tmp_path / "noted", tmp_path / "log"
    noted.touch()

    def start_session() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    program = ("-c", SHELL, sys.executable, "-c", LOOKING.format(noted=str(noted)))
    with (
        log.open("w") as written,
        running("-p", "0", program=program, preexec_fn=start_session, stderr=written) as shell,
    ):
        os.close(slave)
        pid, *lines = ready_lines(shell)
        server = int(pid)
        try:
            # The kernel sends SIGHUP to the shell, and not to its jobs in the background.
            os.close(master)
            assert shell.wait(HANG_S) == -signal.SIGHUP
            assert until(lambda: noted.stat().st_size >= 2)
            os.kill(server, signal.SIGHUP)
            assert until(lambda: " reloaded" in log.read_text())
            log_in(port_of(lines[0])).close()
            os.kill(server, signal.SIGTERM)
            assert until(lambda: " stopped orderly=True" in log.read_text())
        except BaseException:
            with suppress(ProcessLookupError):
                os.kill(server, signal.SIGKILL)
            raise


def test_a_hangup_reloads_the_settings_and_names_those_that_need_a_restart(tmp_path: Path):
    file, bans = tmp_path / "chat.toml", tmp_path / "bans"
    file.write_text("port = 0\n")
    with running("--config", str(file), "--log-format", "json") as server:
        port = port_of(ready_lines(server)[0])
        events = map(json.loads, server.stderr)

        def reload(text: str) -> dict[str, str]:
            file.write_text(text)
            server.send_signal(signal.SIGHUP)
            event = next(event for event in events if event["event"].startswith("reload"))
            return {key: event[key] for key in event if key not in ("time", "level")}

        with log_in(port) as client, log_in(port, b"eve") as eve:
            assert reload("port = 1\n greeting = 'hi'\n max-line = 'x'\n") == {
                "event": "reload-refused",
                "error": f"max-line: 'x' is not a whole number of bytes, at least 16 (from {file})",
            }
            bans.write_text("eve spam\n")
            assert reload(f"port = 1\ngreeting = 'hi'\nmax-line = 99\nban-list = '{bans}'\n") == {
                "event": "reloaded",
                "at_once": "greeting ban-list",
                "new_clients": "max-line",
                "restart": "port",
            }
            assert eve.makefile("rb").read() == b"ERR banned\n"
            with socket.create_connection(("127.0.0.1", port)) as late:
                late.sendall(b"x" * 100 + b"\n")
                lines = late.makefile("rb")
                assert [lines.readline() for _ in range(2)] == [b"INFO hi\n", b"ERR line-too-long\n"]
                lines.close()
            client.sendall(b"QUIT\n")
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=HANG_S)


def test_a_server_under_nohup_outlives_its_terminal():
    with running("-p", "0", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as server:
        port = port_of(ready_lines(server)[0])
        server.send_signal(signal.SIGHUP)
        log_in(port).close()
        server.send_signal(signal.SIGTERM)
        assert server.wait(HANG_S) == 0


@pytest.mark.parametrize("shutdown_timeout", ["10", "1e300"])
def test_a_second_signal_ends_the_server_at_once(shutdown_timeout: str):
    words = ("-p", "0", "--rate", "0", "--shutdown-timeout", shutdown_timeout)
    with running(*words) as server, log_in(port_of(ready_lines(server)[0])) as client:
        ask_without_reading(client, server)
        server.send_signal(signal.SIGTERM)
        assert server.stdout.readline() == "[SERVER] Shutting down...\n"
        server.send_signal(signal.SIGTERM)
        assert server.wait(HANG_S) == 128 + signal.SIGTERM


def test_clients_left_at_the_shutdown_time_out_have_an_exit_code():
    with (
        running("-p", "0", "--rate", "0", "--shutdown-timeout", "0.2") as server,
        log_in(port_of(ready_lines(server)[0])) as client,
    ):
        ask_without_reading(client, server)
        server.send_signal(signal.SIGTERM)
        assert server.wait(HANG_S) == 5


@pytest.fixture
def stuck() -> Iterator[int]:
    """A descriptor whose reader takes nothing."""
    read, write = full_pipe()
    yield write
    os.close(read)
    os.close(write)


def wait_at_most(server: subprocess.Popen[str], seconds: float) -> int:
    """The exit code. Fails if the process does not end within this time from now, in which the machine runs it."""
    clock = LimitClock(lambda: (server.pid,))
    began = clock.now()
    assert until(lambda: server.poll() is not None or clock.now() - began > seconds)
    assert clock.now() - began <= seconds
    return server.wait()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_server_whose_log_is_stuck_serves_and_stops_within_its_time_out_and_a_second(
    signum: signal.Signals, stuck: int
):
    with running("-p", "0", "--shutdown-timeout", "1", stderr=stuck) as server:
        with log_in(port_of(ready_lines(server)[0])) as client:
            server.send_signal(signum)
            assert client.makefile("rb").read() == b"INFO server-shutdown\n"
        assert wait_at_most(server, 2) == 0


def test_a_server_whose_output_is_stuck_serves_and_stops_within_its_time_out_and_a_second(stuck: int):
    with running("-p", "0", "--shutdown-timeout", "1", stdout=stuck) as server:
        listening = server.stderr.readline()
        with log_in(int(re.search(r" listening .*port=(\d+)", listening)[1])) as client:
            server.send_signal(signal.SIGTERM)
            assert client.makefile("rb").read() == b"INFO server-shutdown\n"
        assert wait_at_most(server, 2) == 0


def test_a_server_whose_log_and_client_are_stuck_stops_within_its_time_out_and_a_second(stuck: int):
    with (
        running("-p", "0", "--rate", "0", "--shutdown-timeout", "0.5", stderr=stuck) as server,
        log_in(port_of(ready_lines(server)[0])) as client,
    ):
        ask_without_reading(client, server)
        server.send_signal(signal.SIGTERM)
        assert wait_at_most(server, 1.5) == 5


STUCK_MAIN_THREAD = textwrap.dedent("""
    import os, sys, threading
    from geventchat.cli import main
    from geventchat.server import Server

    def stop(server, timeout=None):
        os.write(1, b"stuck\\n")
        threading.Event().wait()

    Server.stop = stop
    sys.exit(main(sys.argv[1:]))
""")


def test_a_server_whose_main_thread_is_stuck_stops_within_its_time_out_and_a_second():
    words = ("-p", "0", "--shutdown-timeout", "0.5")
    with running(*words, program=("-c", STUCK_MAIN_THREAD)) as server:
        ready_lines(server)
        server.send_signal(signal.SIGTERM)
        assert wait_at_most(server, 1.5) == 5


def test_a_second_signal_ends_a_server_whose_main_thread_is_stuck():
    with running("-p", "0", program=("-c", STUCK_MAIN_THREAD)) as server:
        ready_lines(server)
        server.send_signal(signal.SIGTERM)
        while server.stdout.readline() != "stuck\n":
            assert server.poll() is None
        server.send_signal(signal.SIGINT)
        assert server.wait(HANG_S) == 128 + signal.SIGINT


def test_a_reader_of_the_ready_lines_that_goes_away_does_not_end_the_chat():
    with running("-p", "0") as server:
        port = port_of(ready_lines(server)[0])
        server.stdout.close()
        with log_in(port) as client:
            server.send_signal(signal.SIGTERM)
            assert client.makefile("rb").read() == b"INFO server-shutdown\n"
        assert server.wait(HANG_S) == 0


def close_standard_streams() -> None:
    for descriptor in (0, 1, 2):
        os.close(descriptor)


def test_a_server_without_standard_streams_serves_and_stops():
    port = free_port()
    with running(str(port), stdout=None, stderr=None, preexec_fn=close_standard_streams) as server:
        deadline = time.monotonic() + HANG_S
        while True:
            try:
                client = log_in(port)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                assert server.poll() is None
        with client:
            server.send_signal(signal.SIGTERM)
            assert client.makefile("rb").read() == b"INFO server-shutdown\n"
        assert server.wait(HANG_S) == 0


# --- The log ---------------------------------------------------------------------------------------------------------


def test_the_log_is_one_event_per_line_without_the_text_of_messages():
    with running("-p", "0", "--log-format", "json") as server:
        with log_in(port_of(ready_lines(server)[0])) as client:
            client.sendall(b"MSG secret words\nQUIT\n")
            client.makefile("rb").read()
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=HANG_S)
    events = [json.loads(line) for line in err.splitlines()]
    assert [event["event"] for event in events] == [
        *("listening", "passwords-in-clear", "connected", "login", "disconnected", "stopping", "stopped")
    ]
    del events[1]
    assert events[1] | {"conn": 1, "address": "127.0.0.1", "dialect": "line"} == events[1]
    assert events[2]["name"] == "alice"
    assert events[3] | {"conn": 1, "name": "alice", "reason": "quit"} == events[3]
    assert "secret" not in err


def test_messages_are_logged_on_request():
    with running("-p", "0", "--log-messages") as server:
        with log_in(port_of(ready_lines(server)[0])) as client:
            client.sendall(b"MSG not so secret\nDM alice a note\nQUIT\n")
            client.makefile("rb").read()
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=HANG_S)
    assert re.search(r'INFO message name=alice text="not so secret"\n', err)
    assert re.search(r'INFO message name=alice to=alice text="a note"\n', err)


def test_stopping_loses_no_log_line_though_their_reader_is_slow():
    read, write = os.pipe()
    os.set_blocking(write, False)
    with os.fdopen(read, "rb") as reader, running("-p", "0", "--log-messages", stderr=write) as server:
        os.close(write)
        with log_in(port_of(ready_lines(server)[0])) as client:
            # In the log this is more than the pipe holds, and less than what a client can say at once.
            client.sendall(b"".join(b"MSG %d %s\n" % (number, b"x" * 900) for number in range(150)))
            client.sendall(b"PING\n")
            assert client.recv(100) == b"PONG\n"
            server.send_signal(signal.SIGTERM)
            assert client.makefile("rb").read() == b"INFO server-shutdown\n"
        log = reader.read().decode().splitlines()
        assert server.wait(HANG_S) == 0
    texts = [line.partition('text="')[2] for line in log if " message " in line]
    assert texts == [f'{number} {"x" * 900}"' for number in range(150)]
    assert log[-1].endswith(" INFO stopped orderly=True")
