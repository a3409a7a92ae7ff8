"""The input line: every key, pastes, history, completion and passwords."""

from __future__ import annotations

import pytest

from geventchat.client.editor import Action, Completions, Editor, Requested, Submitted
from geventchat.client.input import Message, is_secret, parse_input
from geventchat.client.keys import Key, Paste, Text


class View:
    """A session as the input line sees it."""

    def __init__(self) -> None:
        self.hidden = False
        self.paste_lines = 5
        self.full = False
        self.words: Completions = Completions("", [])

    def is_secret(self, text: str) -> bool:
        return is_secret(text)

    def complete(self, before_cursor: str) -> Completions:
        return self.words

    def accepts(self, text: str) -> bool:
        return not self.full


class Desk:
    """An input line and the fingers on it."""

    def __init__(self, *history: str) -> None:
        self.view = View()
        self.editor = Editor(self.view, list(history))

    def press(self, *keys: str) -> list[Action]:
        return [action for name in keys for action in self.editor.handle(Key(name))]

    def type(self, text: str) -> list[Action]:
        return self.editor.handle(Text(text))

    def paste(self, text: str, *, joined: bool = False) -> list[Action]:
        return self.editor.handle(Paste(text, joined))

    @property
    def line(self) -> str:
        """The text with `|` where the cursor is."""
        return f"{self.editor.text[: self.editor.cursor]}|{self.editor.text[self.editor.cursor :]}"


def at(line: str) -> Desk:
    """A desk on which this was typed, with the cursor at the `|`."""
    before, _, after = line.partition("|")
    desk = Desk()
    desk.editor.put(before + after)
    desk.editor.cursor = len(before)
    return desk


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        ("one two|", "left", "one tw|o"),
        ("on|e", "right", "one|"),
        ("one|", "right", "one|"),
        ("|one", "left", "|one"),
        ("one two|", "ctrl-a", "|one two"),
        ("|one two", "ctrl-e", "one two|"),
        ("one two|", "alt-b", "one |two"),
        ("|one two", "ctrl-right", "one| two"),
        ("one|", "backspace", "on|"),
        ("|one", "backspace", "|one"),
        ("|one", "delete", "|ne"),
        ("o|ne", "ctrl-d", "o|e"),
        ("one two|", "ctrl-w", "one |"),
        ("a-b|", "alt-backspace", "a-|"),
        ("|one two", "alt-d", "| two"),
        ("one| two", "ctrl-k", "one|"),
        ("one| two", "ctrl-u", "| two"),
        ("ab|", "ctrl-t", "ba|"),
        ("a|b", "ctrl-t", "ba|"),
        ("a|b", "alt-enter", "a\n|b"),
        ("a\nb|c", "home", "a\n|bc"),
        ("a\n|bc", "end", "a\nbc|"),
        ("a|b\ncd", "ctrl-k", "a|\ncd"),
        ("ab|\ncd", "ctrl-k", "ab|cd"),
        ("abc\nd|e", "up", "a|bc\nde"),
        ("a\nbcd|", "up", "a|\nbcd"),
        ("ab|c\nd", "down", "abc\nd|"),
        # A grapheme is one character to a reader, however many code points it has.
        ("hi 👩‍👩‍👧|", "backspace", "hi |"),
        ("👍🏽|!", "left", "|👍🏽!"),
        ("|🇩🇪🇫🇷", "delete", "|🇫🇷"),
        ("e\u0301|", "backspace", "|"),
        ("|❤️x", "right", "❤️|x"),
        # A key that means nothing here.
        ("one|", "ctrl-\\", "one|"),
    ],
)
def test_a_key_edits(before: str, key: str, after: str) -> None:
    desk = at(before)
    assert desk.press(key) == []
    assert desk.line == after


def test_what_was_cut_comes_back_and_what_was_done_can_be_undone() -> None:
    desk = at("one two|")
    desk.press("ctrl-w", "ctrl-a", "ctrl-y")
    assert desk.line == "two|one "
    desk.press("ctrl-_", "ctrl-_")
    assert desk.line == "one two|"


def test_enter_submits_and_clears() -> None:
    desk = at("hello|")
    assert desk.press("enter") == [Submitted("hello")]
    assert desk.line == "|"
    assert desk.press("enter") == [Submitted("")]


def test_what_cannot_be_handled_now_stays() -> None:
    desk = at("hello|")
    desk.view.full = True
    assert desk.press("enter") == []
    assert desk.line == "hello|"


def test_ctrl_c_clears_a_draft_and_only_then_interrupts() -> None:
    desk = at("a long draft|")
    assert desk.press("ctrl-c") == []
    assert desk.line == "|"
    assert desk.press("ctrl-c") == [Requested("interrupt")]
    # It was not lost.
    desk.press("ctrl-y")
    assert desk.line == "a long draft|"


