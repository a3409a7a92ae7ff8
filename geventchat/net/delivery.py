"""Output to every client: in order, bounded, and once per flush. Knows no dialect's words and no greenlets.

A *batch* is what is published to an audience between two flushes. An `Audience` encodes each event once and appends it
once. One client's *share* is that sequence of bytes, with its private frames inserted where they were made, and with holes
for the events that it does not receive. It is a list of pieces, each a frame or a `Slice` of a batch, and a cursor: what
the audience publishes from that offset on follows the pieces. At the flush `Delivery` sends every subscriber its share, in
one send. A client that enters or leaves a room goes on in another audience: a slice of the old batch joins its pieces.

Conditions of a Subscriber; several can hold at once:
- subscribed: it has an audience and receives its batches. One that has none gets private frames only, and is in none of
  an audience's dictionaries: `in_sync`, `backlogged` and `waiting`.
- spliced:    its share differs from the batch: it has pieces, or its cursor is not 0. It is in `Delivery._spliced` once, or
              in `Audience.waiting` if nothing is due to it before the batch ends, and not in `Audience.in_sync`.
- backlogged: its socket did not take everything. It has a watcher, and is in `Audience.backlogged` if it is subscribed.
- in sync:    subscribed, and neither spliced nor backlogged. It is in `Audience.in_sync`, and a batch costs it one
  `send` of the shared bytes.
- closed:     nothing is kept and nothing is sent; none of the others holds.

In a large room, arrivals and departures are announced together with the next message, or after a time that grows with
the room: each batch costs one send per member. Until then the batch stays open. A client with private frames gets them at
once, after what the batch holds so far, and the rest when the batch ends.

Invariants:
- Nothing here waits, and the bytes for one client are never reordered.
- An audience exists while it has members. Each of its rooms knows it, and knows whether its delay can be more than 0.
- The gate of a room checks once per iteration whether its delay has become shorter, however many audiences have changed.
- A slice is resolved at the next flush of its batch; none survives the batch.
- One client's failure never affects another: any error, a lack of memory included, ends only the client that it
  concerns, and only after the others have been sent the batch.
- All clients that wait for a batch share its bytes. A remainder of less than half of a batch is copied, and small pieces
  are joined, so the memory that a client holds is never more than three times the bytes it is charged for.
- The bytes that wait for one client are at most `queue_bytes`, plus its own answers, which are counted until the last
  answer of their batch is sent.
- Only this module writes to a client's socket until it is closed.
"""

from __future__ import annotations

import math
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from fcntl import ioctl
from itertools import islice
from termios import TIOCOUTQ
from typing import Any, NamedTuple, Protocol

from gevent.hub import Hub

from geventchat.chat.events import Broadcast, Joined, Left, Missed, PrivateEvent
from geventchat.chat.rooms import Room
from geventchat.clock import Clock
from geventchat.dialects.dialect import Dialect
from geventchat.dialects.framing import Framing
from geventchat.net.gate import Gate
from geventchat.net.reserve import MemoryReserve
from geventchat.net.shared_pages import shared_pages
from geventchat.net.transport import plain_socket
from geventchat.net.waiter import CloseReason
from geventchat.rate import Rate, TokenBucket
from geventchat.settings import Limits

_WRITE = 2
# Buffers per sendmsg call: more would make the list expensive to build.
_GATHER = 128
# A batch of fewer bytes is not a flood: it is sent at once.
_FLOOD_BYTES = 1_024
# One extra poll of the event loop per this many members: a poll costs about as much as two sends.
_MEMBERS_PER_POLL = 8
# A reader is behind when this share of its queue is in use.
_BEHIND_SHARE = 4
# How long a client that is behind has to show progress: a reader can show none for several seconds, because TCP announces
# window space in large steps.
_PROBE_S = 6.0
# How often the clients that are behind are looked at.
_PROBE_INTERVAL_S = 1.0
# The burst for clients that are behind, in seconds of the floor rate.
_FLOOR_BURST_S = 0.25
# In a room with at least this many members, a batch of arrivals and departures alone stays open for this long per member:
# about forty times what it takes to send it, so that churn costs the others a fortieth of the time.
_PRESENCE_MEMBERS = 500
_PRESENCE_S_PER_MEMBER = 0.0002
# A smaller piece that waits for one client alone is joined with its neighbours: an object would cost more than it contains.
_SMALL_BYTES = 256
# So is a piece that several can wait for, if it is smaller than this: perhaps only one of them does.
_TINY_BYTES = 32
# How often everything is flushed before nothing is left: what clients that are lost leave behind comes in a second flush.
_MOST_FLUSHES = 3
# How long after a MemoryError the same batch is tried again.
_RETRY_S = 0.05

Buffer = bytes | bytearray | memoryview


class Socket(Protocol):
    """The part of a transport that delivery uses: non-blocking, raises BlockingIOError when nothing more fits."""

    def fileno(self) -> int: ...
    def send(self, data: Any, /) -> int: ...
    def sendmsg(self, buffers: Any, /) -> int: ...


