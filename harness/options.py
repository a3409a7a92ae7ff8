"""What the commands share on the command line: which files, which target, in which manner. Plays nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.language.forms import header_line, parse_duration
from harness.language.steps import FenceLine
from harness.playing.files import scripts_in
from harness.playing.pipeline import WITHIN_S, PlayOptions
from harness.targets.choice import TargetChoice, UsageError

FINE, FAILED, BROKEN = 0, 1, 2
"""Exit codes: as the scripts say; something is not; a script, the target or the command line is wrong."""


def add_files(parser: argparse.ArgumentParser) -> None:
    """Which scripts."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="scripts, or folders of them")
    parser.add_argument("-k", dest="keyword", metavar="TEXT", help="only files whose path contains this")


def add_target(parser: argparse.ArgumentParser) -> None:
    """What they are played at, and how."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--server", metavar="CMD", help="a command that serves on {port}")
    which.add_argument("--connect", metavar="HOST:PORT", help="a server that runs already")
    which.add_argument("--app", metavar="MODULE:FACTORY", help="a gevent server, in this process")
    parser.add_argument(
        "--ready", metavar="REGEX", help="the line in which a command tells its own (?P<port>…)"
    )
    parser.add_argument("--shared", action="store_true", help="one server for all scripts, not one for each")
    parser.add_argument(
        "--features",
        default="",
        metavar="'ONE TWO'",
        help="what the server has, for scripts that say `needs:`; they are skipped elsewhere",
    )
    add_play_options(parser)


def add_play_options(parser: argparse.ArgumentParser) -> None:
    """How scripts are played that do not say it themselves."""
    add_fence(parser)
    parser.add_argument(
        "--within", metavar="5s", help="how long one thing may take, for scripts that do not say"
    )


def add_fence(parser: argparse.ArgumentParser) -> None:
    """The line that the server must answer."""
    parser.add_argument("--fence", metavar="'PING -> PONG'", help="the fence of scripts that name none")


def at_least_one(text: str) -> int:
    """A number for which none would make no sense."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than one")
    return number


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """On how many processes."""
    parser.add_argument(
        "-j", dest="jobs", type=at_least_one, default=1, metavar="N", help="play on N processes at once"
    )


def chosen(options: argparse.Namespace) -> list[Path]:
    """The scripts that were asked for."""
    paths = [path for path in scripts_in(options.files) if _wanted(path, options.keyword)]
    if not paths:
        raise UsageError("no script is left to play" if options.keyword else "there is no *.chat file here")
    return paths


def _wanted(path: Path, keyword: str | None) -> bool:
    return keyword is None or keyword.casefold() in str(path).casefold()


def choice(options: argparse.Namespace) -> TargetChoice:
    """The target that was asked for."""
    features = frozenset(options.features.split())
    return TargetChoice(options.server, options.connect, options.app, options.shared, options.ready, features)


def play_options(options: argparse.Namespace) -> PlayOptions:
    """How to play what does not say it itself."""
    within = parse_duration(options.within, 0) / 1_000_000 if options.within else WITHIN_S
    return PlayOptions(fence_of(options), within)


def fence_of(options: argparse.Namespace) -> FenceLine | None:
    """The fence of scripts that name none."""
    fence = header_line(f"fence: {options.fence}", 0) if options.fence else None
    return fence if isinstance(fence, FenceLine) else None
