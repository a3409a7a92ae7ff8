"""What is typed: commands, messages, completion and addresses."""

from __future__ import annotations

import json

import pytest

from geventchat.chat.commands import (
    AskHistory,
    AskTopic,
    EnterRoom,
    Impose,
    LeaveRoom,
    ListRooms,
    Ping,
    Quit,
    Register,
    Sanction,
    SetTopic,
    Who,
)
from geventchat.chat.passwords import Secret
from geventchat.client.address import InvalidAddress, Target, parse_port, parse_target, split_address
from geventchat.client.emoji import EMOJI
from geventchat.client.input import (
    COMMANDS,
    MAX_MESSAGE_BYTES,
    Act,
    AskSecret,
    ChangeName,
    ChangeSetting,
    Direct,
    GoAway,
    HelpFor,
    HidePerson,
    InvalidInput,
    Known,
    Message,
    Quote,
    Reply,
    Search,
    SendAgain,
    ShowSettings,
    completions,
    help_for,
    help_lines,
    lines_of,
    parse_input,
    sendable,
    split_lines,
)


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("hello  there", Message(("hello  there",))),
        ("  hello ", Message(("hello",))),
        ("", None),
        ("   \n  ", None),
        ("//etc/passwd", Message(("/etc/passwd",))),
        ("//", Message(("/",))),
        ("/help", HelpFor("")),
        ("/help /me", HelpFor("me")),
        ("/users", Who()),
        ("/WHO dev", Who("dev")),
        ("/ping", Ping("")),
        ("/quit", Quit()),
        ("/exit", Quit()),
        (" /q ", Quit()),
        ("/join dev", EnterRoom("dev")),
        ("/join dev secret key", EnterRoom("dev", "secret key")),
        ("/leave", LeaveRoom("")),
        ("/part dev", LeaveRoom("dev")),
        ("/rooms", ListRooms()),
        ("/topic", AskTopic()),
        ("/topic all about dev", SetTopic("all about dev")),
        ("/topic -", SetTopic("")),
        ("/history", AskHistory(100)),
        ("/history 7", AskHistory(7)),
        ("/me waves", Act("waves")),
        ("/dm  bob   two  words ", Direct("bob", ("two  words",))),
        ("/DM\tbob\tpsst", Direct("bob", ("psst",))),
        ("/msg @bob", Direct("bob", ())),
        ("/msg bob one\ntwo", Direct("bob", ("one", "two"))),
        ("/reply yes", Reply(("yes",))),
        ("/nick bob", ChangeName("bob")),
        ("/away", GoAway("")),
        ("/away at lunch", GoAway("at lunch")),
        ("/ignore", HidePerson("", on=True)),
        ("/ignore @bob", HidePerson("bob", on=True)),
        ("/unignore bob", HidePerson("bob", on=False)),
        ("/search two words", Search("two words")),
        ("/quote", Quote("", "")),
        ("/quote bob: I agree", Quote("bob", "I agree")),
        ("/set", ShowSettings("")),
        ("/set bell", ShowSettings("bell")),
        ('/set timestamps "%H:%M"', ChangeSetting("timestamps", "%H:%M")),
        ("/register", AskSecret("register")),
        ("/register correct horse", Register(Secret("correct horse"))),
        ("/password", AskSecret("password")),
        ("/resend", SendAgain(drop=False)),
        ("/resend drop", SendAgain(drop=True)),
        ("/ban bob 10m spam", Impose(Sanction.BAN, "bob", 600, "spam")),
        ("/dm", InvalidInput("Usage: /dm NAME [TEXT]")),
        ("/join", InvalidInput("Usage: /join ROOM [KEY]")),
        ("/history x", InvalidInput("Usage: /history [N]")),
        ("/kick", InvalidInput("Usage: /kick NAME [REASON]")),
        ("/nick a b", InvalidInput("Usage: /nick NAME")),
        ("/quit now", InvalidInput("/quit takes no arguments.")),
        ("/topic one\ntwo", InvalidInput("/topic takes one line.")),
        ("/quit\nand the rest", InvalidInput("/quit takes one line.")),
        ("/zzz bar", InvalidInput("Unknown command /zzz. /help lists the commands.")),
        ("/joni x", InvalidInput("Unknown command /joni. Did you mean /join? /help lists the commands.")),
    ],
)
def test_what_is_typed_is_a_command_or_a_message(line: str, parsed: object) -> None:
    found = parse_input(line)
    assert (type(found), found) == (type(parsed), parsed)


@pytest.mark.parametrize("text", ["/quit", "//x", "/quit\n/join dev", " /help"])
def test_a_literal_text_is_never_a_command(text: str) -> None:
    assert isinstance(parse_input(text, literal=True), Message)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one", ("one",)),
        ("one\ntwo", ("one", "two")),
        ("\n\none\r\ntwo\r\n\n", ("one", "two")),
        ("def f():\n    return 1", ("│ def f():", "│     return 1")),
        ("one\n\ntwo", ("│ one", "│", "│ two")),
        ("    one", ("one",)),
        ("", ()),
    ],
)
def test_lines_are_messages_and_keep_their_indentation_behind_a_bar(
    text: str, lines: tuple[str, ...]
) -> None:
    assert lines_of(text) == lines


