"""What a terminal sends, as keys, text and pastes."""

from __future__ import annotations

import itertools

import pytest

from geventchat.client.keys import (
    ESCAPE_S,
    HELD_S,
    MAX_PASTE_BYTES,
    UNFINISHED_PASTE_S,
    Key,
    KeyEvent,
    KeyReader,
    Paste,
    Text,
)


class Typist:
    """A terminal and its clock. What is sent comes a second after what was sent before, or as soon as it says."""

    def __init__(self) -> None:
        self.reader = KeyReader()
        self.now = 100.0

    def send(self, data: bytes, after_s: float = 1.0) -> list[KeyEvent]:
        events = self.wait(after_s)
        return [*events, *self.reader.feed(data, self.now)]

    def wait(self, seconds: float = 10.0) -> list[KeyEvent]:
        end, events = self.now + seconds, []
        while self.reader.deadline is not None and self.reader.deadline <= end:
            self.now = self.reader.deadline
            events += self.reader.expire(self.now)
        self.now = end
        return events


def read(*chunks: bytes, gap_s: float = 1.0) -> list[KeyEvent]:
    typist = Typist()
    events = [event for chunk in chunks for event in typist.send(chunk, gap_s)]
    return [*events, *typist.wait()]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\r", "enter"),
        (b"\n", "enter"),
        (b"\t", "tab"),
        (b"\x7f", "backspace"),
        (b"\x08", "backspace"),
        (b"\x03", "ctrl-c"),
        (b"\x04", "ctrl-d"),
        (b"\x1a", "ctrl-z"),
        (b"\x1c", "ctrl-\\"),
        (b"\x1f", "ctrl-_"),
        (b"\x1b[A", "up"),
        (b"\x1bOA", "up"),
        (b"\x1b[1;5C", "ctrl-right"),
        (b"\x1b[1;3D", "alt-left"),
        (b"\x1b[5~", "page-up"),
        (b"\x1b[6~", "page-down"),
        (b"\x1b[5;2~", "shift-page-up"),
        (b"\x1b[3~", "delete"),
        (b"\x1b[1~", "home"),
        (b"\x1bOF", "end"),
        (b"\x1b[Z", "shift-tab"),
        (b"\x1bb", "alt-b"),
        (b"\x1b\x7f", "alt-backspace"),
        (b"\x1b\r", "alt-enter"),
        (b"\x1b1", "alt-1"),
        (b"\x1b[<64;10;5M", "wheel-up"),
        (b"\x1b[<65;10;5M", "wheel-down"),
    ],
)
def test_a_key_has_a_name_however_its_bytes_arrive(data: bytes, name: str) -> None:
    assert read(data) == [Key(name)]
    assert read(*[data[at : at + 1] for at in range(len(data))], gap_s=0.001) == [Key(name)]


@pytest.mark.parametrize("code", [*range(0x20), 0x7F])
def test_every_control_character_is_a_key(code: int) -> None:
    (key,) = read(bytes([code]))
    assert isinstance(key, Key)


@pytest.mark.parametrize(
    "data",
    [
        b"\x1b[200;1;1R",
        b"\x1b[?1;2c",
        b"\x1b[<0;1;1M",
        b"\x1b[99~",
        b"\x1b[1;99A",
        b"\x1b[I",
        b"\x1bOz",
    ],
)
def test_a_sequence_that_means_nothing_is_swallowed_whole(data: bytes) -> None:
    assert read(data + b"x") == [Text("x")]


def test_escape_is_a_key_when_nothing_follows() -> None:
    typist = Typist()
    assert typist.send(b"\x1b") == []
    assert typist.wait(ESCAPE_S) == [Key("escape")]
    assert read(b"\x1b\x1b[A") == [Key("escape"), Key("up")]


def test_characters_of_several_bytes_can_arrive_in_pieces() -> None:
    wave = "👋".encode()
    assert read(wave[:1], wave[1:3], wave[3:] + b"\xff") == [Text("👋\ufffd")]


# Pastes that the terminal marks.


@pytest.mark.parametrize("cuts", list(itertools.combinations(range(2, 24), 2))[::17])
def test_a_marked_paste_is_text_wherever_it_is_cut(cuts: tuple[int, int]) -> None:
    data = b"\x1b[200~/quit\r\nb\tc\x1b[201~\x1b[A"
    pieces = [data[start:end] for start, end in itertools.pairwise((0, *cuts, len(data)))]
    assert read(*pieces, gap_s=0.02) == [Paste("/quit\nb\tc"), Key("up")]


def test_a_paste_that_is_never_finished_ends_by_itself() -> None:
    typist = Typist()
    assert typist.send(b"\x1b[200~lost") == []
    assert typist.wait(UNFINISHED_PASTE_S) == [Paste("lost")]
    assert typist.send(b"\r") == [Key("enter")]


def test_a_paste_has_a_limit_and_says_that_it_was_cut() -> None:
    (paste,) = read(b"\x1b[200~" + b"x" * (MAX_PASTE_BYTES + 5) + b"\x1b[201~")
    assert paste == Paste("x" * MAX_PASTE_BYTES, truncated=True)


# Pastes that it does not mark.


def test_lines_in_one_burst_are_a_paste() -> None:
    assert read(b"/quit\rrest\r") == [Paste("/quit\nrest\n", guessed=True)]
    assert read(b"\tif x:\n\t\treturn\n") == [Paste("\tif x:\n\t\treturn\n", guessed=True)]


def test_a_paste_in_several_pieces_is_one() -> None:
    typist = Typist()
    assert typist.send(b"first li") == [Text("first li")]
    assert typist.send(b"ne\r", HELD_S / 2) == [Text("ne")]
    assert typist.send(b"second\rthi", HELD_S / 2) == []
    assert typist.send(b"rd\r", HELD_S / 2) == []
    assert typist.wait() == [Paste("\nsecond\nthird\n", joined=True, guessed=True)]


def test_a_line_that_is_typed_at_once_is_a_line() -> None:
    """As a person on a slow link, or a program that types, sends it."""
    typist = Typist()
    assert typist.send(b"/quit\r") == [Text("/quit")]
    assert typist.wait(HELD_S) == [Key("enter")]
    assert typist.send(b"/d\tca\tpsst\r")[:4] == [Text("/d"), Key("tab"), Text("ca"), Key("tab")]
    assert typist.wait(HELD_S) == [Key("enter")]


def test_lines_that_follow_each_other_slowly_are_lines() -> None:
    assert read(b"one\r", b"two\r", gap_s=HELD_S * 2) == [
        Text("one"),
        Key("enter"),
        Text("two"),
        Key("enter"),
    ]


def test_keys_typed_one_by_one_do_not_wait() -> None:
    typist = Typist()
    typist.send(b"a")
    assert typist.send(b"\r") == [Key("enter")]


def test_a_key_behind_a_held_enter_ends_the_burst() -> None:
    typist = Typist()
    typist.send(b"hi\r")
    assert typist.send(b"\x03", 0.001) == [Key("enter"), Key("ctrl-c")]
    assert read(b"a\rb\x1b[A") == [Paste("a\nb", guessed=True), Key("up")]
