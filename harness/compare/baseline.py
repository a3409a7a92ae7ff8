"""The differences that are known: a file with a line for each, in columns that tabs separate: server, script and cause.

- A script is named without the folders that all scripts of the run have in common, but always so that only one of them ends
  in that name. In another run, the script is meant whose path ends in it.
- A tab or the end of a line in the name of a file is written as `\\t`, `\\n` or `\\r`, and what is not UTF-8 as `\\udcNN`.
- No line number is kept, so that an edited script has the same baseline.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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


def of_run(known: Iterable[Known], files: Iterable[str]) -> frozenset[Known]:
    """Those that are about these files, with the file as the script; UsageError where it can be each of several."""
    paths = {_written(os.path.abspath(file)): file for file in files}
    found: set[Known] = set()
    for one in sorted(known):
        meant = [file for path, file in paths.items() if path.endswith(f"/{one.script}")]
        if len(meant) > 1:
            raise UsageError(
                f"{one.script} in the baseline can be {meant[0]} or {meant[1]}; "
                "compare their folders one by one, or write a new baseline of all"
            )
        found.update(replace(one, script=file) for file in meant)
    return frozenset(found)


def distinct(names: Mapping[str, str]) -> dict[str, str]:
    """These names of files, with more folders where another file ends in the same name."""
    paths = {file: os.path.abspath(file) for file in names}
    out = {}
    for file, name in names.items():
        path, end = paths[file], f"/{name}"
        while sum(one.endswith(end) for one in paths.values()) > 1 and end != path:
            end = path[path.rindex("/", 0, -len(end)) :]
        out[file] = end[1:]
    return out


def document(known: Iterable[Known]) -> str:
    """The text of a baseline of these."""
    lines = (f"{one.server}\t{_written(one.script)}\t{one.cause}\n" for one in sorted(set(known)))
    return _HEAD + "".join(lines)


def _written(path: str) -> str:
    text = path.translate({ord("\t"): r"\t", ord("\n"): r"\n", ord("\r"): r"\r"})
    return text.encode(errors="backslashreplace").decode()
