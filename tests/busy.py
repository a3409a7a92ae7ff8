"""The tests, several times in a row and each time in another order, while busy loops compete for the processors.

`python -m tests.busy` runs everything ten times beside four loops; arguments that are not its own go to pytest. The exit code
is 0 if each round passed. The loops and the rounds are bounded in time. Both end when this program is interrupted or
terminated, and the loops however it ends.

As a plugin of pytest, which each round loads, this module puts the tests into the order of a number.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = "TESTS_ORDER"
"""The environment variable with the number of the order."""

# It looks whether it has become an orphan: its parent can be killed.
_LOOP = """
import os, sys, time
parent, until = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
while os.getppid() == parent and time.monotonic() < until:
    for _ in range(1_000_000): pass
"""
_END_S = 60.0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle the files, and the tests in each: fixtures of a module are still made once."""
    if not (order := os.environ.get(ORDER)):
        return
    chance = random.Random(order)
    files: defaultdict[Path, list[pytest.Item]] = defaultdict(list)
    for item in items:
        files[item.path].append(item)
    items.clear()
    for path in chance.sample(sorted(files), len(files)):
        items += chance.sample(files[path], len(files[path]))


@contextmanager
def busy_loops(count: int, seconds: float) -> Iterator[list[int]]:
    """Programs that do nothing and never wait, by their process numbers."""
    with ExitStack() as stack:
        words = [sys.executable, "-S", "-c", _LOOP, str(os.getpid()), str(seconds)]
        loops = []
        for _ in range(count):
            loop = subprocess.Popen(words)
            stack.callback(loop.wait)
            stack.callback(loop.kill)
            loops.append(loop.pid)
        yield loops


def played(order: int, words: Sequence[str], seconds: float) -> tuple[bool, list[str]]:
    """Whether a round passed, and the end of what pytest printed."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.busy", "-q", *words]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, ORDER: str(order)}, stdout=subprocess.PIPE, text=True
    ) as run:
        try:
            out, _ = run.communicate(timeout=seconds)
        except BaseException as stopped:
            # pytest ends its workers, and the tests what they have started.
            run.send_signal(signal.SIGINT)
            try:
                out, _ = run.communicate(timeout=_END_S)
            finally:
                run.kill()
            if not isinstance(stopped, subprocess.TimeoutExpired):
                raise
            return False, [*_summary(out), f"stopped after {seconds:.0f} s"]
    return run.returncode == 0, _summary(out)


def _summary(out: str) -> list[str]:
    """What pytest printed after its dots: why tests failed, their names, and the counts."""
    lines = out.rstrip().splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith("====")), -1)
    return lines[first:]


def arguments(words: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the arguments of pytest."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.busy",
        usage="%(prog)s [options] [arguments of pytest (-n 2)]",
        description=__doc__.split("\n")[0],
        allow_abbrev=False,
    )
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="how often (10)")
    parser.add_argument("--loops", type=int, default=4, metavar="N", help="how many busy loops (4)")
    parser.add_argument("--order", type=int, default=1, metavar="N", help="the order of the first round (1)")
    parser.add_argument("--minutes", type=float, default=600, metavar="N", help="the limit in time (600)")
    return parser.parse_known_args(words)


def main(words: Sequence[str] | None = None) -> int:
    chosen, to_pytest = arguments(words)
    until, passed = time.monotonic() + 60 * chosen.minutes, 0
    with busy_loops(chosen.loops, 60 * chosen.minutes + 2 * _END_S):
        for number in range(chosen.rounds):
            began = time.monotonic()
            if began >= until:
                break
            order = chosen.order + number
            right, summary = played(order, to_pytest or ["-n", "2"], until - began)
            passed += right
            took, load = time.monotonic() - began, os.getloadavg()[1]
            print(f"round {number + 1} (order {order}) took {took:.0f} s at load {load:.0f}", flush=True)
            for line in summary:
                print(f"  {line}", flush=True)
    print(f"{passed} of {chosen.rounds} rounds passed")
    return 0 if passed == chosen.rounds else 1


if __name__ == "__main__":
    # In the background of a shell, an interrupt would be ignored; a termination would leave pytest running.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
