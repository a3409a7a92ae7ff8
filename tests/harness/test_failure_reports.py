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
from harness.language.columns import width
from harness.language.steps import Script
from harness.playing.verdict import FailureKind
from harness.repeat import Repetition
from harness.repeat import report as repeat_report
from harness.report.styled_text import Span, plain, wrapped
from harness.report.text import details, headline, report
from harness.targets.choice import TargetChoice
from harness.targets.named import named_by
from tests.harness.servers import puppet
from tests.harness.servers.talk import serve, serve_correctly

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
WITH_TARGETS = Path(__file__).parent / "golden_targets"
"""Scripts that name their server, which no server passes or which is not `talk`."""
AT_TALK = sorted(GOLDEN.glob("*.chat"))
SCRIPTS = AT_TALK + sorted(WITH_TARGETS.glob("*.chat"))
REPORTS = [path.with_suffix(".txt") for path in SCRIPTS]


# --- golden files -------------------------------------------------------------------------------------------


def golden_verdict(path: Path) -> Verdict:
    script = load(path)
    script = Script(script.header, script.body, path.name, script.source)
    named = named_by(script, TargetChoice())
    if named is None:
        return play(script, InProcess(serve))
    if named.server is not None:
        named = replace(named, server=re.sub("^python ", f"{sys.executable} ", named.server))
    return play(script, named.target())


def golden_report(verdict: Verdict) -> str:
    return _portable(plain(report(verdict)))


