"""How each dialect spells requests and responses: the tables of docs/protocols.md as code.

Responses are text; an empty one means no response. `now` is whole seconds since 1970.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum, auto
from typing import ClassVar, Protocol

from harness.generate import Pick
from tests.geventchat.model.requests import (
    INVALID_NAMES,
    INVALID_ROOMS,
    MAX_LINE,
    NAMES,
    NOT_UTF8,
    PASSWORDS,
    ROOMS,
    TEXTS,
    AskHistory,
    AskTopic,
    Blank,
    ChangePassword,
    Delete,
    DirectMessage,
    EnterRoom,
    Help,
    Ignore,
    Impose,
    Invite,
    Kick,
    LeaveRoom,
    Lift,
    Line,
    ListBans,
    ListRooms,
    Login,
    Malformed,
    Misused,
    Name,
    PassOwnership,
    Past,
    Ping,
    Quit,
    Refusal,
    Register,
    Request,
    RevokeTokens,
    Sanction,
    Say,
    SetKey,
    SetModerated,
    SetModerator,
    SetPrivate,
    SetTopic,
    SetVoice,
    Text,
    UnknownCommand,
    Who,
)


class Gone(Enum):
    """How someone left a room."""

    DISCONNECTED = auto()
    LEFT = auto()
    KICKED = auto()


class Dialect(Protocol):
    """One dialect, both directions."""

    name: str
    idle_s: int | None
    # The one who kicks sees the other leave.
    shows_own_kicks: bool

    def random_line(self, pick: Pick, logged_in: bool) -> Line:
        """A line that a client can send."""

    # Requests, as text that ends in a newline.

    def login(self, name: str) -> str: ...
    def say(self, text: str) -> str: ...
    def direct_message(self, to: str, text: str) -> str: ...
    def who(self) -> str: ...
    def enter(self, room: str) -> str: ...
    def register(self, password: str) -> str: ...
    def ping(self) -> str: ...
    def quit(self) -> str: ...

    # Responses to one client.

    def error(self, refusal: Refusal, subject: str) -> str: ...
    def welcome(self, name: str, users: Sequence[str], now: int) -> str: ...
    def direct_message_sent(self, name: str, typed: str, shown: str, text: str, now: int) -> str: ...
    def roster(self, users: Sequence[str]) -> str: ...
    def entered(self, room: str, people: int, topic: str) -> str: ...
    def left_room(self, now_in: str) -> str: ...
    def room_list(self, rooms: Sequence[tuple[str, int, str]]) -> str: ...
    def history(self, messages: Sequence[Past], with_ids: bool = False) -> str: ...
    def topic(self, topic: str) -> str: ...
    def topic_set(self, topic: str) -> str: ...
    def pong(self, token: str) -> str: ...
    def help(self, everything: bool) -> str: ...
    def done(self, sentence: str) -> str: ...
    def bans(self, bans: Sequence[tuple[str, int | None, str]]) -> str: ...
    def kicked(self, room: str, reason: str, now_in: str) -> str: ...
    def invited(self, room: str, by: str) -> str: ...
    def message_kept(self, to: str) -> str: ...
    def replaced(self) -> str: ...
    def goodbye(self) -> str: ...
    def idle_notice(self) -> str: ...

    # Events of others. `own`: the recipient also caused it.

    def joined(self, name: str, now: int, own: bool) -> str: ...
    def said(self, name: str, text: str, now: int, own: bool) -> str: ...
    def direct_message_received(self, name: str, to: str, text: str, now: int) -> str: ...
    def left(self, name: str, how: Gone, now: int) -> str: ...
    def topic_changed(self, name: str, topic: str) -> str: ...


_KINDS = ("say", "say", "login", "direct", "who", "ping", "quit", "blank", "unknown", "malformed")
_NO_TOPIC = Text("-", "")
_ROOM_KINDS = ("enter", "enter", "leave", "list", "topic", "history", "moderate", "moderate")


@dataclass(frozen=True)
class People:
    """Which names and rooms clients write, and what they do, the more often the more often it is here."""

    names: tuple[Name, ...] = NAMES
    invalid_names: tuple[Name, ...] = INVALID_NAMES
    rooms: tuple[Name, ...] = (*ROOMS, *ROOMS, *INVALID_ROOMS)
    kinds: tuple[str, ...] = (*_KINDS, "help", *_ROOM_KINDS)
    passwords: tuple[Text, ...] = ()
    """The optional argument of a login, after the name."""


ANYONE = People()
# A few people who are mostly in one room.
NEIGHBOURS = People(
    names=(*NAMES[:2], NAMES[4]),
    invalid_names=(),
    rooms=(*[ROOMS[2]] * 5, ROOMS[4]),
    kinds=(
        "say",
        "say",
        "say",
        "enter",
        "leave",
        "topic",
        "list",
        "history",
        "history",
        "direct",
        *["moderate"] * 15,
    ),
)

# A few people who have accounts, in the lobby.
HOLDERS = People(
    names=(*NAMES[:2], *NAMES[:2], NAMES[3], NAMES[4]),
    invalid_names=(),
    kinds=(
        "say",
        "who",
        "quit",
        "quit",
        "login",
        "token",
        *["ignore", "register", "change"] * 3,
        *["direct"] * 15,
    ),
    passwords=PASSWORDS,
)


def _account_request(kind: str, pick: Pick, people: People) -> tuple[str, Request] | None:
    """The word, the arguments and the meaning of a request about accounts, as `line` and `slash` spell it."""
    match kind:
        case "register":
            first = pick(PASSWORDS)
            usage = Misused("/register <password>")
            return pick(((f"REGISTER {first.typed}", Register(first)), ("register", usage)))
        case "change":
            usage = Misused("/password <old> <new>")
            first, second = pick(PASSWORDS), pick(PASSWORDS)
            old, new = first.typed.strip(), second.typed.strip()
            request = ChangePassword(first, second)
            return pick((*[(f"Password {old} {new}", request)] * 3, (f"PASSWORD {old} {new} x", usage)))
        case "token":
            usage = Misused("/token [revoke]")
            return pick((("TOKEN Revoke", RevokeTokens()), ("token please", usage)))
        case "ignore":
            who, on = pick(people.names), pick((True, True, False))
            return f"{'' if on else 'UN'}IGNORE {who.typed}", Ignore(who, on)
    return None


def _login_request(pick: Pick, people: People, name: Name) -> tuple[str, Login]:
    password = pick((None, None, *people.passwords)) if people.passwords else None
    return (name.typed if password is None else f"{name.typed} {password.typed}"), Login(name, password)


def _utc(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms // 1000, timezone.utc)
    return moment.isoformat().replace("+00:00", "Z")


def _room_request(kind: str, pick: Pick, people: People) -> tuple[str, Request] | None:
    """The word, the arguments and the meaning of a request about rooms, as `line` and `slash` spell it."""
    match kind:
        case "enter":
            room = pick(people.rooms)
            key = pick(("", "", "", "sesame", "x")) if room.refusal is None else ""
            return f"{pick(('JOIN', 'join'))} {room.typed} {key}".rstrip(), EnterRoom(room, key)
        case "leave":
            return pick(("LEAVE", "leave")), LeaveRoom()
        case "list":
            return pick(("ROOMS", "rooms")), ListRooms()
        case "topic":
            topic = pick((*TEXTS, _NO_TOPIC))
            asks = not topic.shown and topic is not _NO_TOPIC
            return f"{pick(('TOPIC', 'topic'))} {topic.typed}", AskTopic() if asks else SetTopic(topic)
        case "history":
            words, limit = pick(
                (("HISTORY", 20), ("history 2", 2), ("History 0 please", 0), ("HISTORY 999999", 999_999))
            )
            return words, AskHistory(limit)
        case "moderate":
            return _moderation_request(pick, people.names)
    return None


_DURATIONS = (
    ("", None, ""),
    ("60", 60, ""),
    ("1m  too loud", 60, "too loud"),
    ("2H spam", 7200, "spam"),
    ("0 spam", None, "0 spam"),
    ("for ever", None, "for ever"),
    ("999999999d", None, ""),
)
_WITHOUT_WHAT_THEY_NEED = (
    ("KICK", "/kick <name> [reason]"),
    ("Ban", "/ban <name> [10m] [reason]"),
    ("private maybe", "/private on|off"),
    ("MODERATED", "/moderated on|off"),
    ("KEY", "/key <text>"),
    ("DELETE me", "/delete <id>"),
    ("unvoice", "/unvoice <name>"),
)


# VOICE and ROOM are about more than one command each.
_MODERATION = ("KICK", "BAN", "UNBAN", "BANS", "BANS", "INVITE", "ROOM", "VOICE", "VOICE")
_MODERATION += ("OWNER", "DELETE", "IGNORE", "MISUSED")


def _moderation_request(pick: Pick, names: Sequence[Name]) -> tuple[str, Request]:
    who = pick(names)
    on = pick((True, False))
    un, switch = "" if on else "UN", "on" if on else "OFF"
    match pick(_MODERATION):
        case "KICK":
            words, reason = pick((("", ""), (" too  loud", "too  loud")))
            return f"KICK {who.typed}{words}", Kick(who, reason)
        case "BAN":
            sanction = pick(tuple(Sanction))
            words, seconds, reason = pick(_DURATIONS)
            return f"{sanction.name} {who.typed} {words}".rstrip(), Impose(sanction, who, seconds, reason)
        case "UNBAN":
            sanction = pick(tuple(Sanction))
            return f"un{sanction.name} {who.typed}", Lift(sanction, who)
        case "BANS":
            return "bans", ListBans()
        case "INVITE":
            return f"INVITE {who.typed} now", Invite(who)
        case "ROOM":
            keys = (("KEY sesame", "sesame"), ("key -", ""), ("key " + "k" * 65, "k" * 65))
            return pick(
                (
                    (f"PRIVATE {switch}", SetPrivate(on)),
                    *[(f"moderated {switch}", SetModerated(on))] * 3,
                    ("key -", SetKey("")),
                    ("private off", SetPrivate(on=False)),
                    *[(words, SetKey(key)) for words, key in keys],
                )
            )
        case "VOICE":
            return pick(
                (
                    *[(f"{un}VOICE {who.typed}", SetVoice(who, on))] * 3,
                    (f"{un}mod {who.typed}", SetModerator(who, on)),
                )
            )
        case "OWNER":
            return f"Owner {who.typed}", PassOwnership(who)
        case "DELETE":
            id = pick(range(8))
            return f"delete {id}", Delete(id)
        case "IGNORE":
            return f"{un}IGNORE {who.typed}", Ignore(who, on)
        case _:
            words, usage = pick(_WITHOUT_WHAT_THEY_NEED)
            return words, Misused(usage)


def _kind(pick: Pick, logged_in: bool, kinds: Sequence[str] = _KINDS) -> str:
    kind = pick(kinds)
    return "login" if not logged_in and pick((True, True, False)) else kind


def _line(text: str, request: Request) -> Line:
    return Line(text.encode(), request)


class LineDialect:
    """`LOGIN alice`, `MSG hi`; answers in capitals."""

    name = "line"
    shows_own_kicks = False

    _ERRORS: ClassVar[dict[Refusal, str]] = {
        Refusal.NAME_LENGTH: "invalid-username",
        Refusal.NAME_INVALID: "invalid-username",
        Refusal.NAME_TAKEN: "username-taken",
        Refusal.ALREADY_LOGGED_IN: "already-logged-in",
        Refusal.NOT_LOGGED_IN: "must-login-first",
        Refusal.EMPTY_MESSAGE: "empty-message",
        Refusal.EMPTY_DIRECT_MESSAGE: "invalid-dm-format",
        Refusal.USER_NOT_FOUND: "user-not-found",
        Refusal.UNKNOWN_COMMAND: "unknown-command",
        Refusal.LINE_TOO_LONG: "line-too-long",
        Refusal.NOT_UTF8: "invalid-utf8",
        Refusal.ROOM_NAME_INVALID: "invalid-room-name",
        Refusal.NO_SUCH_ROOM: "no-such-room",
        Refusal.NOT_IN_ROOM: "not-in-room",
        Refusal.ALREADY_IN_LOBBY: "already-in-lobby",
        Refusal.TOO_MANY_ROOMS: "too-many-rooms",
        Refusal.TOPIC_TOO_LONG: "topic-too-long",
        Refusal.NOT_PERMITTED: "not-permitted",
        Refusal.WRONG_KEY: "wrong-key",
        Refusal.INVITATION_REQUIRED: "invitation-required",
        Refusal.BANNED: "banned",
        Refusal.MUTED: "muted",
        Refusal.NO_VOICE: "muted",
        Refusal.KEY_TOO_LONG: "key-too-long",
        Refusal.NO_SUCH_MESSAGE: "no-such-message",
        Refusal.INVALID_ARGUMENT: "invalid-argument",
        Refusal.PASSWORD_REQUIRED: "password-required",
        Refusal.WRONG_PASSWORD: "wrong-password",
        Refusal.WEAK_PASSWORD: "weak-password",
        Refusal.NAME_RESERVED: "name-reserved",
        Refusal.TOO_MANY_ATTEMPTS: "too-many-attempts",
        Refusal.MAILBOX_FULL: "mailbox-full",
    }
    _HELP = """\
