"""Lines of input: commands, completion and addresses."""

from __future__ import annotations

import pytest

from geventchat.chat.commands import Help, Ping, Quit, Say, SendDirectMessage, Who
from geventchat.client.address import InvalidAddress, parse_port, split_address
from geventchat.client.input import HELP, InvalidInput, completions, parse_input, split_lines


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("hello  there", Say(("hello  there",))),
        ("  hello ", Say(("hello",))),
        ("", None),
        ("   ", None),
        ("/help", Help()),
        ("/users", Who()),
        ("/USERS", Who()),
        ("/ping", Ping("")),
        ("/quit", Quit()),
        ("/exit", Quit()),
        ("/q", Quit()),
        (" /q ", Quit()),
        ("/dm bob psst", SendDirectMessage("bob", "psst")),
        ("/dm  bob   two  words ", SendDirectMessage("bob", "two  words")),
        ("/DM\tbob\tpsst", SendDirectMessage("bob", "psst")),
        ("/dm bob", InvalidInput("Usage: /dm NAME TEXT")),
        ("/dm", InvalidInput("Usage: /dm NAME TEXT")),
        ("/foo bar", InvalidInput("Unknown command /foo. /help lists the commands.")),
        ("/quit now", InvalidInput("/quit takes no arguments.")),
        ("//etc/passwd", Say(("/etc/passwd",))),
        ("//", Say(("/",))),
        ("///", Say(("//",))),
    ],
)
def test_a_line_of_input_is_a_command(line: str, command: object) -> None:
    assert parse_input(line) == command


def test_the_lines_of_a_paste_are_separated_by_any_line_end() -> None:
    assert split_lines("one\ntwo\r\nthree\rfour") == ["one", "two", "three", "four"]


def test_every_command_in_the_help_exists_and_can_be_completed() -> None:
    for row, _ in HELP:
        command = row.split()[0]
        if command != "//TEXT":
            assert not isinstance(
                parse_input(f"{command} bob hi" if command == "/dm" else command), InvalidInput
            )
            assert command in [word.strip() for word in completions("/", ())[1]]


@pytest.mark.parametrize(
    ("before_cursor", "word", "candidates"),
    [
        ("/", "/", ["/dm ", "/exit", "/help", "/ping", "/q", "/quit", "/users"]),
        ("/Q", "/Q", ["/q", "/quit"]),
        ("/dm b", "b", ["Bea ", "bob "]),
        ("/dm ", "", ["alice ", "Bea ", "bob "]),
        ("b", "b", ["Bea: ", "bob: "]),
        ("ask BO", "BO", ["bob "]),
        ("", "", []),
        ("hello ", "", []),
        ("hello /q", "/q", []),
    ],
)
def test_tab_completes_commands_and_names(before_cursor: str, word: str, candidates: list[str]) -> None:
    assert completions(before_cursor, ["bob", "alice", "Bea"]) == (word, candidates)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", None),
        ("localhost:4000", "localhost", 4000),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("[::1]:4000", "::1", 4000),
        ("[::1]", "::1", None),
        ("::1", "::1", None),
        ("fe80::1%eth0", "fe80::1%eth0", None),
        (" host:65535 ", "host", 65535),
    ],
)
def test_an_address_is_a_host_and_perhaps_a_port(text: str, host: str, port: int | None) -> None:
    assert split_address(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", ":4000", "host:", "host:0", "host:65536", "host:x", "[::1", "[::1]x", "[]:1", "a b"]
)
def test_an_invalid_address_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InvalidAddress, match=r"^Invalid (address|port) '.*': use .*\.$"):
        split_address(text)


@pytest.mark.parametrize("text", ["٣", "1_0", "+1", "-1", "999999999999"])
def test_a_port_is_written_in_plain_digits(text: str) -> None:
    with pytest.raises(InvalidAddress):
        parse_port(text)
