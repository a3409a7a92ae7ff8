"""A chat server over TLS, WebSocket or both: PORT [tls=CERTIFICATE] [websocket] [OPTION…]. Everyone hears every message.

`PING x` is answered with `PONG x`; `QUIT` ends the connection. For WebSockets, options are ways to misbehave:

- `banner`, `leaves`: speaks first; hangs up.
- `status=403`: refuses the handshake. `accept=x`, `garbage`, `mute`: answers it wrongly, with something else, or not at all.
  `answer=x`: answers it with this line. `http=1.0`: answers it in this version of HTTP. `header=a: b`: adds this line.
  `delay=1`: answers it after this many seconds.
- Lines that are understood: `FRAGMENT x`, `BINARY x`, `CLOSE 1001 reason`, `SAY-WHY reason` (with escapes, and 1008), `VANISH`,
  `PINGS`, `RAW \\x81…` (frames as given).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
import sys
from collections.abc import Awaitable, Callable

from harness.language.escapes import parse_bytes

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Talker:
    """One client over plain TCP or TLS: lines in, lines out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def line(self) -> bytes | None:
        line = await self.reader.readline()
        return line.rstrip(b"\n") if line.endswith(b"\n") else None

    def say(self, text: bytes) -> None:
        self.writer.write(text + b"\n")

    def leave(self, code: int = 1000, reason: bytes = b"") -> None:
        self.writer.close()


class WebSocketTalker(Talker):
    """One client over a WebSocket: every message is a line."""

    def frame(self, opcode: int, payload: bytes, final: bool = True) -> None:
        size = len(payload)
        head = bytes([opcode | (0x80 if final else 0)])
        if size < 126:
            head += bytes([size])
        elif size < 65536:
            head += b"\x7e" + size.to_bytes(2, "big")
        else:
            head += b"\x7f" + size.to_bytes(8, "big")
        self.writer.write(head + payload)

    async def read_frame(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        assert first & 0x80, "clients do not fragment"
        assert second & 0x80, "clients mask"
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        mask = await self.reader.readexactly(4)
        payload = await self.reader.readexactly(size)
        return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))

    async def line(self) -> bytes | None:
        while True:
            try:
                opcode, payload = await self.read_frame()
            except asyncio.IncompleteReadError:
                return None
            if opcode == 8:
                self.frame(8, payload)
                self.writer.close()
                return None
            if opcode == 10:
                self.say(b"pong " + payload)
            elif opcode == 2:
                return b"binary " + payload.hex().encode()
            elif not self.misbehaves(payload):
                return payload

    def misbehaves(self, payload: bytes) -> bool:
        verb, _, rest = payload.partition(b" ")
        match verb:
            case b"FRAGMENT":
                self.frame(1, rest[:1], final=False)
                self.frame(9, b"between")
                self.frame(0, rest[1:2], final=False)
                self.frame(0, rest[2:])
            case b"BINARY":
                self.frame(2, parse_bytes(rest.decode()))
            case b"PINGS":
                for number in range(3):
                    self.frame(9, b"%d" % number)
            case b"CLOSE":
                code, _, reason = rest.partition(b" ")
                self.leave(int(code or 0), reason)
            case b"SAY-WHY":
                self.leave(1008, parse_bytes(rest.decode()))
            case b"VANISH":
                self.writer.close()
            case b"RAW":
                self.writer.write(parse_bytes(rest.decode()))
            case _:
                return False
        return True

    def say(self, text: bytes) -> None:
        self.frame(1, text)

    def leave(self, code: int = 1000, reason: bytes = b"") -> None:
        self.frame(8, code.to_bytes(2, "big") + reason if code else b"")
        self.writer.close()


class Server:
    def __init__(self, options: dict[str, str]) -> None:
        self.options = options
        self.people: list[Talker] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talker = Talker(reader, writer)
        if "banner" in self.options:
            writer.write(b"220 welcome\n")
            await reader.read()
        if "leaves" in self.options:
            await reader.read(1000)
            writer.close()
            return
        if "websocket" in self.options:
            if not await self.upgraded(reader, writer):
                return
            talker = WebSocketTalker(reader, writer)
        self.people.append(talker)
        with contextlib.suppress(OSError):  # the client has reset the connection
            await self.converse(talker)
        self.people.remove(talker)
        writer.close()

    async def converse(self, talker: Talker) -> None:
        while (line := await talker.line()) is not None:
            if line == b"QUIT":
                talker.leave()
                break
            if line.startswith(b"PING "):
                talker.say(b"PONG " + line[5:])
            else:
                for other in self.people:
                    other.say(line)

    async def upgraded(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        version = f"HTTP/{self.options.get('http', '1.1')}"
        await asyncio.sleep(float(self.options.get("delay", 0)))
        if "mute" in self.options:
            await reader.read()
        if "hang-up" in self.options:
            writer.close()
            return False
        if "garbage" in self.options:
            writer.write(b"ERR unknown command GET\n")
            return False
        if "answer" in self.options:
            writer.write(f"{self.options['answer']}\r\n\r\n".encode())
            writer.close()
            return False
        path = head[0].split(" ")[1]
        if "status" in self.options or path == "/missing":
            status = self.options.get("status", "404 Not Found")
            writer.write(f"{version} {status}\r\nContent-Length: 0\r\n\r\n".encode())
            writer.close()
            return False
        key = next(line.split(": ")[1] for line in head if line.lower().startswith("sec-websocket-key"))
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        extra = f"{self.options['header']}\r\n" if "header" in self.options else ""
        writer.write(
            f"{version} 101 Switching Protocols\r\nUpgrade: {self.options.get('upgrade', 'websocket')}\r\n"
            "Connection: keep-alive, Upgrade\r\n"
            f"Sec-WebSocket-Accept: {self.options.get('accept', accept)}\r\n{extra}\r\n".encode()
        )
        return True


async def main(port: int, words: list[str]) -> None:
    options = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    context = None
    if "tls" in options:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options["tls"])
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] = Server(options).accept
    async with await asyncio.start_server(serve, "127.0.0.1", port, ssl=context) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