HELP LOGIN name [password] - enter the chat
HELP MSG text - say something to everyone in the room
HELP DM name text - write to one person
HELP WHO - list the people in the room
HELP PING, HELP, QUIT, EXIT - test the connection, show this, leave
HELP JOIN room [key], LEAVE - enter or create a room, go back to the lobby
HELP ROOMS - list the rooms
HELP TOPIC [text] - show the topic of the room, or change it; - for none
HELP HISTORY [20] - list the last messages of the room
HELP REGISTER password, PASSWORD old new - reserve your name, change password
HELP TOKEN [revoke] - get a token, which works like the password, or revoke all
HELP IGNORE name, UNIGNORE name - hear nothing from someone
HELP INVITE name - invite someone to the room
HELP KICK name [reason] - send someone out of the room
HELP BAN name [10m] [reason], UNBAN name, BANS - keep someone out
HELP MUTE name [10m] [reason], UNMUTE name - let someone only listen
HELP VOICE name, UNVOICE name - let someone speak where it is moderated
HELP PRIVATE on|off, MODERATED on|off - who enters, who speaks
HELP KEY text - ask everyone who enters for a key; - for none
HELP MOD name, UNMOD name, OWNER name - who moderates, who owns the room
HELP DELETE id - remove the text of a message
OK
"""

    def __init__(self, people: People = ANYONE, idle_s: int | None = 60) -> None:
        self._people = people
        self.idle_s = idle_s

    def random_line(self, pick: Pick, logged_in: bool) -> Line:
        people = self._people
        kind = _kind(pick, logged_in, people.kinds)
        if (about_rooms := _room_request(kind, pick, people)) is not None:
            return _line(*about_rooms)
        if (about_accounts := _account_request(kind, pick, people)) is not None:
            return _line(*about_accounts)
        match kind:
            case "login":
                name = pick((*people.names, *people.names, *people.invalid_names))
                words, login = _login_request(pick, people, name)
                return _line(f"{pick(('LOGIN', 'login', 'LogIn'))} {words}", login)
            case "say":
                text = pick(TEXTS)
                return _line(f"{pick(('MSG', 'msg'))} {text.typed}", Say(text))
            case "direct":
                to, text = pick(people.names + people.invalid_names[:2]), pick(TEXTS)
                return _line(f"{pick(('DM', 'dm'))} {to.typed} {text.typed}", DirectMessage(to, text))
            case "who":
                return _line(pick(("WHO", "who")), Who())
            case "ping":
                token = pick(("", "x", "a b"))
                return _line(f"PING {token}".rstrip(), Ping(token))
            case "quit":
                return _line(pick(("QUIT", "EXIT", "quit", "exit")), Quit())
            case "help":
                return _line(pick(("HELP", "help me")), Help())
            case "blank":
                return _line(pick(("", "  ")), Blank())
            case "unknown":
                return _line(pick(("HELLO", "/users", "MSGhi", "x" * MAX_LINE)), UnknownCommand())
            case _:
                long = Line(b"MSG " + b"x" * (MAX_LINE - 3), Malformed(Refusal.LINE_TOO_LONG))
                return pick((long, Line(NOT_UTF8, Malformed(Refusal.NOT_UTF8))))

    def login(self, name: str) -> str:
        return f"LOGIN {name}\n"

    def say(self, text: str) -> str:
        return f"MSG {text}\n"

    def direct_message(self, to: str, text: str) -> str:
        return f"DM {to} {text}\n"

    def who(self) -> str:
        return "WHO\n"

    def enter(self, room: str) -> str:
        return f"JOIN {room}\n"

    def register(self, password: str) -> str:
        return f"REGISTER {password}\n"

    def ping(self) -> str:
        return "PING\n"

    def quit(self) -> str:
        return "QUIT\n"

    def error(self, refusal: Refusal, subject: str) -> str:
        return f"ERR {self._ERRORS[refusal]}\n"

    def welcome(self, name: str, users: Sequence[str], now: int) -> str:
        return "OK\n"

    def direct_message_sent(self, name: str, typed: str, shown: str, text: str, now: int) -> str:
        return ""

    def roster(self, users: Sequence[str]) -> str:
        return "".join(f"USER {user}\n" for user in users)

    def entered(self, room: str, people: int, topic: str) -> str:
        return "OK\n"

    def left_room(self, now_in: str) -> str:
        return "OK\n"

    def room_list(self, rooms: Sequence[tuple[str, int, str]]) -> str:
        listed = [
            f"ROOM {room} {people} {topic}" if topic else f"ROOM {room} {people}"
            for room, people, topic in rooms
        ]
        return "".join(f"{row}\n" for row in [*listed, "OK"])

    def history(self, messages: Sequence[Past], with_ids: bool = False) -> str:
        listed = [f"HIST {one.id} {_utc(one.time_ms)} {one.name} {one.text}".rstrip() for one in messages]
        return "".join(f"{row}\n" for row in [*listed, "OK"])

    def topic(self, topic: str) -> str:
        return f"TOPIC {topic}\n" if topic else "TOPIC\n"

    def topic_set(self, topic: str) -> str:
        return "OK\n"

    def pong(self, token: str) -> str:
        return f"PONG {token}\n" if token else "PONG\n"

    def help(self, everything: bool) -> str:
        return self._HELP

    def done(self, sentence: str) -> str:
        return "OK\n"

    def bans(self, bans: Sequence[tuple[str, int | None, str]]) -> str:
        rows = [
            f"BAN {who} {'forever' if until_ms is None else _utc(until_ms)} {reason}".rstrip()
            for who, until_ms, reason in bans
        ]
        return "".join(f"{row}\n" for row in [*rows, "OK"])

    def kicked(self, room: str, reason: str, now_in: str) -> str:
        return f"INFO kicked {reason}".rstrip() + "\n"

    def invited(self, room: str, by: str) -> str:
        return f"INFO {by} invites you to {room}\n"

    def message_kept(self, to: str) -> str:
        return f"INFO {to} is offline, message kept\n"

    def replaced(self) -> str:
        return "INFO logged-in-elsewhere\n"

    def goodbye(self) -> str:
        return "Goodbye!\n"

    def idle_notice(self) -> str:
        return "INFO idle-timeout\n"

    def joined(self, name: str, now: int, own: bool) -> str:
        return ""

    def said(self, name: str, text: str, now: int, own: bool) -> str:
        return "" if own else f"MSG {name} {text}\n"

    def direct_message_received(self, name: str, to: str, text: str, now: int) -> str:
        return f"DM {name} {text}\n"

    def left(self, name: str, how: Gone, now: int) -> str:
        return f"INFO {name} {how.name.lower()}\n"

    def topic_changed(self, name: str, topic: str) -> str:
        return self.topic(topic)


def _object(**fields: object) -> str:
    return json.dumps(fields) + "\n"


class JsonDialect:
    """One JSON object per line, in both directions."""

    name = "json"
    idle_s: int | None = None
    shows_own_kicks = True

    _ERRORS: ClassVar[dict[Refusal, str]] = {
        Refusal.NAME_LENGTH: "Invalid username",
        Refusal.NAME_INVALID: "Invalid username",
        Refusal.NAME_TAKEN: "Username already taken",
        Refusal.ALREADY_LOGGED_IN: "Already joined",
        Refusal.NOT_LOGGED_IN: "Join first",
        Refusal.EMPTY_MESSAGE: "Empty message",
        Refusal.EMPTY_DIRECT_MESSAGE: "Empty message",
        Refusal.USER_NOT_FOUND: "User not found",
        Refusal.UNKNOWN_COMMAND: "Unknown message type",
        Refusal.LINE_TOO_LONG: "Line too long",
        Refusal.NOT_UTF8: "Invalid UTF-8",
        Refusal.NOT_JSON: "Invalid JSON",
        Refusal.ROOM_NAME_INVALID: "Invalid room name",
        Refusal.NO_SUCH_ROOM: "No such room",
        Refusal.NOT_IN_ROOM: "Not in the room",
        Refusal.ALREADY_IN_LOBBY: "Already in the lobby",
        Refusal.TOO_MANY_ROOMS: "Too many rooms",
        Refusal.TOPIC_TOO_LONG: "Topic too long",
    }
    _NOT_JSON = (
        *("{", "[]", "1", "null", '{"type": 5}', '{"type": "chat", "message": 7}', "hello", "{} {}"),
        '{"type": "chat", "message": "a", "message": "b"}',
    )

    def random_line(self, pick: Pick, logged_in: bool) -> Line:
        match _kind(pick, logged_in):
            case "login":
                name = pick((*NAMES, *NAMES, *INVALID_NAMES))
                return self._request({"type": "join", "username": name.typed}, Login(name))
            case "say":
                text = pick(TEXTS)
                return self._request({"type": "chat", "message": text.typed}, Say(text))
            case "direct":
                to, text = pick(NAMES), pick(TEXTS)
                fields = {"type": "dm", "to": to.typed, "message": text.typed}
                return self._request(fields, DirectMessage(to, text))
            case "who":
                return self._request({"type": "users"}, Who())
            case "ping":
                token = pick(("", "x", "a b"))
                return self._request({"type": "ping", **({"token": token} if token else {})}, Ping(token))
            case "quit":
                return self._request({"type": "quit"}, Quit())
            case "blank":
                return _line(pick(("", "  ")), Blank())
            case "unknown":
                return self._request({"type": pick(("nope", "JOIN", ""))}, UnknownCommand())
            case _:
                malformed = [Line(text.encode(), Malformed(Refusal.NOT_JSON)) for text in self._NOT_JSON]
                malformed.append(Line(b"x" * MAX_LINE, Malformed(Refusal.NOT_JSON)))
                malformed.append(Line(b"x" * (MAX_LINE + 1), Malformed(Refusal.LINE_TOO_LONG)))
                wire = b'{"type": "chat", "message": "' + NOT_UTF8 + b'"}'
                malformed.append(Line(wire, Malformed(Refusal.NOT_UTF8)))
                return pick(malformed)

    def _request(self, fields: dict[str, str], request: Request) -> Line:
        return _line(json.dumps(fields), request)

    def login(self, name: str) -> str:
        return _object(type="join", username=name)

    def say(self, text: str) -> str:
        return _object(type="chat", message=text)

    def direct_message(self, to: str, text: str) -> str:
        return _object(type="dm", to=to, message=text)

    def who(self) -> str:
        return _object(type="users")

    def enter(self, room: str) -> str:
        raise AssertionError("this version does not know rooms")

    def register(self, password: str) -> str:
        raise AssertionError("this version has no accounts")

    def ping(self) -> str:
        return _object(type="ping")

    def quit(self) -> str:
        return _object(type="quit")

    def error(self, refusal: Refusal, subject: str) -> str:
        return _object(type="error", message=self._ERRORS[refusal])

    def welcome(self, name: str, users: Sequence[str], now: int) -> str:
        message = f"Welcome to the chat, {name}!"
        return _object(type="welcome", message=message, users=list(users), timestamp=now)

    def direct_message_sent(self, name: str, typed: str, shown: str, text: str, now: int) -> str:
        # The same object that the other side gets; a message to yourself arrives once.
        return "" if name == shown else self.direct_message_received(name, shown, text, now)

    def roster(self, users: Sequence[str]) -> str:
        return _object(type="users", users=list(users))

    # Version 1 has no requests for these.

    def entered(self, room: str, people: int, topic: str) -> str:
        return ""

    def left_room(self, now_in: str) -> str:
        return ""

    def room_list(self, rooms: Sequence[tuple[str, int, str]]) -> str:
        return ""

    def history(self, messages: Sequence[Past], with_ids: bool = False) -> str:
        return ""

    def topic(self, topic: str) -> str:
        return ""

    def topic_set(self, topic: str) -> str:
        return ""

    def pong(self, token: str) -> str:
        return _object(type="pong", **({"token": token} if token else {}))

    def help(self, everything: bool) -> str:
        raise AssertionError("this dialect has no help")

    def done(self, sentence: str) -> str:
        raise AssertionError("this dialect does not moderate")

    def bans(self, bans: Sequence[tuple[str, int | None, str]]) -> str:
        raise AssertionError("this dialect does not moderate")

    def kicked(self, room: str, reason: str, now_in: str) -> str:
        raise AssertionError("a client that is always in the lobby is kicked from no room")

    def invited(self, room: str, by: str) -> str:
        return ""

    def message_kept(self, to: str) -> str:
        raise AssertionError("this version has no accounts")

    def replaced(self) -> str:
        raise AssertionError("this version has no accounts")

    def goodbye(self) -> str:
        return _object(type="goodbye")

    def idle_notice(self) -> str:
        return _object(type="error", message="Idle timeout")

    def joined(self, name: str, now: int, own: bool) -> str:
        if own:
            return ""
        return _object(type="user_joined", username=name, message=f"{name} joined the chat", timestamp=now)

    def said(self, name: str, text: str, now: int, own: bool) -> str:
        return _object(type="chat", username=name, message=text, timestamp=now)

    def direct_message_received(self, name: str, to: str, text: str, now: int) -> str:
        return _object(type="dm", username=name, to=to, message=text, timestamp=now)

    def topic_changed(self, name: str, topic: str) -> str:
        return ""

    def left(self, name: str, how: Gone, now: int) -> str:
        return _object(type="user_left", username=name, message=f"{name} left the chat", timestamp=now)


class SlashDialect:
    """The first line is a name, all others are messages; commands begin with a slash."""

    name = "slash"
    idle_s: int | None = None
    shows_own_kicks = True

    _ERRORS: ClassVar[dict[Refusal, str]] = {
        Refusal.NAME_LENGTH: "[error] Username must be 1-20 characters.",
        Refusal.NAME_INVALID: "[error] Invalid username.",
        Refusal.NAME_TAKEN: "[error] Username already taken. Try another.",
        Refusal.EMPTY_DIRECT_MESSAGE: "Usage: /dm <username> <message>",
        Refusal.USER_NOT_FOUND: "No user named '{}'. Use /users to see online users.",
        Refusal.UNKNOWN_COMMAND: "Unknown command '{}'. Type /help for commands.",
        Refusal.LINE_TOO_LONG: "[error] Line too long.",
        Refusal.NOT_UTF8: "[error] Invalid UTF-8.",
        Refusal.ROOM_NAME_INVALID: "[error] Room names have 1-32 characters: letters, digits and _ - .",
        Refusal.NO_SUCH_ROOM: "No room named '{}'. Use /rooms to see the rooms.",
        Refusal.NOT_IN_ROOM: "[error] You are not in '{}'.",
        Refusal.ALREADY_IN_LOBBY: "[error] You are in the lobby already.",
        Refusal.TOO_MANY_ROOMS: "[error] Too many rooms.",
        Refusal.TOPIC_TOO_LONG: "[error] Topic too long.",
        Refusal.NOT_PERMITTED: "[error] You are not allowed to do that.",
        Refusal.WRONG_KEY: "[error] '{}' needs another key: /join <room> <key>",
        Refusal.INVITATION_REQUIRED: "[error] '{}' is private: you need an invitation or its key.",
        Refusal.BANNED: "[error] You are banned from '{}'.",
        Refusal.MUTED: "[error] You are muted.",
        Refusal.NO_VOICE: "[error] '{}' is moderated: only people with voice can speak.",
        Refusal.KEY_TOO_LONG: "[error] Key too long.",
        Refusal.NO_SUCH_MESSAGE: "[error] No message {}. Use /ids to see the ids.",
        Refusal.INVALID_ARGUMENT: "Usage: {}",
        Refusal.ALREADY_LOGGED_IN: "[error] You are logged in already.",
        Refusal.PASSWORD_REQUIRED: "[error] Password required: /login NAME PASSWORD",
        Refusal.WRONG_PASSWORD: "[error] Wrong password.",
        Refusal.WEAK_PASSWORD: "[error] Passwords have 8-128 characters.",
        Refusal.NAME_RESERVED: "[error] This name is reserved already.",
        Refusal.TOO_MANY_ATTEMPTS: "[error] Too many attempts. Try again later.",
        Refusal.MAILBOX_FULL: "[error] The mailbox of '{}' is full.",
    }
    _HELP = """\
