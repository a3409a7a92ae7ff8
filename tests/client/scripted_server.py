"""A server that does exactly what a test says: one function for each connection, in order."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import BinaryIO

from tests.patience import HANG_S

# Gets the connection's socket and a reader of its lines.
Script = Callable[[socket.socket, BinaryIO], None]


class ScriptedServer:
    """Runs the scripts in a thread. A failure in one of them is raised by `stop`."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(HANG_S)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def stop(self) -> None:
        """Wait for the last script to end."""
        self._thread.join(1.5 * HANG_S)
        self._listener.close()
        assert not self._thread.is_alive(), "a script of the server did not end"
        if self._error is not None:
            raise self._error

    def _serve(self) -> None:
        try:
            for script in self._scripts:
                client, _ = self._listener.accept()
                with client, client.makefile("rb") as lines:
                    client.settimeout(HANG_S)
                    script(client, lines)
        except BaseException as error:
            self._error = error
