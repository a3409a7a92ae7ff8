"""A server started by a command, in any language: on free ports or Unix sockets, used as soon as it listens, then stopped.

- The process and its descendants form one process group, which is always killed, even if the test run itself is killed:
  a watchdog, a shell that waits for the other end of a pipe to close, then kills the group.
- The kernel says whether the server listens: a test connection would be a client that the server sees.
- No other harness on this machine chooses the same port while the server runs.
- The output of the server is kept in a file, whose beginning is given back to the disk when it grows too long.
- Its time can pass faster than real time; `fast_time` knows how.
"""

from __future__ import annotations

import atexit
import errno
import os
import random
import re
import select
import shlex
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from textwrap import shorten
from typing import Any

from harness.stage.event_loop import RealTime
from harness.stage.kernel import (
    RealSocket,
    SocketAddress,
    SocketDiagnostics,
    is_unix,
    original,
    signals_held,
)
from harness.stage.limits import LimitClock
from harness.stage.target import (
    ONLY,
    RunningServer,
    ServerSpec,
    Target,
    TargetError,
    UnsupportedSpec,
    Untestable,
    reachable,
    require_endpoints,
)
from harness.targets import fast_time

READY = re.compile(
    r"\bunix:(?P<path>/\S+)|(?::(?=\d{4})|\bport\s*[=:]?\s*)(?P<port>\d{2,5})\b", re.IGNORECASE
)
"""The line in which a server says where it listens, unless another pattern is given: `… :4000`, `… port 4000` or
`… unix:/run/chat.sock`. The numbers after the colons of a time of day are shorter."""

_PARTS_OF_AN_ADDRESS = frozenset({"port", "host", "path", "endpoint"})

SERVER_OUTPUT_BYTES = 8_000
OUTPUT_BYTES = 16_000_000
"""The size of the output at which its oldest part is dropped."""

END_WITHIN_S = 2.0
_LEFT_WITHIN_S = 0.5
"""How long processes that a server has started can take to end after it, before they count as the server in the background."""

HOLE = re.compile(r"\{(?P<kind>port|socket)(?::(?P<endpoint>\w+))?\}|\{(?P<option>\w+)=(?P<default>[^{}]*)\}")
_SHELL = frozenset("|&;<>()$`*?~#\n")
_ASSIGNMENT = re.compile(r"\w+=")
_LOOPBACKS = ("127.0.0.1", "::1")
_LOOK_S = 0.001
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2
_TRIES = 3
_SHOWN_CHARS = 120
# Most real-time signals have no name.
_SIGNALS: Mapping[int, str] = {one.value: one.name for one in signal.Signals}
# Below the range from which the kernel takes the ports of outgoing connections, so that none of those is in the way.
_PORTS = range(10_240, 32_768)
_PORTS_TRIED = 200

_poll: Any = original("select", "poll")
_sleep: Any = original("time", "sleep")
_spawn: Any = original("os", "posix_spawn")
_spawnp: Any = original("os", "posix_spawnp")
_waitpid: Any = original("os", "waitpid")


Place = int | str
"""A port of this machine, or the path of a Unix socket."""

_Kept = tuple[int, tuple[tuple[str, str], ...]]
"""The key of a shared server: how fast its time passes, and its options."""


