"""The words after `connect` on the command line -> frozen options.

Pure but for argparse's own way of saying what is wrong with them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from geventchat.client.address import BadAddress, split
from geventchat.client.speech import DEFAULT_PORTS, Dialect

KEEP_ALIVE_S = 20.0

EPILOG = """\
In a pipe it takes lines and writes lines:  echo "deploy done" | geventchat connect HOST --name ci
Exit codes: 0 left as wished; 1 not connected, not let in or not delivered; 2 wrong usage; 130, 143 stopped.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; what is missing is asked or guessed later."""

    host: str | None
    port: int | None
    dialect: Dialect | None
    name: str | None
    keep_alive_s: float | None
    bell: bool
    plain: bool


def parse(argv: Sequence[str]) -> Options:
    """The options in the arguments. Leaves with exit code 2 and a reason where they make no sense."""
    parser = _parser()
    said = parser.parse_args(_with_keep_alive_seconds(argv))
    host, port = said.server if said.server is not None else (None, None)
    return Options(
        host=host,
        port=port,
        dialect=Dialect(said.dialect) if said.dialect is not None else None,
        name=said.name,
        keep_alive_s=said.keep_alive,
        bell=said.bell,
        plain=said.plain,
    )


def _parser() -> argparse.ArgumentParser:
    ports = ", ".join(f"{dialect.value} {port}" for dialect, port in DEFAULT_PORTS.items())
    parser = argparse.ArgumentParser(
        prog="geventchat connect",
        description="Join a chat from this terminal.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "server",
        nargs="?",
        metavar="HOST[:PORT]",
        type=_address,
        help=f"where the server is; the port is the dialect's own if left out ({ports})",
    )
    parser.add_argument(
        "--dialect",
        choices=[dialect.value for dialect in Dialect],
        help="what the server speaks (found out if left out)",
    )
    parser.add_argument("--name", metavar="NAME", help="your name in the chat")
    parser.add_argument(
        "--keep-alive",
        metavar="SECONDS",
        type=_seconds,
        help=f"send a ping in every so many quiet seconds, to stay within the server's idle limit "
        f"({KEEP_ALIVE_S:.0f} if no number follows)",
    )
    parser.add_argument(
        "--no-bell",
        dest="bell",
        action="store_false",
        help="stay silent when your name is said or someone writes to you in private",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="plain lines even on a terminal (a screen reader may like them better)",
    )
    return parser


def _with_keep_alive_seconds(argv: Sequence[str]) -> list[str]:
    """Argparse would take the host after a bare --keep-alive for its number: it is filled in here."""
    words = []
    for word, following in zip_longest(argv, argv[1:], fillvalue=""):
        words.append(word)
        if word == "--keep-alive" and not _is_number(following):
            words.append(f"{KEEP_ALIVE_S}")
    return words


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _seconds(word: str) -> float:
    if not _is_number(word) or not 1 <= float(word) <= 86400:
        raise argparse.ArgumentTypeError(f"{word!r} is no number of seconds from 1 to 86400")
    return float(word)


def _address(word: str) -> tuple[str, int | None]:
    try:
        return split(word)
    except BadAddress as why:
        raise argparse.ArgumentTypeError(str(why)) from why
