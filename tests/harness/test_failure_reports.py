"""The report of each kind of failure, on servers with one deliberate mistake each, or on those that a header names.

The golden files hold whole reports. `python -m tests.harness.test_failure_reports` writes them again; read the difference
before you commit it.
"""

from __future__ import annotations

import re
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from gevent.server import StreamServer

from harness import Command, Grade, InProcess, Outcome, ScriptError, Verdict, load, parse, play
from harness.language.steps import Script
from harness.report.styled_text import Span, plain, width, wrapped
from harness.report.text import report
from harness.targets.choice import TargetChoice
from harness.targets.named import named_by
from tests.harness.servers.talk import serve, serve_correctly

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
WITH_TARGETS = Path(__file__).parent / "golden_targets"
"""Scripts that name their server."""
AT_TALK = sorted(GOLDEN.glob("*.chat"))
SCRIPTS = AT_TALK + sorted(WITH_TARGETS.glob("*.chat"))


# --- golden files -------------------------------------------------------------------------------------------


def golden_verdict(path: Path) -> Verdict:
    script = load(path)
    script = Script(script.header, script.body, path.name, script.source)
    named = named_by(script, TargetChoice())
    if named is None:
        return play(script, InProcess(serve))
    assert named.server is not None
    server = re.sub("^python ", f"{sys.executable} ", named.server)
    return play(script, replace(named, server=server).target())


def golden_report(verdict: Verdict) -> str:
    return _portable(plain(report(verdict)))


def _portable(text: str) -> str:
    """Keep only the last line of a traceback, which is the same on every machine and Python, and the number of a token."""
    text = re.sub(r"\b(f)[0-9a-f]{6}x(?=[0-9])", r"\1", text, flags=re.IGNORECASE)
    body, heading, output = text.partition("  server output\n")
    errors = [line for line in output.splitlines() if re.match(r"  \| \w+Error: ", line)]
    return body + heading + "".join(f"{line}\n" for line in errors)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_report_is_the_golden_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert golden_report(golden_verdict(path)) == path.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", AT_TALK, ids=lambda path: path.stem)
def test_a_correct_server_passes_each_golden_script(path: Path) -> None:
    verdict = play(load(path), InProcess(serve_correctly))
    assert verdict.outcome is Outcome.PASSED, plain(report(verdict))


def test_every_golden_file_has_its_script() -> None:
    found = {*GOLDEN.glob("*.txt"), *WITH_TARGETS.glob("*.txt")}
    assert found == {path.with_suffix(".txt") for path in SCRIPTS}


# --- captures -----------------------------------------------------------------------------------------------


def reported(text: str, answers: dict[str, str]) -> tuple[Verdict, str]:
    """Play the script against a server that gives this answer to every line."""

    def make(spec: object) -> StreamServer:
        def converse(sock: socket.socket, address: object) -> None:
            with sock, sock.makefile("rb") as lines:
                for line in lines:
                    sock.sendall(answers[line.decode().rstrip("\n")].encode() + b"\n")

        return StreamServer(("127.0.0.1", 0), converse)

    verdict = play(parse(text), InProcess(make))
    return verdict, plain(report(verdict))


TWO_CLIENTS = (
    "ann> look\nben> put\nben<~ 250 stored ${ticket:/[0-9a-f]{6}/}\nann<~ 300 door=open ${ticket} ${_}\n"
)


def test_a_capture_is_bound_by_the_first_line_of_the_script_that_has_it() -> None:
    _, text = reported(TWO_CLIENTS, {"look": "300 door=open wide 2f202a", "put": "250 stored 2f202a"})
    assert "FAILED <script>:4   ann received something else" in text
    assert "  but       ${ticket} is `2f202a` since line 3" in text
    assert "also line" not in text


def test_of_several_captures_the_conflicting_one_is_named() -> None:
    first = "ann> one\nann<~ ${a} ${b}\n"
    _, text = reported(f"{first}ann> two\nann<~ ${{a}} ${{b}}\n", {"one": "x y", "two": "x z"})
    assert "${b} is `y` since line 2" in text
    assert "${a} is" not in text


def test_a_line_with_another_value_is_not_mistaken_for_the_missing_one_arriving_late() -> None:
    script = "ann> one\nann<~ ticket ${t}\nann> two\nann<~ ticket ${t}\nann> three\nann<~ ticket ${_}\n"
    _, text = reported(script, {"one": "ticket a", "two": "ticket b", "three": "ticket c"})
    assert "${t} is `a` since line 2" in text
    assert "turn later" not in text


def test_the_expected_values_pass() -> None:
    verdict, text = reported(TWO_CLIENTS, {"look": "300 door=open 2f202a x", "put": "250 stored 2f202a"})
    assert verdict.outcome is Outcome.PASSED, text


