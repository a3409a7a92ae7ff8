"""The conversation: carries out what was typed, and understands what the server sends. Sans-I/O.

It outlives connections: `online` begins one, `offline` ends it. It knows of the dialect only what `ClientCodec` says. What is
waiting for an answer is in `Requests`, what was typed and is not confirmed in `OutgoingQueue`, and what is shown in `Windows`.

Invariants of Conversation:
- A message is shown once, as waiting or as said.
- After the first login only the user changes `current`, never the server: Enter says a line where it was begun, or nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from geventchat.chat.commands import (
    AnnounceTyping,
    AskHistory,
    AskTopic,
    Command,
    EnterRoom,
    LeaveRoom,
    ListRooms,
    Login,
    Ping,
    Say,
    SendDirectMessage,
    SetTopic,
    Who,
)
from geventchat.chat.events import (
    Accepted,
    Announcement,
    BanList,
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
    PastMessage,
    Pong,
    Rejected,
    Rejection,
    RoomList,
    Roster,
    Said,
    TokenIssued,
    Topic,
    TopicChanged,
    Typing,
    Welcome,
)
from geventchat.chat.names import InvalidName, key_of, parse_room_name
from geventchat.chat.text import clean
from geventchat.client.display import Clock, Display
from geventchat.client.editor import Completions
from geventchat.client.entries import AUTOMATIC, Entries
from geventchat.client.input import (
    Act,
    AskSecret,
    ChangeName,
    ChangeSetting,
    ClearWindow,
    Direct,
    GoAway,
    HelpFor,
    HidePerson,
    InvalidInput,
    Known,
    Message,
    Parsed,
    Quote,
    Reply,
    Search,
    SendAgain,
    ShowSettings,
    action,
    completions,
    help_for,
    help_lines,
    sendable,
    waits_for_people,
)
from geventchat.client.options import KEYS, InvalidOption, Options, changed, help_of, shown
from geventchat.client.outgoing_queue import MAX_UNDER_WAY, OutgoingQueue
from geventchat.client.requests import Request, Requests, Why
from geventchat.client.sentences import rejection_text, success_text
from geventchat.client.window_list import Windows, key_of_person, key_of_room
from geventchat.client.windows import Entry, Kind, Outgoing, Window, time_of
from geventchat.dialects.codec import (
    LOBBY,
    NO_ID,
    NO_TIME,
    Answer,
    CannotEncode,
    ClientCodec,
    ServerEvent,
    UnknownError,
    UnknownLine,
)
from geventchat.exhaustive import assert_never

# `line` does not announce joins, so the client asks for the names again when its list is older than this; sooner if no name in
# the list matches.
FRESH_PEOPLE_S = 5.0
FRESH_WITHOUT_MATCH_S = 0.5
# A longer list is not requested just to complete names.
MANY_PEOPLE = 200
SEARCHED_PAGES = 5
PAGE = 200
SHOWN_RESULTS = 50
MAX_PEOPLE = 20_000
MAX_TYPING = 50
TYPING_S = 6.0
TYPING_EVERY_S = 3.0
MAX_AUTOMATIC_REPLIES = 100
# The settings that are only read at the start.
_AT_START = {"server", "tls-ca", "name", "rooms", "screen-reader"}


class Shown(Enum):
    """How many names of a roster are shown."""

    NOTHING = 0
    # Someone who joins a crowd still sees the conversation.
    SHORT = 30
    EVERYONE = None


@dataclass(slots=True)
class _SearchJob:
    window: Window
    text: str
    pages: int


@dataclass(slots=True)
class ReadMarks:
    """The last ids that were read, of one server and name; kept between sessions."""

    epoch: str = ""
    rooms: dict[str, int] = field(default_factory=dict)


class Conversation:
    """What one person has to do with one server."""

    def __init__(
        self,
        display: Display,
        send: Callable[[bytes], None],
        show_error: Callable[[str], None],
        clock: Clock,
        options: Options,
        new_key: Callable[[], str],
    ) -> None:
        self.options = options
        self._display = display
        self._show_error = show_error
        self._clock = clock
        self._new_key = new_key
        self._marks = ReadMarks()
        self._epoch = ""
        # The first window is the lobby, or the first room that was asked for.
        self._windows = Windows(next(iter(options.rooms), LOBBY))
        self._entries = Entries(display, clock, self._windows, options)
        self._outgoing = OutgoingQueue()
        self._requests = Requests(send, clock.monotonic)
        self._asked_people_at = float("-inf")
        # Called when the names of people were learned, and when the server has done what was asked for.
        self.people_arrived: Callable[[], None] = lambda: None
        self.carried_out: Callable[[Command], None] = lambda _: None
        self.has_answered = False
        self._last_writer = ""
        self._away: str | None = None
        self._answered: set[str] = set()
        self._search: _SearchJob | None = None
        self._typed_at = float("-inf")
        # A text for the input line.
        self.draft: str | None = None

    @property
    def _codec(self) -> ClientCodec | None:
        return self._requests.codec

    # What others have to know.

    @property
    def name(self) -> str:
        """The name that this client has; empty before its first login."""
        return self._entries.name

    @property
    def windows(self) -> Sequence[Window]:
        """All windows, in the order in which they were opened."""
        return self._windows.all

    @property
    def current(self) -> Window:
        """The window that is shown."""
        return self._windows.current

    @property
    def waiting(self) -> int:
        """The messages that are not confirmed and will be sent by themselves."""
        return self._outgoing.sends_itself

    @property
    def held(self) -> int:
        """The messages that were perhaps not said, and wait for a decision."""
        return self._outgoing.held

    @property
    def unsent(self) -> int:
        """The messages that have not been sent at all."""
        return self._outgoing.unsent

    @property
    def is_full(self) -> bool:
        """True when no more messages can wait."""
        return self._outgoing.is_full

    @property
    def is_waiting(self) -> bool:
        """True while the server has not answered something."""
        return len(self._requests) > 0

    @property
    def takes_more(self) -> bool:
        """True when a script can go on: the server follows, and it is clear where a message would be said."""
        is_moving = self._requests.first(EnterRoom | LeaveRoom) is not None
        return not is_moving and self._outgoing.is_empty and len(self._requests) < MAX_UNDER_WAY

    @property
    def unanswered_pings(self) -> int:
        """The number of pings that have not been answered yet."""
        return sum(isinstance(request.command, Ping) for request in self._requests)

    @property
    def away(self) -> str | None:
        """What direct messages are answered with; None if they are not."""
        return self._away

    @property
    def others(self) -> Collection[str]:
        """Everyone known to be in the current room or to have written, except this client."""
        me = key_of(self.name)
        known: dict[str, str] = {}
        for window in (self.current, self._windows.room, *self.windows):
            for key, name in window.people.items():
                known.setdefault(key, name)
            if window.is_person:
                known.setdefault(window.key.removeprefix("@"), window.name)
        known.pop(me, None)
        return known.values()

    def silence(self) -> float:
        """For how many seconds an answer has been missing; 0 if none is."""
        return self._requests.silence()

    def read_marks(self) -> ReadMarks:
        """What has been read of each room, to be kept until the next session."""
        rooms = dict(self._marks.rooms) if self._marks.epoch == self._epoch else {}
        rooms |= {window.key: window.read_id for window in self.windows if window.read_id is not None}
        return ReadMarks(self._epoch, rooms)

    def writers(self) -> list[str]:
        """Who is writing in the current room."""
        return [*self.current.writers(self._clock.monotonic())]

    # Connections.

    def use_marks(self, marks: ReadMarks) -> None:
        """Begin with what was read in earlier sessions."""
        self._marks = marks

    def enter_first(self, room: str) -> None:
        """Enter this room at the start, in place of those in the settings."""
        self.options = replace(self.options, rooms=(room,))
        self._windows.begin_with(room)

    def login(self, name: str) -> Login:
        """The login that resumes where this client was."""
        marked = self._marks.rooms if self._epoch == "" else {}
        epoch = self._epoch or self._marks.epoch
        wanted = [
            window
            for window in self.windows
            if not window.is_person and (window.joined or window.entering or self._epoch == "")
        ]
        rooms = [
            EnterRoom(
                window.name,
                window.room_key,
                window.last_id if window.last_id is not None else marked.get(window.key),
            )
            for window in wanted
        ]
        if self._epoch == "":
            known = {window.key for window in wanted}
            more = [room.removeprefix("#") for room in self.options.rooms if key_of_room(room) not in known]
            rooms += [EnterRoom(room, after=marked.get(key_of_room(room))) for room in more]
        return Login(name, rooms, epoch)

    def online(
        self, codec: ClientCodec, welcome: Welcome, later: Iterable[EnterRoom], *, returning: bool
    ) -> None:
        """A connection has logged in. The rooms in `later` were not part of the login, and are entered now."""
        self._requests.codec = codec
        self._requests.heard()
        renamed = not self._entries.is_me(welcome.name)
        self._entries.become(welcome.name)
        self.has_answered = False
        if codec.many_rooms:
            self._online_in_many(welcome, later, returning=returning)
        else:
            self._online_in_one(welcome, returning=returning)
        if renamed:
            # A server finds neither the key of a message nor the message itself under another name.
            self._hold_doubtful()
        self._pump()

    def offline(self) -> None:
        """The connection has ended."""
        # A client that can be in many rooms asks for them with its next login.
        many = self._is_many()
        self._requests.codec = None
        unanswered = any(request.why is Why.TYPED and request.outgoing is None for request in self._requests)
        self._requests.clear()
        self._outgoing.offline()
        self._search = None
        for window in [*self.windows]:
            window.asked_for_more = False
            window.typing.clear()
            if window.entering and not many:
                self._not_entered(window)
        if unanswered:
            self._show_error("The connection was lost before the server had answered the last command.")
        self._display.refresh()

    def goodbye(self) -> None:
        """The server has handled everything that was sent."""
        for outgoing in self._outgoing.under_way:
            self._message_answered(outgoing, Confirmed())
        self._requests.clear()

    def heard(self) -> None:
        """The server has sent something."""
        self._requests.heard()

    def resumed(self) -> None:
        """This program was stopped for a while: that was not the server's silence."""
        self._requests.heard()

    def ping(self) -> None:
        """Send a ping whose answer is not shown. In `line` the list of people is as good a sign of life."""
        if self._people_can_change_unheard() and self._display.interactive:
            self._ask_people()
        else:
            self._request(Ping(""), Why.KEEP_ALIVE)

    def _online_in_many(self, welcome: Welcome, later: Iterable[EnterRoom], *, returning: bool) -> None:
        changed_epoch = welcome.epoch != self._epoch and self._epoch != ""
        if changed_epoch:
            for window in self.windows:
                window.forget_ids()
        if self._marks.epoch != welcome.epoch:
            self._marks = ReadMarks(welcome.epoch)
        self._epoch = welcome.epoch
        before = {window.key for window in self.windows if window.joined}
        for window in self.windows:
            window.joined = window.entering = False
        for entered in welcome.rooms:
            self._entered(entered, quiet=returning)
        for command in later:
            window = self._windows.of_room(command.room)
            window.entering = self._request(command, Why.RESUME if returning else Why.ARRIVAL, window)
        for window in self.windows:
            if window.key in before and not window.joined and not window.entering:
                self._entries.add(window, Kind.ERROR, f"You are no longer in {window.name}.")
        if not returning and not self.current.joined:
            self._windows.show(next((window for window in self.windows if window.joined), self.current))

    def _online_in_one(self, welcome: Welcome, *, returning: bool) -> None:
        """The client is in the lobby. A room that it was in before has to be entered again."""
        for window in self.windows:
            window.joined = False
        lobby = self._windows.of_room(LOBBY)
        back_to = self._windows.room
        wanted = back_to.name if returning else next(iter(self.options.rooms), LOBBY)
        self._windows.room = lobby
        lobby.joined = True
        why = Why.RESUME if returning else Why.TYPED
        if key_of_room(wanted) != lobby.key and self._request(
            EnterRoom(wanted, back_to.room_key), why, back_to
        ):
            back_to.entering = True
            return
        if not returning and self.current.key == key_of_room(wanted):
            self._windows.current = lobby
        self._arrive(welcome.users, shown=Shown.NOTHING if returning else Shown.SHORT, returning=returning)

    def _arrive(self, users: Collection[str], *, shown: Shown, returning: bool) -> None:
        """Request the names of the people in the client's only room, and its history."""
        if users:
            self._roster(
                self._windows.room, tuple(users), len(users), Shown.NOTHING if self._is_script() else shown
            )
        elif self._display.interactive:
            self._ask_people(shown)
        doubtful = self._outgoing.has_doubtful
        if not returning and self._display.interactive and self.options.scrollback:
            self._request(AskHistory(self.options.scrollback), Why.ARRIVAL, self._windows.room)
        elif returning and (self._display.interactive or doubtful):
            self._request(AskHistory(PAGE), Why.RESUME, self._windows.room)

    # Input.

    def perform(self, parsed: Parsed, *, literal: bool = False) -> None:
        """Carry out what was typed."""
        match parsed:
            case None:
                pass
            case InvalidInput(message):
                self._show_error(message)
            case Message(texts):
                self._say(texts, literal=literal)
            case Act(text):
                self._say((action(self.name, text),), literal=False)
            case Direct(to, ()):
                self.select(self._windows.of_person(to))
            case Direct(to, texts):
                self._write(to, texts, literal=literal)
            case Reply(texts):
                if self._last_writer:
                    self._write(self._last_writer, texts, literal=literal)
                else:
                    self._show_error("Nobody has written to you yet.")
            case HidePerson(name, on):
                self._hide(name, on=on)
            case GoAway(text):
                self._go_away(text)
            case Search(text):
                self._begin_search(text)
            case Quote(name, text):
                self._quote(name, text)
            case ShowSettings(key):
                self._show_settings(key)
            case ChangeSetting(key, value):
                self._change_setting(key, value)
            case ClearWindow():
                self.current.clear()
                self._display.refresh()
            case SendAgain(drop):
                self._send_again(drop=drop)
            case HelpFor(command):
                self._help(command)
            case LeaveRoom(room):
                self._leave(room)
            case AskHistory(limit):
                self._load_older(self.current, limit, typed=True)
            case EnterRoom(room, room_key):
                self._enter(room, room_key)
            case ChangeName() | AskSecret():
                # The session handles these.
                pass
            case _:
                self._command(parsed)

    def _command(self, command: Command) -> None:
        window = self.current
        room = getattr(command, "room", None)
        if self._codec is None:
            self._show_error("Not connected: try again when the connection is back.")
        elif room == "" and window.is_person:
            self._show_error("This is a conversation with one person. Go to a room first.")
        elif room == "" and self._codec.many_rooms:
            self._request(replace(command, room=window.name), Why.TYPED, window)  # type: ignore[arg-type]
        elif room and not self._codec.many_rooms and key_of_room(room) != self._windows.room.key:
            self._show_error("With this server that works only for the room that you are in.")
        else:
            self._request(command, Why.TYPED, window)

    def _enter(self, room: str, room_key: str) -> None:
        if self._codec is None:
            self._show_error("Not connected: try again when the connection is back.")
            return
        try:
            name = parse_room_name(room)
        except InvalidName:
            self._show_error(rejection_text(Rejection.ROOM_NAME_INVALID, room))
            return
        window = self._windows.of_room(name.shown)
        after = window.last_id if window.last_id is not None else self._marks.rooms.get(window.key)
        if not self._request(EnterRoom(name.shown, room_key, after), Why.TYPED, window):
            self._windows.drop_unused(window)
            return
        # What is typed from now on is for that room, and waits for it.
        window.entering = not window.joined
        window.room_key = room_key or window.room_key
        self._show_window(window)

    def _not_entered(self, window: Window) -> None:
        """The server did not let this client in."""
        window.entering = False
        for outgoing in self._outgoing.for_room(window):
            self._refused(outgoing, f"You are not in {window.name}.")
        self._windows.drop_unused(window)

    def _say(self, texts: Iterable[str], *, literal: bool) -> None:
        window = self.current
        if window.is_person:
            self._write(window.name, texts, literal=literal)
            return
        window.first_unread = None
        for text in self._sendable(texts, literal=literal):
            self._enqueue(Outgoing(window, text))
        self._pump()

    def _write(self, to: str, texts: Iterable[str], *, literal: bool, automatic: bool = False) -> None:
        window = self._windows.find(key_of_person(to)) or self.current
        if self._display.linear:
            window = self.current
        if window.is_person and not automatic:
            window.read()
        for text in self._sendable(texts, literal=literal):
            self._enqueue(Outgoing(window, text, to=to))
        self._pump()

    def _sendable(self, texts: Iterable[str], *, literal: bool) -> list[str]:
        # A script's lines are sent as they are.
        if self._is_script():
            return list(texts)
        return sendable(tuple(texts), emoji=self.options.emoji and not literal)

    def _enqueue(self, outgoing: Outgoing) -> None:
        outgoing.key = self._new_key()
        self._outgoing.add(outgoing)
        self._display.refresh()

    def _hide(self, name: str, *, on: bool) -> None:
        key = key_of(name)
        if not name:
            self._listed([", ".join(sorted(self._entries.hidden)) or "no one"], "You ignore:")
        elif key == key_of(self.name):
            self._show_error("You cannot ignore yourself.")
        elif on:
            self._entries.hidden.add(key)
            self._notice(f"You no longer see what {name} writes. /unignore {name} shows it again.")
        elif key in self._entries.hidden:
            self._entries.hidden.discard(key)
            self._notice(f"You see what {name} writes.")
        else:
            self._show_error(f"You do not ignore {name}.")

    def _go_away(self, text: str) -> None:
        if text:
            self._away, self._answered = text, set()
            self._notice(
                "Direct messages are answered with that, each person once. /back ends it. Nobody else sees it."
            )
        elif self._away is not None:
            self._away = None
            self._notice("You are back.")
        else:
            self._show_error("Usage: /away TEXT. You are not away.")
        self._display.refresh()

    def _quote(self, name: str, text: str) -> None:
        key = key_of(name)
        quoted = next(
            (entry for entry in reversed(self.current.entries) if self._can_be_quoted(entry, key)), None
        )
        if quoted is None and name and self._can_be_quoted_at_all():
            # The first word was not a name.
            self._quote("", f"{name} {text}".strip())
            return
        if quoted is None:
            self._show_error("There is no message to quote.")
            return
        line = f"> {quoted.name}: {clean(quoted.text)}"
        if text:
            self._say((line, text), literal=False)
        elif self._display.linear:
            self._show_error("Usage: /quote [NAME] TEXT")
        else:
            self.draft = f"{line}\n"

    def _can_be_quoted(self, entry: Entry, key: str) -> bool:
        # What someone wrote to this person alone is not for a room.
        kind = Kind.DIRECT if self.current.is_person else Kind.MESSAGE
        is_message = entry.kind is kind and not entry.deleted
        return is_message and (key_of(entry.name) == key if key else not entry.own)

    def _can_be_quoted_at_all(self) -> bool:
        return any(self._can_be_quoted(entry, "") for entry in self.current.entries)

    def _show_settings(self, key: str) -> None:
        if key and key.replace("_", "-") not in KEYS:
            self._change_setting(key, "")
            return
        keys = [key.replace("_", "-")] if key else list(KEYS)
        self._listed([f"{one} = {shown(self.options, one)}    {help_of(one)}" for one in keys])

    def _change_setting(self, key: str, value: str) -> None:
        try:
            options = changed(self.options, key, value)
        except InvalidOption as error:
            text = str(error)
            self._show_error(f"{text[:1].upper()}{text[1:]}{'' if text.endswith('?') else '.'}")
            return
        key = key.replace("_", "-")
        if key in _AT_START:
            self._show_error(f"{key} is only read at the start: put it into client.toml.")
            return
        self.options = options
        self._entries.configure(options)
        self._display.configure(options)
        self._notice(f"{key} = {shown(options, key)} until the end of this session.")

    def _help(self, command: str) -> None:
        if not command:
            rows = help_lines()
            width = max(len(usage) for usage, _ in rows)
            self._listed([f"{usage:{width}}  {meaning}" for usage, meaning in rows])
        elif (found := help_for(command)) is not None:
            self._listed(["  ".join(found)])
        else:
            self._show_error(f"Unknown command /{command}. /help lists the commands.")

    def _send_again(self, *, drop: bool) -> None:
        if not self._outgoing.release(drop=drop):
            self._show_error("Every message was said, or will be sent by itself.")
        self._pump()
        self._display.refresh()

    def history_failed(self, why: str) -> None:
        """The history of the input cannot be kept."""
        self._notice(f"The history of your input is off: {why}")

    # Windows.

    def select(self, window: Window) -> None:
        """Show another window. A client that can be in one room at a time enters that room."""
        if not self._is_many() and not window.is_person and not window.joined and self._codec is not None:
            self._enter(window.name, window.room_key)
        else:
            self._show_window(window)
            self._say_where()

    def _show_window(self, window: Window) -> None:
        self._windows.show(window)
        self._display.refresh()

    def _say_where(self) -> None:
        """Without a title row, print the name of the current window."""
        window = self.current
        if not self._display.linear or self._is_script():
            return
        if window.joined or window.is_person:
            self._notice(f"You are in {window.title}.")
        else:
            self._notice(f"You are not in {window.title}. /join enters a room.")

    def select_next(self, step: int) -> None:
        """Show the window beside the current one."""
        self.select(self._windows.beside(step))

    def select_number(self, number: int) -> None:
        """Show the window with this number, which begins with 1."""
        if 0 < number <= len(self.windows):
            self.select(self.windows[number - 1])

    def select_active(self) -> None:
        """Show the window that most deserves attention."""
        window = self._windows.most_active()
        if window is not None:
            self.select(window)

    def older(self, window: Window) -> None:
        """The oldest entry of the window is on the screen: load more."""
        self._load_older(window, PAGE, typed=False)

    def typed(self, text: str) -> None:
        """The input line has changed: let others know that something is being written."""
        now = self._clock.monotonic()
        window = self.current
        can = self._codec is not None and self._codec.many_rooms and window.joined and self.options.typing
        if can and text and not text.startswith("/") and now - self._typed_at >= TYPING_EVERY_S:
            self._typed_at = now
            self._request(AnnounceTyping(window.name), Why.KEEP_ALIVE, window)

    def complete(self, before_cursor: str) -> Completions:
        """The completions of what is before the cursor."""
        rooms = [window.name for window in self.windows if not window.is_person]
        word, candidates = completions(before_cursor, Known(self.others, rooms))
        stale = self._people_can_change_unheard() and waits_for_people(before_cursor)
        fresh_s = FRESH_PEOPLE_S if candidates else FRESH_WITHOUT_MATCH_S
        if stale and self._clock.monotonic() - self._asked_people_at >= fresh_s:
            self._ask_people()
        return Completions(word, candidates, complete=not (stale and self._is_asking_people()))

    def _people_can_change_unheard(self) -> bool:
        codec = self._codec
        quiet = (
            codec is not None
            and not codec.many_rooms
            and not codec.echoes_messages
            and not codec.answers_in_prose
        )
        return quiet and len(self._windows.room.people) <= MANY_PEOPLE

    def _is_asking_people(self) -> bool:
        return self._requests.first(Who) is not None

    def _ask_people(self, shown_as: Shown = Shown.NOTHING) -> None:
        self._asked_people_at = self._clock.monotonic()
        why = Why.ARRIVAL if shown_as is Shown.SHORT else Why.PEOPLE
        self._request(Who(), why, self._windows.room)

    def _leave(self, room: str) -> None:
        window = self.current
        if room:
            key = key_of_person(room[1:]) if room.startswith("@") else key_of_room(room)
            found = self._windows.find(key)
            if found is None:
                self._show_error(f"You are not in {room}.")
                return
            window = found
        if window.is_person or not window.joined:
            self._close(window)
            self._say_where()
        elif self._codec is None:
            self._show_error("Not connected: try again when the connection is back.")
        else:
            self._request(LeaveRoom(window.name if self._codec.many_rooms else ""), Why.TYPED, window)

    def _close(self, window: Window) -> None:
        if len(self.windows) == 1:
            self._show_error("This is the only window. /quit leaves the chat.")
            return
        self._windows.close(window)
        self._display.refresh()

    # Sending.

    def _request(self, command: Command, why: Why, window: Window | None = None) -> bool:
        """Send a command that is answered; False if that is not possible."""
        if self._codec is None:
            return False
        try:
            self._requests.ask(command, why, window or self.current)
        except CannotEncode as error:
            if why is Why.TYPED:
                self._show_error(str(error))
            return False
        return True

    def _pump(self) -> None:
        """Send what waits, as far as the server follows."""
        while self._codec is not None and (outgoing := self._outgoing.next(self._can_be_sent)) is not None:
            self._transmit(outgoing)

    def _can_be_sent(self, outgoing: Outgoing) -> bool:
        assert self._codec is not None
        window = outgoing.window
        if window.entering and not outgoing.to:
            return False
        if not outgoing.doubtful:
            return True
        if self._codec.many_rooms:
            # What was missed can show that it was said.
            return outgoing.to != "" or not window.joined or (window.last_id or NO_ID) >= window.replay_until
        return not self._requests.has(Why.RESUME)

    def _transmit(self, outgoing: Outgoing) -> None:
        assert self._codec is not None
        window = outgoing.window
        if not outgoing.to and not self._codec.many_rooms and window is not self._windows.room:
            self._refused(outgoing, f"You are in {self._windows.room.name} now.")
            return
        command: Command = Say((outgoing.text,), window.name if self._codec.many_rooms else "", outgoing.key)
        if outgoing.to:
            command = SendDirectMessage(outgoing.to, outgoing.text, outgoing.key)
        try:
            self._requests.ask(command, Why.TYPED, window, outgoing)
        except CannotEncode as error:
            self._refused(outgoing, str(error))

    def _refused(self, outgoing: Outgoing, why: str) -> None:
        self._outgoing.decide(outgoing)
        self._show_error(f"{why} Not sent: {outgoing.text}" if not self._is_script() else why)

    def _is_script(self) -> bool:
        return not self._display.interactive

    # Receiving.

    def receive(self, event: ServerEvent) -> None:
        """Handle what the server sent."""
        match event:
            case Answer(ref, inner):
                self.has_answered = True
                request = self._requests.answered(ref)
                if request is None:
                    self._event(inner)
                elif request.outgoing is not None:
                    self._message_answered(request.outgoing, inner)
                else:
                    self._answer(request, inner)
            case _:
                self._event(event)
        self._pump()
        self._display.refresh()

    def _message_answered(self, outgoing: Outgoing, event: Event | UnknownError) -> None:
        match event:
            case Rejected(reason=Rejection.USER_NOT_FOUND):
                self._refused(
                    outgoing,
                    "No such user. /who lists the people in the room."
                    if self._is_script()
                    else f"{outgoing.to} is not here.",
                )
            case Rejected(reason, subject):
                self._refused(outgoing, rejection_text(reason, subject or self.name))
            case UnknownError(text):
                self._refused(outgoing, f"The server reports an error: {text}.")
            case Confirmed(message_id=id) if not outgoing.echoed:
                self._outgoing.decide(outgoing)
                self._show_own(outgoing, id)
            case _:
                self._outgoing.decide(outgoing)

    def _show_own(self, outgoing: Outgoing, id: int) -> None:
        """Show a message of this client's that the server does not send back."""
        text = clean(outgoing.text)
        if outgoing.to:
            if key_of(outgoing.to) != key_of(self.name):
                self._entries.direct(self.name, outgoing.to, text, NO_TIME)
        elif id == NO_ID or id not in outgoing.window.ids:
            self._entries.said(outgoing.window, self.name, text, id, NO_TIME)

    def _answer(self, request: Request, event: Event | UnknownError) -> None:
        window = request.window
        match event:
            case Rejected() | UnknownError():
                self._request_refused(request, event)
            case Confirmed() if request.why is Why.TYPED:
                assert self._codec is not None
                self.carried_out(request.command)
                text = success_text(request.command, window.name)
                if text and not self._codec.answers_in_prose:
                    self._success(text)
                if isinstance(request.command, SetTopic):
                    window.topic = clean(request.command.topic)
            case Confirmed():
                pass
            case Pong():
                if request.why is Why.TYPED:
                    self._ping_answered(self._clock.monotonic() - request.sent_at)
            case Roster(users, _, count):
                self._roster_answered(request, tuple(users), count)
            case HistoryPage(_, messages, more):
                self._history(request, list(messages), more=more)
            case Entered():
                self._entered_by_request(request, event)
            case LeftRoom():
                self._left_room(event)
            case RoomList(rooms):
                self._listed(
                    [f"{one.room} ({one.people})" + (f" {one.topic}" if one.topic else "") for one in rooms],
                    "Rooms:",
                )
            case Topic(topic=topic):
                window.topic = clean(topic)
                self._entries.add(window, Kind.TOPIC, f"Topic: {topic}" if topic else "No topic.")
            case BanList(_, bans, more):
                rows = [
                    f"{ban.who} "
                    + (
                        f"until {time_of(ban.until_ms, self._clock.now):%Y-%m-%d %H:%M}"
                        if ban.until_ms
                        else "for good"
                    )
                    + (f": {ban.reason}" if ban.reason else "")
                    for ban in bans
                ]
                self._listed([*(rows or ["no one"]), *["…"] * more], "Banned:")
            case TokenIssued(token):
                self._success(f"Your token, shown only once: {token.reveal()}")
            case _:
                self._event(event)

    def _request_refused(self, request: Request, event: Rejected | UnknownError) -> None:
        if request.why in {Why.OLDER, Why.SEARCH, Why.RESUME, Why.ARRIVAL, Why.MISSED} and isinstance(
            request.command, AskHistory
        ):
            # This server keeps no history, or not for this client.
            request.window.more = request.window.asked_for_more = False
            self._finish_search(request)
            if request.why is Why.RESUME:
                self._hold_doubtful()
            return
        if isinstance(request.command, EnterRoom) and not self._is_many() and request.why is Why.RESUME:
            self._windows.room = self._windows.of_room(LOBBY)
            self._arrive((), shown=Shown.NOTHING, returning=True)
        if isinstance(request.command, EnterRoom):
            self._not_entered(request.window)
        if request.why in {Why.KEEP_ALIVE, Why.PEOPLE}:
            return
        if isinstance(event, UnknownError):
            self._show_error(f"The server reports an error: {event.text}")
        else:
            self._show_error(self._rejection(event))
        if isinstance(request.command, EnterRoom):
            self._say_where()

    def _rejection(self, event: Rejected) -> str:
        text = rejection_text(event.reason, event.subject or event.room or self.name)
        # Of many rooms, it should be clear which one is meant.
        return f"{event.room}: {text}" if event.room and key_of_room(event.room) != self.current.key else text

    def _is_many(self) -> bool:
        return self._codec is not None and self._codec.many_rooms

    def _event(self, event: ServerEvent) -> None:
        match event:
            case Said():
                self._said(event)
            case DirectMessage(sender, recipient, text, time_ms):
                self._direct_received(sender, recipient, text, time_ms)
            case DirectMessageSent(message, typed):
                self._direct_sent(message, typed)
            case MessageKept(message):
                self._kept(message)
            case Joined(room, name, time_ms):
                window = self._windows.of_room(room)
                self._meet(window, name)
                if self.options.joins and not self._entries.is_me(name):
                    where = "room" if self._is_many() else ""
                    self._entries.add(window, Kind.JOINED, where, name=name, time_ms=time_ms)
            case Left():
                self._gone(event)
            case TopicChanged(room, name, topic, time_ms):
                window = self._windows.of_room(room)
                window.topic = clean(topic)
                who = f"{name} changed the topic: " if name else "The topic is: "
                text = f"{who}{topic}" if topic else f"{name or 'Somebody'} removed the topic."
                self._entries.add(window, Kind.TOPIC, text, time_ms=time_ms)
            case Typing(room, name):
                now = self._clock.monotonic()
                typing = self._windows.of_room(room).writers(now)
                if (
                    key_of(name) not in self._entries.hidden
                    and self.options.typing
                    and (len(typing) < MAX_TYPING or clean(name) in typing)
                ):
                    typing[clean(name)] = now + TYPING_S
            case MessageDeleted(room, id):
                self._entries.delete(self._windows.of_room(room), id)
            case Kicked(room, reason, time_ms, now_in):
                self._kicked(room, reason, time_ms, now_in)
            case Invited(room, name):
                if key_of(name) not in self._entries.hidden:
                    self._notice(f"{name} invites you to {room}: /join {room}")
                    self._entries.alert(f"{name} invites you to {room}")
            case Announcement(text, time_ms):
                self._entries.add(self.current, Kind.ANNOUNCEMENT, text, time_ms=time_ms)
                self._entries.alert(text)
            case Entered():
                self._entered_alone(event)
            case LeftRoom(room, now_in) if self._requests.first(LeaveRoom) is None:
                self._removed(room, now_in)
                self._say_where()
            case LeftRoom():
                self._left_room(event)
            case Roster(users, _, count):
                request = self._requests.first(Who)
                if request is None:
                    self._roster(self._windows.room, tuple(users), count or len(users), Shown.EVERYONE)
                else:
                    self._roster_answered(request, tuple(users), count)
            case Rejected():
                self._show_error(self._rejection(event))
            case UnknownError(text):
                self._show_error(f"The server reports an error: {text}")
            case UnknownLine(text):
                self._notice(text)
            case Missed(events):
                for one in events:
                    self._event(one)
            case DisconnectNotice() | Goodbye() | Greeting() | Welcome() | HelpText():
                # The session handles events of the connection. The client never requests the server's help.
                pass
            case HistoryPage() | RoomList() | Topic():
                # In some dialects the answer itself does not say what it answers.
                kinds = {HistoryPage: AskHistory, RoomList: ListRooms, Topic: AskTopic | SetTopic}
                request = self._requests.first(kinds[type(event)])
                if request is not None:
                    self._answer(request, event)
            case Pong() | Confirmed() | Accepted() | BanList() | TokenIssued():
                # An answer to something that was asked on an earlier connection, or not at all.
                pass
            case Answer(_, inner):
                self._event(inner)
            case _:
                assert_never(event)

    # Messages.

    def _said(self, said: Said) -> None:
        window = self._windows.of_room(said.room)
        name = clean(said.name)
        mine = self._entries.is_me(name)
        for id, text in enumerate(said.texts, said.first_id):
            number = id if said.first_id != NO_ID else NO_ID
            if mine and text:
                self._outgoing.arrived([window], text, "")
            elif not mine:
                self._meet(window, name)
                window.typing.pop(name, None)
            self._entries.said(window, name, text, number, said.time_ms)

    def _direct_received(self, sender: str, recipient: str, text: str, time_ms: int) -> None:
        sender = clean(sender)
        mine = self._entries.is_me(sender)
        if key_of(sender) in self._entries.hidden:
            return
        if mine:
            self._outgoing.arrived(self.windows, text, recipient)
        else:
            self._last_writer = sender
        self._entries.direct(sender, "you" if mine else recipient, text, time_ms, incoming=True)
        if not mine:
            self._entries.alert(f"{sender} → you: {text}", sender)
            if not text.startswith(AUTOMATIC):
                self._reply_automatically(sender)

    def _direct_sent(self, message: DirectMessage, typed: str) -> None:
        # A message to yourself is shown when it arrives.
        to = clean(message.recipient or typed)
        self._outgoing.arrived(self.windows, message.text, to)
        if not self._entries.is_me(to):
            self._entries.direct(self.name, to, message.text, message.time_ms)

    def _kept(self, message: DirectMessage) -> None:
        to = clean(message.recipient)
        text = message.text
        if text:
            self._direct_sent(message, to)
        self._notice(f"{to} is away and gets the message at the next login.")

    def _reply_automatically(self, sender: str) -> None:
        key = key_of(sender)
        if self._away is None or key in self._answered or len(self._answered) >= MAX_AUTOMATIC_REPLIES:
            return
        self._answered.add(key)
        self._write(sender, (f"{AUTOMATIC} {self._away}",), literal=True, automatic=True)

    # People.

    def _meet(self, window: Window, name: str) -> None:
        key = key_of(name)
        if key and key not in window.people and len(window.people) < MAX_PEOPLE:
            window.people[key] = clean(name)
            window.user_count += 1

    def _gone(self, left: Left) -> None:
        window = self._windows.of_room(left.room)
        if window.people.pop(key_of(left.name), None) is not None:
            window.user_count = max(window.user_count - 1, 0)
        window.typing.pop(clean(left.name), None)
        if self.options.joins:
            # Version 2 of json does not say whether someone who leaves a room also leaves the chat.
            how = Departure.LEFT if self._is_many() else left.how
            self._entries.add(window, Kind.LEFT, how.name.lower(), name=left.name, time_ms=left.time_ms)

    def _roster_answered(self, request: Request, users: tuple[str, ...], count: int) -> None:
        shown_as = {Why.TYPED: Shown.EVERYONE, Why.ARRIVAL: Shown.SHORT}.get(request.why, Shown.NOTHING)
        command = request.command
        window = (
            request.window
            if not self._is_many() or not isinstance(command, Who)
            else self._windows.of_room(command.room)
        )
        self._roster(window, users, count or len(users), shown_as)
        self.people_arrived()

    def _roster(self, window: Window, names: tuple[str, ...], count: int, shown_as: Shown) -> None:
        window.people = {key_of(name): clean(name) for name in names}
        window.user_count = count
        if shown_as is Shown.NOTHING:
            return
        listed = names[: shown_as.value]
        more = count - len(listed)
        shown_in = window if self._display.linear or shown_as is Shown.SHORT else self.current
        text = f"{count} {'here' if window is shown_in else f'in {window.title}'}"
        if listed:
            text += f": {', '.join(listed)}" + (f" and {more} more" if more > 0 else "")
        self._entries.add(shown_in, Kind.PEOPLE, text)

    # Rooms.

    def _entered(self, entered: Entered, *, quiet: bool) -> Window:
        """This client is in a room, of many."""
        quiet = quiet or self._is_script()
        window = self._windows.of_room(entered.room)
        window.name = clean(entered.room)
        first = window.last_id is None
        window.joined = True
        window.topic = clean(entered.topic)
        marked = self._marks.rooms.get(window.key)
        expected = marked if first else window.last_id
        window.entering = False
        self._roster(
            window, tuple(entered.users), entered.user_count, Shown.NOTHING if quiet else Shown.SHORT
        )
        if window.topic and not quiet:
            self._entries.add(window, Kind.TOPIC, f"Topic: {window.topic}")
        window.replay_until = entered.last_id
        if expected is not None and entered.replay_from > expected + 1 and not first:
            self._fill_gap(window, expected, entered.replay_from)
        if first:
            window.last_id = entered.replay_from - 1
            window.read_id = min(marked, entered.last_id) if marked is not None else entered.last_id
            window.more = entered.replay_from > 1
            if self.options.scrollback and window.more and self._display.interactive:
                self._load(window, self.options.scrollback, entered.replay_from, Why.ARRIVAL)
        if entered.replay_from > entered.last_id:
            window.last_id = max(window.last_id or NO_ID, entered.last_id)
        return window

    def _entered_by_request(self, request: Request, entered: Entered) -> None:
        command = request.command
        room_key = command.room_key if isinstance(command, EnterRoom) else ""
        returning = request.why is Why.RESUME
        if self._is_many():
            self._entered(entered, quiet=returning).room_key = room_key
            if request.why is Why.TYPED:
                self._say_where()
            return
        self._windows.move_to(entered.room)
        self._windows.room.room_key = room_key
        if not returning:
            self._say_where()
        known = any(entry.kind is Kind.MESSAGE for entry in self._windows.room.entries)
        self._arrive((), shown=Shown.NOTHING if returning else Shown.SHORT, returning=returning or known)

    def _entered_alone(self, entered: Entered) -> None:
        """This client is in a room; the dialect does not say at whose request."""
        if self._is_many():
            self._entered(entered, quiet=False)
        else:
            self._windows.move_to(entered.room)
            self._say_where()

    def _left_room(self, left: LeftRoom) -> None:
        """The user has left a room."""
        window = self._removed(left.room, left.now_in)
        if left.now_in and self.current is window:
            self._show_window(self._windows.room)
        if len(self.windows) > 1:
            self._close(window)
            self._say_where()
        else:
            self._notice(f"You have left {window.name}. /join enters a room.")

    def _kicked(self, room: str, reason: str, time_ms: int, now_in: str) -> None:
        window = self._removed(room, now_in)
        because = f": {reason}" if reason else "."
        self._entries.add(window, Kind.ERROR, f"You were kicked from {window.name}{because}", time_ms=time_ms)

    def _removed(self, room: str, now_in: str) -> Window:
        """This client is no longer in a room. Its window stays."""
        window = self._windows.of_room(room)
        window.joined = False
        if now_in:
            self._windows.move_to(now_in)
        return window

    # History.

    def _fill_gap(self, window: Window, after: int, before: int) -> None:
        """More was missed than the server has sent again; or it has left out numbers."""
        window.gap_after, window.gap_id = after, before
        if self._display.linear or not self.options.scrollback:
            self._note_gap(window)
        else:
            self._load(window, self.options.scrollback, before, Why.MISSED)

    def _note_gap(self, window: Window) -> None:
        self._entries.add(window, Kind.NOTICE, "Older messages were missed: /history loads them.")

    def _load(self, window: Window, limit: int, before: int, why: Why) -> None:
        window.asked_for_more = self._request(AskHistory(limit, before, window.name), why, window)

    def _load_older(self, window: Window, limit: int, *, typed: bool) -> None:
        why = Why.TYPED if typed else Why.OLDER
        if window.is_person or self._codec is None:
            if typed:
                self._show_error("Direct messages have no history." if window.is_person else "Not connected.")
            return
        if window.asked_for_more:
            return
        if not self._codec.many_rooms:
            if typed or window.more:
                window.asked_for_more = self._request(
                    AskHistory(PAGE if not typed else min(limit, PAGE)), why, window
                )
            return
        before = window.gap_id or window.oldest_id or (window.last_id or NO_ID) + 1
        if typed and not window.more and not window.gap_id:
            self._notice(f"This is the beginning of {window.name}, as far as the server remembers.")
        elif window.more or window.gap_id:
            self._load(window, min(limit, PAGE), before, why)

    def _history(self, request: Request, messages: list[PastMessage], *, more: bool) -> None:
        window = request.window
        window.asked_for_more = False
        if self._is_many():
            self._history_by_ids(window, messages, more=more, request=request)
        elif request.why is Why.RESUME:
            self._resume_by_history(window, messages)
        else:
            self._history_of_one_room(window, messages, request)
        self._finish_search(request)
        self._display.refresh()

    def _history_by_ids(
        self, window: Window, messages: list[PastMessage], *, more: bool, request: Request
    ) -> None:
        if window.gap_id:
            oldest = min((message.id for message in messages), default=NO_ID)
            missed = [message for message in messages if message.id > window.gap_after]
            window.gap_id = NO_ID if len(missed) < len(messages) or not more else oldest
            messages = missed
        else:
            window.more = more
        fresh = self._insert(window, messages, request.why)
        if request.why is Why.MISSED:
            if fresh and window.first_unread is not None:
                window.first_unread = fresh[0]
            if window.gap_id:
                self._note_gap(window)
        if request.why is Why.TYPED and not self._display.linear:
            self._notice(f"{_count('older message', len(fresh))} loaded: PageUp scrolls.")

    def _history_of_one_room(self, window: Window, messages: list[PastMessage], request: Request) -> None:
        known = window.oldest_id
        if known:
            older = [message for message in messages if message.id < known]
        else:
            # What was said since this client came is on the screen already.
            shown_here = [
                (entry.name, entry.text) for entry in reversed(window.entries) if entry.kind is Kind.MESSAGE
            ]
            newest_first = [(clean(message.name), message.text) for message in reversed(messages)]
            older = messages[: len(messages) - (_behind(newest_first, shown_here) or 0)]
        window.more = len(older) > 0 and len(messages) < PAGE
        self._insert(window, older, request.why)

    def _insert(self, window: Window, messages: list[PastMessage], why: Why) -> list[Entry]:
        return self._entries.insert(window, messages, shown=why not in {Why.SEARCH, Why.OLDER})

    def _resume_by_history(self, window: Window, messages: list[PastMessage]) -> None:
        """Find in the history what was said meanwhile, and whether doubtful messages were. The dialect has no ids elsewhere."""
        shown_here = [(entry.name, entry.text) for entry in window.entries if entry.kind is Kind.MESSAGE]
        at = _behind([(clean(one.name), one.text) for one in messages], shown_here)
        if at is None:
            # Nothing that is shown is in it: a new server, or too much was said.
            at = 0 if len(messages) < PAGE else len(messages)
            certain = len(messages) < PAGE
        else:
            certain = True
        for message in messages[at:]:
            if self._entries.is_me(message.name):
                self._outgoing.arrived([window], message.text, "")
            self._entries.said(window, clean(message.name), message.text, NO_ID, message.time_ms)
        if not certain:
            self._hold_doubtful()
        self._pump()

    def _hold_doubtful(self) -> None:
        held = self._outgoing.hold_doubtful()
        if held:
            self._notice(
                f"{_count('message', held)} perhaps not said: /resend sends {'it' if held == 1 else 'them'} again, "
                "/resend drop forgets."
            )
        self._pump()

    # Searching.

    def _begin_search(self, text: str) -> None:
        if self.current.is_person or self._codec is None:
            self._report(self.current, text)
            return
        self._search = _SearchJob(self.current, text, SEARCHED_PAGES)
        self._go_on_searching()

    def _go_on_searching(self) -> None:
        job = self._search
        assert job is not None
        window = job.window
        if job.pages and window.more and not window.asked_for_more and self._is_many():
            job.pages -= 1
            self._load(window, PAGE, window.oldest_id or (window.last_id or NO_ID) + 1, Why.SEARCH)
            if window.asked_for_more:
                return
        self._search = None
        self._report(window, job.text)

    def _finish_search(self, request: Request) -> None:
        if request.why is Why.SEARCH and self._search is not None:
            self._go_on_searching()

    def _report(self, window: Window, text: str) -> None:
        wanted = text.casefold()
        found = [
            entry
            for entry in window.entries
            if entry.kind in {Kind.MESSAGE, Kind.DIRECT} and wanted in entry.text.casefold()
        ]
        rows = [f"{entry.at:%Y-%m-%d %H:%M} {entry.name}: {entry.text}" for entry in found[-SHOWN_RESULTS:]]
        more = f", the last {SHOWN_RESULTS}" if len(found) > SHOWN_RESULTS else ""
        self._listed(
            rows,
            f"{_count('message', len(found))} with “{text}” in {window.title}{more}:"
            if rows
            else f"Nothing with “{text}” in {window.title}.",
        )

    # Showing.

    def add(self, kind: Kind, text: str) -> Entry:
        """Show something where the user is."""
        return self._entries.add(self.current, kind, text)

    def _notice(self, text: str) -> None:
        self.add(Kind.NOTICE, text)

    def _success(self, text: str) -> None:
        self.add(Kind.SUCCESS, text)

    def _listed(self, rows: Iterable[str], title: str = "") -> None:
        if title:
            self._notice(title)
        for row in rows:
            self.add(Kind.LISTED, row)

    def _ping_answered(self, seconds: float) -> None:
        ms = seconds * 1000
        duration = f"{seconds:.1f} s" if ms >= 1000 else f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"
        self.add(Kind.PING, f"The server answered in {duration}")


def _count(what: str, number: int) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _behind(history: list[tuple[str, str]], shown_here: list[tuple[str, str]]) -> int | None:
    """Where in the history begins what is not shown yet; None if nothing that is shown is in it.

    The longest run at the end of what is shown that is in the history decides, and where it is there twice the later one.
    """
    best, best_end = 0, None
    for end in range(len(history), 0, -1):
        run = 0
        while run < min(end, len(shown_here)) and history[end - 1 - run] == shown_here[-1 - run]:
            run += 1
        if run > best:
            best, best_end = run, end
    return best_end
