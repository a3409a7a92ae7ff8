"""The layers between a socket and the lines of a client: none, TLS, WebSocket, or WebSocket inside TLS. Sans-I/O.

- A transport turns the client's bytes into bytes for the socket, and bytes from the socket into the client's input.
- `receive` can leave bytes in `take_reply` that must be sent: a handshake, a pong, the answer to a Close frame.
- Nothing is sent before `ready`. A failed handshake raises HandshakeFailed with the bytes that came instead.
- If the server violates the protocol after the handshake, `violation` says how. What came before is received as usual.

TLS and WebSocket are separate modules, imported when a script uses them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.language.escapes import render_bytes

if TYPE_CHECKING:
    import ssl

_SHOWN_BYTES = 80


class HandshakeFailed(Exception):
    """The handshake failed. With a `status`, the server refused it; otherwise something else came, or nothing."""

    def __init__(self, message: str, status: str = "") -> None:
        super().__init__(message)
        self.status = status


class Plain:
    """Bytes pass unchanged."""

    ready = True
    messages = False
    """Whether lines stay in messages, so that nothing can become part of an unfinished line."""
    ended = False
    """Whether the other side has announced that it sends nothing more. Any end after that is an orderly end."""
    over = False
    """True if this also ended the connection, so that its socket need not be watched any longer."""
    unfinished = b""
    """The bytes of an incomplete message that have not been released."""
    end_detail = ""
    """The other side's reason for an abnormal end, if its protocol has one."""
    violation = ""
    """How the other side has violated the protocol, if it has: nothing more can be received."""

    def begin(self) -> bytes:
        """The first bytes to send."""
        return b""

    def send(self, data: bytes, eol: bytes) -> bytes:
        """Turn the client's bytes into bytes for the socket."""
        return data

    def receive(self, data: bytes, eol: bytes) -> bytes:
        """Turn bytes from the socket into the client's input."""
        return data

    def release(self) -> bytes:
        """Let go of the bytes of an incomplete message, which are received as they are. What completes it is the rest."""
        return b""

    def take_reply(self) -> bytes:
        """Bytes that must be sent because of what was received."""
        return b""

    def end(self) -> bytes:
        """Say that nothing more will be sent."""
        return b""

    def closed(self) -> None:
        """The server has closed the connection; HandshakeFailed if the handshake was not over."""


def first_line(data: bytes | bytearray) -> str:
    """The first line of what came, for a report."""
    line = bytes(data[:_SHOWN_BYTES]).split(b"\n")[0].rstrip(b"\r")
    return f"`{render_bytes(line)}`"


@dataclass(frozen=True, slots=True)
class TlsTrust:
    """Which certificates a client accepts: those of the system, those that a file signs, or any."""

    authorities: str | None = None
    """A file of certificates in PEM."""
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """OSError (ssl.SSLError is one) where the file holds no certificates."""
        import ssl

        made = ssl.create_default_context(cafile=self.authorities)
        if self.insecure:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        return made
