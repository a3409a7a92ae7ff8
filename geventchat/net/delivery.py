"""What each client is sent: in order, bounded, and once per flush. Knows no dialect's words and no greenlets.

A *turn* is everything that is said between two flushes. An `Audience` collects its own turn: each event is encoded
once and appended once. What one client is sent is that sequence of bytes with its private frames in between, at the
offsets where they were made, and with holes for what it does not hear. Such a place is a *splice*. At the end of
the turn `Delivery` gives every subscriber its share, in one send.

States of a Subscriber, and what holds in each:
- detached: in neither of its audience's dictionaries; it only gets private frames.
- in sync:  subscribed, no splices in this turn, nothing backlogged. It is in `Audience.in_sync`, and all that a
  turn does for it is one `send` of the shared bytes.
- spliced:  it has splices in this turn. It is in `Delivery._spliced` once, and not in `in_sync`.
- backlogged: its socket did not take everything. It has a watcher, and is in `Audience.backlogged` if it is subscribed.
- closed:   nothing is kept, nothing is sent.

People who come and go in a large room are announced a few times per second, with everything that is said meanwhile:
each such turn costs one send for every member. Until then their turn stays open. A client with private frames gets
them at once, after what the turn has said so far, and the rest when the turn ends.

Invariants:
- Nothing here waits, and nothing one client is sent is reordered.
- One client's failure never affects another: whatever goes wrong with one, a lack of memory included, ends that one
  alone and later.
- The bytes of a turn are shared by all who wait for them. Less than half of a turn is kept as a copy, so that the
  memory a client holds on to is never more than twice the bytes it is counted with.
- The bytes that wait for one client are at most `queue_bytes`, plus its own answers, counted until
  the last answer of their turn is sent.
- Only this module writes to a client's socket until it is closed.
"""

from __future__ import annotations

import math
import sys
import traceback
from collections import deque
from collections.abc import Callable
from fcntl import ioctl
from itertools import islice
from termios import TIOCOUTQ
from typing import Any, Protocol

from gevent.hub import Hub as Loop

from geventchat.chat import rooms
from geventchat.chat.events import Broadcast, DirectMessage, Joined, Left, PrivateEvent
from geventchat.clock import Clock
from geventchat.dialects.dialect import Dialect
from geventchat.dialects.framing import Framing
from geventchat.net.flow import Gate, TokenBucket
from geventchat.net.waiter import CloseReason
from geventchat.settings import Limits

_FOREVER = sys.maxsize
_WRITE = 2
# As many buffers as one call takes without a list that is expensive to build.
_GATHER = 128
# A turn of fewer bytes is not a flood: it goes out at once.
_FLOOD_BYTES = 1_024
# One more look for this many members: a look costs the loop about as much as two sends.
_MEMBERS_PER_LOOK = 8
# A reader is behind when this share of its queue is in use.
_BEHIND_SHARE = 4
# How long it takes to see whether a reader reads: TCP announces new room in large steps.
_PROBE_S = 6.0
# What can be said at once to readers that are behind, in seconds of the floor rate.
_FLOOR_BURST_S = 0.25
# A turn in which people only come and go stays open for this long in a room with at least this many members.
_PRESENCE_S = 0.1
_PRESENCE_MEMBERS = 500
# After a lack of memory, how long until the same turn is tried again.
_RETRY_S = 0.05

Buffer = bytes | bytearray | memoryview


class Socket(Protocol):
    """What delivery needs of a transport: non-blocking, raising BlockingIOError when nothing more fits."""

    def fileno(self) -> int: ...
    def send(self, data: Any, /) -> int: ...
    def sendmsg(self, buffers: Any, /) -> int: ...


