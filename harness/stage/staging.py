"""A Stage for a conversation written in Python, asked for in the words of a script's header."""

from __future__ import annotations

from collections.abc import Mapping

from harness.language.settings import header_line
from harness.language.steps import FenceLine, LineEnd, Server, Within
from harness.stage.fence import Fence
from harness.stage.stage import Stage
from harness.targets.asking import Ask, Target


def stage_for(target: Target, header: Mapping[str, str]) -> Stage:
    """The stage that a script with this header would be played on: server, fence, eol and within."""
    ask, fence, eol, within_s = Ask(), None, b"\n", 5.0
    for key, value in header.items():
        match header_line(f"{key}: {value}", 0):
            case Server(endpoints, options):
                ask = Ask(endpoints, options)
            case FenceLine(line, answers):
                fence = Fence(line, answers)
            case LineEnd(end):
                eol = end.wire
            case Within(microseconds):
                within_s = microseconds / 1_000_000
            case other:
                raise ValueError(f"{type(other).__name__} says nothing about a stage")
    return Stage(target, ask, fence=fence, eol=eol, within=within_s)
