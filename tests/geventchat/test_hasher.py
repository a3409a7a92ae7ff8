"""Hashes of passwords: what is stored, how many are computed at a time and in which order, and the processes that do it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest

from geventchat.chat.passwords import (
    DamagedHash,
    HasherFull,
    HashingFailed,
    Password,
    Verified,
    is_token,
    prepare,
    token_matches,
)
from geventchat.services import passwords, scrypt
from geventchat.services.passwords import Cost, Hasher, derive_here, hash_here, new_token
from tests.geventchat.virtual_time import VirtualTime, virtual_time

ROOT = Path(__file__).resolve().parents[2]
CHEAP = Cost(4, 1, 1)
RIGHT = prepare("correct horse battery staple")
WRONG = prepare("correct horse battery stable")


def hasher(cost: Cost = CHEAP, **options: Any) -> Hasher:
    """One that computes hashes in this process."""
    return Hasher(cost, derive=derive_here, **options)


# --- What is stored --------------------------------------------------------------------------------------------------


def test_a_hash_matches_its_password_alone():
    stored = hasher().hash(RIGHT, "")
    assert hasher().verify(RIGHT, stored, "")
    assert not hasher().verify(WRONG, stored, "")
    assert hasher().verify(RIGHT, stored, "") == Verified(True, None)
    assert hasher().verify(WRONG, stored, "") == Verified(False, None)


def test_it_is_scrypt_as_in_its_specification():
    # The third example of RFC 7914, of which this is the first half.
    expected = "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
    assert scrypt.scrypt(b"password", b"NaCl", 10, 8, 16).hex() == expected


def test_a_hash_carries_its_cost_and_its_own_salt():
    first, second = hasher().hash(RIGHT, ""), hasher().hash(RIGHT, "")
    assert first.startswith("$scrypt$ln=4,r=1,p=1$")
    assert first.split("$")[3] != second.split("$")[3]
    assert first.split("$")[4] != second.split("$")[4]


def test_new_hashes_take_sixteen_megabytes_five_times():
    stored = hash_here(RIGHT)
    assert stored.startswith("$scrypt$ln=14,r=8,p=5$")
    assert scrypt.memory_bytes(14, 8, 5) == 16 * 2**20 + 5 * 1024
    assert hasher(Cost()).verify(RIGHT, stored, "") == Verified(True, None)


def test_a_hash_of_another_cost_is_replaced_when_its_password_is_known():
    old, new = hasher(Cost(3, 2, 1)), hasher()
    stored = old.hash(RIGHT, "")
    assert new.verify(WRONG, stored, "") == Verified(False, None)
    verified = new.verify(RIGHT, stored, "")
    assert verified
    assert verified.replacement is not None
    assert verified.replacement.startswith("$scrypt$ln=4,r=1,p=1$")
    assert new.verify(RIGHT, verified.replacement, "") == Verified(True, None)


# The hash of RIGHT with a salt of zeros.
SALT, DIGEST = "A" * 22, "O99B2an4zxwR4EP96jrAWhq4Tka6FMqgpWGbZk9TEGc"
HEAD = "$scrypt$ln=4,r=1,p=1"
STORED = f"{HEAD}${SALT}${DIGEST}"


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        ("", "is not"),
        ("correct horse battery staple", "is not"),
        (STORED[:-1], "is not"),
        (STORED + "A", "is not"),
        (STORED + "\n", "is not"),
        (STORED.replace("scrypt", "argon2"), "is not"),
        (STORED.replace("ln=4", "ln=04"), "is not"),
        (STORED.replace("ln=4", "ln=-4"), "is not"),
        (STORED.replace("ln=4", "ln=٤"), "is not"),
        (STORED.replace(SALT, SALT[:-2]), "is not"),
        (STORED.replace(SALT, "é" * 22), "is not"),
        (f"{HEAD}${SALT[:-1]}B${DIGEST}", "broken Base64"),
        (f"{HEAD}${SALT}${DIGEST[:-1]}B", "broken Base64"),
        (STORED.replace("ln=4", "ln=16"), "not possible with"),
        (STORED.replace("ln=4,r=1", "ln=99,r=8"), "more than 134217728 bytes"),
        (STORED.replace("ln=4,r=1", "ln=17,r=8"), "more than 134217728 bytes"),
        (STORED.replace("p=1", "p=65"), "not possible with"),
        (STORED.replace("p=1", "p=99"), "not possible with"),
    ],
)
def test_a_damaged_hash_is_an_error_and_matches_nothing(stored: str, why: str):
    for password in (RIGHT, WRONG):
        with pytest.raises(DamagedHash, match=why) as damaged:
            hasher().verify(password, stored, "")
        assert "battery" not in str(damaged.value)
        assert DIGEST not in str(damaged.value)


def test_a_hash_with_one_changed_character_matches_nothing():
    for at in range(STORED.index(SALT), len(STORED)):
        changed = STORED[:at] + ("B" if STORED[at] == "A" else "A") + STORED[at + 1 :]
        try:
            assert changed == STORED or not hasher().verify(RIGHT, changed, "")
        except DamagedHash:
            pass


@pytest.mark.parametrize("cost", [(0, 8, 1), (16, 1, 1), (14, 0, 1), (14, 8, 0), (14, 8, 65), (21, 8, 1)])
def test_an_impossible_cost_is_refused(cost: tuple[int, int, int]):
    with pytest.raises(ValueError, match=r"scrypt (is not possible|takes more)"):
        Cost(*cost)


def test_tokens_are_random_and_cost_no_hash():
    shown, stored = new_token()
    assert new_token()[0] != shown
    assert is_token(shown.reveal())
    assert token_matches(shown.reveal(), stored)
    assert shown.reveal() not in repr((shown, stored))


# --- How many, and in which order ------------------------------------------------------------------------------------


class Scene:
    """A hasher whose hashes take a second each, and greenlets that ask it."""

    def __init__(self, time: VirtualTime, **options: int) -> None:
        self.time = time
        self.begun: list[bytes] = []
        self.most = 0
        self._running = 0
        self.hasher = Hasher(CHEAP, derive=self._derive, **options)
        self.ended: dict[str, str] = {}

    def _derive(self, password: bytes, salt: bytes, cost: Cost) -> bytes:
        self.begun.append(password)
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            gevent.sleep(1)
            return derive_here(password, salt, cost)
        finally:
            self._running -= 1

    def ask(self, name: str, origin: str = "192.0.2.1", known: bool = False) -> gevent.Greenlet[..., Any]:
        """Ask for a hash now."""
        greenlet = self.start(name, origin, known)
        self.time.run_until_idle()
        return greenlet

    def start(self, name: str, origin: str, known: bool = False) -> gevent.Greenlet[..., Any]:
        """Ask for a hash in the next iteration of the loop. How that ends is in `ended`, with the time."""

        def body() -> None:
            try:
                self.hasher.hash(Password(name), origin, known)
                how = "hashed"
            except (HasherFull, HungUp) as error:
                how = type(error).__name__
            self.ended[name] = f"{how} at {self.time.now_s:g}"

        return gevent.spawn(body)

    def hang_up(self, greenlet: gevent.Greenlet[..., Any]) -> None:
        """End a client's greenlet."""
        gevent.kill(greenlet, HungUp)
        self.time.run_until_idle()

    @property
    def order(self) -> str:
        """The names in the order in which their hashes began."""
        return b" ".join(self.begun).decode()


