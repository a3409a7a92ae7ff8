"""What a script asks of a target, and what a target is. Knows no kind of target and no script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.stage.isolation import World
from harness.stage.kernel import SocketAddress
from harness.stage.virtual_time import Clock, RealClock


class TargetError(Exception):
    """The target is broken: it does not start, or it died. Its last words, if any, are in the text."""

    def __init__(self, message: str, server_output: str = "") -> None:
        words = server_output.rstrip()
        super().__init__(f"{message}\n{words}" if words else message)
        self.message = message
        self.server_output = words


class UnsupportedSpec(Exception):
    """The target does not know an option or an endpoint that the script asks for; the text names it."""


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What a script asks of a target, from its `server:` header, and the clock that the server must read."""

    endpoints: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=RealClock)


Drive = Callable[[Callable[[], Any]], Any]
"""Runs something of the server's that may block, moving virtual time for it where time is virtual."""


class RunningServer(Protocol):
    """A server that runs, for one script."""

    @property
    def addresses(self) -> Mapping[str, SocketAddress]:
        """Where its endpoints are; the first is the one that a client gets who asks for none."""
        ...

    def alive(self, patience_s: float = 0.0) -> bool:
        """Whether it lives; `patience_s`: how long to look, where there is reason to think that it is dying."""
        ...

    def how_it_ended(self) -> str: ...

    def server_output(self) -> str: ...


class Target(Protocol):
    """What is tested."""

    @property
    def features(self) -> frozenset[str]:
        """What a script may need: virtual-time, in-process, restart, stderr, proven-split."""
        ...

    def world(self) -> AbstractContextManager[World]:
        """The hub and loop in which one script plays."""
        ...

    def start(self, spec: ServerSpec, drive: Drive) -> AbstractContextManager[RunningServer]:
        """Start the server, or take the one that runs; on leaving, end what this script started."""
        ...


def address_of(addresses: Mapping[str, SocketAddress], endpoint: str | None) -> SocketAddress:
    """Where the endpoint is."""
    if endpoint is None:
        return next(iter(addresses.values()))
    if endpoint not in addresses:
        known = ", ".join(name for name in addresses if name) or "none by name"
        raise UnsupportedSpec(f"no endpoint {endpoint!r}; known: {known}")
    return addresses[endpoint]


def reachable(address: SocketAddress) -> SocketAddress:
    """Where to connect to for a server that listens there: all interfaces means this machine."""
    host, *rest = address
    return ({"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), *rest)


def endpoints_only(spec: ServerSpec, known: Mapping[str, SocketAddress], what: str) -> None:
    """For targets that are as they are: no options, and only the endpoints they have."""
    for option in spec.options:
        raise UnsupportedSpec(f"no option {option!r}: {what} takes none")
    for endpoint in spec.endpoints:
        address_of(known, endpoint)
