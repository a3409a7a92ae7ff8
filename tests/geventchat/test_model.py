"""The server compared with a model of the chat in random conversations, in order and under random schedules."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from harness import InProcess, play
from harness.generate import conversation, generate
from harness.interception.schedule import Schedule
from harness.report import styled_text
from harness.report.text import report
from tests.app import serve
from tests.geventchat.model import chat

MODELS = [chat.LineChat, chat.JsonChat, chat.SlashChat, chat.Chat, chat.ModeratedChat, chat.AccountChat]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_server_sends_what_the_model_expects(model: type[chat.Chat]) -> None:
    made = generate(model, InProcess(serve), range(1, 26))
    assert made.difference is None, styled_text.plain(report(made.difference))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_server_sends_the_same_under_any_schedule(model: type[chat.Chat]) -> None:
    for seed in range(101, 111):
        verdict = play(conversation(model, seed), InProcess(serve).intercepted_by(Schedule(seed)))
        assert verdict.passed, f"seed {seed}\n{styled_text.plain(report(verdict))}"


def test_the_conversations_cover_what_clients_can_do() -> None:
    played = "".join(
        line
        for seed in range(200)
        for line in conversation(chat.Chat, seed).source
        if not line.startswith("title")
    )
    for words in (
        "ERR username-taken", "Username already taken.", "[DM from ", '"type": "dm"', "DM ann ", "INFO idle-timeout",
        "half-closes", "aborts", "closes", "ERR line-too-long", "Invalid UTF-8", "[leave] ", "[error] Idle timeout.",
        '"user_left"', " disconnected", "GET / HTTP/1.1", "\\r\\n", "=== Online Users (3) ===", "USER zoë", "Idle timeout\"",
    ):  # fmt: skip
        assert words in played, words


@pytest.mark.parametrize("model", [chat.ModeratedChat, chat.AccountChat], ids=lambda model: model.__name__)
def test_what_is_decided_lasts_in_long_conversations(model: type[chat.Chat]) -> None:
    made = generate(model, InProcess(serve), range(1, 11), moves=120)
    assert made.difference is None, styled_text.plain(report(made.difference))


def test_the_conversations_about_a_room_cover_what_people_do_there() -> None:
    played = "".join(
        line for seed in range(50) for line in conversation(chat.ModeratedChat, seed, 120).source
    )
    for words in (
        "INFO kicked", "You were kicked from dev", "INFO bob kicked", "ERR banned", "You are banned from 'dev'", " forever",
        "is no longer banned", "ERR muted", "You are muted.", "only people with voice", "has voice", "ERR wrong-key",
        "ERR invitation-required", "invites you to dev", " owns dev", "ERR no-such-message", ": (deleted)", "ERR not-permitted",
        "Usage: /kick", "ERR too-many-rooms", "You ignore ", "ERR key-too-long",
    ):  # fmt: skip
        assert words in played, words


def test_the_conversations_about_accounts_cover_what_people_do_with_them() -> None:
    played = "".join(line for seed in range(50) for line in conversation(chat.AccountChat, seed, 120).source)
    for words in (
        "is your name now", "ERR name-reserved", "Passwords have 8-128 characters.", "ERR password-required", "Wrong password.",
        "ERR too-many-attempts", "INFO logged-in-elsewhere", "You have logged in elsewhere.", "is offline, message kept",
        "Your password is changed.", "Your tokens are useless now.", "You ignore ", "ERR not-permitted", "ERR invalid-username",
        "You are logged in already.", "[DM from ", "DM ann ",
    ):  # fmt: skip
        assert words in played, words


def test_the_model_is_independent_of_the_server() -> None:
    for path in Path(chat.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.split(".")[0] == "geventchat"], path