def _portable(text: str) -> str:
    """The report without what differs from play to play: durations, a number of ticks, the number of a token, where Python
    is, a traceback."""
    body, heading, output = text.partition("  server output\n")
    for varies, same in (
        (r"(measured  )[0-9.]+m?s, in real", r"\g<1>300ms, in real"),
        (r"TICK [0-9]+", "TICK N"),
        (r"\N{HORIZONTAL ELLIPSIS} [0-9]+ more", "\N{HORIZONTAL ELLIPSIS} N more"),
        (r"\b([fF])[0-9A-Fa-f]{6}[xX](?=[0-9])", r"\g<1>"),
        (re.escape(sys.executable), "python"),
    ):
        body = re.sub(varies, same, body)
    told = [line for line in output.splitlines() if re.match(r"  \| (\w+Error|fatal): ", line)]
    return body + heading + "".join(f"{line}\n" for line in told)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_report_is_the_golden_file_and_fits_narrow_terminals(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    verdict = golden_verdict(path)
    assert golden_report(verdict) == path.with_suffix(".txt").read_text(encoding="utf-8")
    for columns in (80, 60, 40):
        assert widest(plain(report(verdict, columns))) <= columns


@pytest.mark.parametrize("path", AT_TALK, ids=lambda path: path.stem)
def test_a_correct_server_passes_each_golden_script(path: Path) -> None:
    verdict = play(load(path), InProcess(serve_correctly))
    assert verdict.outcome is Outcome.PASSED, plain(report(verdict))


def test_every_kind_of_failure_has_a_golden_file() -> None:
    shown = "".join(path.read_text(encoding="utf-8").partition("\n")[0] + "\n" for path in REPORTS)
    of_the_server = {
        FailureKind.SERVER_DIED: "the server died",
        FailureKind.RAISED: "the server raised KeyError",
        FailureKind.NOT_RAISED: "the server did not raise KeyError",
    }
    missing = {
        kind
        for kind in FailureKind
        if not re.search(rf" {re.escape(of_the_server.get(kind, kind.value))}$", shown, re.MULTILINE)
    }
    # It is never the first: only a script that is played on after a failure has it.
    assert missing == {FailureKind.UNSENDABLE}


def test_a_line_that_cannot_be_sent_names_its_client_and_why() -> None:
    script = parse("ann> look\nann<~ door ${where}\nann>~ go ${where}\n")
    verdict = play(script, InProcess(serve), keep_going=True)
    told = verdict.failures[-1]
    assert (told.kind, headline(told)) == (FailureKind.UNSENDABLE, "ann could not send the line")
    assert plain(details(told, verdict)) == (
        "  reason    ${where} is not bound, because no line came that binds it\n"
    )


def test_every_golden_file_has_its_script() -> None:
    found = {*GOLDEN.glob("*.txt"), *WITH_TARGETS.glob("*.txt")} - {GOLDEN / "problems.txt"}
    assert found == set(REPORTS)


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


def test_only_the_lines_whose_order_clients_share_are_marked_when_they_disagree() -> None:
    free = "".join(f"    {one}< {line}\n" for one in ("ann", "bob") for line in "xy")
    expected = f"in any order:\n{free}in any order, the same for ann bob:\n    < 1\n    < 2\n"
    sent = "ann> ann: x | y | 1 | 2\nann> bob: y | x | 2 | 1\n"
    names = "ann> NAME ann\nbob> NAME bob\n"
    verdict = play(parse(names + sent + expected), InProcess(puppet.serve))
    text = plain(report(verdict, 80))
    assert "FAILED <script>:10   ann and bob did not receive the same order" in text
    assert re.findall(r"! < (.)", text) == ["2", "1"]


def test_a_line_with_another_value_is_not_mistaken_for_the_missing_one_arriving_late() -> None:
    script = "ann> one\nann<~ ticket ${t}\nann> two\nann<~ ticket ${t}\nann> three\nann<~ ticket ${_}\n"
    _, text = reported(script, {"one": "ticket a", "two": "ticket b", "three": "ticket c"})
    assert "${t} is `a` since line 2" in text
    assert "turn later" not in text


def test_the_expected_values_pass() -> None:
    verdict, text = reported(TWO_CLIENTS, {"look": "300 door=open 2f202a x", "put": "250 stored 2f202a"})
    assert verdict.outcome is Outcome.PASSED, text


# --- what beginners write -----------------------------------------------------------------------------------


def test_captures_in_a_literal_line_are_pointed_out() -> None:
    _, text = reported("ann> look\nann< door ${n:int}\n", {"look": "door 7"})
    assert "  hint  `ann<` expects this text as it stands; with captures it is `ann<~`\n" in text
    script = "ann> look\nann<~ door ${n:int}\nann> go ${n}\nann< gone\n"
    _, text = reported(script, {"look": "door 7", "go ${n}": "no"})
    assert "  hint  ann sent `${n}` as it stands; `ann>~` sends its value\n" in text
    _, text = reported(
        script.replace("${n}\nann< gone", "${m}\nann< gone"), {"look": "door 7", "go ${m}": "no"}
    )
    assert "as it stands" not in text


def test_a_line_that_says_nothing_is_not_silence() -> None:
    _, text = reported("ann> look\nann< door\nann< nothing\n", {"look": "door"})
    assert "  received  nothing\n  expected  < nothing " in text
    assert "  hint  this expects a line `nothing`; that nothing comes is `ann receives nothing`\n" in text


def test_lines_before_an_end_that_does_not_come_are_among_those_to_paste() -> None:
    names = "ann> NAME ann\nben> NAME ben\n"
    sent = "together:\n    ann> ann: one | two\n    ben> ben: hi\n"
    script = f"{names}{sent}ann receives any lines until OK\nben< ho\n"
    text = plain(report(play(parse(script), InProcess(puppet.serve))))
    pasted = text.partition("paste:\n")[2]
    assert pasted == "ann< one\nann< two\nben< hi\n"
    assert play(parse(names + sent + pasted), InProcess(puppet.serve)).passed
    came = script.replace("until OK", "until two")
    text = plain(report(play(parse(came), InProcess(puppet.serve))))
    assert text.partition("paste:\n")[2] == "ann receives any lines until two\nben< hi\n"


def test_a_line_that_the_next_turn_expects_is_not_the_missing_one_arriving_late() -> None:
    names = "ann> NAME ann\nben> NAME ben\n"
    script = f"{names}ann> nothing\nann< OK\nben> ben: OK\nben< OK\n"
    assert "turn later" not in plain(report(play(parse(script), InProcess(puppet.serve))))
    either = script.replace("ben< OK", "either:\n    ben< no\nor:\n    ben< OK")
    assert "turn later" not in plain(report(play(parse(either), InProcess(puppet.serve))))
    twice = script.replace("ben: OK", "ben: OK | OK")
    assert "arrived at ben a turn later" in plain(report(play(parse(twice), InProcess(puppet.serve))))


def test_a_greeting_is_called_one() -> None:
    _, text = reported("ann> hi\nann< there\n", {"hi": "welcome\nthere"})
    assert "  hint  it is the first that ann received: a greeting is expected like any other line" in text
    _, text = reported("ann> hi\nann< welcome\nann> ho\nann< x\n", {"hi": "welcome", "ho": "y\nx"})
    assert "a greeting" not in text


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


COLOURS = "\x1b[31mno\x1b[0m"


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    script = parse("fence: PING -> PONG\nwithin: 300ms\n\nann> HI\nann< 250 hi\n")
    coloured = ANSWERS_HI_ONLY.replace("500 what", COLOURS)
    text = plain(report(play(script, Command([sys.executable, "-S", "-c", coloured, "{port}"]))))
    assert "what it said last is `\\x1b[31mno\\x1b[0m`" in text
    assert "\x1b" not in text
    ends = f"import sys; sys.exit({COLOURS!r})"
    verdict = play(parse("ann> x\n"), Command([sys.executable, "-S", "-c", ends, "{port}"]))
    text = plain(report(verdict))
    assert verdict.outcome is Outcome.TARGET_ERROR
    assert "\N{REPLACEMENT CHARACTER}[31mno\N{REPLACEMENT CHARACTER}[0m\n" in text

    def serve(spec: object) -> StreamServer:
        def converse(sock: socket.socket, address: object) -> None:
            raise ValueError(COLOURS)

        return StreamServer(("127.0.0.1", 0), converse)

    text = plain(report(play(parse("ann connects\n"), InProcess(serve))))
    assert "ValueError: \N{REPLACEMENT CHARACTER}[31mno" in text
    assert "\x1b" not in text


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


@pytest.mark.parametrize("at", [0, 20, 39, 55, 59])
def test_a_line_of_wide_characters_is_cut_around_the_first_difference(at: int) -> None:
    line = "\N{HIRAGANA LETTER A}" * 60
    came = f"{line[:at]}\N{HIRAGANA LETTER I}{line[at + 1 :]}"
    verdict, _ = reported(f"ann> say\nann< {line}\n", {"say": came})
    text = plain(report(verdict, 80))
    assert widest(text) <= 80
    received, expected, caret = text.splitlines()[1:4]
    assert "^" in caret
    before = received.partition("\N{HIRAGANA LETTER I}")[0]
    assert width(before) == caret.index("^")
    assert expected[len(before)] == "\N{HIRAGANA LETTER A}"


@pytest.mark.parametrize("columns", [80, None])
def test_a_line_of_a_million_characters_is_no_long_report(columns: int | None) -> None:
    line = "x" * 1_000_000
    verdict, _ = reported(f"ann> say\nann< {line}y\n", {"say": f"{line}\N{COLLISION SYMBOL}"})
    text = plain(report(verdict, columns))
    assert len(text) < 50_000
    received, expected, caret = text.splitlines()[1:4]
    at = caret.index("^")
    assert received[at] == "\N{COLLISION SYMBOL}"
    assert expected[at] == "y"
    assert text.endswith("\n  to accept what was received, 1 line, use `harness update`\n")


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
    assert text.endswith("\n  to accept what was received, replace the lines of client57 by:\nclient57< ok\n")
    verdict, _ = reported(logins + says + heard.replace("57< no", "57< ok\nclient57< more"), {"hi": "ok"})
    assert plain(report(verdict, 80)).endswith("replace the lines of client57 by:\nclient57< ok\n")


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


def test_a_flood_is_shown_by_its_beginning_and_its_end() -> None:
    flood = {"say": "\n".join(f"x{n}" for n in range(300))}
    _, text = reported("ann> say\nann< x0\n", flood)
    assert "\N{HORIZONTAL ELLIPSIS} 288 more" in text
    assert "! < x8\n" in text
    assert "! < x9\n" not in text
    assert "! < x296\n" not in text
    assert text.count("! < x29") == 3
    assert text.endswith("\n  to accept what was received, 300 lines, use `harness update`\n")
    _, text = reported("ann> say\nann receives any lines until y\n", flood)
    assert "\N{HORIZONTAL ELLIPSIS} 290 more" in text
    assert text.count("< x29") == 2
    assert text.endswith(
        "\n  to accept what was received, 300 lines\n"
    )  # `update` refuses to replace this step


def test_an_error_of_a_script_or_a_target_fits_a_narrow_terminal() -> None:
    script = parse(f"ann> {'long ' * 30}end\nben< {'long ' * 30}end\n", "x.chat")
    text = plain(report(play(script, InProcess(serve)), 40))
    assert widest(text) <= 40
    assert "      2 | ben< long long long long long\N{HORIZONTAL ELLIPSIS}\n        | ^\n" in text
    text = plain(
        report(play(parse("ann> x\n", "x.chat"), Command(["/bin/false", "{port}", *"abcdefgh"])), 40)
    )
    assert widest(text) <= 40
    assert text.startswith("TARGET ERROR x.chat\n  /bin/false '{port}' a b")


@pytest.mark.parametrize("text", ["< hi\nann is disconnected", "< no"])
@pytest.mark.parametrize("head", [f"skip: {'because ' * 9}so", f"xfail: {'because ' * 9}so", "title: x"])
def test_a_report_of_any_outcome_fits_a_narrow_terminal(head: str, text: str) -> None:
    file = f"{'folder/' * 9}x.chat"
    script = parse(f"{head}\n\nann> hi\nann{text}\n", file)

    def serve(spec: object) -> StreamServer:
        return StreamServer(("127.0.0.1", 0), lambda sock, _: sock.sendall(b"hi\n"))

    verdict = play(script, InProcess(serve))
    assert widest(plain(report(verdict, 40))) <= 40
    repeated = Repetition(file)
    repeated.add(verdict)
    assert widest(plain(repeat_report(repeated, 40))) <= 40


def test_a_note_that_does_not_fit_beside_a_text_stands_below_it() -> None:
    line = [Span("  label   "), Span("twelve chars"), Span("      (its separate note)")]
    assert plain(wrapped(line, 40)).splitlines() == [
        "  label   twelve chars",
        "          (its separate note)",
    ]
    assert plain(wrapped(line, 50)).splitlines() == ["  label   twelve chars      (its separate note)"]


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
