"""Exploration: a correct server passes every schedule, a fragile one fails some, and each failure can be reproduced."""

from __future__ import annotations

import argparse
import errno
import itertools
import os
import select
import selectors
import shlex
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.select
import gevent.selectors
import pytest
from gevent import _socket3  # type: ignore[attr-defined]
from gevent import socket as cooperative
from gevent.server import StreamServer

from harness import Address, InProcess, Outcome, ServerSpec, parse, play, render
from harness.batch import workers
from harness.cli import main
from harness.explore import Finding, count_actions, explorable, explore, explore_files, headline, report
from harness.interception.interceptor import AcceptedConnection, Interceptor
from harness.interception.schedule import EVERY, Perturbation, Schedule, kinds
from harness.interception.sockets import SocketPatch
from harness.language.columns import width
from harness.language.steps import Script
from harness.options import OPTIONS, add_options, given_words
from harness.report.styled_text import plain
from harness.targets.choice import TargetChoice, UsageError
from harness.targets.named import Targets
from tests.harness.servers.fragile import FAULTS, TALK, serve
from tests.patience import HANG_S

ROOT = Path(__file__).parents[2]
ACCEPTS = frozenset({Perturbation.ACCEPTS})
APP = ("--app", "tests.harness.servers.fragile:serve")


def talk(fault: str = "") -> Script:
    return parse(f"server: fault={fault}\n\n{TALK}" if fault else TALK, "talk.chat")


def finding(fault: str, perturbations: frozenset[Perturbation] = EVERY, runs: int = 12) -> Finding | None:
    explored = explore(talk(fault), InProcess(serve), range(1, runs + 1), perturbations=perturbations)
    assert explored.baseline.passed
    return explored.finding


@pytest.mark.parametrize(
    ("fault", "found_by"),
    [
        ("reads", {Perturbation.READS}),
        ("writes", {Perturbation.WRITES, Perturbation.STALLS}),
        ("stalls", {Perturbation.WRITES, Perturbation.STALLS}),
        ("order", {Perturbation.ORDER}),
    ],
)
def test_each_kind_of_perturbation_finds_its_own_faults_and_no_others(
    fault: str, found_by: set[Perturbation]
) -> None:
    found = {kind: finding(fault, frozenset({kind})) for kind in Perturbation}
    assert {kind for kind, one in found.items() if one} == found_by


@pytest.mark.parametrize("fault", ["reads", "writes", "stalls", "order"])
def test_the_seed_of_a_failure_fails_again_in_the_same_way(fault: str) -> None:
    first = finding(fault)
    assert first is not None
    for _ in range(3):
        again = play(talk(fault), InProcess(serve).intercepted_by(Schedule(first.seed)))
        assert again.failures == first.verdict.failures


@pytest.mark.parametrize("fault", ["reads", "writes", "stalls", "order"])
def test_the_shortest_script_fails_only_because_of_the_schedule(fault: str) -> None:
    found = finding(fault)
    assert found is not None
    script = parse(render(found.shortest.script))
    assert count_actions(script) <= 3 < count_actions(talk(fault))
    assert play(script, InProcess(serve)).passed
    needed = Schedule(found.seed, left_out=EVERY - found.cause)
    assert not play(script, InProcess(serve).intercepted_by(needed)).passed
    for kind in found.cause:
        schedule = Schedule(found.seed, left_out=EVERY - found.cause | {kind})
        assert play(script, InProcess(serve).intercepted_by(schedule)).passed, f"{kind} is not needed"


@pytest.mark.parametrize(
    "chosen",
    [EVERY, {Perturbation.STALLS, Perturbation.ORDER}, *({kind} for kind in Perturbation)],
    ids=kinds,
)
def test_every_seed_applies_one_of_the_chosen_kinds_and_none_of_the_others(chosen) -> None:
    for seed in range(1, 100):
        applied = strengths(Schedule(seed, chosen))
        assert applied.keys() <= chosen
        assert applied
        # What is left out changes nothing else: neither how often the rest is applied, nor what is.
        for kind in chosen:
            rest = {one: strength for one, strength in applied.items() if one is not kind}
            assert strengths(Schedule(seed, chosen, {kind})) == rest
    assert len({tuple(strengths(Schedule(seed)).values()) for seed in range(1, 100)}) > 50


def strengths(schedule: Schedule) -> dict[Perturbation, float]:
    return {kind: strength for kind, strength in schedule._strength.items() if strength}


