"""Update rewrites the expectations that were wrong and nothing else, whole files or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import InProcess, Outcome, ServerSpec, load, parse, play
from harness.updating.rewriting import Refused, require_nothing_lost
from harness.updating.updating import UpdateResult, update
from tests.harness.servers.talk import FAULTS, Message, serve, serve_right

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.chat"))
FIRST = "alice> LOGIN alice\nalice< OK\nbob> LOGIN bob\nbob< OK\n"


def updated(folder: Path, text: str, server=serve_right) -> tuple[UpdateResult, str]:
    path = folder / "a.chat"
    path.write_text(text)
    done = update(path, InProcess(server))
    return done, path.read_text()


def faulty(fault: str):
    return lambda ask: FAULTS[fault]()


@pytest.mark.parametrize("source", GOLDEN, ids=lambda path: path.stem)
def test_a_wrong_server_is_believed_or_refused_but_no_file_is_left_half_done(source, tmp_path):
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    done = update(path, InProcess(serve))
    if done.refused:
        assert path.read_bytes() == source.read_bytes()
        assert source.stem == "listeners-do-not-agree-on-an-order"
    else:
        assert done.diff
        assert play(load(path), InProcess(serve)).outcome is Outcome.PASSED
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("source", GOLDEN, ids=lambda path: path.stem)
def test_a_passing_file_stays_byte_for_byte(source, tmp_path):
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    before = path.stat()
    done = update(path, InProcess(serve_right))
    assert done.verdict.passed
    assert not done.diff
    assert path.read_bytes() == source.read_bytes()
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_comments_layout_and_patterns_that_match_stay(tmp_path):
    text = (
        "# about this file\ntitle: t\n\n# first\nalice> LOGIN alice\n  \nalice<~ ${_}\n\n\nbob> LOGIN bob\n# why\nbob< NO\n"
        "alice> WHO\nalice<~ USER ${one:/al.*/}\n# two\nalice< USER nobody"
    )
    done, after = updated(tmp_path, text)
    assert after == text.replace("bob< NO", "bob< OK").replace("USER nobody", "USER bob") + "\n"
    assert "-bob< NO\n+bob< OK\n" in done.diff


def test_what_is_missing_goes_and_what_is_new_stands_where_it_was_heard(tmp_path):
    _, after = updated(
        tmp_path,
        f"{FIRST}alice> WHO\nalice< USER bob\nalice< USER carol\nbob receives nothing\nalice> MSG hi\n",
    )
    assert (
        after
        == f"{FIRST}alice> WHO\nalice< USER alice\nalice< USER bob\nbob receives nothing\nalice> MSG hi\nbob< MSG alice hi\n"
    )


def test_what_breaks_silence_takes_its_place(tmp_path):
    _, after = updated(tmp_path, f"{FIRST}alice> MSG hi\nbob receives nothing\n# end\n")
    assert after == f"{FIRST}alice> MSG hi\nbob< MSG alice hi\n# end\n"


def test_an_end_that_is_not_said_is_added_and_one_that_is_wrong_is_put_right(tmp_path):
    _, after = updated(tmp_path, f"{FIRST}bob> QUIT\nalice> QUIT\nalice is reset\n")
    assert after == (
        f"{FIRST}bob> QUIT\nalice> QUIT\nalice< INFO bob disconnected\nalice< Goodbye!\nalice is closed\n"
        "bob< Goodbye!\nbob is closed\n"
    )


def test_lines_are_added_after_a_block_and_inside_one_where_its_lines_are(tmp_path):
    _, after = updated(
        tmp_path, f"{FIRST}together:\n    alice> MSG a\n    bob> MSG b\nalice> WHO\nalice< USER bob\n"
    )
    assert after == (
        f"{FIRST}together:\n    alice> MSG a\n    bob> MSG b\nalice> WHO\nalice< MSG bob b\nalice< USER alice\n"
        "alice< USER bob\nbob< MSG alice a\n"
    )
    _, after = updated(tmp_path, f"{FIRST}bob> WHO\nin any order:\n    bob< USER bob\n    bob< USER x\n")
    assert after == f"{FIRST}bob> WHO\nin any order:\n    bob< USER alice\n    bob< USER bob\n"


def test_a_block_of_receives_that_did_not_come_goes_with_its_head(tmp_path):
    _, after = updated(
        tmp_path, f"{FIRST}alice> MSG hi\nbob< MSG alice hi\nin any order:\n    alice< x\n    alice< y\n"
    )
    assert after == f"{FIRST}alice> MSG hi\nbob< MSG alice hi\n"


def test_a_repeat_is_rewritten_when_all_rounds_agree(tmp_path):
    text = f"{FIRST}repeat 3:\n    alice> MSG hi\n    bob< MSG hi\n"
    _, after = updated(tmp_path, text)
    assert after == text.replace("MSG hi\n    bob< MSG hi", "MSG hi\n    bob< MSG alice hi")


def test_a_definition_is_rewritten_for_all_its_calls(tmp_path):
    _, after = updated(
        tmp_path, "define X logs in:\n    X>~ LOGIN ${X}\n    X< YES\n\nalice logs in\nbob logs in\n"
    )
    assert after == "define X logs in:\n    X>~ LOGIN ${X}\n    X< OK\n\nalice logs in\nbob logs in\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{FIRST}repeat 2 as n:\n    alice>~ MSG ${{n}}\n    bob< MSG\n", "line 7 is played 2 times"),
        ("alice> LOGIN alice\nalice<~ ${x} now\nalice>~ MSG ${x}\n", "nothing has bound ${x}"),
        (f"{FIRST}repeat 2:\n    bob< x\nalice> WHO\nalice< USER alice\nalice< USER bob\n", "without a step"),
    ],
)
def test_it_refuses_where_something_would_be_lost(text, why, tmp_path):
    done, after = updated(tmp_path, text)
    assert why in done.refused
    assert after == text


def test_it_refuses_to_drop_what_can_no_longer_be_sent(tmp_path):
    text = f"{FIRST}alice> MSG hi\nbob< MSG alice hi\nbob> WHO\nbob< USER alice\nbob< USER bob\n"
    done, after = updated(tmp_path, text, faulty("closes-early"))
    assert "bob lost the connection in line 6, so this cannot be sent" in done.refused
    assert after == text


def test_whatever_the_cause_a_text_that_does_less_is_refused():
    script = parse(f"{FIRST}bob> QUIT\n")
    require_nothing_lost(script, f"# the same\n{FIRST}bob> QUIT\n")
    with pytest.raises(Refused, match="a step would be lost"):
        require_nothing_lost(script, FIRST)


def test_it_refuses_an_included_file(tmp_path):
    (tmp_path / "common.chat").write_text("define X logs in:\n    X>~ LOGIN ${X}\n    X< YES\n")
    done, after = updated(tmp_path, "include common.chat\nalice logs in\n")
    assert "common.chat:3 is wrong, and an included file is not rewritten" in done.refused
    assert after == "include common.chat\nalice logs in\n"


def test_it_refuses_a_server_that_says_something_else_every_time(tmp_path):
    class Counts(Message):
        served = 0

        def answer(self, sock, text):
            Counts.served += 1
            super().answer(sock, f"{text} {Counts.served}")

    text = "alice> LOGIN alice\nalice< OK\n"
    done, after = updated(tmp_path, text, lambda ask: Counts())
    assert (
        "something else every time: in line 2 alice heard `< OK 1` the first time and `< OK 2` the second"
        in done.refused
    )
    assert after == text


def test_the_line_that_is_never_the_same_is_named_as_it_stands_in_the_file(tmp_path):
    class Counts(Message):
        served = 0

        def answer(self, sock, text):
            Counts.served += text.startswith("Goodbye")
            super().answer(sock, f"{text} {Counts.served}" if text.startswith("Goodbye") else text)

    # Lines above it come and go: two are missing, and one was never sent.
    text = "alice> LOGIN alice\nalice receives nothing\nalice> WHO\nalice< x\nalice< y\nalice< z\nalice> QUIT\nalice< Bye\n"
    done, after = updated(tmp_path, text, lambda ask: Counts())
    assert "in line 8 alice heard `< Goodbye! 1` the first time and `< Goodbye! 2`" in done.refused
    assert after == text


def test_it_refuses_a_file_that_was_changed_meanwhile(tmp_path):
    path = tmp_path / "a.chat"

    def serve_and_edit(ask: ServerSpec) -> Message:
        path.write_text("# edited\n")
        return Message()

    path.write_text("alice> LOGIN alice\nalice< NO\n")
    done = update(path, InProcess(serve_and_edit))
    assert "changed while it was being played" in done.refused
    assert path.read_text() == "# edited\n"
    assert os.listdir(tmp_path) == ["a.chat"]


def test_a_link_stays_a_link_and_a_mode_stays_a_mode(tmp_path):
    real = tmp_path / "real.chat"
    real.write_text("alice> LOGIN alice\nalice< NO\n")
    real.chmod(0o640)
    link = tmp_path / "link.chat"
    link.symlink_to(real)
    assert update(link, InProcess(serve_right)).diff
    assert link.is_symlink()
    assert real.read_text() == "alice> LOGIN alice\nalice< OK\n"
    assert real.stat().st_mode & 0o777 == 0o640
