"""What a stage needs of a target: the server that it starts, for one script. Knows no kind of target."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from harness.language.steps import Fault
from harness.stage.connection import Connection
from harness.stage.event_loop import Clock, EventLoop, RealClock
from harness.stage.kernel import SocketAddress

ONLY = ""
"""The name of the endpoint of a server that has just one."""


class TargetError(Exception):
    """The target is broken: it does not start, or it died. What it wrote last, if anything, is in the text."""

    def __init__(self, message: str, server_output: str = "") -> None:
        output = server_output.rstrip()
        super().__init__(f"{message}\n{output}" if output else message)
        self.message = message
        self.server_output = output


class UnsupportedSpec(Exception):
    """The target does not know an option or an endpoint that the script requires; the text names it."""


class NoSuchConnection(Exception):
    """The server has no connection of this client in which a fault could occur."""


@dataclass(frozen=True, slots=True)
class ServerError:
    """An exception that the server's own code raised and did not handle."""

    kind: str
    """The name of its class."""
    text: str
    """`ValueError: no such name`."""
    from_the_system: bool
    """Whether it is an OSError."""

    @classmethod
    def of(cls, error: BaseException) -> ServerError:
        text = traceback.format_exception_only(type(error), error)[-1].strip()
        return cls(type(error).__name__, text, isinstance(error, OSError))


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What a script requires of its server, from its `server:` header, and the clock that the server must read."""

    endpoints: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=RealClock)
    start_s: float | None = None
    """How long the server may take until it listens; None: as long as the target allows."""


class RunningServer:
    """A server that runs for one script, and the loop that drives its clients. As it is: a server far away."""

    def __init__(self, loop: EventLoop, addresses: Mapping[str, SocketAddress]) -> None:
        self.loop = loop
        self.addresses = addresses
        """By endpoint; the first is for clients that name none."""

    def alive(self, patience_s: float = 0.0) -> bool:
        """Whether it lives. `patience_s`: how long to look, where there is reason to think that it is dying."""
        return True

    def how_it_ended(self) -> str:
        return "cannot be observed"

    def output(self) -> str:
        """What it wrote last: its output and errors, or the tracebacks of its greenlets."""
        return ""

    def take_errors(self) -> tuple[ServerError, ...]:
        """The exceptions that the server's code raised and did not handle since the last call, where that is known."""
        return ()

    def inject(self, fault: Fault, connection: Connection | None) -> None:
        """Let this happen to the server from now on."""
        raise UnsupportedSpec("this target does not support fault injection")

    def vanish(self, connection: Connection) -> None:
        """Let this client disappear without telling the server."""
        raise UnsupportedSpec("this target does not support fault injection")


class Target(ABC):
    """Something that scripts can be played against."""

    @property
    def features(self) -> frozenset[str]:
        """What a script can name in `needs:`, such as virtual-time, in-process, restart, stderr, proven-split."""
        return frozenset()

    @abstractmethod
    def start(self, spec: ServerSpec, within_s: float) -> AbstractContextManager[RunningServer]:
        """Start the server, or use the one that runs; on leaving, end what this script started."""

    def with_faults(self) -> Target | None:
        """The same target for one play, with fault injection; None where that is not possible."""
        return None


def address_of(addresses: Mapping[str, SocketAddress], endpoint: str | None) -> SocketAddress:
    """The address of an endpoint; UnsupportedSpec where there is none of that name."""
    if endpoint is None:
        return next(iter(addresses.values()))
    if endpoint not in addresses:
        known = ", ".join(name for name in addresses if name) or "none by name"
        raise UnsupportedSpec(f"no endpoint {endpoint!r}; known: {known}")
    return addresses[endpoint]


def reachable(address: SocketAddress) -> SocketAddress:
    """Where to connect to a server that listens there: all interfaces means this machine."""
    host, *rest = address
    return ({"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), *rest)


def require_endpoints(spec: ServerSpec, addresses: Mapping[str, SocketAddress]) -> None:
    """Reject endpoints that the server does not have."""
    for endpoint in spec.endpoints:
        address_of(addresses, endpoint)


def require_no_options(spec: ServerSpec, target: Target) -> None:
    """For targets that cannot be configured."""
    for option in spec.options:
        raise UnsupportedSpec(f"no option {option!r}: {target} takes none")
