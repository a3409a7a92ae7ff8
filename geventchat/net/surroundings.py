"""What all connections of one server share. Knows nothing of any one of them."""

from __future__ import annotations

from dataclasses import dataclass

from gevent.hub import Hub as Loop

from geventchat.chat.hub import Hub
from geventchat.clock import Clock
from geventchat.log import Log
from geventchat.net.door import Door
from geventchat.net.flusher import Flusher
from geventchat.settings import Limits


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The chat, the loop, the flusher, the door, the time, the limits and the log."""

    hub: Hub
    loop: Loop
    flusher: Flusher
    door: Door
    clock: Clock
    limits: Limits
    log: Log
