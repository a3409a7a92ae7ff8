"""A small client for the `line` dialect, written from its document alone. Usage: line_client.py HOST PORT

Sends what is typed (LOGIN alice, MSG hello, WHO, DM bob hi, PING, QUIT) and prints what is received.
"""

import socket
import sys
import threading


def receive(sock: socket.socket) -> None:
    """Print what is received until the server closes the connection."""
    while True:
        data = sock.recv(1024)
        if not data:
            print("Connection closed.", flush=True)
            return
        print(data.decode("utf-8", "replace"), end="", flush=True)


def main() -> None:
    """Connect, print in a thread and send in a loop."""
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.create_connection((host, port)) as sock:
        receiver = threading.Thread(target=receive, args=(sock,))
        receiver.start()
        for line in sys.stdin:
            sock.sendall(line.encode("utf-8"))
        receiver.join()


if __name__ == "__main__":
    main()
