"""Announces the departures that had to wait at the room's gate, in a separate greenlet while any are waiting."""

from __future__ import annotations

from typing import Any

import gevent
from gevent.hub import Hub

from geventchat.chat.chat import Chat


class Announcer:
    """Announces departures for clients that are gone and cannot wait themselves."""

    def __init__(self, hub: Hub, chat: Chat) -> None:
        self._hub = hub
        self._chat = chat
        self._running = False

    def wake(self) -> None:
        """Announce the departures that are pending."""
        if not self._running and self._chat.announce_departures() is not None:
            self._running = True
            gevent.spawn_raw(self._run)

    def until_passed(self, watcher: Any) -> None:
        """Wait at a gate."""
        self._hub.wait(watcher)

    def _run(self) -> None:
        try:
            # While others wait, the gate is closed to all but the one in the body of its passage. So the call there
            # announces departures, and the call behind it asks whether any are left.
            while (gate := self._chat.announce_departures()) is not None:
                with gate.passage(self, "departures"):
                    self._chat.announce_departures()
        finally:
            # Whatever happens here, the next one who leaves wakes it again.
            self._running = False
