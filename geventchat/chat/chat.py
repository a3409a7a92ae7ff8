"""Commands in, events out. Decides which commands are allowed, and the one order of all events.

Knows no bytes, no sockets and no event loop. It never waits: work that has to wait is returned as `Pending`.

Invariants:
- `_sessions` holds every session that is logged in, by the key of its name, in login order.
- A session with a name is in `_sessions` and in its rooms, one that can be in one room at a time in exactly one; a session
  without a name is in none.
- Everyone whose name is in a room is logged in and hears the room.
- A room with people in it has an owner, unless all of them own as many rooms as they can. The lobby has none.
- A command that returns `Busy` without `go_on` has changed nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from geventchat.chat.accounts import Accounts
from geventchat.chat.bans import Ban
from geventchat.chat.commands import (
    AccountCommand,
    AnnounceTyping,
    AskHistory,
    AskToken,
    AskTopic,
    ChangePassword,
    Command,
    Delete,
    EnterRoom,
    Help,
    Ignore,
    Impose,
    InvalidCommand,
    Invite,
    Kick,
    LeaveRoom,
    Lift,
    ListBans,
    ListRooms,
    Login,
    ModerationCommand,
    ParseError,
    PassOwnership,
    Ping,
    Post,
    Quit,
    ReadMessages,
    Register,
    RevokeTokens,
    Say,
    SendDirectMessage,
    SetKey,
    SetModerated,
    SetModerator,
    SetPrivate,
    SetTopic,
    SetVoice,
    Who,
)
from geventchat.chat.credentials import Credentials, Proof, Tools, origin_text
from geventchat.chat.events import (
    Accepted,
    Action,
    Broadcast,
    Confirmed,
    Departure,
    DirectMessage,
    DirectMessageSent,
    DisconnectNotice,
    Entered,
    Goodbye,
    Greeting,
    HelpText,
    HistoryPage,
    Kicked,
    Left,
    LeftRoom,
    LoggedIn,
    LoggedOut,
    MessageKept,
    NoticeReason,
    PastMessage,
    Pong,
    Rejected,
    Rejection,
    RoomList,
    RoomListing,
    Roster,
    Said,
    Topic,
    TopicChanged,
    Typing,
    Welcome,
)
from geventchat.chat.ignores import Ignores
from geventchat.chat.limits import ChatLimits
from geventchat.chat.lookalikes import LookAlikes
from geventchat.chat.mailboxes import InThread, Mailboxes
from geventchat.chat.message_keys import MessageKeys
from geventchat.chat.moderation import BANNED, Moderation
from geventchat.chat.names import RESERVED_NAMES, InvalidName, Name, key_of, parse_name, parse_room_name
from geventchat.chat.ownership import Owners
from geventchat.chat.permissions import Permissions
from geventchat.chat.records import Act, KeptMessage, Restriction
from geventchat.chat.replay import Replay
from geventchat.chat.results import DONE, LEAVE, Busy, Done, More, Pending, Result
from geventchat.chat.room_list import Rooms
from geventchat.chat.rooms import GateFactory, Observer, Room
from geventchat.chat.sessions import Session
from geventchat.chat.states import State, pack_all, unpack_all
from geventchat.chat.storage import Storage, StorageUnavailable
from geventchat.chat.visits import Visits
from geventchat.exhaustive import assert_never

# By the key of a room: the messages before its log, and the state of the log when they were read.
Older = Mapping[str, tuple[tuple[int, int], Sequence[PastMessage]]]
NOTHING_OLDER: Older = {}

# What a hole costs whoever is ignored, as bytes: making one takes about as long as handling as many bytes of short lines.
_HOLE_BYTES = 4
_REPLACED = DisconnectNotice(NoticeReason.REPLACED)
# Parse errors that are reported before login, too.
_ALWAYS_REPORTED = frozenset(
    {ParseError.TOO_LONG, ParseError.NOT_UTF8, ParseError.NOT_JSON, ParseError.INVALID_FIELD}
)


class Chat:
    """The rooms and everyone in them."""

    def __init__(
        self,
        time: Callable[[], float],
        *,
        new_gate: GateFactory,
        announce_later: Callable[[Room], None],
        limits: ChatLimits,
        storage: Storage,
        in_thread: InThread,
        tools: Tools,
        operators: Collection[str] = (),
        reserved_names: Iterable[str] = RESERVED_NAMES,
        observer: Observer | None = None,
        greeting: str = "",
    ) -> None:
        """Take the time from `time`, in seconds since 1970, and the gates of rooms from `new_gate`.

        `announce_later` gets each room whose gate has to admit the announcement of a departure, and `observer` what happens.
        Neither can block. `tools` are what passwords need. No client can log in with one of the `reserved_names`.
        `operators` are the keys of the names of operators, which need their accounts. Clients are greeted with the
        `greeting` unless it is empty.
        """
        stored = storage.load()
        self.epoch = stored.epoch
        self._owners = Owners(limits)
        self.rooms = Rooms(time, new_gate, limits, storage, self._owners, observer)
        self._storage = storage
        self._in_thread = in_thread
        self._message_keys = MessageKeys(limits)
        self._sessions: dict[str, Session] = {}
        self._logins = 0
        # Counts for whoever watches the server; they never go back.
        self.direct_messages = 0
        self.login_failures: Counter[Rejection] = Counter()
        # One set for good, since others look at it, too.
        self._reserved = set(map(key_of, reserved_names)).difference(operators)
        # The names that are reserved or need an account, and those of everyone who is logged in.
        self._look_alikes = LookAlikes()
        for key in self._reserved.union(operators):
            self._look_alikes.add(Name(key, key))
        self._time = time
        self._limits = limits
        self._accounts = Accounts(storage, self._look_alikes, limits, self._now_ms)
        self.rooms.load(stored, gone=self._accounts.load(stored.accounts, operators))
        self._credentials = Credentials(tools, self._accounts, self._owners, limits, self.rooms.adopted)
        self._mailboxes = Mailboxes(storage, in_thread, self._sessions)
        self._announce_later = announce_later
        self._observer = observer
        self.greeting = greeting
        self._ignores = Ignores(limits.ignored)
        self._permissions = Permissions(self.lobby, self._owners, operators)
        self._moderation = Moderation(
            people=self._sessions,
            rooms=self.rooms,
            owners=self._owners,
            permissions=self._permissions,
            removals=self,
            find_account=self._accounts.find_account,
            login_count=lambda: self._logins,
            now_ms=self._now_ms,
            limits=limits,
            storage=storage,
            read_before=partial(self._read, storage.before),
        )
        self._visits = Visits(
            people=self._sessions,
            rooms=self.rooms,
            accounts=self._accounts,
            permissions=self._permissions,
            message_keys=self._message_keys,
            reserved=self._reserved,
            storage=storage,
            limits=limits,
            time=time,
            read=self._read,
            tell_history=self._tell_page,
            hide_latest=self._hide_latest,
        )

    @property
    def lobby(self) -> Room:
        """The room that always exists."""
        return self.rooms.lobby

    def __len__(self) -> int:
        return len(self._sessions)

    def handle(self, session: Session, command: Command) -> Result[object]:
        """Handle a command. The only entry point for commands."""
        name = session.name
        if name is None:
            return self._handle_before_login(session, command)
        match command:
            case Say():
                return self._say(session, name, command)
            case SendDirectMessage():
                return self._send_direct(session, name, command)
            case Ping(token):
                session.subscriber.deliver(Pong(token))
            case Who(typed, after):
                return self._list_people(session, typed, after)
            case EnterRoom():
                return self._enter(session, name, command)
            case LeaveRoom(typed):
                return self._leave_room(session, name, typed)
            case ListRooms():
                session.subscriber.deliver(RoomList(self._listings(session)))
            case AskTopic(typed):
                return self._in_room(session, typed, _tell_topic)
            case SetTopic(topic, typed):
                return self._set_topic(session, name, typed, topic)
            case AskHistory():
                return self._tell_history(session, command)
            case AnnounceTyping(typed):
                return self._announce_typing(session, name, typed)
            case (
                Kick()
                | Impose()
                | Lift()
                | ListBans()
                | Invite()
                | SetPrivate()
                | SetKey()
                | SetModerated()
                | SetVoice()
                | SetModerator()
                | PassOwnership()
                | Delete()
            ):
                return self._moderate(session, name, command)
            case Register() | ChangePassword() | AskToken() | RevokeTokens():
                return self._change_account(session, name, command)
            case Post() | ReadMessages():
                return self._visits.carry_out(session, command)
            case Ignore(who, on):
                return self._ignore(session, name, who) if on else self._hear_again(session, who)
            case Help(everything):
                session.subscriber.deliver(HelpText(everything))
            case InvalidCommand(error, subject):
                session.subscriber.deliver(Rejected(error, subject))
            case Login():
                return _reject(session, Rejection.ALREADY_LOGGED_IN)
            case Quit():
                session.subscriber.deliver(Goodbye())
                self.leave(session)
                return LEAVE
            case _:
                assert_never(command)
        return DONE

    def greet(self, session: Session) -> None:
        """Say to a client that has connected what the operator says to everyone."""
        if self.greeting:
            session.subscriber.deliver(Greeting(self.greeting))

    def leave(self, session: Session) -> None:
        """Remove a client: its name is free at once, and the others are notified once.

        Thousands can leave at the same moment. Notices that the others cannot take now are left to `announce_later`.
        """
        name = session.name
        if name is not None:
            now_ms = self._now_ms()
            for room in self._remove(session, name):
                self._announce_departure(room, name, Departure.DISCONNECTED, now_ms)
            self._pass_on_rooms(session)

    def close(self, session: Session) -> None:
        """Remove a client without a notice: the server is stopping, and the others are about to leave too."""
        name = session.name
        if name is not None:
            self._remove(session, name)

    def is_banned_address(self, host: str) -> bool:
        """True when nobody may connect from this address."""
        return self._permissions.is_banned_address(host, self._now_ms())

    # --- The program that the chat is part of ------------------------------------------------------------------------

    @property
    def people(self) -> list[str]:
        """The names of everyone who is logged in, in login order."""
        return [session.name.shown for session in self._sessions.values() if session.name is not None]

    def is_reserved(self, name: Name) -> bool:
        """True when no client can log in with this name."""
        return name.key in self._reserved

    def announce(self, name: Name, room: Room, text: str) -> Said | Busy:
        """Say a text in a room under a name that is reserved, without being there."""
        if not room.gate.is_open():
            return Busy(room.gate)
        return room.say(name, [text], None, self._now_ms())

    def administer(
        self, actor: Session, name: Name, room: Room, command: ModerationCommand
    ) -> Result[object]:
        """Carry out a command of the program, which is above every role; `actor` is in no room, and gets the answer."""
        return self._moderation.administer(actor, name, room, command)

    def bans_of(self, room: Room) -> list[Restriction]:
        """The bans of a room, the longest-standing first; those of the lobby are the server's."""
        return self._moderation.bans_of(room)

    def change_ban_list(self, bans: Sequence[Ban]) -> Result[object]:
        """Ban these from the server in place of those that were listed before, and remove whoever they concern."""
        return self._moderation.change_ban_list(bans)

    @property
    def sessions(self) -> Collection[Session]:
        """Everyone who is logged in, in login order: a live view."""
        return self._sessions.values()

    @property
    def logins(self) -> int:
        """How many logins there have been."""
        return self._logins

    @property
    def accounts(self) -> int:
        """The number of accounts."""
        return len(self._accounts)

    def has_account(self, key: str) -> bool:
        """True when this name belongs to an account."""
        return self._accounts.find(key) is not None

    @property
    def operators(self) -> frozenset[str]:
        """The keys of the names of operators."""
        return self._permissions.operators

    @property
    def reserved_names(self) -> frozenset[str]:
        """The keys of the names that no client can log in with."""
        return frozenset(self._reserved)

    def change_names(self, operators: Collection[str], reserved_names: Iterable[str]) -> None:
        """Let these be the operators, by the keys of their names, and these the names that no client can log in with."""
        before = self._reserved | self.operators
        self._reserved.clear()
        self._reserved.update(frozenset(map(key_of, reserved_names)).difference(operators))
        self._permissions.operators = frozenset(operators)
        after = self._reserved | self.operators
        for key in before - after:
            self._look_alikes.remove(Name(key, key))
        for key in after - before:
            self._look_alikes.add(Name(key, key))

    def audit(self, name: str, action: str, target: str, detail: str = "") -> None:
        """Note an act on the whole server in the audit log."""
        self._storage.audit(Act(self._now_ms(), name, action, "", target, detail))

    # --- Handing over ------------------------------------------------------------------------------------------------

    TRANSIENT = frozenset(
        {
            *("_storage", "_in_thread", "_time", "_limits", "_announce_later", "_observer", "greeting"),
            # Of the settings, or made of the others.
            *(
                "_reserved",
                "_look_alikes",
                "_permissions",
                "_ignores",
                "_moderation",
                "_mailboxes",
                "_visits",
            ),
        }
    )

    @property
    def can_be_handed_over(self) -> bool:
        """False while something is being done that can be neither interrupted nor done again."""
        return not (self._mailboxes.keeping or self._moderation.is_clearing)

    def to_state(self, number_of: Callable[[Session], int]) -> State:
        """Everything that the storage does not have, to be handed over. Sessions are known by their numbers."""
        kept = self._storage.keeps_messages
        return {
            "epoch": self.epoch,
            "accounts": [] if kept else pack_all(self._accounts.records()),
            "rooms": self.rooms.to_state(),
            "owners": self._owners.to_state(),
            "sessions": [[number_of(one), one.to_state()] for one in self._sessions.values()],
            "logins": self._logins,
            "direct_messages": self.direct_messages,
            "login_failures": {reason.name: count for reason, count in self.login_failures.items()},
            "message_keys": self._message_keys.to_state(),
            "credentials": self._credentials.guessing.to_state(),
        }

    def take_state(self, state: State, sessions: Mapping[int, Session]) -> None:
        """Take over everything. Nobody has connected yet but these clients, who have not logged in."""
        self._accounts.take(unpack_all(state["accounts"]))
        self.rooms.take_state(state["rooms"])
        rooms = {room["key"]: self.rooms.find(room["key"]) for room in state["rooms"]["rooms"]}
        found = {key: room for key, room in rooms.items() if room is not None}
        self._owners.take_state(state["owners"], found, self._accounts.find_account)
        for number, one in state["sessions"]:
            session = sessions[number]
            session.account = None if one["account"] is None else self._accounts.find_account(one["account"])
            session.take_state(one, found)
            assert session.name is not None
            self._sessions[session.name.key] = session
            self._look_alikes.add(session.name)
            for key in one["ignored"] or ():
                self._ignores.add(session, key)
            for key in one["owned"]:
                self._owners.give_to(session, found[key])
        self._logins = state["logins"]
        self.direct_messages = state["direct_messages"]
        self.login_failures = Counter(
            {Rejection[name]: count for name, count in state["login_failures"].items()}
        )
        self._message_keys.take_state(state["message_keys"])
        self._credentials.guessing.take_state(state["credentials"])

    def go_on(self, session: Session) -> Result[object]:
        """Go on with what this client was being sent, when its login or its entering a room was handed over."""
        return self._mailboxes.go_on(session, partial(self._replay, session))

    def announce_departures(self) -> None:
        """Go on with the departures that had to wait for readers when they were handed over."""
        for room in self.rooms:
            if not room.announce_departures():
                self._announce_later(room)

    # --- Coming and going --------------------------------------------------------------------------------------------

    def _handle_before_login(self, session: Session, command: Command) -> Result[object]:
        match command:
            case Login():
                return self._login(session, command)
            case Post() | ReadMessages():
                return self._visits.carry_out(session, command)
            case Quit():
                session.subscriber.deliver(Goodbye())
                return LEAVE
            case InvalidCommand(error, subject) if error in _ALWAYS_REPORTED:
                return _reject(session, error, subject)
            case _:
                return _reject(session, Rejection.NOT_LOGGED_IN)

    def _login(
        self,
        session: Session,
        login: Login,
        proof: Proof | None = None,
        passed: frozenset[Room] = frozenset(),
        older: Older = NOTHING_OLDER,
    ) -> Result[object]:
        """`proof` shows whose account it is.

        `passed` are the rooms at whose gates the client has waited, `older` what the storage has of what it missed.
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
        session.login_number = self._logins + 1
        if self._permissions.is_banned(session, name, self._now_ms()):
            session.subscriber.deliver(BANNED)
            session.peer.disconnect(BANNED.reason)
            return LEAVE
        if name.key in self._sessions and account is None:
            return self._reject_login(session, Rejection.NAME_TAKEN)
        if self._look_alikes.resembles(name):
            return self._reject_login(session, Rejection.NAME_INVALID)
        if login.rooms is not None:
            return self._login_to_rooms(session, name, login, login.rooms, proof, passed, older)
        if not self.lobby.gate.is_open():
            # Without a proof the command can be handled again; with one, that would be another guess.
            return Busy(self.lobby.gate, partial(self._login, session, login, proof) if proof else None)
        self._admit(session, name, proof)
        now_ms = self._now_ms()
        self._arrive(session, name, self.lobby, now_ms)
        session.subscriber.deliver(Welcome(self.lobby.name, name.shown, self.lobby.names, now_ms))
        return self._after_login(session)

    def _ask_for_proof(self, session: Session, name: Name, login: Login) -> Result[Any]:
        """Let someone prove that the account with this name is theirs, and log in then."""
        if login.password is None:
            return self._reject_login(session, Rejection.PASSWORD_REQUIRED)

        def finish(proof: Proof | Rejection) -> Result[object]:
            if isinstance(proof, Rejection):
                return self._reject_login(session, proof)
            return self._login(session, login, proof)

        job = partial(self._credentials.prove, name.key, origin_text(session), login.password)
        return Pending(job, finish)

    def _reject_login(self, session: Session, reason: Rejection) -> Done:
        self.login_failures[reason] += 1
        return _reject(session, reason)

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
        same_epoch = login.epoch in ("", self.epoch)
        missed = {
            key: entry.after if same_epoch else 0
            for key, (_, entry) in admitted.items()
            if entry.after is not None
        }
        job = self._older_job(missed, older)
        if job is not None:
            return Pending(job, partial(self._login, session, login, proof, passed))
        for key in admitted:
            room = self.rooms.find(key)
            # A client waits at one gate at a time. Those that it has passed count as open.
            if room is not None and room not in passed and not room.gate.is_open():
                return Busy(room.gate, partial(self._login, session, login, proof, passed | {room}, older))
        self._admit(session, name, proof)
        now_ms = self._now_ms()
        rooms: list[Room] = []
        for room_name, entry in admitted.values():
            room = self.rooms.find(room_name.key) or self._create(session, room_name)
            if room is None:
                refused.append(Rejected(Rejection.TOO_MANY_ROOMS, entry.room, entry.room))
                continue
            rooms.append(room)
            self._take_in(session, name, room)
            # The newcomer, who hears none of the rooms yet, does not receive it.
            room.joined(name, None, now_ms)
        session.go_to_all(rooms)
        for room in rooms:
            if room.key in missed:
                self._catch_up(session, room, missed[room.key], older)
        entered = [self._entered(session, room) for room in rooms]
        session.subscriber.deliver(Welcome("", name.shown, (), now_ms, self.epoch, entered, self.greeting))
        for rejected in refused:
            session.subscriber.deliver(rejected)
        return self._after_login(session)

    def _after_login(self, session: Session) -> Result[object]:
        go_on = partial(self._replay, session)
        return (
            go_on() if session.account is None else self._mailboxes.collect(session, session.account, go_on)
        )

    def _older_job(self, missed: Mapping[str, int], older: Older) -> Callable[[], Older] | None:
        """Reads from the storage what is missed in these rooms and their logs do not have; None if there is nothing to read."""
        if not self._storage.keeps_messages:
            return None
        wanted: dict[str, tuple[tuple[int, int], int]] = {}
        for key, after in missed.items():
            room = self.rooms.find(key)
            if room is not None and key not in older:
                log = room.log
                most = self._limits.history_messages - log.messages
                if after + 1 < log.first_id and most > 0:
                    wanted[key] = log.state, most
        if not wanted:
            return None

        def job() -> Older:
            return {
                key: (state, self._read(self._storage.before, key, state[0], most))
                for key, (state, most) in wanted.items()
            }

        return job

    def _catch_up(self, session: Session, room: Room, after: int, older: Older) -> None:
        state, earlier = older.get(room.key, (None, ()))
        if state != room.log.state:
            # The log has lost some meanwhile, so these would be followed by a gap; or some have been deleted.
            earlier = ()
        # While others catch up, the log is longer than what is sent.
        after = max(after, room.log.id_before_latest(self._limits.history_messages))
        replay = Replay(room, after, earlier)
        if not replay.is_over:
            session.catch_up(replay)

    def _replay(self, session: Session) -> Result[object]:
        """What is left of what this client has missed."""
        return More(partial(self._send_missed, session)) if session.replays else DONE

    def _send_missed(self, session: Session) -> Result[object]:
        if session.replays:
            room, replay = next(iter(session.replays.items()))
            if replay.is_lost:
                # It could resume with what it has received; with a gap it could not.
                self.leave(session)
                return LEAVE
            part = replay.next_part()
            if session.ignored:
                part = [event for event in part if not _is_ignored(session, event)]
            session.subscriber.deliver_missed(part)
            if replay.is_over:
                session.caught_up(room)
        return self._replay(session)

    def _admit(self, session: Session, name: Name, proof: Proof | None) -> None:
        holder = self._sessions.get(name.key)
        if holder is not None:
            self._take_over(holder)
        if proof is not None:
            self._credentials.use(proof, origin_text(session))
        session.name = name
        self._sessions[name.key] = session
        self._logins += 1
        self._look_alikes.add(name)
        if self._observer is not None:
            self._observer(LoggedIn(name.shown, self._now_ms()))

    def _take_over(self, holder: Session) -> None:
        """Another client has proved that it has the account of this one."""
        # What the others see is an ordinary departure.
        self.leave(holder)
        holder.subscriber.deliver_direct(_REPLACED, stranger=False)
        holder.peer.disconnect(_REPLACED.reason)

    def _admitted(
        self, session: Session, name: Name, entry: EnterRoom, rooms: Collection[str]
    ) -> Name | Rejection:
        """The name of a room that a client in these rooms can enter, or is in; or why it cannot."""
        try:
            room_name = parse_room_name(entry.room)
        except InvalidName:
            return Rejection.ROOM_NAME_INVALID
        if room_name.key not in rooms and len(rooms) >= self._limits.rooms_per_client:
            return Rejection.TOO_MANY_ROOMS
        room = self.rooms.find(room_name.key)
        if room is None or session.find_room(room.key) is room:
            return room_name
        return (
            self._permissions.refuse_entry(session, name, room, entry.room_key, self._now_ms()) or room_name
        )

    def _entered(self, session: Session, room: Room) -> Entered:
        users: Collection[str] = room.names
        if session.rooms is not None:
            users = room.page("", self._limits.listed_users)
        replay = session.replays.get(room) if session.replays else None
        replay_from = room.last_id + 1 if replay is None else replay.first_id
        return Entered(room.name, users, room.topic, len(room.names), room.last_id, replay_from)

    def _arrive(self, session: Session, name: Name, room: Room, now_ms: int) -> None:
        self._take_in(session, name, room)
        session.go_to(room)
        room.joined(name, session.subscriber, now_ms)

    def _take_in(self, session: Session, name: Name, room: Room) -> None:
        """Add a client to a room, which it owns from now on if nobody does."""
        room.make_way(name)
        room.add(name)
        self.rooms.entered(room)
        if room.owner is None and room is not self.lobby:
            self._owners.claim(session, room)
            if room.kept:
                self.rooms.changed(room)

    def _remove(self, session: Session, name: Name) -> Collection[Room]:
        """Remove a client from the chat silently; returns the rooms that it was in."""
        rooms = list(session.all_rooms())
        del self._sessions[name.key]
        self._mailboxes.put_back(session)
        if session.account is not None:
            self._accounts.used(session.account.key)
        self._ignores.forget(session)
        self._look_alikes.remove(name)
        if self._observer is not None:
            self._observer(LoggedOut(name.shown, self._now_ms()))
        for room in rooms:
            room.remove(name)
        session.go()
        for room in rooms:
            self.rooms.left(room)
        return rooms

    def _pass_on_rooms(self, session: Session) -> None:
        self.rooms.expire()
        for room in self._owners.pass_on(session, self._sessions):
            if room.kept:
                self.rooms.changed(room)

    def _announce_departure(self, room: Room, name: Name, how: Departure, now_ms: int) -> None:
        if not room.departed(name, how, now_ms):
            self._announce_later(room)

    def _enter(
        self, session: Session, name: Name, command: EnterRoom, older: Older = NOTHING_OLDER
    ) -> Result[object]:
        room_name = self._admitted(session, name, command, session.rooms or ())
        if isinstance(room_name, Rejection):
            return _reject_room(session, room_name, command.room)
        if command.after is not None and session.rooms is not None:
            job = self._older_job({room_name.key: command.after}, older)
            if job is not None:
                return Pending(job, partial(self._enter, session, name, command))
        room = session.find_room(room_name.key)
        if room is None:
            room = self.rooms.find(room_name.key)
            if room is not None and not room.gate.is_open():
                return Busy(room.gate, partial(self._enter, session, name, command, older) if older else None)
            room = room or self._create(session, room_name)
            if room is None:
                return _reject_room(session, Rejection.TOO_MANY_ROOMS, command.room)
            self._move(session, name, room)
        if command.after is not None and session.rooms is not None:
            self._catch_up(session, room, command.after, older)
        session.subscriber.deliver(self._entered(session, room))
        return self._replay(session)

    def _create(self, session: Session, name: Name) -> Room | None:
        """Create a room for this client to enter and own, unless it has too many or creates them too fast."""
        # The last one counts the room.
        if not (
            self.rooms.can_create() and self._owners.can_claim(session) and session.peer.can_create_room()
        ):
            return None
        return self.rooms.create(name)

    def _move(self, session: Session, name: Name, room: Room) -> None:
        now_ms = self._now_ms()
        left = session.room if session.rooms is None else None
        if left is not None:
            left.remove(name)
        self._arrive(session, name, room, now_ms)
        if left is not None:
            self.rooms.left(left)
            self._announce_departure(left, name, Departure.LEFT, now_ms)

    def _leave_room(self, session: Session, name: Name, typed: str) -> Result[object]:
        room = self._room_of(session, typed)
        if isinstance(room, Rejection):
            return _reject_room(session, room, typed)
        if session.rooms is not None:
            room.remove(name)
            session.go_out_of(room)
            self.rooms.left(room)
            self._announce_departure(room, name, Departure.LEFT, self._now_ms())
            session.subscriber.deliver(LeftRoom(room.name))
            return DONE
        if room is self.lobby:
            return _reject(session, Rejection.ALREADY_IN_LOBBY)
        if not self.lobby.gate.is_open():
            return Busy(self.lobby.gate)
        self._move(session, name, self.lobby)
        session.subscriber.deliver(LeftRoom(room.name, self.lobby.name))
        return DONE

    def expel(self, session: Session, name: Name, room: Room, by: Session, reason: str) -> None:
        """Remove a client from a room; one that can be in one at a time is in the lobby then, whose gate is open."""
        now_ms = self._now_ms()
        room.remove(name)
        now_in = self.lobby.name if session.rooms is None else ""
        if session.rooms is None:
            session.subscriber.deliver_direct(Kicked(room.name, reason, now_ms, now_in), stranger=False)
            self._arrive(session, name, self.lobby, now_ms)
        else:
            session.go_out_of(room)
            session.subscriber.deliver_direct(Kicked(room.name, reason, now_ms), stranger=False)
        self.rooms.left(room)
        # At once, however slow the readers of the room are: a moderator does not wait for those who flood it.
        _announce_kick(room, name, by, now_ms)

    def throw_out(self, session: Session, name: Name, by: Session, notice: DisconnectNotice) -> None:
        """Remove a client from the chat, tell it why, and close its connection."""
        now_ms = self._now_ms()
        for room in self._remove(session, name):
            if by.hears(room):
                _announce_kick(room, name, by, now_ms)
            else:
                self._announce_departure(room, name, Departure.KICKED, now_ms)
        self._pass_on_rooms(session)
        session.subscriber.deliver_direct(notice, stranger=False)
        session.peer.disconnect(notice.reason)

    # --- Rooms -------------------------------------------------------------------------------------------------------

    def _room_of(self, session: Session, typed: str) -> Room | Rejection:
        """The room that a client means, which must be one that it is in."""
        if not typed:
            # One that is in several has to name one; one that is in none has none to name.
            return session.room or Rejection.ROOM_NAME_INVALID
        try:
            key = parse_room_name(typed).key
        except InvalidName:
            return Rejection.ROOM_NAME_INVALID
        room = session.find_room(key)
        if room is not None:
            return room
        room = self.rooms.find(key)
        if room is None or not self._permissions.can_see(session, room):
            return Rejection.NO_SUCH_ROOM
        return Rejection.NOT_IN_ROOM

    def _in_room(
        self, session: Session, typed: str, action: Callable[[Session, Room], None]
    ) -> Result[object]:
        room = self._room_of(session, typed)
        if isinstance(room, Rejection):
            return _reject_room(session, room, typed)
        action(session, room)
        return DONE

    def _list_people(self, session: Session, typed: str, after: str) -> Result[object]:
        room = self._room_of(session, typed)
        if isinstance(room, Rejection):
            return _reject_room(session, room, typed)
        users: Collection[str] = room.names
        if session.rooms is not None:
            key = key_of(after)
            if after and not room.has(key):
                return _reject(session, Rejection.USER_NOT_FOUND, after, typed)
            users = room.page(key, self._limits.listed_users)
        session.subscriber.deliver(Roster(users, room.name, len(room.names)))
        return DONE

    def _tell_history(self, session: Session, command: AskHistory) -> Result[Any]:
        room = self._room_of(session, command.room)
        if isinstance(room, Rejection):
            return _reject_room(session, room, command.room)
        return self._tell_page(session, room, command)

    def _tell_page(self, session: Session, room: Room, command: AskHistory) -> Result[Any]:
        limit = min(command.limit, self._limits.history_page_messages)
        before = room.last_id + 1 if command.before is None else min(command.before, room.last_id + 1)
        messages = room.log.before(before, limit + 1)
        missing = limit + 1 - len(messages)
        older_than = min(before, room.log.first_id)
        if not missing or older_than <= 1 or not self._storage.keeps_messages:
            return self._deliver_page(session, room, messages, command)
        job = partial(self._read, self._storage.before, room.key, older_than, missing)
        deletions = room.log.deletions

        def finish(older: Sequence[PastMessage]) -> Result[object]:
            if room.log.deletions != deletions:
                return self._tell_page(session, room, command)
            return self._deliver_page(session, room, [*older, *messages], command)

        return Pending(job, finish)

    def _deliver_page(
        self, session: Session, room: Room, messages: Sequence[PastMessage], command: AskHistory
    ) -> Result[object]:
        limit = min(command.limit, self._limits.history_page_messages)
        page = messages[-limit:] if limit else []
        heard = [message for message in page if not session.ignored or not session.ignores(message.name)]
        more = len(messages) > len(page)
        if more and page and not heard:
            # A client that asks for what is before a page needs something to refer to.
            earlier = replace(command, before=page[0].id, room=room.key)
            return More(partial(self._tell_history, session, earlier))
        session.subscriber.deliver(HistoryPage(room.name, heard, more, command.with_ids))
        return DONE

    def _read(
        self, read: Callable[[str, int, int], list[PastMessage]], room: str, id: int, limit: int
    ) -> list[PastMessage]:
        """A job. What cannot be read is missing."""
        try:
            return self._in_thread(partial(read, room, id, limit))
        except StorageUnavailable:
            return []

    def _listings(self, session: Session) -> list[RoomListing]:
        most = self._limits.listed_rooms
        if self._permissions.is_operator(session):
            seen: Collection[Room] = list(islice(self.rooms, most))
        else:
            # Without looking at the private rooms of others, which can be many.
            own = dict.fromkeys([*session.all_rooms(), *self._owners.rooms_of(session)])
            private = [room for room in own if room.private][: most - 1]
            seen = [*islice(self.rooms.listed, most - len(private)), *private]
        return [RoomListing(room.name, len(room.names), room.topic) for room in seen]

    def _set_topic(self, session: Session, name: Name, typed: str, topic: str) -> Result[object]:
        room = self._room_of(session, typed)
        if isinstance(room, Rejection):
            return _reject_room(session, room, typed)
        if len(topic) > self._limits.topic_characters:
            return _reject(session, Rejection.TOPIC_TOO_LONG, room=typed)
        refusal = self._permissions.refuse_speech(session, name, room, self._now_ms())
        if refusal is not None:
            return _reject(session, refusal, room.name, typed)
        if not room.gate.is_open():
            return Busy(room.gate)
        if topic != room.topic:
            room.topic = topic
            self.rooms.changed(room)
            room.publish(TopicChanged(room.name, name.shown, topic, self._now_ms()), session.subscriber)
        session.subscriber.deliver(Accepted(Action.TOPIC_SET, room.name, topic))
        return DONE

    def _moderate(self, session: Session, name: Name, command: ModerationCommand) -> Result[object]:
        room = self._room_of(session, command.room)
        if isinstance(room, Rejection):
            return _reject_room(session, room, command.room)
        return self._moderation.carry_out(session, name, room, command)

    def _change_account(self, session: Session, name: Name, command: AccountCommand) -> Result[object]:
        if isinstance(command, Register) and self._permissions.is_muted(session, name, self._now_ms()):
            # An account is not concerned by a mute of an address.
            return _reject(session, Rejection.MUTED)
        if not self._storage.is_ready():
            return Busy(self.lobby.gate)
        return self._credentials.carry_out(session, name, command)

    # --- Messages ----------------------------------------------------------------------------------------------------

    def _say(self, session: Session, name: Name, say: Say) -> Result[object]:
        typed, texts, message_key = say.room, say.texts, say.message_key
        if message_key and self._was_sent(session, name, message_key):
            return DONE
        room = session.room if not typed else self._room_of(session, typed)
        if room is None or isinstance(room, Rejection):
            # One answer for each message, also if the connection has joined them.
            for _ in texts:
                _reject_room(session, room or Rejection.ROOM_NAME_INVALID, typed)
            return DONE
        if not all(texts):
            return _reject(session, Rejection.EMPTY_MESSAGE, room=typed)
        now_ms = self._now_ms()
        refusal = self._permissions.refuse_speech(session, name, room, now_ms)
        if refusal is not None:
            for _ in texts:
                _reject(session, refusal, room.name, typed)
            return DONE
        if not room.gate.is_open():
            return Busy(room.gate)
        said = room.say(name, texts, session.subscriber, now_ms)
        if name.key in self._ignores:
            self._hide_latest(session, name, room)
        if message_key or say.confirm:
            self._confirm(session, name, message_key, Confirmed(room.name, said.first_id))
        return DONE

    def _send_direct(self, session: Session, name: Name, command: SendDirectMessage) -> Result[object]:
        to, text, message_key = command.to, command.text, command.message_key
        if message_key and self._was_sent(session, name, message_key):
            return DONE
        if not text:
            return _reject(session, Rejection.EMPTY_DIRECT_MESSAGE)
        if not to:
            return _reject(session, Rejection.NO_RECIPIENT)
        recipient = self._sessions.get(key_of(to))
        if recipient is None or recipient.name is None:
            return self._send_to_absent(session, name, command)
        if self._permissions.is_muted(session, name, self._now_ms()):
            return _reject(session, Rejection.MUTED)
        stranger = recipient is not session and recipient.is_stranger(name)
        heard = not recipient.ignores(name.shown)
        gate = recipient.subscriber.direct_gate(stranger)
        if heard and not gate.is_open():
            return Busy(gate)
        self._remember(session, recipient.name)
        message = DirectMessage(name.shown, recipient.name.shown, text, self._now_ms())
        self.direct_messages += 1
        session.subscriber.deliver(DirectMessageSent(message, to))
        if heard:
            recipient.subscriber.deliver_direct(message, stranger)
        if message_key or command.confirm:
            self._confirm(session, name, message_key, Confirmed())
        if self._observer is not None:
            self._observer(message)
        return DONE

    def _send_to_absent(self, session: Session, name: Name, command: SendDirectMessage) -> Result[Any]:
        """Keep a direct message for someone who is away; both need accounts."""
        sender, recipient = session.account, self._accounts.find_account(key_of(command.to))
        if sender is None or recipient is None:
            return _reject(session, Rejection.USER_NOT_FOUND, command.to)
        if self._permissions.is_muted(session, name, self._now_ms()):
            return _reject(session, Rejection.MUTED)
        message = DirectMessage(name.shown, recipient.name, command.text, self._now_ms())

        def finish(kept: KeptMessage | None) -> Result[object]:
            if session.name is not name:
                return DONE
            if kept is None:
                return _reject(session, Rejection.MAILBOX_FULL, recipient.name)
            self._remember(session, Name(recipient.name, recipient.key))
            self.direct_messages += 1
            delivered = self._mailboxes.forward(kept, name)
            session.subscriber.deliver(
                DirectMessageSent(message, command.to) if delivered else MessageKept(message)
            )
            if command.message_key or command.confirm:
                self._confirm(session, name, command.message_key, Confirmed())
            if self._observer is not None:
                self._observer(message)
            return DONE

        return Pending(partial(self._mailboxes.keep, recipient, sender, message), finish)

    def _was_sent(self, session: Session, name: Name, message_key: str) -> bool:
        """True if a message with this key has been sent; the client gets the same answer again."""
        confirmed = self._message_keys.find(name.key, message_key, self._time())
        if confirmed is None:
            return False
        session.subscriber.deliver(confirmed)
        return True

    def _confirm(self, session: Session, name: Name, message_key: str, confirmed: Confirmed) -> None:
        if message_key:
            self._message_keys.remember(name.key, message_key, confirmed, self._time())
        session.subscriber.deliver(confirmed)

    def _announce_typing(self, session: Session, name: Name, typed: str) -> Result[object]:
        room = self._room_of(session, typed)
        if isinstance(room, Rejection):
            return _reject_room(session, room, typed)
        refusal = self._permissions.refuse_speech(session, name, room, self._now_ms())
        if refusal is not None:
            return _reject(session, refusal, room.name, typed)
        now = self._time()
        # Nothing waits for it: when the room cannot follow, it would come too late.
        if abs(now - session.typing_at) >= self._limits.typing_interval_s and room.gate.is_open():
            session.typing_at = now
            room.publish(Typing(room.name, name.shown, self._now_ms()), session.subscriber)
            if name.key in self._ignores:
                self._hide_latest(session, name, room)
        session.subscriber.deliver(Confirmed())
        return DONE

    def _remember(self, session: Session, contact: Name) -> None:
        contacts = session.contacts = session.contacts or {}
        contacts.pop(contact.key, None)
        contacts[contact.key] = None
        if len(contacts) > self._limits.contacts:
            del contacts[next(iter(contacts))]

    # --- Ignoring ----------------------------------------------------------------------------------------------------

    def _ignore(self, session: Session, name: Name, who: str) -> Result[object]:
        other = self._sessions.get(key_of(who))
        if other is None or other.name is None:
            return _reject(session, Rejection.USER_NOT_FOUND, who)
        if other is session:
            return _reject(session, Rejection.NOT_PERMITTED)
        if not self._ignores.add(session, other.name.key):
            return _reject(session, Rejection.LIST_FULL)
        session.subscriber.deliver(Accepted(Action.IGNORED, subject=other.name.shown))
        return DONE

    def _hear_again(self, session: Session, who: str) -> Result[object]:
        if not self._ignores.remove(session, key_of(who)):
            return _reject(session, Rejection.USER_NOT_FOUND, who)
        session.subscriber.deliver(Accepted(Action.HEARD_AGAIN, subject=who))
        return DONE

    def _hide_latest(self, session: Session, name: Name, room: Room) -> None:
        """Hide what this client has just published from those who ignore it."""
        session.cost_bytes += _HOLE_BYTES * self._ignores.hide_latest(name.key, room)

    def _now_ms(self) -> int:
        return int(self._time() * 1000)


def _is_ignored(session: Session, event: Broadcast) -> bool:
    return isinstance(event, Said | Typing) and session.ignores(event.name)


def _announce_kick(room: Room, name: Name, by: Session, now_ms: int) -> None:
    # Whoever began to remove many people can have left the room meanwhile.
    author = by.subscriber if by.hears(room) else None
    room.publish(Left(room.name, name.shown, now_ms, Departure.KICKED), author)


def _tell_topic(session: Session, room: Room) -> None:
    session.subscriber.deliver(Topic(room.name, room.topic))


def _reject(session: Session, reason: Rejection | ParseError, subject: str = "", room: str = "") -> Done:
    session.subscriber.deliver(Rejected(reason, subject, room))
    return DONE


def _reject_room(session: Session, reason: Rejection, typed: str) -> Done:
    return _reject(session, reason, typed, typed)
