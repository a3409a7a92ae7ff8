"""A small server of the line protocol: asyncio's streams. It follows document 002.

python streaming.py PORT [IDLE_SECONDS]

It makes common mistakes on purpose:

1. A private message is split into words and joined again, so two spaces in it become one.
2. WHO leaves out its sender.
3. QUIT announces that the user has left, and the end of the connection announces it again.
"""

from __future__ import annotations

import asyncio
import sys

users: dict[str, asyncio.StreamWriter] = {}


def send(to: asyncio.StreamWriter, text: str) -> None:
    if not to.is_closing():
        to.write(text.encode() + b"\n")


def send_to_others(name: str, text: str) -> None:
    for other, writer in users.items():
        if other != name:
            send(writer, text)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.name = ""
        self.quits = False

    async def serve(self, idle_s: float) -> None:
        try:
            while not self.quits:
                data = await asyncio.wait_for(self.reader.readline(), idle_s)
                if not data.endswith(b"\n"):
                    break
                self.command(data.decode(errors="replace").rstrip("\r\n"))
                await self.writer.drain()
        except (asyncio.TimeoutError, ConnectionError):
            pass
        if self.name:
            del users[self.name]
            send_to_others(self.name, f"INFO {self.name} disconnected")
        self.writer.close()

    def command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "LOGIN" and not self.name:
            self.login(rest)
        elif word in ("QUIT", "EXIT"):
            send(self.writer, "Goodbye!")
            if self.name:
                send_to_others(self.name, f"INFO {self.name} disconnected")  # mistake 3
            self.quits = True
        elif word == "PING":
            send(self.writer, "PONG")
        elif not self.name:
            send(self.writer, "ERR login first")
        elif word == "MSG":
            send_to_others(self.name, f"MSG {self.name} {rest}")
        elif word == "WHO":
            for name in users:
                if name != self.name:  # mistake 2
                    send(self.writer, f"USER {name}")
        elif word == "DM":
            to, *words = rest.split()  # mistake 1
            if to in users:
                send(users[to], f"DM {self.name} {' '.join(words)}")

    def login(self, name: str) -> None:
        if name in users:
            send(self.writer, "ERR username-taken")
        else:
            self.name = name
            users[name] = self.writer
            send(self.writer, "OK")


async def main(port: int, idle_s: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Client(reader, writer).serve(idle_s)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60.0))
