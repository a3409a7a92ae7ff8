"""Transcripts as pytest items, and the fixtures `harness_target` and `stage`. The only file that imports pytest.

Whoever does not ask for it must not notice it: nothing is collected without `harness_files` in the ini, no hook does
anything for tests that are not its own, and gevent is imported only once a transcript or a stage is really used.

Nothing is asserted here: PYTEST_DONT_REWRITE, so that it does not matter who has imported it first.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from harness.pytest_options import add_options
from harness.pytest_report import TranscriptFailed, TranscriptReport
from harness.reporting import styled_text

if TYPE_CHECKING:
    from harness.playing.verdict import Verdict
    from harness.stage.stage import Stage
    from harness.targets.target import Target
    from harness.updating.updating import UpdateResult

_WAYS = " (--harness-server, --harness-connect or --harness-app, the same in the ini; or a fixture harness_target)"
_UPDATED = "transcript rewritten"
_CLAIMS = "harness_update_claims"
_COMPARED = "harness_compared"
_stage_of_test: pytest.StashKey[Any] = pytest.StashKey()
_claims_folder: pytest.StashKey[Path] = pytest.StashKey()
_taking_part: pytest.StashKey[dict[str, Target]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "harness(server, fence, eol, within): what the `stage` fixture asks for, as a header would"
    )
    modes = [
        f"--harness-{mode}"
        for mode in ("update", "audit", "explore", "compare")
        if config.getoption(f"harness_{mode}")
    ]
    if len(modes) > 1:
        raise pytest.UsageError(f"{' and '.join(modes)}: one of them")
    if config.getoption("harness_update") and not hasattr(config, "workerinput"):
        config.stash[_claims_folder] = Path(tempfile.mkdtemp(prefix="harness-update-"))


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_claims_folder, None)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """With xdist: every worker claims files in the same folder."""
    folder = node.config.stash.get(_claims_folder, None)
    if folder is not None:
        node.workerinput[_CLAIMS] = str(folder)


# --- collection ---------------------------------------------------------------------------------------------


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix != ".chat":
        return None
    patterns: list[str] = parent.config.getini("harness_files")
    try:
        path = file_path.relative_to(parent.config.rootpath).as_posix()
    except ValueError:
        return None
    if not any(fnmatch(path, pattern) for pattern in patterns):
        return None
    return ChatFile.from_parent(parent, path=file_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A comparison makes an item of each transcript and server."""
    servers: list[str] = metafunc.config.getoption("harness_compare")
    if not servers or metafunc.function is not _transcript:
        return
    from harness.compare.serialization import commands
    from harness.targets.choice import UsageError

    try:
        taking_part = commands(servers, metafunc.config.getoption("harness_features"))
    except UsageError as wrong:
        raise pytest.UsageError(f"--harness-compare: {wrong}") from None
    made = {one.name: one.choice.target() for one in taking_part}
    targets = metafunc.config.stash.setdefault(_taking_part, made)
    metafunc.parametrize("harness_target", list(targets.values()), ids=list(targets))


class ChatFile(pytest.Module):
    """One transcript. It poses as a module of one test, so that fixtures and their parameters work as everywhere."""

    def _getobj(self) -> ModuleType:
        module = ModuleType(self.path.stem)
        setattr(module, self.path.stem, _transcript)
        return module

    def collect(self) -> Iterator[pytest.Item]:
        from harness.language.problems import ScriptError
        from harness.language.script import is_library, load

        try:
            if is_library(load(self.path)):
                return  # definitions alone, for others to include
        except ScriptError:
            pass  # told when it is played, as the failure of this item
        for made in self._genfunctions(self.path.stem, _transcript):
            yield ChatItem.from_parent(
                self,
                name=made.name,
                callspec=getattr(made, "callspec", None),
                fixtureinfo=made._fixtureinfo,
                keywords={mark: True for mark in made.keywords if mark == getattr(made, "callspec", None)},
                originalname=made.originalname,
            )


