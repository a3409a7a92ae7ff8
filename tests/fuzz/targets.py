"""The fuzz targets: a function for each parser that takes bytes and raises when something is wrong.

Pure: no sockets, no event loop and no fuzzer, so the corpus can be run wherever Python runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from geventchat.chat.chat import Chat
from geventchat.chat.commands import EnterRoom, InvalidCommand, Login, ParseError
from geventchat.chat.events import (
    Announcement,
    Broadcast,
    DirectMessage,
    DirectMessageSent,
    DisconnectNotice,
    Event,
    MessageDeleted,
    Missed,
    NoticeReason,
    PrivateEvent,
    Said,
    Topic,
    TopicChanged,
)
from geventchat.chat.names import Name
from geventchat.chat.passwords import Secret
from geventchat.chat.results import DONE, Leave
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import Session
from geventchat.dialects import ALL_DIALECTS
from geventchat.dialects.dialect import Dialect, OtherDialect, Reading
from geventchat.dialects.framing import TOO_LONG, Line, LineFraming
from geventchat.net.sniffing import Sniffer
from geventchat.settings import Limits
from tests.geventchat.recording import Audiences, at_once, memory, perform, tools

MAX_LINE = 64
_CHAT_MAX_LINE = 4_096
# Characters that must never be sent to a client: controls, bidirectional overrides and isolates, other line breaks.
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")
# Characters that must never be shown: invisible ones, and stacks of marks that cover the lines above and below.
_INVISIBLE = re.compile("[\u00ad\u200b\u2060-\u2064\u3164\ufeff]|[\u0300-\u036f]{5}")
_TIME_S = 1_234_567_890


def framing(data: bytes) -> None:
    """Cut the data as its first byte says; the lines must be those of the definition, and memory must stay bounded."""
    if not data:
        return
    step, wire = data[0] % 17 + 1, data[1:]
    expected = lines_of(wire, MAX_LINE)
    for size in (step, 1, max(1, len(wire))):
        reader, found = LineFraming(MAX_LINE), list[Line]()
        for at in range(0, len(wire), size):
            found += reader.feed(wire[at : at + size])
            assert len(reader._rest) <= MAX_LINE + 1, "it holds more than a line can have"
        assert found == expected, f"in pieces of {size}: {found} instead of {expected}"
    Sniffer(MAX_LINE).feed(wire)


def lines_of(wire: bytes, limit: int) -> list[Line]:
    """The definition: a line ends in a newline, less one carriage return; one over the limit is TOO_LONG."""
    lines = [line[:-1] if line.endswith(b"\r") else line for line in wire.split(b"\n")[:-1]]
    return [line if len(line) <= limit else TOO_LONG for line in lines]


_LIMITS = Limits(
    contacts=3,
    rooms=3,
    message_keys=3,
    accounts=4,
    tokens=1,
    ignored=2,
    room_bans=2,
    server_bans=2,
    room_roles=1,
    invitations=1,
)


def conversation(dialect: Dialect) -> Callable[[bytes], None]:
    """A conversation in one dialect, with a listener in each dialect: nothing harmful may be sent to any client.

    The accounts `op` (an operator), `member` and `friend` have the password `correct horse`. The friend follows the client
    into every room.
    """

    def converse(data: bytes) -> None:
        chat = Chat(
            lambda: float(_TIME_S),
            new_gate=lambda delay_s: _OpenGate(),
            storage=memory(),
            in_thread=at_once,
            tools=tools(),
            announce_later=lambda room: None,
            limits=_LIMITS.chat,
            operators=("op",),
        )
        for name in ("op", "member", "friend"):
            chat._accounts.add(Name(name, name), "plain:correct horse", "")
        wires = {each.name: _Wire(each) for each in ALL_DIALECTS.values()}
        audiences = Audiences(lambda name: _CheckedAudience(wires[name]))
        listeners = [Session(_CheckedSubscriber(wire, audiences)) for wire in wires.values()]
        for n, listener in enumerate(listeners):
            rooms = (EnterRoom("lobby"),) if n == len(listeners) - 1 else None
            chat.handle(listener, Login(f"listener{n}", rooms))
        friend = Session(_CheckedSubscriber(wires["json2"], audiences))
        perform(chat, friend, Login("friend", (), password=Secret("correct horse")))
        listeners.append(friend)
        subscriber = _CheckedSubscriber(wires[dialect.name], audiences)
        session = Session(subscriber)
        for line in LineFraming(_CHAT_MAX_LINE).feed(data + b"\n"):
            # The texts of consecutive lines become one command: a frame of two lines.
            result = perform(chat, session, _reading(subscriber, line, session.name is not None, wires), 2)
            if isinstance(result, Leave):
                break
            assert result is DONE
            assert len(session.contacts or ()) <= 3
            assert len(chat.rooms) <= 3
            assert len(chat._message_keys) <= 3
            _check_limits(chat)
            if friend.name is not None:
                for room in session.all_rooms():
                    perform(chat, friend, EnterRoom(room.name))
        session.subscriber.deliver(DisconnectNotice(NoticeReason.IDLE))
        chat.leave(session)
        chat.leave(friend)
        # The listeners that the operator has not removed.
        left = [listener for listener in listeners if listener.name is not None]
        assert len(chat) == len(chat.lobby.names) == len(left)
        assert all(rooms == chat.lobby.alone for _, rooms in audiences.audiences)
        for wire in wires.values():
            wire.check()

    return converse


def _check_limits(chat: Chat) -> None:
    """Check that nothing has grown beyond its limit."""
    assert len(chat._accounts) <= 4
    for room in chat.rooms:
        assert max(len(room.bans.by_label), len(room.mutes.by_label)) <= 2
        assert max(len(room.moderators), len(room.voices), len(room.invitations)) <= 1
        assert len(room.topic) <= _LIMITS.topic_characters
    for session in chat._sessions.values():
        assert len(session.ignored or ()) <= 2


def _reading(subscriber: _CheckedSubscriber, line: Line, logged_in: bool, wires: dict[str, _Wire]) -> Reading:
    if line is TOO_LONG:
        return InvalidCommand(ParseError.TOO_LONG)
    reading = subscriber.interpreter.read(line, logged_in)
    if isinstance(reading, OtherDialect):
        assert not logged_in
        subscriber.speak(wires[reading.name])
        reading = subscriber.interpreter.read(line, logged_in)
        assert not isinstance(reading, OtherDialect)
    return reading


class _Wire:
    """Checks everything that is sent in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._wire: list[bytes] = []
        # Texts that other clients than their sender receive.
        self._shown: list[str] = []

    def check_frame(self, event: Event, frame: bytes) -> None:
        """Check that a frame consists of complete lines, as many as the event has."""
        lines = _line_count(event, self.dialect)
        assert not frame or lines is None or frame.count(b"\n") == lines, f"not {lines} lines: {frame!r}"
        assert not frame or frame.endswith(b"\n"), f"half a line: {frame!r}"
        self._wire.append(frame)

    def show(self, text: str) -> None:
        """Add a text that other clients receive."""
        self._shown.append(text)

    def check(self) -> None:
        """Check that everything that was sent is harmless text."""
        wire = b"".join(self._wire)
        is_json = self.dialect.name in ("json", "json2")
        text = wire.decode("ascii" if is_json else "utf-8")
        found = UNSAFE.search(text)
        assert found is None, f"{found!r} in {text!r}"
        for shown in self._shown:
            assert not _INVISIBLE.search(shown), f"{shown!r}"
        if is_json:
            for line in text.splitlines():
                one = json.loads(line)
                # Only the sender gets its own `ref` back, unchanged.
                one.pop("ref", "").encode()
                for word in _strings(one):
                    assert not UNSAFE.search(word), line
                    word.encode()


