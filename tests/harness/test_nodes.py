"""Targets of several processes: nodes that are killed, stopped and started, links that are cut and delayed, and cleaning up."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import (
    Command,
    Nodes,
    PlayOptions,
    ServerSpec,
    Stage,
    TargetError,
    UnsupportedSpec,
    Verdict,
    parse,
    play,
)
from harness.cli import main
from harness.language.expansion import expand
from harness.language.fences import Fence
from harness.language.problems import ScriptError
from harness.language.steps import LinkDelays, NodeChanges, NodeFate
from harness.language.validation import validate
from harness.playing.verdict import FailureKind, Outcome
from harness.report.styled_text import plain
from harness.report.text import report
from harness.stage.fence import Grade
from harness.stage.threads import is_halted, threads_of
from harness.targets.link import LINK_BYTES, Links
from tests.harness.test_command import gone
from tests.patience import HANG_S, killed_at_the_end, until

RELAY = f"{sys.executable} -S {Path(__file__).parent / 'servers' / 'relay.py'}"
BOTH = "alice connects to a\nbob connects to b\nalice> hello\nalice< hello\nbob< hello\n\n"


def two() -> Nodes:
    return Nodes({"a": f"{RELAY} a {{port}} {{port:b}}", "b": f"{RELAY} b {{port:b}} {{port:a}}"})


def played(script: str, target: Any = None, within_s: float = 5.0) -> Verdict:
    return play(parse(script, "nodes.chat"), target or two(), PlayOptions(within_s=within_s))


def passes(script: str, target: Any = None) -> Verdict:
    verdict = played(script, target)
    assert verdict.passed, plain(report(verdict)) + verdict.reason
    return verdict


def test_clients_of_two_nodes_hear_each_other() -> None:
    verdict = passes(BOTH + "bob> and back\nalice< and back\nbob< and back\n")
    assert verdict.grade is Grade.SETTLED


def test_the_first_node_is_the_one_to_which_a_client_connects() -> None:
    passes("alice> hello\nalice< hello\nnode b is killed\nbob connects\n")


@pytest.mark.parametrize(
    "script",
    [
        (
            "node b is killed\nbob is disconnected\ncarol connects to b\ncarol is refused\n"
            "node b is started\nbob connects to b\nalice> again\nalice< again\nbob< again\n"
        ),
        "node b is stopped\nalice> hello?\nalice< hello?\nbob receives nothing\n\nnode b is continued\nbob< hello?\n",
        "node b is stopped\nnode b is killed\nbob is disconnected\nnode b is started\nbob connects to b\n",
        (
            "the link of node b is cut\nalice> lost\nalice< lost\nbob receives nothing\n"
            "the link of node b is restored\nalice> found\nalice< found\nbob< found\n"
        ),
        (
            "the link of node b is blocked\nalice> later\nalice< later\nbob receives nothing\n"
            "the link of node b is restored\nbob< later\n"
        ),
        "the link of node b is delayed 300ms\nalice> late\nalice< late\nbob< late\n",
        "the link of node b is split into 2 bytes\nalice> pieces\nalice< pieces\nbob< pieces\n",
        "the link of node b is cut\nbob> one way\nbob< one way\nalice< one way\n",
    ],
)
def test_what_happens_to_a_node_or_its_link_is_a_step(script: str) -> None:
    passes(BOTH + script)


def test_a_cut_link_is_the_reason_for_what_is_missing() -> None:
    verdict = played(BOTH + "the link of node b is cut\nalice> lost\nalice< lost\nbob< lost\n", within_s=0.5)
    assert [failure.kind for failure in verdict.failures] == [FailureKind.MISSING]
    assert "the link of node b is cut" in plain(report(verdict))


def test_a_link_delays_by_what_the_step_says() -> None:
    with Stage(two()) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.connect("a")
        bob.connect("b")
        stage.server.change_link(LinkDelays("b", 400_000))
        began_s = stage.now()  # not when alice has received it, which a busy machine notices late
        alice.post(b"late\n")
        stage.fence()
        bob.expect("late")
        assert 0.4 <= bob.inbox.arrivals[0][0] - began_s < 2


def test_quiet_is_longer_than_the_delay() -> None:
    """Else the line would count for a later turn."""
    script = BOTH + "the link of node b is delayed 400ms\nalice> late\nalice< late\nbob receives nothing\n"
    verdict = played(script)
    assert [(one.kind, one.client) for one in verdict.failures] == [(FailureKind.EXTRA, "bob")]


def test_what_a_split_link_still_holds_is_waited_for() -> None:
    """A piece each millisecond takes longer than the server has to be quiet, in both directions."""
    line = "x" * 250
    script = (
        f"alice connects to chat.link\nthe link of node chat is split into 1 byte\nalice> {line}\n"
        "alice receives nothing\n\nalice> and on\n"
    )
    verdict = played(script, CHAT)
    assert [(one.kind, one.client, one.line) for one in verdict.failures] == [(FailureKind.EXTRA, "alice", 4)]
    passes(script.replace("alice receives nothing", f"alice< {line}") + "alice< and on\n", CHAT)


TALKS = """
import os, socket, sys, threading, time
def talk():
    with socket.create_connection(("127.0.0.1", int(sys.argv[2]))) as sock:
        while True:
            sock.sendall(b"x" * 60)
            time.sleep(0.02)
