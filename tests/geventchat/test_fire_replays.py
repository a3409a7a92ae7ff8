"""Clients that come back together are sent all they missed, and do not delay those who chat."""

from __future__ import annotations

from tests.fire.replays import replays

CLIENTS, MESSAGES = 200, 500
# Of the server's processor time, since this machine can have anything else to do.
MOST_MS = 50
# Parts on their way to each client, not all that it has missed.
MOST_BYTES = CLIENTS * 65_536


def test_clients_that_come_back_together_do_not_delay_those_who_chat() -> None:
    run = replays(CLIENTS, MESSAGES, rounds=2)
    assert run.bytes_each > 50_000
    assert run.busy_p99_rise < MOST_MS, run
    assert max(run.grown_bytes) < MOST_BYTES, run
