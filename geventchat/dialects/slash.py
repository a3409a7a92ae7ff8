"""The `slash` dialect: the first line is the name, later lines are messages, and commands begin with a slash."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from geventchat.chat.commands import (
    AskHistory,
    Command,
    Help,
    InvalidCommand,
    Login,
    ParseError,
    Ping,
    Quit,
    Say,
    SendDirectMessage,
    Who,
)
from geventchat.chat.events import (
    Accepted,
    Action,
    Announcement,
    BanList,
    BanListing,
    Broadcast,
    Confirmed,
    DirectMessage,
    DirectMessageSent,
    DisconnectNotice,
    Entered,
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
from geventchat.chat.text import visible
from geventchat.dialects.codec import (
    LOBBY,
    NO_ID,
    NO_ROOM,
    NO_TIME,
    CannotEncode,
    ClientCodec,
    Fences,
    ServerEvent,
    UnknownError,
    UnknownLine,
    lines,
    time_of_utc,
)
from geventchat.dialects.dialect import (
    Interpreter,
    TerminalReader,
    direct_message,
    greeting_text,
    login,
    prefixed,
    utc,
)
from geventchat.dialects.verbs import HELP, VERBS, HelpLine, Verb, spelled
from geventchat.exhaustive import assert_never

_LOGIN = "/login"
_OWN_COMMANDS: dict[str, Callable[[str], Command]] = {
    "/help": lambda rest: Help(everything=rest.strip().lower() == "all"),
    "/users": lambda _: Who(),
    "/dm": direct_message,
    _LOGIN: login,
    "/ping": lambda _: Ping(""),
    "/quit": lambda _: Quit(),
}
# Placeholders: `<name>`, but `[10m]` and `on|off` as they are.
_PLACEHOLDER = re.compile(r"(?<![\[\w|])(\w+)(?![\]\w|])")


def _usage(verb: Verb) -> str:
    return f"/{verb.name} " + _PLACEHOLDER.sub(r"<\1>", verb.arguments) if verb.arguments else f"/{verb.name}"


_USAGES = {verb.name: _usage(verb) for verb in VERBS.values()}


def _reader(verb: Verb) -> Callable[[str], Command]:
    wrong = InvalidCommand(ParseError.INVALID_ARGUMENT, _USAGES[verb.name])
    return lambda rest: verb.read(rest) or wrong


def _ids(rest: str) -> Command:
    """The arguments and the answer of /history, with the ids that /delete needs."""
    command = VERBS["history"].read(rest)
    if not isinstance(command, AskHistory):
        return InvalidCommand(ParseError.INVALID_ARGUMENT, f"/ids {VERBS['history'].arguments}")
    return replace(command, with_ids=True)


_SHARED_COMMANDS = {f"/{name}": _reader(verb) for name, verb in VERBS.items()}
_COMMANDS = {**_OWN_COMMANDS, **_SHARED_COMMANDS, "/ids": _ids}


def _parse(text: str, logged_in: bool) -> Command | str | None:
    if not logged_in:
        verb, _, rest = text.partition(" ")
        return login(rest.lstrip()) if rest and verb.lower() == _LOGIN else Login(text)
    if not text.startswith("/"):
        return visible(text) or None
    verb, _, rest = text.partition(" ")
    command = _COMMANDS.get(verb.lower())
    return command(rest.lstrip()) if command else InvalidCommand(ParseError.UNKNOWN_COMMAND, verb)


_HELP = """\
=== Commands ===
/help - Show this help
/users - List online users
/dm <user> <msg> - Send direct message
/ping - Test the connection
/quit - Disconnect

