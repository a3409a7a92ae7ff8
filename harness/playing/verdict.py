"""What came of playing a script, as data: turns, lanes, failures. Knows no sockets and no layout (see report)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from harness.language.steps import Ending, Script
from harness.language.unfolding import Site
from harness.playing.binding import Bound
from harness.playing.hearing import Awaited, Entry
from harness.stage.connection import End
from harness.stage.fence import Grade

__all__ = ["Awaited", "Done", "Entry", "Failure", "Fault", "Hearing", "Outcome", "TurnReport", "Verdict"]


# Which real ends keep the script's word.
ENDS_AS: dict[Ending, frozenset[End]] = {
    Ending.REFUSED: frozenset({End.REFUSED}),
    Ending.CLOSED: frozenset({End.CLOSED}),
    Ending.RESET: frozenset({End.RESET}),
    Ending.DISCONNECTED: frozenset({End.CLOSED, End.RESET}),
}


class Outcome(enum.Enum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    SCRIPT_WRONG = "script wrong"
    """The script breaks the language or asks for what the target does not know. Never the server's fault."""
    TARGET_BROKEN = "target broken"
    """There was nothing to play against: it did not start, or nobody answers at the address."""


class Fault(enum.Enum):
    """What a server did wrong, one kind for each way of telling it."""

    MISSING = "did not hear what was expected"
    EXTRA = "heard what the script does not say"
    DIFFERENT = "heard something else"
    OUT_OF_ORDER = "heard it in another order"
    DISAGREED = "did not hear the same order"
    STILL_OPEN = "is still connected"
    CUT_OFF = "lost the connection"
    OTHER_END = "lost the connection in another way"
    LET_IN = "was let in"
    TURNED_AWAY = "was refused"
    UNANSWERED = "got no answer to the fence line"
    RESTLESS = "did not come to rest"
    NOT_TAKEN = "was kept waiting by the server"
    UNSENT = "cannot say what was meant to be sent"
    DIED = "has no server any more"


@dataclass(frozen=True, slots=True)
class Done:
    """One thing that was done, as the script says it: `> MSG hi` in alice's lane. No client: everyone's, such as a wait."""

    client: str | None
    text: str
    file: str
    line: int
    at_s: float
    via: tuple[Site, ...] = ()


@dataclass(frozen=True, slots=True)
class Hearing:
    """One client's side of a turn."""

    client: str
    entries: tuple[Entry, ...] = ()
    times_s: tuple[float, ...] = ()
    """When each entry's first byte came; for one that was not heard, when the turn ended."""
    silence_line: int = 0
    """The line of `receives nothing`, if the script says so here."""
    ending: Ending | None = None
    ending_line: int = 0
    end: End = End.OPEN
    ended_now: bool = False
    """The connection ended in this turn, by no deed of the client itself."""

    @property
    def ended_well(self) -> bool:
        """Whether the connection ended as the script says."""
        return self.ending is not None and self.end in ENDS_AS[self.ending]


@dataclass(frozen=True, slots=True)
class TurnReport:
    number: int
    file: str
    last_line: int
    done: tuple[Done, ...]
    hearings: tuple[Hearing, ...]
    now_s: float
    disagreed: tuple[str, ...] = ()
    """Those who had to hear one order and did not, though each of them heard the right lines."""
    agreement_line: int = 0
    bound: tuple[Bound, ...] = ()
    """What captures stand for when the turn ends."""

    def hearing(self, client: str) -> Hearing | None:
        return next((one for one in self.hearings if one.client == client), None)


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is wrong in the turn that failed."""

    fault: Fault
    client: str
    file: str
    line: int
    turn: int
    awaited: Awaited | None = None
    heard: bytes | None = None
    ending: Ending | None = None
    end: End | None = None
    at_s: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Late:
    """A line that came when the failed run was looked at a little longer: to whom, when, and in which way."""

    client: str
    line: bytes
    at_s: float
    a_turn_later: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The whole outcome of one script on one target."""

    script: Script
    outcome: Outcome
    target: str = ""
    grade: Grade | None = None
    fenced: bool = False
    """Whether there was a fence line; where there was one and the grade is weak, a client's leaving has weakened it."""
    virtual_time: bool = False
    clients: tuple[str, ...] = ()
    turns: tuple[TurnReport, ...] = ()
    failures: tuple[Failure, ...] = ()
    late: tuple[Late, ...] = ()
    reason: str = ""
    """Why it was skipped, or what is wrong with the script or the target."""
    last_words: str = ""
    real_s: float = 0.0
    eol: bytes = b"\n"

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASSED

    @property
    def file(self) -> str:
        return self.script.file
