"""The results as charts: SVG, drawn by matplotlib. It does not know how anything was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from bench.metrics import Results
from bench.servers import BY_KEY, OURS, OURS_BARE
from bench.tables import kilobytes, rate
from bench.workloads import PACES, SCALE_CLIENTS, pace_key, scale_key

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "geventchat"  # equal results make equal files
matplotlib.rcParams["font.size"] = 10

COLOURS = {
    OURS: "#0b6e4f",
    "threads": "#8c8c8c",
    "asyncio": "#3b7dd8",
    "uvloop": "#7b52ab",
    "gevent": "#9bbf3b",
    "node": "#d9a400",
    "redis": "#c8372d",
    "reference": "#222222",
}


def _canvas(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _style(key: str) -> dict[str, object]:
    return {
        "color": COLOURS[key],
        "label": BY_KEY[key].title,
        "linewidth": 2.6 if key == OURS else 1.6,
        "marker": "o",
        "markersize": 4,
        "zorder": 3 if key == OURS else 2,
    }


def _axis_label(value: float, _position: int) -> str:
    return f"{value:g}" if value < 1000 else f"{value:,.0f}"


def _bars(
    results: Results, workload: str, name: str, title: str, form: Callable[[float], str], *, most_first: bool
) -> Figure | None:
    """One bar for each server, labelled as in the tables. A server without a result has the reason in place of a bar."""
    keys = [key for key in COLOURS if key in results.servers(workload)]
    found = {key: getattr(results.of(workload, key), name) for key in keys}
    if not any(found.values()):
        return None
    # From the bottom up.
    keys.sort(key=lambda key: (found[key] is not None, (found[key] or 0.0) * (1 if most_first else -1)))
    figure, axes = _canvas(title)
    drawn = axes.barh(
        [BY_KEY[key].title for key in keys],
        [found[key] or 0.0 for key in keys],
        color=[COLOURS[key] for key in keys],
    )
    labels = []
    for key in keys:
        value, reason = found[key], results.missing(workload, key, name)
        labels.append(form(value) if value is not None else f"no result: {reason.value}" if reason else "")
    axes.bar_label(drawn, labels, padding=4)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.margins(x=0.14)
    return figure


def throughput(results: Results) -> Figure | None:
    """Bars: deliveries per second of server CPU with 100 clients, saturated."""
    title = "Deliveries per second of server CPU, 100 clients"
    return _bars(results, "saturated-100", "deliveries_per_cpu_s", title, rate, most_first=True)


def memory(results: Results) -> Figure | None:
    """Bars: memory of the server's process for each idle client."""
    workload = results.idle_workload()
    title = f"Memory of the server per client, {int(workload.removeprefix('idle-')):,} idle clients"
    return _bars(results, workload, "memory_per_client_kb", title, kilobytes, most_first=False)


def _lines(
    axes: Axes,
    xs: tuple[int, ...],
    workload_of: Callable[[int], str],
    value_of: Callable[[str, str], float | None],
) -> bool:
    drawn = False
    for key in COLOURS:
        points = [value_of(workload_of(x), key) for x in xs]
        if sum(point is not None for point in points) > 1:
            # A missing result leaves a gap, because a line across it would suggest a value.
            axes.plot(xs, [math.nan if point is None else point for point in points], **_style(key))  # type: ignore[arg-type]
            drawn = True
    return drawn


def _logarithmic(figure: Figure, axes: Axes, xs: tuple[int, ...]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(xs, [f"{x:,}" for x in xs])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(_axis_label))
    # Beside the lines: no corner is free of them in every run.
    figure.set_figwidth(9.6)
    figure.legend(frameon=False, fontsize=9, loc="outside right upper")


def cost_by_clients(results: Results) -> Figure | None:
    figure, axes = _canvas("Server CPU per delivery by number of clients, saturated")
    if not _lines(axes, SCALE_CLIENTS, scale_key, lambda w, s: results.of(w, s).cpu_per_delivery_us):
        return None
    _logarithmic(figure, axes, SCALE_CLIENTS)
    axes.set_xlabel("clients, 4 of them senders (no point: not measured cleanly)")
    axes.set_ylabel("µs of server CPU per delivery")
    return figure


def _milliseconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def latency_by_load(results: Results) -> Figure | None:
    figure, axes = _canvas("p99 latency to the last client by load, 100 clients")
    if not _lines(axes, PACES, pace_key, lambda w, s: _milliseconds(results.of(w, s).p99_us)):
        return None
    _logarithmic(figure, axes, PACES)
    axes.set_xlabel(
        "messages per second in all (no point: not measured cleanly, or the server did not keep up)"
    )
    axes.set_ylabel("ms")
    return figure


CHARTS = {
    "throughput.svg": throughput,
    "cost-by-clients.svg": cost_by_clients,
    "latency-by-load.svg": latency_by_load,
    "memory-per-client.svg": memory,
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Write every chart for which there are results. One for which there are none is removed: it would show others."""
    assert OURS_BARE not in COLOURS, "the same server twice would draw one line over another"
    drawn = []
    for name, chart in CHARTS.items():
        figure = chart(results)
        if figure is None:
            (folder / name).unlink(missing_ok=True)
        else:
            figure.savefig(folder / name, metadata={"Date": None})
            drawn.append(folder / name)
    return drawn
