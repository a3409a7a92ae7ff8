"""`python -m bench.harness`: what the harness itself costs, as the median of some tries. Measures no server against another.

The figures stand in docs/transcripts.md; no test holds them, since how busy a machine is must not decide about a change.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bench.machine import describe
from harness import InProcess, Outcome, Script, Stage, load, parse, play
from harness.playing.files import scripts_in
from tests.app import serve

TRANSCRIPTS = Path(__file__).parents[1] / "tests" / "transcripts"
_NAMES = ("alice", "bob", "carol")


def twenty_lines() -> Script:
    """Three logins, then messages that the two others hear: twenty lines with all that is heard."""
    logins = "".join(f"{name}> LOGIN {name}\n{name}< OK\n" for name in _NAMES)
    said = "alice> MSG hi\nbob< MSG alice hi\ncarol< MSG alice hi\n" * 4
    return parse(f"{logins}{said}alice> PING\nalice< PONG\n")


def waits(tries: int) -> list[float]:
    """`wait 60s`, with three clients connected."""
    with Stage(InProcess(serve)) as stage:
        for client in stage.clients(*_NAMES):
            client.connect()
        stage.fence()
        return [_took(lambda: stage.wait(60)) for _ in range(tries)]


def plays(scripts: Sequence[Script], tries: int) -> list[float]:
    """All of these scripts, each with a server of its own."""
    target = InProcess(serve)

    def once() -> None:
        for script in scripts:
            if play(script, target).outcome not in (Outcome.PASSED, Outcome.SKIPPED):
                raise SystemExit(f"{script.file} does not pass, so there is nothing to measure")

    return [_took(once) for _ in range(tries)]


def _took(what: Callable[[], None]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.harness", description=__doc__)
    parser.add_argument("--tries", type=int, default=20, metavar="N", help="of each of the short ones (20)")
    tries = max(1, parser.parse_args(argv).tries)
    suite = [load(path) for path in scripts_in([TRANSCRIPTS])]
    rows = (
        ("wait 60s, three clients", waits(tries)),
        ("a transcript of 20 lines, three clients", plays([twenty_lines()], tries)),
        (f"the {len(suite)} transcripts of this server", plays(suite, max(1, tries // 4))),
    )
    print(" ".join(f"{key} {value}" for key, value in describe().items()))
    print(f"{'in process, in virtual time':44}{'median':>12}{'fastest':>12}{'tries':>7}")
    for name, took in rows:
        print(f"{name:44}{_shown(median(took)):>12}{_shown(min(took)):>12}{len(took):>7}")


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms"


if __name__ == "__main__":
    main()
