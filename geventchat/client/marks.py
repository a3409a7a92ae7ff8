"""What was read of each room, kept between sessions: a private file of limited size."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from geventchat.client.conversation import ReadMarks

# Servers and names in the file, and rooms of each; the newest are kept.
MAX_PLACES = 100
MAX_ROOMS = 200
MAX_FILE_BYTES = 1024 * 1024


class MarksFile:
    """The file, which is read at the start and written at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, place: str) -> ReadMarks:
        """What was read in this place, a server and a name; nothing if the file is missing or damaged."""
        marks = self._read_all().get(place)
        if not isinstance(marks, dict):
            return ReadMarks()
        epoch, rooms = marks.get("epoch"), marks.get("rooms")
        if not isinstance(epoch, str) or not isinstance(rooms, dict):
            return ReadMarks()
        return ReadMarks(epoch, {room: id for room, id in rooms.items() if type(id) is int and id >= 0})

    def write(self, place: str, marks: ReadMarks) -> None:
        """Keep what was read in this place. Raises OSError."""
        if not marks.epoch or not marks.rooms:
            return
        places = self._read_all()
        places.pop(place, None)
        newest = dict(list(marks.rooms.items())[-MAX_ROOMS:])
        places[place] = {"epoch": marks.epoch, "rooms": newest}
        kept = dict(list(places.items())[-MAX_PLACES:])
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(kept, file)
        os.replace(fresh, self._path)

    def _read_all(self) -> dict[str, object]:
        try:
            with self._path.open("rb") as file:
                places = json.loads(file.read(MAX_FILE_BYTES))
        except (OSError, ValueError):
            return {}
        return places if isinstance(places, dict) else {}


def marks_path(state: Path) -> Path:
    """Beside the history of the input."""
    return state / "geventchat" / "read.json"


def state_directory(environment: Mapping[str, str], home: Path) -> Path:
    """The directory that the XDG base directory specification asks for; it ignores a relative XDG_STATE_HOME."""
    named = environment.get("XDG_STATE_HOME", "")
    return Path(named) if named.startswith("/") else home / ".local" / "state"
