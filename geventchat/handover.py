"""How a server hands its clients over to the program that replaces it, as two processes and a socket. Knows no chat.

The old process starts the new one with one end of a pair of Unix sockets. The new one says what it is. Once the old one has
come to rest, it sends its state, as JSON and bytes in files without names, and its descriptors. The new one says that it has
understood everything. Only the last word of the old one, `go`, lets it do anything: until then the old one can end it and go
on as if nothing had happened, and without that word the new one ends itself.

Invariants:
- The new process neither reads nor writes a client's socket or the data directory before `go`.
- The state is JSON. Both sides check its version, and the old one refuses a new one of another version.
- Everything from the rest of the old process on blocks it, for a bounded time.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from geventchat.clock import Clock

# Of the state, whatever its parts are: to be increased with each change to any of them.
STATE_VERSION = 1
VARIABLE = "CHAT_UPGRADE_SOCKET"

_READY_S = 30.0
_UNDERSTOOD_S = 20.0
_END_S = 5.0
_POLL_S = 0.05
# The kernel takes at most 253 descriptors in one message.
_DESCRIPTORS_AT_ONCE = 250
_MOST_MESSAGE_BYTES = 65_536

State = dict[str, Any]
Buffer = bytes | bytearray | memoryview


class HandoverFailed(Exception):
    """The new process cannot take over. The message says why."""


# --- Buffers ---------------------------------------------------------------------------------------------------------


class Buffers:
    """Bytes that wait for clients, beside the state. What several share is kept once."""

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._size = 0
        # By the identity of what `_parts` holds.
        self._offsets: dict[int, int] = {}

    def keep(self, buffer: Buffer) -> list[int]:
        """Keep a buffer; returns where it is."""
        whole: Any = buffer.obj if isinstance(buffer, memoryview) else buffer
        offset = self._offsets.get(id(whole))
        if offset is None:
            offset = self._offsets[id(whole)] = self._size
            self._parts.append(whole)
            self._size += len(whole)
        return [offset + _offset(buffer, whole), len(buffer)]

    def file(self) -> int:
        """A new file with everything in it."""
        return _file(self._parts)


def _file(parts: Iterable[Any]) -> int:
    """A file without a name, with these bytes in it."""
    descriptor = os.memfd_create("geventchat", os.MFD_CLOEXEC)
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[os.write(descriptor, view) :]
    return descriptor


def _offset(buffer: Buffer, whole: Any) -> int:
    """Where a view begins in what it is a view of."""
    if not isinstance(buffer, memoryview) or len(buffer) == len(whole):
        return 0
    # Nearly always what a socket has not taken: the end.
    end = len(whole) - len(buffer)
    return end if memoryview(whole)[end:] == buffer else bytes(whole).find(buffer)


class KeptBuffers:
    """The buffers of another process."""

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        self._bytes = _read_all(descriptor, size)
        os.close(descriptor)

    def find(self, kept: Sequence[int]) -> Buffer:
        """The bytes that were kept."""
        start, size = kept
        return memoryview(self._bytes)[start : start + size]


# --- Messages --------------------------------------------------------------------------------------------------------


def _send(sock: socket.socket, message: Mapping[str, Any]) -> None:
    sock.sendall(json.dumps(message).encode() + b"\n")


def _receive(sock: socket.socket, within_s: float | None) -> dict[str, Any] | None:
    """The next message; None when the other side has ended. Raises TimeoutError."""
    sock.settimeout(within_s)
    line = b""
    # One byte at a time: descriptors come with the bytes behind the line.
    while not line.endswith(b"\n") and len(line) < _MOST_MESSAGE_BYTES:
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


def _read_all(descriptor: int, size: int) -> bytes:
    chunks = []
    at = 0
    while at < size:
        chunk = os.pread(descriptor, min(size - at, 1 << 24), at)
        if not chunk:
            break
        chunks.append(chunk)
        at += len(chunk)
    return b"".join(chunks)


# --- The two sides ---------------------------------------------------------------------------------------------------


class Successor:
    """The new process, as the old one sees it."""

    def __init__(self, python: str, words: Sequence[str], clock: Clock) -> None:
        """Start it. Raises HandoverFailed."""
        self._clock = clock
        self._socket, theirs = socket.socketpair()
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
        }
        environment[VARIABLE] = str(theirs.fileno())
        try:
            self._process = subprocess.Popen(
                [python, "-m", "geventchat", *words], pass_fds=(theirs.fileno(),), env=environment
            )
        except OSError as error:
            self._socket.close()
            raise HandoverFailed(f"cannot start {python}: {error.strerror}") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def hello(self, sleep: Any) -> dict[str, Any]:
        """What it says of itself, once it is ready. `sleep` lets clients go on meanwhile."""
        deadline = self._clock.monotonic() + _READY_S
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not poll.poll(0):
            if self._clock.monotonic() > deadline:
                raise HandoverFailed(f"the new program was not ready within {_READY_S:g} s")
            sleep(_POLL_S)
        hello = self._receive(_END_S)
        if hello.get("state") != STATE_VERSION:
            raise HandoverFailed(
                f"the new program hands over version {hello.get('state')} of the state, and this one {STATE_VERSION}; restart"
            )
        return hello

    def hand_over(self, state: State, buffers: Buffers, descriptors: Sequence[int]) -> None:
        """Send everything, and wait until it is understood. Blocks."""
        files: list[int] = []
        try:
            files.append(_file([json.dumps(state).encode()]))
            files.append(buffers.file())
            self._socket.settimeout(_UNDERSTOOD_S)
            _send(self._socket, {"descriptors": len(descriptors)})
            _send_descriptors(self._socket, [*files, *descriptors])
        except OSError as error:
            raise HandoverFailed(f"the new program takes nothing: {error.strerror or error}") from error
        finally:
            for file in files:
                os.close(file)
        answer = self._receive(_UNDERSTOOD_S)
        if "understood" not in answer:
            raise HandoverFailed(str(answer.get("error", "the new program has understood nothing")))

    def go(self) -> None:
        """Let it serve the clients. From now on this process must not."""
        try:
            _send(self._socket, {"go": True})
        except OSError as error:
            raise HandoverFailed(f"the new program has ended: {error.strerror or error}") from error

    def end(self) -> None:
        """End it, if it has not ended: it has not been told to go."""
        self._socket.close()
        with suppress(OSError):
            self._process.send_signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)

    def _receive(self, within_s: float) -> dict[str, Any]:
        try:
            message = _receive(self._socket, within_s)
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


# What systemd has said to this process alone.
_NOT_INHERITED = ("LISTEN_", "WATCHDOG_PID")


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What a new process gets from the old one."""

    state: State
    buffers: KeptBuffers
    descriptors: list[int]


