"""A server that runs already, wherever it is: one address, or several by endpoint. It is neither started nor ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from harness.stage.isolation import World, fresh_world
from harness.stage.kernel import SocketAddress
from harness.stage.virtual_time import RealLoop
from harness.targets.inprocess import ONLY
from harness.targets.target import Drive, RunningServer, ServerSpec, endpoints_only


class Address:
    """`Address("127.0.0.1", 4000)`, or `Address({"line": ("127.0.0.1", 4000), "json": ("127.0.0.1", 12345)})`.

    `features` is what it has, for scripts that say `needs:`.
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
            raise ValueError("an Address without any endpoint")

    @property
    def features(self) -> frozenset[str]:
        return self._features

    def __str__(self) -> str:
        return ", ".join(
            f"{name}={host}:{port}" if name else f"{host}:{port}"
            for name, (host, port) in self._addresses.items()
        )

    def world(self) -> AbstractContextManager[World]:
        return fresh_world(RealLoop)

    @contextmanager
    def start(self, spec: ServerSpec, drive: Drive) -> Iterator[RunningServer]:
        endpoints_only(spec, self._addresses, str(self))
        yield _ExternalServer(self._addresses)


class _ExternalServer:
    """A server of which nothing is known but where it is."""

    def __init__(self, addresses: Mapping[str, SocketAddress]) -> None:
        self._addresses = addresses

    @property
    def addresses(self) -> Mapping[str, SocketAddress]:
        return self._addresses

    def alive(self, patience_s: float = 0.0) -> bool:
        return True

    def how_it_ended(self) -> str:
        return "cannot be known"

    def server_output(self) -> str:
        return ""
