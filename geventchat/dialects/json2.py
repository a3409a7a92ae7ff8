"""Version 2 of the `json` dialect: many rooms, ids of messages, and answers that refer to their requests.

A client that sends `"v": 2` in its `join` speaks it from that line on. Made for bots and for the web page.
docs/json.md describes it, docs/json-v2.schema.json every object.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from geventchat.chat.commands import (
    AnnounceTyping,
    AskHistory,
    AskToken,
    AskTopic,
    ChangePassword,
    Command,
    Delete,
    EnterRoom,
    Help,
    Ignore,
    Impose,
    InvalidCommand,
    Invite,
    Kick,
    LeaveRoom,
    Lift,
    ListBans,
    ListRooms,
    Login,
    ParseError,
    PassOwnership,
    Ping,
    Quit,
    Register,
    RevokeTokens,
    Sanction,
    Say,
    SendDirectMessage,
    SetKey,
    SetModerated,
    SetModerator,
    SetPrivate,
    SetTopic,
    SetVoice,
    Who,
)
from geventchat.chat.events import (
    Accepted,
    Announcement,
    BanList,
    BanListing,
    Broadcast,
    Confirmed,
    DirectMessage,
    DirectMessageSent,
    DisconnectNotice,
    Entered,
    Event,
    Goodbye,
    Greeting,
    HelpText,
    HistoryPage,
    Invited,
    Joined,
    Kicked,
    Left,
    LeftRoom,
    MessageDeleted,
    MessageKept,
    Missed,
    NoticeReason,
    PastMessage,
    Pong,
    PrivateEvent,
    Rejected,
    Rejection,
    RoomList,
    RoomListing,
    Roster,
    Said,
    TokenIssued,
    Topic,
    TopicChanged,
    Typing,
    Welcome,
)
from geventchat.chat.history import past
from geventchat.chat.passwords import Secret
from geventchat.chat.text import clean_line, visible
from geventchat.dialects.codec import (
    NO_ID,
    NO_TIME,
    Answer,
    CannotEncode,
    ClientCodec,
    ServerEvent,
    UnknownError,
    UnknownLine,
)
from geventchat.dialects.dialect import (
    DEFAULT_HISTORY,
    Interpreter,
    OtherDialect,
    Reading,
    Request,
    TextInRoom,
    greeting_text,
)
from geventchat.dialects.json_objects import (
    MAX_INTEGER,
    InvalidField,
    encoded,
    error_text,
    is_text,
    notice_text,
    parse,
    quoted,
    string,
)
from geventchat.dialects.words import error_word, notice_word
from geventchat.exhaustive import assert_never

# The client sends them, and the server sends them back or keeps them.
_MAX_SHORT_BYTES = 64
_LOBBY_ALONE = (EnterRoom("lobby"),)
_VERSION_1 = OtherDialect("json")
_UNKNOWN = InvalidCommand(ParseError.UNKNOWN_COMMAND)

Fields = dict[str, Any]

# --- Requests --------------------------------------------------------------------------------------------------------


def shown_text(request: Fields, key: str) -> str:
    """A text that people read; empty if nothing of it can be seen. Raises InvalidField."""
    return visible(string(request, key))


def short_string(request: Fields, key: str) -> str:
    """A string that is used as it is. Raises InvalidField if it is too long."""
    value = request.get(key, "")
    if not is_text(value) or len(value.encode()) > _MAX_SHORT_BYTES:
        raise InvalidField(key)
    return value


def _last_id(value: object) -> int | None:
    return _number({"after": value}, "after")


def _number(request: Fields, key: str) -> int | None:
    value = request.get(key)
    if value is None or (type(value) is int and 0 <= value <= MAX_INTEGER):
        return value
    raise InvalidField(key)


def _version(request: Fields, otherwise: int) -> int | None:
    """The version that is asked for; None if it is not a number."""
    version = request.get("v", otherwise)
    # A truth value is an integer, too.
    return version if type(version) is int else None


def _join(request: Fields) -> Login:
    # Version 1 only after the login, where every join is refused.
    if _version(request, 2) not in (1, 2):
        raise InvalidField("v")
    rooms = _LOBBY_ALONE if "rooms" not in request else _rooms(request["rooms"])
    password, token = _secret(request, "password"), _secret(request, "token")
    return Login(string(request, "username"), rooms, short_string(request, "epoch"), token or password)


def _secret(request: Fields, key: str) -> Secret | None:
    text = string(request, key)
    return Secret(text) if text else None


def _needed(request: Fields, key: str) -> Secret:
    secret = _secret(request, key)
    if secret is None:
        raise InvalidField(key)
    return secret


def _token(request: Fields) -> AskToken | RevokeTokens:
    revoke = request.get("revoke", False)
    if type(revoke) is not bool:
        raise InvalidField("revoke")
    return RevokeTokens(_secret(request, "token")) if revoke else AskToken()


def _rooms(asked: object) -> tuple[EnterRoom, ...]:
    if not isinstance(asked, dict) or not all(map(is_text, asked)):
        raise InvalidField("rooms")
    return tuple([_asked_room(clean_line(room), asked[room]) for room in asked])


def _asked_room(room: str, how: object) -> EnterRoom:
    if isinstance(how, dict):
        return EnterRoom(room, string(how, "key"), _last_id(how.get("after")))
    return EnterRoom(room, after=_last_id(how))


def _enter(request: Fields) -> EnterRoom:
    return EnterRoom(string(request, "room"), string(request, "key"), _last_id(request.get("after")))


def _chat(request: Fields) -> Say:
    room, text, key = string(request, "room"), shown_text(request, "message"), short_string(request, "key")
    return Say((text,), room, key, confirm="ref" in request)


def _dm(request: Fields) -> SendDirectMessage:
    to, text, key = string(request, "to"), shown_text(request, "message"), short_string(request, "key")
    return SendDirectMessage(to, text, key, confirm="ref" in request)


def _history(request: Fields) -> AskHistory:
    limit = _number(request, "limit")
    before = _number(request, "before")
    return AskHistory(DEFAULT_HISTORY if limit is None else limit, before, string(request, "room"))


def _topic(request: Fields) -> SetTopic | AskTopic:
    room = string(request, "room")
    return SetTopic(shown_text(request, "topic"), room) if "topic" in request else AskTopic(room)


def _flag(request: Fields, key: str) -> bool:
    value = request.get(key)
    if type(value) is not bool:
        raise InvalidField(key)
    return value


def _kick(request: Fields) -> Kick:
    return Kick(string(request, "username"), shown_text(request, "reason"), string(request, "room"))


def _impose(sanction: Sanction) -> Callable[[Fields], Command]:
    def read(request: Fields) -> Impose:
        who, seconds = string(request, "username"), _number(request, "seconds")
        if seconds == 0:
            raise InvalidField("seconds")
        return Impose(sanction, who, seconds, shown_text(request, "reason"), string(request, "room"))

    return read


def _room_key(request: Fields) -> SetKey:
    # A forgotten field must not remove a key.
    if "key" not in request:
        raise InvalidField("key")
    return SetKey(string(request, "key"), string(request, "room"))


def _delete(request: Fields) -> Delete:
    id = _number(request, "id")
    if not id:
        raise InvalidField("id")
    return Delete(id, string(request, "room"))


def _of_person(command: Callable[[str, str], Command]) -> Callable[[Fields], Command]:
    return lambda request: command(string(request, "username"), string(request, "room"))


def _on_or_off(command: Callable[[bool, str], Command]) -> Callable[[Fields], Command]:
    return lambda request: command(_flag(request, "on"), string(request, "room"))


_TYPES: dict[str, Callable[[Fields], Command]] = {
    "join": _join,
    "chat": _chat,
    "dm": _dm,
    "enter": _enter,
    "leave": lambda request: LeaveRoom(string(request, "room")),
    "rooms": lambda request: ListRooms(),
    "users": lambda request: Who(string(request, "room"), string(request, "after")),
    "topic": _topic,
    "history": _history,
    "typing": lambda request: AnnounceTyping(string(request, "room")),
    "register": lambda request: Register(_needed(request, "password")),
    "password": lambda request: ChangePassword(_needed(request, "password"), _needed(request, "new")),
    "token": _token,
    "kick": _kick,
    "ban": _impose(Sanction.BAN),
    "unban": _of_person(lambda who, room: Lift(Sanction.BAN, who, room)),
    "bans": lambda request: ListBans(string(request, "room"), string(request, "after")),
    "mute": _impose(Sanction.MUTE),
    "unmute": _of_person(lambda who, room: Lift(Sanction.MUTE, who, room)),
    "invite": _of_person(Invite),
    "private": _on_or_off(SetPrivate),
    "key": _room_key,
    "moderated": _on_or_off(SetModerated),
    "voice": _of_person(lambda who, room: SetVoice(who, on=True, room=room)),
    "unvoice": _of_person(lambda who, room: SetVoice(who, on=False, room=room)),
    "mod": _of_person(lambda who, room: SetModerator(who, on=True, room=room)),
    "unmod": _of_person(lambda who, room: SetModerator(who, on=False, room=room)),
    "owner": _of_person(PassOwnership),
    "delete": _delete,
    "ignore": lambda request: Ignore(string(request, "username"), on=True),
    "unignore": lambda request: Ignore(string(request, "username"), on=False),
    "ping": lambda request: Ping(string(request, "token")),
    "help": lambda request: Help(),
    "quit": lambda request: Quit(),
}


def _command(request: Fields) -> Command:
    kind = request.get("type")
    try:
        if type(kind) is not str:
            raise InvalidField("type")
        parse_fields = _TYPES.get(kind)
        return parse_fields(request) if parse_fields else _UNKNOWN
    except InvalidField as invalid:
        return InvalidCommand(ParseError.INVALID_FIELD, invalid.key)


def _plain_message(request: Fields) -> Command | TextInRoom:
    try:
        room, text = string(request, "room"), shown_text(request, "message")
    except InvalidField as invalid:
        return InvalidCommand(ParseError.INVALID_FIELD, invalid.key)
    return TextInRoom(room, text) if text else Say((text,), room)


# --- The server's half -----------------------------------------------------------------------------------------------


class Json2Interpreter:
    """Reads one client's requests, and writes its answers, which repeat the `ref` of their request."""

    def __init__(self) -> None:
        # The `ref` of the request that is being handled.
        self._ref: str | None = None

    def read(self, line: bytes, logged_in: bool) -> Reading:
        """Parse a line."""
        request = parse(line)
        if not isinstance(request, dict):
            return request
        kind = request.get("type")
        if kind == "join" and not logged_in and _version(request, 1) == 1:
            return _VERSION_1
        if "ref" not in request:
            plain = kind == "chat" and logged_in and "key" not in request
            return _plain_message(request) if plain else _command(request)
        try:
            ref = short_string(request, "ref")
        except InvalidField as invalid:
            return InvalidCommand(ParseError.INVALID_FIELD, invalid.key)
        return Request(_command(request), ref, self._answer_to)

    def encode_private(self, event: PrivateEvent) -> bytes:
        """The bytes of a private event. An answer has the `ref`, a notice never."""
        match event:
            case DirectMessage():
                return _direct(event)
            case DisconnectNotice(reason=notice, text=text):
                message = notice_text(notice) + (f": {text}" if text else "")
                return encoded(type="error", code=notice_code(notice), message=message)
            case Kicked(room, reason, time_ms):
                return encoded(type="kicked", room=room, reason=reason, timestamp_ms=time_ms)
            case Invited(room, name, time_ms):
                return encoded(type="invited", room=room, username=name, timestamp_ms=time_ms)
            case Welcome():
                rooms = {entered.room: _state(entered) for entered in event.rooms}
                # Its clients know what to do.
                greeted = greeting_text(event.greeting, "")
                return self._answer(
                    "welcome",
                    v=2,
                    username=event.name,
                    epoch=event.epoch,
                    rooms=rooms,
                    timestamp_ms=event.time_ms,
                    **({"greeting": greeted} if greeted else {}),
                )
            case Entered():
                return self._answer("entered", room=event.room, **_state(event))
            case LeftRoom(room=room):
                return self._answer("left", room=room)
            case Confirmed(room, message_id):
                return self._ok(room=room, id=message_id) if room else self._ok()
            case Accepted():
                return self._ok()
            case DirectMessageSent(message=message):
                # A message to yourself has already arrived as the very same object.
                return b"" if message.sender == message.recipient else _direct(message)
            case MessageKept(message):
                return encoded(**_direct_fields(message), kept=True)
            case TokenIssued(token):
                return self._answer("token", token=token.reveal())
            case Roster(users, room, user_count):
                return self._answer("users", room=room, users=list(users), user_count=user_count)
            case RoomList(rooms):
                return self._answer(
                    "rooms",
                    rooms=[{"room": one.room, "users": one.people, "topic": one.topic} for one in rooms],
                )
            case Topic(room, topic):
                return self._answer("topic", room=room, topic=topic)
            case HistoryPage(room, messages, more):
                listed = [past_object(room, message) for message in messages]
                return self._answer("history", room=room, messages=listed, more=more)
            case Missed(events):
                return b"".join(map(_missed, events))
            case Pong(token):
                return self._answer("pong", token=token) if token else self._answer("pong")
            case Goodbye():
                return self._answer("goodbye")
            case Rejected():
                return self._error(event)
            case Greeting():
                # In the welcome.
                return b""
            case BanList(room, bans, more):
                return self._answer("bans", room=room, bans=list(map(_ban, bans)), more=more)
            case HelpText():
                return self._answer("help", types=list(_TYPES))
            case _:
                assert_never(event)

    def _answer_to(self, ref: str | None) -> None:
        self._ref = ref

    def _answer(self, kind: str, **fields: object) -> bytes:
        if self._ref is not None:
            fields["ref"] = self._ref
        return encoded(type=kind, **fields)

    def _ok(self, **fields: object) -> bytes:
        return b"" if self._ref is None else encoded(type="ok", ref=self._ref, **fields)

    def _error(self, rejected: Rejected) -> bytes:
        message = error_text(rejected.reason)
        if rejected.reason is ParseError.INVALID_FIELD:
            message += f": {rejected.subject}"
        fields = {"room": rejected.room} if rejected.room else {}
        return self._answer("error", code=error_word(rejected.reason), message=message, **fields)


