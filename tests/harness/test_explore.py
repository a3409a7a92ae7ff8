"""Exploration: a right server passes every schedule, a fragile one fails some, and each failure comes back, short."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from gevent import _socket3  # type: ignore[attr-defined]

from harness import Address, InProcess, parse, play, render
from harness.cli import main
from harness.exploring.exploration_report import report
from harness.exploring.explore import Finding, explorable, explore
from harness.interception.interceptor import AcceptedConnection, Interceptor
from harness.interception.schedule import EVERY, Perturbation, Schedule
from harness.language.steps import Script
from harness.reporting import styled_text
from harness.targets.choice import UsageError
from tests.harness.servers.fragile import FAULTS, serve

ROOT = Path(__file__).parents[2]
TALK = """\
alice> alice
alice< HELLO alice
bob> bob
bob< HELLO bob
carol> carol
carol< HELLO carol

alice> hello there
in any order, the same for bob carol:
    < alice: hello there

bob>> one\\ntwo\\nthree\\n
alice< bob: one
alice< bob: two
alice< bob: three
carol< bob: one
carol< bob: two
carol< bob: three

carol closes
alice> carol has gone
bob< alice: carol has gone
"""


def talk(fault: str = "") -> Script:
    return parse(f"server: fault={fault}\n\n{TALK}" if fault else TALK, "talk.chat")


def finding(fault: str, perturbations: frozenset[Perturbation] = EVERY, runs: int = 12) -> Finding | None:
    exploration_result = explore(
        talk(fault), InProcess(serve), range(1, runs + 1), perturbations=perturbations
    )
    assert exploration_result.baseline.passed
    return exploration_result.finding


def test_a_right_server_passes_under_every_schedule() -> None:
    exploration_result = explore(talk(), InProcess(serve), range(1, 41))
    assert exploration_result.passed
    assert exploration_result.runs == 40


@pytest.mark.parametrize(
    ("fault", "shown_by"),
    [
        ("reads", {Perturbation.READS}),
        ("writes", {Perturbation.WRITES, Perturbation.STALLS}),
        ("stalls", {Perturbation.WRITES, Perturbation.STALLS}),
        ("order", {Perturbation.ORDER}),
    ],
)
def test_each_kind_of_schedule_shows_its_own_faults_and_no_others(
    fault: str, shown_by: set[Perturbation]
) -> None:
    found = {perturbation: finding(fault, frozenset({perturbation})) for perturbation in Perturbation}
    assert {perturbation for perturbation, one in found.items() if one} == shown_by


@pytest.mark.parametrize("fault", ["reads", "writes", "stalls", "order"])
def test_a_failing_seed_fails_again_in_the_same_way(fault: str) -> None:
    first = finding(fault)
    assert first is not None
    for _ in range(3):
        again = play(talk(fault), InProcess(serve).intercepted_by(Schedule(first.seed)))
        assert again.failures == first.verdict.failures


@pytest.mark.parametrize("fault", ["reads", "writes", "stalls", "order"])
def test_the_shortest_script_is_a_script_that_only_the_schedule_fails(fault: str) -> None:
    found = finding(fault)
    assert found is not None
    assert found.steps[0] <= 3 < found.steps[1]
    script = parse(render(found.shortest.script))
    assert play(script, InProcess(serve)).passed
    assert not play(script, InProcess(serve).intercepted_by(Schedule(found.seed, found.perturbations))).passed
    for perturbation in found.perturbations:
        # What it takes is what it takes.
        assert play(
            script,
            InProcess(serve).intercepted_by(Schedule(found.seed, found.perturbations - {perturbation})),
        ).passed


class Witness(Schedule):
    """A schedule that notes what it decided."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.decided: list[object] = []

    def accepting(self) -> None:
        self.decided.append("accepting")
        super().accepting()

    def reading(self, wire: AcceptedConnection, size: int) -> int:
        allowed = super().reading(wire, size)
        self.decided.append(("reading", wire.number, size, allowed))
        return allowed

    def writing(self, wire: AcceptedConnection, size: int) -> int:
        allowed = super().writing(wire, size)
        self.decided.append(("writing", wire.number, size, allowed))
        return allowed

    def choose(self, ready: int) -> int:
        chosen = super().choose(ready)
        self.decided.append(("choose", ready, chosen))
        return chosen