def listen(sock):
    while sock.recv(4096):
        pass
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if len(sys.argv) > 2:
    threading.Thread(target=talk, daemon=True).start()
while True:
    threading.Thread(target=listen, args=listener.accept()[:1], daemon=True).start()
"""


@pytest.mark.parametrize("change", ["delayed 200ms", "split into 4 bytes"])
def test_nodes_that_talk_without_end_through_a_slow_link_are_quiet(change: str) -> None:
    node = f"{sys.executable} -S -c {shlex.quote(TALKS)} {{port}}"
    script = f"alice connects to a\nthe link of node b is {change}\nalice> hello\nalice receives nothing\n"
    verdict = played(script, Nodes({"a": f"{node} {{port:b}}", "b": node}), within_s=2)
    assert verdict.passed, plain(report(verdict)) + verdict.reason


CARELESS = Nodes({"chat": f"{RELAY} chat {{port}} careless"})
CHAT = Nodes({"chat": f"{RELAY} chat {{port}}"})


def test_a_server_that_takes_each_read_for_a_line_fails_behind_a_link_that_splits() -> None:
    direct = "alice connects to chat\nthe link of node chat is split into 1 byte\n"
    direct += f"alice> PING {'x' * 60}\nalice< PONG\n"
    passes(direct, CARELESS)
    linked = direct.replace("to chat", "to chat.link")
    assert not played(linked, CARELESS, within_s=0.5).passed
    passes(linked, Nodes({"chat": f"{RELAY} chat {{port}}"}))


def test_a_client_behind_a_link_shares_its_fate() -> None:
    passes(
        "alice connects to chat.link\nalice> hi\nalice< hi\n"
        "the link of node chat is cut\nalice is reset\nbob connects to chat.link\nbob is closed\n"
        "the link of node chat is restored\nbob connects to chat.link\nbob> hi\nbob< hi\nbob half-closes\nbob is closed\n"
        "node chat is killed\nwait 10ms\ncarol connects to chat.link\ncarol is closed\n",
        Nodes({"chat": f"{RELAY} chat {{port}}"}),
    )


def test_a_client_can_connect_through_a_link_to_a_node_that_is_stopped() -> None:
    passes(
        "node chat is stopped\nalice connects to chat.link\nalice> hi\nalice receives nothing\n"
        "node chat is continued\nalice< hi\n",
        Nodes({"chat": f"{RELAY} chat {{port}}"}),
    )


INTERFACES = Path("/proc/net/if_inet6").read_text() if Path("/proc/net/if_inet6").exists() else ""
IPV6_ONLY = """
import socket, sys
with socket.create_server(("::1", int(sys.argv[1])), family=socket.AF_INET6) as listener:
    while True:
        visitor, _ = listener.accept()
        visitor.sendall(visitor.recv(9))
