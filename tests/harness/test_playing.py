"""Every step does what it says, on a correct server and on wrong ones."""

from __future__ import annotations

import socket
import struct
import sys
import time
from pathlib import Path

import gevent
import pytest
from gevent.server import StreamServer

from harness import Command, Grade, InProcess, Outcome, PlayOptions, Verdict, parse, play
from harness.language.fences import Fence
from harness.playing.verdict import FailureKind
from harness.report import styled_text
from harness.report.text import report
from tests.harness.servers.talk import serve
from tests.ports import free_port

ROOM = "alice> LOGIN alice\nalice< OK\nbob> LOGIN bob\nbob< OK\n"
TALK = f"{sys.executable} -m tests.harness.servers.talk {{port}} {{fault=none}}"


def played(text: str, converse=None) -> Verdict:
    """On the talk server, or on one that runs this function for each connection."""
    if converse is None:
        return play(parse(text), InProcess(serve))

    def make(ask):
        def handle(sock, address):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                converse(sock)
            finally:
                sock.close()

        return StreamServer(("127.0.0.1", 0), handle)

    return play(parse(text), InProcess(make))


def passes(text: str, converse=None) -> Verdict:
    verdict = played(text, converse)
    assert verdict.outcome is Outcome.PASSED, styled_text.plain(report(verdict))
    return verdict


def fails(text: str, converse=None) -> list[tuple[FailureKind, str, int]]:
    verdict = played(text, converse)
    assert verdict.outcome is Outcome.FAILED, styled_text.plain(report(verdict))
    return [(one.kind, one.client, one.line) for one in verdict.failures]


def echo_reads(sock):
    """Report the size of each read."""
    while data := sock.recv(4096):
        sock.sendall(b"read %d\n" % len(data))


def test_the_server_reads_each_byte_send_separately():
    passes("a>> he\na>> llo\na>> \\n\na< read 2\na< read 3\na< read 1\n", echo_reads)


def test_expected_bytes_need_not_end_with_a_line():
    passes("a> hi\na<< re\na<< ad \na<< 3\\n\n".replace("ad \n", "ad\\x20\n"), echo_reads)
    assert fails("a> hi\na<< re\n", echo_reads) == [(FailureKind.EXTRA, "a", 2)]


def test_consecutive_sends_are_processed_one_after_another():
    log = []

    def converse(sock):
        for line in sock.makefile("rb"):
            gevent.sleep(0)
            log.append(line)
            sock.sendall(b"%d\n" % len(log))

    passes("a> x\nb> y\na> z\nc> w\na< 1\na< 3\nb< 2\nc< 4\n", converse)
    assert log == [b"x\n", b"y\n", b"z\n", b"w\n"]


@pytest.mark.parametrize("action", ["closes", "half-closes", "aborts"])
def test_an_action_is_processed_before_another_client_acts(action):
    log = []

    def converse(sock):
        try:
            while data := sock.recv(10):
                log.append(data)
        except ConnectionResetError:
            pass
        for _ in range(5):
            gevent.sleep(0)
        log.append("left")

    played(f"b connects\na> x\na {action}\nb> y\n", converse)
    assert log[:3] == [b"x\n", "left", b"y\n"]


def test_an_empty_line_is_a_line():
    passes("a>\na< read 1\na> \\n\na< read 3\n", echo_reads)


def test_virtual_time_is_exact_to_the_microsecond_and_takes_no_real_time():
    def late(sock):
        sock.recv(10)
        gevent.sleep(60)
        sock.sendall(b"late\n")

    began = time.perf_counter()
    passes("a> x\nwait 59.999s\na receives nothing\nwait 1ms\na< late\na is closed\n", late)
    assert time.perf_counter() - began < 30
    assert fails("a> x\nwait 59.999999s\na< late\n", late) == [(FailureKind.MISSING, "a", 3)]


def test_an_unexpected_end_is_a_failure_and_so_is_a_missing_one():
    assert fails(f"{ROOM}bob> QUIT\nbob< Goodbye!\nalice< INFO bob disconnected\n") == [
        (FailureKind.LOST_CONNECTION, "bob", 7)
    ]
    assert fails(f"{ROOM}bob> WHO\nbob< USER alice\nbob< USER bob\nbob is closed\n") == [
        (FailureKind.STILL_OPEN, "bob", 8)
    ]


@pytest.mark.parametrize(
    ("end", "said", "fault"),
    [
        ("close", "is closed", None),
        ("close", "is disconnected", None),
        ("close", "is reset", FailureKind.WRONG_END),
        ("reset", "is reset", None),
        ("reset", "is disconnected", None),
        ("reset", "is closed", FailureKind.WRONG_END),
    ],
)
def test_ends_are_distinguished(end, said, fault):
    def converse(sock):
        sock.recv(10)
        if end == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    text = f"a> x\na {said}\n"
    if fault is None:
        passes(text, converse)
    else:
        assert fails(text, converse) == [(fault, "a", 2)]


