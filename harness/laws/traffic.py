"""Random traffic of many clients, and what they saw as a history. Works with every kind of target.

A model says how one protocol spells what clients do, and what a line means. It predicts nothing.
The seed decides which client does what; when the server handles it depends on the server, and on real time where that passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from random import Random
from sys import intern
from typing import Protocol, cast

from harness.laws.history import ALL, Breach, History, Law, Session, breaches, shortest
from harness.model import ModelError, model_code
from harness.playing.pipeline import PlayOptions, stage_for
from harness.report.styled_text import Line, Span, Tone, count
from harness.stage.connection import End
from harness.stage.stage import Client, Stage
from harness.stage.target import Target, TargetError, Untestable

CLIENTS, SECONDS, RATE = 200, 10.0, 100
_TICK_S = 0.02
_CONTESTED = 8
"""One name in this many is wanted by several clients."""
_GRACE_S = 1.0
"""How long a server can hold back what it delivers, beyond what a fence waits for: some send in batches."""
_PATIENCE_S = 2.0
"""How long a client waits for the answer to its login before it gives up."""


# --- models -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Granted:
    """The client has the name that it asked for, and from here on receives what others say."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The client does not have the name that it asked for, and can ask for another."""


@dataclass(frozen=True, slots=True)
class Message:
    """A client said this."""

    sender: str
    text: str


class Dialect(Protocol):
    """What clients say, and what they receive."""

    def login(self, name: str, /) -> str:
        """The line that asks for a name."""
        ...

    def say(self, text: str, /) -> str:
        """The line that sends this text to every client."""
        ...

    def read(self, line: str, /) -> Granted | Refused | Message | None:
        """The meaning of a received line; None if no law is about it."""
        ...


class LawModel(Dialect, Protocol):
    """A protocol, as far as its laws need it.

    All clients speak as the model says, at the first endpoint. `laws`, a set of `Law`, is optional: without it all laws
    hold.
    """

    @property
    def header(self) -> Mapping[str, str]:
        """The header of a script for this protocol, such as `{"fence": "PING -> PONG"}`."""
        ...


class DialectsModel(Protocol):
    """The same for a server whose clients speak several dialects. They are spread over these."""

    @property
    def header(self) -> Mapping[str, str]:
        """As above. A fence line goes to all clients: without one that every dialect answers alike, `{"fence": "none"}`."""
        ...

    @property
    def dialects(self) -> Sequence[tuple[str | None, Dialect]]:
        """The name of an endpoint, None for the first, and what is spoken there."""
        ...


# --- one run ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of one run."""

    history: History
    broken: Mapping[Law, tuple[int, Breach]]
    """How often each law was broken, and the shortest evidence."""
    dialects: tuple[str, ...] = ("",)
    """Their names, also of those that no client spoke; a single one has none."""


class Stopped(Exception):
    """The server died, or refused further connections, while the clients talked."""


def check_laws(
    make_model: Callable[[], LawModel | DialectsModel],
    target: Target,
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    *,
    clients: int = CLIENTS,
    seconds: float = SECONDS,
    rate: float = RATE,
    seed: int = 1,
) -> Judgement:
    """Let this many clients talk for this long, `rate` lines per second in all, and judge what they saw."""
    with model_code:
        model = make_model()
        laws = _laws_of(model)
    with stage_for(target, model.header, play_options) as stage:
        traffic = _Traffic(model, stage, Random(seed), clients, rate)
        traffic.connect()
        try:
            history = traffic.run(seconds)
        except Untestable:
            raise
        except TargetError as died:
            raise Stopped(str(died)) from died
    return Judgement(history, shortest(breaches(history, laws)), traffic.dialects)


def _laws_of(model: LawModel | DialectsModel) -> frozenset[Law]:
    """The laws that hold for this model."""
    laws = getattr(model, "laws", ALL)
    if not isinstance(laws, (Set, Sequence)) or not laws or not all(isinstance(one, Law) for one in laws):
        names = ", ".join(f"Law.{one.name}" for one in Law)
        raise ModelError(f"`laws` of the model is {laws!r}; expected a set of laws, such as {{{names}}}")
    return frozenset(laws)


class _Slot:
    """One of the clients, over its connections."""

    def __init__(self, number: int, name: str, endpoint: str | None, dialect: Dialect) -> None:
        self.number = number
        self.dialect_name = name
        self.endpoint = endpoint
        self.dialect = dialect
        self.client: Client | None = None
        self.session: Session | None = None
        self.asked = ""
        self.asked_s = 0.0