def _strings(value: object) -> Iterator[str]:
    """All strings in a JSON value, including keys."""
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _strings(item)
        case dict():
            yield from _strings([*value, *value.values()])


class _CheckedAudience:
    """Checks everything that is sent to an audience."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def delay_s(self) -> float:
        return 0.0

    def publish(self, event: Broadcast) -> None:
        self._wire.check_frame(event, self._wire.dialect.encode(event))
        match event:
            case Said(texts=texts):
                shown: Sequence[str] = texts
            case TopicChanged(topic=topic):
                shown = [topic]
            case MessageDeleted():
                shown = []
            case Announcement(text):
                shown = [text]
            case _:
                shown = [event.name]
        for text in shown:
            self._wire.show(text)


class _CheckedSubscriber:
    """A client; checks also what is sent only to it."""

    def __init__(self, wire: _Wire, audiences: Audiences[_CheckedAudience]) -> None:
        self._audiences = audiences
        self._heard: frozenset[Room] | None = None
        self.speak(wire)

    def speak(self, wire: _Wire) -> None:
        self.interpreter = wire.dialect.interpreter()
        self._wire = wire

    def hear(self, rooms: frozenset[Room] | None) -> None:
        self._audiences.move(self._wire.dialect.name, self._heard, rooms)
        self._heard = rooms

    def wrote(self, event: Broadcast) -> None: ...

    def deliver(self, event: PrivateEvent) -> None:
        self._wire.check_frame(event, self.interpreter.encode_private(event))

    def deliver_missed(self, events: Sequence[Broadcast]) -> None:
        self.deliver(Missed(events))

    def deliver_direct(self, event: PrivateEvent, stranger: bool) -> None:
        self.deliver(event)
        if isinstance(event, DirectMessage):
            self._wire.show(event.text)

    def direct_gate(self, stranger: bool) -> _OpenGate:
        return _OpenGate()


class _OpenGate:
    """A gate that never closes."""

    def is_open(self) -> bool:
        return True

    def pump(self) -> None: ...

    def passage(self, waiter: Any, queue: str) -> AbstractContextManager[None]:
        raise AssertionError("an open gate admits no client")


def _line_count(event: Event, dialect: Dialect) -> int | None:
    """The number of lines of an event; None for a list of people, the help or a welcome."""
    if isinstance(event, Said):
        return len(event.texts)
    if isinstance(event, Missed):
        return None
    if dialect.name in ("json", "json2") or isinstance(
        event, Broadcast | DirectMessage | DirectMessageSent | DisconnectNotice | Topic
    ):
        return 1
    return None


TARGETS: dict[str, Callable[[bytes], None]] = {
    "framing": framing,
    **{name: conversation(dialect) for name, dialect in ALL_DIALECTS.items()},
}
