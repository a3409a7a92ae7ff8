"""`geventchat connect`: puts the client together for the place it runs in.

The one module that looks at the environment: arguments, terminals, signals, variables.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from geventchat.client.address import Address
from geventchat.client.asking import ask_address, ask_name
from geventchat.client.conversation import Clock
from geventchat.client.exits import Ended, Exit
from geventchat.client.history import HistoryFile, history_path
from geventchat.client.inbox import Happening, Inbox, Terminated
from geventchat.client.naming import fault, tidy
from geventchat.client.notes import Problem, Remark
from geventchat.client.options import Options, parse
from geventchat.client.plain import Manners, PlainTerminal
from geventchat.client.rendering import Look
from geventchat.client.session import Session, Visit
from geventchat.client.speech import DEFAULT_PORTS, Dialect
from geventchat.client.terminal import Deaf, InputEnded, Interrupted, Terminal, WalkedOut

GET_THE_REST = "For a whole input line, history and completion: pip install 'geventchat[client]'"


def main(argv: Sequence[str]) -> int:
    """Run the client with these arguments and return its exit code."""
    options = parse(argv)
    missing = _missing(options)
    if missing is not None:
        sys.stderr.write(f"geventchat: {missing}\n")
        return Exit.USAGE
    return asyncio.run(_visit(options))


def _missing(options: Options) -> str | None:
    if _has_person():
        return None
    if options.host is None:
        return "There is nobody to ask for the server: say HOST[:PORT]."
    if options.name is None:
        return "There is nobody to ask for a name: say --name NAME."
    return None


def _has_person() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


async def _visit(options: Options) -> int:
    inbox = Inbox()
    loop = asyncio.get_running_loop()
    terminal = _terminal(options, inbox)

    def interrupt() -> None:
        terminal.interrupted()
        inbox.put(Interrupted())

    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, inbox.put, Terminated())
    try:
        visit = await inbox.meanwhile(_fill_in(options, terminal), _at_a_question)
    except WalkedOut as walked_out:
        return Exit.INTERRUPTED if walked_out.interrupted else Exit.FAILED
    except Ended as ended:
        return ended.exit_code
    return await Session(visit, terminal, inbox, Clock(datetime.now, time.monotonic)).run()


def _terminal(options: Options, inbox: Inbox) -> Terminal:
    person = _has_person()
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    look = Look(colour=person and not dumb and not os.environ.get("NO_COLOR"))
    plain = PlainTerminal(inbox.put, Manners(has_person=person, bell=options.bell, look=look))
    if not person or options.plain or dumb:
        return plain
    try:
        from geventchat.client.screen import Screen, ScreenManners
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] != "prompt_toolkit":
            raise
        plain.show(Remark(GET_THE_REST))
        return plain
    try:
        history = HistoryFile(history_path(os.environ, Path.home()))
    except (OSError, RuntimeError) as why:
        plain.show(Remark(f"What you type will be forgotten: there is no place for a history ({why})."))
        history = None
    return Screen(inbox.put, ScreenManners(bell=options.bell, look=look, history=history))


async def _fill_in(options: Options, terminal: Terminal) -> Visit:
    """Ask for what was not told."""

    def complain(wrong: str) -> None:
        terminal.show(Problem(wrong))

    if options.host is None:
        address = await ask_address(terminal.ask, complain, DEFAULT_PORTS[options.dialect or Dialect.LINE])
    else:
        port = options.port or DEFAULT_PORTS[options.dialect or Dialect.LINE]
        address = Address(options.host, port)
    name = tidy(options.name) if options.name is not None else None
    wrong = fault(name) if name is not None else None
    if wrong is not None:
        complain(wrong)
        name = None
        if not terminal.has_person:
            raise Ended(Exit.FAILED)
    if name is None:
        name = await ask_name(terminal.ask, complain)
    return Visit(address, options.dialect, name, options.keep_alive_s)


def _at_a_question(happening: Happening) -> None:
    match happening:
        case Interrupted():
            raise WalkedOut(interrupted=True)
        case InputEnded():
            raise WalkedOut(interrupted=False)
        case Terminated():
            raise Ended(Exit.TERMINATED)
        case Deaf():
            raise Ended(Exit.FAILED)
        case _:
            # Nothing else can happen before there is a connection.
            pass
