"""Faster time for server commands: idle cut-offs of servers in several languages, the margin, and what cannot be reached."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from harness import (
    Command,
    InProcess,
    Nodes,
    PlayOptions,
    ServerSpec,
    Stage,
    TargetError,
    Verdict,
    parse,
    play,
)
from harness.cli import main
from harness.language.steps import NodeChanges, NodeFate
from harness.playing.verdict import Outcome, Tolerated
from harness.report.styled_text import plain
from harness.report.text import report, run_summary
from harness.targets import fast_time
from harness.targets.address import Address
from harness.targets.command import claimed_port
from tests.app import serve
from tests.foreign.installed import program
from tests.patience import HANG_S, until

PYTHON = sys.executable

# Each answers `hi`, and says `idle` and hangs up when it has heard nothing for a minute.
IDLE = """
    alice> hi
    alice< hi
    wait 50s
    alice receives nothing
    wait 20s
    alice< idle
    alice is closed
"""
ASYNCIO = """
    import asyncio, sys
    async def talk(reader, writer):
        try:
            while line := await asyncio.wait_for(reader.readline(), 60):
                writer.write(line)
        except asyncio.TimeoutError:
            writer.write(b"idle\\n")
        writer.close()
    async def main():
        async with await asyncio.start_server(talk, "127.0.0.1", int(sys.argv[1])) as server:
            await server.serve_forever()
    asyncio.run(main())
"""
THREADS = """
    import socketserver, sys
    class Talk(socketserver.StreamRequestHandler):
        timeout = 60
        def handle(self):
            try:
                for line in self.rfile:
                    self.wfile.write(line)
            except TimeoutError:
                self.wfile.write(b"idle\\n")
    socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Talk).serve_forever()
"""
SELECT = """
    import select, socket, sys, time
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    heard = {}
    while True:
        ready, _, _ = select.select([listener, *heard], [], [], 1)
        for sock in ready:
            if sock is listener:
                heard[listener.accept()[0]] = time.time()
            elif data := sock.recv(100):
                sock.sendall(data)
                heard[sock] = time.time()
        for sock in [sock for sock, when in heard.items() if time.time() - when > 60]:
            sock.sendall(b"idle\\n")
            sock.close()
            del heard[sock]
"""
GEVENT = """
    import sys, gevent
    from gevent.server import StreamServer
    def talk(sock, address):
        try:
            while True:
                with gevent.Timeout(60):
                    data = sock.recv(100)
                if not data:
                    return
                sock.sendall(data)
        except gevent.Timeout:
            sock.sendall(b"idle\\n")
    StreamServer(("127.0.0.1", int(sys.argv[1])), talk).serve_forever()
"""
NODE = """
    require("net").createServer(sock => {
        sock.setTimeout(60000, () => sock.end("idle\\n"));
        sock.on("data", data => sock.write(data));
        sock.on("error", () => {});
    }).listen(process.argv[2], "127.0.0.1");
"""
PERL = """
    use IO::Socket::INET; use IO::Select;
    my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 5) or die;
    while (my $sock = $listener->accept) {
        while (IO::Select->new($sock)->can_read(60)) { sysread($sock, my $data, 100) or last; syswrite($sock, $data); }
        syswrite($sock, "idle\\n"); close $sock;
    }
"""
C = """
    #include <arpa/inet.h>
    #include <poll.h>
    #include <stdlib.h>
    #include <unistd.h>
    int main(int argc, char **argv) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
        int listener = socket(AF_INET, SOCK_STREAM, 0), sock;
        if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 5)) return 1;
        while ((sock = accept(listener, 0, 0)) >= 0) {
            char data[100]; ssize_t size;
            struct pollfd one = {sock, POLLIN, 0};
            while (poll(&one, 1, 60000) > 0 && (size = read(sock, data, sizeof data)) > 0)
                if (write(sock, data, size) < 0) break;
            if (write(sock, "idle\\n", 5) < 0) return 2;
            close(sock);
        }
    }
