"""The windows of one client: which of them is shown, and where a client is that can be in one room at a time. Pure.

Invariants of Windows:
- There is at least one window, and at most MAX_WINDOWS. No two have the same key.
- `current` and `room` are among them.
"""

from __future__ import annotations

from geventchat.chat.names import InvalidName, key_of, parse_room_name
from geventchat.chat.text import clean
from geventchat.client.windows import Window
from geventchat.dialects.codec import NO_ROOM

MAX_WINDOWS = 200


class Windows:
    """All windows, in the order in which they were opened."""

    def __init__(self, first_room: str) -> None:
        self.all = [_first(first_room)]
        # The one that is shown.
        self.current = self.all[0]
        # The room of a client that can be in one at a time.
        self.room = self.current

    def begin_with(self, room: str) -> None:
        """Have this room in place of the first one."""
        self.all[0] = self.current = self.room = _first(room)

    def find(self, key: str) -> Window | None:
        """The window with this key."""
        return next((window for window in self.all if window.key == key), None)

    def of_room(self, room: str) -> Window:
        """The window of a room, opened if there is none yet."""
        if room == NO_ROOM:
            return self.room
        key = key_of_room(room)
        found = self.find(key)
        if found is None:
            found = Window(clean(room), key)
            if not self._open(found):
                return self.room
        return found

    def of_person(self, name: str) -> Window:
        """The window of a person, opened if there is none yet."""
        key = key_of_person(name)
        found = self.find(key)
        if found is None:
            found = Window(clean(name), key, is_person=True)
            self._open(found)
        return found

    def beside(self, step: int) -> Window:
        """The window this many places behind the current one, or before it if negative."""
        return self.all[(self.all.index(self.current) + step) % len(self.all)]

    def most_active(self) -> Window | None:
        """The window that most deserves attention; None if nothing is unread."""
        if not any(window.unread for window in self.all):
            return None
        return max(self.all, key=lambda window: (window.mentions, window.is_person, window.unread))

    def show(self, window: Window) -> None:
        """Make it the current one. What it shows is read."""
        if window is not self.current:
            self.current.first_unread = None
            if self.current.bottom is None:
                self.current.read()
            self.current = window
        if window.bottom is None:
            window.read()

    def move_to(self, room: str) -> None:
        """The client is in another room, the only one."""
        self.room.joined = False
        self.room = self.of_room(room)
        self.room.joined, self.room.entering = True, False
        self.room.name = clean(room)

    def close(self, window: Window) -> None:
        """Remove one of several. What it shows as waiting is shown in the window beside it."""
        at = self.all.index(window)
        self.all.remove(window)
        if self.current is window:
            self.current = self.all[max(at - 1, 0)]
            self.current.read()
        for outgoing in window.pending:
            outgoing.window = self.current
            self.current.pending.append(outgoing)

    def drop_unused(self, window: Window) -> None:
        """Remove it if it was opened in vain."""
        if not window.joined and not window.entries and window is not self.current and len(self.all) > 1:
            self.all.remove(window)

    def _open(self, window: Window) -> bool:
        if len(self.all) >= MAX_WINDOWS:
            # The oldest conversation with one person makes room; people are in fewer rooms than this.
            spare = next((one for one in self.all if one.is_person and one is not self.current), None)
            if spare is None:
                return False
            self.all.remove(spare)
        self.all.append(window)
        return True


def key_of_room(room: str) -> str:
    """What is the same for two spellings of a room's name."""
    try:
        return parse_room_name(room).key
    except InvalidName:
        return room.casefold()


def key_of_person(name: str) -> str:
    """What is the same for two spellings of a person's name, and differs from every room's."""
    return f"@{key_of(name) or name.casefold()}"


def _first(room: str) -> Window:
    return Window(room.removeprefix("#"), key_of_room(room))
