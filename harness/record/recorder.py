"""A proxy that records what passes through it as a transcript.

- Clients' actions are queued and forwarded one at a time; the next one waits until the server has been quiet. So the cause
  of every line is certain, and a play of the transcript, turn by turn, has the same order.
- What the server sends is passed on at once. It belongs to the action that is being handled, or, when the server had been
  quiet, to a `wait`.
- The transcript is written whenever all clients have left, and at the end, also if that is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from harness.language.fences import Fence
from harness.language.parser import parse
from harness.language.renderer import render
from harness.language.steps import ConnectionAction, Ending
from harness.record.transcript import (
    Acted,
    Connected,
    LoggedAction,
    LoggedTurn,
    Sent,
    Waited,
    split_lines,
    transcript,
)
from harness.stage.kernel import PeerProbe, SocketDiagnostics, TcpState
from harness.stage.limits import LimitClock
from harness.targets.choice import UsageError

QUIET_S = 0.05
"""How long the server must be quiet before the next action is forwarded; too short for a typist to notice."""

MAX_TURN_S = 2.0
"""A server that is never quiet gets the next action after this time."""

READ_WITHIN_S = 10.0
"""A server that does not read what one client has sent gets the next action after this time."""

LEAVES_WITHIN_S = 0.2
"""How long a client that sends no more is watched, to see whether it is gone or only sends no more: the kernel of a dying
process ends its connection before it gives up the socket."""

_LOOK_S = 0.001
_CHUNK_BYTES = 65536
_ABORT = b"\x01\0\0\0\0\0\0\0"


def record(
    connect: tuple[str, int],
    listen: tuple[str, int],
    out: Path,
    fence: Fence | None = None,
    announce: Callable[[str], None] = lambda text: print(text, flush=True),
) -> None:
    """Run the proxy until it is interrupted. Port 0 listens on a free port, which the first announcement names."""
    asyncio.run(_record(connect, listen, out, fence, announce))


async def _record(
    connect: tuple[str, int],
    listen: tuple[str, int],
    out: Path,
    fence: Fence | None,
    announce: Callable[[str], None],
) -> None:
    stop = asyncio.Event()
    with _listening(listen) as listener, _set_on_signal(stop):
        recorder = Recorder(connect, out, fence)
        host, port = listener.getsockname()[:2]
        announce(
            f"recording: connect with `nc {host} {port}`; Ctrl-C ends the recording of {connect[0]}:{connect[1]}"
        )
        try:
            await recorder.run(listener, stop)
        finally:
            written = recorder.write()
            if written:
                announce(
                    f"written: {out}; passwords after LOGIN and the like are replaced, other secrets are not"
                )
    if not written:
        announce("nothing written: no client connected")


@contextlib.contextmanager
def _listening(address: tuple[str, int]) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise UsageError(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from error
        listener.listen(128)
        listener.setblocking(False)
        yield listener


@contextlib.contextmanager
def _set_on_signal(stop: asyncio.Event) -> Iterator[None]:
    """Set the event on Ctrl-C and SIGTERM, instead of an exception in whichever task runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


class _Connection:
    """One client's connection through the proxy."""

    def __init__(self, number: int, client: socket.socket) -> None:
        self.number = number
        self.client = client
        self.server: socket.socket | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.ended = False
        self.delivered_bytes = 0
        self.read_bytes = 0
        """How much of that the client is known to have read."""

    @property
    def read_everything(self) -> bool:
        return self.read_bytes == self.delivered_bytes


