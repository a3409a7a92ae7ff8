"""The accounts: reserved names, and what is known of each beyond one connection. Pure; verifies no passwords.

An account that has not been used for `unused_account_s` is deleted when the server starts: its name is free then, and a new
account of that name inherits nothing. The accounts of operators are kept. A server that takes over from another deletes none.
The time up to the start counts only as far as the storage knows of something: otherwise a start with a clock that is a year
ahead would delete every account.

Invariants of Accounts:
- `_records` holds every account, by the key of its name, and at most `accounts` of them that have been added by clients.
- `_look_alikes` holds the name of each of them once.
- `_by_token` holds the key of the account for each of its tokens, as it is stored.
- The storage receives each change once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from geventchat.chat.guessing import remember
from geventchat.chat.limits import ChatLimits
from geventchat.chat.lookalikes import LookAlikes
from geventchat.chat.names import Name
from geventchat.chat.passwords import Secret, stored_token
from geventchat.chat.records import AccountRecord
from geventchat.chat.storage import Storage

# How old the note of the last use can be, and which part of the time after which an account is deleted. More precision would
# be a write for each departure, and each visit.
_USE_NOTED_S = 86_400
_USE_NOTED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Account:
    """A reserved name. Its key is the key of the name, so no one else can have either."""

    key: str
    name: str


class Accounts:
    """All accounts."""

    def __init__(
        self, storage: Storage, look_alikes: LookAlikes, limits: ChatLimits, now_ms: Callable[[], int]
    ) -> None:
        self._storage = storage
        self._look_alikes = look_alikes
        self._limits = limits
        self._now_ms = now_ms
        self._records: dict[str, AccountRecord] = {}
        self._by_token: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._records)

    @property
    def _unused_s(self) -> float:
        """How long an account is kept that is not used."""
        return self._limits.unused_account_s or math.inf

    @property
    def is_full(self) -> bool:
        """True when no more accounts are allowed."""
        return len(self._records) >= self._limits.accounts

    def records(self) -> Collection[AccountRecord]:
        """All accounts."""
        return self._records.values()

    def take(self, records: Iterable[AccountRecord]) -> None:
        """Have these accounts, which another process had."""
        for record in records:
            if record.key not in self._records:
                self._hold(record)

    def load(
        self, stored: Iterable[AccountRecord], kept: Collection[str], latest_ms: float = math.inf
    ) -> set[str]:
        """Have the accounts that the storage has kept; returns the keys of those that have not been used for too long.

        The accounts with the keys in `kept` are never among these. `latest_ms` is the latest time that the storage knows.
        """
        gone: set[str] = set()
        oldest_ms = min(self._now_ms(), latest_ms) - 1000 * self._unused_s
        for record in stored:
            if record.last_login_ms < oldest_ms and record.key not in kept:
                self._storage.forget(record)
                gone.add(record.key)
            else:
                self._hold(record)
        for record in self._records.values():
            if record.ignored:
                self._records[record.key] = replace(record, ignored=self._known(record.ignored))
        return gone

    def find(self, key: str) -> AccountRecord | None:
        """The account with this key."""
        return self._records.get(key)

    def find_account(self, key: str) -> Account | None:
        """The account with this key."""
        record = self._records.get(key)
        return None if record is None else Account(record.key, record.name)

    def find_by_token(self, token: Secret) -> AccountRecord | None:
        """The account with this token."""
        # A hash is looked up, and not a token, so how long it takes tells nothing about the tokens that there are.
        stored = stored_token(token)
        return None if stored is None else self._records.get(self._by_token.get(stored, ""))

    def add(self, name: Name, password_hash: str, origin: str) -> Account:
        """Add an account that was just registered from this address."""
        now_ms = self._now_ms()
        origins = (origin,) if origin else ()
        record = AccountRecord(name.key, name.shown, password_hash, (), now_ms, now_ms, origins=origins)
        self._hold(record)
        self._storage.save(record)
        return Account(record.key, record.name)

    def change(self, record: AccountRecord) -> None:
        """Keep this in place of what was known of the account."""
        for stored in self._records[record.key].token_hashes:
            del self._by_token[stored]
        self._put(record)
        self._storage.save(record)

    def logged_in(self, key: str, origin: str) -> None:
        """Note a login to the account from this address."""
        record = self._records[key]
        origins = remember(record.origins, origin) if origin else record.origins
        # A clock that is behind must not make a used account look unused.
        last_ms = max(record.last_login_ms, self._now_ms())
        self.change(replace(record, last_login_ms=last_ms, origins=origins))

    def ignored_by(self, key: str) -> tuple[str, ...]:
        """The keys of the accounts that this one ignores."""
        record = self._records.get(key)
        return () if record is None else record.ignored

    def ignore(self, key: str, names: Collection[str]) -> None:
        """Note whom the account ignores: those of these names that belong to accounts. Anyone can have the others next."""
        record, ignored = self._records.get(key), self._known(sorted(names))
        if record is not None and ignored != record.ignored:
            self.change(replace(record, ignored=ignored))

    def _known(self, keys: Iterable[str]) -> tuple[str, ...]:
        # Their own keys, so that a list of a hundred takes little memory.
        return tuple([self._records[key].key for key in keys if key in self._records])

    def used(self, key: str) -> None:
        """Note that the account was in use until now."""
        record = self._records.get(key)
        noted_s = min(_USE_NOTED_S, _USE_NOTED_SHARE * self._unused_s)
        if record is not None and self._now_ms() - record.last_login_ms > 1000 * noted_s:
            self.change(replace(record, last_login_ms=self._now_ms()))

    def _hold(self, record: AccountRecord) -> None:
        self._put(record)
        self._look_alikes.add(Name(record.name, record.key))

    def _put(self, record: AccountRecord) -> None:
        self._records[record.key] = record
        for stored in record.token_hashes:
            self._by_token[stored] = record.key
