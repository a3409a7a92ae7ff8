"""Hours of virtual time with two hundred who come, talk, fall silent, stall and vanish; all that each hears is foreseen."""

from __future__ import annotations

from tests.fire.soaking import soak


def test_hours_of_coming_talking_stalling_and_vanishing_leave_nothing_and_agree_with_the_model() -> None:
    run = soak(hours=3, clients=200, seed=20)
    # Each thing that people do was done; the seed sees to it.
    assert min(run.deeds.values()) >= 1
    assert {"be cut off", "be dropped as slow", "paste", "stall", "vanish", "half-close"} <= set(run.deeds)
    assert run.compared_bytes > 10_000_000
