"""The command line of the harness: arguments in, text out, exit code back.

Exit codes: 0 everything passed, 1 a server did not do what a script says, 2 a script, the target or the command line is
wrong. Each command imports what it needs, so that `--help` stays quick.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from harness.batch import ExitCode, Progress, WorkerDied, exit_code, has_a_tag, run_jobs, scripts_in
from harness.options import add_files, add_options, fence_line, given_words, play_options, target_choice
from harness.report.styled_text import Line, Span, Tone, count, for_stream, listed, terminal_columns, wrapped

if TYPE_CHECKING:
    from harness.explore import Finding
    from harness.playing.verdict import Verdict
    from harness.stage.target import Target
    from harness.targets.named import Targets

Result = TypeVar("Result")

_OUTPUT_CLOSED = 128 + signal.SIGPIPE


class _OutputClosed(Exception):
    """The reader of the output, such as `head`, has closed it."""


class _OutputFailed(Exception):
    """The output cannot be written: its disk is full."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    with _outputs():
        try:
            try:
                return _run(argv)
            finally:
                _write("", sys.stdout)  # what argparse has printed is still in the buffer
        except _OutputFailed as failed:
            with contextlib.suppress(OSError):  # standard error can be what failed
                print(f"harness: cannot write the output: {failed}", file=sys.stderr, flush=True)
            _discard(sys.stdout, sys.stderr)
            return ExitCode.ERROR
        except _OutputClosed:
            _discard(sys.stdout, sys.stderr)
            return _OUTPUT_CLOSED


@contextlib.contextmanager
def _outputs() -> Iterator[None]:
    """Write to nowhere what has no output, because the program that started this process has closed it."""
    with contextlib.ExitStack() as afterwards:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:
                nowhere = afterwards.enter_context(open(os.devnull, "w", encoding="utf-8"))
                afterwards.callback(setattr, sys, name, None)
                setattr(sys, name, nowhere)
        yield