"""


@pytest.mark.skipif("0" * 31 + "1" not in INTERFACES, reason="needs the address ::1")
def test_a_link_reaches_a_node_that_listens_on_ipv6_only() -> None:
    """As one in Node.js does that listens on `localhost`."""
    node = [sys.executable, "-S", "-c", IPV6_ONLY, "{port}"]
    passes("alice connects to a.link\nalice> hi\nalice< hi\n", Nodes({"a": node}))


def test_a_node_whose_program_is_gone_is_an_error_of_the_target(tmp_path: Path) -> None:
    """The server has not failed. What the nodes wrote can still be read."""
    program = tmp_path / "node"
    program.write_text(f"#!/bin/sh\nrm $0\nexec {RELAY} b $1\n")
    program.chmod(0o700)
    target = Nodes({"b": f"{program} {{port}}"})
    verdict = played(
        "alice> hi\nalice< hi\nnode b is killed\nalice is disconnected\nnode b is started\n", target
    )
    assert verdict.outcome is Outcome.TARGET_ERROR
    assert f"cannot start '{program}': No such file or directory" in verdict.reason
    program.write_text(f"#!/bin/sh\nrm $0\nexec {RELAY} b $1\n")
    program.chmod(0o700)
    with Stage(target) as stage:
        stage.server.change_node(NodeChanges("b", NodeFate.KILLED))
        with pytest.raises(TargetError, match="cannot start"):
            stage.server.change_node(NodeChanges("b", NodeFate.STARTED))
        assert stage.server_output() == "b | b listens\n"


def test_definitions_can_name_nodes() -> None:
    passes(
        "define NODE crashes:\n    node NODE is killed\n    wait 10ms\n    node NODE is started\n\n"
        + BOTH
        + "b crashes\nbob is disconnected\n"
    )


def test_a_node_that_dies_by_itself_is_named_with_its_output() -> None:
    verdict = played(BOTH + "bob> DIE\nbob is disconnected\nalice> hi\nalice< hi\n")
    assert verdict.failures[0].kind is FailureKind.SERVER_DIED
    text = plain(report(verdict))
    assert "lost node b, which exited with status 4" in text
    assert "b | dying as told" in text


def test_a_fence_line_is_not_used_where_it_proves_nothing() -> None:
    fence = PlayOptions(Fence("PING", ("PONG",)))
    verdict = play(parse("alice> hello\nalice< hello\nalice> bye\nalice< bye\n"), two(), fence)
    assert verdict.passed
    assert verdict.grade is Grade.SETTLED
    assert [turn.fence_lines for turn in verdict.turns] == [(), ()]


# --- what is wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("node b is hurt\n", "1:11: this cannot happen to a node"),
        ("the link of node b is slow\n", "1:23: this cannot happen to a link"),
        ("the link of node b is delayed 50 ms\n", "'50 ms' is not a duration"),
        ("the link of node b is split into 0 bytes\n", "a count of 0"),
        ("node b is started\n", "node b is started here"),
        ("node b is continued\n", "node b is started here"),
        ("node b is killed\nnode b is stopped\n", "2:1: node b is killed here"),
        ("node b is stopped\nnode b is started\n", "2:1: node b is stopped here"),
    ],
)
def test_a_step_that_makes_no_sense_is_an_error(script: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        validate(expand(parse(script, "nodes.chat")))


def test_an_unknown_node_is_an_error_of_the_script() -> None:
    for step in ("node c is killed", "the link of node c is cut"):
        verdict = played(f"alice connects\n{step}\n")
        assert verdict.outcome is Outcome.SCRIPT_ERROR
        assert verdict.reason.startswith("nodes.chat:2:1: no node 'c'; known: a, b")


def test_other_targets_have_no_nodes() -> None:
    target = Command(f"{RELAY} x {{port}}")
    verdict = played("node x is killed\n", target)
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert "has no nodes" in verdict.reason
    assert "--node NAME='CMD'" in verdict.reason
    assert played("needs: nodes\n\nnode x is killed\n", target).outcome is Outcome.SKIPPED


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        ({}, "a target of nodes needs at least one node"),
        ({"a": "serve"}, "the command of node a has no {port}"),
        ({"a": "serve {port:b}", "b": "serve {port}"}, "the command of node a has no {port}"),
        ({"a": "serve {port} {port:c}"}, "node a names {port:c}; expected {port} or {port:NODE}, nodes: a"),
        ({"a": "serve {port} {socket}"}, "node a names {socket}"),
        ({"a b": "serve {port}"}, "'a b' is not a name for a node"),
    ],
)
def test_commands_that_make_no_sense_are_an_error(commands: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("{", r"\{").replace("}", r"\}")):
        Nodes(commands)


def test_options_choose_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.chat"
    path.write_text(BOTH)
    nodes = ["--node", f"a={RELAY} a {{port}} {{port:b}}", "--node", f"b={RELAY} b {{port:b}} {{port:a}}"]
    assert main(["play", str(path), *nodes]) == 0
    capsys.readouterr()
    for wrong, message in (
        (["--node", "serve {port}"], "'serve {port}' names no node and its command"),
        (["--node", "a=x {port}", "--node", "a=y {port}"], "node a twice"),
        (["--node", "a=x"], "the command of node a has no {port}"),
    ):
        assert main(["play", str(path), *wrong]) == 2
        assert message in capsys.readouterr().err


def test_an_option_that_no_command_has_is_rejected() -> None:
    target = Nodes({"a": f"{RELAY} a {{port}} {{peers=}}"})
    with Stage(target, ServerSpec((), {"peers": "1"})):
        pass
    with (
        pytest.raises(UnsupportedSpec, match="no option 'peer'; known: peers"),
        Stage(target, ServerSpec((), {"peer": "1"})),
    ):
        pass


# --- nothing is left ----------------------------------------------------------------------------------------


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


def settled(count: Any, before: int) -> bool:
    """A thread that has ended is in the list for a moment more."""
    return until(lambda: bool(count() <= before))


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, AssertionError])
def test_nothing_is_left_whatever_happens(error: type[BaseException] | None) -> None:
    before = threads(), files()
    pids, addresses = [], []

    def run() -> None:
        with Stage(two()) as stage:
            server: Any = stage.server
            pids.extend(node.process.pid for node in server._nodes.values())
            addresses.extend(stage.server.addresses.values())
            stage.client("alice").connect("a.link")
            stage.client("bob").connect("b")
            server._nodes["b"].stop()
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(error):
            run()
    assert all(map(gone, pids))
    assert len(addresses) == 4
    for address in addresses:
        with pytest.raises(ConnectionRefusedError), socket.create_connection(address):
            pass
    assert settled(threads, before[0])
    assert settled(files, before[1])


def test_nothing_is_left_when_a_node_does_not_start() -> None:
    before = threads(), files()
    target = Nodes({"a": f"{RELAY} a {{port}}", "b": "sh -c 'echo no licence; exit 3' {port}"})
    with (
        pytest.raises(TargetError, match=r"(?s)node b exited with status 3 before it listened.*no licence"),
        Stage(target),
    ):
        pass
    deaf = Nodes({"a": f"{RELAY} a {{port}}", "b": "sh -c 'sleep 60' {port}"}, starts_within=0.3)
    with pytest.raises(TargetError, match=r"node b did not listen on port \d+ within 0.3 s"), Stage(deaf):
        pass
    assert settled(threads, before[0])
    assert settled(files, before[1])


def running(mark: str) -> int:
    """How many processes have this in their command line, besides the run that starts them."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes()
            found += mark.encode() in command and b"--node" not in command
    return found


