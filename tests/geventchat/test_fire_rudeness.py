"""A thousand connections torn down in every rude way, while fifty people chat without one line lost, doubled or reordered."""

from __future__ import annotations

from tests.fire.rudeness import endure


def test_every_rude_way_to_go_leaves_fifty_who_chat_in_peace() -> None:
    run = endure(rude=1_000, rounds=1, polite=50, seed=3)
    assert run.rude == 1_000
    assert run.lines_heard == 49 * run.lines_said
    assert len(set(run.descriptors)) == 1
