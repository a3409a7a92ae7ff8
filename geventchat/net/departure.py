"""How a conversation ends. Pure."""

from __future__ import annotations

from enum import Enum


class Departure(Enum):
    """Why; the value is what the log says."""

    QUIT = "quit"
    CLOSED = "closed"
    RESET = "reset"
    IDLE = "idle"
    SLOW = "slow"
    SHUTDOWN = "shutdown"
    REFUSED = "refused"
    HTTP = "http"
    TLS = "tls"
    FAULT = "fault"


class Over(Exception):
    """The conversation is over, for this reason."""

    def __init__(self, departure: Departure) -> None:
        super().__init__(departure.value)
        self.departure = departure
