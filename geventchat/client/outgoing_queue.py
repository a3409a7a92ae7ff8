"""The messages that were typed and are not confirmed. Pure: it decides what can be sent, and sends nothing.

Invariants of OutgoingQueue:
- A message that was typed waits, is under way, or is decided: said, refused, or dropped by command.
- Messages are sent in the order in which they were typed, and at most MAX_UNDER_WAY are unanswered.
- A message that was under way when the connection ended is doubtful. It is sent again only where nothing is said twice: with
  its key, or after the history has shown that it was not said; otherwise it is held until a person decides.
- A message that waits or is under way is in the `pending` of its window, unless it has arrived and its answer alone is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from geventchat.chat.names import key_of
from geventchat.chat.text import clean
from geventchat.client.windows import Outgoing, Window

# Unanswered messages. A server reads a client that is too fast more slowly, so this keeps to any rate.
MAX_UNDER_WAY = 16
MAX_WAITING = 20_000


class OutgoingQueue:
    """The messages of one client."""

    def __init__(self) -> None:
        self._waiting: deque[Outgoing] = deque()
        # In the order in which they were sent.
        self._under_way: list[Outgoing] = []

    @property
    def sends_itself(self) -> int:
        """The messages that are not confirmed and will be sent without anybody's decision."""
        return len(self._waiting) - self.held + len(self._under_way)

    @property
    def held(self) -> int:
        """The messages that were perhaps not said, and wait for a decision."""
        return sum(outgoing.held for outgoing in self._waiting)

    @property
    def unsent(self) -> int:
        """The messages that have not been sent at all."""
        return len(self._waiting) - self.held

    @property
    def is_empty(self) -> bool:
        """True when no message waits. Some can be under way."""
        return not self._waiting

    @property
    def is_full(self) -> bool:
        """True when no more messages can wait."""
        return len(self._waiting) >= MAX_WAITING

    @property
    def has_doubtful(self) -> bool:
        """True when it has to be found out whether some were said."""
        return any(outgoing.doubtful and not outgoing.held for outgoing in self._waiting)

    @property
    def under_way(self) -> list[Outgoing]:
        """Those that the server has not answered."""
        return [*self._under_way]

    def add(self, outgoing: Outgoing) -> None:
        """It was typed."""
        outgoing.window.pending.append(outgoing)
        self._waiting.append(outgoing)

    def next(self, can_be_sent: Callable[[Outgoing], bool]) -> Outgoing | None:
        """The next one, which is under way from now on; None as long as it has to wait."""
        if len(self._under_way) >= MAX_UNDER_WAY:
            return None
        outgoing = next((one for one in self._waiting if not one.held), None)
        if outgoing is None or not can_be_sent(outgoing):
            return None
        self._waiting.remove(outgoing)
        self._under_way.append(outgoing)
        outgoing.sent = True
        return outgoing

    def decide(self, outgoing: Outgoing) -> None:
        """It is said, refused or dropped."""
        if outgoing.sent:
            self._under_way.remove(outgoing)
        else:
            self._waiting.remove(outgoing)
        if not outgoing.echoed:
            outgoing.window.pending.remove(outgoing)

    def arrived(self, windows: Iterable[Window], text: str, to: str) -> None:
        """The server has sent a message of this client's: the oldest one like it no longer waits."""
        for window in windows:
            for outgoing in window.pending:
                same = clean(outgoing.text) == text and key_of(outgoing.to) == key_of(to)
                if same and (outgoing.sent or outgoing.doubtful):
                    outgoing.echoed = True
                    window.pending.remove(outgoing)
                    if not outgoing.sent:
                        # It was said before the connection was lost.
                        self._waiting.remove(outgoing)
                    break

    def offline(self) -> None:
        """The connection has ended: what was under way is doubtful."""
        for outgoing in reversed(self._under_way):
            if not outgoing.echoed:
                outgoing.sent, outgoing.doubtful = False, True
                self._waiting.appendleft(outgoing)
        self._under_way.clear()

    def hold_doubtful(self) -> int:
        """Leave doubtful messages to the user, since nothing shows whether they were said; returns how many there are."""
        doubtful = [outgoing for outgoing in self._waiting if outgoing.doubtful]
        for outgoing in doubtful:
            outgoing.held = True
        return len(doubtful)

    def release(self, *, drop: bool) -> int:
        """Send those that are held, or forget them; how many there were."""
        held = [outgoing for outgoing in self._waiting if outgoing.held]
        for outgoing in held:
            if drop:
                self.decide(outgoing)
            outgoing.held = outgoing.doubtful = False
        return len(held)

    def for_room(self, window: Window) -> list[Outgoing]:
        """Those that wait to be said in this room."""
        return [one for one in self._waiting if one.window is window and not one.to]
