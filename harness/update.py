"""Bring a script in line with its server: play it, rewrite the expectations that failed, play it again, then write it.

- Only expectations are replaced, added or removed. Comments, layout and expectations that matched stay byte for byte.
- All actions of the script are kept, in the same order.
- The end of a connection is recorded only if the script expects an end, or with `ends`: it could be a crash.
- The file is written as a whole, after the new text has passed, or not at all.
- In a test run with several workers, each file has one writer.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.language.expansion import expand
from harness.language.loading import check, read, real_path, shown
from harness.language.parser import parse
from harness.language.problems import ScriptError
from harness.language.steps import (
    ActionStep,
    AnyOrder,
    Blank,
    Block,
    Comment,
    Define,
    Include,
    Item,
    ReceiveUntil,
    Repeat,
    Script,
)
from harness.playing.pipeline import PlayOptions, play, play_file
from harness.playing.verdict import ClientTurn, FailureKind, Outcome, TurnReport, Verdict
from harness.report.lanes import ending_text, ending_to_expect, received_text
from harness.report.text import headline
from harness.stage.target import Target

_NAME = re.compile(r"one of [^<]*|[^ <]*")


class UpdateRefused(Exception):
    """The script cannot be rewritten without losing something; the message says why."""


@dataclass(frozen=True, slots=True)
class UpdateResult:
    verdict: Verdict
    """The verdict before the update."""
    diff: str = ""
    """The diff; empty if nothing was rewritten."""
    refused: str = ""
    """Why the file was not rewritten although it failed."""
    unwritten: bool = False
    """Whether that is because the file cannot be written."""

    @property
    def outcome(self) -> Outcome:
        """The outcome of the file as it is now."""
        return Outcome.PASSED if self.diff else self.verdict.outcome


def update(
    path: Path,
    target: Target,
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    before_writing: Callable[[], None] = lambda: None,
    *,
    ends: bool = False,
) -> UpdateResult:
    """Play the file and rewrite its wrong expectations; `before_writing` can still raise UpdateRefused. `ends`: also write
    down that connections ended where the script says nothing of that."""
    try:
        before = path.read_bytes()
        script = read(before, shown(path))
    except (ScriptError, OSError):
        return UpdateResult(play_file(path, target, play_options))
    # Otherwise lines that come after the answers to a fence line would be written into a later turn.
    play_options = replace(play_options, trust_answers=False)
    verdict = play(script, target, play_options, keep_going=True)
    if verdict.outcome is not Outcome.FAILED:
        return UpdateResult(verdict)
    try:
        text = rewritten(verdict, ends=ends)
        again = play(read(text.encode(), shown(path)), target, play_options)
        if not again.passed:
            raise UpdateRefused(
                "the server answers differently each time; a pattern can match all answers: "
                f"{_changed(again, before.decode(), text)}"
            )
        before_writing()
        try:
            _write(path, before, text.encode())
        except OSError as error:
            return UpdateResult(
                verdict, refused=f"cannot replace {shown(path)}: {error.strerror}", unwritten=True
            )
    except UpdateRefused as refusal:
        return UpdateResult(verdict, refused=str(refusal))
    return UpdateResult(verdict, diff=_diff(before.decode(), text, shown(path)))


def _changed(again: Verdict, before: str, text: str) -> str:
    """The first difference between the two plays, with its line in the unchanged file."""
    if not again.failures:
        return again.reason
    first = again.failures[0]
    if first.file != again.file:
        where = f"{first.file}:{first.line}"
    else:
        where = f"line {_line_before(first.line, before.splitlines(), text.splitlines())}"
    if first.expected is None and first.received is None:
        return f"in {where} {headline(first)}"
    once = f"`{first.expected.text.strip()}`" if first.expected else "nothing"
    then = "nothing" if first.received is None else f"`{received_text(first.received, again.eol).strip()}`"
    return f"in {where} {first.client} first received {once}, then {then}"


def _line_before(line: int, before: list[str], after: list[str]) -> int:
    """The line of the old text that a line of the new one replaces or follows."""
    for _, start, end, new_start, new_end in difflib.SequenceMatcher(
        None, before, after, autojunk=False
    ).get_opcodes():
        if new_start < line <= new_end:
            return min(start + line - new_start, max(end, 1))
    return len(before)


def _diff(before: str, after: str, file: str) -> str:
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), file, file, n=2)
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _write(path: Path, before: bytes, after: bytes) -> None:
    """Replace the file as a whole, so that another reader never sees half of it; links and modes are kept."""
    real = real_path(path)
    mode = real.stat().st_mode & 0o7777
    number, name = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
    try:
        with os.fdopen(number, "wb") as out:
            out.write(after)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(name, mode)
        if real.read_bytes() != before:
            raise UpdateRefused("the file was changed while it was being played")
        os.replace(name, real)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def single_writer(folder: Path, path: Path, writer: str) -> Iterator[Callable[[], None]]:
    """Lock the file against the other workers of this run, which share the folder.

    What is yielded must be called before the file is written: it raises UpdateRefused if another writer has already
    written the file in this run, perhaps from a different target.
    """
    name = hashlib.sha256(os.fsencode(real_path(path))).hexdigest()[:32]
    with (folder / name).open("a+", encoding="utf-8") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)

        def before_writing() -> None:
            claim.seek(0)
            first = claim.read()
            if first and first != writer:
                raise UpdateRefused(f"{first} has already rewritten this file in this run")
            if not first:
                claim.write(writer)
                claim.flush()

        yield before_writing


# --- which lines change -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Edit:
    """The edit that one play of a line requires."""

    replacement: str | None = None
    """The text after the client's name, which stays: in a definition it is a parameter. None: keep, empty: remove."""
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    def key(self) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
        return self.replacement, tuple(self.before), tuple(self.after)