class Json2Dialect:
    """Version 2 of the `json` dialect."""

    name = "json2"
    port = 12345
    idle_s = 0.0
    telnet = False
    read_texts = None
    # A connection never begins with it.
    signatures: tuple[bytes, ...] = ()

    def interpreter(self) -> Interpreter:
        """An interpreter for one connection."""
        return Json2Interpreter()

    def encode(self, event: Broadcast) -> bytes:
        """The bytes of a broadcast event."""
        match event:
            case Said():
                return _said(event)
            case Joined(room, name, time_ms):
                return encoded(type="user_joined", room=room, username=name, timestamp_ms=time_ms)
            case Left(room, name, time_ms):
                return encoded(type="user_left", room=room, username=name, timestamp_ms=time_ms)
            case TopicChanged(room, name, topic, time_ms):
                return encoded(type="topic", room=room, username=name, topic=topic, timestamp_ms=time_ms)
            case Typing(room, name, time_ms):
                return encoded(type="typing", room=room, username=name, timestamp_ms=time_ms)
            case MessageDeleted(room, id, time_ms):
                return encoded(type="deleted", room=room, id=id, timestamp_ms=time_ms)
            case Announcement(text, time_ms):
                return encoded(type="announcement", message=text, timestamp_ms=time_ms)
            case _:
                assert_never(event)

    def echoes(self, event: Broadcast) -> bool:
        """True for messages, since speakers receive their own, and for what the author has done to others."""
        match event:
            case Said() | Left() | MessageDeleted():
                return True
            case Joined() | TopicChanged() | Typing() | Announcement():
                return False
            case _:
                assert_never(event)

    def client(self) -> ClientCodec:
        """The client half of the dialect, for one connection."""
        return Json2Client()


