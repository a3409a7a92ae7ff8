"""Where settings come from: flag before environment before file before default. Must not know what a server does with them.

Each setting is one row of a table; its flag, its environment variable `GEVENTCHAT_…` and its key in the file are the same
word in three spellings. Whatever is unknown or wrong is refused with the key, the value and what would be right.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geventchat.config import Config, ConfigError, IdleNotice, Limits, Listen
from geventchat.dialects import DIALECTS
from geventchat.journal import FORMATS, LEVELS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "GEVENTCHAT_"
# The documents that the server follows name these two, in this order.
PORT_VARIABLES = ("CHAT_PORT", "PORT")
DEFAULT = "default"


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Reads a whole number."""

    def read(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            raise ValueError
        return number

    return read


def seconds(text: str) -> float:
    """Reads a finite number that is not negative."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError
    return number


def yes_or_no(text: str) -> bool:
    """Reads a yes or a no, as files, environments and flags spell it."""
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]


def one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    """Reads one word of several."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return read


def place(text: str) -> Listen:
    """Reads DIALECT://HOST:PORT; the host may be left out (every interface), the port too (the dialect's own)."""
    dialect, sep, rest = text.partition("://")
    if not sep or dialect not in DIALECTS:
        raise ValueError
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise ValueError
        port = tail[1:]
    else:
        host, _, port = rest.rpartition(":") if ":" in rest else (rest, "", "")
        if ":" in host:
            raise ValueError
    return Listen(dialect, host, whole(0, 65535)(port) if port else None)


def places(text: str) -> tuple[Listen, ...]:
    """Reads several places, with commas or spaces between."""
    return tuple(place(word) for word in text.replace(",", " ").split())


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: the key, how its text is read, what would be right, what it is when nobody says."""

    key: str
    read: Callable[[str], Any]
    wanted: str
    default: Any

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.key.upper().replace("-", "_")


_LIMITS = Limits()
_COUNT = "a whole number of at least 1"
_SECONDS = "a number of seconds, zero or more"

SETTINGS: dict[str, Setting] = {
    setting.key: setting
    for setting in (
        Setting("port", whole(0, 65535), "a port from 0 to 65535", DIALECTS["line"].port),
        Setting("host", str, "a host name or address; nothing means every interface", "0.0.0.0"),
        Setting("listen", places, "DIALECT://HOST:PORT, with DIALECT one of " + ", ".join(DIALECTS), ()),
        Setting("idle-timeout", seconds, _SECONDS + " (0: never)", None),
        Setting("idle-notice", one_of(("info", "err", "none")), "info, err or none", "info"),
        Setting("max-clients", whole(1), _COUNT, _LIMITS.clients),
        Setting("max-per-address", whole(1), _COUNT, _LIMITS.clients_per_address),
        Setting("max-line", whole(16), "a whole number of at least 16 bytes", _LIMITS.line_bytes),
        Setting("max-queue", whole(1024), "a whole number of at least 1024 bytes", _LIMITS.queue_bytes),
        Setting(
            "rate", seconds, "a number of lines per second, zero or more (0: no limit)", _LIMITS.lines_per_s
        ),
        Setting("burst", whole(1), _COUNT, _LIMITS.burst_lines),
        Setting("shutdown-timeout", seconds, _SECONDS, Config().shutdown_s),
        Setting("log-format", one_of(FORMATS), " or ".join(FORMATS), FORMATS[0]),
        Setting("log-level", one_of(tuple(LEVELS)), "one of " + ", ".join(LEVELS), "info"),
        Setting("log-messages", yes_or_no, "yes or no", False),
    )
}


@dataclass(frozen=True, slots=True)
class Settled:
    """A setting in force, and where it came from."""

    value: Any
    source: str
    rank: int


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings in force."""

    settled: Mapping[str, Settled]

    def __getitem__(self, key: str) -> Any:
        return self.settled[key].value

    @property
    def listen(self) -> tuple[Listen, ...]:
        """Where to listen: `line` on the port, unless a `line` place of at least the same weight replaces it."""
        asked: tuple[Listen, ...] = self["listen"]
        port, weight = self.settled["port"], self.settled["listen"].rank
        replaced = any(listen.dialect == "line" for listen in asked) and (
            port.source == DEFAULT or port.rank < weight
        )
        return asked if replaced else (Listen("line", self["host"], port.value), *asked)

    def config(self) -> Config:
        """What a server is told."""
        limits = Limits(
            clients=self["max-clients"],
            clients_per_address=self["max-per-address"],
            line_bytes=self["max-line"],
            queue_bytes=self["max-queue"],
            lines_per_s=self["rate"],
            burst_lines=self["burst"],
        )
        return Config(
            listen=self.listen,
            idle_s=self["idle-timeout"],
            idle_notice=IdleNotice(self["idle-notice"]),
            limits=limits,
            shutdown_s=self["shutdown-timeout"],
            log_messages=self["log-messages"],
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What one source says of one setting, as text, and how to name that source."""

    text: str
    source: str


def settle(flags: Mapping[str, Told], environment: Mapping[str, str], file: Path | None) -> Settings:
    """Look at each source in turn; raises ConfigError for what is unknown or wrong in any of them."""
    settled = {key: Settled(setting.default, DEFAULT, 0) for key, setting in SETTINGS.items()}
    for rank, told in enumerate((from_file(file), from_environment(environment), flags), start=1):
        for key, said in told.items():
            settled[key] = Settled(_read(SETTINGS[key], said), said.source, rank)
    return Settings(settled)


def config_file(flag: str | None, environment: Mapping[str, str]) -> Path | None:
    """Which file to read, if any."""
    named = flag or environment.get(PREFIX + "CONFIG")
    return Path(named) if named else None


def from_environment(environment: Mapping[str, str]) -> dict[str, Told]:
    """What the environment says; an empty variable says nothing."""
    told: dict[str, Told] = {}
    for variable in reversed(PORT_VARIABLES):
        if environment.get(variable):
            told["port"] = Told(environment[variable], variable)
    by_variable = {setting.variable: key for key, setting in SETTINGS.items()}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or not text or variable == PREFIX + "CONFIG":
            continue
        if variable not in by_variable:
            raise ConfigError(variable, text, "a setting that there is" + _hint(variable, list(by_variable)))
        told[by_variable[variable]] = Told(text, variable)
    return told


def from_file(file: Path | None) -> dict[str, Told]:
    """What a TOML file says; its keys are those of the table, with hyphens or underscores."""
    if file is None:
        return {}
    try:
        with file.open("rb") as stream:
            content = tomllib.load(stream)
    except OSError as error:
        raise ConfigError("config", str(file), f"a file that can be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config", str(file), f"valid TOML ({error})") from error
    told: dict[str, Told] = {}
    for written, value in content.items():
        key = written.replace("_", "-")
        if key not in SETTINGS:
            raise ConfigError(
                written, value, f"a setting that there is (in {file})" + _hint(key, list(SETTINGS))
            )
        if key in told:
            raise ConfigError(written, value, f"said once (in {file})")
        told[key] = Told(_as_text(written, value, file), str(file))
    return told


def _as_text(key: str, value: object, file: Path) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float() | str():
            return str(value)
        case list() if key == "listen" and all(isinstance(item, str) for item in value):
            return " ".join(value)
    raise ConfigError(key, value, f"{SETTINGS[key.replace('_', '-')].wanted} (in {file})")


def _read(setting: Setting, told: Told) -> Any:
    try:
        return setting.read(told.text)
    except (ValueError, KeyError):
        raise ConfigError(setting.key, told.text, f"{setting.wanted} (from {told.source})") from None


def _hint(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else "; known: " + ", ".join(known)
