"""Every setting of the server: its name, type, default and meaning, and how its value is found.

The fields of `Program`, `Config` and `Limits` are the only table of settings. The flags, the variables, the keys of the file,
the checks, `--help`, `--check` and docs/options.md are generated from it; a new setting is a new field. This module imports no
sockets and no gevent.

- A field with a key can be set on the command line, in the environment and in a file. A field without one is only for programs
  that embed the server.
- Text is read and then checked. A value passed in Python goes through the same check.
- A flag overrides the environment, the environment overrides the file, and the file overrides the default.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from geventchat.chat.addresses import Network, parse_network, text_of
from geventchat.chat.events import NoticeReason
from geventchat.chat.limits import ChatLimits
from geventchat.chat.names import MAX_LENGTH, RESERVED_NAMES, InvalidName, parse_name
from geventchat.chat.text import clean
from geventchat.dialects import DIALECTS
from geventchat.dialects.words import notice_word
from geventchat.log import FORMATS, LEVELS
from geventchat.web.origins import is_origin

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "GEVENTCHAT_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
# Hosting platforms and the protocol documents use these names for the port; the first one that has a value counts.
PORT_VARIABLES = ("CHAT_PORT", "PORT")
# Kubernetes gives each pod such variables for each Service of its namespace, named after it, such as CHAT or GEVENTCHAT_WEB.
_SERVICE_LINK = re.compile(r"\w+_SERVICE_(HOST|PORT(_\w+)?)|\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
DEFAULT = "default"
# The exit code of every command that a setting keeps from running.
EXIT_CONFIGURATION = 3


class ConfigError(ValueError):
    """A setting that is unknown, duplicate or wrong. `key` is the setting as it was written."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


# --- Types of values -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of value: how text is read, which values are accepted, and how values are described and shown.

    `read` raises ValueError for text that cannot be read; what it returns still has to be accepted.
    """

    wanted: str
    metavar: str
    read: Callable[[str], Any]
    accepts: Callable[[Any], bool]
    show: Callable[[Any], str] = str
    unit: str = ""


def integer(least: int, most: int | None = None, *, unit: str = "", metavar: str = "N") -> Kind:
    """A whole number in a range."""

    def accepts(value: object) -> bool:
        return type(value) is int and value >= least and (most is None or value <= most)

    bounds = f"at least {least}" if most is None else f"from {least} to {most}"
    wanted = f"a whole number of {unit}, {bounds}" if unit else f"a whole number of {bounds}"
    return Kind(wanted, metavar, int, accepts, unit=unit)


def number(*, unit: str, metavar: str = "N") -> Kind:
    """A finite number, zero or more."""
    return Kind(f"a number of {unit}, at least 0", metavar, float, _is_number, "{:.15g}".format, unit)


def _is_number(value: object) -> bool:
    return type(value) in {int, float} and 0 <= value < math.inf  # type: ignore[operator]


def choice(values: Iterable[str]) -> Kind:
    """One of several words."""
    words = tuple(values)
    return Kind(_either(words), "|".join(words), str, lambda value: value in words)


def member(enum: type[Enum]) -> Kind:
    """A member of an enumeration, written as its value."""
    words = [str(one.value) for one in enum]
    return Kind(_either(words), "|".join(words), enum, lambda value: isinstance(value, enum), _value_of)


def _value_of(one: Enum) -> str:
    return str(one.value)


def _either(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}"


_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _read_truth(text: str) -> bool:
    if text.lower() not in _TRUTH:
        raise ValueError(text)
    return _TRUTH[text.lower()]


BOOLEAN = Kind(
    "yes or no", "", _read_truth, lambda value: type(value) is bool, {True: "yes", False: "no"}.__getitem__
)
PORT = replace(integer(0, 65535, metavar="PORT"), wanted="a port from 0 to 65535")


@dataclass(frozen=True, slots=True)
class ServiceDefaults:
    """Where a service listens unless its address says otherwise. An empty host means every interface."""

    port: int
    host: str = ""


# The services that a listener can have, by the beginning of its scheme. `Server._make_services` makes each.
SERVICES: dict[str, ServiceDefaults] = {
    **{name: ServiceDefaults(dialect.port) for name, dialect in DIALECTS.items()},
    "metrics": ServiceDefaults(9464, "127.0.0.1"),
    "web": ServiceDefaults(4080),
}
# How the clients of a listener reach their service, by the end of its scheme: TCP, TLS over it, or a Unix socket.
_TLS, _UNIX = "+tls", "+unix"


def _is_scheme(value: object) -> bool:
    if type(value) is not str:
        return False
    return any(value.removesuffix(carrier) in SERVICES for carrier in ("", _TLS, _UNIX))


SCHEME = Kind(f"{_either(SERVICES)}, alone or with {_TLS} or {_UNIX}", "SCHEME", str, _is_scheme)


def _is_host(value: object) -> bool:
    if type(value) is not str or not value.isprintable() or any(map(str.isspace, value)):
        return False
    try:
        value.encode("idna")
    except UnicodeError:
        return False
    return True


def _is_path(value: object) -> bool:
    return type(value) is str and "\0" not in value


# The kernel keeps the path of a socket in 108 bytes. The rest is for the name that a new one has at first.
_MOST_SOCKET_PATH_BYTES = 96


def _is_socket_path(value: object) -> bool:
    return (
        _is_path(value)
        and str(value).startswith("/")
        and len(os.fsencode(str(value))) <= _MOST_SOCKET_PATH_BYTES
    )


PATH = Kind("a directory", "DIR", str, _is_path, lambda value: value or "none")
FILE = Kind("a file", "FILE", str, _is_path, lambda value: value or "none")
SOCKET_PATH = Kind(
    f"an absolute path of at most {_MOST_SOCKET_PATH_BYTES} bytes", "PATH", str, _is_socket_path
)
MODE = Kind(
    "permissions from 0 to 777, in octal",
    "MODE",
    lambda text: int(text, 8),
    lambda value: type(value) is int and 0 <= value <= 0o777,
    oct,
)
HOST = Kind("a host name or an address", "HOST", str, _is_host)


# Only the user that the server runs as can connect.
_SOCKET_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on, and the scheme of what is spoken there.

    An empty host means every interface, IPv4 and IPv6; port 0 means any free port. Without a host it is every interface of
    IPv4, or that of the service; without a port it is that of the service. A Unix socket has a path instead, and the mode of
    its file. A TLS listener can have its own certificate and key.
    """

    scheme: str = "line"
    host: str | None = None
    port: int | None = None
    path: str = ""
    mode: int = _SOCKET_MODE
    cert: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        _require("scheme", self.scheme, SCHEME)
        if self.is_unix:
            object.__setattr__(self, "host", self.host or "")
            object.__setattr__(self, "port", self.port or 0)
            if self.host or self.port:
                raise ConfigError("path", f"path: {self.scheme} has no host and no port")
            _require("path", self.path, SOCKET_PATH)
            _require("mode", self.mode, MODE)
        elif self.path:
            raise ConfigError("path", f"path: {self.scheme} has a host and a port instead of {self.path!r}")
        if self.host is None:
            object.__setattr__(self, "host", SERVICES[self.service].host or "0.0.0.0")
        _require("host", self.host, HOST)
        if self.port is None:
            object.__setattr__(self, "port", SERVICES[self.service].port)
        _require("port", self.port, PORT)
        for name, file in (("cert", self.cert), ("key", self.key)):
            _require(name, file, FILE)
            if file and not self.is_tls:
                raise ConfigError(name, f"{name}: {self.scheme} has no certificate")
        if self.key and not self.cert:
            raise ConfigError("cert", f"cert: missing; {self.key} is the key of a certificate")

    @property
    def service(self) -> str:
        """The name of what serves its clients."""
        return self.scheme.partition("+")[0]

    @property
    def is_tls(self) -> bool:
        """True if its clients speak TLS."""
        return self.scheme.endswith(_TLS)

    @property
    def is_unix(self) -> bool:
        """True for a Unix socket."""
        return self.scheme.endswith(_UNIX)

    @property
    def shown(self) -> str:
        """Where it listens, without the scheme: HOST:PORT, or the path."""
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"

    def __str__(self) -> str:
        options = {"cert": self.cert, "key": self.key}
        if self.is_unix and self.mode != _SOCKET_MODE:
            options["mode"] = f"{self.mode:o}"
        query = "&".join(f"{name}={quote(value)}" for name, value in options.items() if value)
        place = quote(self.path) if self.is_unix else self.shown
        return f"{self.scheme}://{place}{'?' if query else ''}{query}"


