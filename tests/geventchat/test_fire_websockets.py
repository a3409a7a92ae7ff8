"""Half, broken and hostile WebSockets on a real server leave nothing behind."""

from __future__ import annotations

from tests.fire.websockets import broken_upgrades, half_open_upgrades
from tests.patience import STANDSTILL_MS


def test_broken_upgrades_leave_no_descriptor_and_no_fault_behind() -> None:
    run = broken_upgrades(200, seed=1, at_once=100)
    assert run.meanwhile.messages
    assert run.meanwhile.p99 < STANDSTILL_MS, run


def test_upgrades_that_are_half_open_are_given_up_and_cost_the_others_nothing() -> None:
    run = half_open_upgrades(300, seed=1, request_s=3.0)
    for seen in (run.meanwhile, run.given_up):
        assert seen.messages
        assert seen.p99 < STANDSTILL_MS, run
