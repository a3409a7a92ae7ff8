"""What docs/transcripts.md shows is true: its server, its scripts and its definitions are played."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from harness import Command, PlayOptions, Verdict, parse, play
from harness.language.steps import FenceLine
from harness.reporting import styled_text
from harness.reporting.report import report
from harness.updating.updating import update

PAGE = (Path(__file__).parents[2] / "docs" / "transcripts.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FENCE = FenceLine("PING", ("PONG",))


def block(*parts: str) -> str:
    """The one block that holds all these."""
    (found,) = [text for _, text in BLOCKS if all(part in text for part in parts)]
    return found


@pytest.fixture
def server(tmp_path) -> Command:
    path = tmp_path / "chat.py"
    path.write_text(block("socketserver.ThreadingTCPServer"))
    return Command([sys.executable, str(path), "{port}"])


def played(text: str, server: Command) -> Verdict:
    return play(parse(text, "wrong.chat"), server, PlayOptions(FENCE, within_s=2.0))


def test_the_first_transcript_passes(server):
    verdict = played(block("title: everyone else hears a message", "alice> LOGIN alice"), server)
    assert verdict.passed, styled_text.plain(report(verdict))


def test_the_failure_looks_as_it_is_shown(server):
    first = block("title: everyone else hears a message", "alice> LOGIN alice")
    title = first.splitlines()[0]
    wrong = first.replace(title, "title: the speaker hears its own words").replace(
        "bob< MSG", "alice< MSG alice hello there\nbob< MSG"
    )
    shown = block("$ python -m harness play wrong.chat").split("\n", 1)[1].rsplit("\n\n1 failed", 1)[0]
    assert styled_text.plain(report(played(wrong, server))).rstrip() == shown


def test_the_draft_is_filled_in_as_it_is_shown(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("draft.chat")
    path.write_text(block("# what does bob hear now?", "receives nothing\n\n# what"))
    done = update(path, server, PlayOptions(FENCE))
    assert [line.rstrip() for line in done.diff.splitlines()] == block("--- draft.chat").splitlines()[1:]


def test_definitions_and_order_are_played_as_they_are_shown(server):
    text = (
        block("define X logs in:")
        + "carol logs in\ndave logs in\n\n"
        + block("in any order, the same for carol dave:")
    )
    verdict = played(text, server)
    assert verdict.passed, styled_text.plain(report(verdict))


def test_the_recorded_session_passes(server):
    text = block("title: recorded from").replace("127.0.0.1:4000", "somewhere")
    verdict = played(text, server)
    assert verdict.passed, styled_text.plain(report(verdict))


def test_the_captures_are_a_script():
    assert parse(block("alice<~ CREATED ${id:int}"))
