"""A comparison plays one suite against several servers: its tags, its table and the ways of writing it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from harness import InProcess, ServerSpec, parse
from harness.cli import main
from harness.compare.compare import Cell, ComparedServer, Tags, compare, compared_servers, split_name
from harness.compare.report import Table, document, mark, markdown, text
from harness.interception.interceptor import Interceptor
from harness.language.loading import load
from harness.playing.pipeline import PlayOptions
from harness.playing.verdict import Outcome
from harness.report.styled_text import plain
from harness.targets.choice import TargetChoice, UsageError
from tests.harness.servers.talk import FAULTS

ROOT = Path(__file__).parents[2]


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


def test_the_text_has_the_table_and_every_first_difference(table: Table) -> None:
    shown = plain(text(table))
    lines = shown.splitlines()
    assert lines[0].split() == ["correct", "drops", "crlf", "broken"]
    assert lines[2].split() == ["msg.chat", "ok", "line", "9", "line", "4", "error"]
    assert "drops first differs at" in shown
    assert "msg.chat:9  bob did not receive what was expected  [first second]" in shown
    assert "no licence" in shown
    assert "correct first differs at" not in shown


def test_the_markdown_is_a_table_whatever_the_scripts_contain(table: Table) -> None:
    written = markdown(table)
    rows = [line for line in written.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}
    assert "| `msg.chat` others receive \\<it\\> | ok | **line 9** \\[first second\\] |" in written
    assert written.count("```text") == len(re.findall("^```$", written, re.M)) == 5


def test_the_page_is_self_contained(table: Table) -> None:
    page = document(table)
    assert not re.search(r"https?:|src=|<script|<link|@import|url\(", page)
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
    command = f"{sys.executable} -m tests.harness.servers.talk {{port}}"
    result = pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "-p", "harness.pytest_plugin",
        "--harness-compare", f"fine={command} none",
        "--harness-compare", f"windows={command} crlf",
        "--harness-compare-features", "fine=roster",
    )  # fmt: skip
    result.assert_outcomes(passed=2, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*servers compared*",
            "*fine*windows*",
            "login.chat*ok*line 6*",
            "who.chat*ok*-*",
            "passed*2 of 2*0 of 1*",
        ]
    )


def test_pytest_refuses_a_server_without_a_name(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nharness_files = *.chat\n")
    (pytester.path / "login.chat").write_text(SUITE["login"])
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--harness-compare", "./serve")
    assert "'./serve' does not name a server" in result.stdout.str() + result.stderr.str()
