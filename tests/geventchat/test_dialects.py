"""The readers and writers of the three dialects, over wide input."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventchat.chat.commands import Fault, Help, Login, Ping, Quit, Say, Tell, Violation, Who
from geventchat.chat.events import (
    Dismissed,
    Goodbye,
    Helped,
    Joined,
    Left,
    Parting,
    Pong,
    Reason,
    Refused,
    Relayed,
    Roster,
    Said,
    Told,
    Welcome,
)
from geventchat.chat.text import clean
from geventchat.dialects import DIALECTS
from geventchat.dialects.dialect import Marked
from geventchat.dialects.telnet import TIMING_MARK

COMMANDS = (Login, Say, Tell, Who, Ping, Help, Quit, Violation)
NAMES = st.text(st.characters(categories=["L"], max_codepoint=0x7FF), min_size=1, max_size=20)
TEXTS = st.text(max_size=60).map(clean)
WHEN = st.integers(0, 2**33)

TOLD = st.builds(Told, NAMES, NAMES, TEXTS, WHEN)
EVENTS = st.one_of(
    st.builds(Joined, NAMES, WHEN),
    st.builds(Said, NAMES, st.lists(TEXTS, min_size=1, max_size=3), WHEN),
    st.builds(Left, NAMES, WHEN),
    st.builds(Welcome, NAMES, st.lists(NAMES), WHEN),
    TOLD,
    st.builds(Relayed, TOLD, TEXTS),
    st.builds(Roster, st.lists(NAMES)),
    st.builds(Pong, TEXTS),
    st.just(Helped()),
    st.just(Goodbye()),
    st.builds(Dismissed, st.sampled_from(Parting), st.booleans()),
)
# What a dialect's readers can never lead to needs no words in it.
UNSAID = {
    "line": {Fault.NOT_JSON},
    "json": set(),
    "slash": {Fault.NOT_JSON, Reason.ALREADY_IN, Reason.NOT_IN, Reason.EMPTY_MESSAGE},
}


@pytest.mark.parametrize("name", DIALECTS)
@given(line=st.binary(max_size=200), joined=st.booleans())
def test_any_line_is_a_command_or_nothing(name: str, line: bytes, joined: bool):
    command = DIALECTS[name].read(line.replace(b"\n", b""), joined)
    if isinstance(command, Marked):
        # Only for who speaks telnet, and then exactly the mark that was asked for.
        assert name != "json"
        assert b"\xff\xfd\x06" in line
        assert command.answer == TIMING_MARK
        command = command.command
    assert command is None or isinstance(command, COMMANDS)


@pytest.mark.parametrize("name", DIALECTS)
@given(event=EVENTS)
def test_what_is_written_is_whole_lines_without_anything_unsafe(name: str, event):
    written = DIALECTS[name].write(event).decode()
    assert written == "" or written.endswith("\n")
    unsafe = [char for char in written if unicodedata.category(char) in {"Cc", "Cs"} and char != "\n"]
    assert not unsafe
    if isinstance(event, Told | Joined | Left | Pong):
        assert written.count("\n") <= 1
    if isinstance(event, Said):
        one_by_one = [Said(event.name, (text,), event.at) for text in event.texts]
        assert written == b"".join(map(DIALECTS[name].write, one_by_one)).decode()


@given(event=EVENTS)
def test_json_is_always_one_ascii_object_on_one_line(event):
    written = DIALECTS["json"].write(event)
    if not written:
        assert isinstance(event, Helped | Relayed)
        return
    assert written.isascii()
    lines = written.decode().splitlines()
    assert len(lines) == (len(event.texts) if isinstance(event, Said) else 1)
    # Exactly as the standard library would write it, hot path included.
    assert written.decode() == "".join(json.dumps(json.loads(line)) + "\n" for line in lines)


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("why", [*Reason, *Fault], ids=lambda why: why.name)
def test_every_refusal_that_can_come_has_its_words(name: str, why):
    if why in UNSAID[name]:
        with pytest.raises(KeyError):
            DIALECTS[name].write(Refused(why, "it"))
    else:
        assert DIALECTS[name].write(Refused(why, "it")).endswith(b"\n")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "username", "message", "to", "token"]), inner, max_size=4
            )
        ),
    )
)
def test_any_json_at_all_is_a_command_or_invalid(value):
    command = DIALECTS["json"].read(json.dumps(value).encode(), True)
    assert isinstance(command, COMMANDS)
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        assert command == Violation(Fault.NOT_JSON)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"type": ' * 50_000,
        b'{"type": "chat", "message": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"type": "chat", "n": ' + b"9" * 5000 + b"}",
        b'{"type": "chat", "n": 1e' + b"9" * 5000 + b"}",
        b'{"type": "chat", "n": Infinity}',
        b'{"type": "chat", "type": "chat"}',
        b'{"type": "chat", "message": "\\udc00"}',
        b'{"type": "chat", "message": "a"}x',
        b'\xef\xbb\xbf{"type": "ping"}',
        b'{"type": "chat", "message": "tab\there"}',
    ],
    ids=lambda line: line[:24].decode("latin-1"),
)
def test_bad_json_is_invalid_and_nothing_worse(line: bytes):
    assert DIALECTS["json"].read(line, True) == Violation(Fault.NOT_JSON)


def test_a_megabyte_of_spaces_asks_for_nothing():
    for dialect in DIALECTS.values():
        assert dialect.read(b" " * 1_000_000, True) is None


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"LOGIN alice", Login("alice")),
        (b"  login   a b ", Login("a b")),
        (b"LOGIN", Login("")),
        (b"MSG hi  all", Say("hi  all")),
        (b"MSG\thi", Say("hi")),
        (b"DM bob  psst psst ", Tell("bob", "psst psst")),
        (b"DM bob", Tell("bob", "")),
        (b"PING a b", Ping("a b")),
        (b"WHO", Who()),
        (b"quit", Quit()),
        (b"EXIT", Quit()),
        (b"", None),
        (b" \t ", None),
        (b"HELP", Violation(Fault.UNKNOWN_COMMAND)),
        (b"MSG \xff", Say("")),
        (b"MSG \xfe", Violation(Fault.NOT_UTF8)),
    ],
)
def test_line(line: bytes, command):
    assert DIALECTS["line"].read(line, True) == command


@pytest.mark.parametrize(
    ("line", "joined", "command"),
    [
        (b"alice", False, Login("alice")),
        (b"", False, Login("")),
        (b"/quit", False, Login("/quit")),
        (b"hello", True, Say("hello")),
        (b"", True, None),
        (b"/HELP", True, Help()),
        (b"/dm bob hi", True, Tell("bob", "hi")),
        (b"/nope x", True, Violation(Fault.UNKNOWN_COMMAND, "/nope")),
        (b" /ping", True, Ping("")),
    ],
)
def test_slash(line: bytes, joined: bool, command):
    assert DIALECTS["slash"].read(line, joined) == command
