"""The rooms, the clients in them, and the bytes that each must receive. The dialects of the model encode them.

Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Collection

from tests.geventchat.model.dialects import Dialect, Gone
from tests.geventchat.model.requests import (
    EMPTY_ROOM_MS,
    MAX_PAGE,
    MAX_TOPIC,
    AskHistory,
    AskTopic,
    Blank,
    DirectMessage,
    EnterRoom,
    Help,
    LeaveRoom,
    ListRooms,
    Login,
    Malformed,
    Name,
    Past,
    Ping,
    Quit,
    Refusal,
    Request,
    Say,
    SetTopic,
    Text,
    UnknownCommand,
    Who,
)


class Member:
    """One connection, logged in or not."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.name: Name | None = None
        self.room: Room | None = None
        self.login_number = 0
        self.ignored: set[str] = set()
        """The keys of names."""
        self.expected = bytearray()
        """The bytes that it must have received since the last comparison."""

    def receive(self, text: str) -> None:
        self.expected += text.encode()

    @property
    def shown(self) -> str:
        """Its name; empty before login and after it has left."""
        return "" if self.name is None else self.name.shown


class Room:
    """The people in one room, by key, in the order in which they entered."""

    def __init__(self, shown: str, last_id: int = 0) -> None:
        self.shown = shown
        self.topic = ""
        self.last_id = last_id
        self.messages: list[Past] = []
        self.members: dict[str, Member] = {}
        self.empty_since_ms = 0
        self.private = False

    @property
    def users(self) -> list[str]:
        """The names, in the order in which they entered."""
        return [member.shown for member in self.members.values()]