"""


def _help_line(line: HelpLine) -> str:
    return f"{', '.join(map(_usage, line.verbs))} - {line.meaning[0].upper()}{line.meaning[1:]}"


_LOGIN_HELP = "/login <name> <password> - In place of a name at the start: use a name that has a password"
_IDS_HELP = "/ids [20] - List the last messages with their ids, for /delete"
_MORE_HELP = "\n".join(["=== More Commands ===", _LOGIN_HELP, *map(_help_line, HELP), _IDS_HELP, "", ""])


def error_text(reason: Rejection | ParseError, subject: str) -> str:
    """The line that answers a refused command."""
    match reason:
        case Rejection.NAME_LENGTH:
            return "[error] Username must be 1-20 characters."
        case Rejection.NAME_INVALID:
            return "[error] Invalid username."
        case Rejection.NAME_TAKEN:
            return "[error] Username already taken. Try another."
        case Rejection.NO_RECIPIENT | Rejection.EMPTY_DIRECT_MESSAGE:
            return "Usage: /dm <username> <message>"
        case Rejection.USER_NOT_FOUND:
            return f"No user named '{subject}'. Use /users to see online users."
        case Rejection.ROOM_NAME_INVALID:
            return "[error] Room names have 1-32 characters: letters, digits and _ - ."
        case Rejection.NO_SUCH_ROOM:
            return f"No room named '{subject}'. Use /rooms to see the rooms."
        case Rejection.NOT_IN_ROOM:
            return f"[error] You are not in '{subject}'."
        case Rejection.ALREADY_IN_LOBBY:
            return "[error] You are in the lobby already."
        case Rejection.TOO_MANY_ROOMS:
            return "[error] Too many rooms."
        case Rejection.TOPIC_TOO_LONG:
            return "[error] Topic too long."
        case Rejection.NO_SUCH_MESSAGE:
            return f"[error] No message {subject}. Use /ids to see the ids."
        case Rejection.NOT_PERMITTED:
            return "[error] You are not allowed to do that."
        case Rejection.WRONG_KEY:
            return f"[error] '{subject}' needs another key: /join <room> <key>"
        case Rejection.INVITATION_REQUIRED:
            return f"[error] '{subject}' is private: you need an invitation or its key."
        case Rejection.BANNED_FROM_ROOM:
            return f"[error] You are banned from '{subject}'."
        case Rejection.MUTED:
            return "[error] You are muted."
        case Rejection.NO_VOICE:
            return f"[error] '{subject}' is moderated: only people with voice can speak."
        case Rejection.KEY_TOO_LONG:
            return "[error] Key too long."
        case Rejection.LIST_FULL:
            return "[error] The list is full."
        case Rejection.ALREADY_LOGGED_IN:
            return "[error] You are logged in already."
        case Rejection.PASSWORD_REQUIRED:
            return "[error] Password required: /login NAME PASSWORD"
        case Rejection.WRONG_PASSWORD:
            return "[error] Wrong password."
        case Rejection.WEAK_PASSWORD:
            return "[error] Passwords have 8-128 characters."
        case Rejection.NAME_RESERVED:
            return "[error] This name is reserved already."
        case Rejection.TOO_MANY_ATTEMPTS:
            return "[error] Too many attempts. Try again later."
        case Rejection.MAILBOX_FULL:
            return f"[error] The mailbox of '{subject}' is full."
        case ParseError.TOO_LONG:
            return "[error] Line too long."
        case ParseError.NOT_UTF8:
            return "[error] Invalid UTF-8."
        case ParseError.UNKNOWN_COMMAND:
            return f"Unknown command '{subject}'. Type /help for commands."
        case ParseError.INVALID_ARGUMENT:
            return f"Usage: {subject}"
        case (
            Rejection.NOT_LOGGED_IN | Rejection.EMPTY_MESSAGE | ParseError.NOT_JSON | ParseError.INVALID_FIELD
        ):
            # The reader above never makes a command that is refused for this reason.
            return "[error] Not possible."
        case _:
            assert_never(reason)


def notice_text(reason: NoticeReason) -> str:
    """The last line before the server closes a connection."""
    match reason:
        case NoticeReason.IDLE:
            return "[error] Idle timeout."
        case NoticeReason.SERVER_FULL:
            return "[error] Server full."
        case NoticeReason.ADDRESS_FULL:
            return "[error] Too many connections."
        case NoticeReason.SHUTDOWN:
            return "[info] Server is shutting down."
        case NoticeReason.KICKED:
            return "[error] You were kicked."
        case NoticeReason.BANNED:
            return "[error] You are banned."
        case NoticeReason.REPLACED:
            return "[error] You have logged in elsewhere."
        case _:
            assert_never(reason)


_KICKED = notice_text(NoticeReason.KICKED).removesuffix(".") + ": "


class SlashDialect:
    """The `slash` dialect."""

    name = "slash"
    port = 5000
    idle_s = 0.0
    telnet = True
    read_texts = None
    signatures = (b"[error] ", b"[join] ", b"[info] ")

    read = TerminalReader(_parse).read

    def interpreter(self) -> Interpreter:
        """Itself: lines are independent of each other."""
        return self

    def encode(self, event: Broadcast) -> bytes:
        """The bytes of a broadcast event."""
        match event:
            case Said():
                return prefixed(f"{event.name}: ", event.texts)
            case Joined(name=name):
                return f"[join] {name} has joined the chat.\n".encode()
            case Left(name=name):
                return f"[leave] {name} has left the chat.\n".encode()
            case TopicChanged(name=name, topic=topic):
                return (
                    f"[topic] {name}: {topic}\n".encode()
                    if topic
                    else f"[topic] {name} removed the topic.\n".encode()
                )
            case Announcement(text):
                return f"{_ANNOUNCEMENT}{text}\n".encode()
            case Typing() | MessageDeleted():
                return b""
            case _:
                assert_never(event)

    def echoes(self, event: Broadcast) -> bool:
        """True for joins, since newcomers see their own, and for departures that the author has caused."""
        match event:
            case Joined() | Left():
                return True
            case Said() | TopicChanged() | Typing() | MessageDeleted() | Announcement():
                return False
            case _:
                assert_never(event)

    def encode_private(self, event: PrivateEvent) -> bytes:
        """The bytes of a private event."""
        return _private_text(event).encode()

    def client(self) -> ClientCodec:
        """The client half of the dialect, for one connection."""
        return SlashClient()


_ACCEPTED = {
    Action.KICKED: "{subject} was kicked.",
    Action.BANNED: "{subject} is banned.",
    Action.UNBANNED: "{subject} is no longer banned.",
    Action.MUTED: "{subject} is muted.",
    Action.UNMUTED: "{subject} is no longer muted.",
    Action.INVITED: "{subject} is invited to {room}.",
    Action.MADE_PRIVATE: "{room} is private.",
    Action.MADE_PUBLIC: "{room} is no longer private.",
    Action.KEY_SET: "{room} has a new key.",
    Action.KEY_REMOVED: "{room} has no key.",
    Action.MODERATION_ON: "{room} is moderated.",
    Action.MODERATION_OFF: "{room} is no longer moderated.",
    Action.VOICE_GIVEN: "{subject} has voice.",
    Action.VOICE_TAKEN: "{subject} has no voice.",
    Action.MODERATOR_ADDED: "{subject} is a moderator of {room}.",
    Action.MODERATOR_REMOVED: "{subject} is no longer a moderator of {room}.",
    Action.OWNERSHIP_PASSED: "{subject} owns {room}.",
    Action.DELETED: "Message {subject} is deleted.",
    Action.IGNORED: "You ignore {subject}.",
    Action.HEARD_AGAIN: "You no longer ignore {subject}.",
    Action.REGISTERED: "{subject} is your name now. Log in with: /login {subject} PASSWORD",
    Action.PASSWORD_CHANGED: "Your password is changed.",
    Action.TOKENS_REVOKED: "Your tokens are useless now.",
}


_GREETING = "[info] "
_ANNOUNCEMENT = "[announcement] "
_FIRST_STEPS = "Type your name, then a text. /help lists the commands."
_DELETED = "(deleted)"


def _accepted(action: Action, room: str, subject: str) -> str:
    if action is Action.TOPIC_SET:
        return _topic(subject)
    return f"[info] {_ACCEPTED[action].format(room=room, subject=subject)}\n"


def _ban(ban: BanListing) -> str:
    until = "" if ban.until_ms is None else f" until {utc(ban.until_ms)}"
    return f"{ban.who}{until}" + (f": {ban.reason}" if ban.reason else "")


def _past(message: PastMessage, with_id: bool) -> str:
    text = _DELETED if message.deleted else message.text
    return (f"{message.id} " if with_id else "") + f"[{utc(message.time_ms)}] {message.name}: {text}"


def _topic(topic: str) -> str:
    return f"[info] Topic: {topic}\n" if topic else "[info] No topic.\n"


def _private_text(event: PrivateEvent) -> str:
    match event:
        case Greeting(text):
            return f"{_GREETING}{greeting_text(text, _FIRST_STEPS)}\n"
        case Welcome():
            return "Connected! Type /help for commands\n\n"
        case DirectMessage(sender=sender, text=text):
            return f"[DM from {sender}] {text}\n"
        case DirectMessageSent(message, typed):
            return f"[DM to {typed}] {message.text}\n"
        case MessageKept(message):
            return f"[info] {message.recipient} is offline, message kept.\n"
        case TokenIssued(token):
            return f"[info] Your token, shown only once: {token.reveal()}\n"
        case Roster(users):
            return "\n".join([f"=== Online Users ({len(users)}) ===", *users, "", ""])
        case Entered(room, users, topic):
            return f"[info] You are in {room} ({len(users)}).\n" + (_topic(topic) if topic else "")
        case LeftRoom(now_in=room):
            return f"[info] You are in {room} again.\n"
        case RoomList(rooms):
            listed = [f"{one.room} ({one.people})" + (f" {one.topic}" if one.topic else "") for one in rooms]
            return "\n".join([f"=== Rooms ({len(rooms)}) ===", *listed, "", ""])
        case Topic(topic=topic):
            return _topic(topic)
        case HistoryPage(messages=messages, with_ids=with_ids):
            listed = [_past(message, with_ids) for message in messages]
            return "\n".join([f"=== History ({len(messages)}) ===", *listed, "", ""])
        case Accepted(action, room, subject):
            return _accepted(action, room, subject)
        case Kicked(room=room, reason=reason, now_in=now_in):
            because = f": {reason}" if reason else "."
            return f"[info] You were kicked from {room}{because}\n" + (
                f"[info] You are in {now_in} again.\n" if now_in else ""
            )
        case Invited(room, name):
            return f"[info] {name} invites you to {room}: /join {room}\n"
        case BanList(bans=bans):
            return "\n".join([f"=== Bans ({len(bans)}) ===", *map(_ban, bans), "", ""])
        case Pong():
            return "pong\n"
        case HelpText(everything):
            return _MORE_HELP if everything else _HELP
        case Confirmed() | Missed():
            # Only version 2 of json asks for it.
            return ""
        case Goodbye():
            return "Disconnecting...\n"
        case Rejected(reason, subject):
            return error_text(reason, subject) + "\n"
        case DisconnectNotice(reason=notice, text=text):
            return (f"{_KICKED}{text}" if text else notice_text(notice)) + "\n"
        case _:
            assert_never(event)


def _error_pattern(reason: Rejection | ParseError) -> str:
    # A person can be called Usage.
    subject = (
        f"({'|'.join(map(re.escape, _USAGES.values()))})" if reason is ParseError.INVALID_ARGUMENT else "(.*)"
    )
    return re.escape(error_text(reason, "\0")).replace("\0", subject)


# Where two reasons share a text, the later one wins, because it is more common.
_ERROR_PATTERNS: dict[str, Rejection | ParseError] = {
    _error_pattern(reason): reason for reason in (*Rejection, *ParseError)
}
_NOTICES = {notice_text(reason): reason for reason in NoticeReason}
_HELP_HEADER = _HELP.partition("\n")[0]

_HEADER = re.compile(r"=== (Online Users|Rooms|History) \(\d+\) ===")
_LISTED_ROOM = re.compile(r"(\S+) \((\d{1,9})\) ?(.*)", re.DOTALL)
_PAST = re.compile(r"\[(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\] ([^\s\[\]:]+): (.*)", re.DOTALL)
_TOPIC = re.compile(r"\[info\] (?:Topic: (.*)|No topic\.)", re.DOTALL)
_TOPIC_CHANGED = re.compile(r"\[topic\] ([^\s:]+)(?:: (.*)| removed the topic\.)", re.DOTALL)
_JOINED = re.compile(r"\[join\] (\S+) has joined the chat\.")
_LEFT = re.compile(r"\[leave\] (\S+) has left the chat\.")
_DIRECT = re.compile(r"\[DM from (\S+)\] (.*)", re.DOTALL)
_DIRECT_SENT = re.compile(r"\[DM to (\S+)\] (.*)", re.DOTALL)
_ENTERED = re.compile(r"\[info\] You are in (\S+) \((\d{1,9})\)\.")
_AGAIN = re.compile(r"\[info\] You are in (\S+) again\.")
# A name contains neither blanks nor brackets, so no message looks like a line of the server's own.
_SAID = re.compile(r"([^\s\[\]:]+): (.*)", re.DOTALL)


class SlashClient:
    """The client's half of the `slash` dialect."""

    echoes_messages = False
    confirms_direct_messages = True
    many_rooms = False
    answers_in_prose = True

    def __init__(self) -> None:
        self._name = ""
        self._logged_in = False
        self._room = LOBBY
        self._fences = Fences()
        # The lines so far of an answer that ends with a blank line.
        self._block: list[str] = []

    def encode(self, command: Command, ref: str = "") -> bytes:
        """The bytes of a command."""
        data = self._encoded(command)
        if isinstance(command, Ping):
            self._fences.add(command, ref)
        elif ref:
            self._fences.add(command, ref)
            data += lines("/ping")
        return data

    def _encoded(self, command: Command) -> bytes:
        match command:
            case Login(name, password=password):
                self._name = name
                return lines(f"{_LOGIN} {name} {password.reveal()}" if password else name)
            case Say(texts):
                if any(text.startswith("/") for text in texts):
                    raise CannotEncode(
                        "The slash dialect treats every line that begins with / as a command. "
                        "Put something before the slash."
                    )
                return lines(*texts)
            case SendDirectMessage(to, text):
                return lines(f"/dm {to} {text}")
            case Who():
                return lines("/users")
            case Ping():
                return lines("/ping")
            case Help():
                return lines("/help")
            case Quit():
                return lines("/quit")
        verb = spelled(command)
        if verb is None:
            raise CannotEncode("The slash dialect has no such command.")
        return lines(f"/{verb[0]} {verb[1]}".rstrip())

    def decode(self, line: bytes) -> ServerEvent | None:
        """The event that this line completes."""
        text = line.decode("utf-8", "replace")
        if self._block and text:
            self._block.append(text)
            return None
        if self._block:
            header, *rest = self._block
            self._block = []
            return _decode_block(header, rest)
        if not text:
            return None
        if not self._logged_in:
            return self._decode_login(text)
        if text == _HELP_HEADER or _HEADER.fullmatch(text):
            self._block = [text]
            return None
        error = _decode_error(text)
        if isinstance(error, Rejected | UnknownError):
            return self._fences.refusal(error)
        return error or self._decode_chat(text)

    def _decode_login(self, text: str) -> ServerEvent | None:
        if joined := _JOINED.fullmatch(text):
            # Before the welcome only the client's own join arrives, with the name as everyone else sees it.
            self._name = joined[1]
            return None
        if text.startswith("Connected!"):
            self._logged_in = True
            return Welcome(NO_ROOM, self._name, (), NO_TIME)
        if text.startswith(_GREETING) and text not in _NOTICES:
            return Greeting(text.removeprefix(_GREETING))
        return _decode_error(text) or UnknownLine(text)

    def _decode_chat(self, text: str) -> ServerEvent:
        if text.startswith(_ANNOUNCEMENT):
            return Announcement(text.removeprefix(_ANNOUNCEMENT), NO_TIME)
        if said := _SAID.fullmatch(text):
            return Said(NO_ROOM, said[1], (said[2],), NO_ID, NO_TIME)
        if direct := _DIRECT.fullmatch(text):
            return DirectMessage(direct[1], self._name, direct[2], NO_TIME)
        if sent := _DIRECT_SENT.fullmatch(text):
            return DirectMessageSent(DirectMessage(self._name, sent[1], sent[2], NO_TIME), sent[1])
        if joined := _JOINED.fullmatch(text):
            return Joined(NO_ROOM, joined[1], NO_TIME)
        if gone := _LEFT.fullmatch(text):
            return Left(NO_ROOM, gone[1], NO_TIME)
        if entered := _ENTERED.fullmatch(text):
            self._room = entered[1]
            return Entered(self._room, (), user_count=int(entered[2]))
        if again := _AGAIN.fullmatch(text):
            left, self._room = self._room, again[1]
            return LeftRoom(left, self._room)
        if topic := _TOPIC.fullmatch(text):
            return Topic(NO_ROOM, topic[1] or "")
        if changed := _TOPIC_CHANGED.fullmatch(text):
            return TopicChanged(NO_ROOM, changed[1], changed[2] or "", NO_TIME)
        if text == "pong":
            return self._fences.pong("")
        return Goodbye() if text == "Disconnecting..." else UnknownLine(text)