def _said(said: Said) -> bytes:
    # The hot path: the same bytes as the encoder makes of the object, in half the time.
    before = f'{{"type": "chat", "room": {quoted(said.room)}, "id": '
    between = f', "username": {quoted(said.name)}, "message": '
    after = f', "timestamp_ms": {said.time_ms}}}\n'
    numbered = enumerate(said.texts, said.first_id)
    return "".join([f"{before}{one}{between}{quoted(text)}{after}" for one, text in numbered]).encode()


def past_object(room: str, message: PastMessage) -> Fields:
    """A message of the history: the object that was sent at the time, or its place if it has been deleted."""
    what = {"deleted": True} if message.deleted else {"message": message.text}
    return {
        "type": "chat",
        "room": room,
        "id": message.id,
        "username": message.name,
        **what,
        "timestamp_ms": message.time_ms,
    }


def _ban(ban: BanListing) -> Fields:
    return {"username": ban.who, "until_ms": ban.until_ms, "reason": ban.reason}


def _missed(event: Broadcast) -> bytes:
    if isinstance(event, Said) and "" in event.texts:
        return b"".join([encoded(**past_object(event.room, message)) for message in past(event)])
    return DIALECT.encode(event)


def _direct(message: DirectMessage) -> bytes:
    return encoded(**_direct_fields(message))


