"""Many scripts in one run: which files, on how many processes, how far the run is, and its exit code."""

from __future__ import annotations

import enum
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar, cast

if TYPE_CHECKING:
    from concurrent.futures import Future

    from harness.playing.verdict import Outcome

Context = TypeVar("Context")
Job = TypeVar("Job")
Result = TypeVar("Result")


class ExitCode(enum.IntEnum):
    PASSED = 0
    FAILED = 1
    """A server did not do what a script says."""
    ERROR = 2
    """A script, the target or the command line is wrong."""
    INTERRUPTED = 130


def exit_code(outcomes: Iterable[Outcome]) -> ExitCode:
    """The exit code of a run: that of its worst outcome."""
    from harness.playing.verdict import Outcome

    codes = {
        Outcome.PASSED: ExitCode.PASSED,
        Outcome.SKIPPED: ExitCode.PASSED,
        Outcome.XFAILED: ExitCode.PASSED,
        Outcome.FAILED: ExitCode.FAILED,
        Outcome.XPASSED: ExitCode.FAILED,
        Outcome.SCRIPT_ERROR: ExitCode.ERROR,
        Outcome.TARGET_ERROR: ExitCode.ERROR,
    }
    return max((codes[outcome] for outcome in outcomes), default=ExitCode.PASSED)


# --- files --------------------------------------------------------------------------------------------------


def scripts_in(paths: Iterable[Path]) -> Iterator[Path]:
    """The files, and every *.chat file below folders and suites, except files that hold only definitions."""
    from harness.conformance import suite_folder

    for path in map(suite_folder, paths):
        # Path.is_dir raises for some paths that cannot be reached. Loading one of them says why.
        if os.path.isdir(path):
            yield from (file for file in sorted(_files_below(path)) if not _is_library(file))
        else:
            yield path


_ENVIRONMENT_MARKS = frozenset({"pyvenv.cfg", "conda-meta"})


def _files_below(folder: Path) -> Iterator[Path]:
    """The *.chat files in the folder and its subfolders, each subfolder once, also if links lead to it. Hidden names and
    environments of Python are left out: what is in them was not written for this project."""
    from harness.language.problems import ScriptError, ScriptProblem

    def fail(error: OSError) -> None:
        folder = str(error.filename)
        message = f"cannot read {folder}: {error.strerror}"
        raise ScriptError(ScriptProblem(folder, 0, 0, message, "a readable folder"))

    # Links come after the real subfolders, whose names are the better ones.
    starts, seen = [folder], set[tuple[int, int]]()
    for start in starts:
        for where, subfolders, files in os.walk(start, onerror=fail):
            here, status = Path(where), os.stat(where)
            known = (status.st_dev, status.st_ino) in seen
            if known or (here != folder and not _ENVIRONMENT_MARKS.isdisjoint((*subfolders, *files))):
                subfolders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            starts += [here / name for name in subfolders if os.path.islink(here / name)]
            yield from (here / name for name in files if _is_script_name(name) and _can_be_read(here / name))


def _is_script_name(name: str) -> bool:
    return name.endswith(".chat") and not name.startswith(".")


def _can_be_read(path: Path) -> bool:
    """Whether reading it would come to an end: not a pipe, nor a device. A link to nothing is reported when it is played."""
    return os.path.isfile(path) or not os.path.exists(path)


def has_a_tag(path: Path, tags: frozenset[str]) -> bool:
    """Whether the script has one of these tags; a file that is not a script is reported when it is played."""
    from harness.language.loading import load
    from harness.language.problems import ScriptError
    from harness.language.steps import Tagged

    try:
        found = load(path).setting(Tagged)
    except ScriptError:
        return True
    return found is not None and not tags.isdisjoint(found.tags)


def _is_library(path: Path) -> bool:
    from harness.language.loading import is_library, load
    from harness.language.problems import ScriptError

    try:
        return is_library(load(path))
    except ScriptError:
        return False  # reported when it is played


