"""Command targets: free ports, when a server counts as started, its output, and that nothing outlives the run."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import gevent
import pytest
from gevent.server import StreamServer

from harness import (
    Address,
    Command,
    Fence,
    InProcess,
    InProcessAsyncio,
    Nodes,
    ServerSpec,
    Stage,
    Target,
    TargetError,
    UnsupportedSpec,
    parse,
    play,
)
from harness.playing.verdict import Outcome
from harness.report.styled_text import plain
from harness.report.text import report
from harness.targets.command import READY, claimed_port
from tests.patience import HANG_S, killed_at_the_end, until
from tests.ports import free_port

SERVER = Path(__file__).parent / "servers" / "threaded.py"
PYTHON = f"{shlex.quote(sys.executable)} -S"
PING = Fence("PING", ("PONG",))


def gone(pid: int) -> bool:
    """True if the process has ended, even if its status has not been collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def until_gone(pid: int) -> bool:
    return until(lambda: gone(pid))


def test_no_two_harnesses_choose_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each would find a server that listens, and one of them the other's."""
    port = free_port()
    monkeypatch.setattr("harness.targets.command._PORTS", range(port, port + 1))
    other = (
        "import sys; from harness import Command, Stage; import harness.targets.command as command\n"
        f"command._PORTS = range({port}, {port + 1})\n"
        "with Stage(Command([sys.executable, '-c', '', '{port}'])): pass\n"
    )
    # A program that never listens: the port is taken by the claim alone.
    waits = Command([sys.executable, "-S", "-c", "input()", "{port}"], ready="never", starts_within=0.3)
    with pytest.raises(TargetError, match="status 1 before it listened"):
        talks(waits)
    with claimed_port() as claimed:
        assert claimed == port
        with pytest.raises(TargetError, match="no free port"):
            talks(waits)
        ran = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, timeout=HANG_S)
        assert "TargetError: no free port" in ran.stderr
    talks(Command([sys.executable, "-S", str(SERVER), "{port}"]))


def talks(target: Command | Address) -> None:
    with Stage(target, fence=PING) as stage:
        alice = stage.client("alice")
        alice.send("LOGIN alice")
        alice.expect("OK")
        stage.settle()


@pytest.mark.parametrize(
    "target",
    [
        Command(f"{PYTHON} {SERVER} {{port}}"),
        Command([sys.executable, "-S", str(SERVER), "{port}"]),
        Command(f"{PYTHON} {SERVER} 0"),
        Command(f"{PYTHON} {SERVER} 0", ready=r"listening on port (\d+)"),
        Command(f"{PYTHON} {SERVER} {{port}}", ready=r"^listening"),
        Command(f"NAME=value {PYTHON} {SERVER} {{port}} | cat"),
    ],
    ids=["a string", "a list", "says its port", "a ready line", "a port and a ready line", "a shell's pipe"],
)
def test_a_command_is_started_used_and_ended(target: Command) -> None:
    talks(target)


@pytest.mark.parametrize(
    ("line", "port"),
    [
        ("listening on 127.0.0.1:4000", "4000"),
        ("[2026-11-28 12:30:45 +0000] [77] [INFO] Listening at: http://127.0.0.1:4000 (77)", "4000"),
        ("2026-11-28T12:30:45.1234+01:00 Port: 4000", "4000"),
        ("port=80", "80"),
        ("[::1]:4000", "4000"),
        ("12:30:45 starting", None),
        ("report 4000", None),
        ("id:123456", None),
    ],
)
def test_the_port_is_found_in_a_line_of_output(line: str, port: str | None) -> None:
    found = READY.search(line)
    assert (found and found["port"]) == port


def test_it_is_used_as_soon_as_it_listens_and_receives_no_connection_before() -> None:
    late = """
        import socket, time
        time.sleep(0.2)
        with socket.create_server(("127.0.0.1", {port})) as door:
            visitor, _ = door.accept()
            visitor.sendall(visitor.recv(9))
            time.sleep(60)
    """
    began = time.monotonic()
    with Stage(Command([sys.executable, "-S", "-c", textwrap.dedent(late)])) as stage:
        assert time.monotonic() - began >= 0.2
        alice = stage.client("alice")  # hers is the first connection that the server sees
        alice.send("me")
        alice.expect("me")


