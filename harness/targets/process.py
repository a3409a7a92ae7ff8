"""A server's process: started in a group of its own, its words kept, and ended whatever happens.

"Whatever" includes the death of the test run itself: a watchdog, a shell that does nothing but wait for the other end
of a pipe to close, then ends the group. Knows no ports, no scripts and no gevent beyond what it must step around.
"""

from __future__ import annotations

import os
import select
import signal
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from gevent.monkey import get_original

from harness.targets.target import TargetError

SERVER_OUTPUT_BYTES = 8_000
OUTPUT_BYTES = 16_000_000
"""What a server may write before the oldest is thrown away."""

END_WITHIN_S = 2.0

# Where gevent is patched in, its own of these want the loop of the main hub, which is not the one here.
_poll: Any = get_original("select", "poll")
_spawn: Any = get_original("os", "posix_spawn")
_spawnp: Any = get_original("os", "posix_spawnp")
_waitpid: Any = get_original("os", "waitpid")
_POLLIN = select.POLLIN


class Process:
    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self.status: int | None = None
        """As from waitpid; None while it lives."""
        self._cut = b""
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        devnull = os.open(os.devnull, os.O_RDWR)
        # Appending, so that the file can be cut short under a server that goes on writing.
        output = os.open(f"/proc/self/fd/{self._output.fileno()}", os.O_WRONLY | os.O_APPEND)
        actions = [
            (os.POSIX_SPAWN_DUP2, devnull, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        try:
            self.pid: int = _spawnp(
                argv[0],
                list(argv),
                {**os.environ, **environment},
                file_actions=actions,
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM],
                setsigmask=[],
            )
        except OSError as error:
            self._output.close()
            raise TargetError(f"cannot start {argv[0]!r}: {error.strerror}") from error
        finally:
            os.close(devnull)
            os.close(output)
        self._pidfd = os.pidfd_open(self.pid)
        self._watchdog, self._leash = _watch(self.pid)

    def alive(self, patience_s: float = 0.0) -> bool:
        """Whether it lives; `patience_s`: how long to look, where there is reason to think that it is dying."""
        if self.status is None and self._exited(patience_s):
            self._reap()
        self._cut_short()
        return self.status is None

    def how_it_ended(self) -> str:
        if self.status is None:
            return "runs"
        if os.WIFSIGNALED(self.status):
            return f"was killed by {signal.Signals(os.WTERMSIG(self.status)).name}"
        return f"exited with status {os.waitstatus_to_exitcode(self.status)}"

    def output(self, last_bytes: int = OUTPUT_BYTES) -> bytes:
        """What it wrote last, to its standard output and error alike."""
        size = self._size()
        start = max(0, size - last_bytes)
        return (self._cut + os.pread(self._output.fileno(), size - start, start))[-last_bytes:]

    def server_output(self) -> str:
        return self.output(SERVER_OUTPUT_BYTES).decode("utf-8", "replace")

    def _cut_short(self) -> None:
        if self._pidfd >= 0 and self._size() > OUTPUT_BYTES:
            self._cut = self.output(SERVER_OUTPUT_BYTES)
            os.ftruncate(self._output.fileno(), 0)

    def _size(self) -> int:
        return os.fstat(self._output.fileno()).st_size

    def end(self) -> None:
        """Ask it to end, wait for that, then end what is left of its group. Can be called again."""
        if self._pidfd < 0:
            return
        if self.alive():
            self._signal(signal.SIGTERM)
            if not self._exited(END_WITHIN_S):
                self._signal(signal.SIGKILL)
                self._exited(END_WITHIN_S)
            self._reap()
        self._signal(signal.SIGKILL)
        os.write(self._leash, b"\n")
        os.close(self._leash)
        _waitpid(self._watchdog, 0)
        os.close(self._pidfd)
        self._pidfd = -1
        self._output.close()

    def _exited(self, within_s: float) -> bool:
        watch = _poll()
        watch.register(self._pidfd, _POLLIN)
        return bool(watch.poll(within_s * 1000))

    def _reap(self) -> None:
        try:
            _, self.status = _waitpid(self.pid, 0)
        except ChildProcessError:
            self.status = 0  # somebody else's SIGCHLD handler has taken the status; that it ended is certain

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # nothing is left of the group


def _watch(group: int) -> tuple[int, int]:
    """A shell that ends the group when this process is gone; and the pipe it watches."""
    watched, leash = os.pipe()
    script = f"read told || kill -s KILL -- -{group}"
    try:
        watchdog: int = _spawn(
            "/bin/sh",
            ["/bin/sh", "-c", script],
            {},
            file_actions=[(os.POSIX_SPAWN_DUP2, watched, 0)],
            setsid=True,
        )
    finally:
        os.close(watched)
    return watchdog, leash
