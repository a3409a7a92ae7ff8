"""A chat server on asyncio and the package `websockets`: what most WebSocket chats in Python are.

A peer for the benchmark that speaks version 1 of `json`. It knows neither geventchat nor the benchmark.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed


class Chat:
    """The members and what they say."""

    def __init__(self) -> None:
        self.members: dict[str, ServerConnection] = {}

    async def client(self, connection: ServerConnection) -> None:
        name = None
        try:
            async for text in connection:
                request = json.loads(text)
                if request["type"] == "join":
                    if name is not None or request["username"] in self.members:
                        await connection.send(
                            json.dumps({"type": "error", "message": "Username already taken"})
                        )
                        continue
                    name = request["username"]
                    await connection.send(json.dumps({"type": "success", "message": f"Welcome, {name}!"}))
                    self.tell_all(type="user_joined", username=name)
                    self.members[name] = connection
                elif request["type"] == "ping":
                    await connection.send(json.dumps({"type": "pong", "token": request["token"]}))
                elif request["type"] == "chat":
                    self.tell_all(
                        type="chat", username=name, message=request["message"], timestamp=int(time.time())
                    )
        except ConnectionClosed:
            pass
        finally:
            if name is not None:
                del self.members[name]
                self.tell_all(type="user_left", username=name)

    def tell_all(self, **event: Any) -> None:
        broadcast(self.members.values(), json.dumps(event))


async def main(port: int) -> None:
    chat = Chat()
    async with serve(
        chat.client, "127.0.0.1", port, compression=None, ping_interval=None, backlog=4096
    ) as server:
        print(f"ready {next(iter(server.sockets)).getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
