"""`python -m bench --against`: this tree beside another commit."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench import against
from bench.against import COMPARISONS, Verdict, median_interval, table, verdict
from bench.load import Load
from bench.machine import Cores, choose_cores
from bench.pairs import Experiment, Logins, Round, Side, Traffic
from bench.servers import BY_KEY, READY, ROOT, Server

BY_WORKLOAD = {one.key: one for one in COMPARISONS}
SATURATED, IDLE, LOGIN = (BY_WORKLOAD[key] for key in ("saturated-100", "idle", "login"))
THIS, OTHER = (
    Side(replace(BY_KEY["geventchat"], key=key, title=key), "line") for key in ("this tree", "abc1234")
)


def rounds(*costs: tuple[float, float]) -> list[Round]:
    return [Round(this, other, this / other) for this, other in costs]


def test_the_interval_of_a_median_needs_eight_values_and_ignores_outliers() -> None:
    assert median_interval([1.0] * 7) is None
    assert median_interval([1.0] * 8) == (1.0, 1.0)
    twelve = [float(value) for value in range(12)]
    assert median_interval(twelve) == (1.0, 10.0)
    assert median_interval([*twelve[:-1], 1e9]) == (1.0, 10.0)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (None, Verdict.TOO_FEW),
        ((0.9, 1.049), Verdict.WITHIN),
        ((0.9, 1.051), Verdict.UNDECIDED),
        ((1.051, 1.2), Verdict.WORSE),
    ],
)
def test_a_verdict_is_given_only_where_the_whole_interval_agrees(
    interval: tuple[float, float] | None, expected: Verdict
) -> None:
    assert verdict(interval) is expected


def test_another_limit_can_be_given() -> None:
    assert verdict((1.051, 1.149), 1.15) is Verdict.WITHIN
    found = {"saturated-100": rounds(*[(1.1, 1.0)] * 8)}
    text, all_within = table([SATURATED], found, ("this tree", "abc1234"), 1.15)
    assert "within 15%" in text
    assert all_within


def test_the_table_shows_the_ratios_of_the_rounds() -> None:
    # The machine is twice as slow in every other round. The ratio is the same in all of them.
    found = {"saturated-100": rounds(*[(1.02, 1.0), (2.04, 2.0)] * 4)}
    text, all_within = table([SATURATED], found, ("this tree", "abc1234"))
    assert [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]] == [
        "saturated-100", "CPU per delivery", "1.53 µs ±33%", "1.5 µs ±33%", "1.020", "1.020 to 1.020", "8", "within 5%",
    ]  # fmt: skip
    assert all_within


def test_a_slower_server_is_not_within_the_limit() -> None:
    text, all_within = table([SATURATED], {"saturated-100": rounds(*[(1.1, 1.0)] * 8)}, ("a", "b"))
    assert "WORSE by more than 5%" in text
    assert not all_within


def test_a_comparison_without_rounds_is_shown_as_such() -> None:
    text, all_within = table([SATURATED], {"saturated-100": []}, ("a", "b"))
    assert "| – |" in text
    assert "too few rounds" in text
    assert not all_within


def measured_rounds(
    monkeypatch: pytest.MonkeyPatch, found: Iterator[dict[str, Round]], most: int
) -> tuple[against.Rounds, str]:
    out = io.StringIO()
    monkeypatch.setattr(against, "measure_round", lambda *_: next(found))
    return against.measure_rounds([IDLE, LOGIN], THIS, OTHER, most, Cores(0, 1), out), out.getvalue()


def test_an_experiment_is_repeated_until_all_of_its_comparisons_are_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    equal, wide = Round(1.0, 1.0, 1.0), Round(2.0, 1.0, 2.0)
    first = [{"memory": equal, "cpu": wide if number < 2 else equal} for number in range(30)]
    found, out = measured_rounds(monkeypatch, iter(first), 30)
    # With two outliers the interval is undecided until it leaves both of them out.
    assert len(found["idle"]) == len(found["login"]) == 15
    assert "[round 1 of at most 30] login: ratio 2.000" in out


def test_disturbed_rounds_are_counted_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    calm, disturbed = Round(1.0, 1.0, 1.0), Round(1.0, 1.0, 1.0, disturbed=True)
    found, out = measured_rounds(monkeypatch, iter([{"memory": calm, "cpu": disturbed}] * 3), 3)
    assert "login: ratio 1.000, disturbed" in out
    text, _ = table([IDLE, LOGIN], found, ("a", "b"))
    assert "|              3 |" in text
    assert "| 3, 3 disturbed |" in text


@pytest.fixture
def commit() -> str:
    try:
        with against.exported("HEAD") as (name, _):
            return name
    except against.ComparisonFailed as failed:
        pytest.skip(f"this copy of the project has no history: {failed}")


SMALL = Load(4, senders=2, window=8, warm_s=0.02, seconds=0.05)


def test_the_other_commit_runs_from_its_own_files(
    commit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    began: list[Server] = []

    def measure_recorded(experiment: Experiment, *both: Any) -> dict[str, Round]:
        began.extend(side.server for side in both[:2])
        return original(experiment, *both)

    original = against.measure_round
    comparisons = (
        replace(SATURATED, experiment=Traffic(SMALL, pairs=2)),
        replace(LOGIN, experiment=Logins(Load(40), pairs=2)),
    )
    monkeypatch.setattr(against, "COMPARISONS", comparisons)
    monkeypatch.setattr(against, "measure_round", measure_recorded)
    assert command.main(["--against", "HEAD", "--rounds", "1"]) == 1
    printed = capsys.readouterr()
    assert "saturated-100: ratio " in printed.err
    assert "login: ratio " in printed.err
    assert "too few rounds" in printed.out
    folders = {server.key: server.folder for server in began}
    assert folders.pop(commit) != ROOT
    assert list(folders.values()) == [ROOT]
    assert not [server.folder for server in began if server.folder != ROOT and server.folder.exists()]


def test_options_are_compared_with_the_same_server_without_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(against, "COMPARISONS", (replace(SATURATED, experiment=Traffic(SMALL, pairs=2)),))
    assert (
        command.main(["--with", "--data {folder}", "--beside", "--history-messages 5", "--rounds", "1"]) == 1
    )
    printed = capsys.readouterr().out
    assert "this tree" in printed
    assert "--data {folder} costs more than" in printed
    assert printed.rstrip().endswith("--history-messages 5.")


@pytest.mark.usefixtures("commit")
def test_clients_of_two_dialects_are_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    began: list[tuple[str, ...]] = []

    def started(server: Server, dialects: tuple[str, ...], **more: Any) -> Any:
        began.append(dialects)
        return original(server, dialects, **more)

    original = against.servers.started
    monkeypatch.setattr(against.servers, "started", started)
    monkeypatch.setattr(against, "COMPARISONS", (replace(SATURATED, experiment=Traffic(SMALL, pairs=2)),))
    assert command.main(["--dialects", "web,json", "--rounds", "1"]) == 1
    assert began == [("web",), ("json",)]
    # The titles also say whether there are uncommitted changes.
    assert re.search(r"this tree.* \(web\) costs more than this tree.* \(json\)\.", capsys.readouterr().out)
    assert command.main(["--dialects", "slash", "--rounds", "1"]) == 1
    assert began[2:] == [("slash",), ("line",)]


@pytest.mark.parametrize(
    ("dialects", "why"),
    [("web,morse", "unknown dialect 'morse'"), ("web,json,line", "--dialects compares two dialects")],
)
def test_dialects_that_cannot_be_compared_are_an_error(
    dialects: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["--dialects", dialects])
    assert why in capsys.readouterr().err


def test_options_that_the_server_does_not_have_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--with=--no-such-option", "--workloads", "saturated-100", "--rounds", "1"]) == 2
    assert "unknown option --no-such-option" in capsys.readouterr().err


def test_a_server_that_loses_messages_ends_the_comparison() -> None:
    program = str(Path(__file__).parent / "wrong_server.py")
    wrong = Server("wrong", "a wrong server", (sys.executable, program, "drop", "line"), READY)
    quick = replace(SATURATED, experiment=Traffic(SMALL, pairs=2))
    with pytest.raises(against.ComparisonFailed, match="gap: c00003 received"):
        against.measure_rounds(
            [quick], Side(wrong, "line"), Side(wrong, "line"), 1, choose_cores(), io.StringIO()
        )


def test_a_directory_without_the_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(against.ComparisonFailed, match="geventchat"):
        against.server_in(tmp_path, "abc1234")


@pytest.mark.usefixtures("commit")
def test_an_unknown_commit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--against", "no-such-commit"]) == 2
    assert "bench: git rev-parse: fatal: Needed a single revision" in capsys.readouterr().err
