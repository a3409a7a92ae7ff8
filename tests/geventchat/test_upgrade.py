"""A running program is replaced by another, as operators do it: no client loses a line or its connection."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest

from geventchat import Config, Listen, Server
from geventchat.admin.protocol import encode
from geventchat.clock import SystemClock
from geventchat.daemon import Process
from geventchat.handover import Buffers, HandoverFailed, Successor
from geventchat.services.storage.schema import MIGRATIONS
from geventchat.settings import resolve
from tests.certificates import made_certificate
from tests.geventchat.processes import called, environment, ready_lines, running
from tests.patience import HANG_S, until

ROOT = str(Path(__file__).resolve().parents[2])
START = "from geventchat.cli import main; raise SystemExit(main())"


class Client:
    """A client that sends and receives lines, like nc."""

    def __init__(self, port: int, name: str = "", wrap: Any = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), HANG_S)
        if wrap is not None:
            self.socket = wrap(self.socket)
        self.lines = self.socket.makefile("rb")
        if name:
            assert self.ask(f"LOGIN {name}") == "OK"

    def send(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def hear(self) -> str:
        line = self.lines.readline().decode()
        assert line.endswith("\n"), "the connection is lost"
        return line[:-1]

    def ask(self, line: str) -> str:
        self.send(line + "\n")
        return self.hear()

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


class World:
    """A server with an admin socket, whose process changes."""

    def __init__(self, server: subprocess.Popen[str], path: Path) -> None:
        self.server = server
        self.ports = {}
        for line in ready_lines(server):
            if found := re.search(r":(\d+)(?: \(([\w+]+)\))?$", line):
                self.ports[found[2] or "line"] = int(found[1])
        self.path = str(path)
        self._clients: list[Client] = []

    def connect(self, scheme: str = "line", name: str = "", wrap: Any = None) -> Client:
        client = Client(self.ports[scheme], name, wrap)
        self._clients.append(client)
        return client

    def ask(self, act: str, **fields: str) -> dict[str, Any]:
        """The last line of the answer."""
        with self.ask_and_go(act, **fields) as asking, asking.makefile("rb") as lines:
            for line in lines:
                answer: dict[str, Any] = json.loads(line)
                if "progress" not in answer:
                    return answer
        raise ConnectionResetError(f"{act}: no answer")

    def ask_and_go(self, act: str, **fields: str) -> socket.socket:
        """The connection on which this request was sent."""
        asking = socket.socket(socket.AF_UNIX)
        try:
            asking.settimeout(HANG_S)
            asking.connect(self.path)
            asking.sendall(encode({"act": act, **fields}))
        except OSError:
            asking.close()
            raise
        return asking

    @property
    def pid(self) -> int:
        pid: int = self.ask("status")["done"]["pid"]
        return pid

    def is_replaced(self, before: int) -> bool:
        """True when another process answers. At the moment of the change no process does."""
        try:
            return self.pid != before
        except ConnectionError:
            return False

    def is_gone(self) -> bool:
        try:
            return self.pid < 0
        except OSError:
            return True

    def audited(self) -> list[list[str]]:
        """Who has done what, and the target and the detail, but for process ids."""
        done = called("admin", "audit", "--json", "--admin-socket", self.path)
        assert done.returncode == 0, done.stderr
        return [
            [one["by"], one["act"], one["target"], re.sub(r"process \d+", "process", one["detail"])]
            for one in json.loads(done.stdout)
        ]

    def upgrade(self, python: str) -> None:
        before = self.pid
        other = ("--python", python) if python else ()
        done = called("admin", "upgrade", *other, "--admin-socket", self.path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert self.pid != before

    def fail_to_upgrade(self, python: str = "") -> str:
        """Try to upgrade, and return the error; the old program goes on."""
        before = self.pid
        answer = self.ask("upgrade", **({"python": python} if python else {}))
        assert "error" in answer, answer
        assert self.pid == before
        message: str = answer["error"]["message"]
        return message

    def close(self) -> None:
        for client in self._clients:
            client.close()
        with suppress(OSError):
            # It can have stopped already.
            pid = self.pid
            os.kill(pid, signal.SIGTERM)
            # Not only its sockets: it still writes what was said.
            assert until(lambda: has_ended(pid))


def has_ended(pid: int) -> bool:
    try:
        # Of a process that nobody has waited for, nothing is left there.
        return not Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


@contextmanager
def world_of(
    folder: Path, *words: str, code: str = START, passed: Sequence[int] = (), **more: str
) -> Iterator[World]:
    admin = ("--admin-socket", str(folder / "admin"))
    # The pipes of the first process are also those of the others; standard error is not read.
    log = (folder / "log").open("w")
    options = ("0", "--host", "127.0.0.1", "--idle-timeout", "0", *admin, *words)
    with log, running(*options, program=("-c", code), stderr=log, env=more, pass_fds=passed) as server:
        world = World(server, folder / "admin")
        try:
            yield world
        finally:
            world.close()


def program(folder: Path, code: str, *options: str) -> str:
    """An interpreter that runs this in place of `geventchat`."""
    path = folder / "python"
    command = shlex.join([sys.executable, *options, "-c", code])
    path.write_text(f'#!/bin/sh\nshift 3\nexec {command} "$@"\n')
    path.chmod(0o755)
    return str(path)


# --- Upgrades that succeed -------------------------------------------------------------------------------------------

SETTINGS = """
    listen = [{listen}]
    tls-cert = "{made.cert}"
    tls-key = "{made.key}"
