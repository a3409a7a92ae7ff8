"""Transcripts as pytest items, and the fixtures `harness_target` and `stage`. The only module that imports pytest.

- Nothing is collected but the transcripts that `harness_files` in the ini or the command line names, and no hook does
  anything for other tests.
- Modules of the harness are imported when a transcript or a stage is used, so that other test runs do not pay for them.

PYTEST_DONT_REWRITE: this module has no assertions, and can be imported before pytest.
"""

from __future__ import annotations

import argparse
import base64
import functools
import inspect
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

from harness.options import (
    PYTEST_MODES,
    add_pytest_options,
    from_pytest,
    given_to_pytest,
    misplaced,
    names_a_target,
    play_options,
    target_choice,
)
from harness.report.styled_text import Line, Span, Tone, ansi, count, plain, terminal_columns

if TYPE_CHECKING:
    from harness.compare.baseline import Known
    from harness.compare.report import Table
    from harness.language.adapter import Adapter
    from harness.playing.pipeline import PlayOptions
    from harness.playing.verdict import Outcome, Verdict
    from harness.stage.awaited import AsyncStage
    from harness.stage.stage import Stage
    from harness.stage.target import Target
    from harness.targets.named import Targets
    from harness.update import UpdateResult

AnyStage = TypeVar("AnyStage", "Stage", "AsyncStage")

