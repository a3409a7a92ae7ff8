"""`geventchat passwd --data DIR NAME`: sets the password of an account, and creates the account if there is none.

For the first password of an operator, and for a person who has forgotten theirs. With --token it makes a token for a bot. The
server must not be running: `geventchat admin password` asks one that is. Nothing else in the directory changes.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from geventchat.arguments import EXIT_USAGE, Parser
from geventchat.chat.names import InvalidName, Name, parse_name
from geventchat.chat.passwords import TOKEN_BYTES, Secret, WeakPassword, prepare, token_from
from geventchat.chat.records import AccountRecord, Act
from geventchat.clock import SystemClock
from geventchat.log import LogEvent, fields_text
from geventchat.password_prompt import NoPassword, ask_for_password
from geventchat.services.passwords import hash_here
from geventchat.services.storage.directory import CannotOpenStorage
from geventchat.services.storage.sqlite import SqliteStorage
from geventchat.settings import EXIT_CONFIGURATION, Limits

EXIT_FAILED = 1
_CLOSE_S = 30.0
# The server's own limits are not known here, so the storage removes nothing beyond any.
_NO_LIMIT = 10**12
_LIMITS = Limits(
    stored_messages=_NO_LIMIT, stored_bytes=_NO_LIMIT, mail_s=float(_NO_LIMIT), room_acts=_NO_LIMIT
)


class _CannotSet(Exception):
    """The password cannot be set; the message says why."""


def main(words: Sequence[str]) -> int:
    """Run the command and return the exit code."""
    parser = Parser(
        prog="geventchat passwd",
        description="Set the password of an account. Stop the server first. Without a terminal, the password is the first "
        "line of standard input.",
    )
    parser.add_argument("name", metavar="NAME", help="the name of the account; it is made if there is none")
    options = parser.add_argument_group("Options")
    options.add_argument("--data", metavar="DIR", required=True, help="the server's data directory")
    options.add_argument(
        "--token",
        action="store_true",
        help="make a token and print it; the account that is made for it has no password that anybody knows",
    )
    parser.add_help_to(options)
    # Not `parse_all`, whose error quotes unknown arguments: one can be a password.
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        parser.error("unexpected arguments behind NAME; the password is asked for")
    try:
        name = parse_name(arguments.name)
    except InvalidName:
        parser.error(f"{arguments.name!r} cannot be a name: 1 to 20 letters, digits, '_', '-' or '.'")
    directory = Path(arguments.data)
    if not directory.is_dir():
        print(f"geventchat passwd: no such directory: {directory}", file=sys.stderr)
        return EXIT_USAGE
    try:
        if arguments.token:
            print(_make_token(directory, name).reveal())
            return 0
        made = _set(directory, name)
    except CannotOpenStorage as error:
        print(f"geventchat passwd: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except (_CannotSet, NoPassword, WeakPassword) as error:
        print(f"geventchat passwd: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return EXIT_FAILED
    print(f"{'made the account' if made else 'changed the password of'} {name.shown}")
    return 0


def _set(directory: Path, name: Name) -> bool:
    """Ask for a password and keep it; True if that made the account."""
    clock = SystemClock()
    # Opened first, so that an error comes before the password is typed.
    storage = SqliteStorage(directory, _LIMITS, clock, _log, lambda call: call())
    try:
        found = [record for record in storage.load().accounts if record.key == name.key]
        hashed = hash_here(ask_for_password(sys.stdin, name.shown))
        now_ms = int(1000 * clock.time())
        record = found[0] if found else AccountRecord(name.key, name.shown, hashed, created_ms=now_ms)
        # The new password works at once in spite of earlier guesses, and leaked tokens no longer do.
        storage.save(replace(record, password_hash=hashed, token_hashes=(), last_login_ms=now_ms))
        storage.audit(Act(now_ms, "geventchat passwd", "password", "", name.shown))
    finally:
        complete = storage.close(_CLOSE_S)
    if not complete:
        raise _CannotSet(f"cannot write to {directory}; the password is as it was")
    return not found


def _make_token(directory: Path, name: Name) -> Secret:
    """Make a token, and the account if there is none."""
    clock = SystemClock()
    storage = SqliteStorage(directory, _LIMITS, clock, _log, lambda call: call())
    try:
        found = [record for record in storage.load().accounts if record.key == name.key]
        now_ms = int(1000 * clock.time())
        record = found[0] if found else _without_password(name, now_ms)
        if len(record.token_hashes) >= _LIMITS.tokens:
            raise _CannotSet(
                f"{record.name} has {_LIMITS.tokens} tokens; log in and revoke them with TOKEN revoke"
            )
        token, stored = token_from(secrets.token_bytes(TOKEN_BYTES))
        storage.save(replace(record, token_hashes=(*record.token_hashes, stored), last_login_ms=now_ms))
        storage.audit(Act(now_ms, "geventchat passwd", "token", "", record.name))
    finally:
        complete = storage.close(_CLOSE_S)
    if not complete:
        raise _CannotSet(f"cannot write to {directory}; no token was created")
    return token


def _without_password(name: Name, now_ms: int) -> AccountRecord:
    hashed = hash_here(prepare(secrets.token_urlsafe(TOKEN_BYTES)))
    return AccountRecord(name.key, name.shown, hashed, created_ms=now_ms)


def _log(event: LogEvent, /, **fields: object) -> None:
    if event is not LogEvent.STORAGE_OPENED:
        print(f"geventchat passwd: {event.value} {fields_text(fields)}", file=sys.stderr)
