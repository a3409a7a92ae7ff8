"""The command `geventchat admin`: sends one request to a server's admin socket, and prints the answer. Imports no gevent."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from geventchat.admin.protocol import (
    AUDITED,
    MOST_ANSWER_BYTES,
    MOST_AUDITED,
    ROLES,
    Answer,
    BadRequest,
    encode,
    read_answer,
    short_path,
    socket_path,
)
from geventchat.arguments import EXIT_USAGE, Parser, resolve_arguments, show
from geventchat.chat.commands import Impose
from geventchat.chat.passwords import WeakPassword
from geventchat.chat.text import clean
from geventchat.dialects.verbs import VERBS
from geventchat.log import LEVELS
from geventchat.password_prompt import NoPassword, ask_for_password
from geventchat.processes import settings_of_process
from geventchat.settings import EXIT_CONFIGURATION, SETTINGS, ConfigError, Settings

EXIT_REFUSED = 1
EXIT_NO_SERVER = 4
EXIT_NO_PERMISSION = 5
EXIT_OTHER_VERSION = 6

# The server reports progress of a long act more often than this.
_SILENCE_S = 30.0
# An upgrade reports nothing while the new program starts, or while nobody is served. This is longer than all that its steps
# can take together; the server ends a new program that takes longer.
_UPGRADE_SILENCE_S = 180.0
_EPILOG = """\
The server is found by its settings, as it finds them itself: --data or --admin-socket, the environment, or the file that
--config names; or with --pid by those of a running server.

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 wrong setting, 4 no server answers there, 5 no permission, 6 another version of
the protocol.
"""


class _Failed(Exception):
    """The request got no answer; the message says why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def main(words: Sequence[str]) -> int:
    """Run the command and return the exit code."""
    parser = _parser()
    arguments = parser.parse_all(words)
    try:
        path = _path(arguments)
    except ConfigError as wrong:
        print(f"geventchat admin: {wrong}", file=sys.stderr)
        return EXIT_CONFIGURATION
    rows: list[dict[str, Any]] = []
    try:
        asked = arguments.request(arguments)
        # Leave out what was not given. 0 is a number that was given.
        request = {key: value for key, value in asked.items() if value or type(value) is int}
        for answer in _ask(path, {"act": arguments.act, **request}):
            rows += answer.get("rows", ())
            if "error" in answer:
                return _refused(arguments, answer["error"])
            if "done" in answer:
                return _show(arguments, answer["done"], rows)
    except _Failed as failed:
        print(f"geventchat admin: {failed}", file=sys.stderr)
        return failed.code
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return EXIT_REFUSED
    print(f"geventchat admin: {path}: the server has closed the connection", file=sys.stderr)
    return EXIT_NO_SERVER


# --- Arguments -------------------------------------------------------------------------------------------------------

_Reader = Callable[[argparse.Namespace], dict[str, Any]]


