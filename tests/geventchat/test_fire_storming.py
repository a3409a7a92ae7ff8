"""Storms of logins stay linear, and those who all come back at once find their names free."""

from __future__ import annotations

from tests.fire.storming import login_storm, reconnect_storm


def test_a_login_costs_the_same_however_many_are_there() -> None:
    run = login_storm(8_000)
    # Even one look at the name of everyone who is there would double it.
    assert run.growth < 1.6, run.cpu_s_each


def test_everyone_who_was_cut_off_comes_back_at_once_under_the_old_name() -> None:
    run = reconnect_storm(300, 4)
    assert run.logins == 1_200
