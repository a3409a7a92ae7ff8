"""`HOST[:PORT]` as people write it -> where to connect.

Pure: nothing is looked up here.
"""

from __future__ import annotations

from dataclasses import dataclass

PORTS = range(1, 65536)


class BadAddress(ValueError):
    """What is wrong with an address, as a sentence."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def split(text: str) -> tuple[str, int | None]:
    """Host and port, the latter if it was given: `[::1]:4000`, `::1`, `localhost:4000`, `localhost`."""
    text = text.strip()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise BadAddress(f"{text!r} is no address: an IPv6 one is written [::1] or [::1]:4000.")
        return _host(host, text), port_of(rest[1:]) if rest else None
    if text.count(":") > 1:
        # An IPv6 address without brackets cannot carry a port.
        return text, None
    host, colon, port = text.partition(":")
    return _host(host, text), port_of(port) if colon else None


def port_of(text: str) -> int:
    """A port that can be connected to."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) in PORTS):
        raise BadAddress(f"{text!r} is no port: a port is a number from {PORTS[0]} to {PORTS[-1]}.")
    return int(text)


def _host(host: str, text: str) -> str:
    if not host or any(character.isspace() for character in host):
        raise BadAddress(f"{text!r} is no address: write HOST or HOST:PORT.")
    return host
