"""One running program replaces another, as people run them: no client loses a line, or its connection."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.certificates import made_certificate
from tests.geventchat.processes import called, environment, ready_lines, running
from tests.patience import HANG_S, until

CODE = "from geventchat.cli import main; raise SystemExit(main())"


class Client:
    """Someone with nc."""

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
        return self.lines.readline().decode().rstrip("\n")

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
        self._path = str(path)
        self._clients: list[Client] = []

    def connect(self, scheme: str = "line", name: str = "", wrap: Any = None) -> Client:
        client = Client(self.ports[scheme], name, wrap)
        self._clients.append(client)
        return client

    def connect_to(self, path: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        return sock

    def admin(self, *words: str) -> tuple[int, str]:
        """The exit code of an act, and what it prints."""
        done = called("admin", *words, "--admin-socket", self._path)
        return done.returncode, done.stdout + done.stderr

    @property
    def pid(self) -> int:
        code, out = self.admin("status", "--json")
        assert code == 0, out
        pid: int = json.loads(out)["pid"]
        return pid

    def is_replaced(self, before: int) -> bool:
        """True when another process answers. None can, at the moment of the change."""
        code, out = self.admin("status", "--json")
        return code == 0 and json.loads(out)["pid"] != before

    def upgrade(self, python: str = "") -> None:
        before = self.pid
        code, out = self.admin("upgrade", *(("--python", python) if python else ()))
        assert code == 0, out
        assert self.pid != before

    def fail_to_upgrade(self, python: str) -> str:
        """What is said of a program that cannot take over; the old one goes on."""
        before = self.pid
        code, out = self.admin("upgrade", "--python", python)
        assert code == 1, out
        assert self.pid == before
        return out

    def close(self) -> None:
        for client in self._clients:
            client.close()
        os.kill(self.pid, signal.SIGTERM)
        assert until(lambda: self.admin("status")[0] == 4)


@contextmanager
def world_of(folder: Path, *words: str) -> Iterator[World]:
    admin = ("--admin-socket", str(folder / "admin"))
    # The pipes of the first process are also those of the others; standard error is not read.
    log = (folder / "log").open("w")
    with (
        log,
        running("0", "--host", "127.0.0.1", "--idle-timeout", "0", *admin, *words, stderr=log) as server,
    ):
        world = World(server, folder / "admin")
        try:
            yield world
        finally:
            world.close()


def program(folder: Path, code: str) -> str:
    """An interpreter that runs this before `geventchat`: another version of it."""
    path = folder / "python"
    shell = f'#!/bin/sh\nshift 2\nexec {sys.executable} -c {shlex.quote(code + CODE)} "$@"\n'
    path.write_text(shell)
    path.chmod(0o755)
    return str(path)


# --- Those who notice nothing ----------------------------------------------------------------------------------------


def test_nobody_loses_a_line_while_the_program_is_replaced_again_and_again(tmp_path: Path):
    data = ("--data", str(tmp_path / "data"))
    with world_of(tmp_path, *data, "--listen", "slash://127.0.0.1:0", "--rate", "0") as world:
        speaker, listener, typist = (world.connect(name=name) for name in ("ann", "ben", "cat"))
        # Reads nothing before the end.
        sleeper = world.connect(name="dan")
        slash = world.connect("slash")
        for one in (speaker, listener, typist, sleeper):
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

        talking = Thread(target=speak)
        talking.start()
        try:
            world.upgrade()
            assert "has ended" in world.fail_to_upgrade("/bin/true")
            world.upgrade()
            os.kill(before := world.pid, signal.SIGUSR2)
            assert until(lambda: world.pid != before)
        finally:
            over.set()
            talking.join()
        typist.send(" the rest\n")
        expected = [f"MSG ann {number}" for number in range(said)]
        for one in (listener, sleeper):
            heard = [one.hear() for _ in range(said + 1)]
            while len(said_here := [line for line in heard if line.startswith("MSG ")]) < said + 1:
                heard.append(one.hear())
            assert "MSG cat half of a line, and the rest" in said_here
            assert [line for line in said_here if line.startswith("MSG ann ")] == expected
        assert slash.ask("/help")


def test_websockets_move_and_those_with_tls_are_told_to_connect_again(tmp_path: Path):
    client = pytest.importorskip("websockets.sync.client")
    made = made_certificate()
    tls = ("--listen", "line+tls://127.0.0.1:0", "--tls-cert", str(made.cert), "--tls-key", str(made.key))
    with world_of(tmp_path, "--listen", "web://127.0.0.1:0", *tls) as world:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        secret = world.connect("line+tls", "sue", context.wrap_socket)
        ann = world.connect(name="ann")
        with client.connect(f"ws://127.0.0.1:{world.ports['web']}/ws", open_timeout=HANG_S) as page:
            page.send('{"type": "join", "v": 2, "username": "wes"}')
            heard = [json.loads(page.recv(HANG_S)) for _ in range(1)]
            world.upgrade()
            page.send('{"type": "chat", "room": "lobby", "message": "still here"}')
            while "still here" not in (line := ann.hear()):
                assert line, heard
            assert line == "MSG wes still here"
        rest = secret.lines.read().decode().splitlines()
        assert "INFO server-shutdown" in rest


# --- Those who cannot take over --------------------------------------------------------------------------------------

BROKEN = {
    "does not start": ("raise SystemExit(7); ", "exit code 7"),
    "another state": (
        "import geventchat.handover as one; one.STATE_VERSION = 99; ",
        "version 99 of the state",
    ),
    "understands nothing": (
        "import geventchat.server as one; one.Server._take_over = lambda self, handed: 1 / 0; ",
        "division by zero",
    ),
    "ends when it has the state": (
        "import os, geventchat.handover as one; one.Predecessor.understood = lambda self: os._exit(9); ",
        "exit code 9",
    ),
}


def test_programs_that_cannot_take_over_change_nothing(tmp_path: Path):
    data = ("--data", str(tmp_path / "data"))
    with world_of(tmp_path, *data, "--listen", f"line+unix://{tmp_path}/chat") as world:
        ann, ben = world.connect(name="ann"), world.connect(name="ben")
        for code, why in BROKEN.values():
            ann.send("MSG begun, ")
            assert why in world.fail_to_upgrade(program(tmp_path, code))
            ann.send(f"done: {why}\n")
            assert ben.hear() == f"MSG ann begun, done: {why}"
            world.connect_to(tmp_path / "chat").close()
        # A sound one can.
        world.upgrade()
        assert ben.ask("HISTORY").endswith("ann begun, done: exit code 7")
        world.connect_to(tmp_path / "chat").close()


def test_a_program_with_other_addresses_closes_those_that_are_gone(tmp_path: Path):
    settings = tmp_path / "chat.toml"
    settings.write_text('listen = ["slash://127.0.0.1:0"]\n')
    with world_of(tmp_path, "--config", str(settings)) as world:
        ann = world.connect(name="ann")
        settings.write_text("greeting = 'new'\n")
        world.upgrade()
        assert ann.ask("PING") == "PONG"
        with pytest.raises(ConnectionRefusedError):
            world.connect("slash")


def test_the_first_process_of_a_container_stays_and_says_why(tmp_path: Path):
    words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces here")
    admin = str(tmp_path / "admin")
    command = [
        *words,
        sys.executable,
        "-m",
        "geventchat",
        "0",
        "--host",
        "127.0.0.1",
        "--admin-socket",
        admin,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as server:
        try:
            ready_lines(server)
            done = called("admin", "upgrade", "--admin-socket", admin)
            assert done.returncode == 1
            assert "first process of a container" in done.stderr + done.stdout
        finally:
            called("admin", "kick", "nobody", "--admin-socket", admin)
            server.send_signal(signal.SIGKILL)
