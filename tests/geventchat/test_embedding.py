"""The server in a gevent program: callbacks for what happens, and what the program can say and do."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event as Flag

import geventchat
from geventchat import (
    Config,
    ConfigError,
    Event,
    Joined,
    Left,
    Limits,
    Listen,
    LoggedIn,
    LoggedOut,
    Message,
    MessageDeleted,
    RoomInfo,
    Server,
    TopicChanged,
)
from tests.geventchat.processes import environment
from tests.patience import HANG_S

ROOT = Path(__file__).resolve().parents[2]


class Logged:
    """A log that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: Any, /, **fields: object) -> None:
        self.events.append((event.value, fields))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.events if event == name]


CLIENTS: list[Client] = []


class Client:
    """A person in the line dialect."""

    def __init__(self, server: Server, name: str, dialect: str = "line") -> None:
        self._socket = socket.create_connection(server.addresses[dialect], HANG_S)
        self._lines = self._socket.makefile("rb")
        CLIENTS.append(self)
        if dialect == "line":
            self.send(f"LOGIN {name}")
            assert self.receive() == "OK"

    def send(self, *lines: str) -> None:
        self._socket.sendall("".join([line + "\n" for line in lines]).encode())

    def receive(self) -> str:
        return self._lines.readline().decode().removesuffix("\n")

    def receive_until(self, words: str) -> str:
        """The next line with these words."""
        while words.encode() not in (line := self._lines.readline()):
            assert line, "the connection has ended"
        return line.decode().removesuffix("\n")

    def ask(self, line: str) -> str:
        self.send(line)
        return self.receive()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@pytest.fixture
def logged() -> Logged:
    return Logged()


def make(logged: Logged, name: str | None = None, **limits: Any) -> Server:
    listen = tuple(Listen(dialect, "127.0.0.1", 0) for dialect in ("line", "json", "slash"))
    return Server(Config(listen=listen, limits=Limits(**limits)), log=logged, name=name)


@contextmanager
def running(logged: Logged, name: str | None = None, **limits: Any) -> Iterator[Server]:
    """A server; its clients close before it stops, which would wait for them."""
    with make(logged, name, **limits) as server:
        yield server
        close_clients()


def close_clients() -> None:
    while CLIENTS:
        CLIENTS.pop().close()


@pytest.fixture
def server(logged: Logged) -> Iterator[Server]:
    with running(logged) as server:
        yield server


@pytest.fixture(autouse=True)
def _clients_are_closed() -> Iterator[None]:
    yield
    close_clients()


