"""What a server is told: frozen values, units in the names. Must not know where they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from geventchat.dialects import DIALECTS


class ConfigError(ValueError):
    """A setting that cannot be: `key`, `value` and what would be right."""

    def __init__(self, key: str, value: object, wanted: str) -> None:
        super().__init__(f"{key}: {value!r} is not {wanted}")
        self.key, self.value, self.wanted = key, value, wanted


class IdleNotice(Enum):
    """What someone is told who was silent for too long: the documents differ."""

    INFO = "info"
    ERR = "err"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Listen:
    """One place to listen: a dialect, a host (empty: every interface, IPv4 and IPv6), a port (0: any free one)."""

    dialect: str = "line"
    host: str = "0.0.0.0"
    port: int | None = None

    def __post_init__(self) -> None:
        if self.dialect not in DIALECTS:
            raise ConfigError("dialect", self.dialect, "one of " + ", ".join(DIALECTS))
        if self.port is None:
            object.__setattr__(self, "port", DIALECTS[self.dialect].port)
        if not 0 <= (self.port or 0) <= 65535:
            raise ConfigError("port", self.port, "a port from 0 to 65535")


@dataclass(frozen=True, slots=True)
class Limits:
    """Everything that can grow, and how far."""

    clients: int = 10_000
    clients_per_address: int = 1_000
    line_bytes: int = 4_096
    queue_bytes: int = 1_048_576
    lines_per_s: float = 50.0
    burst_lines: int = 200
    # A client that has ended its side, or was dismissed, gets this long to take what it is still owed …
    flush_s: float = 10.0
    # … and then this long to close, so that its last unread words do not turn the end into a reset.
    linger_s: float = 1.0
    # So many at one time, those refused at the door included; more are closed at once, or without a word.
    partings: int = 256

    def __post_init__(self) -> None:
        for key, least in (
            ("clients", 1),
            ("clients_per_address", 1),
            ("line_bytes", 16),
            ("queue_bytes", 1024),
        ):
            if getattr(self, key) < least:
                raise ConfigError(key, getattr(self, key), f"a whole number of at least {least}")
        for key in ("lines_per_s", "flush_s", "linger_s", "partings"):
            if getattr(self, key) < 0:
                raise ConfigError(key, getattr(self, key), "zero or more")
        if self.burst_lines < 1:
            raise ConfigError("burst_lines", self.burst_lines, "a whole number of at least 1")


@dataclass(frozen=True, slots=True)
class Config:
    """All that a server is told. `idle_s` None leaves each dialect its own cutoff; 0 is never."""

    listen: tuple[Listen, ...] = (Listen(),)
    idle_s: float | None = None
    idle_notice: IdleNotice = IdleNotice.INFO
    limits: Limits = field(default_factory=Limits)
    shutdown_s: float = 10.0
    log_messages: bool = False

    def __post_init__(self) -> None:
        if not self.listen:
            raise ConfigError("listen", (), "at least one place to listen")
        if self.idle_s is not None and self.idle_s < 0:
            raise ConfigError("idle_s", self.idle_s, "zero (never) or more seconds")
        if self.shutdown_s < 0:
            raise ConfigError("shutdown_s", self.shutdown_s, "zero or more seconds")
