"""Announces the departures that had to wait at the gate of a room, in a separate greenlet for each such room."""

from __future__ import annotations

from typing import Any

import gevent
from gevent.hub import Hub

from geventchat.chat.rooms import Room


class Announcer:
    """Announces departures for clients that are gone and cannot wait themselves."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._running: set[Room] = set()

    def announce(self, room: Room) -> None:
        """Announce the departures that are pending in this room."""
        if room not in self._running:
            self._running.add(room)
            gevent.spawn_raw(self._run, room)

    def until_passed(self, watcher: Any) -> None:
        """Wait at a gate."""
        self._hub.wait(watcher)

    def _run(self, room: Room) -> None:
        try:
            # While others wait, the gate is closed to all but the one in the body of its passage. So the call there
            # announces departures, and the call behind it asks whether any are left.
            while not room.announce_departures():
                with room.gate.passage(self, "departures"):
                    room.announce_departures()
        finally:
            # Whatever happens here, the next one who leaves wakes it again.
            self._running.discard(room)
