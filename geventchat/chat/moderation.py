"""Carries out the commands of owners, moderators and operators: kick, ban, mute, invite, delete, and the settings of a room.

Pure; the time is passed in. `permissions` decides who can do what, and `bans` to whom a ban applies. In the lobby, each command
applies to the whole server.

Invariants of Moderation:
- A command that returns `Busy` without `go_on` has changed nothing.
- The storage receives each change and each act exactly once; a command that changes nothing sends it nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Protocol

from geventchat.chat.accounts import Account
from geventchat.chat.addresses import Network, origin_of, parse_network, text_of
from geventchat.chat.bans import ACCOUNT, NAME, Ban, Bans
from geventchat.chat.commands import (
    Delete,
    Impose,
    Invite,
    Kick,
    Lift,
    ListBans,
    ModerationCommand,
    PassOwnership,
    Sanction,
    SetKey,
    SetModerated,
    SetModerator,
    SetPrivate,
    SetVoice,
)
from geventchat.chat.events import (
    Accepted,
    Action,
    BanList,
    BanListing,
    DisconnectNotice,
    Invited,
    NoticeReason,
    PastMessage,
    Rejected,
    Rejection,
)
from geventchat.chat.limits import ChatLimits
from geventchat.chat.names import InvalidName, Name, key_of, parse_name
from geventchat.chat.ownership import Owners
from geventchat.chat.permissions import Permissions, Role, invitations_of
from geventchat.chat.records import Act, Restriction, RestrictionKind
from geventchat.chat.results import DONE, Busy, More, Pending, Result
from geventchat.chat.room_list import Rooms
from geventchat.chat.rooms import Gate, Room
from geventchat.chat.sessions import Session
from geventchat.chat.storage import LOOKUP_BYTES, Storage
from geventchat.chat.text import visible
from geventchat.exhaustive import assert_never

# A longer ban has no end, because clients show the end as a date with a year of four digits.
_LONGEST_S = 100 * 365 * 86_400
# How many people are checked, and perhaps removed, before other greenlets run.
_REMOVED_AT_ONCE = 100
# The bans, and the mutes, that each room can have even if all rooms together have too many.
_ALWAYS_POSSIBLE = 5
# The cost of an act for its actor, in bytes: acts are kept, and no client should be able to fill the audit log.
_ACT_BYTES = 4_096
_IMPOSED = {Sanction.BAN: Action.BANNED, Sanction.MUTE: Action.MUTED}
_LIFTED = {Sanction.BAN: Action.UNBANNED, Sanction.MUTE: Action.UNMUTED}
# Also the answer to the login of a banned client.
BANNED = DisconnectNotice(NoticeReason.BANNED, as_error=True)


class Removals(Protocol):
    """The methods of the chat that this module needs."""

    def expel(self, session: Session, name: Name, room: Room, by: Session, reason: str) -> None:
        """Remove a client from a room. A client with one room at a time goes to the lobby, whose gate must be open."""

    def throw_out(self, session: Session, name: Name, by: Session, notice: DisconnectNotice) -> None:
        """Remove a client from the chat, tell it why, and close its connection."""


class _Refused(Exception):
    def __init__(self, reason: Rejection, subject: str = "") -> None:
        super().__init__(reason.name)
        self.reason = reason
        self.subject = subject


@dataclass(frozen=True, slots=True)
class _Actor:
    """The client that gives the command, in the room that it concerns."""

    session: Session
    name: Name
    room: Room
    role: Role


class Moderation:
    """Roles, sanctions and the settings of rooms."""

    def __init__(
        self,
        *,
        people: Mapping[str, Session],
        rooms: Rooms,
        owners: Owners,
        permissions: Permissions,
        removals: Removals,
        find_account: Callable[[str], Account | None],
        login_count: Callable[[], int],
        now_ms: Callable[[], int],
        limits: ChatLimits,
        storage: Storage,
        read_before: Callable[[str, int, int], list[PastMessage]],
    ) -> None:
        """`people` holds all logged-in sessions by the key of their name; `login_count` returns the number of logins so far.

        `read_before` is a job: `Storage.before`; empty if the storage cannot be read.
        """
        self._people = people
        self._rooms = rooms
        self._owners = owners
        self._permissions = permissions
        self._removals = removals
        self._find_account = find_account
        self._login_count = login_count
        self._now_ms = now_ms
        self._limits = limits
        self._storage = storage
        self._read_before = read_before
        # The sessions whose ban of a range is still being carried out.
        self._clearing: dict[Session, None] = {}

    def carry_out(
        self,
        session: Session,
        name: Name,
        room: Room,
        command: ModerationCommand,
        stored: Sequence[PastMessage] | None = None,
    ) -> Result[object]:
        """Carry out a command about a room that this client is in. `stored` is the message as the storage has it."""
        role = self._permissions.role(session, name, room)
        return self._try(_Actor(session, name, room, role), command, stored)

    def administer(
        self, session: Session, name: Name, room: Room, command: ModerationCommand
    ) -> Result[object]:
        """Carry out a command of the program that the chat is part of. `session` is not in the room, and gets the answer."""
        return self._try(_Actor(session, name, room, Role.OPERATOR), command, None)

    def bans_of(self, room: Room) -> list[Restriction]:
        """The bans of a room, the longest-standing first; those of the lobby are the server's."""
        self._expire(room.bans)
        listed = self._permissions.listed_bans.by_label.values() if room is self._rooms.lobby else ()
        return [ban.record for ban in (*room.bans.by_label.values(), *listed)]

    def change_ban_list(self, bans: Sequence[Ban]) -> Result[object]:
        """Replace the bans of the server's ban list, and remove the clients that the new ones match."""
        listed = self._permissions.listed_bans = Bans()
        for ban in bans:
            listed.put(ban)
        return self.remove_listed()

    def remove_listed(self) -> Result[object]:
        """Remove the clients that the server's ban list matches."""
        return self._remove_next_listed(iter(list(self._people.values())))

    def _remove_next_listed(self, people: Iterator[Session]) -> Result[object]:
        """Remove the next clients that the ban list matches; other greenlets run before the rest."""
        some = list(islice(people, _REMOVED_AT_ONCE))
        listed, now_ms = self._permissions.listed_bans, self._now_ms()
        for other in some:
            name = other.name
            if name is not None and listed.find(self._permissions.person(other, name), now_ms):
                self._removals.throw_out(other, name, other, BANNED)
        return More(partial(self._remove_next_listed, people)) if some else DONE

    def _try(
        self, actor: _Actor, command: ModerationCommand, stored: Sequence[PastMessage] | None
    ) -> Result[object]:
        try:
            if not self._permissions.may_do(actor.role, command, actor.room):
                raise _Refused(Rejection.NOT_PERMITTED)
            if not self._storage.is_ready():
                # The gate of a room opens when the storage is ready.
                return Busy(actor.room.gate)
            return self._carry_out(actor, command, stored)
        except _Refused as refused:
            actor.session.subscriber.deliver(Rejected(refused.reason, refused.subject, command.room))
            return DONE

    def _carry_out(
        self, actor: _Actor, command: ModerationCommand, stored: Sequence[PastMessage] | None
    ) -> Result[object]:
        room = actor.room
        match command:
            case Kick(who, reason):
                self._check_voice(actor, reason)
                return self._kick(actor, who, self._cut(reason))
            case Impose(reason=reason):
                self._check_voice(actor, reason)
                return self._impose(actor, command)
            case Lift(sanction, who):
                self._lift(actor, sanction, who)
            case ListBans(after=after):
                self._list_bans(actor, after)
            case Invite(who):
                return self._invite(actor, who)
            case SetPrivate(on):
                is_new = room.private is not on
                self._rooms.set_private(room, on)
                self._changed(actor, Action.MADE_PRIVATE if on else Action.MADE_PUBLIC, is_new=is_new)
            case SetKey(room_key):
                self._set_key(actor, visible(room_key))
            case SetModerated(on):
                is_new, room.moderated = room.moderated is not on, on
                self._changed(actor, Action.MODERATION_ON if on else Action.MODERATION_OFF, is_new=is_new)
            case SetVoice(who, on):
                self._give_voice(actor, who) if on else self._take_voice(actor, who)
            case SetModerator(who, on):
                self._add_moderator(actor, who) if on else self._remove_moderator(actor, who)
            case PassOwnership(who):
                self._pass_ownership(actor, who)
            case Delete():
                return self._delete(actor, command, stored)
            case _:
                assert_never(command)
        return DONE

    # --- Kick --------------------------------------------------------------------------------------------------------

    def _kick(self, actor: _Actor, who: str, reason: str) -> Result[object]:
        everyone = actor.room is self._rooms.lobby
        other, other_name = self._find(who) if everyone else self._find_in(actor.room, who)
        self._check_rank(actor, self._permissions.role(other, other_name, actor.room), other_name.key)
        gate = self._closed_way_out(other, actor.room)
        if gate is not None:
            return Busy(gate)
        self._done(actor, Action.KICKED, other_name.shown, reason)
        self._remove(actor, other, other_name, DisconnectNotice(NoticeReason.KICKED, text=reason))
        return DONE

    def _closed_way_out(self, other: Session, room: Room) -> Gate | None:
        """The gate of the lobby, if the removal has to wait for it; None if not."""
        lobby = self._rooms.lobby
        if room is lobby or other.rooms is not None or other.room is not room or lobby.gate.is_open():
            return None
        return lobby.gate

    def _remove(self, actor: _Actor, other: Session, name: Name, notice: DisconnectNotice) -> None:
        room = actor.room
        if room is self._rooms.lobby:
            self._removals.throw_out(other, name, actor.session, notice)
            return
        withdrawn = [room.invitations.withdraw(guest) for guest in invitations_of(other)]
        if any(withdrawn):
            self._rooms.changed(room)
        if other.find_room(room.key) is room:
            self._removals.expel(other, name, room, actor.session, notice.text)

    # --- Bans and mutes ----------------------------------------------------------------------------------------------

    def _impose(self, actor: _Actor, command: Impose) -> Result[object]:
        room, ban = actor.room, self._ban(actor, command)
        concerned: list[Session] = []
        if command.sanction is Sanction.BAN:
            concerned = self._perhaps_concerned(room, ban)
        if len(concerned) == 1:
            gate = self._closed_way_out(concerned[0], room)
            if gate is not None:
                return Busy(gate)
        self._put(self._list(room, command.sanction), ban, room)
        # The key of an account, which can be away, is that of its name. Other invitations end with a removal.
        invited = ban.record.account or ban.record.name
        if command.sanction is Sanction.BAN and room.invitations.withdraw(invited):
            self._rooms.changed(room)
        self._done(actor, _IMPOSED[command.sanction], ban.record.shown, ban.record.reason)
        if len(concerned) == 1:
            self._remove_if_concerned(actor, ban, concerned[0])
        elif concerned:
            self._clearing = {one: None for one in self._clearing if one.name is not None}
            self._clearing[actor.session] = None
            return self._clear(actor, ban, iter(concerned))
        return DONE

    def _perhaps_concerned(self, room: Room, ban: Ban) -> list[Session]:
        """The clients in the room that the ban could match; for the lobby, all on the server."""
        if ban.is_range:
            if room is self._rooms.lobby:
                return list(self._people.values())
            return [self._people[key] for key in room.keys]
        other = self._people.get(ban.record.name or ban.record.account)
        return [] if other is None else [other]

    def _clear(self, actor: _Actor, ban: Ban, concerned: Iterator[Session]) -> Result[object]:
        """Remove the next clients that a ban of a range matches; other greenlets run before the rest."""
        go_on = partial(self._clear, actor, ban, concerned)
        lobby = self._rooms.lobby
        if actor.room is not lobby and not lobby.gate.is_open():
            return Busy(lobby.gate, go_on)
        others = list(islice(concerned, _REMOVED_AT_ONCE))
        for other in others:
            self._remove_if_concerned(actor, ban, other)
        if not others:
            self._clearing.pop(actor.session, None)
            return DONE
        return More(go_on)

    @property
    def is_clearing(self) -> bool:
        """True while a ban of a range is being carried out."""
        return any(session.name is not None for session in self._clearing)

    def _remove_if_concerned(self, actor: _Actor, ban: Ban, other: Session) -> None:
        room, name = actor.room, other.name
        if name is None or not ban.concerns(self._permissions.person(other, name)):
            return
        notice = BANNED if room is self._rooms.lobby else replace(BANNED, text=ban.record.reason)
        self._remove(actor, other, name, notice)

    def _ban(self, actor: _Actor, command: Impose) -> Ban:
        """The ban or mute of this command. Raises _Refused if the actor may not impose it."""
        seconds, now_ms = command.seconds, self._now_ms()
        record = Restriction(
            RestrictionKind(command.sanction.value),
            room="" if actor.room is self._rooms.lobby else actor.room.key,
            name="",
            account="",
            network="",
            shown="",
            until_ms=None if seconds is None or seconds > _LONGEST_S else now_ms + 1000 * seconds,
            reason=self._cut(command.reason),
            by=actor.name.shown,
            time_ms=now_ms,
        )
        who = command.who
        if actor.role is Role.OPERATOR:
            network = parse_network(who)
            if network is not None:
                return self._ban_of_range(actor, record, network)
            if who.startswith(NAME):
                name = _parse_name(who.removeprefix(NAME))
                self._check_rank(actor, Role.GUEST, name.key)
                return Ban(replace(record, name=name.key, shown=NAME + name.shown))
            if who.startswith(ACCOUNT):
                account = self._find_account(key_of(who.removeprefix(ACCOUNT)))
                if account is None:
                    raise _Refused(Rejection.USER_NOT_FOUND, who)
                self._check_rank(actor, Role.GUEST, account.key)
                return Ban(replace(record, account=account.key, shown=ACCOUNT + account.name))
        return self._ban_of_person(actor, record, who)

    def _ban_of_range(self, actor: _Actor, record: Restriction, network: Network) -> Ban:
        if actor.session.address is not None and actor.session.address in network:
            raise _Refused(Rejection.NOT_PERMITTED)
        return Ban(replace(record, network=str(network), shown=text_of(network)))

    def _ban_of_person(self, actor: _Actor, record: Restriction, who: str) -> Ban:
        key = key_of(who)
        other = self._people.get(key)
        if other is None or other.name is None:
            account = self._find_account(key)
            if account is None:
                raise _Refused(Rejection.USER_NOT_FOUND, who)
            self._check_rank(actor, self._permissions.role_of_account(account, actor.room), key)
            return Ban(replace(record, account=account.key, shown=account.name))
        self._check_rank(actor, self._permissions.role(other, other.name, actor.room), key)
        record = replace(record, shown=other.name.shown)
        if other.account is not None:
            return Ban(replace(record, account=other.account.key))
        network = "" if other.address is None else str(origin_of(other.address))
        return Ban(replace(record, name=key, network=network), self._login_count())

    def _put(self, bans: Bans, ban: Ban, room: Room) -> None:
        replaced = bans.by_label.get(ban.label)
        if replaced is not None:
            self._storage.forget(replaced.record)
        elif self._is_full(bans, room):
            self._expire(bans)
            if self._is_full(bans, room):
                raise _Refused(Rejection.LIST_FULL)
        bans.put(ban)
        self._storage.save(ban.record)

    def _is_full(self, bans: Bans, room: Room) -> bool:
        """True when no more bans, or mutes, are allowed."""
        limits, count = self._limits, len(bans.by_label)
        if room is self._rooms.lobby:
            return count >= limits.server_bans
        # Full lists in many rooms must not keep the owners of other rooms from banning people.
        all_are_full = self._rooms.ban_total.bans >= limits.all_room_bans and count >= _ALWAYS_POSSIBLE
        return all_are_full or count >= limits.room_bans

    def _lift(self, actor: _Actor, sanction: Sanction, who: str) -> None:
        bans = self._list(actor.room, sanction)
        self._expire(bans)
        found = self._find_ban(bans, actor, who)
        bans.remove(found.label)
        self._storage.forget(found.record)
        self._done(actor, _LIFTED[sanction], found.record.shown)

    def _find_ban(self, bans: Bans, actor: _Actor, who: str) -> Ban:
        """Find the ban with this name or range in its list."""
        network = parse_network(who)
        found = (
            bans.by_label.get(str(network)) if network is not None and actor.role is Role.OPERATOR else None
        )
        found = found or bans.by_label.get(key_of(who))
        if found is None or not _is_visible(found, actor):
            raise _Refused(Rejection.USER_NOT_FOUND, who)
        return found

    def _list_bans(self, actor: _Actor, after: str) -> None:
        bans = actor.room.bans
        self._expire(bans)
        seen = [ban for ban in bans.by_label.values() if _is_visible(ban, actor)]
        most = len(seen)
        if actor.session.rooms is not None:
            most = self._limits.listed_users
            if after:
                found = self._find_ban(bans, actor, after)
                seen = seen[seen.index(found) + 1 :]
        page = [BanListing(ban.record.shown, ban.record.until_ms, ban.record.reason) for ban in seen[:most]]
        actor.session.subscriber.deliver(BanList(actor.room.name, page, len(seen) > most))

    def _expire(self, bans: Bans) -> None:
        for ban in bans.expire(self._now_ms()):
            self._storage.forget(ban.record)

    def _list(self, room: Room, sanction: Sanction) -> Bans:
        return room.bans if sanction is Sanction.BAN else room.mutes

    # --- Entering ----------------------------------------------------------------------------------------------------

    def _invite(self, actor: _Actor, who: str) -> Result[object]:
        room = actor.room
        self._check_voice(actor, actor.name.shown)
        other, other_name = self._find(who)
        if other.find_room(room.key) is not room:
            stranger = other.is_stranger(actor.name)
            hears = not other.ignores(actor.name.shown)
            gate = other.subscriber.direct_gate(stranger)
            if hears and not gate.is_open():
                return Busy(gate)
            if hears:
                other.subscriber.deliver_direct(
                    Invited(room.name, actor.name.shown, self._now_ms()), stranger
                )
            if room.private or room.room_key:
                until_ms = self._now_ms() + int(1000 * self._limits.invitation_s)
                room.invitations.put(invitations_of(other)[0], until_ms, self._limits.invitations)
                self._changed(actor, Action.INVITED, other_name.shown)
                return DONE
        # The room is open, so the invitation is only a message.
        self._answer(actor, Action.INVITED, other_name.shown)
        return DONE

    def _set_key(self, actor: _Actor, room_key: str) -> None:
        if len(room_key) > self._limits.room_key_characters:
            raise _Refused(Rejection.KEY_TOO_LONG)
        is_new, actor.room.room_key = actor.room.room_key != room_key, room_key
        self._changed(actor, Action.KEY_SET if room_key else Action.KEY_REMOVED, is_new=is_new)

    # --- Roles -------------------------------------------------------------------------------------------------------

    def _give_voice(self, actor: _Actor, who: str) -> None:
        room = actor.room
        other, other_name = self._find_in(room, who)
        if other.account is None:
            is_new = other_name.key not in room.guest_voices
            room.guest_voices.add(other_name.key)
        else:
            is_new = self._add_role(room.voices, other.account)
        self._changed(actor, Action.VOICE_GIVEN, other_name.shown, is_new=is_new)

    def _take_voice(self, actor: _Actor, who: str) -> None:
        room, key = actor.room, key_of(who)
        is_new = key in room.voices or key in room.guest_voices
        if key not in room.voices:
            # A person without an account has to be in the room.
            who = self._find_in(room, who)[1].shown
        # Someone who has registered since can have both.
        room.voices.discard(key)
        room.guest_voices.discard(key)
        self._changed(actor, Action.VOICE_TAKEN, who, is_new=is_new)

    def _add_moderator(self, actor: _Actor, who: str) -> None:
        account = self._find_account(key_of(who))
        if account is None:
            self._find(who)
            raise _Refused(Rejection.NOT_PERMITTED)
        is_new = self._add_role(actor.room.moderators, account)
        self._changed(actor, Action.MODERATOR_ADDED, account.name, is_new=is_new)

    def _remove_moderator(self, actor: _Actor, who: str) -> None:
        key = key_of(who)
        if key not in actor.room.moderators:
            raise _Refused(Rejection.USER_NOT_FOUND, who)
        actor.room.moderators.remove(key)
        self._changed(actor, Action.MODERATOR_REMOVED, who)

    def _add_role(self, accounts: set[str], account: Account) -> bool:
        """Add an account; False if it has the role already."""
        if account.key in accounts:
            return False
        if len(accounts) >= self._limits.room_roles:
            raise _Refused(Rejection.LIST_FULL)
        accounts.add(account.key)
        return True

    def _pass_ownership(self, actor: _Actor, who: str) -> None:
        other, other_name = self._find_in(actor.room, who)
        is_new = not self._owners.owns(other, actor.room)
        if is_new and not self._owners.claim(other, actor.room):
            raise _Refused(Rejection.TOO_MANY_ROOMS, actor.room.name)
        self._changed(actor, Action.OWNERSHIP_PASSED, other_name.shown, is_new=is_new)

    # --- Messages ----------------------------------------------------------------------------------------------------

    def _delete(self, actor: _Actor, command: Delete, stored: Sequence[PastMessage] | None) -> Result[object]:
        room, id = actor.room, command.id
        message = room.log.find(id)
        if message is None and id < room.log.first_id and self._storage.keeps_messages:
            if stored is None:
                actor.session.cost_bytes += LOOKUP_BYTES
                job = partial(self._read_before, room.key, id + 1, 1)
                return Pending(job, partial(self._delete_stored, actor, command))
            message = next((one for one in stored if one.id == id), None)
        if message is None:
            raise _Refused(Rejection.NO_SUCH_MESSAGE, str(id))
        if message.deleted:
            # The same answer if it was deleted before, perhaps by another moderator.
            self._answer(actor, Action.DELETED, str(id))
            return DONE
        # A deletion does not wait for slow readers of the room.
        room.delete(id, self._now_ms())
        self._done(actor, Action.DELETED, str(id), message.name)
        return DONE

    def _delete_stored(self, actor: _Actor, command: Delete, stored: Sequence[PastMessage]) -> Result[object]:
        session, room = actor.session, actor.room
        if session.find_room(room.key) is not room:
            session.subscriber.deliver(Rejected(Rejection.NOT_IN_ROOM, room.name, command.room))
            return DONE
        return self.carry_out(session, actor.name, room, command, stored)

    # --- Shared by all commands --------------------------------------------------------------------------------------

    def _find(self, who: str) -> tuple[Session, Name]:
        """Find a logged-in user."""
        other = self._people.get(key_of(who))
        if other is None or other.name is None:
            raise _Refused(Rejection.USER_NOT_FOUND, who)
        return other, other.name

    def _find_in(self, room: Room, who: str) -> tuple[Session, Name]:
        """Find a user in the room."""
        other, other_name = self._find(who)
        if other.find_room(room.key) is not room:
            raise _Refused(Rejection.USER_NOT_FOUND, who)
        return other, other_name

    def _check_rank(self, actor: _Actor, other: Role, key: str) -> None:
        """Refuse to act on someone of the same rank or above it, and on the actor."""
        if key == actor.name.key or not self._permissions.may_act_on(actor.role, other):
            raise _Refused(Rejection.NOT_PERMITTED)

    def _check_voice(self, actor: _Actor, text: str) -> None:
        """Refuse to say something to others, such as a reason, on behalf of someone who cannot speak in the room."""
        session, name, room = actor.session, actor.name, actor.room
        if not text or session.name is None:
            # The program is no client that could be muted, or need voice.
            return
        refusal = self._permissions.refuse_speech(session, name, room, self._now_ms())
        if refusal is not None:
            raise _Refused(refusal, room.name)

    def _cut(self, reason: str) -> str:
        return reason[: self._limits.reason_characters]

    def _changed(self, actor: _Actor, action: Action, subject: str = "", *, is_new: bool = True) -> None:
        """Store a setting of the room if it changed, and answer."""
        if not is_new:
            self._answer(actor, action, subject)
            return
        self._rooms.changed(actor.room)
        self._done(actor, action, subject)

    def _done(self, actor: _Actor, action: Action, subject: str, detail: str = "") -> None:
        """Record an act in the audit log, and answer."""
        room = actor.room
        place = "" if room is self._rooms.lobby else room.key
        self._storage.audit(Act(self._now_ms(), actor.name.shown, action.value, place, subject, detail))
        actor.session.cost_bytes += _ACT_BYTES
        self._answer(actor, action, subject)

    def _answer(self, actor: _Actor, action: Action, subject: str) -> None:
        actor.session.subscriber.deliver(Accepted(action, actor.room.name, subject))


def _is_visible(ban: Ban, actor: _Actor) -> bool:
    """True unless it is a ban of addresses, which only operators see."""
    return actor.role is Role.OPERATOR or not ban.is_range


def _parse_name(typed: str) -> Name:
    try:
        return parse_name(typed)
    except InvalidName:
        raise _Refused(Rejection.USER_NOT_FOUND, typed) from None
