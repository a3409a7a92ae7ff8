"""Which line costs the server most, compared with a plain message of the same length: a search, and what it found.

Knows the dialects and the chat, and takes a line from bytes to bytes as a connection does: framing, the reader, the chat,
the answer, and the encoding for an audience of each dialect. Knows no sockets, no rates and no log. Three people are in the
room: how long a list of thousands is does not depend on the line, and its bytes are charged to the client that asks.

A cost is the CPU time of this thread, the least of several samples. The plain message is sampled in turn with the line, so
that both see the same machine. A sample takes a line as often as makes it long beside a look at the clock. A line that logs
its client in or out is charged with undoing that, too.

The search keeps the worst lines of each arena: a dialect, before or after the login, and a length. It mutates and crosses
them with pieces of many kinds, and prefers the kinds that led to worse lines. The seed decides what is drawn, but the
clock decides what is kept, so two runs with one seed differ.
"""

from __future__ import annotations

import gc
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from geventchat.chat.chat import Chat
from geventchat.chat.commands import EnterRoom, InvalidCommand, LeaveRoom, Login, ParseError, Register
from geventchat.chat.events import Broadcast, DirectMessage, Missed, PrivateEvent
from geventchat.chat.passwords import Secret
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import InProcess, Session
from geventchat.dialects import ALL_DIALECTS
from geventchat.dialects.dialect import Dialect, OtherDialect, Request
from geventchat.dialects.framing import TOO_LONG, LineFraming
from geventchat.dialects.verbs import HELP
from geventchat.settings import Limits
from tests.geventchat.recording import Audiences, at_once, memory, perform, tools

# The bound that SECURITY.md promises.
BOUND = 25.0
LENGTHS = (20, 200, 1_000, 4_096)
FOUND = Path(__file__).with_name("costly_lines.json")

_SAMPLE_NS = 100_000
_POPULATION = 6
_ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


# --- What a line costs -----------------------------------------------------------------------------------------------


class _Gate:
    """Always open: waiting is the connection's, and free."""

    def is_open(self) -> bool:
        return True

    def pump(self) -> None:
        pass

    def passage(self, waiter: Any, queue: str) -> AbstractContextManager[None]:
        raise AssertionError("the gate is open")


