"""What each client is sent, over random histories, against a model that writes everything to everyone at once.

The fast path (one join for a turn, shared bytes, holes, backlogs) has to come to the same bytes as the slow one, whoever
joins, leaves, stalls or takes a byte at a time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import gevent
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geventchat.chat.commands import Login, Ping, Quit, Say, Tell, Who
from geventchat.chat.hub import Hub, Session
from geventchat.dialects import DIALECTS
from geventchat.net.feed import Feed
from geventchat.net.flusher import Flusher
from geventchat.net.outbox import Outbox

QUEUE_BYTES = 400
NOW = 1234567890


def line(**fields: object) -> str:
    return json.dumps(fields) + "\n"


def joining(kind: str, name: str, message: str) -> str:
    return line(type=kind, username=name, message=message, timestamp=NOW)


class Loop:
    """A loop that runs its callbacks when it is told to, and whose sockets become writable when they are told to."""

    def __init__(self) -> None:
        self.callbacks: list = []
        self.looks = 0
        self.watchers: dict[int, Watcher] = {}

    @property
    def loop(self) -> Loop:
        return self

    def run_callback(self, callback) -> None:
        self.callbacks.append(callback)

    def turn(self) -> None:
        while self.callbacks:
            self.callbacks.pop(0)()

    def timer(self, after: float) -> Timer:
        assert after == 0
        return Timer(self)

    def io(self, fileno: int, events: int) -> Watcher:
        return Watcher(self, fileno)


@dataclass(eq=False)
class Timer:
    """Fires when the loop has looked at its sockets once more."""

    loop: Loop

    def start(self, callback) -> None:
        self.loop.looks += 1
        self.loop.callbacks.append(callback)


@dataclass(eq=False)
class Watcher:
    loop: Loop
    fileno: int

    def start(self, callback) -> None:
        assert self.fileno not in self.loop.watchers
        self.callback = callback
        self.loop.watchers[self.fileno] = self

    def stop(self) -> None:
        self.loop.watchers.pop(self.fileno, None)

    def close(self) -> None:
        assert self.fileno not in self.loop.watchers


@dataclass(eq=False)
class Wire:
    """A socket that takes as many bytes as it has room for."""

    number: int
    room: int = 10**9
    broken: bool = False
    taken: bytearray = field(default_factory=bytearray)

    def fileno(self) -> int:
        return self.number

    def send(self, data) -> int:
        return self.sendmsg([data])

    def sendmsg(self, buffers) -> int:
        if self.broken:
            raise BrokenPipeError
        if not self.room:
            raise BlockingIOError
        data = b"".join(buffers)[: self.room]
        self.room -= len(data)
        self.taken += data
        return len(data)


@dataclass(eq=False)
class Person:
    """A client, and what a model says it must have been sent."""

    wire: Wire
    session: Session
    outbox: Outbox
    dialect: str
    name: str = ""
    owed: bytearray = field(default_factory=bytearray)
    lost: bool = False
    gone: bool = False


class World:
    def __init__(self) -> None:
        self.loop = Loop()
        self.hub = Hub(lambda: 1234567890.5)
        self.flusher = Flusher(self.loop, QUEUE_BYTES)
        self.feeds = {name: Feed(dialect, self.flusher) for name, dialect in DIALECTS.items()}
        self.people: list[Person] = []
        self.logins: list[Person] = []

    def arrive(self, dialect: str, room: int) -> None:
        wire = Wire(len(self.people), room)
        person = Person(wire, None, None, dialect)

        def lost(slow: bool) -> None:
            person.lost = True
            self.go(person)

        person.outbox = Outbox(wire, self.feeds[dialect], self.flusher, lost)
        person.session = Session(person.outbox)
        self.people.append(person)

    # What the model says: each in its own dialect's words, at once, to whoever is here.

    def words(self, person: Person, text: dict[str, str]) -> None:
        if not person.lost:
            person.owed += text[person.dialect].encode()

    def others(self, author: Person) -> list[Person]:
        return [person for person in self.people if person.name and person is not author and not person.gone]

    def login(self, person: Person) -> None:
        if person.name or person.gone:
            return
        name = f"p{person.wire.number}"
        self.hub.handle(person.session, Login(name))
        joined = {
            "line": "",
            "slash": f"[join] {name} has joined the chat.\n",
            "json": joining("user_joined", name, f"{name} joined the chat"),
        }
        for other in self.others(person):
            self.words(other, joined)
        person.name = name
        self.logins.append(person)
        users = [other.name for other in self.logins if not other.gone]
        welcome = {
            "line": "OK\n",
            "slash": joined["slash"] + "Connected! Type /help for commands\n\n",
            "json": line(type="welcome", message=f"Welcome to the chat, {name}!", users=users, timestamp=NOW),
        }
        self.words(person, welcome)

    def misname(self, person: Person) -> None:
        """Something of its own for one who is not in yet."""
        if person.name or person.gone:
            return
        self.hub.handle(person.session, Login(""))
        refused = {
            "line": "ERR invalid-username\n",
            "slash": "[error] Username must be 1-20 characters.\n",
            "json": line(type="error", message="Invalid username"),
        }
        self.words(person, refused)

    def say(self, person: Person, *texts: str) -> None:
        if not person.name or person.gone:
            return
        if len(texts) == 1:
            self.hub.handle(person.session, Say(texts[0]))
        else:
            self.hub.say(person.session, texts)
        for text in texts:
            said = {
                "line": f"MSG {person.name} {text}\n",
                "slash": f"{person.name}: {text}\n",
                "json": line(type="chat", username=person.name, message=text, timestamp=NOW),
            }
            for other in self.others(person):
                self.words(other, said)
            if person.dialect == "json":
                self.words(person, said)

    def tell(self, person: Person, other: Person, text: str) -> None:
        if not person.name or person.gone or not other.name or other.gone:
            return
        self.hub.handle(person.session, Tell(other.name, text))
        dm = line(type="dm", username=person.name, to=other.name, message=text, timestamp=NOW)
        if person.dialect == "slash" or (person.dialect == "json" and person is not other):
            self.words(person, {"slash": f"[DM to {other.name}] {text}\n", "json": dm})
        self.words(
            other,
            {"line": f"DM {person.name} {text}\n", "slash": f"[DM from {person.name}] {text}\n", "json": dm},
        )

    def ping(self, person: Person) -> None:
        if not person.name or person.gone:
            return
        self.hub.handle(person.session, Ping("x"))
        self.words(
            person, {"line": "PONG x\n", "slash": "pong\n", "json": '{"type": "pong", "token": "x"}\n'}
        )

    def quit(self, person: Person) -> None:
        if person.gone:
            return
        self.hub.handle(person.session, Quit())
        self.words(
            person, {"line": "Goodbye!\n", "slash": "Disconnecting...\n", "json": '{"type": "goodbye"}\n'}
        )
        self.left(person)

    def go(self, person: Person) -> None:
        if person.gone:
            return
        self.hub.leave(person.session)
        self.left(person)

    def left(self, person: Person) -> None:
        person.gone = True
        if not person.name:
            return
        name = person.name
        for other in self.others(person):
            self.words(
                other,
                {
                    "line": f"INFO {name} disconnected\n",
                    "slash": f"[leave] {name} has left the chat.\n",
                    "json": joining("user_left", name, f"{name} left the chat"),
                },
            )

    def turn(self) -> None:
        self.loop.turn()

    def room(self, person: Person, room: int) -> None:
        person.wire.room += room
        watcher = self.loop.watchers.get(person.wire.number)
        if watcher is not None and person.wire.room:
            watcher.callback()

    def check(self) -> None:
        between_turns = not any(feed.size for feed in self.feeds.values())
        for person in self.people:
            taken = bytes(person.wire.taken)
            assert person.owed.startswith(taken), "a client got what it was not owed, or in another order"
            if person.lost:
                assert person.outbox.idle
            elif between_turns and person.outbox.idle and not person.wire.broken:
                assert taken == person.owed, "nothing waits, and yet something is missing"
            assert person.outbox.backlog_bytes == (
                sum(map(len, person.outbox._backlog)) if person.outbox._backlog else 0
            )


WHO = st.integers(0, 7)
HISTORY = st.lists(
    st.one_of(
        st.tuples(
            st.just("arrive"),
            st.sampled_from(sorted(DIALECTS)),
            st.sampled_from([0, 7, 60, 10**9, 10**9]),
            st.sampled_from(["login", "misname"]),
        ),
        st.tuples(st.just("login"), WHO),
        st.tuples(st.just("misname"), WHO),
        st.tuples(st.just("say"), WHO, st.text("abc", min_size=1, max_size=20)),
        st.tuples(st.just("say"), WHO, *[st.text("abc", min_size=1, max_size=20)] * 3),
        st.tuples(st.just("tell"), WHO, WHO, st.text("xyz", min_size=1, max_size=20)),
        st.tuples(st.just("ping"), WHO),
        st.tuples(st.just("quit"), WHO),
        st.tuples(st.just("go"), WHO),
        st.tuples(st.just("turn")),
        st.tuples(st.just("turn")),
        st.tuples(st.just("room"), WHO, st.sampled_from([1, 13, 100, 10**6])),
        st.tuples(st.just("break"), WHO),
    ),
    max_size=80,
)


@settings(max_examples=600)
@given(HISTORY)
@example([("arrive", "line", 0, "misname"), ("turn",), ("login", 1), ("turn",), ("say", 0, "a"), ("turn",)])
@example(
    [("arrive", "line", 0, "misname"), ("turn",), ("say", 0, "a"), ("login", 1), ("say", 0, "b"), ("turn",)]
)
def test_the_fast_path_sends_what_the_slow_one_would(history):
    world = World()
    world.arrive("line", 10**9)
    world.login(world.people[0])
    for deed, *details in history:
        if deed == "arrive":
            if len(world.people) < 8:
                *what, first = details
                world.arrive(*what)
                getattr(world, first)(world.people[-1])
            continue
        people = [
            world.people[item % len(world.people)] if isinstance(item, int) else item for item in details
        ]
        if deed == "room":
            world.room(people[0], details[1])
        elif deed == "break":
            people[0].wire.broken = True
        else:
            getattr(world, deed)(*people)
        if deed in {"turn", "room"}:
            world.check()
    world.turn()
    for person in world.people:
        world.room(person, 10**9)
    world.turn()
    world.check()
    for person in world.people:
        assert person.outbox.idle
        world.go(person)
    world.turn()
    for feed in world.feeds.values():
        assert not feed.flowing
        assert not feed.behind
        assert not feed.size
    assert not world.loop.watchers
    assert len(world.hub.room) == 0


def test_a_slow_client_is_lost_at_the_limit_and_costs_nobody_anything():
    world = World()
    for dialect, room in (("line", 10**9), ("line", 3), ("line", 10**9)):
        world.arrive(dialect, room)
        world.login(world.people[-1])
    talker, slow, other = world.people
    for number in range(60):
        world.say(talker, f"{number:03d}")
        world.turn()
        assert bytes(other.wire.taken) == bytes(other.owed)
        if slow.lost:
            break
    assert slow.lost
    assert slow.outbox.backlog_bytes == 0
    world.turn()
    assert other.wire.taken.endswith(b"INFO p1 disconnected\n")


def test_one_answer_larger_than_the_limit_is_sent_all_the_same():
    world = World()
    for _ in range(100):
        world.arrive("line", 10**9)
        world.login(world.people[-1])
    world.turn()
    asker = world.people[0]
    asker.wire.room = 10
    world.hub.handle(asker.session, Who())
    roster = "".join(f"USER p{number}\n" for number in range(100)).encode()
    asker.owed += roster
    world.turn()
    assert asker.outbox.backlog_bytes == len(roster) - 10 > QUEUE_BYTES
    assert not asker.lost
    world.room(asker, 10**9)
    world.check()
    assert asker.wire.taken.endswith(roster)


def test_members_with_nothing_of_their_own_are_sent_the_very_same_bytes():
    world = World()
    sent: list[bytes] = []
    for _ in range(4):
        world.arrive("line", 10**9)
        world.login(world.people[-1])
    world.turn()
    for person in world.people[1:]:
        world.feeds["line"].flowing[person.outbox] = lambda data: sent.append(data) or len(data)
    world.say(world.people[0], "one")
    world.say(world.people[0], "two")
    world.turn()
    assert sent == [b"MSG p0 one\nMSG p0 two\n"] * 3
    assert sent[0] is sent[1] is sent[2]


def test_a_flood_is_held_back_for_a_bounded_number_of_looks_and_talk_is_not():
    world = World()
    for _ in range(33):
        world.arrive("line", 10**9)
        world.login(world.people[-1])
    world.turn()

    def looks_for(text: str) -> int:
        world.say(world.people[0], text)
        world.loop.looks = 0
        world.turn()
        world.check()
        return world.loop.looks

    assert looks_for("x" * 5000) == 0, "the first flood has nothing to wait for"
    assert looks_for("x" * 4000) == 4, "one look for eight members, while less has been said than before"
    assert looks_for("x" * 4000) == 0, "as much as before is enough"
    assert looks_for("x" * 100) == 0, "talk goes at once"


@pytest.mark.parametrize("speakers", [1, 2, 3])
def test_one_send_to_each_member_however_many_messages_a_turn_has(speakers: int):
    world = World()
    for _ in range(5):
        world.arrive("line", 10**9)
        world.login(world.people[-1])
    world.turn()
    sends = {person.wire.number: 0 for person in world.people}
    for person in world.people:
        plain = person.wire.send

        def counted(data, plain=plain, number=person.wire.number):
            sends[number] += 1
            return plain(data)

        person.outbox._send = counted
        world.feeds["line"].flowing[person.outbox] = counted
    for number in range(50):
        world.say(world.people[number % speakers], f"{number}")
    world.turn()
    # With one speaker alone, she has nothing to hear.
    assert [sends[person.wire.number] for person in world.people] == [0 if speakers == 1 else 1, 1, 1, 1, 1]
    world.check()


def test_the_flusher_runs_in_a_real_loop_too():
    flusher = Flusher(gevent.get_hub(), QUEUE_BYTES)
    feed = Feed(DIALECTS["line"], flusher)
    wire = Wire(0)
    outbox = Outbox(wire, feed, flusher, lambda slow: None)
    hub = Hub(lambda: 0.0)
    hub.handle(Session(outbox), Login("alice"))
    assert not wire.taken
    gevent.idle()
    assert bytes(wire.taken) == b"OK\n"
