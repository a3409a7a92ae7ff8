"""Where to connect to, as people write it: `HOST`, `HOST:PORT` or `chat://HOST:PORT`. Pure: resolves no names."""

from __future__ import annotations

from typing import NamedTuple

MAX_PORT = 65535
# A scheme says which dialect is spoken; `chat` leaves that to the client.
SCHEMES = {"chat": None, "line": "line", "json": "json", "slash": "slash"}
# Behind a scheme, as in the addresses of the server: over TLS. `chats` is short for `chat+tls`.
OVER_TLS = "+tls"
SHORT_FOR_TLS = "chats"


class InvalidAddress(ValueError):
    """The message says what is wrong with the address."""


class Address(NamedTuple):
    """A host and a port, and whether the connection is encrypted."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Target(NamedTuple):
    """A server, and what else its address says: `json+tls://alice@chat.example:12345/dev`."""

    host: str
    port: int | None = None
    dialect: str | None = None
    name: str | None = None
    room: str | None = None
    tls: bool = False


def parse_target(text: str) -> Target:
    """What an address names. Raises InvalidAddress."""
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Target(*split_address(text))
    scheme = scheme.lower()
    tls = scheme == SHORT_FOR_TLS or scheme.endswith(OVER_TLS)
    plain = "chat" if scheme == SHORT_FOR_TLS else scheme.removesuffix(OVER_TLS)
    if plain not in SCHEMES:
        raise InvalidAddress(
            f"Invalid address {text!r}: use chat://HOST:PORT, chats://HOST:PORT for TLS, or HOST:PORT alone."
        )
    place, _, room = rest.partition("/")
    name, at, host = place.rpartition("@")
    if (at and not name) or "/" in room:
        raise InvalidAddress(f"Invalid address {text!r}: use {scheme}://NAME@HOST:PORT/ROOM.")
    return Target(*split_address(host), SCHEMES[plain], name or None, room or None, tls)


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
