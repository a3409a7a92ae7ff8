"""What a person is told who has stumbled: the thing itself, and the line in which to look."""

from __future__ import annotations

import socket
import sys

import pytest
from gevent.server import StreamServer

from harness import Command, Grade, InProcess, Outcome, ScriptError, Verdict, parse, play
from harness.reporting import styled_text
from harness.reporting.report import report


def answering(answers: dict[str, str]) -> InProcess:
    """A server that says this to that, to whoever says it."""

    def make(ask: object) -> StreamServer:
        def converse(sock: socket.socket, address: object) -> None:
            with sock, sock.makefile("rb") as lines:
                for line in lines:
                    sock.sendall(answers[line.decode().rstrip("\n")].encode() + b"\n")

        return StreamServer(("127.0.0.1", 0), converse)

    return InProcess(make)


def told(text: str, answers: dict[str, str]) -> tuple[Verdict, str]:
    verdict = play(parse(text), answering(answers))
    return verdict, styled_text.plain(report(verdict))


BOTH = "ann> look\nben> put\nben<~ 250 stored ${ticket:/[0-9a-f]{6}/}\nann<~ 300 door=open ${ticket} ${_}\n"


def test_a_name_is_bound_by_the_first_line_of_the_script_that_has_it():
    _, text = told(BOTH, {"look": "300 door=open wide 2f202a", "put": "250 stored 2f202a"})
    assert "FAILED <script>:4   ann received something else" in text
    assert "  but           ${ticket} is `2f202a` since line 3" in text
    assert "and line" not in text


def test_of_several_names_the_one_in_the_way_is_told():
    first = "ann> one\nann<~ ${a} ${b}\n"
    _, text = told(f"{first}ann> two\nann<~ ${{a}} ${{b}}\n", {"one": "x y", "two": "x z"})
    assert "${b} is `y` since line 2" in text
    assert "${a} is" not in text


def test_a_line_with_another_value_is_not_taken_for_the_missing_one_that_comes_late():
    script = "ann> one\nann<~ ticket ${t}\nann> two\nann<~ ticket ${t}\nann> three\nann<~ ticket ${_}\n"
    _, text = told(script, {"one": "ticket a", "two": "ticket b", "three": "ticket c"})
    assert "${t} is `a` since line 2" in text
    assert "turn later" not in text


def test_the_right_order_passes():
    verdict, text = told(BOTH, {"look": "300 door=open 2f202a x", "put": "250 stored 2f202a"})
    assert verdict.outcome is Outcome.PASSED, text


def test_a_long_list_of_what_was_expected_goes_on_below_itself():
    with pytest.raises(ScriptError) as wrong:
        parse("x\n")
    lines = str(wrong.value).splitlines()
    assert "expected: " in lines[3]
    assert len(lines) > 5
    assert all(len(line) <= 100 for line in lines)
    assert all(line.startswith("                ") for line in lines[4:])


def test_a_grade_prints_as_its_name():
    assert [f"{grade}" for grade in Grade] == ["settled", "answered", "exact"]


ANSWERS = (
    "import socketserver, sys\n"
    "class H(socketserver.StreamRequestHandler):\n"
    "    def handle(self):\n"
    "        for line in self.rfile: self.wfile.write(b'250 hi\\n' if line == b'HI\\n' else b'500 what\\n')\n"
    "socketserver.ThreadingTCPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
)


def test_a_fence_line_that_the_server_answers_otherwise_is_told_with_its_line_and_what_was_said():
    script = parse("title: t\nfence: noopp -> 200 ok | 200 fine\nwithin: 300ms\n\nann> HI\nann< 250 hi\n")
    verdict = play(script, Command([sys.executable, "-S", "-c", ANSWERS, "{port}"]))
    text = styled_text.plain(report(verdict))
    assert "FAILED <script>:5   ann got no answer to the fence line" in text
    assert (
        "the server did not answer the fence line `noopp` (line 2) with `200 ok` or `200 fine`; "
        "what it said last is `500 what` (waited 0.3 s)"
    ) in text
