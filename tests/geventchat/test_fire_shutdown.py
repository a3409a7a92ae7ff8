"""A signal in the middle of traffic: everyone gets what was accepted, the notice, and an orderly end."""

from __future__ import annotations

import signal

import pytest

from tests.fire.shutdown import signal_in_traffic, stuck_client

BOTH = pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])


@BOTH
def test_a_signal_in_traffic_loses_no_accepted_line(signum: signal.Signals) -> None:
    run = signal_in_traffic(100, signum, lines_before=500)
    assert run.exit_code == 0
    assert run.received_lines > 40_000


def test_a_shutdown_past_its_deadline_has_its_own_exit_code() -> None:
    assert stuck_client(0.2, None) == 5


@BOTH
def test_a_second_signal_ends_the_server_at_once(signum: signal.Signals) -> None:
    assert stuck_client(600, signum) == 128 + signum