class _Audience:
    """Encodes what it hears, as an audience does once for all of its members."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def delay_s(self) -> float:
        return 0.0

    def publish(self, event: Broadcast) -> None:
        LineFraming.wrap(self.dialect.encode(event))


class _Subscriber:
    """Encodes what it is sent alone."""

    def __init__(self, dialect: Dialect, audiences: Audiences[_Audience]) -> None:
        self._audiences = audiences
        self._heard: frozenset[Room] | None = None
        self._gate = _Gate()
        self.speak(dialect)

    def speak(self, dialect: Dialect) -> None:
        self.interpreter = dialect.interpreter()
        self.dialect = dialect

    def hear(self, rooms: frozenset[Room] | None) -> None:
        self._audiences.move(self.dialect.name, self._heard, rooms)
        self._heard = rooms

    def wrote(self, event: Broadcast) -> None:
        self.dialect.echoes(event)

    def deliver(self, event: PrivateEvent) -> None:
        self.interpreter.encode_private(event)

    def deliver_missed(self, events: Sequence[Broadcast]) -> None:
        self.deliver(Missed(events))

    def deliver_direct(self, message: DirectMessage, stranger: bool) -> None:
        self.interpreter.encode_private(message)

    def direct_gate(self, stranger: bool) -> _Gate:
        return self._gate


class _Peer(InProcess):
    """A client that has registered as many accounts as it can."""

    def can_register(self) -> bool:
        return False


class Client:
    """One client of a chat with a listener in each dialect; after each line it is logged in, or not, as it was before."""

    def __init__(self, dialect: str, logged_in: bool) -> None:
        self._chat = Chat(
            time.time,
            new_gate=lambda delay_s: _Gate(),
            storage=memory(),
            in_thread=at_once,
            # Guesses are never delayed, because the clock jumps days ahead.
            tools=tools(monotonic=count(0, 10**6).__next__),
            announce_later=lambda room: None,
            # How long the history is does not depend on the line, and its bytes are charged.
            limits=Limits(empty_room_s=0, history_messages=0).chat,
        )
        member = Session(
            _Subscriber(ALL_DIALECTS["line"], Audiences(lambda name: _Audience(ALL_DIALECTS[name])))
        )
        self._chat.handle(member, Login(_MEMBER))
        perform(self._chat, member, Register(Secret("correct horse")))
        self._chat.leave(member)
        audiences = Audiences(lambda name: _Audience(ALL_DIALECTS[name]))
        for name, spoken in ALL_DIALECTS.items():
            listener = Session(_Subscriber(spoken, audiences))
            self._chat.handle(listener, Login(f"{name}-listener", _ROOMS.get(name)))
        self._dialect = ALL_DIALECTS[dialect]
        self._subscriber = _Subscriber(self._dialect, audiences)
        self._session = self._connect()
        self._framing = LineFraming(Limits().line_bytes)
        self._read = self._subscriber.interpreter.read
        self._logged_in = logged_in
        self._restore()

    def take(self, data: bytes) -> None:
        """Handle one line with its end, as a connection does."""
        for line in self._framing.feed(data):
            reading = _TOO_LONG if line is TOO_LONG else self._read(line, self._logged_in)
            if isinstance(reading, OtherDialect):
                self._speak(ALL_DIALECTS[reading.name])
                reading = self._read(line, self._logged_in)
            perform(self._chat, self._session, reading)
            self._restore()

    def _speak(self, dialect: Dialect) -> None:
        self._subscriber.speak(dialect)
        self._read = self._subscriber.interpreter.read

    def sample_ns(self, data: bytes) -> float:
        """Handle the line, and return its cost in nanoseconds of CPU time."""
        take, clock = self.take, time.thread_time_ns
        began = clock()
        take(data)
        once = clock() - began
        times = _SAMPLE_NS // max(once, 1)
        if times < 2:
            return once
        began = clock()
        for _ in range(times):
            take(data)
        return (clock() - began) / times

    def _connect(self) -> Session:
        return Session(self._subscriber, _Peer())

    def _restore(self) -> None:
        session = self._session
        if not self._logged_in:
            if session.name is not None:
                self._chat.leave(session)
                self._session = self._connect()
            if self._subscriber.dialect is not self._dialect:
                self._speak(self._dialect)
        elif session.name is None:
            self._session = self._connect()
            self._chat.handle(self._session, Login("speaker", _ROOMS.get(self._dialect.name)))
        elif session.room is not self._chat.lobby:
            if session.rooms is None:
                self._chat.handle(session, LeaveRoom())
            elif not session.rooms:
                self._chat.handle(session, _LOBBY)
            for key in [key for key in session.rooms or () if key != "lobby"]:
                self._chat.handle(session, LeaveRoom(key))


# A name that belongs to an account.
_MEMBER = "member"
_TOO_LONG = InvalidCommand(ParseError.TOO_LONG)
_LOBBY = EnterRoom("lobby")
_ROOMS = {"json2": (_LOBBY,)}


@cache
def _client(dialect: str, logged_in: bool) -> Client:
    return Client(dialect, logged_in)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Garbage collections fall on whichever line is being looked at."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def charged_bytes(dialect: str, line: bytes) -> int:
    """The bytes that the rates charge for a line: its size, and 96 for each room of a login to several."""
    reading = ALL_DIALECTS[dialect].interpreter().read(line, False)
    if isinstance(reading, OtherDialect):
        return charged_bytes(reading.name, line)
    command = reading.command if isinstance(reading, Request) else reading
    rooms = command.rooms if isinstance(command, Login) else ()
    return len(line) + 96 * len(rooms or ())


class Ratio:
    """The cost of a line, in plain messages of the same charged bytes; more samples make it more exact."""

    def __init__(self, dialect: str, logged_in: bool, line: bytes) -> None:
        charged = charged_bytes(dialect, line)
        length = min(charged, Limits().line_bytes)
        # Several of the longest count as much as a short line with hundreds of rooms.
        self._plain_messages = max(1.0, charged / Limits().line_bytes)
        self._line, self._plain = line + b"\n", plain_message(dialect, length) + b"\n"
        self._client, self._plain_client = _client(dialect, logged_in), _client(dialect, True)
        self._cost = self._plain_cost = math.inf

    def sample(self, times: int) -> float:
        """The least cost of the line seen so far, divided by the least cost of the plain message."""
        with _without_collections():
            for _ in range(times):
                self._cost = min(self._cost, self._client.sample_ns(self._line))
                self._plain_cost = min(self._plain_cost, self._plain_client.sample_ns(self._plain))
        return self._cost / (self._plain_cost * self._plain_messages)

    @property
    def cost_us(self) -> float:
        """The least cost of the line seen so far, in microseconds."""
        return self._cost / 1_000


def plain_message(dialect: str, length: int) -> bytes:
    """A message of ASCII letters in a line of this length, or in the shortest that says something."""
    start, end = {
        "line": (b"MSG ", b""),
        "json": (b'{"type":"chat","message":"', b'"}'),
        "json2": (b'{"type":"chat","message":"', b'"}'),
        "slash": (b"", b""),
    }[dialect]
    return start + b"x" * max(1, length - len(start) - len(end)) + end


# --- Lines -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recipe:
    """A line of any length: the unit is repeated up to `times` times, or, with 0, as often as it fits; then comes padding.

    The start is the dialect's, the opening stands once before the units.

    Bytes that are not UTF-8 stand as the half surrogates that Python's `surrogateescape` makes of them.
    """

    start: str
    unit: str = ""
    opening: str = ""
    times: int = 0
    padding: str = ""
    end: str = ""

    def line(self, length: int) -> bytes:
        """The line, of at most this many bytes."""
        start, unit, padding, end = map(
            _bytes, (self.start + self.opening, self.unit, self.padding, self.end)
        )
        room = length - len(start) - len(end)
        times = max(0, room) // len(unit) if unit else 0
        if self.times:
            times = min(times, self.times)
        middle = unit * times
        if padding:
            middle += padding * (max(0, room - len(middle)) // len(padding))
        return (start + middle + end)[:length]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape").replace(b"\n", b" ")


@dataclass(frozen=True, slots=True)
class Arena:
    """Where lines compete."""

    dialect: str
    logged_in: bool
    length: int


@dataclass(frozen=True, slots=True)
class CostlyLine:
    """A line that was the worst of its arena when it was found, and its ratio then."""

    arena: Arena
    recipe: Recipe
    ratio: float

    @property
    def line(self) -> bytes:
        """Its bytes, without the end."""
        return self.recipe.line(self.arena.length)

    def measured(self) -> Ratio:
        """To be sampled."""
        return Ratio(self.arena.dialect, self.arena.logged_in, self.line)

    def check(self) -> float:
        """Its ratio, which is at most BOUND; disturbances only make a line look dearer, so a dear one is sampled again."""
        measured = self.measured()
        ratio = measured.sample(5)
        for _ in range(20):
            if ratio <= BOUND:
                break
            ratio = measured.sample(5)
        assert ratio <= BOUND, (
            f"{self.line[:80]!r}… ({self.arena}) costs {ratio:.1f} times a plain message: {measured.cost_us:.0f} µs"
        )
        return ratio


ARENAS = [
    Arena(dialect, logged_in, length)
    for dialect in ALL_DIALECTS
    for logged_in in (False, True)
    for length in LENGTHS
]

# Pieces of text, by what makes them special.
_TEXT: dict[str, list[str]] = {
    "plain": [*"aZ9_-. /:", "é", "ж", "中"],
    "white": [*"\t\v\r \x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000"],
    "control": [*"\x00\x01\x1b\x1f\x7f\x80\x9f\u202e\u2066\u2069"],
    "mark": [*"\u0301\u0323\u0344\u0489\u0e38\u20dd\u3099\U0001d165\U00010a0d\U0001e8d0", "\u0301" * 4],
    "joiner": [*"\u200c\u200d\u034f", "\u094d\u200d"],
    "direction": [*"\u061c\u200e\u200f"],
    "invisible": [*"\xad\u180e\u200b\u2060\u206a\ufeff\ufff9\u3164\uffa0\u2800"],
    "tag": ["\U0001f3f4", "\U000e0067", "\U000e007f", "\U000e0001", _ENGLAND],
    "variation": [*"\ufe00\ufe0f\u180b\U000e0100"],
    "emoji": ["😀", "👩\u200d👧", "❤\ufe0f", "👍🏽", "🇦🇹", "1\ufe0f\u20e3"],
    "hangul": [*"\u1100\u1161\u11a8\u115f\u1160\uac00\ua960\ud7b0"],
    "right to left": [*"\u05d0\u0627\u07ca\ufb1d\ufefc\U00010800\U0001e900\u0661"],
    "normalised": [*"\ufdfa\u1f84\u0390\uff9e\uff76\uff21\ufb03\u1e9e\u0130ß\u2126\U0001d160\u0f77\u1e9b"],
    "bytes": [
        "\udcff",
        "\udcff\udcfa",
        "\udcff\udcf0",
        "\udcff\udcfd\x06",
        "\udcff\udcff",
        "\udcff\udcf1",
        "\udcc3",
    ],
}
_JSON: dict[str, list[str]] = {
    "escape": [
        *("\\u0000", "\\u001b", "\\u0301", "\\u200b", "\\u05d0", "\\ud800", "\\ud83d\\ude00", "\\udc00\\ud800"),
        *("\\n", "\\t", "\\\\", '\\"', "\\/", "\\", "\\u", "\\ufdfa", "\\u2028"),
    ],
    "structure": [*'{}[],:"', "{},", "[],", '"",', '"":', '{"":', "[[", '"a":{},', '"}', "]}", "}"],
    "value": ["1,", "-0.0,", "1e5,", "9" * 100, "9" * 101, "true,", "null,", "NaN,", "Infinity", "tru", "0", "-", "."],
    "many": ["".join(f'"{n}":1,' for n in range(90)), "".join(f'"{n}":{{}},' for n in range(90)), "[" * 90 + "]" * 90],
}  # fmt: skip
_VERBS = [verb.name for line in HELP for verb in line.verbs]
# Commands about one person, which version 2 of json names in the same field.
_OF_PEOPLE = (
    *("kick", "ban", "unban", "mute", "unmute", "invite", "voice", "unvoice", "mod", "unmod", "owner"),
    *("ignore", "unignore"),
)
_STARTS: dict[str, list[str]] = {
    "line": [
        *(
            "",
            "MSG ",
            "DM line-listener ",
            "DM ",
            "LOGIN ",
            "PING ",
            "WHO ",
            "QUIT",
            "msg\t",
            f"LOGIN {_MEMBER} ",
        ),
        *(f"{verb.upper()} " for verb in _VERBS),
    ],
    "slash": [
        *(
            "",
            "/dm slash-listener ",
            "/dm ",
            "/users ",
            "/ping ",
            "/help ",
            "/quit",
            "/",
            f"/login {_MEMBER} ",
        ),
        *(f"/{verb} " for verb in _VERBS),
    ],
    "json": [
        *('{"type":"chat","message":"', '{"type":"dm","to":"json-listener","message":"'),
        *('{"type":"dm","message":"x","to":"', '{"type":"join","username":"', '{"type":"ping","token":"'),
        *(
            '{"type":"quit","x":"',
            '{"type":"users","x":"',
            '{"type":"',
            '{"',
            '{"type":"ping","x":[',
            '{"x":',
            "[",
            "",
        ),
    ],
    "json2": [
        *(
            '{"type":"chat","message":"',
            '{"type":"chat","ref":"1","message":"',
            '{"type":"chat","key":"k","message":"',
        ),
        *('{"type":"dm","to":"json2-listener","message":"', '{"type":"dm","message":"x","to":"'),
        *(
            '{"type":"join","v":2,"username":"',
            '{"type":"join","v":2,"username":"a","rooms":{',
            '{"type":"join","username":"',
        ),
        *(
            '{"type":"enter","room":"',
            '{"type":"leave","room":"',
            '{"type":"users","after":"',
            '{"type":"topic","topic":"',
        ),
        *(
            '{"type":"typing","room":"',
            '{"type":"history","room":"',
            '{"type":"ping","token":"',
            '{"type":"ping","ref":"',
        ),
        *(
            '{"type":"rooms","x":"',
            '{"type":"quit","x":"',
            '{"type":"',
            '{"',
            '{"type":"ping","x":[',
            "[",
            "",
        ),
        *(f'{{"type":"{verb}","username":"' for verb in _OF_PEOPLE),
        *(f'{{"type":"{verb}","username":"a","reason":"' for verb in ("kick", "ban", "mute")),
        *('{"type":"key","key":"', '{"type":"bans","after":"', '{"type":"register","password":"'),
        f'{{"type":"join","v":2,"username":"{_MEMBER}","password":"',
    ],
}
_ENDS: dict[str, list[str]] = {
    "line": ["", " a"],
    "slash": ["", " a"],
    "json": ['"}', "", "1]}", "]}", "}", '"":1}'],
    "json2": ['"}', "", '"":1}}', '"x":{}}}', "1]}", "}", '"":1}'],
}


# --- The search ------------------------------------------------------------------------------------------------------


class Search:
    """Looks for the worst line of each arena."""

    def __init__(self, seed: int, found: list[CostlyLine], arenas: Sequence[Arena] = ARENAS) -> None:
        self._random = random.Random(seed)
        self.best: dict[Arena, list[CostlyLine]] = {arena: [] for arena in arenas}
        self.tried = 0
        # For each dialect and kind of piece, how often it has led to a worse line, and how often not.
        self._wins: dict[tuple[str, str], list[int]] = {}
        for line in found:
            self._try(line.arena, line.recipe)

    def run(self, seconds: float) -> None:
        """Look in each arena in turn until the time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for arena in self.best:
                self._step(arena)

    def worst(self) -> list[CostlyLine]:
        """The worst line of each arena, measured once more."""
        return [max(map(_again, lines), key=lambda line: line.ratio) for lines in self.best.values() if lines]

    def _step(self, arena: Arena) -> None:
        kind = self._kind(arena.dialect)
        pieces = (_TEXT | _JSON)[kind]
        best = self.best[arena]
        if len(best) < _POPULATION or self._random.random() < 0.1:
            recipe = self._fresh(arena.dialect, pieces)
        elif self._random.random() < 0.1:
            # The worst line of another arena can be even worse in this one.
            other = self._random.choice([line for lines in self.best.values() for line in lines])
            recipe = replace(other.recipe, start=self._start(arena.dialect), end=self._end(arena.dialect))
        else:
            recipe = self._mutant(arena.dialect, self._random.choice(best).recipe, pieces)
        self._wins[arena.dialect, kind][not self._try(arena, recipe)] += 1

    def _kind(self, dialect: str) -> str:
        def chance(kind: str) -> float:
            won, lost = self._wins.setdefault((dialect, kind), [1, 1])
            return self._random.betavariate(won, lost)

        kinds: list[str] = [*_TEXT, *(_JSON if dialect in ("json", "json2") else ())]
        return max(kinds, key=chance)

    def _fresh(self, dialect: str, pieces: list[str]) -> Recipe:
        unit = "".join(self._random.choices(pieces + _TEXT["plain"][:2], k=self._random.randint(1, 4)))
        return Recipe(self._start(dialect), unit, end=self._end(dialect))

    def _start(self, dialect: str) -> str:
        return self._random.choice(_STARTS[dialect])

    def _end(self, dialect: str) -> str:
        # The first one is what ends a message.
        return _ENDS[dialect][0] if self._random.random() < 0.7 else self._random.choice(_ENDS[dialect])

    def _mutant(self, dialect: str, recipe: Recipe, pieces: list[str]) -> Recipe:
        draw = self._random
        for _ in range(draw.choice((1, 1, 2, 3))):
            match draw.randrange(8):
                case 0 | 1 | 2:
                    recipe = replace(recipe, unit=self._edited(recipe.unit, pieces))
                case 3:
                    opening = draw.choice(("", recipe.opening)) + draw.choice(("", *pieces))
                    recipe = replace(recipe, opening=opening[:200])
                case 4:
                    recipe = replace(recipe, start=self._start(dialect))
                case 5:
                    recipe = replace(recipe, end=self._end(dialect))
                case 6:
                    times = draw.choice((0, 1, 40, 80, 199, recipe.times + 1, max(0, recipe.times - 1)))
                    recipe = replace(recipe, times=times)
                case _:
                    recipe = replace(recipe, padding=draw.choice(("", " ", "x", draw.choice(pieces))))
        return recipe

    def _edited(self, unit: str, pieces: list[str]) -> str:
        draw = self._random
        at = draw.randint(0, len(unit))
        to = min(len(unit), at + draw.randint(1, 3))
        match draw.randrange(5):
            case 0:
                return unit[:at] + draw.choice(pieces) + unit[at:]
            case 1:
                return unit[:at] + draw.choice(pieces) + unit[to:]
            case 2:
                return unit[:at] + unit[to:]
            case 3:
                return (unit[:to] + unit[at:to] * draw.randint(1, 4) + unit[to:])[:200]
            case _:
                return (
                    unit[:at]
                    + chr(draw.choice((draw.randrange(0xD800), draw.randrange(0xE000, 0x110000))))
                    + unit[to:]
                )

    def _try(self, arena: Arena, recipe: Recipe) -> bool:
        """Keep it if it is among the worst of its arena."""
        self.tried += 1
        line = recipe.line(arena.length)
        best = self.best[arena]
        if not line or any(kept.line == line for kept in best):
            return False
        least = best[-1].ratio if len(best) == _POPULATION else 0.0
        measured = Ratio(arena.dialect, arena.logged_in, line)
        if measured.sample(2) <= least or (ratio := measured.sample(4)) <= least:
            return False
        best.append(CostlyLine(arena, recipe, ratio))
        best.sort(key=lambda kept: -kept.ratio)
        del best[_POPULATION:]
        return True