def _decode_block(header: str, rest: list[str]) -> ServerEvent:
    found = _HEADER.fullmatch(header)
    match found[1] if found else None:
        case "Online Users":
            return Roster(tuple(rest))
        case "Rooms":
            rooms = [
                RoomListing(one[1], int(one[2]), one[3])
                for line in rest
                if (one := _LISTED_ROOM.fullmatch(line))
            ]
            return RoomList(rooms)
        case "History":
            return HistoryPage(NO_ROOM, [past for line in rest if (past := _past_message(line))], more=False)
        case _:
            return HelpText()


def _past_message(line: str) -> PastMessage | None:
    past = _PAST.fullmatch(line)
    if past is None:
        return None
    # Somebody can have said just this; it is shown in the same way.
    deleted = past[3] == _DELETED
    return PastMessage(NO_ID, past[2], "" if deleted else past[3], time_of_utc(past[1]), deleted)


def _decode_error(text: str) -> ServerEvent | None:
    if text in _NOTICES:
        return DisconnectNotice(_NOTICES[text])
    if text.startswith(_KICKED):
        return DisconnectNotice(NoticeReason.KICKED, text=text.removeprefix(_KICKED))
    for pattern, reason in _ERROR_PATTERNS.items():
        if refused := re.fullmatch(pattern, text, re.DOTALL):
            return Rejected(reason, refused[1] if refused.re.groups else "")
    return UnknownError(text.removeprefix("[error] ")) if text.startswith("[error] ") else None


DIALECT = SlashDialect()
