"""python -m tests.websocket_echo [PORT]: sends every WebSocket message back, in the server's own framing.

The Autobahn test suite wants such an echo: docs/reliability.md says how it is played, and what it found.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer

from geventchat.dialects.framing import FramingAnswer
from geventchat.dialects.websocket import WebSocketFraming, _head, accept

# The largest message of the suite has 16 MiB.
_MOST_BYTES = 1 << 25


class Echo(BaseRequestHandler):
    """One client."""

    def handle(self) -> None:
        """Open the WebSocket, and send back what comes until one of the two ends it."""
        with suppress(OSError):
            head, received = self._request()
            self.request.sendall(accept(head))
            framing = WebSocketFraming(_MOST_BYTES)
            while framing._open:
                for batch in framing.batches(received, _MOST_BYTES, 1):
                    for unit in batch:
                        assert isinstance(unit, bytes | FramingAnswer)
                        # Without the framing's own way to send lines, since a message can have several here.
                        answer = unit.frame if isinstance(unit, FramingAnswer) else _head(len(unit)) + unit
                        self.request.sendall(answer)
                if framing._open and not (received := self.request.recv(65_536)):
                    return

    def _request(self) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (chunk := self.request.recv(65_536)):
                raise ConnectionResetError
            data += chunk
        head, end, rest = data.partition(b"\r\n\r\n")
        return head + end, rest


class EchoServer(ThreadingTCPServer):
    """Listens on a port of this machine."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Echo)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.websocket_echo", description=__doc__)
    parser.add_argument("port", type=int, nargs="?", default=9001, help="default: %(default)s")
    with EchoServer(parser.parse_args().port) as server, suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
