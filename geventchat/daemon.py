"""The server as a process: its ready lines, its log, its signals and its exit codes. Knows no protocol and no arguments.

Invariants:
- Threads write the ready lines and the log. A stuck reader delays neither the chat nor its shutdown.
- After the first signal the process ends within the shutdown time-out and one second, whatever is stuck.
- A second SIGTERM or SIGINT ends it at once.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from dataclasses import replace
from typing import TextIO

import gevent
from gevent.event import Event

from geventchat.clock import Clock, SystemClock
from geventchat.log import LineWriter, LogWriter
from geventchat.net.admission import raise_descriptor_limit
from geventchat.net.listener import CannotListen
from geventchat.server import Server
from geventchat.settings import EXIT_CONFIGURATION, Config, ConfigError, Program

EXIT_CANNOT_LISTEN = 4
EXIT_DEADLINE = 5

# A process that has not ended this long after the shutdown time-out is stuck.
_GRACE_S = 0.9
# The log gets the rest of the shutdown time-out for its last lines, within these bounds.
_LEAST_FLUSH_S = 0.3
_MOST_FLUSH_S = 2.0


def run(config: Config, program: Program) -> int:
    """Serve until a signal arrives; returns the exit code."""
    clock = SystemClock()
    signals = StopSignals(clock, config.shutdown_s + _GRACE_S)
    raise_descriptor_limit()
    _spare_the_collector()
    output: LineWriter[str] = LineWriter(_descriptor(sys.stdout), "geventchat-output")
    log = LogWriter(_descriptor(sys.stderr), program.log_format, program.log_level, clock)
    server = Server(config, clock=clock, log=log)
    try:
        server.start()
    except BaseException as error:
        log.close(_LEAST_FLUSH_S)
        match error:
            case CannotListen():
                print(f"geventchat: {_explanation(error)}", file=sys.stderr)
                return EXIT_CANNOT_LISTEN
            case ConfigError():
                print(f"geventchat: {error}", file=sys.stderr)
                return EXIT_CONFIGURATION
        raise
    for listen, (host, port) in server.listening:
        shown = listen.path or replace(listen, host=host, port=port).shown
        scheme = "" if listen.scheme == "line" else f" ({listen.scheme})"
        output.put(f"[SERVER] Chat server started on {shown}{scheme}")
    output.put("[SERVER] Waiting for connections...")
    signals.wait()
    deadline = clock.monotonic() + config.shutdown_s
    output.put("[SERVER] Shutting down...")
    orderly = server.stop()
    # The log comes first, so that "Server stopped." is the last line on a terminal.
    log.close(min(_MOST_FLUSH_S, max(_LEAST_FLUSH_S, deadline - clock.monotonic())))
    output.put("[SERVER] Server stopped.")
    output.close(_LEAST_FLUSH_S)
    return 0 if orderly else EXIT_DEADLINE


class StopSignals:
    """SIGTERM, SIGINT and SIGHUP, received by a thread, because a thread also runs while the main thread is stuck."""

    def __init__(self, clock: Clock, grace_s: float) -> None:
        """Call this before any other thread is started: a thread inherits which signals are blocked."""
        self._clock = clock
        self._grace_s = min(grace_s, threading.TIMEOUT_MAX)
        self._first = Event()
        self._signals = {signal.SIGTERM, signal.SIGINT}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # nohup ignores it, so that the server outlives its terminal.
            self._signals.add(signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        self._wake_up = gevent.get_hub().loop.async_()
        self._wake_up.start(self._first.set)
        threading.Thread(target=self._receive, name="geventchat-signals", daemon=True).start()

    def wait(self) -> None:
        """Wait for the first signal; called by the main greenlet."""
        self._first.wait()
        self._wake_up.close()

    def _receive(self) -> None:
        signal.sigwait(self._signals)
        end_at = self._clock.monotonic() + self._grace_s
        self._wake_up.send()
        while (left_s := end_at - self._clock.monotonic()) > 0:
            received = signal.sigtimedwait(self._signals, left_s)
            # A terminal that closes can send SIGHUP twice, once by its shell and once by the kernel.
            if received is not None and received.si_signo != signal.SIGHUP:
                os._exit(128 + received.si_signo)
        os._exit(EXIT_DEADLINE)


def _spare_the_collector() -> None:
    # Clients hold no reference cycles. A collection after every 700 new objects takes a tenth of the CPU time of a login,
    # and the objects of the program itself live until it exits.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _descriptor(stream: TextIO | None) -> int:
    # The number of a closed stream is reused by whatever is opened next, such as a socket.
    return os.open(os.devnull, os.O_WRONLY) if stream is None else stream.fileno()


def _explanation(error: CannotListen) -> str:
    listen = error.listen
    if not error.in_use:
        return str(error.strerror)
    if listen.is_unix:
        return f"{listen.path} is in use: another server listens there; try another path"
    port = listen.port or 0
    other = port + 1 if port < 65535 else 4000
    return (
        f"port {port} is in use: another program listens on {listen.host or '*'}:{port}; "
        f"try another port, such as {other}, or 0 for any free port"
    )
