"""The fuzz targets: a function for each parser that takes bytes and raises when something is wrong.

Pure: no sockets, no event loop and no fuzzer, so the corpus can be run wherever Python runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal

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
from geventchat.dialects.framing import TOO_LONG, FramingAnswer, Line, LineFraming, Unit
from geventchat.dialects.websocket import HandshakeRefused, WebSocketFraming, accept
from geventchat.net.proxy_header import HeaderReader, InvalidHeader
from geventchat.net.sniffing import ForeignProtocol, Sniffer
from geventchat.net.tls import is_whole_record, speaks_tls
from geventchat.settings import Limits
from geventchat.web.http import BadRequest, RequestReader
from geventchat.web.http import Request as HttpRequest
from tests.geventchat.recording import Audiences, at_once, memory, perform, tools

MAX_LINE = 64
_HEAD_BYTES = 512
_PROXY_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_MOST_HEADER_BYTES = 16 + 2_048
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


def lines_of(wire: bytes, limit: int) -> list[Line]:
    """The definition: a line ends in a newline, less one carriage return; one over the limit is TOO_LONG."""
    lines = [line[:-1] if line.endswith(b"\r") else line for line in wire.split(b"\n")[:-1]]
    return [line if len(line) <= limit else TOO_LONG for line in lines]


def sniffing(data: bytes) -> None:
    """The first byte says how the rest is cut; it must be taken for the same protocol, and memory stay bounded.

    What is taken for TLS goes on being so, and its first record ends in one place.
    """
    if len(data) < 2:
        return
    wire = data[1:]
    whole = _protocol(wire, len(wire))
    for size in (data[0] % 17 + 1, 1):
        found = _protocol(wire, size)
        assert found == whole, f"in pieces of {size}: {found} instead of {whole}"
    assert len({speaks_tls(wire[:end]) for end in range(2, len(wire) + 1)}) <= 1
    ends = [is_whole_record(wire[:end]) for end in range(1, len(wire) + 1)]
    assert ends == sorted(ends), "a record that was complete is not"
    if True in ends:
        assert ends.index(True) + 1 == 5 + wire[3] * 256 + wire[4]


def _protocol(wire: bytes, size: int) -> ForeignProtocol | bool:
    sniffer = Sniffer(MAX_LINE)
    for at in range(0, len(wire), size):
        if found := sniffer.feed(wire[at : at + size]):
            return found
        assert len(sniffer._head) <= MAX_LINE, "it holds more than a line can have"
    return False


def proxy(data: bytes) -> None:
    """The first byte says how the rest is cut; the header must be that of the definition, and nothing behind it be read."""
    if not data:
        return
    wire = data[1:]
    expected = proxy_header_of(wire)
    whole = _proxied(wire, max(1, len(wire)))
    for size in (data[0] % 17 + 1, 1):
        found = _proxied(wire, size)
        assert found == whole, f"in pieces of {size}: {found} instead of {whole}"
    if isinstance(whole, str):
        assert expected is False, f"{whole}, but it is {expected}"
    else:
        assert whole == expected, f"{whole} instead of {expected}"


def _proxied(wire: bytes, size: int) -> tuple[str | None, int] | str | None:
    """For whom a proxy connects and how long its header is, why it is refused, or None if it is not complete."""
    reader, at = HeaderReader(), 0
    while reader.wanted and at < len(wire):
        piece = wire[at : at + min(size, reader.wanted)]
        try:
            reader.feed(piece)
        except InvalidHeader as invalid:
            return str(invalid)
        at += len(piece)
        assert at <= _MOST_HEADER_BYTES, "it holds more than a header can have"
    return None if reader.wanted else (reader.source, at)


def proxy_header_of(wire: bytes) -> tuple[str | None, int] | Literal[False] | None:
    """The definition: for whom a proxy connects and how long its header is; False if it is none, None if more has to come."""
    if wire.startswith(_PROXY_SIGNATURE):
        if len(wire) < 16:
            return None
        command, family, size = wire[12], wire[13], int.from_bytes(wire[14:16], "big")
        if command not in (0x20, 0x21) or size > _MOST_HEADER_BYTES - 16:
            return False
        if len(wire) < 16 + size:
            return None
        if command == 0x20 or family in (0x00, 0x31):
            return None, 16 + size
        if (family == 0x11 and size >= 12) or (family == 0x21 and size >= 36):
            return _host(ip_address(wire[16 : 20 if family == 0x11 else 32])), 16 + size
        return False
    if len(wire) < 12 and _PROXY_SIGNATURE.startswith(wire):
        return None
    if not wire.startswith(b"PROXY "[: len(wire)]):
        return False
    line, newline, _ = wire[:107].partition(b"\n")
    if not newline:
        return None if len(wire) < 107 else False
    if line.count(b"\r") != 1 or not line.endswith(b"\r"):
        return False
    match line[:-1].split(b" "):
        case [_, b"UNKNOWN", *_]:
            return None, len(line) + 1
        case [_, b"TCP4" | b"TCP6" as kind, *addresses, first, second]:
            try:
                source, target = (ip_address(address.decode()) for address in addresses)
            except ValueError:
                return False
            if {f"TCP{source.version}", f"TCP{target.version}"} != {kind.decode()} or b"%" in line:
                return False
            if all(port.isdigit() and len(port) < 6 and int(port) < 65_536 for port in (first, second)):
                return _host(source), len(line) + 1
    return False


def _host(address: IPv4Address | IPv6Address) -> str:
    return str((isinstance(address, IPv6Address) and address.ipv4_mapped) or address)


def http(data: bytes) -> None:
    """The first byte says how the rest is cut; the requests and the first error must be the same, and memory bounded.

    Each request either opens a WebSocket or is refused, and has parameters or is refused.
    """
    if not data:
        return
    wire = data[1:]
    whole = _requests(wire, max(1, len(wire)))
    for size in (data[0] % 17 + 1, 1):
        found = _requests(wire, size)
        assert found == whole, f"in pieces of {size}: {found} instead of {whole}"
    for request in whole:
        if isinstance(request, HttpRequest):
            with suppress(HandshakeRefused):
                assert accept(request.head).startswith(b"HTTP/1.1 101 ")
            with suppress(BadRequest):
                request.parameters()


def _requests(wire: bytes, size: int) -> list[HttpRequest | tuple[int, str]]:
    reader = RequestReader(_HEAD_BYTES, MAX_LINE)
    found: list[HttpRequest | tuple[int, str]] = []
    for at in range(0, len(wire), size):
        reader.feed(wire[at : at + size])
        try:
            while (request := reader.take()) is not None:
                found.append(request)
        except BadRequest as error:
            return [*found, (error.status, error.message)]
        assert len(reader.rest) <= _HEAD_BYTES + MAX_LINE, "it holds more than a request can have"
    return found


def websocket(data: bytes) -> None:
    """The first byte says how the rest is cut; the messages must be the same, memory bounded, and answers whole frames."""
    if not data:
        return
    wire = data[1:]
    whole = _units(wire, max(1, len(wire)))
    for size in (data[0] % 17 + 1, 1):
        found = _units(wire, size)
        assert found == whole, f"in pieces of {size}: {found} instead of {whole}"
    for at, unit in enumerate(whole):
        if isinstance(unit, FramingAnswer):
            frame = unit.frame
            # One control frame, which is not masked, or none.
            assert not frame or (frame[0] in (0x88, 0x8A) and frame[1] == len(frame) - 2 <= 125)
            assert unit.end is None or at == len(whole) - 1, "something follows the end"
        else:
            assert isinstance(unit, bytes)
            assert len(unit) <= MAX_LINE
            unit.decode()


def _units(wire: bytes, size: int) -> list[Unit]:
    framing, found = WebSocketFraming(MAX_LINE), list[Unit]()
    for at in range(0, len(wire), size):
        for batch in framing.batches(wire[at : at + size], 8_192, 64):
            found += batch
        held = len(framing._rest) + len(framing._fragments or b"")
        # A control frame can be between the parts of a message.
        assert held <= 2 * MAX_LINE + 14, "it holds more than a message and a frame can have"
    return found


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
    "sniffing": sniffing,
    "proxy": proxy,
    "http": http,
    "websocket": websocket,
    **{name: conversation(dialect) for name, dialect in ALL_DIALECTS.items()},
}
