"""python -m harness COMMAND: arguments in, exit code out.

0: everything is as the scripts say. 1: a server said something else. 2: a script, the target or the command line is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.audit import command as audit_command
from harness.compare import command as compare_command
from harness.exploring import command as explore_command
from harness.generating import command as generate_command
from harness.language.problems import LineError, ScriptError
from harness.language.script import check, load
from harness.options import (
    BROKEN,
    FAILED,
    FINE,
    add_fence,
    add_files,
    add_jobs,
    add_target,
    choice,
    chosen,
    fence_of,
    play_options,
)
from harness.playing.files import play_files
from harness.playing.pipeline import PlayOptions
from harness.playing.verdict import Outcome, Verdict
from harness.recording.record import record
from harness.reporting import junit, page, styled_text
from harness.reporting.progress import Progress
from harness.reporting.report import report
from harness.targets.choice import UsageError, host_port
from harness.targets.target import Target
from harness.updating.updating import UpdateResult, update

_CODES = {
    Outcome.PASSED: FINE,
    Outcome.SKIPPED: FINE,
    Outcome.FAILED: FAILED,
    Outcome.SCRIPT_WRONG: BROKEN,
    Outcome.TARGET_BROKEN: BROKEN,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except (UsageError, LineError) as wrong:
        message = wrong.message if isinstance(wrong, LineError) else str(wrong)
        print(f"harness: {message}", file=sys.stderr)
        return BROKEN
    except KeyboardInterrupt:
        return 130
    return code


# --- commands -----------------------------------------------------------------------------------------------


def _play(options: argparse.Namespace) -> int:
    paths = chosen(options)
    began = time.monotonic()
    verdicts: list[Verdict] = []
    progress = Progress(len(paths), sys.stderr)
    for verdict in play_files(paths, choice(options), play_options(options), options.jobs):
        verdicts.append(verdict)
        progress.clear()
        if verdict.outcome is not Outcome.PASSED or options.verbose:
            _show(verdict)
        progress.after(verdict)
        if options.exitfirst and _CODES[verdict.outcome]:
            break
    progress.clear()
    took = time.monotonic() - began
    if options.junit:
        Path(options.junit).write_text(junit.document(verdicts, took), encoding="utf-8")
    if options.html:
        Path(options.html).write_text(page.document(verdicts, took), encoding="utf-8")
    print(progress.summary(took))
    return _worst(verdicts)


def _update(options: argparse.Namespace) -> int:
    target, how = choice(options).target(), play_options(options)
    return max(_update_one(path, target, how) for path in chosen(options))


def _update_one(path: Path, target: Target, play_options: PlayOptions) -> int:
    try:
        done = update(path, target, play_options)
    except ScriptError as wrong:
        print(wrong)
        return BROKEN
    except OSError as wrong:
        print(f"cannot read {path}: {wrong.strerror}")
        return BROKEN
    _print_update(path, done)
    return FINE if done.passes_now else _CODES[done.verdict.outcome]


def _print_update(path: Path, done: UpdateResult) -> None:
    if done.diff:
        print(styled_text.painted(_diff_lines(done.diff), sys.stdout), end="")
    elif done.refused:
        _show(done.verdict)
        print(f"\nnot rewritten: {done.refused}")
    elif done.verdict.outcome is Outcome.PASSED:
        print(f"unchanged {path}")
    else:
        _show(done.verdict)


def _diff_lines(diff: str) -> list[styled_text.Line]:
    tones = {"+": styled_text.Tone.GOOD, "-": styled_text.Tone.BAD, "@": styled_text.Tone.HINT}
    return [
        [styled_text.Span(line, tones.get(line[:1], styled_text.Tone.PLAIN))] for line in diff.splitlines()
    ]


def _check(options: argparse.Namespace) -> int:
    paths = chosen(options)
    complaints = [complaint for complaint in map(_complaint, paths) if complaint]
    for complaint in complaints:
        print(complaint)
    if complaints:
        return BROKEN
    print(f"{len(paths)} {'script keeps' if len(paths) == 1 else 'scripts keep'} the language")
    return FINE


def _complaint(path: Path) -> str:
    try:
        check(load(path))
    except ScriptError as wrong:
        return str(wrong)
    except OSError as wrong:
        return f"cannot read {path}: {wrong.strerror}"
    return ""


def _record(options: argparse.Namespace) -> int:
    listen = options.listen if ":" in options.listen else f":{options.listen}"
    fence = fence_of(options)
    record(host_port(options.connect), host_port(listen, lowest=0), Path(options.output), fence)
    return FINE


# --- what they share ----------------------------------------------------------------------------------------


def _show(verdict: Verdict) -> None:
    lines = list(report(verdict))
    print(styled_text.painted(lines, sys.stdout), end="\n" if len(lines) > 1 else "", flush=True)


def _worst(verdicts: Sequence[Verdict]) -> int:
    return max((_CODES[verdict.outcome] for verdict in verdicts), default=FINE)


# --- arguments ----------------------------------------------------------------------------------------------


def _help(parser: argparse.ArgumentParser) -> int:
    """Nothing was asked for, which is nothing that can have gone well."""
    parser.print_help()
    return BROKEN


def _version() -> str:
    try:
        return version("geventchat")
    except PackageNotFoundError:
        return "not installed"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness",
        description="Plays scripted conversations of many clients against a line server.",
    )
    parser.add_argument("--version", action="version", version=f"harness {_version()}")
    parser.set_defaults(run=lambda _: _help(parser))
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    play = commands.add_parser("play", help="play scripts and say what failed")
    add_files(play)
    add_target(play)
    play.add_argument("-x", dest="exitfirst", action="store_true", help="stop at the first script that fails")
    play.add_argument("-v", dest="verbose", action="store_true", help="name the scripts that pass, too")
    add_jobs(play)
    play.add_argument("--junit", metavar="FILE", help="write a JUnit report for a build server")
    play.add_argument("--html", metavar="FILE", help="write one page that holds everything")
    play.set_defaults(run=_play)

    renew = commands.add_parser("update", help="play, and rewrite the expectations that were wrong")
    add_files(renew)
    add_target(renew)
    renew.set_defaults(run=_update)

    take = commands.add_parser("record", help="write down what goes through a proxy")
    take.add_argument("--connect", required=True, metavar="HOST:PORT", help="the server")
    take.add_argument("--listen", required=True, metavar="[HOST:]PORT", help="where nc is pointed at")
    take.add_argument("-o", dest="output", required=True, metavar="FILE", help="the transcript")
    add_fence(take)
    take.set_defaults(run=_record)

    look = commands.add_parser("check", help="look at the language alone; no server is needed")
    add_files(look)
    look.set_defaults(run=_check)

    explore_command.add(commands)
    generate_command.add(commands)

    audit_command.add(commands)
    compare_command.add(commands)
    return parser
