"""A gevent server that answers late in many ways: each command is one way in which a fence could be wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.queue import Queue
from gevent.server import StreamServer
from gevent.threadpool import ThreadPool

from harness import ServerSpec
from tests.patience import HANG_S

REAL_DELAY_S = 0.03


class LateServer(StreamServer):
    """Each command sends `done` in one way; any other line is sent to all others unchanged. A thread works until END: it must
    still work when the fence looks, however busy the machine is."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.converse)
        self.may_end = threading.Event()
        self.sockets: list[Any] = []
        self.work: Queue[Callable[[], None]] = Queue()
        self.tasks: list[gevent.Greenlet] = []
        self.own_pool: ThreadPool | None = None
        self.left_on_time = 0

    def start(self) -> None:
        super().start()
        self.tasks.append(gevent.spawn(self._work_off))

    def stop(self, timeout: float | None = None) -> None:
        self.may_end.set()
        gevent.killall(self.tasks)
        if self.own_pool is not None:
            self.own_pool.kill()
        super().stop(timeout)

    def converse(self, sock: Any, _address: object) -> None:
        self.sockets.append(sock)
        try:
            with sock.makefile("rb") as lines:
                for line in lines:
                    if not self.handle_line(sock, line):
                        return
        finally:
            self.sockets.remove(sock)
            sock.close()

    def handle_line(self, sock: Any, line: bytes) -> bool:
        def done() -> None:
            sock.sendall(b"done\n")

        match line.decode("latin-1").split():
            case ["SLEEP", seconds]:
                gevent.sleep(float(seconds))
                done()
            case ["POOL"]:
                gevent.get_hub().threadpool.apply(time.sleep, (REAL_DELAY_S,))
                done()
            case ["OWN-POOL"]:
                self.own_pool = self.own_pool or ThreadPool(1)
                self.own_pool.spawn(time.sleep, REAL_DELAY_S).get()
                done()
            case ["POOL-THEN-SLEEP", seconds]:
                gevent.get_hub().threadpool.apply(time.sleep, (REAL_DELAY_S,))
                gevent.sleep(float(seconds))
                done()
            case ["SPAWN", depth]:
                self._descend(int(depth), done)
            case ["QUEUE"]:
                self.work.put(done)
            case ["THREAD"]:
                self._in_a_thread(done)
            case ["END"]:
                self.may_end.set()
            case ["TIMEOUT", seconds]:
                with gevent.Timeout(float(seconds), False):
                    gevent.sleep(1_000_000)
                done()
            case ["PIECES"]:
                for piece in (b"do", b"n", b"e", b"\n"):
                    sock.sendall(piece)
            case ["READS"]:
                self._report_reads(sock)
            case ["STUCK"]:
                gevent.get_hub().threadpool.apply(time.sleep, (1.0,))
            case ["SPIN"]:
                while True:
                    gevent.sleep(0)
            case ["CRASH"]:
                raise RuntimeError("this server crashes when asked to")
            case ["FILL", size]:
                sock.sendall(b"x" * int(size))
                self.left_on_time += 1
            case ["BYE"]:
                done()
                return False
            case _:
                for other in self.sockets:
                    if other is not sock:
                        other.sendall(line)
        return True

    def _descend(self, depth: int, done: Callable[[], None]) -> None:
        if depth:
            gevent.spawn(self._descend, depth - 1, done)
        else:
            done()

    def _work_off(self) -> None:
        while True:
            self.work.get()()

    def _in_a_thread(self, done: Callable[[], None]) -> None:
        # A native thread that notifies the loop when it is ready: no pool knows of it.
        hub = gevent.get_hub()

        def work() -> None:
            self.may_end.wait(HANG_S)
            hub.loop.run_callback_threadsafe(lambda: gevent.spawn(done))

        threading.Thread(target=work, daemon=True).start()

    def _report_reads(self, sock: Any) -> None:
        """Answer each further read with its data."""
        while data := sock.recv(4096):
            sock.sendall(repr(data).encode() + b"\n")


def serve(_spec: ServerSpec) -> LateServer:
    return LateServer()
