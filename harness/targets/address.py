"""A server that already runs anywhere: one address, or several by endpoint, TCP or Unix sockets. It is neither started nor
stopped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from harness.stage.event_loop import RealTime
from harness.stage.kernel import SocketAddress, address_text, parse_unix
from harness.stage.target import (
    ONLY,
    RunningServer,
    ServerSpec,
    Target,
    UnsupportedTime,
    require_endpoints,
    require_no_options,
)


class Address(Target):
    """`Address("127.0.0.1", 4000)`, `Address("unix:/run/chat.sock")`, or several: `Address({"line": ("127.0.0.1", 4000),
    "admin": "unix:/run/admin.sock"})`.

    `features` are the features of the server, for `needs:` in scripts.
    """

    def __init__(
        self,
        host: str | Mapping[str, tuple[str, int] | str],
        port: int | None = None,
        *,
        features: Iterable[str] = (),
    ) -> None:
        named = {ONLY: host if port is None else (host, port)} if isinstance(host, str) else host
        if port is not None and not isinstance(host, str):
            raise ValueError("an Address is a host and a port, unix:/PATH, or a mapping of endpoints to such")
        self._addresses: Mapping[str, SocketAddress] = {
            name: parse_unix(one) if isinstance(one, str) else one for name, one in named.items()
        }
        self._features = frozenset(features)
        if not self._addresses:
            raise ValueError("an Address needs at least one endpoint")

    @property
    def features(self) -> frozenset[str]:
        return self._features

    def __str__(self) -> str:
        return ", ".join(
            f"{name}={address_text(address)}" if name else address_text(address)
            for name, address in self._addresses.items()
        )

    @contextmanager
    def start(self, spec: ServerSpec, within_s: float) -> Iterator[RunningServer]:
        require_no_options(spec, self)
        if spec.time_factor > 1:
            raise UnsupportedTime(f"the time of {self} cannot pass faster: the harness does not start it")
        require_endpoints(spec, self._addresses)
        yield RunningServer(RealTime(), self._addresses)
