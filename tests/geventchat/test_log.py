"""The log: whole lines in order, lost lines are counted, and the server never waits."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from geventchat.log import AddressLog, LogEvent, LogWriter, StandardLog
from geventchat.net.admission import network_of
from geventchat.rate import Rate
from geventchat.settings import Limits
from tests.patience import HANG_S

ROOT = Path(__file__).parents[2]
# More than a pipe holds, in lines that are long enough to be cut in the middle.
MANY = 3_000


class FixedClock:
    def monotonic(self) -> float:
        return 0.0

    def time(self) -> float:
        return 1234567890.0625


class WatchedWriter(LogWriter):
    """A writer that says when the descriptor has refused to take anything."""

    def __init__(self, descriptor: int) -> None:
        self.slow = threading.Event()
        self.failed = threading.Event()
        super().__init__(descriptor, "text", "info", FixedClock())

    def _try_to_write(self, data: memoryview) -> int | None:
        written = super()._try_to_write(data)
        if written is None:
            self.failed.set()
        elif not written:
            self.slow.set()
        return written


class Pipe:
    """A pipe. Its ends can be closed twice."""

    def __init__(self) -> None:
        read, write = os.pipe()
        self.reading = os.fdopen(read, "rb", 0)
        self.writing = os.fdopen(write, "wb", 0)

    @property
    def write(self) -> int:
        return self.writing.fileno()

    def close(self) -> None:
        self.reading.close()
        self.writing.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def numbers(text: str) -> list[int]:
    """The numbers of the `connected` events. Fails if any line is not a whole line."""
    assert text.endswith("\n")
    found = []
    for line in text.splitlines():
        whole = re.fullmatch(r"2009-02-13T23:31:30\.062Z INFO connected conn=(\d+)", line)
        assert whole, line
        found.append(int(whole[1]))
    return found


def written(tmp_path: Path, style: str = "text", level: str = "info") -> tuple[LogWriter, Path]:
    path = tmp_path / "log"
    return LogWriter(os.open(path, os.O_WRONLY | os.O_CREAT), style, level, FixedClock()), path


# --- Lines -----------------------------------------------------------------------------------------------------------


def test_text_is_key_value_with_quotes_where_a_value_is_more_than_a_word(tmp_path: Path):
    log, path = written(tmp_path)
    log(LogEvent.CONNECTED, conn=1, address="::1")
    log(LogEvent.FAULT, error='two\nlines "quoted" a=b', name="")
    assert log.close(HANG_S)
    assert path.read_text() == (
        "2009-02-13T23:31:30.062Z INFO connected conn=1 address=::1\n"
        '2009-02-13T23:31:30.062Z ERROR fault error="two\\nlines \\"quoted\\" a=b" name=""\n'
    )


def test_nothing_in_a_value_moves_the_cursor_of_a_terminal_that_shows_the_log(tmp_path: Path):
    log, path = written(tmp_path)
    log(LogEvent.ADMIN, who="\x1b[2J", reason="a\x9b b\x7f\x85\u2028\u202ec", name="Zoë👩‍🚀")
    assert log.close(HANG_S)
    assert path.read_text().split(" ", 1)[1] == (
        'INFO admin who="\\u001b[2J" reason="a\\u009b b\\u007f\\u0085\\u2028\\u202ec" name=Zoë👩‍🚀\n'
    )


def test_json_is_one_object_per_line(tmp_path: Path):
    log, path = written(tmp_path, "json")
    log(LogEvent.LOGIN, conn=1, name="Zoë", reason=ZeroDivisionError("x"))
    assert log.close(HANG_S)
    assert path.read_text().endswith("}\n")
    assert json.loads(path.read_text()) == {
        "time": "2009-02-13T23:31:30.062Z",
        "level": "info",
        "event": "login",
        "conn": 1,
        "name": "Zoë",
        "reason": "x",
    }


def test_events_below_the_level_are_not_written(tmp_path: Path):
    log, path = written(tmp_path, level="warning")
    log(LogEvent.CONNECTED, conn=1)
    log(LogEvent.REFUSED, conn=2)
    assert log.close(HANG_S)
    assert re.fullmatch(r"\S+ WARNING refused conn=2\n", path.read_text())


def test_a_text_that_is_not_valid_unicode_is_escaped(tmp_path: Path):
    log, path = written(tmp_path)
    log(LogEvent.FAULT, error="a\udcffb")
    log(LogEvent.CONNECTED, conn=2)
    assert log.close(HANG_S)
    assert [line.split(" ", 2)[2] for line in path.read_text().splitlines()] == [
        r"fault error=a\udcffb",
        "connected conn=2",
    ]


# --- Descriptors in trouble ------------------------------------------------------------------------------------------


class Reader:
    """Reads a pipe in a thread until its other end is closed."""

    def __init__(self, pipe: Pipe, seen: bytes = b"") -> None:
        self._pipe = pipe
        self._seen = bytearray(seen)
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while chunk := self._pipe.reading.read(65_536):
            with self._more:
                self._seen += chunk
                self._more.notify()

    def saw(self, text: bytes) -> bool:
        with self._more:
            return self._more.wait_for(lambda: text in self._seen, HANG_S)

    def text(self) -> str:
        self._pipe.writing.close()
        self._thread.join(HANG_S)
        return self._seen.decode()


def accounted(text: str) -> list[int]:
    """How many events each `log-lost` reports. Fails unless they and the other lines make up 0, 1, 2 … without a gap."""
    losses, expected = [], 0
    for line in text.splitlines():
        if lost := re.fullmatch(r"\S+ WARNING log-lost events=(\d+)", line):
            losses.append(int(lost[1]))
            expected += losses[-1]
        else:
            assert numbers(line + "\n") == [expected]
            expected += 1
    return [expected, *losses]


def test_a_stuck_reader_costs_lines_whose_number_stands_in_their_place(pipe: Pipe):
    log = LogWriter(pipe.write, "text", "info", FixedClock())
    # The pipe, the thread and the queue together hold far less.
    for number in range(30_000):
        log(LogEvent.CONNECTED, conn=number)
    reader = Reader(pipe)
    assert reader.saw(b"log-lost"), "lost events are only reported when another one comes"
    for number in range(30_000, 30_010):
        log(LogEvent.CONNECTED, conn=number)
    assert log.close(HANG_S)
    events, *losses = accounted(reader.text())
    assert events == 30_010
    assert losses
    assert sum(losses) == log.lost


def test_lines_that_are_lost_again_are_reported_again(pipe: Pipe):
    log = LogWriter(pipe.write, "text", "info", FixedClock())
    for number in range(30_000):
        log(LogEvent.CONNECTED, conn=number)
    seen = b""
    # The thread takes more events out of the queue as soon as the reader makes room for them.
    while len(log._queue) >= 10_000:
        seen += pipe.reading.read(65_536)
    for number in range(30_000, 60_000):
        log(LogEvent.CONNECTED, conn=number)
    reader = Reader(pipe, seen)
    assert log.close(HANG_S)
    events, *losses = accounted(reader.text())
    assert events == 60_000
    assert len(losses) >= 2
    assert sum(losses) == log.lost


def test_a_slow_non_blocking_reader_gets_every_line_whole(pipe: Pipe):
    os.set_blocking(pipe.write, False)
    log = WatchedWriter(pipe.write)
    for number in range(MANY):
        log(LogEvent.CONNECTED, conn=number)
    assert log.slow.wait(HANG_S)
    reader = Reader(pipe)
    assert log.close(HANG_S)
    assert numbers(reader.text()) == list(range(MANY))


def test_a_full_disk_is_written_to_again_when_it_has_room(tmp_path: Path):
    descriptor = os.open("/dev/full", os.O_WRONLY)
    log = WatchedWriter(descriptor)
    log(LogEvent.CONNECTED, conn=0)
    assert log.failed.wait(HANG_S)
    log(LogEvent.CONNECTED, conn=1)
    disk = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(disk, descriptor)
    log(LogEvent.CONNECTED, conn=2)
    assert log.close(HANG_S)
    assert numbers((tmp_path / "log").read_text()) == [0, 1, 2]
    os.close(disk)
    os.close(descriptor)


def test_a_line_that_a_full_disk_cut_in_the_middle_is_completed(tmp_path: Path):
    program = """
        import os, resource, sys
        from geventchat.log import LogEvent
        from tests.geventchat.test_log import FixedClock, WatchedWriter
        from tests.patience import HANG_S

        path = sys.argv[1]
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
        log = WatchedWriter(os.open(path, os.O_WRONLY | os.O_CREAT))
        for number in range(100):
            log(LogEvent.CONNECTED, conn=number)
        assert log.failed.wait(HANG_S)
        assert os.stat(path).st_size == 1_000
        assert not open(path).read().endswith("\\n"), "no line was cut"
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        for number in range(100, 200):
            log(LogEvent.CONNECTED, conn=number)
        assert log.close(HANG_S)
    """
    path = tmp_path / "log"
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(path)], check=True, timeout=HANG_S, cwd=ROOT
    )
    assert numbers(path.read_text()) == list(range(200))


def test_a_closed_pipe_causes_neither_an_error_nor_a_wait(pipe: Pipe):
    pipe.reading.close()
    log = WatchedWriter(pipe.write)
    log(LogEvent.CONNECTED, conn=1)
    assert log.failed.wait(HANG_S)
    log(LogEvent.CONNECTED, conn=2)
    # The thread ends by itself, long before the time is up.
    assert not log.close(HANG_S)
    assert not log._thread.is_alive()
    log(LogEvent.CONNECTED, conn=3)


def test_a_named_pipe_is_written_to_again_when_it_has_a_new_reader(tmp_path: Path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    first = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write = os.open(path, os.O_WRONLY)
    os.close(first)
    log = WatchedWriter(write)
    log(LogEvent.CONNECTED, conn=0)
    assert log.failed.wait(HANG_S)
    second = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log(LogEvent.CONNECTED, conn=1)
    assert log.close(HANG_S)
    os.close(write)
    with os.fdopen(second, "rb") as stream:
        assert numbers(stream.read().decode()) == [0, 1]


def test_closing_does_not_wait_longer_than_its_limit(pipe: Pipe):
    os.set_blocking(pipe.write, False)
    log = WatchedWriter(pipe.write)
    for number in range(MANY):
        log(LogEvent.CONNECTED, conn=number)
    assert log.slow.wait(HANG_S)
    assert not log.close(0.01)
    log._thread.join(HANG_S)
    assert not log._thread.is_alive(), (
        "the thread still writes to a descriptor that can belong to another file by now"
    )


# --- Limits per address ----------------------------------------------------------------------------------------------


class ManualClock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Recorded:
    """A log that remembers its events, and wants only some."""

    def __init__(self, *unwanted: LogEvent) -> None:
        self.lines: list[str] = []
        self._unwanted = unwanted

    def __call__(self, event: LogEvent, /, **fields: object) -> None:
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        self.lines.append(f"{event.value} {shown}")

    def enabled(self, event: LogEvent) -> bool:
        return event not in self._unwanted

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


def limited(
    recorded: Recorded, of_address: Rate, of_network: Rate | None = None, *, clock: ManualClock | None = None
) -> AddressLog:
    """A log with these limits; without a rate of networks they have none."""
    return AddressLog(recorded, of_address, of_network or Rate(0, 0), network_of, clock or ManualClock())


def connected(log: AddressLog, origin: str, count: int) -> None:
    for _ in range(count):
        log.of_address(origin, LogEvent.CONNECTED, address=origin)


def test_an_address_logs_its_burst_and_then_falls_silent_while_others_log_on():
    recorded = Recorded()
    log = limited(recorded, Rate(20.0, 100))
    connected(log, "192.0.2.1", 1_000)
    assert recorded.take() == ["connected address=192.0.2.1"] * 100
    connected(log, "192.0.2.2", 1)
    log(LogEvent.STOPPING, clients=1)
    assert recorded.take() == ["connected address=192.0.2.2", "stopping clients=1"]


def test_dropped_events_are_counted_in_one_line_when_the_address_can_log_for_a_second_again():
    recorded, clock = Recorded(), ManualClock()
    log = limited(recorded, Rate(20.0, 100), clock=clock)
    connected(log, "192.0.2.1", 150)
    recorded.take()
    clock.now += 0.99
    connected(log, "192.0.2.1", 1)
    assert recorded.take() == []
    clock.now += 0.01
    connected(log, "192.0.2.1", 30)
    assert (
        recorded.take()
        == ["log-suppressed address=192.0.2.1 events=51"] + ["connected address=192.0.2.1"] * 20
    )
    clock.now += 1.0
    log(LogEvent.ACCEPT_RESUMED, listener=4000)
    assert recorded.take() == ["log-suppressed address=192.0.2.1 events=10", "accept-resumed listener=4000"]


def test_in_the_long_run_an_address_logs_at_its_rate():
    recorded, clock = Recorded(), ManualClock()
    log = limited(recorded, Rate(20.0, 100), clock=clock)
    for _ in range(60_000):
        clock.now += 0.001
        connected(log, "192.0.2.1", 1)
    log.close()
    lines = recorded.take()
    logged = lines.count("connected address=192.0.2.1")
    assert 100 + 59 * 20 <= logged <= 100 + 60 * 20
    summaries = [line for line in lines if line.startswith("log-suppressed")]
    assert len(summaries) <= 61
    assert logged + sum(int(line.rpartition("=")[2]) for line in summaries) == 60_000


@pytest.mark.parametrize("per_s", [20.0, 4.0, 3.0])
def test_an_address_within_its_rate_is_never_silent(per_s: float):
    recorded, clock = Recorded(), ManualClock()
    log = limited(recorded, Rate(per_s, 1), clock=clock)
    for _ in range(1_000):
        connected(log, "192.0.2.1", 1)
        clock.now += 1 / per_s
    assert recorded.take() == ["connected address=192.0.2.1"] * 1_000


def test_dropped_events_are_reported_at_the_end_too():
    recorded = Recorded()
    log = limited(recorded, Rate(20.0, 1))
    connected(log, "192.0.2.1", 3)
    connected(log, "192.0.2.2", 2)
    recorded.take()
    log.close()
    assert recorded.take() == [
        "log-suppressed address=192.0.2.1 events=2",
        "log-suppressed address=192.0.2.2 events=1",
    ]
    log.close()
    assert recorded.take() == []


def test_events_that_the_log_does_not_want_count_for_nothing():
    recorded = Recorded(LogEvent.CONNECTED)
    log = limited(recorded, Rate(20.0, 2))
    connected(log, "192.0.2.1", 100)
    for _ in range(3):
        log.of_address("192.0.2.1", LogEvent.REFUSED, reason="full")
    log.close()
    assert recorded.take() == ["refused reason=full"] * 2 + ["log-suppressed address=192.0.2.1 events=1"]
    # As for any log that does not count.
    assert (log.suppressed, log.lost) == (1, 0)


def test_a_function_is_a_log_that_wants_every_event_and_loses_none():
    events: list[LogEvent] = []
    log = AddressLog(
        lambda event, /, **fields: events.append(event), Rate(20, 2), Rate(0, 0), network_of, ManualClock()
    )
    connected(log, "192.0.2.1", 3)
    assert events == [LogEvent.CONNECTED] * 2
    assert (log.suppressed, log.lost) == (1, 0)


def test_what_the_log_has_lost_is_known_to_those_who_log(pipe: Pipe):
    writer = LogWriter(pipe.write, "text", "info", FixedClock())
    log = AddressLog(writer, Rate(0, 0), Rate(0, 0), network_of, ManualClock())
    connected(log, "192.0.2.1", 30_000)
    assert log.lost == writer.lost > 0
    writer.close(0)


def test_a_rate_of_zero_means_no_limit():
    recorded = Recorded()
    log = limited(recorded, Rate(0.0, 1))
    connected(log, "192.0.2.1", 1_000)
    assert len(recorded.take()) == 1_000
    assert len(log) == 0


def test_addresses_are_forgotten_when_they_have_recovered():
    recorded, clock = Recorded(), ManualClock()
    log = limited(recorded, Rate(20.0, 100), clock=clock)
    for number in range(20_000):
        # A client that connects, logs in and leaves uses up 0.15 s of its address.
        connected(log, f"192.0.{number}", 3)
        clock.now += 0.001
    assert len(log) <= 2 * 150
    connected(log, "silent", 101)
    for number in range(1_000):
        connected(log, f"198.51.{number}", 1)
    assert recorded.take()
    log.close()
    assert recorded.take() == ["log-suppressed address=silent events=1"]


def test_an_address_that_has_not_recovered_is_not_forgotten():
    recorded = Recorded()
    log = limited(recorded, Rate(20.0, 100))
    connected(log, "192.0.2.1", 100)
    for number in range(1_000):
        connected(log, f"198.51.{number}", 1)
    recorded.take()
    connected(log, "192.0.2.1", 1)
    assert recorded.take() == []


def test_the_addresses_of_a_network_log_its_burst_together_while_other_networks_log_on():
    recorded, clock = Recorded(), ManualClock()
    log = limited(recorded, Rate(20.0, 100), Rate(80.0, 400), clock=clock)
    for number in range(256):
        connected(log, f"192.0.2.{number}", 10)
    assert recorded.take() == [
        f"connected address=192.0.2.{number}" for number in range(40) for _ in range(10)
    ]
    connected(log, "192.0.3.1", 1)
    assert recorded.take() == ["connected address=192.0.3.1"]
    clock.now += 0.99
    connected(log, "192.0.2.7", 1)
    assert recorded.take() == []
    clock.now += 0.01
    connected(log, "192.0.2.7", 1)
    assert recorded.take() == [
        "log-suppressed network=192.0.2.0/24 events=2161",
        "connected address=192.0.2.7",
    ]


def test_what_an_address_loses_to_its_own_limit_is_not_taken_from_its_network():
    recorded = Recorded()
    log = limited(recorded, Rate(20.0, 100), Rate(80.0, 400))
    connected(log, "192.0.2.1", 1_000)
    connected(log, "192.0.2.2", 100)
    assert len(recorded.take()) == 200


def test_a_network_whose_addresses_are_all_over_their_limits_reports_that_within_its_own():
    """Each event is in the log, or in one of the reports, however many addresses there are."""
    recorded, clock = Recorded(), ManualClock()
    log = limited(recorded, Rate(20.0, 30), Rate(80.0, 400), clock=clock)
    sent = 0
    for _ in range(10):
        for number in range(256):
            connected(log, f"2001:db8:0:{number:x}::", 40)
            sent += 40
        clock.now += 1.0
    log.close()
    lines = recorded.take()
    reports = [line for line in lines if line.startswith("log-suppressed")]
    assert len(lines) <= 400 + 10 * 80 + 11
    assert any(" address=" in line for line in reports)
    assert any(" network=2001:db8::/48 " in line for line in reports)
    assert len(lines) - len(reports) + sum(int(line.rpartition("=")[2]) for line in reports) == sent
    log.close()
    assert recorded.take() == []


@pytest.mark.parametrize("origins", [["127.0.0.1", "127.0.0.2"], ["::"], ["storage"], ["uid:1", "uid:2"]])
def test_this_machine_is_in_no_network_with_a_limit_on_lines(origins: list[str]):
    recorded = Recorded()
    log = limited(recorded, Rate(0, 0), Rate(80.0, 1))
    for origin in origins:
        connected(log, origin, 1_000)
    assert len(recorded.take()) == 1_000 * len(origins)


def test_a_network_within_its_default_limit_leaves_room_for_others_in_a_log_that_is_not_read(pipe: Pipe):
    writer, limits = WatchedWriter(pipe.write), Limits()
    # The pipe is full, and the thread can take nothing more out of the queue.
    os.set_blocking(pipe.write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe.write, b"x")
    writer(LogEvent.LISTENING)
    assert writer.slow.wait(HANG_S)
    log = AddressLog(
        writer,
        Rate(limits.address_log_lines_per_s, limits.address_burst_log_lines),
        Rate(limits.network_log_lines_per_s, limits.network_burst_log_lines),
        network_of,
        ManualClock(),
    )
    for number in range(256):
        connected(log, f"192.0.2.{number}", 100)
    connected(log, "198.51.100.1", limits.address_burst_log_lines)
    assert log.suppressed == 256 * 100 - limits.network_burst_log_lines
    assert not writer.lost
    writer.close(0)


def test_networks_are_forgotten_when_they_have_recovered():
    recorded, clock = Recorded(), ManualClock()
    log = limited(recorded, Rate(0, 0), Rate(80.0, 400), clock=clock)
    for number in range(20_000):
        connected(log, f"2001:db8:{number:x}:1::", 3)
        clock.now += 0.001
    assert len(log) <= 2 * 40


# --- The standard library's logging ----------------------------------------------------------------------------------


def test_an_embedding_program_finds_events_in_its_logging(caplog: pytest.LogCaptureFixture):
    log = StandardLog()
    caplog.set_level(logging.WARNING, logger="geventchat")
    assert not log.enabled(LogEvent.CONNECTED)
    log(LogEvent.CONNECTED, conn=1)
    log(LogEvent.REFUSED, conn=2, reason="full")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "refused conn=2 reason=full")
    ]
