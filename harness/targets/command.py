"""A server started by a command, in any language: on a free port, caught at the moment it answers, ended afterwards."""

from __future__ import annotations

import atexit
import random
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from textwrap import shorten

from gevent.monkey import get_original

from harness.stage.isolation import World, fresh_world
from harness.stage.kernel import RealSocket, SocketAddress, SocketDiagnostics
from harness.stage.virtual_time import RealLoop
from harness.targets.inprocess import ONLY
from harness.targets.process import Process
from harness.targets.target import (
    Drive,
    RunningServer,
    ServerSpec,
    TargetError,
    UnsupportedSpec,
    address_of,
    reachable,
)

READY = re.compile(r"(?::|\bport\s*[=:]?\s*)(?P<port>\d{2,5})\b", re.IGNORECASE)
"""The line of a server that says where it listens, where nothing else is told: `… :4000` or `… port 4000`."""

_HOLE = re.compile(r"\{port(?::(?P<endpoint>\w+))?\}|\{(?P<option>\w+)=(?P<default>[^{}]*)\}")
_SHELL = frozenset("|&;<>()$`*?~#\n")
_ASSIGNMENT = re.compile(r"\w+=")
_LOOPBACKS = ("127.0.0.1", "::1")
_LOOK_S = 0.001
_TRIES = 3
_SHOWN_CHARS = 120
# Below the range from which the kernel takes the ports of outgoing connections, so that none of those is in the way.
_PORTS = range(10_240, 32_768)