_HOW_TO_NAME_A_TARGET = (
    "name the server: --harness-server, --harness-connect or --harness-app, the same as an ini key "
    "(harness_server …), `target:` in the header of a transcript, or a fixture harness_target"
)
_NOT_AWAITED = (
    "the test is a coroutine that was not awaited: something calls it as a plain function, as --trace does; "
    "`breakpoint()` works inside the test"
)
_REWRITTEN = "transcript rewritten"
_WRITERS = "harness_update_writers"
_VERDICT = "harness_verdict"
_CELL = "harness_compare_cell"
_stage_of_test: pytest.StashKey[Stage | AsyncStage] = pytest.StashKey()
_returned: pytest.StashKey[bool] = pytest.StashKey()
"""True once the test has returned with nothing unexpected: of one that failed nothing more is asked."""
_awaited: pytest.StashKey[bool] = pytest.StashKey()
"""For a test that is a coroutine: whether it was awaited to its end."""
_mode: pytest.StashKey[str] = pytest.StashKey()
"""What the run does with transcripts, as the name of a command: `play` or one of PYTEST_MODES."""
_options: pytest.StashKey[argparse.Namespace] = pytest.StashKey()
_how_to_play: pytest.StashKey[PlayOptions] = pytest.StashKey()
_targets: pytest.StashKey[Targets] = pytest.StashKey()
"""Those that headers name: with --harness-shared, several transcripts share one."""
_verdict: pytest.StashKey[Verdict] = pytest.StashKey()
_writers_folder: pytest.StashKey[Path] = pytest.StashKey()
_compared_targets: pytest.StashKey[dict[str, Target]] = pytest.StashKey()
_compared_adapters: pytest.StashKey[dict[str, Adapter | None]] = pytest.StashKey()
_known_differences: pytest.StashKey[frozenset[Known]] = pytest.StashKey()
_known_of_run: pytest.StashKey[frozenset[Known]] = pytest.StashKey()
"""The same, with the files of this run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    add_pytest_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "harness(server=…, fence=…, fence_after=…, unfenced=…, eol=…, within=…, settle=…, start=…, time=…, transport=…, "
        "ignore=…, reply=…): the header of the `stage` fixture, as in a transcript",
    )
    config.pluginmanager.register(_Coroutines())
    modes = [mode for mode in PYTEST_MODES if config.getoption(f"harness_{mode}")]
    if len(modes) > 1:
        raise pytest.UsageError(f"use only one of {' and '.join(f'--harness-{mode}' for mode in modes)}")
    mode = config.stash[_mode] = modes[0] if modes else "play"
    if problem := misplaced(config, mode):
        raise pytest.UsageError(problem)
    try:
        config.stash[_options] = from_pytest(config)
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"harness: {error}") from None
    if mode == "compare":
        _prepare_comparison(config)
    if hasattr(config, "workerinput"):
        return
    if config.stash[_options].html is not None and mode in ("play", "compare"):
        config.pluginmanager.register(_Page(config.stash[_options].html))
    if mode == "compare":
        config.pluginmanager.register(_Comparison())
    if mode == "update":
        config.stash[_writers_folder] = Path(tempfile.mkdtemp(prefix="harness-update-"))


def _prepare_comparison(config: pytest.Config) -> None:
    from harness.compare import baseline
    from harness.compare.compare import compared_servers
    from harness.language.problems import ScriptError
    from harness.targets.choice import UsageError

    options = config.stash[_options]
    known: frozenset[Known] = frozenset()
    try:
        servers = compared_servers(
            config.getoption("harness_compare"), options.compare_features, options.compare_adapter
        )
        config.stash[_compared_targets] = {one.name: one.choice.target() for one in servers}
        if options.compare_baseline is not None:
            known = baseline.read(options.compare_baseline)
    except (UsageError, ScriptError) as error:
        raise pytest.UsageError(f"harness: {error}") from None
    config.stash[_compared_adapters] = {one.name: one.adapter for one in servers}
    config.stash[_known_differences] = known


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_writers_folder, None)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """With xdist, all workers share the folder that records the writer of each file."""
    folder = node.config.stash.get(_writers_folder, None)
    if folder is not None:
        node.workerinput[_WRITERS] = str(folder)


# --- collection ---------------------------------------------------------------------------------------------


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix != ".chat":
        return None
    patterns: list[str] = parent.config.getini("harness_files")
    root = parent.config.rootpath
    path = file_path.relative_to(root).as_posix() if file_path.is_relative_to(root) else ""
    if not (any(fnmatch(path, pattern) for pattern in patterns) or parent.session.isinitpath(file_path)):
        return None
    return ChatFile.from_parent(parent, path=file_path)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A comparison has one item for each transcript and server."""
    if metafunc.function is not _transcript or metafunc.config.stash[_mode] != "compare":
        return
    targets = metafunc.config.stash[_compared_targets]
    # As a mark, because only then are the parameters of a fixture harness_target replaced.
    mark = pytest.mark.parametrize("harness_target", list(targets.values()), ids=list(targets))
    metafunc.definition.add_marker(mark)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the transcripts that have none of the tags that are asked for; other tests stay."""
    tags = frozenset(config.stash[_options].tag.split())
    if tags:
        from harness.batch import has_a_tag

        left_out = [one for one in items if isinstance(one, ChatItem) and not has_a_tag(one.path, tags)]
        if left_out:
            items[:] = [one for one in items if one not in left_out]
            config.hook.pytest_deselected(items=left_out)


class ChatFile(pytest.Module):
    """One transcript, as a module with one test function, so that fixtures and their parameters work as usual."""

    def _getobj(self) -> ModuleType:
        module = ModuleType(self.path.stem)
        setattr(module, self.path.stem, _transcript)
        return module

    def collect(self) -> Iterator[pytest.Item]:
        from harness.language.loading import is_library, load
        from harness.language.problems import ScriptError

        try:
            if is_library(load(self.path)):
                return  # definitions for other transcripts
        except ScriptError:
            pass  # reported as the failure of its item
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

    def names_its_target(self) -> bool:
        """Whether the header names a target, or cannot be read, which the test will report."""
        from harness.targets.choice import UsageError
        from harness.targets.named import require_targets

        try:
            require_targets(target_choice(self.config.stash[_options]), [self.path])
        except UsageError:
            return False
        return True

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, TranscriptFailed):
            return FailureRepr(excinfo.value, in_one_line=self.config.getoption("tbstyle", "auto") == "line")
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        # pytest needs a line for a transcript whose fixture skips it.
        return self.path, 0, self.nodeid.rpartition("::")[0] + self.name[len(self.originalname) :]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Report once what is wrong for every transcript: a missing target, invalid options, a baseline that does not fit."""
    config = session.config
    if config.option.collectonly or hasattr(config, "workerinput"):
        return
    played = [(item, fixture) for item in session.items for fixture in _target_fixtures(item)]
    if played:
        _require_valid_options(session)
    if names_a_target(config.stash[_options]):
        return
    for item, fixture in played:
        if fixture.func.__module__ != __name__:
            continue
        if not (isinstance(item, ChatItem) and item.names_its_target()):
            raise pytest.UsageError(f"{item.nodeid} has no server; {_HOW_TO_NAME_A_TARGET}")


def _target_fixtures(item: pytest.Item) -> Sequence[pytest.FixtureDef[Any]]:
    """The fixture harness_target that the item uses, if it uses one."""
    fixtures = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    return fixtures.get("harness_target", ())[-1:]


