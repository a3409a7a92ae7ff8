"""A divergence as a file, ready to be added to the tests of the server. Plays nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.language.renderer import render
from harness.language.steps import Script, Title
from harness.playing.verdict import Verdict
from harness.reporting.failure_text import headline


def write(diverged: Verdict, path: Path) -> None:
    """Write the conversation that the model expects, with a title that says what the server did instead."""
    path.parent.mkdir(parents=True, exist_ok=True)
    what = headline(diverged.failures[0])
    path.write_text(render(_titled(diverged.script, f"by its model, {what}")), encoding="utf-8")


def free_path(folder: Path, stem: str) -> Path:
    """A file that is not there yet."""
    path, number = folder / f"{stem}.chat", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.chat"
    return path


def _titled(script: Script, text: str) -> Script:
    shown = "".join(char if char.isprintable() else "\ufffd" for char in text).strip()
    header = tuple(replace(item, text=shown) if isinstance(item, Title) else item for item in script.header)
    return replace(script, header=header)
