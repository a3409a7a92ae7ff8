"""What the conversation needs of the program around it: where its entries are shown, and what time it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from geventchat.client.options import Options
from geventchat.client.windows import Entry, Window


@dataclass(frozen=True, slots=True)
class Clock:
    """The time of day, for people, and seconds that never go back, for durations."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]


class Display(Protocol):
    """Where entries are shown. It emits no event while it is called."""

    @property
    def interactive(self) -> bool:
        """True for a person, who can answer questions and wait for a reconnect; False for a script."""

    @property
    def echoes_input(self) -> bool:
        """True when typed lines stay on the screen by themselves."""

    @property
    def linear(self) -> bool:
        """True when all windows are shown in one, line after line."""

    def show(self, window: Window, entry: Entry) -> None:
        """An entry was added."""

    def refresh(self) -> None:
        """Something that is shown has changed."""

    def configure(self, options: Options) -> None:
        """The settings have changed."""

    def ring(self) -> None:
        """Ring the bell."""

    def notify(self, title: str, text: str) -> None:
        """Show a notification on the desktop."""