class Observer(Interceptor):
    """Records the connections of its calls, and changes nothing."""

    def __init__(self) -> None:
        self.peers: set[object] = set()
        self.ended = False

    def accepted(self, connection: AcceptedConnection) -> None:
        self.peers.add(connection.peer)

    def before_read(self, connection: AcceptedConnection, size: int) -> int:
        assert connection.peer in self.peers
        return size

    def server_stopped(self) -> None:
        self.ended = True


def test_the_socket_classes_are_restored_after_the_play() -> None:
    classes = (socket.socket, _socket3._wrefsocket, ssl.SSLContext)
    before = [dict(vars(kind)) for kind in classes]
    observer = Observer()
    assert play(talk(), InProcess(serve).intercepted_by(observer)).passed
    assert [dict(vars(kind)) for kind in classes] == before
    assert observer.ended
    assert len(observer.peers) == 3


def test_a_target_outside_this_process_cannot_be_explored() -> None:
    with pytest.raises(UsageError, match=r"cannot explore 127\.0\.0\.1:1: only a server in this process"):
        explorable(Address("127.0.0.1", 1))


def test_a_script_that_fails_without_perturbations_is_not_explored() -> None:
    explored = explore(parse("alice> alice\nalice< HALLO alice\n"), InProcess(serve), range(1, 9))
    assert explored.outcome is Outcome.FAILED
    assert explored.runs == 0
    assert "not explored, because it does not pass without perturbations" in plain(report(explored))


def test_the_report_fits_a_narrow_terminal() -> None:
    explored = explore(talk("reads"), InProcess(serve), range(1, 13))
    assert explored.finding is not None
    text = plain(report(explored, 60))
    shown, _, script = text.partition("the shortest script")
    rest = script.partition("   line  ")[2]
    assert max(map(width, [*shown.splitlines(), *rest.splitlines()])) <= 60


@pytest.mark.parametrize(
    ("failing", "head", "summary"),
    [
        (
            [2],
            "under seed 1, but not each time that it was played under that seed:\nTARGET ERROR",
            "target error",
        ),
        (range(2, 99), "under seed 1:\nTARGET ERROR", "target error"),
        (
            [2, "reads"],
            "under seed 1, with another outcome when it was played again (failed):\nTARGET ERROR",
            "target error",
        ),
    ],
)
def test_a_server_that_does_not_start_under_a_schedule_is_reported(failing, head, summary) -> None:
    starts = itertools.count(1)

    def start(ask: ServerSpec) -> object:
        if next(starts) in failing:
            raise RuntimeError("no licence")
        return serve(replace(ask, options={"fault": "reads"}) if "reads" in failing else ask)

    explored = explore(talk(), InProcess(start), range(1, 4))
    assert (explored.outcome, explored.runs) == (Outcome.FAILED, 1)
    text = plain(report(explored))
    assert text.startswith(head)
    assert "no licence" in text
    assert headline(explored).startswith(f"under seed 1: {summary}: ")


@pytest.mark.parametrize("failing", [{2}, {2, 3}])
def test_a_failure_that_the_schedule_alone_does_not_cause_is_reported_whole(failing) -> None:
    starts = itertools.count(1)

    def start(ask: ServerSpec) -> object:
        return serve(replace(ask, options={"fault": "reads"}) if next(starts) in failing else ask)

    explored = explore(talk(), InProcess(start), [1])
    text = plain(report(explored))
    assert text.startswith(
        "under seed 1, but not each time that it was played under that seed:\nFAILED talk.chat:"
    )
    assert "the shortest script" not in text
    assert headline(explored).startswith("under seed 1: talk.chat:")


def test_a_failure_because_of_an_earlier_play_is_not_blamed_on_the_schedule() -> None:
    visits = itertools.count(1)

    def greet(sock: Any, _address: object) -> None:
        sock.sendall(b"visitor %d\n" % next(visits))

    script = parse("alice connects\nalice< visitor 1\nalice is closed\n", "visits.chat")
    explored = explore(script, InProcess(lambda spec: StreamServer(("127.0.0.1", 0), greet)), [1])
    text = plain(report(explored))
    assert text.startswith(
        "under seed 1, and then without perturbations too (failed), so something else decides, such as what the server "
        "remembers of earlier plays:\nFAILED visits.chat:2"
    )
    assert "cause" not in text
    assert explored.outcome is Outcome.FAILED


def test_every_faulty_server_passes_without_perturbations() -> None:
    for fault in FAULTS:
        assert play(talk(fault), InProcess(serve)).passed, fault


def wait_with_select(sock: Any) -> Callable[[], object]:
    return lambda: gevent.select.select([sock], [], [])


