"""`python -m harness audit` and `--harness-audit`, as their users run them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.cli import main

GOOD = "alice> LOGIN alice\nalice< OK\n"
LOOSE = "alice> LOGIN alice\nalice<~ ${_}\n"
BAD = "alice> LOGIN alice\nalice< NO\n"
APP = ("--app", "tests.harness.servers.talk:serve")
COMMAND = f"{sys.executable} -m tests.harness.servers.talk {{port}} none"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return tmp_path


def run(folder: Path, *options: str, **files: str) -> int:
    for name, text in files.items():
        (folder / f"{name}.chat").write_text(text)
    return main(["audit", str(folder), *options])


def test_it_exits_with_0_where_everything_is_noticed(folder, capsys):
    assert run(folder, *APP, good=GOOD) == 0
    assert "1 script, 4 changes to what the server says, 4 noticed in" in capsys.readouterr().out


def test_it_exits_with_1_where_something_survives(folder, capsys):
    assert run(folder, *APP, good=GOOD, loose=LOOSE) == 1
    out = capsys.readouterr().out
    assert "loose.chat:2   1 change to this line would go unnoticed" in out
    assert "2 scripts, 8 changes to what the server says, 7 noticed, 1 not in" in out


def test_it_exits_with_2_where_a_script_does_not_pass_or_is_none(folder, capsys):
    assert run(folder, *APP, good=GOOD, loose=LOOSE, bad=BAD) == 2
    assert "not audited: " in capsys.readouterr().out
    (folder / "bad.chat").write_text("what?\n")
    assert run(folder, *APP) == 2


def test_a_script_that_is_skipped_is_no_fault_of_anyone(folder, capsys):
    assert run(folder, *APP, other="needs: magic\n\n" + LOOSE) == 0
    assert "skipped" in capsys.readouterr().out


def test_two_processes_find_the_same(folder, capsys):
    run(folder, *APP, good=GOOD, loose=LOOSE)
    alone = capsys.readouterr().out.rpartition(" in ")[0]
    assert run(folder, *APP, "-j", "2") == 1
    assert capsys.readouterr().out.rpartition(" in ")[0] == alone


def test_at_most_so_many_are_played(folder, capsys):
    assert run(folder, *APP, "--most", "3", "--seed", "5", good=GOOD) == 0
    out = capsys.readouterr().out
    assert "3 changes to what the server says" in out
    assert "left out by --most: 1 of 4" in out


def test_none_at_all_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        run(folder, *APP, "--most", "0", good=GOOD)
    assert "0 is less than one" in capsys.readouterr().err


def test_a_command_is_audited_too_and_where_silence_is_only_waited_for_that_is_said(folder, capsys):
    assert run(folder, "--server", COMMAND, "--most", "2", loose=LOOSE, good=GOOD) in (0, 1)
    assert "silence is not proven in 2 scripts" in capsys.readouterr().out
    who = "fence: WHO -> USER alice\n\n"
    assert run(folder, "--server", COMMAND, "--most", "2", loose=who + LOOSE, good=who + GOOD) in (0, 1)
    assert "silence" not in capsys.readouterr().out


# --- pytest -------------------------------------------------------------------------------------------------


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nharness_files = *.chat\nfilterwarnings = error\n")
    (pytester.path / "good.chat").write_text(GOOD)
    (pytester.path / "loose.chat").write_text(LOOSE)
    (pytester.path / "other.chat").write_text("needs: magic\n\n" + GOOD)
    return pytester


def run_pytest(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    return project.runpytest_inprocess(
        "-p", "no:cacheprovider", "-p", "harness.pytest_plugin", "--harness-app", APP[1], "-rfEs", *options
    )


def test_pytest_audits_each_transcript_when_asked_to(project):
    run_pytest(project).assert_outcomes(passed=2, skipped=1)
    result = run_pytest(project, "--harness-audit")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    text = result.stdout.str()
    assert "SURVIVED loose.chat:2   1 change to this line would go unnoticed" in text
    assert "Traceback" not in text


def test_pytest_can_be_told_how_many(project):
    (project.path / "loose.chat").unlink()
    run_pytest(project, "--harness-audit", "--harness-audit-most", "1").assert_outcomes(passed=1, skipped=1)


def test_pytest_does_one_thing_at_a_time(project):
    result = run_pytest(project, "--harness-audit", "--harness-update")
    assert "--harness-update and --harness-audit: one of them" in result.stderr.str()