class Audience:
    """Everyone who hears the same bytes: one dialect, one framing, one set of rooms."""

    __slots__ = (
        "_delivery",
        "_frames",
        "_gates",
        "_wrap",
        "backlogged",
        "credit",
        "dialect",
        "in_sync",
        "size",
        "slow_readers",
        "turn",
        "turn_ended_at",
        "urgent",
    )

    def __init__(self, dialect: Dialect, framing: type[Framing], delivery: Delivery) -> None:
        self.dialect = dialect
        self._wrap = framing.wrap
        self._delivery = delivery
        self._frames: list[bytes] = []
        self.size = 0
        # What is being handed out in this flush.
        self.turn = memoryview(b"")
        self.in_sync: dict[Subscriber, Callable[[bytes], int]] = {}
        self.backlogged: dict[Subscriber, None] = {}
        # Members that are behind and keep reading; while there are any, speakers get no more than the floor rate.
        self.slow_readers = 0
        self.credit = delivery.floor_bucket()
        self.turn_ended_at = 0.0
        # Something has been said in this turn besides who came and went.
        self.urgent = False
        self._gates: list[rooms.Gate] = []

    def delay_s(self) -> float:
        """How long until something can be said: as long as the turn takes, or until the floor rate allows it."""
        if self.size >= self._delivery.turn_bytes:
            return math.inf
        if self.slow_readers:
            return self.credit.delay_s(self.size, self._delivery.clock.monotonic())
        return 0.0

    def attach(self, gate: rooms.Gate) -> None:
        """Pump this gate whenever the delay may have become shorter."""
        self._gates.append(gate)

    def detach(self, gate: rooms.Gate) -> None:
        """Stop pumping this gate."""
        self._gates.remove(gate)

    def pump(self) -> None:
        """The delay may have become shorter."""
        for gate in self._gates:
            gate.pump()

    def publish(self, event: Broadcast, author: rooms.Subscriber | None) -> None:
        """Encode once, append once; unless the dialect echoes, the author gets a hole."""
        frame = self._wrap(self.dialect.encode(event))
        if not frame:
            return
        if not self._frames:
            self._delivery.turn_started(self)
        if not self.urgent and not isinstance(event, Joined | Left):
            self.urgent = True
            self._delivery.arm()
        start = self.size
        self.size = end = start + len(frame)
        self._frames.append(frame)
        if isinstance(author, Subscriber) and author.audience is self and not self.dialect.echoes(event):
            author.exclude(start, end)

    def joined(self) -> bytes:
        """Everything said in this turn."""
        return self._frames[0] if len(self._frames) == 1 else b"".join(self._frames)

    def end_turn(self, turn: bytes) -> None:
        """The turn has ended and was this; the next one begins at offset zero."""
        self._frames, self.size, self.turn = [], 0, memoryview(turn)
        self.urgent = False
        self.turn_ended_at = self._delivery.clock.monotonic()

    def stays_open_s(self, now: float) -> float:
        """How much longer this turn stays open, if it is one that can."""
        members = len(self.in_sync) + len(self.backlogged)
        if self.urgent or members < _PRESENCE_MEMBERS or self.size >= self._delivery.turn_bytes:
            return 0.0
        return max(0.0, self.turn_ended_at + _PRESENCE_S - now)


