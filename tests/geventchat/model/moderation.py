"""Ownership of rooms and what owners can do, written from docs/protocols.md. In the model no one has an account.

So there are no operators and no moderators, the lobby has no owner, and the owner of a room is logged in.
All clients have one address. Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tests.geventchat.model.dialects import Gone
from tests.geventchat.model.requests import (
    INVITATION_MS,
    MAX_KEY,
    Delete,
    Ignore,
    Impose,
    Invite,
    Kick,
    Lift,
    ListBans,
    Misused,
    Name,
    OwnersRequest,
    PassOwnership,
    Past,
    Refusal,
    Request,
    Sanction,
    SetKey,
    SetModerated,
    SetModerator,
    SetPrivate,
    SetVoice,
)
from tests.geventchat.model.rooms import Member, Room, Rooms


class NotPossible(Exception):
    """The request is refused."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


@dataclass(frozen=True)
class Ban:
    """A ban or a mute of a person without an account."""

    shown: str
    until_ms: int | None
    reason: str
    logins_before: int

    def is_over(self, now_ms: int) -> bool:
        return self.until_ms is not None and now_ms >= self.until_ms


class Rules:
    """The settings of a room that its owner decides."""

    def __init__(self) -> None:
        self.owner: Member | None = None
        self.key = ""
        self.moderated = False
        self.voices: set[str] = set()
        self.invited: dict[Member, int] = {}
        """Until when."""
        self.bans: dict[Sanction, dict[str, Ban]] = {sanction: {} for sanction in Sanction}
        """By the keys of names, the longest-standing first."""


