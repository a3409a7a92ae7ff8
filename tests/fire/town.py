"""The clients of a long run, each beside its double in the model; whatever anyone has heard is compared to the byte.

Knows when people must be cut off and finds who was dropped; what they do is not its business.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from harness.stage.virtual_time import START_TIME_S
from tests.fire.arena import Arena, End, Guest
from tests.fire.house import House, Person

_US = 1_000_000
_SOCKET_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Rules:
    """The server's limits, as far as the model must know them."""

    idle_s: int
    flush_s: int
    queue_bytes: int


class Slot:
    """One of the clients, over all its connections."""

    def __init__(self, number: int, dialect: str) -> None:
        self.number = number
        self.dialect = dialect
        self.guest: Guest | None = None
        self.person: Person | None = None
        self.silent = False
        # When it was cut off while it was not reading; -1 where it was dropped as slow.
        self.parted_us: int | None = None

    @property
    def connected(self) -> tuple[Guest, Person]:
        """Its connection and its double; only where there is one."""
        assert self.guest is not None
        assert self.person is not None
        return self.guest, self.person


class Town:
    """All of them, and the server they talk to."""

    def __init__(self, scene: Arena, slots: list[Slot], rules: Rules) -> None:
        self.scene = scene
        self.house = House()
        self.deeds: Counter[str] = Counter()
        self.compared_bytes = 0
        self._slots = slots
        self._rules = rules
        self._cutoffs: list[tuple[int, int]] = []

    @property
    def at(self) -> int:
        """Whole seconds since 1970."""
        return int(START_TIME_S + self.scene.now_us / _US)

    def pass_until(self, at_us: int) -> None:
        """Time passes, and whoever is silent for too long in it is cut off, neither before nor after."""
        while self._cutoffs and self._cutoffs[0][0] < at_us:
            due_us, number = heapq.heappop(self._cutoffs)
            self._cut_off(due_us, self._slots[number])
        self.scene.pass_until(at_us)
        self.compare()

    def connect(self, slot: Slot) -> None:
        """It comes, and says nothing yet."""
        slot.guest = self.scene.come(slot.dialect, buffer_bytes=_SOCKET_BYTES)
        slot.person = Person(slot.dialect, self.scene.now_us)
        slot.silent, slot.parted_us = False, None
        self._expect_cutoff(slot)
        self.scene.settle()

    def send(self, slot: Slot, ask: Callable[[Person], str]) -> Person:
        """It sends whole lines; what it must hear of it is for the caller to say."""
        guest, person = slot.connected
        guest.send(ask(person).encode())
        person.last_line_us = self.scene.now_us
        self._expect_cutoff(slot)
        self.scene.settle()
        return person

    def gone(self, slot: Slot, *, ended_by_server: bool) -> None:
        """It is no longer connected."""
        guest, _ = slot.connected
        assert not ended_by_server or guest.end in (End.ENDED, End.BROKEN), guest.end
        slot.guest = slot.person = None

    def find_out(self, slot: Slot) -> None:
        """One that was not reading when it was cut off or dropped reads what there is: how all that it was owed begins."""
        guest, person = slot.connected
        assert slot.parted_us is not None
        in_time = slot.parted_us >= 0 and self.scene.now_us - slot.parted_us < self._rules.flush_s * _US
        guest.read_again()
        self.scene.settle()
        heard = bytes(guest.heard)
        assert person.owed.startswith(heard), (
            f"{heard[-99:]!r} is not how {bytes(person.owed[-199:])!r} begins"
        )
        assert not in_time or heard == person.owed, "read in time, and has not heard all"
        self.compared_bytes += len(heard)
        self.gone(slot, ended_by_server=True)

    def compare(self) -> None:
        """Everyone who reads has heard what the model says, and nothing else; who was dropped as slow is found."""
        self._find_dropped()
        for slot in self._slots:
            guest, person = slot.guest, slot.person
            if guest is None or person is None or not guest.reads:
                continue
            if guest.heard != person.owed:
                raise AssertionError(
                    f"at {self.scene.now_us / _US:.6f} s {person.dialect} client {slot.number} ({person.name}) "
                    f"heard\n  {bytes(guest.heard)!r}\ninstead of\n  {bytes(person.owed)!r}"
                )
            if person.owed:
                self.compared_bytes += len(person.owed)
                guest.heard.clear()
                person.owed.clear()

    def _expect_cutoff(self, slot: Slot) -> None:
        heapq.heappush(self._cutoffs, (self.scene.now_us + self._rules.idle_s * _US, slot.number))

    def _cut_off(self, due_us: int, slot: Slot) -> None:
        person = slot.person
        if person is None or slot.parted_us is not None:
            return
        if person.last_line_us + self._rules.idle_s * _US != due_us:
            return  # It has said something since.
        guest, _ = slot.connected
        self.scene.pass_until(due_us - 1)
        self.compare()
        if slot.parted_us is not None:
            return
        assert guest.end is End.OPEN, "cut off before its time"
        self.scene.pass_until(due_us)
        self.deeds["be cut off"] += 1
        person.hears(person.wording.idle())
        self.house.leave(person, self.at)
        if guest.reads:
            self.compare()
            self.gone(slot, ended_by_server=True)
        else:
            slot.parted_us = due_us
            self.compare()

    def _find_dropped(self) -> None:
        dropped: list[tuple[int, Slot]] = []
        for slot in self._slots:
            guest, person = slot.guest, slot.person
            if guest is None or person is None or guest.reads or slot.parted_us is not None:
                continue
            if guest.hung_up:
                assert len(person.owed) > self._rules.queue_bytes, "dropped though it was owed little"
                dropped.append((self._when_told(person), slot))
        for _, slot in sorted(dropped, key=lambda found: found[0]):
            _, person = slot.connected
            self.deeds["be dropped as slow"] += 1
            slot.parted_us = -1
            self.house.leave(person, self.at)

    def _when_told(self, person: Person) -> int:
        """Of several who were dropped in one turn, the model cannot know the order; all must have been told the same one."""
        for slot in self._slots:
            guest, other = slot.guest, slot.person
            if guest is not None and other is not None and guest.reads and other.name:
                return guest.heard.rfind(other.wording.left(person.name, self.at).encode())
        return 0
