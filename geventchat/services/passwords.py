"""Hashes passwords with scrypt, in other processes: a few at a time, a bounded number waiting. Makes tokens.

A hash is stored as `$scrypt$ln=14,r=8,p=5$SALT$DIGEST`. Hashes of another cost can still be verified, and are replaced then.

Processes, since threads would share the lock of the interpreter and the server's share of the processor. Where a machine is
busy, a scheduler that is fair to sessions would count the hashing against the server, whatever the priority of its threads.

Invariants of Hasher:
- `_running` is the number of hashes that run, at most `at_once`. Nothing waits unless that many run.
- `_known` and `_strangers` are all that wait, at most `waiting` together.
- A greenlet that is ended from outside gives its place back: a place in the queue at once, a place at work when the hash is
  finished, whose result is dropped.
- A password is in no exception, in no `repr`, and on no command line.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hmac import compare_digest
from typing import TypeVar

import gevent
from gevent import GreenletExit, socket
from gevent.event import Event

from geventchat.chat.passwords import (
    TOKEN_BYTES,
    DamagedHash,
    HasherFull,
    HashingFailed,
    Password,
    PasswordHasher,
    Secret,
    Verified,
    token_from,
)
from geventchat.services import scrypt as program
from geventchat.services.scrypt import NO_MEMORY, memory_bytes

T = TypeVar("T")

_SALT_BYTES = 16
# The most that a stored hash can ask for; a damaged one could ask for more than there is.
_MOST_MEMORY_BYTES = 128 << 20
_MOST_PASSES = 64
# A process that has not answered by then never will.
_PATIENCE_S = 60.0

# 22 and 43 characters are 16 and 32 bytes in Base64 without padding.
_FORM = re.compile(
    r"\$scrypt\$ln=([1-9][0-9]?),r=([1-9][0-9]?),p=([1-9][0-9]?)\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{43})"
)
_ANSWER = re.compile(rb"[0-9a-f]{64}\n")


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one hash: 128 * r * 2**log_n bytes of memory, filled and read p times.

    The default takes 16 MiB and a quarter of a second.
    """

    log_n: int = 14
    r: int = 8
    p: int = 5

    def __post_init__(self) -> None:
        # The algorithm is defined for 2**log_n below 2**(16 * r).
        if not (1 <= self.log_n < 16 * self.r and 1 <= self.p <= _MOST_PASSES):
            raise ValueError(f"scrypt is not possible with {self}")
        if memory_bytes(self.log_n, self.r, self.p) > _MOST_MEMORY_BYTES:
            raise ValueError(f"scrypt takes more than {_MOST_MEMORY_BYTES} bytes with {self}")


# From a password, a salt and a cost to the digest.
Derive = Callable[[bytes, bytes, Cost], bytes]


def derive_here(password: bytes, salt: bytes, cost: Cost) -> bytes:
    """scrypt in this process, which stops everything else meanwhile; for tests and for the command line."""
    return program.scrypt(password, salt, cost.log_n, cost.r, cost.p)


def hash_here(password: Password) -> str:
    """The hash to be stored, computed in this process; for the command line."""
    return _hash(derive_here, Cost(), password)


def new_token() -> tuple[Secret, str]:
    """A new token, to be shown once, and what is stored in its place."""
    return token_from(secrets.token_bytes(TOKEN_BYTES))


