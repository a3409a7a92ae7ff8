"""Clients that stop reading are dropped as slow, delay nobody and cost a bounded amount of memory."""

from __future__ import annotations

from tests.fire.stalling import beside_stalled


def test_one_that_stops_reading_among_a_hundred_is_dropped_and_delays_nobody() -> None:
    run = beside_stalled(99, 1, queue_bytes=262_144)
    # A server that waits for the one would never have ended the first of these rounds.
    assert run.rounds_beside >= 5
    # What is owed to one client, and the interpreter's own breath.
    assert run.grown_bytes < 262_144 + 24 * 1024 * 1024


def test_many_that_stop_reading_share_the_memory_of_what_they_are_owed() -> None:
    run = beside_stalled(5, 100, queue_bytes=262_144, a_round=150)
    assert run.rounds_beside >= 2
    # All that is owed to all of them, each a copy of its own, would be 25 MB.
    assert run.grown_bytes < 100 * 262_144 // 2
