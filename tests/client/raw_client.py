"""A client of the line dialect, on a plain socket."""

from __future__ import annotations

import socket

from tests.patience import HANG_S


class RawClient:
    """Logs in and remembers every byte it receives."""

    def __init__(self, host: str, port: int, name: str) -> None:
        self._socket = socket.create_connection((host, port), timeout=HANG_S)
        self.received = b""
        # Who had the name in the test before has perhaps only just hung up.
        while (answer := self._login(name)) == b"ERR username-taken":
            self.received = b""
        assert answer == b"OK", answer

    def _login(self, name: str) -> bytes:
        """Ask for a name, and return the answer. What others say can come with it."""
        self.send(f"LOGIN {name}")
        while b"\n" not in self.received:
            self.receive()
        return self.received.partition(b"\n")[0]

    def receive(self) -> None:
        """Receive something."""
        data = self._socket.recv(65536)
        assert data, f"connection closed; received {self.received!r}"
        self.received += data

    def send(self, line: str) -> None:
        """Send a line."""
        self._socket.sendall(line.encode() + b"\n")

    def expect(self, line: str) -> None:
        """Wait until this whole line has been received."""
        self.expect_end(line, 1)

    def expect_end(self, line: str, count: int) -> None:
        """Wait until this whole line has been received this many times."""
        while self.received.split(b"\n")[:-1].count(line.encode()) < count:
            self.receive()

    def leave(self) -> None:
        """Log out, and wait for the end."""
        self.send("QUIT")
        while self._socket.recv(65536):
            pass
        self.close()

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
