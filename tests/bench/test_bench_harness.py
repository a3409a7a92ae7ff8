"""`python -m bench.harness`: the transcripts that it times, and its table."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from bench import harness
from harness import InProcessAsyncio, ServerSpec, Target
from harness.playing.pipeline import play
from harness.targets.inprocess import InProcess
from tests.app import serve
from tests.harness.servers import aio


def test_the_transcript_of_twenty_lines_has_twenty_and_passes() -> None:
    script = harness.twenty_lines()
    assert len(script.source) == 20
    verdict = play(script, InProcess(serve))
    assert verdict.passed
    assert verdict.clients == ("alice", "bob", "carol")


def test_it_prints_one_row_per_measurement_with_the_number_of_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.chat").write_text("a> LOGIN a\na< OK\n")
    monkeypatch.setattr(harness, "TRANSCRIPTS", tmp_path)
    harness.main(["--tries", "4", "--rounds", "3"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(*row[:2], row[-1]) for row in rows] == [
        ("gevent:", "wait", "4"), ("gevent:", "a", "3"), ("gevent:", "a", "4"), ("the", "1", "1"),
        ("asyncio:", "wait", "4"), ("asyncio:", "a", "3"), ("asyncio:", "a", "4"),
    ]  # fmt: skip


def _documented(row: str) -> list[str]:
    """The cells of this row of the table of costs, for gevent and for asyncio."""
    page = (Path(__file__).parents[2] / "docs" / "transcripts.md").read_text("utf-8")
    (line,) = re.findall(rf"^\| {row}[^|]*\|(.*)\|$", page, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


def test_the_page_and_the_command_have_the_same_number_of_echoes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "transcripts.md").read_text("utf-8")
    assert f"| a line and its echo ({harness.ROUNDS:,} of them, none missed) |" in page


@pytest.mark.parametrize(
    ("target", "column"), [(InProcess(serve), 0), (InProcessAsyncio(aio.chat), 1)], ids=["gevent", "asyncio"]
)
def test_a_transcript_of_twenty_lines_takes_less_than_ten_times_what_is_documented(
    target: Target, column: int
) -> None:
    """In processor time, which a busy machine hardly changes, and the best of several."""
    documented_s = float(_documented("a transcript of 20 lines")[column].removesuffix(" ms")) / 1000
    script, took = harness.twenty_lines(), []
    for _ in range(5):
        began = time.process_time()
        assert play(script, target).passed
        took.append(time.process_time() - began)
    assert min(took) < 10 * documented_s


async def _silent(_spec: ServerSpec) -> asyncio.Server:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    return await asyncio.start_server(swallow, "127.0.0.1", 0)


def test_a_missed_echo_ends_the_measurement() -> None:
    with pytest.raises(SystemExit, match="an answer was missed"):
        harness.time_rounds(InProcessAsyncio(_silent), 3)


def test_a_failing_transcript_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "one.chat").write_text("a> LOGIN a\na< NO\n")
    monkeypatch.setattr(harness, "TRANSCRIPTS", tmp_path)
    with pytest.raises(SystemExit, match="does not pass"):
        harness.main(["--tries", "1"])