def _parser() -> Parser:
    parser = Parser(
        prog="geventchat admin",
        description="Administer a running server, over its Unix socket.",
        epilog=_EPILOG,
    )
    # Without this, argparse would call the list of acts "positional arguments".
    acts = parser.add_subparsers(dest="act", metavar="ACT", required=True, title="acts", parser_class=Parser)
    options = parser.add_argument_group("Options")
    parser.add_help_to(options)

    def act(
        name: str, help: str, *arguments: tuple[tuple[str, ...], dict[str, Any]], request: _Reader = _nothing
    ) -> None:
        added = acts.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        for flags, more in arguments:
            added.add_argument(*flags, **more)
        _add_options(added)
        added.set_defaults(request=request)

    room = ("--room",), {"metavar": "ROOM", "help": "in this room only, not on the whole server"}
    act("status", "show how the server is")
    act("who", "list all connections")
    act("rooms", "list all rooms, private ones too")
    act(
        "announce",
        "say one line to all logged-in users",
        (("text",), {"metavar": "TEXT", "nargs": "+", "help": "what to say"}),
        request=lambda given: {"text": " ".join(given.text)},
    )
    act(
        "kick",
        "remove someone from the server",
        (("who",), {"metavar": "NAME", "help": "who"}),
        (("reason",), {"metavar": "REASON", "nargs": "*", "help": "shown to that person"}),
        room,
        request=lambda given: {"who": given.who, "reason": " ".join(given.reason), "room": given.room},
    )
    act(
        "ban",
        "keep someone out",
        (
            ("who",),
            {
                "metavar": "WHO",
                "help": "a person; name:NAME or account:NAME for the name or the account alone; an address or a CIDR range",
            },
        ),
        (
            ("rest",),
            {
                "metavar": "[DURATION] REASON",
                "nargs": "*",
                "help": "such as 10m, 2h or 7d; without it, forever",
            },
        ),
        room,
        request=_ban,
    )
    act(
        "unban",
        "lift a ban",
        (("who",), {"metavar": "WHO", "help": "as `bans` shows it"}),
        room,
        request=lambda given: {"who": given.who, "room": given.room},
    )
    act("bans", "list the bans", room, request=lambda given: {"room": given.room})
    act(
        "audit",
        "list the latest acts of the audit log, the last one at the end",
        (
            ("limit",),
            {
                "metavar": "N",
                "nargs": "?",
                "type": int,
                "help": f"how many, at most {MOST_AUDITED:,}; without it, {AUDITED}",
            },
        ),
        request=lambda given: {"limit": given.limit},
    )
    act(
        "grant",
        "give someone a role",
        (("who",), {"metavar": "NAME", "help": "who"}),
        (("role",), {"choices": ROLES, "help": "of the server: operator; of a room: the others"}),
        (("--room",), {"metavar": "ROOM", "help": "the room of the role"}),
        (("--revoke",), {"action": "store_true", "help": "take the role away"}),
        request=lambda given: {
            "who": given.who,
            "role": given.role,
            "room": given.room,
            "revoke": given.revoke,
        },
    )
    act(
        "password",
        "set the password of an account, which is made if there is none",
        (("who",), {"metavar": "NAME", "help": "the account; the password is asked for"}),
        # Accepted here because the parser quotes unknown arguments in its error, and this one can be a password.
        (("rest",), {"nargs": "*", "help": argparse.SUPPRESS}),
        request=_password,
    )
    act("reload", "read the settings again")
    act(
        "backup",
        "copy the database to a new file, which the server writes",
        (("file",), {"metavar": "FILE", "help": "must not exist"}),
        request=lambda given: {"file": os.path.abspath(given.file)},
    )
    act(
        "log-level",
        "show or change the lowest level that is logged",
        (("level",), {"metavar": "LEVEL", "nargs": "?", "choices": LEVELS, "help": "|".join(LEVELS)}),
        request=lambda given: {"level": given.level},
    )
    act(
        "upgrade",
        "replace the program without disconnecting anyone",
        (
            ("--python",),
            {"metavar": "PATH", "help": "of a new virtual environment; without it, the same Python"},
        ),
        request=lambda given: {"python": given.python and os.path.abspath(given.python)},
    )
    return parser


def _nothing(given: argparse.Namespace) -> dict[str, Any]:
    return {}


def _ban(given: argparse.Namespace) -> dict[str, Any]:
    # The arguments are those of the command BAN in the chat.
    command = VERBS["ban"].read(" ".join([given.who, *given.rest]))
    if not isinstance(command, Impose):
        raise _Failed(EXIT_USAGE, "WHO is empty; name someone, an address or a range")
    return {"who": command.who, "seconds": command.seconds, "reason": command.reason, "room": given.room}


def _password(given: argparse.Namespace) -> dict[str, Any]:
    if given.rest:
        raise _Failed(EXIT_USAGE, "unexpected arguments behind NAME; the password is asked for")
    try:
        password = ask_for_password(sys.stdin, clean(given.who))
    except (NoPassword, WeakPassword) as wrong:
        raise _Failed(EXIT_REFUSED, str(wrong)) from None
    return {"who": given.who, "password": password.reveal()}


