"""The interface to whatever keeps records: of changes that outlive the server, and of acts.

A journal never waits. It receives a change after it has happened.
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
    """Keeps nothing: everything ends with the process."""

    def save(self, record: Record) -> None:
        """Nothing."""

    def forget(self, record: Record) -> None:
        """Nothing."""

    def audit(self, act: Act) -> None:
        """Nothing."""
