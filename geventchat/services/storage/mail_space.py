"""How much space kept messages take, and who makes way when there is none left. Knows no storage.

All accounts share the space. When it is full, the account with the most in it loses its oldest message to one that has less, so
that no account can take it from the others.

Invariants of MailSpace:
- `used` is the sum over all senders, and no sender is kept without any.
"""

from __future__ import annotations

from collections.abc import Mapping


class MailSpace:
    """The bytes that the kept messages of each sender take."""

    def __init__(self, most: int, senders: Mapping[str, int] | None = None) -> None:
        """There are `most` bytes for all."""
        self._most = most
        self._senders = dict(senders or {})
        self.used = sum(self._senders.values())

    def change(self, sender: str, size: int) -> None:
        """Count this many bytes more for this sender, or fewer if negative."""
        self.used += size
        left = self._senders.get(sender, 0) + size
        if left:
            self._senders[sender] = left
        else:
            self._senders.pop(sender, None)

    def has_room(self, size: int) -> bool:
        """True when a message of this size fits."""
        return self.used + size <= self._most

    def makes_way(self, sender: str, size: int) -> str | None:
        """The sender that has to make way for a message of this size; None if none has more than its sender would then have."""
        largest = max(self._senders, key=lambda other: (self._senders[other], other), default=None)
        if largest is None or self._senders[largest] <= self._senders.get(sender, 0) + size:
            return None
        return largest