class Rooms:
    """All rooms, by key, in the order in which they were made, and all people who are logged in."""

    def __init__(self, max_rooms: int = 10_000) -> None:
        self.members: dict[str, Member] = {}
        self.lobby = Room("lobby")
        self.rooms = {"lobby": self.lobby}
        self._logins = 0
        self._max_rooms = max_rooms
        self._last_deleted_id = 0

    @property
    def users(self) -> list[str]:
        """The names of everyone, in login order."""
        return [member.shown for member in self.members.values()]

    def handle(self, member: Member, request: Request, now_ms: int) -> bool:
        """Carry out a request; True when the member has asked to leave."""
        refusal = self._handle(member, request, now_ms)
        if refusal is not None:
            member.receive(member.dialect.error(refusal, self.subject(member, refusal, request)))
        return isinstance(request, Quit)

    def leave(self, member: Member, now_ms: int) -> None:
        """The connection has ended, for whatever reason."""
        if member.name is not None:
            shown, room = member.shown, self.remove(member, now_ms)
            self.announce_departure(room, shown, Gone.DISCONNECTED, now_ms)

    def remove(self, member: Member, now_ms: int) -> Room:
        """The name is free at once; when the others can follow, `announce_departure` tells them."""
        assert member.name is not None
        room = self.take_out(member, now_ms)
        del self.members[member.name.key]
        member.name = None
        return room

    def take_out(self, member: Member, now_ms: int) -> Room:
        """The member is in no room."""
        assert member.name is not None
        assert member.room is not None
        room = member.room
        del room.members[member.name.key]
        member.room = None
        room.empty_since_ms = now_ms
        return room

    def announce_departure(self, room: Room, shown: str, how: Gone, now_ms: int) -> None:
        """Tell the others that the client of this name left the room."""
        for other in room.members.values():
            other.receive(other.dialect.left(shown, how, now_ms // 1000))

    def login_refusal(self, name: Name) -> Refusal | None:
        """The reason to refuse a login under this name now, or None."""
        if name.refusal is not None:
            return name.refusal
        return Refusal.NAME_TAKEN if name.key in self.members else None

    def find(self, key: str, now_ms: int) -> Room | None:
        """The room with this key; those that have been empty for too long are gone."""
        for old, room in list(self.rooms.items()):
            due_ms = room.empty_since_ms + EMPTY_ROOM_MS
            if room is not self.lobby and not room.members and now_ms >= due_ms:
                del self.rooms[old]
                self._last_deleted_id = max(self._last_deleted_id, room.last_id)
        return self.rooms.get(key)

    def _handle(self, member: Member, request: Request, now_ms: int) -> Refusal | None:
        match request:
            case Blank():
                return None
            case Malformed(refusal):
                return refusal
            case Quit():
                member.receive(member.dialect.goodbye())
                self.leave(member, now_ms)
                return None
            case Login(name):
                return self._login(member, name, now_ms)
        if member.room is None:
            return Refusal.NOT_LOGGED_IN
        match request:
            case Say(text):
                return self._say(member, member.room, text.shown, now_ms)
            case DirectMessage(to, text):
                return self._send_direct(member, to, text.shown, now_ms)
            case Who():
                member.receive(member.dialect.roster(member.room.users))
            case EnterRoom(name, key):
                return self._enter(member, member.room, name, key, now_ms)
            case LeaveRoom():
                return self._leave_room(member, member.room, now_ms)
            case ListRooms():
                self.find("", now_ms)
                listed = [(room.shown, len(room.members), room.topic) for room in self.visible_to(member)]
                member.receive(member.dialect.room_list(listed))
            case AskHistory(limit, with_ids):
                page = self.page(member, member.room, min(limit, MAX_PAGE))
                member.receive(member.dialect.history(page, with_ids))
            case AskTopic():
                member.receive(member.dialect.topic(member.room.topic))
            case SetTopic(topic):
                return self._set_topic(member, member.room, topic.shown, now_ms)
            case Ping(token):
                member.receive(member.dialect.pong(token))
            case Help(everything):
                member.receive(member.dialect.help(everything))
            case UnknownCommand():
                return Refusal.UNKNOWN_COMMAND
        return None

    def _login(self, member: Member, name: Name, now_ms: int) -> Refusal | None:
        if member.name is not None:
            return Refusal.ALREADY_LOGGED_IN
        refusal = self.login_refusal(name)
        if refusal is not None:
            return refusal
        member.name = name
        self._logins += 1
        member.login_number = self._logins
        self.members[name.key] = member
        self._put_in(member, self.lobby, now_ms)
        member.receive(member.dialect.welcome(name.shown, self.lobby.users, now_ms // 1000))
        return None

    def _put_in(self, member: Member, room: Room, now_ms: int) -> None:
        assert member.name is not None
        member.room = room
        room.members[member.name.key] = member
        self.arrived(member, room)
        for other in room.members.values():
            other.receive(other.dialect.joined(member.shown, now_ms // 1000, other is member))

    def _enter(self, member: Member, left: Room, name: Name, key: str, now_ms: int) -> Refusal | None:
        if name.refusal is not None:
            return name.refusal
        room = self.find(name.key, now_ms)
        if room is not None and room is not left:
            refusal = self.refuse_entry(member, room, key, now_ms)
            if refusal is not None:
                return refusal
        if room is None:
            if len(self.rooms) >= self._max_rooms or not self.can_own(member):
                return Refusal.TOO_MANY_ROOMS
            room = self.rooms[name.key] = Room(name.shown, self._last_deleted_id)
        if room is not left:
            self._move(member, room, now_ms)
        member.receive(member.dialect.entered(room.shown, len(room.members), room.topic))
        return None

    def _leave_room(self, member: Member, left: Room, now_ms: int) -> Refusal | None:
        if left is self.lobby:
            return Refusal.ALREADY_IN_LOBBY
        self._move(member, self.lobby, now_ms)
        member.receive(member.dialect.left_room(self.lobby.shown))
        return None

    def _move(self, member: Member, room: Room, now_ms: int) -> None:
        assert member.name is not None
        left = self.take_out(member, now_ms)
        self._put_in(member, room, now_ms)
        self.went(left, member.name, now_ms)

    def went(self, left: Room, name: Name, now_ms: int) -> None:
        """A member has gone to another room."""
        self.announce_departure(left, name.shown, Gone.LEFT, now_ms)

    def _set_topic(self, member: Member, room: Room, topic: str, now_ms: int) -> Refusal | None:
        if len(topic) > MAX_TOPIC:
            return Refusal.TOPIC_TOO_LONG
        refusal = self.refuse_speech(member, room, now_ms)
        if refusal is not None:
            return refusal
        if topic != room.topic:
            room.topic = topic
            for other in room.members.values():
                if other is not member:
                    other.receive(other.dialect.topic_changed(member.shown, topic))
        member.receive(member.dialect.topic_set(topic))
        return None

    def _say(self, member: Member, room: Room, text: str, now_ms: int) -> Refusal | None:
        if not text:
            return Refusal.EMPTY_MESSAGE
        refusal = self.refuse_speech(member, room, now_ms)
        if refusal is not None:
            return refusal
        assert member.name is not None
        room.last_id += 1
        room.messages.append(Past(room.last_id, member.shown, text, now_ms, member.name.key))
        for other in room.members.values():
            if member.name.key in other.ignored:
                continue
            other.receive(other.dialect.said(member.shown, text, now_ms // 1000, other is member))
        return None

    def _send_direct(self, member: Member, to: Name, text: str, now_ms: int) -> Refusal | None:
        if not text:
            return Refusal.EMPTY_DIRECT_MESSAGE
        other = self.members.get(to.key)
        if other is None:
            return Refusal.USER_NOT_FOUND
        now = now_ms // 1000
        member.receive(member.dialect.direct_message_sent(member.shown, to.typed, other.shown, text, now))
        if member.name is not None and member.name.key in other.ignored:
            return None
        other.receive(other.dialect.direct_message_received(member.shown, other.shown, text, now))
        return None

    # Decisions of moderation: here everything is allowed, and every client sees every room.

    def refuse_entry(self, member: Member, room: Room, key: str, now_ms: int) -> Refusal | None:
        return None

    def refuse_speech(self, member: Member, room: Room, now_ms: int) -> Refusal | None:
        return None

    def can_own(self, member: Member) -> bool:
        return True

    def arrived(self, member: Member, room: Room) -> None:
        pass

    def visible_to(self, member: Member) -> Collection[Room]:
        return self.rooms.values()

    def page(self, member: Member, room: Room, count: int) -> list[Past]:
        """The last messages of the room."""
        return room.messages[-count:] if count else []

    def subject(self, member: Member, refusal: Refusal, request: Request) -> str:
        """The subject that an error names."""
        match request:
            case DirectMessage(to, _):
                return to.typed
            case UnknownCommand(verb):
                return verb
            case EnterRoom(room):
                return room.typed
        return ""


def name_of(typed: str) -> Name:
    """A name without anything to normalise."""
    return Name(typed, typed, typed.casefold())


def text_of(typed: str) -> Text:
    """A text without anything to clean."""
    return Text(typed, typed)