# The options that can follow an address, as in ?cert=FILE&key=FILE.
_LISTEN_OPTIONS: dict[str, Callable[[str], Any]] = {"cert": str, "key": str, "mode": MODE.read}


def read_listen(text: str) -> Listen:
    """Read SCHEME://HOST:PORT. The host can be missing (every interface, or that of the service), and so can the port.

    With +unix in the scheme, read SCHEME:///PATH. Options follow behind a question mark. In them and in the path, %XX is a
    byte in hexadecimal.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or not _is_scheme(scheme):
        raise ValueError(text)
    rest, _, query = rest.partition("?")
    options: dict[str, Any] = {}
    for option in query.split("&") if query else ():
        name, equals, value = option.partition("=")
        if not equals or name not in _LISTEN_OPTIONS or name in options:
            raise ValueError(text)
        options[name] = _LISTEN_OPTIONS[name](unquote(value))
    if scheme.endswith(_UNIX):
        return Listen(scheme, path=unquote(rest), **options)
    if "mode" in options:
        raise ValueError(text)
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise ValueError(text)
        port = tail[1:]
    else:
        host, _, port = rest.rpartition(":") if ":" in rest else (rest, "", "")
        if ":" in host:
            raise ValueError(text)
    default = SERVICES[scheme.removesuffix(_TLS)].host
    return Listen(scheme, host or default, int(port) if port else None, **options)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _read_listens(text: str) -> tuple[Listen, ...]:
    return tuple(map(read_listen, _words(text)))


def _are_listens(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(one, Listen) for one in value)


LISTENS = Kind(
    f"one or more of SCHEME://HOST:PORT, or SCHEME:///PATH with {_UNIX}, where SCHEME is {SCHEME.wanted}",
    "SCHEME://HOST:PORT",
    _read_listens,
    _are_listens,
    lambda value: " ".join(map(str, value)),
)


def _are_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) and _is_name(one) for one in value)


def _is_name(word: str) -> bool:
    try:
        parse_name(word)
    except InvalidName:
        return False
    return True


NAMES = Kind(
    f"zero or more names, each of 1 to {MAX_LENGTH} letters, digits, '_', '-' or '.'",
    "NAMES",
    _words,
    _are_names,
    " ".join,
)


def _read_networks(text: str) -> tuple[Network, ...]:
    found = list(map(parse_network, _words(text)))
    if None in found:
        raise ValueError(text)
    return tuple(one for one in found if one is not None)


def _are_networks(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, IPv4Network | IPv6Network) for one in value)


NETWORKS = Kind(
    "zero or more addresses or ranges, such as 10.0.0.0/8 or ::1",
    "NETWORKS",
    _read_networks,
    _are_networks,
    lambda value: " ".join(map(text_of, value)) or "none",
)


def _are_origins(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) and is_origin(one) for one in value)


ORIGINS = Kind(
    "zero or more origins, such as https://chat.example or chat.example",
    "ORIGINS",
    _words,
    _are_origins,
    lambda value: " ".join(value) or "none",
)


# A file can have a list of these, and their options can be repeated.
LISTS = (LISTENS, NAMES, NETWORKS, ORIGINS)


_MOST_GREETING_BYTES = 512
# In the line dialect, clients would take these for the reason why they are disconnected.
_NOTICE_WORDS = frozenset(map(notice_word, NoticeReason))


def _is_greeting(value: object) -> bool:
    if type(value) is not str or not value:
        return value == ""
    cleaned = clean(value) if len(value) <= _MOST_GREETING_BYTES else ""
    return (
        bool(cleaned)
        and "\n" not in value
        and len(cleaned.encode()) <= _MOST_GREETING_BYTES
        and cleaned.partition(" ")[0] not in _NOTICE_WORDS
    )


GREETING = Kind(
    f"a line of at most {_MOST_GREETING_BYTES} bytes that shows something and does not begin with the word of a notice, such as"
    f" {notice_word(NoticeReason.SHUTDOWN)}",
    "TEXT",
    str,
    _is_greeting,
    lambda value: value or "none",
)


def _show_idle(value: float | None) -> str:
    if value is not None:
        return f"{value:g}"
    return ", ".join(f"{dialect.name} {dialect.idle_s:g}" for dialect in DIALECTS.values())


SECONDS = number(unit="seconds", metavar="SECONDS")
BYTES = integer(1, unit="bytes", metavar="BYTES")
BYTE_RATE = number(unit="bytes per second", metavar="BYTES")
IDLE = replace(SECONDS, accepts=lambda value: value is None or _is_number(value), show=_show_idle)


def _require(key: str, value: object, kind: Kind) -> None:
    if not kind.accepts(value):
        raise _wrong(key, value, kind)


def _wrong(key: str, written: object, kind: Kind, source: str | None = None) -> ConfigError:
    origin = "" if source is None else f" (from {source})"
    return ConfigError(key, f"{key}: {written!r} is not {kind.wanted}{origin}")


# --- The table -------------------------------------------------------------------------------------------------------


class Group(Enum):
    """A heading in `--help` and in docs/options.md."""

    ADDRESSES = "Addresses"
    NAMES = "Names"
    GREETING = "Greeting"
    TIMES = "Time limits"
    SIZES = "Size limits"
    CLIENT_RATES = "Rate limits for one client"
    ADDRESS_RATES = "Rate limits for one address (one IPv4 address, or one /64 of IPv6)"
    NETWORK_RATES = "Rate limits for one network (one /24 of IPv4, or one /48 of IPv6)"
    ROOM_RATES = "Rate limits for a room"
    STORAGE = "Storage"
    OPERATIONS = "Operations"
    LOG = "Log"
    EMBEDDING = "Limits for embedding programs"


class Reload(Enum):
    """From when on a changed value counts, if the settings are read again while the server runs."""

    AT_ONCE = "at once"
    NEW_CLIENTS = "new clients"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. Without a key it is only a field."""

    key: str | None
    kind: Kind
    group: Group
    help: str
    letter: str | None
    off_with_rate: bool
    default: Any
    reload: Reload | None
    table: str = ""
    field: str = ""

    @property
    def flag(self) -> str:
        """Its spelling on the command line."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """Its spelling in the environment."""
        return PREFIX + str(self.key).upper().replace("-", "_")


def setting(
    key: str | None,
    default: Any,
    kind: Kind,
    group: Group,
    help: str,
    *,
    letter: str | None = None,
    off_with_rate: bool = False,
    reload: Reload | None = None,
) -> Any:
    """Declare a field as a row of the table. `off_with_rate`: a rate of 0 lines per second sets it to 0 too.

    Limits can be reloaded unless they say otherwise, since all parts of a server hold the same ones; other settings cannot.
    """
    row = Setting(key, kind, group, help, letter, off_with_rate, default, reload)
    return field(default=default, metadata={"setting": row})


_rows: dict[type, tuple[Setting, ...]] = {}


def settings_of(table: Any) -> tuple[Setting, ...]:
    """The rows that a table, or an instance of one, declares."""
    kind = table if isinstance(table, type) else type(table)
    if kind not in _rows:
        declared = [(one.name, one.metadata.get("setting")) for one in fields(kind)]
        otherwise = Reload.AT_ONCE if kind.__name__ == "Limits" else Reload.RESTART
        _rows[kind] = tuple(
            replace(row, table=kind.__name__, field=one, reload=row.reload or otherwise)
            for one, row in declared
            if row is not None
        )
    return _rows[kind]


class _Checked:
    """A table whose values are checked when it is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for row in settings_of(self):
            _require(row.field, getattr(self, row.field), row.kind)