"""
JAVA = """
    import java.net.*;
    public class Idle {
        public static void main(String[] args) throws Exception {
            ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]), 5, InetAddress.getByName("127.0.0.1"));
            while (true) {
                Socket sock = listener.accept();
                sock.setSoTimeout(60000);
                byte[] data = new byte[100];
                try {
                    for (int size; (size = sock.getInputStream().read(data)) > 0;) sock.getOutputStream().write(data, 0, size);
                } catch (SocketTimeoutException late) { sock.getOutputStream().write("idle\\n".getBytes()); }
                sock.close();
            }
        }
    }
"""
SERVERS = {
    "asyncio": ("python", ASYNCIO),
    "threads": ("python", THREADS),
    "select": ("python", SELECT),
    "gevent": ("python", GEVENT),
    "node": ("node", NODE),
    "perl": ("perl", PERL),
    "java": ("java", JAVA),
    "c": ("gcc", C),
}


@pytest.fixture(autouse=True)
def installed() -> None:
    program("faketime", "faketime")


def command(folder: Path, language: str, source: str, *flags: str) -> Command:
    source = textwrap.dedent(source)
    if language == "python":
        return Command([PYTHON, "-c", source, "{port}"])
    if not (found := shutil.which(language)):
        pytest.skip(f"{language} is not installed")
    path = folder / {"gcc": "idle.c", "java": "Idle.java"}.get(language, "idle")
    path.write_text(source)
    if language == "gcc":
        subprocess.run([found, *flags, "-o", folder / "a.out", path], check=True)
        return Command([str(folder / "a.out"), "{port}"])
    if language == "java" and not shutil.which("javac"):
        pytest.skip("no Java compiler is installed")
    return Command([found, str(path), "{port}"], starts_within=30)


FACTORS = (60, 20, 6)
LATE_S = 10
"""How late for the server a turn can end before the play says more about the machine than about the server."""


def played(target: Command, script: str = IDLE, factors: Sequence[int] = FACTORS) -> Verdict:
    """A play with quiet of 0.6 s of the server's time: the first in which the machine was fast enough for that, or the
    last, where time passes slowest."""
    for factor in factors:
        header = f"time: x{factor}\nsettle: {600 // factor}ms\n\n"
        verdict = play(parse(header + textwrap.dedent(script).lstrip(), "idle.chat"), target)
        if verdict.margin_s < LATE_S:
            break
    return verdict


@pytest.mark.parametrize("name", SERVERS)
def test_a_minute_of_silence_passes_in_a_second(tmp_path: Path, name: str) -> None:
    verdict = played(command(tmp_path, *SERVERS[name]))
    assert verdict.passed, plain(report(verdict))
    assert verdict.real_s > 70 / verdict.time_factor
    assert 0.6 <= verdict.margin_s < LATE_S, "the quiet of one turn is 0.6 s for the server"


def test_what_comes_a_few_seconds_too_early_is_a_failure(tmp_path: Path) -> None:
    early = ASYNCIO.replace("60)", "45)")
    verdict = played(command(tmp_path, "python", early))
    assert not verdict.passed
    assert verdict.failures[0].line == 7


def test_waits_do_not_add_up_the_moments_between_them(tmp_path: Path) -> None:
    """Each turn ends with quiet of 0.6 s, so that sixty of them are more than half a minute for the server."""
    script = (
        "alice> hi\nalice< hi\n"
        + 55 * "wait 1s\nalice receives nothing\n"
        + "wait 10s\nalice< idle\nalice is closed\n"
    )
    verdict = played(command(tmp_path, "python", ASYNCIO), script)
    assert verdict.passed, plain(report(verdict))


def test_the_report_says_how_fast_and_how_late(tmp_path: Path) -> None:
    script = textwrap.dedent(IDLE).lstrip().replace("alice< hi\n", "within 1h:\n    alice< hi\n", 1)
    verdict = played(command(tmp_path, "python", ASYNCIO), script)
    assert f" of 3600s, on the clock of this machine, times {verdict.time_factor}: it " in plain(
        report(verdict)
    )
    speed = f"settled, time x{verdict.time_factor}, up to "
    assert run_summary([verdict], 1.0).startswith(f"1 passed in 1.00 s ({speed}")
    assert plain(report(verdict)).rstrip().endswith(" s late)")
    # The quiet of 0.6 s of the server's time is shorter in real time, which counts.
    assert verdict.tolerated[Tolerated.SHORT_SETTLE] == (verdict.time_factor > 6)
    failed = played(command(tmp_path, "python", ASYNCIO), "alice> hi\nalice< ho\n", FACTORS[:1])
    assert "(settled: nothing more arrived for a while; time x" in plain(report(failed))


def test_the_option_is_for_scripts_without_the_header(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "server.py").write_text(textwrap.dedent(ASYNCIO))
    path = tmp_path / "idle.chat"
    path.write_text("alice> hi\nalice< hi\n")
    options = ["--server", f"{PYTHON} {tmp_path}/server.py {{port}}", "--time"]
    assert main(["play", str(path), *options, "x60"]) == 0
    assert "time x60" in capsys.readouterr().out
    assert main(["play", str(path), *options, "60"]) == 2
    assert "'60' is not how many times faster time passes" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["100", "x0", "x1001", "x1.5", "fast"])
def test_a_factor_is_a_whole_number_up_to_a_thousand(value: str) -> None:
    with pytest.raises(Exception, match="is not how many times faster time passes"):
        parse(f"time: {value}\n\nalice connects\n")


def test_in_process_time_is_virtual_whatever_the_factor() -> None:
    verdict = play(parse("time: x100\n\nalice> LOGIN alice\nalice< OK\nwait 30s\n"), InProcess(serve))
    assert verdict.passed
    assert verdict.time_factor == 1


def test_the_time_of_a_server_that_runs_already_cannot_pass_faster() -> None:
    with claimed_port() as port:
        target = Address("127.0.0.1", port)
    verdict = play(parse("title: t\ntime: x100\n\nalice connects\n", "fast.chat"), target)
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert verdict.reason.startswith("fast.chat:2:7: the time of 127.0.0.1:")
    assert "cannot pass faster: the harness does not start it" in verdict.reason
    assert (
        play(parse("alice connects\n"), target, PlayOptions(time_factor=100)).outcome is Outcome.SCRIPT_ERROR
    )


def test_the_package_is_named_where_the_library_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_time, "_FOLDERS", (str(tmp_path),))
    verdict = played(command(tmp_path, "python", ASYNCIO))
    assert verdict.outcome is Outcome.TARGET_ERROR
    assert "faster time needs libfaketime, which is not installed: apt-get install faketime" in verdict.reason


def test_a_static_program_is_an_error(tmp_path: Path) -> None:
    verdict = played(command(tmp_path, "gcc", C, "-static"))
    assert verdict.outcome is Outcome.TARGET_ERROR
    assert "time cannot pass faster for a.out: it has not loaded libfaketime" in verdict.reason


def test_a_program_in_go_is_an_error(tmp_path: Path) -> None:
    marked = C + '\n    const char mark[] = "\\xff Go buildinf:";'
    verdict = played(command(tmp_path, "gcc", marked))
    assert verdict.outcome is Outcome.TARGET_ERROR
    assert "time cannot pass faster for a.out: it is written in Go" in verdict.reason


@pytest.mark.parametrize("waiting", ["", "wait 120s\n"], ids=["at-the-end", "at-a-wait"])
def test_a_program_that_is_started_later_without_the_library_is_an_error(waiting: str) -> None:
    """It serves a client, as a program of inetd does, and ends with it."""
    source = """
        import socketserver, subprocess, sys
        ECHO = "import sys; [print(line, end='', flush=True) for line in sys.stdin]"
        class Talk(socketserver.BaseRequestHandler):
            def handle(self):
                client = self.request.fileno()
                subprocess.run([sys.executable, "-c", ECHO], stdin=client, stdout=client, env={})
        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
        Server(("127.0.0.1", int(sys.argv[1])), Talk).serve_forever()
    """
    script = parse(f"time: x60\nsettle: 20ms\n\nalice> hi\nalice< hi\n{waiting}")
    verdict = play(script, Command([PYTHON, "-c", textwrap.dedent(source), "{port}"]))
    assert verdict.outcome is Outcome.TARGET_ERROR, plain(report(verdict))
    assert "it has not loaded libfaketime" in verdict.reason


def test_shared_servers_of_different_speeds_are_different_servers(tmp_path: Path) -> None:
    target = Command([PYTHON, "-c", textwrap.dedent(ASYNCIO), "{port}"], shared=True)
    try:
        addresses = []
        for factor in (1, 60, 60):
            with Stage(target, ServerSpec(time_factor=factor)) as stage:
                addresses.append(stage.server.addresses)
        assert addresses[0] != addresses[1] == addresses[2]
    finally:
        target.close()


CLOCK = """
    import socketserver, sys, time
    class Tell(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                self.wfile.write(b"%d\\n" % time.time())
    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
    Server(("127.0.0.1", int(sys.argv[1])), Tell).serve_forever()
"""


def test_the_clocks_of_nodes_agree_also_after_one_was_started_again() -> None:
    command = [PYTHON, "-c", textwrap.dedent(CLOCK), "{port}"]
    with Stage(Nodes({"a": command, "b": command}), ServerSpec(time_factor=60), settle=0.02) as stage:

        def time_at(node: str) -> int:
            client = stage.client(f"{node}{len(times)}")
            client.connect(node)
            client.send("time")
            told = client.receive_line()
            client.close()
            return int(told)

        times: list[int] = []
        times.append(time_at("a"))
        stage.wait(600)
        times.append(time_at("b"))
        stage.server.change_node(NodeChanges("a", NodeFate.KILLED))
        stage.server.change_node(NodeChanges("a", NodeFate.STARTED))
        times.append(time_at("a"))
        times.append(time_at("b"))
    assert times == sorted(times)
    assert times[1] >= times[0] + 600


def shared_memory(pids: Iterable[int]) -> list[str]:
    return [path for pid in pids for path in fast_time.shared_memory(pid) if os.path.exists(path)]


def test_nothing_is_left_in_shared_memory(tmp_path: Path) -> None:
    source = textwrap.dedent(ASYNCIO)
    with Stage(Command(f"exec {PYTHON} -c '{source}' {{port}}; true"), ServerSpec(time_factor=9)) as stage:
        stage.client("alice").send("hi")
        pids = list(fast_time.processes(stage.server.process.pid))  # type: ignore[attr-defined]
        assert shared_memory(pids)
    assert shared_memory(pids) == []
    # The server is killed where it stands, and so is the run that started it.
    run = f"""
        import os, signal
        from harness import Command, ServerSpec, Stage
        with Stage(Command(["{PYTHON}", "-c", {source!r}, "{{port}}"]), ServerSpec(time_factor=9)) as stage:
            print(stage.server.process.pid, stage.server.process._watchdog, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    ran = subprocess.run([PYTHON, "-c", textwrap.dedent(run)], capture_output=True, text=True, timeout=HANG_S)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    server, dog = map(int, ran.stdout.split())
    watchdog = Path(f"/proc/{dog}/stat")
    assert until(lambda: not watchdog.exists() or watchdog.read_text().rpartition(")")[2].split()[0] in "ZX")
    assert shared_memory([server]) == []


def test_a_server_that_dies_at_once_is_the_error_and_not_its_time() -> None:
    with (
        pytest.raises(TargetError, match="exited with status 3"),
        Stage(Command("exit 3; {port}"), ServerSpec(time_factor=9)),
    ):
        pass
