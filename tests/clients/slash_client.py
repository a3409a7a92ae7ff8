"""A small client for the `slash` dialect, written from its document alone. Usage: slash_client.py HOST PORT

The first line that is typed is the name. All others are messages or commands, which the server tells apart.
"""

import socket
import sys
import threading


def receive_messages(sock: socket.socket) -> None:
    """Print what is received until the server closes the connection."""
    while True:
        message = sock.recv(1024).decode("utf-8", "replace")
        if not message:
            print("Disconnected from server.", flush=True)
            break
        print(message, end="", flush=True)


def start_client() -> None:
    """Connect, print in a thread and send in a loop."""
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.create_connection((host, port)) as sock:
        receiver = threading.Thread(target=receive_messages, args=(sock,))
        receiver.start()
        print("Enter username (1-20 chars): ", flush=True)
        for line in sys.stdin:
            sock.sendall(line.encode("utf-8"))
            if line.strip() == "/quit":
                break
        receiver.join()


if __name__ == "__main__":
    start_client()
