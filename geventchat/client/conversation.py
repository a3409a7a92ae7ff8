"""A logged-in connection: turns input into commands, and events into output.

Pure except for the terminal that it shows things on. Independent of the dialect.

Invariants:
- Answers arrive in the order of the questions, so `_pings` holds one entry for each unanswered ping.
- A client's own messages are shown once: when they arrive, or, if the server does not echo them, when they are sent.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from geventchat.chat.commands import Command, Help, ParseError, Ping, Say, SendDirectMessage, Who
from geventchat.chat.events import (
    Accepted,
    Announcement,
    BanList,
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
from geventchat.chat.names import key_of
from geventchat.client import render
from geventchat.client.input import InvalidInput
from geventchat.client.render import safe
from geventchat.client.terminal import Terminal
from geventchat.dialects.codec import CannotEncode, ClientCodec, ServerEvent, UnknownError, UnknownLine
from geventchat.exhaustive import assert_never


@dataclass(frozen=True, slots=True)
class Clock:
    """The time of day, for people, and seconds that never go back, for durations."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]


class Shown(Enum):
    """How many names of a roster are shown."""

    NOTHING = 0
    # Someone who joins a crowd still sees the conversation.
    SHORT = 30
    EVERYONE = None


class Conversation:
    """One logged-in connection."""

    def __init__(
        self,
        name: str,
        codec: ClientCodec,
        send: Callable[[bytes], None],
        terminal: Terminal,
        show_error: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._name = name
        self._codec = codec
        self._send = send
        self._terminal = terminal
        self._show_error = show_error
        self._clock = clock
        self._mention = re.compile(rf"(?<!\w){re.escape(name.casefold())}(?!\w)")
        self._users: dict[str, None] = {name: None}
        # When each ping was sent; None for a keep-alive.
        self._pings: deque[float | None] = deque()
        self._next_roster = Shown.EVERYONE

    @property
    def others(self) -> Collection[str]:
        """Everyone known to be here, except this client."""
        return [name for name in self._users if name != self._name]

    @property
    def unanswered_pings(self) -> int:
        """The number of pings that have not been answered yet."""
        return len(self._pings)

    def ping(self) -> None:
        """Send a ping whose answer is not shown."""
        self._pings.append(None)
        self._send(self._codec.encode(Ping("")))

    def learn_users(self, welcome: Welcome, shown: Shown) -> None:
        """Learn the names of those online, from the welcome or by a WHO."""
        if welcome.users:
            self._roster(tuple(welcome.users), shown)
        else:
            self._next_roster = shown
            self._send(self._codec.encode(Who()))

    def perform(self, command: Command | InvalidInput) -> None:
        """Carry out what was typed."""
        match command:
            case InvalidInput(message):
                self._show_error(message)
            case Help():
                for line in render.help_lines():
                    self._terminal.show(line)
            case _:
                self._request(command)

    def receive(self, event: ServerEvent) -> None:
        """Show what the server sent."""
        show, now = self._terminal.show, self._clock.now
        match event:
            case Said(name=name, texts=texts):
                for text in texts:
                    self._said(name, text)
            case DirectMessage(sender=sender, text=text):
                self._meet(sender)
                show(render.direct_message(now(), sender, "you", text))
                if not self._is_me(sender):
                    self._terminal.ring()
            case DirectMessageSent(typed=typed, message=message):
                self._show_sent(typed, message.text)
            case Joined(name=name):
                self._meet(name)
                show(render.joined(name))
            case Left(name=name):
                self._users.pop(safe(name), None)
                show(render.left(name))
            case Roster(users):
                self._roster(tuple(users), self._next_roster)
                self._next_roster = Shown.EVERYONE
            case Pong():
                sent_at = self._pings.popleft() if self._pings else None
                if sent_at is not None:
                    show(render.ping(self._clock.monotonic() - sent_at))
            case Rejected(reason, subject):
                self._show_error(rejection_text(reason, subject or self._name))
            case Announcement(text):
                show(render.announcement(text))
                self._terminal.ring()
            case UnknownError(text):
                self._show_error(f"The server reports an error: {text}")
            case UnknownLine(text):
                show(render.hint(text))
            case DisconnectNotice() | Goodbye() | Greeting() | Welcome() | HelpText():
                # The session handles events of the connection. The client never requests the server's help.
                pass
            case (
                HistoryPage()
                | Missed()
                | Entered()
                | LeftRoom()
                | RoomList()
                | Topic()
                | Accepted()
                | Confirmed()
                | BanList()
                | TokenIssued()
                | MessageKept()
            ):
                # Nothing that this client sends is answered by one of these.
                pass
            case TopicChanged() | Typing() | MessageDeleted() | Kicked() | Invited():
                # Not in the dialects that this client speaks, or only about other rooms than the lobby.
                pass
            case _:
                assert_never(event)

    def _request(self, command: Command) -> None:
        try:
            data = self._codec.encode(command)
        except CannotEncode as error:
            self._show_error(str(error))
            return
        self._send(data)
        match command:
            case Say(texts) if not self._codec.echoes_messages:
                for text in texts:
                    self._show_own(text)
            case SendDirectMessage(to, text) if not self._codec.confirms_direct_messages:
                self._show_sent(to, text)
            case Ping():
                self._pings.append(self._clock.monotonic())

    def _said(self, name: str, text: str) -> None:
        if self._is_me(name):
            self._show_own(text)
            return
        self._meet(name)
        mention = self._mention.search(text.casefold()) is not None
        self._terminal.show(render.message(self._clock.now(), name, text, mention=mention))
        if mention:
            self._terminal.ring()

    def _show_own(self, text: str) -> None:
        if not self._terminal.echoes_input:
            self._terminal.show(render.message(self._clock.now(), self._name, text, own=True))

    def _show_sent(self, to: str, text: str) -> None:
        # A message to yourself is shown when it arrives.
        if not self._terminal.echoes_input and not self._is_me(to):
            self._terminal.show(render.direct_message(self._clock.now(), "you", to, text))

    def _roster(self, names: tuple[str, ...], shown: Shown) -> None:
        self._users = dict.fromkeys([safe(name) for name in names])
        if shown is not Shown.NOTHING:
            self._terminal.show(render.roster(names, shown.value))

    def _meet(self, name: str) -> None:
        self._users[safe(name)] = None

    def _is_me(self, name: str) -> bool:
        return key_of(name) == key_of(self._name)


def rejection_text(reason: Rejection | ParseError, subject: str) -> str:
    """An error of the server as a sentence; `subject` is the name that it refused."""
    match reason:
        case Rejection.NAME_LENGTH | Rejection.NAME_INVALID:
            return f"The server does not allow the name {subject}."
        case Rejection.NAME_TAKEN:
            return f"The name {subject} is taken."
        case Rejection.ALREADY_LOGGED_IN:
            return "You are already logged in."
        case Rejection.NOT_LOGGED_IN:
            return "The server requires a login first."
        case Rejection.EMPTY_MESSAGE | Rejection.EMPTY_DIRECT_MESSAGE:
            return "The message is empty."
        case Rejection.NO_RECIPIENT:
            return "The message has no recipient."
        case Rejection.USER_NOT_FOUND:
            return "No such user. /users lists everyone online."
        case Rejection.ROOM_NAME_INVALID:
            return f"The server does not allow the room name {subject}."
        case Rejection.NO_SUCH_ROOM:
            return "No such room."
        case Rejection.NOT_IN_ROOM:
            return "You are not in that room."
        case Rejection.ALREADY_IN_LOBBY:
            return "You are in the lobby already."
        case Rejection.TOO_MANY_ROOMS:
            return "There are too many rooms."
        case Rejection.TOPIC_TOO_LONG:
            return "The topic is too long for the server."
        case Rejection.NO_SUCH_MESSAGE:
            return "No such message."
        case Rejection.NOT_PERMITTED:
            return "The server does not allow you to do that."
        case Rejection.WRONG_KEY:
            return "The room needs another key."
        case Rejection.INVITATION_REQUIRED:
            return "The room is private: you need an invitation or its key."
        case Rejection.BANNED_FROM_ROOM:
            return "You are banned from the room."
        case Rejection.MUTED:
            return "You are muted."
        case Rejection.NO_VOICE:
            return "The room is moderated: only people with voice can speak."
        case Rejection.KEY_TOO_LONG:
            return "The key is too long for the server."
        case Rejection.LIST_FULL:
            return "The list is full."
        case Rejection.PASSWORD_REQUIRED:
            return "The name belongs to someone and needs a password."
        case Rejection.WRONG_PASSWORD:
            return "The password is wrong."
        case Rejection.WEAK_PASSWORD:
            return "The server does not allow this password."
        case Rejection.NAME_RESERVED:
            return f"The name {subject} belongs to someone."
        case Rejection.TOO_MANY_ATTEMPTS:
            return "Too many attempts. Try again later."
        case Rejection.MAILBOX_FULL:
            return "The mailbox is full."
        case ParseError.TOO_LONG:
            return "The message is too long for the server and was not delivered."
        case ParseError.NOT_UTF8:
            return "The server could not decode the message and did not deliver it."
        case ParseError.NOT_JSON | ParseError.INVALID_FIELD | ParseError.UNKNOWN_COMMAND:
            return "The server did not understand the command."
        case ParseError.INVALID_ARGUMENT:
            return "The server did not understand what follows the command."
        case _:
            assert_never(reason)
