"""Who is told of each change that outlives the server, and of each act. Only an interface.

Whoever keeps records implements `Journal`. It never waits, and is told of a change after it has happened.
"""

from __future__ import annotations

from typing import Protocol

from geventchat.chat.records import Act, Record


class Journal(Protocol):
    """Keeps records."""

    def save(self, record: Record) -> None:
        """Keep this record, in place of the one of the same room, account or restriction."""

    def forget(self, record: Record) -> None:
        """This record is no longer true. A room takes its restrictions with it."""

    def audit(self, act: Act) -> None:
        """Note an act for whoever looks into it later."""


class NoJournal:
    """Keeps nothing: what it is told of ends with the process."""

    def save(self, record: Record) -> None:
        """Nothing."""

    def forget(self, record: Record) -> None:
        """Nothing."""

    def audit(self, act: Act) -> None:
        """Nothing."""