class IdleNotice(Enum):
    """The notice that an idle client receives before it is disconnected. The protocol documents differ."""

    INFO = "info"
    ERR = "err"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Program(_Checked):
    """Settings of the command `geventchat` that a `Server` does not have."""

    port: int = setting(
        "port",
        DIALECTS["line"].port,
        PORT,
        Group.ADDRESSES,
        "port for the line dialect; 0 means any free port",
        letter="p",
    )
    host: str = setting(
        "host",
        "0.0.0.0",
        HOST,
        Group.ADDRESSES,
        "address for the line dialect; an empty one means every interface, IPv4 and IPv6",
    )
    admin_socket: str = setting(
        "admin-socket",
        "",
        FILE,
        Group.OPERATIONS,
        "Unix socket for `geventchat admin`; without it, `admin.sock` in the data directory, if there is one",
    )
    log_format: str = setting(
        "log-format",
        FORMATS[0],
        choice(FORMATS),
        Group.LOG,
        "format of the log on standard error",
        reload=Reload.AT_ONCE,
    )
    log_level: str = setting(
        "log-level", "info", choice(LEVELS), Group.LOG, "lowest level that is logged", reload=Reload.AT_ONCE
    )


@dataclass(frozen=True, slots=True)
class Limits(_Checked):
    """Limits on everything that can grow."""

    clients: int = setting("max-clients", 10_000, integer(1), Group.SIZES, "connections allowed at one time")
    clients_per_address: int = setting(
        "max-per-address",
        1_000,
        integer(1),
        Group.SIZES,
        "connections allowed per address; all of them also count for its network",
    )
    clients_per_network: int = setting(
        "max-per-network",
        4_000,
        integer(1),
        Group.SIZES,
        "connections allowed per network (one /24 of IPv4, or one /48 of IPv6)",
    )
    line_bytes: int = setting(
        "max-line",
        4_096,
        integer(16, unit="bytes", metavar="BYTES"),
        Group.SIZES,
        "longest line that is accepted, without its line ending",
        reload=Reload.NEW_CLIENTS,
    )
    queue_bytes: int = setting(
        "max-queue",
        1_048_576,
        integer(1024, unit="bytes", metavar="BYTES"),
        Group.SIZES,
        "bytes that can wait for a client that does not read; a client with more waiting is disconnected",
    )
    lines_per_s: float = setting(
        "rate",
        50.0,
        number(unit="lines per second"),
        Group.CLIENT_RATES,
        "lines per second in the long run; 0 turns off every limit on lines, bytes, connections, logins and new rooms per time",
        off_with_rate=True,
    )
    burst_lines: int = setting(
        "burst", 200, integer(1, unit="lines"), Group.CLIENT_RATES, "lines that can come at once"
    )
    bytes_per_s: float = setting(
        "byte-rate",
        16_384.0,
        BYTE_RATE,
        Group.CLIENT_RATES,
        "bytes per second in the long run; 0: no limit",
        off_with_rate=True,
    )
    burst_bytes: int = setting(
        "byte-burst", 262_144, BYTES, Group.CLIENT_RATES, "bytes that can come at once"
    )
    stranger_bytes_per_s: float = setting(
        "stranger-rate",
        8_192.0,
        BYTE_RATE,
        Group.CLIENT_RATES,
        "bytes per second of direct messages that a client accepts from people it has not written to; 0: no limit",
        reload=Reload.NEW_CLIENTS,
    )
    stranger_burst_bytes: int = setting(
        "stranger-burst",
        65_536,
        BYTES,
        Group.CLIENT_RATES,
        "bytes of direct messages from strangers that can come at once",
        reload=Reload.NEW_CLIENTS,
    )
    address_bytes_per_s: float = setting(
        "address-byte-rate",
        65_536.0,
        BYTE_RATE,
        Group.ADDRESS_RATES,
        "bytes per second from all clients of one address, in the long run; 0: no limit",
        off_with_rate=True,
    )
    address_burst_bytes: int = setting(
        "address-byte-burst", 1_048_576, BYTES, Group.ADDRESS_RATES, "bytes that can come at once"
    )
    address_connections_per_s: float = setting(
        "address-connection-rate",
        20.0,
        number(unit="connections per second"),
        Group.ADDRESS_RATES,
        "new connections per second, in the long run; 0: no limit",
        off_with_rate=True,
    )
    address_burst_connections: int = setting(
        "address-connection-burst",
        1_000,
        integer(1, unit="connections"),
        Group.ADDRESS_RATES,
        "new connections that can come at once",
    )
    address_logins_per_s: float = setting(
        "address-login-rate",
        5.0,
        number(unit="logins per second"),
        Group.ADDRESS_RATES,
        "logins per second, in the long run; 0: no limit",
        off_with_rate=True,
    )
    address_burst_logins: int = setting(
        "address-login-burst",
        1_000,
        integer(1, unit="logins"),
        Group.ADDRESS_RATES,
        "logins that can come at once",
    )
    address_rooms_per_min: float = setting(
        "address-room-rate",
        30.0,
        number(unit="rooms per minute"),
        Group.ADDRESS_RATES,
        "new rooms per minute, in the long run; 0: no limit",
        off_with_rate=True,
    )
    address_burst_rooms: int = setting(
        "address-room-burst",
        100,
        integer(1, unit="rooms"),
        Group.ADDRESS_RATES,
        "new rooms that can come at once",
    )
    address_accounts_per_min: float = setting(
        "address-account-rate",
        1.0,
        number(unit="accounts per minute"),
        Group.ADDRESS_RATES,
        "new accounts per minute, in the long run; 0: no limit",
        off_with_rate=True,
    )
    address_burst_accounts: int = setting(
        "address-account-burst",
        30,
        integer(1, unit="accounts"),
        Group.ADDRESS_RATES,
        "new accounts that can come at once",
    )
    address_log_lines_per_s: float = setting(
        "address-log-rate",
        20.0,
        number(unit="log lines per second"),
        Group.ADDRESS_RATES,
        "lines per second in the server's log, in the long run; 0: no limit",
    )
    address_burst_log_lines: int = setting(
        "address-log-burst",
        3_000,
        integer(1, unit="log lines"),
        Group.ADDRESS_RATES,
        "lines in the server's log that can come at once",
    )
    network_bytes_per_s: float = setting(
        "network-byte-rate",
        262_144.0,
        BYTE_RATE,
        Group.NETWORK_RATES,
        "bytes per second from all clients of one network, in the long run; 0: no limit",
        off_with_rate=True,
    )
    network_burst_bytes: int = setting(
        "network-byte-burst", 4_194_304, BYTES, Group.NETWORK_RATES, "bytes that can come at once"
    )
    network_connections_per_s: float = setting(
        "network-connection-rate",
        80.0,
        number(unit="connections per second"),
        Group.NETWORK_RATES,
        "new connections per second, in the long run; 0: no limit",
        off_with_rate=True,
    )
    network_burst_connections: int = setting(
        "network-connection-burst",
        4_000,
        integer(1, unit="connections"),
        Group.NETWORK_RATES,
        "new connections that can come at once",
    )
    network_logins_per_s: float = setting(
        "network-login-rate",
        20.0,
        number(unit="logins per second"),
        Group.NETWORK_RATES,
        "logins per second, in the long run; 0: no limit",
        off_with_rate=True,
    )
    network_burst_logins: int = setting(
        "network-login-burst",
        4_000,
        integer(1, unit="logins"),
        Group.NETWORK_RATES,
        "logins that can come at once",
    )
    network_rooms_per_min: float = setting(
        "network-room-rate",
        120.0,
        number(unit="rooms per minute"),
        Group.NETWORK_RATES,
        "new rooms per minute, in the long run; 0: no limit",
        off_with_rate=True,
    )
    network_burst_rooms: int = setting(
        "network-room-burst",
        400,
        integer(1, unit="rooms"),
        Group.NETWORK_RATES,
        "new rooms that can come at once",
    )
    network_accounts_per_min: float = setting(
        "network-account-rate",
        4.0,
        number(unit="accounts per minute"),
        Group.NETWORK_RATES,
        "new accounts per minute, in the long run; 0: no limit",
        off_with_rate=True,
    )
    network_burst_accounts: int = setting(
        "network-account-burst",
        120,
        integer(1, unit="accounts"),
        Group.NETWORK_RATES,
        "new accounts that can come at once",
    )
    network_log_lines_per_s: float = setting(
        "network-log-rate",
        80.0,
        number(unit="log lines per second"),
        Group.NETWORK_RATES,
        "lines per second in the server's log, in the long run; 0: no limit",
    )
    network_burst_log_lines: int = setting(
        "network-log-burst",
        # Well below what can wait for a log that is not read, so that the lines of others still fit.
        4_000,
        integer(1, unit="log lines"),
        Group.NETWORK_RATES,
        "lines in the server's log that can come at once",
    )
    floor_bytes_per_s: float = setting(
        "floor-rate",
        65_536.0,
        BYTE_RATE,
        Group.ROOM_RATES,
        "bytes per second that all speakers of a room can send together, however slow its readers are; 0: no limit",
    )
    login_s: float = setting(
        "login-timeout",
        60.0,
        SECONDS,
        Group.TIMES,
        "disconnect clients that have not logged in this long after connecting; 0: never",
        reload=Reload.NEW_CLIENTS,
    )
    handshake_s: float = setting(
        "handshake-timeout",
        10.0,
        number(unit="seconds", metavar="SECONDS"),
        Group.TIMES,
        "disconnect clients that take this long for a first TLS record, the rest of a handshake, or a proxy header; 0: never",
    )
    request_s: float = setting(
        "request-timeout",
        20.0,
        SECONDS,
        Group.TIMES,
        "disconnect HTTP clients that have not sent a whole request this long after connecting or the last answer; 0: never",
    )
    flush_s: float = setting(
        None, 10.0, SECONDS, Group.EMBEDDING, "time for a closing client to read what is pending for it"
    )
    linger_s: float = setting(
        None, 1.0, SECONDS, Group.EMBEDDING, "time for a client to close its side of the connection as well"
    )
    lingering: int = setting(
        None,
        256,
        integer(0),
        Group.EMBEDDING,
        "connections that can linger while closing; further ones are closed at once",
    )
    chunk_bytes: int = setting(
        None, 16_384, BYTES, Group.EMBEDDING, "most bytes read from one client at a time"
    )
    login_chunk_bytes: int = setting(
        None, 4_096, BYTES, Group.EMBEDDING, "most bytes read at a time from a client that has not logged in"
    )
    outgoing_bytes: int = setting(
        None,
        131_072,
        BYTES,
        Group.EMBEDDING,
        "encoded bytes that wait for the next flush, after which speakers wait until they are sent",
    )
    piece_bytes: int = setting(
        None, 8_192, BYTES, Group.EMBEDDING, "most bytes of one client's lines that are handled as one event"
    )
    piece_lines: int = setting(
        None,
        64,
        integer(1, unit="lines"),
        Group.EMBEDDING,
        "most lines of one client that are handled as one event",
    )
    answer_bytes: int = setting(
        None,
        65_536,
        BYTES,
        Group.EMBEDDING,
        "bytes of a client's own answers that can wait before the server stops reading from it",
    )
    rooms: int = setting(
        "max-rooms", 10_000, integer(1, unit="rooms"), Group.SIZES, "rooms that can exist at one time"
    )
    rooms_per_client: int = setting(
        "max-rooms-per-client",
        50,
        integer(1, unit="rooms"),
        Group.SIZES,
        "rooms that one client can be in, if its dialect allows more than one",
    )
    topic_characters: int = setting(
        None, 300, integer(1, unit="characters"), Group.EMBEDDING, "longest topic of a room"
    )
    empty_room_s: float = setting(
        "empty-room-timeout", 600.0, SECONDS, Group.TIMES, "how long an empty room is kept"
    )
    kept_rooms: int = setting(
        "max-rooms-per-account",
        20,
        integer(0, unit="rooms"),
        Group.SIZES,
        "rooms of one account that are kept while they are empty",
    )
    kept_room_s: float = setting(
        "unused-room-timeout",
        90 * 86_400.0,
        SECONDS,
        Group.TIMES,
        "how long an empty room of an account is kept",
    )
    room_bans: int = setting(
        "max-room-bans", 200, integer(1, unit="bans"), Group.SIZES, "bans, and mutes, of one room"
    )
    all_room_bans: int = setting(
        None,
        50_000,
        integer(0, unit="bans"),
        Group.EMBEDDING,
        "bans and mutes of all rooms together; beyond it only rooms with few can have one more",
    )
    server_bans: int = setting(
        "max-server-bans", 10_000, integer(1, unit="bans"), Group.SIZES, "bans, and mutes, of the server"
    )
    room_roles: int = setting(
        None, 100, integer(1), Group.EMBEDDING, "moderators of one room, and accounts with voice in it"
    )
    invitations: int = setting(
        None,
        100,
        integer(1),
        Group.EMBEDDING,
        "invitations to one private room that are remembered; the oldest are forgotten",
    )
    invitation_s: float = setting(
        None, 7 * 86_400.0, SECONDS, Group.EMBEDDING, "how long an invitation to a private room is good for"
    )
    ignored: int = setting(None, 100, integer(1), Group.EMBEDDING, "names that one client can ignore")
    room_key_characters: int = setting(
        None, 64, integer(1, unit="characters"), Group.EMBEDDING, "longest key of a room"
    )
    reason_characters: int = setting(
        None,
        200,
        integer(1, unit="characters"),
        Group.EMBEDDING,
        "longest reason of a kick or a ban; the rest is cut off",
    )
    accounts: int = setting(
        "max-accounts",
        100_000,
        integer(0, unit="accounts"),
        Group.SIZES,
        "accounts; an account takes about 1 KB of memory",
    )
    tokens: int = setting(None, 20, integer(0), Group.EMBEDDING, "tokens of one account")
    unused_account_s: float = setting(
        "unused-account-timeout",
        365 * 86_400.0,
        SECONDS,
        Group.TIMES,
        "accounts that were not used for this long are deleted when the server starts, but not at an upgrade; 0: never",
        reload=Reload.RESTART,
    )
    history_messages: int = setting(
        "history-messages",
        1_000,
        integer(0, unit="messages"),
        Group.SIZES,
        "messages of each room that are kept in memory; 0: none",
    )
    history_bytes: int = setting(
        "history-bytes", 1_048_576, BYTES, Group.SIZES, "memory for the messages of one room"
    )
    history_total_bytes: int = setting(
        "history-total-bytes",
        268_435_456,
        BYTES,
        Group.SIZES,
        "memory for the messages of all rooms; the rooms that have been quiet for longest lose theirs first",
    )
    history_page_messages: int = setting(
        None, 200, integer(1, unit="messages"), Group.EMBEDDING, "messages that are listed at once"
    )
    contacts: int = setting(
        None,
        1_000,
        integer(0),
        Group.EMBEDDING,
        "people the server remembers that one client has written to; the oldest are forgotten",
    )

    typing_interval_s: float = setting(
        None, 1.0, SECONDS, Group.EMBEDDING, "typing of one client is announced at most once in this time"
    )
    listed_users: int = setting(
        None,
        500,
        integer(1, unit="names"),
        Group.EMBEDDING,
        "most names, or bans, in one answer to a client of json version 2",
    )
    listed_rooms: int = setting(
        None, 500, integer(1, unit="rooms"), Group.EMBEDDING, "most rooms in the answer to ROOMS"
    )
    message_key_s: float = setting(
        None, 600.0, SECONDS, Group.EMBEDDING, "how long the server knows the key of a message"
    )
    message_keys_per_name: int = setting(
        None, 1_000, integer(1), Group.EMBEDDING, "keys of messages that the server knows of one name"
    )
    message_keys: int = setting(
        None, 100_000, integer(1), Group.EMBEDDING, "keys of messages that the server knows in all"
    )

    callback_events: int = setting(
        None,
        1_000,
        integer(1),
        Group.EMBEDDING,
        "events that can wait for a callback; while they do, later ones are dropped",
    )

    @property
    def chat(self) -> ChatLimits:
        """The limits on what the chat keeps."""
        return ChatLimits(**{one.name: getattr(self, one.name) for one in fields(ChatLimits)})

    stored_messages: int = setting(
        "stored-messages",
        100_000,
        integer(1, unit="messages"),
        Group.STORAGE,
        "messages kept per room in the data directory; the oldest are deleted",
    )
    stored_bytes: int = setting(
        "stored-bytes",
        1_073_741_824,
        BYTES,
        Group.STORAGE,
        "size of the database in the data directory; beyond it, the largest room loses its oldest messages",
    )
    behind_bytes: int = setting(
        None,
        16_777_216,
        BYTES,
        Group.EMBEDDING,
        "bytes that can wait to be written to the data directory, after which speakers wait until they are written",
    )
    mail_per_account: int = setting(
        None, 100, integer(0), Group.EMBEDDING, "direct messages kept for one account that is away"
    )
    mail_per_sender: int = setting(
        None, 10, integer(0), Group.EMBEDDING, "direct messages of one sender among them"
    )
    mail_s: float = setting(
        None,
        2_592_000.0,
        SECONDS,
        Group.EMBEDDING,
        "how long direct messages to people who are away are kept",
    )
    mail_bytes: int = setting(
        None,
        67_108_864,
        BYTES,
        Group.EMBEDDING,
        "bytes of direct messages kept for all accounts together; beyond them, the account that sent the most loses its oldest",
    )
    room_acts: int = setting(
        None,
        100_000,
        integer(0),
        Group.EMBEDDING,
        "acts in rooms that the audit log keeps; those of rooms that are gone are deleted first, then the oldest of the room"
        " with the most. Acts on the whole server are all kept",
    )

    def without_rates(self) -> Limits:
        """The effective limits: with 0 lines per second, the other limits that depend on the rate are 0 too.

        The server calls this once, when it starts, and uses the result everywhere.
        """
        if self.lines_per_s:
            return self
        off: dict[str, Any] = {row.field: 0.0 for row in settings_of(self) if row.off_with_rate}
        return replace(self, **off)

    @property
    def above_network(self) -> dict[str, str]:
        """The limits of each address that are above that of its network, which applies to it then; both as keys."""
        limits = self.without_rates()
        found = {row.key: getattr(limits, row.field) for row in settings_of(self) if row.key is not None}

        def most(key: str) -> float:
            # Without a rate there is no burst either.
            return float(found[key]) if found[key.replace("-burst", "-rate")] else math.inf

        pairs = {key: key.replace("address", "network") for key in found if "address" in key}
        return {own: shared for own, shared in pairs.items() if most(own) > most(shared)}

    def take_over(self, other: Limits) -> None:
        """Have the values of another. For the limits in force, which all parts of a running server hold."""
        for one in fields(self):
            object.__setattr__(self, one.name, getattr(other, one.name))


