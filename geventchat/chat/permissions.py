"""Decides which commands, rooms and messages each client is allowed. Pure; the time is passed in.

The bans and mutes of the lobby are those of the server. Operators are named in the settings, and are operators only with
their accounts.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum
from hmac import compare_digest

from geventchat.chat.accounts import Account
from geventchat.chat.addresses import parse_address
from geventchat.chat.bans import Bans, Person
from geventchat.chat.commands import (
    Delete,
    Impose,
    Invite,
    Kick,
    Lift,
    ListBans,
    ModerationCommand,
    PassOwnership,
    SetKey,
    SetModerated,
    SetModerator,
    SetPrivate,
    SetVoice,
)
from geventchat.chat.events import Rejection
from geventchat.chat.names import Name
from geventchat.chat.ownership import Owners
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import Session
from geventchat.chat.text import visible


class Role(IntEnum):
    """A role in a room. Each role includes the rights of those before it."""

    GUEST = 0
    VOICE = 1
    MODERATOR = 2
    OWNER = 3
    OPERATOR = 4


# The least role that a command needs. Only operators have a role in the lobby.
_LEAST: dict[type[ModerationCommand], Role] = {
    Invite: Role.GUEST,
    Kick: Role.MODERATOR,
    Impose: Role.MODERATOR,
    Lift: Role.MODERATOR,
    ListBans: Role.MODERATOR,
    SetVoice: Role.MODERATOR,
    Delete: Role.MODERATOR,
    SetModerated: Role.OWNER,
    SetModerator: Role.OWNER,
    SetPrivate: Role.OWNER,
    SetKey: Role.OWNER,
    PassOwnership: Role.OWNER,
}
# Not possible in the lobby, which every client can enter and no one owns.
_NEVER_IN_LOBBY = (SetModerator, SetPrivate, SetKey, PassOwnership)


class Permissions:
    """Decides what is allowed; changes nothing."""

    def __init__(self, lobby: Room, owners: Owners, operators: Collection[str]) -> None:
        """`operators` are the keys of accounts."""
        self._lobby = lobby
        self._owners = owners
        # The bans of the ban list, in addition to those of the lobby.
        self.listed_bans = Bans()
        self.operators = frozenset(operators)

    # --- Roles -------------------------------------------------------------------------------------------------------

    def is_operator(self, session: Session) -> bool:
        """True for an operator of the server."""
        return session.account is not None and session.account.key in self.operators

    def may_use_name(self, session: Session, name: Name) -> bool:
        """False for the name of an operator without its account."""
        if name.key not in self.operators:
            return True
        return session.account is not None and session.account.key == name.key

    def role(self, session: Session, name: Name, room: Room) -> Role:
        """The role of this client in the room, whether it is there or not."""
        if self._owners.owns(session, room):
            role = Role.OWNER
        elif name.key in room.guest_voices:
            role = Role.VOICE
        else:
            role = Role.GUEST
        return role if session.account is None else max(role, self.role_of_account(session.account, room))

    def role_of_account(self, account: Account, room: Room) -> Role:
        """The role of this account in the room."""
        key = account.key
        if key in self.operators:
            return Role.OPERATOR
        if room.owner is not None and room.owner.account == account:
            return Role.OWNER
        if key in room.moderators:
            return Role.MODERATOR
        return Role.VOICE if key in room.voices else Role.GUEST

    def may_do(self, role: Role, command: ModerationCommand, room: Room) -> bool:
        """True when someone with this role can use the command in the room."""
        if room is self._lobby and isinstance(command, _NEVER_IN_LOBBY):
            return False
        if isinstance(command, Invite) and (room.private or room.room_key):
            # An invitation lets its recipient enter a closed room, so it needs a higher role there.
            return role >= Role.MODERATOR
        return role >= _LEAST[type(command)]

    def may_act_on(self, role: Role, other: Role) -> bool:
        """True when the first role may kick, ban and mute the second."""
        return role is Role.OPERATOR or role > other

    # --- Rooms -------------------------------------------------------------------------------------------------------

    def can_see(self, session: Session, room: Room) -> bool:
        """True when this client may know that the room exists."""
        return (
            not room.private
            or session.find_room(room.key) is room
            or self._owners.owns(session, room)
            or self.is_operator(session)
        )

    def refuse_entry(
        self, session: Session, name: Name, room: Room, typed_key: str, now_ms: int
    ) -> Rejection | None:
        """Why this client cannot enter the room; None if it can.

        Without an invitation or the key, no answer reveals which people are banned, nor whether a private room has a key.
        """
        if (room.private or room.room_key) and self.role(session, name, room) < Role.MODERATOR:
            invited = any(room.invitations.holds(guest, now_ms) for guest in invitations_of(session))
            if not invited and not _fits(room.room_key, typed_key):
                if typed_key or not room.private:
                    return Rejection.WRONG_KEY
                return Rejection.INVITATION_REQUIRED
        if self._concerns(room.bans, session, name, now_ms):
            return Rejection.BANNED_FROM_ROOM
        return None

    def refuse_speech(self, session: Session, name: Name, room: Room, now_ms: int) -> Rejection | None:
        """Why this client cannot speak in the room; None if it can."""
        if not (room.moderated or room.mutes.by_label or self._lobby.mutes.by_label):
            return None
        if self.is_muted(session, name, now_ms) or self._concerns(room.mutes, session, name, now_ms):
            return Rejection.MUTED
        if room.moderated and self.role(session, name, room) < Role.VOICE:
            return Rejection.NO_VOICE
        return None

    # --- The server --------------------------------------------------------------------------------------------------

    def is_banned(self, session: Session, name: Name, now_ms: int) -> bool:
        """True when this client cannot be on the server under this name."""
        return self._concerns(self._lobby.bans, session, name, now_ms) or self._concerns(
            self.listed_bans, session, name, now_ms
        )

    def is_muted(self, session: Session, name: Name, now_ms: int) -> bool:
        """True when this client cannot speak anywhere."""
        return self._concerns(self._lobby.mutes, session, name, now_ms)

    def is_banned_address(self, host: str, now_ms: int) -> bool:
        """True when no client can connect from here."""
        some = [bans for bans in (self._lobby.bans, self.listed_bans) if bans.by_label]
        address = parse_address(host) if some else None
        return address is not None and any(bans.find_address(address, now_ms) is not None for bans in some)

    def _concerns(self, bans: Bans, session: Session, name: Name, now_ms: int) -> bool:
        return bool(bans.by_label) and bans.find(self.person(session, name), now_ms) is not None

    def person(self, session: Session, name: Name) -> Person:
        """The facts that bans are compared with. Bans of addresses do not apply to operators, so theirs is left out."""
        account_key = "" if session.account is None else session.account.key
        address = None if account_key in self.operators else session.address
        return Person(name.key, account_key, address, session.login_number)


def invitations_of(session: Session) -> tuple[str | int, ...]:
    """The identities under which this client can have been invited; new invitations use the first."""
    number = session.login_number
    # A user that has registered since the invitation was invited without an account.
    return (number,) if session.account is None else (session.account.key, number)


def _fits(room_key: str, typed: str) -> bool:
    return bool(room_key) and compare_digest(room_key.encode(), visible(typed).encode("utf-8", "replace"))
