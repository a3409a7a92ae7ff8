"""Two servers are measured in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from bench import pairs
from bench.load import Load, Session
from bench.pairs import Logins, Round, Traffic


class Answers:
    """A fake session: records its calls, and answers with prepared costs and disturbances; None: nothing was delivered."""

    def __init__(
        self, name: str, log: list[str], costs: Sequence[tuple[float | None, float]], kb: float = 1.0
    ) -> None:
        self.name = name
        self.log = log
        self.costs = iter(costs)
        self.kb = kb
        self.clients = 0

    def request(self, line: str) -> dict[str, Any]:
        word, _, count = line.partition(" ")
        self.log.append(f"{self.name} {word}")
        if word == "memory":
            return {"rss_kb": 20_000 + self.kb * self.clients}
        if word == "fence":
            return {}
        if word == "login":
            self.clients += int(count)
        cost_us, disturbance = next(self.costs)
        return {
            "deliveries": 0 if cost_us is None else 1_000_000,
            "logins": 1_000_000,
            "server_cpu_s": cost_us or 0.0,
            "disturbance": disturbance,
        }


def measured(
    experiment: Traffic | Logins, this: Answers, other: Answers
) -> tuple[dict[str, Round], list[str]]:
    return experiment.measure(cast(Session, this), cast(Session, other)), this.log


CALM, BUSY = pairs.DISTURBED - 0.01, pairs.DISTURBED + 0.01


def test_the_servers_take_turns_and_the_first_one_alternates() -> None:
    log: list[str] = []
    calm = [(1.0, CALM)] * 9
    _, log = measured(Traffic(Load(4), pairs=2), Answers("this", log, calm), Answers("other", log, calm))
    turns = [line for line in log if line.endswith("traffic")][2:]
    assert turns == ["this traffic", "other traffic", "other traffic", "this traffic"]
    assert log[-2:] == ["this fence", "other fence"]


def test_the_ratio_of_a_round_is_the_median_over_undisturbed_pairs() -> None:
    log: list[str] = []
    start = [(9.0, 0.0)] * 2  # the logins and the first turn
    this = Answers("this", log, [*start, (1.0, CALM), (50.0, BUSY), (2.0, CALM), (4.0, CALM)])
    other = Answers("other", log, [*start, (1.0, CALM), (1.0, CALM), (1.0, CALM), (1.0, CALM)])
    found, _ = measured(Traffic(Load(4), pairs=3), this, other)
    assert found["cpu"] == Round(pytest.approx(2.0), pytest.approx(1.0), pytest.approx(2.0))


def test_a_round_with_too_few_undisturbed_pairs_uses_all_and_is_marked() -> None:
    log: list[str] = []
    start = [(9.0, 0.0)] * 2
    most = Traffic.ATTEMPTS * 3
    this = Answers("this", log, [*start, (1.0, CALM), *[(2.0, BUSY)] * (most - 1)])
    other = Answers("other", log, [*start, *[(1.0, CALM)] * most])
    found, _ = measured(Traffic(Load(4), pairs=3), this, other)
    assert found["cpu"] == Round(pytest.approx(2.0), pytest.approx(1.0), pytest.approx(2.0), disturbed=True)
    assert log.count("this traffic") == 1 + most


@pytest.mark.parametrize("cost_us", [None, 0.0])
def test_a_pair_without_deliveries_or_measurable_costs_does_not_count(cost_us: float | None) -> None:
    start = [(9.0, 0.0)] * 2
    this = Answers("this", [], [*start, (1.0, BUSY), (3.0, CALM)])
    other = Answers("other", [], [*start, (cost_us, BUSY), (1.0, CALM)])
    found, _ = measured(Traffic(Load(4), pairs=1), this, other)
    assert found["cpu"].ratio == pytest.approx(3.0)
    nothing = [*start, *[(cost_us, BUSY)] * 3]
    with pytest.raises(pairs.TooBusy, match="too busy"):
        measured(Traffic(Load(4), pairs=1), Answers("this", [], nothing), Answers("other", [], nothing))


def test_logins_are_compared_in_blocks_and_memory_at_their_end() -> None:
    log: list[str] = []
    this = Answers("this", log, [(3.0, CALM), (9.0, BUSY), (3.0, CALM)], kb=9.0)
    other = Answers("other", log, [(2.0, CALM)] * 3, kb=10.0)
    found, _ = measured(Logins(Load(300), pairs=3), this, other)
    assert found["cpu"].ratio == pytest.approx(1.5)
    assert found["memory"] == Round(pytest.approx(9.0), pytest.approx(10.0), pytest.approx(0.9))
    assert this.clients == other.clients == 300
