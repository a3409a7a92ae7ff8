"""`python -m bench.harness`: what the harness itself costs, as medians. It compares no servers.

The results are in docs/transcripts.md. No test checks them, because they depend on how busy the machine is.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bench.machine import describe
from harness import InProcess, Outcome, Script, Stage, load, parse, play
from harness.batch import scripts_in
from tests.app import serve

TRANSCRIPTS = Path(__file__).parents[1] / "tests" / "transcripts"
_NAMES = ("alice", "bob", "carol")


def twenty_lines() -> Script:
    """Three logins, then messages that the two other clients receive: twenty lines in all."""
    logins = "".join(f"{name}> LOGIN {name}\n{name}< OK\n" for name in _NAMES)
    messages = "alice> MSG hi\nbob< MSG alice hi\ncarol< MSG alice hi\n" * 4
    return parse(f"{logins}{messages}alice> PING\nalice< PONG\n")


def time_waits(tries: int) -> list[float]:
    """`wait 60s`, with three clients connected."""
    with Stage(InProcess(serve)) as stage:
        for client in stage.clients(*_NAMES):
            client.connect()
        stage.fence()
        return [_time(lambda: stage.wait(60)) for _ in range(tries)]


def time_plays(scripts: Sequence[Script], tries: int) -> list[float]:
    """All of these scripts, each with a new server."""
    target = InProcess(serve)

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
    tries = max(1, parser.parse_args(argv).tries)
    suite = [load(path) for path in scripts_in([TRANSCRIPTS])]
    rows = (
        ("wait 60s, three clients", time_waits(tries)),
        ("a transcript of 20 lines, three clients", time_plays([twenty_lines()], tries)),
        (f"the {len(suite)} transcripts of this server", time_plays(suite, max(1, tries // 4))),
    )
    print(" ".join(f"{key} {value}" for key, value in describe().items()))
    print(f"{'in process, in virtual time':44}{'median':>12}{'fastest':>12}{'tries':>7}")
    for name, took in rows:
        print(f"{name:44}{_shown(median(took)):>12}{_shown(min(took)):>12}{len(took):>7}")


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms"


if __name__ == "__main__":
    main()