def _add_options(parser: Parser) -> None:
    options = parser.add_argument_group("Options")
    options.add_argument("--json", action="store_true", help="print the answer as JSON")
    for key in ("data", "admin-socket"):
        row = SETTINGS[key]
        options.add_argument(row.flag, metavar=row.kind.metavar, help=f"the server's {row.flag}")
    options.add_argument("--config", metavar="FILE", help="the server's settings file")
    options.add_argument("--pid", metavar="PID", type=int, help="the server, or an ancestor of it")
    parser.add_help_to(options)


def _path(arguments: argparse.Namespace) -> Path:
    arguments.port = arguments.positional_port = None
    if arguments.pid is None:
        directory = Path()
        settings: Settings = resolve_arguments(arguments, os.environ)
    else:
        settings, directory = settings_of_process(arguments.pid, arguments)
    path = socket_path(settings["admin-socket"], settings["data"])
    if path is None:
        raise ConfigError(
            "admin-socket", "which server? name its --data DIR, its --admin-socket PATH or its --pid PID"
        )
    return directory / path


# --- The question ----------------------------------------------------------------------------------------------------


def _ask(path: Path, request: dict[str, Any]) -> Iterator[Answer]:
    """Send a request, and yield the lines of the answer. Raises _Failed."""
    silence_s = _UPGRADE_SILENCE_S if request["act"] == "upgrade" else _SILENCE_S
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.settimeout(silence_s)
            with short_path(path) as name:
                asked.connect(name)
            asked.sendall(encode(request))
            with asked.makefile("rb") as lines:
                while line := lines.readline(MOST_ANSWER_BYTES):
                    yield read_answer(line)
    except BadRequest as bad:
        code = EXIT_OTHER_VERSION if bad.code == "version" else EXIT_NO_SERVER
        raise _Failed(code, f"{path}: {bad}") from None
    except PermissionError:
        raise _Failed(
            EXIT_NO_PERMISSION,
            f"{path}: no permission; run this as root or as the user that the server runs as",
        ) from None
    except TimeoutError:
        raise _Failed(EXIT_NO_SERVER, f"{path}: the server has not answered for {silence_s:g} s") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise _Failed(EXIT_NO_SERVER, f"{path}: no server listens there") from None
    except OSError as failed:
        raise _Failed(EXIT_NO_SERVER, f"{path}: {failed.strerror or failed}") from None


# --- The answer ------------------------------------------------------------------------------------------------------


def _refused(arguments: argparse.Namespace, error: object) -> int:
    fields = error if isinstance(error, dict) else {}
    if arguments.json:
        show(json.dumps({"error": fields}) + "\n")
    print(f"geventchat admin: {clean(str(fields.get('message', 'refused')))}", file=sys.stderr)
    return EXIT_NO_PERMISSION if fields.get("code") == "permission" else EXIT_REFUSED


def _show(arguments: argparse.Namespace, done: dict[str, Any], rows: list[dict[str, Any]]) -> int:
    is_list = arguments.act in ("who", "rooms", "bans", "audit")
    if arguments.json:
        return show(json.dumps(rows if is_list else done, indent=2) + "\n")
    if is_list:
        return show(_table(rows))
    return show("".join([f"{_label(key)}: {_cell(key, done[key])}\n" for key in done]) or "done\n")


def _label(key: str) -> str:
    # `_cell` shows it as a time.
    return "started" if key == "started_ms" else key.replace("_", " ")


def _table(rows: Iterable[dict[str, Any]]) -> str:
    cells = [[_cell(key, value) for key, value in row.items()] for row in rows]
    if not cells:
        return "none\n"
    cells.insert(
        0,
        [key.removesuffix("_bytes").removesuffix("_s").replace("_", " ").upper() for key in next(iter(rows))],
    )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "".join(["  ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in cells])


def _cell(key: str, value: Any) -> str:
    match value:
        case None | "" | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(map(clean, map(str, value)))
        case int() if key == "started_ms":
            return datetime.fromtimestamp(value / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        case int() if key.endswith("_bytes") or key == "bytes":
            return f"{value:,}"
        case _:
            return clean(str(value))