class Encoding:
    """How a client is spoken to: a dialect in a framing. Encodes each event once, however many audiences receive it."""

    __slots__ = ("_event", "_frame", "dialect", "framing", "wrap")

    def __init__(self, dialect: Dialect, framing: type[Framing]) -> None:
        self.dialect = dialect
        self.framing = framing
        self.wrap = framing.wrap
        self._event: Broadcast | None = None
        self._frame = b""

    def frame(self, event: Broadcast) -> bytes:
        """The bytes of a broadcast event; empty if the dialect does not show it."""
        if event is not self._event:
            # In this order: if encoding fails, the frame still belongs to the event.
            self._frame = self.wrap(self.dialect.encode(event))
            self._event = event
        return self._frame


class Batch:
    """The frames that are published to an audience between two flushes."""

    __slots__ = ("frames", "size", "view")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        # The bytes so far, which is the offset of the next frame.
        self.size = 0
        # The bytes that the current flush sends.
        self.view = memoryview(b"")

    def joined(self) -> bytes:
        """The bytes so far."""
        return self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)


class Slice(NamedTuple):
    """A part of a batch that a client receives."""

    batch: Batch
    start: int
    end: int

    @property
    def buffer(self) -> memoryview:
        """Its bytes, during the flush of its batch."""
        return self.batch.view[self.start : self.end]


class Audience:
    """Everyone who receives the same bytes: one encoding, one set of rooms."""

    __slots__ = (
        "_delivery",
        "backlogged",
        "batch",
        "batch_ended_at",
        "can_delay",
        "encoding",
        "floor",
        "in_sync",
        "is_full",
        "latest",
        "members",
        "outgoing",
        "rooms",
        "slow_readers",
        "urgent",
        "waiting",
    )

    def __init__(self, encoding: Encoding, rooms: frozenset[Room], delivery: Delivery) -> None:
        self.encoding = encoding
        self.rooms = rooms
        self._delivery = delivery
        self.batch = Batch()
        # The offset of the event that was published last; the end of the batch if it has no bytes here.
        self.latest = 0
        self.members = 0
        # The bytes that the current flush sends; empty between flushes.
        self.outgoing = memoryview(b"")
        self.in_sync: dict[Subscriber, Callable[[bytes], int]] = {}
        self.backlogged: dict[Subscriber, None] = {}
        # Members that are behind and keep reading. While this is not 0, speakers get no more than the floor rate, for each of
        # the rooms.
        self.slow_readers = 0
        self.floor = delivery.floor_bucket(len(rooms))
        # When the batch before this one was sent.
        self.batch_ended_at = 0.0
        # This batch is full, or holds more than arrivals and departures.
        self.urgent = False
        # This batch holds as much as is sent at once: nothing more can be published before that.
        self.is_full = False
        # Its delay can be more than 0, and its rooms know that.
        self.can_delay = False
        # Members whose share differs from the others', and to whom nothing is due before the batch ends.
        self.waiting: dict[Subscriber, None] = {}

    def delay_s(self) -> float:
        """How long until a message can be published: 0, until the floor rate allows it, or infinity while the batch is full."""
        if self.is_full:
            return math.inf
        if self.slow_readers:
            return self.floor.delay_s(self.batch.size, self._delivery.clock.monotonic())
        return 0.0

    def count_slow_reader(self, slow: bool) -> None:
        """One member more is behind and keeps reading, or one less."""
        self.slow_readers += 1 if slow else -1
        self._note_delay()
        if not slow:
            self._delivery.check_gates(self.rooms)

    def _note_delay(self) -> None:
        """Have the rooms know whether the delay can be more than 0."""
        can_delay = self.is_full or self.slow_readers > 0
        if can_delay and not self.can_delay:
            for room in self.rooms:
                room.add_delaying(self)
        elif self.can_delay and not can_delay:
            for room in self.rooms:
                room.remove_delaying(self)
        self.can_delay = can_delay

    def publish(self, event: Broadcast) -> None:
        """Encode once, append once."""
        batch = self.batch
        self.latest = batch.size
        frame = self.encoding.frame(event)
        if not frame:
            return
        if not batch.frames:
            self._delivery.batch_started(self)
        batch.frames.append(frame)
        batch.size += len(frame)
        if batch.size >= self._delivery.outgoing_bytes and not self.is_full:
            self.is_full = True
            self._note_delay()
        if not self.urgent and (not isinstance(event, Joined | Left) or self._must_be_sent(batch.size)):
            self.urgent = True
            self._delivery.arm()

    def _must_be_sent(self, size: int) -> bool:
        """True when nothing more can be published before a batch of this size is sent, however long the speakers wait."""
        delivery = self._delivery
        return size >= (delivery.floor_burst if self.slow_readers else delivery.outgoing_bytes)

    def end_batch(self, view: memoryview, following: Batch) -> None:
        """Close this batch, which is sent as `view`.

        The caller has allocated the following one, so that this cannot run out of memory: an audience that has frames and
        is not in the delivery's list would never be flushed again.
        """
        self.batch.view = self.outgoing = view
        self.batch = following
        self.latest = 0
        self.urgent = False
        self.batch_ended_at = self._delivery.clock.monotonic()

    def batch_sent(self) -> None:
        """Forget the bytes that the flush has sent. Speakers that had to wait for that can go on."""
        self.outgoing = memoryview(b"")
        if self.is_full:
            self.is_full = False
            self._note_delay()
            self._delivery.check_gates(self.rooms)

    def stays_open_s(self, now: float) -> float:
        """How much longer this batch can stay open; 0 when it must be sent now."""
        if self.urgent or self.members < _PRESENCE_MEMBERS:
            return 0.0
        return max(0.0, self.batch_ended_at + self.members * _PRESENCE_S_PER_MEMBER - now)


