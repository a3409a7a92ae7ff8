"""The storage of a server without a data directory: what it keeps ends with the process. Bounded, like everything in memory.

It keeps no messages of rooms: the chat's own logs are all there is. The records of rooms and accounts are in the chat's memory
too, so there is nothing to do for them but to empty the mailbox of an account that is forgotten.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from geventchat.chat.events import DirectMessage, PastMessage, Said
from geventchat.chat.names import key_of
from geventchat.chat.records import AccountRecord, Act, KeptMessage, Record, RoomRecord, Stored
from geventchat.chat.states import pack, unpack
from geventchat.chat.storage import CannotBackUp
from geventchat.clock import Clock, SteadyTime
from geventchat.services.storage.epoch import random_epoch
from geventchat.services.storage.mail_space import MailSpace
from geventchat.services.storage.taken import Taken
from geventchat.settings import Limits

# About what a kept message holds beside its text.
_MESSAGE_BYTES = 200


class MemoryStorage:
    """The storage in memory. chat/storage.py says what each method promises."""

    def __init__(self, limits: Limits, clock: Clock, new_epoch: Callable[[], str] = random_epoch) -> None:
        self._new_epoch = new_epoch
        self._limits = limits
        self._time = SteadyTime(clock)
        self._taken = Taken()
        # Jobs come from several threads.
        self._lock = threading.Lock()
        # By account, and then by number: the account of the sender, and the message.
        self._mailboxes: dict[str, dict[int, tuple[str, KeptMessage]]] = {}
        # By the account of the sender: the numbers of the messages, and whose they are.
        self._sent: dict[str, dict[int, str]] = {}
        self._numbers = 0
        self._space = MailSpace(limits.mail_bytes)
        # By number, the oldest first, so that the latest can be read without looking at the others.
        self._acts: dict[int, Act] = {}
        # The numbers of those in each room, and of those in rooms that are gone. Acts on the whole server are in neither.
        self._acts_of_rooms: dict[str, deque[int]] = {}
        self._acts_of_gone: deque[int] = deque()
        self._act_numbers = self._room_acts = 0

    def load(self) -> Stored:
        """Nothing was kept."""
        return Stored(self._new_epoch())

    def append(self, room: str, said: Said) -> None:
        """Keep nothing: the chat's log has it."""

    def save(self, record: Record) -> None:
        """Keep nothing: the chat has it."""

    def forget(self, record: Record) -> None:
        """Empty the mailbox of an account that is gone."""
        if isinstance(record, RoomRecord):
            self._acts_of_gone += self._acts_of_rooms.pop(record.key, ())
        elif isinstance(record, AccountRecord):
            with self._lock:
                self._remove(record.key, list(self._mailboxes.get(record.key, ())))

    def delete(self, room: str, id: int) -> None:
        """Nothing is kept that could be deleted."""

    def audit(self, act: Act) -> None:
        """Add an act; beyond the bound, one of a room that is gone is dropped, or the oldest of the room with the most."""
        self._act_numbers += 1
        self._acts[self._act_numbers] = act
        if act.room:
            self._acts_of_rooms.setdefault(act.room, deque()).append(self._act_numbers)
            self._room_acts += 1
            if self._room_acts > self._limits.room_acts:
                self._drop_act()

    @property
    def keeps_messages(self) -> bool:
        """False: the chat's logs are all there is."""
        return False

    def is_ready(self, room: str = "", last_id: int = 0) -> bool:
        """True: nothing has to be written."""
        return True

    def when_ready(self, callback: Callable[[], None]) -> None:
        """Never call it: `is_ready` is never False."""

    @property
    def behind_bytes(self) -> int:
        """Nothing waits to be kept."""
        return 0

    @property
    def lag_s(self) -> float:
        """Nothing has to be written."""
        return 0.0

    @property
    def is_stopped(self) -> bool:
        """Nothing has to be written."""
        return False

    @property
    def lost_messages(self) -> int:
        """Nothing has to be written."""
        return 0

    def has_mail(self, account: str) -> bool:
        """False when the mailbox is empty."""
        return account in self._mailboxes

    def take(self, messages: Sequence[KeptMessage]) -> list[KeptMessage]:
        """Remove messages from their mailboxes; returns those that no other call has taken."""
        fresh = self._taken.add(messages)
        with self._lock:
            for message in fresh:
                self._remove(message.account, [message.number])
        return fresh

    def put_back(self, messages: Sequence[KeptMessage]) -> None:
        """Put messages back into their mailboxes."""
        self._taken.remove(messages)
        with self._lock:
            for kept in messages:
                self._add(key_of(kept.message.sender), kept)
                self._mailboxes[kept.account] = dict(sorted(self._mailboxes[kept.account].items()))

    def limits_changed(self) -> None:
        """Nothing is kept that has other limits than those of the chat."""

    def settle(self) -> None:
        """Nothing has to be written."""

    def before(self, room: str, id: int, limit: int) -> list[PastMessage]:
        """No messages are kept."""
        return []

    def after(self, room: str, id: int, limit: int) -> list[PastMessage]:
        """No messages are kept."""
        return []

    def first_between(self, wanted: Mapping[str, tuple[int, int, int]]) -> dict[str, int]:
        """No messages are kept."""
        return {}

    def mailbox(self, account: str, after: int, limit: int) -> list[KeptMessage]:
        """The first messages that wait for an account and have larger numbers than this, oldest first."""
        with self._lock:
            self._remove_expired(account)
            waiting = self._mailboxes.get(account, {})
            return [message for number, (_, message) in waiting.items() if number > after][:limit]

    def keep(self, account: str, sender: str, message: DirectMessage) -> KeptMessage | None:
        """Put a direct message into a mailbox; None if it is full."""
        limits = self._limits
        size = _size(message)
        with self._lock:
            if not self._space.has_room(size):
                for other in list(self._mailboxes):
                    self._remove_expired(other)
            self._remove_expired(account)
            mailbox = self._mailboxes.get(account, {})
            if (
                len(mailbox) >= limits.mail_per_account
                or sum(by == sender for by, _ in mailbox.values()) >= limits.mail_per_sender
                or not self._make_way(sender, size)
            ):
                return None
            self._numbers += 1
            kept = KeptMessage(self._numbers, account, message)
            self._add(sender, kept)
            return kept

    def acts(self, limit: int) -> list[Act]:
        """The latest acts, oldest first."""
        # One step of the interpreter, because this is called in a thread while the chat adds acts.
        latest = list(islice(reversed(self._acts.values()), limit))
        latest.reverse()
        return latest

    def back_up(self, target: Path) -> int:
        """There is nothing to copy."""
        raise CannotBackUp("the server has no data directory (--data DIR)")

    # The epoch is passed in, and no job runs that could deliver a message twice.
    TRANSIENT = frozenset(
        {"_sent", "_space", "_new_epoch", "_limits", "_time", "_taken", "_lock", "_acts_of_rooms"}
    )

    def suspend(self) -> None:
        """Nothing has to be written."""

    def resume(self) -> None:
        """Nothing has to be written."""

    def begin(self) -> None:
        """Nothing has to be written."""

    @property
    def lock(self) -> int | None:
        """There is none."""
        return None

    def to_state(self) -> dict[str, Any]:
        """The mailboxes and the audit log, to be handed over."""
        return {
            "mailboxes": {
                account: [[sender, pack(kept)] for sender, kept in mailbox.values()]
                for account, mailbox in self._mailboxes.items()
            },
            "numbers": self._numbers,
            "acts": [[number, pack(act)] for number, act in self._acts.items()],
            "acts_of_gone": list(self._acts_of_gone),
            "act_numbers": self._act_numbers,
            "room_acts": self._room_acts,
        }

    def take_state(self, state: dict[str, Any]) -> None:
        """Take over mailboxes and an audit log."""
        for mailbox in state["mailboxes"].values():
            for sender, kept in mailbox:
                self._add(sender, unpack(kept))
        self._numbers = state["numbers"]
        self._acts_of_gone.extend(state["acts_of_gone"])
        gone = set(self._acts_of_gone)
        for number, packed in state["acts"]:
            act = self._acts[number] = unpack(packed)
            if act.room and number not in gone:
                self._acts_of_rooms.setdefault(act.room, deque()).append(number)
        self._act_numbers = state["act_numbers"]
        self._room_acts = state["room_acts"]

    def close(self, within_s: float) -> bool:
        """Nothing has to be written."""
        return True

    def _make_way(self, sender: str, size: int) -> bool:
        """Make room for a message of this sender; False if no other sender has to make way."""
        while not self._space.has_room(size):
            largest = self._space.makes_way(sender, size)
            if largest is None:
                return False
            number, account = min(self._sent[largest].items())
            self._remove(account, [number])
        return True

    def _add(self, sender: str, kept: KeptMessage) -> None:
        self._mailboxes.setdefault(kept.account, {})[kept.number] = (sender, kept)
        self._sent.setdefault(sender, {})[kept.number] = kept.account
        self._space.change(sender, _size(kept.message))

    def _drop_act(self) -> None:
        if self._acts_of_gone:
            number = self._acts_of_gone.popleft()
        else:
            most = max(self._acts_of_rooms, key=lambda room: len(self._acts_of_rooms[room]))
            number = self._acts_of_rooms[most].popleft()
            if not self._acts_of_rooms[most]:
                del self._acts_of_rooms[most]
        del self._acts[number]
        self._room_acts -= 1

    def _remove_expired(self, account: str) -> None:
        oldest_ms = (self._time() - self._limits.mail_s) * 1000
        mailbox = self._mailboxes.get(account, {})
        self._remove(account, [n for n, (_, kept) in mailbox.items() if kept.message.time_ms < oldest_ms])

    def _remove(self, account: str, numbers: Sequence[int]) -> None:
        mailbox = self._mailboxes.get(account, {})
        for number in numbers:
            if number in mailbox:
                sender, kept = mailbox.pop(number)
                self._space.change(sender, -_size(kept.message))
                del self._sent[sender][number]
                if not self._sent[sender]:
                    del self._sent[sender]
        if not mailbox:
            self._mailboxes.pop(account, None)


def _size(message: DirectMessage) -> int:
    return len(message.text.encode()) + _MESSAGE_BYTES
