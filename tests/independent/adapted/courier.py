"""A courier for messages in fields: one thread reads with selectors, another takes the lines from a queue, PORT.

An author receives the own message as well, since a name is compared with a socket: a mistake, which the comparison shows.
"""

from __future__ import annotations

import queue
import selectors
import socket
import sys
import threading

work: queue.Queue[tuple[socket.socket, str | None]] = queue.Queue()
"""Lines that were read, and None when a client has gone."""
names: dict[socket.socket, str] = {}


def send(sock: socket.socket, *fields: str) -> None:
    try:
        sock.sendall("|".join(fields).encode() + b"\r\n")
    except OSError:
        pass  # the reader notices


def deliver() -> None:
    while True:
        sock, line = work.get()
        if line is None:
            leave(sock)
            sock.close()
        else:
            obey(sock, line)


def leave(sock: socket.socket) -> None:
    name = names.pop(sock, None)
    if name is not None:
        for other in names:
            send(other, "gone", name)


def obey(sock: socket.socket, line: str) -> None:
    verb, _, rest = line.partition("|")
    name = names.get(sock)
    match verb:
        case "check":
            send(sock, "checked", rest)
        case "end":
            send(sock, "ended")
            leave(sock)
            sock.shutdown(socket.SHUT_WR)
        case "iam" if name is not None or rest in names.values():
            send(sock, "sorry", "known already" if name is not None else "the name is given away")
        case "iam":
            for other in names:
                send(other, "new", rest)
            names[sock] = rest
            send(sock, "hello", rest)
        case _ if name is None:
            send(sock, "sorry", "iam first")
        case "all":
            for other in names:
                if other != name:
                    send(other, "for all", name, rest)
            send(sock, "delivered")
        case "one":
            to, _, text = rest.partition("|")
            found = [other for other, its_name in names.items() if its_name == to]
            for other in found:
                send(other, "for you", name, text)
            send(sock, *(("delivered",) if found else ("sorry", "no such name")))
        case "list":
            for other in names.values():
                send(sock, "listed", other)
        case _:
            send(sock, "sorry", "no such verb")


threading.Thread(target=deliver, daemon=True).start()
unread: dict[socket.socket, bytes] = {}
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            new = listener.accept()[0]
            selector.register(new, selectors.EVENT_READ)
            unread[new] = b""
            continue
        sock = key.fileobj
        assert isinstance(sock, socket.socket)
        try:
            data = sock.recv(4096)
        except ConnectionResetError:
            data = b""
        *lines, unread[sock] = (unread[sock] + data).split(b"\n")
        for line in lines:
            work.put((sock, line.decode("utf-8", "replace").rstrip("\r")))
        if not data:
            selector.unregister(sock)
            del unread[sock]
            work.put((sock, None))
