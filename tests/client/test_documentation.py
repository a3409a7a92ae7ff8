"""docs/client.md says what the code does: its numbers, its commands, its keys and its roles."""

from __future__ import annotations

import itertools
import re

import pytest

from geventchat.client import conversation, history, keys, outgoing_queue, render, session
from geventchat.client.app import parse_arguments
from geventchat.client.editor import Requested
from geventchat.client.input import COMMANDS, InvalidInput, parse_input
from geventchat.client.options import NOTIFICATIONS, SYMBOLS, THEMES, Options
from geventchat.client.session import ExitCode, backoff
from geventchat.client.styles import ROLES
from geventchat.dialects import DIALECTS
from tests.client.real_server import ROOT
from tests.client.test_editor import at

PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")
# A sentence goes on behind the end of a line.
TEXT = " ".join(PAGE.split())


def section(heading: str) -> str:
    """What is below a heading, up to the next one of the same depth."""
    depth = heading.split()[0]
    return PAGE.split(f"\n{heading}\n", 1)[1].split(f"\n{depth} ", 1)[0]


def seconds(value: float) -> str:
    return f"{value:g}"


PAUSES = [seconds(pause_s) for pause_s in itertools.islice(backoff(), 7)]


@pytest.mark.parametrize(
    "sentence",
    [
        f"looks for `json` on port {DIALECTS['json'].port}, then for `line` on port {DIALECTS['line'].port}",
        f"At most {outgoing_queue.MAX_UNDER_WAY} messages are unanswered at a time",
        f"with at most {outgoing_queue.MAX_UNDER_WAY} messages unanswered",
        f"within {keys.BURST_GAP_S * 1000:.0f} milliseconds count as a paste",
        f"its last {Options().scrollback} messages are loaded",
        f"A text of more than {render.MAX_CHARACTERS} characters is cut",
        f"the last {history.KEPT_LINES} to {history.GROWN_LINES} lines",
        f"after {seconds(Options().keep_alive)} seconds without input (`keep-alive`)",
        f"`no answer for {seconds(session.SHOWN_SILENCE_S)} s`, and counts",
        f"After {seconds(Options().reconnect_after)} seconds (`reconnect-after`)",
        f"after {PAUSES[0]} seconds, then after {', '.join(PAUSES[1:-1])} and every {PAUSES[-1]} seconds",
    ],
)
def test_a_number_is_that_of_the_code(sentence: str) -> None:
    assert sentence in TEXT


def test_numbers_that_are_words_are_those_of_the_code() -> None:
    assert (conversation.Shown.SHORT.value, "with thirty names at most" in TEXT) == (30, True)
    searched = conversation.SEARCHED_PAGES * conversation.PAGE
    assert (searched, "in up to a thousand of them" in TEXT) == (1000, True)
    assert (Options().paste_lines, "A paste of more than five lines" in TEXT) == (5, True)
    assert (session.SHOWN_SILENCE_S, "after three seconds the line above the input says" in TEXT) == (3, True)
    assert "shortened at random by up to a quarter" in TEXT


def test_every_command_is_on_the_page_and_every_command_on_the_page_is_one() -> None:
    typing = section("## Typing")
    named = {verb for verb in re.findall(r"`(/[a-z]+)", typing) if verb != "/etc"}
    assert {command.verb for command in COMMANDS} - named == {
        # What undoes one of the others.
        *("/unban", "/bans", "/unmute", "/unvoice", "/unmod"),
    }
    for verb in named:
        found = parse_input(verb)
        assert not (isinstance(found, InvalidInput) and found.message.startswith("Unknown command")), verb


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("PageUp, PageDown, Ctrl-Home, Ctrl-End", ["page-up", "page-down", "ctrl-home", "ctrl-end"]),
        (
            "Ctrl-N, Ctrl-P, Alt-1 to Alt-0, Alt-A",
            ["ctrl-n", "ctrl-p", *[f"alt-{digit}" for digit in "1234567890"], "alt-a"],
        ),
        ("Ctrl-Z", ["ctrl-z"]),
        ("Ctrl-L", ["ctrl-l"]),
    ],
)
def test_every_key_of_the_window_does_something(row: str, names: list[str]) -> None:
    assert f"| {row} |" in PAGE
    for name in names:
        (action,) = at("draft|").press(name)
        assert isinstance(action, Requested)


def test_roles_themes_and_other_choices_are_all_on_the_page() -> None:
    without_notes = re.sub(r" \([^)]*\)", "", TEXT)
    for setting, words in (("theme", THEMES), ("symbols", SYMBOLS), ("notify", NOTIFICATIONS)):
        listed = ", ".join(f"`{word}`" for word in words[:-1])
        assert f"`{setting}` is {listed} or `{words[-1]}`" in without_notes
    (roles,) = re.findall(r"The roles are (.*?)\.", TEXT)
    assert tuple(re.findall(r"`([a-z]+)`", roles)) == ROLES


def test_the_usage_names_every_option_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    usage = PAGE.split("```")[1]
    assert set(re.findall(r"--[a-z-]+", usage)) == set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {
        "--help"
    }


def test_every_exit_code_is_on_the_page() -> None:
    codes = re.findall(r"^\| ([\d, ]+) \|", section("## In scripts"), re.MULTILINE)
    assert [int(code) for row in codes for code in row.split(",")] == [code.value for code in ExitCode]
