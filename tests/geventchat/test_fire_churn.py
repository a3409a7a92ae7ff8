"""Clients that come and go do not delay those who chat."""

from __future__ import annotations

from tests.fire.churn import churn

LISTENERS = 300
# Of the server's processor time, since this machine can have anything else to do. A few are enough.
MOST_MS = 40


def test_clients_that_come_and_go_do_not_delay_those_who_chat() -> None:
    run = churn(LISTENERS, rounds=3, window_s=1.5, per_s=200, most_starved=1)
    assert run.logins > 300
    assert run.busy_p99_rise < MOST_MS, run
