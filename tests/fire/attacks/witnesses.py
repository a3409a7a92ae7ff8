"""Honest people beside an attack, in a separate process so that the load does not delay them.

Readers in each dialect keep reading at 1 Mbit/s, or as fast as they can, and talk now and then. Newcomers log in one after
the other. Names are claimed when the attack asks for it. Knows what honest people see, and nothing about the attack.

`python -m tests.fire.attacks.witnesses PORTS` prints `ready`, takes `DIALECT NAME` per line from its standard input as a name
to claim, and prints a report as JSON when that ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tests.fire.attacks import plan, wire
from tests.fire.attacks.load import Client, Load, addresses
from tests.fire.attacks.target import ROOT

MBIT_S = 125_000
# Name, dialect, bytes per second (0: as fast as it can).
READERS = (
    ("reader-line", "line", MBIT_S),
    ("reader-json", "json", MBIT_S),
    ("reader-slash", "slash", MBIT_S),
    ("fast-line", "line", 0),
    ("fast-json", "json", 0),
    ("fast-slash", "slash", 0),
)
NAMES = tuple(name for name, _, _ in READERS)
_TALK_S = 1.0
_NEWCOMER_S = 0.5
# Addresses that no attack uses.
_FIRST_ADDRESS = 2_000
_ADDRESSES = 100


@dataclass(frozen=True, slots=True)
class Report:
    """The observations of honest people."""

    # Readers that were disconnected, and how.
    disconnected: tuple[str, ...]
    received: dict[str, int]
    # How many bytes a slow reader was behind a fast one of its dialect, at most.
    behind_bytes: int
    # How long each newcomer waited for the answer to its login, so far if there was none.
    newcomers_ms: tuple[float, ...]
    refused: int
    names_claimed: int
    names_taken: int
    # The longest time in which this process did not look at its sockets.
    paused_s: float


class Witnesses:
    """Starts them, and asks what they saw."""

    def __init__(self, ports: dict[str, int]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fire.attacks.witnesses", json.dumps(ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            # Ctrl-C is for the one who started all this, and that one ends it.
            start_new_session=True,
            bufsize=0,
        )

    def __enter__(self) -> Witnesses:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_until_ready(self) -> None:
        """Wait until all readers are logged in."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the honest readers could not log in"

    def claim(self, dialect: str, name: str) -> None:
        """Log in under this name now."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{dialect} {name}\n".encode())

    def report(self) -> Report:
        """End, and say what they saw."""
        out, _ = self._process.communicate(timeout=30)
        values = json.loads(out.splitlines()[-1])
        for key in ("disconnected", "newcomers_ms"):
            values[key] = tuple(values[key])
        return Report(**values)


class _Login:
    """A newcomer that logs in, is answered, and leaves."""

    def __init__(self, load: Load, address: tuple[str, int], source: str, dialect: str, name: str) -> None:
        self.began = time.monotonic()
        self._dialect = dialect
        self.client = load.connect(address, source=source)
        self.client.send(wire.login(dialect, name))

    @property
    def answered(self) -> bool:
        return bool(self.client.received) or not self.client.open

    @property
    def welcome(self) -> bool:
        return wire.WELCOME[self._dialect] in self.client.tail or self.client.received > 4_096

    @property
    def taken(self) -> bool:
        return b"taken" in self.client.tail

    @property
    def waited_ms(self) -> float:
        return round(1000 * (time.monotonic() - self.began), 1)


def main() -> int:
    """Read, talk, log in and claim names until the standard input ends."""
    ports: dict[str, int] = json.loads(sys.argv[1])
    sources = addresses(_ADDRESSES, first=_FIRST_ADDRESS)
    with Load() as load:
        readers: list[Client] = []
        for number, (name, dialect, rate) in enumerate(READERS):
            client = load.connect(("127.0.0.1", ports[dialect]), source=sources[number])
            wire.log_in_all(load, [client], dialect, [name])
            if rate:
                client.read_at(rate)
            readers.append(client)
        print("ready", flush=True)
        os.set_blocking(0, False)
        report = _watch(load, readers, ports, sources[len(READERS) :])
    print(json.dumps(report), flush=True)
    return 0


def _watch(load: Load, readers: list[Client], ports: dict[str, int], sources: list[str]) -> dict[str, Any]:
    newcomers_ms: list[float] = []
    waiting: list[_Login] = []
    claims: list[_Login] = []
    refused = taken = claimed = logins = behind = 0
    typed = b""
    now = looked = time.monotonic()
    talk_due, newcomer_due, paused_s = now + _TALK_S, now, 0.0
    while True:
        load.turn(0.02)
        now = time.monotonic()
        paused_s, looked = max(paused_s, now - looked), now
        behind = max(behind, _behind_bytes(readers))
        if now >= talk_due:
            talk_due = now + _TALK_S
            for (_, dialect, _), reader in zip(READERS, readers, strict=True):
                reader.send(wire.say(dialect, "still here"))
        for login in [login for login in waiting if login.answered]:
            waiting.remove(login)
            newcomers_ms.append(login.waited_ms)
            refused += not login.welcome
            login.client.close()
        for login in [login for login in claims if login.answered]:
            claims.remove(login)
            taken += login.taken
            login.client.close()
        if now >= newcomer_due and len(waiting) < 2:
            newcomer_due = now + _NEWCOMER_S
            source = sources[logins % len(sources)]
            waiting.append(_Login(load, ("127.0.0.1", ports["line"]), source, "line", f"new{logins}"))
            logins += 1
        try:
            data = os.read(0, 65_536)
        except BlockingIOError:
            continue
        if not data:
            break
        *lines, typed = (typed + data).split(b"\n")
        for line in lines:
            dialect, _, name = line.decode().partition(" ")
            source = sources[claimed % len(sources)]
            port = ports[plan.LISTENER.get(dialect, dialect)]
            claims.append(_Login(load, ("127.0.0.1", port), source, dialect, name))
            claimed += 1
    return {
        "disconnected": [
            f"{name} ({reader.ended})"
            for (name, _, _), reader in zip(READERS, readers, strict=True)
            if not reader.open
        ],
        "received": {name: reader.received for (name, _, _), reader in zip(READERS, readers, strict=True)},
        "behind_bytes": behind,
        "newcomers_ms": newcomers_ms + [login.waited_ms for login in waiting],
        "refused": refused,
        "names_claimed": claimed,
        "names_taken": taken,
        "paused_s": round(paused_s, 3),
    }


def _behind_bytes(readers: list[Client]) -> int:
    fast = {
        dialect: reader.received
        for (_, dialect, rate), reader in zip(READERS, readers, strict=True)
        if not rate
    }
    return max(
        fast[dialect] - reader.received
        for (_, dialect, rate), reader in zip(READERS, readers, strict=True)
        if rate
    )


if __name__ == "__main__":
    sys.exit(main())