class HungUp(BaseException):
    """The exception that ends the greenlet of a client."""


@pytest.fixture
def vt() -> Iterator[VirtualTime]:
    with virtual_time() as time:
        yield time


def test_two_run_at_a_time_and_two_hundred_wait(vt: VirtualTime):
    scene = Scene(vt)
    for number in range(210):
        scene.ask(f"p{number}")
        assert scene.hasher.is_full("192.0.2.1") == (number >= 201)
    assert scene.ended == {f"p{number}": "HasherFull at 0" for number in range(202, 210)}
    vt.advance(1)
    assert not scene.hasher.is_full("192.0.2.1")
    vt.advance(100)
    assert [scene.ended[f"p{number}"] for number in (0, 1, 2, 201)] == [
        "hashed at 1",
        "hashed at 1",
        "hashed at 2",
        "hashed at 101",
    ]
    assert scene.most == 2


def test_without_a_queue_what_cannot_run_at_once_is_refused(vt: VirtualTime):
    scene = Scene(vt, at_once=1, waiting=0)
    assert not scene.hasher.is_full("192.0.2.1")
    scene.ask("a")
    assert scene.hasher.is_full("192.0.2.1")
    scene.ask("b")
    vt.advance(1)
    assert scene.ended == {"a": "hashed at 1", "b": "HasherFull at 0"}