def _require_valid_options(session: pytest.Session) -> None:
    from harness.targets.choice import UsageError

    try:
        target_choice(session.config.stash[_options])
        _play_options(session.config)
        if _known_differences in session.config.stash:
            _known_in(session)
    except UsageError as error:
        raise pytest.UsageError(f"harness: {error}") from None


def _known_in(session: pytest.Session) -> frozenset[Known]:
    """The known differences of the transcripts of this run; UsageError if the baseline does not fit them."""
    from harness.compare.baseline import of_run
    from harness.language.loading import shown

    stash = session.config.stash
    known = stash[_known_differences]
    if _known_of_run not in stash:
        files = [shown(one.path) for one in session.items if isinstance(one, ChatItem)]
        stash[_known_of_run] = of_run(known, files)
    return stash[_known_of_run]


# --- failures -----------------------------------------------------------------------------------------------


class TranscriptFailed(AssertionError):
    """A transcript that failed: its report, and the same in one line."""

    def __init__(self, lines: Iterable[Line], summary: str) -> None:
        self.lines = list(lines)
        super().__init__(summary)


class _Crash:
    """The line in pytest's short summary."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __str__(self) -> str:
        """The text that pytest shows with --tb=line."""
        return self.message


class FailureRepr:
    """The report as pytest shows it: coloured on a terminal, plain in files and between processes."""

    def __init__(self, failed: TranscriptFailed, in_one_line: bool) -> None:
        self._lines = [] if in_one_line else failed.lines
        self.reprcrash = _Crash(str(failed))

    def toterminal(self, tw: Any) -> None:
        tw.write(ansi(self._lines) if tw.hasmarkup else plain(self._lines))

    def __str__(self) -> str:
        return plain(self._lines) or str(self.reprcrash)


# --- playing ------------------------------------------------------------------------------------------------


def _transcript(request: pytest.FixtureRequest, harness_target: Target) -> None:
    from harness.targets.choice import UsageError

    try:
        _at(harness_target, request)
        return
    except UsageError as error:
        problem = str(error)
    pytest.fail(problem, pytrace=False)


def _at(target: Target, request: pytest.FixtureRequest) -> None:
    """Do with the transcript of this item what the options say."""
    from harness.targets.named import NoTarget

    options = request.config.stash[_options]
    how = _play_options(request.config)
    if isinstance(target, NoTarget):
        target = _targets_of_headers(request.config).of(request.node.path)
    match request.config.stash[_mode]:
        case "audit":
            _audit(request.node.path, target, how, options)
        case "explore":
            _explore(request, target, how, options)
        case "update":
            _update(request, target, how)
        case "compare":
            _compare(request, target, how)
        case _ if options.repeat:
            _repeat(request, target, how, options.repeat)
        case _:
            _play(request, target, how)


def _targets_of_headers(config: pytest.Config) -> Targets:
    from harness.targets.named import Targets

    if _targets not in config.stash:
        config.stash[_targets] = Targets(target_choice(config.stash[_options]))
    return config.stash[_targets]


def _play_options(config: pytest.Config) -> PlayOptions:
    """How to play, from the options or else from the ini; UsageError if one is invalid."""
    from harness.language.problems import LineError, ScriptError
    from harness.targets.choice import UsageError

    if _how_to_play not in config.stash:
        try:
            config.stash[_how_to_play] = play_options(config.stash[_options])
        except ScriptError as error:
            raise UsageError(str(error)) from None
        except LineError as error:
            raise UsageError(f"{error.message}; expected: {error.expected}") from None
    return config.stash[_how_to_play]


def _play(request: pytest.FixtureRequest, target: Target, how: PlayOptions) -> None:
    __tracebackhide__ = True
    from harness.playing.pipeline import play_file

    verdict = play_file(request.node.path, target, how)
    request.node.stash[_verdict] = verdict
    _finish(verdict)


def _compare(request: pytest.FixtureRequest, target: Target, how: PlayOptions) -> None:
    __tracebackhide__ = True
    from harness.compare.compare import cell_of
    from harness.playing.pipeline import play_file

    stash = request.config.stash
    name = next(name for name, one in stash[_compared_targets].items() if one is target)
    known = _known_in(request.session)
    how = replace(how, adapter=stash[_compared_adapters][name])
    verdict = play_file(request.node.path, target, how, keep_going=True)
    request.node.stash[_verdict] = verdict
    cell = cell_of(name, verdict)
    request.node.user_properties.append((_CELL, cell.as_text()))
    if cell.is_known(known):
        pytest.xfail(f"known: {cell.causes}")
    _finish(verdict)


def _repeat(request: pytest.FixtureRequest, target: Target, how: PlayOptions, times: int) -> None:
    from harness.playing.pipeline import play_file
    from harness.repeat import Repetition, report, summary

    __tracebackhide__ = True
    repeated = Repetition(request.node.nodeid)
    for _ in range(times):
        verdict = play_file(request.node.path, target, how)
        if not repeated.failed:
            request.node.stash[_verdict] = verdict
        repeated.add(verdict)
    if repeated.skipped is not None:
        pytest.skip(repeated.skipped.reason)
    if repeated.failed:
        raise TranscriptFailed(report(repeated, terminal_columns()), summary(repeated))
    if repeated.xfailed is not None:
        pytest.xfail(repeated.xfailed.reason)


def _finish(verdict: Verdict, refused: str = "") -> None:
    """Skip or fail the running test, unless the transcript passed."""
    __tracebackhide__ = True  # for --pdb, which reads it here only
    from harness.report.text import report, summary

    _end_unplayed(verdict.outcome, verdict.reason)
    if not verdict.passed:
        note = [[], [Span(f"  not rewritten: {refused}", Tone.WARNING)]] if refused else []
        raise TranscriptFailed([*report(verdict, terminal_columns()), *note], summary(verdict))


def _end_unplayed(outcome: Outcome, reason: str) -> None:
    """Skip the running test, or fail it as expected, where that is the outcome."""
    from harness.playing.verdict import Outcome

    if outcome is Outcome.SKIPPED:
        pytest.skip(reason)
    if outcome is Outcome.XFAILED:
        pytest.xfail(reason)


def _update(request: pytest.FixtureRequest, target: Target, how: PlayOptions) -> None:
    from harness.update import single_writer, update

    config = request.config
    shared = getattr(config, "workerinput", {}).get(_WRITERS)
    folder = Path(shared) if shared else config.stash[_writers_folder]
    path: Path = request.node.path
    with single_writer(folder, path, request.node.nodeid) as before_writing:
        result: UpdateResult = update(
            path, target, how, before_writing=before_writing, ends=config.stash[_options].update_ends
        )
    if result.diff:
        request.node.add_report_section("call", _REWRITTEN, result.diff)
    else:
        _finish(result.verdict, result.refused)


def _audit(path: Path, target: Target, how: PlayOptions, options: argparse.Namespace) -> None:
    from harness.audit.audit import Sample, audit_file, headline, report
    from harness.playing.verdict import Outcome

    audited = audit_file(path, target, how, sample=Sample(options.audit_most, options.audit_seed))
    _end_unplayed(audited.outcome, audited.unchanged.reason)
    if audited.outcome is not Outcome.PASSED:
        raise TranscriptFailed(report(audited, terminal_columns()), headline(audited))


def _explore(
    request: pytest.FixtureRequest, target: Target, how: PlayOptions, options: argparse.Namespace
) -> None:
    from harness.explore import again, explore_file, headline, report
    from harness.interception.schedule import EVERY
    from harness.playing.verdict import Outcome

    runs = request.config.getoption("harness_explore")
    seeds = range(options.explore_seed, options.explore_seed + runs)
    explored = explore_file(request.node.path, target, seeds, how, options.explore_only or EVERY)
    _end_unplayed(explored.outcome, explored.baseline.reason)
    if explored.outcome is not Outcome.PASSED:
        lines = list(report(explored, terminal_columns()))
        if explored.finding is not None:
            lines += again(_one_schedule(request, explored.finding.seed))
        raise TranscriptFailed(lines, headline(explored))


def _one_schedule(request: pytest.FixtureRequest, seed: int) -> Iterator[str]:
    """The command that plays this transcript under this schedule."""
    config = request.config
    path = os.path.relpath(request.node.path, config.invocation_params.dir)
    yield from ("pytest", f"{path}::{request.node.name}")
    chosen = ("--harness-tag", "--harness-explore", "--harness-explore-seed")
    yield from given_to_pytest(config, without=chosen)
    yield from ("--harness-explore", "1", "--harness-explore-seed", str(seed))


# --- the page of a run ----------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, pytest.TestReport]:
    """Give the report the verdict, where a page is wanted: reports also travel between processes, as text."""
    report: pytest.TestReport = yield
    verdict = item.stash.get(_verdict, None)
    if report.when == "call" and verdict is not None and item.config.stash[_options].html is not None:
        report.__dict__[_VERDICT] = base64.b64encode(pickle.dumps(verdict)).decode()
    return report


class _Page:
    """Writes the page when all tests have run, if one of them was a transcript: the page of another run is not replaced by an
    empty one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._verdicts: list[Verdict] = []
        self._began = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        text = report.__dict__.get(_VERDICT)
        if text is not None:
            self._verdicts.append(pickle.loads(base64.b64decode(text)))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._verdicts:
            from harness.report.html import document

            _save(session, self._path, document(self._verdicts, time.monotonic() - self._began))


