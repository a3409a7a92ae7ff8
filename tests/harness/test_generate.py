"""Conversations drawn from a model: a right server agrees, a wrong one is caught, and the way there is short and a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from harness import InProcess, Outcome, load, play, render
from harness.cli import main
from harness.generating.generate import conversation, generate
from harness.generating.machine import Diverged, machine_of
from harness.generating.model import Pick
from harness.language.steps import Step, Wait
from tests.harness.servers.fragile import forgetful, serve
from tests.harness.servers.talkers import Talkers

ROOT = Path(__file__).parents[2]
MODEL = ["--model", "tests.harness.servers.talkers:Talkers"]
RIGHT = ["--app", "tests.harness.servers.fragile:serve"]
WRONG = ["--app", "tests.harness.servers.fragile:forgetful"]


def test_a_right_server_agrees_with_its_model() -> None:
    made = generate(Talkers, InProcess(serve), range(1, 21))
    assert made.diverged is None
    assert made.conversations == 20


def test_the_seed_alone_decides_the_conversation() -> None:
    assert (
        render(conversation(Talkers, 7))
        == render(conversation(Talkers, 7))
        != render(conversation(Talkers, 8))
    )


def test_a_divergence_is_shortened_to_what_it_takes() -> None:
    made = generate(Talkers, InProcess(forgetful), range(1, 21))
    assert made.diverged is not None
    assert made.diverged.outcome is Outcome.FAILED
    # Somebody holds a name, somebody else is refused it and goes; then the name can be had, or its holder is not told.
    assert sum(len(turn.actions) for turn in made.diverged.turns) <= 8
    assert not play(conversation(Talkers, made.seed), InProcess(forgetful)).passed


class Monologue:
    """A model that soon has nothing left to say."""

    def __init__(self) -> None:
        self.header = {"server": "fault=reads"}
        self.left = 2

    def move(self, pick: Pick) -> list[Step]:
        self.left -= 1
        return [Wait(1_000)] if self.left >= 0 else []


def test_a_conversation_ends_where_its_model_does_and_asks_for_what_it_asks() -> None:
    assert render(conversation(Monologue, 1)) == (
        "title: the server says what its model says\nserver: fault=reads\n\nwait 1ms\nwait 1ms\n"
    )


def test_the_command_writes_a_transcript_that_shows_it_and_that_a_right_server_passes(
    tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["generate", *MODEL, *WRONG, "--runs", "20", "-o", str(tmp_path)]) == 1
    path = tmp_path / "Talkers-1.chat"
    assert str(path) in capsys.readouterr().out
    script = load(path)
    assert script.title is not None
    assert script.title.startswith("by its model, ")
    assert play(script, InProcess(forgetful)).outcome is Outcome.FAILED
    assert play(script, InProcess(serve)).passed
    before = path.read_bytes()
    assert main(["generate", *MODEL, *WRONG, "--runs", "20", "-o", str(tmp_path)]) == 1
    assert path.read_bytes() == before
    assert (tmp_path / "Talkers-1-2.chat").is_file()


def test_the_command_says_so_where_server_and_model_agree(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["generate", *MODEL, *RIGHT, "--runs", "3", "--seed", "5", "-o", str(tmp_path)]) == 0
    assert "agrees with tests.harness.servers.talkers:Talkers under seeds 5 to 7" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("tests.harness.servers.talkers", "names no model; expected MODULE:MODEL"),
        ("tests.harness.servers.talkers:PEOPLE", "is no model: it cannot be called"),
        ("tests.harness.servers.talkers:Nobody", "has no attribute 'Nobody'"),
    ],
)
def test_what_is_no_model_is_told_as_that(model: str, told: str, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["generate", "--model", model, *RIGHT]) == 2
    assert told in capsys.readouterr().err


FEW = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


def test_a_model_is_a_state_machine_for_those_who_use_hypothesis() -> None:
    run_state_machine_as_test(machine_of(Talkers, InProcess(serve)), settings=FEW)
    with pytest.raises(Diverged, match=r"FAILED conversation\.chat"):
        run_state_machine_as_test(machine_of(Talkers, InProcess(forgetful)), settings=FEW)
