"""A ScriptError about a step that was read well but cannot be meant. Pure."""

from __future__ import annotations

from harness.language.problems import ScriptError
from harness.language.renderer import render_item
from harness.language.steps import Item, Script


def script_error(
    script: Script, line: int, column: int, message: str, expected: str, step: Item | None = None
) -> ScriptError:
    """The error; column counts from 0 within the step's text. Without a source the step is shown rendered."""
    if 0 < line <= len(script.source):
        text = script.source[line - 1]
        column += len(text) - len(text.lstrip(" "))
    else:
        text = next(iter(render_item(step)), "") if step is not None else ""
    return ScriptError(script.file, line, column + 1, text, message, expected)
