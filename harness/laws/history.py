"""The history of many clients, and the laws that it must not break. Pure.

Nothing is assumed about when the server handles a line. A law counts as broken only if no order of events could explain the
history:

- A message has to reach every client that was admitted before it was sent and that stayed, or that received a later message of
  the same sender.
- The server need not have read the last lines of a client that left. But a message that one client received has to reach all
  others.
- Two clients held the same name if each was granted it and neither had begun to leave.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


class Law(enum.Enum):
    """A law; its value is what it demands."""

    LOST = "nothing is lost"
    DOUBLED = "nothing is doubled"
    REORDERED = "the order of one sender is kept"
    INVENTED = "every message was sent, and by the client that it names"
    CHANGED = "every text arrives as it was sent"
    HOLDERS = "a name has one holder"
    DISCONNECTED = "clients stay connected until they leave"


ALL = frozenset(Law)


# --- what happened ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Session:
    """One connection of one client."""

    number: int
    dialect: str = ""
    """What its client speaks, if the clients speak several dialects."""
    granted: tuple[float, str] | None = None
    """When it was granted a name, and which."""
    grant_line: str = ""
    left_s: float = math.inf
    """When it began to leave."""
    ended_s: float = math.inf
    """When its connection ended without that."""
    said: list[tuple[float, str]] = field(default_factory=list)
    """When each message was sent, and the line; the serial of a message is its index."""
    texts: list[str] = field(default_factory=list)
    """The text of each message."""
    heard: list[tuple[float, int, int, str, str]] = field(default_factory=list)
    """When a message came, whose it is (session and serial), the sender that it names, and the line."""
    last_s: float = 0.0
    """When anything was last received."""

    def __str__(self) -> str:
        return f"c{self.number}"

    @property
    def stayed(self) -> bool:
        return math.isinf(self.left_s) and math.isinf(self.ended_s)

    @property
    def held_until_s(self) -> float:
        """Until when it certainly had its name. A client that the server disconnects can have lost it just before."""
        return self.left_s if math.isinf(self.ended_s) else min(self.left_s, self.last_s)


@dataclass(slots=True)
class History:
    """Everything about one run."""

    sessions: list[Session] = field(default_factory=list)
    unknown: list[tuple[float, Session, str]] = field(default_factory=list)
    """Messages that are none of those that were sent."""
    changed: list[tuple[float, Session, int, int, str]] = field(default_factory=list)
    """Messages that have another text than the one that was sent: when one came and to whom, whose it is (session and serial),
    and the line."""
    ended_s: float = 0.0

    def session(self, dialect: str = "") -> Session:
        """A new one."""
        self.sessions.append(Session(len(self.sessions), dialect))
        return self.sessions[-1]

    @property
    def said(self) -> int:
        return sum(len(one.said) for one in self.sessions)

    @property
    def heard(self) -> int:
        return sum(len(one.heard) for one in self.sessions)


# --- what breaks a law --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of evidence."""

    at_s: float
    session: int
    text: str


@dataclass(frozen=True, slots=True)
class Breach:
    """One law that was broken once, and the least that shows it."""

    law: Law
    what: str
    evidence: tuple[Seen, ...]


def breaches(history: History, laws: frozenset[Law] = ALL) -> Iterator[Breach]:
    """Everything in this history that breaks one of these laws."""
    if laws & {Law.DOUBLED, Law.REORDERED, Law.LOST}:
        yield from (one for one in _of_messages(history) if one.law in laws)
    if Law.INVENTED in laws:
        yield from _invented(history)
    if Law.CHANGED in laws:
        yield from _changed(history)
    if Law.HOLDERS in laws:
        yield from _holders(history)
    if Law.DISCONNECTED in laws:
        yield from _disconnected(history)


Heard = dict[int, list[tuple[int, float, str]]]
"""By sender, in the order in which it came: the serial, when, and the line."""


def _of_messages(history: History) -> Iterator[Breach]:
    by_receiver = [_by_sender(session) for session in history.sessions]
    furthest: Counter[int] = Counter()
    """How many messages of each sender had to be delivered, because a client received the last of them."""
    first: dict[tuple[int, int], Seen] = {}
    """The first client that received each message."""
    for session in history.sessions:
        for at_s, number, serial, _, line in session.heard:
            if (number, serial) not in first or at_s < first[number, serial].at_s:
                first[number, serial] = Seen(at_s, session.number, f"< {line}")
    for heard in by_receiver:
        for number, lines in heard.items():
            furthest[number] = max(furthest[number], 1 + max(serial for serial, _, _ in lines))
    for receiver, heard in zip(history.sessions, by_receiver, strict=True):
        for sender in history.sessions:
            found = heard.get(sender.number, [])
            yield from _doubled_or_reordered(receiver, sender, found)
            if sender is not receiver and sender.said:
                yield from _lost(receiver, sender, found, furthest[sender.number], first)


def _by_sender(session: Session) -> Heard:
    out: Heard = {}
    for at_s, sender, serial, _, line in session.heard:
        out.setdefault(sender, []).append((serial, at_s, line))
    return out