"""


def settings(path: Path, *listen: str) -> None:
    made = made_certificate()
    path.write_text(SETTINGS.format(made=made, listen=", ".join([f'"{one}"' for one in listen])))


def test_no_client_loses_a_line_while_the_program_is_replaced_repeatedly(tmp_path: Path):
    client = pytest.importorskip("websockets.sync.client")
    config = tmp_path / "chat.toml"
    kept = [f"line+unix://{tmp_path}/chat", "web://127.0.0.1:0", "line+tls://127.0.0.1:0"]
    settings(config, "slash://127.0.0.1:0", *kept)
    virtual = tmp_path / "virtual/bin/python"
    virtual.parent.mkdir(parents=True)
    virtual.symlink_to(sys.executable)
    # So that it finds the packages of this one.
    (tmp_path / "virtual/pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    (tmp_path / "virtual/lib").symlink_to(Path(sys.prefix) / "lib")
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(tmp_path / "notify"))
    data = ("--data", str(tmp_path / "data"), "--config", str(config), "--rate", "0")
    with (
        notified,
        world_of(tmp_path, *data, NOTIFY_SOCKET=str(tmp_path / "notify")) as world,
    ):
        speaker, listener, typist, asker = (world.connect(name=name) for name in ("ann", "ben", "cat", "eve"))
        # Reads nothing before the end.
        sleeper = world.connect(name="dan")
        slash = world.connect("slash")
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        secret = world.connect("line+tls", "sue", tls.wrap_socket)
        for one in (speaker, listener, typist, asker, sleeper):
            one.send("JOIN dev\n")
            while one.hear() != "OK":
                pass
        typist.send("MSG half of a line, and")
        over = Event()
        said = 0

        def speak() -> None:
            nonlocal said
            while not over.wait(0.002):
                speaker.send(f"MSG {said}\n")
                said += 1

        answers: list[list[str]] = []

        def ask() -> None:
            # Long answers, one of which is being sent at any moment.
            while not over.wait(0.01):
                answers.append([asker.ask("HISTORY\nWHO\nPING")])
                while answers[-1][-1] != "PONG":
                    answers[-1].append(asker.hear())

        threads = [Thread(target=speak), Thread(target=ask)]
        for thread in threads:
            thread.start()
        try:
            with client.connect(
                f"ws://127.0.0.1:{world.ports['web']}/ws", open_timeout=HANG_S, close_timeout=0
            ) as page:
                page.send('{"type": "join", "v": 2, "username": "wes", "rooms": {"dev": null}}')
                assert json.loads(page.recv(HANG_S))["type"] == "welcome"
                world.upgrade(str(virtual))
                new = world.pid
                assert Path(f"/proc/{new}/cmdline").read_bytes().startswith(bytes(virtual))
                assert secret.lines.read().decode().splitlines()[-1] == "INFO server-shutdown"
                said_to_systemd = heard_by_systemd(notified)
                assert f"MAINPID={new}" in said_to_systemd
                assert said_to_systemd.count("READY=1") == 2
                # Of the process that asked, which the new one does not know.
                noted = re.compile(rf' admin act=upgrade by="pid {os.getpid()}, uid {os.geteuid()}" python=')
                assert until(lambda: bool(noted.search((tmp_path / "log").read_text())))
                page.send('{"type": "chat", "room": "dev", "message": "still here"}')
                settings(config, kept[0])
                assert "no longer have web://, and it has clients" in world.fail_to_upgrade()
                settings(config, *kept)
                os.kill(new, signal.SIGUSR2)
                assert until(lambda: world.is_replaced(new))
            # An address that was removed from the settings is closed; its clients stay connected.
            assert until(lambda: is_refused(world.ports["slash"]))
            assert slash.ask("/help")
            with socket.socket(socket.AF_UNIX) as local:
                local.connect(str(tmp_path / "chat"))
        finally:
            over.set()
            for thread in threads:
                thread.join()
        # Each answer is complete, and comes once.
        for answer in answers:
            people = [line for line in answer if line.startswith("USER ")]
            assert len(people) == 5 + ("USER wes" in people) == len(set(people)), people
        typist.send(" the rest\n")
        expected = [f"MSG ann {number}" for number in range(said)]
        for one in (listener, sleeper):
            heard: list[str] = []
            while len(heard) < said + 2:
                if (line := one.hear()).startswith("MSG "):
                    heard.append(line)
            heard.remove("MSG cat half of a line, and the rest")
            heard.remove("MSG wes still here")
            assert heard == expected


def heard_by_systemd(notified: socket.socket) -> list[str]:
    lines: list[str] = []
    while select.select([notified], [], [], 0)[0]:
        lines += notified.recv(1000).decode().splitlines()
    return lines


# A server to which systemd passes sockets, from the descriptor 3 on.
ACTIVATED = """
import os
for to, number in enumerate({numbers}, 3):
    os.dup2(number, to)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="{count}", LISTEN_FDNAMES="{names}")
{start}
"""


@contextmanager
def activated(folder: Path, sockets: Mapping[str, socket.socket], *words: str) -> Iterator[World]:
    # None of them among the descriptors that they get.
    numbers = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD_CLOEXEC, 100) for one in sockets.values()]
    code = ACTIVATED.format(numbers=numbers, count=len(numbers), names=":".join(sockets), start=START)
    try:
        with world_of(folder, *words, code=code, passed=numbers) as world:
            yield world
    finally:
        for number in numbers:
            os.close(number)


def test_an_upgrade_deletes_no_account_that_has_not_been_used_for_too_long(tmp_path: Path):
    config = tmp_path / "chat.toml"
    config.write_text("")
    with world_of(tmp_path, "--data", str(tmp_path / "data"), "--config", str(config)) as world:
        alice, bob = world.connect(name="alice"), world.connect(name="bob")
        assert [one.ask("REGISTER correct-horse") for one in (alice, bob)] == ["OK", "OK"]
        assert [bob.ask("QUIT"), alice.hear()] == ["Goodbye!", "INFO bob disconnected"]
        assert [alice.ask(line) for line in ("JOIN dev", "PRIVATE on", "MOD bob")] == ["OK", "OK", "OK"]
        # So short that both accounts have not been used for longer.
        config.write_text("unused-account-timeout = 0.001\n")
        world.upgrade(sys.executable)
        another = world.connect()
        assert another.ask("LOGIN bob") == "ERR password-required"
        assert another.ask("LOGIN bob correct-horse") == "OK"
        assert another.ask("JOIN dev") == "OK"
        # The account of a client that has been taken over is still its own.
        assert [alice.ask("TOKEN revoke"), alice.ask("UNMOD bob")] == ["OK", "OK"]


def test_a_new_program_disconnects_those_whom_its_ban_list_has_and_the_old_one_had_not(tmp_path: Path):
    banned = tmp_path / "banned"
    banned.write_text("")
    with world_of(tmp_path, "--ban-list", str(banned)) as world:
        eve, bob = world.connect(name="eve"), world.connect(name="bob")
        banned.write_text("name:eve spam\n")
        world.upgrade(sys.executable)
        assert [eve.hear(), eve.lines.readline()] == ["ERR banned", b""]
        assert bob.hear() == "INFO eve kicked"
        assert bob.ask("PING") == "PONG"


def test_an_upgrade_changes_the_modes_of_unix_sockets_and_removes_those_that_the_settings_no_longer_have(
    tmp_path: Path,
):
    file, kept, closed, new = (tmp_path / name for name in ("chat.toml", "kept", "closed", "new"))
    file.write_text(f'listen = ["line://127.0.0.1:0", "line+unix://{kept}", "line+unix://{closed}"]')
    words = ("--config", str(file), "--admin-socket", str(tmp_path / "admin"))
    with started_in(tmp_path, "-c", START, words=words) as world:
        file.write_text(
            f'listen = ["line://127.0.0.1:0", "line+unix://{kept}?mode=660", "line+unix://{new}"]'
        )
        world.upgrade("")
        assert until(lambda: not closed.exists())
        assert [stat.S_IMODE(path.stat().st_mode) for path in (kept, new)] == [0o660, 0o600]
        for path in (kept, new):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(HANG_S)
                client.connect(str(path))
                client.sendall(b"PING\n")
                assert client.recv(10)


def test_a_new_program_with_another_admin_socket_is_refused(tmp_path: Path):
    file = tmp_path / "chat.toml"

    def named(path: Path) -> None:
        file.write_text(f'port = 0\nhost = "127.0.0.1"\nadmin-socket = "{path}"')

    (tmp_path / "link").symlink_to(tmp_path)
    named(tmp_path / "admin")
    with started_in(tmp_path, "-c", START, words=("--config", str(file))) as world:
        for wanted in (tmp_path / "other", ""):
            named(wanted)
            assert "the new program has another admin socket; restart instead" in world.fail_to_upgrade()
            assert not (tmp_path / "other").exists()
        # The same one by another name.
        named(tmp_path / "link" / "admin")
        world.upgrade("")


def test_the_sockets_that_systemd_has_passed_go_on_from_one_program_to_the_next(tmp_path: Path):
    pytest.importorskip("websockets")
    path = tmp_path / "chat"
    with (
        socket.create_server(("127.0.0.1", 0)) as slash,
        socket.create_server(("127.0.0.1", 0)) as web,
        socket.socket(socket.AF_UNIX) as local,
    ):
        local.bind(str(path))
        local.listen()
        sockets = {"slash": slash, "web": web, "line+unix": local}
        # The address for `slash` is replaced, and the one for `line` is the server's own.
        with activated(tmp_path, sockets, "--listen", "slash://127.0.0.1:1") as world:
            listening = world.ask("status")["done"]["listening"]
            assert [one.partition("://")[0] for one in listening] == ["line", *sockets]
            assert world.ports["slash"] == slash.getsockname()[1]
            ann, ben = world.connect(name="ann"), world.connect("slash")
            assert ben.ask("ben").startswith("[join] ben")
            for number in range(2):
                world.upgrade(sys.executable)
                assert world.ask("status")["done"]["listening"] == listening
                ann.send(f"MSG {number}\n")
                while ben.hear() != f"ann: {number}":
                    pass
                assert world.connect("slash").ask(f"new{number}").startswith(f"[join] new{number}")
                assert world.connect(name=f"own{number}").ask("PING") == "PONG"
                with urlopen(f"http://127.0.0.1:{world.ports['web']}/", timeout=HANG_S) as page:
                    assert page.status == 200
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(HANG_S)
                    client.connect(str(path))
                    client.sendall(b"PING\n")
                    assert client.recv(100) == b"ERR must-login-first\n"
        # They stay open for the next server, and so does the file of the Unix socket.
        assert not is_refused(slash.getsockname()[1])
        assert path.is_socket()


# A program without a package, which ends as soon as it takes over clients.
WITHOUT = """
import os, sys
sys.modules["{package}"] = None
import geventchat.server as one
one.Server.start = lambda *handed_over: os._exit(9)
{start}
"""


def test_what_the_sockets_of_systemd_need_is_looked_for_while_clients_are_still_served(tmp_path: Path):
    packages = {"web": "websockets", "metrics": "prometheus_client"}
    for package in packages.values():
        pytest.importorskip(package)
    cert, key = (shutil.copy(file, tmp_path) for file in made_certificate())
    with ExitStack() as stack:
        # None of these has an address in the settings.
        sockets = {
            scheme: stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for scheme in (*packages, "line+tls")
        }
        world = stack.enter_context(activated(tmp_path, sockets, "--tls-cert", cert, "--tls-key", key))
        for scheme, package in packages.items():
            without = program(tmp_path, WITHOUT.format(package=package, start=START))
            assert world.fail_to_upgrade(without).startswith(
                f"the new program cannot take over: listen: {scheme}:// needs the package {package}: "
            )
        whole = program(tmp_path, WITHOUT.format(package="a package that nothing needs", start=START))
        assert "exit code 9" in world.fail_to_upgrade(whole)
        Path(cert).unlink()
        assert cert in world.fail_to_upgrade(whole)
        # They are still open, and so is the server.
        assert world.connect().ask("PING") == "ERR must-login-first"


def is_refused(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@pytest.mark.parametrize("kept", [True, False])
def test_the_audit_log_says_who_asked_for_an_upgrade_and_what_became_of_it(tmp_path: Path, kept: bool):
    ends = program(tmp_path, "raise SystemExit(7)")
    with world_of(tmp_path, *(("--data", str(tmp_path / "data")) if kept else ())) as world:
        why = world.fail_to_upgrade(ends).removesuffix("; everything is as before")
        expected = [
            ["geventchat admin", "upgrade", ends, "asked for"],
            ["geventchat admin", "upgrade failed", ends, why],
        ]
        assert "exit code 7" in why
        assert world.audited() == expected
        world.upgrade(sys.executable)
        expected += [
            ["geventchat admin", "upgrade", sys.executable, "asked for"],
            ["geventchat upgrade", "upgraded", "", "process"],
        ]
        assert world.audited() == expected
        before = world.pid
        os.kill(before, signal.SIGUSR2)
        assert until(lambda: world.is_replaced(before))
        expected += [
            ["SIGUSR2", "upgrade", "", "asked for"],
            ["geventchat upgrade", "upgraded", "", "process"],
        ]
        assert world.audited() == expected


# Like the script of a package that is installed, in whose `sys.path` the working directory is not.
SCRIPT = f"import sys; sys.path = [one for one in sys.path if one]; {START}"


@contextmanager
def started_in(directory: Path, *program: str, words: Sequence[str] = ()) -> Iterator[World]:
    """A server that is started in this directory, with an admin socket there."""
    words = words or ("0", "--host", "127.0.0.1", "--admin-socket", str(directory / "admin"))
    with (
        (directory / "log").open("w") as log,
        running(*words, program=program, cwd=directory, stderr=log) as server,
    ):
        world = World(server, directory / "admin")
        try:
            yield world
        finally:
            world.close()


@pytest.mark.parametrize("python", ["", sys.executable], ids=["the same", "another"])
def test_a_new_program_imports_nothing_from_the_working_directory(tmp_path: Path, python: str):
    (tmp_path / "geventchat").mkdir()
    for name in ("geventchat/__init__.py", "geventchat/__main__.py", "json.py"):
        (tmp_path / name).write_text("import os; os._exit(9)")
    with started_in(tmp_path, "-c", SCRIPT) as world:
        for _ in range(2):
            world.upgrade(python)
            # It is still found by its command line.
            status = called("admin", "status", "--json", "--pid", str(world.pid))
            assert json.loads(status.stdout)["pid"] == world.pid


def test_a_program_that_was_found_in_the_working_directory_is_found_there_again(tmp_path: Path):
    shutil.copytree(
        Path(ROOT, "geventchat"), tmp_path / "geventchat", ignore=shutil.ignore_patterns("__pycache__")
    )
    with (tmp_path / "geventchat" / "cli.py").open("a") as clone:
        clone.write("\nprint('from the clone', file=sys.stderr)\n")

    def times() -> int:
        return (tmp_path / "log").read_text().count("from the clone")

    with started_in(tmp_path, "-m", "geventchat") as world:
        world.upgrade("")
        assert times() == 2
        # That of another environment is found in that environment.
        world.upgrade(sys.executable)
        assert times() == 2


def test_the_interpreter_in_the_audit_log_is_cut(tmp_path: Path):
    with world_of(tmp_path, "--data", str(tmp_path / "data")) as world:
        world.fail_to_upgrade("/" + 9_000 * "x")
        targets = [[act, target] for _, act, target, _ in world.audited()]
        assert targets == [[act, "/" + 299 * "x"] for act in ("upgrade", "upgrade failed")]


def test_the_old_program_logs_how_many_events_it_has_dropped(tmp_path: Path):
    with world_of(tmp_path, "--address-log-burst", "3", "--address-log-rate", "0.001") as world:
        for number in range(4):
            world.connect(name=f"user{number}")
        before = world.pid
        world.upgrade(sys.executable)
        assert until(lambda: has_ended(before))
        log = (tmp_path / "log").read_text()
        # Of eight, a `connected` and a `login` for each client.
        assert re.findall("log-suppressed .*", log) == ["log-suppressed address=127.0.0.1 events=5"]


def test_the_reason_in_the_audit_log_is_cut_and_can_be_kept(tmp_path: Path):
    # Half of a surrogate pair, which no storage keeps, and a letter on another line.
    refusing = "old.prepare(hello); old.refuse('\\ud800\\nx' + 9_000 * 'y'); time.sleep(99)"
    code = FAKE.format(root=ROOT, hello={"data": str(tmp_path / "data"), "database": len(MIGRATIONS)})
    with world_of(tmp_path, "--data", str(tmp_path / "data")) as world:
        world.fail_to_upgrade(program(tmp_path, code + refusing, "-S"))
        assert world.audited()[-1][-1] == "\ufffd\ufffdx" + 297 * "y"


# --- Upgrades that fail ----------------------------------------------------------------------------------------------

# A program that speaks the protocol of the handover, until something happens to it.
FAKE = """
import os, pathlib, sys, time
sys.path.insert(0, {root!r})
import geventchat.handover as one
old = one.Predecessor.find(os.environ)
hello = {hello}
"""
STEPS = (
    "",
    "old.prepare(hello)",
    "list(old.receive().parts)",
    "old.understood()",
)
OTHERS = {
    "raise SystemExit(7)": "exit code 7",
    "one.STATE_VERSION = 99; old.prepare(hello)": "version 99 of the state",
    "old.prepare({'data': '/elsewhere'})": "another data directory",
    "old._socket.sendall(b'x\\n'); time.sleep(99)": "does not answer",
    "old._socket.sendall(b'[]\\n'); time.sleep(99)": "version None of the state",
}
# It fails as late as it can, when it has begun to write.
LATE = f"import geventchat.server as one; one.Server._listen = lambda self: 1 / 0; {START}"
# A server whose patience ends when a program that it waits for says in a file that it hangs.
IMPATIENT = f"""
import os
import geventchat.handover as one
countdown = one.Successor._countdown
def impatient(self, within_s):
    left_s = countdown(self, within_s)
    return lambda: left_s() - 99 * os.path.exists({{hangs!r}})
