"""Each kind of failure, caught on a server with one deliberate mistake and told as the golden files say.

`python -m tests.harness.test_failures` writes the golden files anew; read the difference before it is committed.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import InProcess, Outcome, Verdict, load, play
from harness.language.steps import Script
from harness.reporting import styled_text
from harness.reporting.report import report
from tests.harness.servers.talk import serve, serve_right

GOLDEN = Path(__file__).parent / "golden"
SCRIPTS = sorted(GOLDEN.glob("*.chat"))


def told(path: Path) -> str:
    return _without_places(styled_text.plain(report(verdict_on(path))))


def verdict_on(path: Path) -> Verdict:
    script = load(path)
    return play(Script(script.header, script.body, path.name, script.source), InProcess(serve))


def _without_places(text: str) -> str:
    """Of a server's traceback only the error itself is the same on every machine and every Python."""
    look, heading, words = text.partition("  the server's last words\n")
    kept = [line for line in words.splitlines() if re.match(r"  \| \w+Error: ", line)]
    return look + heading + "".join(f"{line}\n" for line in kept)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_failure_is_told_as_the_golden_file_says(path: Path) -> None:
    assert told(path) == path.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_right_server_is_never_blamed(path: Path) -> None:
    verdict = play(load(path), InProcess(serve_right))
    assert verdict.outcome is Outcome.PASSED, styled_text.plain(report(verdict))


def test_no_golden_file_is_left_without_its_script() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {path.stem for path in SCRIPTS}


if __name__ == "__main__":
    for script in SCRIPTS:
        script.with_suffix(".txt").write_text(told(script), encoding="utf-8")