class Command(Target):
    """A command line, as one string or as a list.

    In it `{port}` becomes a free port, `{port:json}` that of the endpoint json, `{socket}` or `{socket:json}` the path of
    a Unix socket, and `{idle=60}` the script's option idle, or 60. Without any of the first the server chooses itself
    where it listens and says so in a line of its standard output or error: `ready` is the pattern of that line; the
    default is READY. It has a group `port`, or `path`, and perhaps `host` and `endpoint`; or groups that are named after
    endpoints. Several patterns are several lines. Given both, the server is ready once it has written the lines. `shared`
    keeps one server for all scripts. `features` is what it has beyond what every such target has, for `needs:` in scripts.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        *,
        ready: str | Sequence[str] | None = None,
        shared: bool = False,
        starts_within: float = 10.0,
        environment: Mapping[str, str] | None = None,
        features: Iterable[str] = (),
    ) -> None:
        self._command = command
        self._text = command if isinstance(command, str) else shlex.join(command)
        holes = list(HOLE.finditer(self._text))
        self._kinds: dict[str, str] = {}
        """`port` or `socket`, by endpoint."""
        for hole in holes:
            if (
                hole["kind"]
                and self._kinds.setdefault(hole["endpoint"] or ONLY, hole["kind"]) != hole["kind"]
            ):
                name = hole["endpoint"] or "the only endpoint"
                raise ValueError(
                    f"{self} gives {name} a port and a socket; name one of them: {{socket:NAME}}"
                )
        self._options = {h["option"]: h["default"] for h in holes if h["option"]}
        patterns = (ready,) if isinstance(ready, str) else tuple(ready or ())
        self._ready = tuple(map(re.compile, patterns)) or (() if self._kinds else (READY,))
        self._shared = shared
        self._features = frozenset(features)
        self._starts_within_s = starts_within
        self._environment = {"PYTHONUNBUFFERED": "1", **(environment or {})}
        self._kept: dict[_Kept, tuple[Process, Mapping[str, SocketAddress]]] = {}

    @property
    def features(self) -> frozenset[str]:
        own = {"stderr", "proven-split"} | (set() if self._shared else {"restart"})
        return self._features | own

    def __str__(self) -> str:
        return shorten(self._text, _SHOWN_CHARS, placeholder=" …")

    @contextmanager
    def start(self, spec: ServerSpec, within_s: float) -> Iterator[RunningServer]:
        for option in spec.options:
            if option not in self._options:
                known = (
                    ", ".join(self._options) or f"none, since the command contains no {{{option}=DEFAULT}}"
                )
                raise UnsupportedSpec(f"no option {option!r}; known: {known}")
        process, addresses = self._listening(
            {**self._options, **spec.options}, spec.start_s or self._starts_within_s, spec.time_factor
        )
        try:
            require_endpoints(spec, addresses)
            loop = RealTime(spec.time_factor, lambda: (process.pid,))
            yield _CommandServer(str(self), process, addresses, loop, self._shared)
        finally:
            if not self._shared or not process.alive():
                self._end(process)

    def close(self) -> None:
        """End the shared servers that run."""
        for process, _ in list(self._kept.values()):
            self._end(process)

    def _end(self, process: Process) -> None:
        self._kept = {options: kept for options, kept in self._kept.items() if kept[0] is not process}
        process.end()

    def _listening(
        self, options: Mapping[str, str], within_s: float, time_factor: int
    ) -> tuple[Process, Mapping[str, SocketAddress]]:
        key = time_factor, tuple(sorted(options.items()))
        if key in self._kept:
            return self._kept[key]
        for attempt in range(1, _TRIES + 1):
            with ExitStack() as claims:
                places, folders = self._places(claims)
                process = Process(self._argv(places, options), self._environment, time_factor, folders)
                process.on_end = claims.pop_all()
            try:
                addresses = self._wait(process, places, within_s)
                if time_factor > 1:
                    fast_time.require_reached(process.pid, process.limits)
            except BaseException as error:
                process.end()
                # Another process can have taken the port between its choice and the server's use of it.
                taken = any(isinstance(port, int) and not _is_free(port) for port in places.values())
                again = isinstance(error, TargetError) and not isinstance(error, Untestable)
                if again and taken and attempt < _TRIES:
                    continue
                raise
            if self._shared:
                self._kept[key] = process, addresses
                atexit.register(process.end)
            return process, addresses
        raise AssertionError("the last try returns or raises")

    def _places(self, claims: ExitStack) -> tuple[Mapping[str, Place], Sequence[str]]:
        """Where the server is to listen, by endpoint, for as long as these claims are held, and the folders for it."""
        folder = ""
        if "socket" in self._kinds.values():
            folder = tempfile.mkdtemp(prefix="harness-")
            claims.callback(shutil.rmtree, folder, ignore_errors=True)
        places: dict[str, Place] = {
            endpoint: claims.enter_context(claimed_port())
            if kind == "port"
            else f"{folder}/{endpoint or 'socket'}"
            for endpoint, kind in self._kinds.items()
        }
        return places, [folder] if folder else []

    def _argv(self, places: Mapping[str, Place], options: Mapping[str, str]) -> list[str]:
        def fill(hole: re.Match[str]) -> str:
            return options[hole["option"]] if hole["option"] else str(places[hole["endpoint"] or ONLY])

        return filled(self._command, fill)

    def _wait(
        self, process: Process, places: Mapping[str, Place], within_s: float
    ) -> Mapping[str, SocketAddress]:
        """Wait until it has written its ready lines, where it has any, and listens where it should."""
        limit = process.limits.limit(within_s)
        kernel = SocketDiagnostics()
        announced: Mapping[str, SocketAddress] | None = None if self._ready else {}
        try:
            while True:
                alive = process.alive()
                if announced is None:
                    announced = self._announced(process.output())
                if announced is not None:
                    listening = {name: listens(kernel, place) for name, place in places.items()}
                    found = {**listening, **announced}
                    known = {name: address for name, address in found.items() if address}
                    if alive and len(known) == len(found):
                        return known
                if not alive:
                    raise not_started(str(self), process, places.values())
                if limit.over:
                    raise TargetError(self._too_late(announced is None, places, within_s), process.tail())
                _sleep(_LOOK_S)
        finally:
            kernel.close()

    def _announced(self, output: bytes) -> Mapping[str, SocketAddress] | None:
        """The addresses in the ready lines besides those that the command names; None before all of them are written."""
        lines = output.decode("utf-8", "replace").splitlines(keepends=True)
        announced: dict[str, SocketAddress | None] = {}
        for pattern in self._ready:
            found = next(filter(None, (self._in_line(pattern, line) for line in lines)), None)
            if found is None:
                return None
            announced.update(found)
        return {name: address for name, address in announced.items() if address and name not in self._kinds}

    def _in_line(self, pattern: re.Pattern[str], line: str) -> Mapping[str, SocketAddress | None] | None:
        """The addresses that this line names, if it is a ready line. It need not name any where the command does."""
        matches = list(pattern.finditer(line)) if line.endswith("\n") else []
        found: dict[str, SocketAddress | None] = {}
        for match in matches:
            found.update(_named(match))
        return found or ({ONLY: None} if matches and self._kinds else None)

    def _too_late(self, silent: bool, places: Mapping[str, Place], within_s: float) -> str:
        if silent and self._ready == (READY,):
            return (
                f"{self} has no {{port}}: put it where the port belongs, or name the line in which the server tells its"
                " port (--ready, in Python ready=);\n"
                f"within {within_s:g} s it wrote no line such as `listening on 127.0.0.1:4000`"
                " (is its output buffered?)"
            )
        if silent:
            patterns = " and ".join(repr(pattern.pattern) for pattern in self._ready)
            did = f"wrote nothing that matches {patterns} (is its output buffered?)"
        else:
            where = (f"port {one}" if isinstance(one, int) else one for one in places.values())
            did = f"did not listen on {', '.join(where)}"
        return f"{self} {did} within {within_s:g} s"


def filled(command: str | Sequence[str], fill: Callable[[re.Match[str]], str]) -> list[str]:
    """The words of a command whose holes are filled; a text that needs a shell is given to one."""
    if isinstance(command, str):
        text = HOLE.sub(fill, command)
        if _SHELL & set(text) or _ASSIGNMENT.match(text):
            return ["/bin/sh", "-c", text]
        try:
            words = shlex.split(text)
        except ValueError as wrong:
            raise TargetError(f"{wrong} in the command `{text}`") from None
    else:
        words = [HOLE.sub(fill, word) for word in command]
    if not words:
        raise TargetError("the command is empty")
    return words


class _CommandServer(RunningServer):
    def __init__(
        self,
        name: str,
        process: Process,
        addresses: Mapping[str, SocketAddress],
        loop: RealTime,
        shared: bool,
    ) -> None:
        super().__init__(loop, addresses)
        self._name = name
        self.process = process
        self.outlives_scripts = shared

    def alive(self, patience_s: float = 0.0) -> bool:
        alive = self.process.alive(patience_s)
        if not alive:
            require_in_foreground(self._name, self.process, map(_place, self.addresses.values()))
        return alive

    def require_fast_time(self) -> None:
        fast_time.require_reached(self.process.pid, self.process.limits)

    def how_it_ended(self) -> str:
        return self.process.how_it_ended()

    def output(self) -> str:
        return self.process.tail()


def _named(match: re.Match[str]) -> Iterator[tuple[str, SocketAddress]]:
    """The endpoints that a ready line names, with their addresses."""
    groups = match.groupdict()
    own = {name: text for name, text in groups.items() if name not in _PARTS_OF_AN_ADDRESS}
    if not own:
        positional = match[1] if match.re.groups and not groups else None
        own = {groups.get("endpoint") or ONLY: groups.get("path") or groups.get("port") or positional}
    for endpoint, text in own.items():
        if text is not None:
            where = groups.get("host") or "127.0.0.1"
            yield endpoint, (text,) if text.startswith("/") else reachable((where, int(text)))


@contextmanager
def claimed_port() -> Iterator[int]:
    """A port that no process uses at this moment, and that no other harness on this machine chooses meanwhile. Two that
    chose the same would both find a server that listens, and one of them another's."""
    for port in random.SystemRandom().sample(_PORTS, min(_PORTS_TRIED, len(_PORTS))):
        with RealSocket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
            try:
                claim.bind(f"\0harness-port-{port}")  # an abstract name: it vanishes with the socket
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            if _is_free(port):
                yield port
                return
    raise TargetError(f"no free port was found in {_PORTS_TRIED} tries")