def test_being_refused_can_be_expected():
    passes("server: fault=turns-away\n\nalice> LOGIN alice\nalice< OK\nbob connects\nbob is refused\n")
    assert fails(f"{ROOM}carol connects\ncarol is refused\n") == [(FailureKind.NOT_REFUSED, "carol", 6)]


def test_a_clients_connection_actions_reach_the_server():
    def converse(sock):
        try:
            while data := sock.recv(100):
                sock.sendall(data)
            sock.sendall(b"end\n")
        except ConnectionResetError:
            order.append("reset")

    order = []
    passes("a> x\na< x\na half-closes\na< end\na is closed\n", converse)
    passes("a> x\na< x\na aborts\n", converse)
    assert order == ["reset"]
    passes("a> x\na< x\na closes\na connects\na> y\na< y\n", converse)


def test_a_client_that_stops_reading_reads_all_of_it_later():
    def converse(sock):
        for line in sock.makefile("rb"):
            sock.sendall(line)

    passes("a> x\na< x\na stops reading\na> y\na receives nothing\na reads again\na< y\n", converse)


def test_together_lets_all_go_at_once():
    both = []

    def converse(sock):
        both.append(sock.recv(10))
        gevent.sleep(0)
        sock.sendall(b"%d\n" % len(both))

    passes("together:\n    a> x\n    b> y\na< 2\na is closed\nb< 2\nb is closed\n", converse)


def test_in_any_order_frees_only_the_order():
    free = f"{ROOM}alice> WHO\nin any order:\n    alice< USER bob\n    alice< USER alice\n"
    passes(free)
    assert fails(free + "    alice< USER carol\n") == [(FailureKind.MISSING, "alice", 9)]
    assert fails(free.replace("    alice< USER bob\n", "")) == [(FailureKind.EXTRA, "alice", 7)]


def test_in_any_order_finds_the_patterns_that_match():
    passes(
        f"{ROOM}alice> WHO\nin any order:\n    alice<~ USER ${{x}}\n    alice< USER alice\nbob>~ MSG ${{x}}\n"
        f"alice< MSG bob bob\n"
    )


def test_captures_bind_once_for_all_clients():
    passes(
        f"{ROOM}alice> WHO\nalice<~ USER ${{a}}\nalice<~ USER ${{b}}\nalice>~ MSG ${{b}}\nbob<~ MSG ${{a}} ${{b}}\n"
    )
    found = fails(f"{ROOM}alice> WHO\nalice<~ USER ${{a}}\nalice<~ USER ${{a}}\n")
    assert found == [(FailureKind.DIFFERENT, "alice", 7)]


def test_definitions_and_repeats_are_played():
    passes(
        "define X logs in:\n    X>~ LOGIN ${X}\n    X< OK\n\nalice logs in\nbob logs in\n"
        "repeat 3 as n:\n    alice>~ MSG ${n}\n    bob<~ MSG alice ${n}\n"
    )


def test_lines_can_end_in_crlf():
    passes(
        "eol: crlf\nserver: fault=crlf\n\nalice> LOGIN alice\nalice< OK\nalice> WHO\nalice<~ USER ${who}\n"
    )


def test_every_client_is_checked_in_every_turn():
    assert fails(f"{ROOM}carol> LOGIN carol\ncarol< OK\nalice> MSG hi\nbob< MSG alice hi\n") == [
        (FailureKind.EXTRA, "carol", 8)
    ]


def test_an_option_endpoint_or_feature_that_the_target_lacks_is_reported():
    verdict = played("server: fault=drops sauce=hot\n\na> x\n")
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert "<script>:1:21: no option 'sauce'; known: fault" in verdict.reason
    verdict = played("a> x\na connects to json\n")
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    verdict = played("b connects to json\n")
    assert "1:1: no endpoint 'json'" in verdict.reason
    verdict = played("needs: virtual-time magic\n\na> x\n")
    assert verdict.outcome is Outcome.SKIPPED
    assert verdict.reason.startswith("needs magic, which ")
    verdict = played("needs: restart virtul-time\n\na> x\n")
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert "1:16: unknown feature 'virtul-time'" in verdict.reason
    assert "expected: perhaps virtual-time" in verdict.reason


def test_a_script_without_steps_is_wrong():
    assert "nothing happens in this script" in played("title: x\n\n# nothing\n").reason


def test_the_same_script_has_the_same_verdict_every_time():
    talk = "together:\n    alice> MSG a\n    bob> MSG b\nalice< MSG bob b\nbob< MSG alice a\n"
    text = f"{ROOM}{talk}wait 5s\nalice receives nothing\n"
    verdicts = [played(text) for _ in range(20)]
    assert all(one.passed and one.grade is Grade.EXACT for one in verdicts)
    assert len({one.turns for one in verdicts}) == 1


