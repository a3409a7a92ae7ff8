"""The comparison: tags, tables and the three ways of writing them, and the command."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from harness import InProcess, ServerSpec, parse
from harness.cli import main
from harness.compare.comparing import Cell, compare
from harness.compare.markdown import markdown
from harness.compare.page import document
from harness.compare.serialization import deserialized, serialized
from harness.compare.servers import ComparedServer, compared_servers, named
from harness.compare.table import Table, mark
from harness.compare.tags import Tags
from harness.compare.text import text
from harness.interception.interceptor import Interceptor
from harness.language.script import load
from harness.playing.pipeline import PlayOptions
from harness.playing.verdict import Outcome
from harness.reporting.styled_text import plain
from harness.targets.choice import TargetChoice, UsageError
from tests.harness.servers.talk import FAULTS, Message

ROOT = Path(__file__).parents[2]


def drops(ask: ServerSpec) -> Message:
    return FAULTS["drops"]()


def crlf(ask: ServerSpec) -> Message:
    return FAULTS["crlf"]()


def right(ask: ServerSpec) -> Message:
    return FAULTS["none"]()


def broken(ask: ServerSpec) -> Message:
    raise RuntimeError("no licence")


def here(name: str, factory: str | None = None, *features: str) -> ComparedServer:
    app = f"tests.harness.test_compare:{factory or name}"
    return ComparedServer(name, TargetChoice(app=app, features=frozenset(features)))


SUITE = {
    "login": "title: one may come in\n\n# [first] LOGIN is answered\nalice> LOGIN alice\nalice< OK\n",
    "msg": "title: others hear <it>\n\nalice> LOGIN alice\nalice< OK\nbob> LOGIN bob\nbob< OK\n"
    "# [first second] heard\nalice> MSG `hi` | *you*\nbob< MSG alice `hi` | *you*\n",
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
    who = [here("right", None, "roster"), here("drops"), here("crlf"), here("broken")]
    return Table(tuple(compare(sorted(suite.iterdir()), who, PlayOptions(), 1)))


# --- tags ---------------------------------------------------------------------------------------------------


def test_a_tag_holds_until_the_next_one() -> None:
    tags = Tags(
        parse("a> x\na< 1\n# [000 001] said\na> x\na< 2\n\n# an aside\na> x\na< 3\n# []\na> x\na< 4\n", "t")
    )
    assert tags.at("t", 2) == ()
    assert tags.at("t", 5) == tags.at("t", 9) == ("000", "001")
    assert tags.at("t", 12) == ()
    assert tags.all() == ("000", "001")


def test_what_is_no_tag_is_a_comment() -> None:
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
    # What an included step expects on the way does not make a script one about that.
    assert tags.all() == ("round",)


# --- the table ----------------------------------------------------------------------------------------------


def test_each_server_has_a_cell_for_each_script(table: Table) -> None:
    marks = {
        name: [mark(cell) for cell in table.row(file)] for file in table.files for name in [table.short(file)]
    }
    assert table.servers == ("right", "drops", "crlf", "broken")
    assert marks == {
        "login.chat": ["kept", "kept", "line 5", "broken"],
        "msg.chat": ["kept", "line 9", "line 4", "broken"],
        "who.chat": ["kept", "-", "-", "-"],
    }


def test_the_sums_count_what_was_played_and_what_each_source_says(table: Table) -> None:
    assert [str(table.sum(name)) for name in table.servers] == ["3 of 3", "1 of 2", "0 of 2", "0 of 0"]
    assert [str(table.sum(name, "first")) for name in table.servers] == [
        "2 of 2",
        "1 of 2",
        "0 of 2",
        "0 of 0",
    ]
    assert [str(table.sum(name, "second")) for name in table.servers] == [
        "2 of 2",
        "0 of 1",
        "0 of 1",
        "0 of 0",
    ]


def test_a_divergence_knows_where_its_expectation_comes_from(table: Table) -> None:
    only = table.divergences("drops")
    assert [(cell.line, cell.message, cell.tags) for cell in only] == [
        (9, "bob did not receive what was expected", ("first", "second"))
    ]


def test_the_text_has_the_table_and_every_first_divergence(table: Table) -> None:
    told = plain(text(table))
    lines = told.splitlines()
    assert lines[0].split() == ["right", "drops", "crlf", "broken"]
    assert lines[2].split() == ["msg.chat", "kept", "line", "9", "line", "4", "broken"]
    assert "msg.chat:9  bob did not receive what was expected  [first second]" in told
    assert "no licence" in told
    assert "right first diverges" not in told


def test_the_markdown_is_a_table_whatever_stands_in_the_scripts(table: Table) -> None:
    written = markdown(table)
    rows = [line for line in written.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}
    assert "| `msg.chat` others hear \\<it\\> | kept | **line 9** \\[first second\\] |" in written
    assert written.count("```text") == len(re.findall("^```$", written, re.M)) == 5


def test_the_page_holds_everything_and_loads_nothing(table: Table) -> None:
    page = document(table)
    assert not re.search(r"https?:|src=|<script|<link|@import|url\(", page)
    assert "others hear &lt;it&gt;" in page
    assert "<it>" not in page
    anchors = re.findall(r'href="#([^"]+)"', page)
    assert sorted(anchors) == sorted(re.findall(r'<details id="([^"]+)"', page))
    assert len(anchors) == 5


def test_a_cell_can_be_carried_as_text(table: Table) -> None:
    for cell in table.cells:
        assert deserialized(serialized(cell)) == cell


def test_names_are_shown_without_what_all_share() -> None:
    def cells(*files: str) -> Table:
        return Table(tuple(Cell(file, "", "s", Outcome.PASSED) for file in files))

    assert [cells("a/b/x.chat", "a/b/y.chat").short("a/b/x.chat")] == ["x.chat"]
    assert cells("a/b/x.chat", "a/c/y.chat").short("a/c/y.chat") == "c/y.chat"
    assert cells("x.chat", "a/y.chat").short("a/y.chat") == "a/y.chat"


# --- who takes part -----------------------------------------------------------------------------------------


def test_a_server_is_named_and_what_follows_is_its_own() -> None:
    assert named("mine=./serve --port={port}") == ("mine", "./serve --port={port}")
    for wrong in ("./serve", "=./serve", "mine=", "a b=./serve"):
        with pytest.raises(UsageError, match="names nothing"):
            named(wrong)


def test_features_are_those_of_one_server() -> None:
    one, other = compared_servers(
        [("one", TargetChoice(server="x {port}")), ("other", TargetChoice(server="y {port}"))],
        ["one=quit idle", "one=dm"],
    )
    assert one.choice.target().features > {"quit", "idle", "dm", "stderr"}
    assert "quit" not in other.choice.target().features


@pytest.mark.parametrize("kind", [{"server": "x {port}"}, {"connect": "h:1"}, {"app": "tests.app:serve"}])
def test_every_kind_of_target_has_the_features_it_is_given(kind: dict[str, str]) -> None:
    assert "magic" in TargetChoice(**kind, features=frozenset({"magic"})).target().features
    assert "magic" not in TargetChoice(**kind).target().features


def test_a_swayed_target_keeps_its_features() -> None:
    assert "magic" in InProcess(right, features=["magic"]).intercepted_by(Interceptor()).features


def test_what_is_skipped_says_whose_lack_it_is(table: Table) -> None:
    assert [cell.message for cell in table.cells if cell.outcome is Outcome.SKIPPED] == [
        f"needs roster, which {name} lacks" for name in ("drops", "crlf", "broken")
    ]


def test_two_of_one_name_and_features_of_nobody_are_refused() -> None:
    choice = TargetChoice(server="x {port}")
    with pytest.raises(UsageError, match="one is named twice"):
        compared_servers([("one", choice), ("one", choice)], [])
    with pytest.raises(UsageError, match="features of 'two', which is none of one"):
        compared_servers([("one", choice)], ["two=quit"])


# --- the command --------------------------------------------------------------------------------------------


def app(name: str) -> tuple[str, str]:
    return "--app", f"{name}=tests.harness.test_compare:{name}"


def test_it_exits_with_0_1_or_2(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(suite), *app("right")]) == 0
    assert main(["compare", str(suite), *app("right"), *app("drops")]) == 1
    assert main(["compare", str(suite), *app("drops"), *app("broken")]) == 2
    assert main(["compare", str(suite)]) == 2
    assert "say what is compared" in capsys.readouterr().err


def test_two_processes_find_the_same(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", str(suite), *app("right"), *app("drops"), "--features", "right=roster"])
    alone = capsys.readouterr().out
    main(["compare", str(suite), *app("right"), *app("drops"), "--features", "right=roster", "-j", "2"])
    assert capsys.readouterr().out == alone
    assert "3 of 3" in alone


def test_it_writes_what_it_is_asked_to(suite: Path, tmp_path: Path) -> None:
    wrote = tmp_path / "table.md", tmp_path / "table.html"
    main(["compare", str(suite), *app("drops"), "--markdown", str(wrote[0]), "--html", str(wrote[1])])
    assert wrote[0].read_text().startswith("# Servers compared")
    assert wrote[1].read_text().startswith("<!doctype html>")


# --- pytest -------------------------------------------------------------------------------------------------


def test_pytest_plays_each_transcript_at_each_server_and_ends_in_the_table(
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
        "--harness-features", "fine=roster",
    )  # fmt: skip
    result.assert_outcomes(passed=2, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*servers compared*",
            "*fine*windows*",
            "login.chat*kept*line 6*",
            "who.chat*kept*-*",
            "*2 of 2*0 of 1*",
        ]
    )


def test_pytest_refuses_what_names_no_server(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nharness_files = *.chat\n")
    (pytester.path / "login.chat").write_text(SUITE["login"])
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--harness-compare", "./serve")
    assert "'./serve' names nothing" in result.stdout.str() + result.stderr.str()
