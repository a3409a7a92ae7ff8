"""A chat server with one mistake: a client that has not logged in hears everything too."""

from gevent.server import StreamServer

from harness import ServerSpec


def serve(spec: ServerSpec) -> StreamServer:
    everyone = []

    def converse(sock, address):
        everyone.append(sock)
        name = None
        for line in sock.makefile("r", encoding="utf-8", newline="\n"):
            verb, _, rest = line.strip().partition(" ")
            if verb == "LOGIN":
                name = rest
                sock.sendall(b"OK\n")
            elif not name:
                sock.sendall(b"ERR must-login-first\n")
            elif verb == "MSG":
                for other in everyone:
                    if other is not sock:
                        other.sendall(f"MSG {name} {rest}\n".encode())

    return StreamServer(("127.0.0.1", 0), converse)
