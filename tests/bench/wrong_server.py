"""A chat server with one error that the load generator must detect. The command line has the error and the dialect.

It is correct except for the ninth broadcast, or the one after it, to one receiver.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench" / "peers"))

from asyncio_protocols import Chat

VICTIM = b"c00003"
NINTH = 9


class WrongChat(Chat):
    """All connections share the count of broadcasts."""

    error = ""
    count = 0
    held = b""

    def broadcast(self, data: bytes) -> None:
        WrongChat.count += 1
        for name, member in list(self.members.items()):
            if member is self:
                continue
            if name == VICTIM:
                member.transport.write(self.wrong(data))
                if self.error == "close" and self.count == NINTH:
                    member.transport.close()
            else:
                member.transport.write(data)

    def wrong(self, data: bytes) -> bytes:
        number, error = self.count, self.error
        if error == "mute":
            return data if number < NINTH else b""
        if error == "reorder" and number == NINTH + 1:
            return data + WrongChat.held
        if number != NINTH:
            return data
        if error == "reorder":
            WrongChat.held = data
        return {
            "drop": b"",
            "reorder": b"",
            "double": data * 2,
            "garble": data.replace(b"fox", b"f\xc3x"),
            "cut": data[:-9],
            "crossed": data[:20] + data,
            "rename": data.replace(b"c0000", b"c9999"),
            "stamp": data.replace(b"1234567890", b"123456789x"),
            "tail": data.replace(b"}", b"]"),
        }.get(error, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.name is not None:
            del self.members[self.name]

    def handle(self, line: bytes) -> None:
        if self.error == "surplus" and line.startswith(b"PING") and self.count and self.name == VICTIM:
            self.transport.write(b"MSG c00000 one more\n")
        if self.error == "refuse" and line.startswith(b"LOGIN c00004"):
            self.transport.write(b"ERR server-full\n")
        elif self.error == "rooms" and line.startswith(b"JOIN "):
            self.transport.write(b"OK\n")
        else:
            super().handle(line)


class WrongJsonChat(WrongChat):
    """The same in version 1 of `json`, where speakers receive their own messages."""

    def handle(self, line: bytes) -> None:
        request = json.loads(line)
        match request["type"]:
            case "join":
                self.login(request["username"].encode())
                self.say(type="welcome")
            case "ping":
                self.say(type="pong", token=request["token"])
            case "chat":
                assert self.name is not None
                event = {"type": "chat", "username": self.name.decode(), "message": request["message"]}
                self.broadcast(self.say(**event, timestamp=1234567890))

    def say(self, **event: object) -> bytes:
        """Send this object, and return its line."""
        line = json.dumps(event).encode() + b"\n"
        self.transport.write(line)
        return line


async def serve(chat: type[WrongChat]) -> None:
    members: dict[bytes, Chat] = {}
    server = await asyncio.get_running_loop().create_server(lambda: chat(members), "127.0.0.1", 0)
    print(f"ready {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    WrongChat.error, dialect = sys.argv[1:]
    asyncio.run(serve({"line": WrongChat, "json": WrongJsonChat}[dialect]))
