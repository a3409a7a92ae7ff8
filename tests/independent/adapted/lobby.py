"""A lobby with a prompt, in which everything without a slash is said to all: greenlets of a pool, each with a queue, PORT."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.queue import Queue
from gevent.server import StreamServer

guests: dict[str, Queue[Any]] = {}


def write(sock: Any, queue: Queue[Any]) -> None:
    with suppress(OSError):
        for text in queue:
            sock.sendall(f"{text}\r\nlobby> ".encode())


def tell_others(name: str, text: str) -> None:
    for guest, queue in guests.items():
        if guest != name:
            queue.put(text)


def obey(queue: Queue[Any], name: str, line: str) -> str:
    """Do what a line asks for, and return the name of its guest afterwards."""
    verb, _, rest = line.partition(" ")
    if verb == "/ring":
        queue.put(f"* ring {rest}")
    elif verb == "/nick" and rest in guests:
        queue.put(f"* {rest} is in the lobby")
    elif verb == "/nick" and not name:
        guests[rest] = queue
        queue.put(f"* you are {rest}")
        tell_others(rest, f"* {rest} comes in")
        return rest
    elif not name:
        queue.put("* who are you?")
    elif verb == "/to":
        to, _, text = rest.partition(" ")
        if to in guests:
            guests[to].put(f"({name}) {text}")
        queue.put(f"* whispered to {to}" if to in guests else f"* {to} is not in the lobby")
    elif verb == "/names":
        for guest in guests:
            queue.put(f"* + {guest}")
    elif verb.startswith("/"):
        queue.put(f"* {verb} is not known here")
    else:
        tell_others(name, f"{name}: {line}")
    return name


def receive(sock: Any, _address: object) -> None:
    name = ""
    queue: Queue[Any] = Queue()
    writer = gevent.spawn(write, sock, queue)
    queue.put("Welcome to the lobby. /nick NAME, /to NAME TEXT, /names, /quit")
    try:
        for line in sock.makefile("r", encoding="utf-8", errors="replace", newline="\n"):
            if line.rstrip() == "/quit":
                queue.put("* bye")
                break
            name = obey(queue, name, line.rstrip("\r\n"))
    except ConnectionResetError:
        pass
    if name:
        del guests[name]
        tell_others(name, f"* {name} goes out")
    queue.put(StopIteration)
    writer.join()


StreamServer(("127.0.0.1", int(sys.argv[1])), receive, spawn=Pool(100)).serve_forever()
