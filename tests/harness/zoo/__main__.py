"""Measure wrong verdicts: `python -m tests.harness.zoo --runs 1000`. Exit code 1: there was one that must not be."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.harness.zoo import SERVERS, build
from tests.harness.zoo.measure import as_data, as_markdown, busy, jobs, measured
from tests.harness.zoo.scripts import FENCES

AT_ONCE = 66
"""Runs in one job: some of each script, and few enough that the processes end together."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.harness.zoo", description=__doc__)
    parser.add_argument("--runs", type=int, default=280, help="plays for each server and fence (280)")
    parser.add_argument(
        "--servers", nargs="+", default=[""], help="only servers whose names contain one of these"
    )
    parser.add_argument("--fences", nargs="+", choices=FENCES, default=list(FENCES), help="only these")
    parser.add_argument("--seed", type=int, default=1, help="which scripts are played in which order (1)")
    parser.add_argument("--busy", type=int, default=0, help="processes that compete for the processors (0)")
    parser.add_argument("--workers", type=int, default=8, help="processes that play (8)")
    parser.add_argument("--json", type=Path, help="write everything that was counted")
    parser.add_argument("--markdown", type=Path, help="write the tables; else they are printed")
    options = parser.parse_args()
    if options.runs < 1 or options.workers < 1 or not 0 <= options.busy <= 4 * (os.cpu_count() or 1):
        parser.error("--runs and --workers are at least 1, and --busy at most four for each processor")
    return options


def main() -> int:
    options = _options()
    chosen = [one for one in SERVERS if any(part in one.name for part in options.servers)]
    servers = [one for one in chosen if not one.missing()]
    for one in chosen:
        if one.missing():
            print(f"left out: {one.name}: {one.missing()}", file=sys.stderr)
    if not servers:
        print(f"no server's name contains {' or '.join(options.servers)}", file=sys.stderr)
        return 2
    began = time.monotonic()

    shown = 0

    def progress(count: int, total: int) -> None:
        nonlocal shown
        if count * 20 // total > shown:
            shown = count * 20 // total
            print(f"{count} of {total} plays, {time.monotonic() - began:.0f} s", file=sys.stderr)

    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as built, busy(options.busy):
        build(servers, built)
        todo = jobs(servers, options.fences, options.runs, options.seed, built, AT_ONCE)
        with ProcessPoolExecutor(options.workers, mp_context=context) as executor:
            plays = measured(executor, todo, progress)
    settings = {name: getattr(options, name) for name in ("runs", "seed", "busy", "workers")}
    data = as_data(plays, {**settings, "seconds": round(time.monotonic() - began)})
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(as_markdown(data))
    else:
        print(as_markdown(data))
    for row in data["rows"]:
        for text in row["reports"][:1]:
            print(f"wrong failure: {row['server']}, {row['fence']}, {row['script']}: {text}", file=sys.stderr)
    wrong = [row for row in data["rows"] if row["wrong failures"] or "never" in row["wrong passes"]]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
