"""Entries as styled text. Pure.

Invariants:
- Everything that is shown passes through `safe`, and every address through `markup`: nothing that somebody writes can act on
  the terminal.
- A style is the parameters of an SGR sequence, made here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple
from zlib import crc32

from geventchat.chat.text import clean
from geventchat.client import markup
from geventchat.client.cells import Row, Span, width
from geventchat.client.input import is_action
from geventchat.client.options import Options
from geventchat.client.styles import styles_of
from geventchat.client.windows import Entry, Kind, Outgoing

# A longer text, such as a list of thousands of users, is not worth reading.
MAX_CHARACTERS = 8192
# A window with fewer columns has no room for seconds, or for the time at all.
COLUMNS_FOR_SECONDS = 50
COLUMNS_FOR_TIMES = 30
# Lines of code that follow each other so soon are one block.
BLOCK_S = 120

_SYMBOLS = {
    "emoji": {
        Kind.JOINED: "🟢",
        Kind.LEFT: "🔴",
        Kind.TOPIC: "📌",
        Kind.PEOPLE: "👥",
        Kind.PING: "🏓",
        Kind.SUCCESS: "✅",
        Kind.NOTICE: "💡",
        Kind.ERROR: "❌",
        Kind.OFFLINE: "🔌",
        Kind.GOODBYE: "👋",
        Kind.ANNOUNCEMENT: "📢",
    },
    "plain": {
        Kind.JOINED: "→",
        Kind.LEFT: "←",
        Kind.TOPIC: "#",
        Kind.PEOPLE: "*",
        Kind.PING: "*",
        Kind.SUCCESS: "*",
        Kind.NOTICE: "*",
        Kind.ERROR: "!",
        Kind.OFFLINE: "!",
        Kind.ANNOUNCEMENT: "!",
    },
    "words": {
        Kind.ERROR: "Error:",
        Kind.OFFLINE: "Offline:",
        Kind.ANNOUNCEMENT: "Announcement:",
    },
}
_ROLES = {
    Kind.JOINED: "joined",
    Kind.LEFT: "joined",
    Kind.TOPIC: "topic",
    Kind.PEOPLE: "people",
    Kind.PING: "notice",
    Kind.SUCCESS: "success",
    Kind.NOTICE: "notice",
    Kind.ERROR: "error",
    Kind.OFFLINE: "offline",
    Kind.GOODBYE: "plain",
    Kind.ANNOUNCEMENT: "announcement",
    Kind.LISTED: "plain",
}
# Before the second column of a list.
_GAP = re.compile(r"\S  +(?=\S)")
_CAME = {"room": "joined the room"}
_GONE = {"left": "left the room", "kicked": "was kicked"}
WAITING, HELD = "…", "?"


class Look(NamedTuple):
    """How entries look: what the settings say, the styles, and what the width of the window has room for."""

    styles: Mapping[str, str]
    timestamps: str
    symbols: str
    markdown: bool
    links: bool

    def style(self, role: str) -> str:
        """The style of a role."""
        return self.styles.get(role, "")

    def name_style(self, name: str) -> str:
        """The colour of a name, the same in every session and on every machine."""
        styles = self.styles["names"].split(",")
        return styles[crc32(name.casefold().encode("utf-8", "replace")) % len(styles)]

    def time(self, at: datetime) -> str:
        """The time before a message, with a blank behind it; empty if there is none."""
        return f"[{at.strftime(self.timestamps)}] " if self.timestamps else ""


def look_of(
    options: Options,
    colours: Mapping[str, str],
    *,
    colour: bool,
    links: bool = False,
    columns: int | None = None,
) -> Look:
    """The look that the settings ask for; without colour, bold and the like remain. Raises InvalidOption."""
    stamps = options.timestamps
    if columns is not None and columns < COLUMNS_FOR_TIMES:
        stamps = ""
    elif columns is not None and columns < COLUMNS_FOR_SECONDS:
        stamps = stamps.replace(":%S", "")
    symbols = "words" if options.screen_reader else options.symbols
    styles = styles_of(options.theme, colours, colour=colour)
    return Look(styles, stamps, symbols, options.markdown, links and options.links)


def bare(look: Look) -> Look:
    """The same look without any escape sequence, for what is not a terminal, or one that understands none.

    A program gets a text as it was written; what is read out has no use for marks around bold words.
    """
    return look._replace(
        styles=dict.fromkeys(look.styles, ""),
        links=False,
        markdown=look.markdown and look.symbols == "words",
    )


def safe(text: str) -> str:
    """The text without control characters, and cut to a readable length."""
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]} … ({len(text) - MAX_CHARACTERS} characters more)"
    return clean(text)


class Drawn(NamedTuple):
    """An entry as one line: its parts, and how far rows are indented from the second one on. Code breaks anywhere."""

    spans: tuple[Span, ...]
    indent: int
    words: bool = True


def drawn(entry: Entry, look: Look, *, goes_on: bool = False) -> Drawn:
    """An entry as one line; `goes_on` if it is the next line of a block of code."""
    match entry.kind:
        case Kind.MESSAGE if (done := is_action(entry.name, entry.text)) is not None and not entry.code:
            return _action(entry, done, look)
        case Kind.MESSAGE:
            return _message(entry, look, goes_on=goes_on)
        case Kind.DIRECT:
            return _direct(entry, look)
        case _:
            return _notice(entry, look)


def waiting(outgoing: Outgoing, name: str, look: Look) -> Drawn:
    """A message that the server has not confirmed."""
    mark = HELD if outgoing.held else WAITING
    head = f"{mark} {safe(name)}{f' → {safe(outgoing.to)}' if outgoing.to else ''}: "
    return Drawn((Span(look.style("pending"), head + safe(outgoing.text)),), width(head))


def paint(spans: Iterable[Span]) -> str:
    """The spans as they can be written to a terminal."""
    return "".join([_painted(span) for span in spans])


def plain_line(entry: Entry, look: Look, room: str = "") -> str:
    """An entry as it can be written to a terminal that shows lines; `room` is named if it is not the current one."""
    spans = drawn(entry, look).spans
    if not room:
        return paint(spans)
    label = f"In {room}: " if look.symbols == "words" else f"#{room} "
    stamp = (
        spans[0]
        if spans and spans[0].style == look.style("time") and spans[0].text == look.time(entry.at)
        else None
    )
    rest = spans[1:] if stamp is not None else spans
    return paint([*[stamp] * (stamp is not None), Span("", safe(label) + " " * label.endswith(" ")), *rest])  # type: ignore[list-item]


def _painted(span: Span) -> str:
    text = f"\x1b[{span.style}m{span.text}\x1b[0m" if span.style else span.text
    return f"\x1b]8;;{span.link}\x1b\\{text}\x1b]8;;\x1b\\" if span.link else text


def _message(entry: Entry, look: Look, *, goes_on: bool) -> Drawn:
    name = safe(entry.name)
    stamp, head = look.time(entry.at), f"{name}: "
    name_style = look.style("own") if entry.own else look.name_style(name)
    words = look.symbols == "words"
    spans = [
        Span(look.style("time"), stamp),
        *[Span("", "Mention. ")] * (words and entry.mention),
        Span(name_style, head),
    ]
    indent = width(stamp + head)
    if entry.deleted:
        return Drawn((*spans, Span(look.style("notice"), "(deleted)")), indent)
    text = safe(entry.text)
    if entry.code and look.markdown:
        if goes_on and not words:
            spans = [Span("", " " * indent)]
        return Drawn((*spans, *_code(text, look)), indent + 2, words=False)
    return Drawn((*spans, *_text(text, look, look.style("mention") if entry.mention else "")), indent)


def goes_on(entry: Entry, before: Entry | None) -> bool:
    """True if this is the next line of a block of code; `before` is the entry above it."""
    return (
        before is not None
        and entry.code
        and before.kind is Kind.MESSAGE
        and before.code
        and before.name == entry.name
        and abs((entry.at - before.at).total_seconds()) <= BLOCK_S
    )


def _action(entry: Entry, done: str, look: Look) -> Drawn:
    name = safe(entry.name)
    stamp = look.time(entry.at)
    style = look.style("mention") if entry.mention else ""
    name_style = look.style("own") if entry.own else look.name_style(name)
    head = (Span(look.style("time"), stamp), Span("", "* "), Span(name_style, name), Span("", " "))
    return Drawn((*head, *_text(safe(done), look, style)), width(stamp) + 2)


def _direct(entry: Entry, look: Look) -> Drawn:
    stamp, style = look.time(entry.at), look.style("direct")
    sender, to = ("you" if entry.own else safe(entry.name)), ("you" if not entry.own else safe(entry.to))
    if entry.to == "you":
        # A message to oneself.
        sender, to = safe(entry.name), "you"
    head = f"Direct message from {sender} to {to}: " if look.symbols == "words" else f"{sender} → {to}: "
    text = Span(style, "(deleted)") if entry.deleted else None
    body = (text,) if text else tuple(_text(safe(entry.text), look, style))
    return Drawn((Span(look.style("time"), stamp), Span(style, head), *body), width(stamp + head))


def _notice(entry: Entry, look: Look) -> Drawn:
    style = look.style(_ROLES[entry.kind])
    symbol = _SYMBOLS[look.symbols].get(entry.kind, "")
    before = f"{symbol} " if symbol else ""
    indent = max(width(before), 2)
    match entry.kind:
        case Kind.JOINED:
            text = f"{safe(entry.name)} {_CAME.get(entry.text, 'joined the chat')}"
        case Kind.LEFT:
            text = f"{safe(entry.name)} {_GONE.get(entry.text, 'left the chat')}"
        case Kind.LISTED:
            # Its columns are aligned by blanks. A long row continues under its second column.
            text = safe(f"|{entry.text}")[1:]
            if gap := _GAP.search(text):
                indent = width(before + text[: gap.end()])
        case _:
            text = safe(entry.text)
    return Drawn(tuple(_text(before + text, look, style, markdown=False)), indent)


def _text(text: str, look: Look, style: str, *, markdown: bool = True) -> Iterable[Span]:
    """A text with its markup."""
    quoted = text.startswith("> ")
    style = look.style("quote") if quoted and not style else style
    for piece in markup.pieces(text, markdown=markdown and look.markdown, links=look.links):
        if piece.code:
            code = look.style("code")
            yield Span(code or style, piece.text if code else f"`{piece.text}`")
        else:
            parts = [style, *[look.style("bold")] * piece.bold, *[look.style("link")] * bool(piece.link)]
            yield Span(";".join([part for part in parts if part]), piece.text, piece.link)


def _code(text: str, look: Look) -> Iterable[Span]:
    line = markup.code_line(text)
    yield Span(look.style("bar"), f"{markup.BAR} ")
    if line is None and text.startswith(markup.FENCE):
        yield Span(look.style("bar"), text)
    else:
        yield Span(look.style("code"), text if line is None else line)


def row_text(row: Row) -> str:
    """What a row shows, without its styles."""
    return "".join([span.text for span in row])
