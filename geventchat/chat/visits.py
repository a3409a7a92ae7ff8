"""Visits: an account says something in a room, or reads its messages, without a login. Pure.

For programs that come with a token, do one thing and go. A visitor may do what the account could do if it entered the room.
But it does not enter: it causes no arrival and no departure, is in no list, and takes over no name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from geventchat.chat.accounts import Account, Accounts
from geventchat.chat.commands import Post, ReadMessages, VisitCommand
from geventchat.chat.events import Confirmed, HistoryPage, PastMessage, Rejection
from geventchat.chat.history import fitting
from geventchat.chat.limits import ChatLimits
from geventchat.chat.message_keys import MessageKeys
from geventchat.chat.names import InvalidName, Name, parse_name, parse_room_name
from geventchat.chat.passwords import Secret
from geventchat.chat.permissions import Permissions
from geventchat.chat.results import DONE, Busy, Done, Pending, Result, reject, reject_room
from geventchat.chat.room_list import Rooms
from geventchat.chat.rooms import Room
from geventchat.chat.sessions import Session
from geventchat.chat.storage import LOOKUP_BYTES, Storage

ReadStored = Callable[[str, int, int], list[PastMessage]]


class Visits:
    """Carries out the commands of visitors."""

    def __init__(
        self,
        *,
        people: Mapping[str, Session],
        rooms: Rooms,
        accounts: Accounts,
        permissions: Permissions,
        message_keys: MessageKeys,
        reserved: Collection[str],
        storage: Storage,
        limits: ChatLimits,
        time: Callable[[], float],
        read_before: ReadStored,
        read_after: ReadStored,
        hide_latest: Callable[[Session, Name, Room], None],
    ) -> None:
        """`read_before` and `read_after` are jobs: those of `Storage`, with nothing in place of what cannot be read.

        `hide_latest` hides what was said last from those who ignore its author.
        """
        self._people = people
        self._rooms = rooms
        self._accounts = accounts
        self._permissions = permissions
        self._message_keys = message_keys
        self._reserved = reserved
        self._storage = storage
        self._limits = limits
        self._time = time
        self._read_before = read_before
        self._read_after = read_after
        self._hide_latest = hide_latest

    def carry_out(self, session: Session, command: VisitCommand) -> Result[Any]:
        """Carry out a command; its answer is a Confirmed, a HistoryPage or a Rejected."""
        name = self._identify(session, command.token)
        if isinstance(name, Rejection):
            return reject(session, name)
        room = self._find_room(session, name, command.room)
        if isinstance(room, Rejection):
            return reject_room(session, room, command.room)
        match command:
            case Post():
                return self._post(session, name, room, command)
            case ReadMessages():
                return self._read(session, name, room, command)

    def _identify(self, session: Session, token: Secret | None) -> Name | Rejection:
        """The account with this token."""
        if token is None:
            return Rejection.PASSWORD_REQUIRED
        record = self._accounts.find_by_token(token)
        if record is None:
            return Rejection.WRONG_PASSWORD
        try:
            name = parse_name(record.name, self._reserved)
        except InvalidName as invalid:
            return invalid.reason
        session.account = Account(record.key, record.name)
        if self._permissions.is_banned(session, name, self._now_ms()):
            return Rejection.BANNED_FROM_ROOM
        self._accounts.used(record.key)
        return name

    def _find_room(self, session: Session, name: Name, typed: str) -> Room | Rejection:
        """A room that this account is in, or could enter now."""
        try:
            room = self._rooms.find(parse_room_name(typed).key)
        except InvalidName:
            return Rejection.ROOM_NAME_INVALID
        if room is None:
            return Rejection.NO_SUCH_ROOM
        present = self._people.get(name.key)
        if present is not None and present.find_room(room.key) is room:
            return room
        refusal = self._permissions.refuse_entry(session, name, room, "", self._now_ms())
        if refusal is not None and not self._permissions.can_see(session, room):
            return Rejection.NO_SUCH_ROOM
        return refusal or room

    def _post(self, session: Session, name: Name, room: Room, post: Post) -> Result[Any]:
        now = self._time()
        if post.message_key:
            sent = self._message_keys.find(name.key, post.message_key, now)
            if sent is not None:
                session.subscriber.deliver(sent)
                return DONE
        if not post.text:
            return reject_room(session, Rejection.EMPTY_MESSAGE, post.room)
        refusal = self._permissions.refuse_speech(session, name, room, self._now_ms())
        if refusal is not None:
            return reject_room(session, refusal, post.room)
        if not room.gate.is_open():
            return Busy(room.gate)
        # Without an author: if the account is logged in too, that client hears it like everyone else.
        said = room.say(name, [post.text], None, self._now_ms())
        self._hide_latest(session, name, room)
        confirmed = Confirmed(room.name, said.first_id)
        if post.message_key:
            self._message_keys.remember(name.key, post.message_key, confirmed, now)
        session.subscriber.deliver(confirmed)
        return DONE

    def _read(self, session: Session, name: Name, room: Room, command: ReadMessages) -> Result[Any]:
        limit, after = min(command.limit, self._limits.history_page_messages), command.after
        log = room.log
        # One message too many shows that there are more.
        here = log.before(room.last_id + 1, limit + 1) if after is None else log.after(after, limit + 1)
        complete = len(here) > limit or log.first_id <= 1 if after is None else after + 1 >= log.first_id
        if complete or not self._storage.keeps_messages:
            return _tell(session, room, here, limit, after)
        session.cost_bytes += LOOKUP_BYTES
        if after is None:
            job = partial(self._read_before, room.key, log.first_id, limit + 1 - len(here))
        else:
            # All of them, since what is said meanwhile comes behind what is here.
            here, job = [], partial(self._read_after, room.key, after, limit + 1)
        deletions = log.deletions

        def finish(stored: Sequence[PastMessage]) -> Result[Any]:
            if log.deletions != deletions or self._find_room(session, name, command.room) is not room:
                # A text has been deleted, or the account can no longer enter.
                return self.carry_out(session, command)
            return _tell(session, room, [*stored, *here], limit, after)

        return Pending(job, finish)

    def _now_ms(self) -> int:
        return int(self._time() * 1000)


def _tell(
    session: Session, room: Room, messages: Sequence[PastMessage], limit: int, after: int | None
) -> Done:
    """Deliver a page: of the first of these messages, or of the latest."""
    if after is not None:
        page = messages[: fitting(messages, limit)]
    else:
        page = messages[len(messages) - fitting(reversed(messages), limit) :]
    session.subscriber.deliver(HistoryPage(room.name, page, len(messages) > len(page)))
    return DONE
