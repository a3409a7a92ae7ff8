"""Script -> text, so that parse(render(script)) == script. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from harness.language.forms import write_line
from harness.language.steps import Block, Item, Script

_INDENT = "    "


def render(script: Script) -> str:
    """The script as text."""
    lines = [write_line(item) for item in script.header]
    if script.header:
        lines.append("")
    for item in script.body:
        lines.extend(render_item(item))
    return "".join(f"{line}\n" for line in lines)


def render_item(item: Item) -> Iterator[str]:
    """The lines of one step; of a block, with everything in it."""
    yield write_line(item)
    if isinstance(item, Block):
        for inner in item.body:
            for line in render_item(inner):
                yield _INDENT + line if line else ""
