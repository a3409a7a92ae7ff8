"""The command line: arguments to settings, settings to a server, a server until a signal. Must not know what a client says."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import gevent
from gevent.event import Event

from geventchat.clock import SystemClock
from geventchat.config import ConfigError, Listen
from geventchat.journal import Journal
from geventchat.net.descriptors import raise_limit
from geventchat.net.listener import CannotListen
from geventchat.server import Server
from geventchat.settings import DEFAULT, SETTINGS, Settings, Told, config_file, settle

EXIT_USAGE = 2
EXIT_CONFIGURATION = 3
EXIT_CANNOT_LISTEN = 4
EXIT_DEADLINE = 5

_EPILOG = """\
Every option is also a variable GEVENTCHAT_… (GEVENTCHAT_MAX_CLIENTS) and a key of the TOML file (max-clients); a flag
counts before the environment, that before the file, that before the default. CHAT_PORT and PORT name the port too.
`geventchat connect` is a client: see `geventchat connect --help`.
Exit codes: 0 stopped in good order, 2 wrong usage, 3 wrong setting, 4 cannot listen, 5 clients left at the deadline.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["connect"]:
        from geventchat.client.app import main as connect

        return connect(words[1:])
    parser = _parser()
    arguments = parser.parse_args(words)
    try:
        settings = settle(_flags(parser, arguments), os.environ, config_file(arguments.config, os.environ))
        config = settings.config()
    except ConfigError as error:
        print(f"geventchat: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    if arguments.check:
        print(_in_force(settings))
        return 0
    raise_limit()
    _spare_the_collector()
    clock = SystemClock()
    journal = Journal(sys.stderr, settings["log-format"], settings["log-level"], clock)
    try:
        code = _serve(Server(config, clock=clock, log=journal))
    finally:
        journal.close()
    if code in {0, EXIT_DEADLINE}:
        # After the log has been written out, so that on a terminal the last word is the last line.
        _say("Server stopped.")
    return code


def _spare_the_collector() -> None:
    # What a client is made of holds no cycles. Looking for some each time 700 objects have been made is a tenth of the
    # processor time of a login, and what the program itself is made of is there to stay.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _serve(server: Server) -> int:
    try:
        server.start()
    except CannotListen as error:
        print(f"geventchat: {_complaint(error)}", file=sys.stderr)
        return EXIT_CANNOT_LISTEN
    asked = Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(signum, _on_signal, asked, signum)
    for listen, (host, port) in server.listening:
        shown = f"[{host}]" if ":" in host else host
        named = "" if listen.dialect == "line" else f" ({listen.dialect})"
        _say(f"Chat server started on {shown}:{port}{named}")
    _say("Waiting for connections...")
    asked.wait()
    _say("Shutting down...")
    return 0 if server.stop() else EXIT_DEADLINE


def _on_signal(asked: Event, signum: int) -> None:
    if asked.is_set():
        # Twice is no request but an order, whatever is still being said goodbye to.
        os._exit(128 + signum)
    asked.set()


def _say(text: str) -> None:
    try:
        print(f"[SERVER] {text}", flush=True)
    except OSError:
        # Nobody reads it, or there is no room for it; the chat goes on. What Python would flush at exit must go nowhere too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complaint(error: CannotListen) -> str:
    listen: Listen = error.listen
    if error.in_use:
        where = f"{listen.host or '*'}:{listen.port}"
        other = (listen.port or 0) + 1 if (listen.port or 0) < 65535 else 4000
        return (
            f"port {listen.port} is in use: something listens on {where} already; "
            f"try another, such as {other}, or 0 for any free one"
        )
    return str(error.strerror)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="geventchat",
        description="A chat server that anyone can reach with nc.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("positional_port", nargs="?", metavar="PORT", help="the port for the line dialect (default: 4000)")
    add("-p", "--port", metavar="PORT", help="the same")
    add("--host", metavar="HOST", help="the address to listen on (default: 0.0.0.0)")
    add("--listen", action="append", metavar="DIALECT://HOST:PORT", help="listen here too; may be repeated")
    add("-t", "--idle-timeout", metavar="SECONDS", help="cut off who is silent so long; 0: never (line: 60)")
    add("--idle-notice", metavar="KIND", help="how they are told: info, err or none (default: info)")
    add("--max-clients", metavar="N", help="connections at one time (default: 10000)")
    add("--max-per-address", metavar="N", help="of them from one address (default: 1000)")
    add("--max-line", metavar="BYTES", help="the longest line (default: 4096)")
    add("--max-queue", metavar="BYTES", help="what may wait for a slow client (default: 1048576)")
    add("--rate", metavar="N", help="lines per second and client; 0: no limit (default: 50)")
    add("--burst", metavar="N", help="lines that may come at once (default: 200)")
    add("--shutdown-timeout", metavar="SECONDS", help="for goodbyes at the end (default: 10)")
    add("--config", metavar="FILE", help="a TOML file of these settings")
    add("--log-format", metavar="FORMAT", help="text or json, on standard error (default: text)")
    add("--log-level", metavar="LEVEL", help="debug, info, warning or error (default: info)")
    add("--log-messages", action="store_const", const="yes", help="log what is said, too")
    add("--check", action="store_true", help="say which settings are in force and where from, and end")
    add("--version", action="version", version=f"geventchat {_version()}")
    return parser


def _flags(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> dict[str, Told]:
    if arguments.positional_port is not None:
        if arguments.port is not None and arguments.port != arguments.positional_port:
            parser.error(f"two ports: {arguments.positional_port} and --port {arguments.port}")
        arguments.port = arguments.positional_port
    spelt = {"port": "the argument PORT"} if arguments.positional_port is not None else {}
    told = {}
    for key in SETTINGS:
        value = getattr(arguments, key.replace("-", "_"))
        if value is not None:
            text = " ".join(value) if isinstance(value, list) else value
            told[key] = Told(text, spelt.get(key, f"--{key}"))
    return told


def _in_force(settings: Settings) -> str:
    rows = []
    for key, settled in settings.settled.items():
        shown = [_place(one) for one in settings.listen] if key == "listen" else [_shown(settled.value)]
        source = settled.source if settled.source != DEFAULT else "(default)"
        rows.append(f"{key:<18} {shown[0]:<28} {source}")
        rows.extend(f"{'':<18} {more}" for more in shown[1:])
    return "\n".join(rows)


def _place(listen: Listen) -> str:
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"{listen.dialect}://{host}:{listen.port}"


def _shown(value: object) -> str:
    match value:
        case None:
            return "each dialect's own"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
    return str(value)


def _version() -> str:
    try:
        return version("geventchat")
    except PackageNotFoundError:
        return "(not installed)"
