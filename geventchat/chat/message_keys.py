"""The keys of recent messages, so that a message that is sent again after a lost answer is not said again. Pure.

A sender makes up a key for a message. The answer is kept under the sender's name and that key, for a while.

Invariants:
- No name has more than `message_keys_per_name` keys, and all names together have at most `message_keys`.
- The keys of a name are in the order in which they were used, the names in the order in which they last used one.
- No name is kept without a key.
"""

from __future__ import annotations

from collections import OrderedDict

from geventchat.chat.events import Confirmed
from geventchat.chat.limits import ChatLimits
from geventchat.chat.states import State, pack, unpack


class MessageKeys:
    """Which messages have been sent, and their answers."""

    def __init__(self, limits: ChatLimits) -> None:
        self._limits = limits
        self._names: OrderedDict[str, OrderedDict[str, tuple[float, Confirmed]]] = OrderedDict()
        self._count = 0

    TRANSIENT = frozenset({"_limits", "_count"})

    def to_state(self) -> State:
        """All keys, to be handed over."""
        return {
            "names": {
                name: [[key, at, pack(answer)] for key, (at, answer) in keys.items()]
                for name, keys in self._names.items()
            }
        }

    def take_state(self, state: State) -> None:
        """Take over keys."""
        for name, keys in state["names"].items():
            self._names[name] = OrderedDict((key, (at, unpack(answer))) for key, at, answer in keys)
            self._count += len(keys)

    def __len__(self) -> int:
        return self._count

    def find(self, name: str, key: str, now: float) -> Confirmed | None:
        """The answer to the message that was sent with this key; None if it is unknown, or has been forgotten."""
        keys = self._names.get(name)
        sent = keys.get(key) if keys is not None else None
        if sent is None or now - sent[0] >= self._limits.message_key_s:
            return None
        return sent[1]

    def remember(self, name: str, key: str, answer: Confirmed, now: float) -> None:
        """Keep the answer to a message."""
        keys = self._names.setdefault(name, OrderedDict())
        self._names.move_to_end(name)
        self._count += key not in keys
        keys[key] = now, answer
        keys.move_to_end(key)
        if len(keys) > self._limits.message_keys_per_name:
            self._forget_oldest(name)
        # Two for each new one, so that nothing takes long when thousands are too old.
        for _ in range(2):
            self._forget_one(now)

    def _forget_one(self, now: float) -> None:
        """Forget a key of the name that has used none for the longest time, if they are all too old, or there are too many."""
        for name, keys in self._names.items():
            latest, _ = next(reversed(keys.values()))
            if self._count > self._limits.message_keys or now - latest >= self._limits.message_key_s:
                self._forget_oldest(name)
            return

    def _forget_oldest(self, name: str) -> None:
        keys = self._names[name]
        keys.popitem(last=False)
        self._count -= 1
        if not keys:
            del self._names[name]
