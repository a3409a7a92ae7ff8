"""One client's greenlet: read, cut into lines, hand commands to the chat, and clean up however it ends.

Does not write to the socket (delivery does), does not know what a line means (the dialect does), and waits
only in its waiter.

Before a read, the client's answers that wait to be sent are a limit. Before a line is handled, these limits apply, in
this order: the client's own bytes per second, the bytes per second of its address, and the client's own lines per
second. The chat answers Busy when the recipients cannot take more.

Invariants:
- At most `chunk_bytes` of input are held unparsed, and at most `piece_lines` of it as lines.
- A client that is over a limit is read later and loses nothing, unless it hangs up: then only the lines that its limits
  admit at that moment are handled.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from gevent.hub import Hub

from geventchat.chat.chat import Chat
from geventchat.chat.commands import (
    AskHistory,
    Command,
    InvalidCommand,
    ListBans,
    ListRooms,
    Login,
    ParseError,
    Say,
    Who,
)
from geventchat.chat.events import DisconnectNotice, NoticeReason, Rejection
from geventchat.chat.results import Busy, Done, Leave, More, Pending, Result
from geventchat.chat.sessions import InProcess, Session
from geventchat.clock import Clock
from geventchat.dialects.dialect import OtherDialect, Reading, Request, TextInRoom
from geventchat.dialects.framing import TOO_LONG, ByNewlines, End, Framing, FramingAnswer, Unit
from geventchat.exhaustive import assert_never
from geventchat.log import AddressLog, LogEvent
from geventchat.net.admission import Admission, Refusal, origin_of
from geventchat.net.costs import Costs
from geventchat.net.delivery import Buffer, Delivery, Encoding, Subscriber
from geventchat.net.service import Accepted, Service
from geventchat.net.sniffing import ForeignProtocol, Sniffer
from geventchat.net.transport import Transport, abort, end_output, holds_input, input_watcher, taken_bytes
from geventchat.net.turns import InputTurns, Turns
from geventchat.net.waiter import CloseReason, ConnectionEnded, HangupWatch, Waiter, at_most, closing_watcher
from geventchat.rate import Rate
from geventchat.settings import Limits

_WRITE = 2
_TOO_LONG = InvalidCommand(ParseError.TOO_LONG)
# A line, and a read that completes none, cost at least as much as this many bytes: tiny ones take longer to handle than
# their bytes suggest.
_LEAST_LINE_COST = 32
# Each room of a login costs as much as three lines: it can be new, it is entered, and it is left with the connection.
_LOGIN_ROOM_COST = 3 * _LEAST_LINE_COST
# Once more bytes of answers and other costs than this have not been charged, they are charged before the next line is handled.
_UNCHARGED_ANSWER_BYTES = 1_024
# What a client has missed costs this share of an answer: to those who stayed it came for nothing. At the login it, and the
# search for it, cost the address nothing, because after a restart everyone of an address comes back at once.
_MISSED_SHARE = 4
# How many logins take a whole turn: as much as is sent in one part takes several times as long as each.
_LOGINS_IN_TURN = 8
# How many messages, people or rooms an answer can have that takes a whole turn: it takes about a millisecond.
MESSAGES_IN_TURN = 200
_PEOPLE_IN_TURN = 5_000
_ROOMS_IN_TURN = 500
_BANS_SHARE = 1 / 8
# In place of the command that a client gave to another process.
_GO_ON = Say(())
_GONE = InProcess()
# How much of what a client has sent before it has gone is decrypted at once, to be discarded.
_DISCARDED_AT_ONCE = 16_384
# How often a client checks for free memory before it is disconnected, and how long it waits in between.
_MEMORY_TRIES = 10
_MEMORY_RETRY_S = 0.1
# Reasons after which nothing is sent: nothing can be, or nothing should be.
_CLOSE_AT_ONCE = frozenset({CloseReason.RESET, CloseReason.SLOW, CloseReason.HTTP, CloseReason.TLS})
_FOREIGN = {ForeignProtocol.HTTP: CloseReason.HTTP, ForeignProtocol.TLS: CloseReason.TLS}
_QUESTIONS = frozenset({AskHistory, ListBans, ListRooms, Who})
_ENDS = {End.CLOSED: CloseReason.CLOSED, End.BROKEN: CloseReason.PROTOCOL}


@dataclass(slots=True)
class Counts:
    """What has happened to connections, for whoever watches the server. Counts never go back."""

    accepted: int = 0
    received_bytes: int = 0
    refused: Counter[Refusal] = field(default_factory=Counter)
    closed: Counter[CloseReason] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class ServerContext:
    """The shared parts of all connections of a server."""

    chat: Chat
    # By the name of the dialect: what a client can ask to go on in.
    encodings: Mapping[str, Encoding]
    hub: Hub
    delivery: Delivery
    admission: Admission
    turns: Turns
    # One handshake takes a turn, and a request that came with another a part of one. Logins do not wait for them, nor they for
    # logins.
    handshake_turns: Turns
    # Of answers that can be long: pages of history and lists.
    answer_turns: Turns
    # Of clients that are not in the chat yet: they send requests of HTTP, shake hands, or have a proxy.
    input_turns: InputTurns
    hangups: HangupWatch
    clock: Clock
    limits: Limits
    line_rate: Rate
    byte_rate: Rate
    log: AddressLog
    counts: Counts

    def note_refusal(self, number: int, host: str, reason: Refusal, **fields: str) -> None:
        """Count and log that the client with this number and address is refused."""
        self.counts.refused[reason] += 1
        self.log.of_address(
            origin_of(host), LogEvent.REFUSED, conn=number, address=host, reason=reason.value, **fields
        )

    def costs(self, accepted: Accepted) -> Costs:
        """The rates of a client."""
        first_bytes = self.limits.login_chunk_bytes
        return Costs(
            accepted.address, accepted.number, self.line_rate, self.byte_rate, first_bytes, self.clock
        )


@dataclass(slots=True)
class ChatService:
    """The chat in one dialect, as what listeners pass their clients to."""

    encoding: Encoding
    context: ServerContext
    # 0 means no idle time-out. What changes here counts for clients that connect later.
    idle_s: float
    idle_notice: DisconnectNotice | None

    @property
    def is_internal(self) -> bool:
        """False: anyone can connect."""
        return False

    def connection(self, accepted: Accepted) -> Connection:
        """A connection for this client, which has yet to be run or refused."""
        return Connection(accepted, self)


def chat_service_of(service: Service) -> ChatService | None:
    """What of a service is in the chat: all of it, what its clients can change to, or nothing."""
    chat = getattr(service, "chat", service)
    return chat if isinstance(chat, ChatService) else None


def reason_of_hangup(transport: Transport, waiter: Waiter, readable: Any, most_bytes: int) -> CloseReason:
    """Why a client has gone that has ended its side while it was not read.

    With TLS the end counts only if it was announced: that stands behind everything that has not been read. If it does not
    come within this many bytes, it is not looked for any further.
    """
    if isinstance(transport, socket.socket):
        return CloseReason.CLOSED
    most_bytes += taken_bytes(transport, 0)
    while taken_bytes(transport, 0) < most_bytes:
        waiter.until(readable)
        try:
            if not transport.recv(_DISCARDED_AT_ONCE):
                return CloseReason.CLOSED
        except BlockingIOError:
            continue
        except OSError:
            break
    return CloseReason.RESET


class Connection:
    """One client, from accept to close."""

    __slots__ = (
        "_address",
        "_answers_charged",
        "_began",
        "_closing",
        "_context",
        "_cost_charged",
        "_costs",
        "_framing",
        "_handled",
        "_holds_input",
        "_leaving",
        "_lingering",
        "_logging_in",
        "_marked_at",
        "_missed_charged",
        "_name",
        "_on_closed",
        "_origin",
        "_readable",
        "_received",
        "_received_bytes",
        "_service",
        "_session",
        "_sniffer",
        "_subscriber",
        "_took_effect",
        "_transport",
        "_units",
        "_waiter",
        "host",
        "number",
    )
    # What the greenlet waits for is handled again by its successor.
    TRANSIENT = frozenset(
        {
            *(
                "_address",
                "_closing",
                "_context",
                "_handled",
                "_holds_input",
                "_lingering",
                "_on_closed",
                "_origin",
                "_readable",
            ),
            *("_transport", "_session"),
        }
    )

    def __init__(self, accepted: Accepted, service: ChatService, received: bytes = b"") -> None:
        context, transport, address = service.context, accepted.transport, accepted.address
        self.number = accepted.number
        self.host = accepted.host
        self._name = ""
        self._transport = transport
        self._service = service
        self._context = context
        self._subscriber = Subscriber(transport, service.encoding, context.delivery, self._on_lost)
        self._session = Session(self._subscriber, self)
        self._waiter = Waiter(context.hub, context.clock, context.hangups, transport.fileno())
        self._framing: Framing = service.encoding.framing(context.limits.line_bytes)
        # Its first bytes, if they have been read already.
        self._received = received
        self._sniffer = Sniffer(context.limits.line_bytes) if isinstance(self._framing, ByNewlines) else None
        # What has been read and not been handled, how much of it has been meanwhile, and whether the command behind that has
        # taken effect although it has not been finished.
        self._units: Sequence[Unit] = ()
        self._handled = 0
        self._took_effect = False
        # False until its greenlet runs.
        self._began = False
        self._costs = context.costs(accepted)
        # How many of the subscriber's `answered_bytes` have been dealt with: charged, or let off at the login.
        self._answers_charged = 0
        # How many of its `missed_bytes` have been charged.
        self._missed_charged = 0
        # How many of the session's `cost_bytes` have been charged.
        self._cost_charged = 0
        self._address = address
        self._origin = origin_of(accepted.host) if address is None else address.name
        self._lingering = address is None
        # Something that has been read has not been handled; and how much of what had arrived at the mark has not been read.
        self._holds_input = False
        # How many bytes have been received, and how many had been taken from the socket where `mark_input` ends.
        self._received_bytes = 0
        self._marked_at = 0
        # What it has missed is being sent after its login.
        self._logging_in = False
        self._closing = address is None
        # Why it is closed, once nothing is left but to send what is pending.
        self._leaving: CloseReason | None = None
        self._on_closed = accepted.on_closed
        self._readable: Any = input_watcher(context.hub.loop, transport)

    @property
    def session(self) -> Session:
        """The client in the chat."""
        return self._session

    @property
    def dialect(self) -> str:
        """The name of the dialect that the client speaks."""
        return self._subscriber.encoding.dialect.name

    @property
    def idle_s(self) -> float:
        """How long ago the last line was handled."""
        return self._waiter.idle_s

    @property
    def backlog_bytes(self) -> int:
        """How much waits for the client to read it."""
        return self._subscriber.backlog_bytes

    def run(self) -> None:
        """Serve the client until it leaves; the body of its greenlet."""
        self._run(self._begin)

    def _begin(self) -> CloseReason:
        self._began = True
        self._waiter.start(self._service.idle_s, self._context.limits.login_s)
        self._context.chat.greet(self._session)
        # It has not asked for that.
        self._answers_charged = self._subscriber.answered_bytes
        return self._serve()

    def _run(self, body: Callable[[], CloseReason]) -> None:
        reason = CloseReason.FAULT
        try:
            reason = body()
        except ConnectionEnded as ended:
            reason = ended.reason
        except OSError:
            reason = CloseReason.RESET
        except Exception as error:
            text = self._context.delivery.failure(error)[1]
            if isinstance(error, MemoryError):
                # What waits for this client is not sent any more: it takes the memory that is missing.
                self._subscriber.close()
            self._log_fault(text)
        finally:
            self._end(reason, self._service.idle_notice if reason is CloseReason.IDLE else None)

    def refuse(self, reason: NoticeReason) -> None:
        """Send the reason for the refusal, and close. Called instead of `run`."""
        self._end(CloseReason.REFUSED, DisconnectNotice(reason, as_error=True))

    def shut_down(self) -> None:
        """Tell the client that the server is stopping, and close."""
        if not self._closing and not self._waiter.ended:
            self._context.chat.close(self._session)
            self._subscriber.deliver(DisconnectNotice(NoticeReason.SHUTDOWN))
            self._waiter.interrupt(CloseReason.SHUTDOWN)

    def disconnect(self, reason: NoticeReason) -> None:
        """Close once everything pending has been sent. The chat has removed the client."""
        self._waiter.interrupt(CloseReason(reason.value))

    def can_create_room(self) -> bool:
        """Count one more room that this client creates; False if its address or network has created too many."""
        return self._address is not None and self._address.create_room()

    def can_register(self) -> bool:
        """Count one more account that this client registers; False if too many come from its address or network."""
        return self._address is not None and self._address.register()

    def failed_to_prove(self, name: str, reason: Rejection) -> None:
        """Log that this client has not proved that the account of this name is its own."""
        self._context.log.of_address(
            self._origin,
            LogEvent.LOGIN_FAILED,
            conn=self.number,
            address=self.host,
            name=name,
            reason=reason.name.lower().replace("_", "-"),
        )

    def mark_input(self) -> bool:
        """Remember what has arrived by now; False if all of it has been handled."""
        unread = self._waiter.unread_bytes
        self._marked_at = taken_bytes(self._transport, self._received_bytes) + unread
        return self._holds_input or unread > 0 or holds_input(self._transport)

    def _has_read_marked(self) -> bool:
        """True when what is read next had not arrived at the last `mark_input`."""
        taken = taken_bytes(self._transport, self._received_bytes)
        return taken >= self._marked_at and not holds_input(self._transport)

    def drop(self) -> None:
        """Close at once, without sending what is pending."""
        self._subscriber.close()
        self._waiter.interrupt(CloseReason.RESET)

    # --- Reading -----------------------------------------------------------------------------------------------------

    def _serve(self) -> CloseReason:
        limits, readable, recv = self._context.limits, self._readable, self._transport.recv
        counts = self._context.counts
        reserve = self._context.delivery.reserve
        while True:
            if reserve.is_spent:
                self._wait_for_memory()
            # Waits before each read, not only when nothing is readable, so that a client that never pauses yields to
            # the others.
            if self._subscriber.unsent_answer_bytes > limits.answer_bytes:
                self._wait_for_answers(pending=False)
            self._holds_input = False
            overdue = False
            chunk, self._received = self._received, b""
            size = len(chunk)
            if not chunk:
                overdue = self._waiter.until_input(readable)
                most = limits.chunk_bytes if self._name else limits.login_chunk_bytes
                taken = taken_bytes(self._transport, 0)
                if self._session.meant is not None and self._has_read_marked():
                    self._session.meant = None
                try:
                    chunk = recv(most)
                except BlockingIOError:
                    if overdue:
                        return CloseReason.IDLE
                    # What has arrived completes nothing that can be decrypted, or is about nothing but the encryption.
                    size = taken_bytes(self._transport, 0) - taken
                    now = self._context.clock.monotonic()
                    self._costs.charge(max(_LEAST_LINE_COST, size), now)
                    self._costs.wait_for_bytes(self._waiter, now)
                    continue
                if not chunk:
                    return CloseReason.CLOSED
                # Over TLS what has been taken from the socket, which is what it took to decrypt it.
                size = taken_bytes(self._transport, len(chunk)) - taken
            self._holds_input = True
            self._received_bytes += len(chunk)
            if self._sniffer is not None:
                verdict = self._sniffer.feed(chunk)
                if isinstance(verdict, ForeignProtocol):
                    return _FOREIGN[verdict]
                if verdict:
                    self._sniffer = None
            counts.received_bytes += len(chunk)
            now = self._context.clock.monotonic()
            counted = self._framing.count(chunk)
            self._costs.charge(max(size, _LEAST_LINE_COST * (counted or 1)), now)
            active = False
            batches = self._framing.batches(chunk, limits.piece_bytes, limits.piece_lines)
            # The batches are its only references, so that a client that waits keeps one copy of its input.
            del chunk
            for batch in batches:
                if not counted:
                    self._costs.charge(_LEAST_LINE_COST * len(batch), now)
                # What the framing answers itself is no sign that someone is there.
                has_lines = any(type(unit) is not FramingAnswer for unit in batch)
                active = active or has_lines
                if batch and not self._handle_within_limits(batch, has_lines):
                    return self._waiter.ended or CloseReason.QUIT
                del batch
            if not active:
                if overdue:
                    return CloseReason.IDLE
                self._costs.wait_for_bytes(self._waiter, now)
            # Otherwise an idle client would keep its last chunk in memory.
            del batches

    def _wait_for_memory(self) -> None:
        """Wait until memory is free. A client that has waited too long is disconnected, which frees its own."""
        for _ in range(_MEMORY_TRIES):
            if self._context.delivery.reserve.refill():
                return
            self._waiter.pause(_MEMORY_RETRY_S)
        if not self._context.delivery.reserve.refill():
            raise MemoryError("no memory to go on reading")

    def _handle_within_limits(self, units: Sequence[Unit], has_lines: bool) -> bool:
        """Handle lines as fast as their limits allow; False when the client has left."""
        now = self._waiter.note_activity() if has_lines else self._context.clock.monotonic()
        self._units = units
        while True:
            self._costs.wait_for_bytes(self._waiter, now)
            granted = self._costs.take_lines(len(units), now)
            if granted:
                if not self._handle(units[:granted]):
                    return False
                self._charge_answers(now)
                self._units = units = units[granted:]
                self._handled = 0
                if not units:
                    return True
            else:
                self._costs.wait_for_line(self._waiter, now)
            now = self._waiter.note_activity()

    def _charge_answers(self, now: float) -> None:
        subscriber = self._subscriber
        missed = subscriber.missed_bytes - self._missed_charged
        answers = subscriber.answered_bytes - self._answers_charged - missed
        if answers:
            self._costs.charge(answers, now)
        cost_bytes = self._session.cost_bytes
        others = missed // _MISSED_SHARE + cost_bytes - self._cost_charged
        if others:
            charge = self._costs.charge_client if self._logging_in else self._costs.charge
            charge(others, now)
            self._cost_charged = cost_bytes
        self._answers_charged, self._missed_charged = subscriber.answered_bytes, subscriber.missed_bytes

    # --- Handling ----------------------------------------------------------------------------------------------------

    def _handle(self, units: Sequence[Unit]) -> bool:
        """Handle lines in order; False when the client has left."""
        session, read = self._session, self._subscriber.interpreter.read
        # Consecutive messages to one room are one command: one event, one frame, one place in the order.
        said: list[str] = []
        room = ""
        logged_in = session.name is not None
        read_texts = self._subscriber.encoding.dialect.read_texts
        if logged_in and read_texts and (texts := read_texts(units)):
            self._do(Say(texts))
            return True
        asked = False
        for at, line in enumerate(units):
            if asked:
                asked = False
                self._pay_for_answers()
            reading: Reading | FramingAnswer
            if type(line) is bytes:
                reading = read(line, logged_in)
            elif isinstance(line, FramingAnswer):
                reading = line
            else:
                reading = _TOO_LONG
            if type(reading) is str and reading and logged_in:
                said.append(reading)
                continue
            if reading is None:
                continue
            if type(reading) is TextInRoom:
                if said and reading.room != room:
                    self._do(Say(said, room))
                    self._handled = at
                    said = []
                room = reading.room
                said.append(reading.text)
                continue
            if said:
                self._do(Say(said, room))
                said = []
            self._handled = at
            if type(reading) is OtherDialect and type(line) is bytes:
                self._subscriber.speak(self._context.encodings[reading.name])
                read = self._subscriber.interpreter.read
                reading = read(line, logged_in)
            if not self._answer(reading):
                return False
            self._handled = at + 1
            self._took_effect = False
            logged_in = session.name is not None
            asked = True
        if said:
            self._do(Say(said, room))
        return True

    def _answer(self, reading: Reading | FramingAnswer) -> bool:
        """Handle one line; False when the client has left."""
        match reading:
            case None:
                return True
            case str():
                return self._do(Say([reading]))
            case FramingAnswer(frame, end):
                if frame:
                    self._subscriber.answer(frame)
                if end is not None:
                    raise ConnectionEnded(_ENDS[end])
                return True
            case Request(command, ref, answer_to):
                answer_to(ref)
                stays = self._do(command)
                answer_to(None)
                return stays
            case TextInRoom() | OtherDialect():
                raise AssertionError(f"{reading!r} has been handled")
            case _:
                return self._do(reading)

    def _do(self, command: Command) -> bool:
        """Run one command, waiting where the chat asks for it; False when the client has left."""
        if type(command) is Login and self._session.name is None:
            return self._log_in(command)
        if type(command) in _QUESTIONS and self._session.name is not None:
            self._costs.wait_for_question(self._waiter)
            self._context.answer_turns.take(self._waiter, self._share_of(command))
            self._waiter.note_activity()
        return self._finish(command, self._context.chat.handle(self._session, command))

    def _share_of(self, command: Command) -> float:
        """How much of a turn the answer to a question takes."""
        chat = self._context.chat
        match command:
            case AskHistory(limit=limit):
                return limit / MESSAGES_IN_TURN
            case Who():
                return len(chat) / _PEOPLE_IN_TURN
            case ListRooms():
                return chat.rooms.total / _ROOMS_IN_TURN
        return _BANS_SHARE

    def _log_in(self, command: Login) -> bool:
        if command.rooms:
            self._costs.charge(_LOGIN_ROOM_COST * len(command.rooms), self._context.clock.monotonic())
        if self._address is not None:
            self._address.wait_for_login(self._waiter, str(self.number))
        self._context.turns.wait(self._waiter, 1 / _LOGINS_IN_TURN)
        self._waiter.note_activity()
        self._logging_in = True
        stays = self._finish(command, self._context.chat.handle(self._session, command))
        self._charge_answers(self._context.clock.monotonic())
        self._logging_in = False
        return stays

    def _note_login(self) -> None:
        name = self._session.name
        if name is not None:
            self._name = name.shown
            # The answer to a login, which can list everyone, is not charged to the client: logins have a limit.
            self._answers_charged = self._subscriber.answered_bytes
            self._missed_charged = self._subscriber.missed_bytes
            self._waiter.clear_deadline()
            self._context.log.of_address(self._origin, LogEvent.LOGIN, conn=self.number, name=self._name)

    def _finish(self, command: Command, result: Result[Any]) -> bool:
        while True:
            if not self._name:
                # At once: what it has missed is sent afterwards, which can take a while.
                self._note_login()
            match result:
                case Done():
                    return True
                case Leave():
                    return False
                case More(go_on):
                    # A history that has nothing to show yet can be asked for again.
                    self._took_effect = type(command) is not AskHistory
                    result = self._go_on(go_on)
                case Busy(gate, go_on):
                    with gate.passage(self._waiter, self._origin):
                        result = go_on() if go_on else self._context.chat.handle(self._session, command)
                    self._waiter.note_activity()
                case Pending(job, finish):
                    self._took_effect = self._took_effect or (type(command) is Login and bool(self._name))
                    result = finish(self._waiter.run(job))
                    self._waiter.note_activity()
                case _:
                    assert_never(result)

    def _go_on(self, go_on: Callable[[], Result[Any]]) -> Result[Any]:
        """Handle the next part of a command, once the last is paid for and sent and others had their turn."""
        self._pay_for_answers()
        self._context.turns.wait(self._waiter)
        result = go_on()
        self._waiter.note_activity()
        return result

    def _pay_for_answers(self) -> None:
        """Between two lines: charge the answer to the first, and wait until it is paid for and sent."""
        limits, subscriber = self._context.limits, self._subscriber
        if subscriber.unsent_answer_bytes > limits.answer_bytes:
            self._wait_for_answers(pending=True)
        uncharged = subscriber.answered_bytes - self._answers_charged
        uncharged += self._session.cost_bytes - self._cost_charged
        if uncharged > _UNCHARGED_ANSWER_BYTES:
            now = self._context.clock.monotonic()
            self._charge_answers(now)
            self._costs.wait_for_bytes(self._waiter, now)
            self._waiter.note_activity()

    def _wait_for_answers(self, pending: bool) -> None:
        """Wait until this client, which asks faster than it reads, has been sent its answers."""
        subscriber = self._subscriber
        has_input = pending or holds_input(self._transport)
        with closing_watcher(self._context.hub.loop.io(self._transport.fileno(), _WRITE)) as writable:
            while subscriber.unsent_answer_bytes and not subscriber.closed:
                self._waiter.until_output(writable, has_input)
        if pending:
            self._waiter.note_activity()

    # --- Handing over ------------------------------------------------------------------------------------------------

    @property
    def fileno(self) -> int:
        """The descriptor of the client's socket."""
        return self._transport.fileno()

    @property
    def service(self) -> ChatService:
        """What has made the connection."""
        return self._service

    @property
    def can_be_handed_over(self) -> bool:
        """True for a client on a plain socket, unless it is about to leave and has been sent everything.

        There is no way to hand over a TLS session.
        """
        if self._waiter.ended or self._subscriber.closed or not isinstance(self._transport, socket.socket):
            return False
        if self._leaving is not None:
            return self._address is not None and not self._subscriber.all_sent
        return not self._closing

    def send_away(self) -> None:
        """Have a client that cannot be handed over connect again. Its connection is not served any more."""
        with suppress(OSError):
            if not (self._closing or self._waiter.ended) and self._subscriber.all_sent:
                notice = DisconnectNotice(NoticeReason.SHUTDOWN)
                frame = self._subscriber.interpreter.encode_private(notice)
                ending = self._framing.close(CloseReason.SHUTDOWN.value)
                self._transport.send(self._subscriber.encoding.wrap(frame) + ending)
            self._transport.shutdown(socket.SHUT_WR)

    def to_state(self, keep: Callable[[Buffer], Any]) -> dict[str, Any]:
        """The connection, to be handed over, at a moment at which its greenlet waits. Changes nothing.

        What has not been handled is handled by the successor, from its beginning, unless it has taken effect.
        """
        units = self._units[self._handled + self._took_effect :]
        return {
            "number": self.number,
            "host": self.host,
            "name": self._name,
            "dialect": self.dialect,
            "framing": self._framing.to_state(),
            "received": self._received.decode("latin-1"),
            "sniffer": None if self._sniffer is None else self._sniffer.to_state(),
            "units": [_packed(unit) for unit in units],
            "took_effect": self._took_effect,
            "began": self._began,
            "logging_in": self._logging_in,
            "leaving": None if self._leaving is None else self._leaving.name,
            "marked_at": self._marked_at,
            "received_bytes": self._received_bytes,
            "costs": self._costs.to_state(),
            "waiter": self._waiter.to_state(),
            "subscriber": self._subscriber.to_state(keep),
            "answers_charged": self._answers_charged,
            "missed_charged": self._missed_charged,
            "cost_charged": self._cost_charged,
        }

    def take_state(self, state: dict[str, Any], find: Callable[[Any], Buffer]) -> None:
        """Take over a connection. Its client is in no room yet; `go_on` serves it."""
        self._name = state["name"]
        if state["dialect"] != self.dialect:
            self._subscriber.speak(self._context.encodings[state["dialect"]])
        self._received = self._framing.take_state(state["framing"]) + state["received"].encode("latin-1")
        if state["sniffer"] is None:
            self._sniffer = None
        elif self._sniffer is not None:
            self._sniffer.take_state(state["sniffer"])
        self._took_effect = state["took_effect"]
        # In place of the line that has taken effect, which is not handed over.
        begun: list[Unit] = [b""] if self._took_effect else []
        self._units = begun + [_unpacked(unit) for unit in state["units"]]
        self._began = state["began"]
        self._logging_in = state["logging_in"]
        self._leaving = None if state["leaving"] is None else CloseReason[state["leaving"]]
        self._closing = self._leaving is not None
        self._marked_at = state["marked_at"]
        # Some are read again.
        self._received_bytes = state["received_bytes"] - len(self._received)
        self._costs.take_state(state["costs"])
        self._waiter.take_state(state["waiter"], self._service.idle_s)
        self._subscriber.take_state(state["subscriber"], find)
        self._answers_charged = state["answers_charged"]
        self._missed_charged = state["missed_charged"]
        self._cost_charged = state["cost_charged"]

    def go_on(self) -> None:
        """Serve a client that another process has served before; the body of its greenlet."""
        if self._leaving is None:
            self._run(self._go_on_serving)
        else:
            self._end(self._leaving, None)

    def _go_on_serving(self) -> CloseReason:
        if not self._began:
            return self._begin()
        self._waiter.resume()
        self._holds_input = bool(self._units)
        if self._took_effect:
            self._finish(_GO_ON, self._context.chat.go_on(self._session))
            self._took_effect = False
            self._units = self._units[1:]
            if self._logging_in:
                self._charge_answers(self._context.clock.monotonic())
                self._logging_in = False
        if self._units and not self._handle_within_limits(self._units, True):
            return self._waiter.ended or CloseReason.QUIT
        return self._serve()

    # --- The end -----------------------------------------------------------------------------------------------------

    def _on_lost(self, reason: CloseReason, error: str) -> None:
        if error:
            self._log_fault(error)
        self._waiter.interrupt(reason)

    def _log_fault(self, error: str) -> None:
        self._context.log.of_address(
            self._origin, LogEvent.FAULT, conn=self.number, name=self._name, error=error
        )

    def _end(self, reason: CloseReason, last_word: DisconnectNotice | None) -> None:
        """Leave the chat, send what is pending, close. The socket is closed even if this fails."""
        refused = reason is CloseReason.REFUSED
        hung_up = reason is CloseReason.CLOSED is self._waiter.ended
        try:
            self._closing = True
            self._waiter.start_closing()
            if self._leaving is None:
                reason = self._take_leave(reason, last_word, hung_up)
            if reason not in _CLOSE_AT_ONCE:
                self._leaving = reason
                reason = self._send_the_rest(reason)
        except OSError:
            pass  # Already closed by the peer.
        except ConnectionEnded as ended:
            reason = ended.reason
        except Exception as error:
            self._log_fault(self._context.delivery.failure(error)[1])
        finally:
            self._close(reason)
            if not refused:
                self._context.counts.closed[reason] += 1
                self._log_disconnected(reason)

    def _take_leave(
        self, reason: CloseReason, last_word: DisconnectNotice | None, hung_up: bool
    ) -> CloseReason:
        """Leave the chat, and say the last that the client is sent; returns why it is closed."""
        if last_word is not None:
            self._subscriber.deliver(last_word)
        self._context.chat.leave(self._session)
        if hung_up:
            most_bytes = self._context.limits.burst_bytes
            reason = reason_of_hangup(self._transport, self._waiter, self._readable, most_bytes)
        ending = self._framing.close(reason.value)
        if ending and reason not in _CLOSE_AT_ONCE and not self._subscriber.closed:
            self._subscriber.answer(ending)
        return reason

    def _send_the_rest(self, reason: CloseReason) -> CloseReason:
        """Send what is pending and FIN, then wait a moment for the peer to close too."""
        limits = self._context.limits
        with at_most(limits.flush_s):
            self._wait_until_sent()
        if not self._subscriber.all_sent:
            return CloseReason.SLOW
        if self._subscriber.closed:
            return reason if reason is CloseReason.FAULT else CloseReason.RESET
        if self._address is not None:
            self._free_slot()
            self._lingering = self._context.admission.reserve_linger()
            if not self._lingering:
                end_output(self._transport)
                return reason
        # It can have gone meanwhile, which is not why it was disconnected.
        with suppress(ConnectionEnded), at_most(limits.linger_s):
            self._end_output()
            self._read_to_the_end()
        return reason

    def _wait_until_sent(self) -> None:
        with closing_watcher(self._context.hub.loop.io(self._transport.fileno(), _WRITE)) as writable:
            while not self._subscriber.all_sent:
                self._waiter.until(writable)

    def _end_output(self) -> None:
        with closing_watcher(self._context.hub.loop.io(self._transport.fileno(), _WRITE)) as writable:
            while not end_output(self._transport):
                self._waiter.until(writable)

    def _read_to_the_end(self) -> None:
        # Closing with unread input would reset the connection, which can cost the peer its last lines. A client that sends
        # more than a burst meanwhile is not read any further, but has time to read.
        limits = self._context.limits
        left = limits.burst_bytes
        while left > 0:
            self._waiter.until(self._readable)
            try:
                size = len(self._transport.recv(limits.chunk_bytes))
            except BlockingIOError:
                continue
            if not size:
                return
            left -= size
        self._waiter.pause(limits.linger_s)

    def _free_slot(self) -> None:
        if self._address is not None:
            self._context.admission.leave(self._address)
            self._address = None
        if self._lingering:
            self._context.admission.free_linger()
            self._lingering = False

    def _close(self, reason: CloseReason) -> None:
        self._free_slot()
        try:
            self._subscriber.close()
            if reason is CloseReason.SLOW:
                abort(self._transport)
        finally:
            self._readable.close()
            self._transport.close()
            self._on_closed(self)
            # It leads back here. Without a cycle, a client that has gone does not wait for the garbage collector, which
            # would stop everybody when many have gone.
            self._session.peer = _GONE

    def _log_disconnected(self, reason: CloseReason) -> None:
        self._context.log.of_address(
            self._origin,
            LogEvent.DISCONNECTED,
            conn=self.number,
            address=self.host,
            name=self._name,
            reason=reason.value,
        )


def _packed(unit: Unit) -> Any:
    """A line or an answer of the framing as JSON."""
    if unit is TOO_LONG:
        return None
    if isinstance(unit, FramingAnswer):
        return [unit.frame.decode("latin-1"), None if unit.end is None else unit.end.name]
    return unit.decode("latin-1")


def _unpacked(packed: Any) -> Unit:
    if packed is None:
        return TOO_LONG
    if isinstance(packed, list):
        frame, end = packed
        return FramingAnswer(frame.encode("latin-1"), None if end is None else End[end])
    line: str = packed
    return line.encode("latin-1")
