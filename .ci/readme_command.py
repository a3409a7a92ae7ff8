"""Print the shell command that follows a marker comment in a Markdown file.

    python3 .ci/readme_command.py README.md "the test suite"

prints the content of the first `sh` code block after the line `<!-- the test suite -->`. It needs only Python itself.
"""

from __future__ import annotations

import sys
from pathlib import Path


class CommandNotFound(Exception):
    """The file has no such marker, or no `sh` block after it."""


def command_after(marker: str, markdown: str) -> str:
    """The content of the first `sh` code block after the marker and before any other marker or heading."""
    lines = iter(markdown.splitlines())
    if f"<!-- {marker} -->" not in lines:  # consumes the lines up to the marker
        raise CommandNotFound(f"no line <!-- {marker} -->")
    for line in lines:
        if line.startswith(("#", "<!--")):
            break
        if line == "```sh":
            block = []
            for content in lines:
                if content == "```":
                    return "\n".join(block)
                block.append(content)
    raise CommandNotFound(f"no complete sh code block after <!-- {marker} -->")


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(f"usage: {sys.argv[0]} FILE MARKER", file=sys.stderr)
        return 2
    file, marker = arguments
    try:
        print(command_after(marker, Path(file).read_text("utf-8")))
    except (OSError, CommandNotFound) as failed:
        print(f"{file}: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
