"""Clients that stop reading are dropped, do not delay others, and cost a bounded amount of memory."""

from __future__ import annotations

from tests.fire.slow_readers import slow_readers


def test_one_stalled_client_among_a_hundred_is_dropped_without_delaying_others() -> None:
    run = slow_readers(99, 1, queue_bytes=262_144)
    # A server that waits for the stalled client would never have ended the first of these rounds.
    assert run.rounds_beside >= 5
    # The pending bytes of one client, and the memory of the interpreter itself.
    assert run.grown_bytes < 262_144 + 24 * 1024 * 1024


def test_many_stalled_clients_share_the_memory_of_pending_output() -> None:
    run = slow_readers(5, 100, queue_bytes=262_144, lines_per_round=40)
    assert run.rounds_beside >= 2
    # A copy for each would be 25 MB.
    assert run.grown_bytes < 100 * 262_144 // 2
