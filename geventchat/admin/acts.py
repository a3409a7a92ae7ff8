"""Carries out the requests of the admin socket. Knows no sockets: an act takes a request and yields its answer.

Invariants:
- Every act that changes something is in the audit log, and in the server's log.
- An act that lists many rows yields a bounded number at a time; its caller lets other greenlets run in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import gevent

from geventchat.admin.protocol import AUDITED, ROWS_AT_ONCE, Answer, Request, error
from geventchat.chat.commands import (
    Impose,
    Kick,
    Lift,
    ModerationCommand,
    PassOwnership,
    Sanction,
    SetModerator,
    SetVoice,
)
from geventchat.chat.events import Rejected, Rejection
from geventchat.chat.names import InvalidName, Name, key_of, parse_name, parse_room_name
from geventchat.chat.passwords import HasherFull, HashingFailed, WeakPassword, prepare
from geventchat.chat.records import Act, Restriction
from geventchat.chat.rooms import Room
from geventchat.chat.storage import CannotBackUp, Storage, StorageUnavailable
from geventchat.chat.text import clean
from geventchat.clock import Clock
from geventchat.dialects.words import error_word
from geventchat.log import LEVELS, Log, LogEvent
from geventchat.net.connection import Connection
from geventchat.rate import Rate, TokenBucket
from geventchat.server import Server, in_thread
from geventchat.settings import Listen

# The author of these acts in the audit log. No client can have this name.
ACTOR = Name("geventchat admin", "")
# Announcements do not wait for slow readers: too many would disconnect them.
ANNOUNCEMENTS_PER_S = 1.0
BURST_ANNOUNCEMENTS = 10
# An announcement, or a path, can be nearly as long as a request, and JSON writes a letter of two bytes with six.
_AUDITED_AT_ONCE = 10
# How long a command waits for slow recipients, and how often a long act reports progress.
_PATIENCE_S = 10.0
_PROGRESS_S = 2.0
_REFUSALS = {
    Rejection.USER_NOT_FOUND: "no user or account has this name",
    Rejection.NOT_PERMITTED: "not possible: the lobby has no owner and no moderators, and moderators need an account",
    Rejection.LIST_FULL: "the list is full",
    Rejection.TOO_MANY_ROOMS: "that person owns as many rooms as possible",
}


class Controls(Protocol):
    """The parts of the process that an operator can change."""

    @property
    def log_level(self) -> str:
        """The lowest level that is logged."""

    @log_level.setter
    def log_level(self, level: str) -> None: ...

    @property
    def started_ms(self) -> int:
        """When the server started."""

    # A backup is running.
    backing_up: bool

    def reload(self) -> Answer:
        """Read the settings again; the last line of the answer."""

    def upgrade(self, python: str, by: str, at_once: Callable[[Answer], object]) -> Answer:
        """Hand everything over to a new program; returns the last line of the answer only if that is an error.

        Otherwise `at_once` gets it, and must not wait. Then the process ends.
        """


class Refused(Exception):
    """The act is not carried out; the message says why."""

    def __init__(self, message: str, code: str = "refused") -> None:
        super().__init__(message)
        self.code = code


class Acts:
    """All acts."""

    def __init__(self, server: Server, controls: Controls, log: Log, clock: Clock) -> None:
        self._server = server
        self._controls = controls
        self._log = log
        self._clock = clock
        self._announcements = TokenBucket(Rate(ANNOUNCEMENTS_PER_S, BURST_ANNOUNCEMENTS))
        self._acts: dict[str, Callable[[Request], Iterable[Answer]]] = {
            "status": self._status,
            "who": self._who,
            "rooms": self._rooms,
            "announce": self._announce,
            "kick": self._kick,
            "ban": self._ban,
            "unban": self._unban,
            "bans": self._bans,
            "audit": self._audit,
            "grant": self._grant,
            "password": self._password,
            "reload": self._reload,
            "backup": self._backup,
            "log-level": self._log_level,
        }

    def carry_out(self, request: Request, by: str, at_once: Callable[[Answer], object]) -> Iterator[Answer]:
        """Carry out a request of the process that `by` describes, and yield the lines of its answer.

        `at_once` sends the last line without waiting, for an act that ends this process.
        """
        act = request["act"]
        try:
            for answer in (
                self._upgrade(request, by, at_once) if act == "upgrade" else self._acts[act](request)
            ):
                if "done" in answer and not _is_question(request):
                    # Before the answer: whoever asked can be gone.
                    self._note(request, by)
                yield answer
        except Refused as refused:
            yield error(refused.code, str(refused))
        except TimeoutError:
            yield error("busy", "the recipients cannot follow; try again")
        except (CannotBackUp, HasherFull, HashingFailed, StorageUnavailable) as failed:
            yield error("failed", str(failed))

    def _note(self, request: Request, by: str) -> None:
        """Log that this has been done."""
        shown = {key: value for key, value in request.items() if key not in _UNLOGGED}
        self._log(LogEvent.ADMIN, act=request["act"], by=by, **shown)

    # --- Questions ---------------------------------------------------------------------------------------------------

    def _status(self, request: Request) -> Iterator[Answer]:
        server, chat, storage = self._server, self._server.context.chat, self._server.storage
        yield _done(
            pid=os.getpid(),
            started_ms=self._controls.started_ms,
            listening=[_place(listen, *bound) for listen, bound in server.listening],
            connections=server.clients,
            people=len(chat),
            rooms=len(chat.rooms),
            accounts=chat.accounts,
            operators=sorted(chat.operators),
            data=server.config.data or None,
            storage_behind_bytes=storage.behind_bytes,
            memory_bytes=_resident_bytes(),
            log_level=self._controls.log_level,
        )

    def _who(self, request: Request) -> Iterator[Answer]:
        yield from _rows(map(self._connection, self._server.connections))

    def _connection(self, connection: Connection) -> dict[str, Any]:
        session = connection.session
        return {
            "conn": connection.number,
            "name": None if session.name is None else session.name.shown,
            "account": None if session.account is None else session.account.name,
            "address": connection.host,
            "dialect": connection.dialect,
            "rooms": [room.name for room in session.all_rooms()],
            "idle_s": round(connection.idle_s, 1),
            "waiting_bytes": connection.backlog_bytes,
        }

    def _rooms(self, request: Request) -> Iterator[Answer]:
        yield from _rows(map(_room, list(self._server.context.chat.rooms)))

    def _bans(self, request: Request) -> Iterator[Answer]:
        room = self._find_room(request)
        yield from _rows(map(_restriction, self._server.context.chat.bans_of(room)))

    def _audit(self, request: Request) -> Iterator[Answer]:
        # The storage can have to wait for the disk.
        latest = in_thread(partial(self._server.storage.acts, request.get("limit", AUDITED)))
        yield from _rows(map(_audited, latest), _AUDITED_AT_ONCE)

    # --- Acts on people ----------------------------------------------------------------------------------------------

    def _announce(self, request: Request) -> Iterator[Answer]:
        now = self._clock.monotonic()
        if not self._announcements.take(1, now):
            wait_s = self._announcements.delay_s(1, now)
            raise Refused(f"too many announcements; try again in {wait_s:.1f} s", "busy")
        try:
            text = self._server.announce(request["text"])
        except ValueError as wrong:
            raise Refused(str(wrong)) from None
        chat = self._server.context.chat
        chat.audit(ACTOR.shown, "announce", "", text)
        yield _done(people=len(chat), text=text)

    def _kick(self, request: Request) -> Iterator[Answer]:
        yield self._administer(request, Kick(request["who"], _reason(request)))

    def _ban(self, request: Request) -> Iterator[Answer]:
        seconds = request.get("seconds")
        if seconds == 0:
            raise Refused("a ban of 0 seconds is none")
        who = request["who"]
        yield self._administer(request, Impose(Sanction.BAN, who, seconds, _reason(request)), hint=_hint(who))

    def _unban(self, request: Request) -> Iterator[Answer]:
        yield self._administer(
            request, Lift(Sanction.BAN, request["who"]), hint="`geventchat admin bans` lists the bans"
        )

    def _grant(self, request: Request) -> Iterator[Answer]:
        who, on = request["who"], not request.get("revoke", False)
        match request["role"]:
            case "operator":
                yield self._grant_operator(who, on)
            case "owner" if not on:
                raise Refused("a room always has an owner; grant the role to someone else")
            case "owner":
                yield self._administer(request, PassOwnership(who), hint="an owner has to be in the room")
            case "moderator":
                yield self._administer(request, SetModerator(who, on))
            case _:
                yield self._administer(request, SetVoice(who, on))

    def _grant_operator(self, who: str, on: bool) -> Answer:
        chat, key = self._server.context.chat, key_of(who)
        if on and not chat.has_account(key):
            raise Refused(f"{who} has no account; an operator needs one")
        if not on and key not in chat.operators:
            raise Refused(f"{who} is not an operator")
        chat.change_names(chat.operators | {key} if on else chat.operators - {key}, chat.reserved_names)
        chat.audit(ACTOR.shown, "grant operator" if on else "revoke operator", who)
        return _done(until="the server stops or reloads its settings; name operators in --operators")

    def _password(self, request: Request) -> Iterator[Answer]:
        who, chat = request["who"], self._server.context.chat
        try:
            name = parse_name(who)
        except InvalidName:
            raise Refused(f"{who!r:.40} cannot be a name: 1 to 20 letters, digits, '_', '-' or '.'") from None
        if chat.is_reserved(name):
            raise Refused(f"the name {name.shown} is reserved (--reserved-names)")
        try:
            password = prepare(request["password"])
        except WeakPassword as weak:
            raise Refused(str(weak)) from None
        made = self._server.set_password(name, password)
        chat.audit(ACTOR.shown, "password", name.shown)
        yield _done(account=name.shown, made=made)

    def _administer(self, request: Request, command: ModerationCommand, hint: str = "") -> Answer:
        room = request.get("room") or "lobby"
        try:
            answer = self._server.administer(ACTOR, room, command, _PATIENCE_S)
        except LookupError as missing:
            raise Refused(str(missing)) from None
        if isinstance(answer, Rejected):
            assert isinstance(answer.reason, Rejection)
            text = _REFUSALS.get(answer.reason, error_word(answer.reason))
            raise Refused(f"{text}; {hint}" if hint else text)
        return _done()

    def _find_room(self, request: Request) -> Room:
        typed = request.get("room") or "lobby"
        try:
            room = self._server.context.chat.rooms.find(parse_room_name(typed).key)
        except InvalidName:
            room = None
        if room is None:
            raise Refused(f"unknown room {typed!r}")
        return room

    # --- Acts on the process -----------------------------------------------------------------------------------------

    def _reload(self, request: Request) -> Iterator[Answer]:
        answer = self._controls.reload()
        if "done" in answer:
            self._server.context.chat.audit(ACTOR.shown, "reload", "")
        yield answer

    def _backup(self, request: Request) -> Iterator[Answer]:
        target = Path(request["file"])
        if not target.is_absolute() or "\0" in request["file"]:
            raise Refused("the file has to be an absolute path")
        if self._controls.backing_up:
            raise Refused("another backup is running", "busy")
        self._controls.backing_up = True
        try:
            result = gevent.get_hub().threadpool.spawn(_size_or_error, self._server.storage, target)
        except BaseException:
            self._controls.backing_up = False
            raise
        # Whoever asked can be gone by then.
        result.rawlink(partial(self._on_backed_up, target))
        while not result.ready():
            result.wait(_PROGRESS_S)
            if not result.ready():
                yield {"progress": "copying"}
        size = result.get()
        if isinstance(size, Exception):
            raise size
        yield _done(file=str(target), bytes=size)

    def _on_backed_up(self, target: Path, result: Any) -> None:
        self._controls.backing_up = False
        if not isinstance(result.value, Exception) and self._server.unready != "stopping":
            self._server.context.chat.audit(ACTOR.shown, "backup", str(target))

    def _upgrade(self, request: Request, by: str, at_once: Callable[[Answer], object]) -> Iterator[Answer]:
        def upgraded(answer: Answer) -> None:
            # This process ends now.
            self._note(request, by)
            at_once(answer)

        yield {"progress": "starting the new program"}
        yield self._controls.upgrade(request.get("python", ""), ACTOR.shown, upgraded)

    def _log_level(self, request: Request) -> Iterator[Answer]:
        level = request.get("level")
        if level:
            if level not in LEVELS:
                raise Refused(f"{level!r:.40} is not one of {', '.join(LEVELS)}")
            self._controls.log_level = level
            self._server.context.chat.audit(ACTOR.shown, "log-level", level)
        yield _done(level=self._controls.log_level)


# Fields of a request that the server does not log.
_UNLOGGED = frozenset({"v", "act", "password"})
# Acts that change nothing.
_QUESTIONS = frozenset({"status", "who", "rooms", "bans", "audit"})


def _is_question(request: Request) -> bool:
    act = request["act"]
    return act in _QUESTIONS or (act == "log-level" and not request.get("level"))


def _size_or_error(storage: Storage, target: Path) -> int | Exception:
    # gevent prints the traceback of what a thread raises.
    try:
        return storage.back_up(target)
    except (CannotBackUp, StorageUnavailable) as failed:
        return failed


def _done(**fields: Any) -> Answer:
    return {"done": fields}


def _rows(rows: Iterator[dict[str, Any]], at_once: int | None = None) -> Iterator[Answer]:
    count = 0
    while some := list(islice(rows, at_once or ROWS_AT_ONCE)):
        count += len(some)
        yield {"rows": some}
    yield _done(rows=count)


def _place(listen: Listen, host: str, port: int) -> str:
    bound = listen if listen.is_unix else replace(listen, host=host, port=port)
    return f"{listen.scheme}://{bound.shown}"


def _room(room: Room) -> dict[str, Any]:
    return {
        "room": room.name,
        "people": len(room.names),
        "topic": room.topic,
        "private": room.private,
        "moderated": room.moderated,
        "owner": None if room.owner is None or room.owner.account is None else room.owner.account.name,
        "last_id": room.last_id,
    }


def _restriction(record: Restriction) -> dict[str, Any]:
    return {
        "who": record.shown,
        "name": record.name or None,
        "account": record.account or None,
        "network": record.network or None,
        "until": None if record.until_ms is None else _time(record.until_ms),
        "reason": record.reason,
        "by": record.by,
    }


def _audited(act: Act) -> dict[str, Any]:
    return {
        "time": _time(act.time_ms),
        "by": act.by,
        "act": act.action,
        "room": act.room or None,
        "target": act.target,
        "detail": act.detail,
    }


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _reason(request: Request) -> str:
    return clean(" ".join(request.get("reason", "").split()))


def _hint(who: str) -> str:
    return f"name:{who} bans the name alone"


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