def _dialect_name(number: int, endpoint: str | None, dialect: Dialect) -> str:
    where = f" at {endpoint}" if endpoint else ""
    return f"dialect {number} ({type(dialect).__name__}{where})"


class _Traffic:
    def __init__(
        self, model: LawModel | DialectsModel, stage: Stage, random: Random, clients: int, rate: float
    ) -> None:
        self._stage = stage
        self._random = random
        self._rate = rate
        self._history = History()
        several: Sequence[tuple[str | None, Dialect]] = getattr(model, "dialects", ())
        # Two dialects can share an endpoint, so their places in the model tell them apart.
        dialects = [(_dialect_name(at, *one), *one) for at, one in enumerate(several, 1)]
        if not several:
            dialects = [("", None, cast(LawModel, model))]
        self.dialects = tuple(name for name, _, _ in dialects)
        self._slots = [_Slot(number, *dialects[number % len(dialects)]) for number in range(clients)]
        self._due = 0.0

    def connect(self) -> None:
        """Connect all clients; a server with a short queue makes this take long."""
        for slot in self._slots:
            self._log_in(slot)

    def run(self, seconds: float) -> History:
        """Everything that happened until all of it had been received."""
        started = self._stage.now()
        while self._stage.now() - started < seconds:
            before = self._stage.now()
            for slot in self._slots:
                self._log_in(slot)
            # A machine that cannot keep up sends less in the end, never all at once.
            while self._due >= 1:
                self._due -= 1
                self._act(self._random.choice(self._slots))
            self._stage.wait(_TICK_S)
            self._due += self._rate * min(self._stage.now() - before, 5 * _TICK_S)
            for slot in self._slots:
                self._receive(slot)
        self._stage.wait(_GRACE_S)
        self._stage.fence([slot.client for slot in self._slots if slot.client is not None])
        self._stage.more_comes()
        for slot in self._slots:
            self._receive(slot)
        self._history.ended_s = self._stage.now()
        return self._history

    # What clients do

    def _log_in(self, slot: _Slot) -> None:
        """Connect it if it is not, and ask for a name if it waits for none."""
        now = self._stage.now()
        if slot.client is None or slot.session is None:
            slot.session = self._history.session(slot.dialect_name)
            slot.client = self._stage.client(f"c{slot.session.number}")
            slot.asked = ""
            slot.client.connect(slot.endpoint)
            if slot.client.end is End.REFUSED:
                self._stage.require_alive()
                status = f" with {slot.client.end_detail}" if slot.client.end_detail else ""
                raise TargetError(f"connection refused{status}")
        if slot.session.granted is None and (not slot.asked or now - slot.asked_s > _PATIENCE_S):
            if slot.asked:
                self._leave(slot)
                return
            slot.asked, slot.asked_s = self._name(slot), now
            with model_code:
                line = slot.dialect.login(slot.asked)
            self._post(slot, line)

    def _name(self, slot: _Slot) -> str:
        if self._random.randrange(4) == 0:
            return f"shared{self._random.randrange(max(len(self._slots) // _CONTESTED, 1))}"
        return f"user{slot.number}"

    def _act(self, slot: _Slot) -> None:
        if slot.client is None or slot.session is None or slot.session.granted is None:
            return
        chance = self._random.random()
        if chance < 0.02:
            self._leave(slot)
        elif chance < 0.2:
            self._post(slot, *(self._next(slot) for _ in range(self._random.randint(2, 5))))
        elif chance < 0.3 and not slot.client.connection.sends_messages:
            wire = self._wire(self._next(slot))
            at = self._random.randrange(1, len(wire))
            slot.client.post(wire[:at])
            slot.client.post(wire[at:])
        else:
            self._post(slot, self._next(slot))

    def _next(self, slot: _Slot) -> str:
        """One more message: its first word says whose it is, and which."""
        session = slot.session
        assert session is not None
        words = " x" * self._random.randrange(4)
        text = f"{session.number}.{len(session.said)}{words}"
        with model_code:
            line = slot.dialect.say(text)
        session.said.append((self._stage.now(), line))
        session.texts.append(text)
        return line

    def _wire(self, line: str) -> bytes:
        return line.encode() + self._stage.eol

    def _post(self, slot: _Slot, *lines: str) -> None:
        assert slot.client is not None
        slot.client.post(b"".join(map(self._wire, lines)))

    def _leave(self, slot: _Slot) -> None:
        client, session = slot.client, slot.session
        assert client is not None
        assert session is not None
        session.left_s = self._stage.now()
        self._receive(slot)
        slot.client = slot.session = None
        ways = (client.close, client.abort) if client.connection.can_be_reset else (client.close,)
        self._random.choice(ways)()

    # What they see

    def _receive(self, slot: _Slot) -> None:
        client, session = slot.client, slot.session
        if client is None or session is None:
            return
        data, eol, start = bytes(client.inbox), self._stage.eol, 0
        while (end := data.find(eol, start)) >= 0:
            session.last_s = client.arrived_at(start)
            # Hundreds of clients receive the same line; the history keeps it once.
            self._understand(slot, session, intern(data[start:end].decode("utf-8", "replace")))
            start = end + len(eol)
        client.take(start)
        if client.end is not End.OPEN:
            session.ended_s = min(session.ended_s, self._stage.now())
            slot.client = slot.session = None

    def _understand(self, slot: _Slot, session: Session, line: str) -> None:
        with model_code:
            meaning = slot.dialect.read(line)
        match meaning:
            case Granted() if slot.asked and session.granted is None:
                session.granted, session.grant_line = (session.last_s, slot.asked), line
            case Refused() if session.granted is None:
                slot.asked = ""
            case Message(sender, text):
                owner, _, serial = text.partition(" ")[0].partition(".")
                if owner.isdecimal() and serial.isdecimal():
                    self._understand_message(session, int(owner), int(serial), sender, text, line)
                else:
                    self._history.unknown.append((session.last_s, session, line))
            case Granted() | Refused() | None:
                pass
            case other:
                raise ModelError(
                    f"`read` of the model returned {other!r} for {line!r}; expected Granted(), Refused(), "
                    "Message(sender, text) or None"
                )

    def _understand_message(
        self, session: Session, owner: int, serial: int, sender: str, text: str, line: str
    ) -> None:
        sessions = self._history.sessions
        if owner >= len(sessions) or serial >= len(sessions[owner].said):
            self._history.unknown.append((session.last_s, session, line))
            return
        session.heard.append((session.last_s, owner, serial, sender, line))
        if text != sessions[owner].texts[serial]:
            self._history.changed.append((session.last_s, session, owner, serial, line))


