"""Clients of all dialects lose their connections while everyone talks; what each receives has no gap and nothing twice."""

from __future__ import annotations

import pytest

from tests.fire.resume import Resuming, Truth, resume


def test_clients_that_resume_receive_every_message_once_and_in_order() -> None:
    run = resume(clients=2, loops=250, seed=1, most_replayed=1_000)
    assert run.messages > 200
    assert run.resumptions > 0
    assert run.replayed > 0


def test_what_the_server_has_forgotten_is_announced() -> None:
    run = resume(clients=2, loops=250, seed=2, most_replayed=20)
    assert run.resumptions > 0
    assert run.skipped > 0


# --- The checks themselves -------------------------------------------------------------------------------------------


def resuming() -> Resuming:
    one = Resuming("ann", "lobby", most_replayed=10)
    one.welcome(last_id=3, replay_from=4)
    one.hear(4, "lobby bob 0")
    return one


@pytest.mark.parametrize("id", [3, 4, 6])
def test_a_gap_and_a_repetition_are_noticed(id: int) -> None:
    with pytest.raises(AssertionError, match=f"ann in lobby received id {id} after 4"):
        resuming().hear(id, "lobby bob 1")


@pytest.mark.parametrize(("last_id", "replay_from"), [(9, 4), (9, 6), (20, 4), (20, 12), (40, 20)])
def test_a_replay_that_begins_elsewhere_is_noticed(last_id: int, replay_from: int) -> None:
    with pytest.raises(AssertionError, match=f"ann in lobby: replay from {replay_from}, not from"):
        resuming().welcome(last_id, replay_from)


def test_another_text_and_a_missing_end_are_noticed() -> None:
    with pytest.raises(AssertionError, match="id 4 is 'lobby bob 0', not 'd'"):
        resuming().check(Truth({"lobby": ["a", "b", "c", "d"]}))
    with pytest.raises(AssertionError, match="ends at 4, not at 5"):
        resuming().check(Truth({"lobby": ["a", "b", "c", "lobby bob 0", "e"]}))


@pytest.mark.parametrize(
    ("received", "problem"),
    [
        (["lobby bob 0", "lobby bob 2"], "received 'lobby bob 2' where 'lobby bob 1' was due"),
        (["lobby bob 1", "lobby bob 1"], "received 'lobby bob 1' where 'lobby bob 2' was due"),
        (["lobby bob 3"], "received 'lobby bob 3', which no client sent"),
        (["lobby bob 2", "lobby ann 1"], "received 2, not 1"),
    ],
)
def test_a_part_with_a_gap_or_something_else_is_noticed(received: list[str], problem: str) -> None:
    truth = Truth({"lobby": ["lobby bob 0", "lobby ann 0", "lobby bob 1", "lobby bob 2"]})
    truth.check_part("ann", "lobby", ["lobby bob 0", "lobby bob 1"], "ann", echoes=False)
    with pytest.raises(AssertionError, match=problem):
        truth.check_part("ann", "lobby", received, "ann", echoes=False)
