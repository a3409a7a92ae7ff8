"""Command targets: the free port, the moment of answering, the last words, and that nothing outlives the run."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from harness import Address, Command, Fence, ServerSpec, Stage, TargetError, UnsupportedSpec

SERVER = Path(__file__).parent / "servers" / "threaded.py"
PYTHON = f"{shlex.quote(sys.executable)} -S"
PING = Fence("PING", ("PONG",))


def gone(pid: int) -> bool:
    """Whether the process has ended, be it that nobody has yet asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while not gone(pid) and time.monotonic() < deadline:
        os.sched_yield()
    return gone(pid)


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
def test_a_command_is_started_spoken_to_and_ended(target: Command) -> None:
    talks(target)


def test_it_is_spoken_to_as_soon_as_it_listens_and_not_touched_before() -> None:
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
        alice = stage.client("alice")  # the first connection there ever was is hers
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


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/no/such/program {port}", "cannot start '/no/such/program': No such file"),
        (
            "sh -c 'echo no licence >&2; exit 3' {port}",
            "(?s)exited with status 3 before it answered.*no licence",
        ),
        (["sh", "-c", "kill -SEGV $$", "{port}"], "was killed by SIGSEGV"),
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


def test_it_ends_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = Command(
        f"sh -c 'sleep 600 & echo $! > {pids}; echo $$ >> {pids}; exec {PYTHON} {SERVER} {{port}}'"
    )
    with pytest.raises(ZeroDivisionError), Stage(command, fence=PING):
        raise ZeroDivisionError
    assert [until_gone(int(pid)) for pid in pids.read_text().split()] == [True, True]


def test_one_that_ignores_sigterm_is_ended_all_the_same(tmp_path: Path) -> None:
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


def test_it_ends_also_when_the_test_run_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    run = f"""
        import os, time
        from harness import Command, Stage
        with Stage(Command("sh -c 'echo $$ > {pids}; exec {PYTHON} {SERVER} {{port}}'")):
            print("up", flush=True)
            time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(run)], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        assert not gone(int(pids.read_text()))
        running.send_signal(signal.SIGKILL)
    assert until_gone(int(pids.read_text()))


def test_each_script_has_a_server_of_its_own_and_shared_is_one_for_all() -> None:
    def visitors(target: Command) -> list[int]:
        seen = []
        for _ in range(3):
            with Stage(target, fence=PING) as stage:
                alice = stage.client("alice")
                alice.send("PING")
                seen.append(stage._running.process.pid)  # type: ignore[attr-defined]
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


def test_a_chatty_server_is_not_held_up_and_its_last_words_are_kept() -> None:
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
        assert len(stage.server_output()) < 10_000
        assert stage._running.process._size() < 1_000_000  # type: ignore[attr-defined]


def test_an_address_is_spoken_to_and_left_alone() -> None:
    with Stage(Command(f"{PYTHON} {SERVER} {{port}}"), fence=PING) as stage:
        host, port = stage.address(None)
        for target in (Address(host, port), Address({"line": (host, port)})):
            talks(target)
        assert stage.alive()
        idle = Stage(Address(host, port), ServerSpec((), {"idle": "5"}))
        with pytest.raises(UnsupportedSpec, match="no option 'idle'"), idle:
            pass


def test_nobody_there_is_a_refusal_and_not_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Stage(Address("127.0.0.1", port)) as stage:
        alice = stage.client("alice")
        alice.connect()
        assert alice.end.value == "refused"
