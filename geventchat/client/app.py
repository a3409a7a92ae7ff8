"""`geventchat connect`: its options, and the session put together for where it runs.

The only module that reads arguments, the environment and signals.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from geventchat.chat.passwords import Secret
from geventchat.client.address import Address, InvalidAddress, Target, parse_target
from geventchat.client.conversation import ReadMarks
from geventchat.client.display import Clock
from geventchat.client.history import HistoryFile, history_path
from geventchat.client.loop import Loop, Timer
from geventchat.client.marks import MarksFile, marks_path, state_directory
from geventchat.client.network import Network
from geventchat.client.options import (
    MAX_SECONDS,
    Config,
    InvalidOption,
    Options,
    config_path,
    read_config,
)
from geventchat.client.plain import PlainTerminal
from geventchat.client.session import ExitCode, Plan, Session, SessionEvent, Terminated, TimerExpired
from geventchat.client.styles import styles_of
from geventchat.client.terminal import Interrupted, Terminal
from geventchat.dialects import DIALECTS

PASSWORD_VARIABLE = "GEVENTCHAT_PASSWORD"

_EPILOG = """\
In a script, it sends its input and prints what it receives:  echo "deploy done" | geventchat connect HOST --name ci
Settings are in ~/.config/geventchat/client.toml; /set lists them. A name that belongs to an account needs its password: it is
asked for, or in GEVENTCHAT_PASSWORD.
Exit codes: 0 success; 1 not connected, login refused or not delivered; 2 wrong usage; 130, 143 stopped by a signal.
"""


class Start(NamedTuple):
    """The command line and the file, put together."""

    plan: Plan
    config: Config
    plain: bool


def main(argv: Sequence[str]) -> int:
    """Run the client with these arguments and return its exit code."""
    _open_closed_streams()
    arguments = parse_arguments(argv)
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        start = begin(
            arguments, read_config(arguments.config or config_path(os.environ, _home())), os.environ
        )
        styles_of(start.config.options.theme, start.config.colours, colour=True)
    except (InvalidOption, InvalidAddress) as error:
        sys.stderr.write(f"geventchat: {error}\n")
        return ExitCode.USAGE
    required = {"HOST[:PORT]": start.plan.host, "--name NAME": start.plan.name}
    missing = [option for option, value in required.items() if value is None]
    if missing and not interactive:
        sys.stderr.write(f"geventchat: not a terminal: {missing[0]} is required\n")
        return ExitCode.USAGE
    return Program(start, interactive).run()


def _open_closed_streams() -> None:
    """Have the null device in place of closed standard streams, whose numbers a connection would get otherwise."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