def test_ctrl_d_leaves_only_an_empty_line() -> None:
    assert at("draft|").press("ctrl-d") == []
    assert Desk().press("ctrl-d") == [Requested("end")]


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("ctrl-z", "suspend"),
        ("page-up", "page-up"),
        ("ctrl-n", "next-room"),
        ("alt-2", "room-2"),
        ("ctrl-l", "redraw"),
        ("wheel-up", "wheel-up"),
        ("alt-a", "active-room"),
        ("escape", "cancel"),
    ],
)
def test_a_key_that_is_about_something_else_is_passed_on(key: str, what: str) -> None:
    desk = at("draft|")
    assert desk.press(key) == [Requested(what)]
    assert desk.line == "draft|"


# Pastes.


def test_a_pasted_command_is_text() -> None:
    desk = Desk()
    assert desk.paste("/quit\nand the rest\n") == []
    assert desk.line == "/quit\nand the rest|"
    assert desk.press("enter") == [Submitted("/quit\nand the rest", literal=True)]


def test_it_is_text_again_when_it_comes_from_the_history() -> None:
    desk = Desk()
    desk.paste("/quit")
    desk.press("enter")
    desk.press("up")
    # As it has to be typed.
    assert desk.line == "//quit|"


@pytest.mark.parametrize(
    ("pasted", "recalled", "saved"),
    [
        ("  /quit", "  //quit", ["  //quit"]),
        ("one\n/quit\n  /quit", "one\n/quit\n  /quit", ["one", "//quit", "  //quit"]),
        ("\n/quit\n//x", "\n//quit\n//x", ["", "//quit", "///x"]),
        ("one\n/register secret", "one\n/register secret", ["one"]),
    ],
)
def test_each_line_of_a_paste_comes_back_as_text(pasted: str, recalled: str, saved: list[str]) -> None:
    """Also in the next session, where each line of the history file stands alone."""
    desk = Desk()
    desk.paste(pasted)
    desk.press("enter", "up")
    assert desk.editor.text == recalled
    assert isinstance(parse_input(recalled), Message)
    assert desk.editor.take_unsaved() == saved
    assert all(isinstance(parse_input(line), Message | None) for line in saved)


def test_a_paste_behind_a_typed_command_is_its_argument() -> None:
    desk = at("/msg bob |")
    desk.paste("one\ntwo")
    assert desk.press("enter") == [Submitted("/msg bob one\ntwo")]
    # What came without a pause before it belongs to the paste.
    desk = at("/quit|")
    desk.paste("\nrest", joined=True)
    assert desk.press("enter") == [Submitted("/quit\nrest", literal=True)]


def test_the_text_is_typed_again_once_the_paste_is_gone() -> None:
    desk = Desk()
    desk.paste("/quit")
    desk.press("ctrl-u")
    desk.type("/help")
    assert desk.press("enter") == [Submitted("/help")]


def test_indentation_and_blank_lines_are_kept_and_tabs_are_blanks() -> None:
    desk = Desk()
    desk.paste("if x:\n\treturn\n\n    y\n")
    assert desk.editor.text == "if x:\n    return\n\n    y"


def test_a_paste_cannot_act_on_the_terminal() -> None:
    desk = Desk()
    desk.paste("a\x1b[2Jb\u202ec\x07")
    assert desk.editor.text == "a\ufffd[2Jb\ufffdc\ufffd"


LONG = "".join(f"line {number}\n" for number in range(200))


@pytest.mark.parametrize("yes", ["y", "Y", "enter"])
def test_a_long_paste_asks_before_it_is_sent(yes: str) -> None:
    desk = Desk()
    assert desk.paste(LONG) == []
    assert desk.editor.confirming == 200
    actions = desk.press("enter") if yes == "enter" else desk.type(yes)
    assert actions == [Submitted(LONG.rstrip("\n"), literal=True)]
    assert desk.editor.confirming == 0


@pytest.mark.parametrize("no", ["n", "ctrl-c", "escape"])
def test_a_long_paste_can_be_dropped_and_brought_back(no: str) -> None:
    desk = Desk()
    desk.paste(LONG)
    assert (desk.type(no) if no == "n" else desk.press(no)) == []
    assert (desk.line, desk.editor.confirming) == ("|", 0)
    desk.press("ctrl-y")
    assert desk.editor.text == LONG.rstrip("\n")


def test_a_long_paste_can_be_edited_first() -> None:
    desk = Desk()
    desk.paste(LONG)
    desk.type("e")
    desk.type("!")
    (submitted,) = desk.press("enter")
    assert isinstance(submitted, Submitted)
    assert submitted.text.endswith("line 199!")


def test_a_paste_in_two_pieces_loses_nothing() -> None:
    desk = Desk()
    desk.paste(LONG)
    desk.paste("yes, more\n")
    desk.type("no end")
    assert desk.editor.text == f"{LONG}yes, more\nno end"
    assert desk.editor.confirming == 202
    # The window can be scrolled while one thinks.
    assert desk.press("page-up") == [Requested("page-up")]


