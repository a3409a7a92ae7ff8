"""The results as charts: SVG, drawn by matplotlib. It does not know how anything was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.metrics import Results
from bench.servers import BY_KEY, OURS, OURS_BARE
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


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    return path


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


def throughput(results: Results, folder: Path) -> Path | None:
    """Bars: deliveries per second of server CPU with 100 clients, saturated."""
    workload = "saturated-100"
    found = [(key, results.of(workload, key).deliveries_per_cpu_s) for key in COLOURS]
    bars = sorted(((key, value) for key, value in found if value is not None), key=lambda bar: bar[1])
    if not bars:
        return None
    figure, axes = _canvas("Deliveries per second of server CPU, 100 clients")
    drawn = axes.barh(
        [BY_KEY[key].title for key, _ in bars],
        [value / 1e6 for _, value in bars],
        color=[COLOURS[key] for key, _ in bars],
    )
    axes.bar_label(drawn, fmt="%.2f M", padding=4)
    axes.set_xlabel("million")
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    return _save(figure, folder / "throughput.svg")


def _lines(
    axes: Axes,
    xs: tuple[int, ...],
    workload_of: Callable[[int], str],
    value_of: Callable[[str, str], float | None],
) -> bool:
    drawn = False
    for key in COLOURS:
        points = [(x, value) for x in xs if (value := value_of(workload_of(x), key)) is not None]
        if len(points) > 1:
            axes.plot([x for x, _ in points], [value for _, value in points], **_style(key))  # type: ignore[arg-type]
            drawn = True
    return drawn


def _logarithmic(axes: Axes, xs: tuple[int, ...]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(xs, [f"{x:,}" for x in xs])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(_axis_label))
    axes.legend(frameon=False, fontsize=9)


def cost_by_clients(results: Results, folder: Path) -> Path | None:
    figure, axes = _canvas("Server CPU per delivery by number of clients, saturated")
    if not _lines(axes, SCALE_CLIENTS, scale_key, lambda w, s: results.of(w, s).cpu_per_delivery_us):
        return None
    _logarithmic(axes, SCALE_CLIENTS)
    axes.set_xlabel("clients, 4 of them senders")
    axes.set_ylabel("µs of server CPU per delivery")
    return _save(figure, folder / "cost-by-clients.svg")


def _milliseconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def latency_by_load(results: Results, folder: Path) -> Path | None:
    figure, axes = _canvas("p99 latency to the last client by load, 100 clients")
    if not _lines(axes, PACES, pace_key, lambda w, s: _milliseconds(results.of(w, s).p99_us)):
        return None
    _logarithmic(axes, PACES)
    axes.set_xlabel("messages per second in all (a line ends where a server does not keep up)")
    axes.set_ylabel("ms")
    return _save(figure, folder / "latency-by-load.svg")


def memory_by_clients(results: Results, folder: Path) -> Path | None:
    """Lines: memory of the server's process while idle clients log in."""
    figure, axes = _canvas("Memory of the server by idle clients")
    drawn = False
    for key in COLOURS:
        runs = [
            run
            for run in results.runs
            if run.server == key
            and run.workload.startswith("idle-")
            and not run.failure
            and not run.disturbed
        ]
        if runs:
            steps = runs[0].measured["logins"]
            base = steps[0]["rss_kb"]
            axes.plot(
                [step["connected"] for step in steps],
                [(step["rss_kb"] - base) / 1024 for step in steps],
                **_style(key),  # type: ignore[arg-type]
            )
            drawn = True
    if not drawn:
        return None
    axes.set_xlabel("idle clients")
    axes.set_ylabel("MB more than without clients")
    axes.legend(frameon=False, fontsize=9)
    return _save(figure, folder / "memory-by-clients.svg")


def draw(results: Results, folder: Path) -> list[Path]:
    """Every chart for which there are results."""
    assert OURS_BARE not in COLOURS, "the same server twice would draw one line over another"
    drawn = (
        chart(results, folder) for chart in (throughput, cost_by_clients, latency_by_load, memory_by_clients)
    )
    return [path for path in drawn if path is not None]
