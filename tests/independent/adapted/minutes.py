"""A chat that puts the time before every line: a thread for each client, PORT.

What one call of recv returns is taken for whole lines, so a line that arrives in two pieces is lost: a mistake, which the
comparison shows.
"""

import socket
import sys
import threading
import time

people: dict[str, socket.socket] = {}
lock = threading.Lock()


def tell(sock: socket.socket, text: str) -> None:
    try:
        sock.sendall(f"[{time.strftime('%H:%M:%S')}] {text}\n".encode())
    except OSError:
        pass  # the thread of that client notices


def tell_others(name: str, text: str) -> None:
    for other, sock in people.items():
        if other != name:
            tell(sock, text)


def obey(sock: socket.socket, name: str, line: str) -> str:
    """Do what a line asks for, and return the name of its client afterwards."""
    verb, _, rest = line.partition(" ")
    if verb == "PING":
        tell(sock, f"pong {rest}".rstrip())
    elif verb == "NAME" and not name:
        if rest in people:
            tell(sock, f"{rest} is taken")
        else:
            name, people[rest] = rest, sock
            tell(sock, f"you are {name}")
            tell_others(name, f"{name} enters")
    elif not name:
        tell(sock, "name yourself first")
    elif verb == "MSG":
        tell_others(name, f"{name} to all: {rest}")
    elif verb == "TO":
        other, _, text = rest.partition(" ")
        tell(people.get(other, sock), f"{name} to you: {text}" if other in people else f"{other} is not here")
    elif verb == "PEOPLE":
        for other in people:
            tell(sock, f"there is {other}")
    else:
        tell(sock, "what?")
    return name


def serve(sock: socket.socket) -> None:
    name, talks = "", True
    tell(sock, "the minutes are being taken")
    while talks:
        try:
            data = sock.recv(4096)
        except ConnectionResetError:
            data = b""
        talks = data != b""
        for line in data.decode("utf-8", "replace").split("\n")[:-1]:
            if line == "BYE":
                tell(sock, "bye")
                talks = False
            elif talks:
                with lock:
                    name = obey(sock, name, line)
    with lock:
        if people.pop(name, None):
            tell_others(name, f"{name} leaves")
    sock.close()


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
