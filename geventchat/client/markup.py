"""Light Markdown in the text of a message: bold, code and addresses. Pure.

Every message is one line, and servers drop the white space at its ends. So a block of code is a message for each line, behind a
bar that anybody can read: `│     return 1`. Lines between two messages that begin with three backticks are code, too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

BAR = "│"
FENCE = "```"

# Not the powers in `2**3**4`.
_BOLD = re.compile(r"(?<!\w)\*\*(?=\S)(.+?)(?<=\S)\*\*(?!\w)")
_CODE = re.compile(r"(`+)(.+?)(?<!`)\1(?!`)")
_LINK = re.compile(r"https?://[^\s<>\"`│]+", re.IGNORECASE)
_TRAILING = ".,;:!?'*_"
# What cannot be in an address as it is. Percent-encoded, nothing in it ends an escape sequence.
_NOT_IN_ADDRESS = re.compile(r"[^A-Za-z0-9!#$%&'()*+,/:;=?@\[\]~._-]+")
MAX_LINK_CHARACTERS = 2048


class Piece(NamedTuple):
    """A part of a text: bold, code, or the address of a link."""

    text: str
    bold: bool = False
    code: bool = False
    link: str = ""


def pieces(text: str, *, markdown: bool, links: bool) -> list[Piece]:
    """The parts of a text. What is code has no other markup in it."""
    found: list[Piece] = []
    at = 0
    for code in _CODE.finditer(text) if markdown else ():
        found += _bold(text[at : code.start()], links)
        found.append(Piece(code[2].strip() or code[2], code=True))
        at = code.end()
    rest = text[at:]
    found += _bold(rest, links) if markdown else _links(rest, links, bold=False)
    return found


def _bold(text: str, links: bool) -> list[Piece]:
    found: list[Piece] = []
    at = 0
    for bold in _BOLD.finditer(text):
        found += _links(text[at : bold.start()], links, bold=False)
        found += _links(bold[1], links, bold=True)
        at = bold.end()
    return found + _links(text[at:], links, bold=False)


def _links(text: str, links: bool, *, bold: bool) -> list[Piece]:
    found: list[Piece] = []
    at = 0
    for match in _LINK.finditer(text) if links else ():
        shown = _without_punctuation(match[0])
        address = _NOT_IN_ADDRESS.sub(_percent_encoded, shown)
        if len(address) > MAX_LINK_CHARACTERS:
            continue
        if match.start() > at:
            found.append(Piece(text[at : match.start()], bold))
        at = match.start() + len(shown)
        found.append(Piece(shown, bold, link=address))
    if at < len(text):
        found.append(Piece(text[at:], bold))
    return found


def _percent_encoded(match: re.Match[str]) -> str:
    return "".join([f"%{byte:02X}" for byte in match[0].encode("utf-8", "replace")])


def _without_punctuation(address: str) -> str:
    """The address without what ends the sentence or the parenthesis that it is in."""
    while True:
        shorter = address.rstrip(_TRAILING)
        for opening, closing in ("()", "[]"):
            if shorter.endswith(closing) and shorter.count(closing) > shorter.count(opening):
                shorter = shorter[:-1]
        if shorter == address:
            return address
        address = shorter


def code_line(text: str) -> str | None:
    """The code on a line of a block; None if it is not one."""
    if text == BAR:
        return ""
    return text[len(BAR) + 1 :] if text.startswith(f"{BAR} ") else None


def block(lines: list[str]) -> list[str]:
    """A message for each of these lines, which keeps its indentation."""
    return [f"{BAR} {line}".rstrip() for line in lines]
