"""A server that does what its clients tell it, so that a transcript can have it misbehave: as a command, PORT.

- `NAME alice` names the connection; `PING` is answered with `PONG`; other lines are not answered.
- `alice: one | two` sends these lines to alice; `alice! text` sends the text without a line end.
- `LATER 50 alice: text` does so 50 ms later, and blocks until then.
- `CLOSE alice: text` does so, and then closes alice's connection.
- `TICK alice` sends her a line `TICK n` every 10 ms from then on.
- A line of a client that begins with PONG is passed on to the client that named itself `log`.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any


class Puppet:
    """Handles each line; the caller reads the lines and knows how to sleep."""

    def __init__(self, sleep: Callable[[float], object] = time.sleep) -> None:
        self.clients: dict[str, Any] = {}
        self.sleep = sleep

    def converse(self, sock: Any, lines: Iterable[str]) -> None:
        for line in lines:
            for client, data in self.effects(sock, line):
                self.clients[client].sendall(data)

    def effects(self, sock: Any, line: str) -> Iterator[tuple[str, bytes]]:
        verb, _, rest = line.partition(" ")
        if verb == "NAME":
            self.clients[rest] = sock
        elif verb == "PING":
            sock.sendall(b"PONG\n")
        elif verb == "TICK":
            threading.Thread(target=self.tick, args=(self.clients[rest],), daemon=True).start()
        elif verb == "PONG":
            yield "log", f"{line}\n".encode()
        elif verb == "LATER":
            milliseconds, _, then = rest.partition(" ")
            self.sleep(int(milliseconds) / 1000)
            yield from self.effects(sock, then)
        elif verb == "CLOSE":
            yield from self.effects(sock, rest)
            self.clients[rest.partition(":")[0]].shutdown(socket.SHUT_RDWR)
        elif verb.endswith("!"):
            yield verb[:-1], rest.encode()
        elif verb.endswith(":"):
            for text in rest.split(" | "):
                yield verb[:-1], f"{text}\n".encode()

    def tick(self, sock: Any) -> None:
        for number in range(1000):
            try:
                sock.sendall(f"TICK {number}\n".encode())
            except OSError:
                return
            time.sleep(0.01)


def serve(spec: Any) -> Any:
    """The same in this process, without TICK."""
    import gevent
    from gevent.server import StreamServer

    puppet = Puppet(gevent.sleep)

    def handle(sock: Any, _: object) -> None:
        with sock.makefile("r") as lines:
            puppet.converse(sock, (line.rstrip("\n") for line in lines))

    return StreamServer(("127.0.0.1", 0), handle)


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.server.puppet.converse(self.request, (line.decode().rstrip("\n") for line in self.rfile))  # type: ignore[attr-defined]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True
    puppet = Puppet()


if __name__ == "__main__":
    _Server(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