# --- scripts and fences -------------------------------------------------------------------------------------


def test_a_long_list_of_expectations_is_wrapped_below_itself() -> None:
    with pytest.raises(ScriptError) as error:
        parse("x\n")
    lines = str(error.value).splitlines()
    assert "expected: " in lines[3]
    assert len(lines) > 5
    assert all(len(line) <= 100 for line in lines)
    assert all(line.startswith("                ") for line in lines[4:])


def test_a_grade_is_printed_by_its_name() -> None:
    assert [f"{grade}" for grade in Grade] == ["settled", "answered", "heard", "exact"]


ANSWERS_HI_ONLY = (
    "import socketserver, sys\n"
    "class H(socketserver.StreamRequestHandler):\n"
    "    def handle(self):\n"
    "        for line in self.rfile: self.wfile.write(b'250 hi\\n' if line == b'HI\\n' else b'500 what\\n')\n"
    "socketserver.ThreadingTCPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
)


def test_a_fence_line_that_gets_another_answer_is_reported_with_its_line_and_that_answer() -> None:
    script = parse("title: t\nfence: noopp -> 200 ok | 200 fine\nwithin: 300ms\n\nann> HI\nann< 250 hi\n")
    text = plain(report(play(script, Command([sys.executable, "-S", "-c", ANSWERS_HI_ONLY, "{port}"]))))
    assert "FAILED <script>:5   ann got no answer to the fence line" in text
    assert "`noopp` (line 2)" in text
    assert "`200 ok` or `200 fine`" in text
    assert "`500 what`" in text
    assert "(waited 0.3 s)" in text


# --- within the width of a terminal -------------------------------------------------------------------------


def widest(text: str) -> int:
    shown = text.partition("  to accept what was received, paste:")[0]
    return max(map(width, shown.splitlines()))


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_long_line_is_cut_around_the_first_difference(columns: int) -> None:
    line = "x" * 500 + "good" + "y" * 500
    verdict, _ = reported(f"ann> say\nann< {line}\n", {"say": line.replace("good", "evil")})
    text = plain(report(verdict, columns))
    assert widest(text) <= columns
    received, expected, caret = text.splitlines()[1:4]
    at = caret.index("^")
    assert received[at : at + 4] == "evil"
    assert expected[at : at + 4] == "good"
    assert f"ann< {line.replace('good', 'evil')}" in text  # what is there to be pasted is whole


def test_a_long_line_that_is_missing_is_cut_at_its_end() -> None:
    verdict, _ = reported(f"ann> say\nann< ok\nann< {'long ' * 200}end\n", {"say": "ok"})
    text = plain(report(verdict, 80))
    assert widest(text) <= 80
    assert "  expected  long long" in text


def test_of_a_hundred_clients_those_that_matter_are_shown() -> None:
    names = [f"client{n}" for n in range(100)]
    logins = "".join(f"{name}> hi\n{name}< ok\n" for name in names)
    says = "together:\n" + "".join(f"    {name}> hi\n" for name in names[:60])
    heard = "".join(f"{name}< {'no' if name == 'client57' else 'ok'}\n" for name in names[:60])
    verdict, _ = reported(logins + says + heard, {"hi": "ok"})
    text = plain(report(verdict, 80))
    assert widest(text) <= 80
    head = next(line for line in text.splitlines() if line.startswith("   line"))
    assert "client57" in head
    shown = len(head.split()) - 1
    assert shown >= 3
    assert f"{100 - shown} more clients not shown; none of them with anything unexpected" in text
    assert len(text.splitlines()) < 120


def test_many_failures_of_one_turn_are_counted() -> None:
    names = [f"c{n}" for n in range(30)]
    verdict, _ = reported(
        "together:\n" + "".join(f"    {name}> hi\n" for name in names) + "".join(f"{n}< no\n" for n in names),
        {"hi": "ok"},
    )
    text = plain(report(verdict, 80))
    assert text.count("  also line") == 8
    assert "  and 21 more" in text
    assert "of them with anything unexpected" in text
    assert "none of them" not in text


def test_hints_and_reasons_are_wrapped_below_themselves() -> None:
    line = [Span("  hint  "), Span("one two three four five six seven eight nine ten eleven twelve")]
    assert plain(wrapped(line, 30)).splitlines() == [
        "  hint  one two three four",
        "        five six seven eight",
        "        nine ten eleven twelve",
    ]
    assert plain(wrapped([Span("  label  "), Span("x" * 40)], 30)).splitlines() == [
        "  label  " + "x" * 21,
        "         " + "x" * 19,
    ]


if __name__ == "__main__":
    for golden in SCRIPTS:
        golden.with_suffix(".txt").write_text(golden_report(golden_verdict(golden)), encoding="utf-8")