# --- processes ----------------------------------------------------------------------------------------------


class WorkerDied(Exception):
    """A worker process has ended in the middle of a run."""


def run_jobs(
    work: Callable[[Job, Context], Result],
    jobs: Iterable[Job],
    make_context: Callable[[], Context],
    processes: int,
) -> Generator[Result, None, None]:
    """The result of `work(job, context)` for each job, in order; each process makes one context.

    Closing the iterator ends the processes at once.
    """
    with workers(work, make_context, processes) as start:
        if processes < 2:
            for job in jobs:
                yield start(job).result()
            return
        for future in [start(job) for job in jobs]:
            yield future.result()


@contextmanager
def workers(
    work: Callable[[Job, Context], Result], make_context: Callable[[], Context], processes: int
) -> Iterator[Callable[[Job], Future[Result]]]:
    """A function that starts `work(job, context)`; each process makes one context. A single process is this one, and works
    on a job when it is started.

    With several processes, everything that is passed or returned must be picklable. An exception such as that of Ctrl-C
    ends the processes at once, and so does the end of this process, even if it is killed. If one of them dies, WorkerDied is
    raised.
    """
    if processes < 2:
        from concurrent.futures import Future

        context = make_context()

        def work_now(job: Job) -> Future[Result]:
            future = Future[Result]()
            future.set_result(work(job, context))
            return future

        yield work_now
        return
    # Below the return, because multiprocessing is slow to import.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # Spawned, not forked: a forked process would share the epoll descriptor of a gevent hub with its parent.
    spawn = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(processes, spawn, _prepare, (work, make_context)) as pool:
        try:
            yield lambda job: cast("Future[Result]", pool.submit(_work_on, job))
        except BaseException as error:
            for worker in multiprocessing.active_children():
                if worker not in others:
                    worker.terminate()
            if isinstance(error, BrokenProcessPool):
                raise WorkerDied(
                    "a worker process died: it was killed, or a server in it ended it, as os._exit() does; "
                    "play with -j 1 to find the script"
                ) from error
            raise


class _Worker:
    """State of a worker process between its jobs."""

    work: Callable[..., object]
    make_context: Callable[[], object]
    contexts: list[object]


def _prepare(work: Callable[..., object], make_context: Callable[[], object]) -> None:
    # Ctrl-C reaches all processes of a terminal; the one that reads it ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    _Worker.work, _Worker.make_context, _Worker.contexts = work, make_context, []


def _end_with_parent() -> None:
    """Watch the process that started this one, and end with it: a worker waits for its next job for ever, and keeps its
    shared servers."""
    from multiprocessing import parent_process

    from harness.stage.kernel import original, signals_held

    parent = parent_process()
    assert parent is not None
    begun = original("_thread", "allocate_lock")()

    def watch() -> None:
        begun.release()
        parent.join()
        os._exit(ExitCode.INTERRUPTED)

    begun.acquire()
    with signals_held():  # the thread inherits that: they are for the thread that plays
        original("_thread", "start_new_thread")(watch, ())
    begun.acquire()  # or it could seem to be a thread of the first server


def _work_on(job: object) -> object:
    # Not in the initializer, where an error would break the pool instead of reaching the caller.
    if not _Worker.contexts:
        _Worker.contexts.append(_Worker.make_context())
    return _Worker.work(job, _Worker.contexts[0])


# --- progress -----------------------------------------------------------------------------------------------


class Progress:
    """A line on a terminal that overwrites itself; nothing elsewhere."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self._total = total
        self._stream = stream if stream.isatty() else None

    def show(self, done: int, text: str) -> None:
        """Replace the line."""
        if self._stream is not None:
            self._stream.write(f"\r\x1b[K{done}/{self._total}  {text}"[:84])
            self._stream.flush()

    def clear(self) -> None:
        """Remove the line, so that something else can be written."""
        if self._stream is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