def test_a_command_is_played_in_real_time_with_and_without_a_fence():
    script = parse(f"{ROOM}alice> MSG hi\nbob< MSG alice hi\nalice receives nothing\n")
    target = Command(TALK)
    unfenced = play(script, target)
    assert unfenced.passed
    assert unfenced.grade is Grade.SETTLED
    broken = play(script, target, PlayOptions(Fence("NOSUCH", ("PONG",)), within_s=1.0))
    assert [(one.kind, one.client, one.line) for one in broken.failures] == [
        (FailureKind.UNANSWERED, "alice", 1)
    ]
    assert "the server did not answer the fence line `NOSUCH` with `PONG`; " in styled_text.plain(
        report(broken)
    )


def test_a_command_that_dies_has_that_as_its_only_failure_and_shows_its_output():
    verdict = play(parse(f"server: fault=dies\n\n{ROOM}alice> MSG hi\nbob< MSG alice hi\n"), Command(TALK))
    assert [one.kind for one in verdict.failures] == [FailureKind.SERVER_DIED]
    text = styled_text.plain(report(verdict))
    assert "<script>:7   the server died" in text
    assert "| fatal: no memory left for bob" in text
    assert "exited with status 3" in text


def test_a_command_that_does_not_start_is_a_broken_target():
    verdict = play(parse(ROOM), Command(f"{sys.executable} -c 'raise SystemExit(\"no licence\")' {{port}}"))
    assert verdict.outcome is Outcome.TARGET_ERROR
    assert "no licence" in verdict.reason


def test_a_missing_line_is_awaited_where_time_is_real():
    slow = (
        "import socketserver, sys, time\n"
        "class H(socketserver.StreamRequestHandler):\n"
        "    def handle(self):\n"
        "        for line in self.rfile:\n"
        "            time.sleep(0.3)\n"
        "            self.wfile.write(line)\n"
        "socketserver.TCPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
    )
    assert play(parse("a> x\na< x\na> y\na< y\n"), Command([sys.executable, "-c", slow, "{port}"])).passed


# --- ports that the server names ------------------------------------------------------------------------------

PASSIVE = "a> PASV\na<~ 227 ${_}(127,0,0,1,${high:/[^,]+/},${low})\n"
LIST = f"{PASSIVE}d connects to port 256*${{high}}+${{low}}\na> LIST\na< 150 here it comes\n"
DATA = "d< one.txt\nd< two.txt\nd is closed\na< 226 done\n"


def passive(*numbers: str) -> Command:
    path = Path(__file__).parent / "servers" / "passive.py"
    return Command([sys.executable, "-S", str(path), "{port}", *numbers])


def test_a_client_connects_to_a_port_that_the_server_names():
    for header in ("", "fence: NOOP -> 200 ok\n\n"):
        verdict = play(parse(header + LIST + DATA), passive())
        assert verdict.passed, styled_text.plain(report(verdict))


def test_a_server_in_this_process_can_name_a_port_too():
    def converse(sock):
        other = StreamServer(("127.0.0.1", 0), lambda data, _: data.sendall(b"here\n"))
        other.start()
        sock.sendall(b"%d\n" % other.server_port)
        sock.recv(10)
        other.stop()

    steps = "a connects\na<~ ${p:int}\nd connects to port ${p}\nd< here\nd is closed\n"
    assert passes(steps, converse).grade is Grade.EXACT


@pytest.mark.parametrize(
    ("numbers", "detail"),
    [
        ("0,0", "0, which is not from 1 to 65535"),
        ("256,0", "65536, which is not from 1 to 65535"),
        ("x,1", "${high} is `x`"),
        ("9999999999,1", "${high} is `9999999999`"),
    ],
)
def test_a_port_that_is_none_is_a_failure_of_the_server(numbers, detail):
    verdict = play(parse(LIST), passive(numbers))
    text = styled_text.plain(report(verdict))
    assert [(one.kind, one.client, one.line) for one in verdict.failures] == [(FailureKind.NO_PORT, "d", 3)]
    assert "d cannot connect to what the server named" in text
    assert f"actual    {detail}" in text


def test_a_port_without_a_listener_refuses():
    high, low = divmod(free_port(), 256)
    steps = f"{PASSIVE}d connects to port 256*${{high}}+${{low}}\n"
    verdict = play(parse(steps), passive(f"{high},{low}"))
    assert [(one.kind, one.client) for one in verdict.failures] == [(FailureKind.REFUSED_ENTRY, "d")]
    assert play(parse(f"{steps}d is refused\n"), passive(f"{high},{low}")).passed
