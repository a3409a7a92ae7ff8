"""A plain client for the `line` dialect, written from its document alone. Usage: line_client.py HOST PORT

What is typed is sent as it is (LOGIN alice, MSG hello, WHO, DM bob hi, PING, QUIT); what comes is printed as it is.
"""

import socket
import sys
import threading


def receive(sock: socket.socket) -> None:
    """Print what comes until the server closes."""
    while True:
        data = sock.recv(1024)
        if not data:
            print("Connection closed.", flush=True)
            return
        print(data.decode("utf-8", "replace"), end="", flush=True)


def main() -> None:
    """Connect, print in a thread, send in a loop."""
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.create_connection((host, port)) as sock:
        receiver = threading.Thread(target=receive, args=(sock,))
        receiver.start()
        for line in sys.stdin:
            sock.sendall(line.encode("utf-8"))
        receiver.join()


if __name__ == "__main__":
    main()
