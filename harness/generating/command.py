"""python -m harness generate: conversations nobody wrote; what differs is written out as a transcript."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from harness.generating.generate import MOVES, generate
from harness.generating.writing import free_path, write
from harness.language.script import shown
from harness.options import BROKEN, FAILED, FINE, add_target, at_least_one, choice, play_options
from harness.playing.verdict import Outcome
from harness.reporting import styled_text
from harness.reporting.report import report
from harness.targets.choice import named

RUNS = 100


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Teach the command line `generate`."""
    parser = commands.add_parser("generate", help="play conversations drawn from a model of the protocol")
    parser.add_argument("--model", required=True, metavar="MODULE:MODEL", help="what makes a model")
    add_target(parser)
    parser.add_argument(
        "--runs", type=at_least_one, default=RUNS, metavar="N", help=f"how many conversations ({RUNS})"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="what decides them (1)")
    parser.add_argument(
        "--moves", type=at_least_one, default=MOVES, metavar="N", help=f"how long each is at most ({MOVES})"
    )
    parser.add_argument(
        "-o",
        dest="folder",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where a divergence is written (.)",
    )
    parser.set_defaults(run=_generate)


def _generate(options: argparse.Namespace) -> int:
    make_model = named(options.model, "model")
    path = free_path(options.folder, f"{options.model.rpartition(':')[2]}-{options.seed}")
    seeds = range(options.seed, options.seed + options.runs)
    began = time.monotonic()
    made = generate(
        make_model,
        choice(options).target(),
        seeds,
        play_options(options),
        moves=options.moves,
        file=shown(path),
    )
    took = f"in {time.monotonic() - began:.2f} s"
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    if made.diverged is None:
        print(f"the server agrees with {options.model} under {which}, {options.moves} moves each, {took}")
        return FINE
    print(styled_text.painted(list(report(made.diverged)), sys.stdout))
    if made.diverged.outcome is not Outcome.FAILED:
        return BROKEN
    write(made.diverged, path)
    print(
        f"the server differs from {options.model} under seed {made.seed}; the shortest way there, {took}: {shown(path)}"
    )
    return FAILED
