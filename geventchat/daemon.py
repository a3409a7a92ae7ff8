"""The server as a process: its ready lines, its log, its signals and its exit codes. Knows no protocol and no arguments.

Invariants:
- Threads write the ready lines and the log. A stuck reader delays neither the chat nor its shutdown.
- After the first signal the process ends within the shutdown time-out and one second, whatever is stuck.
- A second SIGTERM or SIGINT ends it at once.
- A signal that comes while a new program takes over is passed on to it, and is never the second one there.
"""

from __future__ import annotations

import gc
import math
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TextIO

import gevent
from gevent.event import Event

from geventchat.admin.acts import Acts
from geventchat.admin.listener import AdminSocket, CannotOpenSocket
from geventchat.admin.protocol import Answer, error, socket_path
from geventchat.chat.storage import StorageUnavailable
from geventchat.chat.text import clean
from geventchat.clock import Clock, SystemClock
from geventchat.handover import Buffers, HandoverFailed, Predecessor, Successor
from geventchat.log import LineWriter, LogEvent, LogWriter
from geventchat.net.admission import raise_descriptor_limit
from geventchat.net.listener import CannotListen
from geventchat.server import Server, in_thread
from geventchat.settings import EXIT_CONFIGURATION, SETTINGS, Config, ConfigError, Reload, Settings
from geventchat.systemd import Notifier, inherited_sockets, watchdog_s

EXIT_CANNOT_LISTEN = 4
EXIT_DEADLINE = 5

# A process that has not ended this long after the shutdown time-out is stuck.
_GRACE_S = 0.9
# How long an upgrade waits until no running command prevents it, and how often it checks.
_MOMENT_S = 10.0
_LOOK_S = 0.005
# How long clients that cannot be handed over can take to close their side.
_LEAVE_S = 1.0
# The author, in the audit log, of what the program that has taken over notes about that. No client can have this name.
_NEW_PROGRAM = "geventchat upgrade"
# How much of the interpreter of an upgrade, and of the reason for its failure, is in the audit log, which keeps it for ever.
_AUDITED_CHARACTERS = 300
# How often the server tells systemd that it is alive, and looks for orphans.
_TEND_S = 5.0
# How often the server looks whether the terminal that it was started on is still there.
_TERMINAL_S = 5.0
# The second of these signals ends the process at once.
_AT_ONCE = (signal.SIGTERM, signal.SIGINT)
# Comes after all others that wait, because of its number. Shows that those have been received.
_LAST = signal.SIGRTMIN
# How long a process that ends waits until its signals have been passed on.
_PASS_ON_S = 5.0
# The log gets the rest of the shutdown time-out for its last lines, within these bounds.
_LEAST_FLUSH_S = 0.3
_MOST_FLUSH_S = 2.0


def run(settings: Settings, read_settings: Callable[[], Settings], words: Sequence[str] = ()) -> int:
    """Serve until a signal arrives; returns the exit code. `read_settings` reads the settings again, or raises ConfigError.

    `words` are the arguments, for a program that takes over from this one.
    """
    clock = SystemClock()
    config, program = settings.config, settings.program
    predecessor = Predecessor.find(os.environ)
    signals = Signals(clock, config.shutdown_s, None if predecessor is None else predecessor.pid)
    raise_descriptor_limit()
    _spare_the_collector()
    output: LineWriter[str] = LineWriter(_descriptor(sys.stdout), "geventchat-output")
    log = LogWriter(_descriptor(sys.stderr), program.log_format, program.log_level, clock)
    try:
        server = Server(config, clock=clock, log=log, sockets=inherited_sockets(os.environ))
        process = Process(server, settings, read_settings, words, log, output, clock, signals)
        if predecessor is None:
            server.start()
            try:
                process.open_admin_socket()
            except CannotOpenSocket:
                server.stop(0)
                raise
        else:
            process.take_over(predecessor)
    except BaseException as failed:
        if predecessor is not None:
            # Nothing has been served: the event loop has not run.
            predecessor.refuse(f"the new program cannot take over: {failed}")
        log.close(_LEAST_FLUSH_S)
        match failed:
            case CannotListen():
                print(f"geventchat: {_explanation(failed)}", file=sys.stderr)
                return EXIT_CANNOT_LISTEN
            case CannotOpenSocket():
                print(f"geventchat: admin-socket: {failed}", file=sys.stderr)
                return EXIT_CONFIGURATION
            case ConfigError():
                print(f"geventchat: {failed}", file=sys.stderr)
                return EXIT_CONFIGURATION
        raise
    if predecessor is not None:
        output.put(f"[SERVER] Upgraded: process {os.getpid()} goes on")
    for listen, (host, port) in server.listening:
        shown = listen.path or replace(listen, host=host, port=port).shown
        scheme = "" if listen.scheme == "line" else f" ({listen.scheme})"
        output.put(f"[SERVER] Chat server started on {shown}{scheme}")
    output.put("[SERVER] Waiting for connections...")
    process.started()
    signals.wait(process.hang_up, partial(process.upgrade, "", "SIGUSR2"), lambda: server.config.shutdown_s)
    # A reload can have changed it.
    within_s = server.config.shutdown_s
    deadline = clock.monotonic() + within_s
    output.put("[SERVER] Shutting down...")
    process.stopping()
    orderly = server.stop()
    # The log comes first, so that "Server stopped." is the last line on a terminal.
    log.close(min(_MOST_FLUSH_S, max(_LEAST_FLUSH_S, deadline - clock.monotonic())))
    output.put("[SERVER] Server stopped.")
    output.close(_LEAST_FLUSH_S)
    return 0 if orderly else EXIT_DEADLINE


