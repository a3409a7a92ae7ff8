"""A process that uses a storage is killed at random moments: what was written is there, and no id is used twice."""

from __future__ import annotations

import random
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.geventchat.storage_talker import ROOMS
from tests.geventchat.storage_worlds import TIMEOUT_S, SqliteWorld

LIVES = 8
MOST_LINES = 400


@dataclass(frozen=True)
class Said:
    """Messages that were sent together: ids and numbers, each from the first one on."""

    life: int
    room: str
    first_id: int
    first: int
    count: int

    def messages(self) -> list[tuple[int, str]]:
        return [(self.first_id + at, str(self.first + at)) for at in range(self.count)]


@dataclass
class Reported:
    """The reports of the program over all its lives."""

    epochs: list[str] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    # The last number that was certainly written in each life, and the lives in which the disk was full.
    kept: dict[int, int] = field(default_factory=dict)
    full: set[int] = field(default_factory=set)
    # The last number that was sent in a room before it was forgotten.
    forgotten: dict[str, int] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return self.said[-1].first + self.said[-1].count - 1 if self.said else 0

    @property
    def life(self) -> int:
        return len(self.epochs) - 1

    def read(self, lines: list[str]) -> None:
        for line in lines:
            match line.split(" "):
                case ["epoch", epoch]:
                    self.epochs.append(epoch)
                case ["say", room, *numbers]:
                    self.said.append(Said(self.life, room, *map(int, numbers)))
                case ["forget", room]:
                    self.forgotten[room] = self.last
                case ["kept", number]:
                    self.kept[self.life] = int(number)
                case _:
                    raise AssertionError(line)


def live(path: Path, reported: Reported, chance: random.Random, most_file_bytes: int = 0) -> None:
    """Let the program run until it has reported a random number of lines, and kill it."""
    arguments = [str(path), str(reported.last), str(chance.randrange(1_000_000)), str(most_file_bytes)]
    lines = chance.randrange(5, MOST_LINES)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.geventchat.storage_talker", *arguments], stdout=subprocess.PIPE
    ) as talker:
        assert talker.stdout is not None
        output = b""
        while output.count(b"\n") < lines or b"\nkept " not in output:
            assert select.select([talker.stdout], (), (), TIMEOUT_S)[0], "it says nothing"
            chunk = talker.stdout.read1()
            assert chunk, "it ended"
            output += chunk
        talker.kill()
        output += talker.stdout.read()
    *whole, cut = output.decode().split("\n")
    assert not cut, "lines are written in one piece"
    reported.read(whole)
    if most_file_bytes:
        reported.full.add(reported.life)


def stored(world: SqliteWorld) -> tuple[str, dict[str, list[tuple[int, str]]]]:
    """The epoch, and the ids and texts of each room."""
    storage = world.open()
    epoch = storage.load().epoch
    found = {room: list(history(storage, room)) for room in ROOMS}
    world.close(storage)
    return epoch, found


def history(storage: object, room: str) -> Iterator[tuple[int, str]]:
    at = 0
    while messages := storage.after(room, at, 1_000):  # type: ignore[attr-defined]
        yield from ((message.id, message.text) for message in messages)
        at = messages[-1].id


def check(world: SqliteWorld, reported: Reported) -> None:
    """Compare what is stored with what was reported."""
    epoch, found = stored(world)
    assert epoch == reported.epochs[-1]
    for room, messages in found.items():
        assert [id for id, _ in messages] == sorted({id for id, _ in messages})
        there = set(messages)
        said = [one for one in reported.said if one.room == room]
        assert there <= {message for one in said for message in one.messages()}
        for one in said:
            kept = [message in there for message in one.messages()]
            assert all(kept) or not any(kept), f"{one} was kept in half"
            written = one.first + one.count - 1 <= reported.kept[one.life] and one.life not in reported.full
            if written and reported.forgotten.get(room, 0) < one.first:
                assert all(kept), f"{one} is missing"


def assert_no_id_was_used_twice(reported: Reported) -> None:
    for epoch in set(reported.epochs):
        for room in ROOMS:
            said = [one for one in reported.said if (reported.epochs[one.life], one.room) == (epoch, room)]
            ids = [id for one in said for id, _ in one.messages()]
            assert ids == sorted(set(ids)), f"in {room}"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_kill_loses_nothing_that_was_written_and_no_id_is_used_twice(tmp_path: Path, seed: int):
    chance = random.Random(seed)
    world = SqliteWorld(tmp_path)
    reported = Reported()
    for number in range(LIVES):
        live(world.path, reported, chance)
        if number % 2:
            check(world, reported)
    assert len(set(reported.epochs)) == 1
    assert_no_id_was_used_twice(reported)
    assert len(reported.said) > 100
    assert reported.forgotten


def test_a_kill_while_the_disk_is_full_begins_a_new_epoch_and_uses_no_id_twice(tmp_path: Path):
    chance = random.Random(3)
    world = SqliteWorld(tmp_path)
    reported = Reported()
    live(world.path, reported, chance)
    check(world, reported)
    for _ in range(3):
        # Not even the log can grow beyond one page.
        live(world.path, reported, chance, most_file_bytes=4_096)
        assert (world.path / "ids-unreserved").exists()
        live(world.path, reported, chance)
        check(world, reported)
    assert len(set(reported.epochs)) == 4
    assert_no_id_was_used_twice(reported)