class Subscriber:
    """One client's share of what is said, and what it is sent alone."""

    __slots__ = (
        "_answers_end",
        "_answers_flushed",
        "_backlog",
        "_delivery",
        "_direct",
        "_lag",
        "_lost",
        "_queued",
        "_send",
        "_sent",
        "_socket",
        "_splices",
        "_start",
        "_stop",
        "_watcher",
        "answer_bytes",
        "answered",
        "audience",
        "backlog_bytes",
        "closed",
        "frame_bytes",
    )

    def __init__(
        self,
        socket: Socket,
        audience: Audience,
        delivery: Delivery,
        lost: Callable[[CloseReason, str], None],
    ) -> None:
        """`lost` is called once when nothing more can be sent, with the traceback after a fault."""
        self.audience = audience
        self.closed = False
        self._socket = socket
        self._send = socket.send
        self._delivery = delivery
        self._lost = lost
        # Which part of the turn is heard: nothing (0, 0), from the offset of the login, up to the offset of the
        # departure.
        self._start = self._stop = 0
        # (start, end, frame): at `start` insert the frame, and go on at `end`.
        self._splices: list[tuple[int, int, bytes | bytearray]] = []
        # Frames made for this client alone in this turn.
        self.frame_bytes = 0
        self._backlog: deque[Buffer] | None = None
        self.backlog_bytes = 0
        self._watcher: Any = None
        # Bytes that have gone into and out of the backlog, ever.
        self._queued = self._sent = 0
        # Bytes of answers that are waiting; of all answers ever; of those whose turn has ended; where the last of
        # them ends.
        self.answer_bytes = self.answered = self._answers_flushed = self._answers_end = 0
        self._direct: _DirectGates | None = None
        self._lag: _Lag | None = None

    @property
    def idle(self) -> bool:
        """True when nothing is pending."""
        return self.closed or not (self._splices or self._backlog)

    @property
    def spliced(self) -> bool:
        """True when this turn is not just what the audience hears."""
        return bool(self._splices)

    @property
    def can_wait(self) -> bool:
        """True when this client needs nothing before the turn ends."""
        return self._stop == _FOREVER and not self.frame_bytes

    def deliver(self, event: PrivateEvent) -> None:
        """Send an answer to this client alone."""
        frame = self.audience.dialect.encode_private(event)
        if frame:
            self.answer(frame)

    def answer(self, frame: bytes) -> None:
        """Send these bytes as an answer."""
        self.answer_bytes += len(frame)
        self.answered += len(frame)
        self._insert(frame)

    def deliver_direct(self, message: DirectMessage, stranger: bool) -> None:
        """Send a message from another client."""
        frame = self.audience.dialect.encode_private(message)
        if stranger:
            self._direct_gates().charge_stranger(len(frame))
        self._insert(frame)

    def direct_gate(self, stranger: bool) -> Gate:
        """The gate that a direct message to this client has to pass."""
        gates = self._direct_gates()
        return gates.strangers if stranger else gates.contacts

    def subscribe(self) -> None:
        """Hear the audience from now on."""
        audience = self.audience
        self._start, self._stop = audience.size, _FOREVER
        if self._watcher is not None:
            # Answers from before the login are still waiting; what is said from now on waits behind them.
            audience.backlogged[self] = None
        if audience.size:
            self._splice(self._start, self._start, b"")
        elif not self._splices and not self._backlog:
            audience.in_sync[self] = self._send

    def unsubscribe(self) -> None:
        """Stop hearing the audience; what was said before is still delivered."""
        audience = self.audience
        size = audience.size
        self._stop = size
        audience.backlogged.pop(self, None)
        self._end_lag()
        if size and self._start < size:
            self._splice(size, size, b"")
        else:
            audience.in_sync.pop(self, None)

    def exclude(self, start: int, end: int) -> None:
        """Leave a hole. What one speaker says in a row makes one hole."""
        splices = self._splices
        if splices:
            last_start, last_end, frame = splices[-1]
            if last_end == start and not frame:
                splices[-1] = (last_start, end, frame)
                return
        if end <= self._stop:
            self._splice(start, end, b"")

    def deliver_turn(self, ended: bool) -> None:
        """Send what the turn was for this client, or, if it has not ended, what it has been so far."""
        splices, self._splices = self._splices, []
        frame_bytes, self.frame_bytes = self.frame_bytes, 0
        if self.closed:
            return
        turn, cursor, stop = self.audience.turn, self._start, self._stop
        pieces: list[Buffer] = []
        for start, end, frame in splices:
            if start > cursor:
                pieces.append(turn[cursor:start])
            if frame:
                pieces.append(frame)
            if end > cursor:
                cursor = end
        if stop > cursor and cursor < len(turn):
            pieces.append(turn[cursor:stop])
        hears = stop == _FOREVER
        self._start, self._stop = 0, _FOREVER if hears else 0
        if hears and not ended:
            self._start = len(turn)
            self._splices.append((self._start, self._start, b""))
        if not self._backlog:
            pieces = self._transmit(pieces)
        for piece in pieces:
            self.enqueue(piece)
        if self._answers_flushed != self.answered:
            self._answers_flushed, self._answers_end = self.answered, self._queued
        if not self._backlog:
            self.answer_bytes = 0
            if hears and not self._splices:
                self.audience.in_sync[self] = self._send
        if self._direct is not None:
            self._direct.turn_ended(frame_bytes)

    def enqueue(self, data: Buffer) -> None:
        """The socket takes nothing now: keep this until it does. A client that is too far behind is abandoned."""
        if self.closed:
            return
        if self.backlog_bytes - self.answer_bytes + len(data) > self._delivery.limits.queue_bytes:
            self._delivery.abandon(self, CloseReason.SLOW)
            return
        if self._backlog is None:
            self._backlog = deque()
        if self._watcher is None:
            self._watcher = self._delivery.loop.loop.io(self._socket.fileno(), _WRITE)
            self._watcher.start(self._writable)
            if self._stop == _FOREVER:
                self.audience.backlogged[self] = None
        self._backlog.append(_own_or_shared(data))
        self.backlog_bytes += len(data)
        self._queued += len(data)
        if self._lag is None and self._stop == _FOREVER and self.backlog_bytes > self._delivery.behind_bytes:
            self._lag = _Lag(self._delivery.clock.monotonic(), self.taken)
            self._delivery.fell_behind(self)
            self._count_slow(True)

    @property
    def taken(self) -> int:
        """How many bytes of the backlog, ever, have left this machine."""
        return self._sent - _unsent_by_kernel(self._socket)

    @property
    def reads_slowly(self) -> bool:
        """True when this client is behind and keeps reading."""
        return self._lag is not None and self._lag.reads

    def probe(self, now: float) -> None:
        """See whether this client, which is behind, keeps reading."""
        lag = self._lag
        if lag is not None and now - lag.since >= _PROBE_S:
            taken = self.taken
            # Any progress counts. A client that takes less than the floor rate fills its queue anyway.
            reads = taken > lag.taken
            lag.since, lag.taken = now, taken
            if reads != lag.reads:
                lag.reads = reads
                self._count_slow(reads)

    def lose(self, reason: CloseReason, error: str) -> None:
        """Nothing more can be sent: let go of everything."""
        if not self.closed:
            self.close()
            self._lost(reason, error)

    def close(self) -> None:
        """Let go of the socket and drop what is pending."""
        self.closed = True
        self._unwatch()
        self._backlog = None
        self.backlog_bytes = self.answer_bytes = 0
        self.audience.in_sync.pop(self, None)
        if self._direct is not None:
            self._direct.pump()

    def _direct_gates(self) -> _DirectGates:
        if self._direct is None:
            self._direct = _DirectGates(self, self._delivery)
        return self._direct

    def _insert(self, frame: bytes) -> None:
        size = self.audience.size
        offset = size if size < self._stop else self._stop
        self.frame_bytes += len(frame)
        if self._splices:
            start, end, before = self._splices[-1]
            if start == end == offset and before:
                # One buffer for what stands side by side: thousands of tiny answers would cost more than they contain.
                joined = before if isinstance(before, bytearray) else bytearray(before)
                joined += frame
                self._splices[-1] = (start, end, joined)
                return
        self._splice(offset, offset, frame)

    def _splice(self, start: int, end: int, frame: bytes) -> None:
        if not self._splices:
            self.audience.in_sync.pop(self, None)
            self._delivery.spliced(self)
        self._splices.append((start, end, frame))

    def _transmit(self, pieces: list[Buffer]) -> list[Buffer]:
        """Send as much as the socket takes; what is left."""
        at = 0
        try:
            if len(pieces) == 1:
                (piece,) = pieces
                sent = self._send(piece)
                return [] if sent == len(piece) else [memoryview(piece)[sent:]]
            while at < len(pieces):
                some = pieces[at : at + _GATHER]
                sent = self._socket.sendmsg(some)
                for piece in some:
                    if sent < len(piece):
                        return [memoryview(piece)[sent:], *pieces[at + 1 :]]
                    sent -= len(piece)
                    at += 1
        except BlockingIOError:
            return pieces[at:]
        except OSError:
            self._delivery.abandon(self, CloseReason.RESET)
        return []

    def _writable(self) -> None:
        backlog = self._backlog
        while backlog:
            try:
                sent = self._socket.sendmsg(list(islice(backlog, _GATHER)))
            except BlockingIOError:
                self._progressed()
                return
            except Exception as error:
                self.lose(*_failure(error))
                return
            self.backlog_bytes -= sent
            self._sent += sent
            while sent:
                first = len(backlog[0])
                if sent < first:
                    backlog[0] = _own_or_shared(memoryview(backlog[0])[sent:])
                    break
                sent -= first
                backlog.popleft()
        self._backlog = None
        self._progressed()
        self._unwatch()
        if self._stop == _FOREVER and not self._splices:
            self.audience.in_sync[self] = self._send

    def _progressed(self) -> None:
        if self._sent >= self._answers_end and self._answers_flushed == self.answered:
            self.answer_bytes = 0
        if self._lag is not None and self.backlog_bytes <= self._delivery.behind_bytes:
            self._end_lag()

    def _end_lag(self) -> None:
        lag, self._lag = self._lag, None
        if lag is None:
            return
        self._delivery.caught_up(self)
        if lag.reads:
            self._count_slow(False)
        if self._direct is not None:
            self._direct.pump()

    def _count_slow(self, slow: bool) -> None:
        self.audience.slow_readers += 1 if slow else -1
        self.audience.pump()

    def _unwatch(self) -> None:
        # Before the socket: a watcher must never outlive its descriptor.
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        self._end_lag()
        self.audience.backlogged.pop(self, None)


