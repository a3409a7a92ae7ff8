"""The suites of transcripts that come with the harness, named `suite:NAME` wherever a command takes files."""

from __future__ import annotations

from pathlib import Path

from harness.targets.choice import UsageError

PREFIX = "suite:"
_FOLDER = Path(__file__).parent


def suites() -> list[str]:
    """The names of all suites."""
    return sorted(folder.name for folder in _FOLDER.iterdir() if any(folder.glob("*.chat")))


def suite_folder(path: Path) -> Path:
    """The folder of `suite:NAME`, or any other path unchanged; UsageError for an unknown suite."""
    name = str(path)
    if not name.startswith(PREFIX):
        return path
    name = name.removeprefix(PREFIX)
    if name not in suites():
        raise UsageError(f"unknown suite {name!r}; known: {', '.join(suites())}")
    return _FOLDER / name
