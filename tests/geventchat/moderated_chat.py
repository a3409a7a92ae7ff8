"""A chat with roles, for tests: clients with addresses and accounts, a storage that records, and a time that tests set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from geventchat.chat.accounts import Account
from geventchat.chat.chat import Chat
from geventchat.chat.commands import Command, EnterRoom, Login
from geventchat.chat.events import Accepted, Action, Event, NoticeReason, Rejected, Rejection
from geventchat.chat.records import AccountRecord, Act, Record, Restriction, RoomRecord, Stored
from geventchat.chat.results import DONE, LEAVE, Busy, More, Pending
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import Session
from geventchat.services.storage.memory import MemoryStorage
from geventchat.settings import Limits
from tests.geventchat.manual_clock import ManualClock
from tests.geventchat.recording import (
    PlainHasher,
    RecordingAudiences,
    RecordingSubscriber,
    SwitchedGate,
    at_once,
    tools,
)

LOBBY = "lobby"
NOW_S = 1_795_255_200.0
NOW_MS = 1_795_255_200_000


@dataclass
class RecordingPeer:
    """The connection of a client."""

    host: str
    rooms_left: int = 1_000
    accounts_left: int = 1_000
    disconnected: list[NoticeReason] = field(default_factory=list)
    failures: list[tuple[str, Rejection]] = field(default_factory=list)
    holds_input: bool = False

    def can_create_room(self) -> bool:
        self.rooms_left -= 1
        return self.rooms_left >= 0

    def can_register(self) -> bool:
        self.accounts_left -= 1
        return self.accounts_left >= 0

    def mark_input(self) -> bool:
        return self.holds_input

    def failed_to_prove(self, name: str, reason: Rejection) -> None:
        self.failures.append((name, reason))

    def disconnect(self, reason: NoticeReason) -> None:
        self.disconnected.append(reason)


class RecordingStorage(MemoryStorage):
    """A storage that records its calls in order, and can be too far behind."""

    def __init__(
        self,
        rooms: Sequence[RoomRecord] = (),
        restrictions: Sequence[Restriction] = (),
        accounts: Sequence[AccountRecord] = (),
    ) -> None:
        """The records are those of an earlier run."""
        super().__init__(Limits(), ManualClock(), lambda: "e1")
        self._stored = Stored(
            "e1", rooms=tuple(rooms), accounts=tuple(accounts), restrictions=tuple(restrictions)
        )
        self.kept: list[Record] = []
        self.saved: list[Record] = []
        self.forgotten: list[Record] = []
        self.acts_noted: list[Act] = []
        self.ready = True

    def load(self) -> Stored:
        return self._stored

    def restarted(self) -> RecordingStorage:
        """A new storage with the same content."""
        rooms: dict[str, RoomRecord] = {}
        restrictions: dict[object, Restriction] = {}
        accounts: dict[str, AccountRecord] = {}
        for record in self.kept:
            if isinstance(record, RoomRecord):
                rooms[record.key] = record
            elif isinstance(record, AccountRecord):
                accounts[record.key] = record
            elif isinstance(record, Restriction):
                restrictions[record.identity] = record
        return RecordingStorage(list(rooms.values()), list(restrictions.values()), list(accounts.values()))

    def save(self, record: Record) -> None:
        self.kept.append(record)
        self.saved.append(record)
        super().save(record)

    def forget(self, record: Record) -> None:
        self.kept = [one for one in self.kept if one != record]
        self.forgotten.append(record)
        super().forget(record)

    def audit(self, act: Act) -> None:
        self.acts_noted.append(act)
        super().audit(act)

    def is_ready(self, room: str = "", last_id: int = 0) -> bool:
        return self.ready and super().is_ready(room, last_id)


class Client:
    """A client. Clients of two kinds are in different audiences, like clients of two dialects."""

    def __init__(self, chat: Chat, audiences: RecordingAudiences, host: str) -> None:
        self.chat = chat
        self.subscriber = RecordingSubscriber(audiences)
        self.peer = RecordingPeer(host)
        self.session = Session(self.subscriber, self.peer)

    @property
    def room(self) -> str:
        """The key of the room that this client is in."""
        assert self.session.room is not None
        return self.session.room.key

    def do(self, command: Command) -> list[Event]:
        """Handle a command that does not wait, and return all events that this client receives."""
        self.take()
        result = self.chat.handle(self.session, command)
        while result not in (DONE, LEAVE):
            match result:
                case Pending(job, finish):
                    result = finish(job())
                case More(go_on) | Busy(_, go_on) if go_on is not None:
                    result = go_on()
                case _:
                    break
        assert result in (DONE, LEAVE), result
        return self.take()

    def refused(self, command: Command) -> Rejection:
        """The reason why a command is refused, which must be the only answer."""
        (event,) = self.do(command)
        assert isinstance(event, Rejected), event
        assert isinstance(event.reason, Rejection)
        return event.reason

    def succeeds(self, command: Command) -> Action:
        """The action of a command that is accepted, which must be the only answer."""
        (event,) = self.do(command)
        assert isinstance(event, Accepted), event
        return event.action

    def enters(self, room: str, key: str = "") -> None:
        """Enter a room."""
        self.do(EnterRoom(room, key))
        assert self.session.find_room(room) is not None, f"not in {room}"

    def take(self) -> list[Event]:
        """The events received since the last call."""
        return self.subscriber.take()


class ModeratedChat:
    """A chat whose operators have the accounts `op` and `op2`."""

    def __init__(
        self,
        operators: Sequence[str] = ("op", "op2"),
        storage: RecordingStorage | None = None,
        time_s: float = NOW_S,
        **limits: Any,
    ) -> None:
        self.now_s = time_s
        self.hasher = PlainHasher()
        self.reported: list[tuple[str, Exception]] = []
        self.storage = storage or RecordingStorage()
        self.announced_later: list[Room] = []
        self.chat = Chat(
            lambda: self.now_s,
            new_gate=lambda delay_s: SwitchedGate(),
            announce_later=self.announced_later.append,
            limits=Limits(**limits).chat,
            operators=operators,
            storage=self.storage,
            in_thread=at_once,
            tools=tools(
                self.hasher, lambda: self.now_s, lambda origin, error: self.reported.append((origin, error))
            ),
        )
        self._audiences = RecordingAudiences()

    def connect(self, host: str = "127.0.0.1", account: str = "") -> Client:
        """A client that has not logged in."""
        client = Client(self.chat, self._audiences, host)
        if account:
            if self.chat._accounts.find(account) is None:
                now_ms = int(1000 * self.now_s)
                self.chat._accounts.load([AccountRecord(account, account, "", last_login_ms=now_ms)], ())
            # As if the client had proved that the account is its own.
            client.session.account = Account(account, account)
        return client

    def login(
        self, name: str, room: str = "", host: str = "127.0.0.1", *, account: bool = False, many: bool = False
    ) -> Client:
        """A client that has logged in and, if `room` is given, entered it."""
        client = self.connect(host, name if account else "")
        client.do(Login(name))
        assert client.session.name is not None, f"{name} could not log in"
        if many:
            client.session.rooms = {LOBBY: self.chat.lobby}
        if room:
            client.enters(room)
        client.take()
        return client

    def room(self, key: str) -> Room:
        """A room that exists."""
        room = self.chat.rooms.find(key)
        assert room is not None
        return room

    def owner(self, key: str) -> str:
        """The name of the owner of a room, followed by `@` if the owner is an account."""
        owner = self.room(key).owner
        if owner is None:
            return ""
        if owner.account is not None:
            return f"{owner.account.name}@"
        (session,) = [one for one in self.chat._sessions.values() if one.owner is owner]
        assert session.name is not None
        return session.name.shown
