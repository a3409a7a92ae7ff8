"""gevent: a greenlet for each client. With `early` each client has a queue, and a greenlet that writes what is in it.

Also a factory for the harness, which runs the server in its own process."""

from __future__ import annotations

import heapq
import socket
from itertools import count
from typing import Any

import gevent
from gevent.queue import Queue
from gevent.server import StreamServer

from .room import Action, Chat, SocketPerson, arguments


class QueuedPerson(SocketPerson):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.queue: Queue[bytes] = Queue()
        gevent.spawn(self.drain)

    def send(self, data: bytes) -> None:
        self.queue.put(data)

    def answer(self, data: bytes) -> None:
        super().send(data)

    def close(self) -> None:
        self.queue.put(b"")

    def drain(self) -> None:
        while data := self.queue.get():
            super().send(data)
        super().close()


class Green:
    def __init__(self, options: dict[str, str]) -> None:
        self.person = QueuedPerson if "early" in options else SocketPerson
        self.chat = Chat(options, self.deliver)
        self.due: list[tuple[float, int, Action]] = []
        self.numbers = count()

    def deliver(self, delay_s: float, action: Action) -> None:
        if delay_s:
            heapq.heappush(self.due, (gevent.get_hub().loop.now() + delay_s, next(self.numbers), action))
            gevent.spawn_later(delay_s, self.fire)
        else:
            action()

    def fire(self) -> None:
        # One call for each timer: whichever it was made for, the one that comes first is due.
        heapq.heappop(self.due)[2]()

    def converse(self, sock: Any, _address: object) -> None:
        person = self.person(sock)
        self.chat.connect(person)
        rest = b""
        try:
            while data := sock.recv(4096):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.chat.line(person, line.decode())
        except OSError:
            pass  # it was reset
        self.chat.leave(person)
        person.close()


def server(port: int, options: dict[str, str]) -> StreamServer:
    return StreamServer(("127.0.0.1", port), Green(options).converse)


if __name__ == "__main__":
    server(*arguments()).serve_forever()
