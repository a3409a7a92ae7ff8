"""TLS clients in memory: one without any socket, and one in a simulation."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.certificates import made_certificate
from tests.fire.clients import State, receive
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


class EncryptedClient(SimulatedClient):
    """A client of a simulation that speaks TLS and is used like one that does not. It shakes hands by itself."""

    __slots__ = ("_memory",)

    def __init__(self, simulation: Simulation, sock: socket.socket) -> None:
        super().__init__(simulation, sock)
        self._memory = MemoryClient(_default_context())
        self._reply()

    @classmethod
    def connect(cls, simulation: Simulation, scheme: str) -> EncryptedClient:
        """One more client, which has shaken hands."""
        client = simulation.connect(scheme, make=cls)
        assert isinstance(client, cls)
        simulation.run_until_idle()
        assert client._memory.secure
        return client

    @property
    def announced(self) -> bool:
        """True once the server has ended its output with close_notify."""
        return self._memory.ended

    def send(self, data: bytes) -> None:
        """Send all of it, encrypted."""
        super().send(self._memory.send(data))

    def send_each(self, pieces: list[bytes]) -> None:
        """Send all of them at once, each in a record."""
        super().send(b"".join(map(self._memory.send, pieces)))

    def read(self) -> None:
        """Read what has arrived, and decrypt it."""
        ciphertext = bytearray()
        state = receive(self._sock, ciphertext)
        self._memory.feed(bytes(ciphertext))
        self.received += self._memory.received
        self._memory.received.clear()
        if state is not State.OPEN:
            self._end(state)
        else:
            self._reply()

    def half_close(self) -> None:
        """Announce that it sends nothing more, but keep reading."""
        if self.state is State.OPEN:
            super().send(self._memory.close_notify())
        super().half_close()

    def _reply(self) -> None:
        reply = self._memory.take()
        assert not reply or self._push(memoryview(reply)) in {len(reply), None}, "the server does not read"


_default_context = cache(client_context)


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
        """The bytes received since the last call."""
        self.pump()
        received = bytes(self.memory.received)
        self.memory.received.clear()
        return received
