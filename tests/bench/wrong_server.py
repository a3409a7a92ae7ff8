"""A chat server that is wrong in one way, chosen on its command line: what the load must find out.

Right but for what it does to the ninth broadcast, or to the first broadcast after it, for one listener.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench" / "peers"))

from asyncio_protocols import Chat

VICTIM = b"c00003"
NINTH = 9


class WrongChat(Chat):
    """Every instance has its own count of what its victim heard."""

    way = ""
    broadcasts = 0
    held = b""

    def tell_others(self, data: bytes) -> None:
        WrongChat.broadcasts += 1
        for name, member in list(self.members.items()):
            if member is self:
                continue
            if name == VICTIM:
                member.transport.write(self.wrong(data))
                if self.way == "close" and self.broadcasts == NINTH:
                    member.transport.close()
            else:
                member.transport.write(data)

    def wrong(self, data: bytes) -> bytes:
        number, way = self.broadcasts, self.way
        if way == "mute":
            return data if number < NINTH else b""
        if way == "reorder" and number == NINTH + 1:
            return data + WrongChat.held
        if number != NINTH:
            return data
        if way == "reorder":
            WrongChat.held = data
        return {
            "drop": b"",
            "reorder": b"",
            "double": data * 2,
            "garble": data.replace(b"fox", b"f\xc3x"),
            "cut": data[:-9],
            "crossed": data[:20] + data,
            "rename": data.replace(b"c0000", b"c9999"),
        }.get(way, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.name is not None:
            del self.members[self.name]

    def answer(self, line: bytes) -> None:
        if self.way == "surplus" and line.startswith(b"PING") and self.broadcasts and self.name == VICTIM:
            self.transport.write(b"MSG c00000 one more\n")
        if self.way == "refuse" and line.startswith(b"LOGIN c00004"):
            self.transport.write(b"ERR server-full\n")
        else:
            super().answer(line)


async def serve() -> None:
    members: dict[bytes, Chat] = {}
    server = await asyncio.get_running_loop().create_server(lambda: WrongChat(members), "127.0.0.1", 0)
    print(f"ready {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    WrongChat.way = sys.argv[1]
    asyncio.run(serve())