def test_the_lines_of_a_paste_are_separated_by_any_line_end() -> None:
    assert split_lines("one\ntwo\r\nthree\rfour") == ["one", "two", "three", "four"]


def test_a_text_that_is_too_long_for_a_line_is_sent_in_pieces_between_words() -> None:
    text = " ".join(f"word{number}" for number in range(2000))
    pieces = sendable((text,), emoji=True)
    assert " ".join(pieces) == text
    assert len(pieces) == 5
    for quoted in ('"' * 9000, "日" * 9000, "x" * 9000):
        pieces = sendable((quoted,), emoji=False)
        assert "".join(pieces) == quoted
        assert all(
            len(json.dumps(piece, ensure_ascii=False).encode()) <= MAX_MESSAGE_BYTES + 2 for piece in pieces
        )


def test_codes_of_emoji_are_replaced_but_not_in_code() -> None:
    assert sendable((":wave:", "│ x :wave:"), emoji=True) == ["👋", "│ x :wave:"]
    assert sendable((":wave:",), emoji=False) == [":wave:"]
    assert sendable(("> bob: :wave:", ":wave:"), emoji=True) == ["> bob: :wave:", "👋"]
    # As docs/client.md says.
    assert len(EMOJI) > 300


def test_every_command_is_in_the_help_can_be_completed_and_explains_itself() -> None:
    offered = {word.strip() for word in completions("/", Known())[1]}
    for command in COMMANDS:
        assert command.verb in offered
        assert (command.usage, command.meaning) in help_lines()
        assert help_for(command.verb[1:]) == (command.usage, command.meaning)
        if "[" not in command.usage and " " in command.usage and command.verb != "/help":
            parsed = parse_input(command.verb)
            assert parsed == InvalidInput(f"Usage: {command.usage}")


KNOWN = Known(["bob", "alice", "Bea"], ["lobby", "dev", "design"])


@pytest.mark.parametrize(
    ("before_cursor", "word", "candidates"),
    [
        ("/Q", "/Q", ["/q", "/query ", "/quit", "/quote "]),
        ("/jo", "/jo", ["/join "]),
        ("/dm b", "b", ["Bea ", "bob "]),
        ("/dm @b", "@b", ["@Bea ", "@bob "]),
        ("/dm ", "", ["alice ", "Bea ", "bob "]),
        ("/join de", "de", ["design ", "dev "]),
        ("/join #de", "#de", ["#design ", "#dev "]),
        ("/set time", "time", ["timestamps "]),
        ("/help no", "no", []),
        ("/help pi", "pi", ["ping"]),
        ("b", "b", ["Bea: ", "bob: "]),
        ("ask BO", "BO", ["bob "]),
        ("@bo", "@bo", ["@bob "]),
        ("hi @", "@", ["@alice ", "@Bea ", "@bob "]),
        ("see #lo", "#lo", ["#lobby "]),
        ("hi :rock", ":rock", ["🚀 "]),
        (":x", ":x", []),
        ("", "", []),
        ("hello ", "", []),
        ("hello /q", "/q", []),
    ],
)
def test_tab_completes_commands_names_rooms_and_emoji(
    before_cursor: str, word: str, candidates: list[str]
) -> None:
    assert completions(before_cursor, KNOWN) == (word, candidates)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("localhost", Target("localhost")),
        ("localhost:4000", Target("localhost", 4000)),
        ("[::1]:4000", Target("::1", 4000)),
        ("::1", Target("::1")),
        ("chat://chat.example", Target("chat.example")),
        ("chat://chat.example:4000/", Target("chat.example", 4000)),
        ("CHAT://[::1]:4000", Target("::1", 4000)),
        ("json://alice@chat.example:7/dev", Target("chat.example", 7, "json", "alice", "dev")),
        ("line://h", Target("h", None, "line")),
        ("chats://chat.example", Target("chat.example", tls=True)),
        ("Json+TLS://alice@[::1]:7", Target("::1", 7, "json", "alice", tls=True)),
    ],
)
def test_a_target_is_a_server_and_perhaps_more(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("[::1]", "::1", None),
        ("fe80::1%eth0", "fe80::1%eth0", None),
        (" host:65535 ", "host", 65535),
    ],
)
def test_an_address_is_a_host_and_perhaps_a_port(text: str, host: str, port: int | None) -> None:
    assert split_address(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        *["", ":4000", "host:", "host:0", "host:65536", "host:x", "[::1", "[::1]x", "[]:1", "a b"],
        *[
            "http://h",
            "chat://",
            "chat://@h",
            "chat://h/a/b",
            "chat://h:x",
            "https://h",
            "+tls://h",
            "chats+tls://h",
        ],
    ],
)
def test_an_invalid_address_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InvalidAddress, match=r"^Invalid (address|port) '.*': use .*\.$"):
        parse_target(text)


@pytest.mark.parametrize("text", ["٣", "1_0", "+1", "-1", "999999999999"])
def test_a_port_is_written_in_plain_digits(text: str) -> None:
    with pytest.raises(InvalidAddress):
        parse_port(text)
