"""A script file brought in line with what its server says: played, rewritten, played again, written whole or not at all."""

from __future__ import annotations

import contextlib
import difflib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.language.script import read, shown
from harness.playing.pipeline import PlayOptions, play
from harness.playing.verdict import Outcome, Verdict
from harness.reporting.failure_text import headline
from harness.reporting.lanes import received_text
from harness.targets.target import Target
from harness.updating.rewriting import Refused, rewritten


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What an update did: the verdict before it, and the difference that it wrote ("" where it wrote nothing)."""

    verdict: Verdict
    diff: str = ""
    refused: str = ""

    @property
    def passes_now(self) -> bool:
        return self.verdict.outcome in (Outcome.PASSED, Outcome.SKIPPED) or bool(self.diff)


def update(
    path: Path,
    target: Target,
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    before_writing: Callable[[], None] = lambda: None,
) -> UpdateResult:
    """Play the file; where only expectations were wrong, rewrite those in place. ScriptError if it is no script.

    `before_writing` may still raise Refused.
    """
    before = path.read_bytes()
    script = read(before, shown(path))
    verdict = play(script, target, play_options, keep_going=True)
    if verdict.outcome is not Outcome.FAILED:
        return UpdateResult(verdict)
    try:
        text = rewritten(verdict)
        again = play(read(text.encode(), shown(path)), target, play_options)
        if not again.passed:
            raise Refused(
                "the server says something else every time: "
                f"{_otherwise(again, before.decode(), text)}; a pattern may be what is needed"
            )
        before_writing()
        _replace(path, before, text.encode())
    except Refused as why:
        return UpdateResult(verdict, refused=str(why))
    return UpdateResult(verdict, diff=_diff(before.decode(), text, shown(path)))


def _otherwise(again: Verdict, before: str, text: str) -> str:
    """What was heard at first, as the new text has it, and then again; with the line of the file as it still is."""
    if not again.failures:
        return again.reason
    first = again.failures[0]
    if first.file != again.file:
        where = f"in {first.file}:{first.line}"
    else:
        where = f"in line {_line_before(first.line, before.splitlines(), text.splitlines())}"
    if first.expected is None and first.received is None:
        return f"{where} {headline(first)}"
    once = f"`{first.expected.text.strip()}`" if first.expected else "nothing"
    then = (
        f"`{received_text(first.received, again.eol).strip()}`" if first.received is not None else "nothing"
    )
    return f"{where} {first.client} heard {once} the first time and {then} the second"


def _line_before(line: int, before: list[str], after: list[str]) -> int:
    """Where the line of the new text stands in the old one; one that is only in the new: behind what."""
    for _, start, end, new_start, new_end in difflib.SequenceMatcher(
        None, before, after, autojunk=False
    ).get_opcodes():
        if new_start < line <= new_end:
            return min(start + line - new_start, max(end, 1))
    return len(before)


def _diff(before: str, after: str, file: str) -> str:
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), file, file, n=2)
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _replace(path: Path, before: bytes, after: bytes) -> None:
    """Write the whole file or leave it: another reader sees the old or the new one, never half of either."""
    real = path.resolve()
    mode = real.stat().st_mode & 0o7777
    number, name = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
    try:
        with os.fdopen(number, "wb") as out:
            out.write(after)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(name, mode)
        if real.read_bytes() != before:
            raise Refused("the file was changed while it was being played")
        os.replace(name, real)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
