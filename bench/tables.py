"""The results as text: tables of medians, requirements, failures. Markdown, readable in a terminal.

It does not know how anything was measured, and it draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.metrics import DISTURBED, DISTURBED_LATENCY, LOAD_LIMIT, Reason, Results, ratio
from bench.requirements import Requirement
from bench.servers import BY_KEY, OURS, OURS_BARE
from bench.workloads import Workload


def rate(value: float) -> str:
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
TRAFFIC: tuple[Column, ...] = (
    ("deliveries/s", "deliveries_per_s", rate),
    ("per CPU second", "deliveries_per_cpu_s", rate),
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


PAIRS: tuple[Column, ...] = (
    ("CPU per delivery", "cpu_per_delivery_us", microseconds),
    ("beside", "beside_cpu_us", microseconds),
    ("ratio", "cpu_ratio", _times),
)


def _columns(workload: str) -> tuple[Column, ...]:
    if "-to-" in workload:
        return PAIRS
    return IDLE if workload.startswith("idle-") else TRAFFIC


def _cell(results: Results, workload: str, key: str, name: str, form: Callable[[float], str]) -> str:
    """A metric with its spread over the rounds and its ratio to ours, or the reason for having no result."""
    value = getattr(results.of(workload, key), name)
    if value is None:
        reason = results.missing(workload, key, name)
        return f"– {reason.value}" if reason else "–"
    range_share = results.spread(workload, key, name)
    text = form(value) if range_share is None else f"{form(value)} ±{range_share / 2:.0%}"
    relative = None if key == OURS else ratio(value, getattr(results.of(workload, OURS), name))
    return text if relative is None else f"{text} ({_ratio(relative)})"


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
    """One workload: a row for each server, metrics with their ratio to ours."""
    columns = _columns(workload)
    rows = []
    for key in results.servers(workload):
        load_limited = (results.of(workload, key).load_share or 0) > LOAD_LIMIT
        title = BY_KEY[key].title + (" †" if load_limited else "")
        title += " ✗" if results.failures(workload, key) else ""
        cells = [_cell(results, workload, key, name, form) for _, name, form in columns]
        rows.append([title, *cells])
    return markdown(["server", *(title for title, _, _ in columns)], rows)


def headline(results: Results) -> str:
    """One row for each server, with the three metrics that most people ask for."""
    idle = results.idle_workload()
    columns = (
        ("deliveries per CPU second, saturated", "saturated-100", "deliveries_per_cpu_s", rate),
        ("p99 at 500 messages/s", "paced-500", "p99_us", microseconds),
        ("memory per idle client", idle, "memory_per_client_kb", kilobytes),
    )
    rows = [
        [
            BY_KEY[key].title,
            *(_cell(results, workload, key, name, form) for _, workload, name, form in columns),
        ]
        for key in results.servers("saturated-100")
        if key != OURS_BARE
    ]
    return markdown(["server", *(title for title, _, _, _ in columns)], rows)


def requirements_table(found: Sequence[Requirement]) -> str:
    rows = [[one.workload, one.text, one.outcome.value, one.numbers] for one in found]
    return markdown(["workload", "requirement", "", "measured"], rows)


_REASONS = {
    Reason.DISTURBED: f"disturbed: in at least half of the rounds, also when they were repeated, other work took more than "
    f"{DISTURBED:.0%} of the time in which the server or the load generator was ready to run; for a latency, more than "
    f"{DISTURBED_LATENCY:.0%}.",
    Reason.OVERLOADED: "overloaded: the server did not keep up with the rate of the senders, so a latency would only say for "
    "how long the run lasted.",
    Reason.FAILED: "failed: the server lost, changed or reordered a message, closed a connection, or did not answer in time.",
}


def _reasons(results: Results) -> set[Reason | None]:
    """Every reason for which a cell of a table is empty."""
    return {
        results.missing(workload, key, name)
        for workload in results.workloads()
        for key in results.servers(workload)
        for _, name, _ in _columns(workload)
    }


def _notes(results: Results) -> list[str]:
    cells = [(workload, key) for workload in results.workloads() for key in results.servers(workload)]
    notes = []
    if any((results.of(*cell).load_share or 0) > LOAD_LIMIT for cell in cells):
        notes.append(
            f"† The load generator used more than {LOAD_LIMIT:.0%} of its core, so it limits deliveries per second and "
            "latency as much as the server does. CPU per delivery can be half as much again in some of its rounds, because a "
            "server that waits joins fewer messages."
        )
    notes += [text for reason, text in _REASONS.items() if reason in _reasons(results)]
    notes += [
        f"✗ {workload}, {BY_KEY[key].title}: {failure}"
        for workload, key in cells
        for failure in dict.fromkeys(results.failures(workload, key))
    ]
    return notes


def report(
    results: Results, found: Sequence[Requirement], workloads: Sequence[Workload], head: Mapping[str, str]
) -> str:
    """The whole result as a Markdown page."""
    titles = {workload.key: workload.title for workload in workloads}
    parts = ["# Results", "", *(f"- {name}: {value}" for name, value in head.items()), ""]
    parts += [headline(results), "", "## Requirements", "", requirements_table(found), ""]
    parts += [
        "## Medians",
        "",
        "Medians of the undisturbed rounds, ± half of their range; in parentheses the ratio to geventchat.",
        "Latency is from the sender to the last client that receives the message.",
        "",
    ]
    for key in results.workloads():
        parts += [f"### {key}: {titles.get(key, key)}", "", workload_table(results, key), ""]
    for note in _notes(results):
        parts += [note, ""]
    return "\n".join(parts)
