"""The settings of the client: one table, read from client.toml and changed by /set. Pure but for reading that file.

The fields of `Options` are the table. docs/client.md lists them; a test compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

MAX_SECONDS = 86_400
MAX_COUNT = 10_000
MAX_STAMP_CHARACTERS = 32


class InvalidOption(ValueError):
    """A setting is unknown or has a wrong value; the message says which and what would be right."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of value: what it is called, how it is read from text, and which values are allowed."""

    wanted: str
    read: Callable[[str], Any]
    accepts: Callable[[Any], bool]


def _truth(text: str) -> bool:
    words = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _number(least: float, most: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in {int, float} and (value == 0 or least <= value <= most)


def _choice(*words: str) -> Kind:
    return Kind(f"one of: {', '.join(words)}", str, lambda value: value in words)


def _is_words(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(word, str) and word for word in value)


def _is_stamp(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        shown = datetime(2000, 1, 1).strftime(value)
    except (ValueError, UnicodeError):
        return False
    return len(shown) <= MAX_STAMP_CHARACTERS and shown.isprintable()


SWITCH = Kind("on or off", _truth, lambda value: type(value) is bool)
SECONDS = Kind(f"a number of seconds from 1 to {MAX_SECONDS}, or 0 for never", float, _number(1, MAX_SECONDS))
COUNT = Kind(
    f"a whole number up to {MAX_COUNT}", int, lambda value: type(value) is int and 0 <= value <= MAX_COUNT
)
TEXT = Kind("a text", str, lambda value: isinstance(value, str))
WORDS = Kind("words", lambda text: tuple(text.split()), _is_words)
STAMP = Kind(
    f"a format such as %H:%M, with at most {MAX_STAMP_CHARACTERS} characters when shown; empty for none",
    str,
    _is_stamp,
)
THEMES = ("dark", "light", "contrast", "mono")
SYMBOLS = ("emoji", "plain", "words")
NOTIFICATIONS = ("off", "osc9", "osc777")


def _key(default: Any, kind: Kind, help: str) -> Any:
    return field(default=default, metadata={"kind": kind, "help": help})


@dataclass(frozen=True, slots=True)
class Options:
    """The settings in force."""

    server: str = _key(
        "", TEXT, "where to connect to without an argument: HOST, HOST:PORT or chat://HOST:PORT"
    )
    tls_ca: str = _key("", TEXT, "a file of certificates to trust instead of the system's, over TLS")
    name: str = _key("", TEXT, "your name in the chat")
    rooms: tuple[str, ...] = _key(("lobby",), WORDS, "the rooms to enter at the start")
    timestamps: str = _key("%H:%M:%S", STAMP, "the time before each message")
    theme: str = _key("dark", _choice(*THEMES), "the colours")
    symbols: str = _key("emoji", _choice(*SYMBOLS), "what stands before notices")
    markdown: bool = _key(True, SWITCH, "show **bold**, `code` and blocks of code as such")
    links: bool = _key(True, SWITCH, "make addresses clickable (OSC 8)")
    emoji: bool = _key(True, SWITCH, "send :wave: as an emoji")
    joins: bool = _key(True, SWITCH, "show who enters and leaves")
    bell: bool = _key(True, SWITCH, "ring for mentions and direct messages")
    title: bool = _key(True, SWITCH, "show room and unread messages in the title of the terminal")
    notify: str = _key(
        "off",
        _choice(*NOTIFICATIONS),
        "desktop notifications by an escape sequence, for mentions and direct messages",
    )
    highlight: tuple[str, ...] = _key((), WORDS, "words that count as a mention, besides your name")
    ignore: tuple[str, ...] = _key((), WORDS, "people whose messages are not shown")
    mouse: bool = _key(False, SWITCH, "scroll with the wheel; the terminal then selects text only with Shift")
    screen_reader: bool = _key(
        False, SWITCH, "plain lines with words in place of symbols, and no input line that moves"
    )
    typing: bool = _key(True, SWITCH, "show which users are typing, and let others see when you are")
    keep_alive: float = _key(
        20.0, SECONDS, "send a ping after this time without input, so that the server does not disconnect you"
    )
    reconnect_after: float = _key(
        30.0, SECONDS, "connect again when the server has not answered for this time"
    )
    scrollback: int = _key(50, COUNT, "messages of a room to load on entering it")
    paste_lines: int = _key(5, COUNT, "ask before a paste with more lines is sent")


@dataclass(frozen=True, slots=True)
class Config:
    """What client.toml says: settings, and styles that replace some of the theme's."""

    options: Options = Options()
    colours: Mapping[str, str] = field(default_factory=dict)


KEYS = {one.name.replace("_", "-"): one for one in fields(Options)}
COLOURS = "colours"


def config_path(environment: Mapping[str, str], home: Path) -> Path:
    """The path that the XDG base directory specification asks for; it ignores a relative XDG_CONFIG_HOME."""
    named = environment.get("XDG_CONFIG_HOME", "")
    return (Path(named) if named.startswith("/") else home / ".config") / "geventchat" / "client.toml"


def read_config(path: Path) -> Config:
    """The settings in a file; the defaults if it does not exist. Raises InvalidOption."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise InvalidOption(f"cannot read {path}: {error.strerror}") from error
    # Only who has such a file pays for the parser at each start.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidOption(f"{path} is not valid TOML: {error}") from error
    try:
        return config_of(content)
    except InvalidOption as error:
        raise InvalidOption(f"{path}: {error}") from None


def config_of(content: Mapping[str, object]) -> Config:
    """The settings in a parsed file. Raises InvalidOption."""
    colours: dict[str, str] = {}
    values: dict[str, Any] = {}
    for written, value in content.items():
        key = written.replace("_", "-")
        if key == COLOURS:
            if not isinstance(value, dict) or not all(isinstance(style, str) for style in value.values()):
                raise InvalidOption(
                    f'{COLOURS}: {value!r} is not a table of styles such as mention = "bold yellow"'
                )
            colours = dict(value)
            continue
        kind = _kind(key)
        if isinstance(value, list):
            value = tuple(value)
        values[KEYS[key].name] = _accepted(key, kind, value)
    return Config(replace(Options(), **values), colours)


def changed(options: Options, key: str, text: str) -> Options:
    """The settings after one has been set to a value that was typed. Raises InvalidOption."""
    key = key.replace("_", "-")
    kind = _kind(key)
    try:
        value = kind.read(text)
    except ValueError:
        raise InvalidOption(_wrong(key, text, kind)) from None
    new: dict[str, Any] = {KEYS[key].name: _accepted(key, kind, value)}
    return replace(options, **new)


def shown(options: Options, key: str) -> str:
    """The value of a setting, as it is typed."""
    value = getattr(options, KEYS[key].name)
    match value:
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case tuple():
            return " ".join(value)
        case _:
            return str(value)


def help_of(key: str) -> str:
    """What a setting means."""
    return str(KEYS[key].metadata["help"])


def _kind(key: str) -> Kind:
    if key not in KEYS:
        import difflib

        close = difflib.get_close_matches(key, KEYS, 1, cutoff=0.6)
        raise InvalidOption(f"unknown setting {key}" + (f"; did you mean {close[0]}?" if close else ""))
    kind = KEYS[key].metadata["kind"]
    assert isinstance(kind, Kind)
    return kind


def _accepted(key: str, kind: Kind, value: object) -> object:
    if not kind.accepts(value):
        raise InvalidOption(_wrong(key, value, kind))
    return float(value) if kind is SECONDS else value  # type: ignore[arg-type]


def _wrong(key: str, value: object, kind: Kind) -> str:
    return f"{key}: {value!r} is not {kind.wanted}"
