"""How often passwords can be guessed. Pure: the time is passed in, in seconds that never go back.

Failures are counted for each account: those of each address, and those of all strangers together. A stranger is an address
that has not logged in to the account before; an address is an IPv4 address, the /64 of an IPv6 address, or a user of this
machine who comes over a Unix socket.

- An address has three free failures for each account. After the third, and after each one that follows, it has to wait: 2,
  4, 8 … 512, 900 s. Meanwhile nothing is verified, not even the right password.
- All strangers together have a hundred free failures for each account, and then wait in the same way, so that many addresses
  do not make many guesses: a hundred, then 96 a day.
- Known addresses are not affected by strangers, nor by each other. So an owner can always log in from an address that has
  logged in before, unless the guesses come from that address.
- A success forgets the failures of its address. A counter is forgotten a day after its last failure; with a shorter time,
  to pause and start again would be a faster way to guess.
- What has begun and is not finished counts: as many can run at the same time as there are free failures left, and then one.
  What ends without a result, because the client hung up or nothing could be verified, is not a failure.
- No client can make the server forget a counter that protects another client's account: all strangers to an account share one
  that stays, and an account has as many for known addresses as it can have such addresses. Counters of single strangers are
  bounded for all accounts together; the one whose last failure is longest ago makes way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Key = tuple[str, str]

FREE_FAILURES = 3
# The most that NIST SP 800-63B allows in a row for one account.
FREE_FAILURES_OF_STRANGERS = 100
LONGEST_WAIT_S = 900.0
FORGET_S = 86_400.0
# The most counters of single strangers.
MAX_COUNTERS = 10_000
MAX_KNOWN_ADDRESSES = 20


class Guessing:
    """The counters of all accounts."""

    def __init__(
        self,
        *,
        free: int = FREE_FAILURES,
        free_of_strangers: int = FREE_FAILURES_OF_STRANGERS,
        most: int = MAX_COUNTERS,
    ) -> None:
        """`most` is the number of counters of single strangers."""
        self._free = free
        # By account, the one with the latest failure last.
        self._known: OrderedDict[str, _Counters] = OrderedDict()
        self._strange = _Counters(free, most)
        self._strangers = _Counters(free_of_strangers)

    TRANSIENT = frozenset({"_free"})

    def to_state(self) -> dict[str, Any]:
        """The failures so far, to be handed over."""
        return {
            "known": {account: counters.to_state() for account, counters in self._known.items()},
            "strange": self._strange.to_state(),
            "strangers": self._strangers.to_state(),
        }

    def take_state(self, state: dict[str, Any]) -> None:
        """Take over failures."""
        for account, known in state["known"].items():
            counters = _Counters(self._free, MAX_KNOWN_ADDRESSES)
            counters.take_state(known)
            if not counters.is_empty:
                self._known[account] = counters
        self._strange.take_state(state["strange"])
        self._strangers.take_state(state["strangers"])

    def __len__(self) -> int:
        return sum(map(len, self._known.values())) + len(self._strange) + len(self._strangers)

    def attempt(
        self, account: str, address: str, known: bool, clock: Callable[[], float], verify: Callable[[], T]
    ) -> T | None:
        """Call `verify`, unless it is too early: then return None at once.

        Its result is a failure if it is false, and a success otherwise. An exception is neither. `verify` can block; time
        is taken from `clock`. `known` says whether the address has logged in to the account before.
        """
        now = clock()
        self._forget_old(now)
        counters = self._counters(account, address, known)
        if not all(table.is_open(key, now) for table, key in counters):
            return None
        for table, key in counters:
            table.begin(key)
        result: T | None = None
        try:
            result = verify()
            if not result:
                now = clock()
                for table, key in counters:
                    table.fail(key, now)
        finally:
            for table, key in counters:
                table.end(key)
            own, key = counters[0]
            if result:
                own.forget(key)
            if known:
                self._known.move_to_end(account)
                if own.is_empty:
                    del self._known[account]
        return result

    def forget(self, account: str) -> None:
        """Forget all failures of an account, whose password is another one now."""
        for table in (self._strange, self._strangers, self._known.get(account)):
            if table is not None:
                table.forget_account(account)

    def _counters(self, account: str, address: str, known: bool) -> list[tuple[_Counters, Key]]:
        """The counters that decide, the address's first."""
        if known:
            of_account = self._known.get(account)
            if of_account is None:
                of_account = self._known[account] = _Counters(self._free, MAX_KNOWN_ADDRESSES)
            return [(of_account, (account, address))]
        return [(self._strange, (account, address)), (self._strangers, (account, ""))]

    def _forget_old(self, now: float) -> None:
        for table in (self._strange, self._strangers):
            table.forget_old(now)
        while self._known:
            account, oldest = next(iter(self._known.items()))
            oldest.forget_old(now)
            if not oldest.is_empty:
                return
            del self._known[account]


