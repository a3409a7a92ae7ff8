"""The clients in the chat and in its rooms: login, entering, resuming, leaving, removal. Pure.

Work that has to wait, such as verifying a password or reading what was missed, is returned as `Pending`.

Invariants:
- `people` holds every session that is logged in, by the key of its name, in login order.
- A session with a name is in `people` and in its rooms: exactly one, unless its dialect allows several. A session without
  a name is in none.
- Each person whose name is in a room is logged in and hears the room, or is being sent what was missed there.
- A room with people in it has an owner, unless all of them own as many rooms as they can. The lobby has none.
- A command that returns `Busy` without `go_on` has changed nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from geventchat.chat.accounts import Accounts
from geventchat.chat.commands import EnterRoom, Login
from geventchat.chat.credentials import Credentials, Proof, origin_text
from geventchat.chat.events import (
    Broadcast,
    Departure,
    DisconnectNotice,
    Entered,
    Kicked,
    Left,
    LeftRoom,
    LoggedIn,
    LoggedOut,
    NoticeReason,
    PastMessage,
    Rejected,
    Rejection,
    Said,
    Typing,
    Welcome,
)
from geventchat.chat.ignores import UNSEEN_BYTES, Ignores
from geventchat.chat.limits import ChatLimits
from geventchat.chat.lookalikes import LookAlikes
from geventchat.chat.mailboxes import InThread, Mailboxes
from geventchat.chat.moderation import BANNED
from geventchat.chat.names import InvalidName, Name, parse_name, parse_room_name
from geventchat.chat.ownership import Owners
from geventchat.chat.permissions import Permissions
from geventchat.chat.replay import READ_AT_ONCE, Replay
from geventchat.chat.results import DONE, LEAVE, Busy, Done, More, Pending, Result, reject, reject_room
from geventchat.chat.room_list import Rooms
from geventchat.chat.rooms import Observer, Room
from geventchat.chat.sessions import Session
from geventchat.chat.states import State
from geventchat.chat.storage import LOOKUP_BYTES, Storage, StorageUnavailable

# By the key of a room: the id of the first message to be sent that the storage has and the log does not.
Older = Mapping[str, int]
NOTHING_OLDER: Older = {}
_REPLACED = DisconnectNotice(NoticeReason.REPLACED)
# The most names in the answer to one login, for all its rooms: a login's cost is not charged to its address.
_NAMES_AT_LOGIN = 2_500


class Presence:
    """All logged-in users and the rooms that they are in."""

    def __init__(
        self,
        *,
        people: dict[str, Session],
        rooms: Rooms,
        accounts: Accounts,
        credentials: Credentials,
        mailboxes: Mailboxes,
        owners: Owners,
        permissions: Permissions,
        ignores: Ignores,
        look_alikes: LookAlikes,
        reserved: Collection[str],
        epoch: str,
        greeting: str,
        limits: ChatLimits,
        now_ms: Callable[[], int],
        storage: Storage,
        in_thread: InThread,
        announce_later: Callable[[Room], None],
        observer: Observer | None,
    ) -> None:
        """`people` is filled here. No client can log in under a name whose key is `reserved`."""
        self._people = people
        self._rooms = rooms
        self._accounts = accounts
        self._credentials = credentials
        self._mailboxes = mailboxes
        self._owners = owners
        self._permissions = permissions
        self._ignores = ignores
        # Contains the names of all logged-in users.
        self._look_alikes = look_alikes
        self._reserved = reserved
        self._epoch = epoch
        self.greeting = greeting
        self._limits = limits
        self._now_ms = now_ms
        self._storage = storage
        self._in_thread = in_thread
        self._announce_later = announce_later
        self._observer = observer
        # The logins so far, and the refused ones by reason.
        self.logins = 0
        self.login_failures: Counter[Rejection] = Counter()

    # Part of the chat, or of the settings.
    TRANSIENT = frozenset(
        {
            *(
                "_people",
                "_rooms",
                "_accounts",
                "_credentials",
                "_mailboxes",
                "_owners",
                "_permissions",
                "_ignores",
            ),
            *("_look_alikes", "_reserved", "_epoch", "greeting", "_limits", "_now_ms", "_storage"),
            *("_in_thread", "_announce_later", "_observer"),
        }
    )

    def to_state(self) -> State:
        """The counters of logins, to be handed over."""
        failures = {reason.name: count for reason, count in self.login_failures.items()}
        return {"logins": self.logins, "login_failures": failures}

    def take_state(self, state: State) -> None:
        """Continue the counters of another process."""
        self.logins = state["logins"]
        self.login_failures.update(
            {Rejection[name]: count for name, count in state["login_failures"].items()}
        )

    def go_on(self, session: Session) -> Result[object]:
        """Continue to send what another process was sending to a client that had logged in or entered a room."""
        return self._mailboxes.go_on(session, partial(self._replay, session))

    @property
    def _lobby(self) -> Room:
        return self._rooms.lobby

    # --- Logging in --------------------------------------------------------------------------------------------------

    def login(
        self,
        session: Session,
        login: Login,
        proof: Proof | None = None,
        passed: frozenset[Room] = frozenset(),
        older: Older = NOTHING_OLDER,
    ) -> Result[object]:
        """Log in. `proof` shows that the account belongs to the client.

        `passed` are the rooms whose gates the client has passed. `older` says where the missed messages begin in the storage.
        """
        try:
            name = parse_name(login.name, self._reserved)
        except InvalidName as invalid:
            return self._reject_login(session, invalid.reason)
        account = self._accounts.find_account(name.key)
        if account is None:
            if login.password is not None:
                return self._reject_login(session, Rejection.NAME_INVALID)
        elif proof is not None and self._credentials.holds(proof):
            session.account = account
        elif proof is not None or session.account != account:
            session.account = None
            return self._ask_for_proof(session, name, login)
        if not self._permissions.may_use_name(session, name):
            return self._reject_login(session, Rejection.NAME_INVALID)
        session.login_number = self.logins + 1
        if self._permissions.is_banned(session, name, self._now_ms()):
            session.subscriber.deliver(BANNED)
            session.peer.disconnect(BANNED.reason)
            return LEAVE
        if name.key in self._people and account is None:
            return self._reject_login(session, Rejection.NAME_TAKEN)
        if self._look_alikes.resembles(name):
            return self._reject_login(session, Rejection.NAME_INVALID)
        if login.rooms is not None:
            return self._login_to_rooms(session, name, login, login.rooms, proof, passed, older)
        if not self._lobby.gate.is_open():
            # Without a proof the command can be handled again; with one, that would be another guess.
            return Busy(self._lobby.gate, partial(self.login, session, login, proof) if proof else None)
        self._admit(session, name, proof)
        now_ms = self._now_ms()
        self._arrive(session, name, self._lobby, now_ms)
        session.subscriber.deliver(Welcome(self._lobby.name, name.shown, self._lobby.names, now_ms))
        return self._after_login(session)

    def _ask_for_proof(self, session: Session, name: Name, login: Login) -> Result[Any]:
        """Let someone prove that the account with this name is theirs, and log in then."""
        if login.password is None:
            return self._reject_login(session, Rejection.PASSWORD_REQUIRED)

        def finish(proof: Proof | Rejection) -> Result[object]:
            if isinstance(proof, Rejection):
                session.peer.failed_to_prove(name.shown, proof)
                return self._reject_login(session, proof)
            return self.login(session, login, proof)

        job = partial(self._credentials.prove, name.key, origin_text(session), login.password)
        return Pending(job, finish)

    def _reject_login(self, session: Session, reason: Rejection) -> Done:
        self.login_failures[reason] += 1
        return reject(session, reason)

    def _login_to_rooms(
        self,
        session: Session,
        name: Name,
        login: Login,
        asked: Sequence[EnterRoom],
        proof: Proof | None,
        passed: frozenset[Room],
        older: Older,
    ) -> Result[object]:
        admitted: dict[str, tuple[Name, EnterRoom]] = {}
        refused: list[Rejected] = []
        for entry in asked:
            room_name = self._admitted(session, name, entry, admitted)
            if isinstance(room_name, Rejection):
                refused.append(Rejected(room_name, entry.room, entry.room))
            else:
                admitted.setdefault(room_name.key, (room_name, entry))
        same_epoch = login.epoch in ("", self._epoch)
        missed = {
            key: entry.after if same_epoch else 0
            for key, (_, entry) in admitted.items()
            if entry.after is not None
        }
        job = self._older_job(session, missed, older)
        if job is not None:
            return Pending(job, partial(self.login, session, login, proof, passed))
        for key in admitted:
            room = self._rooms.find(key)
            # A client waits at one gate at a time; a gate that it has passed counts as open.
            if room is not None and room not in passed and not room.gate.is_open():
                return Busy(room.gate, partial(self.login, session, login, proof, passed | {room}, older))
        self._admit(session, name, proof)
        now_ms = self._now_ms()
        rooms: list[Room] = []
        for room_name, entry in admitted.values():
            room = self._rooms.find(room_name.key) or self._create(session, room_name)
            if room is None:
                refused.append(Rejected(Rejection.TOO_MANY_ROOMS, entry.room, entry.room))
                continue
            rooms.append(room)
            self._take_in(session, name, room)
            # The newcomer hears none of the rooms yet and does not receive it.
            room.joined(name, None, now_ms)
        session.go_to_all(rooms)
        for room in rooms:
            if room.key in missed:
                self._catch_up(session, room, missed[room.key], older)
        entered: list[Entered] = []
        names_left = _NAMES_AT_LOGIN
        for room in rooms:
            entered.append(self._entered(session, room, names_left))
            names_left -= len(entered[-1].users)
        session.subscriber.deliver(Welcome("", name.shown, (), now_ms, self._epoch, entered, self.greeting))
        for rejected in refused:
            session.subscriber.deliver(rejected)
        return self._after_login(session)

    def _after_login(self, session: Session) -> Result[object]:
        go_on = partial(self._replay, session)
        return (
            go_on() if session.account is None else self._mailboxes.collect(session, session.account, go_on)
        )

    def _admit(self, session: Session, name: Name, proof: Proof | None) -> None:
        holder = self._people.get(name.key)
        if holder is not None:
            self._take_over(holder)
        if proof is not None:
            self._credentials.use(proof, origin_text(session))
        if session.account is not None:
            for ignored in self._accounts.ignored_by(session.account.key):
                self._ignores.add(session, ignored)
        session.name = name
        self._people[name.key] = session
        self.logins += 1
        self._look_alikes.add(name)
        if self._observer is not None:
            self._observer(LoggedIn(name.shown, self._now_ms()))

    def _take_over(self, holder: Session) -> None:
        """Disconnect this client, because another one has proved that it owns the account."""
        # The others see an ordinary departure.
        self.leave(holder)
        holder.subscriber.deliver_direct(_REPLACED, stranger=False)
        holder.peer.disconnect(_REPLACED.reason)

    # --- Entering ----------------------------------------------------------------------------------------------------

    def room_of(self, session: Session, typed: str) -> Room | Rejection:
        """The room that a command of this client means, or why it is none that the client is in."""
        if not typed:
            if session.meant is not None:
                return Rejection.NOT_IN_ROOM
            # A client in several rooms has to name one.
            return session.room or Rejection.ROOM_NAME_INVALID
        try:
            key = parse_room_name(typed).key
        except InvalidName:
            return Rejection.ROOM_NAME_INVALID
        room = session.find_room(key)
        if room is not None:
            return room
        room = self._rooms.find(key)
        if room is None or not self._permissions.can_see(session, room):
            return Rejection.NO_SUCH_ROOM
        return Rejection.NOT_IN_ROOM

    def enter(
        self, session: Session, name: Name, command: EnterRoom, older: Older = NOTHING_OLDER
    ) -> Result[object]:
        """Enter a room, in addition to the client's other rooms or in place of its only one."""
        room_name = self._admitted(session, name, command, session.rooms or ())
        if isinstance(room_name, Rejection):
            return reject_room(session, room_name, command.room)
        if command.after is not None and session.rooms is not None:
            job = self._older_job(session, {room_name.key: command.after}, older)
            if job is not None:
                return Pending(job, partial(self.enter, session, name, command))
        room = session.find_room(room_name.key)
        if room is None:
            room = self._rooms.find(room_name.key)
            if room is not None and not room.gate.is_open():
                return Busy(room.gate, partial(self.enter, session, name, command, older) if older else None)
            room = room or self._create(session, room_name)
            if room is None:
                return reject_room(session, Rejection.TOO_MANY_ROOMS, command.room)
            self._move(session, name, room)
        if command.after is not None and session.rooms is not None:
            self._catch_up(session, room, command.after, older)
        session.subscriber.deliver(self._entered(session, room))
        return self._replay(session)

    def _admitted(
        self, session: Session, name: Name, entry: EnterRoom, rooms: Collection[str]
    ) -> Name | Rejection:
        """The name of the room, if a client in these rooms can enter it or is in it; otherwise why not."""
        try:
            room_name = parse_room_name(entry.room)
        except InvalidName:
            return Rejection.ROOM_NAME_INVALID
        if room_name.key not in rooms and len(rooms) >= self._limits.rooms_per_client:
            return Rejection.TOO_MANY_ROOMS
        room = self._rooms.find(room_name.key)
        if room is None or session.find_room(room.key) is room:
            return room_name
        return (
            self._permissions.refuse_entry(session, name, room, entry.room_key, self._now_ms()) or room_name
        )

    def _entered(self, session: Session, room: Room, most_names: int = _NAMES_AT_LOGIN) -> Entered:
        users: Collection[str] = room.names
        if session.rooms is not None:
            users, _ = room.page("", min(most_names, self._limits.listed_users))
        replay = session.replays.get(room) if session.replays else None
        replay_from = room.last_id + 1 if replay is None else replay.first_id
        return Entered(room.name, users, room.topic, len(room.names), room.last_id, replay_from)

    def _create(self, session: Session, name: Name) -> Room | None:
        """Create a room for this client to enter and own, unless it has too many or creates them too fast."""
        # `can_create_room` comes last, because it counts the room.
        if not (
            self._rooms.can_create() and self._owners.can_claim(session) and session.peer.can_create_room()
        ):
            return None
        return self._rooms.create(name)

    def _move(self, session: Session, name: Name, room: Room) -> None:
        now_ms = self._now_ms()
        left = session.room if session.rooms is None else None
        if left is not None:
            left.remove(name)
        self._arrive(session, name, room, now_ms)
        if left is not None:
            self._rooms.left(left)
            self._announce_departure(left, name, Departure.LEFT, now_ms)

    def _arrive(self, session: Session, name: Name, room: Room, now_ms: int) -> None:
        self._take_in(session, name, room)
        session.meant = None
        session.go_to(room)
        room.joined(name, session.subscriber, now_ms)

    def _take_in(self, session: Session, name: Name, room: Room) -> None:
        """Add a client to a room; if the room has no owner, the client becomes its owner."""
        room.make_way(name)
        room.add(name)
        self._rooms.entered(room)
        if room.owner is None and room is not self._lobby:
            self._owners.claim(session, room)
            if room.kept:
                self._rooms.changed(room)

    # --- Resuming ----------------------------------------------------------------------------------------------------

    def _older_job(
        self, session: Session, missed: Mapping[str, int], older: Older
    ) -> Callable[[], Older] | None:
        """A job that finds where the missed messages of these rooms begin in the storage; None if the logs have them all."""
        if not self._storage.keeps_messages:
            return None
        wanted: dict[str, tuple[int, int, int]] = {}
        for key, after in missed.items():
            room = self._rooms.find(key)
            if room is not None and key not in older:
                log = room.log
                most = self._limits.history_messages - log.messages
                if after + 1 < log.first_id and most > 0:
                    wanted[key] = after, log.first_id, most
        session.cost_bytes += LOOKUP_BYTES * len(wanted)
        return partial(self._in_thread, partial(self._look_up, older, wanted)) if wanted else None

    def _look_up(self, older: Older, wanted: Mapping[str, tuple[int, int, int]]) -> Older:
        """A part of a job. Messages that the storage cannot read are left out."""
        found = {**older, **{key: before for key, (_, before, _) in wanted.items()}}
        with suppress(StorageUnavailable):
            found.update(self._storage.first_between(wanted))
        return found

    def _catch_up(self, session: Session, room: Room, after: int, older: Older) -> None:
        # While clients catch up, the log keeps more messages than are replayed.
        after = max(after, room.log.id_before_latest(self._limits.history_messages))
        first = older.get(room.key, 0)
        replay = Replay(
            room,
            after,
            first if after < first < room.log.first_id else None,
            stored=self._storage.keeps_messages,
        )
        if not replay.is_over:
            session.catch_up(replay)

    def _replay(self, session: Session) -> Result[object]:
        """Send the rest of the missed events, if any is left."""
        return More(partial(self._send_missed, session)) if session.replays else DONE

    def _send_missed(self, session: Session) -> Result[object]:
        if session.replays:
            room, replay = next(iter(session.replays.items()))
            if replay.is_lost:
                return self._give_up(session)
            if replay.needs_storage:
                job = partial(self._read_after, room.key, replay.last_id)
                return Pending(job, partial(self._send_stored, session, replay, room.log.first_id))
            self._send_part(session, replay, replay.next_part())
        return self._replay(session)

    def _send_part(self, session: Session, replay: Replay, part: list[Broadcast]) -> None:
        if session.ignored:
            heard = [event for event in part if not _is_ignored(session, event)]
            session.cost_bytes += UNSEEN_BYTES * (len(part) - len(heard))
            part = heard
        session.subscriber.deliver_missed(part)
        if replay.is_over:
            session.caught_up(replay.room)

    def _read_after(self, room: str, id: int) -> Sequence[PastMessage] | None:
        """A job; None if the storage cannot answer."""
        try:
            return self._in_thread(partial(self._storage.after, room, id, READ_AT_ONCE))
        except StorageUnavailable:
            return None

    def _send_stored(
        self, session: Session, replay: Replay, log_began: int, messages: Sequence[PastMessage] | None
    ) -> Result[object]:
        # The client can have been removed from the room meanwhile.
        if session.replays and session.replays.get(replay.room) is replay:
            if messages is None or replay.is_lost:
                return self._give_up(session)
            self._send_part(session, replay, replay.stored_part(messages, log_began))
        return self._replay(session)

    def _give_up(self, session: Session) -> Result[object]:
        """Disconnect the client: it can resume from what it has received, but not across a gap."""
        self.leave(session)
        return LEAVE

    # --- Leaving -----------------------------------------------------------------------------------------------------

    def leave_room(self, session: Session, name: Name, typed: str) -> Result[object]:
        """Leave a room. A client with one room at a time goes to the lobby."""
        room = self.room_of(session, typed)
        if isinstance(room, Rejection):
            return reject_room(session, room, typed)
        if session.rooms is not None:
            room.remove(name)
            session.go_out_of(room)
            self._rooms.left(room)
            self._announce_departure(room, name, Departure.LEFT, self._now_ms())
            session.subscriber.deliver(LeftRoom(room.name))
            return DONE
        if room is self._lobby:
            return reject(session, Rejection.ALREADY_IN_LOBBY)
        if not self._lobby.gate.is_open():
            return Busy(self._lobby.gate)
        self._move(session, name, self._lobby)
        session.subscriber.deliver(LeftRoom(room.name, self._lobby.name))
        return DONE

    def leave(self, session: Session) -> None:
        """Remove a client: its name is free at once, and the others are notified once.

        Thousands can leave at the same moment. Notices that the others cannot take now are left to `announce_later`.
        """
        name = session.name
        if name is not None:
            now_ms = self._now_ms()
            for room in self._remove(session, name, now_ms):
                self._announce_departure(room, name, Departure.DISCONNECTED, now_ms)
            self._pass_on_rooms(session)

    def close(self, session: Session) -> None:
        """Remove a client without a notice: the server is stopping, and the others are about to leave too."""
        name = session.name
        if name is not None:
            self._remove(session, name, self._now_ms())

    def expel(self, session: Session, name: Name, room: Room, by: Session, reason: str) -> None:
        """Remove a client from a room. A client with one room at a time goes to the lobby, whose gate must be open."""
        now_ms = self._now_ms()
        room.remove(name)
        now_in = self._lobby.name if session.rooms is None else ""
        if session.rooms is None:
            session.subscriber.deliver_direct(Kicked(room.name, reason, now_ms, now_in), stranger=False)
            self._arrive(session, name, self._lobby, now_ms)
            if session.peer.mark_input():
                # A client that was kicked for a flood must not continue it in the lobby.
                session.meant = room
        else:
            session.go_out_of(room)
            session.subscriber.deliver_direct(Kicked(room.name, reason, now_ms), stranger=False)
        self._rooms.left(room)
        # A kick does not wait for slow readers: a flooded room would keep its moderator waiting.
        _announce_kick(room, name, by, now_ms)

    def throw_out(self, session: Session, name: Name, by: Session, notice: DisconnectNotice) -> None:
        """Remove a client from the chat, tell it why, and close its connection."""
        now_ms = self._now_ms()
        for room in self._remove(session, name, now_ms):
            if by.hears(room):
                _announce_kick(room, name, by, now_ms)
            else:
                self._announce_departure(room, name, Departure.KICKED, now_ms)
        self._pass_on_rooms(session)
        session.subscriber.deliver_direct(notice, stranger=False)
        session.peer.disconnect(notice.reason)

    def _remove(self, session: Session, name: Name, now_ms: int) -> Collection[Room]:
        """Remove a client from the chat silently; returns the rooms that it was in."""
        rooms = list(session.all_rooms())
        del self._people[name.key]
        self._mailboxes.put_back(session)
        if session.account is not None:
            self._accounts.used(session.account.key)
            # An ignored person can have registered meanwhile.
            self.note_ignored(session)
        self._ignores.forget(session)
        self._look_alikes.remove(name)
        if self._observer is not None:
            self._observer(LoggedOut(name.shown, now_ms))
        for room in rooms:
            room.remove(name)
        session.go()
        for room in rooms:
            self._rooms.left(room)
        return rooms

    def note_ignored(self, session: Session) -> None:
        """Store the names that this client ignores, if it has an account."""
        if session.account is not None:
            self._accounts.ignore(session.account.key, session.ignored or ())

    def _pass_on_rooms(self, session: Session) -> None:
        for room in self._owners.pass_on(session, self._people):
            if room.kept:
                self._rooms.changed(room)

    def _announce_departure(self, room: Room, name: Name, how: Departure, now_ms: int) -> None:
        if not room.departed(name, how, now_ms):
            self._announce_later(room)


def _is_ignored(session: Session, event: Broadcast) -> bool:
    return isinstance(event, Said | Typing) and session.ignores(event.name)


def _announce_kick(room: Room, name: Name, by: Session, now_ms: int) -> None:
    # A removal of many people goes on after its author has left the room.
    author = by.subscriber if by.hears(room) else None
    room.publish(Left(room.name, name.shown, now_ms, Departure.KICKED), author)
