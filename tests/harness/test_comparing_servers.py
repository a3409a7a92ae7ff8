"""A comparison plays one suite against several servers: its tags, its table and the ways of writing it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from harness import Command, InProcess, ScriptError, ServerSpec, Stage, parse, play
from harness.cli import main
from harness.compare.baseline import Known
from harness.compare.compare import (
    Cell,
    ComparedServer,
    Difference,
    Tags,
    cell_of,
    compare,
    compared_servers,
    split_name,
)
from harness.compare.report import Table, document, mark, markdown, text
from harness.interception.interceptor import Interceptor
from harness.language.adapter import parse_adapter
from harness.language.columns import width
from harness.language.loading import load
from harness.playing.pipeline import PlayOptions
from harness.playing.verdict import Outcome, Tolerated
from harness.report.lanes import WIDEST
from harness.report.styled_text import plain
from harness.report.text import report
from harness.stage.translation import Translation
from harness.targets.choice import TargetChoice, UsageError
from tests.harness.servers import puppet
from tests.harness.servers.talk import FAULTS
from tests.patience import HANG_S

ROOT = Path(__file__).parents[2]
THREADED = ROOT / "tests" / "conformance" / "servers" / "threaded.py"
PUPPET = Path(__file__).parent / "servers" / "puppet.py"


def drops(spec: ServerSpec) -> object:
    return FAULTS["drops"]()


def crlf(spec: ServerSpec) -> object:
    return FAULTS["crlf"]()


def correct(spec: ServerSpec) -> object:
    return FAULTS["none"]()


def broken(spec: ServerSpec) -> object:
    raise RuntimeError("no licence")


def server(name: str, *features: str) -> ComparedServer:
    return ComparedServer(name, TargetChoice(app=f"{__name__}:{name}", features=frozenset(features)))


SUITE = {
    "login": "title: a client logs in\n\n# [first] LOGIN is answered\nalice> LOGIN alice\nalice< OK\n",
    "msg": "title: others receive <it>\n\nalice> LOGIN alice\nalice< OK\nbob> LOGIN bob\nbob< OK\n"
    "# [first second] received\nalice> MSG `hi` | *you*\nbob< MSG alice `hi` | *you*\n",
    "who": "needs: roster\n\nalice> LOGIN alice\nalice< OK\n# [second]\nalice> WHO\nalice< USER alice\n",
}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = tmp_path / "suite"
    folder.mkdir()
    for name, source in SUITE.items():
        (folder / f"{name}.chat").write_text(source)
    return folder


@pytest.fixture
def table(suite: Path) -> Table:
    servers = [server("correct", "roster"), server("drops"), server("crlf"), server("broken")]
    return Table(tuple(compare(sorted(suite.iterdir()), servers, PlayOptions(), 1)))


# --- tags ---------------------------------------------------------------------------------------------------


def test_a_tag_holds_until_the_next_one() -> None:
    tags = Tags(
        parse("a> x\na< 1\n# [000 001] said\na> x\na< 2\n\n# an aside\na> x\na< 3\n# []\na> x\na< 4\n", "t")
    )
    assert tags.at("t", 2) == ()
    assert tags.at("t", 5) == tags.at("t", 9) == ("000", "001")
    assert tags.at("t", 12) == ()
    assert tags.all() == ("000", "001")


def test_a_comment_that_does_not_begin_with_tags_is_only_a_comment() -> None:
    tags = Tags(parse("# [ spaced ]\n# see [000]\n# [000]glued\na> x\na< 1\n", "t"))
    assert tags.at("t", 5) == ()


def test_a_tag_in_a_block_or_a_definition_holds_there(tmp_path: Path) -> None:
    (tmp_path / "inc.chat").write_text("define X comes:\n  X>~ LOGIN ${X}\n  # [inner]\n  X< OK\n")
    (tmp_path / "top.chat").write_text(
        "include inc.chat\n\nbob comes\n# [outer]\nrepeat 2:\n  # [round]\n  bob> x\n  bob< y\n"
    )
    tags = Tags(load(tmp_path / "top.chat"))
    assert tags.at(str(tmp_path / "inc.chat"), 4) == ("inner",)
    assert tags.at(str(tmp_path / "top.chat"), 8) == ("round",)
    assert tags.at(str(tmp_path / "top.chat"), 5) == ("outer",)


def test_the_tags_of_included_steps_are_not_tags_of_the_script(tmp_path: Path) -> None:
    (tmp_path / "inc.chat").write_text("define X comes:\n  X>~ LOGIN ${X}\n  # [inner]\n  X< OK\n")
    (tmp_path / "top.chat").write_text("include inc.chat\n\nbob comes\n# [outer]\nbob> x\nbob< y\n")
    assert Tags(load(tmp_path / "top.chat")).all() == ("outer",)


# --- the table ----------------------------------------------------------------------------------------------


def test_each_server_has_a_cell_for_each_script(table: Table) -> None:
    assert table.servers == ("correct", "drops", "crlf", "broken")
    assert {table.short_name(file): [mark(cell) for cell in table.row(file)] for file in table.files} == {
        "login.chat": ["ok", "ok", "line 5", "error"],
        "msg.chat": ["ok", "line 9", "line 4", "error"],
        "who.chat": ["ok", "-", "-", "-"],
    }


def test_the_totals_count_the_scripts_that_were_played_for_each_tag(table: Table) -> None:
    assert list(table.total_rows()) == [
        ("passed", ["3 of 3", "1 of 2", "0 of 2", "0 of 0"]),
        ("with [first]", ["2 of 2", "1 of 2", "0 of 2", "0 of 0"]),
        ("with [second]", ["2 of 2", "0 of 1", "0 of 1", "0 of 0"]),
    ]


def test_a_difference_has_the_tags_of_its_line(table: Table) -> None:
    assert [(cell.line, cell.message, cell.tags) for cell in table.differences("drops")] == [
        (9, "bob did not receive what was expected", ("first", "second"))
    ]


def test_the_text_has_the_table_and_the_causes_of_each_server(table: Table) -> None:
    shown = plain(text(table))
    lines = shown.splitlines()
    assert lines[0].split() == ["correct", "drops", "crlf", "broken"]
    assert lines[2].split() == ["msg.chat", "ok", "line", "9", "line", "4", "error"]
    assert (
        "drops differs in 1 of 2 scripts: 1 cause\n"
        "   1x  heard nothing instead of `< MSG CLIENT TEXT`  [first second]\n       msg.chat:9\n" in shown
    )
    assert (
        "crlf differs in 2 of 2 scripts: 2 causes\n   2x  heard `<< OK\\r\\n` instead of `< OK`  [first]\n"
        in shown
    )
    assert "       login.chat:5 msg.chat:4,6\n" in shown
    assert "broken differs in 2 of 2 scripts: 1 cause\n   2x  target error: " in shown
    assert "no licence" in shown
    assert "correct differs" not in shown


def test_the_markdown_is_a_table_whatever_the_scripts_contain(table: Table) -> None:
    written = markdown(table)
    rows = [line for line in written.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}
    assert "| `msg.chat` others receive \\<it\\> | ok | **line 9** \\[first second\\] |" in written
    assert written.count("```text") == len(re.findall("^```$", written, re.M)) == 5


def test_the_page_is_self_contained(table: Table) -> None:
    page = document(table)
    assert not re.search(r"https?:|src=|<script|<link|@import|url\(", page)
    assert (
        "<li>1x <strong>heard nothing instead of <code>&lt; MSG CLIENT TEXT</code></strong> msg.chat:9</li>"
        in page
    )
    assert "others receive &lt;it&gt;" in page
    assert "<it>" not in page
    anchors = re.findall(r'href="#([^"]+)"', page)
    assert sorted(anchors) == sorted(re.findall(r'<details id="([^"]+)"', page))
    assert len(anchors) == 5


def test_a_cell_can_be_sent_as_text(table: Table) -> None:
    for cell in table.cells:
        assert Cell.from_text(cell.as_text()) == cell


def test_files_are_named_without_the_folders_that_all_share() -> None:
    def table_of(*files: str) -> Table:
        return Table(tuple(Cell(file, "", "s", Outcome.PASSED) for file in files))

    assert table_of("a/b/x.chat", "a/b/y.chat").short_name("a/b/x.chat") == "x.chat"
    assert table_of("a/b/x.chat", "a/c/y.chat").short_name("a/c/y.chat") == "c/y.chat"
    assert table_of("x.chat", "a/y.chat").short_name("a/y.chat") == "a/y.chat"


# --- the width of a terminal --------------------------------------------------------------------------------

THIRTEEN = tuple(f"server-{number:02}" for number in range(1, 14))


def a_long_line(spec: ServerSpec) -> object:
    def converse(sock: Any, _address: object) -> None:
        for line in sock.makefile("rb"):
            start, end = (b"x" * 15_000, b"y" * 5_000) if line.startswith(b"LOGIN") else (b"", b"")
            sock.sendall(start + line.rstrip() + end + b"\n")

    return StreamServer(("127.0.0.1", 0), converse)


def wide_table(known: frozenset[Known] = frozenset()) -> Table:
    cells = [
        Cell(
            f"{name}.chat",
            "",
            server,
            Outcome.PASSED if server in THIRTEEN[1:12] else Outcome.FAILED,
            own_line=at,
            differences=() if server in THIRTEEN[1:12] else (Difference(at, ("heard `", "no " * 40, "`")),),
        )
        for at, name in enumerate(("login", "/".join(f"folder-{number}" for number in range(20))), 1)
        for server in (*THIRTEEN, "s" * 90)
    ]
    return Table(tuple(cells), known)


def test_a_table_of_many_servers_fits_the_width_in_several_parts() -> None:
    gone = frozenset({Known("server-02", "login.chat", "heard `" + "z" * 20_000 + "`")})
    lines = plain(text(wide_table(gone), 80)).splitlines()
    assert max(map(width, lines)) <= 80
    parts = [part.splitlines() for part in "\n".join(lines).split("\n\n")]
    tables = [part for part in parts if part[0].startswith(" " * 42)]
    assert [name for part in tables for name in part[0].split()][:-1] == list(THIRTEEN)
    assert all(len(part) == 4 and part[1].startswith("login.chat ") for part in tables)
    assert all(part[2].startswith("\N{HORIZONTAL ELLIPSIS}") for part in tables)
    assert all(part[2][:40].rstrip().endswith("/folder-19.chat") for part in tables)
    assert [mark for part in tables for mark in part[1].split()[1:]][:4] == ["line", "1", "ok", "ok"]
    assert any(line.startswith("  server-02  login.chat  heard `zz") for line in lines)
    # Without a width it is one table.
    assert [*THIRTEEN] == plain(text(wide_table())).splitlines()[0].split()[:-1]


def test_a_very_long_line_is_cut_in_the_cause_and_in_everything_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    script = tmp_path / "x.chat"
    script.write_text(f"a> LOGIN a\na< {'x' * 15_000} and no more\na> b\na< c\n")
    written = {name: tmp_path / name for name in ("junit", "html", "markdown", "write-baseline")}
    words = [word for name, path in written.items() for word in (f"--{name}", str(path))]
    assert main(["compare", str(script), *app("a_long_line"), *words]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(map(width, lines)) <= 80
    assert len(lines) < 30
    shown = "".join(line.strip() for line in lines)
    assert re.search(r"heard `…x{50,}LOGIN ay+…` ?instead of `…x{50,} and no more`", shown)
    assert "heard `< b` instead of `< c`" in shown
    causes = [line.split("\t")[2] for line in written["write-baseline"].read_text().splitlines()[1:]]
    assert [cause[:12] for cause in causes] == ["heard `< b` ", "heard `…xxxx"]
    assert len(causes[1]) < 2 * WIDEST + 100
    assert re.search("x{3000,}LOGIN a", causes[1])
    assert all(path.stat().st_size < 10 * WIDEST for path in written.values())
    assert all("x" * 3_000 in path.read_text() for path in written.values())
    # The baseline is of what is compared, so it fits.
    assert (
        main(["compare", str(script), *app("a_long_line"), "--baseline", str(written["write-baseline"])]) == 0
    )


def test_long_lines_of_a_cause_are_shown_around_the_place_where_they_begin_to_differ() -> None:
    def shown(*parts: str) -> str:
        cell = Cell("x.chat", "", "s", Outcome.FAILED, differences=(Difference(1, parts),))
        assert Cell.from_text(cell.as_text()) == cell
        return "".join(line.strip() for line in plain(text(Table((cell,)), 80)).split("\n"))

    long = "x" * 3_000
    # What the server wrote can look like a cause.
    for start in ("< ", "< ` instead of ` ", "< `, and nothing was expected "):
        heard, expected = f"{start}{long} one {long}", f"{start}{long} other {long}"
        found = shown("heard `", heard, "` instead of `", expected, "`")
        assert re.search(r"heard `…x{50,} one x{50,}…` ?instead of `…x{50,} other x{50,}…`", found)
        assert len(found) < 1_000
    assert len(shown("heard `", "` instead of `" * 2_000, "`")) < 1_200
    assert len(shown("target error: " + "why " * 2_000)) < 1_200
    assert "heard `< short`, and nothing was expected" in shown(
        "heard `", "< short", "`, and nothing was expected"
    )


def test_a_line_that_looks_like_a_cause_is_one_part_of_it() -> None:
    verdict = play(
        parse("a> hi\na< one\n", "x.chat"),
        saying(lambda sock, line: sock.sendall(b"` instead of `\n" if line else b"")),
    )
    (difference,) = cell_of("s", verdict).differences
    assert difference.parts == ("heard `", "< ` instead of `", "` instead of `", "< one", "`")
    assert difference.cause == "heard `< ` instead of `` instead of `< one`"


def test_markdown_and_html_show_the_lines_of_a_cause_as_they_are() -> None:
    def shown(heard: str, expected: str) -> tuple[str, str]:
        parts = "heard `", heard, "` instead of `", expected, "`"
        cell = Cell("x.chat", "a &amp; b", "s", Outcome.FAILED, differences=(Difference(1, parts),))
        return markdown(Table((cell,))), document(Table((cell,)))

    written, page = shown("< MSG &lt;b&gt; |", "< MSG <b> |")
    assert "\n- 1x heard `< MSG &lt;b&gt; |` instead of `< MSG <b> |`: x.chat:1\n" in written
    assert "<code>&lt; MSG &amp;lt;b&amp;gt; |</code> instead of <code>&lt; MSG &lt;b&gt; |</code>" in page
    assert "a \\&amp; b" in written
    written, page = shown("< a  `b`", "< a b")
    assert "heard `` < a  `b` `` instead of `< a b`" in written
    assert "<code>&lt; a  `b`</code>" in page
    assert "code { white-space: pre-wrap; }" in page


@pytest.mark.parametrize(("columns", "widest"), [(None, 120), ("60", 60)])
def test_a_table_in_a_file_is_as_wide_as_columns_says_or_120(
    tmp_path: Path, columns: str | None, widest: int
) -> None:
    (tmp_path / "x.chat").write_text(f"a> LOGIN a\na< {'word ' * 200}end\n")
    servers = [word for at in range(12) for word in ("--app", f"long-name-{at:02}={__name__}:a_long_line")]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment |= {"COLUMNS": columns} if columns else {}
    with (tmp_path / "out").open("w") as out:
        ran = subprocess.run(
            [sys.executable, "-m", "harness", "compare", str(tmp_path / "x.chat"), *servers],
            cwd=ROOT,
            env=environment,
            stdout=out,
        )
    assert ran.returncode == 1
    lines = (tmp_path / "out").read_text().splitlines()
    assert max(map(width, lines)) == widest
    heads = [line.split() for line in lines if line.startswith("      ") and "long-name-" in line]
    assert len(heads) > 1
    assert [name for head in heads for name in head] == [f"long-name-{at:02}" for at in range(12)]


# --- causes -------------------------------------------------------------------------------------------------


def saying(say: Callable[[Any, str], None]) -> InProcess:
    """A server that answers each line like this."""

    def converse(sock: Any, _address: object) -> None:
        say(sock, "")
        for line in sock.makefile("rb"):
            say(sock, line.decode().rstrip())

    return InProcess(lambda spec: StreamServer(("127.0.0.1", 0), converse))


def causes(script: str, say: Callable[[Any, str], None], **how: Any) -> list[str]:
    """The causes for which a server that answers each line like this differs from the script."""
    verdict = play(parse(script, "x.chat"), saying(say), PlayOptions(**how), keep_going=True)
    return [one.cause for one in cell_of("s", verdict).differences]


def greets(sock: Any, line: str) -> None:
    sock.sendall(f"{line.upper() or 'welcome'}\n".encode())


def test_a_line_before_what_is_expected_is_a_greeting() -> None:
    assert causes("a> hi\na< HI\nb connects\na> me\na< ME\n", greets) == [
        "a greeting: `< welcome`",
        "a greeting: `< welcome`",
    ]
    # In the place of what was expected it is only wrong.
    assert causes("a connects\na< hello\na> x\na< X\na> y\na< Z\n", greets) == [
        "heard `< welcome` instead of `< hello`",
        "heard `< Y` instead of `< Z`",
    ]


def test_a_line_in_the_place_of_an_answer_is_no_greeting_whatever_follows() -> None:
    def answers_in_other_words(sock: Any, line: str) -> None:
        if line:
            sock.sendall(b"hi\nbalance 100\nand more\n")

    assert causes("a> hello\na< HI\na< balance 100\n", answers_in_other_words) == [
        "heard `< hi` instead of `< HI`",
        "heard `< and more`, and nothing was expected",
    ]
    # A greeting and a wrong answer.
    assert causes("a> hi\na< hello\n", greets)[0] == "a greeting: `< welcome`"


def test_a_cause_is_the_same_whatever_clients_are_called_and_say() -> None:
    def echoes(sock: Any, line: str) -> None:
        if line:
            sock.sendall(f"a said {line.partition(' ')[2]}\n".encode())

    one = causes("a> MSG hello there\n", echoes)
    other = causes("a> MSG two\tspaces\n".replace("\t", "  "), echoes)
    assert one == other == ["heard `< CLIENT said TEXT`, and nothing was expected"]


def test_a_cause_is_the_same_at_any_time() -> None:
    def tells_the_time(sock: Any, line: str) -> None:
        if line:
            sock.sendall(f"{int(time.time()) - age} {time.time_ns() // 1_000_000} 5555555555\n".encode())

    age = 0
    now = causes("a> time\n", tells_the_time)
    age = 900
    assert (
        now
        == causes("a> time\n", tells_the_time)
        == ["heard `< TIME TIME 5555555555`, and nothing was expected"]
    )


def test_an_error_that_many_scripts_have_is_one_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.chat").write_text("server: json\n\na> x\n")
    assert main(["compare", str(tmp_path), "--server", f"s={sys.executable} {THREADED} {{port:line}}"]) == 2
    told = capsys.readouterr().out
    assert "s differs in 2 of 2 scripts: 1 cause\n" in told
    assert "2x  script error: no endpoint 'json'; known: line\n       one.chat:1 two.chat:1\n" in told


def test_the_end_of_a_connection_is_a_cause() -> None:
    def hangs_up(sock: Any, line: str) -> None:
        if line:
            sock.shutdown(2)

    assert causes("a> x\na is reset\n", hangs_up) == ["the connection is closed where it is reset"]
    assert causes("a> x\na< y\n", hangs_up)[-1] == "heard nothing instead of `< y`"


# --- adapters -----------------------------------------------------------------------------------------------

FOREIGN = """
greets: ${_}come
prompts: >\\x20
sends: SAY ${text} => speak ${text}
receives: SPEAK ${text} => you: ${text}
ignore: WEATHER ${_}
"""


def foreign(sock: Any, line: str) -> None:
    sock.sendall(b"> > WEATHER fine\n" if line else b"")
    greets(sock, line)


def test_an_adapter_translates_both_directions() -> None:
    script = "a> SAY hi there\na< you: HI THERE\na> other\na< OTHER\nb connects\nb receives nothing\n"
    adapted = parse_adapter(FOREIGN.replace("\\\\", "\\"))
    assert causes(script, foreign, adapter=adapted) == []
    assert causes(script, foreign) == [
        "a greeting: `< welcome`",
        "heard `< > > WEATHER fine`, and nothing was expected",
        "heard `< SAY HI THERE`, and nothing was expected",
        "heard `< > > WEATHER fine`, and nothing was expected",
        "a greeting: `< welcome`",
    ]


def test_a_connection_without_the_promised_greeting_differs() -> None:
    adapter = parse_adapter("greets: ${_}come\ngreets: again\n")
    assert causes("a> hi\na< HI\n", greets, adapter=adapter) == []
    adapter = parse_adapter("greets: hello\n")
    assert causes("a> hi\na< HI\n", greets, adapter=adapter) == ["a greeting: `< welcome`"]


def test_what_is_not_a_line_is_received_when_the_connection_ends() -> None:
    def unfinished(sock: Any, line: str) -> None:
        if line:
            sock.sendall(b"half")
            sock.shutdown(1)

    assert (
        causes("a>> x\\n\na<< half\na is closed\n", unfinished, adapter=parse_adapter("ignore: no\n")) == []
    )


def test_a_line_without_its_end_has_been_received_when_the_turn_is_over() -> None:
    def unfinished(sock: Any, line: str) -> None:
        if line:
            sock.sendall(line.replace("+", "\n").encode())

    adapter = parse_adapter("receives: half => whole\n")
    assert causes("a> half\n", unfinished, adapter=adapter) == ["heard `<< half`, and nothing was expected"]
    assert causes("a> half\na<< half\na> +\na<\n", unfinished, adapter=adapter) == []
    # Within a turn the rest can still come.
    assert causes("a>> ha\\n\na>> lf+\\n\na< whole\n", unfinished, adapter=adapter) == []
    with Stage(saying(unfinished), adapter=adapter) as stage:
        a = stage.client("a")
        a.send("half")
        for nothing_expected in (stage.settle, a.expect_nothing):
            with pytest.raises(
                AssertionError, match="a received `<< half`, which was not expected"
            ) as failed:
                nothing_expected()
            assert "\n   ! << half" in str(failed.value)
        a.expect_bytes(b"half")
        stage.settle()


def test_a_line_that_comes_in_pieces_keeps_a_server_from_being_quiet() -> None:
    puppet = Command([sys.executable, "-S", str(PUPPET), "{port}"])
    pieces = "a>> a! TI\\nLATER 100 a! CK\\nLATER 100 a: \\n\n"
    script = parse(f"settle: 150ms\n\na> NAME a\n{pieces}a receives nothing\n", "x.chat")
    verdict = play(script, puppet, PlayOptions(adapter=parse_adapter("ignore: TICK\n")))
    assert verdict.passed, plain(report(verdict))
    assert verdict.tolerated[Tolerated.IGNORED] == 1


def adapted(steps: str, adapter: str) -> str:
    """The report about these steps of a client of a puppet, which an adapter translates."""
    script = parse(f"a> NAME a\na receives nothing\n{steps}", "x.chat")
    return plain(
        report(play(script, InProcess(puppet.serve), PlayOptions(adapter=parse_adapter(adapter))))
    ).strip()


def test_what_has_no_line_end_came_when_its_bytes_came_whether_or_not_an_adapter_is_used() -> None:
    late = "a> LATER 1000 a! >\nwait 2s\nwithin 100ms:\n    a<< >\n"
    for adapter in ("", "sends: x => y\n"):
        shown = adapted(late, adapter)
        assert "a received it too late" in shown
        assert "measured  1s, in virtual time" in shown
    # Each expectation is about its own bytes, although both are held back together.
    pieces = "a>> a! login:\\nLATER 1000 a! >\\n\nwait 2s\nwithin 100ms:\n    a<< login:\na<< >\n"
    assert adapted(pieces, "sends: x => y\n").startswith("passed x.chat")


def test_bytes_that_a_script_sends_are_sent_unchanged() -> None:
    for sent in ("a>> ping\\n\n", "together:\n    a>> ping\\n\n"):
        steps = f"a> ping\na< PONG\n{sent}a receives nothing\n"
        assert adapted(steps, "sends: ping => PING\n") == "passed x.chat, 1 line respelled"
    # A pattern sends a line, whatever its captures have matched.
    odd = "a>> a: see \\x07\\n\na<~ see ${x}\na>~ tell ${x}\na<~ ${x}\n"
    assert adapted(odd, "sends: tell ${x} => a: ${x}\n") == "passed x.chat, 1 line respelled"


def test_the_rest_of_a_line_is_no_line_for_an_adapter() -> None:
    steps = "a>> a! foo \\n\na<< foo\\x20\na> a: > bar | bar\na< > bar\n"
    passed = "passed x.chat, 1 line ignored"
    assert adapted(steps, "ignore: bar\nprompts: >\\x20\n") == passed
    assert adapted(steps, "ignore: bar\nignore: > bar\n") == passed
    steps += "a< BAR\n"
    assert (
        adapted(steps, "receives: bar => BAR\nreceives: > bar => RAB\n") == "passed x.chat, 1 line respelled"
    )


def test_a_greeting_of_which_a_turn_has_taken_the_beginning_is_missing() -> None:
    translation = translated_by("greets: hello\n")
    assert translation.incoming(b"hel", 1.0) == b""
    assert translation.release() == [(b"hel", 1.0)]
    assert translation.incoming(b"lo\nhello\n", 2.0) == b"lo\nhello\n"


def test_what_is_held_back_is_released_in_the_pieces_in_which_it_came() -> None:
    translation = translated_by("prompts: >\nignore: x\n")
    pieces = [b">a", b"b\nx", b"\n>", b">c", b"de", b"f"]
    came = b"".join(translation.incoming(piece, float(at)) for at, piece in enumerate(pieces))
    assert came == b"ab\n"
    assert translation.unfinished == b"cdef"
    assert translation.release() == [(b"c", 3.0), (b"de", 4.0), (b"f", 5.0)]
    assert translation.release() == []
    assert (translation.incoming(b">g\n>h", 6.0), translation.release()) == (b">g\n", [(b"h", 6.0)])


def welcoming(spec: ServerSpec) -> object:
    def talk(sock: Any, _address: object) -> None:
        sock.sendall(b"welcome\n")
        for line in sock.makefile("rb"):
            sock.sendall(b"fine, " + line)

    return StreamServer(("127.0.0.1", 0), talk)


def test_the_table_says_what_the_scripts_that_passed_tolerated(tmp_path: Path) -> None:
    (tmp_path / "hi.chat").write_text("ignore bob: ${_}\n\nann> hi\nann< hi\nbob> x\n")
    adapter = parse_adapter("greets: welcome\nreceives: fine, ${text} => ${text}\n")
    choice = TargetChoice(app=f"{__name__}:welcoming")
    servers = [ComparedServer("plain", choice), ComparedServer("adapted", choice, adapter)]
    cells = list(compare([tmp_path / "hi.chat"], servers, PlayOptions(), 1))
    told = "adapted passed with 1 line ignored, 2 greetings removed, 2 lines respelled"
    for table in (
        Table(tuple(cells)),
        Table.of_texts([one.as_text() for one in cells], ["plain", "adapted"]),
    ):
        shown = plain(text(table)).splitlines()
        assert [line for line in shown if " passed with " in line] == [told]
        assert f"\n{told}\n" in markdown(table)
        assert f'<p class="warning">{told}</p>' in document(table)


def translated_by(adapter: str) -> Translation:
    return Translation(parse_adapter(adapter), b"\n", "a", lambda taken: None)


def test_lines_in_pieces_and_several_lines_at_once_are_translated_line_by_line() -> None:
    translation = translated_by("receives: a${x} => b${x}\nsends: b${x} => a${x}\n")
    assert [translation.incoming(piece, 0.0) for piece in (b"a", b"1\nc", b"\na2\na3\n")] == [
        b"",
        b"b1\n",
        b"c\nb2\nb3\n",
    ]
    assert translation.outgoing(b"b1\nc\n", False) == b"a1\nc\n"
    assert translation.outgoing(b"b1", False) == b"b1"
    assert translation.outgoing(b"b1\n", True) == b"b1\n"
    assert translation.incoming(b"\xff\n", 0.0) == b"\xff\n"


def test_a_greeting_that_comes_too_late_is_received() -> None:
    translation = translated_by("greets: hello\n")
    assert translation.incoming(b"other\nhello\n", 0.0) == b"other\nhello\n"
    assert translated_by("greets: hello\n").incoming(b"hello\nhello\n", 0.0) == b"hello\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("greets\n", "x:1:1: not a key and its value"),
        ("# fine\n\ngreet: x\n", "x:3:1: unknown key 'greet'"),
        ("eol: lf\neol: crlf\n", "x:2:1: eol is already set in line 1"),
        ("eol: cr\n", "x:1:6: 'cr' is not a line end"),
        ("sends: LOGIN ${name}\n", "x:1:8: only one spelling"),
        ("sends: LOGIN ${name} => NICK ${nick}\n", "x:1:25: ${nick} is not bound on the left"),
        ("receives: ${ => x\n", "x:1:13: expected a name here"),
        ("prompts: >\\q\n", "x:1:11: unknown escape"),
        (
            "ignore: ${_}\nfence: PING -> PONG\n",
            "x:2:1: the answer 'PONG' is also ignored",
        ),
        ("ignore: PONG\nfence: PING -> PONG\\n\n", r"x:2:1: the answer 'PONG\\n' is also ignored"),
        ("receives: OK ${_} => OK\nfence: NO -> OK ${_}\n", "x:2:1: the answer 'OK ${_}' is also spelled"),
        (
            "receives: OK ${_} => OK\nfence: NO -> OK ${token}\n",
            "x:2:1: the answer 'OK ${token}' is also spelled",
        ),
        ("title: x\n", "unknown key 'title'"),
        ("ignores: x\n", "expected: perhaps ignore"),
        ("ignore: NOTICE ${x}\n", "x:1:16: a line that is ignored binds nothing"),
        ("ignore 1a: x\n", "x:1:8: '1a' is not a name for a client"),
    ],
)
def test_a_mistake_in_an_adapter_is_reported_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ScriptError) as failed:
        parse_adapter(text, "x")
    assert message in str(failed.value)


def test_the_settings_of_an_adapter_replace_those_of_a_script(suite: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "crlf.adapter").write_text("eol: crlf\nfeatures: roster\n")
    adapter = str(tmp_path / "crlf.adapter")
    assert main(["compare", str(suite), *app("crlf"), "--adapter", f"crlf={adapter}"]) == 0
    assert "3 of 3" in capsys.readouterr().out
    assert main(["play", str(suite), "--app", f"{__name__}:crlf", "--adapter", adapter]) == 0
    assert main(["play", str(suite), "--app", f"{__name__}:crlf"]) == 1
    (tmp_path / "crlf.adapter").write_text("eol: cr\n")
    capsys.readouterr()
    assert main(["play", str(suite), "--app", f"{__name__}:crlf", "--adapter", adapter]) == 2
    assert "crlf.adapter:1:6: 'cr' is not a line end" in capsys.readouterr().err
    assert main(["compare", str(suite), *app("crlf"), "--adapter", f"crlf={tmp_path}/none"]) == 2
    assert "No such file" in capsys.readouterr().err
    assert main(["compare", str(suite), *app("crlf"), "--adapter", f"other={adapter}"]) == 2
    assert "an adapter for unknown server other; known: crlf" in capsys.readouterr().err
    twice = ["--adapter", f"crlf={tmp_path}/ok", "--adapter", f"crlf={tmp_path}/ok"]
    (tmp_path / "ok").write_text("eol: crlf\n")
    assert main(["compare", str(suite), *app("crlf"), *twice]) == 2
    assert "two adapters for server crlf" in capsys.readouterr().err


# --- what differs between runs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("you are 127.0.0.1:53412, on port 4000", "you are 127.0.0.1:PORT, on port PORT"),
        ("at ('10.1.2.3', 53412) and [::1]:80.", "at ('10.1.2.3', PORT) and [::1]:PORT."),
        ("227 passive (127,0,0,1,200,17)", "227 passive (127,0,0,1,PORT)"),
        ("2026-11-26T11:28:26.5Z up since 2026-11-25", "TIME up since TIME"),
        ("Thu, 26 Nov 2026 11:28:26 +0000 it is 11:28:26", "TIME it is TIME"),
        ("Thu Nov 26 11:28:26 2026 by 26-Nov-2026 11:28:26 GMT", "TIME by TIME"),
        ("<Chat at 0x7f4052ad6950> has pid 4711", "<Chat at ADDRESS> has PID"),
        ("id 3f9a6c1e-1111-2222-3333-444455556666 or 0123456789abcdef", "id UUID or HEX"),
        ("socket /tmp/x-17/chat.sock", "socket PATH"),
        ("v1.2.3:4 10:20:30:40 12345678901234567 5:30 in 1.2.3.4", None),
    ],
)
def test_a_cause_is_the_same_on_every_machine_and_day(said: str, cause: str | None) -> None:
    def tells(sock: Any, line: str) -> None:
        if line:
            sock.sendall(f"{said}\n".encode())

    assert causes("alice> look\n", tells) == [f"heard `< {cause or said}`, and nothing was expected"]


VARYING = """
import os, socketserver, sys, time, uuid
class Talk(socketserver.StreamRequestHandler):
    def handle(self):
        name, port = self.client_address
        for line in self.rfile:
            if line == b"who am i\\n":
                self.wfile.write(f"{name}:{port} at {time.ctime()}, pid {os.getpid()}, {uuid.uuid4()}\\n".encode())
            elif line == b"die\\n":
                print(f"{os.getpid()} dies", flush=True)
                os._exit(3)
            elif line != b"PING\\n" or port in silent:
                silent.add(port)
            else:
                self.wfile.write(b"PONG\\n")
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True
silent = set()
Server(("127.0.0.1", int(sys.argv[1])), Talk).serve_forever()
"""
RUNS = {
    "who": "fence: PING -> PONG\n\na> who am i\na< somebody\n",
    "deaf": "# moves the line of the fence\nfence: PING -> PONG\n\na> be silent\n",
    "port": "a> who am i\na<~ 127.0.0.1:${port:int} at ${_}\nb connects to port 99999*${port}\n",
    "dies": "a> die\n",
    "slow": "a> x\nwithin 1us:\n    a< y\n",
}


def test_a_baseline_that_was_made_elsewhere_and_with_other_times_fits(tmp_path: Path, capsys) -> None:
    known = tmp_path / "known.txt"
    for folder, within in (("one", "300ms"), ("another", "500ms")):
        (tmp_path / folder / "suite").mkdir(parents=True)
        (tmp_path / folder / "server.py").write_text(VARYING)
        for name, script in RUNS.items():
            (tmp_path / folder / "suite" / f"{name}.chat").write_text(
                script if folder == "one" else script.replace("# moves the line of the fence\n", "")
            )
        command = ["compare", str(tmp_path / folder / "suite"), "--within", within, "--server"]
        command.append(f"s={sys.executable} -S {tmp_path}/{folder}/server.py {{port}}")
        if not known.exists():
            assert main([*command, "--write-baseline", str(known)]) == 1
        else:
            capsys.readouterr()
            assert main([*command, "--baseline", str(known)]) == 0, capsys.readouterr().out
            assert "no longer found" not in capsys.readouterr().out
    text = known.read_text()
    assert str(tmp_path) not in text
    assert [line.split("\t")[1:] for line in text.splitlines()[1:]] == [
        [
            "deaf.chat",
            "the server did not answer the fence line `PING` with `PONG`; it said nothing more",
        ],
        ["dies.chat", "the server died: exited with status 3"],
        [
            "port.chat",
            "the client cannot connect to what the server named: a number that is not from 1 to 65535",
        ],
        ["slow.chat", "heard nothing instead of `< y`"],
        ["who.chat", "heard `< 127.0.0.1:PORT at TIME, PID, UUID` instead of `< somebody`"],
    ]


def test_each_kind_of_failure_has_its_words() -> None:
    def late(sock: Any, line: str) -> None:
        if line == "crash":
            raise KeyError("no 0x7f4052ad6950")
        if line:
            gevent.sleep(0.5)
            sock.sendall(f"{line}\n".encode())

    slow = "a> x\nwait 1s\nwithin 100ms:\n    a< x\n"
    assert causes(slow, late) == ["heard `< x` too late"]
    raised = causes("a> crash\n", late)
    assert raised[0] == "the server raised KeyError: 'no ADDRESS'"
    assert causes("a> x\nwait 1s\na< x\nthe server raises KeyError\n", late) == [
        "the server did not raise KeyError"
    ]


# --- the baseline -------------------------------------------------------------------------------------------


def test_known_differences_do_not_count_and_new_ones_do(suite: Path, tmp_path: Path, capsys) -> None:
    known = tmp_path / "known.txt"
    both = [*app("drops"), *app("crlf")]
    assert main(["compare", str(suite), *both, "--write-baseline", str(known)]) == 1
    assert "drops\tmsg.chat\theard nothing instead of `< MSG CLIENT TEXT`\n" in known.read_text()
    capsys.readouterr()
    junit = tmp_path / "j.xml"
    assert main(["compare", str(suite), *both, "--baseline", str(known), "--junit", str(junit)]) == 0
    shown = capsys.readouterr().out
    assert "login.chat     ok        known" in shown
    assert "(known)" in shown
    assert 'tests="6" failures="0" errors="0" skipped="5"' in junit.read_text()
    # A line above moves nothing, and a new difference counts.
    script = suite / "msg.chat"
    script.write_text(script.read_text().replace("alice> LOGIN", "# above\n\nalice> LOGIN"))
    assert main(["compare", str(suite), *both, "--baseline", str(known)]) == 0
    script.write_text(script.read_text() + "alice> WHO\nalice< NOBODY\n")
    assert main(["compare", str(suite), *both, "--baseline", str(known), "--junit", str(junit)]) == 1
    assert '<failure message="' in junit.read_text()


ANSWER = [b""]


def answers(spec: ServerSpec) -> object:
    def converse(sock: Any, _address: object) -> None:
        for line in sock.makefile("rb"):
            sock.sendall(b"ok\n" if line == b"start\n" else ANSWER[0])

    return StreamServer(("127.0.0.1", 0), converse)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"hi\nbalance 100\nsecret of bob\n", "heard `< secret of bob`, and nothing was expected"),
        (b"hi\nbalance 0\n", "heard `< balance 0` instead of `< balance 100`"),
        (b"hi\n", "heard nothing instead of `< balance 100`"),
    ],
)
def test_a_new_difference_counts_after_a_known_one_of_the_same_turn(
    tmp_path: Path, capsys, answer: bytes, cause: str
) -> None:
    (tmp_path / "x.chat").write_text("a> start\na< ok\na> hello\na< HI\na< balance 100\n")
    known = tmp_path / "known.txt"
    command = ["compare", str(tmp_path), *app("answers")]
    ANSWER[0] = b"hi\nbalance 100\n"
    assert main([*command, "--write-baseline", str(known)]) == 1
    assert main([*command, "--baseline", str(known)]) == 0
    capsys.readouterr()
    ANSWER[0] = answer
    assert main([*command, "--baseline", str(known)]) == 1
    assert cause in capsys.readouterr().out


def test_every_late_line_is_a_difference() -> None:
    def late(sock: Any, line: str) -> None:
        if line:
            gevent.sleep(0.5)
            sock.sendall(b"one\ntwo\n")

    script = "a> x\nwait 1s\nwithin 100ms:\n    a< one\nwithin 100ms:\n    a< two\n"
    assert causes(script, late) == ["heard `< one` too late", "heard `< two` too late"]


def test_an_unexpected_pass_can_be_known(tmp_path: Path, capsys) -> None:
    script = tmp_path / "x.chat"
    script.write_text("xfail: later\n\nalice> LOGIN alice\nalice< OK\n")
    known = tmp_path / "known.txt"
    command = ["compare", str(tmp_path), *app("correct")]
    assert main([*command, "--write-baseline", str(known)]) == 1
    assert known.read_text().endswith("\ncorrect\tx.chat\tpassed unexpectedly: later\n")
    capsys.readouterr()
    assert main([*command, "--baseline", str(known)]) == 0
    assert "x.chat  known" in capsys.readouterr().out
    script.write_text(script.read_text().replace("OK", "NO"))
    assert main([*command, "--baseline", str(known)]) == 0
    assert "no longer found" in capsys.readouterr().out


def test_a_file_can_have_any_name(tmp_path: Path, capsys) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "a|b`c.chat").write_text("alice> LOGIN alice\nalice< NO\n")
    (suite / "two\nlines\tand tabs.chat").write_text("alice> LOGIN alice\nalice< NO\n")
    known, page = tmp_path / "known.txt", tmp_path / "table.md"
    command = ["compare", str(suite), *app("correct")]
    assert main([*command, "--write-baseline", str(known), "--markdown", str(page)]) == 1
    assert main([*command, "--baseline", str(known)]) == 0
    assert "\ncorrect\ttwo\\nlines\\tand tabs.chat\theard" in known.read_text()
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    assert rows == [
        r"| `` a\|b`c.chat `` | **line 2** |",
        "| `two lines\tand tabs.chat` | **line 2** |",
    ]


def test_a_known_difference_that_is_gone_is_reported(suite: Path, tmp_path: Path, capsys) -> None:
    known = tmp_path / "known.txt"
    known.write_text("# mine\ncorrect\tlogin.chat\theard `< x`\nother\tlogin.chat\theard `< x`\n")
    assert main(["compare", str(suite), *app("correct"), "--baseline", str(known)]) == 0
    shown = capsys.readouterr().out
    assert (
        "known, and no longer found: remove these from the baseline\n  correct  login.chat  heard `< x`\n"
        in shown
    )
    assert "other" not in shown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--write-baseline writes one"),
        ("drops\tmsg.chat\n", "known.txt:1: expected a server, a script and a cause, separated by tabs"),
    ],
)
def test_a_baseline_that_cannot_be_read_is_an_error(
    suite: Path, tmp_path: Path, capsys, content, message
) -> None:
    known = tmp_path / "known.txt"
    if content is not None:
        known.write_text(content)
    assert main(["compare", str(suite), *app("correct"), "--baseline", str(known)]) == 2
    assert message in capsys.readouterr().err


# --- servers ------------------------------------------------------------------------------------------------


def test_a_server_has_a_name_and_whatever_follows_the_equals_sign() -> None:
    assert split_name("mine=./serve --port={port}") == ("mine", "./serve --port={port}")
    for wrong in ("./serve", "=./serve", "mine=", "a b=./serve"):
        with pytest.raises(UsageError, match="does not name a server"):
            split_name(wrong)


def test_features_belong_to_one_server() -> None:
    one, other = compared_servers(
        [("server", "one=x {port}"), ("server", "other=y {port}")], ["one=quit idle", "one=dm"]
    )
    assert one.choice.target().features > {"quit", "idle", "dm", "stderr"}
    assert "quit" not in other.choice.target().features


@pytest.mark.parametrize("kind", [{"server": "x {port}"}, {"connect": "h:1"}, {"app": "tests.app:serve"}])
def test_every_kind_of_target_has_the_features_it_is_given(kind: dict[str, str]) -> None:
    assert "magic" in TargetChoice(**kind, features=frozenset({"magic"})).target().features
    assert "magic" not in TargetChoice(**kind).target().features


def test_an_intercepted_target_keeps_its_features() -> None:
    assert "magic" in InProcess(correct, features=["magic"]).intercepted_by(Interceptor()).features


def test_a_skipped_script_names_the_server_that_lacks_the_feature(table: Table) -> None:
    skipped = [cell.message for cell in table.cells if cell.outcome is Outcome.SKIPPED]
    assert skipped == [f"needs roster, which {name} lacks" for name in ("drops", "crlf", "broken")]


def test_duplicate_names_and_features_of_unknown_servers_are_refused() -> None:
    one = ("server", "one=x {port}")
    with pytest.raises(UsageError, match="duplicate server name one"):
        compared_servers([one, one], [])
    with pytest.raises(UsageError, match="features for unknown server two; known: one"):
        compared_servers([one], ["two=quit"])


# --- the command --------------------------------------------------------------------------------------------


def app(name: str) -> tuple[str, str]:
    return "--app", f"{name}={__name__}:{name}"


def test_the_exit_code_is_that_of_the_worst_cell(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(suite), *app("correct")]) == 0
    assert main(["compare", str(suite), *app("correct"), *app("drops")]) == 1
    assert main(["compare", str(suite), *app("drops"), *app("broken")]) == 2
    assert main(["compare", str(suite)]) == 2
    assert "harness: name the servers to compare" in capsys.readouterr().err


def test_two_processes_find_the_same(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", str(suite), *app("correct"), *app("drops"), "--features", "correct=roster"])
    alone = capsys.readouterr().out
    main(["compare", str(suite), *app("correct"), *app("drops"), "--features", "correct=roster", "-j", "2"])
    assert capsys.readouterr().out == alone
    assert "3 of 3" in alone


def test_the_table_is_written_as_markdown_and_html(suite: Path, tmp_path: Path) -> None:
    paths = tmp_path / "table.md", tmp_path / "table.html"
    main(["compare", str(suite), *app("drops"), "--markdown", str(paths[0]), "--html", str(paths[1])])
    assert paths[0].read_text().startswith("# Servers compared")
    assert paths[1].read_text().startswith("<!doctype html>")


# --- pytest -------------------------------------------------------------------------------------------------


def test_pytest_plays_each_transcript_at_each_server_and_ends_with_the_table(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nharness_files = *.chat\nfilterwarnings = error\n")
    (pytester.path / "login.chat").write_text(SUITE["login"].replace("\n\n", "\nwithin: 1s\n\n", 1))
    (pytester.path / "who.chat").write_text(SUITE["who"])
    adapter = pytester.path / "crlf.adapter"
    adapter.write_text("sends: LOGIN ${name} => WHO\neol: crlf\n")
    (pytester.path / "wrong.chat").write_text("xfail: known\n\na> x\na< y\n")
    command = f"{sys.executable} -m tests.harness.servers.talk {{port}}"
    words = (
        "-p", "no:cacheprovider", "-p", "harness.pytest_plugin",
        "--harness-compare", f"fine={command} none",
        "--harness-compare", f"windows={command} crlf",
        "--harness-compare-features", "fine=roster",
        "--harness-compare-adapter", f"windows={adapter}",
    )  # fmt: skip
    result = pytester.runpytest_inprocess(*words, "--harness-compare-write-baseline", "known.txt")
    result.assert_outcomes(passed=2, failed=1, skipped=1, xfailed=2)
    result.stdout.fnmatch_lines(
        [
            "*servers compared*",
            "*fine*windows*",
            "login.chat*ok*line 6*",
            "who.chat*ok*-*",
            "wrong.chat*(4)*(4)*",
            "passed*2 of 2*0 of 1*",
        ]
    )
    result = pytester.runpytest_inprocess(*words, "-k", "login", "--harness-compare-baseline", "known.txt")
    result.assert_outcomes(passed=1, xfailed=1, deselected=4)
    result.stdout.fnmatch_lines(["login.chat*ok*known*", "windows differs*", "*(known)*"])


def test_pytest_compares_servers_of_every_kind_in_the_order_in_which_they_are_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nharness_files = *.chat\nfilterwarnings = error\n")
    (pytester.path / "login.chat").write_text(SUITE["login"])
    talk = "tests.harness.servers.talk"
    with Command([sys.executable, "-m", talk, "{port}", "none"]).start(ServerSpec(), HANG_S) as running:
        ((_, port),) = running.addresses.values()
        words = (
            "--harness-compare-app", f"here={__name__}:crlf",
            "--harness-compare", f"started={sys.executable} -m {talk} {{port}} none",
            "--harness-compare-connect", f"running=127.0.0.1:{port}",
        )  # fmt: skip
        result = pytester.runpytest_inprocess(
            "-p",
            "no:cacheprovider",
            "-p",
            "harness.pytest_plugin",
            *words,
            "--harness-compare-features",
            "here=x",
        )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.re_match_lines([r" +here +started +running$", r"login\.chat +line 5 +ok +ok$"])


def test_a_baseline_fits_a_run_of_other_folders(suite: Path, tmp_path: Path) -> None:
    known = str(tmp_path / "known.txt")
    assert main(["compare", str(suite), *app("drops"), "--write-baseline", known]) == 1
    (tmp_path / "more" / "deep").mkdir(parents=True)
    (tmp_path / "more" / "also.chat").write_text(SUITE["login"])
    suite.rename(tmp_path / "more" / "deep" / "suite")
    files = [str(tmp_path / "more"), *app("drops")]
    assert main(["compare", *files, "--baseline", known]) == 0


def test_a_name_in_a_baseline_that_can_be_two_scripts_is_an_error(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(suite, "other")
    write, use = ["--write-baseline", "known.txt"], ["--baseline", "known.txt"]
    assert main(["compare", "suite", *app("crlf"), *write]) == 1
    capsys.readouterr()
    assert main(["compare", "suite", "other", *app("crlf"), *use]) == 2
    shown = capsys.readouterr()
    assert "login.chat in the baseline can be suite/login.chat or other/login.chat" in shown.out + shown.err
    assert main(["compare", "suite", *app("crlf"), *use]) == 0
    # Of both, it tells them apart.
    assert main(["compare", "suite", "other", *app("crlf"), *write]) == 1
    assert main(["compare", "suite", "other", *app("crlf"), *use]) == 0
    assert main(["compare", "other", *app("crlf"), *use]) == 0


def test_a_script_that_has_the_name_of_one_in_a_folder_below_it_is_named_with_its_own_folder(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(suite)
    Path("below").mkdir()
    Path("below/login.chat").write_text("a> LOGIN a\na< NO\n")
    servers = app("crlf")
    assert main(["compare", ".", "--baseline", "known.txt", *servers]) == 2
    assert main(["compare", ".", "--write-baseline", "known.txt", *servers]) == 1
    names = {line.split("\t")[1] for line in Path("known.txt").read_text().splitlines()[1:]}
    assert names == {"suite/login.chat", "below/login.chat", "msg.chat"}
    assert main(["compare", ".", "--baseline", "known.txt", *servers]) == 0
    # What is known of one is not known of the other, and what is gone is named as in the table.
    Path("login.chat").write_text("a> LOGIN a\na< NO\n")
    Path("below/login.chat").write_text(SUITE["login"])
    capsys.readouterr()
    assert main(["compare", ".", "--baseline", "known.txt", *servers]) == 1
    shown = capsys.readouterr().out
    assert "\n  crlf  login.chat  heard `<< OK\\r\\n` instead of `< OK`\n" in shown
    assert "\n  crlf  below/login.chat  heard" in shown


def test_pytest_refuses_a_baseline_with_a_name_that_can_be_two_transcripts(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nharness_files = *.chat\n")
    for folder in ("one", "two"):
        pytester.mkdir(folder)
        (pytester.path / folder / "login.chat").write_text(SUITE["login"])
    (pytester.path / "known.txt").write_text("a\tlogin.chat\theard nothing\n")
    words = ["--harness-compare", "a=./serve {port}", "--harness-compare-baseline", "known.txt"]
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *words)
    message = "harness: login.chat in the baseline can be one/login.chat or two/login.chat"
    assert (result.stdout.str() + result.stderr.str()).count(message) == 1
    result.assert_outcomes()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--harness-compare", "./serve"], "harness: './serve' does not name a server"),
        (
            ["--harness-compare", "a=./serve {port}", "--harness-compare-baseline", "none"],
            "harness: cannot read the baseline none",
        ),
        (["--harness-compare-app", "./serve"], "harness: './serve' does not name a server"),
        (
            ["--harness-compare-app", "a=nowhere:serve"],
            "harness: nowhere:serve: No module named 'nowhere'",
        ),
        (
            ["--harness-compare-connect", "a=x"],
            "harness: 'x' is not an address; expected HOST:PORT",
        ),
        (
            ["--harness-compare", "a=./serve {port}", "--harness-compare-connect", "a=x:1"],
            "harness: duplicate server name a",
        ),
        (
            ["--harness-compare-app", "a=x:y", "--harness-audit"],
            "use only one of --harness-audit and --harness-compare",
        ),
    ],
)
def test_pytest_refuses_a_comparison_that_cannot_be_made_once(
    pytester: pytest.Pytester, words: list[str], problem: str
) -> None:
    pytester.makeini("[pytest]\nharness_files = *.chat\n")
    for name in ("login", "who"):
        (pytester.path / f"{name}.chat").write_text(SUITE[name])
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *words)
    assert (result.stdout.str() + result.stderr.str()).count(problem) == 1
