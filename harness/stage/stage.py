"""The stage: a running server, its scripted clients, a fence and a clock. Knows no scripts.

Tests in Python use it directly; `playing` plays scripts on it.

- A client keeps its name and its inbox for the life of the stage, over any number of connections.
- Every wait is bounded by `within`, in real seconds in which the machine ran the server: see `limits`.
- The death of the server is reported before any other failure.
- If time passes faster for the server, a wait counts from the last action or the end of the last wait. Otherwise the moments
  in between, which are long for the server, would add up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING

from harness.language.adapter import Adapter
from harness.language.fences import Fence
from harness.language.patterns import fill, match, parse_pattern
from harness.language.steps import Rule, Transport
from harness.stage.connection import Connection, End, Inbox, UnsupportedAction
from harness.stage.conversation import Conversation
from harness.stage.fence import (
    MOMENTS,
    POLL_S,
    SETTLE_S,
    AnswerFence,
    ExactFence,
    FenceFailed,
    FenceLineSent,
    Grade,
    NeverIdle,
    QuietFence,
    hides_traceback,
)
from harness.stage.heard_fence import DeliveryTracker, HeardFence
from harness.stage.kernel import SocketAddress, SocketDiagnostics, address_text, is_unix
from harness.stage.limits import Limit
from harness.stage.rules import FindHeard, Rules, Take, TakenLine
from harness.stage.target import (
    RunningServer,
    ServerError,
    ServerSpec,
    Target,
    TargetError,
    UnsupportedSpec,
    Untestable,
    address_of,
)
from harness.stage.translation import Translation
from harness.stage.transport import HandshakeFailed, Plain, TlsTrust

if TYPE_CHECKING:
    import ssl

__tracebackhide__ = hides_traceback
_DYING_S = 0.05
_ENDED = (End.CLOSED, End.RESET, End.REFUSED)


class Unexpected(AssertionError):
    """A client received something unexpected."""

    __module__ = "harness"  # its public home, and short in a summary


_CLOSES_WITHIN_S = 1.0
"""How long a server can take to close the connections of clients that have left, before the next script begins."""


class NotRead(FenceFailed):
    """The server did not read what was sent before a split write."""

    def __init__(self, client: str, within_s: float, virtual: bool) -> None:
        super().__init__(client, within_s, "sent bytes that the server did not read")
        self.why = (
            "it is idle, and has not read them" if virtual else f"it did not read them within {within_s:g} s"
        )

    def __str__(self) -> str:
        return f"{self.client} sent bytes before these, and the server has to read them first; {self.why}"


class Stage:
    """A context manager that runs the server, and on exit ends it and all clients.

    A client sends the line of `fence` once it has sent a line that begins with `fence_after`, and never if it is in
    `unfenced`. `within` is the longest time, in real seconds, of a single operation. `settle` is the time without input after
    which a server counts as quiet, where time is real. `transport` is the default for connections, and `trust` the
    certificates that they accept. `rules`, each with its file, are the lines that clients ignore or answer.
    """

    def __init__(
        self,
        target: Target,
        spec: ServerSpec = ServerSpec(),  # noqa: B008  # frozen
        *,
        fence: Fence = Fence(),  # noqa: B008  # frozen
        fence_after: str = "",
        unfenced: Iterable[str] = (),
        eol: bytes = b"\n",
        within: float = 5.0,
        settle: float = SETTLE_S,
        transport: Transport = Transport(),  # noqa: B008  # frozen
        trust: TlsTrust = TlsTrust(),  # noqa: B008  # frozen
        adapter: Adapter | None = None,
        rules: Iterable[tuple[Rule, str]] = (),
    ) -> None:
        self.eol = eol
        self._adapter = adapter
        self.within_s = within
        self.settle_s = settle
        self._target = target
        self._spec = spec
        self._fence_line = fence
        self._fence_after = fence_after.encode()
        self._unfenced = frozenset(unfenced)
        self.on_taken: Take | None = None
        """Called with each line that rules take and an adapter changes, to count them."""
        self.rules = Rules(rules, eol, self._take)
        self._transport = transport
        self._tls_context = cache(trust.context)
        self._clients: dict[str, Client] = {}
        self._waited_s = self._anchor_s = self._margin_s = 0.0
        self._all_left = False
        self.settled = True
        """Whether nothing has been done since the last `settle`."""
        self.conversation = Conversation(eol)
        self.captures: dict[str, str] = {}
        """The values of the names that patterns have bound."""

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            self._kernel = SocketDiagnostics()
            stack.callback(self._kernel.close)
            self.server: RunningServer = stack.enter_context(self._target.start(self._spec, self.within_s))
            self.loop = self.server.loop
            self.loop.moment_s = self.settle_s / MOMENTS
            self.loop.unseen = ""  # the start of the server does not count
            self._fence = self._make_fence()
            stack.callback(self.close_clients)
            self.loop.restart_time()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _make_fence(self) -> ExactFence | AnswerFence | QuietFence:
        self._deliveries: DeliveryTracker | None = None
        self._quiet = QuietFence(
            self.loop, self._connections, self.within_s, self.settle_s, self.server.transit
        )
        if self.loop.virtual:
            return ExactFence(self.loop, self._quiet)
        if not self._fence_line.question or not self.server.answers_prove:
            return self._quiet
        asking = (
            self._fence_line,
            self._unfenced,
            self.eol,
            self.loop,
            self._connections,
            self.within_s,
            self.settle_s,
        )
        if not self._fence_line.heard:
            return AnswerFence(*asking)
        self._deliveries = DeliveryTracker(self._fence_line)
        return HeardFence(*asking, self._deliveries)

    def close_clients(self) -> None:
        """Disconnect all clients, and wait until the server has noticed. Where all have left already, nothing is done."""
        if self._all_left:
            return
        try:
            if self.loop.factor > 1:
                self.server.require_fast_time()
        finally:
            for client in self._clients.values():
                client.close()
        try:
            self.loop.settle()
        except NeverIdle as never_idle:
            raise TargetError(f"{self._target}: {never_idle}", self.server_output()) from never_idle
        if self.server.outlives_scripts:
            self._wait_until_closed()
        self._all_left = True

    def _wait_until_closed(self) -> None:
        """Wait until the server has closed the connections, too. Until then it can hold the clients' names, which the next
        script can use."""
        limit = self.loop.limits.limit(_CLOSES_WITHIN_S)
        while any(map(_is_held, self._connections())) and not limit.over:
            self.loop.pause(POLL_S)

    def _connections(self) -> list[Connection]:
        return [client.connection for client in self._clients.values()]

    # Clients

    def client(self, name: str) -> Client:
        """The client of this name, always the same one; its first send connects it."""
        if name not in self._clients:
            self._clients[name] = Client(name, self)
        return self._clients[name]

    def clients(self, *names: str) -> tuple[Client, ...]:
        return tuple(self.client(name) for name in names)

    def new_connection(self, client: Client) -> Connection:
        translation = None
        if self._deliveries is not None:
            self._deliveries.forget(client.name)
        if self._adapter is not None:
            find_heard = self._find_heard(client.name)
            translation = Translation(self._adapter, self.eol, client.name, self._take, find_heard)
        return Connection(
            client.name,
            client.inbox,
            self.loop,
            self._kernel,
            self.within_s,
            self._fence_after,
            self.eol,
            translation,
        )

    def new_inbox(self, client: str) -> Inbox:
        return Inbox(self.rules.of(client), self._find_heard(client) if self._adapter is None else None)

    def _find_heard(self, client: str) -> FindHeard | None:
        return self._deliveries.finder_for(client) if self._deliveries is not None else None

    def new_transport(self, transport: Transport | None, address: SocketAddress) -> Plain:
        """The transport of a new connection to this address; by default that of the stage."""
        return _made(transport or self._transport, address, self._tls_context)

    def address(self, endpoint: str | None) -> SocketAddress:
        """The address of an endpoint; by default the first that the script requires."""
        required = self._spec.endpoints
        return address_of(self.server.addresses, endpoint or (required[0] if required else None))

    # Fences and time

    @property
    def grade(self) -> Grade:
        """How certain it is that nothing more comes."""
        return self._fence.grade

    @property
    def answers_alone(self) -> bool:
        """True if the last fence returned because of answers, without waiting for quiet."""
        return self._fence.answers_alone

    def fence(self, actors: Iterable[Client] = ()) -> None:
        """Return once everything that the acting clients caused has been received by every client."""
        self._fence.everything([actor.connection for actor in actors])
        self.require_alive()

    def fence_one(self, client: Client) -> None:
        """Return once the server has processed everything that this client sent."""
        if not self.ask(client):
            self.fence((client,))

    def ask(self, client: Client) -> bool:
        """Ask only this client; True if that proves that the server has processed everything it sent. If not, only a fence for
        all clients can tell."""
        known = self._fence.one(client.connection)
        self.require_alive()
        return known

    def more_comes(self, last: bool = True) -> bool:
        """If the last fence relied on answers, wait for quiet; if not `last`, only for a moment. True if something came after
        the answers, also before the fence returned. They are then distrusted from here on."""
        if not self.answers_alone:
            return False
        # If time passes faster, the next timer can be due within `settle`.
        long = last and self.loop.factor == 1
        more = self._quiet.more_within(self.settle_s if long else self.settle_s / MOMENTS)
        if not more and isinstance(self._fence, AnswerFence) and self._fence.overtaken:
            self._quiet.try_everything()
            more = True
        if more:
            self.distrust_answers()
        return more

    def distrust_answers(self) -> None:
        """Let fences wait for quiet as well from here on, because lines came after an answer."""
        if isinstance(self._fence, AnswerFence):
            self._fence.distrust()

    @property
    def answered_fence(self) -> Fence | None:
        """The fence line, if this stage uses it."""
        return self._fence_line if isinstance(self._fence, AnswerFence) else None

    def take_fence_lines(self) -> tuple[FenceLineSent, ...]:
        """The fence lines that were sent since the last call."""
        if not isinstance(self._fence, AnswerFence):
            return ()
        sent, self._fence.sent = tuple(self._fence.sent), []
        return sent

    def _take(self, taken: TakenLine) -> None:
        if self.on_taken is not None:
            self.on_taken(taken)

    def wait(self, seconds: float) -> None:
        """Let time pass: instantly if it is virtual. Everything that is due meanwhile happens in order."""
        self.settled = False
        if self.loop.factor > 1:
            self._note_margin()
            self.server.require_fast_time()
            self._waited_s += seconds
            self._anchor_s += seconds
            seconds = max(0.0, self._anchor_s - self.now())
        self.loop.advance(seconds)
        self.require_alive()

    def acts(self) -> None:
        """Note that a client acts now: the next wait counts from here."""
        self._all_left = self.settled = False
        if self.loop.factor > 1:
            self._note_margin()
            self._anchor_s = self.now()

    @property
    def margin_s(self) -> float:
        """How much more time than the script says has passed for the server, at most; 0 unless its time passes faster."""
        if self.loop.factor > 1:
            self._note_margin()
        return self._margin_s

    def _note_margin(self) -> None:
        self._margin_s = max(self._margin_s, self.now() - self._waited_s)

    def settle(self) -> None:
        """Fail if any client has received something that was not expected, was refused or lost its connection, or the server's
        code raised an exception."""
        self.fence(self._clients.values())
        self.more_comes()
        for client in self._clients.values():
            if client.received:
                raise self.unexpected(client, "")
            client.require_no_loss()
        for error in self.take_errors():
            raise Unexpected(f"the server raised {error.text}\n{self.server_output()}")
        self.settled = True

    def settle_if_needed(self) -> None:
        """Settle, unless nothing has been done since the last time."""
        if not self.settled:
            self.settle()

    def now(self) -> float:
        """Seconds since the stage was ready, in the server's time."""
        return self.loop.now()

    def limit(self) -> Limit:
        """How long an operation that begins now can take."""
        return self.loop.limits.limit(self.within_s)

    # The server

    def alive(self) -> bool:
        """True if the server runs. If a connection has ended, this waits a moment, because the kernel closes the connections of
        a dying process before the process ends."""
        ended = any(c.end in _ENDED for c in self._clients.values())
        return self.server.alive(_DYING_S if ended else 0.0)

    def server_output(self) -> str:
        """The server's latest output: standard output and error, or the tracebacks of its greenlets."""
        return self.server.output()

    def take_errors(self) -> tuple[ServerError, ...]:
        """The unhandled exceptions of the server's code since the last call, as far as they are known. The caller has to expect
        or report them."""
        return self.server.take_errors()

    def require_alive(self) -> None:
        """Raise TargetError if the server has died."""
        if not self.server.alive():
            raise self.died()

    def died(self) -> TargetError:
        """The error for a server that has ended."""
        return TargetError(f"{self._target} {self.server.how_it_ended()}", self.server_output())

    def unexpected(self, client: Client, expected: str) -> Exception:
        """The error for a client that was expected to receive this, such as `< OK`, or nothing, or whose connection was
        expected to be in this state, such as `is closed`."""
        if not self.alive():
            return self.died()
        received = next(self.conversation.texts(client.received), "")
        first = expected.split("\n")[0]
        state = "is still connected" if client.end is End.OPEN else client.end_words
        line_wanted = first.startswith("<")
        wanted = f"`{first}`" if line_wanted else "the end of its connection"
        if first == "is connected":
            refused = client.end is End.REFUSED
            what, expected = state if refused else f"lost its connection, which {state}", ""
        elif not received and not line_wanted and client.end in _ENDED:
            what = f"{state}, and not as expected: {first}"
        elif received and not expected:
            what = f"received `{received}`, which was not expected"
        elif received:
            what = f"received `{received}` instead of {wanted}"
        else:
            what = f"received nothing instead of {wanted}, and {state}"
        unclaimed = {name: one.received for name, one in self._clients.items() if one.received}
        ends = {
            name: one.end_words for name, one in self._clients.items() if one.end in _ENDED and not one.left
        }
        table = "\n".join(self.conversation.table(client.name, expected, unclaimed, ends))
        output = self.server_output()
        wrote = f"\n\n  the server wrote\n{output}" if output else ""
        return Unexpected(f"{client.name} {what}  ({self.grade}, at {self.now():.3f} s)\n\n{table}{wrote}")