class Subscriber:
    """One client's share of its audience's batches, and its private frames."""

    __slots__ = (
        "_answers_end",
        "_answers_flushed",
        "_backlog",
        "_cursor",
        "_delivery",
        "_direct",
        "_due",
        "_lag",
        "_on_lost",
        "_pieces",
        "_queued",
        "_send",
        "_sent",
        "_socket",
        "_watcher",
        "answered_bytes",
        "audience",
        "backlog_bytes",
        "closed",
        "encoding",
        "interpreter",
        "missed_bytes",
        "plain_socket",
        "private_bytes",
        "spliced",
        "unsent_answer_bytes",
    )

    def __init__(
        self,
        socket: Socket,
        encoding: Encoding,
        delivery: Delivery,
        on_lost: Callable[[CloseReason, str], None],
    ) -> None:
        """`on_lost` is called once when nothing more can be sent, with the traceback after a fault."""
        self.encoding = encoding
        self.interpreter = encoding.dialect.interpreter()
        # None: it has not logged in, or has left.
        self.audience: Audience | None = None
        self.closed = False
        self._socket = socket
        self._send = socket.send
        self.plain_socket = plain_socket(socket)
        self._delivery = delivery
        self._on_lost = on_lost
        # Its share so far. What its audience publishes from the cursor on follows.
        self._pieces: list[bytes | bytearray | Slice] = []
        self._cursor = 0
        # Its share is sent separately, because it differs from the batch.
        self.spliced = False
        # Something of it must be sent at the next flush, even if the batch stays open.
        self._due = False
        # Bytes of private frames in this batch.
        self.private_bytes = 0
        self._backlog: deque[Buffer] | None = None
        self.backlog_bytes = 0
        self._watcher: Any = None
        # Bytes that have ever gone into the backlog.
        self._queued = 0
        # Bytes that have ever gone out of it.
        self._sent = 0
        # Bytes of answers that wait, counted until all of them are sent.
        self.unsent_answer_bytes = 0
        # Bytes of all answers so far.
        self.answered_bytes = 0
        # How many of these were about what it had missed.
        self.missed_bytes = 0
        # How many of these were made before the last flush.
        self._answers_flushed = 0
        # The value of `_sent` at which all of these are sent.
        self._answers_end = 0
        self._direct: _DirectGates | None = None
        self._lag: _Lag | None = None

    @property
    def subscribed(self) -> bool:
        """True while this client receives what its audience is sent."""
        return self.audience is not None

    @property
    def all_sent(self) -> bool:
        """True when nothing is pending."""
        return self.closed or not (self._pieces or self._backlog)

    @property
    def can_wait(self) -> bool:
        """True when nothing is due to this client before the batch ends."""
        return not self._due and self.subscribed

    def speak(self, encoding: Encoding) -> None:
        """Go on in another encoding. Only a client that has not logged in can."""
        self.encoding = encoding
        self.interpreter = encoding.dialect.interpreter()

    def deliver(self, event: PrivateEvent) -> None:
        """Send an answer to this client alone."""
        frame = self.interpreter.encode_private(event)
        if frame:
            self.answer(self.encoding.wrap(frame))

    def deliver_missed(self, events: Sequence[Broadcast]) -> None:
        """Send as an answer what happened before this client heard a room."""
        before = self.answered_bytes
        self.deliver(Missed(events))
        self.missed_bytes += self.answered_bytes - before

    def answer(self, frame: bytes) -> None:
        """Send these bytes as an answer."""
        self.unsent_answer_bytes += len(frame)
        self.answered_bytes += len(frame)
        self._insert(frame)

    def deliver_direct(self, event: PrivateEvent, stranger: bool) -> None:
        """Send what another client has caused, such as a direct message."""
        frame = self.interpreter.encode_private(event)
        if not frame:
            return
        frame = self.encoding.wrap(frame)
        if stranger:
            self._direct_gates().charge_stranger(len(frame))
        self._insert(frame)

    def direct_gate(self, stranger: bool) -> Gate:
        """The gate that a direct message to this client has to pass."""
        gates = self._direct_gates()
        return gates.strangers if stranger else gates.contacts

    def hear(self, rooms: frozenset[Room] | None) -> None:
        """Receive what these rooms publish from now on; None after it has left. What it heard before still comes first."""
        delivery = self._delivery
        left, entered = self.audience, None if rooms is None else delivery.audience(self.encoding, rooms)
        if left is entered:
            return
        has_nothing = not (self.spliced or self._backlog or self.closed)
        if left is None and entered is not None and has_nothing and not entered.batch.size:
            # Nothing has been published that it must not receive.
            entered.members += 1
            entered.in_sync[self] = self._send
            self.audience = entered
            return
        self._splice()
        if left is not None:
            if self._cursor < left.batch.size:
                self._pieces.append(Slice(left.batch, self._cursor, left.batch.size))
                self._due = True
            left.backlogged.pop(self, None)
            left.members -= 1
        if entered is not None:
            self._cursor = entered.batch.size
            entered.members += 1
            if self._watcher is not None:
                # The backlog comes first.
                entered.backlogged[self] = None
        else:
            self._cursor = 0
            self._end_lag()
        if left is not None and entered is not None and self.reads_slowly:
            left.count_slow_reader(False)
            entered.count_slow_reader(True)
        self.audience = entered
        if left is not None and not left.members:
            delivery.forget(left)

    def wrote(self, event: Broadcast) -> None:
        """This client is the author of the event that was published last: it gets a hole unless its dialect echoes."""
        if not self.encoding.dialect.echoes(event):
            self.exclude_latest()

    def exclude_latest(self) -> None:
        """Leave a hole for the event that was published last."""
        audience = self.audience
        if audience is None or audience.latest == audience.batch.size:
            return
        if not self.spliced:
            self._splice()
        if self._cursor < audience.latest:
            self._pieces.append(Slice(audience.batch, self._cursor, audience.latest))
        self._cursor = audience.batch.size

    # After a flush nothing is left of batches and private frames, and the rest begins anew with what waits.
    TRANSIENT = frozenset(
        {
            *(
                "_answers_end",
                "_answers_flushed",
                "_cursor",
                "_delivery",
                "_due",
                "_lag",
                "_on_lost",
                "_pieces",
            ),
            *("_queued", "_send", "_sent", "_socket", "_watcher", "audience", "backlog_bytes", "closed"),
            "plain_socket",
            *("encoding", "interpreter", "private_bytes", "spliced"),
        }
    )

    def to_state(self, keep: Callable[[Buffer], Any]) -> dict[str, Any]:
        """The pending bytes of the client, to be handed over. `keep` gets each buffer, which several clients can share."""
        return {
            "backlog": [keep(buffer) for buffer in self._backlog or ()],
            "unsent_answer_bytes": self.unsent_answer_bytes,
            "answered_bytes": self.answered_bytes,
            "missed_bytes": self.missed_bytes,
            "direct": None if self._direct is None else self._direct.to_state(),
        }

    def take_state(self, state: dict[str, Any], find: Callable[[Any], Buffer]) -> None:
        """Take over the pending bytes. The client is not subscribed yet."""
        for kept in state["backlog"]:
            # Not limited again: the old process has allowed these bytes.
            self._keep(find(kept), alone=False)
        self.unsent_answer_bytes = state["unsent_answer_bytes"]
        self.answered_bytes = self._answers_flushed = state["answered_bytes"]
        self.missed_bytes = state["missed_bytes"]
        self._answers_end = self._queued
        if state["direct"] is not None:
            self._direct_gates().take_state(state["direct"])

    def deliver_batch(self, ended: bool) -> None:
        """Send this client's share of the batch, or, if the batch has not ended, of what it holds so far."""
        share, self._pieces = self._pieces, []
        private_bytes, self.private_bytes = self.private_bytes, 0
        self._due = False
        if self.closed:
            self._cursor = 0
            self.spliced = False
            return
        pieces: list[Buffer] = [piece.buffer if isinstance(piece, Slice) else piece for piece in share]
        audience = self.audience
        size = 0
        if audience is not None:
            size = len(audience.outgoing)
            if self._cursor < size:
                pieces.append(audience.outgoing[self._cursor :])
        # The rest of an unfinished batch is sent when it ends.
        self._cursor = 0 if ended else size
        self.spliced = not ended
        if not self._backlog:
            pieces = self._transmit(pieces)
        for piece in pieces:
            self.enqueue(piece, alone=True)
        if self._answers_flushed != self.answered_bytes:
            self._answers_flushed, self._answers_end = self.answered_bytes, self._queued
        if self._backlog:
            self.check_lag()
        else:
            self.unsent_answer_bytes = 0
        if audience is not None and ended and not self._backlog:
            audience.in_sync[self] = self._send
        if self._direct is not None:
            self._direct.batch_ended(private_bytes)

    def enqueue(self, data: Buffer, alone: bool = False) -> None:
        """Keep this until the socket takes it. Abandon the client if it is too far behind.

        `alone`: no other client waits for the same piece.
        """
        if self.closed:
            return
        if self.backlog_bytes - self.unsent_answer_bytes + len(data) > self._delivery.limits.queue_bytes:
            self._delivery.abandon(self, CloseReason.SLOW)
            return
        self._keep(data, alone)

    def _keep(self, data: Buffer, alone: bool) -> None:
        if self._backlog is None:
            self._backlog = deque()
        if self._watcher is None:
            self._watcher = self._delivery.hub.loop.io(self._socket.fileno(), _WRITE)
            self._watcher.start(self._writable)
            if self.audience is not None:
                self.audience.backlogged[self] = None
        if len(data) < (_SMALL_BYTES if alone else _TINY_BYTES):
            last = self._backlog[-1] if self._backlog else None
            if type(last) is bytearray and len(last) < _SMALL_BYTES:
                last += data
            else:
                self._backlog.append(bytearray(data))
        else:
            self._backlog.append(_own_or_shared(data))
        self.backlog_bytes += len(data)
        self._queued += len(data)

    @property
    def _others_bytes(self) -> int:
        """How many of the bytes that wait are not this client's own answers."""
        # Of the answers, at most what comes before the end of the last one still waits.
        answers = min(self.unsent_answer_bytes, max(0, self._answers_end - self._sent))
        return self.backlog_bytes - answers

    def check_lag(self) -> None:
        """Note if this client has fallen behind what others say."""
        if self._lag is None and self._others_bytes > self._delivery.behind_bytes and self.subscribed:
            self._lag = _Lag(self._delivery.clock.monotonic())
            self._delivery.fell_behind(self)
            self._count_slow(True)

    @property
    def taken(self) -> int:
        """Total bytes of the backlog that have left this machine."""
        return self._sent - _unsent_by_kernel(self._socket)

    @property
    def reads_slowly(self) -> bool:
        """True when this client is behind and keeps reading."""
        return self._lag is not None and self._lag.reads

    def probe(self, now: float) -> None:
        """Check whether this client, which is behind, keeps reading."""
        lag = self._lag
        if lag is None or now - lag.since < (_PROBE_INTERVAL_S if lag.taken is None else _PROBE_S):
            return
        taken = self.taken
        # Any progress counts. A client that takes less than the floor rate fills its queue anyway.
        reads = lag.taken is None or taken > lag.taken
        lag.since, lag.taken = now, taken
        if reads != lag.reads:
            lag.reads = reads
            self._count_slow(reads)

    def connection_lost(self, reason: CloseReason, error: str) -> None:
        """Close after a failure: nothing more can be sent."""
        if not self.closed:
            on_lost = self._on_lost
            self.close()
            on_lost(reason, error)

    def close(self) -> None:
        """Release the socket and drop what is pending."""
        self.closed = True
        # Breaks a reference cycle through the connection.
        self._on_lost = _ignore
        self._unwatch()
        self._backlog = None
        self.backlog_bytes = self.unsent_answer_bytes = 0
        if self.audience is not None:
            self.audience.in_sync.pop(self, None)
        if self._direct is not None:
            self._direct.pump()

    def _direct_gates(self) -> _DirectGates:
        if self._direct is None:
            self._direct = _DirectGates(self, self._delivery)
        return self._direct

    def _insert(self, frame: bytes) -> None:
        self._splice()
        self._due = True
        self.private_bytes += len(frame)
        audience, pieces = self.audience, self._pieces
        if audience is not None and self._cursor < audience.batch.size:
            pieces.append(Slice(audience.batch, self._cursor, audience.batch.size))
            self._cursor = audience.batch.size
        last = pieces[-1] if pieces else None
        if last is None or isinstance(last, Slice):
            pieces.append(frame)
        else:
            # Adjacent frames share a buffer: thousands of tiny answers would cost more memory than they contain.
            joined = last if type(last) is bytearray else bytearray(last)
            joined += frame
            pieces[-1] = joined

    def _splice(self) -> None:
        """Have its share sent separately. Comes before every change to it."""
        audience = self.audience
        if not self.spliced:
            self._delivery.schedule_share(self)
            self.spliced = True
            if audience is not None:
                audience.in_sync.pop(self, None)
        elif audience is not None and self in audience.waiting:
            self._delivery.schedule_share(self)
            del audience.waiting[self]

    def _transmit(self, pieces: list[Buffer]) -> list[Buffer]:
        """Send as much as the socket takes; return what is left."""
        at = 0
        try:
            if len(pieces) == 1:
                (piece,) = pieces
                sent = self._send(piece)
                self._delivery.sent_bytes += sent
                return [] if sent == len(piece) else [memoryview(piece)[sent:]]
            while at < len(pieces):
                some = pieces[at : at + _GATHER]
                sent = self._socket.sendmsg(some)
                self._delivery.sent_bytes += sent
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
                self.connection_lost(*self._delivery.failure(error))
                return
            self.backlog_bytes -= sent
            self._sent += sent
            self._delivery.sent_bytes += sent
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
        if self.audience is not None and not self.spliced:
            self.audience.in_sync[self] = self._send

    def _progressed(self) -> None:
        if self._sent >= self._answers_end and self._answers_flushed == self.answered_bytes:
            self.unsent_answer_bytes = 0
        if self._lag is not None and self._others_bytes <= self._delivery.behind_bytes:
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
        if self.audience is not None:
            self.audience.count_slow_reader(slow)

    def _unwatch(self) -> None:
        # Before the socket: a watcher must never outlive its descriptor.
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        self._end_lag()
        if self.audience is not None:
            self.audience.backlogged.pop(self, None)


