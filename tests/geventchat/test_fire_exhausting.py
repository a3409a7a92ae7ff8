"""Open files and the kernel's queue run out for real: the old are served, the new wait or are told, and all is well at once."""

from __future__ import annotations

import pytest

from tests.fire.exhausting import full_queue, out_of_files, room_by_leaving, too_few_from_the_start
from tests.fire.process import descriptors_allowed


def test_without_a_file_to_open_the_old_are_served_and_the_new_wait_until_there_is_room() -> None:
    run = out_of_files(clients=50, newcomers=30)
    assert run.waited == 27


def test_the_place_of_one_who_leaves_goes_to_the_one_who_waits() -> None:
    room_by_leaving(clients=20)


def test_a_server_that_may_open_few_files_takes_fewer_clients_and_tells_the_others() -> None:
    # Of 120, some are kept for the server itself and for those who are on their way out.
    assert too_few_from_the_start(files=120, newcomers=100) == 49


NEEDED = 4_300


@pytest.mark.skipif(
    not descriptors_allowed(NEEDED), reason=f"this system allows fewer than {NEEDED} open files"
)
def test_a_full_queue_of_the_kernel_is_worked_off_and_nobody_in_it_is_lost() -> None:
    run = full_queue(beyond=5)
    assert run.served > 1_000