class Client:
    """One scripted client: what it sends, what it has received, and how its connection ended."""

    def __init__(self, name: str, stage: Stage) -> None:
        self.name = name
        self.inbox = stage.new_inbox(name)
        self._stage = stage
        self.connection = stage.new_connection(self)
        self._split = False
        self.left = False
        """True if the client ended its connection itself, or the test has expected its end."""
        self._half_closed = False

    def __repr__(self) -> str:
        return f"<Client {self.name}: {self.end.value}, {len(self.inbox)} bytes unclaimed>"

    # The connection

    @property
    def connected(self) -> bool:
        return self.end is End.OPEN

    @property
    def end(self) -> End:
        return self.connection.end

    @property
    def end_detail(self) -> str:
        """The code of a WebSocket's end, or the status of a refused handshake."""
        return self.connection.end_detail

    @property
    def end_words(self) -> str:
        """The state of its connection as a transcript says it: `is closed with 1001`."""
        return f"is {self.end.value}" + (f" with {self.end_detail}" if self.end_detail else "")

    def require_no_loss(self) -> None:
        """Raise Unexpected if its connection was refused or has ended, and the test has not expected that."""
        if self.end in _ENDED and not self.left:
            raise self._stage.unexpected(self, "is connected")

    def connect(
        self, endpoint: str | None = None, transport: Transport | None = None, port: int | None = None
    ) -> None:
        """Open a new connection, to an endpoint or to another port of the server's host. A refusal is an end like any other,
        which has to be expected. Fail if the client has lost its last connection."""
        self.require_no_loss()
        address = self._stage.address(endpoint)
        if port is not None:
            if is_unix(address):
                raise UnsupportedSpec("a server at a Unix socket has no ports")
            host, _, *rest = address
            address = (host, port, *rest)
        self._stage.acts()
        if self.end is not End.NEVER:
            self.connection.close()
            self.connection = self._stage.new_connection(self)
            self.inbox.begin_anew()
            self._split = False
        self.left = self._half_closed = False
        self._stage.conversation.note(self.name, f"connects to {endpoint}" if endpoint else "connects")
        made = self._stage.new_transport(transport, address)
        try:
            self.connection.open(address, made)
        except OSError as wrong:
            why = wrong.strerror or str(wrong)
            raise Untestable(f"cannot connect to {address_text(address)}: {why}") from None
        except HandshakeFailed:
            self.left = True  # this says how it ended
            raise

    def send(self, line: str) -> None:
        """Send the line and return once the server has processed it."""
        self.post(line.encode() + self._stage.eol)
        self._stage.fence_one(self)

    def post(self, data: bytes, unchanged: bool = False) -> None:
        """Send the bytes and return at once. An adapter translates the lines in them, unless they are to be sent unchanged."""
        self._before_sending(self._split)
        self._split = False
        self._write(data, unchanged)

    def send_pattern(self, text: str) -> None:
        """Send the line with the values that patterns have bound in place of `${name}`."""
        self.send(fill(parse_pattern(text), self._stage.captures))

    def send_bytes(self, data: bytes) -> None:
        """Send the bytes so that the server reads them by themselves: it has read everything sent before."""
        self._before_sending(True)
        self._write(data, unchanged=True)
        self._split = True

    def _before_sending(self, split: bool) -> None:
        if self.end is End.NEVER:
            self.connect()
        if self.end is End.REFUSED:
            self.require_no_loss()
        if self.left or self._half_closed:
            why = self.end_words if self.left else "has half-closed its connection"
            raise UnsupportedAction(f"{self.name} {why}, so it cannot send")
        if split:
            self._wait_until_read()

    def _write(self, data: bytes, unchanged: bool) -> None:
        self._stage.acts()
        self._stage.conversation.note_sent(self.name, data)
        self.connection.say(data, unchanged)

    def _wait_until_read(self) -> None:
        """Return once the server has read everything that this client sent."""
        loop, connection = self._stage.loop, self.connection
        loop.settle()
        limit = self._stage.limit()
        while connection.end is End.OPEN and connection.writes and not connection.read_by_server:
            if loop.virtual or limit.over:
                raise NotRead(self.name, self._stage.within_s, loop.virtual)
            loop.pause(POLL_S)

    def close(self) -> None:
        self._note("closes")
        self.connection.close()

    def half_close(self) -> None:
        self._note("half-closes")
        self._half_closed = True
        self.connection.half_close()

    def abort(self) -> None:
        """Reset the connection."""
        self._note("aborts")
        self.connection.abort()

    def stop_reading(self) -> None:
        self._note("stops reading")
        self.connection.stop_reading()

    def read_again(self) -> None:
        self._note("reads again")
        self.connection.read_again()

    def _note(self, action: str) -> None:
        self._stage.acts()
        if self.end is End.OPEN:
            self.left = self.left or action in ("closes", "aborts")
            self._stage.conversation.note(self.name, action)

    # The inbox

    @property
    def received(self) -> bytes:
        """Everything that has been received and not claimed, a line without its end included."""
        return bytes(self.inbox) + self.connection.held

    def take(self, size: int) -> bytes:
        """Claim the first bytes of the inbox."""
        return self.inbox.take(size)

    def arrived_at(self, offset: int) -> float:
        """When the byte at this offset of the inbox arrived, in stage time."""
        return self.inbox.arrived_at(offset)

    # Expectations, for tests in Python

    def expect(self, line: str) -> None:
        """Expect this line next."""
        self.expect_bytes(line.encode() + self._stage.eol)

    def receive_line(self) -> str:
        """The next line, without its end, whatever it says."""
        return self._next_line("< a line")

    def expect_match(self, regex: str | re.Pattern[str]) -> re.Match[str]:
        """Expect a line next, all of which this regular expression matches; its groups are in what is returned."""
        pattern = re.compile(regex)
        wanted = f"< /{pattern.pattern}/"
        found = pattern.fullmatch(self._next_line(wanted, claim=False))
        if found is None:
            raise self._stage.unexpected(self, wanted)
        self._claim_line()
        return found

    def expect_pattern(self, text: str) -> dict[str, str]:
        """Expect a line next that matches this pattern of a transcript, `MSG ${who} ${_}`. Returns the values of its
        names. What a name is bound to first, it must be everywhere on this stage."""
        pattern, captures = parse_pattern(text), self._stage.captures
        wanted = f"<~ {text}"
        bound = match(pattern, self._next_line(wanted, claim=False), captures)
        if bound is None:
            raise self._stage.unexpected(self, wanted)
        self._claim_line()
        captures.update(bound)
        return {one.name: captures[one.name] for one in pattern.captures if one.name in captures}

    def _next_line(self, wanted: str, claim: bool = True) -> str:
        """The next line, as soon as all of it has come."""
        eol, limit = self._stage.eol, self._stage.limit()
        while self.inbox.find(eol) < 0 and self.end is End.OPEN and self._more(limit):
            pass
        line, found, _ = bytes(self.inbox).partition(eol)
        if not found:
            raise self._stage.unexpected(self, wanted)
        if claim:
            self._claim_line()
        return line.decode("utf-8", "surrogateescape")

    def _claim_line(self) -> None:
        self._claim(self.inbox.index(self._stage.eol) + len(self._stage.eol))

    def _claim(self, size: int) -> None:
        self._stage.conversation.note_received(self.name, self.take(size))

    def expect_bytes(self, data: bytes) -> None:
        """Expect exactly these bytes next."""
        limit = self._stage.limit()
        while len(self.inbox) < len(data) and data.startswith(bytes(self.inbox)) and self.end is End.OPEN:
            if not self._more(limit):
                break
        if not self.inbox.startswith(data) and self.received.startswith(data):
            self.connection.release()
        if not self.inbox.startswith(data):
            raise self._stage.unexpected(self, "\n".join(self._stage.conversation.texts(data)))
        self._claim(len(data))

    def expect_nothing(self) -> None:
        """Expect that nothing was received and nothing is in flight."""
        if self.end is End.NEVER:
            raise UnsupportedAction(f"{self.name} has not connected yet, so it cannot receive anything")
        self._stage.fence_one(self)
        if self.received:
            raise self._stage.unexpected(self, "")

    def expect_closed(self, detail: str = "") -> None:
        """Expect that the server closed the connection in order, and nothing is left to read. `detail` is what follows `is
        closed with` in a transcript: `1001 see you`."""
        self._expect_end("is closed", (End.CLOSED,), detail)

    def expect_reset(self) -> None:
        """Expect that the server reset the connection, and nothing is left to read."""
        self._expect_end("is reset", (End.RESET,))

    def expect_refused(self, detail: str = "") -> None:
        """Expect that the server refused the connection. `detail` is the status of a refused handshake: `403`."""
        self._expect_end("is refused", (End.REFUSED,), detail)

    def expect_disconnected(self) -> None:
        """Expect that the server ended the connection in any way, and nothing is left to read."""
        self._expect_end("is disconnected", (End.CLOSED, End.RESET), None)

    def _expect_end(self, words: str, ends: tuple[End, ...], detail: str | None = "") -> None:
        """Expect one of these ends, with this detail; None: with any."""
        self.connection.expects_close = True
        self._stage.fence_one(self)
        limit = self._stage.limit()
        while self.end is End.OPEN and self._more(limit):
            pass
        if self.received or self.end not in ends or detail not in (None, self.end_detail):
            raise self._stage.unexpected(self, f"{words} with {detail}" if detail else words)
        self._stage.conversation.note(self.name, self.end_words)
        self.left = True

    def _more(self, limit: Limit) -> bool:
        """Wait for more data; False if nothing more will arrive."""
        if limit.over:
            return False
        if self._stage.loop.virtual and self._stage.grade is Grade.EXACT:
            before = len(self.inbox), self.end
            self._stage.fence_one(self)
            # What the fence has just found at work unseen can send more later.
            return (len(self.inbox), self.end) != before or self._stage.grade is not Grade.EXACT
        self._stage.loop.pause(limit.pause_s)
        self._stage.require_alive()
        return True


def _is_held(connection: Connection) -> bool:
    """Whether a process still holds the server's side of this connection."""
    peer = connection.peer_state()
    return peer is not None and peer.owned


def _made(transport: Transport, address: SocketAddress, context: Callable[[], ssl.SSLContext]) -> Plain:
    """A new transport for one connection to this address."""
    name, host = "localhost", "localhost"
    if not is_unix(address):
        name = address[0]
        host = f"[{name}]:{address[1]}" if ":" in name else f"{name}:{address[1]}"
    made = Plain()
    if transport.websocket:
        from harness.stage.websocket import WebSocket

        made = WebSocket(host, transport.path)
    if transport.tls:
        from harness.stage.tls import Tls

        made = Tls(context(), name, made)
    return made