def test_what_waits_is_served_in_order(vt: VirtualTime):
    scene = Scene(vt, at_once=1)
    for name in "abcde":
        scene.ask(name)
    vt.advance(5)
    assert scene.order == "a b c d e"


def test_addresses_take_turns(vt: VirtualTime):
    scene = Scene(vt, at_once=1)
    for number in range(4):
        scene.ask(f"a{number}", "a")
    for number in range(2):
        scene.ask(f"b{number}", "b")
    scene.ask("c0", "c")
    vt.advance(7)
    assert scene.order == "a0 a1 b0 c0 a2 b1 a3"


def test_an_address_that_fills_the_queue_loses_places_to_others(vt: VirtualTime):
    scene = Scene(vt, at_once=1, waiting=4)
    for number in range(5):
        scene.ask(f"a{number}", "a")
    assert scene.hasher.is_full("a")
    assert not scene.hasher.is_full("b")
    scene.ask("b0", "b")
    assert scene.ended == {"a4": "HasherFull at 0"}
    assert not scene.hasher.is_full("b")
    scene.ask("b1", "b")
    assert scene.ended == {"a4": "HasherFull at 0", "a3": "HasherFull at 0"}
    assert scene.hasher.is_full("b"), "it has as many places as the other"
    scene.ask("b2", "b")
    assert scene.ended["b2"] == "HasherFull at 0"
    assert not scene.hasher.is_full("c")
    vt.advance(5)
    assert scene.order == "a0 a1 b0 a2 b1"


def test_two_hundred_addresses_keep_no_address_that_is_known_from_logging_in(vt: VirtualTime):
    scene = Scene(vt, at_once=1)
    for number in range(201):
        scene.ask(f"stranger{number}", f"address{number}")
    assert scene.hasher.is_full("another")
    for number in range(101):
        assert scene.hasher.is_full(f"known{number}", known=True) == (number == 100)
        scene.ask(f"known{number}", f"known{number}", known=True)
    refused = [name for name, how in scene.ended.items() if how == "HasherFull at 0"]
    # Each kind has half of the places.
    assert len(refused) == 101
    assert refused[-1] == "known100"
    vt.advance(1 + 200)
    assert scene.order.split()[1:5] == ["known0", "stranger1", "known1", "stranger2"]


def test_addresses_that_are_known_do_not_keep_others_from_registering(vt: VirtualTime):
    scene = Scene(vt, at_once=1, waiting=4)
    for number in range(5):
        scene.ask(f"known{number}", f"address{number}", known=True)
    for number in range(3):
        scene.ask(f"new{number}", f"another{number}")
    assert [name for name, how in scene.ended.items() if how == "HasherFull at 0"] == [
        "known4",
        "known3",
        "new2",
    ]
    vt.advance(6)