def decided(seed: int) -> list[object]:
    witness = Witness(seed)
    assert play(talk(), InProcess(serve).intercepted_by(witness)).passed
    return witness.decided


@pytest.mark.parametrize("seed", [2, 7, 11])
def test_the_seed_alone_decides(seed: int) -> None:
    assert decided(seed) == decided(seed) != decided(seed + 1)


def test_schedules_do_what_they_say() -> None:
    calls = [one for seed in range(1, 9) for one in decided(seed) if isinstance(one, tuple)]
    assert any(call[0] == "reading" and call[3] < call[2] for call in calls)
    assert any(call[0] == "writing" and 0 < call[3] < call[2] for call in calls)
    assert any(call[0] == "writing" and call[3] == 0 for call in calls)
    assert any(call[0] == "choose" and call[2] > 0 for call in calls)


class Bystander(Interceptor):
    """Notes whom it was asked about, and changes nothing."""

    def __init__(self) -> None:
        self.peers: set[object] = set()
        self.ended = False

    def accepted(self, wire: AcceptedConnection) -> None:
        self.peers.add(wire.peer)

    def reading(self, wire: AcceptedConnection, size: int) -> int:
        assert wire.peer in self.peers
        return size

    def ends(self) -> None:
        self.ended = True


def test_nothing_stays_of_it_when_the_stage_is_gone() -> None:
    classes = (socket.socket, _socket3._wrefsocket)
    before = [dict(vars(kind)) for kind in classes]
    interceptor = Bystander()
    assert play(talk(), InProcess(serve).intercepted_by(interceptor)).passed
    assert [dict(vars(kind)) for kind in classes] == before
    assert interceptor.ended
    assert len(interceptor.peers) == 3


def test_a_target_outside_this_process_is_told_apart() -> None:
    with pytest.raises(
        UsageError, match="cannot be explored: schedules are made for gevent servers in this process"
    ):
        explorable(Address("127.0.0.1", 1))


# --- as a command, and from pytest ----------------------------------------------------------------------------


def write(folder: Path, fault: str) -> Path:
    path = folder / f"{fault or 'sound'}.chat"
    path.write_text(render(talk(fault)))
    return path


def test_the_command_tells_what_it_takes_and_how_to_see_it_again(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    path = write(tmp_path, "reads")
    app = ["--app", "tests.harness.servers.fragile:serve"]
    assert main(["explore", str(path), *app, "--runs", "20", "--only", "reads,order"]) == 1
    told = capsys.readouterr().out
    assert "it takes      input cut into smaller reads\n" in told
    assert "the shortest script that still fails, 1 of 7 things done:" in told
    again = told.split("again: python -m harness ")[1].splitlines()[0]
    assert main(shlex.split(again)) == 1
    assert main(["explore", str(write(tmp_path, "")), *app, "--runs", "3"]) == 0
    assert "1 passed under seeds 1 to 3, 3 runs" in capsys.readouterr().out


def test_the_command_refuses_what_it_cannot_explore(tmp_path, capsys) -> None:
    path = write(tmp_path, "")
    assert main(["explore", str(path), "--connect", "127.0.0.1:1"]) == 2
    assert "in this process (--app MODULE:FACTORY)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["explore", str(path), "--app", "x:y", "--only", "raeds"])
    assert "known: reads, writes, stalls, order, accepts" in capsys.readouterr().err


def test_what_fails_as_it_is_is_told_as_that(tmp_path) -> None:
    exploration_result = explore(parse("alice> alice\nalice< HALLO alice\n"), InProcess(serve), range(1, 9))
    assert not exploration_result.passed
    assert exploration_result.runs == 0
    assert "not explored, since it does not pass as it is" in styled_text.plain(report(exploration_result))


def test_pytest_explores_every_transcript_that_it_plays(tmp_path) -> None:
    for fault in ("", "order"):
        write(tmp_path, fault)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nharness_files = *.chat\nharness_app = tests.harness.servers.fragile:serve\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--harness-explore", "20"]
    ran = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert "1 failed, 1 passed" in ran.stdout
    assert "it takes      another order of what is ready" in ran.stdout


def test_every_fault_passes_when_it_is_merely_played() -> None:
    for fault in FAULTS:
        assert play(talk(fault), InProcess(serve)).passed, fault
