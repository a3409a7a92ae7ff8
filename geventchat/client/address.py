"""Where to connect to: `HOST[:PORT]` as people write it. Pure: resolves no names."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PORT = 65535


class InvalidAddress(ValueError):
    """The message says what is wrong with the address."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def split_address(text: str) -> tuple[str, int | None]:
    """Host and port of `localhost`, `localhost:4000`, `::1` or `[::1]:4000`; the port is None where it is missing."""
    text = text.strip()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not host or not bracket or (rest and not rest.startswith(":")):
            raise InvalidAddress(f"Invalid address {text!r}: use [::1] or [::1]:4000 for IPv6.")
        return host, parse_port(rest[1:]) if rest else None
    if text.count(":") > 1:
        # An IPv6 address without brackets cannot carry a port.
        return text, None
    host, colon, port = text.partition(":")
    if not host or any(character.isspace() for character in host):
        raise InvalidAddress(f"Invalid address {text!r}: use HOST or HOST:PORT.")
    return host, parse_port(port) if colon else None


def parse_port(text: str) -> int:
    """A port that can be connected to."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PORT)) and 1 <= int(text) <= MAX_PORT:
        return int(text)
    raise InvalidAddress(f"Invalid port {text!r}: use a number from 1 to {MAX_PORT}.")