def _doubled_or_reordered(
    receiver: Session, sender: Session, found: list[tuple[int, float, str]]
) -> Iterator[Breach]:
    seen: dict[int, Seen] = {}
    latest = -1
    for serial, at_s, line in found:
        now = Seen(at_s, receiver.number, f"< {line}")
        if serial in seen:
            yield Breach(
                Law.DOUBLED,
                f"{receiver} received a message of {sender} twice",
                (_sent(sender, serial), seen[serial], now),
            )
        elif serial < latest:
            yield Breach(
                Law.REORDERED,
                f"{receiver} received two messages of {sender} in the wrong order",
                (_sent(sender, serial), _sent(sender, latest), seen[latest], now),
            )
        seen.setdefault(serial, now)
        latest = max(latest, serial)


def _lost(
    receiver: Session,
    sender: Session,
    found: list[tuple[int, float, str]],
    furthest: int,
    first: dict[tuple[int, int], Seen],
) -> Iterator[Breach]:
    if receiver.granted is None:
        return
    heard = {serial: Seen(at_s, receiver.number, f"< {line}") for serial, at_s, line in found}
    if not receiver.stayed:
        until = max(heard, default=-1) + 1
    else:
        until = len(sender.said) if sender.stayed and sender.granted else furthest
    for serial, (sent_s, _) in enumerate(sender.said[:until]):
        if serial in heard or sent_s <= receiver.granted[0]:
            continue
        before = max((one for one in heard if one < serial), default=None)
        after = min((one for one in heard if one > serial), default=None)
        neighbours = [heard[one] for one in (before, after) if one is not None]
        other = first.get((sender.number, serial))
        yield Breach(
            Law.LOST,
            f"{receiver} never received a message of {sender}",
            (
                Seen(receiver.granted[0], receiver.number, f"< {receiver.grant_line}"),
                _sent(sender, serial),
                *([_sent(sender, after)] if after is not None else []),
                *neighbours,
                *([other] if other is not None else []),
            ),
        )


def _sent(sender: Session, serial: int) -> Seen:
    at_s, line = sender.said[serial]
    return Seen(at_s, sender.number, f"> {line}")


def _invented(history: History) -> Iterator[Breach]:
    for at_s, receiver, line in history.unknown:
        yield Breach(
            Law.INVENTED,
            f"{receiver} received what no client sent",
            (Seen(at_s, receiver.number, f"< {line}"),),
        )
    for receiver in history.sessions:
        for at_s, number, serial, name, line in receiver.heard:
            sender = history.sessions[number]
            if sender.granted is None or sender.granted[1] != name:
                had = f"has the name {sender.granted[1]}" if sender.granted else "has no name"
                yield Breach(
                    Law.INVENTED,
                    f"{receiver} received a message as that of {name}, and its sender {sender} {had}",
                    (_sent(sender, serial), Seen(at_s, receiver.number, f"< {line}")),
                )


def _changed(history: History) -> Iterator[Breach]:
    for at_s, receiver, number, serial, line in history.changed:
        sender = history.sessions[number]
        yield Breach(
            Law.CHANGED,
            f"{receiver} received a message of {sender} with another text",
            (_sent(sender, serial), Seen(at_s, receiver.number, f"< {line}")),
        )


def _holders(history: History) -> Iterator[Breach]:
    by_name: dict[str, list[Session]] = {}
    for session in history.sessions:
        if session.granted is not None:
            by_name.setdefault(session.granted[1], []).append(session)
    for name, holders in by_name.items():
        for at, one in enumerate(holders):
            for other in holders[at + 1 :]:
                assert one.granted is not None
                assert other.granted is not None
                both_s = max(one.granted[0], other.granted[0])
                until_s = min(one.held_until_s, other.held_until_s)
                if both_s < until_s:
                    yield Breach(
                        Law.HOLDERS,
                        f"{one} and {other} both had the name {name} for {min(until_s, history.ended_s) - both_s:.3f} s",
                        (
                            Seen(one.granted[0], one.number, f"< {one.grant_line}  (as {name})"),
                            Seen(other.granted[0], other.number, f"< {other.grant_line}  (as {name})"),
                        ),
                    )


def _disconnected(history: History) -> Iterator[Breach]:
    for session in history.sessions:
        if session.ended_s < session.left_s:
            said = [Seen(at_s, session.number, f"> {line}") for at_s, line in session.said[-1:]]
            end = Seen(session.ended_s, session.number, "is disconnected")
            yield Breach(Law.DISCONNECTED, f"{session} was disconnected", (*said, end))


def shortest(found: Iterable[Breach]) -> dict[Law, tuple[int, Breach]]:
    """How often each law was broken, and the breach that the least shows; of equal ones the first."""
    counts: Counter[Law] = Counter()
    best: dict[Law, Breach] = {}
    for one in found:
        counts[one.law] += 1
        if one.law not in best or _size(one) < _size(best[one.law]):
            best[one.law] = one
    return {law: (counts[law], best[law]) for law in Law if law in best}


def _size(breach: Breach) -> tuple[int, float]:
    return len(breach.evidence), max(one.at_s for one in breach.evidence)
