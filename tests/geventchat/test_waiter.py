"""The waiter: what ends a wait, and which of two reasons counts; in virtual time."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent import Timeout

from geventchat.net.waiter import CloseReason, ConnectionEnded, HangupWatch, Waiter, closing_watcher
from tests.geventchat.virtual_time import VirtualTime, virtual_time

READ, WRITE = 1, 2
ABORT = struct.pack("ii", 1, 0)


class Scene:
    """One waiter on one end of a socket pair, and what became of each wait: a value, or why the connection ended."""

    def __init__(self, time: VirtualTime, make: type[Waiter] = Waiter) -> None:
        self.time = time
        self.ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.hangups = HangupWatch(time.hub)
        self.waiter = make(time.hub, time.clock, self.hangups, self.theirs.fileno())

    def wait(
        self, wait: Callable[[], object], *, idle_s: float = 0, login_s: float = 0
    ) -> gevent.Greenlet[..., object]:
        """Start a greenlet that starts the waiter and waits."""

        def body() -> object:
            try:
                self.waiter.start(idle_s, login_s)
                return wait()
            except ConnectionEnded as ended:
                return ended.reason

        greenlet = gevent.spawn(body)
        self.time.run_until_idle()
        return greenlet

    @contextmanager
    def readable(self) -> Iterator[Any]:
        with closing_watcher(self.time.hub.loop.io(self.theirs.fileno(), READ)) as watcher:
            yield watcher

    def until_input(self) -> object:
        with self.readable() as watcher:
            return self.waiter.until_input(watcher)

    def until_never(self, wait: Callable[[Any], object]) -> object:
        """Wait for what never happens."""
        with closing_watcher(self.time.hub.loop.async_()) as never:
            return wait(never)

    def close(self) -> None:
        self.hangups.close()
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    with virtual_time() as time:
        scene = Scene(time)
        yield scene
        scene.close()


def result(greenlet: gevent.Greenlet[..., object]) -> object:
    """The outcome of a wait; None while it goes on."""
    return greenlet.get(block=False) if greenlet.ready() else None


# --- Idle ------------------------------------------------------------------------------------------------------------


def test_a_wait_for_input_ends_when_input_arrives(scene: Scene):
    waiting = scene.wait(scene.until_input, idle_s=60)
    scene.time.advance(59)
    scene.ours.send(b"x")
    scene.time.run_until_idle()
    assert result(waiting) is False


def test_the_idle_time_ends_at_its_microsecond(scene: Scene):
    waiting = scene.wait(scene.until_input, idle_s=60)
    scene.time.advance(59.999999)
    assert result(waiting) is None
    scene.time.advance(0.000001)
    assert result(waiting) is True


def test_the_time_before_the_greenlet_starts_counts(scene: Scene):
    scene.time.stand_still(61)
    assert result(scene.wait(scene.until_input, idle_s=60)) is True


def test_activity_moves_the_deadline(scene: Scene):
    waiting = scene.wait(scene.until_input, idle_s=60)
    for _ in range(10):
        scene.time.advance(50)
        scene.waiter.note_activity()
    scene.time.advance(59)
    assert result(waiting) is None
    scene.time.advance(1)
    assert result(waiting) is True


def test_one_timer_serves_many_waits(scene: Scene):
    def wait_often() -> object:
        for _ in range(100):
            assert scene.until_input() is False
            scene.theirs.recv(100)
            scene.waiter.note_activity()
            assert scene.time.timers == 1
        return scene.until_input()

    waiting = scene.wait(wait_often, idle_s=60)
    for _ in range(100):
        scene.time.advance(0.1)
        scene.ours.send(b"x")
        scene.time.run_until_idle()
    scene.time.advance(60)
    assert result(waiting) is True


def test_without_an_idle_time_waiting_takes_for_ever(scene: Scene):
    waiting = scene.wait(scene.until_input)
    scene.time.advance(10_000_000)
    assert result(waiting) is None
    assert scene.time.timers == 0
    waiting.kill(block=False)


def test_input_that_arrived_while_the_process_stood_still_is_read(scene: Scene):
    waiting = scene.wait(scene.until_input, idle_s=60)
    scene.time.advance(59)
    scene.ours.send(b"x")
    scene.time.stand_still(3600)
    scene.time.advance(0)
    # Either that there is input, or that the time is up and the socket has to be read before it counts.
    assert result(waiting) in {True, False}
    assert scene.theirs.recv(10) == b"x"


def test_a_client_that_is_held_back_is_not_idle(scene: Scene):
    def held_back() -> object:
        scene.waiter.pause(300)
        scene.waiter.note_activity()
        return scene.until_input()

    waiting = scene.wait(held_back, idle_s=60)
    scene.time.advance(300)
    assert result(waiting) is None
    scene.time.advance(59.9)
    assert result(waiting) is None
    scene.time.advance(0.1)
    assert result(waiting) is True


@pytest.mark.parametrize("pending", [False, True])
def test_a_client_that_takes_no_output_is_idle_unless_it_has_lines_pending(scene: Scene, pending: bool):
    wait = lambda never: scene.waiter.until_output(never, pending)  # noqa: E731
    waiting = scene.wait(lambda: scene.until_never(wait), idle_s=60)
    scene.time.advance(59)
    assert result(waiting) is None
    scene.time.advance(1)
    assert result(waiting) == (None if pending else CloseReason.IDLE)
    waiting.kill(block=False)


def test_a_client_that_takes_no_output_is_not_idle_while_its_input_is_unread(scene: Scene):
    wait = lambda never: scene.waiter.until_output(never, False)  # noqa: E731
    waiting = scene.wait(lambda: scene.until_never(wait), idle_s=60)
    scene.ours.send(b"x")
    scene.time.advance(90)
    assert result(waiting) is None
    scene.theirs.recv(10)
    scene.time.advance(30)
    assert result(waiting) is CloseReason.IDLE


def test_a_client_that_takes_output_again_is_not_idle(scene: Scene):
    def wait() -> object:
        with closing_watcher(scene.time.hub.loop.io(scene.theirs.fileno(), WRITE)) as writable:
            return scene.waiter.until_output(writable, False)

    assert scene.wait(wait, idle_s=60).get(block=False) is None


# --- The deadline for logging in -------------------------------------------------------------------------------------


def waits(scene: Scene) -> dict[str, Callable[[], object]]:
    """Every way to wait."""
    return {
        "until_input": scene.until_input,
        "until": lambda: scene.until_never(scene.waiter.until),
        "until_output": lambda: scene.until_never(lambda never: scene.waiter.until_output(never, False)),
        "until_output with lines pending": lambda: scene.until_never(
            lambda never: scene.waiter.until_output(never, True)
        ),
        "until_passed": lambda: scene.until_never(scene.waiter.until_passed),
        "until_turn": lambda: scene.until_never(scene.waiter.until_turn),
        "pause": lambda: scene.waiter.pause(10_000),
        "run": lambda: scene.waiter.run(lambda: gevent.sleep(10_000)),
    }


WAYS = [
    *("until_input", "until", "until_output", "until_output with lines pending"),
    *("until_passed", "until_turn", "pause", "run"),
]
EACH_WAIT = pytest.mark.parametrize("way", WAYS)


@EACH_WAIT
def test_a_client_has_to_log_in_in_time_whatever_it_waits_for(scene: Scene, way: str):
    waiting = scene.wait(waits(scene)[way], login_s=60)
    scene.time.advance(30)
    scene.waiter.note_activity()
    scene.time.advance(29.999999)
    assert result(waiting) is None
    scene.time.advance(0.000001)
    assert result(waiting) is (True if way == "until_input" else CloseReason.IDLE)


@EACH_WAIT
def test_after_the_login_the_deadline_is_gone(scene: Scene, way: str):
    waiting = scene.wait(waits(scene)[way], login_s=60)
    scene.time.advance(30)
    waiting.kill(block=False)
    scene.time.run_until_idle()
    scene.waiter.clear_deadline()
    waiting = scene.wait(waits(scene)[way])
    scene.time.advance(9_000)
    assert result(waiting) is None
    waiting.kill(block=False)
    scene.time.run_until_idle()


def test_the_timer_of_the_deadline_does_not_outlive_the_login(scene: Scene):
    waiting = scene.wait(scene.until_input, login_s=60)
    assert scene.time.timers == 1
    scene.waiter.clear_deadline()
    assert scene.time.timers == 0
    waiting.kill(block=False)


def test_unfinished_lines_do_not_move_the_deadline(scene: Scene):
    def trickle() -> object:
        while scene.until_input() is False:
            scene.theirs.recv(10)
        return scene.time.now_s

    waiting = scene.wait(trickle, login_s=60)
    for _ in range(120):
        scene.ours.send(b"x")
        scene.time.advance(1)
    assert result(waiting) == 60


# --- Interruptions ---------------------------------------------------------------------------------------------------


class LateWaiter(Waiter):
    """Its wake-up never comes, as if the loop were busy with thousands of other callbacks."""

    def _wake(self) -> None:
        pass


@EACH_WAIT
def test_an_interruption_ends_every_wait(scene: Scene, way: str):
    waiting = scene.wait(waits(scene)[way], idle_s=60)
    scene.time.advance(5)
    scene.waiter.interrupt(CloseReason.SHUTDOWN)
    assert result(waiting) is None, "it arrives from the loop"
    scene.time.run_until_idle()
    assert result(waiting) is CloseReason.SHUTDOWN


@EACH_WAIT
def test_an_interruption_before_a_wait_ends_it_at_once(scene: Scene, way: str):
    def wait() -> object:
        scene.waiter.interrupt(CloseReason.SLOW)
        return waits(scene)[way]()

    assert result(scene.wait(wait, idle_s=60)) is CloseReason.SLOW


@pytest.mark.parametrize("begin", ["start", "resume"])
def test_a_client_whose_connection_has_ended_before_it_is_served_is_not_served(scene: Scene, begin: str):
    scene.waiter.interrupt(CloseReason.KICKED)
    with pytest.raises(ConnectionEnded, match="kicked"):
        scene.waiter.start(60, 60) if begin == "start" else scene.waiter.resume()


@EACH_WAIT
def test_the_first_reason_counts(scene: Scene, way: str):
    waiting = scene.wait(waits(scene)[way])
    scene.waiter.interrupt(CloseReason.RESET)
    scene.waiter.interrupt(CloseReason.SHUTDOWN)
    scene.time.run_until_idle()
    assert result(waiting) is CloseReason.RESET


@EACH_WAIT
def test_an_interruption_at_the_moment_of_the_deadline_is_what_counts(way: str):
    with virtual_time() as time:
        scene = Scene(time, LateWaiter)
        waiting = scene.wait(waits(scene)[way], idle_s=60, login_s=60)
        time.advance(59)
        scene.waiter.interrupt(CloseReason.SHUTDOWN)
        time.advance(1)
        assert result(waiting) is CloseReason.SHUTDOWN
        scene.close()


def test_an_interruption_counts_more_than_input_that_is_found_first():
    with virtual_time() as time:
        scene = Scene(time, LateWaiter)
        waiting = scene.wait(scene.until_input, idle_s=60)
        scene.waiter.interrupt(CloseReason.SHUTDOWN)
        scene.ours.send(b"MSG one more line\n")
        time.run_until_idle()
        assert result(waiting) is CloseReason.SHUTDOWN
        scene.close()


def test_an_interruption_never_arrives_outside_a_wait(scene: Scene):
    def work() -> object:
        scene.waiter.interrupt(CloseReason.SHUTDOWN)
        gevent.sleep(1)
        return "undisturbed"

    waiting = scene.wait(work)
    scene.time.advance(1)
    assert result(waiting) == "undisturbed"


def test_closing_forgets_the_reason_for_it(scene: Scene):
    def close() -> object:
        scene.waiter.interrupt(CloseReason.SLOW)
        scene.waiter.start_closing()
        return scene.until_never(scene.waiter.until)

    waiting = scene.wait(close, idle_s=5, login_s=5)
    scene.time.advance(100)
    assert result(waiting) is None
    scene.waiter.interrupt(CloseReason.RESET)
    scene.time.run_until_idle()
    assert result(waiting) is CloseReason.RESET


# --- Hang-ups --------------------------------------------------------------------------------------------------------


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.setblocking(False)
    return ours, theirs


def hang_up(sock: socket.socket, reset: bool) -> None:
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        sock.close()
    else:
        sock.shutdown(socket.SHUT_WR)


@pytest.fixture
def tcp_scene() -> Iterator[Scene]:
    with virtual_time() as time:
        scene = Scene(time)
        scene.ours.close()
        scene.theirs.close()
        scene.ours, scene.theirs = tcp_pair()
        scene.waiter = Waiter(time.hub, time.clock, scene.hangups, scene.theirs.fileno())
        yield scene
        scene.close()


RESETS = pytest.mark.parametrize("reset", [False, True], ids=["end of stream", "reset"])


@RESETS
@pytest.mark.parametrize("unread", [b"", b"unread\n" * 100], ids=["nothing unread", "input unread"])
@pytest.mark.parametrize("way", ["until_passed", "pause"])
def test_a_hang_up_ends_a_wait_in_which_nothing_is_read(
    tcp_scene: Scene, way: str, reset: bool, unread: bytes
):
    tcp_scene.ours.sendall(unread or b"x")
    if not unread:
        tcp_scene.theirs.recv(10)
    waiting = tcp_scene.wait(waits(tcp_scene)[way])
    tcp_scene.time.advance(5)
    assert result(waiting) is None
    hang_up(tcp_scene.ours, reset)
    tcp_scene.time.run_until_idle()
    assert result(waiting) is (CloseReason.RESET if reset else CloseReason.CLOSED)


@RESETS
def test_only_a_reset_ends_the_wait_for_a_turn(tcp_scene: Scene, reset: bool):
    waiting = tcp_scene.wait(waits(tcp_scene)["until_turn"])
    hang_up(tcp_scene.ours, reset)
    tcp_scene.time.run_until_idle()
    assert result(waiting) is (CloseReason.RESET if reset else None)
    waiting.kill(block=False)


@RESETS
def test_a_hang_up_before_the_wait_is_noticed_too(tcp_scene: Scene, reset: bool):
    hang_up(tcp_scene.ours, reset)
    waiting = tcp_scene.wait(waits(tcp_scene)["pause"])
    tcp_scene.time.run_until_idle()
    assert result(waiting) is (CloseReason.RESET if reset else CloseReason.CLOSED)


def test_a_wait_in_which_nothing_is_read_costs_nothing_while_input_is_unread(tcp_scene: Scene):
    tcp_scene.ours.sendall(b"unread\n")
    waiting = tcp_scene.wait(waits(tcp_scene)["pause"])
    # A watcher for input would keep the loop busy, and this would never return.
    tcp_scene.time.run_until_idle()
    tcp_scene.ours.sendall(b"more\n")
    tcp_scene.time.run_until_idle()
    assert result(waiting) is None
    waiting.kill(block=False)
    tcp_scene.time.run_until_idle()


def test_the_watch_tells_an_end_of_stream_from_a_reset_and_watches_each_socket_alone():
    with virtual_time() as time:
        watch = HangupWatch(time.hub)
        pairs = [tcp_pair() for _ in range(3)]
        told: list[tuple[int, bool]] = []
        with (
            watch.watching(pairs[0][1].fileno(), lambda reset: told.append((0, reset))),
            watch.watching(pairs[1][1].fileno(), lambda reset: told.append((1, reset))),
        ):
            with watch.watching(pairs[2][1].fileno(), lambda reset: told.append((2, reset))):
                time.run_until_idle()
                assert not told
            hang_up(pairs[2][0], True)
            hang_up(pairs[0][0], False)
            time.run_until_idle()
            assert told == [(0, False)]
            hang_up(pairs[1][0], True)
            time.run_until_idle()
            assert told == [(0, False), (1, True)]
            # Once each: a hang-up is not reported again.
            time.run_until_idle()
            assert len(told) == 2
            hang_up(pairs[0][0], True)
            time.run_until_idle()
            assert told[2:] == [(0, True)]
        assert not watch._callbacks
        watch.close()
        for pair in pairs:
            for sock in pair:
                sock.close()


def test_a_descriptor_that_is_used_again_is_watched_again():
    with virtual_time() as time:
        watch = HangupWatch(time.hub)
        told: list[bool] = []
        for _ in range(3):
            ours, theirs = tcp_pair()
            with watch.watching(theirs.fileno(), told.append):
                hang_up(ours, True)
                time.run_until_idle()
            theirs.close()
        assert told == [True] * 3
        watch.close()


def test_a_watch_that_is_closed_leaves_no_descriptor_and_no_watcher():
    with virtual_time() as time:
        watch = HangupWatch(time.hub)
        fileno = watch._epoll.fileno()
        assert fileno >= 0
        watch.close()
        assert watch._epoll.closed


# --- Jobs ------------------------------------------------------------------------------------------------------------


def test_a_job_can_block_and_its_result_comes_back(scene: Scene):
    waiting = scene.wait(lambda: scene.waiter.run(lambda: gevent.sleep(5) or "done"), idle_s=1)
    scene.time.advance(4)
    assert result(waiting) is None
    scene.time.advance(1)
    assert result(waiting) == "done"


def test_a_job_with_its_own_time_out_gets_it(scene: Scene):
    def job() -> str:
        try:
            with Timeout(2):
                gevent.sleep(10)
        except Timeout:
            return "timed out"
        return "slept"

    waiting = scene.wait(lambda: scene.waiter.run(job), login_s=60)
    scene.time.advance(2)
    assert result(waiting) == "timed out"


def test_a_time_out_that_is_not_the_waiters_passes_through(scene: Scene):
    def job() -> object:
        with Timeout(2):
            return scene.until_input()

    def wait() -> object:
        try:
            return job()
        except Timeout:
            return "theirs"

    waiting = scene.wait(wait, idle_s=60)
    scene.time.advance(2)
    assert result(waiting) == "theirs"


def test_an_error_in_a_job_is_raised(scene: Scene):
    def job() -> None:
        raise ZeroDivisionError

    def wait() -> object:
        with pytest.raises(ZeroDivisionError):
            scene.waiter.run(job)
        return "raised"

    assert result(scene.wait(wait)) == "raised"


@RESETS
def test_only_a_reset_abandons_a_job(tcp_scene: Scene, reset: bool):
    ended: list[str] = []

    def job() -> str:
        try:
            gevent.sleep(5)
            ended.append("finished")
            return "done"
        except ConnectionEnded:
            ended.append("abandoned")
            raise

    waiting = tcp_scene.wait(lambda: tcp_scene.waiter.run(job))
    hang_up(tcp_scene.ours, reset)
    tcp_scene.time.run_until_idle()
    assert result(waiting) is (CloseReason.RESET if reset else None)
    tcp_scene.time.advance(5)
    assert ended == (["abandoned"] if reset else ["finished"])
    assert result(waiting) is CloseReason.RESET if reset else result(waiting) == "done"


def test_a_job_that_does_not_notice_the_end_of_its_connection_has_no_result(scene: Scene):
    def stubborn() -> str:
        try:
            gevent.sleep(5)
        except ConnectionEnded:
            pass
        return "done"

    waiting = scene.wait(lambda: scene.waiter.run(stubborn))
    scene.waiter.interrupt(CloseReason.SHUTDOWN)
    scene.time.run_until_idle()
    assert result(waiting) is CloseReason.SHUTDOWN
