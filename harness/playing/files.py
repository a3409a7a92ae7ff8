"""One script file played at a target. Knows no terminal."""

from __future__ import annotations

from pathlib import Path

from harness.language.problems import ScriptError
from harness.language.script import load
from harness.language.steps import Script
from harness.playing.pipeline import PlayOptions, play
from harness.playing.verdict import Outcome, Verdict
from harness.stage.target import Target


def play_file(path: Path, target: Target, play_options: PlayOptions = PlayOptions()) -> Verdict:  # noqa: B008  # frozen
    """The verdict on one file; a file that cannot be read, or is not a script, is a verdict too."""
    try:
        return play(load(path), target, play_options)
    except ScriptError as error:
        return Verdict(Script(file=str(path)), Outcome.SCRIPT_WRONG, target=str(target), reason=str(error))
