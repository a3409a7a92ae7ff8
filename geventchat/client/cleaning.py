"""Text from elsewhere -> text that cannot move the cursor, change a colour or turn a line around.

Pure. A well-behaved server has done this already; a client does not rely on the server's manners.
"""

from __future__ import annotations

import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# Overrides, embeddings and isolates can make a line read as something else. Plain marks are harmless.
TURNERS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# Control, surrogate, line separator, paragraph separator.
FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})

# What is shown of one line. Longer ones are real (a roster of thousands), but nobody reads them whole.
SHOWN_CHARACTERS = 8192


def clean(text: str) -> str:
    """The text with what acts on a terminal replaced by U+FFFD, tabs by spaces, and cut if it is endless."""
    if len(text) > SHOWN_CHARACTERS:
        more = len(text) - SHOWN_CHARACTERS
        text = f"{text[:SHOWN_CHARACTERS]} … ({more} characters more)"
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_clean_character, text))


def _clean_character(character: str) -> str:
    if character == "\t":
        return " "
    if character in TURNERS or unicodedata.category(character) in FORBIDDEN:
        return REPLACEMENT
    return character
