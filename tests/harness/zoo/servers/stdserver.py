"""The same on the standard library's `socketserver`."""

from __future__ import annotations

import socketserver

from .room import arguments
from .threads import Threads


def main() -> None:
    port, options = arguments()
    threads = Threads(options)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            threads.converse(self.request)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 64

    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
