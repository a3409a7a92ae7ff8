"""A signal in the middle of traffic: everyone gets what was accepted, the notice, and an orderly end."""

from __future__ import annotations

import signal

import pytest

from tests.fire.stopping import in_traffic, stuck_at_the_end

BOTH = pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])


@BOTH
def test_a_signal_during_traffic_of_a_hundred_wrongs_nobody(signum: signal.Signals) -> None:
    stopped = in_traffic(100, signum, lines_before=500)
    assert stopped.exit_code == 0
    assert stopped.heard_lines > 40_000


def test_the_deadline_of_the_shutdown_has_an_exit_code_of_its_own() -> None:
    assert stuck_at_the_end(0.2, None) == 5


@BOTH
def test_a_second_signal_ends_at_once(signum: signal.Signals) -> None:
    assert stuck_at_the_end(600, signum) == 128 + signum
