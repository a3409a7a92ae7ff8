"""Bytes as a transcript writes them: visible text, \\n \\r \\t \\\\ and \\xNN. Pure."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\\(?:(?P<letter>[nrt\\])|x(?P<hex>[0-9A-Fa-f]{2}))")
_LETTERS = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}
_NAMED = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x5C: "\\\\"}
EXPECTED = "\\n, \\r, \\t, \\\\, \\xNN or visible text"


class BytesError(ValueError):
    """The text is no way to write bytes; `column` (from 0) is where."""

    def __init__(self, column: int, message: str, expected: str) -> None:
        super().__init__(message)
        self.column = column
        self.expected = expected


def parse_bytes(text: str) -> bytes:
    """The bytes that the text writes."""
    out = bytearray()
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            found = _ESCAPE.match(text, at)
            if found is None:
                raise BytesError(at, "an unknown escape", EXPECTED)
            out += _LETTERS[found["letter"]] if found["letter"] else bytes.fromhex(found["hex"])
            at = found.end()
            continue
        if not char.isprintable():
            raise BytesError(at, f"the invisible character U+{ord(char):04X}", EXPECTED)
        out += char.encode()
        at += 1
    if text.endswith(" "):
        raise BytesError(
            len(text.rstrip(" ")), "a space at the end of the line", "\\x20 for a space that is meant"
        )
    return bytes(out)


def render_bytes(data: bytes) -> str:
    """The text that parse_bytes reads back as these bytes."""
    text = "".join(_render_char(char) for char in data.decode("utf-8", "surrogateescape"))
    stripped = text.rstrip(" ")
    return stripped + "\\x20" * (len(text) - len(stripped))


def _render_char(char: str) -> str:
    code = ord(char)
    if code in _NAMED:
        return _NAMED[code]
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
