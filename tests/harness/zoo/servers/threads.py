"""A thread for each client, which writes to the others itself; late writes, and with `early` all messages, are made by a
second thread."""

from __future__ import annotations

import socket
import threading

from .room import Action, Chat, SocketPerson, Timers, arguments, listen


class Threads:
    def __init__(self, options: dict[str, str]) -> None:
        self.lock = threading.Lock()
        self.timers = Timers(self.lock)
        self.early = "early" in options
        self.chat = Chat(options, self.deliver)

    def deliver(self, delay_s: float, action: Action) -> None:
        if delay_s or self.early:
            self.timers.at(delay_s, action)
        else:
            action()

    def converse(self, sock: socket.socket) -> None:
        person = SocketPerson(sock)
        with sock, sock.makefile("rb") as lines:
            with self.lock:
                self.chat.connect(person)
            try:
                for line in lines:
                    with self.lock:
                        self.chat.line(person, line.decode())
            except OSError:
                pass  # it was reset
            with self.lock:
                self.chat.leave(person)


def main() -> None:
    port, options = arguments()
    server, listener = Threads(options), listen(port)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=server.converse, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main()
