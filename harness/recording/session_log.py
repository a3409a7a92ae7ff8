"""What a recorder has noted of one session: who did what, and what everyone then heard. Pure data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.language.steps import ConnectionAction, Ending


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection was made. Connections are numbered from 1 in the order in which they came."""

    connection: int


@dataclass(frozen=True, slots=True)
class Sent:
    connection: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Acted:
    connection: int
    connection_action: ConnectionAction


@dataclass(frozen=True, slots=True)
class Waited:
    """Nobody did anything for so long, and then the server spoke by itself."""

    seconds: float


LoggedAction = Connected | Sent | Acted | Waited


@dataclass(slots=True)
class LoggedTurn:
    """One thing done and all that came of it. `at` is the time of day, in seconds since 1970."""

    action: LoggedAction
    at: float
    received: dict[int, bytearray] = field(default_factory=dict)
    ends: dict[int, Ending] = field(default_factory=dict)

    @property
    def had_no_effect(self) -> bool:
        return not self.received and not self.ends


@dataclass(slots=True)
class SessionLog:
    """A session, moment by moment."""

    logged_turns: list[LoggedTurn] = field(default_factory=list)

    def connections(self) -> list[int]:
        return [
            logged_turn.action.connection
            for logged_turn in self.logged_turns
            if isinstance(logged_turn.action, Connected)
        ]

    def sent_by(self, connection: int) -> Iterator[bytes]:
        """What it said, chunk by chunk."""
        for logged_turn in self.logged_turns:
            if isinstance(logged_turn.action, Sent) and logged_turn.action.connection == connection:
                yield logged_turn.action.data
