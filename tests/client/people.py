"""Someone who speaks the line dialect by hand, with nothing between them and the socket."""

from __future__ import annotations

import socket

WITHIN_S = 20.0


class Nobody(AssertionError):
    """What should have been heard never was."""


class RawPerson:
    """A socket and what came out of it."""

    def __init__(self, host: str, port: int, name: str) -> None:
        self._socket = socket.create_connection((host, port), timeout=WITHIN_S)
        self.heard = b""
        self.say(f"LOGIN {name}")
        self.hears("OK")

    def say(self, line: str) -> None:
        """Send a line."""
        self._socket.sendall(line.encode() + b"\n")

    def hears(self, line: str) -> None:
        """Wait until this whole line has come."""
        while line.encode() not in self.heard.split(b"\n")[:-1]:
            data = self._socket.recv(65536)
            if not data:
                raise Nobody(f"never heard {line!r}, but {self.heard!r}")
            self.heard += data

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
