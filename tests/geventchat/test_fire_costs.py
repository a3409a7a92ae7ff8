"""No line costs the server much more than a plain message of the same length."""

from __future__ import annotations

import pytest

from geventchat.chat import names
from tests.fire import costs
from tests.fire.costs import ARENAS, BOUND, Arena, CostlyLine, Recipe, Search

FOUND = costs.load()


@pytest.mark.parametrize("found", FOUND, ids=range(len(FOUND)))
def test_each_of_the_worst_lines_found_is_below_the_bound(found: CostlyLine) -> None:
    found.check()


def test_a_short_search_finds_nothing_above_the_bound() -> None:
    search = Search(1, FOUND)
    search.run(3.0)
    for worst in search.worst():
        worst.check()


def test_the_worst_lines_of_every_dialect_and_length_are_kept() -> None:
    assert {found.arena for found in FOUND} == set(ARENAS)
    assert all(0 < len(found.line) <= found.arena.length for found in FOUND)


def test_a_plain_message_costs_what_a_plain_message_costs() -> None:
    # On a busy machine one of the two can be disturbed in every sample, but not each time.
    ratios: list[float] = []
    while len(ratios) < 10 and not (ratios and 0.7 < ratios[-1] < 1.4):
        ratios.append(CostlyLine(Arena("line", True, 4_096), Recipe("MSG ", "x"), 1.0).measured().sample(10))
    assert 0.7 < ratios[-1] < 1.4, ratios


def test_a_name_that_is_normalised_before_it_is_measured_is_above_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = CostlyLine(Arena("line", False, 4_096), Recipe("LOGIN q", "\u0323\u0344"), 1.0)
    assert name.check() < BOUND
    monkeypatch.setattr(names, "_TYPED_PER_CHARACTER", 5_000)
    with pytest.raises(AssertionError, match="times a plain message"):
        name.check()


def complaint(line: CostlyLine) -> str:
    """The error for this line if it is above the bound."""
    try:
        line.check()
    except AssertionError as wrong:
        return str(wrong)
    return ""


def test_the_search_finds_a_line_above_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_TYPED_PER_CHARACTER", 5_000)
    # With few kinds of pieces it is found within seconds, on a busy machine too.
    monkeypatch.setattr(costs, "_TEXT", {kind: costs._TEXT[kind] for kind in ("plain", "mark")})
    arena = Arena("line", False, 4_096)
    search = Search(1, [], [arena])
    found = ""
    # On a busy machine a search of a second is a short one, and a line can look worse than it is.
    for _ in range(60):
        search.run(1.0)
        worst = max(search.worst(), key=lambda line: line.ratio)
        if found := complaint(worst):
            break
    assert "times a plain message" in found
