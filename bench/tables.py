"""The results as text: tables of medians, the bars, what went wrong. Markdown, readable in a terminal.

It must not know how anything was measured, and it draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.bars import Bar
from bench.figures import LOAD_LIMIT, Figures, Results, ratio
from bench.servers import BY_KEY, OURS, OURS_BARE
from bench.workloads import Workload


def _rate(value: float) -> str:
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.1f} k"


def microseconds(value: float) -> str:
    if value < 1e3:
        return f"{value:.3g} µs"
    return f"{value / 1e3:.3g} ms" if value < 1e6 else f"{value / 1e6:.3g} s"


def _ratio(value: float) -> str:
    return f"1/{1 / value:.0f}" if 0 < value < 0.1 else f"{value:.2f} ×" if value < 10 else f"{value:.0f} ×"


def kilobytes(value: float) -> str:
    return f"{value:.1f} KB"


def _share(value: float) -> str:
    return f"{value:.2%}"


def _times(value: float) -> str:
    return f"{value:.2f}"


Column = tuple[str, str, Callable[[float], str]]
TALK: tuple[Column, ...] = (
    ("deliveries/s", "deliveries_per_s", _rate),
    ("per CPU second", "deliveries_per_cpu_s", _rate),
    ("CPU per delivery", "cpu_per_delivery_us", microseconds),
    ("p50", "p50_us", microseconds),
    ("p99", "p99_us", microseconds),
    ("max", "max_us", microseconds),
)
IDLE: tuple[Column, ...] = (
    ("memory per client", "memory_per_client_kb", kilobytes),
    ("CPU per login", "cpu_per_login_us", microseconds),
    ("late/early login", "login_growth", _times),
    ("idle CPU", "idle_cpu_share", _share),
)


def _cell(figures: Figures, ours: Figures, name: str, form: Callable[[float], str], is_ours: bool) -> str:
    value = getattr(figures, name)
    if value is None:
        return "–"
    against = None if is_ours else ratio(value, getattr(ours, name))
    return form(value) if against is None else f"{form(value)} ({_ratio(against)})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in a terminal too: the first left, the others right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(aligned)} |"

    rule = "|".join(
        "-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths)
    )
    return "\n".join([line(head), f"|{rule}|", *(line(row) for row in rows)])


def workload_table(results: Results, workload: str) -> str:
    """One workload: a row for each server, figures with their ratio to ours."""
    ours = results.of(workload, OURS)
    columns = IDLE if workload.startswith("idle-") else TALK
    rows = []
    for key in results.servers(workload):
        figures = results.of(workload, key)
        limited = (figures.load_share or 0) > LOAD_LIMIT
        title = (
            BY_KEY[key].title + (" †" if limited else "") + (" ✗" if results.faults(workload, key) else "")
        )
        cells = [_cell(figures, ours, name, form, key == OURS) for _, name, form in columns]
        rows.append([title, *cells])
    return markdown(["server", *(title for title, _, _ in columns)], rows)


def headline(results: Results) -> str:
    """One row for each server, the three figures that most people ask for."""
    rows = []
    idle = next((workload for workload in results.workloads() if workload.startswith("idle-")), "idle-8000")
    places = (
        ("saturated-100", "deliveries_per_cpu_s"),
        ("paced-500", "p99_us"),
        (idle, "memory_per_client_kb"),
    )
    forms = (_rate, microseconds, kilobytes)
    for key in results.servers("saturated-100"):
        if key == OURS_BARE:
            continue
        cells = [BY_KEY[key].title]
        for (workload, name), form in zip(places, forms, strict=True):
            cells.append(
                _cell(results.of(workload, key), results.of(workload, OURS), name, form, key == OURS)
            )
        rows.append(cells)
    head = [
        "server",
        "deliveries per CPU second, saturated",
        "p99 at 500 messages/s",
        "memory per idle client",
    ]
    return markdown(head, rows)


def bars_table(bars: Sequence[Bar]) -> str:
    rows = [[bar.workload, bar.must, bar.outcome.value, bar.numbers] for bar in bars]
    return markdown(["workload", "must hold", "", "measured"], rows)


def _notes(results: Results) -> list[str]:
    notes = []
    talks = [
        w
        for w in results.workloads()
        for s in results.servers(w)
        if (results.of(w, s).load_share or 0) > LOAD_LIMIT
    ]
    if talks:
        notes.append(
            f"† The load's own core was more than {LOAD_LIMIT:.0%} busy: deliveries per second and latency are as "
            "much its limit as the server's. CPU per delivery is not affected."
        )
    faults = [
        f"✗ {workload}, {BY_KEY[key].title}: {fault}"
        for workload in results.workloads()
        for key in results.servers(workload)
        for fault in dict.fromkeys(results.faults(workload, key))
    ]
    return notes + faults


def report(
    results: Results, bars: Sequence[Bar], workloads: Sequence[Workload], head: Mapping[str, str]
) -> str:
    """The whole result as a Markdown page."""
    titles = {workload.key: workload.title for workload in workloads}
    parts = [
        "# Results",
        "",
        *(f"- {name}: {value}" for name, value in head.items()),
        "",
        headline(results),
        "",
        "## What must hold",
        "",
    ]
    parts += [bars_table(bars), "", "## Medians", ""]
    parts += ["In parentheses the ratio to geventchat. Latency is from the speaker to the last listener.", ""]
    for key in results.workloads():
        parts += [f"### {key}: {titles.get(key, key)}", "", workload_table(results, key), ""]
    for note in _notes(results):
        parts += [note, ""]
    return "\n".join(parts)
