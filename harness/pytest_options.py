"""What can be asked of the pytest plugin, on the command line and in the ini. Does nothing by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def add_options(parser: pytest.Parser) -> None:
    """All of them in a group of their own."""
    group = parser.getgroup("harness", "transcripts of line servers")
    for name, metavar, text in (
        ("server", "CMD", "a command that serves on {port}"),
        ("connect", "HOST:PORT", "a server that runs already"),
        ("app", "MODULE:FACTORY", "a gevent server, in this process"),
    ):
        group.addoption(f"--harness-{name}", metavar=metavar, help=f"play transcripts at {text}")
        parser.addini(f"harness_{name}", f"play transcripts at {text}")
    group.addoption(
        "--harness-update", action="store_true", help="rewrite the expectations of transcripts that fail"
    )
    group.addoption(
        "--harness-audit",
        action="store_true",
        help="play each transcript with everything that its server could get wrong; it must fail each time",
    )
    group.addoption(
        "--harness-audit-most", type=int, metavar="N", help="so many changes of each transcript at most"
    )
    group.addoption(
        "--harness-explore",
        type=int,
        metavar="N",
        help="play each transcript under so many schedules as well; for servers in this process",
    )
    group.addoption(
        "--harness-explore-seed", type=int, default=1, metavar="S", help="the seed of the first of them (1)"
    )
    group.addoption(
        "--harness-compare",
        action="append",
        default=[],
        metavar="NAME=CMD",
        help="play each transcript at this server; any number of these, and a table at the end",
    )
    group.addoption(
        "--harness-features",
        action="append",
        default=[],
        metavar="NAME='ONE TWO'",
        help="what that server has, for transcripts that say `needs:`",
    )
    parser.addini("harness_files", "transcripts to collect: patterns from the root folder", type="linelist")
