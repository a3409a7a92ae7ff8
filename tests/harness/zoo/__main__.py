"""Measure wrong verdicts: `python -m tests.harness.zoo --runs 1000`. Exit code 1: there was one that must not be,
or a script could not be played.

`--publish` measures nothing: it writes the figures of a run that was stored in `docs/verdicts.json` into `docs/verdicts.md`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench.publish import NotPublished, filled
from tests.harness.zoo import SERVERS, build
from tests.harness.zoo.measure import (
    LOAD_BEFORE,
    NOT_PLAYED,
    as_json,
    blocks,
    busy,
    counted,
    from_json,
    jobs,
    measured,
    must_not_be,
    tables,
    unpublishable,
)
from tests.harness.zoo.scripts import FENCES

DOCS = Path(__file__).parents[3] / "docs"

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
    parser.add_argument(
        "--publish", action="store_true", help="write the figures of docs/verdicts.json into the page"
    )
    options = parser.parse_args()
    if options.runs < 1 or options.workers < 1 or not 0 <= options.busy <= 4 * (os.cpu_count() or 1):
        parser.error("--runs and --workers are at least 1, and --busy at most four for each processor")
    return options


def publish(docs: Path) -> None:
    """Write the figures of the run that is stored beside the page into the page."""
    page, stored = docs / "verdicts.md", docs / "verdicts.json"
    try:
        counts, settings = from_json(stored.read_text("utf-8"))
        why = unpublishable(counts, settings)
        content = {} if why else blocks(counts, settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotPublished(f"{stored.name} does not hold a run: {error!r}") from None
    if why:
        raise NotPublished(f"{stored.name} {why}")
    page.write_text(filled(page.read_text("utf-8"), content, "zoo"), "utf-8")


def main() -> int:
    options = _options()
    if options.publish:
        try:
            publish(DOCS)
        except NotPublished as failed:
            print(f"not published: {failed}", file=sys.stderr)
            return 2
        return 0
    chosen = [one for one in SERVERS if any(part in one.name for part in options.servers)]
    servers = [one for one in chosen if not one.missing()]
    for one in chosen:
        if one.missing():
            print(f"left out: {one.name}: {one.missing()}", file=sys.stderr)
    if not servers:
        print(f"no server's name contains {' or '.join(options.servers)}", file=sys.stderr)
        return 2
    began, load_before = time.monotonic(), round(os.getloadavg()[0])

    shown = 0

    def progress(count: int, total: int) -> None:
        nonlocal shown
        if count * 20 // total > shown:
            shown = count * 20 // total
            print(f"{count} of {total} plays, {time.monotonic() - began:.0f} s", file=sys.stderr)

    # Each worker has the modules at once: importing them takes a second.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.harness.zoo.measure"])
    with tempfile.TemporaryDirectory() as built, busy(options.busy):
        build(servers, built)
        todo = jobs(servers, options.fences, options.runs, options.seed, built, AT_ONCE)
        with ProcessPoolExecutor(options.workers, mp_context=context) as executor:
            plays = measured(executor, todo, progress)
    settings = {
        **{name: getattr(options, name) for name in ("runs", "seed", "busy", "workers")},
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - began),
        "cores": os.cpu_count(),
        LOAD_BEFORE: load_before,
        "load": round(os.getloadavg()[0]),
    }
    counts = counted(plays)
    if options.json:
        options.json.write_text(as_json(counts, settings))
    if options.markdown:
        options.markdown.write_text("\n".join(tables(counts).values()))
    else:
        print(*tables(counts).values(), sep="\n")
    for one in plays:
        if one.report:
            kind = "wrong failure" if one.played else NOT_PLAYED
            print(f"{kind}: {one.server}, {one.fence}, {one.script}: {one.report}", file=sys.stderr)
    wrong = must_not_be(counts)
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