def wait_with_poll(sock: Any) -> Callable[[], object]:
    poll = gevent.select.poll()
    poll.register(sock, select.POLLIN)
    return poll.poll


def wait_with_selector(sock: Any) -> Callable[[], object]:
    selector = gevent.selectors.GeventSelector()
    selector.register(sock, selectors.EVENT_READ)
    return selector.select


@pytest.mark.parametrize("waiting", [wait_with_select, wait_with_poll, wait_with_selector])
def test_a_server_that_waits_with_a_module_of_gevent_can_be_explored(waiting) -> None:
    def echo(sock: Any, address: object) -> None:
        wait = waiting(sock)
        while wait() and (data := sock.recv(100)):
            sock.sendall(data)

    target = InProcess(lambda spec: StreamServer(("127.0.0.1", 0), echo))
    explored = explore(parse("ann> one\nann< one\nann> two\nann< two\n"), target, range(1, 6))
    assert explored.baseline.passed
    assert explored.finding is None, plain(report(explored))


class AcceptsItself:
    """Accepts on a socket that does not block, and takes any error but "try again" for the end of it."""

    def __init__(self, spec: ServerSpec) -> None:
        self.listener = cooperative.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.addresses = {"": self.listener.getsockname()}

    def start(self) -> None:
        self.accepting = gevent.spawn(self.accept)

    def accept(self) -> None:
        while True:
            cooperative.wait_read(self.listener.fileno())
            try:
                sock, _ = self.listener.accept()
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK):
                    raise
            else:
                sock.sendall(b"welcome\n")
                sock.close()

    def stop(self) -> None:
        self.accepting.kill()
        self.listener.close()


def test_an_accept_that_would_block_fails_as_in_a_kernel() -> None:
    script = parse("ann connects\nann< welcome\nann is closed\nbob connects\nbob< welcome\nbob is closed\n")
    explored = explore(script, InProcess(AcceptsItself), range(1, 6), perturbations=ACCEPTS)
    assert explored.baseline.passed
    assert explored.finding is None, plain(report(explored))


def test_an_accept_that_waits_in_the_kernel_is_not_refused() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        SocketPatch([Schedule(1, ACCEPTS)], [socket.socket]),
    ):
        for _ in range(20):
            with socket.create_connection(listener.getsockname()[:2]):
                listener.accept()[0].close()


# --- the command and pytest ---------------------------------------------------------------------------------


def write(folder: Path, fault: str) -> Path:
    path = folder / f"{fault or 'correct'}.chat"
    path.write_text(render(talk(fault)))
    return path