one.Successor._countdown = impatient
one._UNDERSTOOD_S = one._SERVING_S = 0.2
{START}
"""


def test_programs_that_cannot_take_over_change_nothing(tmp_path: Path):
    data, hangs = tmp_path / "data", tmp_path / "hangs"
    said: list[str] = []

    def attempt(world: World, python: str, why: str) -> None:
        ann.send("MSG begun, ")
        assert why in world.fail_to_upgrade(python)
        said.append(f"done: {why}")
        ann.send(f"{said[-1]}\n")
        assert ben.hear() == f"MSG ann begun, {said[-1]}"
        assert not Path(f"/proc/{world.pid}/task/{world.pid}/children").read_text()

    def fake(steps: int, end: str) -> str:
        code = FAKE.format(root=ROOT, hello={"data": str(data), "database": len(MIGRATIONS)})
        # Without installed packages, in half the time.
        return program(tmp_path, code + "\n".join([*STEPS[: steps + 1], end]), "-S")

    with world_of(tmp_path, "--data", str(data), code=IMPATIENT.format(hangs=str(hangs))) as world:
        ann, ben = world.connect(name="ann"), world.connect(name="ben")
        for steps in range(len(STEPS)):
            attempt(world, fake(steps, f"pathlib.Path({str(hangs)!r}).touch(); time.sleep(99)"), "within")
            hangs.unlink(missing_ok=True)
    with world_of(tmp_path, "--data", str(data)) as world:
        ann, ben = world.connect(name="ann"), world.connect(name="ben")
        for steps in range(len(STEPS)):
            attempt(world, fake(steps, "os._exit(9)"), "exit code 9")
        for end, why in OTHERS.items():
            attempt(world, fake(0, end), why)
        attempt(world, str(tmp_path / "nowhere"), "cannot start")
        attempt(world, program(tmp_path, LATE), "division by zero")
    # The history is kept, and its ids continue.
    with world_of(tmp_path, "--data", str(data)) as world:
        assert until(lambda: "epoch=kept" in (tmp_path / "log").read_text())
        ann = world.connect(name="ann")
        heard = [ann.ask("HISTORY"), *(ann.hear() for _ in said[1:])]
        assert [line.partition("begun, ")[2] for line in heard] == said


def test_a_program_whose_path_has_a_null_character_cannot_be_started():
    with pytest.raises(HandoverFailed, match=r"^cannot start /bin/\0: embedded null byte$"):
        Successor("/bin/\0", (), time.sleep, SystemClock())


def test_an_upgrade_yields_to_a_reload_and_goes_on_without_its_client(tmp_path: Path):
    go = tmp_path / "go"
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    with world_of(tmp_path) as world:
        ann, ben = world.connect(name="ann"), world.connect(name="ben")
        slow = program(tmp_path, wait + START)
        asking = world.ask_and_go("upgrade", python=slow)
        assert b"progress" in asking.recv(1000)
        assert "is being upgraded" in world.fail_to_upgrade()
        assert "done" in world.ask("reload")
        go.touch()
        with asking, asking.makefile("rb") as lines:
            assert b"the settings have been read again meanwhile" in lines.readline()
        go.unlink()
        before = world.pid
        with world.ask_and_go("upgrade") as asking:
            assert b"progress" in asking.recv(1000)
        assert until(lambda: has_ended(before))
        # Exactly one program serves.
        for number in range(20):
            ann.send(f"MSG {number}\n")
            assert ben.hear() == f"MSG ann {number}"
        # A program that has not taken over does not keep the server from stopping.
        with world.ask_and_go("upgrade", python=slow) as asking:
            assert b"progress" in asking.recv(1000)


def test_clients_that_write_to_people_who_are_away_do_not_prevent_an_upgrade(tmp_path: Path):
    data = ("--data", str(tmp_path / "data"), "--rate", "0")
    with world_of(tmp_path, *data) as world:
        for name in ("away", "ann", "ben"):
            client = world.connect(name=name)
            assert client.ask("REGISTER correct horse") == "OK"
            if name == "away":
                client.send("QUIT\n")
                continue
            # More than is kept in the time that an upgrade waits.
            client.send("DM away hi\n" * 10_000)
        assert "done" in world.ask("upgrade")


# A program that sends signals while nobody is served.
SIGNALLING = """
import os, signal
import geventchat.server as one
go_on = one.Server.go_on
def signalling(server):
    old, new = os.getppid(), os.getpid()
    {signals}
    return go_on(server)