def _is_free(port: int) -> bool:
    with RealSocket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def make_hole(fileno: int, size: int) -> None:
    """Give this many bytes at the beginning of a file back to the disk, if its file system can do that."""
    import ctypes  # slow, and hardly ever needed

    libc = ctypes.CDLL(None)
    libc.fallocate(
        fileno, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(size)
    )


def listens(kernel: SocketDiagnostics, place: Place) -> SocketAddress | None:
    """The address on this machine at which a process listens on the port, or on the socket of this path."""
    if isinstance(place, str):
        return (place,) if kernel.listens((place,)) else None
    port = place
    for host in _LOOPBACKS:
        if kernel.listens((host, port)):
            return (host, port)
    return None


def _place(address: SocketAddress) -> Place:
    place: Place = address[0] if is_unix(address) else address[1]
    return place


def require_in_foreground(name: str, process: Process, places: Iterable[Place]) -> None:
    """Untestable if the server's process has ended and left the server running in the background."""
    if process.status != 0:
        return
    kernel, limit, places = SocketDiagnostics(), process.limits.limit(_LEFT_WITHIN_S), tuple(places)
    try:
        while served := [place for place in places if listens(kernel, place)]:
            if limit.over:
                where = f"port {served[0]}" if isinstance(served[0], int) else served[0]
                raise Untestable(
                    f"{name} runs in the background: its process exited with status 0, and another one listens on {where}.\n"
                    "Start it in the foreground; end that process by hand",
                    process.tail(),
                )
            _sleep(_LOOK_S)
    finally:
        kernel.close()


