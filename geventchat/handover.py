"""Hands the clients of a server over to the process that replaces it, through a socket. Knows no chat.

The old process starts the new one with one end of a pair of Unix sockets. The messages, in order:

- new: `hello` with its versions and the paths in its settings, once it has imported and read all that it needs;
- old: `ahead`, the state that can be sent while it still serves clients; new: `prepared`;
- old, once it has stopped serving: the rest of its state and its descriptors, in parts; the new process takes each over while
  the old one makes the next;
- new: `understood`; old: `go`; new: `serving`.

If anything goes wrong before `serving`, the old process kills the new one and continues to serve. The new process exits if the
old one ends before `go`.

Invariants:
- The new process neither reads nor writes a client's socket before `serving`, nor the data directory before `go`.
- The state is JSON. The state and the bytes that wait for clients are sent in unnamed files. The old process refuses a new one
  with another version of the state.
- Once the old process has stopped serving, each step blocks it for a bounded time.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geventchat.clock import Clock

# The version of the state: increase it with every change to any part. A test fails when the keys of the state, or how they are
# nested, change without it.
STATE_VERSION = 8
VARIABLE = "CHAT_UPGRADE_SOCKET"

_READY_S = 30.0
_UNDERSTOOD_S = 20.0
_SERVING_S = 10.0
_END_S = 5.0
_POLL_S = 0.02
# The kernel takes at most 253 descriptors in one message.
_DESCRIPTORS_AT_ONCE = 250
_MOST_MESSAGE_BYTES = 65_536

State = dict[str, Any]
# A part of the state with its descriptors.
Part = tuple[State, Sequence[int]]
Buffer = bytes | bytearray | memoryview


class HandoverFailed(Exception):
    """The new process cannot take over; the message says why."""


# --- Buffers ---------------------------------------------------------------------------------------------------------


class Buffers:
    """The bytes that wait for clients. A buffer that several clients share is kept once."""

    def __init__(self) -> None:
        self._kept: list[Any] = []
        # The index in `_kept`, by the identity of the buffer.
        self._places: dict[int, int] = {}
        self._taken = 0

    def keep(self, buffer: Buffer) -> list[int]:
        """Keep a buffer; returns its index, offset and size."""
        whole: Any = buffer.obj if isinstance(buffer, memoryview) else buffer
        place = self._places.get(id(whole))
        if place is None:
            place = self._places[id(whole)] = len(self._kept)
            self._kept.append(whole)
        return [place, _offset(buffer, whole), len(buffer)]

    def take_new(self) -> list[Any]:
        """The buffers that were added since the last call."""
        new = self._kept[self._taken :]
        self._taken = len(self._kept)
        return new


def _file(parts: Iterable[Any]) -> int:
    """An unnamed file with these bytes."""
    descriptor = os.memfd_create("geventchat", os.MFD_CLOEXEC)
    try:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(descriptor, view) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _offset(buffer: Buffer, whole: Any) -> int:
    """The offset of a view in its underlying buffer."""
    if not isinstance(buffer, memoryview) or len(buffer) == len(whole):
        return 0
    # Nearly always the end of the buffer, which the socket has not accepted.
    end = len(whole) - len(buffer)
    return end if memoryview(whole)[end:] == buffer else bytes(whole).find(buffer)


class KeptBuffers:
    """The buffers that another process kept."""

    def __init__(self) -> None:
        self._kept: list[Buffer] = []

    def add(self, content: bytes, sizes: Iterable[int]) -> None:
        """Add the next buffers, of these sizes."""
        at = 0
        for size in sizes:
            self._kept.append(content[at : at + size])
            at += size

    def find(self, kept: Sequence[int]) -> Buffer:
        """The bytes that `Buffers.keep` returned this for."""
        place, start, size = kept
        return memoryview(self._kept[place])[start : start + size]


# --- Messages --------------------------------------------------------------------------------------------------------


def _send(sock: socket.socket, message: Mapping[str, Any]) -> None:
    sock.sendall(json.dumps(message).encode() + b"\n")


def _receive(sock: socket.socket, left_s: Callable[[], float] | None = None) -> dict[str, Any] | None:
    """The next message; None when the other process has ended. Raises TimeoutError when no time is left."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    line = b""
    # One byte at a time: a longer read would drop the descriptors that come with the bytes after the line.
    while not line.endswith(b"\n") and len(line) < _MOST_MESSAGE_BYTES:
        left_ms = None if left_s is None else max(0.0, 1000 * left_s())
        # Polled even after the deadline: this process can have been stopped while the other was not.
        if not poll.poll(left_ms):
            raise TimeoutError
        byte = sock.recv(1)
        if not byte:
            return None
        line += byte
    message = json.loads(line)
    return message if isinstance(message, dict) else {}


