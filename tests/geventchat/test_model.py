"""The server against a second description of the chat, in conversations that nobody wrote; calmly and under schedules."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from harness import InProcess, play
from harness.generating.generate import conversation, generate
from harness.interception.schedule import Schedule
from harness.reporting import styled_text
from harness.reporting.report import report
from tests.app import serve
from tests.geventchat.model import chat

ROOMS = [chat.LineChat, chat.JsonChat, chat.SlashChat, chat.Chat]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_the_server_says_what_the_model_says(room: type[chat.Chat]) -> None:
    made = generate(room, InProcess(serve), range(1, 26))
    assert made.diverged is None, styled_text.plain(report(made.diverged))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_it_says_so_under_any_schedule(room: type[chat.Chat]) -> None:
    for seed in range(101, 111):
        verdict = play(conversation(room, seed), InProcess(serve).intercepted_by(Schedule(seed)))
        assert verdict.passed, f"seed {seed}\n{styled_text.plain(report(verdict))}"


def test_the_conversations_are_not_of_nothing() -> None:
    """What comes up at all in the first hundred of a mixed room."""
    said = "".join(
        line
        for seed in range(100)
        for line in conversation(chat.Chat, seed).source
        if not line.startswith("title")
    )
    for word in (
        "ERR username-taken", "Username already taken.", "[DM from ", '"type": "dm"', "DM ann ", "INFO idle-timeout",
        "half-closes", "aborts", "closes", "ERR line-too-long", "Invalid UTF-8", "[leave] ",
        '"user_left"', " disconnected", "GET / HTTP/1.1", "\\r\\n", "=== Online Users (3) ===", "USER zoë",
    ):  # fmt: skip
        assert word in said, word


def test_the_model_is_made_without_the_server() -> None:
    for path in Path(chat.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.split(".")[0] == "geventchat"], path
