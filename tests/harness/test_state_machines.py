"""A model of a protocol runs as a state machine of hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from harness import InProcess
from harness.generate import ServerDiffers, state_machine
from tests.harness.servers.fragile import forgetful, serve
from tests.harness.servers.talkers import Talkers

FEW = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


def test_a_model_can_be_a_state_machine_of_hypothesis() -> None:
    run_state_machine_as_test(state_machine(Talkers, InProcess(serve)), settings=FEW)
    with pytest.raises(ServerDiffers, match=r"FAILED conversation\.chat"):
        run_state_machine_as_test(state_machine(Talkers, InProcess(forgetful)), settings=FEW)
