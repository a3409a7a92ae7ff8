"""What there is to read: the messages of each room and of each person one talks to, and which of them are new. Pure.

Invariants of Window:
- `entries` are in the order in which they are shown. Those with an id are in the order of their ids.
- `ids` are the ids of the entries, each once.
- `first_unread` is one of the entries, or None.
- It has at most MAX_ENTRIES entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from geventchat.dialects.codec import NO_ID, NO_TIME

MAX_ENTRIES = 5000


class Kind(Enum):
    """What an entry is about."""

    MESSAGE = auto()
    DIRECT = auto()
    JOINED = auto()
    LEFT = auto()
    TOPIC = auto()
    PEOPLE = auto()
    PING = auto()
    SUCCESS = auto()
    NOTICE = auto()
    ERROR = auto()
    OFFLINE = auto()
    GOODBYE = auto()
    ANNOUNCEMENT = auto()
    # A line of an answer that has several, such as the help.
    LISTED = auto()


@dataclass(slots=True, eq=False)
class Entry:
    """A message, or something else that happened. Two entries with the same content are two entries."""

    kind: Kind
    text: str
    at: datetime
    name: str = ""
    # The recipient of a direct message.
    to: str = ""
    id: int = NO_ID
    time_ms: int = NO_TIME
    own: bool = False
    mention: bool = False
    deleted: bool = False
    # A line of a block of code.
    code: bool = False
    # How it was drawn last, and for which look.
    drawn: tuple[object, object] | None = None

    def change(self, text: str) -> None:
        """Show another text."""
        self.text, self.drawn = text, None


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message that the server has not confirmed yet."""

    # Where it is shown until then, and where it is to be said: a room, or one person.
    window: Window
    text: str
    to: str = ""
    # By which the server knows it if it is sent again.
    key: str = ""
    sent: bool = False
    # It arrived, so the answer alone is missing.
    echoed: bool = False
    # It was sent, and the connection ended before it was answered.
    doubtful: bool = False
    # Only a person can decide whether it is sent again.
    held: bool = False


@dataclass(slots=True, eq=False)
class Window:
    """A room, or one person whom this client exchanges direct messages with."""

    name: str
    key: str
    is_person: bool = False
    joined: bool = False
    # The server has been asked to let this client in.
    entering: bool = False
    room_key: str = ""
    topic: str = ""
    people: dict[str, str] = field(default_factory=dict)
    user_count: int = 0
    entries: list[Entry] = field(default_factory=list)
    ids: set[int] = field(default_factory=set)
    # Name, text and time of messages whose ids the server has forgotten: they can come again with others.
    numbered_anew: set[tuple[str, str, int]] = field(default_factory=set)
    pending: list[Outgoing] = field(default_factory=list)
    unread: int = 0
    mentions: int = 0
    first_unread: Entry | None = None
    # The last id of this epoch that was received, and the last that was read; None before the first.
    last_id: int | None = None
    read_id: int | None = None
    # What was missed has come when this id has been received.
    replay_until: int = NO_ID
    # Older messages can be asked for, before this id; they have been asked for.
    more: bool = False
    asked_for_more: bool = False
    # Messages between these two ids were missed; NO_ID if none were.
    gap_after: int = NO_ID
    gap_id: int = NO_ID
    # Who has begun a block of code with a fence, and not ended it; and after how many lines it is forgotten.
    fences: dict[str, int] = field(default_factory=dict)
    # Who is writing, until when. Those whose time is up are forgotten when it is looked at.
    typing: dict[str, float] = field(default_factory=dict)
    # How far it is scrolled up: the last entry that is seen, and how many of its rows are below the edge. None at the end.
    bottom: Entry | None = None
    bottom_rows: int = 0

    @property
    def title(self) -> str:
        """How the window is called in the status bar."""
        return f"@{self.name}" if self.is_person else self.name

    def append(self, entry: Entry) -> None:
        """Add an entry at the end, or before the first one with a larger id."""
        at = len(self.entries)
        if entry.id != NO_ID:
            if entry.id in self.ids:
                return
            self.ids.add(entry.id)
            while at and self.entries[at - 1].id > entry.id:
                at -= 1
        self.entries.insert(at, entry)
        if len(self.entries) > MAX_ENTRIES:
            self._drop_oldest(MAX_ENTRIES // 10)

    def insert_older(self, entries: list[Entry]) -> list[Entry]:
        """Insert messages, oldest first, where their ids belong; those that are new."""
        fresh = [entry for entry in entries if entry.id == NO_ID or entry.id not in self.ids]
        if not fresh:
            return []
        last = fresh[-1].id
        if self.ids:
            # Before the first newer message, and what was noted before that.
            at = next((at for at, entry in enumerate(self.entries) if entry.id > last), len(self.entries))
            while at < len(self.entries) and at and self.entries[at - 1].id == NO_ID:
                at -= 1
        else:
            at = next(
                (at for at, entry in enumerate(self.entries) if entry.at > fresh[-1].at), len(self.entries)
            )
        self.entries[at:at] = fresh
        self.ids.update(entry.id for entry in fresh if entry.id != NO_ID)
        return fresh

    def find(self, id: int) -> Entry | None:
        """The message with this id."""
        return (
            next((entry for entry in reversed(self.entries) if entry.id == id), None)
            if id in self.ids
            else None
        )

    @property
    def oldest_id(self) -> int:
        """The id of the oldest message; NO_ID if none has one."""
        return min(self.ids, default=NO_ID)

    def writers(self, now: float) -> dict[str, float]:
        """Who is still writing, until when."""
        self.typing = {name: until for name, until in self.typing.items() if until > now}
        return self.typing

    def read(self) -> None:
        """Everything in it has been seen."""
        self.unread = self.mentions = 0
        self.read_id = self.last_id

    def forget_ids(self) -> None:
        """The server counts anew."""
        self.numbered_anew = {
            (entry.name, entry.text, entry.time_ms) for entry in self.entries if entry.id != NO_ID
        }
        for entry in self.entries:
            entry.id = NO_ID
        self.ids.clear()
        self.last_id = self.read_id = None
        self.replay_until = self.gap_id = NO_ID
        self.more = self.asked_for_more = False

    def clear(self) -> None:
        """Remove everything that is shown. The server still has it."""
        self.more = self.more or bool(self.ids)
        self.entries.clear()
        self.ids.clear()
        self.first_unread = self.bottom = None
        self.asked_for_more = False
        self.gap_id = NO_ID

    def _drop_oldest(self, count: int) -> None:
        dropped = self.entries[:count]
        del self.entries[:count]
        self.ids.difference_update(entry.id for entry in dropped)
        self.more = self.more or any(entry.id != NO_ID for entry in dropped)
        if self.first_unread in dropped:
            self.first_unread = None
        if self.bottom in dropped:
            self.bottom = self.entries[0]


def time_of(time_ms: int, now: Callable[[], datetime]) -> datetime:
    """A server's time on the clock of this machine; now, where it has sent none that makes sense."""
    if time_ms == NO_TIME:
        return now()
    try:
        return datetime.fromtimestamp(time_ms / 1000)
    except (OverflowError, OSError, ValueError):
        return now()