def remember(known: tuple[str, ...], address: str) -> tuple[str, ...]:
    """The known addresses of an account after a login from this one, the latest last; the same object if nothing changes."""
    if known[-1:] == (address,):
        return known
    return (*(other for other in known if other != address), address)[-MAX_KNOWN_ADDRESSES:]


def wait_s(failures: int, free: int) -> float:
    """How long to wait after this many failures."""
    if failures < free:
        return 0.0
    # The tenth doubling exceeds the longest wait.
    return min(LONGEST_WAIT_S, 2.0 ** min(failures - free + 1, 10))


class _Failures:
    """How many failures there were, when the last one was, and from when on the next attempt can begin."""

    __slots__ = ("count", "last_s", "open_s")

    def __init__(self) -> None:
        self.count = 0
        self.last_s = self.open_s = 0.0


class _Counters:
    """The counters of one kind, by account and address.

    `_failures` holds those with failures, the one whose last failure is longest ago first; `_running` those with attempts
    that are not finished.
    """

    def __init__(self, free: int, most: int | None = None) -> None:
        """At most this many have failures; None for no limit."""
        self._free = free
        self._most = most
        self._failures: OrderedDict[Key, _Failures] = OrderedDict()
        self._running: dict[Key, int] = {}

    # Attempts that are running are made again.
    TRANSIENT = frozenset({"_free", "_most", "_running"})

    def to_state(self) -> dict[str, Any]:
        """The failures so far, to be handed over."""
        return {
            "failures": [[*key, one.count, one.last_s, one.open_s] for key, one in self._failures.items()]
        }

    def take_state(self, state: dict[str, Any]) -> None:
        """Take over failures."""
        for account, address, count, last_s, open_s in state["failures"]:
            failures = self._failures[account, address] = _Failures()
            failures.count, failures.last_s, failures.open_s = count, last_s, open_s

    def __len__(self) -> int:
        return len(self._failures)

    @property
    def is_empty(self) -> bool:
        """True when nothing is known and nothing is running."""
        return not (self._failures or self._running)

    def is_open(self, key: Key, now: float) -> bool:
        """True if one more attempt can begin now."""
        running = self._running.get(key, 0)
        failures = self._failures.get(key)
        if failures is None:
            return running < self._free
        return now >= failures.open_s and running < max(1, self._free - failures.count)

    def begin(self, key: Key) -> None:
        """One more attempt is running."""
        self._running[key] = self._running.get(key, 0) + 1

    def end(self, key: Key) -> None:
        """One attempt is finished."""
        self._running[key] -= 1
        if not self._running[key]:
            del self._running[key]

    def fail(self, key: Key, now: float) -> None:
        """Count a failure."""
        failures = self._failures.setdefault(key, _Failures())
        failures.count += 1
        failures.last_s = now
        failures.open_s = now + wait_s(failures.count, self._free)
        self._failures.move_to_end(key)
        if self._most is not None and len(self._failures) > self._most:
            self._failures.popitem(last=False)

    def forget(self, key: Key) -> None:
        """Forget the failures."""
        self._failures.pop(key, None)

    def forget_account(self, account: str) -> None:
        """Forget the failures of all addresses."""
        for key in [key for key in self._failures if key[0] == account]:
            del self._failures[key]

    def forget_old(self, now: float) -> None:
        """Forget failures that are too long ago."""
        while self._failures:
            key, oldest = next(iter(self._failures.items()))
            if now < oldest.last_s + FORGET_S:
                return
            del self._failures[key]