def test_the_command_reports_the_cause_and_how_to_reproduce_it(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    path = write(tmp_path, "reads")
    assert main(["explore", str(path), *APP, "--runs", "20", "--only", "reads,order"]) == 1
    text = capsys.readouterr().out
    assert "  cause     input cut into smaller reads\n" in text
    assert "the shortest script that still fails, with 1 of 7 actions:" in text
    again = text.split("again: harness ")[1].splitlines()[0]
    assert "--only reads,order" in again
    assert main(shlex.split(again)) == 1
    assert main(["explore", str(write(tmp_path, "")), *APP, "--runs", "3"]) == 0
    assert "1 passed under seeds 1 to 3, 3 runs" in capsys.readouterr().out


def test_what_is_printed_fails_again_in_the_same_way_whatever_options_were_given(
    tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(ROOT)
    path = tmp_path / "its own words.chat"
    path.write_text(render(talk("reads")).replace("HELLO", "HI"))
    (tmp_path / "an.adapter").write_text("receives: HELLO ${name} => HI ${name}\n")
    words = [
        "--adapter",
        str(tmp_path / "an.adapter"),
        "--within",
        "9s",
        "--fence",
        "-- ${token} -> pong ${token}",
    ]
    words[-2:] = ["=".join(words[-2:])]
    assert main(["explore", str(path), *APP, *words, "--seed", "9", "-k", "own", "-j", "2"]) == 1
    first = capsys.readouterr().out
    again = first.split("  again: ")[1].splitlines()[0]
    assert "--fence=-- ${token} -> pong ${token}" in shlex.split(again)
    assert not {"-k", "-j"} & {*shlex.split(again)}
    ran = subprocess.run(again.replace("harness", f"{sys.executable} -m harness", 1), shell=True, cwd=ROOT,
                         capture_output=True, text=True, env={**os.environ, "COLUMNS": "300"})  # fmt: skip
    assert ran.returncode == 1
    assert ran.stdout.partition("1 failed under")[0] == first.partition("1 failed under")[0]
    assert first.startswith(f"FAILED {path} under seed 9 ")


def test_every_option_that_decides_what_is_played_is_printed() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, "explore")
    selecting = ("-k", "--tag", "-j", "--seed", "--runs")
    rows = [row for row in OPTIONS if "explore" in row.commands.split() and row.flag not in selecting]
    words: list[str] = []
    for row in rows:
        if not row.is_target or row.flag == "--app":
            value = {"--only": "order,reads"}.get(row.flag, "x y")
            words += [row.flag] if row.action == "store_true" else [row.flag, value]
    given = parser.parse_args(
        [*words, *("--ready", "(?P<port>)"), "--runs", "3", "--tag", "x", "--seed", "0"]
    )
    printed = [*given_words("explore", given, selecting)]
    assert {word for word in printed if word.startswith("--")} == {*words} & {row.flag for row in rows}
    again = parser.parse_args([*printed, "--runs", "3", "--tag", "x", "--seed", "0"])
    assert again == given
    assert [*given_words("explore", parser.parse_args([]), ())] == []
    assert [*given_words("explore", parser.parse_args(["--seed", "0"]), ())] == ["--seed", "0"]


def test_two_processes_find_the_same(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    for fault in ("", "reads"):
        write(tmp_path, fault)
    assert main(["explore", str(tmp_path), *APP, "--runs", "5"]) == 1
    alone = capsys.readouterr().out.rpartition(" in ")[0]
    assert main(["explore", str(tmp_path), *APP, "--runs", "5", "-j", "2"]) == 1
    assert capsys.readouterr().out.rpartition(" in ")[0] == alone


@pytest.mark.parametrize(
    ("fault", "only", "end"),
    [
        # So do 5 and 6, which another process plays.
        ("writes", "writes,accepts", "1 failed under seeds 1 to 23, 4 runs"),
        ("order", "order,reads", "1 failed under seeds 1 to 23, 2 runs"),
        ("order", "accepts", "1 passed under seeds 1 to 23, 23 runs"),
    ],
)
def test_processes_that_divide_the_schedules_of_one_script_find_the_same(
    tmp_path, capsys, monkeypatch, fault, only, end
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("harness.explore.SEEDS_AT_ONCE", 2)
    words = ["explore", str(write(tmp_path, fault)), *APP, "--runs", "23", "--only", only]
    code = main(words)
    alone = capsys.readouterr().out.rpartition(" in ")[0]
    assert alone.endswith(end)
    assert main([*words, "-j", "2"]) == code
    assert capsys.readouterr().out.rpartition(" in ")[0] == alone


def test_in_whatever_order_the_parts_end_the_first_schedule_that_fails_is_found(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("harness.explore.SEEDS_AT_ONCE", 2)
    monkeypatch.setattr("harness.explore.workers", lambda work, make, _: workers(work, make, 1))
    # The last that was started is the first that ends.
    monkeypatch.setattr(
        "concurrent.futures.wait", lambda futures, return_when: SimpleNamespace(done=[[*futures][-1]])
    )
    found = explore_files(
        [write(tmp_path, fault) for fault in ("", "writes", "reads")],
        partial(Targets, TargetChoice(app=APP[1])),
        range(1, 24),
        perturbations=frozenset({Perturbation.WRITES, Perturbation.ACCEPTS}),
        processes=3,
    )
    assert [(one.runs, one.finding and one.finding.seed) for one in found] == [(23, None), (4, 4), (23, None)]


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("text", ["alice> \n\x00 half", "alice> alice\nalice< HALLO alice\n"])
def test_a_script_is_read_once_whatever_becomes_of_the_file(tmp_path, monkeypatch, processes, text) -> None:
    monkeypatch.setattr("harness.explore.SEEDS_AT_ONCE", 2)
    monkeypatch.setattr("harness.explore.workers", lambda work, make, _: workers(work, make, 1))
    path = write(tmp_path, "")

    def start(ask: ServerSpec) -> object:
        path.write_text(text)
        return serve(ask)

    for_all = SimpleNamespace(of_script=lambda script: InProcess(start))
    (found,) = explore_files([path], lambda: for_all, range(1, 8), processes=processes)
    assert (found.outcome, found.runs) == (Outcome.PASSED, 7)
    assert path.read_text() == text


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("alice> alice\nalice< HALLO alice\n", Outcome.FAILED),
        ("skip: later\n\nalice> alice\nalice< HELLO alice\n", Outcome.SKIPPED),
        ("alice> \n\x00 half", Outcome.SCRIPT_ERROR),
        (None, Outcome.SCRIPT_ERROR),
    ],
)
def test_a_script_that_does_not_pass_without_perturbations_ends_at_once(
    tmp_path, monkeypatch, processes, text, outcome
) -> None:
    monkeypatch.setattr("harness.explore.SEEDS_AT_ONCE", 2)
    monkeypatch.setattr("harness.explore.workers", lambda work, make, _: workers(work, make, 1))
    path = tmp_path / "first.chat"
    if text is not None:
        path.write_text(text)
    targets = partial(Targets, TargetChoice(app=APP[1]))
    found = explore_files([path, write(tmp_path, "")], targets, range(1, 24), processes=processes)
    assert [(one.outcome, one.runs) for one in found] == [(outcome, 0), (Outcome.PASSED, 23)]


def test_parts_that_fail_at_the_same_time_are_one_failure(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("harness.explore.SEEDS_AT_ONCE", 2)
    monkeypatch.setattr("harness.explore.workers", lambda work, make, _: workers(work, make, 1))
    # Seeds 4 and 5 fail, in the second and the third part: their results are taken before the next job is started.
    monkeypatch.setattr(
        "concurrent.futures.wait", lambda futures, return_when: SimpleNamespace(done=[*futures])
    )
    (found,) = explore_files(
        [write(tmp_path, "writes")],
        partial(Targets, TargetChoice(app=APP[1])),
        range(1, 24),
        perturbations=frozenset({Perturbation.WRITES, Perturbation.ACCEPTS}),
        processes=3,
    )
    assert (found.runs, found.finding and found.finding.seed) == (4, 4)


MEETING = """
import os, socket
from tests.harness.servers import fragile

def serve(ask):
    with socket.create_connection(("127.0.0.1", {port}), timeout={limit}) as meeting:
        meeting.sendall(f"{{os.getpid()}}\\n".encode())
        meeting.recv(1)  # the end of it: another process has come as well
    return fragile.serve(ask)
"""


def test_the_schedules_of_one_script_are_played_by_several_processes(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    path = write(tmp_path, "")
    came: set[bytes] = set()

    def let_in() -> None:
        held = []
        with suppress(OSError):  # it is shut down at the end
            while True:
                one, _ = listener.accept()
                held.append(one)
                came.add(one.makefile("rb").readline())
                while len(came) > 1 and held:
                    held.pop().close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        (tmp_path / "meeting.py").write_text(MEETING.format(port=listener.getsockname()[1], limit=HANG_S))
        doorman = threading.Thread(target=let_in)
        doorman.start()
        try:
            code = main(["explore", str(path), "--app", "meeting:serve", "--runs", "11", "-j", "2"])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            doorman.join(HANG_S)
    assert code == 0
    assert len(came) == 2
    assert "1 passed under seeds 1 to 11, 11 runs" in capsys.readouterr().out


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_command_refuses_a_target_that_it_cannot_explore(tmp_path, capsys, processes) -> None:
    path = write(tmp_path, "")
    assert main(["explore", str(path), "--connect", "127.0.0.1:1", "-j", processes]) == 2
    assert "only a server in this process" in capsys.readouterr().err


def test_the_command_refuses_an_unknown_kind_of_perturbation(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["explore", str(write(tmp_path, "")), *APP, "--only", "raeds"])
    kinds = ", ".join(kind.value for kind in Perturbation)
    assert f"unknown kind in 'raeds'; known: {kinds}" in capsys.readouterr().err


def test_the_help_lists_every_kind_of_perturbation() -> None:
    (only,) = [row for row in OPTIONS if row.flag == "--only"]
    assert only.help == f"some of {','.join(kind.value for kind in Perturbation)}"


def test_pytest_explores_every_transcript_that_it_plays(tmp_path) -> None:
    for fault in ("", "order"):
        write(tmp_path, fault)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nharness_files = *.chat\nharness_app = {APP[1]}\n")
    words = ["--harness-explore", "20", "--harness-explore-only", "order,reads", "--harness-within", "9s"]
    first = explored_by_pytest(tmp_path, *words)
    assert "1 failed, 1 passed" in first
    assert "  cause     another order of what is ready" in first
    command = shlex.split(first.split("  again: ")[1].splitlines()[0])
    assert command[:2] == ["pytest", "order.chat::order"]
    assert "9s" in command
    again = explored_by_pytest(tmp_path, *command[1:])
    assert "1 failed in" in again
    assert report_in(again) == report_in(first)


def explored_by_pytest(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout


def report_in(printed: str) -> str:
    """The lines up to the command, the order of whose options differs."""
    return printed.partition("FAILED order.chat")[2].partition("  again: ")[0]
