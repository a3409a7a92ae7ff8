"""Which names look like another. Pure.

Two texts look alike if their skeletons are equal: Unicode's UTS 39, with its list of confusable characters. Names are
compared without case, and some letters look alike in one case only (Cyrillic В and B, but not в and b), so a name has up
to three skeletons: as it is shown, in lower and in upper case. Two names look alike if they have one in common. ASCII
has no case in a skeleton, so that a name in ASCII has a single one, and i is l there, because I and l look alike.

Two names in plain ASCII never count as look-alikes: `bo1` and `bol` can both be used.

Invariants of `LookAlikes`:
- `_held` maps the key of each held name to its skeletons and to how often it was added and not yet removed.
- `_plain` and `_other` say how many of these names have a skeleton, `_plain` for names in ASCII and `_other` for the rest. No
  count is zero.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from unicodedata import normalize

from geventchat.chat.confusables import PROTOTYPES
from geventchat.chat.names import Name


def skeleton(text: str) -> str:
    """A form that is equal for texts that look alike. It is not meant to be shown."""
    return normalize("NFD", normalize("NFD", text).translate(PROTOTYPES))


def skeletons(name: Name) -> Collection[str]:
    """The skeletons of the name, as it is shown, in lower and in upper case."""
    if name.shown.isascii():
        return (skeleton(name.key),)
    return {skeleton(form) for form in {name.shown, name.key, name.key.upper()}}


@dataclass(slots=True)
class _Held:
    skeletons: Collection[str]
    counts: dict[str, int]
    times: int = 0


class LookAlikes:
    """The names that are in use or reserved, and whether another one looks like one of them.

    A name can be added several times, for example for a logged-in user and for the user's account, and is held until it has
    been removed as often. Each method takes constant time, however many names are held.
    """

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._plain: dict[str, int] = {}
        self._other: dict[str, int] = {}

    def add(self, name: Name) -> None:
        """Hold this name."""
        held = self._held.get(name.key)
        if held is None:
            counts = self._plain if name.shown.isascii() else self._other
            held = self._held[name.key] = _Held(tuple(skeletons(name)), counts)
            for found in held.skeletons:
                counts[found] = counts.get(found, 0) + 1
        held.times += 1

    def remove(self, name: Name) -> None:
        """Undo one `add` of this name."""
        held = self._held[name.key]
        held.times -= 1
        if not held.times:
            del self._held[name.key]
            for found in held.skeletons:
                held.counts[found] -= 1
                if not held.counts[found]:
                    del held.counts[found]

    def resembles(self, name: Name) -> bool:
        """True if another name that is held looks like this one; a name that is held itself is not refused for that."""
        return name.key not in self._held and self.resembles_another(name)

    def resembles_another(self, name: Name) -> bool:
        """True if another name that is held looks like this one, which can be held itself."""
        own = self._held.get(name.key)

        def others(counts: dict[str, int], found: str) -> int:
            is_own = own is not None and own.counts is counts and found in own.skeletons
            return counts.get(found, 0) - is_own

        plain = name.shown.isascii()
        return any(
            others(self._other, found) or (not plain and others(self._plain, found))
            for found in skeletons(name)
        )
