"""A client of the line dialect, on a plain socket."""

from __future__ import annotations

import socket

from tests.patience import HANG_S


class RawClient:
    """Logs in and remembers every byte it receives."""

    def __init__(self, host: str, port: int, name: str) -> None:
        self._socket = socket.create_connection((host, port), timeout=HANG_S)
        self.received = b""
        self.send(f"LOGIN {name}")
        self.expect("OK")

    def send(self, line: str) -> None:
        """Send a line."""
        self._socket.sendall(line.encode() + b"\n")

    def expect(self, line: str) -> None:
        """Wait until this whole line has been received."""
        while line.encode() not in self.received.split(b"\n")[:-1]:
            data = self._socket.recv(65536)
            assert data, f"connection closed before {line!r}; received {self.received!r}"
            self.received += data

    def people(self) -> list[str]:
        """The names of everyone in the room."""
        self.received = b""
        self.send("WHO")
        self.send("PING")
        self.expect("PONG")
        return [line[5:] for line in self.received.decode().splitlines() if line.startswith("USER ")]

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
