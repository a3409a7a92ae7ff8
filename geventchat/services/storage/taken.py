"""Which kept messages have been taken, so that each is delivered once. Knows no storage."""

from __future__ import annotations

from collections.abc import Sequence

from geventchat.chat.records import KeptMessage

# A job that read a mailbox before this many others were taken has ended long ago.
_MOST_REMEMBERED = 100_000


class Taken:
    """The numbers of the messages that were taken last."""

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}

    def remove(self, messages: Sequence[KeptMessage]) -> None:
        """Note that these are no longer taken."""
        for message in messages:
            self._numbers.pop(message.number, None)

    def add(self, messages: Sequence[KeptMessage]) -> list[KeptMessage]:
        """Note that these are taken; returns those that were not."""
        fresh = [message for message in messages if message.number not in self._numbers]
        for message in fresh:
            self._numbers[message.number] = None
        while len(self._numbers) > _MOST_REMEMBERED:
            del self._numbers[next(iter(self._numbers))]
        return fresh