MANY_THREADS = """
import socket, sys, threading
for _ in range(30):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    listener.accept()
"""


@pytest.mark.parametrize("fate", [NodeFate.STOPPED, NodeFate.KILLED])
def test_a_node_that_is_stopped_or_killed_does_no_more(fate: NodeFate) -> None:
    """Otherwise one of its threads, or a process that it has started, could still answer on a busy machine."""
    command = f"sh -c '{sys.executable} -S -c \"$0\" $1; :' {shlex.quote(MANY_THREADS)} {{port}}"
    with Stage(Nodes({"a": shlex.split(command)})) as stage:
        server = stage.server
        threads = list(threads_of([server._nodes["a"].process.pid]))  # type: ignore[attr-defined]
        assert len(threads) > 30
        server.change_node(NodeChanges("a", fate))
        assert all(map(is_halted, threads))


def test_ctrl_c_ends_all_nodes(tmp_path: Path) -> None:
    (tmp_path / "long.chat").write_text("alice> hello\nalice< hello\nwait 1h\n")
    mark = tmp_path.as_posix()
    nodes = [word for name in "ab" for word in ("--node", f"{name}=sh -c '{RELAY} {mark} $0' {{port}}")]
    script = os.path.relpath(tmp_path / "long.chat")
    command = [sys.executable, "-m", "harness", "play", script, *nodes]
    with killed_at_the_end(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)) as run:
        assert until(lambda: running(mark) >= 2)
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=HANG_S)
    assert until(lambda: running(mark) == 0)