class ChatItem(pytest.Function):
    """One transcript at one target."""

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, TranscriptFailed):
            return TranscriptReport(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        # pytest needs a line for a transcript whose fixture skips it.
        return self.path, 0, self.nodeid.rpartition("::")[0] + self.name[len(self.originalname) :]


def _transcript(request: pytest.FixtureRequest, harness_target: Target) -> None:
    from harness.playing.files import play_file
    from harness.playing.verdict import Outcome

    path = request.node.path
    if request.config.getoption("harness_audit"):
        _audit(path, harness_target, request.config.getoption("harness_audit_most"))
        return
    explore = request.config.getoption("harness_explore")
    if explore:
        _explore(path, harness_target, explore, request.config.getoption("harness_explore_seed"))
        return
    done = _update(request, harness_target) if request.config.getoption("harness_update") else None
    verdict = done.verdict if done else play_file(path, harness_target)
    if request.config.getoption("harness_compare"):
        from harness.compare.comparing import cell
        from harness.compare.serialization import serialized

        targets = request.config.stash[_taking_part]
        name = next(name for name, target in targets.items() if target is harness_target)
        request.node.user_properties.append((_COMPARED, serialized(cell(name, verdict))))
    if done is not None and done.diff:
        request.node.add_report_section("call", _UPDATED, done.diff)
    elif verdict.outcome is Outcome.SKIPPED:
        pytest.skip(verdict.reason)
    elif verdict.outcome is not Outcome.PASSED:
        raise _transcript_failed(verdict, done.refused if done else "")


def _transcript_failed(verdict: Verdict, refused: str) -> TranscriptFailed:
    from harness.reporting.failure_text import summary
    from harness.reporting.report import report

    lines = list(report(verdict))
    if refused:
        lines += [[], [styled_text.Span(f"  not rewritten: {refused}", styled_text.Tone.WANTED)]]
    return TranscriptFailed(lines, summary(verdict))


def _audit(path: Path, target: Target, most: int | None) -> None:
    from harness.audit.audit_report import headline, report
    from harness.audit.auditing import Sample
    from harness.audit.files import audit_file
    from harness.playing.pipeline import PlayOptions
    from harness.playing.verdict import Outcome

    audit_result = audit_file(path, target, PlayOptions(), Sample(most))
    if audit_result.clean.outcome is Outcome.SKIPPED:
        pytest.skip(audit_result.clean.reason)
    if not audit_result.sound:
        raise TranscriptFailed(list(report(audit_result)), headline(audit_result))


def _explore(path: Path, target: Target, runs: int, seed: int) -> None:
    from harness.exploring.exploration_report import headline, report
    from harness.exploring.explore import explorable, explore_file
    from harness.playing.verdict import Outcome
    from harness.targets.choice import UsageError

    try:
        exploration_result = explore_file(path, explorable(target), range(seed, seed + runs))
    except UsageError as wrong:
        raise pytest.UsageError(f"--harness-explore: {wrong}") from None
    if exploration_result.baseline.outcome is Outcome.SKIPPED:
        pytest.skip(exploration_result.baseline.reason)
    if not exploration_result.passed:
        raise TranscriptFailed(list(report(exploration_result)), headline(exploration_result))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Without any target nothing that needs one can be played, which is told once and not by each of them."""
    config = session.config
    if config.option.collectonly or hasattr(config, "workerinput") or any(_given(config).values()):
        return
    for item in session.items:
        known = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
        if "harness_target" in known and known["harness_target"][-1].func.__module__ == __name__:
            raise pytest.UsageError(f"{item.nodeid} has no server to play with: say what is tested{_WAYS}")


# --- update -------------------------------------------------------------------------------------------------


def _update(request: pytest.FixtureRequest, target: Target) -> UpdateResult:
    from harness.updating.claims import Claims
    from harness.updating.updating import update

    config = request.config
    given = getattr(config, "workerinput", {}).get(_CLAIMS)
    claims = Claims(Path(given) if given else config.stash[_claims_folder])
    path: Path = request.node.path
    with claims.of(path, request.node.nodeid) as claim:
        return update(path, target, before_writing=claim)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    _sum_up_comparison(terminalreporter)
    if not terminalreporter.config.getoption("harness_update"):
        return
    reports = terminalreporter.stats.get("passed", [])
    diffs = [text for one in reports for name, text in one.sections if _UPDATED in name]
    if diffs:
        terminalreporter.section(
            f"{len(diffs)} {'transcript' if len(diffs) == 1 else 'transcripts'} rewritten"
        )
        for diff in diffs:
            terminalreporter.write(diff)


def _sum_up_comparison(terminalreporter: Any) -> None:
    servers = terminalreporter.config.getoption("harness_compare")
    reports: list[Any] = [
        one
        for kind in ("passed", "failed", "skipped")
        for one in terminalreporter.stats.get(kind, [])
        if isinstance(one, pytest.TestReport)  # a module skipped as a whole is reported too
    ]
    texts = [text for one in reports for name, text in one.user_properties if name == _COMPARED]
    if servers and texts:
        from harness.compare.serialization import summed_up

        terminalreporter.section("servers compared")
        lines = summed_up(texts, servers)
        terminalreporter.write(
            styled_text.ansi(lines) if terminalreporter.hasmarkup else styled_text.plain(lines)
        )


# --- fixtures -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def harness_target(pytestconfig: pytest.Config) -> Target:
    """What transcripts are played at. A project overrides this fixture, or says it in the options or the ini."""
    from harness.targets.choice import TargetChoice, UsageError

    try:
        return TargetChoice(**_given(pytestconfig)).target()
    except UsageError as wrong:
        pytest.fail(f"{wrong}{_WAYS}", pytrace=False)


def _given(config: pytest.Config) -> dict[str, Any]:
    """The target that the options name, or else the ini."""
    given = {name: config.getoption(f"harness_{name}") for name in ("server", "connect", "app")}
    if any(given.values()):
        return given
    return {name: config.getini(f"harness_{name}") or None for name in given}


@pytest.fixture
def stage(request: pytest.FixtureRequest, harness_target: Target) -> Iterator[Stage]:
    """Clients at the target, for conversations written in Python; settled and closed at the end of the test."""
    from harness.playing.pipeline import stage_for

    marker = request.node.get_closest_marker("harness")
    with stage_for(harness_target, marker.kwargs if marker else {}) as made:
        request.node.stash[_stage_of_test] = made
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """A test that leaves a line unexpected has failed, so this is looked at in the test and not after it."""
    __tracebackhide__ = True
    result = yield
    made = pyfuncitem.stash.get(_stage_of_test, None)
    if made is not None:
        made.settle()
    return result