def not_started(name: str, process: Process, places: Iterable[Place]) -> TargetError:
    """The error for a server whose process has ended too early."""
    require_in_foreground(name, process, places)
    ended = f"{name} {process.how_it_ended()} before it listened"
    if process.status == 0:
        return Untestable(f"{ended}; a server has to run in the foreground", process.tail())
    return TargetError(ended, process.tail())


# --- the process --------------------------------------------------------------------------------------------


class Process:
    """A server's process, which leads its process group."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        time_factor: int = 1,
        leftovers: Sequence[str] = (),
    ) -> None:
        """`leftovers` are files and folders that are removed also if the test run is killed."""
        self.status: int | None = None
        """The status from waitpid; None while the process lives."""
        self._fast = time_factor > 1
        if self._fast:
            environment = {**environment, **fast_time.environment(time_factor)}
        self.on_end = ExitStack()
        """Resources that are released when the process has ended."""
        self.pid, self._pidfd = 0, -1
        self.limits = LimitClock(lambda: (self.pid,))
        """The clock of what this process is allowed to take."""
        self._given_back = 0
        """How many bytes at the beginning of its output are gone."""
        self._last_output = b""
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        devnull = os.open(os.devnull, os.O_RDWR)
        output = os.open(f"/proc/self/fd/{self._output.fileno()}", os.O_WRONLY | os.O_APPEND)
        actions = [
            (os.POSIX_SPAWN_DUP2, devnull, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        try:
            with signals_held():
                self.pid = _spawnp(
                    argv[0],
                    list(argv),
                    {**os.environ, **environment},
                    file_actions=actions,
                    setsid=True,
                    setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM],
                    setsigmask=[],
                )
                files = fast_time.shared_memory(self.pid) if self._fast else []
                self._watchdog, self._leash = _watch(self.pid, [*files, *leftovers])
                self._pidfd = os.pidfd_open(self.pid)
        except (OSError, ValueError) as error:
            if self.pid:
                self.signal(signal.SIGKILL)
                self._reap()
            self._output.close()
            why = error.strerror if isinstance(error, OSError) else error
            raise Untestable(f"cannot start {argv[0]!r}: {why}") from error
        except BaseException:
            self.end()  # a signal that was held back
            raise
        finally:
            os.close(devnull)
            os.close(output)

    def alive(self, patience_s: float = 0.0) -> bool:
        """Whether it runs. `patience_s`: how long to keep checking, if it is perhaps dying."""
        if self.status is None and self._exited(patience_s):
            self._reap()
        self._give_back_output()
        return self.status is None

    def how_it_ended(self) -> str:
        if self.status is None:
            return "runs"
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            return f"was killed by {_SIGNALS.get(number, f'signal {number}')}"
        return f"exited with status {os.waitstatus_to_exitcode(self.status)}"

    def output(self, last_bytes: int = OUTPUT_BYTES) -> bytes:
        """The end of its standard output and error, together; once it has been ended, what `tail` shows of it."""
        if self._output.closed:
            return self._last_output
        size = self._size()
        start = max(self._given_back, size - last_bytes)
        return os.pread(self._output.fileno(), size - start, start)

    def tail(self) -> str:
        """The end of its output, as reports show it."""
        return self.output(SERVER_OUTPUT_BYTES).decode("utf-8", "replace")

    def _give_back_output(self) -> None:
        """Keep the end of a long output. Its size stays: a server that goes on writing would lose what it writes just before
        a file is cut."""
        if self._pidfd >= 0 and (size := self._size()) - self._given_back > OUTPUT_BYTES:
            size -= SERVER_OUTPUT_BYTES
            make_hole(self._output.fileno(), size)
            self._given_back = size

    def _size(self) -> int:
        return os.fstat(self._output.fileno()).st_size

    def end(self) -> None:
        """Terminate it, wait for its end, then kill the rest of its group. Idempotent."""
        if self._pidfd < 0:
            return
        members = [self.pid, *fast_time.processes(self.pid)] if self._fast else []
        if self.alive():
            self.signal(signal.SIGTERM)
            if not self._exited(END_WITHIN_S):
                self.signal(signal.SIGKILL)
                self._exited(END_WITHIN_S)
            self._reap()
        self.signal(signal.SIGKILL)
        fast_time.remove_shared_memory(members)
        os.write(self._leash, b"\n")
        os.close(self._leash)
        _waitpid(self._watchdog, 0)
        os.close(self._pidfd)
        self._pidfd = -1
        self._last_output = self.output(SERVER_OUTPUT_BYTES)
        self._output.close()
        self.on_end.close()

    def _exited(self, within_s: float) -> bool:
        watch, limit = _poll(), self.limits.limit(within_s)
        watch.register(self._pidfd, select.POLLIN)
        while not watch.poll(limit.pause_s * 1000):
            if limit.over:
                return False
        return True

    def _reap(self) -> None:
        try:
            _, self.status = _waitpid(self.pid, 0)
        except ChildProcessError:
            self.status = 0  # another SIGCHLD handler took the status; the process has ended

    def signal(self, number: int) -> None:
        """Send a signal to the whole group."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # nothing is left of the group


def _watch(group: int, files: Sequence[str]) -> tuple[int, int]:
    """A shell that kills the group, and removes its files, when this process is gone, and the end of the pipe that keeps
    it waiting."""
    watched, leash = os.pipe()
    removal = f"; rm -rf {shlex.join(files)}" if files else ""
    script = f"read released || {{ kill -s KILL -- -{group}{removal}; }}"
    try:
        watchdog: int = _spawn(
            "/bin/sh",
            ["/bin/sh", "-c", script],
            {},
            file_actions=[(os.POSIX_SPAWN_DUP2, watched, 0)],
            setsid=True,
            setsigmask=[],
        )
    finally:
        os.close(watched)
    return watchdog, leash