def rewritten(verdict: Verdict, *, ends: bool = True) -> str:
    """The text of the script that would have passed, from a play that was kept going; or raise UpdateRefused."""
    script = verdict.script
    for failure in verdict.failures:
        match failure.kind:
            case (
                FailureKind.UNSENDABLE
                | FailureKind.NO_PORT
                | FailureKind.UNANSWERED
                | FailureKind.NEVER_IDLE
                | FailureKind.NEVER_QUIET
                | FailureKind.NOT_READ
                | FailureKind.TIMED_OUT
                | FailureKind.NO_HANDSHAKE
            ):
                raise UpdateRefused(f"{_place(failure.file, failure.line, script)}: {failure.detail}")
            case (
                FailureKind.TOO_LATE
                | FailureKind.SERVER_DIED
                | FailureKind.DISAGREED
                | FailureKind.RAISED
                | FailureKind.NOT_RAISED
            ):
                raise UpdateRefused(f"{_place(failure.file, failure.line, script)}: {headline(failure)}")
    plays: dict[int, list[_Edit]] = {}
    for turn in verdict.turns:
        for line, edit in _edits(turn, verdict.eol, script, ends).items():
            plays.setdefault(line, []).append(edit)
    text = _apply(script, _agreed(plays))
    require_nothing_lost(script, text)
    return text


def _edits(turn: TurnReport, eol: bytes, script: Script, ends: bool) -> dict[int, _Edit]:
    """The edits that this turn requires: first of existing lines, then additions. A line of the script that stays is one of
    them, because it is played several times in a repeat; a line of an included file is none."""
    edits: dict[int, _Edit] = {}

    def replace_line(file: str, line: int, replacement: str | None) -> None:
        if file == script.file:
            _replace_line(edits, line, replacement)
        elif replacement is not None:
            raise UpdateRefused(f"{file}:{line} is wrong, and included files are not rewritten")

    for client_turn in turn.client_turns:
        for entry in client_turn.entries:
            expected = entry.expected
            if expected is not None and not entry.passed_over:
                received = "" if entry.received is None else received_text(entry.received, eol)
                replace_line(expected.file, expected.line, None if entry.matches else received)
                if isinstance(expected.step, ReceiveUntil) and not entry.matches:
                    raise UpdateRefused(
                        f"line {expected.line}: {client_turn.client} received no line that matches"
                    )
        if client_turn.ending is not None:
            ended = f" {ending_to_expect(client_turn, turn)}" if client_turn.ended_now else ""
            right = client_turn.ended_as_expected
            replace_line(client_turn.ending_file, client_turn.ending_line, None if right else ended)
        elif client_turn.silence_line:
            lines = [entry.received for entry in client_turn.entries if entry.received is not None]
            instead = received_text(lines[0], eol) if lines else None
            replace_line(client_turn.silence_file, client_turn.silence_line, instead)
    for client_turn in turn.client_turns:
        if client_turn.ended_now and client_turn.ending is None and not ends:
            where = _place(turn.file, turn.last_line, script)
            raise UpdateRefused(
                f"{where}: {client_turn.client} {ending_text(client_turn)}, which the script does not say; "
                "if that is right, write it, or record such ends with --ends (pytest: --harness-update-ends)"
            )
        _add_lines(client_turn, turn, eol, script, edits)
    return edits


def _replace_line(edits: dict[int, _Edit], line: int, replacement: str | None) -> None:
    """Require that clients that expect the same line in one turn (`the same for`) received the same."""
    edit = edits.setdefault(line, _Edit(replacement))
    if edit.replacement != replacement:
        raise UpdateRefused(f"line {line} is expected by several clients, which received different things")