def test_an_address_with_one_place_more_than_another_keeps_it(vt: VirtualTime):
    scene = Scene(vt, at_once=1, waiting=3)
    for name, origin in (("a0", "a"), ("a1", "a"), ("a2", "a"), ("b0", "b")):
        scene.ask(name, origin)
    assert scene.hasher.is_full("b")
    scene.ask("b1", "b")
    assert scene.ended == {"b1": "HasherFull at 0"}


def test_a_place_in_the_queue_is_given_back_when_its_client_has_gone(vt: VirtualTime):
    scene = Scene(vt, at_once=1, waiting=2)
    scene.ask("a")
    leaving = scene.ask("b")
    scene.ask("c")
    assert scene.hasher.is_full("192.0.2.1")
    scene.hang_up(leaving)
    assert scene.ended == {"b": "HungUp at 0"}
    assert not scene.hasher.is_full("192.0.2.1")
    scene.ask("d")
    vt.advance(3)
    assert scene.order == "a c d"


def test_a_hash_whose_client_has_gone_is_finished_and_keeps_its_place_until_then(vt: VirtualTime):
    scene = Scene(vt, at_once=1)
    leaving = scene.ask("a")
    vt.advance(0.5)
    scene.hang_up(leaving)
    assert scene.ended == {"a": "HungUp at 0.5"}
    scene.ask("b")
    vt.advance(0.25)
    assert scene.order == "a"
    vt.advance(0.25)
    assert scene.order == "a b"
    vt.advance(1)
    assert scene.ended["b"] == "hashed at 2"
    assert scene.most == 1


def test_a_place_that_is_granted_to_a_client_that_goes_in_that_moment_is_passed_on(vt: VirtualTime):
    scene = Scene(vt, at_once=1)
    scene.ask("a")
    leaving = scene.ask("b")
    scene.ask("c")
    vt.advance(0.5)
    # It is thrown out in the next iteration of the loop, and granted the place before that.
    gevent.kill(leaving, HungUp)
    scene.hasher._free_place()
    vt.run_until_idle()
    assert scene.ended == {"b": "HungUp at 0.5"}
    assert scene.order == "a c"
    vt.advance(2)
    assert scene.ended == {"b": "HungUp at 0.5", "a": "hashed at 1", "c": "hashed at 1.5"}


def test_a_client_that_goes_in_the_moment_in_which_it_is_refused_gives_back_one_place(vt: VirtualTime):
    scene = Scene(vt, at_once=1, waiting=2)
    scene.ask("a", "a")
    scene.ask("b", "a")
    leaving = scene.ask("c", "a")
    # In one iteration of the loop it is refused, and then thrown out.
    scene.start("x", "b")
    gevent.kill(leaving, HungUp)
    vt.run_until_idle()
    assert scene.ended == {"c": "HungUp at 0"}
    assert scene.hasher.is_full("a")
    vt.advance(3)
    assert scene.order == "a b x"
    assert not scene.hasher.is_full("a")


def test_a_failure_is_passed_on_and_gives_the_place_back(vt: VirtualTime):
    def fail(password: bytes, salt: bytes, cost: Cost) -> bytes:
        raise HashingFailed("on purpose")

    failing = Hasher(CHEAP, derive=fail, at_once=1, waiting=0)

    def body() -> int:
        for _ in range(3):
            with pytest.raises(HashingFailed, match="on purpose"):
                failing.hash(RIGHT, "")
        return 3

    # The virtual time would also report a traceback that gevent prints.
    assert vt.finish(gevent.spawn(body)) == 3


def test_a_hashing_that_is_killed_is_not_a_match(vt: VirtualTime):
    workers: list[gevent.Greenlet[..., Any]] = []

    def wait(password: bytes, salt: bytes, cost: Cost) -> bytes:
        workers.append(gevent.getcurrent())  # type: ignore[arg-type]
        gevent.sleep(60)
        return b""

    def body() -> object:
        with pytest.raises(HashingFailed, match="ended from outside"):
            Hasher(CHEAP, derive=wait).verify(RIGHT, STORED, "")
        return True

    asking = gevent.spawn(body)
    vt.run_until_idle()
    workers[0].kill(block=False)
    assert vt.finish(asking)