def _direct_fields(message: DirectMessage) -> Fields:
    return {
        "type": "dm",
        "username": message.sender,
        "to": message.recipient,
        "message": message.text,
        "timestamp_ms": message.time_ms,
    }


def notice_code(reason: NoticeReason) -> str:
    """The code of the error that a client gets when the server closes its connection."""
    return "replaced" if reason is NoticeReason.REPLACED else notice_word(reason)


def _state(entered: Entered) -> Fields:
    return {
        "users": list(entered.users),
        "user_count": entered.user_count,
        "last_id": entered.last_id,
        "replay_from": entered.replay_from,
        "topic": entered.topic,
    }


# --- The client's half -----------------------------------------------------------------------------------------------

# Where two reasons share a code and a text, the later one wins, because it is more common.
_REASONS: dict[tuple[str, str], Rejection | ParseError] = {
    (error_word(reason), error_text(reason)): reason for reason in (*Rejection, *ParseError)
}
# The reason by the code alone, for servers with other texts.
_BY_CODE = {error_word(reason): reason for reason in (*Rejection, *ParseError)}
_NOTICES = {notice_code(reason): reason for reason in NoticeReason}


_WITHOUT_REF = {ParseError.TOO_LONG, ParseError.NOT_UTF8, ParseError.NOT_JSON}