class ModeratedRooms(Rooms):
    """All rooms, with their owners."""

    def __init__(self, max_rooms: int = 10_000, max_owned: int = 50) -> None:
        super().__init__(max_rooms)
        self._max_owned = max_owned
        self._rules: dict[Room, Rules] = {}

    def rules(self, room: Room) -> Rules:
        return self._rules.setdefault(room, Rules())

    # --- What a room lets happen -------------------------------------------------------------------------------------

    def can_own(self, member: Member) -> bool:
        owned = [room for room in self.rooms.values() if self.rules(room).owner is member]
        return len(owned) < self._max_owned

    def arrived(self, member: Member, room: Room) -> None:
        rules = self.rules(room)
        if room is not self.lobby and rules.owner is None and self.can_own(member):
            rules.owner = member

    def take_out(self, member: Member, now_ms: int) -> Room:
        assert member.name is not None
        room = super().take_out(member, now_ms)
        self.rules(room).voices.discard(member.name.key)
        return room

    def remove(self, member: Member, now_ms: int) -> Room:
        left = super().remove(member, now_ms)
        for room in list(self.rooms.values()):
            rules = self.rules(room)
            rules.invited.pop(member, None)
            if rules.owner is member:
                rules.owner = None
                # Only the person who has been there longest can inherit the room, and not with too many rooms already.
                for heir in list(room.members.values())[:1]:
                    self.arrived(heir, room)
        return left

    def refuse_entry(self, member: Member, room: Room, key: str, now_ms: int) -> Refusal | None:
        rules = self.rules(room)
        is_closed = room.private or rules.key
        is_invited = rules.invited.get(member, 0) > now_ms
        if is_closed and rules.owner is not member and not is_invited and (not rules.key or key != rules.key):
            return Refusal.INVITATION_REQUIRED if room.private and not key else Refusal.WRONG_KEY
        return Refusal.BANNED if self._is_concerned(member, room, Sanction.BAN, now_ms) else None

    def refuse_speech(self, member: Member, room: Room, now_ms: int) -> Refusal | None:
        assert member.name is not None
        rules = self.rules(room)
        if self._is_concerned(member, room, Sanction.MUTE, now_ms):
            return Refusal.MUTED
        if rules.moderated and rules.owner is not member and member.name.key not in rules.voices:
            return Refusal.NO_VOICE
        return None

    def _is_concerned(self, member: Member, room: Room, sanction: Sanction, now_ms: int) -> bool:
        """Match the name, or the address if the client logged in after the ban."""
        assert member.name is not None
        return any(
            key == member.name.key or member.login_number > ban.logins_before
            for key, ban in self.rules(room).bans[sanction].items()
            if not ban.is_over(now_ms)
        )

    def visible_to(self, member: Member) -> Collection[Room]:
        """The rooms that a client sees: the private ones come last, beginning with the one that it is in."""
        listed = [room for room in self.rooms.values() if not room.private]
        private = [room for room in self.rooms.values() if room.private]
        private.sort(key=lambda room: room is not member.room)
        return listed + [room for room in private if room is member.room or self.rules(room).owner is member]

    def page(self, member: Member, room: Room, count: int) -> list[Past]:
        """Leave out ignored people; if nothing is left, take the page before."""
        end = len(room.messages)
        while count and end > 0:
            page = room.messages[max(end - count, 0) : end]
            heard = [past for past in page if past.author not in member.ignored]
            if heard:
                return heard
            end -= count
        return []

    # --- What people ask for -----------------------------------------------------------------------------------------

    def _handle(self, member: Member, request: Request, now_ms: int) -> Refusal | None:
        try:
            match request:
                case Invite() | Ignore() | Misused() if member.room is None:
                    return Refusal.NOT_LOGGED_IN
                case Misused():
                    return Refusal.INVALID_ARGUMENT
                case Ignore(who, on):
                    self._ignore(member, who, on)
                case Invite(who):
                    self._invite(member, who, now_ms)
                case (
                    Kick() | Impose() | Lift() | ListBans() | SetPrivate() | SetKey() | SetModerated()
                    | SetVoice() | SetModerator() | PassOwnership() | Delete()
                ):  # fmt: skip
                    if member.room is None:
                        return Refusal.NOT_LOGGED_IN
                    if self.rules(member.room).owner is not member:
                        return Refusal.NOT_PERMITTED
                    self._act(member, member.room, request, now_ms)
                case _:
                    return super()._handle(member, request, now_ms)
        except NotPossible as refused:
            return refused.refusal
        return None

    def _act(self, member: Member, room: Room, request: OwnersRequest, now_ms: int) -> None:
        """`member` owns the room."""
        rules = self.rules(room)
        if isinstance(request, Kick | Impose) and request.reason:
            self._check_voice(member, room, now_ms)
        match request:
            case Kick(who, reason):
                other = self._other(member, self._here(room, who))
                self._done(member, f"{other.shown} was kicked.")
                self._kick(member, other, room, reason, now_ms)
            case Impose():
                self._impose(member, room, request, now_ms)
            case Lift(sanction, who):
                bans = self._standing(room, sanction, now_ms)
                if who.key not in bans:
                    raise NotPossible(Refusal.USER_NOT_FOUND)
                self._done(member, f"{bans.pop(who.key).shown} is no longer {sanction.value}.")
            case ListBans():
                bans = self._standing(room, Sanction.BAN, now_ms)
                rows = [(ban.shown, ban.until_ms, ban.reason) for ban in bans.values()]
                member.receive(member.dialect.bans(rows))
            case SetPrivate(on):
                room.private = on
                self._done(member, f"{room.shown} is {'private' if on else 'no longer private'}.")
            case SetKey(key):
                if len(key) > MAX_KEY:
                    raise NotPossible(Refusal.KEY_TOO_LONG)
                rules.key = key
                self._done(member, f"{room.shown} has {'a new' if key else 'no'} key.")
            case SetModerated(on):
                rules.moderated = on
                self._done(member, f"{room.shown} is {'moderated' if on else 'no longer moderated'}.")
            case SetVoice(who, on):
                other = self._here(room, who)
                if on:
                    rules.voices.add(who.key)
                else:
                    rules.voices.discard(who.key)
                self._done(member, f"{other.shown} has {'voice' if on else 'no voice'}.")
            case SetModerator(who, on):
                # Only accounts moderate.
                is_there = on and who.key in self.members
                raise NotPossible(Refusal.NOT_PERMITTED if is_there else Refusal.USER_NOT_FOUND)
            case PassOwnership(who):
                other = self._here(room, who)
                if other is not member:
                    self.find("", now_ms)
                    if not self.can_own(other):
                        raise NotPossible(Refusal.TOO_MANY_ROOMS)
                    rules.owner = other
                self._done(member, f"{other.shown} owns {room.shown}.")
            case Delete(id):
                self._delete(member, room, id)

    def _kick(self, member: Member, other: Member, room: Room, reason: str, now_ms: int) -> None:
        assert other.name is not None
        self.rules(room).invited.pop(other, None)
        if other.room is not room:
            return
        other.receive(other.dialect.kicked(room.shown, reason, self.lobby.shown))
        self.take_out(other, now_ms)
        silently, other.expected = other.expected, bytearray()
        self._put_in(other, self.lobby, now_ms)
        # The client has changed rooms before it is notified.
        other.expected = silently + other.expected
        for each in room.members.values():
            if each is not member or each.dialect.shows_own_kicks:
                each.receive(each.dialect.left(other.shown, Gone.KICKED, now_ms // 1000))

    def _impose(self, member: Member, room: Room, request: Impose, now_ms: int) -> None:
        sanction, seconds = request.sanction, request.seconds
        other = self._other(member, self._anywhere(request.who))
        until_ms = None if seconds is None else now_ms + 1000 * seconds
        bans = self.rules(room).bans[sanction]
        bans.pop(request.who.key, None)
        bans[request.who.key] = Ban(other.shown, until_ms, request.reason, self._logins)
        self._done(member, f"{other.shown} is {sanction.value}.")
        if sanction is Sanction.BAN:
            self._kick(member, other, room, request.reason, now_ms)

    def _invite(self, member: Member, who: Name, now_ms: int) -> None:
        assert member.name is not None
        assert member.room is not None
        room, rules = member.room, self.rules(member.room)
        is_closed = room.private or rules.key
        if is_closed and rules.owner is not member:
            raise NotPossible(Refusal.NOT_PERMITTED)
        self._check_voice(member, room, now_ms)
        other = self._anywhere(who)
        if other.room is not room:
            if is_closed:
                rules.invited[other] = now_ms + INVITATION_MS
            if member.name.key not in other.ignored:
                other.receive(other.dialect.invited(room.shown, member.shown))
        self._done(member, f"{other.shown} is invited to {room.shown}.")

    def _delete(self, member: Member, room: Room, id: int) -> None:
        for at, past in enumerate(room.messages):
            if past.id == id:
                room.messages[at] = Past(past.id, past.name, "", past.time_ms, past.author)
                self._done(member, f"Message {id} is deleted.")
                return
        raise NotPossible(Refusal.NO_SUCH_MESSAGE)

    def _ignore(self, member: Member, who: Name, on: bool) -> None:
        if on:
            other = self._other(member, self._anywhere(who))
            member.ignored.add(who.key)
            self._done(member, f"You ignore {other.shown}.")
        elif who.key in member.ignored:
            member.ignored.remove(who.key)
            self._done(member, f"You no longer ignore {who.typed}.")
        else:
            raise NotPossible(Refusal.USER_NOT_FOUND)

    # --- Shared by all requests --------------------------------------------------------------------------------------

    def _check_voice(self, member: Member, room: Room, now_ms: int) -> None:
        """A muted person cannot reach others in another way, such as an invitation."""
        refusal = self.refuse_speech(member, room, now_ms)
        if refusal is not None:
            raise NotPossible(refusal)

    def _anywhere(self, who: Name) -> Member:
        other = self.members.get(who.key)
        if other is None:
            raise NotPossible(Refusal.USER_NOT_FOUND)
        return other

    def _here(self, room: Room, who: Name) -> Member:
        other = self._anywhere(who)
        if other.room is not room:
            raise NotPossible(Refusal.USER_NOT_FOUND)
        return other

    def _other(self, member: Member, other: Member) -> Member:
        """The person named by the request, unless it is the client itself."""
        if other is member:
            raise NotPossible(Refusal.NOT_PERMITTED)
        return other

    def _standing(self, room: Room, sanction: Sanction, now_ms: int) -> dict[str, Ban]:
        """The bans that are not over."""
        bans = self.rules(room).bans[sanction]
        for key in [key for key, ban in bans.items() if ban.is_over(now_ms)]:
            del bans[key]
        return bans

    def _done(self, member: Member, sentence: str) -> None:
        member.receive(member.dialect.done(sentence))

    def subject(self, member: Member, refusal: Refusal, request: Request) -> str:
        if refusal is Refusal.NO_VOICE and member.room is not None:
            return member.room.shown
        match request:
            case Misused(usage):
                return usage
            case Delete(id):
                return str(id)
            case PassOwnership() if refusal is Refusal.TOO_MANY_ROOMS:
                return ""
            case (
                Kick(who=who) | Impose(who=who) | Lift(who=who) | Invite(who) | SetVoice(who=who)
                | SetModerator(who=who) | PassOwnership(who) | Ignore(who=who)
            ):  # fmt: skip
                return who.typed
        return super().subject(member, refusal, request)