@dataclass(frozen=True, slots=True)
class Config(_Checked):
    """Everything a `Server` needs to know. With an `idle_s` of None each dialect has its own idle time-out."""

    listen: tuple[Listen, ...] = setting(
        "listen",
        (Listen(),),
        LISTENS,
        Group.ADDRESSES,
        "also listen on this address; can be repeated; an address for line, line+tls or line+unix replaces the default one",
    )
    tls_cert: str = setting(
        "tls-cert",
        "",
        FILE,
        Group.ADDRESSES,
        "certificate of the TLS listeners, and the certificates between it and its authority's, in PEM",
    )
    tls_key: str = setting(
        "tls-key",
        "",
        FILE,
        Group.ADDRESSES,
        "key of that certificate, in PEM; without it, the key is in the file of the certificate",
    )
    web_origins: tuple[str, ...] = setting(
        "web-origin",
        (),
        ORIGINS,
        Group.ADDRESSES,
        "origins of the chat page besides localhost and the addresses that are listened on, separated by spaces or commas: what"
        " browsers have in front of the path, or the host name alone",
        reload=Reload.AT_ONCE,
    )
    proxy_from: tuple[Network, ...] = setting(
        "proxy-from",
        (),
        NETWORKS,
        Group.ADDRESSES,
        "addresses or ranges of proxies that say in a header of the PROXY protocol for whom they connect",
        reload=Reload.AT_ONCE,
    )
    operators: tuple[str, ...] = setting(
        "operators",
        (),
        NAMES,
        Group.NAMES,
        "operators of the server; their names require their accounts",
        reload=Reload.AT_ONCE,
    )
    greeting: str = setting(
        "greeting",
        "",
        GREETING,
        Group.GREETING,
        "say this to every client that connects; {help} in it becomes what to type first. Without a greeting the server says"
        " nothing before it is asked",
        reload=Reload.AT_ONCE,
    )
    idle_s: float | None = setting(
        "idle-timeout",
        None,
        IDLE,
        Group.TIMES,
        "disconnect clients that are idle this long, in every dialect; 0: never",
        letter="t",
        reload=Reload.NEW_CLIENTS,
    )
    idle_notice: IdleNotice = setting(  # noqa: RUF009 - it returns a field
        "idle-notice",
        IdleNotice.INFO,
        member(IdleNotice),
        Group.TIMES,
        "notice sent before an idle client is disconnected",
        reload=Reload.AT_ONCE,
    )
    reserved_names: tuple[str, ...] = setting(
        "reserved-names",
        RESERVED_NAMES,
        NAMES,
        Group.NAMES,
        "names that no client can log in with, separated by spaces or commas; this list replaces the default one",
        reload=Reload.AT_ONCE,
    )
    limits: Limits = field(default_factory=Limits)
    shutdown_s: float = setting(
        "shutdown-timeout",
        10.0,
        SECONDS,
        Group.TIMES,
        "when the server stops, drop clients that have not read everything within this time",
        reload=Reload.AT_ONCE,
    )
    data: str = setting(
        "data",
        "",
        PATH,
        Group.STORAGE,
        "directory that keeps history, rooms and accounts; without one they last as long as the server runs",
    )
    ban_list: str = setting(
        "ban-list",
        "",
        FILE,
        Group.OPERATIONS,
        "file with bans from the server: on each line an address, a CIDR range, a name or `account:NAME`, and perhaps a reason",
        reload=Reload.AT_ONCE,
    )
    log_messages: bool = setting(
        "log-messages", False, BOOLEAN, Group.LOG, "log the text of messages too", reload=Reload.AT_ONCE
    )

    def __post_init__(self) -> None:
        # The class that a class with slots was before is what `super()` without arguments would look for.
        _Checked.__post_init__(self)
        for listen in self.listen:
            if listen.is_tls and not self.certificate_of(listen)[0]:
                raise ConfigError("tls-cert", f"tls-cert: missing; {listen} needs a certificate")
        places: dict[tuple[str | None, int | None, str], Listen] = {}
        for listen in self.listen:
            other = places.setdefault((listen.host, listen.port, listen.path), listen)
            if other is not listen and (listen.port or listen.path):
                raise ConfigError("listen", f"listen: {other} and {listen} are the same address")

    def certificate_of(self, listen: Listen) -> tuple[str, str]:
        """The files of the certificate and of the key of a TLS listener; one file can hold both."""
        cert, key = (listen.cert, listen.key) if listen.cert else (self.tls_cert, self.tls_key)
        return cert, key or cert