=== Commands ===
/help - Show this help
/users - List online users
/dm <user> <msg> - Send direct message
/ping - Test the connection
/quit - Disconnect

"""
    _MORE_HELP = """\
=== More Commands ===
/login <name> <password> - In place of a name at the start: use a name that has a password
/join <room> [key], /leave - Enter or create a room, go back to the lobby
/rooms - List the rooms
/topic [text] - Show the topic of the room, or change it; - for none
/history [20] - List the last messages of the room
/register <password>, /password <old> <new> - Reserve your name, change password
/token [revoke] - Get a token, which works like the password, or revoke all
/ignore <name>, /unignore <name> - Hear nothing from someone
/invite <name> - Invite someone to the room
/kick <name> [reason] - Send someone out of the room
/ban <name> [10m] [reason], /unban <name>, /bans - Keep someone out
/mute <name> [10m] [reason], /unmute <name> - Let someone only listen
/voice <name>, /unvoice <name> - Let someone speak where it is moderated
/private on|off, /moderated on|off - Who enters, who speaks
/key <text> - Ask everyone who enters for a key; - for none
/mod <name>, /unmod <name>, /owner <name> - Who moderates, who owns the room
/delete <id> - Remove the text of a message
/ids [20] - List the last messages with their ids, for /delete

"""
    # A line that begins with a slash is a command, and a blank line asks for nothing.
    _SAYABLE = tuple(text for text in TEXTS if text.shown and not text.typed.startswith("/"))
    _COMMANDS_AS_NAMES = tuple(Name(typed, refusal=Refusal.NAME_INVALID) for typed in ("/quit", "/help"))

    def __init__(self, people: People = ANYONE) -> None:
        self._people = people

    def random_line(self, pick: Pick, logged_in: bool) -> Line:
        """Before login every line is a name."""
        people = self._people
        if people.passwords and pick((True, False) if not logged_in else (False,) * 9 + (True,)):
            words, login = _login_request(pick, people, pick(people.names))
            return _line(f"{pick(('/login', '/Login'))} {words}", login)
        if not logged_in:
            if pick((True, True, True, False)):
                name = pick((*people.names, *people.names, *people.invalid_names, *self._COMMANDS_AS_NAMES))
                return _line(name.typed, Login(name))
            return self._malformed(pick)
        kind = pick(tuple(kind for kind in people.kinds if kind != "login"))
        if (about_rooms := _room_request(kind, pick, people)) is not None:
            words, request = about_rooms
            if isinstance(request, AskHistory) and pick((False, True)):
                count = words.partition(" ")[2]
                words, request = f"ids {count}".rstrip(), AskHistory(request.limit, with_ids=True)
            return _line(f"/{words}", request)
        if (about_accounts := _account_request(kind, pick, people)) is not None:
            return _line(f"/{about_accounts[0]}", about_accounts[1])
        match kind:
            case "say":
                text = pick((*self._SAYABLE, Text("x" * MAX_LINE, "x" * MAX_LINE)))
                return _line(text.typed, Say(text))
            case "direct":
                to, text = pick(people.names + people.invalid_names[:2]), pick(TEXTS)
                return _line(f"{pick(('/dm', '/DM'))} {to.typed} {text.typed}", DirectMessage(to, text))
            case "who":
                return _line(pick(("/users", "/Users")), Who())
            case "ping":
                return _line("/ping", Ping())
            case "quit":
                return _line(pick(("/quit", "/QUIT")), Quit())
            case "blank":
                return _line(pick(("", "  ")), Blank())
            case "unknown":
                verb = pick(("/nope", "/usersx", "/"))
                return _line(f"{verb} at all", UnknownCommand(verb))
            case "help":
                return _line(*pick((("/help", Help()), ("/help ALL", Help(everything=True)))))
            case _:
                return self._malformed(pick)

    def _malformed(self, pick: Pick) -> Line:
        long = Line(b"x" * (MAX_LINE + 1), Malformed(Refusal.LINE_TOO_LONG))
        return pick((long, Line(NOT_UTF8, Malformed(Refusal.NOT_UTF8))))

    def login(self, name: str) -> str:
        return f"{name}\n"

    def say(self, text: str) -> str:
        return f"{text}\n"

    def direct_message(self, to: str, text: str) -> str:
        return f"/dm {to} {text}\n"

    def who(self) -> str:
        return "/users\n"

    def enter(self, room: str) -> str:
        return f"/join {room}\n"

    def register(self, password: str) -> str:
        return f"/register {password}\n"

    def ping(self) -> str:
        return "/ping\n"

    def quit(self) -> str:
        return "/quit\n"

    def error(self, refusal: Refusal, subject: str) -> str:
        return self._ERRORS[refusal].replace("{}", subject) + "\n"

    def welcome(self, name: str, users: Sequence[str], now: int) -> str:
        return "Connected! Type /help for commands\n\n"

    def direct_message_sent(self, name: str, typed: str, shown: str, text: str, now: int) -> str:
        return f"[DM to {typed}] {text}\n"

    def roster(self, users: Sequence[str]) -> str:
        return "".join([f"=== Online Users ({len(users)}) ===\n", *(f"{user}\n" for user in users), "\n"])

    def entered(self, room: str, people: int, topic: str) -> str:
        return f"[info] You are in {room} ({people}).\n" + (self.topic(topic) if topic else "")

    def left_room(self, now_in: str) -> str:
        return f"[info] You are in {now_in} again.\n"

    def room_list(self, rooms: Sequence[tuple[str, int, str]]) -> str:
        listed = [f"{room} ({people}) {topic}".rstrip() for room, people, topic in rooms]
        return "".join([f"=== Rooms ({len(rooms)}) ===\n", *(f"{row}\n" for row in listed), "\n"])

    def history(self, messages: Sequence[Past], with_ids: bool = False) -> str:
        listed = [
            (f"{one.id} " if with_ids else "")
            + f"[{_utc(one.time_ms)}] {one.name}: {one.text or '(deleted)'}\n"
            for one in messages
        ]
        return "".join([f"=== History ({len(messages)}) ===\n", *listed, "\n"])

    def topic(self, topic: str) -> str:
        return f"[info] Topic: {topic}\n" if topic else "[info] No topic.\n"

    def topic_set(self, topic: str) -> str:
        return self.topic(topic)

    def pong(self, token: str) -> str:
        return "pong\n"

    def help(self, everything: bool) -> str:
        return self._MORE_HELP if everything else self._HELP

    def done(self, sentence: str) -> str:
        return f"[info] {sentence}\n"

    def bans(self, bans: Sequence[tuple[str, int | None, str]]) -> str:
        rows = [
            who + ("" if until_ms is None else f" until {_utc(until_ms)}") + (f": {reason}" if reason else "")
            for who, until_ms, reason in bans
        ]
        return "".join(f"{row}\n" for row in [f"=== Bans ({len(bans)}) ===", *rows, ""])

    def kicked(self, room: str, reason: str, now_in: str) -> str:
        why = f": {reason}" if reason else "."
        return f"[info] You were kicked from {room}{why}\n[info] You are in {now_in} again.\n"

    def invited(self, room: str, by: str) -> str:
        return f"[info] {by} invites you to {room}: /join {room}\n"

    def message_kept(self, to: str) -> str:
        return f"[info] {to} is offline, message kept.\n"

    def replaced(self) -> str:
        return "[error] You have logged in elsewhere.\n"

    def goodbye(self) -> str:
        return "Disconnecting...\n"

    def idle_notice(self) -> str:
        return "[error] Idle timeout.\n"

    def joined(self, name: str, now: int, own: bool) -> str:
        return f"[join] {name} has joined the chat.\n"

    def said(self, name: str, text: str, now: int, own: bool) -> str:
        return "" if own else f"{name}: {text}\n"

    def direct_message_received(self, name: str, to: str, text: str, now: int) -> str:
        return f"[DM from {name}] {text}\n"

    def topic_changed(self, name: str, topic: str) -> str:
        return f"[topic] {name}: {topic}\n" if topic else f"[topic] {name} removed the topic.\n"

    def left(self, name: str, how: Gone, now: int) -> str:
        return f"[leave] {name} has left the chat.\n"


LINE, JSON, SLASH = LineDialect(), JsonDialect(), SlashDialect()
DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (LINE, JSON, SLASH)}
