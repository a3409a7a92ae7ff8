"""What is told of a transcript under pytest, in the shape in which pytest takes it. Knows no verdicts, only styled lines."""

from __future__ import annotations

from typing import Any

from harness.reporting import styled_text


class TranscriptFailed(AssertionError):
    """What is to be told of a transcript that did not do well, and the same in one line."""

    def __init__(self, lines: list[styled_text.Line], summary: str) -> None:
        self.lines = lines
        self.summary = summary
        super().__init__(summary)


class Crash:
    """What pytest shows in its short summary."""

    def __init__(self, message: str) -> None:
        self.message = message


class TranscriptReport:
    """The verdict as pytest shows it: in colour where pytest uses colour, plain in files and between processes."""

    def __init__(self, failed: TranscriptFailed) -> None:
        self._lines = failed.lines
        self.reprcrash = Crash(failed.summary)

    def toterminal(self, tw: Any) -> None:
        tw.write(styled_text.ansi(self._lines) if tw.hasmarkup else styled_text.plain(self._lines))

    def __str__(self) -> str:
        return styled_text.plain(self._lines)