def test_lines_that_were_perhaps_typed_at_once_keep_their_last_end() -> None:
    """As on a link that stood still: what is typed next is not glued to the last of them."""
    desk = Desk()
    desk.editor.handle(Paste("one\ntwo\n", guessed=True))
    assert desk.line == "one\ntwo\n|"
    desk.type("three")
    assert desk.press("enter") == [Submitted("one\ntwo\nthree", literal=True)]
    desk.editor.handle(Paste("one\ntwo\n", guessed=True))
    assert desk.press("enter") == [Submitted("one\ntwo", literal=True)]
    assert desk.editor.history[-1] == "one\ntwo"


def test_a_paste_of_a_few_lines_does_not_ask() -> None:
    desk = Desk()
    desk.paste("1\n2\n3\n4\n5\n")
    assert desk.editor.confirming == 0


# History.


def test_the_arrows_go_through_the_history_and_back_to_the_draft() -> None:
    desk = Desk("one", "two")
    desk.type("draft")
    desk.press("up")
    assert desk.line == "two|"
    desk.press("up", "up")
    assert desk.line == "one|"
    desk.press("down", "down", "down")
    assert desk.line == "draft|"


def test_what_was_typed_is_in_the_history_once() -> None:
    desk = Desk()
    for text in ("one", "one", "  ", "two"):
        desk.type(text)
        desk.press("enter")
    assert desk.editor.history == ["one", "two"]
    assert desk.editor.take_unsaved() == ["one", "two"]
    assert desk.editor.take_unsaved() == []


def test_the_history_can_be_searched() -> None:
    desk = Desk("alpha one", "beta", "alpha two")
    desk.type("draft")
    desk.press("ctrl-r")
    desk.type("ALP")
    assert (desk.line, desk.editor.search) == ("alpha two|", "ALP")
    desk.press("ctrl-r")
    assert desk.line == "alpha one|"
    desk.press("backspace")
    assert desk.line == "alpha two|"
    desk.press("escape")
    assert (desk.line, desk.editor.search) == ("draft|", None)
    desk.press("ctrl-r")
    desk.type("beta")
    assert desk.press("enter") == [Submitted("beta")]


# Passwords.


@pytest.mark.parametrize(
    "line",
    [
        "/register secret",
        "/REGISTER secret",
        "  /login alice secret",
        "/password secret secret2",
        "/token secret",
    ],
)
def test_a_password_on_a_line_is_neither_shown_nor_kept(line: str) -> None:
    desk = Desk()
    desk.type(line)
    assert "secret" not in desk.editor.masked()
    assert len(desk.editor.masked()) == len(line)
    desk.press("ctrl-w", "ctrl-y")
    assert desk.editor.text == line[: len(line) - len(line.split()[-1])]
    desk = Desk()
    desk.type(line)
    assert desk.press("enter") == [Submitted(line)]
    assert desk.editor.history == []
    desk.press("up")
    assert desk.line == "|"
    desk.type(line)
    desk.press("ctrl-c", "ctrl-y", "ctrl-_")
    assert desk.line == "|"


def test_a_hidden_answer_is_stars_and_one_line() -> None:
    desk = Desk()
    desk.view.hidden = True
    desk.type("correct horse")
    assert desk.editor.masked() == "*" * 13
    desk.paste("pasted\nmore")
    assert desk.press("enter") == [Submitted("correct horsepasted")]


# Completion.


def test_a_single_completion_is_inserted_at_once() -> None:
    desk = at("hi @bo|")
    desk.view.words = Completions("@bo", ["@bob "])
    desk.press("tab")
    assert desk.line == "hi @bob |"


def test_several_completions_are_shown_and_tab_goes_through_them() -> None:
    desk = at("b|")
    desk.view.words = Completions("b", ["Bea: ", "bert: ", "berta: "])
    desk.press("tab")
    assert desk.line == "Be|"
    assert desk.editor.candidates == ["Bea: ", "bert: ", "berta: "]
    seen = []
    for _ in range(4):
        desk.press("tab")
        seen.append(desk.editor.text)
    assert seen == ["Bea: ", "bert: ", "berta: ", "Bea: "]
    desk.press("shift-tab")
    assert desk.line == "berta: |"
    desk.type("hi")
    assert desk.editor.candidates == ()


def test_the_common_beginning_is_inserted() -> None:
    desk = at("be|")
    desk.view.words = Completions("be", ["bert: ", "Berta: "])
    desk.press("tab")
    assert desk.line == "bert|"


def test_completions_that_come_later_are_used_if_the_text_is_still_the_same() -> None:
    desk = at("@bo|")
    desk.view.words = Completions("@bo", [], complete=False)
    desk.press("tab")
    desk.view.words = Completions("@bo", ["@bob "])
    desk.editor.completions_arrived()
    assert desk.line == "@bob |"
    desk = at("@bo|")
    desk.view.words = Completions("@bo", [], complete=False)
    desk.press("tab")
    desk.type("x")
    desk.view.words = Completions("@box", ["@boxer "])
    desk.editor.completions_arrived()
    assert desk.line == "@box|"
