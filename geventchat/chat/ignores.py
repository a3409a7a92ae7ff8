"""The names that each client ignores. Pure.

Ignoring is a hole in what one listener hears. The ignored client is not notified.

Invariants:
- `_listeners` holds, for each name that someone ignores, the sessions that do: an author whom no client ignores is not in it.
- A client is in it for each name in its `ignored`, and for no other.
"""

from __future__ import annotations

from geventchat.chat.rooms import Room
from geventchat.chat.sessions import Session

# The cost, in bytes, of a message that is looked up for a client and then left out.
UNSEEN_BYTES = 50


class Ignores:
    """Which clients ignore which names, among those that are logged in."""

    def __init__(self, most: int) -> None:
        """A client can ignore `most` names."""
        self._most = most
        self._listeners: dict[str, dict[Session, None]] = {}

    def __contains__(self, author_key: str) -> bool:
        return author_key in self._listeners

    def add(self, session: Session, author_key: str) -> bool:
        """Let this client ignore this name; False if it has reached its limit."""
        ignored = session.ignored = session.ignored or set()
        if author_key not in ignored and len(ignored) >= self._most:
            return False
        ignored.add(author_key)
        self._listeners.setdefault(author_key, {})[session] = None
        return True

    def remove(self, session: Session, author_key: str) -> bool:
        """Let this client hear this name again; False if it did not ignore it."""
        ignored = session.ignored
        if ignored is None or author_key not in ignored:
            return False
        ignored.remove(author_key)
        listeners = self._listeners[author_key]
        del listeners[session]
        if not listeners:
            del self._listeners[author_key]
        return True

    def forget(self, session: Session) -> None:
        """A client has left."""
        for author_key in list(session.ignored or ()):
            self.remove(session, author_key)

    def hide_latest(self, author_key: str, room: Room) -> int:
        """Hide what this author has just published in a room from those who ignore the author; returns from how many."""
        hidden = 0
        for session in self._listeners.get(author_key, ()):
            if session.hears(room):
                session.subscriber.exclude_latest()
                hidden += 1
        return hidden
