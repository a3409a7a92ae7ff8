"""Five thousand idle connections: cheap, disconnected exactly when they are due, and their names free again."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.fire.idle import IdleClients, TooSlow, exact_idle_timeouts, idle_clients, idle_memory
from tests.fire.process import descriptors_allowed

MOST_BYTES = 10_240
# Both ends of five thousand connections, in one process.
NEEDED = 10_200
pytestmark = pytest.mark.skipif(
    not descriptors_allowed(NEEDED), reason=f"this system allows fewer than {NEEDED} open files"
)


def test_idle_clients_are_disconnected_at_the_microsecond_and_their_names_are_free() -> None:
    exact_idle_timeouts(5_000, idle_s=60)


def test_an_idle_client_costs_little() -> None:
    # 9,960 with Python 3.11.
    assert idle_memory(5_000) < MOST_BYTES


def idle_clients_in_time(*idle_s: float) -> IdleClients:
    """The first run in which the machine is fast enough for this time."""
    for seconds in idle_s:
        with suppress(TooSlow):
            return idle_clients(300, idle_s=seconds, logged_in=True)
    raise TooSlow


def test_idle_clients_on_real_sockets_are_never_disconnected_early() -> None:
    # How late they are depends on the machine; the exact moment is checked in virtual time.
    assert idle_clients_in_time(1, 5, 50).late_most_s < 30
