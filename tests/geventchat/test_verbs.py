"""The commands that `line` and `slash` share: how their arguments are read, and that the help of both lists every command."""

from __future__ import annotations

import re

import pytest

from geventchat.chat.commands import (
    AskHistory,
    AskToken,
    AskTopic,
    ChangePassword,
    Command,
    Delete,
    EnterRoom,
    Help,
    Ignore,
    Impose,
    InvalidCommand,
    Invite,
    Kick,
    LeaveRoom,
    Lift,
    ListBans,
    ListRooms,
    ParseError,
    PassOwnership,
    Register,
    RevokeTokens,
    Sanction,
    SetKey,
    SetModerated,
    SetModerator,
    SetPrivate,
    SetTopic,
    SetVoice,
)
from geventchat.chat.events import Accepted, Action, HelpText
from geventchat.chat.passwords import Secret
from geventchat.dialects import DIALECTS, line, slash
from geventchat.dialects.verbs import HELP, VERBS

BAN, MUTE = Sanction.BAN, Sanction.MUTE

READINGS = [
    ("join dev", EnterRoom("dev")),
    ("join dev  open sesame ", EnterRoom("dev", "open sesame")),
    ("join", EnterRoom("")),
    ("leave now", LeaveRoom()),
    ("rooms", ListRooms()),
    ("history", AskHistory(20)),
    ("history 5 now", AskHistory(5)),
    ("topic", AskTopic()),
    ("topic \u200b", AskTopic()),
    ("topic all  about", SetTopic("all  about")),
    ("topic - ", SetTopic("")),
    ("kick bob", Kick("bob")),
    ("kick bob  too \u200bloud", Kick("bob", "too loud")),
    ("ban bob", Impose(BAN, "bob")),
    ("ban bob 90", Impose(BAN, "bob", 90)),
    ("ban bob 1s", Impose(BAN, "bob", 1)),
    ("ban bob 10M  too loud", Impose(BAN, "bob", 600, "too loud")),
    ("ban bob 1h", Impose(BAN, "bob", 3_600)),
    ("ban bob 7d spam", Impose(BAN, "bob", 604_800, "spam")),
    ("ban 10.0.0.0/8 1h reason", Impose(BAN, "10.0.0.0/8", 3_600, "reason")),
    ("ban bob 999999999d", Impose(BAN, "bob", 999_999_999 * 86_400)),
    ("ban bob 1000000000", Impose(BAN, "bob", None, "1000000000")),
    ("ban bob 0", Impose(BAN, "bob", None, "0")),
    ("ban bob -1h", Impose(BAN, "bob", None, "-1h")),
    ("ban bob 1.5h", Impose(BAN, "bob", None, "1.5h")),
    ("ban bob ١h", Impose(BAN, "bob", None, "١h")),
    ("ban bob h", Impose(BAN, "bob", None, "h")),
    ("ban bob too 1h", Impose(BAN, "bob", None, "too 1h")),
    ("unban bob now", Lift(BAN, "bob")),
    ("bans", ListBans()),
    ("mute bob 10m", Impose(MUTE, "bob", 600)),
    ("unmute bob", Lift(MUTE, "bob")),
    ("invite bob", Invite("bob")),
    ("private on", SetPrivate(on=True)),
    ("private OFF", SetPrivate(on=False)),
    ("moderated on please", SetModerated(on=True)),
    ("moderated off", SetModerated(on=False)),
    ("key open sesame", SetKey("open sesame")),
    ("key -", SetKey("")),
    ("key - -", SetKey("- -")),
    ("delete 17 please", Delete(17)),
    ("delete 0", Delete(0)),
    ("voice bob", SetVoice("bob", on=True)),
    ("unvoice bob", SetVoice("bob", on=False)),
    ("mod bob", SetModerator("bob", on=True)),
    ("unmod bob", SetModerator("bob", on=False)),
    ("owner bob", PassOwnership("bob")),
    ("ignore bob", Ignore("bob", on=True)),
    ("unignore bob", Ignore("bob", on=False)),
    ("register correct  horse", Register(Secret("correct  horse"))),
    ("password old  new", ChangePassword(Secret("old"), Secret("new"))),
    ("token", AskToken()),
    ("token REVOKE all", RevokeTokens()),
]
WRONG = [
    ("history x", "HISTORY [20]", "/history [20]"),
    ("history -5", "HISTORY [20]", "/history [20]"),
    ("kick", "KICK name [reason]", "/kick <name> [reason]"),
    ("ban", "BAN name [10m] [reason]", "/ban <name> [10m] [reason]"),
    ("unban", "UNBAN name", "/unban <name>"),
    ("mute ", "MUTE name [10m] [reason]", "/mute <name> [10m] [reason]"),
    ("unmute", "UNMUTE name", "/unmute <name>"),
    ("invite", "INVITE name", "/invite <name>"),
    ("private", "PRIVATE on|off", "/private on|off"),
    ("private yes", "PRIVATE on|off", "/private on|off"),
    ("moderated", "MODERATED on|off", "/moderated on|off"),
    ("key", "KEY text", "/key <text>"),
    ("key \u200b", "KEY text", "/key <text>"),
    ("voice", "VOICE name", "/voice <name>"),
    ("owner", "OWNER name", "/owner <name>"),
    ("ignore", "IGNORE name", "/ignore <name>"),
    ("register", "REGISTER password", "/register <password>"),
    ("password old", "PASSWORD old new", "/password <old> <new>"),
    ("password old new one", "PASSWORD old new", "/password <old> <new>"),
    ("token gct_", "TOKEN [revoke]", "/token [revoke]"),
    ("delete", "DELETE id", "/delete <id>"),
    ("delete -1", "DELETE id", "/delete <id>"),
    ("delete ١", "DELETE id", "/delete <id>"),
    ("delete 12345678901234567", "DELETE id", "/delete <id>"),
]


