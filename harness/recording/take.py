"""What a recorder has noted of one session: who did what, and what everyone then heard. Pure data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.language.steps import Deed, Ending


@dataclass(frozen=True, slots=True)
class Came:
    """A connection was made. Connections are numbered from 1 in the order in which they came."""

    connection: int


@dataclass(frozen=True, slots=True)
class Said:
    connection: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Did:
    connection: int
    deed: Deed


@dataclass(frozen=True, slots=True)
class Waited:
    """Nobody did anything for so long, and then the server spoke by itself."""

    seconds: float


Doing = Came | Said | Did | Waited


@dataclass(slots=True)
class Moment:
    """One thing done and all that came of it. `at` is the time of day, in seconds since 1970."""

    doing: Doing
    at: float
    heard: dict[int, bytearray] = field(default_factory=dict)
    ends: dict[int, Ending] = field(default_factory=dict)

    @property
    def came_to_nothing(self) -> bool:
        return not self.heard and not self.ends


@dataclass(slots=True)
class Take:
    """A session, moment by moment."""

    moments: list[Moment] = field(default_factory=list)

    def connections(self) -> list[int]:
        return [moment.doing.connection for moment in self.moments if isinstance(moment.doing, Came)]

    def said_by(self, connection: int) -> Iterator[bytes]:
        """What it said, chunk by chunk."""
        for moment in self.moments:
            if isinstance(moment.doing, Said) and moment.doing.connection == connection:
                yield moment.doing.data
