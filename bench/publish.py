"""Publish a full run: the page and the charts in docs/benchmark, and the figures in README.md and docs/performance.md.

A figure in one of those files stands between two comments and is replaced as a whole:

    <!-- benchmark: sentence -->
    …
    <!-- end of sentence -->

It does not know how anything was measured. Only `publish` writes.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence

from bench import tables
from bench.metrics import Results, ratio
from bench.requirements import Outcome, Requirement, requirements
from bench.servers import OURS, ROOT

FOLDER = ROOT / "docs" / "benchmark"
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")


class NotPublished(Exception):
    """The results cannot be published, or a page has no place for them."""


def _figure(value: float) -> str:
    """Two significant digits, as in a sentence."""
    return f"{value:.1f}" if value < 9.95 else f"{float(f'{value:.2g}'):,.0f}"


_PEERS = (("asyncio", "the same chat on plain asyncio"), ("redis", "Redis"))


def sentence(results: Results) -> str:
    """The result in one sentence; a peer without a result is not in it."""
    workload, name = "saturated-100", "deliveries_per_cpu_s"
    ours = results.of(workload, OURS).deliveries_per_cpu_s
    times = [
        f"{_figure(value)} times as many as {peer}"
        for key, peer in _PEERS
        if (value := ratio(ours, results.of(workload, key).deliveries_per_cpu_s)) is not None
    ]
    if ours is None or not times:
        empty = [key for key in (OURS, *dict(_PEERS)) if results.missing(workload, key, name)]
        raise NotPublished(f"no result for {', '.join(empty) or 'a server'} in {workload}: measure again")
    return (
        f"In a chat of 100 people, geventchat delivers {_figure(ours / 1e6)} million messages per second of one core: "
        f"{', and '.join(times)}.\n"
    )


def commit() -> str:
    """The commit that is measured, or that it has changed since."""
    command = ["git", "describe", "--always", "--exclude", "*", "--dirty=, with changes"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def conditions(head: Mapping[str, str]) -> str:
    """When and where it was measured."""
    python = ".".join(head["python"].split(".")[:2])
    machine = f"{head['cores']} cores, {head['processor']}, {head['system']}, Python {python}"
    return f"Measured on {head['date']} in {head['took']} ({machine}); {head['disturbed']}.\n"


def _unmet(found: Sequence[Requirement]) -> str:
    rows = [[one.workload, one.text, one.numbers] for one in found if one.outcome is Outcome.NOT_MET]
    counts = {outcome: sum(one.outcome is outcome for one in found) for outcome in Outcome}
    text = "Requirements: " + ", ".join(f"{counts[outcome]} {outcome.value.lower()}" for outcome in Outcome)
    table = tables.markdown(["workload", "requirement", "measured"], rows)
    return f"{text}.\n\n{table}\n" if rows else f"{text}.\n"


def blocks(results: Results, head: Mapping[str, str]) -> dict[str, str]:
    """The blocks that a page can contain, by name."""
    return {
        "sentence": sentence(results),
        "table": f"\n{tables.headline(results)}\n\n",
        "conditions": conditions(head),
        "unmet": f"\n{_unmet(requirements(results))}\n",
    }


def filled(page: str, content: Mapping[str, str], kind: str = "benchmark") -> str:
    """The page with these blocks, whose comments begin with this word."""
    pattern = re.compile(rf"(<!-- {kind}: (?P<name>[a-z]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)
    found = [block["name"] for block in pattern.finditer(page)]
    if not found or page.count(f"<!-- {kind}:") != len(found):
        raise NotPublished("a block has no end, or there is none")
    for name in found:
        if name not in content:
            raise NotPublished(f"unknown block {name!r}; known: {', '.join(content)}")
    return pattern.sub(lambda block: f"{block[1]}{content[block['name']]}{block[3]}", page)


def publish(results: Results, head: Mapping[str, str]) -> None:
    """Fill the pages. The page of all results and the charts are written like those of any run."""
    if not head["kind"].startswith("full"):
        raise NotPublished("only a complete full run can be published")
    content = blocks(results, head)
    try:
        pages = {page: filled(page.read_text("utf-8"), content) for page in PAGES}
    except NotPublished as failed:
        raise NotPublished(f"{', '.join(page.name for page in PAGES)}: {failed}") from None
    for page, text in pages.items():
        page.write_text(text, "utf-8")
