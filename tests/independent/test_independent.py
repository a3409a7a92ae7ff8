"""The independent servers play the suite of their protocol, and scripts that find their known differences and no others.

Rust and Java take long to install and to start, so those two are only compared by the command in README.md.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from harness import Outcome
from harness.compare import baseline
from harness.compare.compare import Cell, ComparedServer, cell_of
from harness.compare.report import Table, text
from harness.language.fences import Fence
from harness.language.loading import load
from harness.language.steps import Needs
from harness.playing.pipeline import PlayOptions, play_file
from harness.report.styled_text import plain
from tests.independent.servers import BASELINE, FEATURES, HERE, SERVERS, IndependentServer, scripts_of
from tests.patience import HANG_S

ROOT = HERE.parents[1]
FENCE = Fence("PING", ("PONG", "ERR must-login-first"))
TESTED = [server for server in SERVERS if server.name not in ("rust_channels", "java_nio")]

# Every server differs in the first of these, and eight in the other.
DIFFERING = ("common-text-invisible", "common-names-case")
WITHIN_S = 3.0
"""How long a line can take there. Each known difference takes as long: a right line could follow the wrong one."""
PATIENT_S = 30.0
"""How long a line can take where none is missing: a busy machine is no difference."""


def compared(scripts: Sequence[Path], servers: Iterable[ComparedServer], within_s: float) -> Table:
    """The table of these scripts and servers, with the known differences. Each server plays all scripts, one by one, and is
    started for each: one that was busy may still know the names of the script before, and say who of them has left."""

    def play(server: ComparedServer) -> list[Cell]:
        target, options = server.choice.target(), PlayOptions(FENCE, within_s)
        with closing(target):
            return [
                cell_of(server.name, play_file(path, target, options, keep_going=True)) for path in scripts
            ]

    servers = list(servers)
    with ThreadPoolExecutor(len(servers)) as pool:
        cells = [cell for cells in pool.map(play, servers) for cell in cells]
    return Table(tuple(cells), baseline.read(BASELINE))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[ComparedServer]:
    """The servers whose tool is installed."""
    folder = tmp_path_factory.mktemp("built")
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda one: one.compared(folder), filter(lambda one: one.installed, TESTED)))


def skip_what_is_not_installed() -> None:
    missing = [f"{one.tool} (Debian: {one.package})" for one in TESTED if not one.installed]
    if missing:
        pytest.skip(f"all other servers passed; not installed: {', '.join(missing)}")


def test_every_server_passes_the_suite_of_the_protocol(built: list[ComparedServer]) -> None:
    # The idle limit is kept within half a second, which a busy machine cannot promise: the command plays that script.
    scripts = [path for path in scripts_of("chat-line") if not path.stem.startswith("idle-")]
    table = compared(scripts, built, PATIENT_S)
    wrong = [cell for cell in table.cells if cell.outcome not in (Outcome.PASSED, Outcome.SKIPPED)]
    assert not wrong, plain(text(table))
    assert all(table.total(server.name).passed == 20 for server in built), plain(text(table))
    skip_what_is_not_installed()


def test_other_scripts_find_the_known_differences_and_no_others(built: list[ComparedServer]) -> None:
    scripts = [path for path in scripts_of("line") if path.stem in DIFFERING]
    table = compared(scripts, built, WITHIN_S)
    new = table.entries() - table.baseline
    assert not new, "\n".join(map(str, sorted(new)))
    assert set(table.outcomes()) == {Outcome.PASSED}, plain(text(table))
    assert table.gone() == []
    assert {one.server for one in table.entries()} == {server.name for server in built}
    skip_what_is_not_installed()


def test_the_known_differences_are_of_servers_and_scripts_that_exist() -> None:
    suites = {suite: {path.name for path in scripts_of(suite)} for suite in ("line", "json", "slash")}
    servers = {server.name: server for server in SERVERS}
    for one in baseline.read(BASELINE):
        assert any(one.script in suites[suite] and servers[one.server].speaks(suite) for suite in suites), one


def test_the_page_counts_the_scripts_without_a_known_difference() -> None:
    page = (ROOT / "docs" / "audit-and-compare.md").read_text("utf-8")
    table = page.partition("| server | chat-line | line | json | slash |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[1:]]
    assert [row[0] for row in rows] == [f"`{server.name}`" for server in SERVERS]
    needs = {path: load(path).setting(Needs) for path in scripts_of("chat-line")}
    played = [path for path, one in needs.items() if one is None or FEATURES.issuperset(one.features)]
    for server, row in zip(SERVERS, rows, strict=True):
        expected = [of_suite(server, "line", played)]
        expected += [of_suite(server, suite, scripts_of(suite)) for suite in ("line", "json", "slash")]
        assert row[1:] == expected, server.name


def of_suite(server: IndependentServer, dialect: str, scripts: Sequence[Path]) -> str:
    """The cell of a server: in how many of these scripts the baseline has no difference of it."""
    if not server.speaks(dialect):
        return ""
    differ = {one.script for one in baseline.read(BASELINE) if one.server == server.name}
    return f"{len([path for path in scripts if path.name not in differ])} of {len(scripts)}"


def test_the_command_compares_what_speaks_a_dialect(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.independent", "json", "-k", "json-quit", "-j", "1"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.split()[:2] == ["py_streams", "py_protocols"]
    ran = subprocess.run(
        [*words[:3], "telnet"], cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert ran.returncode == 1
    assert "usage: python -m tests.independent chat-line|line|json|slash" in ran.stderr
