"""The look of every kind of entry; control characters are replaced."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from geventchat.client.options import Options
from geventchat.client.render import (
    MAX_CHARACTERS,
    bare,
    drawn,
    goes_on,
    look_of,
    paint,
    plain_line,
    row_text,
    safe,
    waiting,
)
from geventchat.client.windows import Entry, Kind, Outgoing, Window
from tests.client.recorders import LOOK

AT = datetime(2024, 1, 15, 14, 30, 15)
COLOURED = look_of(Options(), {}, colour=True, links=True)


def entry(kind: Kind, text: str = "", **more: object) -> Entry:
    made = Entry(kind, text, AT)
    for name, value in more.items():
        setattr(made, name, value)
    return made


SAID = entry(Kind.MESSAGE, "Hello", name="alice")
LOOKS: list[tuple[Entry, str]] = [
    (SAID, "[14:30:15] alice: Hello"),
    (entry(Kind.MESSAGE, "", name="alice", deleted=True), "[14:30:15] alice: (deleted)"),
    (entry(Kind.MESSAGE, "* alice waves", name="alice"), "[14:30:15] * alice waves"),
    (entry(Kind.MESSAGE, "│     x = 1", name="alice", code=True), "[14:30:15] alice: │     x = 1"),
    (entry(Kind.MESSAGE, "```python", name="alice", code=True), "[14:30:15] alice: │ ```python"),
    (entry(Kind.MESSAGE, "> bob: tea?", name="alice"), "[14:30:15] alice: > bob: tea?"),
    (entry(Kind.DIRECT, "psst", name="bob", to="alice"), "[14:30:15] bob → you: psst"),
    (entry(Kind.DIRECT, "psst", name="alice", to="bob", own=True), "[14:30:15] you → bob: psst"),
    (entry(Kind.JOINED, name="bob"), "🟢 bob joined the chat"),
    (entry(Kind.JOINED, "room", name="bob"), "🟢 bob joined the room"),
    (entry(Kind.LEFT, "disconnected", name="bob"), "🔴 bob left the chat"),
    (entry(Kind.LEFT, "left", name="bob"), "🔴 bob left the room"),
    (entry(Kind.LEFT, "kicked", name="bob"), "🔴 bob was kicked"),
    (entry(Kind.PEOPLE, "2 here: a, b"), "👥 2 here: a, b"),
    (entry(Kind.PING, "The server answered in 1 ms"), "🏓 The server answered in 1 ms"),
    (entry(Kind.SUCCESS, "Back."), "✅ Back."),
    (entry(Kind.GOODBYE, "Goodbye, bob!"), "👋 Goodbye, bob!"),
    (entry(Kind.NOTICE, "By the way."), "💡 By the way."),
    (entry(Kind.ERROR, "No."), "❌ No."),
    (entry(Kind.OFFLINE, "Lost."), "🔌 Lost."),
    (entry(Kind.TOPIC, "Topic: tea"), "📌 Topic: tea"),
    (entry(Kind.LISTED, "/dm NAME   send"), "/dm NAME   send"),
]


@pytest.mark.parametrize(("shown", "look"), LOOKS)
def test_each_kind_of_entry_has_its_look(shown: Entry, look: str) -> None:
    assert plain_line(shown, LOOK) == look


@pytest.mark.parametrize(("shown", "look"), LOOKS)
def test_colour_does_not_change_the_text(shown: Entry, look: str) -> None:
    spans = drawn(shown, COLOURED).spans
    assert row_text(spans) == look
    assert all(set(span.style) <= set("0123456789;") for span in spans)
    assert "\x1b[m" not in paint(spans)


def test_a_pipe_gets_texts_as_written_and_a_screen_reader_without_markup() -> None:
    marked = entry(Kind.MESSAGE, "**no** `x` https://chat.example", name="alice", mention=True)
    for symbols, text in (("emoji", "alice: **no** `x` "), ("words", "Mention. alice: no `x` ")):
        look = bare(look_of(Options(symbols=symbols), {}, colour=False, links=True))
        assert plain_line(marked, look) == f"[14:30:15] {text}https://chat.example"


def test_every_kind_has_a_look() -> None:
    for symbols in ("emoji", "plain", "words"):
        for kind in Kind:
            plain_line(entry(kind, "x"), LOOK._replace(symbols=symbols))


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (entry(Kind.ERROR, "No."), "Error: No."),
        (entry(Kind.JOINED, name="bob"), "bob joined the chat"),
        (
            entry(Kind.DIRECT, "psst", name="bob", to="alice"),
            "[14:30:15] Direct message from bob to you: psst",
        ),
        (entry(Kind.MESSAGE, "alice!", name="bob", mention=True), "[14:30:15] Mention. bob: alice!"),
    ],
)
def test_a_screen_reader_reads_words_and_no_symbols(shown: Entry, words: str) -> None:
    look = look_of(Options(screen_reader=True), {}, colour=False)
    assert plain_line(shown, look._replace(styles=LOOK.styles)) == words


def test_another_room_is_named_behind_the_time() -> None:
    assert plain_line(SAID, LOOK, "dev") == "[14:30:15] #dev alice: Hello"
    assert plain_line(entry(Kind.JOINED, name="bob"), LOOK, "dev") == "#dev 🟢 bob joined the chat"
    assert plain_line(SAID, LOOK._replace(symbols="words"), "dev") == "[14:30:15] In dev: alice: Hello"


def test_the_time_is_a_setting_and_gives_way_in_a_narrow_window() -> None:
    for options, columns, stamp in (
        (Options(timestamps="%H:%M"), 80, "[14:30] "),
        (Options(timestamps=""), 80, ""),
        (Options(), 80, "[14:30:15] "),
        (Options(), 40, "[14:30] "),
        (Options(), 20, ""),
    ):
        assert look_of(options, {}, colour=False, columns=columns).time(AT) == stamp


def test_markup_is_drawn_in_styles() -> None:
    text = "a **b** `c` https://a.example"
    spans = {span.text: span for span in drawn(replace(SAID, text=text), COLOURED).spans}
    assert spans["b"].style == "1"
    assert spans["c"].style == COLOURED.style("code")
    assert spans["https://a.example"].link == "https://a.example"
    assert "\x1b]8;;https://a.example\x1b\\" in paint(spans.values())
    # Without a style for code, the backticks say what it is.
    assert "`c`" in plain_line(replace(SAID, text=text), LOOK)
    assert plain_line(replace(SAID, text=text), LOOK._replace(markdown=False)).endswith(text)


def test_the_theme_own_colours_and_links_are_settings() -> None:
    marked = replace(SAID, text="see https://a.example", mention=True)

    def spans(options: Options, **colours: str) -> list[tuple[str, str]]:
        _, _, *text = drawn(marked, look_of(options, colours, colour=True, links=True)).spans
        return [(span.style, span.link) for span in text]

    link = "https://a.example"
    assert spans(Options()) == [("1;33", ""), ("1;33;4", link)]
    assert spans(Options(theme="light")) == [("1;31", ""), ("1;31;4", link)]
    assert spans(Options(theme="contrast")) == [("1;7", ""), ("1;7;4", link)]
    assert spans(Options(), mention="italic", link="bold") == [("3", ""), ("3;1", link)]
    assert spans(Options(links=False)) == [("1;33", "")]


def test_own_messages_and_mentions_stand_out() -> None:
    _, name, text = drawn(SAID, COLOURED).spans
    assert (name.style, text.style) == (COLOURED.name_style("alice"), "")
    _, name, text = drawn(replace(SAID, own=True), COLOURED).spans
    assert (name.style, text.style) == ("1", "")
    _, name, text = drawn(replace(SAID, mention=True), COLOURED).spans
    assert (name.style, text.style) == (COLOURED.name_style("alice"), "1;33")


def test_a_name_keeps_its_colour_in_any_spelling() -> None:
    assert COLOURED.name_style("Alice") == COLOURED.name_style("alice")
    assert len({COLOURED.name_style(f"user{number}") for number in range(50)}) > 3


def test_the_lines_of_a_block_have_one_name() -> None:
    first = entry(Kind.MESSAGE, "│ def f():", name="bob", code=True)
    second = entry(Kind.MESSAGE, "│     return 1", name="bob", code=True)
    assert goes_on(second, first)
    assert not goes_on(second, None)
    assert not goes_on(second, replace(first, name="eve"))
    assert not goes_on(second, replace(first, at=AT.replace(hour=1)))
    line = drawn(second, LOOK, goes_on=True)
    assert row_text(line.spans) == " " * len("[14:30:15] bob: ") + "│     return 1"


def test_a_message_that_waits_is_marked() -> None:
    outgoing = Outgoing(Window("lobby", "lobby"), "hi")
    assert row_text(waiting(outgoing, "alice", LOOK).spans) == "… alice: hi"
    outgoing.held, outgoing.to = True, "bob"
    assert row_text(waiting(outgoing, "alice", LOOK).spans) == "? alice → bob: hi"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\tb", "a b"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("\x1b]0;title\x07", "\ufffd]0;title\ufffd"),
        ("\x9b2J", "\ufffd2J"),
        ("a\rb\nc\x08d", "a\ufffdb\ufffdc\ufffdd"),
        ("evil \u202etxt.exe", "evil \ufffdtxt.exe"),
        ("\u2066x\u2069", "\ufffdx\ufffd"),
        ("a\u2028b", "a\ufffdb"),
        ("a\ud800b", "a\ufffdb"),
        ("👩‍👩‍👧 नमस्ते שלום", "👩‍👩‍👧 नमस्ते שלום"),
    ],
)
def test_control_characters_and_direction_overrides_are_replaced(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_a_very_long_text_is_cut_and_says_so() -> None:
    assert safe("x" * (MAX_CHARACTERS + 5)) == "x" * MAX_CHARACTERS + " … (5 characters more)"
