"""The differences that are known: a file with a line for each, in columns that tabs separate: server, script and cause.

A script is named without its folders, and no line number is kept, so that an edited script has the same baseline.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.targets.choice import UsageError

_HEAD = "# server\tscript\tcause\n"


@dataclass(frozen=True, slots=True, order=True)
class Known:
    server: str
    script: str
    cause: str


def read(path: Path) -> frozenset[Known]:
    """The known differences in this file; UsageError where it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"cannot read the baseline {path}: {why}; --write-baseline writes one") from None
    known = set()
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        parts = line.split("\t")
        if len(parts) != 3 or not all(parts):
            raise UsageError(f"{path}:{number}: expected a server, a script and a cause, separated by tabs")
        known.add(Known(*parts))
    return frozenset(known)


def write(path: Path, known: Iterable[Known]) -> None:
    """Write these as a baseline."""
    lines = (f"{one.server}\t{one.script}\t{one.cause}\n" for one in sorted(set(known)))
    path.write_text(_HEAD + "".join(lines), encoding="utf-8")
