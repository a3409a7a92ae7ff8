"""What one client can make the server keep, or write into its log, is bounded whatever it asks."""

from __future__ import annotations

import json
import re

from tests.fire.asking import lines_without_end, who_without_listening
from tests.fire.crowd import Crowd
from tests.fire.process import ServerProcess, eventually

KIB = 1024
LOG_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [a-z-]+( [a-z]+=(\"(\\.|[^\"\\])*\"|[^\s\"=]*))*"
)


def test_who_asks_and_does_not_listen_is_not_asked_for_more_questions() -> None:
    run = who_without_listening(present=500, questions=2_000)
    # What was asked for is far more; what is kept is what it may owe itself and one answer.
    assert run.questions * run.answer_bytes > 5_000 * KIB
    assert run.most_kept_bytes < 64 * KIB + 3 * run.answer_bytes


def test_a_line_that_is_begun_and_never_ended_costs_no_more_than_a_line() -> None:
    run = lines_without_end(clients=1_000, begun_bytes=4_000)
    # Once for the line and once to see whether it is a request of another protocol, and what the allocator rounds up.
    assert run.kept_bytes_each < 3 * 4_096


def test_a_line_without_end_that_is_over_the_limit_costs_nothing() -> None:
    run = lines_without_end(clients=500, begun_bytes=100_000)
    assert run.kept_bytes_each < 2 * KIB


def test_nobody_can_write_a_line_of_the_log() -> None:
    forged = 'x\n2026-01-01T00:00:00.000Z INFO login conn=7 name=root\r\n\x1b[31m\u2028 reason="a" \\'
    with ServerProcess("--log-messages", dialects=("json",)) as server, Crowd() as crowd:
        peer = crowd.join(server.at("json"))
        for said in (
            {"type": "join", "username": forged},
            {"type": "join", "username": "a"},
            {"type": "chat", "message": forged},
        ):
            peer.say(json.dumps(said))
        crowd.until("the message came back", lambda: b'"chat"' in peer.heard)
        eventually("the message is logged", lambda: bool(server.logged("message")))
        lines = server.log().split("\n")
        assert not lines.pop()
        assert len(server.logged("login")) == 1
        for line in lines:
            assert LOG_LINE.fullmatch(line), line
            assert line.isprintable(), line
