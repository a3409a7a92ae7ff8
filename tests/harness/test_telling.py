"""What a person is told who has stumbled: the thing itself, and the line in which to look."""

from __future__ import annotations

import socket

from gevent.server import StreamServer

from harness import InProcess, Outcome, Verdict, parse, play
from harness.reporting import ink
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
    return verdict, ink.plain(report(verdict))


BOTH = "ann> look\nben> put\nben<~ 250 stored ${ticket:/[0-9a-f]{6}/}\nann<~ 300 door=open ${ticket} ${_}\n"


def test_a_name_is_bound_by_the_first_line_of_the_script_that_has_it():
    _, text = told(BOTH, {"look": "300 door=open wide 2f202a", "put": "250 stored 2f202a"})
    assert "FAILED <script>:4   ann heard something else" in text
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
