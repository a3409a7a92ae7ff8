"""`geventchat connect`: its options, and the session put together for where it runs.

The only module that reads arguments, the environment, terminals and signals.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from pathlib import Path

from geventchat.client import render
from geventchat.client.address import Address, InvalidAddress, split_address
from geventchat.client.connection import Network
from geventchat.client.conversation import Clock
from geventchat.client.history import HistoryFile, history_path
from geventchat.client.plain import PlainTerminal
from geventchat.client.session import (
    ExitCode,
    Plan,
    Session,
    SessionEvent,
    Terminated,
    Timer,
    TimerExpired,
)
from geventchat.client.terminal import Interrupted, Terminal, TerminalHandler
from geventchat.dialects import DIALECTS

KEEP_ALIVE_S = 20.0
MAX_KEEP_ALIVE_S = 86400

MISSING_PROMPT_TOOLKIT = "Line editing is off. To install it: pip install 'geventchat[client]'"

_EPILOG = """\
In a script, it sends its input and prints what it receives:  echo "deploy done" | geventchat connect HOST --name ci
Exit codes: 0 success; 1 not connected, login refused or not delivered; 2 wrong usage; 130, 143 stopped by a signal.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    plan: Plan
    bell: bool
    plain: bool


def main(argv: Sequence[str]) -> int:
    """Run the client with these arguments and return its exit code."""
    options = parse_options(argv)
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    required = {"HOST[:PORT]": options.plan.host, "--name NAME": options.plan.name}
    missing = [option for option, value in required.items() if value is None]
    if missing and not interactive:
        sys.stderr.write(f"geventchat: not a terminal: {missing[0]} is required\n")
        return ExitCode.USAGE
    return asyncio.run(_run(options, interactive))


class Program:
    """The runtime of a session: its connections, its timer and its end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._network = Network(self.handle)
        self._session: Session | None = None
        self._exit_code: asyncio.Future[ExitCode] = self._loop.create_future()

    async def run(self, session: Session) -> ExitCode:
        """Run the session to its end."""
        self._session = session
        try:
            session.start()
            return await self._exit_code
        finally:
            await self._network.close()

    def handle(self, event: SessionEvent) -> None:
        """Pass an event to the session while it runs."""
        if self._session is None or self._exit_code.done():
            return
        try:
            self._session.handle(event)
        except Exception as error:
            # Raised into the event loop, it would be logged, and the session would never end.
            self._exit_code.set_exception(error)

    def connect(self, address: Address) -> None:
        self._network.connect(address)

    def start_timer(self, seconds: float) -> Timer:
        return self._loop.call_later(seconds, self.handle, TimerExpired())

    def end(self, code: ExitCode) -> None:
        self._exit_code.set_result(code)


async def _run(options: Options, interactive: bool) -> int:
    loop = asyncio.get_running_loop()
    program = Program()
    terminal = _terminal(options, interactive, program.handle)

    def interrupt() -> None:
        terminal.end_input_line()
        program.handle(Interrupted())

    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, program.handle, Terminated())
    clock = Clock(datetime.now, time.monotonic)
    try:
        return await program.run(Session(options.plan, terminal, program, clock))
    finally:
        await terminal.close()


def _terminal(options: Options, interactive: bool, handle: TerminalHandler) -> Terminal:
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    colour = interactive and not dumb and not os.environ.get("NO_COLOR")
    plain = PlainTerminal(handle, interactive=interactive, bell=options.bell, colour=colour)
    if options.plain or dumb or not interactive:
        return plain
    try:
        from geventchat.client.screen import Screen
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "prompt_toolkit":
            raise
        plain.show(render.hint(MISSING_PROMPT_TOOLKIT))
        return plain
    try:
        history = HistoryFile(history_path(os.environ, Path.home()))
    except (OSError, RuntimeError) as error:
        plain.show(render.hint(f"The history of your input is off: {error}"))
        history = None
    return Screen(handle, bell=options.bell, colour=colour, history=history)


def parse_options(argv: Sequence[str]) -> Options:
    """The options in the arguments. Exits with code 2 and a message where they are wrong."""
    ports = ", ".join(f"{dialect.name} {dialect.port}" for dialect in DIALECTS.values())
    parser = argparse.ArgumentParser(
        prog="geventchat connect",
        description="Join a chat from this terminal.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "server",
        nargs="?",
        metavar="HOST[:PORT]",
        type=_address,
        help=f"server address (default port: {ports})",
    )
    add("--dialect", choices=list(DIALECTS), help="dialect of the server (default: detect it)")
    add("--name", metavar="NAME", help="your name in the chat")
    add(
        "--keep-alive",
        metavar="SECONDS",
        type=_seconds,
        help=f"send a ping after this many seconds without input, so that the server does not disconnect you for "
        f"being idle (default without SECONDS: {KEEP_ALIVE_S:.0f})",
    )
    add("--no-bell", dest="bell", action="store_false", help="do not ring for mentions and direct messages")
    add("--plain", action="store_true", help="no input line, history or completion; suits screen readers")
    arguments = parser.parse_args(_with_keep_alive_seconds(argv))
    host, port = arguments.server or (None, None)
    plan = Plan(host, port, arguments.dialect, arguments.name, arguments.keep_alive)
    return Options(plan, arguments.bell, arguments.plain)


def _with_keep_alive_seconds(argv: Sequence[str]) -> list[str]:
    """Fill in the default: argparse would take the host behind a bare --keep-alive for its number."""
    words = []
    for word, following in zip_longest(argv, argv[1:], fillvalue=""):
        words.append(word)
        if word == "--keep-alive" and not _is_number(following):
            words.append(str(KEEP_ALIVE_S))
    return words


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _seconds(word: str) -> float:
    if not _is_number(word) or not 1 <= float(word) <= MAX_KEEP_ALIVE_S:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number from 1 to {MAX_KEEP_ALIVE_S}")
    return float(word)


def _address(word: str) -> tuple[str, int | None]:
    try:
        return split_address(word)
    except InvalidAddress as error:
        raise argparse.ArgumentTypeError(str(error)) from error
