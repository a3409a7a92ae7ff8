"""What a server hands over to the one that takes its place, in parts, and how that one takes it over.

The first part is the server itself with its sockets, and each of the others some of its clients. Each class says what of it
is handed over; here is in which order. `handover.py` carries the parts from one process to the other.

Invariants:
- Making the parts changes nothing but how much clients have been sent, so that the server can go on.
- Descriptors are in the part that says what they are, in the same order.
- Those who are logged in come in the order of their logins. The session of a client that cannot be handed over comes without
  its connection, and leaves the chat once the new server goes on.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import gevent

from geventchat.chat.history import RoomLog
from geventchat.chat.sessions import NoListener, Session
from geventchat.chat.states import BadState, State
from geventchat.chat.storage import Storage
from geventchat.handover import HandedOver, Part
from geventchat.net.acceptor import Connections
from geventchat.net.admission import Refusal
from geventchat.net.connection import Connection, ServerContext, chat_service_of
from geventchat.net.delivery import Buffer
from geventchat.net.listener import Listener
from geventchat.net.service import Accepted, Service
from geventchat.net.waiter import CloseReason
from geventchat.settings import Listen

T = TypeVar("T")

# How many clients a part has: the next part is made while another process takes this one over.
_CLIENTS_AT_ONCE = 100
# How long those who have said something are served alone, before the next few of the others are.
_BETWEEN_CLIENTS_S = 0.005


class Handed:
    """What another process has handed over, with its descriptors as what they are."""

    def __init__(self, handed_over: HandedOver) -> None:
        self.state, found = next(handed_over.parts)
        self.parts = handed_over.parts
        self.find = handed_over.buffers.find
        # Sessions of clients that could not be handed over.
        self.lost: list[Session] = []
        descriptors = iter(found)
        self.admin = socket.socket(fileno=next(descriptors)) if self.state["has_admin"] else None
        self.lock = next(descriptors) if self.state["has_lock"] else None
        opened = [(one, socket.socket(fileno=next(descriptors))) for one in self.state["listeners"]]
        inherited = self.state["inherited"]
        # Those of systemd come last.
        own, systemd = opened[: len(opened) - inherited], opened[len(opened) - inherited :]
        self.inherited = [(str(one["scheme"]), sock) for one, sock in systemd]
        self._listeners = {
            _place(one["scheme"], one["host"], one["port"], one["path"]): sock for one, sock in own
        }

    def epoch(self) -> str:
        """That of the ids."""
        return str(self.state["chat"]["epoch"])

    def listener(self, listen: Listen) -> socket.socket | None:
        """The socket that listens at this address, if the other process had it."""
        return self._listeners.pop(_place(listen.scheme, listen.host, listen.port, listen.path), None)

    def close(self) -> None:
        """Close what is not needed: the sockets of addresses that the settings no longer have."""
        for sock in self._listeners.values():
            sock.close()


class LeftBehind(Protocol):
    """A client that waits for something, and that no process serves any more."""

    @property
    def fileno(self) -> int:
        """The descriptor of its socket."""

    def send_away(self) -> None:
        """Have it connect again. Does not wait."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """Everything in a running server that is handed over."""

    context: ServerContext
    storage: Storage
    # By the names in `settings.SERVICES`.
    services: Mapping[str, Service]
    listeners: Sequence[tuple[Listen, Listener]]
    # How many of the listeners are sockets that systemd has passed: the last ones.
    inherited: int
    connections: Connections

    # --- The old server ----------------------------------------------------------------------------------------------

    @property
    def can_be_handed_over(self) -> bool:
        """False while something is being done that can be neither interrupted nor done again."""
        return self.context.chat.can_be_handed_over

    def ahead(self) -> Iterator[State]:
        """What can be handed over while clients are served: where the sockets of systemd listen, then the state of the chat."""
        opened = _addresses(self.listeners)
        yield {"inherited": opened[len(opened) - self.inherited :]}
        yield from self.context.chat.ahead()

    def to_parts(self, keep: Callable[[Buffer], Any], admin: int | None = None) -> Iterator[Part]:
        """The whole state with its descriptors, to be handed over. No other greenlet may run until that succeeds or fails.

        Pending bytes are sent now, as far as the sockets accept them; `keep` gets the rest. This changes no other state.
        `admin` is the descriptor of the admin socket.
        """
        context = self.context
        context.delivery.flush_everything()
        lock = self.storage.lock
        counts = context.counts
        first: State = {
            "has_admin": admin is not None,
            "has_lock": lock is not None,
            "listeners": _addresses(self.listeners),
            "inherited": self.inherited,
            "numbers": self.connections.last_number,
            "admission": context.admission.to_state(),
            "counts": {
                "accepted": counts.accepted,
                "received_bytes": counts.received_bytes,
                "sent_bytes": context.delivery.sent_bytes,
                "refused": {reason.name: count for reason, count in counts.refused.items()},
                "closed": {reason.name: count for reason, count in counts.closed.items()},
            },
            "chat": context.chat.to_state(),
            "storage": self.storage.to_state(),
        }
        descriptors = [one for one in (admin, lock) if one is not None]
        yield first, [*descriptors, *(listener.socket.fileno() for _, listener in self.listeners)]
        services = {id(chat_service_of(service)): name for name, service in self.services.items()}
        moved = {one.session: one for one in self.connections.in_chat if one.can_be_handed_over}
        # First those who are logged in, in the order of their logins.
        order = dict.fromkeys([*context.chat.sessions, *moved])
        for some in _divided(order, _CLIENTS_AT_ONCE):
            connections, sessions = _Alike(), _Alike()
            descriptors = []
            for session in some:
                connection = moved.get(session)
                if connection is not None:
                    descriptors.append(connection.fileno)
                    connections.add(
                        {**connection.to_state(keep), "service": services[id(connection.service)]}
                    )
                else:
                    connections.add(None)
                sessions.add(None if session.name is None else session.to_state())
            yield {"connections": connections.state, "sessions": sessions.state}, descriptors

    def leave_behind(self) -> list[LeftBehind]:
        """The clients that have not been handed over and wait for something: in the chat, or for an answer over HTTP."""
        asking: list[Any] = [
            one for one in self.connections.open.values() if getattr(one, "is_asking", False)
        ]
        return [*(one for one in self.connections.in_chat if not one.can_be_handed_over), *asking]

    # --- The new server ----------------------------------------------------------------------------------------------

    def take_over(self, handed: Handed, logs: dict[str, RoomLog]) -> None:
        """Take over what another process has handed over; `logs` are those of the rooms, which have come ahead."""
        state, context = handed.state, self.context
        self.connections.last_number = state["numbers"]
        counts, counted = context.counts, state["counts"]
        counts.accepted, counts.received_bytes = counted["accepted"], counted["received_bytes"]
        context.delivery.sent_bytes = counted["sent_bytes"]
        counts.refused.update({Refusal[name]: count for name, count in counted["refused"].items()})
        counts.closed.update({CloseReason[name]: count for name, count in counted["closed"].items()})
        context.admission.take_state(state["admission"])
        self.storage.take_state(state["storage"])
        adopt_session = context.chat.take_state(state["chat"], logs)
        for part, descriptors in handed.parts:
            left = iter(descriptors)
            connections, sessions = _Alike.read(part["connections"]), _Alike.read(part["sessions"])
            for connection, of_session in zip(connections, sessions, strict=True):
                if connection is None:
                    session = Session(NoListener())
                    handed.lost.append(session)
                else:
                    session = self._adopt(connection, socket.socket(fileno=next(left)), handed.find).session
                if of_session is not None:
                    adopt_session(session, of_session)
        # The oldest first.
        self.connections.open = dict(sorted(self.connections.open.items()))
        handed.close()

    def _adopt(self, state: State, sock: socket.socket, find: Callable[[Any], Buffer]) -> Connection:
        service = self.services.get(state["service"])
        if service is None:
            raise BadState(f"the settings no longer have {state['service']}://, and it has clients")
        address = self.context.admission.adopt(state["host"])
        accepted = Accepted(sock, state["host"], state["number"], address, self.connections.closed)
        adopt = getattr(service, "adopt", None) or service.connection
        connection = adopt(accepted)
        assert isinstance(connection, Connection)
        connection.take_state(state, find)
        self.connections.add(connection)
        return connection

    def go_on(self, lost: Iterable[Session]) -> None:
        """Serve the clients that have been taken over, once the event loop runs; those that are lost leave."""
        chat = self.context.chat
        for session in lost:
            chat.leave(session)
        chat.announce_departures()
        gevent.spawn_raw(self._serve)

    def _serve(self) -> None:
        """Serve those who have said something at once, and the others little by little: that takes time for each of them."""
        waiting = {one.fileno: one for one in self.connections.in_chat}
        with select.epoll() as spoken:
            for descriptor in waiting:
                spoken.register(descriptor, select.EPOLLIN)
            while waiting:
                for descriptor in dict.fromkeys(
                    [*(one for one, _ in spoken.poll(0)), *islice(waiting, _CLIENTS_AT_ONCE)]
                ):
                    spoken.unregister(descriptor)
                    gevent.spawn_raw(waiting.pop(descriptor).go_on)
                gevent.sleep(_BETWEEN_CLIENTS_S)


class _Alike:
    """States of one kind, many of which have much in common: of each, what differs from the first one."""

    def __init__(self) -> None:
        self.state: State = {"first": None, "others": []}

    def add(self, state: State | None) -> None:
        """Add the next one, which can be missing."""
        first = self.state["first"]
        if state is not None and first is None:
            first = self.state["first"] = state
        if state is not None:
            state = {key: value for key, value in state.items() if first[key] != value}
        self.state["others"].append(state)

    @staticmethod
    def read(state: State) -> Iterator[State | None]:
        """All of them, in order."""
        first = state["first"]
        return (None if one is None else {**first, **one} for one in state["others"])


def _divided(many: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(many)
    while some := list(islice(rest, size)):
        yield some


def _addresses(listeners: Iterable[tuple[Listen, Listener]]) -> list[State]:
    return [
        {"scheme": listen.scheme, "host": listen.host, "port": listen.port, "path": listen.path}
        for listen, _ in listeners
    ]


def _place(*parts: object) -> tuple[object, ...]:
    return parts
