"""Conversations generated from a model: a correct server agrees, and a difference is found, shortened and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gevent.server import StreamServer

from harness import InProcess, Outcome, ServerSpec, load, play, render
from harness.cli import main
from harness.generate import Pick, conversation, generate
from harness.language.steps import Receive, Send, Step, Wait
from tests.harness.servers.fragile import forgetful, serve
from tests.harness.servers.talkers import Talkers

ROOT = Path(__file__).parents[2]
MODEL = ["--model", "tests.harness.servers.talkers:Talkers"]
CORRECT = ["--app", "tests.harness.servers.fragile:serve"]
FAULTY = ["--app", "tests.harness.servers.fragile:forgetful"]


def test_a_correct_server_agrees_with_its_model() -> None:
    made = generate(Talkers, InProcess(serve), range(1, 21))
    assert made.outcome is Outcome.PASSED
    assert made.conversations == 20


def test_the_seed_alone_decides_the_conversation() -> None:
    assert (
        render(conversation(Talkers, 7))
        == render(conversation(Talkers, 7))
        != render(conversation(Talkers, 8))
    )


def test_a_difference_is_shortened_to_the_moves_that_cause_it() -> None:
    made = generate(Talkers, InProcess(forgetful), range(1, 21))
    assert made.difference is not None
    assert made.outcome is Outcome.FAILED
    # One client holds a name, another is refused it and leaves; then the name is free although it is still held.
    assert sum(len(turn.actions) for turn in made.difference.turns) <= 8
    assert not play(conversation(Talkers, made.seed), InProcess(forgetful)).passed


CONNECTIONS = 0


def remembers(spec: ServerSpec) -> object:
    """Answers in capitals on every 23rd connection of this process."""

    def converse(sock: Any, _address: object) -> None:
        global CONNECTIONS
        CONNECTIONS += 1
        wrong = CONNECTIONS % 23 == 0
        for line in sock.makefile("rb"):
            sock.sendall(line.upper() if wrong else line)

    return StreamServer(("127.0.0.1", 0), converse)


class Echo:
    """A model of a server that says everything again."""

    def __init__(self) -> None:
        self.header: dict[str, str] = {}
        self.left = 5

    def move(self, pick: Pick) -> list[Step]:
        self.left -= 1
        text = pick(("one", "two", "three"))
        return [Send(f"c{self.left}", text), Receive(f"c{self.left}", text)] if self.left >= 0 else []


def test_a_difference_that_does_not_occur_again_is_not_shortened(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    where = ["--app", f"{__name__}:remembers", "--model", f"{__name__}:Echo", "-o", str(tmp_path)]
    assert main(["generate", *where]) == 1
    told = " ".join(capsys.readouterr().out.split())
    path = tmp_path / "Echo-1.chat"
    assert f"not shortened: {path}. The shortest conversation did not differ when it was played again" in told
    assert sum(isinstance(step, Send) for step in load(path).body) == 5
    made = generate(Echo, InProcess(remembers), range(1, 21))
    assert (made.outcome, made.again) == (Outcome.FAILED, Outcome.PASSED)


class TwoMoves:
    """A model whose conversations end after two moves."""

    def __init__(self) -> None:
        self.header = {"server": "fault=reads"}
        self.left = 2

    def move(self, pick: Pick) -> list[Step]:
        self.left -= 1
        return [Wait(1_000)] if self.left >= 0 else []


def test_a_conversation_ends_with_its_model_and_has_its_header() -> None:
    assert render(conversation(TwoMoves, 1)) == (
        "title: the server does what its model says\nserver: fault=reads\n\nwait 1ms\nwait 1ms\n"
    )


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_writes_a_difference_as_a_transcript_that_a_correct_server_passes(
    tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["generate", *MODEL, *FAULTY, "--runs", "20", "-o", str(tmp_path)]) == 1
    path = tmp_path / "Talkers-1.chat"
    assert f"shortened to {path}" in capsys.readouterr().out
    script = load(path)
    assert script.title is not None
    assert script.title.startswith("unlike its model, ")
    assert play(script, InProcess(forgetful)).outcome is Outcome.FAILED
    assert play(script, InProcess(serve)).passed


def test_two_processes_find_the_same_difference(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    written = []
    for jobs in ("1", "2"):
        folder = tmp_path / jobs
        assert main(["generate", *MODEL, *FAULTY, "--runs", "20", "-o", str(folder), "-j", jobs]) == 1
        (path,) = folder.iterdir()
        written.append(path.read_text())
    assert written[0] == written[1]
    capsys.readouterr()
    assert main(["generate", *MODEL, *CORRECT, "--runs", "4", "-o", str(tmp_path), "-j", "2"]) == 0
    assert "in 4 conversations" in capsys.readouterr().out


def test_the_command_does_not_overwrite_an_earlier_transcript(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    earlier = tmp_path / "Talkers-1.chat"
    earlier.write_text("# earlier\n")
    assert main(["generate", *MODEL, *FAULTY, "--runs", "20", "-o", str(tmp_path)]) == 1
    assert earlier.read_text() == "# earlier\n"
    assert (tmp_path / "Talkers-1-2.chat").is_file()


def test_a_transcript_that_another_run_writes_meanwhile_is_not_overwritten(
    tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "found"

    def serve_during_another_run(spec: ServerSpec) -> object:
        folder.mkdir(exist_ok=True)
        (folder / "Talkers-1.chat").write_text("# of the other run\n")
        return forgetful(spec)

    monkeypatch.setattr("tests.harness.servers.fragile.forgetful", serve_during_another_run)
    assert main(["generate", *MODEL, *FAULTY, "--runs", "20", "-o", str(folder)]) == 1
    assert (folder / "Talkers-1.chat").read_text() == "# of the other run\n"
    assert load(folder / "Talkers-1-2.chat").title is not None
    assert f"shortened to {folder / 'Talkers-1-2.chat'}" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_in_the_end_is_an_error(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "found"

    def serve_and_be_in_the_way(spec: ServerSpec) -> object:
        folder.touch()
        return forgetful(spec)

    monkeypatch.setattr("tests.harness.servers.fragile.forgetful", serve_and_be_in_the_way)
    assert main(["generate", *MODEL, *FAULTY, "--runs", "20", "-o", str(folder)]) == 2
    assert capsys.readouterr().err == f"harness: cannot write {folder / 'Talkers-1.chat'}: File exists\n"


def test_the_command_says_how_much_it_has_tried(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["generate", *MODEL, *CORRECT, "--runs", "3", "--seed", "5", "-o", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert (
        "no difference from tests.harness.servers.talkers:Talkers in 3 conversations of up to 30 moves" in out
    )
    assert "seeds 5 to 7" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("tests.harness.servers.talkers", "expected MODULE:MODEL"),
        ("tests.harness.servers.talkers:PEOPLE", "cannot be called"),
        ("tests.harness.servers.talkers:Nobody", "has no attribute 'Nobody'"),
        (
            "collections:Counter",
            "collections:Counter has no header and move; a model here has header and move",
        ),
    ],
)
def test_the_command_refuses_anything_but_a_model(model: str, message: str, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["generate", "--model", model, *CORRECT]) == 2
    assert message in capsys.readouterr().err


class CannotBeMade(TwoMoves):
    def __init__(self) -> None:
        raise LookupError("no rules")


class Raises(TwoMoves):
    def move(self, pick: Pick) -> list[Step]:
        raise LookupError("no rules")


class YieldsText(TwoMoves):
    def move(self, pick: Pick) -> list[Step]:
        return ["a connects"]  # type: ignore[list-item]


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("CannotBeMade", "the model raised LookupError: no rules"),
        ("Raises", "the model raised LookupError: no rules"),
        ("YieldsText", "`move` of the model yielded 'a connects', which is not a step"),
    ],
)
def test_a_mistake_of_the_model_is_an_error(model, message, jobs, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert (
        main(["generate", "--model", f"{__name__}:{model}", *CORRECT, "-o", str(tmp_path), "-j", jobs]) == 2
    )
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
    if "raised" in message:
        assert 'raise LookupError("no rules")' in told
