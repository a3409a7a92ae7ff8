"""The server under systemd: notifications, the watchdog, inherited sockets, and the unit."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from geventchat.clock import SystemClock
from geventchat.daemon import Process
from geventchat.server import _import_service
from geventchat.settings import SERVICES, ConfigError, resolve
from geventchat.systemd import Notifier, inherited_sockets, watchdog_s
from tests.geventchat.processes import MODULE, environment, port_of, ready_lines
from tests.patience import HANG_S, until

DEPLOY = Path(__file__).resolve().parents[2] / "docs/deploy"


def test_a_server_tells_systemd_how_it_is_and_serves_the_sockets_that_it_inherits(tmp_path: Path):
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(tmp_path / "notify"))
    notified.settimeout(HANG_S)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def inherit() -> None:
        os.dup2(listening.fileno(), 3)

    variables = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "300000",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "slash",
    }
    # Only the shell knows the process id, which it keeps.
    words = [
        "/bin/sh",
        "-c",
        'LISTEN_PID=$$ exec "$@"',
        "sh",
        sys.executable,
        *MODULE,
        "0",
        "--host",
        "127.0.0.1",
    ]
    with subprocess.Popen(
        [*words, "--listen", "slash://:1", "--listen", "slash://127.0.0.1:2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**variables),
        preexec_fn=inherit,
        pass_fds=(3,),
    ) as server:
        try:
            line, slash, _ = ready_lines(server)
            assert slash == f"[SERVER] Chat server started on 127.0.0.1:{port} (slash)"
            heard = [notified.recv(1000).decode() for _ in range(2)]
            assert heard == [
                "READY=1\nSTATUS=0 people, 0 connections",
                "WATCHDOG=1\nSTATUS=0 people, 0 connections",
            ]
            for at, hello in ((port, b"alice\n"), (port_of(line), b"LOGIN bob\n")):
                with socket.create_connection(("127.0.0.1", at)) as client:
                    client.sendall(hello)
                    assert client.recv(10)
            server.send_signal(signal.SIGHUP)
            assert until(lambda: heard.append(notified.recv(1000).decode()) or heard[-1].startswith("READY"))
            assert re.search(r"^RELOADING=1\nMONOTONIC_USEC=\d+$", "\n".join(heard), re.MULTILINE)
            server.terminate()
            assert until(lambda: heard.append(notified.recv(1000).decode()) or heard[-1] == "STOPPING=1")
            logged = server.communicate(timeout=HANG_S)[1]
            replaced = re.findall(r" listen-replaced listen=(.*)$", logged, re.MULTILINE)
            assert replaced == ["slash://:1", "slash://127.0.0.1:2"]
            assert server.returncode == 0
        finally:
            server.kill()
    notified.close()
    listening.close()


def test_without_systemd_nothing_happens(tmp_path: Path):
    Notifier({}).notify("READY=1")
    Notifier({"NOTIFY_SOCKET": "nonsense"}).notify("READY=1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nowhere")}).notify("READY=1")
    Notifier({"NOTIFY_SOCKET": "@no-listener"}).notify("READY=1")
    assert watchdog_s({}) is None
    assert watchdog_s({"WATCHDOG_USEC": "0"}) is None
    assert watchdog_s({"WATCHDOG_USEC": "soon"}) is None
    assert watchdog_s({"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_s({"WATCHDOG_USEC": "5000000"}) == 5
    assert inherited_sockets({"LISTEN_FDS": "1", "LISTEN_PID": "1"}) == []
    assert inherited_sockets({"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())}) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "geventchat.socket",
            "listen: FileDescriptorName=geventchat.socket of a socket of systemd is not line, ",
        ),
        ("", "listen: FileDescriptorName= of a socket of systemd is not line, "),
        ("line", "listen: the socket of systemd for line does not listen, or is of another kind"),
    ],
)
def test_a_socket_that_cannot_be_served_is_an_error(
    names: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        monkeypatch.setattr("geventchat.systemd._FIRST_DESCRIPTOR", os.dup(other.fileno()))
        with pytest.raises(ConfigError, match="^" + re.escape(message)):
            inherited_sockets({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": names})


@pytest.mark.parametrize("lag_s", [0.0, 59.0, 61.0, math.inf])
def test_the_watchdog_hears_nothing_while_the_disk_does_not_answer(lag_s: float):
    said: list[str] = []
    server = SimpleNamespace(
        storage=SimpleNamespace(lag_s=lag_s), clients=0, context=SimpleNamespace(chat=())
    )
    process = Process(server, resolve({}, {}, None), dict, (), None, None, SystemClock(), None)  # type: ignore[arg-type]
    process._watchdog_s = 60
    process._notifier = SimpleNamespace(notify=lambda *lines: said.extend(lines))  # type: ignore[assignment]
    process._tend()
    process.stopping()
    assert ("WATCHDOG=1" in said) is (lag_s < 60)


def test_as_the_first_process_of_a_container_it_reaps_orphans_and_obeys_signals():
    alone = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    try:
        subprocess.run(["unshare", *alone, "--pid", "--fork", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system cannot create a PID namespace")
    words = ["unshare", *alone, "--pid", "--fork", "--kill-child", sys.executable, *MODULE, "0"]
    with subprocess.Popen(
        [*words, "--host", "127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(WATCHDOG_USEC="300000"),
    ) as unshare:
        try:
            ready_lines(unshare)
            (server,) = children(unshare.pid)
            inside = [
                "nsenter",
                f"--target={server}",
                "--pid",
                *(["--user"] if alone else []),
                "/bin/sh",
                "-c",
            ]
            # The shell ends at once, and what it has started is left to the first process.
            subprocess.run([*inside, "sleep 0.2 & sleep 0.3 &"], check=True)
            assert until(lambda: bool(children(server)))
            assert until(lambda: not children(server))
            subprocess.run([*inside, "kill -TERM 1"], check=True)
            assert unshare.wait(HANG_S) == 0
        finally:
            unshare.kill()


def children(pid: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


@pytest.mark.parametrize("path", ["deploy/geventchat.service", "deploy/Dockerfile", "operations.md"])
def test_what_is_installed_serves_every_address(path: str):
    for package in ("prometheus_client", "websockets"):
        pytest.importorskip(package, reason=f"{package} is not installed (pip install -e '.[test]')")
    needed = {name for name in SERVICES if _import_service(name) is not None}
    commands = re.findall(r"bin/pip install .*?'[^']+\[([\w,]+)\]'", (DEPLOY.parent / path).read_text())
    assert commands
    assert all(set(extras.split(",")) == needed for extras in commands)


def unit() -> dict[str, str]:
    """The last value of each setting of the unit."""
    pairs = re.findall(r"^(\w+)=(.*)$", (DEPLOY / "geventchat.service").read_text(), re.MULTILINE)
    return dict(pairs)


def test_the_unit_waits_for_a_server_that_reads_a_large_database():
    assert unit()["TimeoutStartSec"] == "infinity"


def test_the_unit_shows_the_server_what_the_metrics_of_its_process_need(tmp_path: Path):
    """They need the boot time, from /proc/stat, which is not the directory of a process."""
    prometheus_client = pytest.importorskip(
        "prometheus_client", reason="prometheus_client is not installed (pip install -e '.[test]')"
    )
    shown = tmp_path / "proc"
    shown.mkdir()
    for path in Path("/proc").iterdir():
        if unit().get("ProcSubset") != "pid" or path.name.isdigit() or path.name == "self":
            (shown / path.name).symlink_to(path)
    collector = prometheus_client.ProcessCollector(proc=str(shown), registry=None)
    assert {family.name for family in collector.collect()} >= {"process_open_fds", "process_cpu_seconds"}


def test_the_unit_is_hardened():
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (sudo .ci/packages)")
    words = [analyze, "security", "--offline=yes", "--threshold=19", str(DEPLOY / "geventchat.service")]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=HANG_S, check=False)
    found = re.search(r"exposure level for geventchat.service: ([\d.]+)", ended.stdout)
    assert found is not None, ended.stdout + ended.stderr
    assert float(found[1]) < 2.0