def _save(session: pytest.Session, path: Path, text: str) -> None:
    """Write a file at the end of the run. If that fails, the run has an error, and its summary is still shown."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"harness: cannot write {path}: {error.strerror}", file=sys.stderr)
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


# --- at the end ---------------------------------------------------------------------------------------------


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what --harness-update has rewritten."""
    if terminalreporter.config.stash[_mode] != "update":
        return
    passed = terminalreporter.stats.get("passed", [])
    diffs = [text for one in passed for name, text in one.sections if _REWRITTEN in name]
    if diffs:
        terminalreporter.section(f"{count(len(diffs), 'transcript')} rewritten")
        for diff in diffs:
            terminalreporter.write(diff)


class _Comparison:
    """Writes the baseline when all tests have run, and ends the run with the table."""

    def __init__(self) -> None:
        self._cells: dict[str, str] = {}
        """By the test: of one that was run again, the last counts."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._cells.update(
            (report.nodeid, str(text)) for name, text in report.user_properties if name == _CELL
        )

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        path = session.config.stash[_options].compare_write_baseline
        if self._cells and path is not None:
            from harness.compare import baseline

            _save(session, path, baseline.document(self._table(session.config).entries()))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._cells:
            from harness.compare.report import text

            lines = list(text(self._table(terminalreporter.config), terminal_columns()))
            terminalreporter.section("servers compared")
            terminalreporter.write(ansi(lines) if terminalreporter.hasmarkup else plain(lines))

    def _table(self, config: pytest.Config) -> Table:
        from harness.compare.report import Table

        targets = config.stash[_compared_targets]
        return Table.of_texts(self._cells.values(), list(targets), config.stash[_known_differences])


# --- fixtures -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def harness_target(pytestconfig: pytest.Config) -> Target:
    """The target of transcripts and stages: from the options, the ini, or a fixture that overrides this one."""
    from harness.targets.choice import UsageError
    from harness.targets.named import NoTarget

    try:
        choice = target_choice(pytestconfig.stash[_options])
        return choice.target() if choice.named else NoTarget()
    except UsageError as error:
        pytest.fail(f"{error}; {_HOW_TO_NAME_A_TARGET}", pytrace=False)


@pytest.fixture
def stage(request: pytest.FixtureRequest, harness_target: Target) -> Iterator[Stage]:
    """Clients at the target, for conversations written in Python."""
    with ExitStack() as stack:
        made = _started(stack, _stage_for(request, harness_target))
        _give(made, request.node)
        yield made
        _settle_after_fixtures(request.node, made)


def _give(made: Stage | AsyncStage, item: pytest.Item) -> None:
    """Let this stage be settled with the test, which can have run before: some plugins run a test that fails again."""
    item.stash[_stage_of_test] = made
    item.stash[_returned] = False


def _stage_for(request: pytest.FixtureRequest, target: Target) -> Stage:
    from harness.language.problems import LineError
    from harness.playing.pipeline import stage_for
    from harness.targets.choice import UsageError
    from harness.targets.named import NoTarget

    if isinstance(target, NoTarget):
        pytest.fail(f"no server; {_HOW_TO_NAME_A_TARGET}", pytrace=False)
    header: dict[str, str] = {}
    for marker in reversed(list(request.node.iter_markers("harness"))):  # that of the test comes last
        if marker.args:
            problem = (
                f"{marker.args[0]!r} has no key; expected a key for each value, such as server='line idle=60'"
            )
            pytest.fail(f"@pytest.mark.harness: {problem}", pytrace=False)
        header |= marker.kwargs
    try:
        return stage_for(target, header, _play_options(request.config))
    except LineError as error:
        problem = f"@pytest.mark.harness: {error.message}; expected: {error.expected}"
    except UsageError as error:
        problem = str(error)
    pytest.fail(problem, pytrace=False)


def _started(stack: ExitStack, made: AbstractContextManager[AnyStage]) -> AnyStage:
    """The stage with its server. One that does not start is no mistake of the harness, whose traceback would hide why."""
    from harness.stage.target import TargetError, UnsupportedSpec

    try:
        return stack.enter_context(made)
    except (TargetError, UnsupportedSpec) as error:
        problem = str(error)
    pytest.fail(problem, pytrace=False)


@pytest.fixture
def async_stage(request: pytest.FixtureRequest, harness_target: Target) -> Iterator[AsyncStage]:
    """The same for tests that are coroutines: every operation of its clients is awaited."""
    import unittest

    from harness.stage.awaited import AsyncStage

    test = request.node.obj
    if not inspect.iscoroutinefunction(test):
        pytest.fail("async_stage is for coroutines: `async def`; other tests use `stage`", pytrace=False)
    with ExitStack() as stack:
        made = _started(stack, AsyncStage(_stage_for(request, harness_target)))

        @functools.wraps(test)
        async def settled(*arguments: Any, **named: Any) -> None:
            __tracebackhide__ = True
            await test(*arguments, **named)
            request.node.stash[_awaited] = True
            try:
                await made.settle()
            except Exception as error:
                _fail_at_the_end(made, error)

        # While the event loop still runs, because the server can be on it. unittest calls a coroutine itself.
        stack.callback(setattr, request.node, "obj", test)
        request.node.obj = settled
        if isinstance(request.instance, unittest.TestCase):
            setattr(request.instance, request.node.name, settled)
        request.node.stash[_awaited] = False
        _give(made, request.node)
        yield made
        _settle_after_fixtures(request.node, made)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """End the traceback of a failure at the line of the test."""
    __tracebackhide__ = True
    try:
        return (yield)
    except Exception as error:
        if not _is_of_the_server(error):
            raise
        raise error.with_traceback(_to_the_test(error.__traceback__)) from error.__cause__


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Settle the stage when the test has run, of whatever kind it is, so that an unexpected line fails the test and not its
    teardown."""
    __tracebackhide__ = True
    yield
    made = item.stash.get(_stage_of_test, None)
    if made is not None:
        try:
            made.settle_if_needed()
        except Exception as error:
            _fail_at_the_end(made, error)
        _require_awaited(item)
        item.stash[_returned] = True


