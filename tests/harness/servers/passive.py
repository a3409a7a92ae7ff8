"""A file server that opens a port for each list, as FTP does: PORT [NUMBERS].

`PASV` is answered with the port as two numbers, or with the numbers that are given; `LIST` sends two names there and closes.
"""

from __future__ import annotations

import socket
import socketserver
import sys


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        listener: socket.socket | None = None
        for line in self.rfile:
            verb = line.decode().split()[0]
            if verb == "NOOP":
                self.wfile.write(b"200 ok\n")
            elif verb == "PASV":
                listener = socket.create_server(("127.0.0.1", 0))
                high, low = divmod(listener.getsockname()[1], 256)
                numbers = sys.argv[2] if len(sys.argv) > 2 else f"{high},{low}"
                self.wfile.write(f"227 passive (127,0,0,1,{numbers})\n".encode())
            elif verb == "LIST" and listener is not None:
                self.wfile.write(b"150 here it comes\n")
                with listener, listener.accept()[0] as data:
                    data.sendall(b"one.txt\ntwo.txt\n")
                self.wfile.write(b"226 done\n")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
