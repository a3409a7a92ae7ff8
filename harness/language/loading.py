"""Loads scripts from files and text, and plans them: the public functions of the language."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from harness.language.expansion import expand
from harness.language.parser import parse
from harness.language.problems import ScriptError, ScriptProblem
from harness.language.renderer import render
from harness.language.steps import OF_ONE_SCRIPT, Blank, Comment, Define, Include, Script
from harness.language.validation import Plan, validate

__all__ = [
    "Plan",
    "ScriptError",
    "check",
    "is_library",
    "load",
    "parse",
    "read",
    "real_path",
    "render",
    "shown",
]


def load(path: str | Path) -> Script:
    """Read the script in this file, with everything that it includes."""
    path = Path(path)
    try:
        source = path.read_bytes()
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise ScriptError(ScriptProblem(str(path), 0, 0, message, "a readable file")) from None
    return read(source, shown(path))


def shown(path: Path) -> str:
    """The path relative to the current folder where the file lies below it."""
    try:
        return str(real_path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def real_path(path: Path) -> Path:
    """The path without links. One that cannot be reached is no error: reading it says why."""
    return Path(os.path.realpath(path))  # Path.resolve raises where links lead in a circle


def read(source: bytes, file: str) -> Script:
    """Read a script from these bytes, as if they were this file, with everything that it includes."""
    return _with_includes(parse(_decode(source, file), file), (real_path(Path(file)),), {})


def check(script: Script) -> Plan:
    """Expand and validate the script without playing it; ScriptError where it cannot be played."""
    return validate(expand(script))


def is_library(script: Script) -> bool:
    """Whether the script holds only definitions and headers for others to include. One that has lost its steps does not: it
    is empty, or says of itself what it tests."""
    if not all(isinstance(item, (Define, Include, Comment, Blank)) for item in script.body):
        return False
    if any(isinstance(item, Define) for item in script.body):
        return True
    said = [item for item in (*script.header, *script.body) if not isinstance(item, (Comment, Blank))]
    return bool(said) and not any(isinstance(item, tuple(OF_ONE_SCRIPT)) for item in said)


def _decode(source: bytes, file: str) -> str:
    try:
        return source.decode("utf-8")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        start = source.rfind(b"\n", 0, error.start) + 1
        before = source[start : error.start].decode("utf-8", "replace")
        raise ScriptError(
            ScriptProblem(
                file,
                line,
                len(before) + 1,
                "this byte is not UTF-8",
                "a script in UTF-8; other bytes are written a>> \\xNN",
                f"{before}\\x{source[error.start]:02x}",
            )
        ) from None


def _with_includes(script: Script, chain: tuple[Path, ...], known: dict[Path, Script]) -> Script:
    body = (
        _resolved(item, script, chain, known) if isinstance(item, Include) else item for item in script.body
    )
    return replace(script, body=tuple(body))


def _resolved(item: Include, script: Script, chain: tuple[Path, ...], known: dict[Path, Script]) -> Include:
    """The include with its script: the same one wherever the file is included, and so the same definitions."""

    def error(message: str, expected: str) -> ScriptError:
        text = f"include {item.path}"
        return ScriptError(ScriptProblem(script.file, item.line, 9, message, expected, text))

    path = Path(script.file).parent / item.path
    real = real_path(path)
    if real in chain:
        raise error("this file includes itself", "a file of definitions and headers")
    if real not in known:
        try:
            source = path.read_bytes()
        except OSError as wrong:
            raise error(
                f"cannot read {path}: {wrong.strerror}", "a file, named from this script's folder"
            ) from None
        included = parse(_decode(source, str(path)), str(path))
        known[real] = _with_includes(included, (*chain, real), known)
    return replace(item, script=known[real])