class Program:
    """The runtime of a session: its event loop, its connections and its end."""

    def __init__(self, start: Start, interactive: bool) -> None:
        self._loop = Loop()
        self._network = Network(self._loop, self.handle, start.config.options.tls_ca)
        self._deadline: Timer | None = None
        self._exit_code: ExitCode | None = None
        self._state = state_directory(os.environ, _home())
        self._marks = MarksFile(marks_path(self._state)) if interactive else None
        self._terminal = self._new_terminal(start, interactive)
        self._session = Session(
            start.plan,
            self._terminal,
            self,
            Clock(datetime.now, time.monotonic),
            start.config.options,
            new_key=lambda: secrets.token_hex(8),
            marks=self._marks.read if self._marks is not None else lambda _: ReadMarks(),
        )

    def run(self) -> int:
        """Run the session to its end."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._loop.on_signal(number, lambda: self.handle(Terminated()))
        self._loop.on_signal(signal.SIGINT, self._interrupted)
        try:
            self._session.start()
            self._set_deadline()
            if self._exit_code is None:
                self._loop.run()
            self._save_marks()
        finally:
            self._terminal.close()
            self._close_network()
            self._loop.close()
        assert self._exit_code is not None
        return self._exit_code

    def handle(self, event: SessionEvent) -> None:
        """Pass an event to the session while it runs."""
        if self._exit_code is None:
            self._session.handle(event)
            self._set_deadline()

    def connect(self, address: Address, timeout_s: float) -> None:
        """Try to connect; the outcome is an event."""
        self._network.connect(address, timeout_s)

    def end(self, code: ExitCode) -> None:
        """The session has ended."""
        self._exit_code = code
        self._loop.stop()

    def _interrupted(self) -> None:
        if isinstance(self._terminal, PlainTerminal):
            self._terminal.end_input_line()
        self.handle(Interrupted())

    def _set_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        at = self._session.deadline if self._exit_code is None else None
        self._deadline = None if at is None else self._loop.call_at(at, self._expired)

    def _expired(self) -> None:
        self._deadline = None
        self.handle(TimerExpired())

    def _close_network(self) -> None:
        self._network.close()
        if not self._network.is_closed:
            # A connection closes by itself, sooner or later.
            self._loop.run(until=lambda: self._network.is_closed)

    def _save_marks(self) -> None:
        if self._marks is not None:
            # What was read is a convenience; a full disk must not turn a good end into a failure.
            with suppress(OSError):
                self._marks.write(self._session.place, self._session.conversation.read_marks())

    def _new_terminal(self, start: Start, interactive: bool) -> Terminal:
        options = start.config.options
        term = os.environ.get("TERM", "dumb")
        colour = interactive and term != "dumb" and not os.environ.get("NO_COLOR")
        if start.plain or options.screen_reader or term == "dumb" or not interactive:
            return PlainTerminal(
                self._loop,
                self.handle,
                options,
                start.config.colours,
                interactive=interactive,
                colour=colour and not options.screen_reader,
            )
        from geventchat.client.screen import Screen

        history, problem = None, ""
        try:
            history = HistoryFile(history_path(self._state))
        except OSError as error:
            problem = str(error)
        screen = Screen(
            self._loop,
            self.handle,
            options,
            start.config.colours,
            colour=colour,
            term=term,
            history=history,
        )
        screen.history_problem = problem
        return screen


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        # The user has no entry in the password database, as in some containers.
        return Path("/")


def begin(arguments: argparse.Namespace, config: Config, environment: Mapping[str, str]) -> Start:
    """What the command line, the file and the environment say together. Raises InvalidAddress."""
    options = config.options
    target: Target | None = arguments.server
    if target is None and options.server:
        target = parse_target(options.server)
    changes: dict[str, object] = {}
    rooms = tuple(arguments.room) or ((target.room,) if target is not None and target.room else ())
    if rooms:
        changes["rooms"] = rooms
    if arguments.keep_alive is not None:
        changes["keep_alive"] = arguments.keep_alive
    if not arguments.bell:
        changes["bell"] = False
    if arguments.screen_reader:
        changes["screen_reader"] = True
    if arguments.tls_ca is not None:
        changes["tls_ca"] = arguments.tls_ca
    name = arguments.name or (target.name if target is not None else None) or options.name or None
    password = environment.get(PASSWORD_VARIABLE)
    plan = Plan(
        target.host if target is not None else None,
        target.port if target is not None else None,
        arguments.dialect or (target.dialect if target is not None else None),
        name,
        Secret(password) if password else None,
        target is not None and target.tls,
    )
    changed: Options = replace(options, **changes)  # type: ignore[arg-type]
    return Start(plan, replace(config, options=changed), arguments.plain)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments. Exits with code 2 and a message where they are wrong."""
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
        type=_target,
        help=f"server address, also chat://HOST:PORT, or chats://HOST:PORT for TLS (default ports: {ports})",
    )
    add("--dialect", choices=list(DIALECTS), help="dialect of the server (default: detect it)")
    add("--name", metavar="NAME", help="your name in the chat")
    add(
        "--room",
        metavar="ROOM",
        action="append",
        default=[],
        help="enter this room, in place of the lobby; can be repeated",
    )
    alive = parser.add_mutually_exclusive_group()
    alive.add_argument(
        "--keep-alive",
        metavar="SECONDS",
        type=_seconds,
        help="send a ping after this many seconds without input, so that the server does not disconnect you for being idle "
        f"(default: {Options().keep_alive:.0f})",
    )
    alive.add_argument(
        "--no-keep-alive",
        dest="keep_alive",
        action="store_const",
        const=0.0,
        help="let the server disconnect you when idle",
    )
    add("--tls-ca", metavar="FILE", help="over TLS, trust these certificates instead of the system's")
    add("--no-bell", dest="bell", action="store_false", help="do not ring for mentions and direct messages")
    add("--plain", action="store_true", help="lines without an input line, windows and history")
    add("--screen-reader", action="store_true", help="the same, with words in place of symbols")
    add("--config", metavar="FILE", type=Path, help="read settings from this file")
    return parser.parse_args(_with_keep_alive_seconds(argv))


def _with_keep_alive_seconds(argv: Sequence[str]) -> list[str]:
    """Fill in the default behind a bare --keep-alive: argparse would take the host behind it for its number."""
    words = []
    for at, word in enumerate(argv):
        words.append(word)
        if word == "--keep-alive" and not _is_number("".join(argv[at + 1 : at + 2])):
            words.append(str(Options().keep_alive))
    return words


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _seconds(word: str) -> float:
    if not _is_number(word) or not 1 <= float(word) <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number from 1 to {MAX_SECONDS}")
    return float(word)


def _target(word: str) -> Target:
    try:
        return parse_target(word)
    except InvalidAddress as error:
        raise argparse.ArgumentTypeError(str(error)) from error
