"""A switchboard that asks for a name as a login does, and then takes commands that begin with a dot: select, PORT."""

from __future__ import annotations

import select
import socket
import sys


class Caller:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.name = ""
        self.unread, self.unsent = b"", b"caller: "
        self.hangs_up = False

    def tell(self, text: str) -> None:
        self.unsent += f"{text}\n".encode()

    def send(self) -> None:
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except OSError:
            self.unsent = b""


callers: dict[socket.socket, Caller] = {}


def named() -> dict[str, Caller]:
    return {caller.name: caller for caller in callers.values() if caller.name}


def leave(caller: Caller) -> None:
    name, caller.name = caller.name, ""
    for other in named().values() if name else ():
        other.tell(f"-- {name} has hung up --")


def obey(caller: Caller, line: str) -> None:
    verb, _, rest = line.partition(" ")
    if verb == ".test":
        caller.tell(f"Test {rest}: loud and clear")
    elif verb == ".hangup":
        caller.tell("-- the line is dead --")
        caller.hangs_up = True
        leave(caller)
    elif not caller.name and line in named():
        caller.tell(f"{line} is engaged")
        caller.unsent += b"caller: "
    elif not caller.name:
        caller.name = line
        caller.tell(f"{line} is connected")
    elif verb == ".lines":
        for name in named():
            caller.tell(f"{name} is on the line")
    elif verb == ".call":
        name, _, text = rest.partition(" ")
        if name in named():
            named()[name].tell(f"{caller.name} (to you)> {text}")
        else:
            caller.tell(f"no line to {name}")
    elif verb == ".all":
        for other in named().values():
            if other is not caller:
                other.tell(f"{caller.name}> {rest}")
    else:
        caller.tell("?")


def read(caller: Caller) -> None:
    try:
        data = caller.sock.recv(4096)
    except ConnectionResetError:
        data = b""
    *lines, caller.unread = (caller.unread + data).split(b"\n")
    for line in lines:
        if not caller.hangs_up:
            obey(caller, line.decode("utf-8", "replace"))
    if not data:
        caller.hangs_up, caller.unsent = True, b""
        leave(caller)


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    ready, free, _ = select.select([listener, *callers], [one for one in callers if callers[one].unsent], [])
    for sock in ready:
        if sock is listener:
            new = listener.accept()[0]
            callers[new] = Caller(new)
        else:
            read(callers[sock])
    for sock in free:
        callers[sock].send()
    for caller in [one for one in callers.values() if one.hangs_up and not one.unsent]:
        callers.pop(caller.sock).sock.close()
