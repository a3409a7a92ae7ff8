"""README.md: its commands, its transcript and its verdict."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bench.rounds import plan
from bench.servers import SERVERS
from bench.workloads import FULL, quick
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


def test_the_first_screen_has_one_line_to_clone_with_a_placeholder_and_one_command() -> None:
    """What it is, how to get it, one command, a picture, and one plain sentence about its speed: before the first heading."""
    first = README.split("\n## ")[0]
    assert re.findall(r"^git clone .*$", README, re.MULTILINE) == [
        "git clone ADDRESS-OF-THIS-REPOSITORY geventchat && cd geventchat"
    ]
    assert (
        first.index("git clone") < first.index(RUN) < first.index("<picture>") < first.index("In a chat of")
    )
    assert len(first.splitlines()) < 35
    (sentence,) = re.findall(r"<!-- benchmark: sentence -->\n(.*\n)<!-- end of sentence -->", first)
    assert sentence.count(".\n") == 1


def test_every_picture_is_a_file_of_this_repository() -> None:
    """So there is no badge, which would be a picture of another server's and can become false by itself."""
    pictures = re.findall(r'!\[[^\]]*\]\(([^)]+)\)|(?:src|srcset)="([^"]+)"', README)
    names = [markdown or html for markdown, html in pictures]
    assert len(names) >= 4
    for name in names:
        assert (ROOT / name).is_file(), name


def test_the_grades_are_explained_behind_the_transcript() -> None:
    explained = README.split("1 passed in", 1)[1].split("\n\n", 2)[1]
    assert [grade for grade in map(str, Grade) if f"`{grade}`:" not in explained] == []


def test_the_benchmark_says_how_long_it_takes_and_that_there_is_a_short_one() -> None:
    text = " ".join(README.split())
    (minutes,) = re.findall(
        r"python -m bench` measures all of it on your machine in about (\d+) minutes", text
    )
    assert "python -m bench --quick` makes a rougher comparison in about one minute" in text
    page = (ROOT / "bench" / "README.md").read_text("utf-8")
    assert re.search(rf"^python -m bench +# about {minutes} minutes:", page, re.MULTILINE)
    chosen = list(SERVERS)
    full_s = sum(run.workload.expected_s(run.server) for run in plan(FULL, chosen))
    quick_s = sum(run.workload.expected_s(run.server) for run in plan(quick(), chosen))
    # Some runs are repeated, which an estimate does not know.
    assert 0.7 * 60 * int(minutes) < full_s < 60 * int(minutes)
    assert 0.5 * 60 < quick_s < 60
