"""The server: composes the chat, its listeners and its connections; starts and stops them.

A program that embeds it also learns here what happens, and can speak and kick.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import gevent
from gevent.event import Event

from geventchat.chat.addresses import parse_address
from geventchat.chat.chat import Chat
from geventchat.chat.credentials import Tools
from geventchat.chat.events import DirectMessage, DisconnectNotice, NoticeReason, Observed, Said
from geventchat.chat.names import InvalidName, parse_name, parse_room_name
from geventchat.chat.results import Busy
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import NoListener, Session
from geventchat.chat.storage import Storage
from geventchat.chat.text import clean
from geventchat.clock import Clock, SystemClock
from geventchat.dialects import ALL_DIALECTS, DIALECTS
from geventchat.dialects.framing import LineFraming
from geventchat.dialects.telnet import TelnetFraming
from geventchat.embedding import AtGate, E, RoomInfo, Subscription, values_of
from geventchat.log import AddressLog, Log, LogEvent, to_logging
from geventchat.net.admission import Admission, fit_to_descriptors, origin_of
from geventchat.net.announcer import Announcer
from geventchat.net.connection import ChatService, ServerContext
from geventchat.net.delivery import Delivery, Encoding
from geventchat.net.listener import Listener
from geventchat.net.opening import Opening, ProxiedOpening
from geventchat.net.service import Accepted, ServedConnection, Service
from geventchat.net.tls import Certificate
from geventchat.net.transport import Transport
from geventchat.net.turns import Turns
from geventchat.net.waiter import HangupWatch
from geventchat.rate import Rate
from geventchat.services.passwords import Hasher
from geventchat.services.storage import open_storage
from geventchat.services.storage.epoch import random_epoch
from geventchat.settings import Config, ConfigError, IdleNotice, Listen
from geventchat.web.origins import Origins, read_origin

T = TypeVar("T")

# Where the program waits at gates: one queue beside those of the addresses.
_PROGRAM = "program"

_IDLE_NOTICES = {
    IdleNotice.INFO: DisconnectNotice(NoticeReason.IDLE),
    IdleNotice.ERR: DisconnectNotice(NoticeReason.IDLE, as_error=True),
    IdleNotice.NONE: None,
}

# The storage gets the rest of the shutdown time-out to write what is queued, and at least this.
_LEAST_CLOSE_S = 0.3


def _in_thread(read: Callable[[], T]) -> T:
    return gevent.get_hub().threadpool.apply(read)


def _is_exposed(listen: Listen) -> bool:
    """True if what is sent there can be read on the network."""
    if listen.is_tls or listen.is_unix:
        return False
    address = parse_address(listen.host or "")
    return listen.host != "localhost" if address is None else not address.is_loopback


@dataclass(frozen=True, slots=True)
class Route:
    """Where the clients of one listener go."""

    service: Service
    scheme: str
    # What they shake hands with first; None without TLS.
    certificate: Certificate | None
    # Proxies can connect there for others.
    proxied: bool


class Server:
    """A chat server inside a gevent program. Nothing is global: several can live in one process."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        clock: Clock | None = None,
        log: Log = to_logging,
        new_epoch: Callable[[], str] = random_epoch,
        hasher: Hasher | None = None,
        name: str | None = None,
    ) -> None:
        """`name` is the one that `say` and `kick` use, which no client can have; without one it is `server`.

        `new_epoch` names the epoch of message ids where no data directory keeps one. The server closes the `hasher`.
        """
        self._hasher = hasher or Hasher()
        self._new_epoch = new_epoch
        self.config = config or Config()
        try:
            self._name = parse_name("server" if name is None else name)
        except InvalidName:
            raise ConfigError("name", f"name: {name!r} is not a name that a person could have") from None
        operators = [parse_name(operator).key for operator in self.config.operators]
        if name is not None and self._name.key in operators:
            raise ConfigError("name", f"name: {name!r} is the name of an operator")
        self._reserved = (*self.config.reserved_names, *(() if name is None else (name,)))
        self._operators = operators
        self._clock = clock or SystemClock()
        self._log = log
        self._listeners: list[tuple[Listen, Listener]] = []
        # By the files of the certificate and of its key.
        self._certificates: dict[tuple[str, str], Certificate] = {}
        self._connections: dict[int, ServedConnection] = {}
        self._hangups: HangupWatch | None = None
        self._address_log: AddressLog | None = None
        self._storage: Storage | None = None
        self._chat: Chat | None = None
        self._hub: Any = None
        self._subscriptions: dict[Subscription[Any], None] = {}
        # The greenlets of the program that wait at a gate.
        self._waiters: set[Any] = set()
        self._numbers = 0
        self._empty = Event()
        self._empty.set()
        self._stopping = False

    def start(self) -> None:
        """Open the storage and listen on every address, or on none and raise CannotOpenStorage or CannotListen."""
        if self._listeners:
            raise RuntimeError("the server has already been started")
        hub = gevent.get_hub()
        limits = fit_to_descriptors(self.config.limits.without_rates())
        if limits.clients < self.config.limits.clients:
            self._log(LogEvent.CLIENT_LIMIT_LOWERED, asked=self.config.limits.clients, clients=limits.clients)
        log = AddressLog(
            self._log, limits.address_log_lines_per_s, limits.address_burst_log_lines, self._clock
        )
        storage = open_storage(
            self.config.data,
            limits,
            self._clock,
            # Clients can ask as often as they like for what cannot be read.
            partial(log.of_address, "storage"),
            hub.loop.run_callback_threadsafe,
            self._new_epoch,
        )
        self._storage = storage
        self._hangups = HangupWatch(hub)
        delivery = Delivery(hub, self._clock, limits)
        chat = Chat(
            self._clock.time,
            new_gate=delivery.new_gate,
            announce_later=Announcer(hub).announce,
            limits=limits.chat,
            operators=self._operators,
            reserved_names=self._reserved,
            storage=storage,
            in_thread=_in_thread,
            tools=Tools(
                self._hasher,
                self._clock.monotonic,
                secrets.token_bytes,
                lambda origin, error: log.of_address(origin, LogEvent.FAULT, error=str(error)),
            ),
            observer=self._observe,
            greeting=clean(self.config.greeting),
        )
        encodings = {
            name: Encoding(dialect, TelnetFraming if dialect.telnet else LineFraming)
            for name, dialect in ALL_DIALECTS.items()
        }
        context = ServerContext(
            chat=chat,
            encodings=encodings,
            hub=hub,
            delivery=delivery,
            admission=Admission(hub, self._clock, limits),
            turns=Turns(hub),
            handshake_turns=Turns(hub),
            hangups=self._hangups,
            clock=self._clock,
            limits=limits,
            line_rate=Rate(limits.lines_per_s, limits.burst_lines),
            byte_rate=Rate(limits.bytes_per_s, limits.burst_bytes),
            log=log,
        )
        self._address_log = log
        self._stopping = False
        try:
            services = self._make_services(context)
            for listen in self.config.listen:
                certificate = self._certificate_of(listen)
                route = Route(services[listen.service], listen.scheme, certificate, not listen.is_unix)
                on_connect = partial(self._on_connect, route, context)
                self._listeners.append((listen, Listener(listen, on_connect, self._log)))
            for listen, listener in self._listeners:
                listener.start()
                host, port = listener.bound
                where = {"path": host} if listen.is_unix else {"host": host, "port": port}
                self._log(LogEvent.LISTENING, dialect=listen.scheme, **where)
            exposed = [str(listen) for listen in self.config.listen if _is_exposed(listen)]
            if exposed:
                self._log(LogEvent.PASSWORDS_IN_CLEAR, listen=" ".join(exposed))
            self._chat, self._hub = chat, hub
        except BaseException:
            self._close_listeners()
            self._hangups.close()
            storage.close(_LEAST_CLOSE_S)
            raise

    def reload_certificates(self) -> list[str]:
        """Read all certificates again, for new connections; returns what is wrong with those that stay as they are."""
        return list(filter(None, map(self._reload, self._certificates.values())))

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """The first host and real port of each scheme, such as `line`. Unix sockets have none."""
        found: dict[str, tuple[str, int]] = {}
        for listen, (host, port) in self.listening:
            if not listen.is_unix:
                found.setdefault(listen.scheme, (host, port))
        return found

    @property
    def listening(self) -> list[tuple[Listen, tuple[str, int]]]:
        """Each address that was asked for, with its host and real port, or with its path and 0."""
        return [(listen, listener.bound) for listen, listener in self._listeners]

    @property
    def clients(self) -> int:
        """The number of connections, logged in or not."""
        return len(self._connections)

    def stop(self, timeout: float | None = None) -> bool:
        """Stop accepting, send everyone a notice and what is pending, close. False if something was left at the deadline.

        `timeout` in seconds overrides the one in the configuration. While the server is stopping, another call
        returns at once.
        """
        if self._stopping:
            return not self._connections
        self._stopping = True
        self._log(LogEvent.STOPPING, clients=len(self._connections))
        self._close_listeners()
        for connection in list(self._connections.values()):
            connection.shut_down()
        within_s = self.config.shutdown_s if timeout is None else timeout
        deadline = self._clock.monotonic() + within_s
        orderly = bool(self._empty.wait(within_s))
        if not orderly:
            for connection in list(self._connections.values()):
                connection.drop()
            self._empty.wait(1.0)
        for subscription in list(self._subscriptions):
            left_s = max(0.0, deadline - self._clock.monotonic())
            orderly = subscription.wait_until_idle(left_s) and orderly
        self._chat = None
        for waiter in list(self._waiters):
            gevent.kill(waiter, RuntimeError("the server has stopped"))
        self._hasher.close()
        if self._hangups is not None:
            self._hangups.close()
        if self._storage is not None:
            orderly = self._storage.close(max(_LEAST_CLOSE_S, deadline - self._clock.monotonic())) and orderly
            # What it has to log comes through the event loop.
            gevent.sleep(0)
        if self._address_log is not None:
            self._address_log.close()
        self._log(LogEvent.STOPPED, orderly=orderly)
        return orderly

    # --- For the program that embeds the server ----------------------------------------------------------------------

    def on(self, kind: type[E], callback: Callable[[E], object]) -> Subscription[E]:
        """Call this with everything of this kind that happens from now on: `on(Message, …)`, `on(Event, …)` for all.

        The callback runs in a greenlet of its own, one event at a time, after the event has happened. It can wait and
        use the server; no client waits for it. What it raises is logged. If it is too slow, events are dropped, and
        `missed` of the subscription counts them. What the server itself says is not among the events.
        """
        subscription = Subscription(
            kind,
            callback,
            self.config.limits.callback_events,
            self._log_callback,
            lambda cancelled: self._subscriptions.pop(cancelled, None),
        )
        self._subscriptions[subscription] = None
        return subscription

    def say(self, text: str, room: str = "lobby", timeout: float | None = None) -> int:
        """Say one line in a room under the name of the server; returns the id of the message.

        The text is cleaned as those of clients are. While the room cannot follow, the calling greenlet waits, `timeout`
        seconds at most: then, or at once with 0, TimeoutError says that nothing was said. LookupError: there is no such
        room. ValueError: nothing is left of the text, or it is longer than a line can be.
        """
        chat, found = self._find(room)
        if not chat.is_reserved(self._name):
            raise RuntimeError(f"{self._name.shown!r} is not a reserved name; give the server a name")
        most = self.config.limits.line_bytes
        # Measured before it is cleaned, which takes time.
        cleaned = clean(text) if isinstance(text, str) and len(text) <= most else ""
        if not cleaned or "\n" in text.strip() or len(cleaned.encode()) > most:
            raise ValueError(f"text: {text!r:.50} is not a line of 1 to {most} bytes")
        return self._when_open(lambda: chat.announce(self._name, found, cleaned), timeout).first_id

    def kick(self, name: str, reason: str = "", room: str = "lobby", timeout: float | None = None) -> None:
        """Remove someone from a room; from the lobby means from the server, and the connection is closed.

        `reason` is shown to that person. LookupError: there is no such room, or nobody of that name in it. `timeout` is
        as for `say`.
        """
        chat, found = self._find(room)
        actor = Session(NoListener())
        reason = clean(" ".join(reason.split()))
        if not self._when_open(lambda: chat.kick(actor, self._name, found, name, reason), timeout):
            raise LookupError(f"nobody called {name!r} is in {found.name}")

    def rooms(self) -> list[RoomInfo]:
        """All rooms, private ones too, the lobby first."""
        return [
            RoomInfo(room.name, len(room.names), room.topic, room.private) for room in self._running().rooms
        ]

    def people(self, room: str | None = None) -> list[str]:
        """The names of everyone who is logged in, or of those in this room, the longest there first."""
        if room is None:
            return self._running().people
        return list(self._find(room)[1].names)

    def _running(self) -> Chat:
        if self._chat is None:
            raise RuntimeError("the server is not running")
        if gevent.get_hub() is not self._hub:
            raise RuntimeError("the server can only be used in the thread that has started it")
        return self._chat

    def _find(self, room: str) -> tuple[Chat, Room]:
        chat = self._running()
        try:
            found = chat.rooms.find(parse_room_name(room).key)
        except InvalidName:
            found = None
        if found is None:
            raise LookupError(f"there is no room {room!r}")
        return chat, found

    def _when_open(self, attempt: Callable[[], T | Busy], timeout: float | None) -> T:
        """Make an attempt, waiting at the gate that keeps it from succeeding."""
        result = attempt()
        if not isinstance(result, Busy):
            return result
        error = TimeoutError("the room cannot follow")
        if timeout is not None and timeout <= 0:
            raise error
        with gevent.Timeout(timeout, error), self._waiting():
            while isinstance(result, Busy):
                with result.gate.passage(AtGate(self._hub), _PROGRAM):
                    result = attempt()
        return result

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        waiter = gevent.getcurrent()
        self._waiters.add(waiter)
        try:
            yield
        finally:
            self._waiters.discard(waiter)

    def _observe(self, event: Observed) -> None:
        if self.config.log_messages:
            self._log_message(event)
        if self._subscriptions and not (isinstance(event, Said) and event.name == self._name.shown):
            for value in values_of(event):
                for subscription in self._subscriptions:
                    subscription.put(value)

    def _log_callback(self, event: LogEvent, /, **fields: object) -> None:
        if self._address_log is None:
            self._log(event, **fields)
        else:
            self._address_log.of_address("callbacks", event, **fields)

    # --- Connections -------------------------------------------------------------------------------------------------

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
        self._certificates.clear()

    def _certificate_of(self, listen: Listen) -> Certificate | None:
        if not listen.is_tls:
            return None
        files = self.config.certificate_of(listen)
        certificate = self._certificates.get(files)
        if certificate is None:
            certificate = self._certificates[files] = Certificate(*files)
            self._log_certificate(certificate)
        return certificate

    def _reload(self, certificate: Certificate) -> str:
        """Read one again; returns what is wrong with it, if anything."""
        try:
            certificate.reload()
        except ConfigError as error:
            self._log(LogEvent.CERTIFICATE_REFUSED, cert=certificate.cert, error=str(error))
            return str(error)
        self._log_certificate(certificate)
        return ""

    def _log_certificate(self, certificate: Certificate) -> None:
        self._log(LogEvent.CERTIFICATE_LOADED, cert=certificate.cert, expires=certificate.expires)

    def _make_services(self, context: ServerContext) -> dict[str, Service]:
        """What serves the clients of each listener, by the names in `settings.SERVICES`."""
        notice = _IDLE_NOTICES[self.config.idle_notice]
        services: dict[str, Service] = {}
        for name, dialect in DIALECTS.items():
            idle_s = dialect.idle_s if self.config.idle_s is None else self.config.idle_s
            services[name] = ChatService(context.encodings[name], context, idle_s, notice)
        if any(listen.service == "web" for listen in self.config.listen):
            services["web"] = self._make_web_service(context, notice)
        return services

    def _make_web_service(self, context: ServerContext, notice: DisconnectNotice | None) -> Service:
        try:
            from geventchat.web.service import web_service
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("websockets"):
                raise
            message = "listen: web:// needs the package websockets; install geventchat[web]"
            raise ConfigError("listen", message) from None
        hosts = [listen.host or "" for listen in self.config.listen if listen.service == "web"]
        origins = Origins(hosts, map(read_origin, self.config.web_origins))
        idle_s = DIALECTS["json"].idle_s if self.config.idle_s is None else self.config.idle_s
        return web_service(context, idle_s, notice, origins)

    def _on_connect(self, route: Route, context: ServerContext, sock: socket.socket, host: str) -> None:
        self._numbers = number = self._numbers + 1
        if route.proxied and self._is_proxy(host):
            self._read_proxy_header(route, context, sock, host, number)
        else:
            self._admit(route, context, sock, host, number)

    def _is_proxy(self, host: str) -> bool:
        address = parse_address(host) if self.config.proxy_from else None
        return address is not None and any(address in network for network in self.config.proxy_from)

    def _read_proxy_header(
        self, route: Route, context: ServerContext, sock: socket.socket, proxy: str, number: int
    ) -> None:
        if len(self._connections) >= context.limits.clients + context.limits.lingering:
            # They have no slots yet, but descriptors.
            full = NoticeReason.SERVER_FULL.value
            context.log.of_address(proxy, LogEvent.REFUSED, conn=number, address=proxy, reason=full)
            sock.close()
            return

        def on_header(host: str) -> None:
            del self._connections[number]
            self._admit(route, context, sock, host, number)
            if not self._connections:
                self._empty.set()

        try:
            opening = ProxiedOpening(sock, proxy, number, context, self._on_closed, on_header)
            self._connections[number] = opening
            self._empty.clear()
            gevent.spawn_raw(opening.run)
        except MemoryError:
            self._give_up(context, sock, number)

    def _admit(
        self, route: Route, context: ServerContext, sock: socket.socket, host: str, number: int
    ) -> None:
        banned = context.chat.is_banned_address(host)
        entered = NoticeReason.BANNED if banned else context.admission.enter(host)
        if isinstance(entered, NoticeReason):
            self._refuse(route, context, sock, host, number, entered)
            return
        try:
            connection = self._add(
                route, context, sock, Accepted(sock, host, number, entered, self._on_closed)
            )
            context.log.of_address(
                entered.origin, LogEvent.CONNECTED, conn=number, address=host, dialect=route.scheme
            )
            gevent.spawn_raw(connection.run)
        except MemoryError:
            self._give_up(context, sock, number)
            context.admission.leave(entered)

    def _refuse(
        self,
        route: Route,
        context: ServerContext,
        sock: socket.socket,
        host: str,
        number: int,
        reason: NoticeReason,
    ) -> None:
        context.log.of_address(
            origin_of(host), LogEvent.REFUSED, conn=number, address=host, reason=reason.value
        )
        if not context.admission.reserve_linger():
            sock.close()
            return
        try:
            connection = self._add(route, context, sock, Accepted(sock, host, number, None, self._on_closed))
            gevent.spawn_raw(connection.refuse, reason)
        except MemoryError:
            self._give_up(context, sock, number)
            context.admission.free_linger()

    def _add(
        self, route: Route, context: ServerContext, sock: socket.socket, accepted: Accepted
    ) -> ServedConnection:
        connection: ServedConnection
        if route.certificate is None:
            connection = route.service.connection(accepted)
        else:
            on_open = partial(self._on_open, route.service)
            connection = Opening(accepted, sock, route.certificate.context, context, on_open)
        self._connections[accepted.number] = connection
        self._empty.clear()
        return connection

    def _on_open(self, service: Service, accepted: Accepted, transport: Transport) -> None:
        connection = service.connection(replace(accepted, transport=transport))
        self._connections[accepted.number] = connection
        gevent.spawn_raw(connection.run)

    def _give_up(self, context: ServerContext, sock: socket.socket, number: int) -> None:
        """Close a client that the server has no memory for."""
        context.delivery.reserve.spend()
        sock.close()
        self._connections.pop(number, None)
        if not self._connections:
            self._empty.set()

    def _on_closed(self, connection: ServedConnection) -> None:
        del self._connections[connection.number]
        for _, listener in self._listeners:
            listener.resume()
        if not self._connections:
            self._empty.set()

    def _log_message(self, event: Observed) -> None:
        match event:
            case Said(name=name, texts=texts):
                for text in texts:
                    self._log(LogEvent.MESSAGE, name=name, text=text)
            case DirectMessage(sender=sender, recipient=recipient, text=text):
                self._log(LogEvent.MESSAGE, name=sender, to=recipient, text=text)