def test_no_error_and_no_greenlet_shows_a_password(vt: VirtualTime):
    shown: list[str] = []

    def fail(password: bytes, salt: bytes, cost: Cost) -> bytes:
        current = gevent.getcurrent()
        # gevent shows the beginning of this.
        shown.append(repr(current.args))  # type: ignore[attr-defined]
        raise ValueError("on purpose")

    def body() -> None:
        try:
            Hasher(CHEAP, derive=fail).verify(RIGHT, STORED, "")
        except ValueError as error:
            shown.extend(traceback.format_exception(error))

    vt.finish(gevent.spawn(body))
    assert "Password(…)" in shown[0]
    assert "on purpose" in shown[-1]
    for text in shown:
        assert "battery" not in text
        assert DIGEST not in text


# --- Processes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def processes() -> Iterator[Hasher]:
    made = Hasher(CHEAP)
    yield made
    made.close()


def children(parent: int | None = None) -> list[int]:
    """The processes that this one has started to hash, which have not ended."""
    wanted, found = str(parent or os.getpid()), []
    # The kernel's own list of children can miss some while others end.
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            its_parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if its_parent == wanted and b"scrypt.py" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return sorted(found)


def until(what: str, condition: Callable[[], bool]) -> None:
    """Let the loop run until this is so."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        gevent.sleep(0.01)


def all_at_once(asked: Hasher, count: int) -> list[str]:
    """As many hashes as this at the same time."""
    greenlets = [gevent.spawn(asked.hash, RIGHT, "") for _ in range(count)]
    gevent.joinall(greenlets, timeout=60, raise_error=True)
    return [greenlet.get(block=False) for greenlet in greenlets]


def test_hashes_are_computed_in_two_processes_that_are_kept(processes: Hasher):
    assert children() == [], "none is started before it is needed"
    stored: list[str] = []

    def two_are_needed() -> bool:
        # The first can have answered before there is anything for a second.
        stored.extend(all_at_once(processes, 20))
        return len(children()) >= 2

    until("two hashes are computed at the same time", two_are_needed)
    assert len(set(stored)) == len(stored)
    started = children()
    assert len(started) == 2
    assert all(hasher().verify(RIGHT, one, "") for one in stored)
    assert all(processes.verify(RIGHT, one, "") for one in stored)
    assert not processes.verify(WRONG, stored[0], "")
    other_script = prepare("пароль и пароль 🐎")
    assert processes.verify(other_script, hasher().hash(other_script, ""), "")
    assert children() == started
    processes.close()
    assert children() == []


def test_a_hash_does_not_hold_up_the_loop():
    slow = Hasher()
    try:
        hashing = gevent.spawn(slow.hash, RIGHT, "")
        until("it has started", lambda: bool(children()))
        turns = 0
        while not hashing.ready():
            gevent.sleep(0)
            turns += 1
        assert hashing.get().startswith("$scrypt$ln=14,r=8,p=5$")
        assert turns > 100
    finally:
        slow.close()


def test_the_process_has_a_low_priority_and_its_own_session_and_shows_nothing(processes: Hasher):
    processes.hash(RIGHT, "")
    [child] = children()
    assert os.getpriority(os.PRIO_PROCESS, child) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert os.getsid(child) == child
    for file in ("cmdline", "environ"):
        assert b"battery" not in Path(f"/proc/{child}/{file}").read_bytes()


def test_a_process_that_was_killed_is_replaced(processes: Hasher):
    processes.hash(RIGHT, "")
    [child] = children()
    os.kill(child, signal.SIGKILL)
    until("it has ended", lambda: child not in children())
    assert processes.hash(RIGHT, "")
    assert child not in children()


def test_a_process_that_is_killed_at_work_is_an_error_and_not_a_match():
    slow = Hasher(Cost(14, 8, 60))
    stored = STORED.replace("ln=4,r=1,p=1", "ln=14,r=8,p=60")
    try:
        verifying = gevent.spawn(slow.verify, RIGHT, stored, "")
        until("it has started", lambda: bool(children()))
        os.kill(children()[0], signal.SIGKILL)
        with pytest.raises(HashingFailed, match=r"has ended|does not answer"):
            verifying.get(timeout=60)
    finally:
        slow.close()


def test_closing_ends_what_is_at_work():
    slow = Hasher(Cost(14, 8, 60))
    hashing = gevent.spawn(slow.hash, RIGHT, "")
    until("it has started", lambda: bool(children()))
    slow.close()
    assert children() == []
    with pytest.raises(HashingFailed, match=r"has ended|does not answer"):
        hashing.get(timeout=60)


def test_no_process_is_started_once_the_hasher_is_closed():
    slow = Hasher(Cost(14, 8, 20))
    slow.hash(RIGHT, "")
    hashing = gevent.spawn(slow.hash, RIGHT, "")
    gevent.sleep(0)  # the process of the first is at work again
    slow.close()
    with pytest.raises(HashingFailed, match="no longer hashed"):
        hashing.get(timeout=60)
    assert children() == []


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["sleep", "60"], "does not answer: timed out"),
        (["true"], "does not answer|has ended"),
        (["sh", "-c", "read request"], "has ended"),
        (["sh", "-c", "read request; echo hello"], "answers 6 bytes that are not a digest"),
        (["sh", "-c", "read request; echo no memory"], "has no memory"),
        (["/no/such/program"], "does not start: .*No such file"),
    ],
    ids=["silent", "ended", "ended at work", "nonsense", "no memory", "missing"],
)
def test_a_process_that_does_not_do_its_work_is_an_error(
    monkeypatch: pytest.MonkeyPatch, processes: Hasher, command: list[str], why: str
):
    monkeypatch.setattr(passwords, "_PATIENCE_S", 0.5 if command[0] == "sleep" else 60)
    with monkeypatch.context() as patch:
        patch.setattr(passwords, "_command", lambda: command)
        for _ in range(3):
            with pytest.raises(HashingFailed, match=why) as failed:
                processes.verify(RIGHT, STORED, "")
            assert RIGHT.reveal().encode().hex() not in "".join(traceback.format_exception(failed.value))
    monkeypatch.setattr(passwords, "_PATIENCE_S", 60)
    assert processes.verify(RIGHT, STORED, ""), "the next process does"


def test_a_process_without_memory_says_so_and_goes_on():
    command = [sys.executable, "-I", "-S", scrypt.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def answer(request: bytes) -> bytes:
            process.stdin.write(request)  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            return process.stdout.readline()  # type: ignore[union-attr]

        small, large = b"4 1 1 00 00\n", b"16 8 1 00 00\n"
        digest = answer(small)
        assert digest == scrypt.scrypt(b"\0", b"\0", 4, 1, 1).hex().encode() + b"\n"
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (16 << 20)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        assert answer(large) == b"no memory\n"
        assert answer(small) == digest


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a program that uses a hasher."""
    head = (
        "import os, signal\n"
        "from geventchat.chat.passwords import prepare\n"
        "from geventchat.services.passwords import Cost, Hasher\n"
        "hasher, password = Hasher(Cost(4, 1, 1)), prepare('correct horse')\n"
    )
    command = [sys.executable, "-W", "error", "-c", head + script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_program_that_closes_its_hasher_ends_in_silence():
    ended = run("hasher.hash(password, ''); hasher.close()")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_the_processes_end_with_the_program_whatever_ends_it():
    ended = run(
        "hasher.hash(password, '')\n"
        "children = open(f'/proc/self/task/{os.getpid()}/children').read()\n"
        "print(children, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert ended.returncode == -signal.SIGKILL
    [child] = ended.stdout.split()
    until("the process has ended", lambda: not Path(f"/proc/{child}").exists())
