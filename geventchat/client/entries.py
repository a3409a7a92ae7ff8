"""What happens, as entries of windows: what people say, for whom it is new, and what deserves an alert. Sans-I/O.

It knows nothing of requests, of what this client sends, or of the dialect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from geventchat.chat.events import PastMessage
from geventchat.chat.names import key_of
from geventchat.chat.text import clean
from geventchat.client import markup
from geventchat.client.display import Clock, Display
from geventchat.client.options import Options
from geventchat.client.window_list import Windows
from geventchat.client.windows import Entry, Kind, Window, time_of
from geventchat.dialects.codec import NO_ID, NO_TIME

# A block of code without an end is one for this many lines.
FENCED_LINES = 200
MAX_FENCES = 100
# What an answer begins with that nobody has typed.
AUTOMATIC = "(automatic reply)"


class Entries:
    """The entries of one client."""

    def __init__(self, display: Display, clock: Clock, windows: Windows, options: Options) -> None:
        # The name that this client has.
        self.name = ""
        # Whose messages are not shown, by the keys of their names.
        self.hidden: set[str] = set()
        self._display = display
        self._clock = clock
        self._windows = windows
        self._mention = re.compile("")
        self.configure(options)

    def configure(self, options: Options) -> None:
        """Follow these settings."""
        self._options = options
        self.hidden |= {key_of(name) for name in options.ignore}
        self.become(self.name)

    def become(self, name: str) -> None:
        """This client has another name."""
        self.name = name
        words = [name, *self._options.highlight] if name else self._options.highlight
        self._mention = re.compile(
            "|".join(rf"(?<!\w){re.escape(word.casefold())}(?!\w)" for word in words) or "(?!)"
        )

    def is_me(self, name: str) -> bool:
        """True if it is the name of this client."""
        return key_of(name) == key_of(self.name)

    def is_hidden(self, name: str) -> bool:
        """True if what this person writes is not shown."""
        return key_of(name) in self.hidden

    # --- Whatever happens ------------------------------------------------------------------------------------------------

    def add(self, window: Window, kind: Kind, text: str, *, name: str = "", time_ms: int = NO_TIME) -> Entry:
        """Add an entry that is not a message."""
        entry = Entry(kind, text, time_of(time_ms, self._clock.now), name=name)
        self._append(window, entry)
        return entry

    def alert(self, text: str, title: str = "") -> None:
        """Alert the user, who can be in another window, with the bell or a notification."""
        if self._options.bell:
            self._display.ring()
        if self._options.notify != "off":
            self._display.notify(title or "geventchat", text)

    def _append(self, window: Window, entry: Entry, *, silent: bool = False) -> None:
        window.append(entry)
        if not silent:
            self._display.show(window, entry)

    # --- Messages --------------------------------------------------------------------------------------------------------

    def said(self, window: Window, name: str, text: str, id: int, time_ms: int) -> None:
        """Add a message to a room, new or from the history."""
        is_new = (id == NO_ID or id not in window.ids) and (name, text, time_ms) not in window.numbered_anew
        is_replayed = NO_ID < id <= window.replay_until
        if id != NO_ID:
            window.last_id = max(id, window.last_id or NO_ID)
        if self.is_hidden(name):
            return
        entry = self._message(window, name, text, id, time_ms)
        if not is_new:
            return
        self._append(window, entry, silent=entry.own and self._display.echoes_input)
        if entry.own:
            if not is_replayed:
                # Otherwise the next session would replay it as a missed message.
                window.read_id = window.last_id
            return
        self._count(window, entry)
        if entry.mention and not is_replayed:
            self.alert(f"{name} in {window.name}: {text}")

    def direct(self, sender: str, to: str, text: str, time_ms: int, *, incoming: bool = False) -> None:
        """Show a direct message in the window of the other person, and where the user is."""
        window = self._windows.of_person(sender if incoming else to)
        entry = Entry(
            Kind.DIRECT, text, time_of(time_ms, self._clock.now), name=sender, to=to, own=not incoming
        )
        self._append(window, entry, silent=not incoming and self._display.echoes_input)
        if incoming:
            self._count(window, entry)
        elif not text.startswith(AUTOMATIC):
            window.read()
        if window is not self._windows.current and not self._display.linear:
            self._windows.current.append(replace(entry))

    def insert(self, window: Window, messages: Iterable[PastMessage], *, shown: bool) -> list[Entry]:
        """Insert messages of the history, oldest first; those that are new. A display without windows shows them if asked."""
        entries = []
        for message in messages:
            if not self.is_hidden(message.name):
                entry = self._message(window, clean(message.name), message.text, message.id, message.time_ms)
                entry.deleted = entry.deleted or message.deleted
                entries.append(entry)
        window.fences.clear()
        fresh = window.insert_older(entries)
        if shown and self._display.linear:
            for entry in fresh:
                self._display.show(window, entry)
        return fresh

    def delete(self, window: Window, id: int) -> None:
        """Remove the text of a message; its place stays."""
        entry = window.find(id)
        if entry is not None:
            entry.deleted = True
            entry.change("")

    def _message(self, window: Window, name: str, text: str, id: int, time_ms: int) -> Entry:
        at, own = time_of(time_ms, self._clock.now), self.is_me(name)
        entry = Entry(Kind.MESSAGE, text, at, name=name, id=id, time_ms=time_ms, own=own)
        entry.deleted = not text
        entry.mention = not own and self._mention.search(text.casefold()) is not None
        entry.code = self._is_code(window, name, text)
        return entry

    def _count(self, window: Window, entry: Entry) -> None:
        """A message of someone else's is new."""
        if (
            window is self._windows.current
            and window.bottom is None
            and not (entry.id and entry.id <= window.replay_until)
        ):
            window.read_id = window.last_id
            return
        if window.first_unread is None:
            window.first_unread = entry
        if window is self._windows.current and window.bottom is None:
            # The message was missed, and is on the screen now.
            window.read_id = window.last_id
            return
        window.unread += 1
        window.mentions += entry.mention or entry.kind is Kind.DIRECT

    def _is_code(self, window: Window, name: str, text: str) -> bool:
        key = key_of(name)
        if text.startswith(markup.FENCE):
            inside = key in window.fences
            # A line such as ```x = 1``` is a complete block.
            if inside or (len(text) > 6 and text.endswith(markup.FENCE)):
                window.fences.pop(key, None)
            elif len(window.fences) < MAX_FENCES:
                window.fences[key] = FENCED_LINES
            return True
        if key in window.fences:
            window.fences[key] -= 1
            if not window.fences[key]:
                del window.fences[key]
            return True
        return markup.code_line(text) is not None
