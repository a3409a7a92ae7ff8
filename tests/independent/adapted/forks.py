"""A chat in which each client has a process, and a parent knows them all through pipes: fork, PORT.

A child passes on what its client says as `NUMBER LINE`, in one write to the pipe that all children share, and at the end the
number alone. What comes through its own pipe it passes on to the client, and ends when that pipe does.
"""

import os
import select
import signal
import socket
import sys

pipes: dict[int, int] = {}
"""The pipe to the child of each client."""
names: dict[int, str] = {}


def child(number: int, sock: socket.socket, parent: int, pipe: int) -> None:
    unread = b""
    sock.sendall(b"+OK chat\r\n")
    while True:
        ready, _, _ = select.select([pipe, sock], [], [])
        if pipe in ready:
            text = os.read(pipe, 65536)
            if not text:
                return
            sock.sendall(text)
        if sock in ready:
            data = sock.recv(1024)
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                os.write(parent, b"%d %b\n" % (number, line.rstrip(b"\r")))
            if not data:
                return


def start(number: int, sock: socket.socket) -> None:
    pipe, pipes[number] = os.pipe()
    if os.fork() == 0:
        for other in pipes.values():
            os.close(other)  # or this child would never see its pipe end
        listener.close()
        try:
            child(number, sock, lines_in, pipe)
        except OSError:
            pass  # the client has reset its connection
        finally:
            os.write(lines_in, b"%d\n" % number)
            os._exit(0)
    os.close(pipe)
    sock.close()


def tell(number: int, text: str) -> None:
    try:
        os.write(pipes[number], f"{text}\r\n".encode())
    except BrokenPipeError:
        pass  # its last line is on the way


def end(number: int) -> None:
    name = names.pop(number, None)
    os.close(pipes.pop(number))
    for other in names if name is not None else ():
        tell(other, f"* {name} has gone")


def obey(number: int, verb: str, rest: str) -> None:
    name = names.get(number)
    if verb == "QUIT":
        tell(number, "+OK see you")
        end(number)
    elif verb == "USER" and rest in names.values():
        tell(number, f"-ERR there is a {rest}")
    elif verb == "USER" and name is None:
        for other in names:
            tell(other, f"* {rest} has come")
        names[number] = rest
        tell(number, f"+OK {rest}")
    elif name is None:
        tell(number, "-ERR no USER")
    elif verb == "ME":
        tell(number, f"+OK you are {name}")
    elif verb == "SAY":
        for other in names:
            if other != number:
                tell(other, f"<{name}> {rest}")
    elif verb == "TELL":
        to, _, text = rest.partition(" ")
        found = [other for other, its_name in names.items() if its_name == to]
        tell(found[0] if found else number, f"<{name} to you> {text}" if found else f"-ERR there is no {to}")
    elif verb == "LIST":
        for other_name in names.values():
            tell(number, f"- {other_name}")
    else:
        tell(number, "-ERR unknown")


signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no child becomes a zombie
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
lines_out, lines_in = os.pipe()
unread, clients = b"", 0
while True:
    ready, _, _ = select.select([listener, lines_out], [], [])
    if lines_out in ready:
        *lines, unread = (unread + os.read(lines_out, 65536)).split(b"\n")
        for line in lines:
            number, spoke, text = line.decode("utf-8", "replace").partition(" ")
            if int(number) in pipes:
                if spoke:
                    obey(int(number), *text.partition(" ")[::2])
                else:
                    end(int(number))
    if listener in ready:
        clients += 1
        start(clients, listener.accept()[0])
