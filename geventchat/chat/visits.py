"""What an account does without being logged in: says something in a room, and reads what was said. Pure.

For programs that come with a token, do one thing and go. A visitor may do what the account could do if it entered the room.
But it does not enter: it causes no arrival and no departure, is in no list, and takes over no name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from geventchat.chat.accounts import Account, Accounts
from geventchat.chat.commands import AskHistory, Post, ReadMessages, VisitCommand
from geventchat.chat.events import Confirmed, HistoryPage, PastMessage, Rejection
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
        read_after: Callable[[str, int, int], list[PastMessage]],
        tell_history: Callable[[Session, Room, AskHistory, Callable[[], Rejection | None]], Result[Any]],
        hide_latest: Callable[[Session, Name, Room], None],
    ) -> None:
        """`read_after` is a job: `Storage.after`, with nothing in place of what cannot be read.

        `tell_history` delivers the latest messages, unless the last argument refuses that after they have been read.
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
        self._read_stored = read_after
        self._tell_history = tell_history
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
            case ReadMessages(limit=limit, after=after):

                def refuse() -> Rejection | None:
                    found = self._find_room(session, name, command.room)
                    return found if isinstance(found, Rejection) else None

                if after is None:
                    return self._tell_history(session, room, AskHistory(limit), refuse)
                return self._read_after(session, room, after, limit, refuse)

    def _identify(self, session: Session, token: Secret | None) -> Name | Rejection:
        """Whose token this is."""
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

    def _read_after(
        self, session: Session, room: Room, after: int, asked: int, refuse: Callable[[], Rejection | None]
    ) -> Result[Any]:
        limit = min(asked, self._limits.history_page_messages)
        if after + 1 >= room.log.first_id or not self._storage.keeps_messages:
            return _tell(session, room, room.log.after(after, limit + 1), limit)
        session.cost_bytes += LOOKUP_BYTES
        deletions = room.log.deletions

        def finish(messages: Sequence[PastMessage]) -> Result[Any]:
            refusal = refuse()
            if refusal is not None:
                return reject_room(session, refusal, room.name)
            if room.log.deletions != deletions:
                return self._read_after(session, room, after, asked, refuse)
            return _tell(session, room, messages, limit)

        return Pending(partial(self._read_stored, room.key, after, limit + 1), finish)

    def _now_ms(self) -> int:
        return int(self._time() * 1000)


def _tell(session: Session, room: Room, messages: Sequence[PastMessage], limit: int) -> Done:
    """Deliver a page; one message too many shows that there are more."""
    session.subscriber.deliver(HistoryPage(room.name, messages[:limit], len(messages) > limit))
    return DONE
