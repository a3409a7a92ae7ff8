"""README.md: its commands, its transcript and its verdict."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from harness import Command, Grade, Outcome, parse, play

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
RUN = "python3 -m venv .venv && .venv/bin/pip install -q -e . && .venv/bin/geventchat"


def block(beginning: str) -> str:
    """The only code block that begins so."""
    (found,) = re.findall(rf"^```\w*\n({re.escape(beginning)}.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return str(found)


def test_one_command_installs_and_starts_the_server() -> None:
    assert block("python3 -m venv .venv && .venv/bin/pip install -q -e . ") == f"{RUN}\n"


def test_the_transcript_is_that_of_the_picture_and_its_grade_the_one_that_is_shown() -> None:
    transcript = block("title:")
    assert transcript == (ROOT / "docs" / "pictures" / "hello.chat").read_text("utf-8")
    command, verdict = block("$ .venv/bin/pip install -q -e ./harness").splitlines()
    server = (
        command.rpartition(" --server ")[2]
        .strip("'")
        .replace(".venv/bin/geventchat", f"{sys.executable} -m geventchat")
    )
    played = play(parse(transcript), Command(server))
    assert played.outcome is Outcome.PASSED
    assert played.grade is Grade.ANSWERED
    assert verdict.endswith(" (answered)")