class _Lag:
    """Progress of a client that is behind, since the last probe."""

    __slots__ = ("reads", "since", "taken")

    def __init__(self, since: float) -> None:
        self.since = since
        # None until the first probe: what was on its way when the client fell behind arrives whether it reads or not.
        self.taken: int | None = None
        # Assume it reads until a probe shows otherwise.
        self.reads = True


class _DirectGates:
    """The gates for direct messages to one client: one for people it has written to, one for strangers."""

    __slots__ = ("_delivery", "_strangers", "_subscriber", "contacts", "strangers")

    def __init__(self, subscriber: Subscriber, delivery: Delivery) -> None:
        limits = delivery.limits
        self._subscriber = subscriber
        self._delivery = delivery
        self._strangers = TokenBucket(Rate(limits.stranger_bytes_per_s, limits.stranger_burst_bytes))
        self.contacts = Gate(delivery.hub, self._contact_delay_s)
        self.strangers = Gate(delivery.hub, self._stranger_delay_s)

    TRANSIENT = frozenset({"_delivery", "_subscriber", "contacts", "strangers"})

    def to_state(self) -> dict[str, Any]:
        """The used part of the rate for strangers, to be handed over."""
        # The gate `strangers` is another attribute.
        return {"_strangers": self._strangers.to_state()}

    def take_state(self, state: dict[str, Any]) -> None:
        """Take over the used part of the rate for strangers."""
        self._strangers.take_state(state["_strangers"])

    def charge_stranger(self, cost: int) -> None:
        """Charge a stranger's message."""
        self._strangers.charge(cost, self._delivery.clock.monotonic())

    def batch_ended(self, private_bytes: int) -> None:
        """Charge the private frames of a batch, and let waiting senders pass if they now can."""
        audience = self._subscriber.audience
        if audience is not None and self._subscriber.reads_slowly:
            audience.floor.charge(private_bytes, self._delivery.clock.monotonic())
        self.pump()

    def pump(self) -> None:
        """Let waiting senders pass if they now can."""
        self.contacts.pump()
        self.strangers.pump()

    def _contact_delay_s(self) -> float:
        subscriber = self._subscriber
        if subscriber.closed:
            return 0.0
        if subscriber.private_bytes >= self._delivery.outgoing_bytes:
            return math.inf
        audience = subscriber.audience
        if audience is not None and subscriber.reads_slowly:
            # The room's events and this client's private frames share the floor rate.
            both_bytes = audience.batch.size + subscriber.private_bytes
            return audience.floor.delay_s(both_bytes, self._delivery.clock.monotonic())
        return 0.0

    def _stranger_delay_s(self) -> float:
        if self._subscriber.closed:
            return 0.0
        owing_s = self._strangers.delay_s(0, self._delivery.clock.monotonic())
        return max(owing_s, self._contact_delay_s())


