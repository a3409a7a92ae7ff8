"""Servers of several processes: nodes that know each other's ports, and links between them that can be cut or delayed.

- Each node is a command. Its own port is one of its endpoints, called like the node; `NAME.link` is the same through its link.
- In the command of a node, the port of another one is that of the link to it, so that everything between nodes passes links.
- All nodes start at once, and the target is ready when every one listens. Where time passes faster, their clocks agree.
- Whatever fails, every process, port and thread is given back.
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from textwrap import shorten
from typing import Any

from harness.language.steps import (
    LinkChange,
    LinkChanges,
    LinkDelays,
    LinkSplits,
    LinkStep,
    NodeChanges,
    NodeFate,
)
from harness.stage.event_loop import RealTime
from harness.stage.kernel import SocketAddress, SocketDiagnostics, original
from harness.stage.target import (
    RunningServer,
    ServerSpec,
    Target,
    TargetError,
    UnsupportedSpec,
    require_endpoints,
)
from harness.stage.threads import is_halted, threads_of
from harness.targets import fast_time
from harness.targets.command import (
    END_WITHIN_S,
    HOLE,
    Process,
    claimed_port,
    filled,
    listens,
    not_started,
    require_in_foreground,
)
from harness.targets.link import Link, Links

NODE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_LOOK_S = 0.001
_SHOWN_CHARS = 120
_sleep: Any = original("time", "sleep")


class Nodes(Target):
    """`Nodes({"a": "serve {port} --peer 127.0.0.1:{port:b}", "b": "serve {port} --peer 127.0.0.1:{port:a}"})`.

    `{port}` is the node's own port, `{port:b}` in another node's command that of the link to b, and `{idle=60}` an
    option as in a Command. `features` are those of the server, for `needs:` in scripts.
    """

    def __init__(
        self,
        commands: Mapping[str, str | Sequence[str]],
        *,
        starts_within: float = 10.0,
        environment: Mapping[str, str] | None = None,
        features: Iterable[str] = (),
    ) -> None:
        if not commands:
            raise ValueError("a target of nodes needs at least one node")
        self._commands = dict(commands)
        self._options: dict[str, str] = {}
        for name, command in commands.items():
            self._check(name, command if isinstance(command, str) else shlex.join(command))
        self._starts_within_s = starts_within
        self._environment = {"PYTHONUNBUFFERED": "1", **(environment or {})}
        self._features = frozenset(features)

    def _check(self, name: str, text: str) -> None:
        if not NODE_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is not a name for a node; expected a letter, then letters, digits and _"
            )
        own = False
        for hole in HOLE.finditer(text):
            if hole["option"]:
                self._options[hole["option"]] = hole["default"]
            elif hole["kind"] == "socket" or (hole["endpoint"] or name) not in self._commands:
                known = ", ".join(self._commands)
                raise ValueError(
                    f"node {name} names {hole[0]}; expected {{port}} or {{port:NODE}}, nodes: {known}"
                )
            else:
                own = own or (hole["endpoint"] or name) == name
        if not own:
            raise ValueError(f"the command of node {name} has no {{port}}: put it where its own port belongs")

    @property
    def features(self) -> frozenset[str]:
        return self._features | {"nodes", "restart", "stderr", "proven-split"}

    def __str__(self) -> str:
        return shorten(f"nodes {', '.join(self._commands)}", _SHOWN_CHARS, placeholder=" …")

    @contextmanager
    def start(self, spec: ServerSpec, within_s: float) -> Iterator[RunningServer]:
        for option in spec.options:
            if option not in self._options:
                known = ", ".join(self._options) or "none"
                raise UnsupportedSpec(f"no option {option!r}; known: {known}")
        options = {**self._options, **spec.options}
        within_s = spec.start_s or self._starts_within_s
        with ExitStack() as stack:
            links = Links()
            stack.callback(links.close)
            environment = self._environment
            if spec.time_factor > 1:
                environment = {**environment, **stack.enter_context(_one_start(spec.time_factor, within_s))}
            ports = {name: stack.enter_context(claimed_port()) for name in self._commands}
            carried = {name: links.add(port) for name, port in ports.items()}
            nodes = {
                name: _Node(
                    name,
                    ports[name],
                    self._argv(name, ports, carried, options),
                    environment,
                    spec.time_factor,
                )
                for name in self._commands
            }
            for node in nodes.values():
                stack.callback(node.end)
                node.start()
            for node in nodes.values():
                node.wait(within_s)
            loop = RealTime(spec.time_factor, lambda: [node.process.pid for node in nodes.values()])
            server = _NodesServer(nodes, links, carried, loop, within_s)
            require_endpoints(spec, server.addresses)
            yield server

    def _argv(
        self, name: str, ports: Mapping[str, int], links: Mapping[str, Link], options: Mapping[str, str]
    ) -> list[str]:
        def fill(hole: re.Match[str]) -> str:
            if hole["option"]:
                return options[hole["option"]]
            other = hole["endpoint"] or name
            return str(ports[name] if other == name else links[other].address[1])

        return filled(self._commands[name], fill)


@contextmanager
def _one_start(time_factor: int, within_s: float) -> Iterator[Mapping[str, str]]:
    """The variables with which all nodes share the start of their time. One that is started again must not fall behind by
    all that has passed faster, so a process that no step ends keeps that start."""
    keeper = Process(fast_time.KEEPER, {}, time_factor)
    try:
        limit = keeper.limits.limit(within_s)
        while not keeper.output():
            if limit.over or not keeper.alive():
                raise TargetError(f"the process that keeps the time of the nodes {keeper.how_it_ended()}")
            _sleep(_LOOK_S)
        yield fast_time.start_of(keeper.pid)
    finally:
        keeper.end()


class _Node:
    """One process of the target, started and killed any number of times on the same port."""

    def __init__(
        self, name: str, port: int, argv: Sequence[str], environment: Mapping[str, str], time_factor: int
    ) -> None:
        self.name = name
        self.port = port
        self.address: SocketAddress = ("127.0.0.1", port)
        self.is_killed = False
        self._argv, self._environment, self._time_factor = argv, environment, time_factor
        self._process: Process | None = None
        self._stopped = False

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        self._process = Process(self._argv, self._environment, self._time_factor)
        self.is_killed = self._stopped = False

    def wait(self, within_s: float) -> None:
        """Wait until it listens."""
        limit, kernel = self.process.limits.limit(within_s), SocketDiagnostics()
        try:
            while True:
                alive = self.process.alive()
                found = listens(kernel, self.port)
                if not alive:
                    raise not_started(f"node {self.name}", self.process, [self.port])
                if found:
                    self.address = found
                    break
                if limit.over:
                    raise TargetError(
                        f"node {self.name} did not listen on port {self.port} within {within_s:g} s",
                        self.process.tail(),
                    )
                _sleep(_LOOK_S)
        finally:
            kernel.close()
        if self._time_factor > 1:
            self.require_fast_time()

    def require_fast_time(self) -> None:
        fast_time.require_reached(self.process.pid, self.process.limits)

    def kill(self) -> None:
        self.is_killed = True
        self._signal_and_wait(signal.SIGKILL)
        self.process.alive(END_WITHIN_S)

    def stop(self) -> None:
        self._stopped = True
        self._signal_and_wait(signal.SIGSTOP)

    def _signal_and_wait(self, what: signal.Signals) -> None:
        """Send it a signal after which it does no more, and wait until it does no more: on a busy machine one thread can
        run on before another has taken the signal."""
        threads, limit = list(threads_of((self.process.pid,))), self.process.limits.limit(END_WITHIN_S)
        self.process.signal(what)
        while not all(map(is_halted, threads)) and not limit.over:
            _sleep(_LOOK_S)

    def go_on(self) -> None:
        self._stopped = False
        self.process.signal(signal.SIGCONT)

    def end(self) -> None:
        if self._process is not None:
            if self._stopped:
                self.go_on()
            self._process.end()


class _NodesServer(RunningServer):
    outlives_scripts = False
    answers_prove = False

    def __init__(
        self,
        nodes: Mapping[str, _Node],
        links: Links,
        carried: Mapping[str, Link],
        loop: RealTime,
        starts_within_s: float,
    ) -> None:
        super().__init__(
            loop,
            {name: node.address for name, node in nodes.items()}
            | {f"{name}.link": link.address for name, link in carried.items()},
        )
        self._nodes, self._links, self._carried = nodes, links, carried
        self.transit = links
        self._starts_within_s = starts_within_s

    def alive(self, patience_s: float = 0.0) -> bool:
        dead = self._dead(patience_s)
        if dead is not None:
            require_in_foreground(f"node {dead.name}", dead.process, [dead.port])
        return dead is None and self._links.error is None

    def require_fast_time(self) -> None:
        for node in self._nodes.values():
            node.require_fast_time()

    def _dead(self, patience_s: float = 0.0) -> _Node | None:
        """A node that has ended although no step has killed it."""
        running = [node for node in self._nodes.values() if not node.is_killed]
        return next((node for node in running if not node.process.alive(patience_s / len(running))), None)

    def how_it_ended(self) -> str:
        dead = self._dead()
        if dead is not None:
            return f"lost node {dead.name}, which {dead.process.how_it_ended()}"
        return f"lost its links: {self._links.error!r}" if self._links.error else "runs"

    def output(self) -> str:
        return "".join(
            f"{name} | {line}\n"
            for name, node in self._nodes.items()
            for line in node.process.tail().splitlines()
        )

    def change_node(self, step: NodeChanges) -> None:
        node = self._nodes.get(step.node)
        if node is None:
            raise self._unknown(step.node)
        match step.fate:
            case NodeFate.KILLED:
                node.kill()
            case NodeFate.STOPPED:
                node.stop()
            case NodeFate.CONTINUED:
                node.go_on()
            case NodeFate.STARTED:
                node.end()
                node.start()
                node.wait(self._starts_within_s)

    def change_link(self, step: LinkStep) -> None:
        link = self._carried.get(step.node)
        if link is None:
            raise self._unknown(step.node)
        changes: Mapping[LinkChange, Callable[[Link], None]] = {
            LinkChange.CUT: self._links.cut,
            LinkChange.BLOCKED: self._links.block,
            LinkChange.RESTORED: self._links.restore,
        }
        match step:
            case LinkChanges(_, change):
                changes[change](link)
            case LinkDelays(_, microseconds):
                self._links.delay(link, microseconds / 1_000_000)
            case LinkSplits(_, size):
                self._links.split(link, size)

    def _unknown(self, name: str) -> UnsupportedSpec:
        return UnsupportedSpec(f"no node {name!r}; known: {', '.join(self._nodes)}")