class Recorder:
    def __init__(self, connect: tuple[str, int], out: Path, fence: Fence | None) -> None:
        self._connect = connect
        self._out = out
        self._fence = fence
        self._log: list[LoggedTurn] = []
        self._turn: LoggedTurn | None = None
        """The current turn; None while the server is quiet."""
        self._last_action = time.monotonic()
        self._clock = LimitClock(lambda: (os.getpid(),))
        """For limits: it stands still while the recorder waits for a processor, since then it sees nothing."""
        self._connections: list[_Connection] = []
        self._diagnostics = SocketDiagnostics()

    # The session

    async def run(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Accept clients until `stop` is set."""
        self._loop = asyncio.get_running_loop()
        self._actions: asyncio.Queue[tuple[_Connection, LoggedAction]] = asyncio.Queue()
        self._received = asyncio.Event()
        self._error: asyncio.Future[None] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._start(self._accept(listener))
        self._start(self._handle_actions())
        stopped = self._loop.create_task(stop.wait())
        try:
            ends: set[asyncio.Future[Any]] = {stopped, self._error}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._error.done():
                self._error.result()
        finally:
            stopped.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(stopped, *self._tasks, return_exceptions=True)
            for connection in self._connections:
                self._close(connection)
            self._diagnostics.close()
            self._error.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._error.done():
            self._error.set_exception(error)

    def write(self) -> bool:
        """Write the transcript so far; False if it is empty."""
        if not self._log:
            return False
        script = transcript(self._log, f"recorded from {self._connect[0]}:{self._connect[1]}", self._fence)
        text = render(script)
        if parse(text, str(self._out)) != script:
            raise AssertionError(f"the recorded script does not parse as it was written:\n{text}")
        new = self._out.with_name(f".{self._out.name}.{os.getpid()}")
        try:
            new.write_bytes(text.encode())
            os.replace(new, self._out)
        except OSError as error:
            raise UsageError(f"cannot write {self._out}: {error.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
        return True

    # Clients to server

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = await self._loop.sock_accept(listener)
            except OSError as error:
                raise UsageError(f"cannot accept a client: {error.strerror}") from error
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(len(self._connections) + 1, client)
            self._connections.append(connection)
            self._actions.put_nowait((connection, Connected(connection.number)))

    async def _handle_actions(self) -> None:
        while True:
            connection, action = await self._actions.get()
            if connection.ended:
                continue  # the server has already ended the connection
            self._turn = self._log_turn(action)
            await self._hand_on(connection, action)
            self._last_action = time.monotonic()
            await self._until_read(connection)
            await self._until_quiet()
            if all(one.ended for one in self._connections):
                # What cannot be written now is written, or reported, at the end.
                with contextlib.suppress(UsageError):
                    self.write()

    async def _hand_on(self, connection: _Connection, action: LoggedAction) -> None:
        server = connection.server
        if server is None:
            await self._open(connection)
            return
        try:
            match action:
                case Sent(_, data):
                    await self._loop.sock_sendall(server, data)
                case Acted(_, ConnectionAction.HALF_CLOSES):
                    gone = await self._is_gone(connection)
                    if connection.ended:
                        return  # the server has ended it meanwhile
                    if gone:
                        self._log[-1].action = Acted(connection.number, ConnectionAction.CLOSES)
                        self._close(connection)
                    else:
                        server.shutdown(socket.SHUT_WR)
                case Acted(_, left):
                    if left is ConnectionAction.ABORTS:
                        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                    self._close(connection)
        except OSError:
            # The server has just ended the connection; reading from it finds out how.
            pass

    async def _open(self, connection: _Connection) -> None:
        host, port = self._connect
        try:
            family = (await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0][0]
            connection.server = socket.socket(family)
            connection.server.setblocking(False)
            await self._loop.sock_connect(connection.server, (host, port))
        except (ConnectionRefusedError, ConnectionResetError) as error:
            # A server can reset a connection before its establishment has been noticed here.
            reset = isinstance(error, ConnectionResetError)
            self._end(connection, Ending.RESET if reset else Ending.REFUSED)
            return
        except BaseException as error:  # also when the recording ends meanwhile
            self._forget_connect()
            if isinstance(error, OSError):
                raise UsageError(f"cannot connect to {host}:{port}: {error.strerror}") from error
            raise
        connection.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.tasks = [
            self._start(self._read_client(connection)),
            self._start(self._read_server(connection, connection.server)),
        ]

    async def _read_client(self, connection: _Connection) -> None:
        def act(action: ConnectionAction) -> None:
            self._actions.put_nowait((connection, Acted(connection.number, action)))

        while True:
            try:
                data = await self._loop.sock_recv(connection.client, _CHUNK_BYTES)
            except OSError:
                # A program that is killed, or that closes, with something unread resets its connection.
                act(ConnectionAction.ABORTS if connection.read_everything else ConnectionAction.CLOSES)
                return
            if not data:
                act(ConnectionAction.HALF_CLOSES)  # or it is gone: that is decided when its turn comes
                return
            for line in split_lines(data):
                self._actions.put_nowait((connection, Sent(connection.number, line)))

    async def _is_gone(self, connection: _Connection) -> bool:
        """An end of stream looks the same whether the client still reads or is gone, but its kernel knows."""
        limit = self._clock.limit(LEAVES_WITHIN_S)
        probe = self._probe(connection.client)
        while probe is not None and (peer := probe.peer_state()) is not None:
            if not peer.owned or peer.state is TcpState.CLOSE:
                return True
            if limit.over:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    def _probe(self, sock: socket.socket) -> PeerProbe | None:
        """Observes the other side of a connection."""
        try:
            return PeerProbe(self._diagnostics, sock.getsockname(), sock.getpeername())
        except OSError:
            return None  # it has been reset

    # Server to clients

    async def _read_server(self, connection: _Connection, server: socket.socket) -> None:
        while True:
            try:
                data = await self._loop.sock_recv(server, _CHUNK_BYTES)
            except OSError:
                self._end(connection, Ending.RESET)
                return
            if not data:
                self._end(connection, Ending.CLOSED)
                return
            self._current_turn().received.setdefault(connection.number, bytearray()).extend(data)
            self._received.set()
            connection.delivered_bytes += len(data)
            try:
                await self._loop.sock_sendall(connection.client, data)
            except OSError:
                continue  # the client has just left; reading from it finds out how
            self._start(self._note_what_is_read(connection, connection.delivered_bytes))

    async def _note_what_is_read(self, connection: _Connection, delivered_bytes: int) -> None:
        """Note when the client has read this much. It can disappear at any time, and then this is unknown."""
        probe, wait_s = self._probe(connection.client), _LOOK_S
        while probe is not None and delivered_bytes == connection.delivered_bytes and not connection.ended:
            peer = probe.peer_state()
            if peer is None:  # not on this machine
                connection.read_bytes = delivered_bytes
                return
            if peer.state is TcpState.CLOSE:
                return
            # In this order: what has arrived is unread or read.
            if (
                probe.received() >= delivered_bytes
                and (now := probe.peer_state()) is not None
                and now.state is not TcpState.CLOSE
                and not now.unread
            ):
                connection.read_bytes = delivered_bytes
                return
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, QUIET_S)

    def _end(self, connection: _Connection, ending: Ending) -> None:
        """The server has ended the connection."""
        self._current_turn().ends[connection.number] = ending
        self._received.set()
        self._close(connection)

    def _close(self, connection: _Connection) -> None:
        connection.ended = True
        for task in connection.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        for sock in (connection.client, connection.server):
            if sock is not None and sock.fileno() >= 0:
                # A descriptor that is closed while the loop still watches it could be another socket's next.
                self._loop.remove_reader(sock)
                self._loop.remove_writer(sock)
                sock.close()

    # Turns

    def _current_turn(self) -> LoggedTurn:
        """The turn to which received data belongs now."""
        if self._turn is None:
            now = time.monotonic()
            self._turn = self._log_turn(Waited(now - self._last_action))
            self._last_action = now
            self._start(self._until_quiet())
        return self._turn

    def _log_turn(self, action: LoggedAction) -> LoggedTurn:
        turn = LoggedTurn(action, time.time())
        self._log.append(turn)
        return turn

    def _forget_connect(self) -> None:
        """The server does not know of the connection that was logged last: what it sent meanwhile it sent by itself."""
        turn = self._log[-1]
        if turn.had_no_effect:
            self._log.pop()
        else:
            turn.action = Waited(time.monotonic() - self._last_action)

    async def _until_read(self, connection: _Connection) -> None:
        """Wait until the server has read what its client has sent, if it is on this machine: a busy one is not quiet."""
        probe = self._probe(connection.server) if connection.server is not None else None
        limit = self._clock.limit(READ_WITHIN_S)
        while (
            probe is not None and not limit.over and (peer := probe.peer_state()) is not None and peer.unread
        ):
            await asyncio.sleep(_LOOK_S)

    async def _until_quiet(self) -> None:
        turn = self._turn
        longest = self._clock.limit(MAX_TURN_S)
        while not longest.over and await self._receives_within(QUIET_S):
            pass
        if self._turn is turn:
            self._turn = None

    async def _receives_within(self, seconds: float) -> bool:
        limit = self._clock.limit(seconds)
        self._received.clear()
        received = self._loop.create_task(self._received.wait())
        try:
            # Not `asyncio.wait_for`, which before Python 3.12 ignores the end of the recording if something comes with it.
            while not (limit.over or received.done()):
                await asyncio.wait({received}, timeout=limit.pause_s)
        finally:
            received.cancel()
        return self._received.is_set()
