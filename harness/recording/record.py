"""A proxy that writes down what goes through it: `.chat` files from live sessions, spoken through nc.

Sockets and signals are here; what is noted, and when, is the recorder's business.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent.socket
from gevent.event import Event

from harness.language.steps import FenceLine
from harness.recording.recorder import Recorder
from harness.stage.isolation import fresh_world
from harness.stage.kernel import RealSocket
from harness.stage.virtual_time import RealLoop


def record(
    connect: tuple[str, int],
    listen: tuple[str, int],
    out: Path | str,
    fence: FenceLine | None = None,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
) -> Path:
    """Be a proxy until interrupted, and write the session as a transcript; it is also written whenever all have left.

    Port 0 listens on any free port; the first thing said names it.
    """
    with fresh_world(RealLoop) as world:
        world.hub.exception_stream = sys.stderr
        recorder = Recorder(connect, Path(out), fence)
        with _listening(listen) as listener, _stop_signal() as stop_requested:
            host, port = listener.getsockname()[:2]
            say(f"recording: nc {host} {port} speaks to {connect[0]}:{connect[1]}; Ctrl-C ends it")
            recorder.run(listener, stop_requested)
    kept = recorder.write()
    say(f"written: {out}" if kept else "nobody came, so nothing is written")
    return Path(out)


@contextmanager
def _listening(address: tuple[str, int]) -> Iterator[Any]:
    plain = RealSocket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with plain:
        plain.bind(address)
        plain.listen(128)
        with gevent.socket.socket(fileno=os.dup(plain.fileno())) as listener:
            yield listener


@contextmanager
def _stop_signal() -> Iterator[Event]:
    """Set by Ctrl-C or SIGTERM, where this thread gets signals. Raised as an exception, Ctrl-C would come up in
    whichever greenlet runs."""
    told = Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = {
        number: signal.signal(number, lambda *_: told.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
