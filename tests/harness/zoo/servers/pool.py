"""One thread reads from all clients, a pool handles their lines, for each client one after another. With `early` the
reading thread answers PING itself."""

from __future__ import annotations

import selectors
import socket
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from .room import Action, Chat, SocketPerson, Timers, answer_to, arguments, listen

WORKERS = 4


class PooledPerson(SocketPerson):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.rest = b""
        self.todo: deque[Action] = deque()
        self.busy = False


class Pool:
    def __init__(self, options: dict[str, str]) -> None:
        self.lock = threading.Lock()
        self.timers = Timers(self.lock)
        self.early = "early" in options
        self.chat = Chat(options, self.deliver)
        self.workers = ThreadPoolExecutor(WORKERS)
        self.turnstile = threading.Lock()
        self.selector = selectors.DefaultSelector()

    def deliver(self, delay_s: float, action: Action) -> None:
        if delay_s:
            self.timers.at(delay_s, action)
        else:
            action()

    def submit(self, person: PooledPerson, action: Action) -> None:
        with self.turnstile:
            person.todo.append(action)
            if person.busy:
                return
            person.busy = True
        self.workers.submit(self.work, person)

    def work(self, person: PooledPerson) -> None:
        while True:
            with self.turnstile:
                if not person.todo:
                    person.busy = False
                    return
                action = person.todo.popleft()
            with self.lock:
                action()

    def read(self, person: PooledPerson) -> None:
        try:
            data = person.sock.recv(4096)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(person.sock)
            self.submit(person, lambda: self.chat.leave(person))
            self.submit(person, person.sock.close)
            return
        *lines, person.rest = (person.rest + data).split(b"\n")
        for line in map(bytes.decode, lines):
            answer = answer_to(line) if self.early else b""
            if answer:
                person.send(answer)
            else:
                self.submit(person, lambda line=line: self.chat.line(person, line))

    def serve(self, listener: socket.socket) -> None:
        self.selector.register(listener, selectors.EVENT_READ, None)
        while True:
            for key, _ in self.selector.select():
                if key.data is not None:
                    self.read(key.data)
                    continue
                sock, _ = listener.accept()
                person = PooledPerson(sock)
                self.selector.register(sock, selectors.EVENT_READ, person)
                self.submit(person, lambda person=person: self.chat.connect(person))


def main() -> None:
    port, options = arguments()
    Pool(options).serve(listen(port))


if __name__ == "__main__":
    main()
