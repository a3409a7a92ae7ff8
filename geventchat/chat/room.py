"""Who is in it, and the feeds it speaks into. Must not know what a feed is made of, nor who asked.

A feed is everything that is said, in one dialect; an ear is one client, as the chat sees it. Both are handed in from
outside: the chat says what happened and in which order, they carry it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from geventchat.chat.events import Broadcast, Event
from geventchat.chat.names import Name


class Ear(Protocol):
    """One client: what it is told alone comes in order with what it hears in its feed."""

    @property
    def feed(self) -> Feed:
        """The feed of its dialect."""

    def hear(self, event: Event) -> None:
        """This is for you alone."""

    def begin(self) -> None:
        """From now on you hear your feed."""

    def cease(self) -> None:
        """What your feed says from now on is not for you any more."""

    def skip(self, start: int, end: int) -> None:
        """What stands between these two places of your feed is your own and you need not hear it."""


class Feed(Protocol):
    """What is said in the room, in one dialect, encoded once for all who hear it."""

    def publish(self, event: Broadcast, author: Ear) -> None:
        """Everyone in this feed hears it; its author as the dialect's rule says."""


class Room:
    """The people who hear each other."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._ears: dict[str, Ear] = {}
        self._present: dict[Feed, int] = {}
        self._feeds: tuple[Feed, ...] = ()

    def __len__(self) -> int:
        return len(self._ears)

    @property
    def users(self) -> Collection[str]:
        """The names of all who are here, in the order in which they came: a live view."""
        return self._shown.values()

    def holds(self, key: str) -> bool:
        """Is someone of this name here?"""
        return key in self._ears

    def find(self, key: str) -> tuple[str, Ear] | None:
        """The person of this name: the name as its owner wrote it, and the ear."""
        ear = self._ears.get(key)
        return None if ear is None else (self._shown[key], ear)

    def enter(self, name: Name, ear: Ear) -> None:
        """Someone comes in and hears what is said from now on."""
        self._shown[name.key] = name.shown
        self._ears[name.key] = ear
        feed = ear.feed
        self._present[feed] = self._present.get(feed, 0) + 1
        if self._present[feed] == 1:
            self._feeds = tuple(self._present)
        ear.begin()

    def leave(self, name: Name) -> None:
        """Someone goes; the name is free at once."""
        del self._shown[name.key]
        ear = self._ears.pop(name.key)
        feed = ear.feed
        ear.cease()
        self._present[feed] -= 1
        if not self._present[feed]:
            del self._present[feed]
            self._feeds = tuple(self._present)

    def tell_everyone(self, event: Broadcast, author: Ear) -> None:
        """Into each feed that anyone hears, once."""
        for feed in self._feeds:
            feed.publish(event, author)
