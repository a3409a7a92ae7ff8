r"""Bytes as a transcript writes them: visible text and the escapes \n \r \t \\ \xNN. Pure."""

from __future__ import annotations

import re

from harness.language.problems import LineError

_PIECE = re.compile(r"\\(?:(?P<letter>[nrt\\])|x(?P<hex>[0-9A-Fa-f]{2}))|(?P<char>.)", re.DOTALL)
_LETTERS = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
_EXPECTED = "\\n, \\r, \\t, \\\\, \\xNN or visible text"


def parse_bytes(text: str) -> bytes:
    """Decode a `>>` or `<<` line; LineError where the line contains anything but text and escapes."""
    for piece in _PIECE.finditer(text):
        char = piece["char"]
        if char == "\\":
            raise LineError(piece.start(), "unknown escape", _EXPECTED)
        if char and not char.isprintable():
            raise LineError(piece.start(), f"invisible character U+{ord(char):04X}", _EXPECTED)
    if text.endswith(" "):
        raise LineError(
            len(text.rstrip(" ")), "space at the end of the line", "\\x20 for a space that is meant"
        )
    return unescape(text)


def unescape(text: str) -> bytes:
    """Decode the escapes in the text. A backslash that begins no escape is an ordinary character, as in JSON."""
    return b"".join(map(_decoded, _PIECE.finditer(text)))


def _decoded(piece: re.Match[str]) -> bytes:
    if piece["letter"]:
        return _LETTERS[piece["letter"]]
    return bytes.fromhex(piece["hex"]) if piece["hex"] else piece["char"].encode()


def render_bytes(data: bytes) -> str:
    """The text that `parse_bytes` decodes to these bytes."""
    text = "".join(_encoded(char) for char in data.decode("utf-8", "surrogateescape"))
    stripped = text.rstrip(" ")
    return stripped + "\\x20" * (len(text) - len(stripped))


def _encoded(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
