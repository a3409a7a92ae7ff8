"""The suites that come with the harness, named `suite:NAME` where a command takes files."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.conformance import suite_folder, suites
from harness.targets.choice import UsageError


def test_a_suite_is_a_folder_of_scripts() -> None:
    assert suites() == ["chat-line"]
    assert (suite_folder(Path("suite:chat-line")) / "login.chat").is_file()


def test_any_other_path_stays_as_it_is() -> None:
    assert suite_folder(Path("tests/login.chat")) == Path("tests/login.chat")


def test_an_unknown_suite_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown suite 'chat-lime'; known: chat-line"):
        suite_folder(Path("suite:chat-lime"))


def test_the_command_takes_a_suite_for_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "suite:chat-line", "-k", "session"]) == 0
    assert "3 scripts" in capsys.readouterr().out
    assert main(["check", "suite:chat-lime"]) == 2