TABLE: tuple[Setting, ...] = tuple(row for table in (Program, Config, Limits) for row in settings_of(table))
SETTINGS: dict[str, Setting] = {row.key: row for row in TABLE if row.key is not None}


# --- Where values come from ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RawSetting:
    """The text of a setting as one source has it, and the name of that source."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class ResolvedSetting:
    """The value of a setting and its source. A higher rank overrides a lower one; the default has rank 0."""

    value: Any
    source: str
    rank: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of all settings that have a key."""

    resolved: Mapping[str, ResolvedSetting]

    def __getitem__(self, key: str) -> Any:
        return self.resolved[key].value

    @property
    def listen(self) -> tuple[Listen, ...]:
        """Where to listen: `line` on the port, unless an address for it from the same or a stronger source replaces it."""
        listen, port = self.resolved["listen"], self.resolved["port"]
        line = Listen("line", self["host"], port.value)
        if listen.source == DEFAULT:
            return (line,)
        has_line = any(address.service == "line" for address in listen.value)
        replaced = has_line and (port.source == DEFAULT or port.rank < listen.rank)
        return listen.value if replaced else (line, *listen.value)

    @property
    def program(self) -> Program:
        """The settings of the command itself."""
        return Program(**self._fields(Program))

    @property
    def config(self) -> Config:
        """The settings of the server."""
        limits = Limits(**self._fields(Limits))
        return Config(**{**self._fields(Config), "listen": self.listen, "limits": limits})

    def check(self) -> None:
        """Raise ConfigError if the values are wrong together."""
        _ = self.program, self.config

    def _fields(self, table: type) -> dict[str, Any]:
        return {row.field: self[row.key] for row in settings_of(table) if row.key is not None}


