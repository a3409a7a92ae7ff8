"""The fences for servers outside this process where they could be wrong: threads that deliver late, missing answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import Command, Fence, Grade, Stage, TargetError
from harness.playing.pipeline import play_file
from harness.report.styled_text import plain
from harness.report.text import report
from harness.stage.fence import FenceFailed

SERVER = Path(__file__).parent / "servers" / "threaded.py"
PING = Fence("PING", ("PONG", "ERR must-login-first"))
TOKEN = Fence("PING ${token}", ("PONG ${token}", "ERR must-login-first"))


def threaded(*options: str) -> Command:
    return Command([sys.executable, "-S", str(SERVER), "{port}", *options])


def three(stage: Stage) -> None:
    for client in stage.clients("alice", "bob", "carol"):
        client.send(f"LOGIN {client.name}")
        client.expect("OK")


@pytest.mark.parametrize("fence", [PING, TOKEN], ids=["plain", "with a token"])
def test_lines_from_a_slow_thread_have_arrived_when_the_fence_returns(fence: Fence) -> None:
    with Stage(threaded("login-first"), fence=fence) as stage:
        alice, bob, carol = stage.clients("alice", "bob", "carol")
        three(stage)
        for n in range(5):
            alice.post(f"MSG {n}\n".encode())
            stage.fence((alice,))
            assert bob.take(100) == carol.take(100) == f"MSG alice {n}\n".encode()
        stage.settle()
        assert stage.grade is Grade.ANSWERED


def test_an_error_before_login_counts_as_an_answer_and_is_removed() -> None:
    with Stage(threaded("login-first"), fence=PING) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.connect()
        bob.connect()
        stage.fence((alice, bob))
        assert not alice.inbox
        assert not bob.inbox
        alice.send("MSG too early")
        alice.expect("ERR must-login-first")
        stage.settle()


def test_an_answer_to_the_script_itself_is_not_removed() -> None:
    with Stage(threaded(), fence=TOKEN) as stage:
        alice = stage.client("alice")
        alice.send("PING")
        alice.expect("PONG")
        alice.send("PING me")
        alice.expect("PONG me")
        stage.settle()


def test_a_missing_fence_answer_is_an_error_that_names_the_client() -> None:
    with Stage(threaded("no-ping"), fence=PING, within=0.3) as stage:
        alice = stage.client("alice")
        with pytest.raises(FenceFailed, match=r"the server did not answer the fence line `PING`") as silent:
            alice.send("LOGIN alice")
        assert silent.value.client == "alice"


def test_without_a_fence_line_the_grade_is_settled() -> None:
    with Stage(threaded("no-ping")) as stage:
        alice, bob = stage.clients("alice", "bob")
        for client in (alice, bob):
            client.send(f"LOGIN {client.name}")
            client.expect("OK")
        alice.send("MSG hello")
        bob.expect("MSG alice hello")
        stage.settle()
        assert stage.grade is Grade.SETTLED


def test_a_client_that_leaves_weakens_the_grade_and_its_effects_are_awaited() -> None:
    with Stage(threaded(), fence=PING) as stage:
        alice, bob, _ = stage.clients("alice", "bob", "carol")
        three(stage)
        assert stage.grade is Grade.ANSWERED
        bob.close()
        stage.fence((bob,))
        alice.expect("INFO bob disconnected")
        stage.client("carol").expect("INFO bob disconnected")
        stage.settle()
        assert stage.grade is Grade.SETTLED


def test_the_fence_does_not_reset_a_connection_that_the_server_closes() -> None:
    with Stage(threaded(), fence=PING) as stage:
        for n in range(20):
            client = stage.client(f"client{n}")
            client.connection.expects_close = True
            client.send("QUIT")
            client.expect("Goodbye!")
            client.expect_closed()


def test_no_fence_line_is_sent_in_the_middle_of_a_line() -> None:
    with Stage(threaded(), fence=PING) as stage:
        alice, bob = stage.clients("alice", "bob")
        bob.connect()
        for piece in (b"LOG", b"IN al", b"ice\n"):
            alice.send_bytes(piece)
            stage.fence((alice,))
        alice.expect("OK")
        stage.settle()
        assert stage.grade is Grade.SETTLED


def test_no_fence_is_sent_while_waiting() -> None:
    with Stage(threaded(), fence=Fence("LOGIN fence", ("OK",))) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.send("PING")
        alice.expect("PONG")
        bob.connect()
        began = time.monotonic()
        stage.wait(0.25)
        assert time.monotonic() - began >= 0.25
        assert bob.inbox.arrivals == []


def test_a_server_that_dies_is_reported_with_its_output() -> None:
    with Stage(threaded(), fence=PING) as stage:
        alice = stage.client("alice")
        alice.post(b"DIE\n")
        with pytest.raises(TargetError, match=r"(?s)exited with status 7.*dying as told"):
            alice.expect("something")
        assert not stage.alive()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fence.parse("PING"), "a line without its answer"),
        (lambda: Fence("PING", ()), "a fence is a line and its answers"),
        (lambda: Fence("", ("PONG",)), "a fence is a line and its answers"),
    ],
)
def test_an_incomplete_fence_is_rejected(make: Callable[[], Fence], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("answer", "inbox", "removed"),
    [
        ("PONG", b"PONG\n", b"PONG\n"),
        ("PONG", b"PONG\r\nmore\n", b"PONG\r\n"),
        ("PONG", b"a PONG\nPONG\n", b"PONG\n"),
        ("PONG", b"PONG it is\n", None),
        ("PONG", b"PON", None),
        ("451 ${_} :no", b"451 alice :no\r\n", b"451 alice :no\r\n"),
        ("451 ${_} :no", b"451 alice\n :no\r\n", None),
        (r"*2\r\n$4\r\npong\r\n", b"*2\r\n$4\r\npong\r\n$0\r\n", b"*2\r\n$4\r\npong\r\n"),
        (r'{"a": "\u00e9"}', rb'{"a": "\u00e9"}' + b"\n", rb'{"a": "\u00e9"}' + b"\n"),
        ("ok${token}", b"ok1\nok2\n", b"ok2\n"),
        ("one | two", b"two\n", None),
    ],
)
def test_an_answer_is_found_at_the_beginning_of_a_line(
    answer: str, inbox: bytes, removed: bytes | None
) -> None:
    found = next(Fence("?", (answer,)).find_answers(inbox, 0, "2"), None)
    assert (inbox[found[0] :][: found[1]] if found else None) == removed


@pytest.mark.parametrize(
    ("unended", "inbox", "at"),
    [
        ((), b"\xff\xfb\x06PONG\n", 3),
        ((), b"\xff\xfb\x06" * 40 + b"\xff\xfa\x18\xff\xff\n\xff\xf0\xff\xf9PONG\n", 130),
        ((), b"\xff\xffPONG\n", None),  # a byte of data
        ((), b"\xff\xfa\x18PONG\n", None),  # a subnegotiation that does not end
        ((), b"> PONG\n", None),
        ((b"> ",), b"> PONG\n", 2),
        ((b"> ",), b"> > \xff\xfb\x06> PONG\n", 9),
        ((b"> ",), b">PONG\n", None),
        ((b"> ",), b"said > PONG\n", None),
        ((b"a", b"aa", b"aaa"), b"a" * 5000 + b"PONG\n", None),
        ((b"\xff\xfb\x06",), b"\xff\xfb\x06" * 5000 + b"PING\n", None),
    ],
)
def test_an_answer_can_stand_behind_known_bytes_without_a_line_end(
    unended: tuple[bytes, ...], inbox: bytes, at: int | None
) -> None:
    found = next(Fence("?", ("PONG",)).find_answers(inbox, 0, "", unended), None)
    assert found == (None if at is None else (at, 5))


@pytest.mark.parametrize(
    ("answer", "line", "at"),
    [
        ("PONG", b"> PONG", 2),
        ("PONG", b"> PONG\r", 2),
        ("PONG", b"PONG", None),
        ("PONG", b"PONG it is", None),
        ("PONG ${token}", b"> PONG 7", 2),
    ],
)
def test_an_answer_at_the_end_of_a_line_is_recognised(answer: str, line: bytes, at: int | None) -> None:
    found = Fence("?", (answer,)).find_at_end(line, "7")
    assert (found and found[0]) == at


def test_a_fence_reads_back_as_it_was_written() -> None:
    text = "PING -> PONG | ERR must-login-first"
    assert str(Fence.parse(text)) == text


CLOSES_UNREAD = """
import select, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    client, _ = listener.accept()
    if client.recv(100) == b"QUIT\\n":
        client.sendall(b"bye\\n")
        select.select([client], [], [], 1)  # until a fence line has come, which stays unread
    client.close()
"""


def test_a_reset_for_an_unread_fence_line_is_not_what_the_report_expects(tmp_path: Path) -> None:
    server = Command([sys.executable, "-S", "-c", CLOSES_UNREAD, "{port}"])
    path = tmp_path / "quit.chat"
    path.write_text("fence: PING -> PONG\n\na> QUIT\na< bye\n")
    verdict = play_file(path, server)
    told = plain(report(verdict))
    assert "actual    a is reset" in told
    assert "hint  if this is intended, expect `a is disconnected` in this turn\n" in told
    assert told.endswith("paste:\na< bye\na is disconnected\n")
    path.write_text(path.read_text() + "a is disconnected\n")
    assert play_file(path, server).passed
