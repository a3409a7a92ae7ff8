"""Half, broken and hostile WebSockets on a real server leave nothing behind."""

from __future__ import annotations

from tests.fire.websockets import broken_upgrades, half_open_upgrades


def test_broken_upgrades_leave_no_descriptor_and_no_fault_behind() -> None:
    assert broken_upgrades(200, seed=1, at_once=100).meanwhile.messages


def test_upgrades_that_are_half_open_are_given_up_and_cost_the_others_nothing() -> None:
    run = half_open_upgrades(300, seed=1, request_s=3.0)
    assert run.given_up.messages