def resolve(flags: Mapping[str, RawSetting], environment: Mapping[str, str], file: Path | None) -> Settings:
    """Combine all sources. Raises ConfigError for anything unknown, duplicate or wrong in any of them."""
    resolved = {key: ResolvedSetting(row.default, DEFAULT, 0) for key, row in SETTINGS.items()}
    for rank, found in enumerate((from_file(file), from_environment(environment), flags), start=1):
        for key, raw in found.items():
            resolved[key] = ResolvedSetting(_read(key, raw), raw.source, rank)
    return Settings(resolved)


def config_file(flag: str | None, environment: Mapping[str, str]) -> Path | None:
    """The settings file, if one is named."""
    named = flag or environment.get(CONFIG_VARIABLE)
    return Path(named) if named else None


def from_environment(environment: Mapping[str, str]) -> dict[str, RawSetting]:
    """The settings in the environment. An empty variable counts as not set, and so does one that Kubernetes has made."""
    environment = {name: text for name, text in environment.items() if not _is_service_link(name, text)}
    found: dict[str, RawSetting] = {}
    for variable in reversed(PORT_VARIABLES):
        if environment.get(variable):
            found["port"] = RawSetting(environment[variable], variable)
    keys = {row.variable: key for key, row in SETTINGS.items()}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or not text or variable == CONFIG_VARIABLE:
            continue
        if variable not in keys:
            raise _unknown(variable, "in the environment", [*keys, CONFIG_VARIABLE])
        found[keys[variable]] = RawSetting(text, variable)
    return found


