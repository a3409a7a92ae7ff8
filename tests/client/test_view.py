"""The screen as rows: what is where, at every size."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from geventchat.client.cells import row_width
from geventchat.client.editor import Editor
from geventchat.client.keys import Key, Paste, Text
from geventchat.client.render import row_text
from geventchat.client.view import Frame, View, changed_rows
from geventchat.client.windows import Entry, Kind
from tests.client.recorders import LOOK, NOON
from tests.client.test_conversation import Many, state

TODAY = date(2024, 1, 15)


class Screen:
    """A session with an input line, in a window."""

    def __init__(self, columns: int = 60, lines: int = 12) -> None:
        self.many = Many()
        self.session = self.many.run.session
        self.editor = Editor(self.session)
        self.view = View(LOOK, columns, lines)
        self.many.talk.current.entries.clear()

    def frame(self) -> Frame:
        return self.view.frame(self.session, self.editor, TODAY)

    def rows(self) -> list[str]:
        return [row_text(row).rstrip() for row in self.frame().rows]

    def log(self) -> list[str]:
        """The rows between title and status bar, without blank ones."""
        return [row for row in self.rows()[1:-2] if row]

    def say(self, *texts: str, name: str = "bob") -> None:
        for text in texts:
            last = self.many.talk.current.last_id or 0
            self.many.say(last + 1, text, name=name)


def test_a_frame_has_a_title_messages_a_status_bar_and_the_input_line() -> None:
    screen = Screen()
    screen.many.receive(type="topic", room="lobby", username="bob", topic="tea")
    screen.many.join("dev")
    screen.many.talk.select_number(1)
    screen.many.say(1, "alice?", room="dev")
    screen.say("hello")
    screen.editor.handle(Text("draft"))
    rows = screen.rows()
    assert rows[0] == " lobby · 2 here · tea"
    assert rows[1:3] == ["📌 bob changed the topic: tea", "[12:00:00] bob: hello"]
    assert rows[-2:] == [" alice  [1:lobby] 2:dev(1!)", "alice> draft"]
    assert screen.frame().title == "(1!) lobby · alice"


def test_no_text_in_the_input_line_can_act_on_the_terminal() -> None:
    screen = Screen()
    for text in ("\x1b]0;owned\x07", "\x9b2J", "\u202e"):
        screen.editor.handle(Text(text))
        screen.editor.handle(Key("left"))
    single = "".join(row_text(row) for row in screen.view.single_row(screen.session, screen.editor))
    for shown in (screen.rows()[-1], row_text(screen.frame().before_cursor), single):
        assert shown.isprintable()
    assert screen.rows()[-1].count("\ufffd") == 4


def test_words_do_not_break_and_rows_behind_the_first_are_indented() -> None:
    screen = Screen(columns=44)
    screen.say("a message that is long enough to be wrapped twice in here")
    assert screen.log() == [
        "[12:00:00] bob: a message that is long",
        "  enough to be wrapped twice in here",
    ]
    screen = Screen(columns=60)
    screen.say("a message that is long enough to be wrapped twice in here")
    assert screen.log()[1] == " " * 16 + "twice in here"


def test_a_long_row_of_a_list_continues_under_its_second_column() -> None:
    screen = Screen(columns=80, lines=60)
    screen.many.type("/help")
    rows = screen.log()
    at = next(at for at, row in enumerate(rows) if row.startswith("/msg NAME"))
    assert rows[at] == "/msg NAME [TEXT]           send a direct message, or go on to talk to one"
    assert rows[at + 1] == " " * 27 + "person; also /dm, /query"
    assert max(map(len, rows)) <= 80


def test_page_up_and_down_scroll_and_new_messages_do_not_move_what_is_read() -> None:
    screen = Screen(lines=12)
    screen.say(*[f"m{number}" for number in range(30)])
    screen.rows()
    texts = [row.rsplit(" ", 1)[1] for row in screen.log()]
    assert texts == [f"m{number}" for number in range(21, 30)]
    screen.view.scroll(screen.session, screen.view.page())
    assert screen.log()[-1].endswith("m21")
    before = screen.log()
    screen.say("late")
    assert screen.log() == before
    assert screen.many.talk.current.unread == 1
    assert screen.rows()[-2].endswith("scrolled up, 1 new: PageDown")
    screen.view.scroll(screen.session, -screen.view.page())
    screen.view.scroll(screen.session, -screen.view.page())
    assert screen.log()[-1].endswith("late")
    assert screen.many.talk.current.bottom is None
    assert screen.many.talk.current.unread == 0


def test_the_top_is_the_end_and_older_messages_are_asked_for_there() -> None:
    screen = Screen(lines=12)
    screen.many.talk.current.more = True
    screen.say(*[f"m{number}" for number in range(20)])
    screen.rows()
    screen.view.scroll(screen.session, 1000)
    assert screen.log()[0].endswith("m0")
    assert len(screen.log()) == 9
    assert [request["type"] for request in screen.many.sent()] == ["history"]
    screen.view.to_bottom(screen.many.talk.current)
    screen.view.to_top(screen.session)
    assert screen.log()[0].endswith("m0")
    # A window that is not full cannot be scrolled.
    short = Screen()
    short.say("only")
    short.rows()
    short.view.scroll(short.session, 1)
    assert short.many.talk.current.bottom is None


def test_what_waits_is_at_the_end_and_marked() -> None:
    screen = Screen()
    screen.say("hello")
    screen.many.type("my answer")
    assert screen.log() == ["[12:00:00] bob: hello", "… alice: my answer"]
    screen.many.run.wait(4)
    assert screen.rows()[-2].endswith("no answer for 4 s · 1 not confirmed")


def test_a_line_says_where_the_new_ones_begin_and_where_a_day_does() -> None:
    screen = Screen()
    window = screen.many.talk.current
    for days, text in ((2, "old"), (0, "today")):
        window.append(Entry(Kind.MESSAGE, text, NOON - timedelta(days=days), name="bob"))
    window.first_unread = window.entries[-1]
    assert [row.strip("─ ") for row in screen.log()] == [
        "Saturday, 13 January 2024",
        "[12:00:00] bob: old",
        "Monday, 15 January 2024",
        "new since you left",
        "[12:00:00] bob: today",
    ]


def test_a_question_about_a_paste_is_asked_in_the_status_bar() -> None:
    screen = Screen(lines=12)
    screen.editor.handle(Paste("".join(f"line {number}\n" for number in range(200))))
    rows = screen.rows()
    assert " Send 200 lines to lobby? y: send, n: drop, e: edit" in rows
    # The draft takes a third of the window, and its end is seen.
    assert rows[-4:] == ["line 196", "line 197", "line 198", "line 199"]
    screen.view = View(LOOK, 30, 12)
    assert screen.rows()[-5] == " Send 200 lines? y/n, e: edit"
    screen.view = View(LOOK, 60, 12)
    screen.editor.handle(Key("ctrl-c"))
    screen.editor.handle(Paste("/quit"))
    assert screen.rows()[-2] == " pasted: this is a message, not a command"


def test_completions_and_a_search_are_shown_in_the_status_bar() -> None:
    screen = Screen()
    screen.editor.candidates = ("👋 ", "⌚ ")
    assert screen.rows()[-2] == " 👋 :wave: ⌚ :watch:"
    screen.editor.candidates = ("Bea: ", "bob: ")
    assert screen.rows()[-2] == " Bea: bob:"
    screen.editor.candidates = ()
    screen.editor.handle(Key("ctrl-r"))
    screen.editor.handle(Text("x\x1b"))
    assert screen.rows()[-2] == " search: x\ufffd"


def test_typing_is_in_the_status_bar() -> None:
    screen = Screen()
    screen.many.receive(type="typing", room="lobby", username="bob")
    assert screen.rows()[-2].endswith("bob is writing")


def test_a_password_is_not_on_the_screen() -> None:
    screen = Screen()
    screen.editor.handle(Text("/register correct horse"))
    assert screen.rows()[-1] == "alice> /register *************"
    screen.editor.handle(Key("ctrl-c"))
    screen.many.type("/register")
    screen.editor.handle(Text("correct horse"))
    assert screen.rows()[-1] == "New password: *************"


@pytest.mark.parametrize("lines", [1, 2, 3, 5, 8, 24])
@pytest.mark.parametrize("columns", [1, 2, 4, 10, 20, 80, 300])
def test_every_size_has_a_frame_without_overflow(columns: int, lines: int) -> None:
    screen = Screen(columns, lines)
    for room in ("dev", "a-room-with-a-long-name", "ops"):
        screen.many.join(room)
    screen.say("日本語のテキスト 👩‍👩‍👧 " * 5, "```", "x" * 50)
    screen.many.type("waiting")
    screen.editor.handle(Text("a draft with 日本 in it that is long\nand two rows"))
    for key in ("left", "up", "home", "end"):
        frame = screen.frame()
        assert len(frame.rows) == lines
        # A wide character cannot be narrower than it is.
        assert all(row_width(row) <= max(columns, 2) or columns < 6 for row in frame.rows)
        assert 0 <= frame.cursor_row < lines
        assert row_text(frame.rows[frame.cursor_row]).startswith(row_text(frame.before_cursor))
        screen.view.scroll(screen.session, 3)
        screen.editor.handle(Key(key))


def test_a_narrow_status_bar_shows_the_current_room_and_unread_rooms_first() -> None:
    screen = Screen(columns=20)
    for number in range(8):
        screen.many.join(f"room{number}")
    screen.many.say(1, "alice!", room="room3")
    screen.many.talk.select_number(7)
    assert screen.rows()[-2] == " [7:room5] …"
    screen.view = View(LOOK, 28, 12)
    assert screen.rows()[-2] == " 5:room3(1!) [7:room5] …"


def test_the_cursor_of_a_long_line_begins_a_row_behind_a_full_one() -> None:
    screen = Screen(columns=20, lines=12)
    screen.editor.handle(Text("x" * 13))
    frame = screen.frame()
    assert [row_text(row) for row in frame.rows[-2:]] == ["alice> " + "x" * 13, ""]
    assert (frame.cursor_row, row_text(frame.before_cursor)) == (11, "")


def test_the_single_row_of_a_question_moves_sideways() -> None:
    screen = Screen(columns=20)
    screen.editor.handle(Text("a long answer to a short question"))
    before, behind = screen.view.single_row(screen.session, screen.editor)
    assert row_text(before) == "alice> ort question"
    assert row_text(behind) == ""
    screen.editor.handle(Key("home"))
    before, behind = screen.view.single_row(screen.session, screen.editor)
    assert row_text(before) == "alice> "
    assert row_text(behind) == "a long answe"


def test_only_rows_that_changed_are_written() -> None:
    screen = Screen()
    screen.say("one")
    old = screen.frame()
    screen.say("two")
    new = screen.frame()
    assert list(changed_rows(None, new)) == list(range(12))
    assert list(changed_rows(old, new)) == [2]


def test_a_narrowed_window_is_wrapped_anew() -> None:
    screen = Screen(columns=80)
    screen.say("a line that has to be wrapped when the window is narrow")
    assert len(screen.log()) == 1
    screen.view = View(LOOK, 30, 12)
    assert len(screen.log()) == 3


def test_ten_thousand_messages_are_drawn_at_once() -> None:
    screen = Screen()
    window = screen.many.talk.current
    for number in range(5000):
        window.entries.append(Entry(Kind.MESSAGE, f"m{number}", datetime(2024, 1, 15, 12), name="bob"))
    screen.rows()
    # Only what is seen was drawn.
    assert sum(entry.drawn is not None for entry in window.entries) < 20


def test_a_room_that_is_not_entered_says_so() -> None:
    screen = Screen()
    screen.many.reconnect({"lobby": state()})
    screen.many.talk.current.joined = False
    assert "not entered" in screen.rows()[0]
