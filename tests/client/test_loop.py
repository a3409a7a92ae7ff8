"""The event loop: the order of calls, timers, descriptors, signals and threads."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from geventchat.client.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_timers_are_called_in_the_order_of_their_times_unless_cancelled(loop: Loop) -> None:
    called: list[str] = []
    now = loop.now()
    loop.call_at(now, lambda: called.append("second"))
    loop.call_at(now - 1, lambda: called.append("first"))
    loop.call_at(now - 2, lambda: called.append("never")).cancel()
    loop.call_at(now, loop.stop)
    loop.call_at(now + 3600, lambda: called.append("too late"))
    loop.run()
    assert called == ["first", "second"]


def test_what_is_called_soon_is_called_after_the_current_call(loop: Loop) -> None:
    called: list[str] = []

    def first() -> None:
        loop.call_soon(lambda: called.append("third"))
        loop.call_soon(loop.stop)
        called.append("first")

    loop.call_soon(first)
    loop.call_soon(lambda: called.append("second"))
    loop.run()
    assert called == ["first", "second", "third"]


def test_descriptors_are_watched_until_they_are_not(loop: Loop) -> None:
    reading, writing = os.pipe()
    read: list[bytes] = []

    def readable() -> None:
        read.append(os.read(reading, 10))
        loop.on_readable(reading, None)
        loop.stop()

    loop.on_readable(reading, readable)
    loop.on_writable(writing, lambda: (os.write(writing, b"x"), loop.on_writable(writing, None)))  # type: ignore[arg-type, return-value]
    loop.run()
    assert read == [b"x"]
    loop.on_readable(reading, None)
    os.close(reading)
    os.close(writing)


def test_a_regular_file_can_be_watched(loop: Loop, tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "file")
    with open(path, "w+b") as file:
        loop.on_readable(file.fileno(), loop.stop)
        loop.run()
        loop.on_readable(file.fileno(), None)


def test_a_signal_and_a_thread_wake_it_up(loop: Loop) -> None:
    called: list[str] = []

    def woken(name: str) -> None:
        called.append(name)
        loop.stop()

    loop.on_signal(signal.SIGUSR1, lambda: woken("signal"))
    thread = threading.Thread(target=loop.call_from_thread, args=(lambda: woken("thread"),))
    thread.start()
    loop.run()
    thread.join()
    # Sent while the loop waits: only the signal can end the wait.
    loop.call_soon(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    loop.run()
    assert called == ["thread", "signal"]


def test_it_runs_until_something_is_true(loop: Loop) -> None:
    called: list[int] = []
    loop.call_soon(lambda: called.append(1))
    loop.run(until=lambda: bool(called))
    assert called == [1]


def test_closing_gives_signals_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    loop = Loop()
    loop.on_signal(signal.SIGUSR1, loop.stop)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == before
