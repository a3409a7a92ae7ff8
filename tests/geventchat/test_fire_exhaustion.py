"""Open files and the accept queue run out: connected clients are served, new ones wait or are refused, and it recovers."""

from __future__ import annotations

import pytest

from tests.fire.exhaustion import descriptor_freed, full_accept_queue, lowered_client_limit, out_of_files
from tests.fire.process import descriptors_allowed


def test_without_free_descriptors_new_clients_wait_and_connected_ones_are_served() -> None:
    run = out_of_files(clients=50, newcomers=30)
    assert run.waited == 27


def test_a_descriptor_freed_by_one_client_serves_the_next() -> None:
    descriptor_freed(clients=20)


def test_a_server_with_few_descriptors_serves_fewer_clients_and_refuses_the_others() -> None:
    # Of 120, some are reserved for the server itself and for closing connections.
    assert lowered_client_limit(files=120, newcomers=100) == 49


NEEDED = 4_300


@pytest.mark.skipif(
    not descriptors_allowed(NEEDED), reason=f"this system allows fewer than {NEEDED} open files"
)
def test_a_full_accept_queue_is_served_completely() -> None:
    run = full_accept_queue(beyond=5)
    assert run.served > 1_000