class Process:
    """The parts of this process that an operator can change: its settings and its log level."""

    def __init__(
        self,
        server: Server,
        settings: Settings,
        read_settings: Callable[[], Settings],
        words: Sequence[str],
        log: LogWriter,
        output: LineWriter[str],
        clock: Clock,
        signals: Signals,
    ) -> None:
        self._server = server
        self._words = words
        self._output = output
        # The effective values: a setting that needs a restart keeps the value from the start.
        self._values = {key: settings[key] for key in SETTINGS}
        self._program = settings.program
        self._read_settings = read_settings
        self._log = log
        self._signals = signals
        self._clock = clock
        self._reloading = False
        # A SIGHUP has come while the settings were being read.
        self._outdated = False
        self._upgrading = False
        # How often the settings have been read again.
        self._reloads = 0
        # The database is being copied.
        self.backing_up = False
        # The process that has taken over.
        self._successor: Successor | None = None
        self._admin: AdminSocket | None = None
        self._notifier = Notifier(os.environ)
        self._watchdog_s = watchdog_s(os.environ)
        self._timer: Any = None
        self.started_ms = int(1000 * clock.time())

    @property
    def log_level(self) -> str:
        """The lowest level that is logged."""
        return self._log.level

    @log_level.setter
    def log_level(self, level: str) -> None:
        self._log.level = level

    def hang_up(self) -> None:
        """Reload. Settings that are being read already can have changed since, and are read once more then."""
        if self._reloading:
            self._outdated = True
        elif "done" in self.reload():
            self._server.context.chat.audit("SIGHUP", "reload", "")

    def reload(self) -> Answer:
        """Read the settings again and let them count; the answer names what has changed. If one is wrong, nothing changes."""
        if self._reloading:
            return error("busy", "the settings are being read already")
        self._reloading = True
        self._reloads += 1
        self._notifier.notify("RELOADING=1", f"MONOTONIC_USEC={int(1e6 * self._clock.monotonic())}")
        try:
            settings = self._read_settings()
            settings.check()
            self._server.change(settings.config)
        except ConfigError as wrong:
            self._log(LogEvent.RELOAD_REFUSED, error=str(wrong))
            return error("refused", f"{wrong}; the settings are as before")
        finally:
            self._reloading = False
            self._notifier.notify("READY=1", self._status)
            if self._outdated:
                self._outdated = False
                gevent.spawn(self.hang_up)
        self._log.level = settings["log-level"]
        self._log.change_format(settings["log-format"])
        changed: dict[Reload, list[str]] = {reload: [] for reload in Reload}
        for key, row in SETTINGS.items():
            if settings[key] != self._values[key]:
                assert row.reload is not None
                changed[row.reload].append(key)
                if row.reload is not Reload.RESTART:
                    self._values[key] = settings[key]
        answer = {reload.value.replace(" ", "_"): keys for reload, keys in changed.items()}
        self._log(LogEvent.RELOADED, **{key: " ".join(keys) for key, keys in answer.items() if keys})
        return {"done": answer}

    def started(self) -> None:
        """Clients can connect."""
        self._notifier.notify("READY=1", self._status)
        if self._watchdog_s is not None or os.getpid() == 1:
            self._tend()

    def stopping(self) -> None:
        """Take no more requests of operators."""
        self._notifier.notify("STOPPING=1")
        if self._timer is not None:
            self._timer.close()
        if self._admin is not None:
            self._admin.close()

    def _tend(self) -> None:
        """Do the regular tasks: notify systemd, and reap orphans."""
        # If the loop hangs or the disk does not answer, systemd gets no notification, and restarts the server.
        if self._watchdog_s is not None and self._server.storage.lag_s < self._watchdog_s:
            self._notifier.notify("WATCHDOG=1", self._status)
        if os.getpid() == 1:
            _reap_orphans()
        # A new timer each time, because the loop's timers cannot be restarted.
        if self._timer is not None:
            self._timer.close()
        self._timer = gevent.get_hub().loop.timer(min(_TEND_S, (self._watchdog_s or math.inf) / 3))
        self._timer.start(self._tend)

    @property
    def _status(self) -> str:
        return f"STATUS={len(self._server.context.chat)} people, {self._server.clients} connections"

    def open_admin_socket(self, opened: socket.socket | None = None) -> None:
        """Take requests of operators, perhaps on a socket that is open already. Raises CannotOpenSocket."""
        path = self._admin_path
        if path is not None:
            acts = Acts(self._server, self, self._log, self._clock)
            self._admin = AdminSocket(path, acts.carry_out, self._log, opened)

    @property
    def _admin_path(self) -> Path | None:
        return socket_path(self._program.admin_socket, self._server.config.data)

    # --- Upgrade -----------------------------------------------------------------------------------------------------

    def take_over(self, predecessor: Predecessor) -> None:
        """Have the server serve the clients of another process, once the event loop runs."""
        server = self._server
        admin = self._admin_path
        hello = {
            **_hello(server.config),
            "admin": None if admin is None else str(admin.resolve()),
            "unix": [listen.path for listen in server.config.listen if listen.is_unix],
        }
        server.prepare(predecessor.prepare(hello))
        with _no_collections():
            handed_over = predecessor.receive()
            server.start(handed_over)
            predecessor.understood()
            self.open_admin_socket(server.go_on())
            # All of it lives on.
            gc.freeze()
            predecessor.serving()
        self._log(LogEvent.UPGRADED, pid=os.getpid(), clients=server.clients)
        server.context.chat.audit(_NEW_PROGRAM, "upgraded", "", f"process {os.getpid()}")

    def upgrade(
        self, python: str, by: str, at_once: Callable[[Answer], object] = lambda answer: None
    ) -> Answer:
        """Hand everything over to a new program and end; if that is not possible, return an error.

        `at_once` gets the answer after the event loop has stopped, so it must not wait.
        """
        if os.getpid() == 1:
            return self._failed_to_upgrade(
                "this is the first process of a container, which would end with it; start another container instead"
            )
        if self._upgrading or self._reloading or self.backing_up or self._server.unready == "stopping":
            return error("busy", "the server is being upgraded, reloaded, backed up or stopped already")
        self._upgrading = True
        successor = None
        chat = self._server.context.chat
        target = clean(python)[:_AUDITED_CHARACTERS]
        try:
            # Now, because the program that is started can do anything. What becomes of it is another entry.
            chat.audit(by, "upgrade", target, "asked for")
            reloads = self._reloads
            successor = Successor(python, self._words, gevent.sleep, self._clock)
            self._log(LogEvent.UPGRADING, pid=successor.pid, python=python or sys.executable)
            hello = successor.hello()
            self._check(hello)
            successor.prepare(self._server.state.ahead())
            self._wait_for_moment()
            if self._reloads != reloads:
                raise HandoverFailed("the settings have been read again meanwhile; try again")
            begun = self._clock.monotonic()
            self._hand_over(successor)
        except Exception as failed:
            if not isinstance(failed, HandoverFailed | StorageUnavailable):
                self._log(LogEvent.FAULT, error="".join(traceback.format_exception(failed)).rstrip())
            why = str(failed) or type(failed).__name__
            chat.audit(by, "upgrade failed", target, clean(why)[:_AUDITED_CHARACTERS])
            return self._failed_to_upgrade(why)
        finally:
            self._upgrading = False
            if self._successor is None:
                chat.hold(False)
                if successor is not None:
                    successor.end()
        self._leave(successor, hello, begun, at_once)

    def _failed_to_upgrade(self, why: str) -> Answer:
        self._log(LogEvent.UPGRADE_FAILED, error=why)
        return error("failed", f"{why}; everything is as before")

    def _check(self, hello: Mapping[str, Any]) -> None:
        wanted = _hello(self._server.config)
        if hello.get("data") != wanted["data"]:
            raise HandoverFailed("the new program has another data directory; restart instead")
        if hello.get("database") != wanted["database"]:
            raise HandoverFailed("the new program has another version of the database; restart instead")
        # Its socket goes on, and stays where it is. A program of an older version does not say where it wants it.
        if self._admin is not None and hello.get("admin", "") not in ("", str(self._admin.path.resolve())):
            raise HandoverFailed("the new program has another admin socket; restart instead")

    def _wait_for_moment(self) -> None:
        deadline = self._clock.monotonic() + _MOMENT_S
        # Write what waits for the disk now, while the clients are still served.
        in_thread(self._server.storage.settle)
        # Otherwise a client that begins one step after another that cannot be interrupted would prevent the upgrade.
        self._server.context.chat.hold(True)
        while self._reloading or self.backing_up or not self._server.state.can_be_handed_over:
            if self._clock.monotonic() > deadline:
                raise HandoverFailed("somebody's command takes too long; try again")
            gevent.sleep(_LOOK_S)

    def _hand_over(self, successor: Successor) -> None:
        """Hand over; no other greenlet runs after that, unless this fails."""
        if self._server.unready == "stopping":
            raise HandoverFailed("the server is being stopped")
        storage = self._server.storage
        try:
            with _no_collections():
                storage.suspend()
                buffers = Buffers()
                admin = None if self._admin is None else self._admin.fileno()
                successor.hand_over(self._server.state.to_parts(buffers.keep, admin), buffers)
                successor.go()
        except BaseException:
            # The successor can have begun to write.
            successor.end()
            storage.resume()
            raise
        self._successor = successor

    def _leave(
        self,
        successor: Successor,
        hello: Mapping[str, Any],
        begun: float,
        at_once: Callable[[Answer], object],
    ) -> NoReturn:
        """End the process after another one has taken over its clients. The event loop must not run again."""
        try:
            self._signals.pass_on_to(successor.pid)
            self._notifier.notify(f"MAINPID={successor.pid}")
            pause_s = round(self._clock.monotonic() - begun, 3)
            at_once({"done": {"pid": successor.pid, "pause_s": pause_s}})
            if "unix" in hello:
                self._server.remove_files(hello["unix"])
            left = self._server.state.leave_behind()
            for connection in left:
                connection.send_away()
            _read_to_the_end([connection.fileno for connection in left], self._clock)
            # The new program does not know what was dropped here.
            self._server.context.log.close()
            self._log.close(_MOST_FLUSH_S)
            self._output.close(_LEAST_FLUSH_S)
            self._signals.wait_until_passed_on(_PASS_ON_S)
        finally:
            os._exit(0)