class Delivery:
    """Sends each batch, as a callback of the event loop, after everything readable has been read and handled.

    So each member gets a batch in one send: the kernel's send costs the same for one message as for fifty. While
    several people talk without a pause, one iteration of the loop reads only what has arrived by then, and the rest
    would cost everyone another send a moment later. A large batch is therefore held back for a few non-blocking polls
    of the loop, until it is as large as the one before. The polls take a fraction of the time that sending it takes.
    """

    def __init__(self, hub: Hub, clock: Clock, limits: Limits) -> None:
        self.hub = hub
        self.clock = clock
        self.limits = limits
        self.reserve = MemoryReserve()
        # The floor rates, by the number of rooms.
        self._floors: dict[int, Rate] = {}
        self.limits_changed()
        self._poll_timer: Any = hub.loop.timer(0)
        self._flush_timer: Any = None
        self._extra_polls = 0
        self._last_flush_bytes = 0
        self._due = False
        self._audiences: dict[tuple[Encoding, frozenset[Room]], Audience] = {}
        self._changed: list[Audience] = []
        self._spliced: list[Subscriber] = []
        self._abandoned: list[tuple[Subscriber, CloseReason, str]] = []
        # The rooms whose delay can have become shorter in this iteration.
        self._unchecked: dict[Room, None] = {}
        self._behind: dict[Subscriber, None] = {}
        self._prober: Any = None
        # How many bytes sockets have taken.
        self.sent_bytes = 0

    def limits_changed(self) -> None:
        """Derive from the limits what depends on several of them."""
        limits = self.limits
        self.behind_bytes = limits.queue_bytes // _BEHIND_SHARE
        self.outgoing_bytes = min(limits.outgoing_bytes, self.behind_bytes)
        rate = limits.floor_bytes_per_s
        self.floor_burst = min(rate * _FLOOR_BURST_S, self.outgoing_bytes) if rate else self.outgoing_bytes
        for rooms, floor in self._floors.items():
            self._change_floor(rooms, floor)

    @property
    def behind(self) -> int:
        """How many clients are a part of their queue behind."""
        return len(self._behind)

    def new_gate(self, delay_s: Callable[[], float]) -> Gate:
        """A gate that is open when the delay is 0."""
        return Gate(self.hub, delay_s)

    def audience(self, encoding: Encoding, rooms: frozenset[Room]) -> Audience:
        """The audience of all clients that hear exactly these rooms in this encoding."""
        key = (encoding, rooms)
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = Audience(encoding, rooms, self)
            for room in rooms:
                room.add_audience(audience)
        return audience

    def forget(self, audience: Audience) -> None:
        """Remove an audience without members."""
        del self._audiences[audience.encoding, audience.rooms]
        for room in audience.rooms:
            room.remove_audience(audience)
        if audience.can_delay:
            # It can have been the one that the others had to wait for.
            self.check_gates(audience.rooms)

    def publish_to_all(self, event: Broadcast) -> None:
        """Publish an event to all logged-in users, whatever rooms they are in."""
        for audience in self._audiences.values():
            audience.publish(event)

    def floor_bucket(self, rooms: int) -> TokenBucket:
        """A token bucket for what is sent to clients in this many rooms that are behind.

        Each room adds the floor rate: otherwise the speakers of fifty rooms would share what one client can slow them down to.
        """
        rate = self._floors.get(rooms)
        if rate is None:
            rate = self._floors[rooms] = Rate(0, 0)
            self._change_floor(rooms, rate)
        return TokenBucket(rate)

    def _change_floor(self, rooms: int, rate: Rate) -> None:
        per_s = self.limits.floor_bytes_per_s
        # A reader can get a batch and direct messages at the same moment, and both have to be charged.
        rate.change(per_s * max(1, rooms), per_s * _FLOOR_BURST_S, self.outgoing_bytes)

    def batch_started(self, audience: Audience) -> None:
        """Flush this audience, which has published its first event since the last flush."""
        self._changed.append(audience)
        self.arm()

    def schedule_share(self, subscriber: Subscriber) -> None:
        """Flush this client, whose share differs from what its audience receives."""
        self._spliced.append(subscriber)
        self.arm()

    def abandon(self, subscriber: Subscriber, reason: CloseReason, error: str = "") -> None:
        """Close this client, to which nothing more can be sent, once everyone else has been sent the batch."""
        self._abandoned.append((subscriber, reason, error))
        self.arm()

    def check_gates(self, rooms: Iterable[Room]) -> None:
        """Let those who wait at the gates of these rooms pass, if they now can.

        Not at once: hundreds of audiences of one room can change at the same moment, and a check asks each of them.
        """
        if not self._unchecked:
            self.hub.loop.run_callback(self._check_gates)
        self._unchecked.update(dict.fromkeys(rooms))

    def _check_gates(self) -> None:
        unchecked, self._unchecked = self._unchecked, {}
        for room in unchecked:
            room.gate.pump()

    def failure(self, error: Exception) -> tuple[CloseReason, str]:
        """Why a client is abandoned: a lost connection is normal, anything else is a fault to be logged."""
        if isinstance(error, OSError):
            return CloseReason.RESET, ""
        if isinstance(error, MemoryError):
            self.reserve.spend()
        try:
            return CloseReason.FAULT, "".join(traceback.format_exception(error)).rstrip()
        except MemoryError:
            return CloseReason.FAULT, "MemoryError"

    def fell_behind(self, subscriber: Subscriber) -> None:
        """Probe this client from time to time."""
        self._behind[subscriber] = None
        self._start_probing()

    def caught_up(self, subscriber: Subscriber) -> None:
        """Stop probing this client."""
        self._behind.pop(subscriber, None)

    def _start_probing(self) -> None:
        if self._behind and self._prober is None:
            # A new one each time: the loop's timers cannot be restarted.
            self._prober = self.hub.loop.timer(_PROBE_INTERVAL_S)
            self._prober.start(self._probe)

    def _probe(self) -> None:
        self._prober.close()
        self._prober = None
        now = self.clock.monotonic()
        for subscriber in list(self._behind):
            subscriber.probe(now)
        self._start_probing()

    def arm(self) -> None:
        """Schedule a flush."""
        if not self._due:
            self.hub.loop.run_callback(self._flush)
            # Set only after the call: if it raises, a later `arm` must try again.
            self._due = True

    def flush_everything(self) -> None:
        """Send everything now, also what could still wait: then nothing is left but what sockets do not take."""
        for _ in range(_MOST_FLUSHES):
            for audience in self._changed:
                audience.urgent = True
            self._flush_now()
        if self._changed or self._spliced or self._abandoned:
            raise MemoryError("nothing can be sent")

    def _flush(self) -> None:
        if self._worth_another_poll():
            # A timer, not a callback: the loop runs callbacks before it polls its sockets.
            self._poll_timer.start(self._flush)
            return
        self._flush_now()

    def _flush_now(self) -> None:
        self._due = False
        if self._changed:
            self._flush_batches()
        else:
            spliced, self._spliced = self._spliced, []
            for subscriber in spliced:
                self._deliver_batch(subscriber, ended=True)
        if self._abandoned:
            abandoned, self._abandoned = self._abandoned, []
            for subscriber, reason, trace in abandoned:
                subscriber.connection_lost(reason, trace)

    def _flush_batches(self) -> None:
        try:
            batches = [audience.batch.joined() for audience in self._changed]
            views = [memoryview(batch) for batch in batches]
            following = [Batch() for _ in batches]
            now = self.clock.monotonic()
            open_batches = {
                audience: open_s for audience in self._changed if (open_s := audience.stays_open_s(now))
            }
            next_changed = list(open_batches)
            next_spliced: list[Subscriber] = []
        except MemoryError:
            # Nothing has been sent yet, so the same batch can be tried again.
            self.reserve.spend()
            self._flush_in(_RETRY_S)
            return
        changed, self._changed = self._changed, next_changed
        spliced, self._spliced = self._spliced, next_spliced
        # All views first: a client that has changed rooms receives parts of several batches.
        for audience, view, next_batch in zip(changed, views, following, strict=True):
            if audience in open_batches:
                audience.batch.view = audience.outgoing = view
            else:
                audience.end_batch(view, next_batch)
        for audience, batch in zip(changed, batches, strict=True):
            if audience not in open_batches:
                self._send_to_members(audience, batch)
                for subscriber in audience.waiting:
                    self._deliver_batch(subscriber, ended=True)
                audience.waiting.clear()
        for subscriber in spliced:
            self._deliver_batch(subscriber, ended=subscriber.audience not in open_batches)
        for audience in changed:
            if audience in open_batches:
                audience.batch.view = audience.outgoing = memoryview(b"")
            else:
                audience.batch_sent()
        if open_batches:
            self._flush_in(min(open_batches.values()))

    def _flush_in(self, seconds: float) -> None:
        if self._flush_timer is not None:
            self._flush_timer.close()
        self._flush_timer = self.hub.loop.timer(seconds)
        self._flush_timer.start(self.arm)

    def _worth_another_poll(self) -> bool:
        flush_bytes = members = 0
        for audience in self._changed:
            if audience.batch.size >= self.outgoing_bytes:
                return False
            flush_bytes += audience.batch.size
            members += len(audience.in_sync)
        incomplete = _FLOOD_BYTES <= flush_bytes < self._last_flush_bytes
        if incomplete and self._extra_polls < members // _MEMBERS_PER_POLL:
            self._extra_polls += 1
            return True
        self._extra_polls = 0
        self._last_flush_bytes = flush_bytes
        return False

    def _send_to_members(self, audience: Audience, batch: bytes) -> None:
        if audience.slow_readers:
            audience.floor.charge(len(batch), self.clock.monotonic())
        whole = len(batch)
        self.sent_bytes += whole * len(audience.in_sync)
        short: list[tuple[Subscriber, int]] = []
        for subscriber in audience.backlogged:
            if not subscriber.spliced:
                self._enqueue(subscriber, batch)
        pages = shared_pages(batch, len(audience.in_sync))
        for subscriber, send in audience.in_sync.items():
            try:
                plain = subscriber.plain_socket
                sent = pages.send_to(plain) if pages and plain else send(batch)
            except BlockingIOError:
                sent = 0
            except Exception as error:
                self.sent_bytes -= whole
                self.abandon(subscriber, *self.failure(error))
                continue
            if sent != whole:
                self.sent_bytes -= whole - sent
                short.append((subscriber, sent))
        if pages is not None:
            pages.close()
        for subscriber, sent in short:
            del audience.in_sync[subscriber]
            self._enqueue(subscriber, audience.outgoing[sent:])

    def _deliver_batch(self, subscriber: Subscriber, ended: bool) -> None:
        try:
            if ended:
                subscriber.deliver_batch(True)
                return
            if not subscriber.can_wait:
                subscriber.deliver_batch(False)
            if subscriber.spliced and subscriber.audience is not None:
                subscriber.audience.waiting[subscriber] = None
        except Exception as error:
            self.abandon(subscriber, *self.failure(error))

    def _enqueue(self, subscriber: Subscriber, data: Buffer) -> None:
        try:
            subscriber.enqueue(data)
            subscriber.check_lag()
        except Exception as error:
            self.abandon(subscriber, *self.failure(error))


def _ignore(reason: CloseReason, error: str) -> None:
    """Do nothing: in place of `_on_lost` once the subscriber is closed."""


def _own_or_shared(data: Buffer) -> Buffer:
    """The view of shared bytes, or a copy if the view uses less than half of them."""
    if isinstance(data, memoryview) and 2 * len(data) < len(data.obj):  # type: ignore[arg-type]
        return bytes(data)
    return data


def _unsent_by_kernel(socket: Socket) -> int:
    return int.from_bytes(ioctl(socket.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
