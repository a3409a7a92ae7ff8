"""Notes -> lines of text, with or without colour.

Pure. Every word passes through `clean` here, the one gate to the terminal, whoever it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from zlib import crc32

from geventchat.client.cleaning import clean
from geventchat.client.notes import (
    CameIn,
    Commands,
    Greeting,
    Note,
    Offline,
    OwnPrivateWords,
    Parting,
    People,
    PingTook,
    PrivateWords,
    Problem,
    Remark,
    WentAway,
    Words,
)


class Paint(Enum):
    """Colours and weights, as the parameters of an SGR sequence."""

    PLAIN = ""
    FAINT = "2"
    BOLD = "1"
    ERROR = "31"
    PRIVATE = "35"
    MENTION = "1;33"
    NAME_BLUE = "94"
    NAME_GREEN = "32"
    NAME_CYAN = "36"
    NAME_YELLOW = "33"
    NAME_BRIGHT_GREEN = "92"
    NAME_BRIGHT_CYAN = "96"


NAME_PAINTS = tuple(paint for paint in Paint if paint.name.startswith("NAME_"))

Fragments = list[tuple[Paint, str]]


@dataclass(frozen=True, slots=True)
class Look:
    """How notes are to look on what they are written to."""

    colour: bool


def render(note: Note, look: Look) -> str:
    """The note as one or more lines, without the last line end."""
    return "\n".join("".join(_painted(*fragment, look) for fragment in line) for line in _lines(note))


def name_paint(name: str) -> Paint:
    """A colour that stays with a name, over sessions and machines."""
    return NAME_PAINTS[crc32(name.casefold().encode("utf-8", "replace")) % len(NAME_PAINTS)]


def _lines(note: Note) -> list[Fragments]:
    if isinstance(note, Commands):
        width = max(len(command) for command, _ in note.rows)
        return [
            [(Paint.BOLD, f"  {command:{width}}"), (Paint.PLAIN, f"  {what}")] for command, what in note.rows
        ]
    return [_line(note)]


def _line(note: Note) -> Fragments:
    match note:
        case Words(at, name, text, own, mentions_me):
            body = Paint.MENTION if mentions_me else Paint.PLAIN
            return [_stamp(at), (Paint.BOLD if own else name_paint(name), name), (body, f": {text}")]
        case PrivateWords(at, name, text):
            return [_stamp(at), (Paint.PRIVATE, f"{name} → you: {text}")]
        case OwnPrivateWords(at, to, text):
            return [_stamp(at), (Paint.PRIVATE, f"you → {to}: {text}")]
        case CameIn(name):
            return [(Paint.FAINT, f"🟢 {name} joined the chat")]
        case WentAway(name):
            return [(Paint.FAINT, f"🔴 {name} left the chat")]
        case People(names, more):
            others = f" and {more} more" if more else ""
            return [
                (Paint.BOLD, f"👥 {len(names) + more} here"),
                (Paint.PLAIN, f": {', '.join(names)}{others}"),
            ]
        case PingTook(seconds):
            return [(Paint.FAINT, f"🏓 The server answered after {_duration(seconds)}")]
        case Greeting(text):
            return [(Paint.BOLD, f"✅ {text}")]
        case Parting(name):
            return [(Paint.PLAIN, f"👋 Goodbye, {name}!")]
        case Remark(text):
            return [(Paint.FAINT, f"💡 {text}")]
        case Problem(text):
            return [(Paint.ERROR, f"❌ {text}")]
        case Offline(text):
            return [(Paint.ERROR, f"🔌 {text}")]
        case Commands(rows):
            raise ValueError(f"the list of {len(rows)} commands takes more than one line")


def _stamp(at: datetime) -> tuple[Paint, str]:
    return (Paint.FAINT, f"[{at:%H:%M:%S}] ")


def _duration(seconds: float) -> str:
    milliseconds = seconds * 1000
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{seconds:.1f} s"


def _painted(paint: Paint, text: str, look: Look) -> str:
    text = clean(text)
    return f"\x1b[{paint.value}m{text}\x1b[0m" if look.colour and paint.value else text