class Command:
    """A command line, as one string or as a list.

    In it `{port}` becomes a free port, `{port:json}` that of the endpoint json, and `{idle=60}` the script's option
    idle, 60 unless it says otherwise. Without any port the server chooses its own and says so on its standard output
    or error: `ready` is the pattern of that line, with a group `port` and perhaps one `endpoint`, the default is
    READY. Given both, the server is ready once it has said so. `shared` keeps one server for all scripts. `features`
    is what it has beyond what every such target has, for scripts that say `needs:`.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        *,
        ready: str | None = None,
        shared: bool = False,
        starts_within: float = 10.0,
        environment: Mapping[str, str] | None = None,
        features: Iterable[str] = (),
    ) -> None:
        self._command = command
        self._text = command if isinstance(command, str) else shlex.join(command)
        holes = list(_HOLE.finditer(self._text))
        self._endpoints = tuple(dict.fromkeys(h["endpoint"] or ONLY for h in holes if not h["option"]))
        self._options = {h["option"]: h["default"] for h in holes if h["option"]}
        self._ready = re.compile(ready) if ready else None if self._endpoints else READY
        self._shared = shared
        self._features = frozenset(features)
        self._starts_within_s = starts_within
        self._environment = {"PYTHONUNBUFFERED": "1", **(environment or {})}
        self._kept: dict[tuple[tuple[str, str], ...], _Server] = {}

    @property
    def features(self) -> frozenset[str]:
        own = {"stderr", "proven-split"} | (set() if self._shared else {"restart"})
        return self._features | own

    def __str__(self) -> str:
        return shorten(self._text, _SHOWN_CHARS, placeholder=" …")

    def world(self) -> AbstractContextManager[World]:
        return fresh_world(RealLoop)

    @contextmanager
    def start(self, spec: ServerSpec, drive: Drive) -> Iterator[RunningServer]:
        for option in spec.options:
            if option not in self._options:
                known = ", ".join(self._options) or f"none, for want of {{{option}=DEFAULT}} in the command"
                raise UnsupportedSpec(f"no option {option!r}; known: {known}")
        server = self._serve({**self._options, **spec.options})
        try:
            for endpoint in spec.endpoints:
                address_of(server.addresses, endpoint)
            yield server
        finally:
            if not self._shared or not server.alive():
                self._forget(server)
                server.process.end()

    def close(self) -> None:
        """End the shared server, if one runs."""
        for server in list(self._kept.values()):
            self._forget(server)
            server.process.end()

    def _forget(self, server: _Server) -> None:
        self._kept = {options: kept for options, kept in self._kept.items() if kept is not server}

    def _serve(self, options: Mapping[str, str]) -> _Server:
        key = tuple(sorted(options.items()))
        if key in self._kept:
            return self._kept[key]
        for attempt in range(_TRIES):
            ports = {endpoint: free_port() for endpoint in self._endpoints}
            process = Process(self._argv(ports, options), self._environment)
            try:
                server = _Server(process, self._wait(process, ports))
            except BaseException as error:
                process.end()
                # Between our choice of a port and the server's use of it somebody else may have taken it.
                taken = any(not _is_free(port) for port in ports.values())
                if isinstance(error, TargetError) and taken and attempt + 1 < _TRIES:
                    continue
                raise
            if self._shared:
                self._kept[key] = server
                atexit.register(process.end)
            return server
        raise AssertionError("the last try returns or raises")

    def _argv(self, ports: Mapping[str, int], options: Mapping[str, str]) -> list[str]:
        def fill(hole: re.Match[str]) -> str:
            return options[hole["option"]] if hole["option"] else str(ports[hole["endpoint"] or ONLY])

        if not isinstance(self._command, str):
            return [_HOLE.sub(fill, word) for word in self._command]
        text = _HOLE.sub(fill, self._command)
        if _SHELL & set(text) or _ASSIGNMENT.match(text):
            return ["/bin/sh", "-c", text]
        return shlex.split(text)

    def _wait(self, process: Process, ports: Mapping[str, int]) -> Mapping[str, SocketAddress]:
        """Until it has said that it is ready, where it says so, and listens; looked at without touching it."""
        deadline = time.monotonic() + self._starts_within_s
        kernel = SocketDiagnostics()
        announced: Mapping[str, SocketAddress] | None = None if self._ready else {}
        try:
            while True:
                lives = process.alive()
                if announced is None:
                    announced = self._announced(process.output())
                if announced is not None:
                    found = {**announced, **{name: _listening(kernel, port) for name, port in ports.items()}}
                    known = {name: address for name, address in found.items() if address}
                    if len(known) == len(found):
                        return known
                if not lives:
                    raise TargetError(
                        f"{self} {process.how_it_ended()} before it answered", process.server_output()
                    )
                if time.monotonic() > deadline:
                    raise TargetError(self._too_late(announced is None, ports), process.server_output())
                get_original("time", "sleep")(_LOOK_S)
        finally:
            kernel.close()

    def _announced(self, output: bytes) -> Mapping[str, SocketAddress] | None:
        """Where the server says it listens; nothing to add where the command named the ports; None: not said yet."""
        assert self._ready is not None
        for line in output.decode("utf-8", "replace").splitlines(keepends=True):
            matches = list(self._ready.finditer(line)) if line.endswith("\n") else []
            if matches and self._endpoints:
                return {}
            found = dict(filter(None, map(_named, matches)))
            if found:
                return found
        return None

    def _too_late(self, silent: bool, ports: Mapping[str, int]) -> str:
        if silent and self._ready is READY:
            return (
                f"{self} has no {{port}}: put it where the port belongs, or say by which line the server tells its own"
                " (--ready, in Python ready=);\n"
                f"within {self._starts_within_s:g} s it wrote no line such as `listening on 127.0.0.1:4000`"
                " (is its output buffered?)"
            )
        did = (
            f"said nothing that matches {self._ready.pattern!r} (is its output buffered?)"
            if silent and self._ready
            else f"did not listen on port {', '.join(map(str, ports.values()))}"
        )
        return f"{self} {did} within {self._starts_within_s:g} s"


def _named(match: re.Match[str]) -> tuple[str, SocketAddress] | None:
    """The endpoint and the address that a ready line names."""
    groups = match.groupdict()
    port = groups["port"] if "port" in groups else match[1] if match.re.groups else None
    if port is None:
        return None
    return groups.get("endpoint") or ONLY, reachable((groups.get("host") or "127.0.0.1", int(port)))


class _Server:
    """A process that listens."""

    def __init__(self, process: Process, addresses: Mapping[str, SocketAddress]) -> None:
        self.process = process
        self._addresses = addresses

    @property
    def addresses(self) -> Mapping[str, SocketAddress]:
        return self._addresses

    def alive(self, patience_s: float = 0.0) -> bool:
        return self.process.alive(patience_s)

    def how_it_ended(self) -> str:
        return self.process.how_it_ended()

    def server_output(self) -> str:
        return self.process.server_output()


def free_port() -> int:
    """A port that nobody uses at this moment."""
    for port in random.SystemRandom().sample(_PORTS, 200):
        if _is_free(port):
            return port
    raise TargetError("no free port was found in 200 tries")


def _is_free(port: int) -> bool:
    with RealSocket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _listening(kernel: SocketDiagnostics, port: int) -> SocketAddress | None:
    """Where on this machine somebody listens on the port. Asked of the kernel: a connection made to find out would be
    a client that the server sees."""
    for host in _LOOPBACKS:
        if kernel.listens((host, port)):
            return (host, port)
    return None
