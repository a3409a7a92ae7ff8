"""python -m harness explore: arguments in, findings as text, exit code out."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator

from harness import ink
from harness.choosing import NoTarget
from harness.errors import ScriptError
from harness.exploring.explore import Explored, Finding, explorable, explore
from harness.exploring.schedule import EVERY, Whim, whims
from harness.options import BROKEN, FAILED, FINE, add_files, add_target, choice, chosen, manner
from harness.rendering import render
from harness.report import GRADES, LAST_WORDS_LINES, lanes, report
from harness.script import load
from harness.telling import headline, particulars
from harness.verdict import Outcome

RUNS = 20


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Teach the command line `explore`."""
    parser = commands.add_parser(
        "explore", help="play each script under many schedules, each decided by its seed (with --app)"
    )
    add_files(parser)
    add_target(parser)
    parser.add_argument("--runs", type=_count, default=RUNS, metavar="N", help=f"how many schedules ({RUNS})")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the first one's seed (1)")
    kinds = ",".join(whim.value for whim in Whim)
    parser.add_argument("--only", type=_whims, default=EVERY, metavar="KINDS", help=f"some of {kinds}")
    parser.set_defaults(run=_explore)


def _explore(options: argparse.Namespace) -> int:
    target, how = explorable(choice(options).target()), manner(options)
    seeds = range(options.seed, options.seed + options.runs)
    began = time.monotonic()
    found = runs = 0
    worst = FINE
    paths = chosen(options)
    for path in paths:
        try:
            explored = explore(load(path), target, seeds, how, options.only)
        except ScriptError as wrong:
            print(wrong)
            worst = BROKEN
            continue
        except OSError as wrong:
            raise NoTarget(f"cannot read {path}: {wrong.strerror}") from None
        runs += explored.runs
        found += not explored.passed
        worst = max(worst, _code(explored))
        lines = list(_told(explored, options))
        if lines:
            print(ink.painted(lines, sys.stdout), flush=True)
    took = time.monotonic() - began
    scripts = f"{len(paths)} {'script' if len(paths) == 1 else 'scripts'}"
    outcome = f"{found} failed" if found else "all passed"
    print(
        f"{scripts} under seeds {seeds[0]} to {seeds[-1]}, {runs} runs: {outcome} in {took:.2f} s (in process)"
    )
    return worst


def _code(explored: Explored) -> int:
    if explored.passed:
        return FINE
    broken = (Outcome.SCRIPT_WRONG, Outcome.TARGET_BROKEN)
    return BROKEN if explored.calm.outcome in broken else FAILED


def _told(explored: Explored, options: argparse.Namespace) -> Iterator[ink.Line]:
    if explored.finding is not None:
        yield from told(explored.finding)
        file, seed = explored.finding.verdict.file, explored.finding.seed
        kinds = "" if options.only == EVERY else f" --only {words(options.only)}"
        yield _plain(
            f"  again: python -m harness explore {shlex.quote(file)} --app {shlex.quote(options.app)}"
            f" --seed {seed} --runs 1{kinds}"
        )
        yield []
    elif not explored.passed:
        yield _plain("not explored, since it does not pass as it is:")
        yield from report(explored.calm)


def told(finding: Finding) -> Iterator[ink.Line]:
    """What failed, under which schedule, the shortest script, and how that one fails."""
    short, whole = finding.steps
    verdict = finding.shortest
    failure = verdict.failures[0]
    yield [
        ink.Span("FAILED ", ink.Tone.BAD),
        ink.Span(finding.verdict.file, ink.Tone.STRONG),
        ink.Span(f" under seed {finding.seed}   {headline(failure)}"),
    ]
    yield _plain(f"  it takes    {'; '.join(whim.told for whim in _sorted(finding.whims))}")
    yield from particulars(failure, verdict, GRADES[verdict.grade] if verdict.grade else "")
    shorter = f"{short} of {whole} things done" if short < whole else "all of it"
    yield _plain(f"  shortest script that still fails: {shorter}")
    yield []
    for line in render(verdict.script).rstrip("\n").split("\n"):
        yield _plain(f"    {line}" if line else "")
    yield []
    yield from lanes(verdict)
    if verdict.last_words.strip():
        yield _plain("")
        yield _plain("  the server's last words")
        for line in verdict.last_words.rstrip().splitlines()[-LAST_WORDS_LINES:]:
            yield _plain(f"  | {line}")
    yield []


def words(whims: frozenset[Whim]) -> str:
    """The kinds as the command line names them."""
    return ",".join(whim.value for whim in _sorted(whims))


def _sorted(whims: frozenset[Whim]) -> list[Whim]:
    return [whim for whim in Whim if whim in whims]


def _plain(text: str) -> ink.Line:
    return [ink.Span(text, ink.Tone.PLAIN)]


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _whims(text: str) -> frozenset[Whim]:
    try:
        return whims(text)
    except ValueError as wrong:
        known = ", ".join(whim.value for whim in Whim)
        raise argparse.ArgumentTypeError(f"{wrong}; known: {known}") from None