def _send_descriptors(sock: socket.socket, descriptors: Sequence[int]) -> None:
    for at in range(0, len(descriptors), _DESCRIPTORS_AT_ONCE):
        socket.send_fds(sock, [b"d"], descriptors[at : at + _DESCRIPTORS_AT_ONCE])


def _receive_descriptors(sock: socket.socket, number: int) -> list[int]:
    found: list[int] = []
    while len(found) < number:
        data, descriptors, flags, _ = socket.recv_fds(sock, 1, _DESCRIPTORS_AT_ONCE, socket.MSG_CMSG_CLOEXEC)
        if not data or flags & socket.MSG_CTRUNC:
            raise HandoverFailed(f"{number - len(found)} of {number} descriptors are missing")
        found += descriptors
    return found


def _read_all(descriptor: int) -> bytes:
    """Read a file to its end, and close it."""
    chunks = []
    at = 0
    while chunk := os.pread(descriptor, 1 << 24, at):
        chunks.append(chunk)
        at += len(chunk)
    os.close(descriptor)
    return b"".join(chunks)


# --- The two sides ---------------------------------------------------------------------------------------------------


class Successor:
    """The new process, as the old one sees it."""

    def __init__(
        self, python: str, words: Sequence[str], sleep: Callable[[float], object], clock: Clock
    ) -> None:
        """Start the process. Raises HandoverFailed. `sleep` lets other greenlets run.

        `python` is the interpreter of another environment, whose program is started; if it is empty, the program is the same.
        """
        self._sleep = sleep
        self._clock = clock
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
        }
        try:
            self._socket, theirs = socket.socketpair()
        except OSError as error:
            raise HandoverFailed(f"no socket for the new program: {error.strerror}") from error
        # Applies to sending; receiving has its own deadlines.
        self._socket.settimeout(_UNDERSTOOD_S)
        environment[VARIABLE] = str(theirs.fileno())
        try:
            self._process = subprocess.Popen(
                [*_command(python), *words], pass_fds=(theirs.fileno(),), env=environment
            )
        except (OSError, ValueError) as error:
            self._socket.close()
            # ValueError: the path has a null character.
            why = error.strerror if isinstance(error, OSError) else error
            raise HandoverFailed(f"cannot start {python or sys.executable}: {why}") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def hello(self) -> dict[str, Any]:
        """Wait for the `hello` of the new process. Clients are served meanwhile."""
        hello = self._wait_for("ready")
        if hello.get("state") != STATE_VERSION:
            raise HandoverFailed(
                f"the new program hands over version {hello.get('state')} of the state, and this one {STATE_VERSION}; restart"
            )
        return hello

    def prepare(self, ahead: Iterable[Any]) -> None:
        """Send the state that can go ahead, and wait until the new process has read it. Clients are served meanwhile."""
        lines: list[bytes] = []
        for one in ahead:
            lines.append(json.dumps(one).encode() + b"\n")
            self._sleep(0)
        self._send({"ahead": True}, [lines])
        self._expect("prepared", self._wait_for("prepared"))

    def hand_over(self, parts: Iterable[Part], buffers: Buffers) -> None:
        """Send the rest, part by part, and wait until the new process has taken it over. Blocks."""
        for state, descriptors in parts:
            new = buffers.take_new()
            files = [[json.dumps([state, list(map(len, new))]).encode()], new]
            self._send({"descriptors": len(descriptors)}, files, descriptors)
        self._send({"complete": True})
        self._expect("understood", self._receive(_UNDERSTOOD_S))

    def go(self) -> None:
        """Let the new process serve, and wait until it does. From then on this process must not. Blocks."""
        self._send({"go": True})
        self._expect("serving", self._receive(_SERVING_S))

    def end(self) -> None:
        """Kill the new process, which does not serve yet."""
        self._socket.close()
        with suppress(OSError):
            self._process.send_signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)

    def _send(
        self,
        message: Mapping[str, Any],
        contents: Sequence[Iterable[Any]] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send a message, then files with these contents and the descriptors."""
        files: list[int] = []
        try:
            files.extend(map(_file, contents))
            _send(self._socket, message)
            _send_descriptors(self._socket, [*files, *descriptors])
        except (BrokenPipeError, ConnectionResetError):
            # The new process can have sent the reason before it ended.
            raise _unexpected(self._receive(_END_S)) from None
        except OSError as error:
            raise HandoverFailed(f"the new program takes nothing: {error.strerror or error}") from error
        finally:
            for file in files:
                os.close(file)

    @staticmethod
    def _expect(wanted: str, answer: Mapping[str, Any]) -> None:
        if wanted not in answer:
            raise _unexpected(answer)

    def _wait_for(self, what: str) -> dict[str, Any]:
        """Wait for the next message; `what` is for the error. Clients are served meanwhile."""
        left_s = self._countdown(_READY_S)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not poll.poll(0):
            if left_s() < 0:
                raise HandoverFailed(f"the new program was not {what} within {_READY_S:g} s")
            self._sleep(_POLL_S)
        return self._receive(_END_S)

    def _countdown(self, within_s: float) -> Callable[[], float]:
        """A function that returns the seconds left."""
        deadline = self._clock.monotonic() + within_s
        return lambda: deadline - self._clock.monotonic()

    def _receive(self, within_s: float) -> dict[str, Any]:
        try:
            message = _receive(self._socket, self._countdown(within_s))
        except TimeoutError:
            raise HandoverFailed(f"the new program has not answered within {within_s:g} s") from None
        except (OSError, ValueError) as error:
            raise HandoverFailed(f"the new program does not answer: {error}") from error
        if message is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            code = self._process.returncode
            raise HandoverFailed(f"the new program has ended (exit code {code}); its messages say why")
        return message


# Starts the program as its script does, so without the working directory in `sys.path`: others could have put modules there.
# The next word is the name of the program, by which `admin --pid` finds it.
_START = (
    "import sys; sys.path = [one for one in sys.path if one]; del sys.argv[0]; "
    "from geventchat.cli import main; sys.exit(main())"
)


def _command(python: str) -> list[str]:
    if not python and _is_in_working_directory():
        return [sys.executable, "-m", "geventchat"]
    return [python or sys.executable, "-c", _START, "geventchat"]


def _is_in_working_directory() -> bool:
    """True if this program lies in the working directory, as in a clone, where the new one has to be found, too."""
    try:
        return Path(__file__).parents[1].samefile(os.curdir)
    except OSError:
        return False


# Variables of systemd that are only for the process that has them.
_NOT_INHERITED = ("LISTEN_", "WATCHDOG_PID")


def _unexpected(answer: Mapping[str, Any]) -> HandoverFailed:
    return HandoverFailed(str(answer.get("error", "the new program sent an unexpected answer")))


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The state from the old process, read part by part as it arrives."""

    parts: Iterator[Part]
    # The buffers that the parts so far refer to.
    buffers: KeptBuffers


class Predecessor:
    """The old process, as the new one sees it."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self.pid = os.getppid()
        self._socket.set_inheritable(False)

    @staticmethod
    def find(environment: Mapping[str, str]) -> Predecessor | None:
        """The old process that started this one; None if this is not an upgrade."""
        descriptor = environment.get(VARIABLE, "")
        return Predecessor(int(descriptor)) if descriptor.isdecimal() else None

    def prepare(self, hello: Mapping[str, Any]) -> Iterator[Any]:
        """Send `hello`, and return the state that is sent ahead. Exits if the old process ends."""
        self._say(state=STATE_VERSION, **hello)
        self._next()
        (file,) = _receive_descriptors(self._socket, 1)
        return map(json.loads, _read_all(file).splitlines())

    def receive(self) -> HandedOver:
        """The rest of the state. Asking for the first part sends `prepared`. Exits if the old process ends."""
        buffers = KeptBuffers()
        return HandedOver(self._parts(buffers), buffers)

    def _parts(self, buffers: KeptBuffers) -> Iterator[Part]:
        self._say(prepared=True)
        # The old process stops serving before it sends the first part.
        while "complete" not in (message := self._next()):
            state_file, buffer_file, *descriptors = _receive_descriptors(
                self._socket, message["descriptors"] + 2
            )
            state, sizes = json.loads(_read_all(state_file))
            buffers.add(_read_all(buffer_file), sizes)
            yield state, descriptors

    def understood(self) -> None:
        """Send `understood`, and wait for `go`. Exits if the old process ends."""
        self._say(understood=True)
        self._next()

    def serving(self) -> None:
        """Send `serving`: from now on this process serves the clients."""
        # If the old process has ended meanwhile, this one has to serve all the same.
        with suppress(OSError):
            _send(self._socket, {"serving": True})
        self._socket.close()

    def refuse(self, why: str) -> None:
        """Send the reason why this process cannot take over."""
        with suppress(OSError):
            _send(self._socket, {"error": why})

    def _say(self, **message: Any) -> None:
        with _ending_with_the_other():
            _send(self._socket, message)

    def _next(self) -> dict[str, Any]:
        with _ending_with_the_other():
            message = _receive(self._socket)
            if message is None:
                raise BrokenPipeError
        return message


@contextmanager
def _ending_with_the_other() -> Iterator[None]:
    try:
        yield
    except (BrokenPipeError, ConnectionResetError):
        sys.exit("geventchat: the old process goes on, or has ended")
