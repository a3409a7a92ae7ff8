"""python -m harness generate: conversations nobody wrote; what differs is written out as a transcript."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from harness import ink
from harness.choosing import named
from harness.generating.generate import MOVES, generate
from harness.generating.writing import free_path, write
from harness.options import FAILED, FINE, add_target, at_least_one, choice, manner
from harness.report import report
from harness.script import shown

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
    began = time.monotonic()
    made = generate(
        make_model,
        choice(options).target(),
        options.runs,
        options.seed,
        manner(options),
        moves=options.moves,
        file=shown(path),
    )
    took = f"in {time.monotonic() - began:.2f} s"
    if made.diverged is None:
        print(f"{made.conversations} conversations, the server agrees with {options.model} {took}")
        return FINE
    write(made.diverged, path)
    print(ink.painted(list(report(made.diverged)), sys.stdout))
    print(
        f"the server differs from {options.model}; written: {shown(path)} ({made.conversations} played {took})"
    )
    return FAILED
