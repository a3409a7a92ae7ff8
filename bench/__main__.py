"""`python -m bench`: choose, measure, print, and write the results."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from bench import against, load, machine, publish, tables
from bench.compiler import CompilationFailed
from bench.metrics import Results, Run
from bench.profiling import Profiler, temporary_folder
from bench.requirements import Outcome, requirements
from bench.rounds import Progress, Watch, least_disturbed, measure_all, plan
from bench.servers import BY_KEY, SERVERS, Server
from bench.workloads import FULL, Workload, quick

RESULTS = Path(__file__).parent / "results"
"""The results of a full run; those of a quick run are in its folder `quick`. Git ignores both."""
QUICK_BUDGET_S, FULL_BUDGET_S, PUBLISH_BUDGET_S = 90, 45 * 60, 120 * 60
"""How long a run can take, with the runs that are repeated because other work disturbed them."""
CALM_S = 60
"""How long it waits before such a repetition for the other work to end; a quick run does not wait."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure geventchat beside its peers, on this machine. "
        "A full run takes about 40 minutes, --quick about one.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="about a minute: one short round with fewer clients; writes bench/results/quick",
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="write a complete full run to docs/benchmark, and its figures into README.md and docs/performance.md; repeats "
        "runs that other work disturbed for up to two hours. With --redraw, publish that file",
    )
    parser.add_argument("--servers", metavar="A,B", help="only these: " + ", ".join(BY_KEY))
    parser.add_argument("--workloads", metavar="A,B", help="only these: " + ", ".join(w.key for w in FULL))
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each workload")
    parser.add_argument(
        "--against",
        metavar="COMMIT",
        help="compare this tree with the same server at COMMIT, in the same rounds "
        f"(workloads: {', '.join(comparison.key for comparison in against.COMPARISONS)})",
    )
    parser.add_argument(
        "--with",
        dest="options",
        metavar="OPTIONS",
        type=shlex.split,
        help="compare with these options of the server, such as '--data {folder}', where {folder} is a new folder for each "
        "start; beside the same server without them, unless --against or --beside is given",
    )
    parser.add_argument(
        "--beside",
        metavar="OPTIONS",
        type=shlex.split,
        help="the options of the other server of the comparison",
    )
    parser.add_argument(
        "--dialects",
        metavar="A,B",
        help=f"compare with clients of dialect A; beside B, or {against.LINE} (dialects: {', '.join(against.DIALECTS)})",
    )
    parser.add_argument(
        "--within",
        metavar="PERCENT",
        type=float,
        default=100 * (against.LIMIT - 1),
        help="how much more is still called equal in a comparison (default 5)",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="show where the servers written in Python spend their time (py-spy)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="write the measurements, tables and charts there (default of a full run: bench/results)",
    )
    parser.add_argument(
        "--redraw",
        type=Path,
        metavar="RAW.json",
        help="measure nothing: make tables and charts from this file",
    )
    return parser


def _chosen(
    names: str | None, known: Iterable[str], label: str, parser: argparse.ArgumentParser
) -> list[str]:
    known = list(known)
    wanted = names.split(",") if names else known
    for name in wanted:
        if name not in known:
            parser.error(f"unknown {label} {name!r}; choose from {', '.join(known)}")
    return wanted


