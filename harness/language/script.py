"""Text <-> Script: the public face of the language. Knows files; knows no sockets, no clock, no pytest.

`parse` and `render` are pure, and parse(render(s)) == s; `load` reads a file and what it includes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.language.parser import parse
from harness.language.plan import Plan, plan
from harness.language.problems import ScriptError
from harness.language.renderer import render
from harness.language.steps import Blank, Comment, Define, Include, Script

__all__ = ["Plan", "ScriptError", "check", "is_library", "load", "parse", "plan", "read", "render", "shown"]


def load(path: str | Path) -> Script:
    """The script in this file, with everything that it includes."""
    return read(Path(path).read_bytes(), shown(Path(path)))


def shown(path: Path) -> str:
    """The file as people name it: from where they are, if it lies below that."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def read(source: bytes, file: str) -> Script:
    """The script in these bytes, as if they stood in this file, with everything that it includes."""
    return _with_includes(parse(decode(source, file), file), (Path(file).resolve(),))


def check(script: Script) -> Plan:
    """The script's plan; ScriptError when the language was not kept anywhere in it."""
    return plan(script)


def decode(source: bytes, file: str) -> str:
    """The text of a script's bytes; ScriptError names the byte that is not UTF-8."""
    try:
        return source.decode("utf-8")
    except UnicodeDecodeError as wrong:
        line = source.count(b"\n", 0, wrong.start) + 1
        start = source.rfind(b"\n", 0, wrong.start) + 1
        before = source[start : wrong.start].decode("utf-8", "replace")
        raise ScriptError(
            file,
            line,
            len(before) + 1,
            before + f"\\x{source[wrong.start]:02x}",
            "this byte is not UTF-8",
            "a script in UTF-8; other bytes are written a>> \\xNN",
        ) from None


def _with_includes(script: Script, chain: tuple[Path, ...]) -> Script:
    return replace(
        script,
        body=tuple(
            _resolved(item, script, chain) if isinstance(item, Include) else item for item in script.body
        ),
    )


def _resolved(item: Include, script: Script, chain: tuple[Path, ...]) -> Include:
    path = Path(script.file).parent / item.path
    text = f"include {item.path}"
    if path.resolve() in chain:
        raise ScriptError(
            script.file, item.line, 9, text, "this file includes itself", "a file of definitions and headers"
        )
    try:
        source = path.read_bytes()
    except OSError as wrong:
        raise ScriptError(
            script.file,
            item.line,
            9,
            text,
            f"cannot read {path}: {wrong.strerror}",
            "a file, named from this script's folder",
        ) from None
    included = parse(decode(source, str(path)), str(path))
    return replace(item, script=_with_includes(included, (*chain, path.resolve())))


def is_library(script: Script) -> bool:
    """Whether it holds definitions and headers alone: for others to include, with nothing to play."""
    return all(isinstance(item, (Define, Include, Comment, Blank)) for item in script.body)
