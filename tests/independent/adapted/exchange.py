"""An exchange that numbers every line that it sends to a client: protocols of asyncio, PORT."""

from __future__ import annotations

import asyncio
import sys

desks: dict[str, Desk] = {}


class Desk(asyncio.Protocol):
    transport: asyncio.Transport
    name = ""
    unread = b""
    sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send("EXCHANGE 1.0")

    def connection_lost(self, error: Exception | None) -> None:
        if desks.pop(self.name, None):
            self.tell_others(f"CLOSED {self.name}")

    def send(self, text: str) -> None:
        self.sent += 1
        self.transport.write(f"{self.sent:04d} {text}\n".encode())

    def tell_others(self, text: str) -> None:
        for desk in desks.values():
            if desk is not self:
                desk.send(text)

    def data_received(self, data: bytes) -> None:
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            if not self.transport.is_closing():
                self.obey(*line.decode("utf-8", "replace").partition(" ")[::2])

    def obey(self, verb: str, rest: str) -> None:
        if verb == "ECHO":
            self.send(f"ECHO {rest}")
        elif verb == "BYE":
            self.send("BYE")
            self.transport.close()
        elif verb == "OPEN":
            self.open(rest)
        elif not self.name:
            self.send("NO open a desk first")
        elif verb == "CRY":
            self.tell_others(f"CRY {self.name} {rest}")
        elif verb == "NOTE":
            name, _, text = rest.partition(" ")
            if name in desks:
                desks[name].send(f"NOTE {self.name} {text}")
            self.send(f"NOTED {name}" if name in desks else f"NO desk {name}")
        elif verb == "DESKS":
            for name in sorted(desks):
                self.send(f"DESK {name}")
        else:
            self.send(f"NO command {verb}")

    def open(self, name: str) -> None:
        if self.name:
            self.send(f"NO more desks for {self.name}")
        elif name in desks:
            self.send(f"NO {name} is open")
        else:
            self.name, desks[name] = name, self
            self.send(f"YES {name}")


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Desk, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