class Json2Client:
    """The client's half of the dialect."""

    echoes_messages = True
    confirms_direct_messages = True
    many_rooms = True
    answers_in_prose = False

    def __init__(self) -> None:
        self._name = ""
        # The references that have not been answered, in the order in which they were sent.
        self._refs: dict[str, None] = {}

    def encode(self, command: Command, ref: str = "") -> bytes:
        """The bytes of a command. With a reference it is one request."""
        if ref:
            self._refs[ref] = None
            return _line({**_requested(command), "ref": ref})
        match command:
            case Login(name):
                self._name = name
            case Say(texts) if len(texts) > 1:
                return b"".join([_line(_requested(replace(command, texts=(text,)))) for text in texts])
        return _line(_requested(command))

    def decode(self, line: bytes) -> ServerEvent | None:
        """The event on this line."""
        text = line.decode("utf-8", "replace")
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return UnknownLine(text)
        event = self._event(message) if isinstance(message, dict) else None
        if event is None:
            return UnknownLine(text)
        ref = self._ref_of(message, event)
        return Answer(ref, event) if ref else event

    def _ref_of(self, message: Fields, event: Event | UnknownError) -> str:
        """The reference of the request that this object answers; empty if it answers none."""
        ref = _string(message.get("ref"))
        if not ref and isinstance(event, Rejected) and event.reason in _WITHOUT_REF:
            # The server could not read the line, and so not its reference. It answers in order.
            ref = next(iter(self._refs), "")
        self._refs.pop(ref, None)
        return ref

    def _event(self, message: Fields) -> Event | UnknownError | None:
        time_ms = _whole(message.get("timestamp_ms"), NO_TIME)
        match message:
            case {"type": "chat", "room": str(room), "username": str(name), "deleted": True}:
                return Said(room, name, ("",), _whole(message.get("id"), NO_ID), time_ms)
            case {"type": "history", "room": str(room), "messages": list(listed)}:
                messages = [_past_message(one) for one in listed if isinstance(one, dict)]
                return HistoryPage(room, messages, message.get("more") is True)
            case {"type": "chat", "room": str(room), "username": str(name), "message": str(text)}:
                return Said(room, name, (text,), _whole(message.get("id"), NO_ID), time_ms)
            case {"type": "dm", "username": str(sender), "to": str(to), "message": str(text), "kept": True}:
                return MessageKept(DirectMessage(sender, to, text, time_ms))
            case {"type": "token", "token": str(token)}:
                return TokenIssued(Secret(token))
            case {"type": "dm", "username": str(sender), "to": str(to), "message": str(text)}:
                direct = DirectMessage(sender, to, text, time_ms)
                # The sender gets the same object as the recipient. A message to yourself arrives once.
                return DirectMessageSent(direct, to) if sender == self._name != to else direct
            case {"type": "welcome", "v": 2, "username": str(name), "rooms": dict(rooms)}:
                self._name = name
                entered = [_entered(room, state) for room, state in rooms.items() if isinstance(state, dict)]
                greeting = _string(message.get("greeting"))
                return Welcome("", name, (), time_ms, _string(message.get("epoch")), entered, greeting)
            case {"type": "user_joined", "room": str(room), "username": str(name)}:
                return Joined(room, name, time_ms)
            case {"type": "user_left", "room": str(room), "username": str(name)}:
                return Left(room, name, time_ms)
            case {"type": "topic", "room": str(room), "username": str(name), "topic": str(topic)}:
                return TopicChanged(room, name, topic, time_ms)
            case {"type": "topic", "room": str(room), "topic": str(topic)}:
                return Topic(room, topic)
            case {"type": "typing", "room": str(room), "username": str(name)}:
                return Typing(room, name, time_ms)
            case {"type": "deleted", "room": str(room)}:
                return MessageDeleted(room, _whole(message.get("id"), NO_ID), time_ms)
            case {"type": "announcement", "message": str(text)}:
                return Announcement(text, time_ms)
            case {"type": "kicked", "room": str(room)}:
                return Kicked(room, _string(message.get("reason")), time_ms)
            case {"type": "invited", "room": str(room), "username": str(name)}:
                return Invited(room, name, time_ms)
            case {"type": "bans", "room": str(room), "bans": list(listed)}:
                bans = [_listed_ban(one) for one in listed if isinstance(one, dict)]
                return BanList(room, bans, message.get("more") is True)
            case {"type": "entered", "room": str(room)}:
                return _entered(room, message)
            case {"type": "left", "room": str(room)}:
                return LeftRoom(room)
            case {"type": "rooms", "rooms": list(listed)}:
                return RoomList([_listing(one) for one in listed if isinstance(one, dict)])
            case {"type": "users", "room": str(room)}:
                users = _strings(message.get("users"))
                return Roster(users, room, _whole(message.get("user_count"), len(users)))
            case {"type": "ok"}:
                return Confirmed(_string(message.get("room")), _whole(message.get("id"), NO_ID))
            case {"type": "pong"}:
                return Pong(_string(message.get("token")))
            case {"type": "goodbye"}:
                return Goodbye()
            case {"type": "error", "code": str(code), "message": str(text)}:
                is_answer = "ref" in message or "room" in message
                return _error(code, text, _string(message.get("room")), is_answer=is_answer)
            case _:
                return None