def test_several_endpoints_and_options_are_filled_in() -> None:
    program = """
        import socket, sys, time
        doors = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:3]]
        for door, text in zip(doors, ("line", "json")):
            door.accept()[0].sendall(f"{text} {sys.argv[3]}\\n".encode())
        time.sleep(600)
    """
    target = Command(
        [sys.executable, "-S", "-c", textwrap.dedent(program), "{port:line}", "{port:json}", "{idle=60}"]
    )
    with Stage(target, ServerSpec(("line", "json"), {"idle": "5"})) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.connect()
        alice.expect("line 5")
        bob.connect("json")
        bob.expect("json 5")
    with (
        pytest.raises(UnsupportedSpec, match="no option 'idel'; known: idle"),
        Stage(target, ServerSpec((), {"idel": "5"})),
    ):
        pass
    with (
        pytest.raises(UnsupportedSpec, match="no endpoint 'web'; known: line, json"),
        Stage(target, ServerSpec(("web",))),
    ):
        pass


TWO_LISTENERS = """
    import socket, sys, time
    doors = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:3]]
    for name, door in zip(("chat", "admin"), doors):
        print(f"{name} on port {door.getsockname()[1]}", flush=True)
    for name, door in zip(("chat", "admin"), doors):
        door.accept()[0].sendall(f"this is {name}\\n".encode())
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("ports", "ready"),
    [
        (("{port}", "{port:admin}"), None),
        (("{port}", "{port:admin}"), ("chat on", "admin on")),
        (("{port}", "0"), r"admin on port (?P<admin>\d+)"),
        (("0", "0"), (r"chat on port (\d+)", r"admin on port (?P<admin>\d+)")),
        (("0", "0"), (r"chat on port (?P<chat>\d+)", r"(?P<endpoint>admin) on port (?P<port>\d+)")),
    ],
    ids=["given", "given and ready lines", "one given, one said", "said", "said by name"],
)
def test_a_server_with_two_listeners_has_both(
    ports: tuple[str, str], ready: str | tuple[str, ...] | None
) -> None:
    target = Command([sys.executable, "-S", "-c", textwrap.dedent(TWO_LISTENERS), *ports], ready=ready)
    with Stage(target) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.connect()
        alice.expect("this is chat")
        bob.connect("admin")
        bob.expect("this is admin")


def test_a_ready_line_that_is_missing_is_named_with_all_of_them() -> None:
    target = Command(
        [sys.executable, "-S", "-c", textwrap.dedent(TWO_LISTENERS), "0", "0"],
        ready=(r"chat on port (\d+)", r"web on port (?P<web>\d+)"),
        starts_within=0.3,
    )
    message = r"wrote nothing that matches 'chat on .*' and 'web on .*' \(is its output buffered\?\)"
    with pytest.raises(TargetError, match=message), Stage(target):
        pass


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/no/such/program {port}", "cannot start '/no/such/program': No such file"),
        ("serve {port} --motd don't", r"No closing quotation in the command `serve \d+ --motd don't`"),
        ("", "the command is empty"),
        ([], "the command is empty"),
        (["", "{port}"], "cannot start ''"),
        (
            "sh -c 'echo no licence >&2; exit 3' {port}",
            "(?s)exited with status 3 before it listened.*no licence",
        ),
        (["sh", "-c", "kill -SEGV $$", "{port}"], "was killed by SIGSEGV"),
        (["sh", "-c", "kill -40 $$", "{port}"], "was killed by signal 40 before it listened"),
        ("sh -c 'echo thinking; sleep 60' {port}", "(?s)did not listen on port .* within 0.3 s.*thinking"),
        (
            "sh -c 'echo hello; sleep 60' 4000",
            r"(?s)4000 has no \{port\}: put it where the port belongs, or .*--ready.*within 0.3 s.*hello",
        ),
    ],
)
def test_a_command_that_does_not_start_says_why(command: str | list[str], message: str) -> None:
    began = time.monotonic()
    with pytest.raises(TargetError, match=message), Stage(Command(command, starts_within=0.3)):
        pass
    assert time.monotonic() - began < 9


DAEMON = """
    import os, signal, socket, sys, time
    port, order, pids = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    def listen():
        return socket.create_server(("127.0.0.1", port))
    door = listen() if order == "listens, forks" else None
    told, tell = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child:
        with open(pids, "a") as file:
            file.write(f"{child}\\n")
        for _ in range(2 if order == "forks, listens, tells" else 1):
            os.read(told, 1)
        os._exit(0)
    os.setsid()
    signal.alarm(80)
    os.write(tell, b"x")
    while order == "forks, listens" and os.getppid() == parent:
        time.sleep(0.01)
    door = door or listen()
    os.write(tell, b"x")
    while True:
        visitor, _ = door.accept()
        visitor.sendall(visitor.recv(9))
