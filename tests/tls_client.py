"""TLS clients in memory: one without any socket, and one in a simulation."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

from tests.certificates import made_certificate
from tests.fire.clients import State
from tests.fire.simulation import SimulatedClient, Simulation


def client_context(
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, authority: Path | None = None
) -> ssl.SSLContext:
    """A context for clients that trust this certificate, or that of this process."""
    context = ssl.create_default_context(cafile=str(authority or made_certificate().cert))
    context.maximum_version = version
    return context


class MemoryClient:
    """The client's end of TLS: ciphertext goes in and comes out, and so does plain text."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self.secure = False
        self.received = bytearray()
        # True once the server has ended its output with close_notify.
        self.ended = False
        self._go_on()

    def feed(self, ciphertext: bytes) -> None:
        """Decrypt what has come."""
        self._in.write(ciphertext)
        self._go_on()

    def send(self, data: bytes) -> bytes:
        """Encrypt this."""
        self.tls.write(data)
        return self.take()

    def take(self) -> bytes:
        """The ciphertext that has to be sent."""
        return self._out.read()

    def close_notify(self) -> bytes:
        """End the output."""
        with suppress(ssl.SSLError):
            self.tls.unwrap()
        return self.take()

    def _go_on(self) -> None:
        try:
            if not self.secure:
                self.tls.do_handshake()
                self.secure = True
            while chunk := self.tls.read(65_536):
                self.received += chunk
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True


class TlsClient:
    """A client of a simulated server that speaks TLS to it."""

    def __init__(
        self,
        simulation: Simulation,
        scheme: str = "line+tls",
        buffer_bytes: int = 0,
        authority: Path | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.simulation = simulation
        self.wire: SimulatedClient = simulation.connect(scheme, host, buffer_bytes=buffer_bytes)
        self.memory = MemoryClient(client_context(authority=authority))

    @property
    def open(self) -> bool:
        return self.wire.state is State.OPEN

    def shake_hands(self) -> TlsClient:
        """Shake hands; returns the client."""
        self.pump()
        self.pump()
        assert self.memory.secure, bytes(self.wire.received)
        return self

    def pump(self) -> None:
        """Send what has to be sent, and decrypt what comes."""
        if out := self.memory.take():
            self.wire.send(out)
        self.simulation.run_until_idle()
        came = bytes(self.wire.received)
        self.wire.received.clear()
        self.memory.feed(came)
        if out := self.memory.take():
            self.wire.send(out)
            self.simulation.run_until_idle()

    def say(self, *lines: str) -> None:
        """Send lines, each in a record."""
        for line in lines:
            self.wire.send(self.memory.send(line.encode() + b"\n"))
        self.pump()

    def taken(self) -> bytes:
        """What it has received since it was last asked."""
        self.pump()
        received = bytes(self.memory.received)
        self.memory.received.clear()
        return received
