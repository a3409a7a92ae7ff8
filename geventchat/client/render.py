"""The output as lines of styled text, with or without colour. Pure.

Invariants:
- Everything that is shown passes through `paint` or `safe`.
- Neither lets control characters through.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from zlib import crc32

from geventchat.chat.text import clean
from geventchat.client.input import HELP

# A longer text, such as a list of thousands of users, is not worth reading.
MAX_CHARACTERS = 8192


class Style(Enum):
    """Colours and weights, as the parameters of an SGR sequence."""

    PLAIN = ""
    FAINT = "2"
    BOLD = "1"
    ERROR = "31"
    DIRECT = "35"
    MENTION = "1;33"
    NAME_BLUE = "94"
    NAME_GREEN = "32"
    NAME_CYAN = "36"
    NAME_YELLOW = "33"
    NAME_BRIGHT_GREEN = "92"
    NAME_BRIGHT_CYAN = "96"


_NAME_STYLES = [style for style in Style if style.name.startswith("NAME_")]

# The parts of one line, with a blank between them.
Line = tuple[tuple[Style, str], ...]


def paint(line: Line, *, colour: bool) -> str:
    """The line as it can be written to a terminal, without its end."""
    return " ".join([_paint(style, safe(text), colour) for style, text in line])


def safe(text: str) -> str:
    """The text without control characters, and cut to a readable length."""
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]} … ({len(text) - MAX_CHARACTERS} characters more)"
    return clean(text)


def name_style(name: str) -> Style:
    """The colour of a name, the same in every session and on every machine."""
    return _NAME_STYLES[crc32(name.casefold().encode("utf-8", "replace")) % len(_NAME_STYLES)]


def message(at: datetime, name: str, text: str, *, own: bool = False, mention: bool = False) -> Line:
    """A message to everyone."""
    name_part = (Style.BOLD if own else name_style(name), f"{name}:")
    return _time(at), name_part, (Style.MENTION if mention else Style.PLAIN, text)


def direct_message(at: datetime, sender: str, recipient: str, text: str) -> Line:
    """A message between two people."""
    return _time(at), (Style.DIRECT, f"{sender} → {recipient}: {text}")


def joined(name: str) -> Line:
    """Somebody entered."""
    return ((Style.FAINT, f"🟢 {name} joined the chat"),)


def left(name: str) -> Line:
    """Somebody left."""
    return ((Style.FAINT, f"🔴 {name} left the chat"),)


def roster(names: Sequence[str], limit: int | None) -> Line:
    """The names of those online, up to the limit."""
    shown = names[:limit]
    more = len(names) - len(shown)
    return (Style.BOLD, f"👥 {len(names)} here:"), (
        Style.PLAIN,
        ", ".join(shown) + (f" and {more} more" if more else ""),
    )


def ping(seconds: float) -> Line:
    """How long the server took to answer."""
    ms = seconds * 1000
    duration = f"{seconds:.1f} s" if ms >= 1000 else f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"
    return ((Style.FAINT, f"🏓 The server answered in {duration}"),)


def success(text: str) -> Line:
    """Good news."""
    return ((Style.BOLD, f"✅ {text}"),)


def announcement(text: str) -> Line:
    """What the operator says to everyone."""
    return (Style.MENTION, "📢"), (Style.BOLD, text)


def goodbye(name: str) -> Line:
    """The session ended normally."""
    return ((Style.PLAIN, f"👋 Goodbye, {name}!"),)


def hint(text: str) -> Line:
    """Information."""
    return ((Style.FAINT, f"💡 {text}"),)


def error(text: str) -> Line:
    """An error."""
    return ((Style.ERROR, f"❌ {text}"),)


def offline(text: str) -> Line:
    """A warning about a lost connection."""
    return ((Style.ERROR, f"🔌 {text}"),)


def help_lines() -> list[Line]:
    """The commands and what each does."""
    width = max(len(command) for command, _ in HELP)
    return [((Style.PLAIN, f"{command:{width}}  {what}"),) for command, what in HELP]


def _time(at: datetime) -> tuple[Style, str]:
    return (Style.FAINT, f"[{at:%H:%M:%S}]")


def _paint(style: Style, text: str, colour: bool) -> str:
    return f"\x1b[{style.value}m{text}\x1b[0m" if colour and style.value else text
