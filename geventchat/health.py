"""`geventchat health`: ask a running server whether it answers, for containers and scripts. Imports no gevent.

The server is found by the settings of this process, or with --pid by those of a running one. It is asked in the line dialect.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
from collections.abc import Sequence
from dataclasses import replace

from geventchat.arguments import Parser, add_settings, resolve_arguments, show
from geventchat.chat.addresses import Network, parse_address
from geventchat.clock import SystemClock
from geventchat.processes import settings_of_process
from geventchat.settings import EXIT_CONFIGURATION, ConfigError, Group, Listen, Settings

EXIT_UNHEALTHY = 1

_QUESTION = b"QUIT\n"
# The header of a proxy that connects for itself.
_OWN_HEADER = b"PROXY UNKNOWN\r\n"
# A client that has not logged in leaves without a notice to others. A server that is full is healthy.
_HEALTHY = {
    b"Goodbye!": "answers",
    b"ERR server-full": "answers, and is full",
    b"ERR too-many-connections": "answers, and has too many connections from this address",
    b"ERR banned": "answers, and has banned this address",
}
# Before a handshake the server refuses with an alert, which does not say why.
_REFUSAL = "TLSV1_ALERT_ACCESS_DENIED"
_REFUSES = "answers, and refuses this connection"
# How a greeting begins, if the server has one.
_GREETING = b"INFO "
_MOST_ANSWER_BYTES = 1_000
_MOST_TIMEOUT_S = 3_600
_LOOPBACK = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}
_USAGE = "geventchat health [PORT] [options]"
_EPILOG = """\
The options, the environment and the settings file are those of the server. In a container, `geventchat health --pid 1` also
finds a port that was given as an argument to the server. Prints one line.

Exit codes: 0 healthy, 1 not healthy, 2 wrong usage, 3 wrong setting.
"""


class _Unhealthy(Exception):
    """Why the server is not healthy, as the end of a sentence that begins with its address."""


def main(argv: Sequence[str]) -> int:
    """Check once and return the exit code."""
    arguments = _parse(argv)
    try:
        settings = (
            _own_settings(arguments)
            if arguments.pid is None
            else settings_of_process(arguments.pid, arguments)[0]
        )
        address = _address(settings)
    except ConfigError as error:
        print(f"geventchat health: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    shown = address.shown
    try:
        state = _ask(address, arguments.timeout, settings["proxy-from"])
    except _Unhealthy as reason:
        print(f"not healthy: {shown} {reason}", file=sys.stderr)
        return EXIT_UNHEALTHY
    return show(f"healthy: {shown} {state}\n")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="geventchat health",
        usage=_USAGE,
        description="Check that a server answers.",
        epilog=_EPILOG,
    )
    parser.add_argument("positional_port", nargs="?", metavar="PORT", help="the same as --port PORT")
    add_settings(parser, Group.ADDRESSES)
    other = parser.add_argument_group("Other")
    other.add_argument("--config", metavar="FILE", help="read settings from this TOML file")
    other.add_argument(
        "--pid",
        type=_positive,
        metavar="PID",
        help="use the arguments, the environment and the directory of this process, or of its descendant that is a server",
    )
    other.add_argument(
        "--timeout",
        type=_seconds,
        default=3.0,
        metavar="SECONDS",
        help="time that the server has to answer (default: 3)",
    )
    parser.add_help_to(other)
    arguments = parser.parse_all(argv)
    if arguments.positional_port is not None and arguments.port not in {None, arguments.positional_port}:
        parser.error(f"two ports: {arguments.positional_port} and --port {arguments.port}")
    return arguments


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a process")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _MOST_TIMEOUT_S:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds above 0 and up to {_MOST_TIMEOUT_S}"
        )
    return seconds


# --- Which server ----------------------------------------------------------------------------------------------------


def _address(settings: Settings) -> Listen:
    # One of them speaks line: the plain one is the easiest to ask.
    listen = min(
        (one for one in settings.listen if one.service == "line"), key=lambda one: (one.is_tls, one.is_unix)
    )
    if listen.is_unix:
        return listen
    if not listen.port:
        raise ConfigError("port", "port: the server listens on any free port (0); pass its real PORT")
    return replace(listen, host=_LOOPBACK.get(listen.host or "", listen.host))


def _own_settings(arguments: argparse.Namespace) -> Settings:
    return resolve_arguments(arguments, os.environ)


# --- The question ----------------------------------------------------------------------------------------------------


def _ask(address: Listen, timeout_s: float, proxy_from: tuple[Network, ...]) -> str:
    """Ask the server, and return its state. Raises _Unhealthy."""
    clock = SystemClock()
    deadline = clock.monotonic() + timeout_s
    answer = b""
    try:
        with _connect(address, timeout_s, proxy_from) as asked:
            asked.sendall(_QUESTION)
            while _first_answer(answer) is None and len(answer) < _MOST_ANSWER_BYTES:
                left_s = deadline - clock.monotonic()
                if left_s <= 0:
                    raise TimeoutError
                asked.settimeout(left_s)
                chunk = asked.recv(_MOST_ANSWER_BYTES)
                if not chunk:
                    break
                answer += chunk
    except TimeoutError:
        raise _Unhealthy(f"has not answered within {timeout_s:g} s") from None
    except ConnectionRefusedError:
        raise _Unhealthy("refuses connections") from None
    except OSError as error:
        if isinstance(error, ssl.SSLError) and error.reason == _REFUSAL:
            return _REFUSES
        raise _Unhealthy(f"cannot be asked: {error.strerror or error}") from None
    line = _first_answer(answer)
    if line not in _HEALTHY:
        raise _Unhealthy(
            f"answered {answer.decode(errors='replace')!r}, which is not what geventchat answers to QUIT"
        )
    return _HEALTHY[line]


def _connect(address: Listen, timeout_s: float, proxy_from: tuple[Network, ...]) -> socket.socket:
    if address.is_unix:
        asked = socket.socket(socket.AF_UNIX)
        asked.settimeout(timeout_s)
        try:
            asked.connect(address.path)
        except OSError:
            asked.close()
            raise
        return asked
    asked = socket.create_connection((address.host, address.port or 0), timeout_s)
    own = parse_address(asked.getsockname()[0])
    if own is not None and any(own in network for network in proxy_from):
        # This machine counts as a proxy.
        asked.sendall(_OWN_HEADER)
    if not address.is_tls:
        return asked
    # The question is whether this server answers, not whether others can trust its certificate, and no secret is sent.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(asked)
    except OSError:
        asked.close()
        raise


def _first_answer(received: bytes) -> bytes | None:
    """The line behind the greeting, if there is one; None while it is not complete."""
    lines = received.split(b"\n")[:-1]
    if lines and lines[0].startswith(_GREETING):
        lines = lines[1:]
    return lines[0] if lines else None
