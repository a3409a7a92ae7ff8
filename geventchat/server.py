"""The server: composes the chat, its listeners and its connections; starts, changes and stops them.

A program that embeds it also learns here what happens, and can speak and kick. What becomes of an accepted socket is in
`net/acceptor.py`, and what is handed over to a new program in `handover_state.py`.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import gevent

from geventchat.ban_list import read_bans
from geventchat.chat.addresses import parse_address
from geventchat.chat.chat import Chat
from geventchat.chat.commands import Kick, ModerationCommand
from geventchat.chat.credentials import Tools
from geventchat.chat.events import (
    Announcement,
    DirectMessage,
    DisconnectNotice,
    NoticeReason,
    Observed,
    PrivateEvent,
    Rejected,
    Said,
)
from geventchat.chat.history import RoomLog
from geventchat.chat.names import InvalidName, Name, parse_name, parse_room_name
from geventchat.chat.passwords import Password
from geventchat.chat.results import Done, More, Result
from geventchat.chat.room_list import logs_of
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import NoListener, Session
from geventchat.chat.storage import Storage
from geventchat.chat.text import clean
from geventchat.clock import Clock, SystemClock
from geventchat.dialects import ALL_DIALECTS, DIALECTS
from geventchat.dialects.dialect import Dialect
from geventchat.dialects.framing import LineFraming
from geventchat.dialects.telnet import TelnetFraming
from geventchat.embedding import AtGates, E, RoomInfo, Subscription, values_of
from geventchat.handover import HandedOver
from geventchat.handover_state import Handed, ServerState
from geventchat.log import AddressLog, Log, LogEvent, to_logging
from geventchat.net.acceptor import Acceptor, Connections
from geventchat.net.admission import Admission, fit_to_descriptors, network_of
from geventchat.net.announcer import Announcer
from geventchat.net.connection import ChatService, Connection, Counts, ServerContext, chat_service_of
from geventchat.net.delivery import Delivery, Encoding
from geventchat.net.listener import Listener
from geventchat.net.loop_delay import LoopDelay
from geventchat.net.service import Service
from geventchat.net.tls import Certificate
from geventchat.net.turns import InputTurns, Turns
from geventchat.net.waiter import HangupWatch
from geventchat.rate import Rate
from geventchat.services.passwords import Hasher
from geventchat.services.storage import import_storage, open_storage
from geventchat.services.storage.epoch import random_epoch
from geventchat.settings import Config, ConfigError, IdleNotice, Limits, Listen, Reload, settings_of
from geventchat.web.origins import Origins, read_origin

T = TypeVar("T")
_Table = TypeVar("_Table", Config, Limits)

_IDLE_NOTICES = {
    IdleNotice.INFO: DisconnectNotice(NoticeReason.IDLE),
    IdleNotice.ERR: DisconnectNotice(NoticeReason.IDLE, as_error=True),
    IdleNotice.NONE: None,
}

# The storage gets the rest of the shutdown time-out to write what is queued, and at least this.
_LEAST_CLOSE_S = 0.3


def in_thread(work: Callable[[], T]) -> T:
    """Do this in a thread. What it raises there is raised here: gevent would also print its traceback into the log."""
    done: list[T] = []

    def attempt() -> Exception | None:
        try:
            done.append(work())
        except Exception as error:
            return error
        return None

    failed = gevent.get_hub().threadpool.apply(attempt)
    if failed is None:
        return done[0]
    try:
        raise failed
    finally:
        # Its traceback leads here.
        del failed


def _kept(running: _Table, wanted: _Table) -> _Table:
    """The wanted settings, but for those that need a restart."""
    rows = [row for row in settings_of(wanted) if row.reload is Reload.RESTART]
    return replace(wanted, **{row.field: getattr(running, row.field) for row in rows})


def _import_service(name: str) -> Any:
    """The module of a service that needs an optional package; None for other services. Raises ConfigError."""
    try:
        match name:
            case "metrics":
                import geventchat.metrics.service as metrics

                return metrics
            case "web":
                import geventchat.web.service as web

                return web
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in ("prometheus_client", "websockets"):
            raise
        raise ConfigError(
            "listen", f"listen: {name}:// needs the package {package}: pip install 'geventchat[{name}]'"
        ) from None
    return None


def _is_exposed(listen: Listen) -> bool:
    """True if what is sent there can be read on the network."""
    if listen.is_tls or listen.is_unix or listen.service == "metrics":
        return False
    address = parse_address(listen.host or "")
    return listen.host != "localhost" if address is None else not address.is_loopback


def _finish(result: Result[object]) -> None:
    """Do the rest of something that is done in parts."""
    while isinstance(result, More):
        # Others have their turn.
        gevent.sleep(0)
        result = result.go_on()


class _Answer(NoListener):
    """The program as a client that keeps the answer to its command."""

    event: PrivateEvent | None = None

    def deliver(self, event: PrivateEvent) -> None:
        self.event = event


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
        sockets: Iterable[tuple[str, socket.socket]] = (),
    ) -> None:
        """`name` is the one that `say` and `kick` use, which no client can have; without one it is `server`.

        `sockets` listen already, each for clients of a scheme; they take the place of the addresses with that scheme.
        `new_epoch` names the epoch of message ids where no data directory keeps one. The server opens and closes the `hasher`.
        """
        self._hasher = hasher or Hasher()
        self._new_epoch = new_epoch
        self.config = config or Config()
        try:
            self._name = parse_name("server" if name is None else name)
        except InvalidName:
            raise ConfigError("name", f"name: {name!r} is not a name that a person could have") from None
        self._is_named = name is not None
        self._sockets = list(sockets)
        # What another process has handed over: the logs of the rooms, which come ahead, and the rest until `go_on`.
        self._logs: dict[str, RoomLog] = {}
        self._handed: Handed | None = None
        self._operators_of(self.config)
        self._clock = clock or SystemClock()
        self._log = log
        self._listeners: list[tuple[Listen, Listener]] = []
        self._services: dict[str, Service] = {}
        self._chat_limits = self.config.limits.chat
        # By the files of the certificate and of its key.
        self._certificates: dict[tuple[str, str], Certificate] = {}
        self._connections = Connections(self._on_closed)
        self._hangups: HangupWatch | None = None
        self._input_turns: InputTurns | None = None
        self._origins = Origins((), map(read_origin, self.config.web_origins))
        self._address_log: AddressLog | None = None
        self._loop_delay: LoopDelay | None = None
        self._storage: Storage | None = None
        self._context: ServerContext | None = None
        self._hub: Any = None
        self._subscriptions: dict[Subscription[Any], None] = {}
        self._at_gates = AtGates()
        self._stopping = False

    def prepare(self, ahead: Iterable[Any]) -> None:
        """Do what takes time and needs no clients, before `start` takes over what another process has.

        `ahead` is what that one hands over before the rest: `ServerState.ahead`.
        """
        first, *logs = ahead
        self._logs = logs_of(logs)
        import_storage(self.config.data)
        schemes = {listen.scheme for listen in self.config.listen}
        # An address in the settings says which certificate the socket has that takes its place.
        inherited = [Listen(**one) for one in first["inherited"] if one["scheme"] not in schemes]
        for listen in (*self.config.listen, *inherited):
            self._certificate_of(listen)
            _import_service(listen.service)

    def start(self, handed_over: HandedOver | None = None) -> None:
        """Open the storage and listen on every address, or on none and raise CannotOpenStorage or CannotListen.

        With `handed_over`, only take over what another process has; `go_on` begins to serve its clients.
        """
        if self._listeners:
            raise RuntimeError("the server has already been started")
        hub = gevent.get_hub()
        limits = self._effective_limits(self.config.limits)
        self._chat_limits = limits.chat
        bans = read_bans(self.config, int(1000 * self._clock.time()))
        log = AddressLog(
            self._log,
            Rate(limits.address_log_lines_per_s, limits.address_burst_log_lines),
            Rate(limits.network_log_lines_per_s, limits.network_burst_log_lines),
            network_of,
            self._clock,
        )
        handed = None if handed_over is None else Handed(handed_over)
        storage = open_storage(
            self.config.data,
            limits,
            self._clock,
            # Clients can ask as often as they like for what cannot be read.
            partial(log.of_address, "storage"),
            hub.loop.run_callback_threadsafe,
            self._new_epoch if handed is None else handed.epoch,
            None if handed is None else handed.lock,
        )
        self._storage = storage
        self._hangups = HangupWatch(hub)
        self._input_turns = InputTurns(hub)
        delivery = Delivery(hub, self._clock, limits)
        chat = Chat(
            self._clock.time,
            new_gate=delivery.new_gate,
            announce_later=Announcer(hub).announce,
            limits=self._chat_limits,
            operators=self._operators_of(self.config),
            reserved_names=self._reserved_of(self.config),
            storage=storage,
            in_thread=in_thread,
            tools=Tools(
                self._hasher,
                self._clock.monotonic,
                secrets.token_bytes,
                lambda origin, error: log.of_address(origin, LogEvent.FAULT, error=str(error)),
            ),
            observer=self._observe,
            greeting=clean(self.config.greeting),
            takes_over=handed is not None,
        )
        chat.change_ban_list(bans)
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
            answer_turns=Turns(hub),
            input_turns=self._input_turns,
            hangups=self._hangups,
            clock=self._clock,
            limits=limits,
            line_rate=Rate(limits.lines_per_s, limits.burst_lines),
            byte_rate=Rate(limits.bytes_per_s, limits.burst_bytes),
            log=log,
            counts=Counts(),
        )
        self._address_log = log
        self._stopping = False
        self._hasher.open()
        try:
            if handed is not None:
                # First, because each address needs its service.
                self._sockets += handed.inherited
            self._services = services = self._make_services(context)
            for listen, opened in self._addresses_to_serve():
                certificate = self._certificate_of(listen)
                acceptor = Acceptor(
                    self._connections,
                    context,
                    services[listen.service],
                    listen.scheme,
                    certificate,
                    self._is_proxy,
                )
                owns_path = opened is None
                if opened is None and handed is not None:
                    opened = handed.listener(listen)
                listener = Listener(listen, acceptor.accept, self._log, opened, owns_path)
                self._listeners.append((listen, listener))
            self._context, self._hub = context, hub
            if handed is None:
                self._listen()
            else:
                logs, self._logs = self._logs, {}
                self.state.take_over(handed, logs)
                self._handed = handed
        except BaseException:
            self._context = None
            self._close_listeners()
            if self._loop_delay is not None:
                self._loop_delay.close()
            self._hangups.close()
            self._input_turns.close()
            storage.close(_LEAST_CLOSE_S)
            raise

    def _listen(self) -> None:
        for listen in filter(self._is_replaced, self.config.listen):
            self._log(LogEvent.LISTEN_REPLACED, listen=str(listen))
        for listen, listener in self._listeners:
            listener.start()
            host, port = listener.bound
            where = {"path": host} if listen.is_unix else {"host": host, "port": port}
            self._log(LogEvent.LISTENING, dialect=listen.scheme, **where)
        exposed = [str(listen) for listen, _ in self._listeners if _is_exposed(listen)]
        if exposed:
            self._log(LogEvent.PASSWORDS_IN_CLEAR, listen=" ".join(exposed))

    def _effective_limits(self, asked: Limits) -> Limits:
        """The limits that this process can have; the log says which of those that are asked for mean less."""
        limits = fit_to_descriptors(asked.without_rates())
        if limits.clients < asked.clients:
            self._log(LogEvent.CLIENT_LIMIT_LOWERED, asked=asked.clients, clients=limits.clients)
        above = limits.above_network
        if above:
            self._log(LogEvent.LIMITS_ABOVE_NETWORK, limits=" ".join(above))
        return limits

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
        return len(self._connections.open)

    def stop(self, timeout: float | None = None) -> bool:
        """Stop accepting, send everyone a notice and what is pending, close. False if something was left at the deadline.

        `timeout` in seconds overrides the one in the configuration. While the server is stopping, or if it does not run,
        the call returns at once.
        """
        if self._stopping or self._context is None:
            return not self._connections.open
        self._stopping = True
        self._log(LogEvent.STOPPING, clients=self.clients)
        self._close_listeners()
        for connection in list(self._connections.open.values()):
            connection.shut_down()
        within_s = self.config.shutdown_s if timeout is None else timeout
        deadline = self._clock.monotonic() + within_s
        orderly = self._connections.wait_until_empty(within_s)
        if not orderly:
            for connection in list(self._connections.open.values()):
                connection.drop()
            self._connections.wait_until_empty(1.0)
        for subscription in list(self._subscriptions):
            left_s = max(0.0, deadline - self._clock.monotonic())
            orderly = subscription.wait_until_idle(left_s) and orderly
        self._context = None
        if self._loop_delay is not None:
            self._loop_delay.close()
        self._at_gates.end()
        self._hasher.close()
        for watch in (self._hangups, self._input_turns):
            if watch is not None:
                watch.close()
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

        The callback runs in its own greenlet, one event at a time, after the event has happened. It can wait and
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

        The text is cleaned like that of a client. Waits while slow readers hold up the room, for at most `timeout` seconds, and
        then raises TimeoutError: nothing was sent. LookupError: the room does not exist. ValueError: the cleaned text is empty
        or longer than a line can be.
        """
        chat, found = self._find(room)
        if not chat.is_reserved(self._name):
            raise RuntimeError(f"{self._name.shown!r} is not a reserved name; give the server a name")
        cleaned = self._cleaned(text)
        return self._at_gates.when_open(lambda: chat.announce(self._name, found, cleaned), timeout).first_id

    def kick(self, name: str, reason: str = "", room: str = "lobby", timeout: float | None = None) -> None:
        """Remove someone from a room; from the lobby means from the server, and the connection is closed.

        `reason` is shown to that person. LookupError: the room does not exist, or that person is not in it. `timeout` is
        as for `say`.
        """
        reason = clean(" ".join(reason.split()))
        answer = self.administer(self._name, room, Kick(name, reason), timeout)
        if isinstance(answer, Rejected):
            raise LookupError(f"{name!r} is not in {room}")

    def announce(self, text: str) -> str:
        """Announce one line to all logged-in users, and return it as it was said. ValueError is as for `say`."""
        context = self.context
        cleaned = self._cleaned(text)
        context.delivery.publish_to_all(Announcement(cleaned, int(1000 * self._clock.time())))
        return cleaned

    def rooms(self) -> list[RoomInfo]:
        """All rooms, private ones too, the lobby first."""
        return [
            RoomInfo(room.name, len(room.names), room.topic, room.private) for room in self.context.chat.rooms
        ]

    def people(self, room: str | None = None) -> list[str]:
        """The names of all people who are logged in, or of those in this room, the longest there first."""
        if room is None:
            return self.context.chat.people
        return list(self._find(room)[1].names)

    # --- For the command geventchat ----------------------------------------------------------------------------------

    @property
    def context(self) -> ServerContext:
        """The parts that all connections share, while the server runs."""
        if self._context is None:
            raise RuntimeError("the server is not running")
        if gevent.get_hub() is not self._hub:
            raise RuntimeError("the server can only be used in the thread that has started it")
        return self._context

    def change(self, config: Config) -> None:
        """Let these settings count from now on, but for those that `Reload` says need a restart. Certificates are read again.

        Raises ConfigError if one of them is wrong; then nothing has changed.
        """
        config = replace(_kept(self.config, config), limits=_kept(self.config.limits, config.limits))
        operators = self._operators_of(config)
        bans = in_thread(partial(read_bans, config, int(1000 * self._clock.time())))
        for certificate in self._certificates.values():
            # Tried first, because nothing may change if it is broken.
            Certificate(certificate.cert, certificate.key)
        context, chat = self.context, self.context.chat
        self.config = config
        limits = self._effective_limits(config.limits)
        context.limits.take_over(limits)
        self._chat_limits.take_over(limits.chat)
        context.line_rate.change(limits.lines_per_s, limits.burst_lines)
        context.byte_rate.change(limits.bytes_per_s, limits.burst_bytes)
        context.admission.change_rates(limits)
        context.delivery.limits_changed()
        self.storage.limits_changed()
        context.log.address_rate.change(limits.address_log_lines_per_s, limits.address_burst_log_lines)
        context.log.network_rate.change(limits.network_log_lines_per_s, limits.network_burst_log_lines)
        chat.greeting = clean(config.greeting)
        chat.change_names(operators, self._reserved_of(config))
        self._origins.listed = tuple(map(read_origin, config.web_origins))
        for service in map(chat_service_of, self._services.values()):
            if service is not None:
                service.idle_s = self._idle_s(service.encoding.dialect)
                service.idle_notice = _IDLE_NOTICES[config.idle_notice]
        self.reload_certificates()
        _finish(chat.change_ban_list(bans))

    @property
    def state(self) -> ServerState:
        """What is handed over to a new program."""
        return ServerState(
            self.context,
            self.storage,
            self._services,
            self._listeners,
            len(self._sockets),
            self._connections,
        )

    def go_on(self) -> socket.socket | None:
        """Serve the clients of the process that this one has taken over from, once the event loop runs.

        That one does so no longer. Returns its admin socket, if it had one.
        """
        handed, self._handed = self._handed, None
        assert handed is not None
        self.storage.begin()
        self._listen()
        self.state.go_on(handed.lost)
        # That process can have had another ban list.
        chat = self.context.chat
        gevent.spawn_raw(lambda: _finish(chat.remove_listed()))
        return handed.admin

    def remove_files(self, kept: Collection[str]) -> None:
        """Remove the files of the Unix sockets that a process which has taken over does not keep at these paths."""
        for listen, listener in self._listeners:
            if listen.is_unix and listen.path not in kept:
                listener.remove_file()

    def administer(
        self, by: Name, room: str, command: ModerationCommand, timeout: float | None = None
    ) -> PrivateEvent | None:
        """Carry out a command about a room, above every role, and return the answer. `by` is for the audit log.

        LookupError: the room does not exist. `timeout` is as for `say`; a command that has begun is always carried out.
        """
        chat, found = self._find(room)
        subscriber = _Answer()
        actor = Session(subscriber)
        result = self._at_gates.when_open(lambda: chat.administer(actor, by, found, command), timeout)
        while not isinstance(result, Done):
            assert isinstance(result, More)
            # Others have their turn.
            gevent.sleep(0)
            result = self._at_gates.when_open(result.go_on, None)
        return subscriber.event

    def set_password(self, name: Name, password: Password) -> bool:
        """Give an account another password, or make the account: True then. The calling greenlet waits for the hash.

        HasherFull, HashingFailed: nothing has changed.
        """
        chat = self.context.chat
        return chat.set_password(name, self._hasher.hash(password, "", known=True))

    @property
    def connections(self) -> list[Connection]:
        """The connections of the chat, the oldest first."""
        return self._connections.in_chat

    @property
    def unready(self) -> str:
        """Why new clients should not come now; empty if they can."""
        if self._context is None or self._stopping:
            return "stopping"
        return "" if self.storage.is_ready() else "the storage is too far behind"

    @property
    def storage(self) -> Storage:
        """Where records are kept, while the server runs."""
        assert self._storage is not None
        return self._storage

    def _find(self, room: str) -> tuple[Chat, Room]:
        chat = self.context.chat
        try:
            found = chat.rooms.find(parse_room_name(room).key)
        except InvalidName:
            found = None
        if found is None:
            raise LookupError(f"unknown room {room!r}")
        return chat, found

    def _cleaned(self, text: str) -> str:
        most = self.config.limits.line_bytes
        # Measured before it is cleaned, which takes time.
        cleaned = clean(text) if isinstance(text, str) and len(text) <= most else ""
        if not cleaned or "\n" in text.strip() or len(cleaned.encode()) > most:
            raise ValueError(f"text: {text!r:.50} is not a line of 1 to {most} bytes")
        return cleaned

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

    # --- The parts ---------------------------------------------------------------------------------------------------

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

    def _is_replaced(self, listen: Listen) -> bool:
        """True if sockets that listen already take the place of this address of the settings."""
        return any(listen.scheme == scheme for scheme, _ in self._sockets)

    def _addresses_to_serve(self) -> list[tuple[Listen, socket.socket | None]]:
        """Each address, with the socket that listens there already if there is one."""
        wanted: list[tuple[Listen, socket.socket | None]] = [
            (listen, None) for listen in self.config.listen if not self._is_replaced(listen)
        ]
        for scheme, sock in self._sockets:
            listen = next((one for one in self.config.listen if one.scheme == scheme), None)
            if sock.family == socket.AF_UNIX:
                listen = (
                    replace(listen, path=sock.getsockname())
                    if listen
                    else Listen(scheme, path=sock.getsockname())
                )
            else:
                host, port = sock.getsockname()[:2]
                # The certificate of a TLS listener is that of the address whose place it takes.
                listen = replace(listen, host=host, port=port) if listen else Listen(scheme, host, port)
            wanted.append((listen, sock))
        return wanted

    def _make_services(self, context: ServerContext) -> dict[str, Service]:
        """What serves the clients of each listener, by the names in `settings.SERVICES`."""
        notice = _IDLE_NOTICES[self.config.idle_notice]
        services: dict[str, Service] = {}
        for name, dialect in DIALECTS.items():
            services[name] = ChatService(context.encodings[name], context, self._idle_s(dialect), notice)
        if any(listen.service == "metrics" for listen, _ in self._addresses_to_serve()):
            self._loop_delay = LoopDelay(context.hub, self._clock)
            services["metrics"] = _import_service("metrics").MetricsService(self, self._loop_delay)
        if any(listen.service == "web" for listen, _ in self._addresses_to_serve()):
            services["web"] = self._make_web_service(context, notice)
        return services

    def _make_web_service(self, context: ServerContext, notice: DisconnectNotice | None) -> Service:
        hosts = [listen.host or "" for listen, _ in self._addresses_to_serve() if listen.service == "web"]
        self._origins = Origins(hosts, map(read_origin, self.config.web_origins))
        idle_s = self._idle_s(DIALECTS["json"])
        service: Service = _import_service("web").web_service(context, idle_s, notice, self._origins)
        return service

    def _idle_s(self, dialect: Dialect) -> float:
        return dialect.idle_s if self.config.idle_s is None else self.config.idle_s

    def _operators_of(self, config: Config) -> list[str]:
        operators = [parse_name(operator).key for operator in config.operators]
        if self._is_named and self._name.key in operators:
            raise ConfigError("name", f"name: {self._name.shown!r} is the name of an operator")
        return operators

    def _reserved_of(self, config: Config) -> tuple[str, ...]:
        return (*config.reserved_names, *((self._name.shown,) if self._is_named else ()))

    def _is_proxy(self, host: str) -> bool:
        address = parse_address(host) if self.config.proxy_from else None
        return address is not None and any(address in network for network in self.config.proxy_from)

    def _on_closed(self) -> None:
        for _, listener in self._listeners:
            listener.resume()

    def _log_message(self, event: Observed) -> None:
        match event:
            case Said(name=name, texts=texts):
                for text in texts:
                    self._log(LogEvent.MESSAGE, name=name, text=text)
            case DirectMessage(sender=sender, recipient=recipient, text=text):
                self._log(LogEvent.MESSAGE, name=sender, to=recipient, text=text)