def _require_awaited(item: pytest.Item) -> None:
    if not item.stash.get(_awaited, True):
        pytest.fail(_NOT_AWAITED, pytrace=False)


def _settle_after_fixtures(item: pytest.Item, made: Stage | AsyncStage) -> None:
    """Settle what fixtures have done on the stage after the test."""
    __tracebackhide__ = True
    if item.stash.get(_returned, False):
        try:
            made.settle_if_needed()
        except Exception as error:
            _fail_at_the_end(made, error, of="the fixtures")


def _is_of_the_server(error: Exception) -> bool:
    """Whether the harness reports this; if it is itself wrong, all of the traceback matters."""
    return type(error).__module__.partition(".")[0] == "harness"


def _fail_at_the_end(stage: Stage | AsyncStage, error: Exception, of: str = "the test") -> NoReturn:
    """Here a debugger begins, since the test has returned: `stage` is there."""
    if not _is_of_the_server(error):
        raise error
    raise pytest.fail.Exception(f"at the end of {of}: {error}", pytrace=False) from None


def _to_the_test(trace: TracebackType | None) -> TracebackType | None:
    """The traceback up to the line of the test that used the stage: there a debugger begins."""
    frames: list[TracebackType] = []
    while trace is not None and not trace.tb_frame.f_globals["__name__"].startswith("harness.stage."):
        frames.append(trace)
        trace = trace.tb_next
    kept: TracebackType | None = None
    for one in reversed(frames):
        kept = TracebackType(kept, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return kept


class _Coroutines:
    """Runs the tests that use `async_stage` where no other plugin runs coroutines."""

    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> object | None:
        test = pyfuncitem.obj
        if "async_stage" not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(test):
            return None
        import asyncio  # costs other test runs ten milliseconds

        names = pyfuncitem._fixtureinfo.argnames
        asyncio.run(test(**{name: pyfuncitem.funcargs[name] for name in names}))
        return True
