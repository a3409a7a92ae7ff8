"""python -m harness compare: arguments in, exit code out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.compare.comparing import Cell, compare
from harness.compare.markdown import markdown
from harness.compare.page import document
from harness.compare.servers import compared_servers, named
from harness.compare.table import BROKEN as BROKEN_OUTCOMES
from harness.compare.table import Table
from harness.compare.text import text
from harness.options import BROKEN, FAILED, FINE, add_files, add_jobs, add_play_options, chosen, play_options
from harness.playing.verdict import Outcome
from harness.reporting import styled_text
from harness.targets.choice import TargetChoice, UsageError

_CHOICES: dict[str, Callable[[str], TargetChoice]] = {
    "server": lambda text: TargetChoice(server=text),
    "connect": lambda text: TargetChoice(connect=text),
    "app": lambda text: TargetChoice(app=text),
}


def add(commands: Any) -> None:
    """Make `compare` one of the commands."""
    parser = commands.add_parser("compare", help="play a suite at many servers and write a table")
    add_files(parser)
    for kind, example, help_text in (
        ("server", "NAME='CMD'", "a command that serves on {port}"),
        ("connect", "NAME=HOST:PORT", "a server that runs already"),
        ("app", "NAME=MODULE:FACTORY", "a gevent server, in this process"),
    ):
        parser.add_argument(
            f"--{kind}",
            dest="compared_servers",
            action="append",
            type=_of_kind(kind),
            metavar=example,
            help=f"{help_text}; any number of these",
        )
    parser.add_argument(
        "--features",
        action="append",
        default=[],
        metavar="NAME='ONE TWO'",
        help="what that server has, for scripts that say `needs:`; others skip there",
    )
    add_play_options(parser)
    add_jobs(parser)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page that holds everything")
    parser.set_defaults(run=_compare)


def _of_kind(kind: str) -> Callable[[str], tuple[str, str]]:
    def pair(given: str) -> tuple[str, str]:
        return kind, given

    return pair


def _compare(options: argparse.Namespace) -> int:
    if not options.compared_servers:
        raise UsageError("say what is compared: --server NAME='CMD {port}', as often as there are servers")
    choices = []
    for kind, given in options.compared_servers:
        name, rest = named(given)
        choices.append((name, _CHOICES[kind](rest)))
    taking_part = compared_servers(choices, options.features)
    paths = chosen(options)
    total, cells = len(paths) * len(taking_part), list[Cell]()
    out = sys.stderr if sys.stderr.isatty() else None
    for cell in compare(paths, taking_part, play_options(options), options.jobs):
        cells.append(cell)
        if out is not None:
            out.write(f"\r\x1b[K{len(cells)}/{total}  {cell.server}  {cell.file}"[:79])
            out.flush()
    if out is not None:
        out.write("\r\x1b[K")
        out.flush()
    table = Table(tuple(cells))
    if options.markdown:
        options.markdown.write_text(markdown(table), encoding="utf-8")
    if options.html:
        options.html.write_text(document(table), encoding="utf-8")
    print(styled_text.painted(list(text(table)), sys.stdout), end="")
    return max(map(_code, cells))


def _code(cell: Cell) -> int:
    if cell.outcome in BROKEN_OUTCOMES:
        return BROKEN
    return FAILED if cell.outcome is Outcome.FAILED else FINE
