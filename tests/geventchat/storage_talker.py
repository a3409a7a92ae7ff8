"""A program that uses a storage as the chat does until it is killed, and reports on standard output what it does.

epoch TEXT                 at the start
say ROOM ID NUMBER COUNT   before ids from this one on are used for messages with numbers from this one on, said together;
                           the numbers are the texts
forget ROOM                before the room is forgotten
kept NUMBER                everything up to this number has been written
"""

from __future__ import annotations

import os
import random
import resource
import sys
from pathlib import Path

from geventchat.chat.events import Said
from geventchat.chat.records import RoomRecord
from geventchat.clock import SystemClock
from geventchat.services.storage.sqlite import SqliteStorage
from geventchat.settings import Limits

ROOMS = ("lobby", "dev", "ops")


def report(*words: object) -> None:
    """Write a line at once, in one piece."""
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


def talk(path: Path, number: int, seed: int, most_file_bytes: int) -> None:
    chance = random.Random(seed)
    storage = SqliteStorage(path, Limits(), SystemClock(), lambda event, **fields: None, lambda call: call())
    stored = storage.load()
    report("epoch", stored.epoch)
    if most_file_bytes:
        # The nearest thing to a full disk that needs no rights: no file can grow beyond this.
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_file_bytes, resource.RLIM_INFINITY))
    floor_id = stored.floor_id
    last_ids = {room.key: room.last_id for room in stored.rooms}
    said = number
    while True:
        room = chance.choice(ROOMS)
        if room not in last_ids:
            last_ids[room] = floor_id
            storage.save(RoomRecord(room, room, last_id=floor_id))
        texts = [str(said + one) for one in range(1, chance.randint(1, 5) + 1)]
        last_id = last_ids[room] + len(texts)
        if storage.is_ready(room, last_id):
            report("say", room, last_ids[room] + 1, said + 1, len(texts))
            storage.append(room, Said(room, "alice", texts, last_ids[room] + 1, 1))
            last_ids[room], said = last_id, said + len(texts)
        if chance.random() < 0.01:
            report("forget", room)
            storage.forget(RoomRecord(room, room))
            floor_id = max(floor_id, last_ids.pop(room))
        if chance.random() < 0.02:
            storage.before(room, 1, 1)
            report("kept", said)


if __name__ == "__main__":
    _, path, *numbers = sys.argv
    talk(Path(path), *map(int, numbers))
