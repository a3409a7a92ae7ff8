"""What to call a client of whom only the connection is known: by what it said it is called. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.language.steps import NAME, RESERVED
from harness.recording.session_log import SessionLog

_INTRODUCTIONS = (
    re.compile(r"/?(?:login|nick|name|join|iam)\s+:?(?P<name>\S+)", re.IGNORECASE),
    re.compile(r'"(?:user_?name|nick(?:name)?|name|user|login)"\s*:\s*"(?P<name>[^"\s]+)"', re.IGNORECASE),
    re.compile(r"(?:user|helo|ehlo|hello)\s+:?(?P<name>\S+)", re.IGNORECASE),
)
_LINES_LOOKED_AT = 5
# Words that servers understand and that are nobody's name, in case a first line is a single word.
_NO_NAMES = frozenset(
    {"exit", "get", "help", "hello", "helo", "hi", "info", "list", "menu", "noop", "ping", "quit", "start"}
    | {"stats", "status", "stop", "test", "version", "who"}
)


def names(log: SessionLog) -> dict[int, str]:
    """A name for each connection, no two the same."""
    found: dict[int, str] = {}
    for number in log.connections():
        taken = {name.casefold() for name in found.values()}
        found[number] = next(name for name in _candidates(log, number) if name.casefold() not in taken)
    return found


def _candidates(log: SessionLog, number: int) -> Iterator[str]:
    sent = b"".join(log.sent_by(number)).decode("utf-8", "replace").splitlines()[:_LINES_LOOKED_AT]
    yield from _introduced(sent)
    if sent and _could_be_a_name(sent[0].strip()):
        yield sent[0].strip()
    yield f"client{number}"
    # Somebody may really be called client2; nobody is called that twice over.
    yield from (f"client{number}.{again}" for again in range(2, 1000))


def _introduced(sent: list[str]) -> Iterator[str]:
    """The last first: who introduces herself again was refused, or has changed her name."""
    for introduction in _INTRODUCTIONS:
        for line in reversed(sent):
            # A command begins its line; a field of an object may stand anywhere.
            match = introduction.search(line) if "{" in line else introduction.match(line)
            if match and _is_name(match["name"]):
                yield match["name"]


def _is_name(text: str) -> bool:
    return bool(NAME.fullmatch(text)) and text not in RESERVED


def _could_be_a_name(text: str) -> bool:
    return _is_name(text) and not text.isupper() and text.casefold() not in _NO_NAMES