def _is_service_link(variable: str, text: str) -> bool:
    # The port of a Service has an address in its variable, which no port of ours is.
    is_address = variable.endswith("_PORT") and _SERVICE_ADDRESS.match(text) is not None
    return is_address or _SERVICE_LINK.fullmatch(variable) is not None


def from_file(file: Path | None) -> dict[str, RawSetting]:
    """The settings in a TOML file. Its keys are those of the flags, with hyphens or underscores."""
    if file is None:
        return {}
    try:
        with file.open("rb") as stream:
            content = tomllib.load(stream)
    except OSError as error:
        raise ConfigError("config", f"config: cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config", f"config: {file} is not valid TOML: {error}") from error
    found: dict[str, RawSetting] = {}
    for written, value in content.items():
        key = written.replace("_", "-")
        if key not in SETTINGS:
            raise _unknown(written, f"in {file}", SETTINGS)
        if key in found:
            raise ConfigError(written, f"duplicate setting {written} in {file}")
        found[key] = RawSetting(_text(key, value, file), str(file))
    return found


def _text(key: str, value: object, file: Path) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float() | str():
            return str(value)
        case list() if SETTINGS[key].kind in LISTS and all(isinstance(item, str) for item in value):
            return " ".join(value)
    raise _wrong(key, value, SETTINGS[key].kind, str(file))


def _read(key: str, raw: RawSetting) -> Any:
    kind = SETTINGS[key].kind
    try:
        value = kind.read(raw.text)
    except ValueError:
        raise _wrong(key, raw.text, kind, raw.source) from None
    if not kind.accepts(value):
        raise _wrong(key, raw.text, kind, raw.source)
    return value


def _unknown(written: str, where: str, known: Iterable[str]) -> ConfigError:
    guess = suggestion(written, known) or "; geventchat --help lists all settings"
    return ConfigError(written, f"unknown setting {written} {where}{guess}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of a message that names the known word closest to this one, or nothing if none is close."""
    close = difflib.get_close_matches(word, list(known), 1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""