class Hasher(PasswordHasher):
    """Hashes and verifies passwords. Each call blocks its greenlet, and no other.

    `origin` is the address of the client that asks, and `known` says whether it has logged in to the account before. Those
    that have and those that have not take turns, and so do the origins of each kind. Once the queue is full, a kind that has
    more than half of it makes way for the other; else an origin that has more places than another of its kind loses its last
    one to that other.
    """

    def __init__(
        self, cost: Cost | None = None, *, at_once: int = 2, waiting: int = 200, derive: Derive | None = None
    ) -> None:
        """`derive` computes one digest; it can block its greenlet. With `derive_here` everything is deterministic."""
        self._cost = cost or Cost()
        self._at_once = at_once
        self._most_waiters = waiting
        self._processes = _Processes()
        self._derive = derive or self._processes.derive
        self._running = 0
        self._known, self._strangers = _Queue(), _Queue()
        # The queue whose turn is next comes first.
        self._first, self._second = self._known, self._strangers

    def is_full(self, origin: str, known: bool = False) -> bool:
        """True if a call for this origin would raise HasherFull."""
        return self._running >= self._at_once and self._is_queue_full and self._victim(origin, known) is None

    def hash(self, password: Password, origin: str, known: bool = False) -> str:
        """The hash to be stored; raise HasherFull or HashingFailed."""
        return self._run(origin, known, partial(_hash, self._derive, self._cost, password))

    def verify(self, password: Password, stored: str, origin: str, known: bool = False) -> Verified:
        """Compare with a stored hash; raise DamagedHash if it is not one, HasherFull or HashingFailed."""
        parsed = _Hash.parse(stored)
        return self._run(origin, known, partial(_verify, self._derive, self._cost, password, parsed))

    def open(self) -> None:
        """Hash again after `close`; a new hasher is open."""
        self._processes.open()

    def close(self) -> None:
        """End the processes; what they compute fails, and so does every call until `open`."""
        self._processes.close()

    def _run(self, origin: str, known: bool, work: Callable[[], T]) -> T:
        self._take_place(origin, known)
        try:
            # A separate greenlet, so that the one that waits for it can end first.
            job = gevent.spawn(_caught, work)
        except BaseException:
            self._free_place()
            raise
        job.rawlink(self._on_finished)
        outcome: T | _Failure | GreenletExit = job.get()
        if isinstance(outcome, _Failure):
            raise outcome.error
        if isinstance(outcome, GreenletExit):
            raise HashingFailed("the hashing was ended from outside")
        return outcome

    def _take_place(self, origin: str, known: bool) -> None:
        if self._running < self._at_once:
            self._running += 1
            return
        if self._is_queue_full:
            victim = self._victim(origin, known)
            if victim is None:
                raise HasherFull("too many password hashes are waiting")
            victim.refuse()
        queue = self._known if known else self._strangers
        turn = queue.add(origin)
        try:
            turn.wait()
        except BaseException:
            if turn.granted:
                self._free_place()
            elif not turn.refused:
                queue.remove(turn)
            raise
        if turn.refused:
            raise HasherFull("too many password hashes are waiting")

    def _on_finished(self, job: object) -> None:
        self._free_place()

    def _free_place(self) -> None:
        """Hand the place to the next in turn."""
        queue = self._first if self._first.length else self._second
        if not queue.length:
            self._running -= 1
            return
        self._first, self._second = (
            (self._strangers, self._known) if queue is self._known else (self._known, self._strangers)
        )
        queue.next().grant()

    @property
    def _is_queue_full(self) -> bool:
        return self._known.length + self._strangers.length >= self._most_waiters

    def _victim(self, origin: str, known: bool) -> _Turn | None:
        """The waiting call that would lose its place in the full queue to a call for this origin; None if there is none."""
        own, other = (self._known, self._strangers) if known else (self._strangers, self._known)
        if 2 * other.length > self._most_waiters:
            return other.last_of_longest(least=1)
        return own.last_of_longest(least=own.count(origin) + 2)


class _Queue:
    """The waiting calls of one kind. Their origins take turns; the first in the dictionary is next."""

    def __init__(self) -> None:
        self._turns: dict[str, deque[_Turn]] = {}
        self.length = 0

    def count(self, origin: str) -> int:
        """The number of waiting calls of this origin."""
        return len(self._turns.get(origin, ()))

    def add(self, origin: str) -> _Turn:
        """Wait for a turn of this origin."""
        turn = _Turn(self, origin)
        self._turns.setdefault(origin, deque()).append(turn)
        self.length += 1
        return turn

    def remove(self, turn: _Turn) -> None:
        """Remove a call from the queue."""
        turns = self._turns[turn.origin]
        turns.remove(turn)
        if not turns:
            del self._turns[turn.origin]
        self.length -= 1

    def next(self) -> _Turn:
        """Take the first call of the next origin, which then goes to the end."""
        origin, turns = next(iter(self._turns.items()))
        turn = turns[0]
        self.remove(turn)
        if turns:
            self._turns[origin] = self._turns.pop(origin)
        return turn

    def last_of_longest(self, least: int) -> _Turn | None:
        """The last call of the origin with the most waiting calls, if it has at least this many."""
        # Of several such origins, the one whose turn is last.
        longest = max(reversed(self._turns.values()), key=len, default=None)
        return None if longest is None or len(longest) < least else longest[-1]


class _Turn(Event):
    """A waiting call, until it can run or is refused."""

    def __init__(self, queue: _Queue, origin: str) -> None:
        super().__init__()
        self.origin = origin
        self.granted = False
        self.refused = False
        self._queue = queue

    def grant(self) -> None:
        self.granted = True
        self.set()

    def refuse(self) -> None:
        self._queue.remove(self)
        self.refused = True
        self.set()


@dataclass(frozen=True, slots=True)
class _Failure:
    """The exception that ended some work, wrapped because gevent would print it."""

    error: Exception


