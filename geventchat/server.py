"""The server: one hub, its listeners, its connections; start, drain, stop. Composes the parts, and is itself only that."""

from __future__ import annotations

import socket
from functools import partial
from types import TracebackType

import gevent
from gevent.event import Event

from geventchat.chat import events
from geventchat.chat.hub import Hub
from geventchat.clock import Clock, SystemClock
from geventchat.dialects import DIALECTS
from geventchat.log import Log, LogEvent, to_logging
from geventchat.net.connection import Connection
from geventchat.net.descriptors import fitting
from geventchat.net.door import Door, origin
from geventchat.net.feed import Feed
from geventchat.net.flusher import Flusher
from geventchat.net.listener import Listener
from geventchat.net.surroundings import Surroundings
from geventchat.settings import Config, IdleNotice, Listen

_NOTICES = {
    IdleNotice.INFO: events.Dismissed(events.Parting.IDLE),
    IdleNotice.ERR: events.Dismissed(events.Parting.IDLE, blame=True),
    IdleNotice.NONE: None,
}


class Server:
    """A chat server inside a gevent program. Nothing is global: several may live in one process."""

    def __init__(
        self, config: Config | None = None, *, clock: Clock | None = None, log: Log = to_logging
    ) -> None:
        self.config = config or Config()
        self._clock = clock or SystemClock()
        self._log = log
        self._listeners: list[tuple[Listen, Listener]] = []
        self._connections: dict[int, Connection] = {}
        self._numbers = 0
        self._empty = Event()
        self._empty.set()
        self._stopping = False

    def start(self) -> None:
        """Listen on every place, or on none and raise CannotListen."""
        if self._listeners:
            raise RuntimeError("the server has been started")
        loop = gevent.get_hub()
        limits = fitting(self.config.limits)
        if limits.clients < self.config.limits.clients:
            self._log(LogEvent.CLIENT_LIMIT_LOWERED, asked=self.config.limits.clients, clients=limits.clients)
        hub = Hub(self._clock.time, self._log_message if self.config.log_messages else None)
        flusher = Flusher(loop, limits.queue_bytes)
        around = Surroundings(hub, loop, flusher, Door(limits), self._clock, limits, self._log)
        self._stopping = False
        feeds: dict[str, Feed] = {}
        try:
            for listen in self.config.listen:
                dialect = DIALECTS[listen.dialect]
                feed = feeds.setdefault(listen.dialect, Feed(dialect, flusher))
                idle_s = dialect.idle_s if self.config.idle_s is None else self.config.idle_s
                arrive = partial(self._arrive, feed, around, idle_s)
                self._listeners.append((listen, Listener(listen, arrive, self._log)))
            for listen, listener in self._listeners:
                listener.start()
                host, port = listener.place
                self._log(LogEvent.LISTENING, dialect=listen.dialect, host=host, port=port)
        except BaseException:
            self._close_listeners()
            raise

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Where each dialect is served, with the real port; of several places the first."""
        found: dict[str, tuple[str, int]] = {}
        for listen, (host, port) in self.listening:
            found.setdefault(listen.dialect, (host, port))
        return found

    @property
    def listening(self) -> list[tuple[Listen, tuple[str, int]]]:
        """Each place that was asked for, and the host and port it has become."""
        return [(listen, listener.place) for listen, listener in self._listeners]

    @property
    def clients(self) -> int:
        """How many connections there are, logged in or not."""
        return len(self._connections)

    def stop(self, timeout: float | None = None) -> bool:
        """Stop accepting, tell everyone, flush, close. False when the time was up before the last had gone.

        `timeout` in seconds; without one, what the configuration says. While it stops, another call returns at once.
        """
        if self._stopping:
            return not self._connections
        self._stopping = True
        self._log(LogEvent.STOPPING, clients=len(self._connections))
        self._close_listeners()
        for connection in list(self._connections.values()):
            connection.dismiss()
        orderly = bool(self._empty.wait(self.config.shutdown_s if timeout is None else timeout))
        if not orderly:
            for connection in list(self._connections.values()):
                connection.drop()
            self._empty.wait(1.0)
        self._log(LogEvent.STOPPED, orderly=orderly)
        return orderly

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _close_listeners(self) -> None:
        for _, listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _arrive(
        self, feed: Feed, around: Surroundings, idle_s: float, sock: socket.socket, host: str
    ) -> None:
        who, door = origin(host), around.door
        self._numbers = number = self._numbers + 1
        refused = door.enter(who)
        if refused is None:
            self._log(LogEvent.CONNECTED, conn=number, address=host, dialect=feed.dialect.name)
        else:
            self._log(LogEvent.REFUSED, conn=number, address=host, reason=refused.name.lower())
            if not door.part():
                sock.close()
                return
        connection = Connection(sock, host, number, feed, around, None if refused else who, self._gone)
        self._connections[number] = connection
        self._empty.clear()
        if refused is None:
            gevent.spawn_raw(connection.converse, idle_s, _NOTICES[self.config.idle_notice])
        else:
            gevent.spawn_raw(connection.refuse, refused)

    def _gone(self, connection: Connection) -> None:
        del self._connections[connection.number]
        for _, listener in self._listeners:
            listener.resume()
        if not self._connections:
            self._empty.set()

    def _log_message(self, event: events.Event) -> None:
        if isinstance(event, events.Said):
            for text in event.texts:
                self._log(LogEvent.MESSAGE, name=event.name, text=text)
        elif isinstance(event, events.Told):
            self._log(LogEvent.MESSAGE, name=event.name, to=event.to, text=event.text)