def _line(request: Fields) -> bytes:
    # Not as ASCII: a line of the server's limit then has room for six times as many letters of other scripts.
    return (json.dumps(request, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _requested(command: Command) -> Fields:
    """The request that a command is."""
    match command:
        case Login(name, _, epoch, password):
            secret = "" if password is None else password.reveal()
            return _fields("join", v=2, username=name, password=secret, epoch=epoch, **_wanted(command))
        case Say(texts, room, key):
            return _fields("chat", room=room, message="".join(texts), key=key)
        case SendDirectMessage(to, text, key):
            return _fields("dm", to=to, message=text, key=key)
        case EnterRoom(room, room_key, after):
            return _fields("enter", room=room, key=room_key, after=after)
        case LeaveRoom(room):
            return _fields("leave", room=room)
        case ListRooms():
            return _fields("rooms")
        case Who(room, behind):
            return _fields("users", room=room, after=behind)
        case AskTopic(room):
            return _fields("topic", room=room)
        case SetTopic(topic, room):
            return {"type": "topic", "room": room, "topic": topic}
        case AskHistory(limit, before, room):
            return _fields("history", room=room, before=before, limit=limit)
        case AnnounceTyping(room):
            return _fields("typing", room=room)
        case Kick(who, reason, room):
            return _fields("kick", room=room, username=who, reason=reason)
        case Impose(sanction, who, seconds, reason, room):
            return _fields(sanction.value, room=room, username=who, seconds=seconds, reason=reason)
        case Lift(sanction, who, room):
            return _fields(f"un{sanction.value}", room=room, username=who)
        case ListBans(room, after):
            return _fields("bans", room=room, after=after)
        case Invite(who, room):
            return _fields("invite", room=room, username=who)
        case SetPrivate(on, room):
            return _fields("private", room=room, on=on)
        case SetKey(room_key, room):
            return {"type": "key", "room": room, "key": room_key}
        case SetModerated(on, room):
            return _fields("moderated", room=room, on=on)
        case SetVoice(who, on, room):
            return _fields("voice" if on else "unvoice", room=room, username=who)
        case SetModerator(who, on, room):
            return _fields("mod" if on else "unmod", room=room, username=who)
        case PassOwnership(who, room):
            return _fields("owner", room=room, username=who)
        case Delete(id, room):
            return _fields("delete", room=room, id=id)
        case Ignore(who, on):
            return _fields("ignore" if on else "unignore", username=who)
        case Ping(token):
            return _fields("ping", token=token)
        case Quit():
            return _fields("quit")
        case Register(password):
            return _fields("register", password=password.reveal())
        case ChangePassword(old, new):
            return _fields("password", password=old.reveal(), new=new.reveal())
        case AskToken():
            return _fields("token")
        case RevokeTokens():
            return _fields("token", revoke=True)
        case _:
            raise CannotEncode("The json dialect has no such command.")


def _fields(kind: str, **fields: object) -> Fields:
    """A request without the fields that are empty."""
    return {"type": kind, **{key: value for key, value in fields.items() if value not in ("", None)}}


def _wanted(login: Login) -> Fields:
    if login.rooms is None:
        return {}
    return {
        "rooms": {
            entry.room: {"after": entry.after, "key": entry.room_key} if entry.room_key else entry.after
            for entry in login.rooms
        }
    }


def _error(code: str, text: str, room: str, *, is_answer: bool) -> Event | UnknownError:
    # One can be banned from a room, or from the server.
    if code in _NOTICES and not is_answer:
        return DisconnectNotice(_NOTICES[code])
    message, _, subject = text.partition(": ")
    reason = _REASONS.get((code, message), _BY_CODE.get(code))
    return UnknownError(text) if reason is None else Rejected(reason, subject or room, room)


def _entered(room: str, state: Fields) -> Entered:
    users = _strings(state.get("users"))
    last_id = _whole(state.get("last_id"), NO_ID)
    return Entered(
        room,
        users,
        _string(state.get("topic")),
        _whole(state.get("user_count"), len(users)),
        last_id,
        _whole(state.get("replay_from"), last_id + 1),
    )


def _past_message(one: Fields) -> PastMessage:
    text = _string(one.get("message"))
    time_ms = _whole(one.get("timestamp_ms"), NO_TIME)
    return PastMessage(
        _whole(one.get("id"), NO_ID), _string(one.get("username")), text, time_ms, one.get("deleted") is True
    )


def _listing(one: Fields) -> RoomListing:
    return RoomListing(_string(one.get("room")), _whole(one.get("users"), 0), _string(one.get("topic")))


def _listed_ban(one: Fields) -> BanListing:
    until_ms = one.get("until_ms")
    return BanListing(
        _string(one.get("username")),
        until_ms if type(until_ms) is int else None,
        _string(one.get("reason")),
    )


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _strings(values: object) -> tuple[str, ...]:
    return tuple([value for value in values if isinstance(value, str)]) if isinstance(values, list) else ()


def _whole(value: object, otherwise: int) -> int:
    return value if type(value) is int else otherwise


DIALECT = Json2Dialect()