def _results_folder(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Path | None:
    """The folder of the results. Only a complete full run can be published."""
    partial = args.servers or args.workloads or args.rounds or args.profile
    if args.publish and (args.quick or partial or args.results):
        parser.error("only a complete full run can be published, and only to docs/benchmark")
    if args.results or partial:
        return args.results  # type: ignore[no-any-return]
    return RESULTS / "quick" if args.quick else RESULTS


def _write(folder: Path, results: Results, workloads: Sequence[Workload], head: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(asdict(run)) for run in results.runs)
    (folder / "raw.json").write_text(f'{{"head": {json.dumps(head)},\n"runs": [\n{rows}\n]}}\n')
    _draw(folder, results, workloads, head)


def _draw(folder: Path, results: Results, workloads: Sequence[Workload], head: dict[str, str]) -> None:
    (folder / "results.md").write_text(tables.report(results, requirements(results), workloads, head))
    from bench import charts  # only here, so that the tables do not need matplotlib

    charts.draw(results, folder)
    print(f"results written to {folder}", file=sys.stderr)


def _print_tables(results: Results) -> bool:
    """Print every table. True when every requirement that was measured is met."""
    for workload in results.workloads():
        print(f"\n{workload}\n{tables.workload_table(results, workload)}")
        for key in results.servers(workload):
            for failure in results.failures(workload, key):
                print(f"  no result for {key}: {failure}")
    found = requirements(results)
    print(f"\n{tables.requirements_table(found)}")
    return all(requirement.outcome is not Outcome.NOT_MET for requirement in found)


def _possible(workloads: Sequence[Workload]) -> tuple[Workload, ...]:
    """The workloads that the load generator can be compiled for."""
    if not any(workload.encrypted for workload in workloads) or load.can_build_tls():
        return tuple(workloads)
    print("skipped: workloads over TLS (OpenSSL's headers are not installed)", file=sys.stderr)
    return tuple(workload for workload in workloads if not workload.encrypted)


def _available(chosen: Sequence[Server]) -> list[Server]:
    for server in chosen:
        if server.missing:
            print(f"skipped: {server.title} ({server.missing} is not installed)", file=sys.stderr)
    return [server for server in chosen if not server.missing]


def _compare(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    known = {comparison.key: comparison for comparison in against.COMPARISONS}
    chosen = [known[key] for key in _chosen(args.workloads, known, "workload", parser)]
    dialects = _chosen(args.dialects or against.LINE, against.DIALECTS, "dialect", parser)
    if len(dialects) > 2:
        parser.error("--dialects compares two dialects")
    cores = machine.choose_cores()
    machine.raise_open_files()
    if not cores.separate:
        print("bench: a comparison needs two cores, one for the server and one for the load", file=sys.stderr)
        return 2
    try:
        load.build()
        dialect, other_dialect = (*dialects, against.LINE)[:2]
        choice = against.Choice(
            args.options or (), args.against or "", args.beside or (), dialect, other_dialect
        )
        limit = 1 + args.within / 100
        within = against.compare(choice, chosen, args.rounds or against.ROUNDS, cores, limit)
    except (against.ComparisonFailed, CompilationFailed, load.LoadFailed) as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 2
    return 0 if within else 1


def _publish(results: Results, head: dict[str, str]) -> bool:
    try:
        publish.publish(results, head)
    except publish.NotPublished as failed:
        print(f"bench: not published: {failed}", file=sys.stderr)
        return False
    _write(publish.FOLDER, results, FULL, head)
    return True


def _redraw(raw: Path, folder: Path | None, *, published: bool) -> int:
    content = json.loads(raw.read_text())
    results = Results(Run(**run) for run in content["runs"])
    if not published:
        _draw(folder or raw.parent, results, FULL, content["head"])
    elif not _publish(results, content["head"]):
        return 2
    return 0 if _print_tables(results) else 1


def _measure(
    workloads: Sequence[Workload],
    chosen: Sequence[Server],
    *,
    budget_s: float,
    calm_s: float,
    watch: Watch | None,
) -> tuple[Results, bool]:
    """The runs, and whether each planned one is among them: an interruption can also end only the repeats of disturbed runs."""
    cores = machine.choose_cores()
    machine.raise_open_files()
    if (share := machine.other_work(cores)) > machine.CALM:
        print(f"other work uses {share:.0%} of a core: some cells will stay empty", file=sys.stderr)
    if not cores.separate:
        print("only one core: the server and the load share it, and every result is too low", file=sys.stderr)
    planned = plan(workloads, chosen)
    runs: list[Run] = []
    load.build()
    try:
        measured = measure_all(
            planned, cores, Progress(planned), budget_s=budget_s, calm_s=calm_s, watch=watch
        )
        for run in measured:
            runs.append(run)  # noqa: PERF402 - runs before an interruption are kept
    except KeyboardInterrupt:
        print("\ninterrupted: the results cover the runs measured so far", file=sys.stderr)
    return Results(least_disturbed(runs)), len(runs) >= len(planned)


def main(argv: Sequence[str] | None = None) -> int:
    """0: every requirement that was measured is met; 1: one is not met; 2: nothing could be measured."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.redraw:
        return _redraw(args.redraw, args.results, published=args.publish)
    if args.against or args.options or args.beside or args.dialects:
        return _compare(args, parser)
    folder = _results_folder(args, parser)
    workloads = quick() if args.quick else FULL
    keys = _chosen(args.workloads, [workload.key for workload in workloads], "workload", parser)
    workloads = tuple(workload for workload in workloads if workload.key in keys)
    workloads = _possible(workloads)
    if args.rounds:
        workloads = tuple(replace(workload, rounds=args.rounds) for workload in workloads)
    server_keys = _chosen(args.servers, BY_KEY, "server", parser)
    chosen = _available([server for server in SERVERS if server.key in server_keys])
    if args.publish and len(chosen) < len(SERVERS):
        parser.error("only a run with every server can be published")
    if args.profile:
        if Profiler.command() is None:
            parser.error("--profile needs py-spy")
        chosen = [server for server in chosen if server.python]
    head = {
        "date": time.strftime("%Y-%m-%d"),
        "kind": "quick (one short round)" if args.quick else "full",
        **machine.describe(),
        "commit": publish.commit(),
    }
    began = time.monotonic()
    budget_s = QUICK_BUDGET_S if args.quick else PUBLISH_BUDGET_S if args.publish else FULL_BUDGET_S
    try:
        with temporary_folder() as profiles:
            profiler = Profiler(Path(profiles))
            watch = profiler.watch if args.profile else None
            results, complete = _measure(
                workloads, chosen, budget_s=budget_s, calm_s=0 if args.quick else CALM_S, watch=watch
            )
            if args.profile:
                print(profiler.report())
    except (CompilationFailed, load.LoadFailed) as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 2
    disturbed = sum(run.disturbed for run in results.runs)
    head["disturbed"] = f"other work disturbed {disturbed} of {len(results.runs)} runs"
    head["took"] = f"{(time.monotonic() - began) / 60:.1f} minutes"
    met = _print_tables(results)
    if results.runs and all(run.disturbed for run in results.runs):
        print("bench: other work disturbed every run; measure again on a quieter machine", file=sys.stderr)
        return 2
    if args.results or (folder and complete):
        assert folder is not None
        _write(folder, results, workloads, head)
    if args.publish and not (complete and _publish(results, head)):
        return 2
    return 0 if met else 1


if __name__ == "__main__":
    # Python then stops the server and the load generator, however this process is ended.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
