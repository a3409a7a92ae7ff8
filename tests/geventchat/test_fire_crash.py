"""A real server is killed at random moments while people talk, and started again on the same data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fire.crash import ROOMS, Known, _check_order, _Message, crash
from tests.patience import HANG_S


def test_a_kill_loses_only_the_end_of_what_was_said_and_uses_no_id_twice(tmp_path: Path) -> None:
    run = crash(tmp_path / "data", rounds=4, seed=2, window_s=HANG_S)
    assert run.told > 200
    assert run.topics > 0
    assert run.bans > 0


def message(id: int, certain: bool = False) -> _Message:
    return _Message("lobby", id, f"text {id}", 0.0, certain=certain)


def test_a_loss_that_is_not_at_the_end_is_noticed() -> None:
    live = [message(1), message(2), message(3)]
    _check_order(live, live[1:])
    with pytest.raises(AssertionError, match=r"id=2.* is missing, and a later one is not"):
        _check_order(live, [live[1]])


def test_the_loss_of_something_that_was_on_the_disk_is_noticed() -> None:
    live = [message(1, certain=True), message(2, certain=True)]
    with pytest.raises(AssertionError, match=r"id=2.* was on the disk"):
        _check_order(live, live[1:])


def test_an_id_with_two_texts_and_a_text_that_was_never_said_are_noticed() -> None:
    told = Known(sent={"one", "two"})
    told.remember(ROOMS[0], 1, "one")
    with pytest.raises(AssertionError, match="id 1 of lobby is 'one' and 'two'"):
        told.remember(ROOMS[0], 1, "two")
    with pytest.raises(AssertionError, match="no client sent 'tw'"):
        told.remember(ROOMS[0], 2, "tw")