# --- the report ---------------------------------------------------------------------------------------------


def report(judged: Judgement) -> Iterator[Line]:
    """Each law that was broken, how often, and the shortest evidence; nothing if all were kept."""
    for law, (number, breach) in judged.broken.items():
        yield [
            Span("BROKEN ", Tone.BAD),
            Span(law.value, Tone.STRONG),
            Span(f"  {count(number, 'time')}; the shortest evidence: {breach.what}"),
        ]
        for seen in sorted(breach.evidence, key=lambda one: one.at_s):
            yield [Span(f"{seen.at_s:>10.4f} s  ", Tone.DIM), Span(f"c{seen.session:<5} {seen.text}")]
        yield []


def summary(judged: Judgement, clients: int, seed: int) -> str:
    """The result in one line."""
    history = judged.history
    sizes = (
        f"{count(len(history.sessions), 'connection')} of {count(clients, 'client')}, "
        f"{count(history.said, 'message')} said and {history.heard} received in {history.ended_s:.1f} s, seed {seed}"
    )
    if not judged.broken:
        return f"no law was broken: {sizes}"
    return f"{count(len(judged.broken), 'law')} broken: {sizes}"


def silent(judged: Judgement) -> str:
    """Why this run proves nothing, or nothing about one of the dialects; empty if it proves something about each."""
    sessions = judged.history.sessions
    for dialect in judged.dialects:
        if not any(one.granted for one in sessions if one.dialect == dialect):
            speaker = f"client of {dialect}" if dialect else "client"
            return (
                f"no {speaker} was granted a name: does `read` of the model know the answer to its `login`?"
            )
    if not judged.history.said:
        return "no message was said: let the clients talk for longer, or at a higher rate"
    for dialect in judged.dialects:
        if not any(one.heard for one in sessions if one.dialect == dialect):
            receiver = f" by a client of {dialect}" if dialect else ""
            return f"no message was received{receiver}: does `read` of the model know them, and does `say` say them?"
    return ""
