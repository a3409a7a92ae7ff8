"""The `line` dialect: `LOGIN alice`, `MSG hi`, answers in capitals. For people with nc and for simple bots."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from geventchat.chat.commands import (
    AskHistory,
    AskToken,
    AskTopic,
    Command,
    EnterRoom,
    Help,
    InvalidCommand,
    LeaveRoom,
    ListBans,
    ListRooms,
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
    Announcement,
    BanList,
    BanListing,
    Broadcast,
    Confirmed,
    Departure,
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
from geventchat.chat.passwords import Secret
from geventchat.chat.text import visible
from geventchat.dialects.codec import (
    LOBBY,
    NO_ID,
    NO_ROOM,
    NO_TIME,
    Answer,
    CannotEncode,
    ClientCodec,
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
from geventchat.dialects.words import error_word, notice_word
from geventchat.exhaustive import assert_never

_UNKNOWN = InvalidCommand(ParseError.UNKNOWN_COMMAND)
# After `INFO`, in place of a user's name; the name is reserved.
_ANNOUNCEMENT = "announcement"

# Extra arguments are ignored: `WHO now`, `QUIT bye`.
_OWN_VERBS: dict[str, Callable[[str], Command | str]] = {
    "LOGIN": login,
    "MSG": visible,
    "WHO": lambda _: Who(),
    "DM": direct_message,
    "PING": Ping,
    "HELP": lambda _: Help(),
    "QUIT": lambda _: Quit(),
    "EXIT": lambda _: Quit(),
}
_FIRST_STEPS = "Type LOGIN and your name, then MSG and a text. HELP lists all commands."
_OWN_HELP = (
    "LOGIN name [password] - enter the chat",
    "MSG text - say something to everyone in the room",
    "DM name text - write to one person",
    "WHO - list the people in the room",
    "PING, HELP, QUIT, EXIT - test the connection, show this, leave",
)


def _usage(verb: Verb) -> str:
    return f"{verb.name.upper()} {verb.arguments}".rstrip()


def _help_line(line: HelpLine) -> str:
    return f"{', '.join(map(_usage, line.verbs))} - {line.meaning}"


_HELP = "".join([f"HELP {line}\n" for line in (*_OWN_HELP, *map(_help_line, HELP))]) + "OK\n"


def _reader(verb: Verb) -> Callable[[str], Command]:
    wrong = InvalidCommand(ParseError.INVALID_ARGUMENT, _usage(verb))
    return lambda rest: verb.read(rest) or wrong


_VERBS = {**_OWN_VERBS, **{name.upper(): _reader(verb) for name, verb in VERBS.items()}}


def _parse(text: str, logged_in: bool) -> Command | str | None:
    verb, _, rest = text.partition(" ")
    command = _VERBS.get(verb)
    # upper() also maps letters of other scripts to these, such as a dotless i and a long s.
    if not command and verb.isascii():
        command = _VERBS.get(verb.upper())
    if command:
        return command(rest.lstrip())
    return _UNKNOWN if verb else None


def departure_word(how: Departure) -> str:
    """The word after `INFO NAME` for how the user left."""
    match how:
        case Departure.DISCONNECTED:
            return "disconnected"
        case Departure.LEFT:
            return "left"
        case Departure.KICKED:
            return "kicked"
        case _:
            assert_never(how)


def _past(message: PastMessage) -> str:
    # A deleted message has no text.
    return f"{message.id} {utc(message.time_ms)} {message.name} {message.text}".rstrip()


def _topic(topic: str) -> str:
    return f"TOPIC {topic}\n" if topic else "TOPIC\n"


class LineDialect:
    """The `line` dialect."""

    name = "line"
    port = 4000
    idle_s = 60.0
    telnet = True
    read_texts = None
    signatures = (b"ERR ", b"INFO ")

    read = TerminalReader(_parse).read

    def interpreter(self) -> Interpreter:
        """Itself: lines are independent of each other."""
        return self

    def encode(self, event: Broadcast) -> bytes:
        """The bytes of a broadcast event."""
        match event:
            case Said():
                return prefixed(f"MSG {event.name} ", event.texts)
            case Joined() | Typing() | MessageDeleted():
                return b""
            case Left(name=name, how=how):
                return f"INFO {name} {departure_word(how)}\n".encode()
            case TopicChanged(topic=topic):
                return _topic(topic).encode()
            case Announcement(text):
                return f"INFO {_ANNOUNCEMENT} {text}\n".encode()
            case _:
                assert_never(event)

    def echoes(self, event: Broadcast) -> bool:
        """False: speakers do not receive their own messages."""
        match event:
            case Said() | Joined() | Left() | TopicChanged() | Typing() | MessageDeleted() | Announcement():
                return False
            case _:
                assert_never(event)

    def encode_private(self, event: PrivateEvent) -> bytes:
        """The bytes of a private event."""
        return _private_text(event).encode()

    def client(self) -> ClientCodec:
        """The client half of the dialect, for one connection."""
        return LineClient()


def _private_text(event: PrivateEvent) -> str:
    match event:
        case Greeting(text):
            return f"INFO {greeting_text(text, _FIRST_STEPS)}\n"
        case Welcome():
            return "OK\n"
        case DirectMessage(sender=sender, text=text):
            return f"DM {sender} {text}\n"
        case DirectMessageSent() | Confirmed() | Missed():
            return ""
        case MessageKept(message):
            return f"INFO {message.recipient} is offline, message kept\n"
        case TokenIssued(token):
            return f"TOKEN {token.reveal()}\n"
        case HelpText():
            return _HELP
        case Roster(users):
            return "".join([f"USER {name}\n" for name in users])
        case Entered() | LeftRoom() | Accepted():
            return "OK\n"
        case RoomList(rooms):
            return (
                "".join([f"ROOM {one.room} {one.people} {one.topic}".rstrip() + "\n" for one in rooms])
                + "OK\n"
            )
        case Topic(topic=topic):
            return _topic(topic)
        case Kicked(reason=reason):
            return f"INFO kicked {reason}".rstrip() + "\n"
        case Invited(room, name):
            return f"INFO {name} invites you to {room}\n"
        case BanList(bans=bans):
            return "".join([_ban(ban) for ban in bans]) + "OK\n"
        case HistoryPage(messages=messages):
            return "".join([f"HIST {_past(message)}\n" for message in messages]) + "OK\n"
        case Pong(token):
            return f"PONG {token}\n" if token else "PONG\n"
        case Goodbye():
            return "Goodbye!\n"
        case Rejected(reason=reason):
            return f"ERR {error_word(reason)}\n"
        case DisconnectNotice(notice, as_error, text):
            return f"{'ERR' if as_error else 'INFO'} {notice_word(notice)} {text}".rstrip() + "\n"
        case _:
            assert_never(event)


def _ban(ban: BanListing) -> str:
    until = "forever" if ban.until_ms is None else utc(ban.until_ms)
    return f"BAN {ban.who} {until} {ban.reason}".rstrip() + "\n"


# Where two reasons share a word, the later one wins, because it is more common.
_REASONS: dict[str, Rejection | ParseError] = {
    error_word(reason): reason for reason in (*Rejection, *ParseError)
}
_NOTICES = {notice_word(reason): reason for reason in NoticeReason}

# The answer to WHO has no last line. A ping follows each WHO, and its answer marks the end.
_END_OF_USERS = "end-of-users"
_KEPT = "is offline, message kept"
_INVITES = "invites you to "
_DEPARTURES = {departure_word(how): how for how in Departure}


@dataclass(slots=True)
class _Asked:
    """A command that the server has not answered completely."""

    command: Command
    ref: str
    # A message: nothing answers it but the ping behind it.
    refused: Rejected | UnknownError | None = None
    listed: list[str] = field(default_factory=list)


class LineClient:
    """The client's half of the `line` dialect.

    The server answers in order, so a line that is an answer belongs to the first command in `_asked`. A message is there only
    if it has a reference; then a ping follows it. A server that does not know pings refuses each, which is as good an answer.
    """

    echoes_messages = False
    confirms_direct_messages = False
    many_rooms = False
    answers_in_prose = False

    def __init__(self) -> None:
        self._name = ""
        self._room = LOBBY
        self._users: list[str] = []
        self._answered = False
        self._asked: deque[_Asked] = deque()

    def encode(self, command: Command, ref: str = "") -> bytes:
        """The bytes of a command."""
        data = self._encoded(command, ref)
        if ref or not isinstance(command, Say | SendDirectMessage):
            self._asked.append(_Asked(command, ref))
        return data

    def _encoded(self, command: Command, ref: str) -> bytes:
        match command:
            case Login(name, password=password):
                self._name = name
                return lines(f"LOGIN {name} {password.reveal()}" if password else f"LOGIN {name}")
            case Say(texts):
                return lines(*[f"MSG {text}" for text in texts], *_fence(ref))
            case SendDirectMessage(to, text):
                return lines(f"DM {to} {text}", *_fence(ref))
            case Who():
                return lines("WHO", f"PING {_END_OF_USERS}")
            case Ping(token):
                return lines(f"PING {token}" if token else "PING")
            case Quit():
                return lines("QUIT")
            case Help() | InvalidCommand():
                raise CannotEncode("The line dialect has no such command.")
        verb = spelled(command)
        if verb is None:
            raise CannotEncode("The line dialect has no such command.")
        return lines(f"{verb[0].upper()} {verb[1]}".rstrip())

    def decode(self, line: bytes) -> ServerEvent | None:
        """The event that this line completes."""
        text = line.decode("utf-8", "replace")
        word, _, rest = text.partition(" ")
        first, _, after = rest.partition(" ")
        if not self._answered:
            # The server says nothing but a greeting and notices before it answers the login.
            if word == "INFO" and rest and rest not in _NOTICES:
                return Greeting(rest)
            self._answered = True
        match word:
            case "OK" if not rest:
                return self._ok()
            case "MSG":
                return Said(NO_ROOM, first, (after,), NO_ID, NO_TIME)
            case "DM":
                return DirectMessage(first, self._name, after, NO_TIME)
            case "USER":
                self._users.append(rest)
                return None
            case "PONG":
                return self._pong(rest)
            case "HIST" | "ROOM" | "BAN" if self._lists(word):
                self._asked[0].listed.append(rest)
                return None
            case "TOPIC" if self._asked and isinstance(self._asked[0].command, AskTopic):
                return self._answer(Topic(NO_ROOM, rest))
            case "TOPIC":
                return TopicChanged(NO_ROOM, "", rest, NO_TIME)
            case "TOKEN" if self._asked and isinstance(self._asked[0].command, AskToken):
                return self._answer(TokenIssued(Secret(rest)))
            case "INFO" if first == _ANNOUNCEMENT:
                return Announcement(after, NO_TIME)
            case "INFO" if after in _DEPARTURES:
                return Left(NO_ROOM, first, NO_TIME, _DEPARTURES[after])
            case "INFO" if after in {"connected", "joined"}:
                # This server does not announce joins in this dialect; others do.
                return Joined(NO_ROOM, first, NO_TIME)
            case "INFO" if after == _KEPT:
                return MessageKept(DirectMessage(self._name, first, "", NO_TIME))
            case "INFO" if after.startswith(_INVITES):
                return Invited(after.removeprefix(_INVITES), first, NO_TIME)
            case "INFO" if first == notice_word(NoticeReason.KICKED):
                return self._kicked(after)
            case "INFO" | "ERR" if rest in _NOTICES and not self._is_refusal(rest):
                return DisconnectNotice(_NOTICES[rest], as_error=word == "ERR")
            case "ERR":
                return self._refused(Rejected(_REASONS[rest]) if rest in _REASONS else UnknownError(rest))
            case "Goodbye!":
                return Goodbye()
            case _:
                return UnknownLine(text)

    def _lists(self, word: str) -> bool:
        command = self._asked[0].command if self._asked else None
        match word:
            case "HIST":
                return isinstance(command, AskHistory)
            case "ROOM":
                return isinstance(command, ListRooms)
            case _:
                return isinstance(command, ListBans)

    def _is_refusal(self, word: str) -> bool:
        # `ERR banned` refuses to let a client into a room, or is the last thing that it gets.
        return (
            word == notice_word(NoticeReason.BANNED)
            and bool(self._asked)
            and isinstance(self._asked[0].command, EnterRoom)
        )

    def _answer(self, event: Event | UnknownError) -> ServerEvent:
        """The first command has been answered."""
        ref = self._asked.popleft().ref
        return Answer(ref, event) if ref else event

    def _ok(self) -> ServerEvent:
        if not self._asked:
            return UnknownLine("OK")
        asked = self._asked[0]
        match asked.command:
            case Login():
                return self._answer(Welcome(NO_ROOM, self._name, (), NO_TIME))
            case EnterRoom(room):
                self._room = room.removeprefix("#")
                return self._answer(Entered(self._room, ()))
            case LeaveRoom():
                left, self._room = self._room, LOBBY
                return self._answer(LeftRoom(left, LOBBY))
            case ListRooms():
                return self._answer(RoomList([_listing(one) for one in asked.listed]))
            case AskHistory():
                past = [message for one in asked.listed if (message := _past_message(one))]
                return self._answer(HistoryPage(NO_ROOM, past, more=False))
            case ListBans():
                return self._answer(BanList(NO_ROOM, [_listed_ban(one) for one in asked.listed]))
            case Who() | Ping() | Say() | SendDirectMessage() | Quit():
                return UnknownLine("OK")
            case _:
                return self._answer(Confirmed())

    def _pong(self, token: str) -> ServerEvent:
        asked = self._asked[0] if self._asked else None
        match asked.command if asked else None:
            case Say() | SendDirectMessage():
                return self._answer((asked and asked.refused) or Confirmed())
            case Who():
                return self._answer(self._roster())
            case Ping():
                return self._answer(Pong(token))
            case _ if token == _END_OF_USERS:
                return self._roster()
            case _:
                return Pong(token)

    def _roster(self) -> Roster:
        users, self._users = tuple(self._users), []
        return Roster(users)

    def _refused(self, event: Rejected | UnknownError) -> ServerEvent | None:
        asked = self._asked[0] if self._asked else None
        unknown = isinstance(event, Rejected) and event.reason is ParseError.UNKNOWN_COMMAND
        match asked:
            case None:
                return event
            case _Asked(Ping()) | _Asked(Say() | SendDirectMessage()) if unknown:
                # This server does not know pings, and this is the answer to one.
                return self._pong("")
            case _Asked(Ping() | Quit()):
                # It belongs to a message that has no reference.
                return event
            case _Asked(Who(), refused=None):
                asked.refused = event
                return None if unknown else event
            case _Asked(Who()) if unknown:
                return self._pong("")
            case _Asked(Say() | SendDirectMessage(), refused=None):
                asked.refused = event
                return None
            case _Asked(Say() | SendDirectMessage() | Who()):
                return event
            case _:
                return self._answer(event)

    def _kicked(self, reason: str) -> ServerEvent:
        if self._room == LOBBY:
            return DisconnectNotice(NoticeReason.KICKED, text=reason)
        room, self._room = self._room, LOBBY
        return Kicked(room, reason, NO_TIME, LOBBY)


def _fence(ref: str) -> tuple[str, ...]:
    return (f"PING {ref}",) if ref else ()


def _listing(listed: str) -> RoomListing:
    room, _, rest = listed.partition(" ")
    people, _, topic = rest.partition(" ")
    return RoomListing(room, _number(people), topic)


def _past_message(listed: str) -> PastMessage | None:
    id, _, rest = listed.partition(" ")
    time, _, rest = rest.partition(" ")
    name, _, text = rest.partition(" ")
    time_ms = time_of_utc(time)
    return PastMessage(_number(id), name, text, time_ms, deleted=not text) if name else None


def _listed_ban(listed: str) -> BanListing:
    who, _, rest = listed.partition(" ")
    until, _, reason = rest.partition(" ")
    return BanListing(who, None if until == "forever" else time_of_utc(until), reason)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else 0


DIALECT = LineDialect()
