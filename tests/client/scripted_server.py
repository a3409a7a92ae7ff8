"""A server that does exactly what a test wants, good manners or bad: a function for each connection, in order."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import BinaryIO

WITHIN_S = 20.0


Behave = Callable[[socket.socket, BinaryIO], None]


class ScriptedServer:
    """Hands each connection's socket and a reader of its lines to the next of the test's functions."""

    def __init__(self, *behaviours: Behave) -> None:
        self._behaviours = behaviours
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WITHIN_S)
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def address(self) -> str:
        """HOST:PORT of it."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def end(self) -> None:
        """Wait until the function has ended; its failure is the test's."""
        self._thread.join(WITHIN_S * 2)
        self._listener.close()
        assert not self._thread.is_alive(), "the scripted server never came to its end"
        if self._fault is not None:
            raise self._fault

    def _serve(self) -> None:
        try:
            for behave in self._behaviours:
                client, _ = self._listener.accept()
                with client, client.makefile("rb") as lines:
                    client.settimeout(WITHIN_S)
                    behave(client, lines)
        except BaseException as fault:
            self._fault = fault
