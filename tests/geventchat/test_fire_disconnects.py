"""A thousand connections torn down in every abrupt way, while fifty members chat."""

from __future__ import annotations

from tests.fire.disconnects import disconnects


def test_abrupt_disconnects_cost_the_others_no_line() -> None:
    run = disconnects(count=1_000, rounds=1, members=50, seed=3)
    assert run.disconnects == 1_000
    assert run.lines_received == 49 * run.lines_said
    assert len(set(run.descriptors)) == 1
