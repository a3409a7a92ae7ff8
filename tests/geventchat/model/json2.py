"""Conversations in version 2 of json, written from docs/json.md: the objects that each client receives for a request.

Everyone is logged in, in the lobby at first. No time passes, and nothing is missed: requests have no `after`.
"""

from __future__ import annotations

import re
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
}


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
    last_id: int = 0


class Conversation:
    """All clients, and what each has yet to receive."""

    def __init__(self, people: tuple[str, ...], now_ms: int, max_rooms: int) -> None:
        self.received: dict[str, list[Object]] = {name: [] for name in people}
        self._now_ms = now_ms
        self._max_rooms = max_rooms
        self._rooms = {"lobby": Room("lobby", list(people))}
        self._keys: dict[tuple[str, str], Object] = {}
        self._have_typed: set[str] = set()

    def handle(self, name: str, request: Object) -> None:
        """Carry out a request. Its answer, if it has one, comes after the events that it causes for its client."""
        try:
            answer = self._answer(name, request)
        except Refused as refused:
            answer = refused.answer
        if "ref" in request:
            self.received[name].append({**answer, "ref": request["ref"]})
        elif answer["type"] != "ok":
            self.received[name].append(answer)

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
                return self._enter(name, request.get("room", ""))
            case {"type": "leave"}:
                room = self._own(name, request)
                room.people.remove(name)
                self._tell(room, name, "user_left")
                return {"type": "left", "room": room.shown}
            case {"type": "users"}:
                return self._users(name, request)
            case {"type": "rooms"}:
                listed = [
                    {"room": room.shown, "users": len(room.people), "topic": room.topic}
                    for room in self._rooms.values()
                ]
                return {"type": "rooms", "rooms": listed}
            case {"type": "topic"}:
                return self._topic(name, request)
            case {"type": "typing"}:
                room = self._own(name, request)
                if name not in self._have_typed:
                    self._have_typed.add(name)
                    self._tell(room, name, "typing")
                return {"type": "ok"}
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
        room.last_id += 1
        for each in room.people:
            self._send(
                each, type="chat", room=room.shown, id=room.last_id, username=name, message=request["message"]
            )
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
            self._send(each, type="dm", username=name, to=to, message=request["message"])
        return {"type": "ok"}

    def _enter(self, name: str, typed: str) -> Object:
        key = self._key(typed)
        mine = [room for room in self._rooms.values() if name in room.people]
        room = self._rooms.get(key)
        if room is None or name not in room.people:
            if len(mine) >= self._max_rooms:
                raise Refused("too-many-rooms", typed)
            if room is None:
                room = self._rooms[key] = Room(typed.removeprefix("#"))
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
        if topic != room.topic:
            room.topic = topic
            self._tell(room, name, "topic", topic=topic)
        return {"type": "ok"}

    def _own(self, name: str, request: Object) -> Room:
        """The room that is meant, which must be one of the client's."""
        typed = request.get("room", "")
        mine = [room for room in self._rooms.values() if name in room.people]
        if not typed:
            if len(mine) != 1:
                raise Refused("invalid-room-name")
            return mine[0]
        room = self._rooms.get(self._key(typed))
        if room is None:
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
