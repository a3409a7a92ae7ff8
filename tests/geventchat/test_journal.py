"""The log on a stream: whole lines, in order, and never in the way of the server."""

from __future__ import annotations

import io
import json
import threading

from geventchat.journal import Journal
from geventchat.log import Happening


class Fixed:
    """Always the same moment."""

    def monotonic(self) -> float:
        return 0.0

    def time(self) -> float:
        return 1234567890.0625


def test_text_is_key_value_with_quotes_where_a_value_is_no_word():
    stream = io.StringIO()
    journal = Journal(stream, "text", "info", Fixed())
    journal(Happening.CONNECTED, conn=1, address="::1")
    journal(Happening.FAULT, error='two\nlines "quoted" a=b', name="")
    journal.close()
    assert stream.getvalue() == (
        "2009-02-13T23:31:30.062Z INFO connected conn=1 address=::1\n"
        '2009-02-13T23:31:30.062Z ERROR fault error="two\\nlines \\"quoted\\" a=b" name=""\n'
    )


def test_json_is_one_object_a_line():
    stream = io.StringIO()
    journal = Journal(stream, "json", "info", Fixed())
    journal(Happening.LOGIN, conn=1, name="Zoë")
    journal.close()
    assert json.loads(stream.getvalue()) == {
        "time": "2009-02-13T23:31:30.062Z",
        "level": "info",
        "event": "login",
        "conn": 1,
        "name": "Zoë",
    }
    assert stream.getvalue().endswith("}\n")


def test_what_is_below_the_level_is_not_written():
    stream = io.StringIO()
    journal = Journal(stream, "text", "warning", Fixed())
    journal(Happening.CONNECTED, conn=1)
    journal(Happening.REFUSED, conn=2)
    journal.close()
    assert stream.getvalue().count("\n") == 1
    assert " refused " in stream.getvalue()


class Stuck(io.StringIO):
    """A stream whose reader sleeps until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.go_on.wait(20)
        return super().write(text)


def test_a_stuck_reader_costs_log_lines_and_is_told_how_many():
    stream = Stuck()
    journal = Journal(stream, "text", "info", Fixed())
    journal(Happening.CONNECTED, conn=0)
    assert stream.reached.wait(20)
    for number in range(1, 10_011):
        journal(Happening.CONNECTED, conn=number)
    stream.go_on.set()
    while "conn=10000" not in stream.getvalue():
        assert journal._writer.is_alive()
    journal(Happening.STOPPED)
    journal.close()
    lines = stream.getvalue().splitlines()
    assert [line.split()[2] for line in lines[-2:]] == ["log-lost", "stopped"]
    assert lines[-2].endswith("events=10")
    assert len(lines) == 10_001 + 2


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_who_has_gone_ends_the_log_and_nothing_else():
    journal = Journal(Broken(), "text", "info", Fixed())
    journal(Happening.CONNECTED, conn=1)
    journal.close()
    assert not journal._writer.is_alive()
    journal(Happening.CONNECTED, conn=2)
