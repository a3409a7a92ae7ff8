"""`python -m bench`: the command line. Chooses, measures, prints, and keeps the results."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from bench import against, load, machine, tables
from bench.bars import Outcome, bars
from bench.figures import Results, Run
from bench.profiling import Profiler, temporary_folder
from bench.rounds import DISTURBED, Progress, disturbance, measure_all, plan
from bench.servers import BY_KEY, SERVERS, Server
from bench.workloads import FULL, Workload, quick

RESULTS = Path(__file__).parent / "results"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure geventchat beside its peers, in one run on this machine."
    )
    parser.add_argument(
        "--quick", action="store_true", help="under a minute: short, one round, fewer clients"
    )
    parser.add_argument("--servers", metavar="A,B", help="only these: " + ", ".join(BY_KEY))
    parser.add_argument("--workloads", metavar="A,B", help="only these: " + ", ".join(w.key for w in FULL))
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds of each workload")
    parser.add_argument(
        "--profile", action="store_true", help="tell where Python servers spend their time (py-spy)"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="write raw numbers, table and pictures there (default for a whole run: bench/results)",
    )
    parser.add_argument(
        "--against",
        metavar="COMMIT",
        help="compare this tree with the same server at COMMIT, in the same rounds "
        f"(workloads: {', '.join(comparison.key for comparison in against.COMPARISONS)})",
    )
    parser.add_argument(
        "--redraw",
        type=Path,
        metavar="RAW.json",
        help="measure nothing: bars, table and pictures from this file",
    )
    return parser


def _chosen(
    names: str | None, known: dict[str, object], what: str, parser: argparse.ArgumentParser
) -> list[str]:
    wanted = names.split(",") if names else list(known)
    for name in wanted:
        if name not in known:
            parser.error(f"there is no {what} {name!r}; there are: {', '.join(known)}")
    return wanted


def _keep(
    folder: Path, results: Results, workloads: Sequence[Workload], head: dict[str, str], *, raw: bool
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if raw:
        rows = ",\n".join(json.dumps(asdict(run)) for run in results.runs)
        (folder / "raw.json").write_text(f'{{"head": {json.dumps(head)},\n"runs": [\n{rows}\n]}}\n')
    (folder / "table.md").write_text(tables.report(results, bars(results), workloads, head))
    from bench import pictures  # here, for whoever only looks at figures need not have matplotlib

    for path in pictures.draw(results, folder):
        print(f"drawn: {path}", file=sys.stderr)


def _show(results: Results) -> bool:
    """Print every table and bar. Is every bar that was measured met?"""
    for workload in results.workloads():
        print(f"\n{workload}\n{tables.workload_table(results, workload)}")
        for key in results.servers(workload):
            for fault in results.faults(workload, key):
                print(f"  no result for {key}: {fault}")
    found = bars(results)
    print(f"\n{tables.bars_table(found)}")
    return all(bar.outcome is not Outcome.NOT_MET for bar in found)


def _available(chosen: Sequence[Server]) -> list[Server]:
    for server in chosen:
        if server.missing:
            print(f"left out: {server.title}: {server.missing} is not installed", file=sys.stderr)
    return [server for server in chosen if not server.missing]


def _compare(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    known = {comparison.key: comparison for comparison in against.COMPARISONS}
    chosen = [known[key] for key in _chosen(args.workloads, dict(known), "workload", parser)]
    cores = machine.choose_cores()
    machine.raise_open_files()
    if not cores.apart:
        print("bench: --against needs two cores, one for the server and one for the load", file=sys.stderr)
        return 2
    try:
        load.build()
        within = against.compare(args.against, chosen, args.rounds or against.ROUNDS, cores)
    except (against.ComparisonFailed, load.LoadFailed) as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 2
    return 0 if within else 1


def main(argv: Sequence[str] | None = None) -> int:
    """0: every bar measured is met; 1: one is not; 2: it could not be measured."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.redraw:
        kept = json.loads(args.redraw.read_text())
        results = Results(Run(**run) for run in kept["runs"])
        _keep(args.results or args.redraw.parent, results, FULL, kept["head"], raw=False)
        return 0 if _show(results) else 1
    if args.against:
        return _compare(args, parser)
    workloads = quick() if args.quick else FULL
    keys = _chosen(args.workloads, {w.key: w for w in workloads}, "workload", parser)
    workloads = tuple(workload for workload in workloads if workload.key in keys)
    if args.rounds:
        workloads = tuple(replace(workload, rounds=args.rounds) for workload in workloads)
    server_keys = _chosen(args.servers, dict(BY_KEY), "server", parser)
    chosen = _available([server for server in SERVERS if server.key in server_keys])
    whole = not (args.servers or args.workloads or args.profile)
    cores = machine.choose_cores()
    machine.raise_open_files()
    if not cores.apart:
        print("one core only: server and load share it, and every figure says so too little", file=sys.stderr)
    if args.profile:
        if Profiler.command() is None:
            parser.error("--profile needs py-spy")
        chosen = [server for server in chosen if server.python]
    head = {
        "date": time.strftime("%Y-%m-%d"),
        "kind": "quick (one short round)" if args.quick else "full",
        **machine.describe(),
    }
    planned = plan(workloads, chosen)
    try:
        load.build()
        with temporary_folder() as folder:
            profiler = Profiler(Path(folder))
            watch = profiler.watch if args.profile else None
            began = time.monotonic()
            budget_s = 55 if args.quick else 18 * 60
            runs: list[Run] = []
            try:
                for run in measure_all(planned, cores, Progress(planned), budget_s=budget_s, watch=watch):
                    runs.append(run)  # noqa: PERF402 - what was measured before an interruption is kept
            except KeyboardInterrupt:
                print("\nstopped: what follows is what was measured until now", file=sys.stderr)
                whole = False
            results = Results(runs)
            disturbed = sum(disturbance(run) > DISTURBED for run in results.runs)
            head["disturbed"] = (
                f"{disturbed} of {len(results.runs)} runs lost over {DISTURBED:.0%} of a core to others"
            )
            head["took"] = f"{(time.monotonic() - began) / 60:.1f} minutes"
            if args.profile:
                print(profiler.report())
    except load.LoadFailed as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 2
    met = _show(results)
    if args.results or whole:
        _keep(args.results or RESULTS, results, workloads, head, raw=True)
    return 0 if met else 1


if __name__ == "__main__":
    # However it is ended, the server and the load that it has begun end with it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
