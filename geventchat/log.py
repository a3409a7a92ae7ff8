"""What the server tells its operator: one event, a stable name, some fields. Must not know where it is written."""

from __future__ import annotations

import json
import logging
import re
from enum import Enum
from typing import Protocol

_WORD = re.compile(r"[^\s\"=]+")


class Happening(Enum):
    """The names of events in the log; `docs/operations.md` says what each means. They do not change."""

    LISTENING = "listening"
    CLIENT_LIMIT_LOWERED = "client-limit-lowered"
    CONNECTED = "connected"
    REFUSED = "refused"
    LOGIN = "login"
    DISCONNECTED = "disconnected"
    FAULT = "fault"
    ACCEPT_PAUSED = "accept-paused"
    ACCEPT_RESUMED = "accept-resumed"
    MESSAGE = "message"
    STOPPING = "stopping"
    STOPPED = "stopped"
    LOG_LOST = "log-lost"


SEVERITY = {
    Happening.REFUSED: logging.WARNING,
    Happening.CLIENT_LIMIT_LOWERED: logging.WARNING,
    Happening.ACCEPT_PAUSED: logging.WARNING,
    Happening.LOG_LOST: logging.WARNING,
    Happening.FAULT: logging.ERROR,
}


class Log(Protocol):
    """Takes an event and returns at once, whatever becomes of it."""

    def __call__(self, happening: Happening, **fields: object) -> None:
        """This has happened."""


# A program that embeds the server and has set up no logging is not to find its terminal written on.
logging.getLogger("geventchat").addHandler(logging.NullHandler())


def severity(happening: Happening) -> int:
    """How grave an event is, on the scale of the standard library."""
    return SEVERITY.get(happening, logging.INFO)


def to_logging(happening: Happening, **fields: object) -> None:
    """Into the standard library's logger `geventchat`: what a program that embeds the server expects."""
    logger = logging.getLogger("geventchat")
    level = severity(happening)
    if logger.isEnabledFor(level):
        logger.log(level, "%s %s", happening.value, fields_text(fields))


def fields_text(fields: dict[str, object]) -> str:
    """The fields as key=value on one line, in quotes where a value would not read as one word."""
    return " ".join(f"{key}={_value_text(value)}" for key, value in fields.items())


def _value_text(value: object) -> str:
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)
