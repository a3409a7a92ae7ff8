"""A gevent hub and loop of its own for one script, and the caller's own put back afterwards. Knows no servers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import greenlet
from gevent._hub_local import get_hub_if_exists, get_loop, set_hub, set_loop
from gevent.exceptions import HubDestroyed
from gevent.hub import Hub
from gevent.timeout import Timeout
from greenlet import GreenletExit

from harness.stage.virtual_time import RealLoop, VirtualLoop

SERVER_OUTPUT_CHARS = 64_000

Loop = VirtualLoop | RealLoop


class ErrorLog(io.StringIO):
    """What the hub has to say about greenlets that failed; the beginning is kept, a flood is cut."""

    def write(self, text: str) -> int:
        if self.tell() < SERVER_OUTPUT_CHARS:
            super().write(text)
        return len(text)


class _Hub(Hub):
    """A hub that hands on to the test what a signal's handler raised, Ctrl-C or a test's time-out, in whichever
    greenlet or callback that came up. A plain hub would print it and go on."""

    def handle_error(self, context: Any, type: Any, value: Any, tb: Any) -> None:
        if issubclass(type, (Exception, Timeout, GreenletExit, HubDestroyed)):
            super().handle_error(context, type, value, tb)
        else:
            # Not at once: the hub would be left in the middle of this, and could not be destroyed quietly.
            assert self.parent is not None
            self.loop.run_callback(self.parent.throw, type, value, tb)


@dataclass(frozen=True, slots=True)
class World:
    """One script's hub, its loop, and the tracebacks of greenlets that died in it."""

    hub: Any
    loop: Any
    error_log: ErrorLog = field(default_factory=ErrorLog)


@contextmanager
def fresh_world(make_loop: Callable[[], Loop]) -> Iterator[World]:
    """While inside, gevent's hub of this thread is a new one on a loop from `make_loop`. It costs some 50 us."""
    outer_hub, outer_loop = get_hub_if_exists(), get_loop()
    _install(None, None)
    loop = make_loop()
    hub = _Hub(loop)
    world = World(hub, loop)
    hub.exception_stream = world.error_log
    _install(hub, None)
    try:
        yield world
    finally:
        if isinstance(loop, VirtualLoop):
            loop.let_real_time_pass()
        try:
            hub.destroy(True)
            _end(hub)
        finally:
            _install(outer_hub, outer_loop)


def _end(hub: Any) -> None:
    """A hub that was destroyed is still suspended where it last switched away, and all that its script has left lies on
    its stack; nothing would ever free it."""
    if hub and not hub.dead:
        hub.parent = greenlet.getcurrent()
        hub.throw(GreenletExit)


def _install(hub: Any, spare_loop: Any) -> None:
    """Make this the thread's hub; the spare loop is one that a destroyed hub has left for the next."""
    set_hub(hub)
    set_loop(spare_loop)