class Collector:
    """A callback that collects, and waits for what the test awaits."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = Flag()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    def wait_for(self, count: int) -> list[Event]:
        with gevent.Timeout(HANG_S):
            while len(self.events) < count:
                self._more.clear()
                self._more.wait()
        return self.events


def without_time(events: list[Event]) -> list[tuple[object, ...]]:
    """The kind of each event and its fields but the time."""
    return [
        (type(one), *[getattr(one, field) for field in one.__dataclass_fields__ if field != "time_ms"])
        for one in events
    ]


# --- Events ----------------------------------------------------------------------------------------------------------


def test_a_callback_gets_everything_that_happens_in_order(server: Server):
    heard = Collector()
    server.on(Event, heard)
    alice = Client(server, "alice")
    bob = Client(server, "Bob")
    alice.send("MSG one", "MSG two", "DM Bob secret")
    assert alice.ask("TOPIC tea") == "OK"
    assert bob.ask("PING") == "MSG alice one"
    assert bob.ask("JOIN dev") == "MSG alice two"
    assert alice.receive() == "INFO Bob left"
    bob.send("MSG oops", "DELETE 1")
    assert [bob.receive() for _ in range(5)] == ["DM alice secret", "TOPIC tea", "PONG", "OK", "OK"]
    alice.send("QUIT")
    assert alice.receive() == "Goodbye!"
    expected = [
        (LoggedIn, "alice"),
        (Joined, "lobby", "alice"),
        (LoggedIn, "Bob"),
        (Joined, "lobby", "Bob"),
        (Message, "lobby", "alice", "one", 1),
        (Message, "lobby", "alice", "two", 2),
        (TopicChanged, "lobby", "alice", "tea"),
        (Joined, "dev", "Bob"),
        (Left, "lobby", "Bob", "left"),
        (Message, "dev", "Bob", "oops", 1),
        (MessageDeleted, "dev", 1),
        (LoggedOut, "alice"),
        (Left, "lobby", "alice", "disconnected"),
    ]
    assert without_time(heard.wait_for(len(expected))) == expected
    times = [event.time_ms for event in heard.events]
    assert times == sorted(times)
    assert times[0] > 1_600_000_000_000


def test_a_callback_gets_only_the_kind_that_it_asks_for_and_only_until_it_is_cancelled(server: Server):
    messages, everything = Collector(), Collector()
    subscription = server.on(Message, messages)
    server.on(Event, everything)
    alice = Client(server, "alice")
    alice.send("MSG one")
    messages.wait_for(1)
    subscription.cancel()
    subscription.cancel()
    alice.send("MSG two")
    everything.wait_for(4)
    assert without_time(messages.events) == [(Message, "lobby", "alice", "one", 1)]


def test_events_are_values(server: Server):
    message = Message(1, "lobby", "alice", "hi", 2)
    assert message == Message(1, "lobby", "alice", "hi", 2)
    assert hash(message) == hash(Message(1, "lobby", "alice", "hi", 2))
    with pytest.raises(AttributeError):
        message.text = "other"  # type: ignore[misc]


def test_an_exception_of_a_callback_is_logged_and_affects_no_client(server: Server, logged: Logged):
    heard = Collector()

    def fail(event: Message) -> None:
        heard(event)
        raise ZeroDivisionError(event.text)

    server.on(Message, fail)
    alice, bob = Client(server, "alice"), Client(server, "bob")
    alice.send("MSG one", "MSG two")
    assert [bob.receive(), bob.receive()] == ["MSG alice one", "MSG alice two"]
    heard.wait_for(2)
    assert bob.ask("PING") == alice.ask("PING") == "PONG"
    failures = logged.of("callback-failed")
    assert len(failures) == 2
    assert failures[0]["callback"].endswith("fail")
    assert "ZeroDivisionError: one" in failures[0]["error"]


def test_a_callback_that_ends_with_a_timeout_of_gevent_is_called_with_what_waits(
    server: Server, logged: Logged
):
    heard = Collector()

    def too_slow(event: Message) -> None:
        heard(event)
        with gevent.Timeout(0.001):
            Flag().wait()

    server.on(Message, too_slow)
    alice = Client(server, "alice")
    alice.send("MSG one", "MSG two", "MSG three")
    heard.wait_for(3)
    assert alice.ask("PING") == "PONG"
    assert server.stop()
    failures = logged.of("callback-failed")
    assert [failure["error"].splitlines()[-1] for failure in failures] == 3 * [
        "gevent.timeout.Timeout: 0.001 seconds"
    ]


def test_failures_of_callbacks_are_logged_within_a_limit(logged: Logged):
    def fail(event: Message) -> None:
        raise ZeroDivisionError(event.text)

    with running(logged, address_log_lines_per_s=0.001, address_burst_log_lines=5) as server:
        server.on(Message, fail)
        heard = Collector()
        server.on(Message, heard)
        alice = Client(server, "alice")
        alice.send(*["MSG hi"] * 50)
        heard.wait_for(50)
    assert len(logged.of("callback-failed")) == 5
    suppressed = [fields for fields in logged.of("log-suppressed") if fields["address"] == "callbacks"]
    assert suppressed == [{"address": "callbacks", "events": 45}]


def test_a_callback_that_waits_holds_up_no_client_and_no_other_callback(server: Server):
    released = Flag()
    slow = Collector()
    fast = Collector()

    def wait(event: Message) -> None:
        released.wait()
        slow(event)

    server.on(Message, wait)
    server.on(Message, fast)
    alice, bob = Client(server, "alice"), Client(server, "bob")
    alice.send("MSG one", "MSG two")
    assert bob.receive() == "MSG alice one"
    assert bob.ask("PING") == "MSG alice two"
    fast.wait_for(2)
    assert slow.events == []
    released.set()
    assert slow.wait_for(2) == fast.events


def test_others_have_their_turn_between_two_events_of_a_callback(server: Server):
    heard = Collector()
    turns: list[str] = []

    def remember(event: Message) -> None:
        turns.append(event.text)
        gevent.spawn(turns.append, "others")
        heard(event)

    server.on(Message, remember)
    Client(server, "alice").send("MSG one", "MSG two", "MSG three")
    heard.wait_for(3)
    assert turns[:5] == ["one", "others", "two", "others", "three"]


def test_a_callback_that_is_too_slow_loses_the_latest_events_and_they_are_counted(logged: Logged):
    released = Flag()
    heard = Collector()

    def wait(event: Message) -> None:
        released.wait()
        heard(event)

    with running(logged, callback_events=3) as server:
        subscription = server.on(Message, wait)
        witness = Collector()
        server.on(Message, witness)
        alice = Client(server, "alice")
        for number in range(10):
            alice.send(f"MSG {number}")
            witness.wait_for(number + 1)
        # One is being handled, three wait.
        assert subscription.missed == 6
        assert len(logged.of("callback-behind")) == 1
        assert logged.of("callback-behind")[0]["waiting"] == 3
        released.set()
        heard.wait_for(4)
        assert subscription.wait_until_idle(HANG_S)
        alice.send("MSG after")
        heard.wait_for(5)
        assert [event.text for event in heard.events if isinstance(event, Message)] == [*"0123", "after"]
    assert [fields["events"] for fields in logged.of("events-missed")] == [6]


def test_stopping_waits_for_callbacks_within_the_time_out(logged: Logged):
    server = make(logged)
    server.start()
    heard = Collector()

    def slowly(event: LoggedIn) -> None:
        gevent.sleep(0.05)
        heard(event)

    server.on(LoggedIn, slowly)
    Client(server, "alice").close()
    Client(server, "bob").close()
    assert server.stop()
    assert len(heard.events) == 2

    server.start()
    server.on(LoggedIn, lambda event: Flag().wait())
    Client(server, "alice").close()
    assert server.stop(0.2) is False


def test_a_callback_can_stop_the_server(logged: Logged):
    server = make(logged)
    server.start()
    stopped: list[bool] = []
    done = Flag()

    def stop(event: LoggedIn) -> None:
        stopped.append(server.stop())
        done.set()

    server.on(LoggedIn, stop)
    alice = Client(server, "alice")
    assert alice.receive() == "INFO server-shutdown"
    alice.close()
    assert done.wait(HANG_S)
    assert stopped == [True]


# --- Saying ----------------------------------------------------------------------------------------------------------


def test_the_server_speaks_in_every_dialect_and_in_the_history(server: Server):
    alice, slash, json = Client(server, "alice"), Client(server, "", "slash"), Client(server, "", "json")
    slash.send("bob")
    json.send('{"type": "join", "v": 2, "username": "carol"}')
    json.receive_until('"welcome"')
    assert server.say("\tmind the  gap\x1b ") == 1
    assert alice.receive() == "MSG server mind the  gap�"
    assert slash.receive_until("mind") == "server: mind the  gap�"
    line = json.receive_until('"chat"')
    assert '"id": 1, "username": "server", "message": "mind the  gap\\ufffd"' in line
    assert server.say("again") == 2
    assert alice.receive() == "MSG server again"
    assert re.fullmatch(r"HIST 1 \S+ server mind the  gap�", alice.ask("HISTORY"))
    assert alice.receive().endswith("server again")


def test_no_client_can_have_the_name_of_the_server(logged: Logged):
    with running(logged, "Concierge") as server:
        client = Client(server, "alice")
        server.say("hello")
        assert client.receive() == "MSG Concierge hello"
        impostor = socket.create_connection(server.addresses["line"])
        impostor.sendall(b"LOGIN concierge\n")
        assert impostor.recv(100) == b"ERR invalid-username\n"
        impostor.close()


def test_a_name_that_is_invalid_or_in_use_is_refused(logged: Logged):
    with pytest.raises(ConfigError, match="name: 'a b' is not a name"):
        Server(name="a b")
    with pytest.raises(ConfigError, match="name: 'Ann' is the name of an operator"):
        Server(Config(operators=("ann",)), name="Ann")
    config = Config(listen=(Listen("line", "127.0.0.1", 0),), reserved_names=("you",))
    with (
        Server(config, log=logged) as server,
        pytest.raises(RuntimeError, match="'server' is not a reserved"),
    ):
        server.say("hello")


def test_a_callback_does_not_get_what_the_server_says(server: Server):
    heard = Collector()

    def answer(event: Message) -> None:
        heard(event)
        server.say("echo " + event.text)

    server.on(Message, answer)
    alice = Client(server, "alice")
    alice.send("MSG one")
    assert alice.receive() == "MSG server echo one"
    alice.send("MSG two")
    assert alice.receive() == "MSG server echo two"
    assert without_time(heard.events) == [
        (Message, "lobby", "alice", "one", 1),
        (Message, "lobby", "alice", "two", 3),
    ]


@pytest.mark.parametrize("text", ["", " \t", "\u200b", "two\nlines", "x" * 4097, "é" * 2049, None])
def test_a_text_that_is_not_a_line_is_refused(server: Server, text: Any):
    with pytest.raises(ValueError, match=r"^text: .* is not a line of 1 to 4096 bytes$"):
        server.say(text)


def test_what_does_not_exist_is_named(server: Server):
    for room in ("dev", "no such name"):
        with pytest.raises(LookupError, match=f"unknown room '{room}'"):
            server.say("hello", room)
        with pytest.raises(LookupError, match=f"unknown room '{room}'"):
            server.people(room)
    with pytest.raises(LookupError, match="'alice' is not in lobby"):
        server.kick("alice")


def test_a_server_that_does_not_run_refuses_everything(logged: Logged):
    server = make(logged)
    for use in (lambda: server.say("hi"), lambda: server.kick("bob"), server.rooms, server.people):
        with pytest.raises(RuntimeError, match="the server is not running"):
            use()
    with server:
        server.say("hi")
    with pytest.raises(RuntimeError, match="the server is not running"):
        server.say("hi")


def test_another_thread_is_refused(server: Server):
    def use() -> str:
        try:
            server.say("hi")
        except RuntimeError as error:
            return str(error)
        return "said"

    refusal = gevent.get_hub().threadpool.apply(use)
    assert refusal == "the server can only be used in the thread that has started it"


def fill(server: Server) -> None:
    """Say so much in this moment that the room cannot follow any more."""
    for _ in range(1_000):
        server.say("x" * 4_000, timeout=0)


def test_speaking_waits_until_the_room_can_follow(server: Server):
    alice = Client(server, "alice")
    with pytest.raises(TimeoutError, match="the room cannot follow"):
        fill(server)
    said = server.say("at last", timeout=HANG_S)
    assert said == server.say("and again") - 1
    while not (line := alice.receive()).endswith("at last"):
        assert line.startswith("MSG server x")


def test_speaking_gives_up_after_its_time_out_and_has_said_nothing(server: Server, monkeypatch):
    alice = Client(server, "alice")
    gate = server.context.chat.lobby.gate
    monkeypatch.setattr(type(gate), "is_open", lambda gate: False)
    monkeypatch.setattr(gate, "_delay_s", lambda: 3600.0)
    with pytest.raises(TimeoutError, match="the room cannot follow"):
        server.say("never", timeout=0.01)
    monkeypatch.undo()
    assert alice.ask("HISTORY") == "OK"
    assert gate._waiting == {}


def test_a_greenlet_that_waits_to_speak_is_woken_when_the_server_stops(logged: Logged, monkeypatch):
    server = make(logged)
    server.start()
    gate = server.context.chat.lobby.gate
    monkeypatch.setattr(gate, "_delay_s", lambda: 3600.0)
    speaking = gevent.spawn(server.say, "never")
    gevent.idle()
    assert not speaking.ready()
    assert server.stop()
    with pytest.raises(RuntimeError, match="the server has stopped"):
        speaking.get(timeout=HANG_S)


# --- Rooms and people ------------------------------------------------------------------------------------------------


def test_rooms_and_people_are_listed(server: Server):
    alice, bob = Client(server, "Alice"), Client(server, "bob")
    assert alice.ask("JOIN den") == "OK"
    assert alice.ask("TOPIC tea") == "OK"
    assert alice.ask("PRIVATE on") == "OK"
    assert server.rooms() == [RoomInfo("lobby", 1, "", False), RoomInfo("den", 1, "tea", True)]
    assert server.people() == ["Alice", "bob"]
    assert server.people("lobby") == ["bob"]
    assert server.people("#DEN") == ["Alice"]
    assert bob.receive() == "INFO Alice left"


def test_a_kick_from_a_room_leads_to_the_lobby(server: Server):
    heard = Collector()
    server.on(Left, heard)
    alice, bob = Client(server, "alice"), Client(server, "bob")
    assert bob.ask("JOIN dev") == "OK"
    assert alice.ask("JOIN dev") == "INFO bob left"
    assert alice.receive() == "OK"
    server.kick("BOB", "too\n loud", "dev")
    assert bob.receive() == "INFO kicked too loud"
    assert alice.receive() == "INFO bob kicked"
    assert server.people("lobby") == ["bob"]
    assert without_time(heard.wait_for(3))[-1] == (Left, "dev", "bob", "kicked")


def test_a_kick_from_the_lobby_ends_the_connection(server: Server):
    alice, bob = Client(server, "alice"), Client(server, "bob")
    server.kick("bob")
    assert bob.receive() == "INFO kicked"
    assert bob.receive() == ""
    assert alice.receive() == "INFO bob kicked"
    assert server.people() == ["alice"]


# --- Documentation ---------------------------------------------------------------------------------------------------


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def test_the_bot_of_the_readme_greets_and_answers():
    (program,) = examples("README.md")
    assert program.count('"127.0.0.1", 4000)') == 1
    program = program.replace('"127.0.0.1", 4000)', '"127.0.0.1", 0)')
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(PYTHONUNBUFFERED="1"),
    ) as bot:
        try:
            assert bot.stdout is not None
            port = int(re.findall(r"\d+", bot.stdout.readline())[-1])
            address = socket.create_connection(("127.0.0.1", port), HANG_S)
            lines = address.makefile("rb")
            address.sendall(b"LOGIN alice\n")
            assert lines.readline() == b"OK\n"
            assert lines.readline() == b"MSG concierge Welcome, alice!\n"
            address.sendall(b"MSG hello\nMSG !people\n")
            assert lines.readline() == b"MSG concierge Here are: alice\n"
            lines.close()
            address.close()
        finally:
            bot.terminate()


def test_the_page_names_everything_public():
    page = (ROOT / "docs/embedding.md").read_text()
    public = {
        name for name in geventchat.__all__ if getattr(geventchat, name).__module__.endswith("embedding")
    }
    assert len(public) == 10
    uses: set[str] = {name for name, value in vars(Server).items() if not name.startswith("_") and value}
    missing = [name for name in public | uses if f"`{name}" not in page and f".{name}" not in page]
    assert not missing


@pytest.mark.parametrize(("number", "program"), list(enumerate(examples("docs/embedding.md"), 1)))
def test_the_examples_of_the_page_do_what_they_say(number: int, program: str, server: Server):
    names: dict[str, Any] = {"server": server, "gevent": gevent}
    names.update({name: getattr(geventchat, name) for name in geventchat.__all__})
    alice = Client(server, "alice")
    exec(program, names)
    alice.send("MSG hello", "MSG again")
    if "from_another_thread" in names:
        gevent.get_hub().threadpool.apply(names["from_another_thread"], ("from afar",))
    said = {1: "The kettle is on.", 2: "alice was first", 3: "This was urgent.", 4: "from afar"}[number]
    assert alice.receive() == f"MSG server {said}"
