"""Conversations in version 2 of json, written from docs/json.md: the objects that each client receives for a request.

Everyone is logged in, in the lobby at first, without an account, and stays. No time passes, and nothing is missed: requests
have no `after`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

_ROOM_NAME = re.compile(r"#?([A-Za-z0-9_.-]{1,32})")
_TEXTS = {
    "empty-message": "Empty message",
    "invalid-room-name": "Invalid room name",
    "no-such-room": "No such room",
    "not-in-room": "Not in the room",
    "too-many-rooms": "Too many rooms",
    "topic-too-long": "Topic too long",
    "user-not-found": "User not found",
    "unknown-command": "Unknown message type",
    "already-logged-in": "Already joined",
    "not-permitted": "Not permitted",
    "wrong-key": "Wrong key",
    "invitation-required": "Invitation required",
    "banned": "Banned from the room",
    "muted": "Muted",
    "key-too-long": "Key too long",
    "no-such-message": "No such message",
}


_MODERATION = frozenset(
    (
        *("kick", "ban", "unban", "bans", "mute", "unmute", "invite", "private", "key", "moderated", "voice"),
        *("unvoice", "mod", "unmod", "owner", "delete"),
    )
)


class Refused(Exception):
    """The request is answered with this error."""

    def __init__(self, code: str, room: str = "", message: str = "") -> None:
        self.answer: Object = {"type": "error", "code": code, "message": message or _TEXTS[code]}
        if room:
            self.answer["room"] = room


@dataclass
class Room:
    """The names in a room, in the order in which they entered."""

    shown: str
    people: list[str] = field(default_factory=list)
    topic: str = ""
    messages: list[Object] = field(default_factory=list)
    owner: str = ""
    private: bool = False
    key: str = ""
    moderated: bool = False
    voices: set[str] = field(default_factory=set)
    invited: set[str] = field(default_factory=set)
    bans: dict[str, Object] = field(default_factory=dict)
    mutes: dict[str, Object] = field(default_factory=dict)

    @property
    def last_id(self) -> int:
        return len(self.messages)

    def remove(self, name: str) -> None:
        self.people.remove(name)
        self.voices.discard(name)


class Conversation:
    """All clients, and what each has yet to receive."""

    def __init__(self, people: tuple[str, ...], now_ms: int, max_rooms: int) -> None:
        self.received: dict[str, list[Object]] = {name: [] for name in people}
        self._now_ms = now_ms
        self._max_rooms = max_rooms
        self._rooms = {"lobby": Room("lobby", list(people))}
        self._keys: dict[tuple[str, str], Object] = {}
        self._have_typed: set[str] = set()
        self._ignored: dict[str, set[str]] = {name: set() for name in people}
        self._removal: tuple[Room, str, str] | None = None

    def handle(self, name: str, request: Object) -> None:
        """Carry out a request. Its answer, if it has one, comes after the events that it causes for its client.

        Only what a kick or a ban causes comes after its answer.
        """
        try:
            answer = self._answer(name, request)
        except Refused as refused:
            answer = refused.answer
        if "ref" in request:
            self.received[name].append({**answer, "ref": request["ref"]})
        elif answer["type"] != "ok":
            self.received[name].append(answer)
        if self._removal is not None:
            self._remove(*self._removal)
            self._removal = None

    def _answer(self, name: str, request: Object) -> Object:
        match request:
            case {"type": "chat" | "dm", "message": message} if not isinstance(message, str):
                raise Refused("invalid-field", message="Invalid field: message")
            case {"type": "chat" | "dm", "key": key} if (name, key) in self._keys:
                return self._keys[name, key]
            case {"type": "chat"}:
                answer = self._chat(name, request)
            case {"type": "dm"}:
                answer = self._dm(name, request)
            case {"type": "enter"}:
                return self._enter(name, request.get("room", ""), request.get("key", ""))
            case {"type": "leave"}:
                room = self._own(name, request)
                room.remove(name)
                self._tell(room, name, "user_left")
                return {"type": "left", "room": room.shown}
            case {"type": "users"}:
                return self._users(name, request)
            case {"type": "rooms"}:
                listed = [
                    {"room": room.shown, "users": len(room.people), "topic": room.topic}
                    for room in self._visible_to(name)
                ]
                return {"type": "rooms", "rooms": listed}
            case {"type": "topic"}:
                return self._topic(name, request)
            case {"type": "typing"}:
                room = self._own(name, request)
                self._check_speech(room, name, request)
                if name not in self._have_typed:
                    self._have_typed.add(name)
                    for each in room.people:
                        if each != name and name not in self._ignored[each]:
                            self._send(each, type="typing", room=room.shown, username=name)
                return {"type": "ok"}
            case {"type": "history"}:
                return self._history(name, self._own(name, request))
            case {"type": "ignore" | "unignore" as kind, "username": who}:
                return self._ignore(name, who.lower(), kind == "ignore")
            case {"type": kind} if kind in _MODERATION:
                return self._moderate(name, self._own(name, request), request)
            case {"type": "ping"}:
                token = request.get("token", "")
                return {"type": "pong", "token": token} if token else {"type": "pong"}
            case {"type": "join"}:
                raise Refused("already-logged-in")
            case _:
                raise Refused("unknown-command")
        if request.get("key"):
            self._keys[name, request["key"]] = answer
        return answer

    def _chat(self, name: str, request: Object) -> Object:
        room = self._own(name, request)
        if not request["message"]:
            raise Refused("empty-message", request.get("room", ""))
        self._check_speech(room, name, request)
        said = {
            "type": "chat",
            "room": room.shown,
            "id": room.last_id + 1,
            "username": name,
            "message": request["message"],
            "timestamp_ms": self._now_ms,
        }
        room.messages.append(said)
        for each in room.people:
            if name not in self._ignored[each]:
                self.received[each].append(said)
        return {"type": "ok", "room": room.shown, "id": room.last_id}

    def _dm(self, name: str, request: Object) -> Object:
        to = request["to"].lower()
        if not request["message"]:
            raise Refused("invalid-dm-format", message="Empty message")
        if not to:
            raise Refused("invalid-dm-format", message="User not found")
        if to not in self.received:
            raise Refused("user-not-found")
        for each in dict.fromkeys((name, to)):
            if name in self._ignored[each]:
                continue
            self._send(each, type="dm", username=name, to=to, message=request["message"])
        return {"type": "ok"}

    def _enter(self, name: str, typed: str, room_key: str) -> Object:
        key = self._key(typed)
        mine = [room for room in self._rooms.values() if name in room.people]
        room = self._rooms.get(key)
        if room is None or name not in room.people:
            if len(mine) >= self._max_rooms:
                raise Refused("too-many-rooms", typed)
            if room is None:
                room = self._rooms[key] = Room(typed.removeprefix("#"), owner=name)
            self._check_entry(room, name, typed, room_key)
            self._tell(room, name, "user_joined")
            room.people.append(name)
        return {
            "type": "entered",
            "room": room.shown,
            "users": list(room.people),
            "user_count": len(room.people),
            "last_id": room.last_id,
            "replay_from": room.last_id + 1,
            "topic": room.topic,
        }

    def _users(self, name: str, request: Object) -> Object:
        room, after = self._own(name, request), request.get("after", "").lower()
        if after and after not in room.people:
            raise Refused("user-not-found", request.get("room", ""))
        users = room.people[room.people.index(after) + 1 if after else 0 :]
        return {"type": "users", "room": room.shown, "users": users, "user_count": len(room.people)}

    def _topic(self, name: str, request: Object) -> Object:
        room = self._own(name, request)
        if "topic" not in request:
            return {"type": "topic", "room": room.shown, "topic": room.topic}
        topic = request["topic"]
        if len(topic) > 300:
            raise Refused("topic-too-long", request.get("room", ""))
        self._check_speech(room, name, request)
        if topic != room.topic:
            room.topic = topic
            self._tell(room, name, "topic", topic=topic)
        return {"type": "ok"}

    # --- Moderation --------------------------------------------------------------------------------------------------

    def _visible_to(self, name: str) -> list[Room]:
        return [
            room
            for room in self._rooms.values()
            if not room.private or name in room.people or name == room.owner
        ]

    def _check_entry(self, room: Room, name: str, typed: str, key: str) -> None:
        if (room.private or room.key) and room.owner != name and name not in room.invited:
            if room.private and not key:
                raise Refused("invitation-required", typed)
            if not room.key or room.key != key:
                raise Refused("wrong-key", typed)
        if name in room.bans:
            raise Refused("banned", typed)

    def _check_speech(self, room: Room, name: str, request: Object) -> None:
        if name in room.mutes:
            raise Refused("muted", request.get("room", ""))
        if room.moderated and name != room.owner and name not in room.voices:
            raise Refused("muted", request.get("room", ""), "The room is moderated")

    def _moderate(self, name: str, room: Room, request: Object) -> Object:
        typed, kind, who = request.get("room", ""), request["type"], request.get("username", "").lower()
        is_closed = bool(room.private or room.key)
        if room.owner != name and (kind != "invite" or is_closed):
            raise Refused("not-permitted", typed)
        lists = {"ban": room.bans, "mute": room.mutes}
        everyone: Collection[str] = self.received
        match kind:
            case "private":
                room.private = request["on"]
            case "moderated":
                room.moderated = request["on"]
            case "key" if len(request["key"]) > 64:
                raise Refused("key-too-long", typed)
            case "key":
                room.key = request["key"]
            case "bans":
                return {"type": "bans", "room": room.shown, "bans": list(room.bans.values()), "more": False}
            case "delete":
                self._delete(room, request)
            case "unban" | "unmute":
                if who not in lists[kind[2:]]:
                    raise Refused("user-not-found", typed)
                del lists[kind[2:]][who]
            case "unmod":
                raise Refused("user-not-found", typed)
            case _ if who not in (room.people if kind in ("kick", "voice", "unvoice", "owner") else everyone):
                raise Refused("user-not-found", typed)
            case "mod":
                raise Refused("not-permitted", typed)
            case "kick" | "ban" | "mute" if who == name:
                raise Refused("not-permitted", typed)
            case "kick":
                self._removal = room, who, request.get("reason", "")
            case "ban" | "mute":
                self._impose(lists[kind], room, who, request)
            case "invite":
                self._invite(room, name, who, is_closed)
            case "voice":
                room.voices.add(who)
            case "unvoice":
                room.voices.discard(who)
            case "owner":
                room.owner = who
        return {"type": "ok"}

    def _impose(self, bans: dict[str, Object], room: Room, who: str, request: Object) -> None:
        seconds, reason = request.get("seconds"), request.get("reason", "")
        bans.pop(who, None)
        until_ms = None if seconds is None else self._now_ms + 1000 * seconds
        bans[who] = {"username": who, "until_ms": until_ms, "reason": reason}
        if request["type"] == "ban":
            self._removal = room, who, reason

    def _remove(self, room: Room, who: str, reason: str) -> None:
        room.invited.discard(who)
        if who in room.people:
            room.remove(who)
            self._send(who, type="kicked", room=room.shown, reason=reason)
            self._tell(room, who, "user_left")

    def _invite(self, room: Room, name: str, who: str, is_closed: bool) -> None:
        if who in room.people:
            return
        if is_closed:
            room.invited.add(who)
        if name not in self._ignored[who]:
            self._send(who, type="invited", room=room.shown, username=name)

    def _delete(self, room: Room, request: Object) -> None:
        id = request["id"]
        if id > room.last_id:
            raise Refused("no-such-message", request.get("room", ""))
        message = room.messages[id - 1]
        if "message" in message:
            without = {key: value for key, value in message.items() if key != "message"}
            room.messages[id - 1] = {**without, "deleted": True}
            for each in room.people:
                self._send(each, type="deleted", room=room.shown, id=id)

    def _ignore(self, name: str, who: str, on: bool) -> Object:
        ignored = self._ignored[name]
        if who not in (self.received if on else ignored):
            raise Refused("user-not-found")
        if who == name:
            raise Refused("not-permitted")
        if on:
            ignored.add(who)
        else:
            ignored.remove(who)
        return {"type": "ok"}

    def _history(self, name: str, room: Room) -> Object:
        """The latest 20; where ignoring leaves none of them, the page before."""
        end = room.last_id
        while True:
            start = max(end - 20, 0)
            heard = [one for one in room.messages[start:end] if one["username"] not in self._ignored[name]]
            if heard or not start:
                return {"type": "history", "room": room.shown, "messages": heard, "more": start > 0}
            end = start

    # --- What all of them need ---------------------------------------------------------------------------------------

    def _own(self, name: str, request: Object) -> Room:
        """The room that is meant, which must be one of the client's."""
        typed = request.get("room", "")
        mine = [room for room in self._rooms.values() if name in room.people]
        if not typed:
            if len(mine) != 1:
                raise Refused("invalid-room-name")
            return mine[0]
        room = self._rooms.get(self._key(typed))
        if room is None or room not in self._visible_to(name):
            raise Refused("no-such-room", typed)
        if room not in mine:
            raise Refused("not-in-room", typed)
        return room

    def _key(self, typed: str) -> str:
        match = _ROOM_NAME.fullmatch(typed)
        if match is None:
            raise Refused("invalid-room-name", typed)
        return match[1].lower()

    def _tell(self, room: Room, name: str, kind: str, **fields: object) -> None:
        """Send an event to the others in a room."""
        for each in room.people:
            if each != name:
                self._send(each, type=kind, room=room.shown, username=name, **fields)

    def _send(self, recipient: str, **fields: object) -> None:
        self.received[recipient].append({**fields, "timestamp_ms": self._now_ms})
