"""Storms of logins stay linear, and those who all come back at once find their names free."""

from __future__ import annotations

import pytest

from tests.fire.process import descriptors_allowed
from tests.fire.storming import login_storm, reconnect_storm

NEEDED = 8_200


@pytest.mark.skipif(
    not descriptors_allowed(NEEDED), reason=f"this system allows fewer than {NEEDED} open files"
)
def test_a_login_costs_the_same_however_many_are_there() -> None:
    # Even one look at the name of everyone who is there would nearly double it. A busy machine makes some storms look
    # dearer towards their end, but not each of three.
    seen: list[float] = []
    while len(seen) < 3 and not (seen and seen[-1] < 1.5):
        seen.append(login_storm(8_000).growth)
    assert seen[-1] < 1.5, seen


def test_everyone_who_was_cut_off_comes_back_at_once_under_the_old_name() -> None:
    run = reconnect_storm(300, 4)
    assert run.logins == 1_200
