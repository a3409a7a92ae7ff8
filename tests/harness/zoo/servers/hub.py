"""Each client's thread only reads; one hub thread handles all lines in the order of its queue, and writes. With `early`
the reading threads answer PING themselves."""

from __future__ import annotations

import socket
import threading

from .room import Action, Chat, SocketPerson, Timers, answer_to, arguments, listen


class Hub:
    def __init__(self, options: dict[str, str]) -> None:
        self.queue = Timers()
        self.early = "early" in options
        self.chat = Chat(options, self.deliver)

    def deliver(self, delay_s: float, action: Action) -> None:
        if delay_s:
            self.queue.at(delay_s, action)
        else:
            action()

    def converse(self, sock: socket.socket) -> None:
        person = SocketPerson(sock)
        self.queue.at(0, lambda: self.chat.connect(person))
        with sock.makefile("rb") as lines:
            try:
                for line in lines:
                    self.handle(person, line.decode())
            except OSError:
                pass  # it was reset
        self.queue.at(0, lambda: self.chat.leave(person))
        self.queue.at(0, sock.close)

    def handle(self, person: SocketPerson, line: str) -> None:
        answer = answer_to(line) if self.early else b""
        if answer:
            person.send(answer)
        else:
            self.queue.at(0, lambda: self.chat.line(person, line))


def main() -> None:
    port, options = arguments()
    hub, listener = Hub(options), listen(port)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=hub.converse, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main()
