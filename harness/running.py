"""Many script files played at one target, one after another or on several processes. Knows no terminal."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.asking import Target
from harness.errors import ScriptError
from harness.player import Manner, play
from harness.script import is_library, load
from harness.steps import Script
from harness.targets import Address, Command, InProcess
from harness.verdict import Outcome, Verdict


class NoTarget(Exception):
    """What was said about the target makes none; the message says why."""


@dataclass(frozen=True, slots=True)
class TargetChoice:
    """The target as options name it; it can be handed to another process."""

    server: str | None = None
    connect: str | None = None
    app: str | None = None
    shared: bool = False

    def target(self) -> Target:
        """The target itself."""
        if sum(choice is not None for choice in (self.server, self.connect, self.app)) != 1:
            raise NoTarget("say what is tested: a server command, an address or an app; one of them")
        if self.server is not None:
            return Command(self.server)
        if self.connect is not None:
            return Address(*_addresses(self.connect))
        return InProcess(_factory(self.app or ""))


def _addresses(text: str) -> tuple[object, ...]:
    named = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if named:
        return ({name: host_port(address) for name, address in named.items()},)
    return host_port(text)


def host_port(text: str) -> tuple[str, int]:
    """HOST:PORT, [HOST]:PORT or :PORT -> what a socket connects to."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise NoTarget(f"{text!r} is no address; expected HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def _factory(name: str) -> object:
    module, colon, attribute = name.partition(":")
    if not colon:
        raise NoTarget(f"{name!r} names no factory; expected MODULE:FACTORY")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: object = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as wrong:
        raise NoTarget(f"{name}: {wrong}") from wrong
    return found


def scripts_in(paths: Iterable[Path]) -> Iterator[Path]:
    """The files themselves, and of folders every *.chat below them that has steps of its own."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        yield from (file for file in sorted(path.rglob("*.chat")) if not _is_library(file))


def _is_library(path: Path) -> bool:
    """Definitions alone, for others to include: nothing to play."""
    try:
        return is_library(load(path))
    except (ScriptError, OSError):
        return False


def play_file(path: Path, target: Target, manner: Manner = Manner()) -> Verdict:  # noqa: B008  # frozen
    """The verdict on one file; a file that cannot be read or is no script is a verdict too."""
    try:
        return play(load(path), target, manner)
    except ScriptError as wrong:
        return Verdict(Script(file=str(path)), Outcome.SCRIPT_WRONG, target=str(target), reason=str(wrong))
    except OSError as wrong:
        reason = f"cannot read {path}: {wrong.strerror}"
        return Verdict(Script(file=str(path)), Outcome.SCRIPT_WRONG, target=str(target), reason=reason)


def play_files(paths: Iterable[Path], choice: TargetChoice, manner: Manner, jobs: int) -> Iterator[Verdict]:
    """A verdict for each file, in order, as it comes."""
    if jobs < 2:
        target = choice.target()
        for path in paths:
            yield play_file(path, target, manner)
        return
    # Spawned, not forked: a forked copy of a gevent hub is a hub that others read from too.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_take_target, initargs=(choice,)) as pool:
        waiting = [pool.submit(_play_there, path, manner) for path in paths]
        try:
            for one in waiting:
                yield one.result()
        finally:
            for one in waiting:
                one.cancel()


_there: list[Target] = []


def _take_target(choice: TargetChoice) -> None:
    _there.append(choice.target())


def _play_there(path: Path, manner: Manner) -> Verdict:
    return play_file(path, _there[0], manner)
