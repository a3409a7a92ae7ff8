"""What docs/explore-and-generate.md shows is true: its servers, its model and its scripts do what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import InProcess, parse, play
from harness.interception.schedule import Perturbation
from harness.reporting import styled_text
from harness.reporting.report import report
from tests.app import serve

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explore-and-generate.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def block(*parts: str) -> str:
    """The one block that holds all these."""
    (found,) = [text for text in BLOCKS if all(part in text for part in parts)]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "relay.py").write_text(block("import StreamServer", "they say"))
    (tmp_path / "relay.chat").write_text(block("title: everyone else hears a line", "bob connects"))
    (tmp_path / "names.py").write_text(block("import StreamServer", "TAKEN"))
    (tmp_path / "talkers.py").write_text(block("class Talkers"))
    return tmp_path


def ran(folder: Path, command: str) -> str:
    """What the command says, without the time that it took."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, *command.split()[1:]]
    return timeless(subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True).stdout)


def timeless(text: str) -> str:
    return re.sub(r"[0-9]+\.[0-9]{2} s", "0.00 s", text)


@pytest.mark.parametrize("which", ["explore relay.chat", "generate --model"])
def test_a_command_says_what_is_shown(folder: Path, which: str) -> None:
    command, shown = block(f"$ python -m harness {which}").split("\n", 1)
    assert ran(folder, command.removeprefix("$ ")) == timeless(shown)


def test_the_second_mistake_takes_what_the_page_says(folder: Path) -> None:
    server = folder / "relay.py"
    broken = server.read_text()
    head, _ = broken.split("    while chunk")
    server.write_text(
        head
        + """\
    for line in sock.makefile("rb"):
        for other in people:
            if other is not sock:
                other.sendall(b"they say " + line)
    people.remove(sock)
"""
    )
    assert "1 passed" in ran(folder, "python -m harness explore relay.chat --app relay:serve")
    (folder / "two.chat").write_text(
        "alice connects\nbob connects\ncarol connects\n\ntogether:\n    alice> hello\n    bob> hello yourself\n"
        "in any order:\n    alice< they say hello yourself\n    bob< they say hello\n    carol< they say hello\n"
        "    carol< they say hello yourself\n"
    )
    told = ran(folder, "python -m harness explore two.chat --app relay:serve")
    assert "clients that take nothing for a while\n" in told


def test_the_script_with_a_fault_passes() -> None:
    verdict = play(parse(block("accepting fails with EMFILE", "bob receives nothing")), InProcess(serve))
    assert verdict.passed, styled_text.plain(report(verdict))


def test_every_kind_of_schedule_is_told() -> None:
    assert re.findall(r"^\| `(\w+)` \| ", PAGE, re.MULTILINE) == [
        perturbation.value for perturbation in Perturbation
    ]


def test_every_option_that_is_told_is_there(folder: Path) -> None:
    for command, options in (
        ("explore", ("--runs", "--seed", "--only", "-k")),
        ("generate", ("--model", "--runs", "--moves", "--seed", "-o")),
    ):
        told = ran(folder, f"python -m harness {command} --help")
        for option in options:
            assert option in told
    assert {"--harness-explore", "--harness-explore-seed"} <= set(
        re.findall(r"--harness-[a-z-]+", ran(folder, "python -m pytest --help"))
    )
