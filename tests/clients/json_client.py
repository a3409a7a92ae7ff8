"""A small client for the `json` dialect, written from its document alone. Usage: json_client.py HOST PORT

Asks for a name until the server accepts one. After that a line is a message, or one of /users, /dm NAME TEXT, /ping and
/quit. Every message is one JSON object on one line.
"""

import json
import socket
import sys
import threading
from datetime import datetime
from typing import Any


class Connection:
    """Sends and receives objects."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = ""

    def send(self, **message: str) -> None:
        """Send one object."""
        self.sock.sendall((json.dumps(message) + "\n").encode("utf-8"))

    def receive(self) -> dict[str, Any] | None:
        """The next object; None when the server has closed the connection."""
        while "\n" not in self.buffer:
            data = self.sock.recv(1024)
            if not data:
                return None
            self.buffer += data.decode("utf-8")
        line, self.buffer = self.buffer.split("\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message


def show(message: dict[str, Any]) -> None:
    """Print one object as the document shows it."""
    kind = message["type"]
    if kind == "chat":
        at = datetime.fromtimestamp(message["timestamp"]).strftime("%H:%M:%S")
        print(f"[{at}] {message['username']}: {message['message']}", flush=True)
    elif kind == "dm":
        print(f"(private) {message['username']} to {message['to']}: {message['message']}", flush=True)
    elif kind == "user_joined":
        print(f"🟢 {message['message']}", flush=True)
    elif kind == "user_left":
        print(f"🔴 {message['message']}", flush=True)
    elif kind == "users":
        print(f"Users: {', '.join(message['users'])}", flush=True)
    elif kind == "pong":
        print("Pong!", flush=True)
    elif kind == "error":
        print(f"❌ {message['message']}", flush=True)


def receive_messages(connection: Connection) -> None:
    """Print what is received until the server closes the connection."""
    while (message := connection.receive()) is not None:
        show(message)
    print("Disconnected.", flush=True)


def join(connection: Connection) -> bool:
    """Ask for names until one is accepted."""
    for line in sys.stdin:
        connection.send(type="join", username=line.strip())
        answer = connection.receive()
        if answer is None:
            return False
        if answer["type"] == "welcome":
            print(f"✅ {answer['message']} ({', '.join(answer['users'])})", flush=True)
            return True
        show(answer)
    return False


def main() -> None:
    """Connect, join, print in a thread and send in a loop."""
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.create_connection((host, port)) as sock:
        connection = Connection(sock)
        if not join(connection):
            return
        receiver = threading.Thread(target=receive_messages, args=(connection,))
        receiver.start()
        for line in sys.stdin:
            text = line.strip()
            if text in ("/quit", "/exit", "/q"):
                connection.send(type="quit")
                break
            if text == "/ping":
                connection.send(type="ping")
            elif text == "/users":
                connection.send(type="users")
            elif text.startswith("/dm "):
                _, to, private = text.split(" ", 2)
                connection.send(type="dm", to=to, message=private)
            elif text:
                connection.send(type="chat", message=text)
        receiver.join()


if __name__ == "__main__":
    main()
