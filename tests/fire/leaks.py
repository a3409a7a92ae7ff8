"""Finds leaks of clients that are gone: in the server's tables, in the kernel and in the interpreter."""

from __future__ import annotations

import gc
import os
from collections import Counter
from typing import Any

from gevent import Timeout
from greenlet import greenlet

from geventchat.chat.sessions import Session
from geventchat.dialects.framing import LineFraming
from geventchat.net.connection import Connection
from geventchat.net.delivery import Subscriber
from geventchat.net.gate import Gate
from geventchat.net.sniffing import Sniffer
from geventchat.net.waiter import Waiter
from geventchat.rate import TokenBucket
from tests.fire.simulation import Simulation

_PER_CLIENT = (Connection, Subscriber, Session, Waiter, LineFraming, TokenBucket, Gate, Sniffer, Timeout)


class Census:
    """How many objects of each kind exist, to be compared with later."""

    def __init__(self, simulation: Simulation) -> None:
        gc.collect()
        found: Counter[str] = Counter()
        for thing in gc.get_objects():
            kind = type(thing)
            if kind in _PER_CLIENT:
                found[kind.__name__] += 1
            elif issubclass(kind, greenlet) and not thing.dead:
                found["greenlet"] += 1
        found["descriptor"] = len(os.listdir("/proc/self/fd"))
        found["timer"] = simulation.timers
        self.found = found

    def growth_since(self, before: Census) -> list[str]:
        """The objects whose number has grown."""
        return [
            f"{count - before.found[kind]} more of {kind}"
            for kind, count in self.found.items()
            if count > before.found[kind]
        ]


def baseline(simulation: Simulation) -> Census:
    """A census after one client has come and gone: the server remembers its address for a while."""
    simulation.connect().close()
    simulation.advance(1)
    return Census(simulation)


def leftovers(simulation: Simulation) -> list[str]:
    """The entries left in the server's tables; empty when all clients are forgotten."""
    server, context = simulation.server, simulation.context
    chat, admission, delivery = context.chat, context.admission, context.delivery
    lobby: Any = chat.lobby
    counts: dict[str, int] = {
        "connections": len(server._connections.open),
        "sessions": len(chat),
        "names in the lobby": len(lobby.names),
        "audiences": len(delivery._audiences),
        "departures to announce": len(lobby._departures),
        "clients waiting at the gate": len(lobby.gate._waiting),
        "slots": admission.connected,
        "slots by address": sum(address.connections for address in admission._addresses.values()),
        "addresses that will not be forgotten": len(
            set(admission._addresses.values()) - set(admission._departed.values())
        ),
        "lingering connections": admission.lingering,
        "audiences with a batch": len(delivery._changed),
        "people in rooms": sum(len(room.names) for room in chat.rooms),
        "names that someone ignores": len(chat._ignores._listeners),
        "accounts that own rooms": len(chat._owners._accounts),
        "spliced subscribers": len(delivery._spliced),
        "abandoned subscribers": len(delivery._abandoned),
        "subscribers that are behind": len(delivery._behind),
        "sockets watched for hang-ups": len(context.hangups._callbacks),
        "faults": len(simulation.faults),
    }
    return [f"{count} {what}" for what, count in counts.items() if count]
