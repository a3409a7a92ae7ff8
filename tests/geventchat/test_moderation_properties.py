"""Whatever people do to each other, the invariants of roles hold, and forbidden messages are neither sent nor heard."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from geventchat.chat.commands import (
    Delete,
    EnterRoom,
    Ignore,
    Impose,
    Invite,
    Kick,
    LeaveRoom,
    Lift,
    ListRooms,
    Login,
    PassOwnership,
    Quit,
    Sanction,
    Say,
    SendDirectMessage,
    SetKey,
    SetModerated,
    SetModerator,
    SetPrivate,
    SetVoice,
)
from geventchat.chat.events import DirectMessage, RoomList, Said
from geventchat.chat.history import _size
from tests.geventchat.moderated_chat import LOBBY, Client, ModeratedChat

PEOPLE = ["ann", "bob", "cid", "dee", "op"]
WITH_ACCOUNT = {"cid", "dee", "op"}
ROOMS = ["dev", "ops", LOBBY]
LIMITS = {
    "kept_rooms": 1,
    "rooms_per_client": 2,
    "room_bans": 2,
    "server_bans": 2,
    "room_roles": 1,
    "invitations": 1,
    "ignored": 2,
    "rooms": 3,
}

names = st.sampled_from(PEOPLE)
rooms = st.sampled_from(ROOMS)
flags = st.booleans()
sanctions = st.sampled_from(Sanction)
targets = st.sampled_from([*PEOPLE, "absent", "name:ann", "account:cid", "198.51.100.0/24"])


class Roles(RuleBasedStateMachine):
    """A few people with and without accounts, in a few rooms, with tight limits."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = ModeratedChat(operators=["op"], **LIMITS)
        self.people: dict[str, Client] = {}

    def client(self, name: str) -> Client | None:
        """The client with this name; logs it in if it is not, unless it is banned."""
        client = self.people.get(name)
        if client is None or client.session.name is None:
            host = "198.51.100.7" if name in {"bob", "dee"} else "127.0.0.1"
            client = self.scene.connect(host, name if name in WITH_ACCOUNT else "")
            client.do(login(name, many=name == "dee"))
            self.people[name] = client
        return client if client.session.name is not None else None

    def do(self, name: str, command: Any) -> list[Any]:
        client = self.client(name)
        return [] if client is None or not in_its_room(client, command) else client.do(command)

    @rule(name=names, room=rooms, key=st.sampled_from(["", "k", "x"]))
    def enter(self, name: str, room: str, key: str) -> None:
        self.do(name, EnterRoom(room, key))

    @rule(name=names)
    def leave_room(self, name: str) -> None:
        self.do(name, LeaveRoom())

    @rule(name=names)
    def quit(self, name: str) -> None:
        self.do(name, Quit())

    @rule(seconds=st.sampled_from([1, 61, 601]))
    def wait(self, seconds: int) -> None:
        self.scene.now_s += seconds

    @rule(name=names, who=targets, sanction=sanctions, seconds=st.sampled_from([None, 60]))
    def impose(self, name: str, who: str, sanction: Sanction, seconds: int | None) -> None:
        self.do(name, Impose(sanction, who, seconds))

    @rule(name=names, who=targets, sanction=sanctions)
    def lift(self, name: str, who: str, sanction: Sanction) -> None:
        self.do(name, Lift(sanction, who))

    @rule(
        name=names,
        who=names,
        on=flags,
        command=st.sampled_from(["kick", "invite", "voice", "mod", "owner", "ignore"]),
    )
    def about_someone(self, name: str, who: str, on: bool, command: str) -> None:
        commands = {
            "kick": Kick(who),
            "invite": Invite(who),
            "voice": SetVoice(who, on),
            "mod": SetModerator(who, on),
            "owner": PassOwnership(who),
            "ignore": Ignore(who, on),
        }
        self.do(name, commands[command])

    @rule(name=names, on=flags, command=st.sampled_from([SetPrivate, SetModerated]))
    def set(self, name: str, on: bool, command: type[SetPrivate] | type[SetModerated]) -> None:
        self.do(name, command(on))

    @rule(name=names, key=st.sampled_from(["", "k"]))
    def set_key(self, name: str, key: str) -> None:
        self.do(name, SetKey(key))

    @rule(name=names, to=names)
    def write(self, name: str, to: str) -> None:
        speaker = self.client(name)
        if speaker is None or not in_its_room(speaker, Say(["hi"])):
            return
        others = {other: client for other, client in self.people.items() if client is not speaker}
        for client in others.values():
            client.take()
        refused = speaker.do(Say(["hi"]))
        speaker.do(SendDirectMessage(to, "psst"))
        for other, client in others.items():
            received = client.take()
            hears = client.session.ignored is None or name not in client.session.ignored
            is_here = client.session.name is not None and speaker.session.room in client.session.all_rooms()
            assert any(isinstance(event, Said) for event in received) == (is_here and hears and not refused)
            assert not any(isinstance(event, DirectMessage) for event in received) or (hears and other == to)

    @rule(name=names, id=st.integers(0, 5), before=flags)
    def delete(self, name: str, id: int, before: bool) -> None:
        client = self.client(name)
        if client is not None and client.session.room is not None and before:
            id = client.session.room.last_id - id
        self.do(name, Delete(id))

    @invariant()
    def what_is_kept_is_counted(self) -> None:
        logs = [room.log for room in self.scene.chat.rooms]
        for log in logs:
            assert log.bytes == sum(map(_size, log.since(log.start)))
            assert log.messages == sum(
                len(event.texts) for event in log.since(log.start) if isinstance(event, Said)
            )
        assert self.scene.chat.rooms.history.bytes == sum(log.bytes for log in logs)

    @rule(name=names)
    def list(self, name: str) -> None:
        events = self.do(name, ListRooms())
        if not events:
            return
        (listed,) = events
        assert isinstance(listed, RoomList)
        session = self.people[name].session
        chat = self.scene.chat
        seen = [room.name for room in chat.rooms if chat._permissions.can_see(session, room)]
        assert sorted(one.room for one in listed.rooms) == sorted(seen)

    @invariant()
    def owners_own_what_they_own(self) -> None:
        chat = self.scene.chat
        owned = 0
        for room in chat.rooms:
            if room.owner is None:
                continue
            owned += 1
            assert room is not chat.lobby
            assert room in room.owner.rooms
            if room.owner.account is not None:
                assert chat._owners._accounts[room.owner.account.key] is room.owner
                assert len(room.owner.rooms) <= LIMITS["kept_rooms"]
            else:
                assert any(session.owner is room.owner for session in chat._sessions.values())
                assert len(room.owner.rooms) <= LIMITS["rooms_per_client"]
        everyone = [
            *chat._owners._accounts.values(),
            *[one.owner for one in chat._sessions.values() if one.owner],
        ]
        assert sum(len(owner.rooms) for owner in everyone) == owned
        assert all(owner.rooms for owner in chat._owners._accounts.values())

    @invariant()
    def a_room_with_people_has_an_owner_if_one_of_them_can_own_it(self) -> None:
        chat = self.scene.chat
        for room in chat.rooms:
            if room.names and room.owner is None and room is not chat.lobby:
                first = chat._sessions[next(iter(room.keys))]
                assert first.owner is not None
                assert len(first.owner.rooms) <= LIMITS["rooms_per_client"]

    @invariant()
    def lists_are_bounded_and_agree(self) -> None:
        chat = self.scene.chat
        lists = [bans for room in chat.rooms if room is not chat.lobby for bans in (room.bans, room.mutes)]
        assert chat.rooms.ban_total.bans == sum(len(bans.by_label) for bans in lists)
        for room in chat.rooms:
            most = LIMITS["server_bans"] if room is chat.lobby else LIMITS["room_bans"]
            assert len(room.bans.by_label) <= most
            assert len(room.mutes.by_label) <= most
            assert len(room.moderators) <= LIMITS["room_roles"]
            assert len(room.voices) <= LIMITS["room_roles"]
            assert len(room.invitations) <= LIMITS["invitations"]
            assert room.guest_voices <= set(room.keys)
            assert (room in chat.rooms.listed()) == (not room.private)
        ignoring = {
            (author, one.name.key) for author, those in chat._ignores._listeners.items() for one in those
        }
        assert ignoring == {
            (author, key) for key, one in chat._sessions.items() for author in one.ignored or ()
        }

    @invariant()
    def no_banned_person_is_on_the_server_or_in_the_room(self) -> None:
        """A ban removes the people that it applies to at once."""
        chat = self.scene.chat
        now_ms = int(1000 * self.scene.now_s)
        for session in chat._sessions.values():
            assert not chat._permissions.is_banned(session, session.name, now_ms)
            for room in session.all_rooms():
                if room is not chat.lobby:
                    assert room.bans.find(chat._permissions.person(session, session.name), now_ms) is None

    @invariant()
    def people_are_where_they_think_they_are(self) -> None:
        chat = self.scene.chat
        for key, session in chat._sessions.items():
            assert session.name is not None
            assert {room.key for room in chat.rooms if room.has(key)} == {
                room.key for room in session.all_rooms()
            }
            if session.rooms is None:
                assert session.room is not None


def login(name: str, many: bool) -> Any:
    return Login(name, rooms=(EnterRoom(LOBBY),)) if many else Login(name)


def in_its_room(client: Client, command: Any) -> bool:
    """False for a command about the current room by a client that is in none or in several."""
    return client.session.room is not None or isinstance(command, EnterRoom | Ignore | ListRooms | Quit)


TestRoles = Roles.TestCase
TestRoles.settings = settings(stateful_step_count=60)