def _add_lines(
    client_turn: ClientTurn, turn: TurnReport, eol: bytes, script: Script, edits: dict[int, _Edit]
) -> None:
    """Add unexpected lines behind what was received before them, or else before what was received next."""
    last = turn.file, turn.last_line
    own = [(entry.expected.file, entry.expected.line) for entry in client_turn.entries if entry.expected]
    if client_turn.ending is not None:
        own.append((client_turn.ending_file, client_turn.ending_line))
    silence = (client_turn.silence_file, client_turn.silence_line) if client_turn.silence_line else None
    previous = silence
    for at, entry in enumerate(client_turn.entries):
        if entry.expected is not None:
            previous = entry.expected.file, entry.expected.line
        elif entry.received is not None and not (silence and at == 0):
            edit = _edit_beside(previous or (own[0] if own else last), script, edits)
            added = edit.before if own and not previous else edit.after
            added.append(f"{client_turn.client}{received_text(entry.received, eol)}")
    if client_turn.ending is None and client_turn.ended_now:
        edit = _edit_beside(previous or last, script, edits)
        edit.after.append(f"{client_turn.client} {ending_to_expect(client_turn, turn)}")


def _edit_beside(place: tuple[str, int], script: Script, edits: dict[int, _Edit]) -> _Edit:
    """The edit of the line beside which something is added."""
    file, line = place
    if file != script.file:
        raise UpdateRefused(f"more came beside {file}:{line}, and included files are not rewritten")
    return edits.setdefault(line, _Edit())


def _place(file: str, line: int, script: Script) -> str:
    return f"line {line}" if file == script.file else f"{file}:{line}"


def _agreed(plays: Mapping[int, Sequence[_Edit]]) -> dict[int, _Edit]:
    """Require the same edit from all plays of a line in a repeat or a definition."""
    out: dict[int, _Edit] = {}
    for line, edits in plays.items():
        if len({edit.key() for edit in edits}) > 1:
            raise UpdateRefused(f"line {line} is played {len(edits)} times, and received different things")
        out[line] = edits[0]
    return out


# --- the new text -------------------------------------------------------------------------------------------


def _apply(script: Script, edits: Mapping[int, _Edit]) -> str:
    removed = set(_emptied(script.body, {line for line, edit in edits.items() if edit.replacement == ""}))
    out: list[str] = []
    later: dict[int, list[str]] = {}
    block_ends = dict(_block_ends(script.body))
    for number, row in enumerate(script.source, 1):
        edit = edits.get(number, _Edit())
        indent = row[: len(row) - len(row.lstrip(" "))]
        out.extend(indent + line for line in edit.before)
        if number not in removed and edit.replacement is None:
            out.append(row)
        elif number not in removed and edit.replacement:
            out.append(indent + _NAME.match(row[len(indent) :])[0] + edit.replacement)  # type: ignore[index]
        if edit.after:
            # After the head of a block means after the whole block.
            later.setdefault(block_ends.get(number, number), []).extend(indent + line for line in edit.after)
        out.extend(later.pop(number, ()))
    return "".join(f"{row}\n" for row in out)


def _emptied(body: Iterable[Item], removed: set[int]) -> Iterator[int]:
    """The heads of blocks that lose all their steps; only a pure `in any order:` can go with them."""
    for item in body:
        if not isinstance(item, Block):
            continue
        steps = [inner for inner in item.body if not isinstance(inner, (Comment, Blank))]
        if isinstance(item, (Repeat, Define)):
            yield from _emptied(item.body, removed)
        if all(inner.line in removed for inner in steps):
            if not isinstance(item, AnyOrder) or len(steps) != len(item.body):
                raise UpdateRefused(f"the block in line {item.line} would have no steps left")
            yield item.line


def _block_ends(body: Iterable[Item]) -> Iterator[tuple[int, int]]:
    for item in body:
        if isinstance(item, Block):
            yield item.line, _last_line(item)
            if isinstance(item, (Repeat, Define)):
                yield from _block_ends(item.body)


def _last_line(item: Item) -> int:
    if isinstance(item, Block):
        return max(_last_line(inner) for inner in item.body)
    return item.line


def require_nothing_lost(script: Script, text: str) -> None:
    """Raise UpdateRefused unless the text is a script with the same actions in the same order."""
    try:
        after = _with_includes_of(script, parse(text, script.file))
        check(after)
    except ScriptError as error:
        raise UpdateRefused(f"what was received does not make a valid script: {error}") from None
    if _actions(script) != _actions(after):
        raise UpdateRefused("an action would be lost")


def _with_includes_of(script: Script, after: Script) -> Script:
    known = {item.path: item.script for item in script.body if isinstance(item, Include)}
    body = tuple(
        replace(item, script=known.get(item.path)) if isinstance(item, Include) else item
        for item in after.body
    )
    return replace(after, body=body)


def _actions(script: Script) -> list[object]:
    return [located.step for located in expand(script).steps if isinstance(located.step, ActionStep)]