"""


MOTD = "serve {port} {motd=x}"


@pytest.mark.parametrize(
    ("target", "value", "message"),
    [
        (Command(MOTD), "it's", r"No closing quotation in the command `serve \d+ it's`"),
        (Nodes({"b": MOTD}), "it's", r"No closing quotation in the command `serve \d+ it's`"),
        (Command(MOTD), "a\0b", "cannot start 'serve': embedded null"),
        (Command("{motd=serve}"), "", "the command is empty"),
    ],
)
def test_an_option_that_spoils_the_command_is_an_error_of_the_target(
    target: Target, value: str, message: str
) -> None:
    with pytest.raises(TargetError, match=message), Stage(target, ServerSpec((), {"motd": value})):
        pass


@pytest.mark.parametrize("order", ["listens, forks", "forks, listens, tells", "forks, listens"])
@pytest.mark.parametrize("kind", ["command", "node"])
def test_a_server_that_puts_itself_into_the_background_is_an_error_of_the_target(
    order: str, kind: str, tmp_path: Path
) -> None:
    """Nothing would end it, and its death would not be seen. It is not tried again on another port."""
    pids = tmp_path / "pids"
    command = [sys.executable, "-S", "-c", textwrap.dedent(DAEMON), "{port}", order, str(pids)]
    target = Command(command) if kind == "command" else Nodes({"b": command})
    script = parse("alice> hi\nalice< hi\n\nwait 1s\nalice receives nothing\n")
    try:
        verdict = play(script, target)
    finally:
        left = [int(pid) for pid in pids.read_text().split()]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert verdict.outcome is Outcome.TARGET_ERROR, plain(report(verdict))
    assert len(left) == 1
    assert "exited with status 0" in verdict.reason
    assert "foreground" in verdict.reason


def test_every_process_that_it_started_ends_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = Command(
        f"sh -c 'sleep 600 & echo $! > {pids}; echo $$ >> {pids}; exec {PYTHON} {SERVER} {{port}}'"
    )
    with pytest.raises(ZeroDivisionError), Stage(command, fence=PING):
        raise ZeroDivisionError
    assert [until_gone(int(pid)) for pid in pids.read_text().split()] == [True, True]


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    program = """
        import os, signal, socket, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(sys.argv[2], "w").write(str(os.getpid()))
        socket.create_server(("127.0.0.1", int(sys.argv[1])))
        time.sleep(600)
    """
    pid = tmp_path / "pid"
    program = textwrap.dedent(program).replace("socket.create", "s = socket.create")
    with Stage(Command([sys.executable, "-S", "-c", program, "{port}", str(pid)])):
        pass
    assert until_gone(int(pid.read_text()))


def test_it_ends_even_if_the_test_run_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    run = f"""
        import os, time
        from harness import Command, Stage
        with Stage(Command("sh -c 'echo $$ > {pids}; exec {PYTHON} {SERVER} {{port}}'")):
            print("up", flush=True)
            time.sleep(600)
    """
    with killed_at_the_end(
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(run)], stdout=subprocess.PIPE)
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        assert not gone(int(pids.read_text()))
        running.send_signal(signal.SIGKILL)
    assert until_gone(int(pids.read_text()))


def test_each_script_gets_a_new_server_unless_it_is_shared() -> None:
    def visitors(target: Command) -> list[int]:
        seen = []
        for _ in range(3):
            with Stage(target, fence=PING) as stage:
                alice = stage.client("alice")
                alice.send("PING")
                seen.append(stage.server.process.pid)  # type: ignore[attr-defined]
                alice.expect("PONG")
        return seen

    assert len(set(visitors(Command(f"{PYTHON} {SERVER} {{port}}")))) == 3
    shared = Command(f"{PYTHON} {SERVER} {{port}}", shared=True)
    pids = set(visitors(shared))
    assert len(pids) == 1
    assert not gone(min(pids))
    shared.close()
    assert until_gone(min(pids))
    assert "restart" not in shared.features


def test_a_shared_server_has_noticed_that_the_clients_of_one_script_left_when_the_next_begins() -> None:
    program = """
        import socketserver, time
        taken = set()
        class Talk(socketserver.StreamRequestHandler):
            def handle(self):
                for line in self.rfile:
                    self.wfile.write(b"taken\\n" if line in taken else b"yours\\n")
                    taken.add(line)
                time.sleep(0.1)
                taken.clear()
        socketserver.ThreadingTCPServer(("127.0.0.1", {port}), Talk).serve_forever()
    """
    shared = Command([sys.executable, "-S", "-c", textwrap.dedent(program)], shared=True)
    script = parse("alice> alice\nalice< yours\n")
    try:
        for _ in range(3):
            verdict = play(script, shared)
            assert verdict.passed, plain(report(verdict))
        with Stage(shared) as stage:
            host, port = stage.address(None)
        assert play(script, Address(host, port)).passed
        assert play(script, Address(host, port)).passed
    finally:
        shared.close()


KEEPS = [
    sys.executable,
    "-S",
    "-c",
    "import socket; door = socket.create_server(('127.0.0.1', {port})); kept = [door.accept() for _ in range(9)]",
]


async def keeps(spec: ServerSpec) -> asyncio.Server:
    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer)

    kept: list[asyncio.StreamWriter] = []
    return await asyncio.start_server(keep, "127.0.0.1", 0)


@pytest.mark.parametrize(
    "target",
    [
        InProcess(lambda spec: StreamServer(("127.0.0.1", 0), lambda *_: gevent.sleep(1_000_000))),
        InProcessAsyncio(keeps),
        Command(KEEPS),
        Nodes({"only": KEEPS}),
    ],
    ids=["gevent", "asyncio", "command", "nodes"],
)
def test_a_server_that_no_other_script_meets_need_not_close_the_connections(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.stage.stage._CLOSES_WITHIN_S", 20.0)
    with Stage(target) as stage:
        stage.client("alice").connect()
        stage.fence()
        began = time.monotonic()
        stage.close_clients()
        assert time.monotonic() - began < 20


def test_a_shared_server_is_waited_for_until_it_has_closed_the_connections_or_for_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leaving_takes_s(target: Command, at_most_s: float) -> float:
        monkeypatch.setattr("harness.stage.stage._CLOSES_WITHIN_S", at_most_s)
        try:
            with Stage(target) as stage:
                stage.client("alice").connect()
                stage.fence()
                began = time.monotonic()
                stage.close_clients()
                return time.monotonic() - began
        finally:
            target.close()

    assert leaving_takes_s(Command(f"{PYTHON} {SERVER} {{port}}", shared=True), 20) < 20
    assert leaving_takes_s(Command(KEEPS, shared=True), 0.2) >= 0.2


def test_much_output_does_not_block_the_server_and_its_end_is_kept() -> None:
    program = """
        import socket, time
        door = socket.create_server(("127.0.0.1", {port}))
        print("x" * 20_000_000)
        print("last words", flush=True)
        visitor, _ = door.accept()
        visitor.sendall(b"here\\n")
        time.sleep(60)
    """
    with Stage(Command([sys.executable, "-S", "-c", textwrap.dedent(program)])) as stage:
        alice = stage.client("alice")
        alice.connect()
        alice.expect("here")
        assert stage.server_output().endswith("last words\n")
        stage.server.alive()
        assert 8_000 <= len(stage.server_output()) < 5_000_000
        output = stage.server.process._output.fileno()  # type: ignore[attr-defined]
        assert os.fstat(output).st_blocks * 512 < 5_000_000


def test_an_address_is_used_and_left_running() -> None:
    with Stage(Command(f"{PYTHON} {SERVER} {{port}}"), fence=PING) as stage:
        host, port = stage.address(None)
        for target in (Address(host, port), Address({"line": (host, port)})):
            talks(target)
        assert stage.alive()
        idle = Stage(Address(host, port), ServerSpec((), {"idle": "5"}))
        with pytest.raises(UnsupportedSpec, match="no option 'idle'"), idle:
            pass


def test_a_refused_connection_is_not_an_error() -> None:
    with Stage(Address("127.0.0.1", free_port())) as stage:
        alice = stage.client("alice")
        alice.connect()
        assert alice.end.value == "refused"
