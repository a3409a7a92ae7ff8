"""TLS handshakes on a real server, whole, half and broken: they delay nobody who chats, and leave nothing behind."""

from __future__ import annotations

from tests.fire.tls import broken_handshakes, handshakes
from tests.patience import STANDSTILL_MS


def test_handshakes_at_the_same_moment_do_not_delay_those_who_chat() -> None:
    run = handshakes(200)
    assert run.meanwhile.messages
    # One after the other without a pause, they would delay a message by almost all that they take of the processor.
    assert run.meanwhile.busy_p99 < 200 * run.cpu_ms_each / 4, run
    assert run.meanwhile.p99 < STANDSTILL_MS, run


def test_broken_handshakes_leave_no_descriptor_and_no_fault_behind() -> None:
    run = broken_handshakes(200, seed=1, at_once=100)
    assert run.meanwhile.messages
    assert run.meanwhile.p99 < STANDSTILL_MS, run
