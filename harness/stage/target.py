"""The interface of targets: the server that one starts for one script. Knows no kind of target."""

from __future__ import annotations

import signal
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from harness.language.columns import visible
from harness.language.steps import Fault, LinkStep, NodeChanges
from harness.stage.connection import Connection
from harness.stage.event_loop import Clock, EventLoop, RealClock
from harness.stage.fence import Transit
from harness.stage.kernel import SocketAddress, is_unix

ONLY = ""
"""The endpoint name of a server with a single endpoint."""


class TargetError(Exception):
    """The target did not start, or it died. The text includes its latest output."""

    def __init__(self, message: str, server_output: str = "") -> None:
        output = server_output.rstrip()
        super().__init__(f"{message}\n{output}" if output else message)
        self.message = message
        self.server_output = output


class Untestable(TargetError):
    """Nothing that happens says anything about the server: its host is unknown, its program cannot be started, its time does
    not pass as fast as it should, or it runs on in the background, where it is not watched."""


class UnsupportedSpec(Exception):
    """The target does not know an option or an endpoint that the script requires; the text names it."""


class UnsupportedTime(UnsupportedSpec):
    """The time of the target cannot pass faster."""


class UnsupportedFault(Exception):
    """A fault cannot be injected into a client's connection: why not, and what the script should have instead."""

    def __init__(self, reason: str, expected: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.expected = expected


@dataclass(frozen=True, slots=True)
class ServerError:
    """An exception that the server's own code raised and did not handle."""

    kind: str
    """The name of its class."""
    text: str
    """`ValueError: no such name`: of a message of several lines, the first."""
    from_the_system: bool
    """Whether it is an OSError."""

    @classmethod
    def of(cls, error: BaseException) -> ServerError:
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ in _UNNAMED else f"{kind.__module__}.{kind.__qualname__}"
        try:
            lines = str(error).strip().splitlines()
        except Exception:
            lines = ["<exception str() failed>"]
        return cls(kind.__name__, visible(": ".join([name, *lines[:1]])), isinstance(error, OSError))


_UNNAMED = ("builtins", "__main__")
"""Modules that a traceback does not name."""


def ends_the_process(error: BaseException | None) -> bool:
    """Whether the server's own code raised this to end its process. A signal handler of the test run can raise the same in
    the middle of that code."""
    if not isinstance(error, SystemExit):
        return False
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    return not any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """The requirements of a script, from its `server:` header, and the clock that the server must use."""

    endpoints: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=RealClock)
    start_s: float | None = None
    """How long the server can take until it listens; None: as long as the target allows."""
    time_factor: int = 1
    """How many times faster than real time the server's time passes; has no meaning where time is virtual."""


class RunningServer:
    """A server that runs for one script, and the loop that drives its clients. The base class is a remote server."""

    def __init__(self, loop: EventLoop, addresses: Mapping[str, SocketAddress]) -> None:
        self.loop = loop
        self.addresses = addresses
        """Addresses by endpoint; the first is the default."""

    def alive(self, patience_s: float = 0.0) -> bool:
        """Whether it runs; Untestable where that cannot be seen. `patience_s`: how long to keep checking, if it is perhaps
        dying."""
        return True

    def how_it_ended(self) -> str:
        return "cannot be observed"

    def output(self) -> str:
        """Its latest output: standard output and error, or the tracebacks of its greenlets."""
        return ""

    def take_errors(self) -> tuple[ServerError, ...]:
        """The exceptions that the server's code raised and did not handle since the last call, where that is known."""
        return ()

    def require_fast_time(self) -> None:
        """Untestable if the time of one of its processes does not pass as much faster as it should."""

    outlives_scripts = True
    """Whether the next script can meet the same server."""
    answers_prove = True
    """Whether an answer to a fence line can prove anything: several processes deliver to each other in no order with it."""
    transit = Transit()
    """What the harness holds back between its parts."""

    def change_node(self, step: NodeChanges) -> None:
        """Kill, stop, continue or start a process of the target."""
        raise UnsupportedSpec("this target has no nodes")

    def change_link(self, step: LinkStep) -> None:
        """Cut, block, delay, split or restore what passes to a node."""
        raise UnsupportedSpec("this target has no nodes")

    def inject(self, fault: Fault, connection: Connection | None) -> None:
        """Inject this fault into the server from now on."""
        raise UnsupportedSpec("this target does not support fault injection")

    def vanish(self, connection: Connection) -> None:
        """Let this client disappear without a FIN or a reset."""
        raise UnsupportedSpec("this target does not support fault injection")


class Target(ABC):
    """Something that scripts can be played against."""

    @property
    def features(self) -> frozenset[str]:
        """The features for `needs:` in scripts, such as virtual-time, in-process, restart, stderr, proven-split."""
        return frozenset()

    @abstractmethod
    def start(self, spec: ServerSpec, within_s: float) -> AbstractContextManager[RunningServer]:
        """Start the server, or use a running one; on leaving, stop what was started for this script."""

    def with_faults(self) -> Target | None:
        """The same target for one play, with fault injection; None where that is not possible."""
        return None


def address_of(addresses: Mapping[str, SocketAddress], endpoint: str | None) -> SocketAddress:
    """The address of an endpoint; UnsupportedSpec for an unknown name."""
    if endpoint is None:
        return next(iter(addresses.values()))
    if endpoint not in addresses:
        known = ", ".join(name for name in addresses if name) or "none by name"
        raise UnsupportedSpec(f"no endpoint {endpoint!r}; known: {known}")
    return addresses[endpoint]


def reachable(address: SocketAddress | str) -> SocketAddress:
    """Where to connect to a server that listens there: all interfaces means this machine. A text is the path of a Unix
    socket, as `getsockname` has it."""
    if isinstance(address, str):
        return (address,)
    if is_unix(address):
        return address
    host, *rest = address
    return ({"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), *rest)


def require_endpoints(spec: ServerSpec, addresses: Mapping[str, SocketAddress]) -> None:
    """Reject endpoints that the server does not have."""
    for endpoint in spec.endpoints:
        address_of(addresses, endpoint)


def require_no_options(spec: ServerSpec, target: Target) -> None:
    """Reject all options: for targets that cannot be configured."""
    for option in spec.options:
        raise UnsupportedSpec(f"no option {option!r}: {target} takes none")