class _Lag:
    """How a client that is behind has been reading since some moment."""

    __slots__ = ("reads", "since", "taken")

    def __init__(self, since: float, taken: int) -> None:
        self.since = since
        self.taken = taken
        # Assume it reads until a probe shows otherwise.
        self.reads = True


class _DirectGates:
    """What direct messages to one client have to pass: one gate for people it has written to, one for strangers."""

    __slots__ = ("_delivery", "_strangers", "_subscriber", "contacts", "strangers")

    def __init__(self, subscriber: Subscriber, delivery: Delivery) -> None:
        limits = delivery.limits
        self._subscriber = subscriber
        self._delivery = delivery
        self._strangers = TokenBucket(limits.stranger_bytes_per_s, limits.stranger_burst_bytes)
        self.contacts = Gate(delivery.loop, self._contact_delay_s)
        self.strangers = Gate(delivery.loop, self._stranger_delay_s)

    def charge_stranger(self, cost: int) -> None:
        """Count what a stranger said."""
        self._strangers.charge(cost, self._delivery.clock.monotonic())

    def turn_ended(self, frame_bytes: int) -> None:
        """Count what a turn brought this client, and look at who waits."""
        if self._subscriber.reads_slowly:
            self._subscriber.audience.credit.charge(frame_bytes, self._delivery.clock.monotonic())
        self.pump()

    def pump(self) -> None:
        """Something has changed: look at who waits."""
        self.contacts.pump()
        self.strangers.pump()

    def _contact_delay_s(self) -> float:
        subscriber = self._subscriber
        if subscriber.closed:
            return 0.0
        if subscriber.frame_bytes >= self._delivery.turn_bytes:
            return math.inf
        if subscriber.reads_slowly:
            # What the room says and what is said to this client alone add up to the floor rate.
            audience = subscriber.audience
            said = audience.size + subscriber.frame_bytes
            return audience.credit.delay_s(said, self._delivery.clock.monotonic())
        return 0.0

    def _stranger_delay_s(self) -> float:
        if self._subscriber.closed:
            return 0.0
        owing_s = self._strangers.delay_s(0, self._delivery.clock.monotonic())
        return max(owing_s, self._contact_delay_s())


