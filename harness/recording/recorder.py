"""The recorder behind the proxy: hands things on one at a time, and notes what came of each.

One thing done is handed to the server, and the next only once the server has been quiet, so that what came of what is
beyond doubt, and a file that is played turn by turn has the same order.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
from gevent.event import Event
from gevent.queue import Queue

from harness.language.parser import parse
from harness.language.renderer import render
from harness.language.steps import ConnectionAction, Ending, FenceLine
from harness.recording.session_log import Acted, Connected, LoggedAction, LoggedTurn, Sent, SessionLog, Waited
from harness.recording.transcribing import transcript
from harness.stage.kernel import PeerProbe, SocketDiagnostics, TcpState

QUIET_S = 0.05
"""How long the server must say nothing before the next thing is handed to it; nobody who types feels that."""

STEADY_S = 2.0
"""After so long a server that never falls silent is handed the next thing all the same."""

_CHUNK_BYTES = 65536


class _Line:
    """One connection through the proxy."""

    def __init__(self, number: int, client: Any, server: Any) -> None:
        self.number = number
        self.client = client
        self.server = server
        self.over = False


class Recorder:
    def __init__(self, connect: tuple[str, int], out: Path, fence: FenceLine | None) -> None:
        self._connect = connect
        self._out = out
        self._fence = fence
        self._log = SessionLog()
        self._lines: list[_Line] = []
        self._actions: Queue[tuple[_Line, LoggedAction]] = Queue()
        self._greenlets: list[Any] = []
        self._stirred = Event()
        self._logged_turn: LoggedTurn | None = None
        """What is going on; None when all has been quiet."""
        self._last_done = time.monotonic()
        self._kernel = SocketDiagnostics()

    # The session

    def run(self, listener: Any, stop_requested: Event) -> None:
        """Take in whoever comes, until told to end."""
        self._start(self._accept, listener)
        handing_on = gevent.spawn(self._hand_on_each)
        try:
            waited_for: list[Any] = [handing_on, stop_requested]
            gevent.wait(waited_for, count=1)
            if handing_on.exception is not None:
                raise handing_on.exception
        finally:
            self._end([handing_on])

    def _hand_on_each(self) -> None:
        while True:
            line, action = self._actions.get()
            if line.over:
                continue  # said into a connection that the server had already ended
            self._logged_turn = self._note(action)
            self._hand_on(line, action)
            self._last_done = time.monotonic()
            self._until_quiet()
            if all(one.over for one in self._lines):
                self.write()

    def _end(self, greenlets: list[Any]) -> None:
        gevent.killall([*greenlets, *self._greenlets])
        for line in self._lines:
            line.client.close()
            line.server.close()
        self._kernel.close()

    def write(self) -> bool:
        """Write what has happened so far; False when nothing has."""
        if not self._log.logged_turns:
            return False
        script = transcript(self._log, f"recorded from {self._connect[0]}:{self._connect[1]}", self._fence)
        text = render(script)
        if parse(text, str(self._out)) != script:
            raise AssertionError(f"what was recorded does not read back as it was written:\n{text}")
        _write_whole(self._out, text)
        return True

    # What goes in

    def _accept(self, listener: Any) -> None:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = gevent.socket.socket(client.family)
            line = _Line(len(self._lines) + 1, client, server)
            self._lines.append(line)
            self._actions.put((line, Connected(line.number)))

    def _hand_on(self, line: _Line, action: LoggedAction) -> None:
        try:
            match action:
                case Connected():
                    self._reach_server(line)
                case Sent(_, data):
                    line.server.sendall(data)
                case Acted(_, ConnectionAction.HALF_CLOSES):
                    line.server.shutdown(socket.SHUT_WR)
                case Acted(_, connection_action):
                    self._leave(line, abruptly=connection_action is ConnectionAction.ABORTS)
        except OSError:
            # The server has hung up at this very moment; reading from it tells how.
            pass

    def _reach_server(self, line: _Line) -> None:
        family = socket.getaddrinfo(*self._connect, type=socket.SOCK_STREAM)[0][0]
        line.server.close()
        line.server = gevent.socket.socket(family)
        try:
            line.server.connect(self._connect)
        except ConnectionRefusedError:
            self._ended(line, Ending.REFUSED)
            return
        line.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._start(self._listen_to_client, line)
        self._start(self._listen_to_server, line)

    def _listen_to_client(self, line: _Line) -> None:
        while not line.over:
            try:
                data = line.client.recv(_CHUNK_BYTES)
            except ConnectionResetError:
                self._actions.put((line, Acted(line.number, ConnectionAction.ABORTS)))
                return
            except OSError:
                return  # closed by us, since the server has hung up
            if not data:
                connection_action = (
                    ConnectionAction.HALF_CLOSES
                    if self._still_listens(line.client)
                    else ConnectionAction.CLOSES
                )
                self._actions.put((line, Acted(line.number, connection_action)))
                return
            for piece in _lines(data):
                self._actions.put((line, Sent(line.number, piece)))

    def _still_listens(self, client: Any) -> bool:
        """An end of stream looks the same whether a client will read on or is gone; its kernel knows."""
        far = PeerProbe(self._kernel, client.getsockname(), client.getpeername()).peer_state()
        return far is not None and far.owned and far.state is not TcpState.CLOSE

    def _leave(self, line: _Line, abruptly: bool) -> None:
        line.over = True
        if abruptly:
            line.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        line.server.close()
        line.client.close()

    # What comes out

    def _listen_to_server(self, line: _Line) -> None:
        while not line.over:
            try:
                data = line.server.recv(_CHUNK_BYTES)
            except ConnectionResetError:
                self._ended(line, Ending.RESET)
                return
            except OSError:
                return  # closed by us, since the client has left
            if not data:
                self._ended(line, Ending.CLOSED)
                return
            self._present().received.setdefault(line.number, bytearray()).extend(data)
            self._stirred.set()
            try:
                line.client.sendall(data)
            except OSError:
                continue  # the client has just left; its own greenlet tells

    def _ended(self, line: _Line, ending: Ending) -> None:
        line.over = True
        self._present().ends[line.number] = ending
        self._stirred.set()
        line.server.close()
        line.client.close()

    # What belongs together

    def _present(self) -> LoggedTurn:
        """The moment that what now comes belongs to: what was done last, or the mere passing of time."""
        if self._logged_turn is None:
            now = time.monotonic()
            self._logged_turn = self._note(Waited(now - self._last_done))
            self._last_done = now
            self._start(self._until_quiet)
        return self._logged_turn

    def _note(self, action: LoggedAction) -> LoggedTurn:
        logged_turn = LoggedTurn(action, time.time())
        self._log.logged_turns.append(logged_turn)
        return logged_turn

    def _until_quiet(self) -> None:
        logged_turn = self._logged_turn
        until = time.monotonic() + STEADY_S
        while time.monotonic() < until:
            self._stirred.clear()
            if not self._stirred.wait(QUIET_S):
                break
        if self._logged_turn is logged_turn:
            self._logged_turn = None

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        self._greenlets = [one for one in self._greenlets if not one.dead]
        self._greenlets.append(gevent.spawn(work, *args))


def _lines(data: bytes) -> Iterator[bytes]:
    """Cut after each line feed and nowhere else."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at) + 1 or len(data)
        yield data[at:end]
        at = end


def _write_whole(path: Path, text: str) -> None:
    """All of it or nothing."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(text.encode())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