class Predecessor:
    """The old process, as the new one sees it."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)

    @staticmethod
    def find(environment: Mapping[str, str]) -> Predecessor | None:
        """The old process, if there is one."""
        descriptor = environment.get(VARIABLE, "")
        return Predecessor(int(descriptor)) if descriptor.isdecimal() else None

    def receive(self, hello: Mapping[str, Any]) -> HandedOver:
        """Say that this process is ready, and wait for what it takes over. Ends the process if nothing comes."""
        _send(self._socket, {"state": STATE_VERSION, **hello})
        # The old process has to come to rest first.
        message = _receive(self._socket, None)
        if message is None:
            sys.exit("geventchat: the old process goes on")
        state, buffers, *descriptors = _receive_descriptors(self._socket, message["descriptors"] + 2)
        read: State = json.loads(_read_all(state, os.fstat(state).st_size))
        os.close(state)
        return HandedOver(read, KeptBuffers(buffers), descriptors)

    def understood(self) -> None:
        """Say that everything is understood, and wait for the word to go. Ends the process without it."""
        _send(self._socket, {"understood": True})
        if _receive(self._socket, None) is None:
            os._exit(1)
        self._socket.close()

    def refuse(self, why: str) -> None:
        """Say why this process cannot take over."""
        with suppress(OSError):
            _send(self._socket, {"error": why})
