"""`python -m bench.harness`: what the harness itself costs, as medians. It compares no servers.

The results are in docs/transcripts.md. They depend on how busy the machine is, so only one row is tested: the transcript of 20
lines takes less than ten times as much processor time as is documented there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bench.machine import describe
from harness import InProcess, InProcessAsyncio, Outcome, Script, Stage, Target, load, parse, play
from harness.batch import scripts_in
from tests.app import serve
from tests.harness.servers import aio, faulty

TRANSCRIPTS = Path(__file__).parents[1] / "tests" / "transcripts"
ROUNDS = 20_000
_NAMES = ("alice", "bob", "carol")


def twenty_lines() -> Script:
    """Three logins, then messages that the two other clients receive: twenty lines in all."""
    logins = "".join(f"{name}> LOGIN {name}\n{name}< OK\n" for name in _NAMES)
    messages = "alice> MSG hi\nbob< MSG alice hi\ncarol< MSG alice hi\n" * 4
    return parse(f"{logins}{messages}alice> PING\nalice< PONG\n")


def time_waits(target: Target, tries: int) -> list[float]:
    """`wait 60s`, with three clients connected."""
    with Stage(target) as stage:
        for client in stage.clients(*_NAMES):
            client.connect()
        stage.fence()
        return [_time(lambda: stage.wait(60)) for _ in range(tries)]


def time_rounds(target: Target, rounds: int) -> list[float]:
    """A line and its echo, which must have arrived by the time the line counts as processed."""

    def once() -> None:
        client.send("hi")
        if client.take(100) != b"hi\n":
            raise SystemExit(f"{target}: an answer was missed")

    with Stage(target) as stage:
        client = stage.client("alice")
        return [_time(once) for _ in range(rounds)]


def time_plays(target: Target, scripts: Sequence[Script], tries: int) -> list[float]:
    """All of these scripts, each with a new server."""

    def once() -> None:
        for script in scripts:
            if play(script, target).outcome not in (Outcome.PASSED, Outcome.SKIPPED):
                raise SystemExit(f"{script.file} does not pass, so it cannot be measured")

    return [_time(once) for _ in range(tries)]


def _time(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.harness", description=__doc__)
    parser.add_argument(
        "--tries", type=int, default=20, metavar="N", help="runs of each short measurement (20)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        metavar="N",
        help=f"lines that are echoed; no echo must be missed ({ROUNDS})",
    )
    options = parser.parse_args(argv)
    tries, rounds = max(1, options.tries), max(1, options.rounds)
    gevent, asyncio = InProcess(serve), InProcessAsyncio(aio.chat)
    suite = [load(path) for path in scripts_in([TRANSCRIPTS])]
    rows = (
        ("gevent: wait 60s, three clients", time_waits(gevent, tries)),
        ("gevent: a line and its echo", time_rounds(InProcess(faulty.serve), rounds)),
        ("gevent: a transcript of 20 lines, three clients", time_plays(gevent, [twenty_lines()], tries)),
        (f"the {len(suite)} transcripts of this server", time_plays(gevent, suite, max(1, tries // 4))),
        ("asyncio: wait 60s, three clients", time_waits(asyncio, tries)),
        ("asyncio: a line and its echo", time_rounds(InProcessAsyncio(aio.main_coroutine), rounds)),
        ("asyncio: a transcript of 20 lines, three clients", time_plays(asyncio, [twenty_lines()], tries)),
    )
    print(" ".join(f"{key} {value}" for key, value in describe().items()))
    print(f"{'in process, in virtual time':50}{'median':>12}{'fastest':>12}{'tries':>7}")
    for name, took in rows:
        print(f"{name:50}{_shown(median(took)):>12}{_shown(min(took)):>12}{len(took):>7}")


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms"


if __name__ == "__main__":
    main()