# --- links by themselves ------------------------------------------------------------------------------------


@pytest.fixture
def linked() -> Any:
    """A pair of sockets with a link between them, and the links."""
    links = Links()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = links.add(listener.getsockname()[1])
        near = socket.create_connection(link.address)
        far, _ = listener.accept()
        near.settimeout(HANG_S)
        far.settimeout(HANG_S)
        with near, far:
            yield near, far, link, links
    links.close()
    links.close()


def sent_by(sock: socket.socket) -> int:
    try:
        return sock.send(b"x" * 65536)
    except BlockingIOError:
        return 0


def received(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def test_bytes_keep_their_order_in_both_directions(linked: Any) -> None:
    near, far, link, links = linked
    near.sendall(b"one")
    links.delay(link, 0.2)
    near.sendall(b"two")
    far.sendall(b"three")
    links.delay(link, 0)
    near.sendall(b"four")
    assert received(far, 10) == b"onetwofour"
    assert received(near, 5) == b"three"


def test_a_link_holds_no_more_than_its_bound(linked: Any) -> None:
    near, far, link, links = linked
    links.delay(link, 60)
    near.setblocking(False)
    sent = idle = 0
    while idle < 50:
        accepted = sent_by(near)
        sent += accepted
        idle = 0 if accepted else idle + 1
        os.sched_yield()
    held = sum(one.held_bytes for pair in link.pairs for one in pair)
    assert held <= LINK_BYTES + 65536
    links.restore(link)
    assert len(received(far, sent)) == sent


def test_an_end_passes_after_what_was_sent_before_it(linked: Any) -> None:
    near, far, link, links = linked
    links.delay(link, 0.1)
    near.sendall(b"last words")
    near.shutdown(socket.SHUT_WR)
    assert received(far, 100) == b"last words"
    far.sendall(b"answer")
    far.close()
    assert received(near, 100) == b"answer"


def test_pieces_are_due_one_after_another(linked: Any) -> None:
    near, far, link, links = linked
    links.split(link, 2)
    links.delay(link, 60)
    near.sendall(b"abcdef")
    assert until(lambda: len(link.pairs[0][0].pieces) == 3)
    times, pieces = zip(*link.pairs[0][0].pieces, strict=True)
    assert pieces == (b"ab", b"cd", b"ef")
    assert [round((when - times[0]) * 1000) for when in times] == [0, 1, 2]
    links.restore(link)
    assert received(far, 6) == b"abcdef"


def test_a_reset_passes(linked: Any) -> None:
    near, far, _, _ = linked
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    with pytest.raises(ConnectionResetError):
        near.recv(1)


def test_an_idle_link_takes_no_time(linked: Any) -> None:
    """Blocked connections, pending ones and full sockets must not keep the thread awake."""
    near, far, link, links = linked
    links.block(link)
    near.sendall(b"x")
    with socket.create_connection(link.address):
        began = time.process_time()
        far.settimeout(0.3)
        with pytest.raises(TimeoutError):
            far.recv(1)
        assert time.process_time() - began < 0.15


def test_a_reset_passes_after_what_was_sent_before_it(linked: Any) -> None:
    near, far, link, links = linked
    links.delay(link, 0.1)
    far.sendall(b"last words")
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    assert received(near, 10) == b"last words"
    with pytest.raises(ConnectionResetError):
        near.recv(1)


def test_what_the_other_side_still_sends_takes_nothing_away_before_a_reset(linked: Any) -> None:
    near, far, link, links = linked
    links.block(link)
    far.sendall(b"last words")
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    near.sendall(b"too late")
    links.restore(link)
    assert received(near, 10) == b"last words"
    with pytest.raises(ConnectionResetError):
        near.recv(1)
