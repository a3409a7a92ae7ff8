"""A server that already runs anywhere: one address, or several by endpoint. It is neither started nor stopped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from harness.stage.event_loop import RealTime
from harness.stage.kernel import SocketAddress
from harness.stage.target import (
    ONLY,
    RunningServer,
    ServerSpec,
    Target,
    require_endpoints,
    require_no_options,
)


class Address(Target):
    """`Address("127.0.0.1", 4000)`, or `Address({"line": ("127.0.0.1", 4000), "json": ("127.0.0.1", 12345)})`.

    `features` are the features of the server, for `needs:` in scripts.
    """

    def __init__(
        self,
        host: str | Mapping[str, tuple[str, int]],
        port: int | None = None,
        *,
        features: Iterable[str] = (),
    ) -> None:
        if isinstance(host, str) == (port is None):
            raise ValueError("an Address is a host and a port, or a mapping of endpoints to such pairs")
        self._addresses: Mapping[str, SocketAddress] = (
            {ONLY: (host, port)} if isinstance(host, str) else dict(host)
        )
        self._features = frozenset(features)
        if not self._addresses:
            raise ValueError("an Address needs at least one endpoint")

    @property
    def features(self) -> frozenset[str]:
        return self._features

    def __str__(self) -> str:
        return ", ".join(
            f"{name}={host}:{port}" if name else f"{host}:{port}"
            for name, (host, port) in self._addresses.items()
        )

    @contextmanager
    def start(self, spec: ServerSpec, within_s: float) -> Iterator[RunningServer]:
        require_no_options(spec, self)
        require_endpoints(spec, self._addresses)
        yield RunningServer(RealTime(), self._addresses)