def _discard(*streams: TextIO) -> None:
    """Let nothing be written any more: the interpreter flushes its streams once more when it exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(null, stream.fileno())


def _run(argv: Sequence[str] | None) -> int:
    options = _parser().parse_args(argv)
    from harness.language.problems import LineError, ScriptError
    from harness.targets.choice import UsageError

    try:
        return int(options.run(options))
    except ScriptError as error:
        return _usage_error(str(error))
    except LineError as error:
        return _usage_error(f"{error.message}; expected: {error.expected}")
    except (UsageError, WorkerDied) as error:
        return _usage_error(str(error))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _usage_error(message: str) -> ExitCode:
    _write(f"harness: {message}\n", sys.stderr)
    return ExitCode.ERROR


def _write(text: str, stream: TextIO) -> None:
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            stream.write(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding))
        stream.flush()
    except BrokenPipeError:
        raise _OutputClosed from None
    except OSError as error:
        raise _OutputFailed(error.strerror) from None


def _print(*lines: Line) -> None:
    _write(for_stream(lines, sys.stdout), sys.stdout)


def _say(text: str) -> None:
    columns = terminal_columns()
    _print(*(part for line in text.split("\n") for part in wrapped([Span(line)], columns)))


_File = tuple[Path | None, Callable[[], str]]
"""Where to write, None for nowhere, and what makes the text."""


def _save(*files: _File) -> str:
    """Write these files; the first problem, to be reported when everything else has been, or nothing."""
    problems = []
    for path, make_text in files:
        if path is not None:
            try:
                # The name of a script need not be UTF-8.
                path.write_text(make_text(), encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                problems.append(f"cannot write {path}: {error.strerror}")
    return problems[0] if problems else ""


def _chosen_files(options: argparse.Namespace) -> list[Path]:
    from harness.targets.choice import UsageError

    keyword = (options.keyword or "").casefold()
    tags = frozenset(options.tag.split())
    paths = [path for path in scripts_in(options.files) if keyword in str(path).casefold()]
    paths = [path for path in paths if not tags or has_a_tag(path, tags)]
    if not paths:
        where = " ".join(map(str, options.files))
        raise UsageError(
            f"no *.chat file in {where}"
            + (f" with {options.keyword!r} in its path" if keyword else "")
            + (f" with the tag {' or '.join(options.tag.split())}" if tags else "")
        )
    return paths


def _at_its_target(path: Path, targets: Targets, *, work: Callable[[Path, Target], Result]) -> Result:
    """The work on one script at the target that the options or its header name; picklable."""
    return work(path, targets.of(path))


def _run_on(
    paths: Sequence[Path], options: argparse.Namespace, work: Callable[[Path, Target], Result]
) -> Iterator[Result]:
    """The result of the work on each script."""
    from harness.targets.named import Targets, require_targets

    choice = target_choice(options)
    require_targets(choice, paths)
    return run_jobs(partial(_at_its_target, work=work), paths, partial(Targets, choice), options.jobs)


# --- play, update, check, record ----------------------------------------------------------------------------


def _play(options: argparse.Namespace) -> ExitCode:
    from harness.playing.pipeline import play_file
    from harness.playing.verdict import Outcome
    from harness.report import html, junit
    from harness.report.text import counts, run_summary

    if options.repeat:
        return _repeat(options)
    paths, began = _chosen_files(options), time.monotonic()
    progress = Progress(len(paths), sys.stderr)
    verdicts: list[Verdict] = []
    work = partial(play_file, play_options=play_options(options))
    for verdict in _run_on(paths, options, work):
        verdicts.append(verdict)
        progress.clear()
        if options.verbose or verdict.outcome is not Outcome.PASSED:
            _print_verdict(verdict)
        progress.show(len(verdicts), f"{counts(one.outcome for one in verdicts)}  {verdict.file}")
        if options.exitfirst and exit_code([verdict.outcome]):
            break
    progress.clear()
    took_s = time.monotonic() - began
    unwritten = _save(
        (options.junit, lambda: junit.document(verdicts, took_s)),
        (options.html, lambda: html.document(verdicts, took_s)),
    )
    _say(run_summary(verdicts, took_s))
    return _usage_error(unwritten) if unwritten else exit_code(verdict.outcome for verdict in verdicts)


def _repeat(options: argparse.Namespace) -> ExitCode:
    from harness.playing.pipeline import play_file
    from harness.playing.verdict import Outcome
    from harness.repeat import Repetition, report, run_summary
    from harness.report import html, junit

    paths, began = _chosen_files(options), time.monotonic()
    progress = Progress(len(paths) * options.repeat, sys.stderr)
    done: list[Repetition] = []
    verdicts: list[Verdict] = []
    kept = options.junit is not None or options.html is not None
    plays = _run_on(
        [path for path in paths for _ in range(options.repeat)],
        options,
        partial(play_file, play_options=play_options(options)),
    )
    number, stopped = 0, False
    for number, verdict in enumerate(plays, 1):
        if number % options.repeat == 1 or options.repeat == 1:
            done.append(Repetition(verdict.file))
        done[-1].add(verdict)
        verdicts += [verdict] if kept else []
        stopped = options.exitfirst and bool(done[-1].failed)
        if stopped or number % options.repeat == 0:
            progress.clear()
            if options.verbose or done[-1].outcome is not Outcome.PASSED:
                _print(*report(done[-1], terminal_columns()), *([[]] if done[-1].failed else []))
        progress.show(number, verdict.file)
        if stopped:
            break
    progress.clear()
    took_s = time.monotonic() - began
    unwritten = _save(
        (options.junit, lambda: junit.document(verdicts, took_s)),
        (options.html, lambda: html.document(verdicts, took_s)),
    )
    _say(run_summary(done, took_s))
    return _usage_error(unwritten) if unwritten else exit_code(one.outcome for one in done)


def _print_verdict(verdict: Verdict) -> None:
    from harness.report.text import report

    lines = list(report(verdict, terminal_columns()))
    _print(*lines, *([[]] if len(lines) > 1 else []))


def _update(options: argparse.Namespace) -> ExitCode:
    from harness.playing.verdict import Outcome
    from harness.targets.named import Targets, require_targets
    from harness.update import update

    paths, choice, how = _chosen_files(options), target_choice(options), play_options(options)
    require_targets(choice, paths)
    targets, outcomes, unwritten = Targets(choice), [], False
    for path in paths:
        result = update(path, targets.of(path), how, ends=options.ends)
        unwritten |= result.unwritten
        outcomes.append(result.outcome)
        if result.diff:
            _print(*_diff_lines(result.diff))
        elif result.outcome is Outcome.PASSED:
            _say(f"unchanged {path}")
        else:
            _print_verdict(result.verdict)
            if result.refused:
                _say(f"not rewritten: {result.refused}\n")
    return ExitCode.ERROR if unwritten else exit_code(outcomes)


def _diff_lines(diff: str) -> Iterator[Line]:
    tones = {"+": Tone.GOOD, "-": Tone.BAD, "@": Tone.HINT}
    return ([Span(line, tones.get(line[:1], Tone.PLAIN))] for line in diff.rstrip("\n").split("\n"))


def _check(options: argparse.Namespace) -> ExitCode:
    from harness.language.loading import check, is_library, load
    from harness.language.problems import ScriptError
    from harness.language.validation import require_steps

    columns = terminal_columns()

    def problem(path: Path) -> str:
        try:
            script = load(path)
            plan = check(script)
            if not is_library(script):
                require_steps(plan)
        except ScriptError as error:
            return error.problem.text(columns)
        return ""

    paths = _chosen_files(options)
    problems = [found for found in map(problem, paths) if found]
    for found in problems:
        _say(found)
    if not problems:
        _say("1 script is valid" if len(paths) == 1 else f"{len(paths)} scripts are valid")
    return ExitCode.ERROR if problems else ExitCode.PASSED


def _record(options: argparse.Namespace) -> ExitCode:
    from harness.record.recorder import record
    from harness.targets.choice import host_port

    listen = options.listen if ":" in options.listen else f":{options.listen}"
    record(host_port(options.connect), host_port(listen, lowest=0), options.output, fence_line(options), _say)
    return ExitCode.PASSED


# --- audit, explore, generate, compare ----------------------------------------------------------------------


def _audit(options: argparse.Namespace) -> ExitCode:
    from harness.audit.audit import Audit, Sample, audit_file, report, summary

    paths, began = _chosen_files(options), time.monotonic()
    progress = Progress(len(paths), sys.stderr)
    audits: list[Audit] = []
    plays = 0

    def show() -> None:
        survivors = sum(len(one.survivors) for one in audits)
        progress.show(len(audits), f"{count(plays, 'play')}, {survivors} survived")

    def on_play() -> None:
        nonlocal plays
        plays += 1
        if not plays % 10:
            show()

    sample = Sample(options.most, options.seed)
    work = partial(audit_file, play_options=play_options(options), sample=sample)
    if options.jobs == 1:
        work = partial(work, on_play=on_play)  # other processes cannot call it
    for audited in _run_on(paths, options, work):
        audits.append(audited)
        plays = max(plays, sum(one.played for one in audits))
        progress.clear()
        _print(*report(audited, terminal_columns()))
        show()
    progress.clear()
    _print(*summary(audits, time.monotonic() - began, terminal_columns()))
    return exit_code(audited.outcome for audited in audits)


def _explore(options: argparse.Namespace) -> ExitCode:
    from harness.explore import Exploration, again, explore_files, report
    from harness.interception.schedule import EVERY
    from harness.report.text import counts
    from harness.targets.named import Targets, require_targets

    paths, choice, began = _chosen_files(options), target_choice(options), time.monotonic()
    require_targets(choice, paths)
    seeds = range(options.seed, options.seed + options.runs)
    progress = Progress(len(paths), sys.stderr)
    done: list[Exploration] = []
    how, kinds = play_options(options), options.only or EVERY
    for explored in explore_files(paths, partial(Targets, choice), seeds, how, kinds, options.jobs):
        done.append(explored)
        progress.clear()
        lines = list(report(explored, terminal_columns()))
        if explored.finding is not None:
            lines += again(_one_schedule(explored.finding, options))
        if lines:
            _print(*lines, [])
        outcomes = [one.outcome for one in done]
        progress.show(len(done), f"{counts(outcomes)}  {explored.baseline.file}")
    progress.clear()
    runs = count(sum(one.runs for one in done), "run")
    _say(f"{counts(outcomes)} under {_seeds(seeds)}, {runs} in {time.monotonic() - began:.2f} s")
    return exit_code(outcomes)


def _one_schedule(finding: Finding, options: argparse.Namespace) -> Iterator[str]:
    """The command that plays this script under this schedule."""
    # Everything but what selects scripts and schedules decides what is played.
    given = given_words("explore", options, without=("-k", "--tag", "-j", "--seed", "--runs"))
    yield from (
        "harness",
        "explore",
        finding.verdict.file,
        *given,
        "--seed",
        str(finding.seed),
        "--runs",
        "1",
    )


def _seeds(seeds: range) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def _generate(options: argparse.Namespace) -> ExitCode:
    from harness.generate import difference_script, free_path, play_seed, shortened, write_new
    from harness.language.loading import shown
    from harness.playing.verdict import Outcome
    from harness.targets.choice import UsageError
    from harness.targets.named import HOW_TO_NAME_ONE

    make_model = _model(options, "header", "move")
    stem = f"{options.model.rpartition(':')[2]}-{options.seed}"
    path = free_path(options.folder, stem)
    seeds = range(options.seed, options.seed + options.runs)
    choice = target_choice(options)
    if not choice.named:
        raise UsageError(f"name the server: {HOW_TO_NAME_ONE}")
    how, began = play_options(options), time.monotonic()
    work = partial(play_seed, make_model=make_model, play_options=how, moves=options.moves, file=shown(path))
    verdicts = run_jobs(work, seeds, choice.target, options.jobs)
    played = next((pair for pair in zip(seeds, verdicts, strict=False) if not pair[1].passed), None)
    if played is None:
        size = f"{count(len(seeds), 'conversation')} of up to {count(options.moves, 'move')}"
        took = f"in {time.monotonic() - began:.2f} s"
        _say(f"no difference from {options.model} in {size}, {_seeds(seeds)}, {took}")
        return ExitCode.PASSED
    verdicts.close()
    seed, verdict = played
    again = verdict.outcome
    if verdict.outcome is Outcome.FAILED:
        verdict, again = shortened(
            make_model, choice.target(), seed, verdict, how, moves=options.moves, file=shown(path)
        )
    _print_verdict(verdict)
    if verdict.outcome is Outcome.FAILED:
        try:
            path = write_new(options.folder, stem, difference_script(verdict))
        except OSError as error:
            return _usage_error(f"cannot write {path}: {error.strerror}")
        took = f"in {time.monotonic() - began:.2f} s"
        how_long = (
            f"shortened to {shown(path)}"
            if again is Outcome.FAILED
            else f"not shortened: {shown(path)}. The shortest conversation did not differ when it was played again "
            f"({again.value}), so more than its moves decides, such as what the server remembers of earlier plays"
        )
        _say(f"the server differs from {options.model} under seed {seed}, {took}; {how_long}")
    return exit_code([verdict.outcome])


def _model(options: argparse.Namespace, *parts: str) -> Callable[[], Any]:
    """A factory for the model; an error if the model lacks one of these parts."""
    from harness.model import model_code
    from harness.targets.choice import UsageError, named

    make_model = named(options.model, "model")
    with model_code:
        made = make_model()
    missing = [part for part in parts if not hasattr(made, part)]
    if missing:
        raise UsageError(f"{options.model} has no {listed(missing)}; a model here has {listed(parts)}")
    return make_model


def _laws_model(options: argparse.Namespace) -> Callable[[], Any]:
    """A factory for a model of laws, which says itself what clients send and receive, or has dialects that do."""
    from harness.model import model_code
    from harness.targets.choice import UsageError, named

    spoken = ("login", "say", "read")
    make_model = named(options.model, "model")
    with model_code:
        dialects = getattr(make_model(), "dialects", ())
    if not dialects:
        return _model(options, "header", *spoken)
    for number, pair in enumerate(dialects, 1):
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
            raise UsageError(
                f"dialect {number} of {options.model} is not a pair of an endpoint and an object"
            )
        missing = [part for part in spoken if not hasattr(pair[1], part)]
        if missing:
            raise UsageError(
                f"dialect {number} of {options.model} has no {listed(missing)}; a dialect has {listed(spoken)}"
            )
    return _model(options, "header")


def _laws(options: argparse.Namespace) -> ExitCode:
    from harness.laws.traffic import Stopped, check_laws, report, silent, summary
    from harness.stage.connection import SocketTimeout
    from harness.stage.fence import FenceFailed
    from harness.stage.target import TargetError, UnsupportedSpec
    from harness.stage.transport import HandshakeFailed
    from harness.targets.choice import UsageError
    from harness.targets.named import HOW_TO_NAME_ONE

    make_model, choice = _laws_model(options), target_choice(options)
    if not choice.named:
        raise UsageError(f"name the server: {HOW_TO_NAME_ONE}")
    try:
        judged = check_laws(
            make_model,
            choice.target(),
            play_options(options),
            clients=options.clients,
            seconds=options.seconds,
            rate=options.rate,
            seed=options.seed,
        )
    except (TargetError, UnsupportedSpec) as error:
        _say(f"TARGET ERROR {error}")
        return ExitCode.ERROR
    except (FenceFailed, HandshakeFailed, SocketTimeout, Stopped) as error:
        _say(f"FAILED {error}")
        return ExitCode.FAILED
    columns = terminal_columns()
    _print(*(part for line in report(judged) for part in wrapped(line, columns)))
    _say(summary(judged, options.clients, options.seed))
    if silent(judged):
        raise UsageError(silent(judged))
    return ExitCode.FAILED if judged.broken else ExitCode.PASSED


def _compare(options: argparse.Namespace) -> ExitCode:
    from harness.compare import baseline
    from harness.compare.compare import Cell, compare, compared_servers
    from harness.compare.report import Table, document, junit, markdown, text
    from harness.language.loading import shown
    from harness.targets.choice import UsageError

    if not options.servers:
        raise UsageError("name the servers to compare: --server NAME='COMMAND {port}', for each of them")
    servers = compared_servers(options.servers, options.features, options.adapters)
    known = baseline.read(options.baseline) if options.baseline is not None else frozenset()
    paths, began = _chosen_files(options), time.monotonic()
    baseline.of_run(known, map(shown, paths))  # an error of the baseline is one before anything is played
    progress = Progress(len(paths) * len(servers), sys.stderr)
    cells: list[Cell] = []
    for cell in compare(paths, servers, play_options(options), options.jobs):
        cells.append(cell)
        progress.show(len(cells), f"{cell.server}  {cell.file}")
    progress.clear()
    table = Table(tuple(cells), known)
    took_s = time.monotonic() - began
    unwritten = _save(
        (options.markdown, lambda: markdown(table)),
        (options.html, lambda: document(table)),
        (options.junit, lambda: junit(table, took_s)),
        (options.write_baseline, lambda: baseline.document(table.entries())),
    )
    _print(*text(table, terminal_columns()))
    return _usage_error(unwritten) if unwritten else exit_code(table.outcomes())


# --- arguments ----------------------------------------------------------------------------------------------

# Each command: what runs it, what it does, and whether it takes scripts.
_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], ExitCode], str, bool]] = {
    "play": (_play, "play scripts and report what fails", True),
    "update": (_update, "play scripts and rewrite the expectations that fail", True),
    "record": (_record, "record a live session through a proxy", False),
    "check": (_check, "check scripts without a server", True),
    "audit": (_audit, "find mistakes of a server that scripts would not notice", True),
    "explore": (_explore, "play scripts under many schedules (only with --app)", True),
    "generate": (_generate, "play conversations that a model of the protocol generates", False),
    "laws": (_laws, "judge random traffic of many clients by laws, without predicting any byte", False),
    "compare": (_compare, "play scripts against several servers and write a table", True),
}


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse itself ignores errors here, so a closed pipe would go unnoticed.
        _write(message, file or sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="harness", description="Play scripted conversations of many clients against a line server."
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name, (run, help_text, takes_files) in _COMMANDS.items():
        command = commands.add_parser(
            name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}."
        )
        if takes_files:
            add_files(command)
        add_options(command, name)
        command.set_defaults(run=run)

    def no_command(options: argparse.Namespace) -> ExitCode:
        if options.version:
            _say(f"harness {_version()}")
            return ExitCode.PASSED
        parser.print_help()
        return ExitCode.ERROR

    parser.set_defaults(run=no_command)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("geventchat-harness")
    except PackageNotFoundError:
        return "(not installed)"
