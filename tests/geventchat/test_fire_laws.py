"""Clients of every dialect talk to a real server for a few seconds, and what they received is judged by laws."""

from __future__ import annotations

import pytest

from tests.fire.laws import traffic
from tests.geventchat.model.laws import JsonChat, RunningServer
from tests.geventchat.test_laws import LossySlashChat


def test_no_law_is_broken_and_nothing_is_left() -> None:
    run = traffic(clients=100, seconds=3, rate=100, seed=1)
    assert run.connections >= 100
    assert run.said > 50
    assert run.received > 20 * run.said


def test_a_message_that_a_client_misses_is_reported_with_its_evidence() -> None:
    class Model(RunningServer):
        dialects = (("json", JsonChat(2)), ("slash", LossySlashChat()))

    with pytest.raises(AssertionError, match="BROKEN nothing is lost"):
        traffic(clients=20, seconds=2, rate=100, seed=1, make_model=Model)
