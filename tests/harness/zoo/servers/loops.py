"""One loop around `select`, `poll` or `epoll`, chosen by an option of that name, with a heap of timers.

With `fork` a process for each client reads and writes its socket, and the loop is the broker at the other end of a pipe to
each of them; with `early` those processes answer PING themselves.
"""

from __future__ import annotations

import heapq
import os
import selectors
import signal
import socket
import time
from itertools import count

from .room import Action, Chat, SocketPerson, answer_to, arguments, listen

SELECTORS = {
    "select": selectors.SelectSelector,
    "poll": selectors.PollSelector,
    "epoll": selectors.EpollSelector,
    "fork": selectors.DefaultSelector,
}


class LoopPerson(SocketPerson):
    rest = b""


class Loop:
    def __init__(self, listener: socket.socket, options: dict[str, str]) -> None:
        self.selector = next(SELECTORS[one] for one in options if one in SELECTORS)()
        self.listener = listener
        self.options = options
        self.chat = Chat(options, self.deliver)
        self.due: list[tuple[float, int, Action]] = []
        self.numbers = count()

    def deliver(self, delay_s: float, action: Action) -> None:
        if delay_s:
            heapq.heappush(self.due, (time.monotonic() + delay_s, next(self.numbers), action))
        else:
            action()

    def serve(self) -> None:
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        while True:
            left_s = max(0.0, self.due[0][0] - time.monotonic()) if self.due else None
            for key, _ in self.selector.select(left_s):
                if key.data is None:
                    self.accept()
                else:
                    self.read(key.data)
            while self.due and self.due[0][0] <= time.monotonic():
                heapq.heappop(self.due)[2]()

    def accept(self) -> None:
        sock, _ = self.listener.accept()
        person = LoopPerson(self.forked(sock) if "fork" in self.options else sock)
        self.selector.register(person.sock, selectors.EVENT_READ, person)
        self.chat.connect(person)

    def read(self, person: LoopPerson) -> None:
        try:
            data = person.sock.recv(4096)
        except OSError:
            data = b""
        *lines, person.rest = (person.rest + data).split(b"\n")
        for line in lines:
            self.chat.line(person, line.decode())
        if not data:
            self.chat.leave(person)
            self.selector.unregister(person.sock)
            person.sock.close()

    def forked(self, sock: socket.socket) -> socket.socket:
        """The broker's end of the pipe to a new process that has this client."""
        broker, own = socket.socketpair()
        if os.fork() == 0:
            kept = {sock.fileno(), own.fileno()}
            for name in os.listdir("/proc/self/fd"):
                if int(name) > 2 and int(name) not in kept:
                    try:
                        os.close(int(name))
                    except OSError:
                        pass  # the folder itself
            converse(sock, own, "early" in self.options)
            os._exit(0)
        own.close()
        sock.close()
        return broker


def converse(sock: socket.socket, broker: socket.socket, early: bool) -> None:
    """Pass on lines from the client to the broker, and what the broker sends to the client."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        selector.register(broker, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                try:
                    data = key.fileobj.recv(4096)  # type: ignore[union-attr]
                    if not data:
                        return
                    if key.fileobj is broker:
                        sock.sendall(data)
                        continue
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        answer = answer_to(line.decode()) if early else b""
                        (sock if answer else broker).sendall(answer or line + b"\n")
                except OSError:
                    return


def main() -> None:
    port, options = arguments()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    Loop(listen(port), options).serve()


if __name__ == "__main__":
    main()
