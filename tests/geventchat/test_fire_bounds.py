"""Memory and log lines that one client can cost the server are bounded, whatever it sends."""

from __future__ import annotations

import json
import re

from tests.fire.bounds import unfinished_lines, unread_answers
from tests.fire.clients import ClientPool
from tests.fire.process import ServerProcess, wait_for

KIB = 1024
LOG_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [a-z-]+( [a-z]+=(\"(\\.|[^\"\\])*\"|[^\s\"=]*))*"
)


def test_a_client_that_reads_no_answers_is_not_read_any_more() -> None:
    run = unread_answers(members=500, requests=2_000)
    # It requested far more than is kept: what it can have pending, and one answer.
    assert run.requests * run.answer_bytes > 5_000 * KIB
    assert run.most_kept_bytes < 64 * KIB + 3 * run.answer_bytes


def test_an_unfinished_line_costs_no_more_than_a_line() -> None:
    run = unfinished_lines(clients=1_000, sent_bytes=4_000)
    # Once for the line, once to recognise a request of another protocol, and what the allocator rounds up.
    assert run.kept_bytes_each < 3 * 4_096


def test_an_unfinished_line_over_the_limit_costs_no_more_however_long_it_grows() -> None:
    run = unfinished_lines(clients=500, sent_bytes=50_000)
    assert run.kept_bytes_each < 3 * 4_096
    # It is 10 to 30 bytes. If the allocator takes one MiB more, it is 2 KiB; what was sent is fifty thousand.
    assert run.more_bytes_each < 4_096


def test_clients_cannot_forge_log_lines() -> None:
    forged = 'x\n2026-01-01T00:00:00.000Z INFO login conn=7 name=root\r\n\x1b[31m\u2028 reason="a" \\'
    with ServerProcess("--log-messages", dialects=("json",)) as server, ClientPool() as pool:
        client = pool.connect(server.address("json"))
        for request in (
            {"type": "join", "username": forged},
            {"type": "join", "username": "a"},
            {"type": "chat", "message": forged},
        ):
            client.send_lines(json.dumps(request))
        pool.wait_for("the message came back", lambda: b'"chat"' in client.received)
        wait_for("the message is logged", lambda: bool(server.log_lines("message")))
        lines = server.log().split("\n")
        assert not lines.pop()
        assert len(server.log_lines("login")) == 1
        for line in lines:
            assert LOG_LINE.fullmatch(line), line
            assert line.isprintable(), line
