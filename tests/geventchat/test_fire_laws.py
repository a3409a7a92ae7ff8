"""Clients of every dialect talk to a real server for a few seconds, and what they received is judged by laws."""

from __future__ import annotations

import pytest

from tests.fire.laws import Traffic, traffic
from tests.geventchat.model.laws import JsonChat, RunningServer
from tests.geventchat.test_laws import LossySlashChat
from tests.patience import HANG_S


def talk(clients: int, said: int) -> Traffic:
    """A run in which this much was said and a client came back; a busy machine needs longer, and is given it."""
    seconds = 3.0
    while True:
        run = traffic(clients=clients, seconds=seconds, rate=100, seed=1)
        if run.said > said and run.connections > clients:
            return run
        seconds *= 2
        assert seconds < HANG_S / 2, run  # all runs together take at most HANG_S


def test_no_law_is_broken_and_nothing_is_left() -> None:
    run = talk(clients=100, said=50)
    assert run.received > 20 * run.said


def test_a_dialect_whose_clients_never_log_in_is_named() -> None:
    class Rude(JsonChat):
        def login(self, name: str) -> str:
            return self.say(name)

    class Model(RunningServer):
        dialects = (("json", JsonChat(2)), ("json", Rude(2)))

    with pytest.raises(AssertionError, match=r"no client of dialect 2 \(Rude at json\) was granted a name"):
        traffic(clients=20, seconds=1, rate=100, seed=1, make_model=Model)


def test_a_message_that_a_client_misses_is_reported_with_its_evidence() -> None:
    class Model(RunningServer):
        dialects = (("json", JsonChat(2)), ("slash", LossySlashChat()))

    with pytest.raises(AssertionError, match="BROKEN nothing is lost"):
        traffic(clients=20, seconds=2, rate=100, seed=1, make_model=Model)