def _caught(work: Callable[[], T]) -> T | _Failure:
    try:
        return work()
    except Exception as error:
        return _Failure(error)


# --- Hashes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Hash:
    """A hash and how it was made."""

    cost: Cost
    salt: bytes
    digest: bytes = field(repr=False)

    @staticmethod
    def parse(stored: str) -> _Hash:
        match = _FORM.fullmatch(stored)
        if match is None:
            raise DamagedHash("the stored hash of a password is not $scrypt$ln=…,r=…,p=…$SALT$DIGEST")
        log_n, r, p, salt, digest = match.groups()
        try:
            cost = Cost(int(log_n), int(r), int(p))
        except ValueError as error:
            raise DamagedHash(f"the stored hash of a password cannot be computed: {error}") from None
        parsed = _Hash(cost, b64decode(salt + "=="), b64decode(digest + "="))
        if str(parsed) != stored:
            raise DamagedHash("the stored hash of a password has a salt or digest of broken Base64")
        return parsed

    def __str__(self) -> str:
        salt, digest = (b64encode(part).rstrip(b"=").decode() for part in (self.salt, self.digest))
        return f"$scrypt$ln={self.cost.log_n},r={self.cost.r},p={self.cost.p}${salt}${digest}"


def _hash(derive: Derive, cost: Cost, password: Password) -> str:
    salt = secrets.token_bytes(_SALT_BYTES)
    return str(_Hash(cost, salt, derive(password.reveal().encode(), salt, cost)))


def _verify(derive: Derive, cost: Cost, password: Password, stored: _Hash) -> Verified:
    digest = derive(password.reveal().encode(), stored.salt, stored.cost)
    if not compare_digest(digest, stored.digest):
        return Verified(False)
    return Verified(True, None if stored.cost == cost else _hash(derive, cost, password))


# --- Processes -------------------------------------------------------------------------------------------------------


class _Processes:
    """Computes digests in processes: one for each call at the same time. They are kept for the next calls."""

    def __init__(self) -> None:
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._closed = False

    def derive(self, password: bytes, salt: bytes, cost: Cost) -> bytes:
        """Compute a digest; raise HashingFailed."""
        while self._idle:
            # It can have ended since the last call, which cannot always be seen before it is asked.
            with suppress(HashingFailed):
                return self._derive_in(self._idle.pop(), password, salt, cost)
        if self._closed:
            raise HashingFailed("passwords are no longer hashed")
        try:
            process = _Process()
        except OSError as error:
            raise HashingFailed(f"the process that hashes passwords does not start: {error}") from None
        return self._derive_in(process, password, salt, cost)

    def _derive_in(self, process: _Process, password: bytes, salt: bytes, cost: Cost) -> bytes:
        self._busy.add(process)
        try:
            digest = process.derive(password, salt, cost)
        except BaseException:
            process.close()
            raise
        finally:
            self._busy.discard(process)
        self._idle.append(process)
        return digest

    def open(self) -> None:
        """Start processes again after `close`."""
        self._closed = False

    def close(self) -> None:
        """End them all, and start no more: a call can still wait for its turn."""
        self._closed = True
        for process in (*self._idle, *self._busy):
            process.close()
        self._idle.clear()


def _command() -> list[str]:
    return [sys.executable, "-I", "-S", program.__file__]


class _Process:
    """One process, which computes one digest at a time."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        # A program that is started with a non-blocking standard input takes a pause for its end.
        os.set_blocking(theirs.fileno(), True)
        try:
            self._process = subprocess.Popen(
                _command(),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                # In a separate session the terminal's Ctrl-C does not reach it, and Linux schedules it as a group.
                start_new_session=True,
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self._socket.settimeout(_PATIENCE_S)

    def derive(self, password: bytes, salt: bytes, cost: Cost) -> bytes:
        """Compute a digest; raise HashingFailed."""
        request = f"{cost.log_n} {cost.r} {cost.p} {salt.hex()} {password.hex()}\n".encode()
        try:
            self._socket.sendall(request)
            answer = b""
            while not answer.endswith(b"\n"):
                received = self._socket.recv(4_096)
                if not received:
                    raise HashingFailed("the process that hashes passwords has ended")
                answer += received
        except OSError as error:
            raise HashingFailed(f"the process that hashes passwords does not answer: {error}") from None
        if answer.rstrip() == NO_MEMORY:
            raise HashingFailed("the process that hashes passwords has no memory")
        if not _ANSWER.fullmatch(answer):
            raise HashingFailed(
                f"the process that hashes passwords answers {len(answer)} bytes that are not a digest"
            )
        return bytes.fromhex(answer.decode())

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
