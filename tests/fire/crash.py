"""A real server with a data directory is killed at random moments while people talk, and started again.

The data found afterwards are compared with what clients received: an observer in all rooms receives each message with its id.
The server keeps no messages in memory, so each answer to `history` comes from the disk, and whatever was received before that
question is on the disk, too: only later messages can be lost, and of those only the end.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fire.clients import Client, ClientPool, log_in
from tests.fire.process import NO_ADDRESS_RATES, ROOT, ServerProcess

ROOMS = ("lobby", "dev")
_TALKERS = 4
_MOST_LOOPS = 150
# A server that is killed while it starts is killed within these seconds after the start of its process.
_START_S = 0.6
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Crashes:
    """The result of one run. `lost_s` is how long before its kill the earliest lost message had been received."""

    rounds: int
    told: int
    lost: int
    lost_s: float
    bans: int
    topics: int


@dataclass
class Known:
    """The knowledge of the clients about the server, over all its lives."""

    epoch: str = ""
    # The text of each message by room and id, whether told live or found in the history.
    texts: dict[tuple[str, int], str] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    # Messages that were found on the disk and must stay there; by room, by id.
    kept: dict[str, dict[int, str]] = field(default_factory=lambda: {room: {} for room in ROOMS})
    last_ids: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROOMS, 0))
    # The number of the last topic and of the last ban that are certainly on the disk, and of those that were asked for.
    topic_kept: int = 0
    topic_sent: int = 0
    ban_kept: int = 0
    ban_sent: int = 0
    # The state of the server in this life.
    topic_now: int = 0

    def remember(self, room: str, id: int, text: str) -> None:
        """A message is known under this id."""
        known = self.texts.setdefault((room, id), text)
        assert known == text, f"id {id} of {room} is {known!r} and {text!r}"
        assert text in self.sent, f"no client sent {text!r}"


def crash(path: Path, rounds: int, seed: int, window_s: float) -> Crashes:
    """Kill the server this often. What was received earlier than `window_s` before a kill has to be there afterwards."""
    rng = random.Random(seed)
    told, heard, lost, lost_s = Known(), 0, 0, 0.0
    live: list[_Message] = []
    for number in range(rounds + 1):
        with ServerProcess(*_options(path), dialects=("line", "json")) as server, ClientPool() as pool:
            life = _Life(server, pool, told, number)
            life.check_settings()
            found = life.check_history(all_of_it=number == rounds)
            gone = [message for message in live if message.id not in found[message.room]]
            if gone:
                lost += len(gone)
                lost_s = max(lost_s, gone[0].age_s)
                assert gone[0].age_s <= window_s, f"{gone[0]} was lost"
            _check_order(live, gone)
            if number == rounds:
                break
            live = life.talk_until_killed(rng)
            heard += len(live)
        if rng.random() < 0.3:
            _kill_while_it_starts(path, rng)
    return Crashes(rounds, heard, lost, round(lost_s, 3), told.ban_kept, told.topic_kept)


def _options(path: Path) -> tuple[str, ...]:
    return (f"--data={path}", "--rate=0", "--history-messages=0", "--idle-timeout=0", *NO_ADDRESS_RATES)


def _kill_while_it_starts(path: Path, rng: random.Random) -> None:
    command = [sys.executable, "-m", "geventchat", "0", *_options(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            server.wait(rng.uniform(0, _START_S))
        except subprocess.TimeoutExpired:
            server.kill()


@dataclass(slots=True)
class _Message:
    """A message that the observer has received. `age_s` is how long before the kill."""

    room: str
    id: int
    text: str
    at: float
    age_s: float = 0.0
    # It was received before the question whose answer proves that it is on the disk.
    certain: bool = False


def _check_order(live: list[_Message], gone: list[_Message]) -> None:
    """Check that messages were written in order: only the last are missing, and none that was certain to be on the disk."""
    assert live[len(live) - len(gone) :] == gone, f"{gone[0]} is missing, and a later one is not"
    assert not any(message.certain for message in gone), f"{gone[0]} was on the disk"


class _Observer:
    """A client of version 2 in all rooms."""

    def __init__(self, pool: ClientPool, server: ServerProcess) -> None:
        self._pool = pool
        self._client = pool.connect(server.address("json"))
        self._read = 0
        self._asked = 0
        self.objects: list[dict[str, Any]] = []

    def send(self, **fields: object) -> str:
        """Send a request; returns its ref."""
        self._asked += 1
        ref = str(self._asked)
        self._client.send_lines(json.dumps({**fields, "ref": ref}))
        return ref

    def ask(self, **fields: object) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        ref = self.send(**fields)
        answers: list[dict[str, Any]] = []

        def answered() -> bool:
            answers.extend(one for one in self.take() if one.get("ref") == ref)
            return bool(answers)

        self._pool.wait_for(f"an answer to {fields}", answered)
        return answers[0]

    def take(self) -> list[dict[str, Any]]:
        """The objects that have arrived since the last call; a line that was cut is none."""
        end = self._client.received.rfind(b"\n") + 1
        lines = bytes(self._client.received[self._read : end]).split(b"\n")[:-1]
        self._read = max(self._read, end)
        return [json.loads(line) for line in lines]

    @property
    def client(self) -> Client:
        """Its connection."""
        return self._client


class _Life:
    """The server from a start to a kill."""

    def __init__(self, server: ServerProcess, pool: ClientPool, told: Known, number: int) -> None:
        self._server = server
        self._pool = pool
        self._told = told
        self._number = number
        # The first to enter the room owns it.
        (self._owner,) = log_in(pool, server.address(), ["owner"])
        self._command("JOIN dev")
        self._observer = _Observer(pool, server)
        welcome = self._observer.ask(type="join", v=2, username="observer", rooms=dict.fromkeys(ROOMS))
        assert welcome["type"] == "welcome", welcome
        told.epoch = told.epoch or welcome["epoch"]
        assert welcome["epoch"] == told.epoch, "a kill has begun a new epoch"
        self._state = welcome["rooms"]

    def _command(self, line: str) -> list[str]:
        """Have the owner send a command; what it receives until the command is handled."""
        mark = len(self._owner.received)
        self._owner.send_lines(line, "PING handled")
        self._pool.wait_until_found([self._owner], b"PONG handled\n")
        received = bytes(self._owner.received[mark:]).decode().splitlines()
        assert "OK" in received, received
        return received

    def check_settings(self) -> None:
        """Topics and bans that were on the disk are there."""
        told = self._told
        topic = int(self._state["dev"]["topic"] or 0)
        assert told.topic_kept <= topic <= told.topic_sent, (
            f"topic {topic}, not {told.topic_kept} to {told.topic_sent}"
        )
        told.topic_kept = told.topic_now = topic
        bans = [line.split(" ")[1] for line in self._command("BANS") if line.startswith("BAN ")]
        assert bans == [f"victim{n}" for n in range(len(bans))], bans
        assert told.ban_kept <= len(bans) <= told.ban_sent, (
            f"{len(bans)} bans, not {told.ban_kept} to {told.ban_sent}"
        )
        # People who are offline have to be asked for again.
        told.ban_kept = told.ban_sent = len(bans)

    def check_history(self, all_of_it: bool) -> dict[str, dict[int, str]]:
        """Compare the new part of the history with what was received; returns what has been found so far."""
        told = self._told
        for room, kept in told.kept.items():
            known = 0 if all_of_it else max(kept, default=0)
            found: dict[int, str] = {}
            before = self._state[room]["last_id"] + 1
            while before > known:
                page = self._observer.ask(type="history", room=room, before=before, limit=_PAGE)
                for one in page["messages"]:
                    told.remember(room, one["id"], one["message"])
                    assert one["id"] not in found, f"id {one['id']} of {room} is there twice"
                    found[one["id"]] = one["message"]
                if not page["more"]:
                    break
                before = page["messages"][0]["id"]
            assert len(set(found.values())) == len(found), f"a message of {room} is there twice"
            missing = [id for id in kept if id >= min(found, default=known + 1) and id not in found]
            assert not missing, f"{room} has lost {missing}, which had been there"
            assert not all_of_it or kept.keys() <= found.keys()
            kept.update(found)
            # Ids continue above all that were received and all that were kept.
            last_id = self._state[room]["last_id"]
            assert last_id >= max(told.last_ids[room], *kept, 0), f"{room} goes on at {last_id}"
            told.last_ids[room] = last_id
        return told.kept

    def talk_until_killed(self, rng: random.Random) -> list[_Message]:
        """Talk, change the topic, ban and ask for history; returns what was received, in order."""
        told, pool = self._told, self._pool
        talkers = log_in(pool, self._server.address(), [f"talker{n}" for n in range(_TALKERS)])
        for talker in talkers[1::2]:
            talker.send_lines("JOIN dev")
        live: list[_Message] = []
        # For each question, the state that its answer proves to be on the disk: the number of messages, the last topic and ban.
        questions: dict[str, tuple[int, int, int]] = {}

        def receive() -> None:
            for one in self._observer.take():
                if one["type"] == "chat":
                    self._hear(live, one)
                elif one["type"] == "history":
                    messages, topic, ban = questions.pop(one["ref"])
                    if not one["messages"]:
                        # A room without messages is not read.
                        continue
                    for message in live[:messages]:
                        message.certain = True
                    told.topic_kept = max(told.topic_kept, topic)
                    told.ban_kept = max(told.ban_kept, ban)

        said = 0
        for _ in range(rng.randrange(1, _MOST_LOOPS)):
            for talker in talkers:
                if not talker.unsent:
                    lines = [
                        f"{self._number}-{said + one} and some more" for one in range(rng.randrange(1, 4))
                    ]
                    said += len(lines)
                    told.sent.update(lines)
                    talker.send_lines(*[f"MSG {line}" for line in lines])
            receive()
            chance = rng.random()
            if chance < 0.05:
                told.topic_sent += 1
                self._command(f"TOPIC {told.topic_sent}")
                told.topic_now = told.topic_sent
            elif chance < 0.08:
                self._ban()
            elif chance < 0.2:
                receive()
                room = rng.choice(ROOMS)
                ref = self._observer.send(type="history", room=room, limit=1)
                questions[ref] = len(live), told.topic_now, told.ban_sent
            pool.poll(rng.choice((0.0, 0.002, 0.02)))
        killed_at = time.monotonic()
        self._server.signal(signal.SIGKILL)
        self._server.exit_code()
        # Sent bytes are in the kernel, however the connection ends.
        pool.wait_for("the observer's end", lambda: self._observer.client.sock.fileno() < 0)
        receive()
        for message in live:
            message.age_s = max(0.0, killed_at - message.at)
        return live

    def _hear(self, live: list[_Message], one: dict[str, Any]) -> None:
        room, id, text = one["room"], one["id"], one["message"]
        assert id == self._told.last_ids[room] + 1, f"id {id} of {room} after {self._told.last_ids[room]}"
        assert (room, id) not in self._told.texts, f"id {id} of {room} is used again"
        self._told.last_ids[room] = id
        self._told.remember(room, id, text)
        live.append(_Message(room, id, text, time.monotonic()))

    def _ban(self) -> None:
        """Ban someone from the room, with an address that no other client here has."""
        told = self._told
        number = told.ban_sent
        victim = self._pool.connect(
            self._server.address(), source=f"127.9.{number // 250}.{number % 250 + 1}"
        )
        victim.send_lines(f"LOGIN victim{number}")
        self._pool.wait_until_received([victim], b"OK\n")
        victim.send_lines("JOIN dev")
        self._pool.wait_for("the victim is in", _in_room(victim))
        told.ban_sent += 1
        self._command(f"BAN victim{number} 1h")
        victim.close()


def _in_room(client: Client) -> Callable[[], bool]:
    return lambda: client.received.count(b"OK\n") >= 2