def read(name: str, text: str) -> object:
    return DIALECTS[name].interpreter().read(text.encode(), True)


@pytest.mark.parametrize(("text", "command"), READINGS)
def test_a_command_in_both_dialects(text: str, command: Command):
    verb, _, rest = text.partition(" ")
    for spelt in (verb.upper(), verb, verb.capitalize()):
        assert read("line", f"{spelt} {rest}") == command
        assert read("slash", f"/{spelt} {rest}") == command


@pytest.mark.parametrize(("text", "in_line", "in_slash"), WRONG)
def test_a_command_without_what_it_needs_is_answered_by_how_it_is_used(text, in_line: str, in_slash: str):
    assert read("line", text) == InvalidCommand(ParseError.INVALID_ARGUMENT, in_line)
    assert read("slash", f"/{text}") == InvalidCommand(ParseError.INVALID_ARGUMENT, in_slash)


def test_every_shared_command_is_tested_here():
    assert {text.split()[0] for text, _ in READINGS} == set(VERBS)


# --- Help ------------------------------------------------------------------------------------------------------------


def help_of(dialect: str, everything: bool = False) -> list[str]:
    return DIALECTS[dialect].interpreter().encode_private(HelpText(everything)).decode().splitlines()


def test_the_help_of_line_has_every_command_and_no_other():
    *commands, last = help_of("line")
    assert last == "OK"
    assert all(command.startswith("HELP ") for command in commands)
    listed = [
        part.split()[0]
        for command in commands
        for part in command.removeprefix("HELP ").partition(" - ")[0].split(", ")
    ]
    assert sorted(listed) == sorted(line._VERBS)


def test_the_help_of_line_fits_on_a_screen():
    lines = help_of("line")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_the_two_helps_of_slash_have_every_command_once():
    listed = []
    for everything in (False, True):
        header, *commands, blank = help_of("slash", everything)
        assert header.startswith("=== ")
        assert blank == ""
        for command in commands:
            listed += re.findall(r"(?:^|, )(/\w+)", command.partition(" - ")[0])
    assert sorted(listed) == sorted(slash._COMMANDS)


def test_help_all_is_another_command_than_help():
    assert read("slash", "/help") == read("slash", "/help me") == read("line", "HELP all") == Help()
    assert read("slash", "/help all") == read("slash", "/help  ALL ") == Help(everything=True)


def test_every_group_says_what_it_does():
    assert all(group.meaning for group in HELP)


def test_slash_has_a_sentence_for_everything_that_is_accepted():
    sentences = {
        DIALECTS["slash"].interpreter().encode_private(Accepted(action, "dev", "bob")).decode()
        for action in Action
    }
    assert len(sentences) == len(Action)
    assert all(sentence.startswith("[info] ") and sentence.count("\n") == 1 for sentence in sentences)


def test_the_help_of_line_fits_one_screen():
    lines = line.DIALECT.encode_private(HelpText()).decode().splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
