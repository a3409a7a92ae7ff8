"""A simulated week: people come, talk, fall silent, stall and vanish by seed, and every byte that each hears is foreseen."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from geventchat import Config, Limits, Listen
from harness.clock import START_TIME_S
from tests.fire.arena import Arena, End, Guest, arena
from tests.fire.house import House, Person
from tests.fire.leaks import Census, kept

HOUR_S = 3_600
_US = 1_000_000
_IDLE_S = 1_800
_BETWEEN_DEEDS_S = 600
_AWAY_S = 1_200
_STALL_S = 300
_SILENT_S = 2 * _IDLE_S
_FLUSH_S = 10
_QUEUE_BYTES = 32_768
_SOCKET_BYTES = 4_096
_DIALECTS = ("line", "json", "slash")
_WORDS = (
    "hello",
    "äöü",
    "\U0001f469\u200d\U0001f680",
    "yes no",
    "a  b",
    "{}",
    "'quoted'",
    "\u4f60\u597d",
    "-",
    "w" * 300,
)


@dataclass(frozen=True, slots=True)
class Soaked:
    """What one run has shown."""

    hours: float
    clients: int
    deeds: dict[str, int]
    compared_bytes: int
    departures: dict[str, int]


class _Slot:
    """One of the clients, over all its connections."""

    def __init__(self, number: int, dialect: str) -> None:
        self.number = number
        self.dialect = dialect
        self.guest: Guest | None = None
        self.person: Person | None = None
        self.silent = False
        # When the server ended it, or it the server, while it was not reading.
        self.parted_us: int | None = None


def soak(hours: float, clients: int, seed: int) -> Soaked:
    """So much virtual time; raises where anyone hears what the model does not foresee, or where anything is left."""
    limits = Limits(clients_per_address=clients, queue_bytes=_QUEUE_BYTES, flush_s=_FLUSH_S)
    config = Config(
        listen=tuple(Listen(each, "127.0.0.1", 0) for each in _DIALECTS), idle_s=_IDLE_S, limits=limits
    )
    with arena(config) as scene:
        before = Census(scene)
        week = _Week(scene, clients, random.Random(seed))
        week.go_on_until(round(hours * HOUR_S * _US))
        week.see_everyone_off()
        assert not kept(scene), kept(scene)
        result = Soaked(hours, clients, dict(week.deeds), week.compared_bytes, dict(scene.happened))
        del week
        assert not Census(scene).since(before), Census(scene).since(before)
        return result


class _Week:
    def __init__(self, scene: Arena, clients: int, rng: random.Random) -> None:
        self._scene = scene
        self._rng = rng
        self._house = House()
        self._slots = [_Slot(n, rng.choice(_DIALECTS)) for n in range(clients)]
        self._diary: list[tuple[int, int]] = []
        self._cutoffs: list[tuple[int, int]] = []
        self.deeds: Counter[str] = Counter()
        self.compared_bytes = 0
        for slot in self._slots:
            self._plan(slot, _AWAY_S)
        self._here: dict[str, tuple[int, Callable[[_Slot], None]]] = {
            "say": (40, self._say),
            "paste": (4, self._paste),
            "tell": (10, self._tell),
            "who": (3, self._who),
            "ping": (5, self._ping),
            "half a line": (4, self._half_a_line),
            "blank line": (2, self._blank_line),
            "stall": (6, self._stall),
            "fall silent": (2, self._fall_silent),
            "quit": (2, self._quit),
            "half-close": (2, self._half_close),
            "vanish": (3, self._vanish),
        }

    def go_on_until(self, end_us: int) -> None:
        """Everything that is planned before then, and everything that is due."""
        while self._diary[0][0] < end_us:
            cutoff = self._cutoffs[0][0] if self._cutoffs else end_us
            if cutoff < self._diary[0][0]:
                self._cut_off(*heapq.heappop(self._cutoffs))
                continue
            at_us, number = heapq.heappop(self._diary)
            self._to(at_us)
            slot = self._slots[number]
            if slot.guest is None:
                self._come(slot)
            elif not slot.guest.reads:
                self._end_of_stall(slot)
            else:
                weights = [weight for weight, _ in self._here.values()]
                deed = self._rng.choices(list(self._here), weights)[0]
                if not slot.person or not slot.person.name:
                    deed = self._rng.choice(("log in", "log in", "vanish", "fall silent", "half-close"))
                self._count(deed)
                if deed == "log in":
                    self._log_in(slot)
                else:
                    self._here[deed][1](slot)
            self._plan_next(slot)
            self._compare()

    def see_everyone_off(self) -> None:
        """The end of the week."""
        for slot in self._slots:
            if slot.guest is not None:
                if not slot.guest.reads:
                    self._end_of_stall(slot)
                if slot.guest is not None:
                    self._vanish(slot)
            self._compare()
        self._scene.pass_s(_FLUSH_S + 60)

    # Time

    def _to(self, at_us: int) -> None:
        self._scene.pass_until(at_us)
        self._compare()

    def _plan(self, slot: _Slot, mean_s: float) -> None:
        # Whole milliseconds and the client's number: no two things are ever due at one instant.
        delay_ms = max(1, round(self._rng.expovariate(1 / mean_s) * 1000))
        at_us = (self._scene.now_us // 1000 + delay_ms) * 1000 + slot.number
        heapq.heappush(self._diary, (at_us, slot.number))

    def _plan_next(self, slot: _Slot) -> None:
        if slot.guest is None:
            self._plan(slot, _AWAY_S)
        elif slot.silent:
            self._plan(slot, _SILENT_S)
        elif not slot.guest.reads:
            self._plan(slot, _STALL_S)
        else:
            self._plan(slot, _BETWEEN_DEEDS_S)

    @property
    def _at(self) -> int:
        return int(START_TIME_S + self._scene.now_us / _US)

    def _count(self, deed: str) -> None:
        self.deeds[deed] += 1

    # What people do

    def _come(self, slot: _Slot) -> None:
        self._count("come")
        slot.guest = self._scene.come(slot.dialect, buffer_bytes=_SOCKET_BYTES)
        slot.person = Person(slot.dialect, self._scene.now_us)
        slot.silent, slot.parted_us = False, None
        self._expect_cutoff(slot)
        self._scene.settle()
        if self._rng.random() < 0.9:
            self._log_in(slot)

    def _log_in(self, slot: _Slot) -> None:
        name = self._rng.choice(("anna", "BENO", "çelik", "dora-", "e.f_")) + str(self._rng.randrange(40))
        name = name.title() if self._rng.random() < 0.3 else name
        person = self._send(slot, lambda person: person.wording.ask_in(name))
        self._house.enter(person, name, self._at)

    def _say(self, slot: _Slot) -> None:
        text = self._words()
        person = self._send(slot, lambda person: person.wording.ask_say(text))
        self._house.say(person, text, self._at)

    def _paste(self, slot: _Slot) -> None:
        texts = [self._words() for _ in range(self._rng.randrange(2, 20))]
        person = self._send(slot, lambda person: "".join([person.wording.ask_say(text) for text in texts]))
        for text in texts:
            self._house.say(person, text, self._at)

    def _tell(self, slot: _Slot) -> None:
        to = self._rng.choice([*self._house.users, "nobody-here"])
        to = to.upper() if self._rng.random() < 0.3 else to
        text = self._words()
        person = self._send(slot, lambda person: person.wording.ask_tell(to, text))
        self._house.tell(person, to, text, self._at)

    def _who(self, slot: _Slot) -> None:
        person = self._send(slot, lambda person: person.wording.ask_who())
        person.hears(person.wording.roster(self._house.users))

    def _ping(self, slot: _Slot) -> None:
        person = self._send(slot, lambda person: person.wording.ask_ping())
        person.hears(person.wording.pong())

    def _blank_line(self, slot: _Slot) -> None:
        self._send(slot, lambda person: "\r\n")

    def _half_a_line(self, slot: _Slot) -> None:
        # It is finished by whatever is sent next, so it may be nothing but white space; it is no activity.
        assert slot.guest is not None
        slot.guest.send(b"   ")
        self._scene.settle()

    def _fall_silent(self, slot: _Slot) -> None:
        slot.silent = True

    def _stall(self, slot: _Slot) -> None:
        assert slot.guest is not None
        self._compare()
        slot.guest.stop_reading()

    def _quit(self, slot: _Slot) -> None:
        person = self._send(slot, lambda person: person.wording.ask_out())
        person.hears(person.wording.goodbye())
        self._house.leave(person, self._at)
        self._compare()
        self._gone(slot, ended=True)

    def _half_close(self, slot: _Slot) -> None:
        assert slot.guest is not None
        assert slot.person is not None
        slot.guest.half_close()
        self._scene.settle()
        self._house.leave(slot.person, self._at)
        self._compare()
        self._gone(slot, ended=True)

    def _vanish(self, slot: _Slot) -> None:
        assert slot.guest is not None
        assert slot.person is not None
        slot.guest.close()
        self._scene.settle()
        self._house.leave(slot.person, self._at)
        self._gone(slot, ended=False)

    def _end_of_stall(self, slot: _Slot) -> None:
        guest, person = slot.guest, slot.person
        assert guest is not None
        assert person is not None
        how = self._rng.choice(("read again", "read again", "talk blindly", "half-close", "vanish"))
        if slot.parted_us is not None:
            self._count("find that one was dropped")
            in_time = slot.parted_us >= 0 and self._scene.now_us - slot.parted_us < _FLUSH_S * _US
            guest.read_again()
            self._scene.settle()
            heard = bytes(guest.heard)
            assert guest.end is not End.OPEN
            assert person.owed.startswith(heard), (
                f"{heard[-100:]!r} is not how {bytes(person.owed[-200:])!r} begins"
            )
            assert not in_time or heard == person.owed, "read in time, and has not heard all"
            self.compared_bytes += len(heard)
            self._gone(slot, ended=True)
            return
        self._count("after a stall: " + how)
        if how == "vanish":
            self._vanish(slot)
        elif how == "talk blindly" and person.name:
            self._say(slot)
        else:
            guest.read_again()
            self._scene.settle()
            self._compare()
            if how == "half-close":
                self._half_close(slot)

    def _words(self) -> str:
        return " ".join(self._rng.choices(_WORDS, k=self._rng.randrange(1, 5)))

    def _send(self, slot: _Slot, ask: Callable[[Person], str]) -> Person:
        assert slot.guest is not None
        assert slot.person is not None
        slot.guest.send(ask(slot.person).encode())
        slot.person.last_line_us = self._scene.now_us
        self._expect_cutoff(slot)
        self._scene.settle()
        return slot.person

    # What becomes of it

    def _expect_cutoff(self, slot: _Slot) -> None:
        heapq.heappush(self._cutoffs, (self._scene.now_us + _IDLE_S * _US, slot.number))

    def _cut_off(self, due_us: int, number: int) -> None:
        slot = self._slots[number]
        person = slot.person
        if person is None or slot.parted_us is not None or person.last_line_us + _IDLE_S * _US != due_us:
            return
        self._to(due_us - 1)
        assert slot.guest is not None
        assert slot.guest.end is End.OPEN, "cut off before its time"
        self._scene.pass_until(due_us)
        self._count("be cut off")
        person.hears(person.wording.idle())
        self._house.leave(person, self._at)
        if slot.guest.reads:
            self._compare()
            self._gone(slot, ended=True)
        else:
            slot.parted_us = due_us
            self._compare()

    def _gone(self, slot: _Slot, *, ended: bool) -> None:
        assert slot.guest is not None
        if ended:
            assert slot.guest.end in (End.ENDED, End.BROKEN), slot.guest.end
        slot.guest = slot.person = None

    def _compare(self) -> None:
        """Everyone who reads has heard what the model says, and nothing else; who was dropped as slow is found."""
        self._find_dropped()
        for slot in self._slots:
            guest, person = slot.guest, slot.person
            if guest is None or person is None or not guest.reads:
                continue
            if guest.heard != person.owed:
                raise AssertionError(
                    f"at {self._scene.now_us / _US:.6f} s {person.dialect} client {slot.number} ({person.name}) heard\n"
                    f"  {bytes(guest.heard)!r}\ninstead of\n  {bytes(person.owed)!r}"
                )
            if person.owed:
                self.compared_bytes += len(person.owed)
                guest.heard.clear()
                person.owed.clear()

    def _find_dropped(self) -> None:
        for slot in self._slots:
            guest, person = slot.guest, slot.person
            if guest is None or person is None or guest.reads or slot.parted_us is not None:
                continue
            if guest.hung_up:
                self._count("be dropped as slow")
                assert len(person.owed) > _QUEUE_BYTES, "dropped though it was owed little"
                slot.parted_us = -1
                self._house.leave(person, self._at)
