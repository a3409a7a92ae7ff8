"""What a server may not keep once its clients are gone: looked up in its tables, the kernel's and the interpreter's."""

from __future__ import annotations

import gc
import os
from collections import Counter

from gevent import Timeout
from greenlet import greenlet

from geventchat.chat.hub import Session
from geventchat.dialects.framing import Framer
from geventchat.net.connection import Connection
from geventchat.net.opening import Opening
from geventchat.net.outbox import Outbox
from geventchat.net.pace import Pace
from geventchat.net.vigil import Vigil
from tests.fire.arena import Arena

_OF_A_CLIENT = (Connection, Outbox, Session, Vigil, Framer, Pace, Opening, Timeout)


class Census:
    """What there is of each kind, to be compared with later."""

    def __init__(self, arena: Arena) -> None:
        gc.collect()
        found: Counter[str] = Counter()
        for thing in gc.get_objects():
            kind = type(thing)
            if kind in _OF_A_CLIENT:
                found[kind.__name__] += 1
            elif issubclass(kind, greenlet) and not thing.dead:
                found["greenlet"] += 1
        found["descriptor"] = len(os.listdir("/proc/self/fd"))
        found["timer"] = arena.timers
        self.found = found

    def since(self, before: Census) -> list[str]:
        """What there is more of now."""
        return [
            f"{count - before.found[kind]} more of {kind}"
            for kind, count in self.found.items()
            if count > before.found[kind]
        ]


def kept(arena: Arena) -> list[str]:
    """What the server's own tables still hold, in words; empty when all clients are forgotten."""
    server, around = arena.server, arena.around
    room, door, flusher = around.hub.room, around.door, around.flusher
    counted: dict[str, int] = {
        "connections": len(server._connections),
        "names": len(room),
        "names shown": len(room._shown),
        "dialects present": len(room._present) + len(room._feeds),
        "places at the door": door.inside,
        "places by address": len(door._by_origin),
        "on the way out": door.parting,
        "feeds to hand out": len(flusher._spoken),
        "outboxes to settle": len(flusher._diverted),
        "outboxes to let go": len(flusher._losing),
        "faults": len(arena.faults),
    }
    for feed in arena.feeds:
        name = feed.dialect.name
        counted[f"{name}: members flowing"] = len(feed.flowing)
        counted[f"{name}: members behind"] = len(feed.behind)
        counted[f"{name}: frames"] = len(feed._frames)
        counted[f"{name}: bytes"] = feed.size + len(feed.turn)
    return [f"{count} {what}" for what, count in counted.items() if count]
