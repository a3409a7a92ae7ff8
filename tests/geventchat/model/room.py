"""The clients in the chat and the bytes that each must receive. The dialects of the model encode them."""

from __future__ import annotations

from tests.geventchat.model.dialects import Dialect
from tests.geventchat.model.requests import (
    Blank,
    DirectMessage,
    Help,
    Login,
    Malformed,
    Name,
    Ping,
    Quit,
    Refusal,
    Request,
    Say,
    Text,
    UnknownCommand,
    Who,
)


class Member:
    """One connection, logged in or not."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.name: Name | None = None
        self.expected = bytearray()
        """The bytes that it must have received since the last comparison."""

    def receive(self, text: str) -> None:
        self.expected += text.encode()

    @property
    def shown(self) -> str:
        """Its name; empty before login and after it has left."""
        return "" if self.name is None else self.name.shown


class Room:
    """All logged-in clients, by key, in login order."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}

    @property
    def users(self) -> list[str]:
        """The names, in login order."""
        return [member.shown for member in self.members.values()]

    def handle(self, member: Member, request: Request, now: int) -> bool:
        """Carry out a request at `now`, in whole seconds since 1970; True when the member has asked to leave."""
        refusal = self._handle(member, request, now)
        if refusal is not None:
            member.receive(member.dialect.error(refusal, _subject(request)))
        return isinstance(request, Quit)

    def leave(self, member: Member, now: int) -> None:
        """The connection has ended, for whatever reason."""
        if member.name is not None:
            shown = member.shown
            self.remove(member)
            self.announce_departure(shown, now)

    def remove(self, member: Member) -> None:
        """The name is free at once; when the others can follow, `announce_departure` tells them."""
        assert member.name is not None
        del self.members[member.name.key]
        member.name = None

    def announce_departure(self, shown: str, now: int) -> None:
        """Tell the others that the client of this name left at `now`."""
        for other in self.members.values():
            other.receive(other.dialect.left(shown, now))

    def login_refusal(self, name: Name) -> Refusal | None:
        """The reason to refuse a login under this name now, or None."""
        if name.refusal is not None:
            return name.refusal
        return Refusal.NAME_TAKEN if name.key in self.members else None

    def _handle(self, member: Member, request: Request, now: int) -> Refusal | None:
        match request:
            case Blank():
                return None
            case Malformed(refusal):
                return refusal
            case Quit():
                member.receive(member.dialect.goodbye())
                self.leave(member, now)
                return None
            case Login(name):
                return self._login(member, name, now)
        if member.name is None:
            return Refusal.NOT_LOGGED_IN
        match request:
            case Say(text):
                return self._say(member, text.shown, now)
            case DirectMessage(to, text):
                return self._send_direct(member, to, text.shown, now)
            case Who():
                member.receive(member.dialect.roster(self.users))
            case Ping(token):
                member.receive(member.dialect.pong(token))
            case Help():
                member.receive(member.dialect.help())
            case UnknownCommand():
                return Refusal.UNKNOWN_COMMAND
        return None

    def _login(self, member: Member, name: Name, now: int) -> Refusal | None:
        if member.name is not None:
            return Refusal.ALREADY_LOGGED_IN
        refusal = self.login_refusal(name)
        if refusal is not None:
            return refusal
        member.name = name
        self.members[name.key] = member
        for other in self.members.values():
            other.receive(other.dialect.joined(name.shown, now, other is member))
        member.receive(member.dialect.welcome(name.shown, self.users, now))
        return None

    def _say(self, member: Member, text: str, now: int) -> Refusal | None:
        if not text:
            return Refusal.EMPTY_MESSAGE
        for other in self.members.values():
            other.receive(other.dialect.said(member.shown, text, now, other is member))
        return None

    def _send_direct(self, member: Member, to: Name, text: str, now: int) -> Refusal | None:
        if not text:
            return Refusal.EMPTY_DIRECT_MESSAGE
        other = self.members.get(to.key)
        if other is None:
            return Refusal.USER_NOT_FOUND
        sent = member.dialect.direct_message_sent(member.shown, to.typed, other.shown, text, now)
        member.receive(sent)
        other.receive(other.dialect.direct_message_received(member.shown, other.shown, text, now))
        return None


def name_of(typed: str) -> Name:
    """A name without anything to normalise."""
    return Name(typed, typed, typed.casefold())


def text_of(typed: str) -> Text:
    """A text without anything to clean."""
    return Text(typed, typed)


def _subject(request: Request) -> str:
    match request:
        case DirectMessage(to, _):
            return to.typed
        case UnknownCommand(verb):
            return verb
    return ""
