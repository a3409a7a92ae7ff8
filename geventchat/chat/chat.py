"""Commands in, events out. Decides which commands are allowed, and the one order of all events.

Knows no bytes, no sockets and no event loop. It never waits: work that has to wait is returned as `Pending`.

`presence` decides which clients are in the chat, and in which rooms.

Invariant: a command that returns `Busy` without `go_on` has changed nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
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
from geventchat.chat.credentials import Credentials, Tools
from geventchat.chat.events import (
    Accepted,
    Action,
    Confirmed,
    DirectMessage,
    DirectMessageSent,
    Goodbye,
    Greeting,
    HelpText,
    HistoryPage,
    MessageKept,
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
)
from geventchat.chat.history import RoomLog, fitting
from geventchat.chat.ignores import UNSEEN_BYTES, Ignores
from geventchat.chat.limits import ChatLimits
from geventchat.chat.lookalikes import LookAlikes
from geventchat.chat.mailboxes import InThread, Mailboxes
from geventchat.chat.message_keys import MessageKeys
from geventchat.chat.moderation import Moderation
from geventchat.chat.names import RESERVED_NAMES, Name, key_of
from geventchat.chat.ownership import Owners
from geventchat.chat.permissions import Permissions
from geventchat.chat.presence import Presence
from geventchat.chat.records import Act, KeptMessage, Restriction
from geventchat.chat.results import DONE, LEAVE, Busy, More, Pending, Result, reject, reject_room
from geventchat.chat.room_list import Rooms, listed_bytes, most_visited
from geventchat.chat.rooms import GateFactory, Observer, Room
from geventchat.chat.sessions import Session
from geventchat.chat.states import State, pack_all, unpack_all
from geventchat.chat.storage import LOOKUP_BYTES, Storage, StorageUnavailable
from geventchat.chat.visits import Visits
from geventchat.exhaustive import assert_never

# The most UTF-8 bytes of names and topics in one list of rooms: enough for 500 rooms with the longest ASCII topics.
_LIST_BYTES = 196_608
# The cost, in bytes, of skipping a name that the client has listed before.
_PASSED_BYTES = 1
# The cost of a hole for the ignored sender: making one takes about as long as handling this many bytes of short lines.
_HOLE_BYTES = 4
# Parse errors that are reported before login, too.
_ALWAYS_REPORTED = frozenset(
    {ParseError.TOO_LONG, ParseError.NOT_UTF8, ParseError.NOT_JSON, ParseError.INVALID_FIELD}
)


class Chat:
    """The rooms and the clients in them."""

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
        takes_over: bool = False,
    ) -> None:
        """Take the time from `time`, in seconds since 1970, and the gates of rooms from `new_gate`.

        `announce_later` gets each room whose gate has to open before a departure can be announced; `observer` gets the events.
        Neither can block. `tools` hash and verify passwords. No client can log in with one of the `reserved_names`.
        `operators` are the keys of the names of operators, who need their accounts. The `greeting` is sent to each client
        unless it is empty. `takes_over` if `take_state` follows.
        """
        stored = storage.load()
        self.epoch = stored.epoch
        self._owners = Owners(limits)
        self.rooms = Rooms(time, tools.monotonic, new_gate, limits, storage, self._owners, observer)
        self._storage = storage
        self._in_thread = in_thread
        self._message_keys = MessageKeys(limits)
        self._sessions: dict[str, Session] = {}
        # A counter for monitoring; it never decreases.
        self.direct_messages = 0
        # Those of operators, too, and without these: changed in place, because other objects share this set.
        self._reserved_names = frozenset(map(key_of, reserved_names))
        self._reserved = set(self._reserved_names.difference(operators))
        # All names that are reserved, registered or in use.
        self._look_alikes = look_alikes = LookAlikes()
        for key in self._reserved.union(operators):
            look_alikes.add(Name(key, key))
        self._time = time
        self._limits = limits
        self._accounts = Accounts(storage, look_alikes, limits, self._now_ms)
        # No account of another process is deleted: its state has the roles of all of them, and clients who use theirs.
        kept = {record.key for record in stored.accounts} if takes_over else operators
        self.rooms.load(stored, gone=self._accounts.load(stored.accounts, kept, stored.latest_ms))
        self._credentials = Credentials(
            tools,
            self._accounts,
            self._owners,
            limits,
            self.rooms.adopted,
            self._cannot_be_registered,
        )
        self._mailboxes = Mailboxes(storage, in_thread, self._sessions, new_gate)
        self._observer = observer
        self._announce_later = announce_later
        self._ignores = Ignores(limits.ignored)
        self._permissions = Permissions(self.lobby, self._owners, operators)
        self._presence = Presence(
            people=self._sessions,
            rooms=self.rooms,
            accounts=self._accounts,
            credentials=self._credentials,
            mailboxes=self._mailboxes,
            owners=self._owners,
            permissions=self._permissions,
            ignores=self._ignores,
            look_alikes=look_alikes,
            reserved=self._reserved,
            epoch=self.epoch,
            greeting=greeting,
            limits=limits,
            now_ms=self._now_ms,
            storage=storage,
            in_thread=in_thread,
            announce_later=announce_later,
            observer=observer,
        )
        self._moderation = Moderation(
            people=self._sessions,
            rooms=self.rooms,
            owners=self._owners,
            permissions=self._permissions,
            removals=self._presence,
            find_account=self._accounts.find_account,
            login_count=lambda: self._presence.logins,
            now_ms=self._now_ms,
            limits=limits,
            storage=storage,
            read_before=self._read_before,
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
            read_before=self._read_before,
            read_after=self._read_after,
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
                return self._presence.enter(session, name, command)
            case LeaveRoom(typed):
                return self._presence.leave_room(session, name, typed)
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
                return reject(session, Rejection.ALREADY_LOGGED_IN)
            case Quit():
                session.subscriber.deliver(Goodbye())
                self.leave(session)
                return LEAVE
            case _:
                assert_never(command)
        return DONE

    def _handle_before_login(self, session: Session, command: Command) -> Result[object]:
        match command:
            case Login():
                return self._presence.login(session, command)
            case Post() | ReadMessages():
                return self._visits.carry_out(session, command)
            case Quit():
                session.subscriber.deliver(Goodbye())
                return LEAVE
            case InvalidCommand(error, subject) if error in _ALWAYS_REPORTED:
                return reject(session, error, subject)
            case _:
                return reject(session, Rejection.NOT_LOGGED_IN)

    def greet(self, session: Session) -> None:
        """Send the greeting to a client that has connected."""
        if self.greeting:
            session.subscriber.deliver(Greeting(self.greeting))

    def leave(self, session: Session) -> None:
        """Remove a client: its name is free at once, and the others are notified once.

        Thousands can leave at the same moment. Notices that the others cannot take now are left to `announce_later`.
        """
        self._presence.leave(session)

    def close(self, session: Session) -> None:
        """Remove a client without a notice: the server is stopping, and the others are about to leave too."""
        self._presence.close(session)

    def is_banned_address(self, host: str) -> bool:
        """True when no client can connect from this address."""
        return self._permissions.is_banned_address(host, self._now_ms())

    # --- The program that the chat is part of ------------------------------------------------------------------------

    @property
    def people(self) -> list[str]:
        """The names of all people who are logged in, in login order."""
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
        """Replace the bans of the server's ban list, and remove the clients that the new ones match."""
        return self._moderation.change_ban_list(bans)

    def remove_listed(self) -> Result[object]:
        """Remove the clients that the server's ban list matches, after they have been taken over from another process."""
        return self._moderation.remove_listed()

    @property
    def sessions(self) -> Collection[Session]:
        """All logged-in sessions in login order: a live view."""
        return self._sessions.values()

    @property
    def greeting(self) -> str:
        """The greeting for every client that connects; can be changed."""
        return self._presence.greeting

    @greeting.setter
    def greeting(self, greeting: str) -> None:
        self._presence.greeting = greeting

    @property
    def login_failures(self) -> Counter[Rejection]:
        """How many logins were refused, and why."""
        return self._presence.login_failures

    @property
    def logins(self) -> int:
        """The number of logins so far."""
        return self._presence.logins

    @property
    def accounts(self) -> int:
        """The number of accounts."""
        return len(self._accounts)

    def has_account(self, key: str) -> bool:
        """True when this name belongs to an account."""
        return self._accounts.find(key) is not None

    def set_password(self, name: Name, password_hash: str) -> bool:
        """Set the password of an account without asking for the old one; True if this created the account."""
        return self._credentials.set_password(name, password_hash)

    @property
    def operators(self) -> frozenset[str]:
        """The keys of the names of operators."""
        return self._permissions.operators

    @property
    def reserved_names(self) -> frozenset[str]:
        """The keys of the names that no client can log in with, unless one of them is that of an operator."""
        return self._reserved_names

    def change_names(self, operators: Collection[str], reserved_names: Iterable[str]) -> None:
        """Replace the operators, given by the keys of their names, and the names that no client can log in with."""
        before = self._reserved | self.operators
        self._reserved.clear()
        self._reserved_names = frozenset(map(key_of, reserved_names))
        self._reserved.update(self._reserved_names.difference(operators))
        self._permissions.operators = frozenset(operators)
        after = self._reserved | self.operators
        for key in before - after:
            self._look_alikes.remove(Name(key, key))
        for key in after - before:
            self._look_alikes.add(Name(key, key))

    def _cannot_be_registered(self, name: Name) -> bool:
        """True for a name that has become reserved, an operator's or like another one since its client logged in."""
        return (
            name.key in self._reserved
            or name.key in self.operators
            or self._look_alikes.resembles_another(name)
        )

    def audit(self, name: str, action: str, target: str, detail: str = "") -> None:
        """Record an act on the whole server in the audit log."""
        self._storage.audit(Act(self._now_ms(), name, action, "", target, detail))

    # --- Handing over ------------------------------------------------------------------------------------------------

    # Set from the settings, or derived from other attributes.
    TRANSIENT = frozenset(
        {
            *(
                "_announce_later",
                "_ignores",
                "_in_thread",
                "_limits",
                "_look_alikes",
                "_mailboxes",
                "_moderation",
            ),
            *("_observer", "_permissions", "_reserved", "_reserved_names", "_storage", "_time", "_visits"),
        }
    )

    @property
    def can_be_handed_over(self) -> bool:
        """False while a step is running that can be neither interrupted nor repeated."""
        return not (self._mailboxes.keeping or self._moderation.is_clearing)

    def hold(self, held: bool) -> None:
        """Have messages to people who are away wait, so that the chat can be handed over soon; or no longer."""
        self._mailboxes.hold(held)

    def ahead(self) -> Iterator[State]:
        """The state that can be handed over ahead, one bounded part at a time; clients are served in between."""
        return self.rooms.ahead()

    def to_state(self) -> State:
        """The state that the storage does not have, to be handed over, without the sessions."""
        kept = self._storage.keeps_messages
        return {
            "epoch": self.epoch,
            "accounts": [] if kept else pack_all(self._accounts.records()),
            "rooms": self.rooms.to_state(),
            "owners": self._owners.to_state(),
            "presence": self._presence.to_state(),
            "direct_messages": self.direct_messages,
            "message_keys": self._message_keys.to_state(),
            "credentials": self._credentials.guessing.to_state(),
        }

    def take_state(self, state: State, logs: Mapping[str, RoomLog]) -> Callable[[Session, State], None]:
        """Take over the state, before any client has connected. Returns a function that takes over one session.

        `logs` are the room logs that were handed over ahead.
        """
        self._accounts.take(unpack_all(state["accounts"]))
        rooms = self.rooms.take_state(state["rooms"], logs)
        self._owners.take_state(state["owners"], rooms, self._accounts.find_account)
        self._presence.take_state(state["presence"])
        self.direct_messages = state["direct_messages"]
        self._message_keys.take_state(state["message_keys"])
        self._credentials.guessing.take_state(state["credentials"])
        return partial(self._adopt, rooms)

    def _adopt(self, rooms: Mapping[str, Room], session: Session, state: State) -> None:
        key = state["account"]
        session.account = None if key is None else self._accounts.find_account(key)
        session.take_state(state, rooms)
        assert session.name is not None
        self._sessions[session.name.key] = session
        self._look_alikes.add(session.name)
        for key in state["ignored"] or ():
            self._ignores.add(session, key)
        for key in state["owned"]:
            self._owners.give_to(session, rooms[key])

    def go_on(self, session: Session) -> Result[object]:
        """Continue a login or an entry into a room that was handed over while the client was being sent its events."""
        return self._presence.go_on(session)

    def announce_departures(self) -> None:
        """Announce the departures that waited for slow readers when they were handed over."""
        for room in self.rooms:
            if not room.announce_departures():
                self._announce_later(room)

    # --- Rooms -------------------------------------------------------------------------------------------------------

    def _in_room(
        self, session: Session, typed: str, action: Callable[[Session, Room], None]
    ) -> Result[object]:
        room = self._presence.room_of(session, typed)
        if isinstance(room, Rejection):
            return reject_room(session, room, typed)
        action(session, room)
        return DONE

    def _list_people(self, session: Session, typed: str, after: str) -> Result[object]:
        room = self._presence.room_of(session, typed)
        if isinstance(room, Rejection):
            return reject_room(session, room, typed)
        users: Collection[str] = room.names
        if session.rooms is not None:
            key = key_of(after)
            if after and not room.has(key):
                return reject(session, Rejection.USER_NOT_FOUND, after, typed)
            users, before = room.page(key, self._limits.listed_users)
            session.cost_bytes += _PASSED_BYTES * before
        session.subscriber.deliver(Roster(users, room.name, len(room.names)))
        return DONE

    def _tell_history(self, session: Session, command: AskHistory) -> Result[Any]:
        room = self._presence.room_of(session, command.room)
        if isinstance(room, Rejection):
            return reject_room(session, room, command.room)
        limit = min(command.limit, self._limits.history_page_messages)
        before = room.last_id + 1 if command.before is None else min(command.before, room.last_id + 1)
        messages = room.log.before(before, limit + 1)
        missing = limit + 1 - len(messages)
        older_than = min(before, room.log.first_id)
        if not missing or older_than <= 1 or not self._storage.keeps_messages:
            return self._deliver_page(session, room, messages, command)
        session.cost_bytes += LOOKUP_BYTES
        job = partial(self._read_before, room.key, older_than, missing)
        deletions = room.log.deletions

        def finish(older: Sequence[PastMessage]) -> Result[object]:
            if session.find_room(room.key) is not room:
                # The client has been kicked or banned meanwhile.
                return reject(session, Rejection.NOT_IN_ROOM, room.name, command.room)
            if room.log.deletions != deletions:
                return self._tell_history(session, command)
            return self._deliver_page(session, room, [*older, *messages], command)

        return Pending(job, finish)

    def _deliver_page(
        self, session: Session, room: Room, messages: Sequence[PastMessage], command: AskHistory
    ) -> Result[object]:
        limit = min(command.limit, self._limits.history_page_messages)
        page = messages[len(messages) - fitting(reversed(messages), limit) :]
        heard = [message for message in page if not session.ignored or not session.ignores(message.name)]
        more = len(messages) > len(page)
        session.cost_bytes += UNSEEN_BYTES * (len(page) - len(heard))
        if more and page and not heard:
            # The client asks for the next page by an id of this one, so it must not be empty.
            session.cost_bytes += LOOKUP_BYTES
            earlier = replace(command, before=page[0].id, room=room.key)
            return More(partial(self._tell_history, session, earlier))
        session.subscriber.deliver(HistoryPage(room.name, heard, more, command.with_ids))
        return DONE

    def _read_before(self, room: str, id: int, limit: int) -> list[PastMessage]:
        """A job: `Storage.before`; empty if the storage cannot be read."""
        try:
            return self._in_thread(partial(self._storage.before, room, id, limit))
        except StorageUnavailable:
            return []

    def _read_after(self, room: str, id: int, limit: int) -> list[PastMessage]:
        """A job: `Storage.after`; empty if the storage cannot be read."""
        try:
            return self._in_thread(partial(self._storage.after, room, id, limit))
        except StorageUnavailable:
            return []

    def _listings(self, session: Session) -> list[RoomListing]:
        most = self._limits.listed_rooms
        if self._permissions.is_operator(session):
            seen = most_visited(list(self.rooms), most, _LIST_BYTES)
        else:
            own = dict.fromkeys([*session.all_rooms(), *self._owners.rooms_of(session)])
            private = [room for room in own if room.private][: most - 1]
            left = _LIST_BYTES - sum(map(listed_bytes, private))
            seen = [*most_visited(self.rooms.listed(), most - len(private), left), *private]
        return [RoomListing(room.name, len(room.names), room.topic) for room in seen]

    def _set_topic(self, session: Session, name: Name, typed: str, topic: str) -> Result[object]:
        room = self._presence.room_of(session, typed)
        if isinstance(room, Rejection):
            return reject_room(session, room, typed)
        if len(topic) > self._limits.topic_characters:
            return reject(session, Rejection.TOPIC_TOO_LONG, room=typed)
        refusal = self._permissions.refuse_speech(session, name, room, self._now_ms())
        if refusal is not None:
            return reject(session, refusal, room.name, typed)
        if not room.gate.is_open():
            return Busy(room.gate)
        if topic != room.topic:
            room.topic = topic
            self.rooms.changed(room)
            room.publish(TopicChanged(room.name, name.shown, topic, self._now_ms()), session.subscriber)
        session.subscriber.deliver(Accepted(Action.TOPIC_SET, room.name, topic))
        return DONE

    def _moderate(self, session: Session, name: Name, command: ModerationCommand) -> Result[object]:
        room = self._presence.room_of(session, command.room)
        if isinstance(room, Rejection):
            return reject_room(session, room, command.room)
        return self._moderation.carry_out(session, name, room, command)

    def _change_account(self, session: Session, name: Name, command: AccountCommand) -> Result[object]:
        if isinstance(command, Register) and self._permissions.is_muted(session, name, self._now_ms()):
            # Otherwise registering would evade a mute of the address, which does not apply to accounts.
            return reject(session, Rejection.MUTED)
        if not self._storage.is_ready():
            return Busy(self.lobby.gate)
        return self._credentials.carry_out(session, name, command)

    # --- Messages ----------------------------------------------------------------------------------------------------

    def _say(self, session: Session, name: Name, say: Say) -> Result[object]:
        typed, texts, message_key = say.room, say.texts, say.message_key
        if message_key and self._was_sent(session, name, message_key):
            return DONE
        room = self._presence.room_of(session, typed) if typed or session.meant else session.room
        if room is None or isinstance(room, Rejection):
            # One answer for each message, even if the connection has joined several.
            for _ in texts:
                reject_room(session, room or Rejection.ROOM_NAME_INVALID, typed)
            return DONE
        if not all(texts):
            return reject(session, Rejection.EMPTY_MESSAGE, room=typed)
        now_ms = self._now_ms()
        refusal = self._permissions.refuse_speech(session, name, room, now_ms)
        if refusal is not None:
            for _ in texts:
                reject(session, refusal, room.name, typed)
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
            return reject(session, Rejection.EMPTY_DIRECT_MESSAGE)
        if not to:
            return reject(session, Rejection.NO_RECIPIENT)
        recipient = self._sessions.get(key_of(to))
        if recipient is None or recipient.name is None:
            return self._send_to_absent(session, name, command)
        if self._permissions.is_muted(session, name, self._now_ms()):
            return reject(session, Rejection.MUTED)
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
        """Keep a direct message for an offline user; sender and recipient need accounts."""
        sender, recipient = session.account, self._accounts.find_account(key_of(command.to))
        if sender is None or recipient is None:
            return reject(session, Rejection.USER_NOT_FOUND, command.to)
        if self._permissions.is_muted(session, name, self._now_ms()):
            return reject(session, Rejection.MUTED)
        if not self._mailboxes.gate.is_open():
            return Busy(self._mailboxes.gate)
        message = DirectMessage(name.shown, recipient.name, command.text, self._now_ms())

        def finish(kept: KeptMessage | None) -> Result[object]:
            if session.name is not name:
                return DONE
            if kept is None:
                return reject(session, Rejection.MAILBOX_FULL, recipient.name)
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

        # Keeping the message occupies one of few threads, which waits for the disk.
        session.cost_bytes += LOOKUP_BYTES
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
        room = self._presence.room_of(session, typed)
        if isinstance(room, Rejection):
            return reject_room(session, room, typed)
        refusal = self._permissions.refuse_speech(session, name, room, self._now_ms())
        if refusal is not None:
            return reject(session, refusal, room.name, typed)
        now = self._time()
        # Dropped if the room is behind: a typing notice that waits would come too late.
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
            return reject(session, Rejection.USER_NOT_FOUND, who)
        if other is session:
            return reject(session, Rejection.NOT_PERMITTED)
        if session.account is not None and not self._storage.is_ready():
            return Busy(self.lobby.gate)
        if not self._ignores.add(session, other.name.key):
            return reject(session, Rejection.LIST_FULL)
        self._presence.note_ignored(session)
        session.subscriber.deliver(Accepted(Action.IGNORED, subject=other.name.shown))
        return DONE

    def _hear_again(self, session: Session, who: str) -> Result[object]:
        if session.account is not None and not self._storage.is_ready():
            return Busy(self.lobby.gate)
        if not self._ignores.remove(session, key_of(who)):
            return reject(session, Rejection.USER_NOT_FOUND, who)
        self._presence.note_ignored(session)
        session.subscriber.deliver(Accepted(Action.HEARD_AGAIN, subject=who))
        return DONE

    def _hide_latest(self, session: Session, name: Name, room: Room) -> None:
        """Hide the latest event of this client from the clients that ignore it."""
        session.cost_bytes += _HOLE_BYTES * self._ignores.hide_latest(name.key, room)

    def _now_ms(self) -> int:
        return int(self._time() * 1000)


def _tell_topic(session: Session, room: Room) -> None:
    session.subscriber.deliver(Topic(room.name, room.topic))