def _hello(config: Config) -> dict[str, Any]:
    """The facts in which both programs have to agree."""
    if not config.data:
        return {"data": "", "database": 0}
    from geventchat.services.storage.schema import MIGRATIONS

    return {"data": str(Path(config.data).resolve()), "database": len(MIGRATIONS)}


@contextmanager
def _no_collections() -> Iterator[None]:
    """Disable garbage collection: it would find nothing, and every client waits for it."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _read_to_the_end(descriptors: list[int], clock: Clock) -> None:
    """Wait a moment for clients to close their side: closing with unread input can cost them their last lines."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    left = len(descriptors)
    deadline = clock.monotonic() + _LEAVE_S
    while left and (left_s := deadline - clock.monotonic()) > 0:
        for descriptor, _ in poll.poll(1000 * left_s):
            try:
                if os.read(descriptor, 65_536):
                    continue
            except OSError:
                pass
            poll.unregister(descriptor)
            left -= 1


class Signals:
    """The signals of the process, received by a thread, because a thread also runs while the main thread is stuck.

    SIGTERM and SIGINT stop the server, and so does the SIGHUP that comes when the terminal goes that it was started on. A
    terminal can also go without one: that of a job in the background, when its shell exits. Any other SIGHUP means that the
    settings are to be read again, and SIGUSR2 that a new program is to take over. What comes before the server runs, or while
    nobody is served because a new program takes over, is acted on afterwards: by the process that serves then.
    """

    def __init__(self, clock: Clock, shutdown_s: float, predecessor: int | None) -> None:
        """Call this before any other thread is started: a thread inherits which signals are blocked.

        `predecessor` is the process that this one takes over from, if there is one.
        """
        self._clock = clock
        self._shutdown_s: Callable[[], float] = lambda: shutdown_s
        self._predecessor = predecessor
        self._successor: int | None = None
        self._first = Event()
        self._had_terminal = _has_terminal()
        self._signals = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, _LAST}
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # nohup ignores it, so that the server outlives its terminal.
            self._signals.add(signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        loop = gevent.get_hub().loop
        self._stop, self._hangup, self._upgrade = loop.async_(), loop.async_(), loop.async_()
        self._stop.start(self._first.set)
        # The watchers of those that have been received and not been acted on; guarded by the lock, like `_successor`.
        self._received: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._all_passed_on = threading.Event()
        threading.Thread(target=self._receive, name="geventchat-signals", daemon=True).start()

    def wait(
        self, reload: Callable[[], object], upgrade: Callable[[], object], shutdown_s: Callable[[], float]
    ) -> None:
        """Wait for the signal to stop; called by the main greenlet. Others have something called in another greenlet.

        `shutdown_s` is the time that stopping can take by then.
        """
        self._shutdown_s = shutdown_s
        self._hangup.start(gevent.spawn, self._act_on, signal.SIGHUP, reload)
        self._upgrade.start(gevent.spawn, self._act_on, signal.SIGUSR2, upgrade)
        with self._lock:
            # A watcher forgets what comes before it is started.
            for watcher in self._received.values():
                watcher.send()
        self._first.wait()
        self._stop.close()
        self._hangup.close()
        self._upgrade.close()

    def pass_on_to(self, pid: int) -> None:
        """Have another process, which serves now, act on what this one has not acted on, and on what comes from now on."""
        with self._lock:
            self._successor = pid
            for number in self._received:
                _send_signal(pid, number)

    def wait_until_passed_on(self, within_s: float) -> None:
        """Wait until another process has everything that this one has been sent by now, at most this long."""
        os.kill(os.getpid(), _LAST)
        self._all_passed_on.wait(within_s)

    def _act_on(self, number: int, act: Callable[[], object]) -> None:
        with self._lock:
            self._received.pop(number, None)
        act()

    def _receive(self) -> None:
        while True:
            first = self._next()
            if first.si_signo == signal.SIGUSR2:
                watcher = self._upgrade
            elif first.si_signo == signal.SIGHUP and (_has_terminal() or not self._had_terminal):
                watcher = self._hangup
            else:
                watcher = self._stop
            if self._is_passed_on(first.si_signo, watcher):
                continue
            watcher.send()
            if watcher is self._stop:
                break
        within_s = min(self._shutdown_s() + _GRACE_S, threading.TIMEOUT_MAX)
        end_at = self._clock.monotonic() + within_s
        # Ctrl-C and service managers send a signal to both processes: what the old one passes on is not a second one.
        sent_here = first.si_pid != self._predecessor
        while (left_s := end_at - self._clock.monotonic()) > 0:
            again = signal.sigtimedwait(self._signals, left_s)
            # A terminal that closes can send SIGHUP twice, once by its shell and once by the kernel.
            if (
                again is None
                or self._is_passed_on(again.si_signo, self._stop)
                or again.si_signo not in _AT_ONCE
            ):
                continue
            if again.si_pid != self._predecessor:
                if sent_here:
                    os._exit(128 + again.si_signo)
                sent_here = True
        os._exit(EXIT_DEADLINE)

    def _next(self) -> signal.struct_siginfo:
        """Wait for a signal, and note if the terminal goes without one."""
        is_gone = False
        while self._had_terminal:
            received = signal.sigtimedwait(self._signals, _TERMINAL_S)
            if received is not None:
                return received
            # At the first look, its SIGHUP can be on its way.
            was_gone, is_gone = is_gone, not _has_terminal()
            self._had_terminal = not (was_gone and is_gone)
        return signal.sigwaitinfo(self._signals)

    def _is_passed_on(self, number: int, watcher: Any) -> bool:
        """Note what has been received, or pass it on if another process serves by now."""
        with self._lock:
            if self._successor is None:
                self._received[number] = watcher
                return False
            if number == _LAST:
                self._all_passed_on.set()
            else:
                _send_signal(self._successor, number)
            return True


def _send_signal(pid: int, number: int) -> None:
    # It can have ended already.
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _reap_orphans() -> None:
    """Reap orphaned processes, as the first process of a container must. Code that waits for children expects that they can be
    reaped already."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


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