class Delivery:
    """Hands out each turn, as a callback of the loop, after everything readable has been read and handled.

    So all that a turn says goes to each member in one send: the kernel's send costs the same for one message as for
    fifty. Where several people talk without a pause, what one turn finds readable is only what had arrived by then;
    the rest would cost everyone another send a moment later. So a turn that says much is held back for a few looks
    at the loop, none of which waits, until it says as much as the one before: never longer than a fraction of what
    handing it out takes.
    """

    def __init__(self, loop: Loop, clock: Clock, limits: Limits) -> None:
        self.loop = loop
        self.clock = clock
        self.limits = limits
        self.behind_bytes = limits.queue_bytes // _BEHIND_SHARE
        self.turn_bytes = min(limits.turn_bytes, self.behind_bytes)
        self._again: Any = loop.loop.timer(0)
        self._later: Any = None
        self._looks = 0
        self._last_said = 0
        self._due = False
        self._changed: list[Audience] = []
        self._spliced: list[Subscriber] = []
        self._abandoned: list[tuple[Subscriber, CloseReason, str]] = []
        self._behind: dict[Subscriber, None] = {}
        self._prober: Any = None

    def new_gate(self, delay_s: Callable[[], float]) -> Gate:
        """A gate that is open when the delay is 0."""
        return Gate(self.loop, delay_s)

    def floor_bucket(self) -> TokenBucket:
        """What can be said to readers that are behind."""
        rate = self.limits.floor_bytes_per_s
        return TokenBucket(rate, rate * _FLOOR_BURST_S)

    def turn_started(self, audience: Audience) -> None:
        """Something has been said to this audience."""
        self._changed.append(audience)
        self.arm()

    def spliced(self, subscriber: Subscriber) -> None:
        """This client's turn differs from its audience's."""
        self._spliced.append(subscriber)
        self.arm()

    def abandon(self, subscriber: Subscriber, reason: CloseReason, error: str = "") -> None:
        """Nothing more can be sent to this client; it is closed once the turn has been handed to everybody else."""
        self._abandoned.append((subscriber, reason, error))
        self.arm()

    def fell_behind(self, subscriber: Subscriber) -> None:
        """See from time to time whether this client keeps reading."""
        self._behind[subscriber] = None
        self._start_probing()

    def caught_up(self, subscriber: Subscriber) -> None:
        """This client is no longer behind."""
        self._behind.pop(subscriber, None)

    def _start_probing(self) -> None:
        if self._behind and self._prober is None:
            # A new one each time: the loop's timers do not start over.
            self._prober = self.loop.loop.timer(_PROBE_S / 6)
            self._prober.start(self._probe)

    def _probe(self) -> None:
        self._prober.close()
        self._prober = None
        now = self.clock.monotonic()
        for subscriber in list(self._behind):
            subscriber.probe(now)
        self._start_probing()

    def arm(self) -> None:
        """See to it that the turn is handed out."""
        if not self._due:
            self._due = True
            self.loop.loop.run_callback(self._flush)

    def _flush(self) -> None:
        if self._worth_another_look():
            # Not another callback: the loop runs those before it looks at its sockets.
            self._again.start(self._flush)
            return
        self._due = False
        try:
            turns = [audience.joined() for audience in self._changed]
        except MemoryError:
            # Nothing has been handed out yet, so the same turn can be tried again.
            self._flush_in(_RETRY_S)
            return
        changed, self._changed = self._changed, []
        spliced, self._spliced = self._spliced, []
        now = self.clock.monotonic() if changed else 0.0
        open_turns: dict[Audience, float] = {}
        for audience, turn in zip(changed, turns, strict=True):
            open_s = audience.stays_open_s(now)
            if open_s:
                open_turns[audience] = open_s
                audience.turn = memoryview(turn)
            else:
                audience.end_turn(turn)
                self._hand_out(audience, turn)
        for subscriber in spliced:
            if subscriber.audience not in open_turns:
                self._deliver_turn(subscriber, ended=True)
                continue
            if not subscriber.can_wait:
                self._deliver_turn(subscriber, ended=False)
            if subscriber.spliced:
                self._spliced.append(subscriber)
        for audience in changed:
            audience.turn = memoryview(b"")
            if audience not in open_turns:
                audience.pump()
        if open_turns:
            self._changed[:0] = open_turns
            self._flush_in(min(open_turns.values()))
        abandoned, self._abandoned = self._abandoned, []
        for subscriber, reason, trace in abandoned:
            subscriber.lose(reason, trace)

    def _flush_in(self, seconds: float) -> None:
        if self._later is not None:
            self._later.close()
        self._later = self.loop.loop.timer(seconds)
        self._later.start(self.arm)

    def _worth_another_look(self) -> bool:
        said = members = 0
        for audience in self._changed:
            if audience.size >= self.turn_bytes:
                return False
            said += audience.size
            members += len(audience.in_sync)
        if _FLOOD_BYTES <= said < self._last_said and self._looks < members // _MEMBERS_PER_LOOK:
            self._looks += 1
            return True
        self._looks = 0
        self._last_said = said
        return False

    def _hand_out(self, audience: Audience, turn: bytes) -> None:
        if audience.slow_readers:
            audience.credit.charge(len(turn), self.clock.monotonic())
        whole = len(turn)
        short: list[tuple[Subscriber, int]] = []
        for subscriber in audience.backlogged:
            if not subscriber.spliced:
                self._enqueue(subscriber, turn)
        for subscriber, send in audience.in_sync.items():
            try:
                sent = send(turn)
            except BlockingIOError:
                sent = 0
            except Exception as error:
                self.abandon(subscriber, *_failure(error))
                continue
            if sent != whole:
                short.append((subscriber, sent))
        for subscriber, sent in short:
            del audience.in_sync[subscriber]
            self._enqueue(subscriber, audience.turn[sent:])

    def _deliver_turn(self, subscriber: Subscriber, ended: bool) -> None:
        try:
            subscriber.deliver_turn(ended)
        except Exception as error:
            self.abandon(subscriber, *_failure(error))

    def _enqueue(self, subscriber: Subscriber, data: Buffer) -> None:
        try:
            subscriber.enqueue(data)
        except Exception as error:
            self.abandon(subscriber, *_failure(error))


def _failure(error: Exception) -> tuple[CloseReason, str]:
    """Why a client is abandoned: a lost connection is normal, anything else is a fault to be logged."""
    if isinstance(error, OSError):
        return CloseReason.RESET, ""
    try:
        return CloseReason.FAULT, "".join(traceback.format_exception(error)).rstrip()
    except MemoryError:
        return CloseReason.FAULT, "MemoryError"


def _own_or_shared(data: Buffer) -> Buffer:
    """What to keep: a view of shared bytes, unless most of them are not needed."""
    if isinstance(data, memoryview) and 2 * len(data) < len(data.obj):  # type: ignore[arg-type]
        return bytes(data)
    return data


def _unsent_by_kernel(socket: Socket) -> int:
    return int.from_bytes(ioctl(socket.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