one.Server.go_on = signalling
{start}
"""


def test_what_is_sent_to_the_old_program_while_nobody_is_served_reaches_the_new_one(tmp_path: Path):
    log = tmp_path / "log"

    def upgrade_and_send(*signals: str) -> None:
        code = SIGNALLING.format(signals="; ".join(f"os.kill({one})" for one in signals), start=START)
        assert "done" in world.ask("upgrade", python=program(tmp_path, code))

    with world_of(tmp_path) as world:
        ann = world.connect(name="ann")
        upgrade_and_send("old, signal.SIGHUP")
        assert until(lambda: " reloaded" in log.read_text())
        upgrade_and_send("old, signal.SIGUSR2")
        assert until(lambda: log.read_text().count(" upgraded ") == 3)
        upgrade_and_send("old, signal.SIGTERM")
        assert ann.hear() == "INFO server-shutdown"
        assert until(world.is_gone)
    assert log.read_text().count(" reloaded") == 1
    # To both of them, as Ctrl-C: that is not yet the second one, which would end the server at once.
    with world_of(tmp_path) as world:
        ann = world.connect(name="ann")
        upgrade_and_send("new, signal.SIGTERM", "old, signal.SIGTERM")
        assert ann.hear() == "INFO server-shutdown"
        assert until(lambda: "stopped orderly=True" in log.read_text())


def test_the_word_to_go_decides_which_program_serves_when_the_old_one_is_killed():
    server = Server(Config(listen=(Listen("line", "127.0.0.1", 0),)), log=lambda event, **fields: None)
    with server:
        words = ["0", "--host", "127.0.0.1"]
        ends, serves = (Successor(sys.executable, words, time.sleep, SystemClock()) for _ in range(2))
        try:
            for successor in (ends, serves):
                successor.hello()
                successor.prepare(server.state.ahead())
                buffers = Buffers()
                successor.hand_over(server.state.to_parts(buffers.keep), buffers)
            serves._send({"go": True})
            # As if the old process were killed.
            for successor in (ends, serves):
                successor._socket.close()
            assert ends._process.wait(HANG_S) == 1
            # The event loop of the old one does not run.
            client = Client(server.addresses["line"][1])
            assert client.ask("PING") == "ERR must-login-first"
            client.close()
        finally:
            ends.end()
            serves.end()


def test_a_server_that_is_being_stopped_hands_nothing_over():
    server: Any = SimpleNamespace(unready="stopping")
    nothing: Any = None
    process = Process(server, resolve({}, {}, None), dict, (), nothing, nothing, SystemClock(), nothing)  # type: ignore[arg-type]
    with pytest.raises(HandoverFailed, match="being stopped"):
        process._hand_over(nothing)


def test_the_first_process_of_a_container_stays_and_says_why(tmp_path: Path):
    words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces here")
    admin = str(tmp_path / "admin")
    options = ["0", "--host", "127.0.0.1", "--admin-socket", admin]
    command = [*words, sys.executable, "-m", "geventchat", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as server:
        try:
            ready_lines(server)
            done = called("admin", "upgrade", "--admin-socket", admin)
            assert done.returncode == 1
            assert "first process of a container" in done.stderr + done.stdout
        finally:
            called("admin", "kick", "absent", "--admin-socket", admin)
            server.send_signal(signal.SIGKILL)