def _again(line: CostlyLine) -> CostlyLine:
    return replace(line, ratio=round(line.measured().sample(15), 1))


def _is_new(line: CostlyLine, known: list[CostlyLine]) -> bool:
    """True when it is clearly worse than all that are known."""
    others = [_again(other).ratio for other in known if other.arena == line.arena]
    return line.ratio > 1.05 * max(others, default=0.0)


def load() -> list[CostlyLine]:
    """The worst lines found so far."""
    return [
        CostlyLine(Arena(**entry["arena"]), Recipe(**entry["recipe"]), entry["ratio"])
        for entry in json.loads(FOUND.read_text())
    ]


def save(lines: list[CostlyLine]) -> None:
    """Write them to the file that `load` reads."""
    FOUND.write_text("[\n" + ",\n".join(json.dumps(asdict(line)) for line in lines) + "\n]\n")


def costs(seconds: float, seed: int, keep: bool) -> dict[str, str]:
    """Search, beginning with what was found before; `keep` adds what is worse to it. Fails above BOUND."""
    before = load()
    search = Search(seed, before)
    search.run(seconds)
    worst = search.worst()
    if keep:
        save(before + [line for line in worst if _is_new(line, before)])
    figures = {"lines tried": str(search.tried)}
    for line in worst:
        state = "logged in" if line.arena.logged_in else "before login"
        figures[f"{line.arena.dialect}, {state}, {line.arena.length} bytes"] = (
            f"{line.ratio:5.1f}  {line.line[:70]!r}"
        )
    over = [line for line in worst if line.ratio > BOUND]
    assert not over, "\n".join(
        [f"a line costs more than {BOUND} plain messages", *map(repr, over), str(figures)]
    )
    return figures
