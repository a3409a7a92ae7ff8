"""The owners of rooms. Pure.

The creator of a room owns it, and so does a person who enters a room without an owner. An account owns it, present or
not, up to a number of rooms. Without an account, and beyond that number, ownership lasts until the end of
the session; then the person who has been there longest owns the room.

Invariants of Owners:
- `_accounts` holds each account that owns a room.
- An account owns at most `kept_rooms` rooms, and a session at most `rooms_per_client` besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from geventchat.chat.accounts import Account
from geventchat.chat.limits import ChatLimits
from geventchat.chat.rooms import Owner, Room
from geventchat.chat.sessions import Session
from geventchat.chat.states import State


class Owners:
    """The owners of all rooms."""

    def __init__(self, limits: ChatLimits) -> None:
        self._limits = limits
        self._accounts: dict[str, Owner] = {}
        self._make_way: Callable[[Iterable[Room]], None] = lambda rooms: None

    def when_full(self, make_way: Callable[[Iterable[Room]], None]) -> None:
        """Call this with the rooms of an owner who cannot own more: it can delete some."""
        self._make_way = make_way

    TRANSIENT = frozenset({"_limits", "_make_way"})

    def to_state(self) -> State:
        """Which account owns which rooms, to be handed over; the rooms of a session are in the state of the session."""
        return {
            "accounts": {key: [room.key for room in owner.rooms] for key, owner in self._accounts.items()}
        }

    def take_state(
        self, state: State, rooms: Mapping[str, Room], find: Callable[[str], Account | None]
    ) -> None:
        """Take over the owners of these rooms."""
        for room in rooms.values():
            self.release(room)
        for key, owned in state["accounts"].items():
            account = find(key)
            if account is not None:
                for room_key in owned:
                    self.give(rooms[room_key], account)

    def give_to(self, session: Session, room: Room) -> None:
        """Let a session own the room without an account, as it did before it was handed over."""
        owner = session.owner = session.owner or Owner(None)
        room.owner = owner
        owner.rooms[room] = None

    def owns(self, session: Session, room: Room) -> bool:
        """True when this client owns the room."""
        owner = room.owner
        if owner is None:
            return False
        if owner.account is None:
            return owner is session.owner
        return session.account is not None and owner.account.key == session.account.key

    def can_claim(self, session: Session) -> bool:
        """True when this client can own one more room."""
        return self._next_owner(session) is not None

    def claim(self, session: Session, room: Room) -> bool:
        """Let this client own the room; False if it owns too many."""
        owner = self._next_owner(session)
        if owner is None:
            return False
        self.release(room)
        if owner.account is None:
            session.owner = owner
        else:
            self._accounts[owner.account.key] = owner
        room.owner = owner
        owner.rooms[room] = None
        return True

    def adopt(self, session: Session) -> list[Room]:
        """This client has an account now: let the account own what the session owned, as far as it can; return those rooms."""
        rooms = [] if session.owner is None else list(session.owner.rooms)
        for room in rooms:
            self.claim(session, room)
        return [room for room in rooms if room.kept]

    def give(self, room: Room, account: Account) -> None:
        """Let an account own the room, which has no owner; for rooms of an earlier run."""
        owner = self._accounts.setdefault(account.key, Owner(account))
        room.owner = owner
        owner.rooms[room] = None

    def release(self, room: Room) -> None:
        """Leave the room without an owner."""
        owner, room.owner = room.owner, None
        if owner is not None:
            del owner.rooms[room]
            if owner.account is not None and not owner.rooms:
                del self._accounts[owner.account.key]

    def rooms_of(self, session: Session) -> list[Room]:
        """The rooms that this client owns."""
        account = None if session.account is None else self._accounts.get(session.account.key)
        return [room for owner in (session.owner, account) if owner is not None for room in owner.rooms]

    def pass_on(self, session: Session, people: Mapping[str, Session]) -> list[Room]:
        """This session has ended: pass on what it owned without an account, and return those rooms."""
        if session.owner is None:
            return []
        rooms = list(session.owner.rooms)
        for room in rooms:
            self.release(room)
            heir = next(iter(room.keys), None)
            if heir is not None:
                self.claim(people[heir], room)
        return rooms

    def _next_owner(self, session: Session) -> Owner | None:
        """The owner that one more room of this client would have."""
        account, limits = session.account, self._limits
        if account is not None:
            owner = self._accounts.get(account.key) or Owner(account)
            if self._can_own_more(owner, limits.kept_rooms):
                return owner
        owner = session.owner or Owner(None)
        return owner if self._can_own_more(owner, limits.rooms_per_client) else None

    def _can_own_more(self, owner: Owner, most: int) -> bool:
        if len(owner.rooms) >= most:
            self._make_way(list(owner.rooms))
        return len(owner.rooms) < most
