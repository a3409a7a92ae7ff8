"""What is typed: wishes, completion, names, addresses, options."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventchat.client.address import Address, BadAddress, port_of, split
from geventchat.client.completing import candidates
from geventchat.client.heard import NameFault
from geventchat.client.naming import fault, refusal, tidy
from geventchat.client.options import KEEP_ALIVE_S, parse
from geventchat.client.speech import Dialect
from geventchat.client.words import (
    COMMANDS,
    HELP,
    AskHelp,
    AskPing,
    AskUsers,
    Leave,
    Mistake,
    Say,
    Tell,
    split_lines,
    wish_of,
)


@pytest.mark.parametrize(
    ("typed", "wish"),
    [
        ("hello  there", Say("hello  there")),
        ("  hello ", Say("hello")),
        ("", None),
        ("   ", None),
        ("/help", AskHelp()),
        ("/users", AskUsers()),
        ("/USERS", AskUsers()),
        ("/ping", AskPing()),
        ("/quit", Leave()),
        ("/exit", Leave()),
        ("/q", Leave()),
        (" /q ", Leave()),
        ("/dm bob psst", Tell("bob", "psst")),
        ("/dm  bob   two  words ", Tell("bob", "two  words")),
        ("/dm bob", Mistake("Usage: /dm NAME TEXT")),
        ("/dm", Mistake("Usage: /dm NAME TEXT")),
        ("//etc/passwd", Say("/etc/passwd")),
        ("//", Say("/")),
        ("///", Say("//")),
    ],
)
def test_a_typed_line_is_one_wish(typed: str, wish: object) -> None:
    assert wish_of(typed) == wish


def test_an_unknown_command_says_what_would_be_right() -> None:
    assert wish_of("/foo bar") == Mistake("There is no command /foo. /help lists them all.")
    assert wish_of("/quit now") == Mistake("/quit stands alone: nothing comes after it.")


@given(st.text())
def test_any_text_that_begins_with_a_slash_can_be_said(text: str) -> None:
    assert wish_of("//" + text) == Say("/" + text.rstrip())


@given(st.text())
def test_nothing_that_can_be_typed_breaks_the_words(text: str) -> None:
    for line in split_lines(text):
        assert "\n" not in line
        assert "\r" not in line
        wish_of(line)


def test_every_command_of_the_help_is_understood_and_completed() -> None:
    for row, _ in HELP:
        command = row.split()[0]
        if command != "//TEXT":
            assert command in COMMANDS
            assert not isinstance(wish_of(f"{command} bob hi" if command == "/dm" else command), Mistake)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("/", ("/", ["/dm ", "/exit", "/help", "/ping", "/q", "/quit", "/users"])),
        ("/Q", ("/Q", ["/q", "/quit"])),
        ("/dm b", ("b", ["Bea ", "bob "])),
        ("/dm ", ("", ["alice ", "Bea ", "bob "])),
        ("b", ("b", ["Bea: ", "bob: "])),
        ("ask BO", ("BO", ["bob "])),
        ("", ("", [])),
        ("hello ", ("", [])),
        ("hello /q", ("/q", [])),
    ],
)
def test_tab_completes_commands_and_names(before: str, expected: object) -> None:
    assert candidates(before, ["bob", "alice", "Bea"]) == expected


@pytest.mark.parametrize("name", ["alice", "a", "x" * 20, "Zoë", "日本", "a_b-c.d", "नमस्ते", "7"])
def test_a_good_name_has_no_fault(name: str) -> None:
    assert fault(tidy(name)) is None


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("", "A name has at least one character."),
        ("   ", "A name has at least one character."),
        ("a b", "A name has no spaces in it."),
        ("x" * 21, "A name has at most 20 characters; this one has 21."),
        ("a!b", "A name is made of letters, digits, '_', '-' and '.', not of '!'."),
        ("a\x1bb", "A name is made of letters, digits, '_', '-' and '.', not of U+001B."),
        ("/quit", "A name is made of letters, digits, '_', '-' and '.', not of '/'."),
    ],
)
def test_a_bad_name_is_told_what_is_wrong_with_it(name: str, wrong: str) -> None:
    assert fault(tidy(name)) == wrong


def test_a_name_is_composed_before_its_length_counts() -> None:
    assert fault(tidy("e\u0301" * 20)) is None


@pytest.mark.parametrize("why", NameFault)
def test_every_refusal_of_a_name_names_it(why: NameFault) -> None:
    assert "alice" in refusal(why, "alice")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost", ("localhost", None)),
        ("localhost:4000", ("localhost", 4000)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:4000", ("::1", 4000)),
        ("[::1]", ("::1", None)),
        ("::1", ("::1", None)),
        ("fe80::1%eth0", ("fe80::1%eth0", None)),
        (" host:65535 ", ("host", 65535)),
    ],
)
def test_an_address_is_split_into_host_and_port(text: str, expected: object) -> None:
    assert split(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":4000", "host:", "host:0", "host:65536", "host:x", "[::1", "[::1]x", "[]:1", "a b"]
)
def test_a_bad_address_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(BadAddress, match=r"is no (address|port)"):
        split(text)


@pytest.mark.parametrize("text", ["٣", "1_0", "+1", "-1", "999999999999"])
def test_a_port_is_written_in_plain_digits(text: str) -> None:
    with pytest.raises(BadAddress):
        port_of(text)


@given(st.sampled_from(["localhost", "10.0.0.1", "::1", "2001:db8::7"]), st.integers(1, 65535))
def test_a_shown_address_can_be_typed_again(host: str, port: int) -> None:
    assert split(str(Address(host, port))) == (host, port)


def test_the_options_say_what_was_asked_for() -> None:
    options = parse(["[::1]:77", "--name", "al", "--dialect", "slash", "--no-bell", "--plain"])
    assert (options.host, options.port, options.name) == ("::1", 77, "al")
    assert (options.dialect, options.bell, options.plain, options.keep_alive_s) == (
        Dialect.SLASH,
        False,
        True,
        None,
    )


@pytest.mark.parametrize(
    ("argv", "seconds", "host"),
    [
        (["--keep-alive", "localhost"], KEEP_ALIVE_S, "localhost"),
        (["localhost", "--keep-alive"], KEEP_ALIVE_S, "localhost"),
        (["--keep-alive", "5", "localhost"], 5.0, "localhost"),
        (["--keep-alive=7", "localhost"], 7.0, "localhost"),
        (["localhost", "--keep-alive", "--no-bell"], KEEP_ALIVE_S, "localhost"),
    ],
)
def test_keep_alive_takes_a_number_or_none(argv: list[str], seconds: float, host: str) -> None:
    options = parse(argv)
    assert (options.keep_alive_s, options.host) == (seconds, host)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["host:x"], "'x' is no port"),
        (["--keep-alive=0"], "is no number of seconds"),
        (["--keep-alive=nan"], "is no number of seconds"),
        (["--dialect", "irc"], "invalid choice"),
    ],
)
def test_wrong_usage_ends_with_two_and_a_reason(
    argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argv)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err
