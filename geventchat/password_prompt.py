"""Asks for a new password: twice on a terminal, otherwise the first line of standard input."""

from __future__ import annotations

import getpass
import sys
from typing import TextIO

from geventchat.chat.passwords import Password, prepare

# More than any password has, so that a longer line is a password that is too long.
_MOST_TYPED_BYTES = 2_000


class NoPassword(Exception):
    """There is none; the message says why."""


def ask_for_password(stdin: TextIO | None, name: str) -> Password:
    """The password that is typed for this account; raise NoPassword or WeakPassword."""
    if stdin is None:
        raise NoPassword("standard input is closed")
    if not stdin.isatty():
        line = stdin.buffer.readline(_MOST_TYPED_BYTES)
        if not line:
            raise NoPassword("no password on standard input")
        try:
            return prepare(line.decode())
        except UnicodeDecodeError:
            raise NoPassword("the password on standard input is not UTF-8") from None
    password = prepare(_typed(f"Password of {name}: "))
    if prepare(_typed("The same again: ")) != password:
        raise NoPassword("the two passwords differ")
    return password


def _typed(prompt: str) -> str:
    try:
        return getpass.getpass(prompt)
    except (EOFError, UnicodeDecodeError) as failed:
        # The prompt is still on the line.
        print(file=sys.stderr)
        what = "no password was typed" if isinstance(failed, EOFError) else "the typed password is not UTF-8"
        raise NoPassword(what) from None
