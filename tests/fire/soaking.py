"""A simulated week: people come, talk, fall silent, stall and vanish by seed, and every byte that each hears is foreseen."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

from geventchat import Config, Limits, Listen
from tests.fire.arena import Arena, arena
from tests.fire.leaks import Census, kept
from tests.fire.town import Rules, Slot, Town

HOUR_S = 3_600
_US = 1_000_000
_IDLE_S = 1_800
_BETWEEN_DEEDS_S = 600
_AWAY_S = 1_200
_STALL_S = 300
_SILENT_S = 2 * _IDLE_S
_FLUSH_S = 10
_QUEUE_BYTES = 32_768
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
        result = Soaked(hours, clients, dict(week.town.deeds), week.town.compared_bytes, dict(scene.happened))
        del week
        assert not Census(scene).since(before), Census(scene).since(before)
        return result


class _Week:
    def __init__(self, scene: Arena, clients: int, rng: random.Random) -> None:
        self._scene = scene
        self._rng = rng
        self._slots = [Slot(n, rng.choice(_DIALECTS)) for n in range(clients)]
        self.town = Town(scene, self._slots, Rules(_IDLE_S, _FLUSH_S, _QUEUE_BYTES))
        self._house = self.town.house
        self._diary: list[tuple[int, int]] = []
        for slot in self._slots:
            self._plan(slot, _AWAY_S)
        self._here: dict[str, tuple[int, Callable[[Slot], None]]] = {
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
            at_us, number = heapq.heappop(self._diary)
            self.town.pass_until(at_us)
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
            self.town.compare()

    def see_everyone_off(self) -> None:
        """The end of the week."""
        for slot in self._slots:
            if slot.guest is not None:
                if not slot.guest.reads:
                    self._end_of_stall(slot)
                if slot.guest is not None:
                    self._vanish(slot)
            self.town.compare()
        self._scene.pass_s(_FLUSH_S + 60)

    # Time

    def _plan(self, slot: Slot, mean_s: float) -> None:
        # Whole milliseconds and the client's number: no two things are ever due at one instant.
        delay_ms = max(1, round(self._rng.expovariate(1 / mean_s) * 1000))
        at_us = (self._scene.now_us // 1000 + delay_ms) * 1000 + slot.number
        heapq.heappush(self._diary, (at_us, slot.number))

    def _plan_next(self, slot: Slot) -> None:
        if slot.guest is None:
            self._plan(slot, _AWAY_S)
        elif slot.silent:
            self._plan(slot, _SILENT_S)
        elif not slot.guest.reads:
            self._plan(slot, _STALL_S)
        else:
            self._plan(slot, _BETWEEN_DEEDS_S)

    def _count(self, deed: str) -> None:
        self.town.deeds[deed] += 1

    # What people do

    def _come(self, slot: Slot) -> None:
        self._count("come")
        self.town.connect(slot)
        if self._rng.random() < 0.9:
            self._log_in(slot)

    def _log_in(self, slot: Slot) -> None:
        name = self._rng.choice(("anna", "BENO", "çelik", "dora-", "e.f_")) + str(self._rng.randrange(40))
        name = name.title() if self._rng.random() < 0.3 else name
        person = self.town.send(slot, lambda person: person.wording.ask_in(name))
        self._house.enter(person, name, self.town.at)

    def _say(self, slot: Slot) -> None:
        text = self._words()
        person = self.town.send(slot, lambda person: person.wording.ask_say(text))
        self._house.say(person, text, self.town.at)

    def _paste(self, slot: Slot) -> None:
        texts = [self._words() for _ in range(self._rng.randrange(2, 20))]
        person = self.town.send(
            slot, lambda person: "".join([person.wording.ask_say(text) for text in texts])
        )
        for text in texts:
            self._house.say(person, text, self.town.at)

    def _tell(self, slot: Slot) -> None:
        to = self._rng.choice([*self._house.users, "nobody-here"])
        to = to.upper() if self._rng.random() < 0.3 else to
        text = self._words()
        person = self.town.send(slot, lambda person: person.wording.ask_tell(to, text))
        self._house.tell(person, to, text, self.town.at)

    def _who(self, slot: Slot) -> None:
        person = self.town.send(slot, lambda person: person.wording.ask_who())
        person.hears(person.wording.roster(self._house.users))

    def _ping(self, slot: Slot) -> None:
        person = self.town.send(slot, lambda person: person.wording.ask_ping())
        person.hears(person.wording.pong())

    def _blank_line(self, slot: Slot) -> None:
        self.town.send(slot, lambda person: "\r\n")

    def _half_a_line(self, slot: Slot) -> None:
        # It is finished by whatever is sent next, so it may be nothing but white space; it is no activity.
        guest, _ = slot.connected
        guest.send(b"   ")
        self._scene.settle()

    def _fall_silent(self, slot: Slot) -> None:
        slot.silent = True

    def _stall(self, slot: Slot) -> None:
        guest, _ = slot.connected
        self.town.compare()
        guest.stop_reading()

    def _quit(self, slot: Slot) -> None:
        person = self.town.send(slot, lambda person: person.wording.ask_out())
        person.hears(person.wording.goodbye())
        self._house.leave(person, self.town.at)
        self.town.compare()
        self.town.gone(slot, ended_by_server=True)

    def _half_close(self, slot: Slot) -> None:
        guest, person = slot.connected
        guest.half_close()
        self._scene.settle()
        self._house.leave(person, self.town.at)
        self.town.compare()
        self.town.gone(slot, ended_by_server=True)

    def _vanish(self, slot: Slot) -> None:
        guest, person = slot.connected
        guest.close()
        self._scene.settle()
        self._house.leave(person, self.town.at)
        self.town.gone(slot, ended_by_server=False)

    def _end_of_stall(self, slot: Slot) -> None:
        guest, person = slot.connected
        how = self._rng.choice(("read again", "read again", "talk blindly", "half-close", "vanish"))
        if slot.parted_us is not None:
            self._count("find that one was dropped")
            self.town.find_out(slot)
            return
        self._count("after a stall: " + how)
        if how == "vanish":
            self._vanish(slot)
        elif how == "talk blindly" and person.name:
            self._say(slot)
        else:
            guest.read_again()
            self._scene.settle()
            self.town.compare()
            if how == "half-close":
                self._half_close(slot)

    def _words(self) -> str:
        return " ".join(self._rng.choices(_WORDS, k=self._rng.randrange(1, 5)))
