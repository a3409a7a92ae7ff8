"""The server pelted with garbage in every dialect while others chat: it stays up, they notice nothing, nothing is kept."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import dataclass

from geventchat import Config, Limits, Listen
from tests.fire.arena import Arena, End, Guest, arena
from tests.fire.garbage import cut, piece_of_garbage
from tests.fire.leaks import Census, kept

DIALECTS = ("line", "json", "slash")
_LOGIN = {"line": "LOGIN {}", "json": '{{"type": "join", "username": "{}"}}', "slash": "{}"}
_SAY = {"line": "MSG {}", "json": '{{"type": "chat", "message": "{}"}}', "slash": "{}"}
_HEARD = {
    "line": "MSG {} {}",
    "json": '{{"type": "chat", "username": "{}", "message": "{}", ',
    "slash": "{}: {}",
}
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
_BATCH = 50


@dataclass(frozen=True, slots=True)
class Pelted:
    """What one run has shown."""

    strings: int
    bytes_sent: int
    kinds: dict[str, int]
    departures: dict[str, int]


def pelt(strings: int, seed: int, dialect: str) -> Pelted:
    """So many strings at the listener of one dialect, beside a chat in all three; raises where anything is amiss."""
    config = Config(
        listen=tuple(Listen(each, "127.0.0.1", 0) for each in DIALECTS),
        idle_s=0,
        limits=Limits(clients_per_address=10_000),
    )
    rng = random.Random(seed)
    sent, kinds = 0, Counter[str]()
    with arena(config) as scene:
        before = Census(scene)
        chat = _Chat(scene)
        throwers: list[Guest] = []
        for n in range(strings):
            kind, data = piece_of_garbage(rng)
            kinds[kind] += 1
            sent += len(data)
            throwers.append(_throw(scene, rng, dialect, data, n))
            if len(throwers) == _BATCH:
                chat.tick()
                _see_off(scene, rng, throwers)
        _see_off(scene, rng, throwers)
        chat.tick()
        assert scene.server.clients == len(DIALECTS), f"{scene.server.clients} are still here"
        chat.end()
        assert not kept(scene), kept(scene)
        del chat
        assert not Census(scene).since(before), Census(scene).since(before)
        reasons = ("quit", "closed", "reset", "slow", "http", "tls")
        return Pelted(strings, sent, dict(kinds), {why: scene.happened[why] for why in reasons})


def _throw(scene: Arena, rng: random.Random, dialect: str, data: bytes, n: int) -> Guest:
    guest = scene.come(dialect)
    if rng.random() < 0.5:
        guest.say(_LOGIN[dialect].format(f"thrower{n}"))
        scene.settle()
    for piece in cut(rng, data):
        guest.send(piece)
        scene.settle()
    way = rng.randrange(4)
    if way == 0:
        guest.half_close()
    elif way == 1:
        guest.close()
    elif way == 2:
        guest.stop_reading()
    return guest


def _see_off(scene: Arena, rng: random.Random, throwers: list[Guest]) -> None:
    for guest in throwers:
        if guest.end is End.OPEN and guest.reads and rng.random() < 0.5:
            guest.half_close()
        else:
            guest.close()
    # A flood is read at the pace that is allowed, a goodbye waits for its flush: far less than this.
    scene.pass_s(30)
    for guest in throwers:
        assert guest.end is not End.OPEN
        well_formed(bytes(guest.heard))
    throwers.clear()


def well_formed(wire: bytes) -> None:
    """Whatever was asked, what is answered is text in whole lines that cannot harm a terminal."""
    # Who asked for telnet's timing mark was sent it, and nobody else was.
    text = wire.replace(b"\xff\xfb\x06", b"").decode()
    assert not text or text.endswith("\n"), text[-200:]
    found = _CONTROL.search(text)
    assert found is None, f"{found!r} in {text[max(0, found.start() - 80) : found.end() + 20]!r}"


class _Chat:
    """One person in each dialect, who must notice nothing but who comes and goes."""

    def __init__(self, scene: Arena) -> None:
        self._scene = scene
        self._ticks = 0
        self._people = {dialect: scene.come(dialect) for dialect in DIALECTS}
        for dialect, guest in self._people.items():
            guest.say(_LOGIN[dialect].format(f"quiet-{dialect}"))
            scene.settle()

    def tick(self) -> None:
        """Everyone says something, and every other hears it, at once."""
        self._ticks += 1
        for speaker, guest in self._people.items():
            marks = {dialect: len(other.heard) for dialect, other in self._people.items()}
            words = f"tick {self._ticks}"
            guest.say(_SAY[speaker].format(words))
            self._scene.settle()
            for dialect, other in self._people.items():
                fresh = bytes(other.heard[marks[dialect] :]).decode()
                wanted = _HEARD[dialect].format(f"quiet-{speaker}", words)
                if dialect == speaker and dialect != "json":
                    assert wanted not in fresh
                else:
                    assert sum(line.startswith(wanted) for line in fresh.split("\n")) == 1, (
                        dialect,
                        fresh[-300:],
                    )

    def end(self) -> None:
        """What they heard was whole and well formed; everyone who came has left, once."""
        for guest in self._people.values():
            assert guest.end is End.OPEN
            well_formed(bytes(guest.heard))
        came, left = Counter[str](), Counter[str]()
        for line in bytes(self._people["json"].heard).decode("ascii").splitlines():
            told = json.loads(line)
            if told["type"] == "user_joined":
                came[told["username"]] += 1
            if told["type"] == "user_left":
                left[told["username"]] += 1
        assert came - Counter({"quiet-slash": 1}) == left
        for dialect, guest in self._people.items():
            guest.close()
            del dialect
        self._scene.pass_s(30)
