"""Half and broken TLS handshakes on a real server leave nothing behind."""

from __future__ import annotations

from tests.fire.tls import broken_handshakes


def test_broken_handshakes_leave_no_descriptor_and_no_fault_behind() -> None:
    assert broken_handshakes(200, seed=1, at_once=100).meanwhile.messages
