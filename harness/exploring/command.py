"""python -m harness explore: arguments in, findings as text, exit code out."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence

from harness.exploring.exploration_report import report, words
from harness.exploring.explore import ExplorationResult, Finding, explorable, explore_file
from harness.interception.schedule import EVERY, Perturbation, perturbations
from harness.options import (
    BROKEN,
    FAILED,
    FINE,
    add_files,
    add_target,
    at_least_one,
    choice,
    chosen,
    play_options,
)
from harness.playing.verdict import Outcome
from harness.reporting import styled_text

RUNS = 20


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Teach the command line `explore`."""
    parser = commands.add_parser(
        "explore", help="play each script under many schedules, each decided by its seed (with --app)"
    )
    add_files(parser)
    add_target(parser)
    parser.add_argument(
        "--runs", type=at_least_one, default=RUNS, metavar="N", help=f"how many schedules ({RUNS})"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the first one's seed (1)")
    kinds = ",".join(perturbation.value for perturbation in Perturbation)
    parser.add_argument(
        "--only", type=_perturbations, default=EVERY, metavar="KINDS", help=f"some of {kinds}"
    )
    parser.set_defaults(run=_explore)


def _explore(options: argparse.Namespace) -> int:
    target, how = explorable(choice(options).target()), play_options(options)
    seeds = range(options.seed, options.seed + options.runs)
    began = time.monotonic()
    every = []
    paths = chosen(options)
    for path in paths:
        exploration_result = explore_file(path, target, seeds, how, options.only)
        every.append(exploration_result)
        lines = list(report(exploration_result))
        if exploration_result.finding is not None:
            lines += [[], [styled_text.Span(f"  again: {_again(exploration_result.finding, options)}")]]
        if lines:
            print(styled_text.painted([*lines, []], sys.stdout), end="", flush=True)
    print(_summary(every, seeds, time.monotonic() - began))
    return max(map(_code, every))


def _again(finding: Finding, options: argparse.Namespace) -> str:
    """The command that plays this very schedule again."""
    kinds = "" if options.only == EVERY else f" --only {words(options.only)}"
    return (
        f"python -m harness explore {shlex.quote(finding.verdict.file)} --app {shlex.quote(options.app)}"
        f" --seed {finding.seed} --runs 1{kinds}"
    )


def _summary(every: Sequence[ExplorationResult], seeds: range, took_s: float) -> str:
    failed = sum(not exploration_result.passed for exploration_result in every)
    skipped = sum(exploration_result.baseline.outcome is Outcome.SKIPPED for exploration_result in every)
    counts = [f"{failed} failed"] if failed else []
    passed = len(every) - failed - skipped
    counts += [f"{passed} passed"] if passed or not failed else []
    counts += [f"{skipped} skipped"] if skipped else []
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    runs = sum(exploration_result.runs for exploration_result in every)
    return f"{', '.join(counts)} under {which}, {runs} {'run' if runs == 1 else 'runs'} in {took_s:.2f} s"


def _code(exploration_result: ExplorationResult) -> int:
    if exploration_result.passed:
        return FINE
    broken = (Outcome.SCRIPT_WRONG, Outcome.TARGET_BROKEN)
    return BROKEN if exploration_result.baseline.outcome in broken else FAILED


def _perturbations(text: str) -> frozenset[Perturbation]:
    try:
        return perturbations(text)
    except ValueError as wrong:
        known = ", ".join(perturbation.value for perturbation in Perturbation)
        raise argparse.ArgumentTypeError(f"{wrong}; known: {known}") from None
