"""An update rewrites only the expectations that failed, and it writes whole files or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import InProcess, Outcome, ServerSpec, load, parse, play
from harness.update import UpdateRefused, UpdateResult, require_nothing_lost, update
from tests.harness.servers.talk import FAULTS, Chat, serve, serve_correctly

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.chat"))
REFUSED = (
    "listeners-do-not-agree-on-an-order",
    "the-server-crashes-over-a-line",
    "a-connection-is-not-accepted",
    "a-line-comes-too-late",
    "an-exception-does-not-come",
    "bytes-are-not-read",
    "the-last-line-never-comes",
    "the-server-never-becomes-idle",
)
"""Nothing that a script expects would make these right."""
FIRST = "alice> LOGIN alice\nalice< OK\nbob> LOGIN bob\nbob< OK\n"


def updated(folder: Path, text: str, server=serve_correctly) -> tuple[UpdateResult, str]:
    path = folder / "a.chat"
    path.write_text(text)
    done = update(path, InProcess(server), ends=True)
    return done, path.read_text()


def faulty(fault: str):
    return lambda ask: FAULTS[fault]()


@pytest.mark.parametrize("source", GOLDEN, ids=lambda path: path.stem)
def test_after_an_update_the_file_passes_or_is_unchanged(source, tmp_path):
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    done = update(path, InProcess(serve), ends=True)
    if done.refused:
        assert path.read_bytes() == source.read_bytes()
        assert source.stem in REFUSED
    else:
        assert done.diff
        assert play(load(path), InProcess(serve)).outcome is Outcome.PASSED
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("source", GOLDEN, ids=lambda path: path.stem)
def test_a_file_that_passes_is_not_touched(source, tmp_path):
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    before = path.stat()
    done = update(path, InProcess(serve_correctly))
    assert done.verdict.passed
    assert not done.diff
    assert path.read_bytes() == source.read_bytes()
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_comments_layout_and_matching_patterns_are_kept(tmp_path):
    text = (
        "# about this file\ntitle: t\n\n# first\nalice> LOGIN alice\n  \nalice<~ ${_}\n\n\nbob> LOGIN bob\n# why\nbob< NO\n"
        "alice> WHO\nalice<~ USER ${one:/al.*/}\n# two\nalice< USER eve"
    )
    done, after = updated(tmp_path, text)
    assert after == text.replace("bob< NO", "bob< OK").replace("USER eve", "USER bob") + "\n"
    assert "-bob< NO\n+bob< OK\n" in done.diff


@pytest.mark.parametrize(
    "right",
    [
        "optional alice< note\nalice<~ ${_} alice\nalice<< USER\\x20bob\\n\n",
        "in any order:\n    alice<~ USER ${_}\n    alice< USER alice\n",
    ],
)
def test_the_right_lines_of_a_client_stay_as_they_are_when_another_has_wrong_ones(right, tmp_path):
    _, after = updated(tmp_path, f"{FIRST}alice> WHO\n{right}bob< something\n")
    assert after == f"{FIRST}alice> WHO\n{right}"


def test_missing_lines_are_removed_and_new_lines_stand_where_they_were_received(tmp_path):
    _, after = updated(
        tmp_path,
        f"{FIRST}alice> WHO\nalice< USER bob\nalice< USER carol\nbob receives nothing\nalice> MSG hi\n",
    )
    assert (
        after
        == f"{FIRST}alice> WHO\nalice< USER alice\nalice< USER bob\nbob receives nothing\nalice> MSG hi\nbob< MSG alice hi\n"
    )


def test_an_unexpected_line_replaces_receives_nothing(tmp_path):
    _, after = updated(tmp_path, f"{FIRST}alice> MSG hi\nbob receives nothing\n# end\n")
    assert after == f"{FIRST}alice> MSG hi\nbob< MSG alice hi\n# end\n"


def test_a_missing_end_is_added_and_a_wrong_end_is_corrected(tmp_path):
    _, after = updated(tmp_path, f"{FIRST}bob> QUIT\nalice> QUIT\nalice is reset\n")
    assert after == (
        f"{FIRST}bob> QUIT\nalice> QUIT\nalice< INFO bob disconnected\nalice< Goodbye!\nalice is closed\n"
        "bob< Goodbye!\nbob is closed\n"
    )


def test_lines_are_added_behind_a_block_or_inside_it_where_its_lines_are(tmp_path):
    _, after = updated(
        tmp_path, f"{FIRST}together:\n    alice> MSG a\n    bob> MSG b\nalice> WHO\nalice< USER bob\n"
    )
    assert after == (
        f"{FIRST}together:\n    alice> MSG a\n    bob> MSG b\nalice> WHO\nalice< MSG bob b\nalice< USER alice\n"
        "alice< USER bob\nbob< MSG alice a\n"
    )
    _, after = updated(tmp_path, f"{FIRST}bob> WHO\nin any order:\n    bob< USER bob\n    bob< USER x\n")
    assert after == f"{FIRST}bob> WHO\nin any order:\n    bob< USER alice\n    bob< USER bob\n"


def test_a_block_whose_lines_are_all_missing_is_removed_with_its_head(tmp_path):
    _, after = updated(
        tmp_path, f"{FIRST}alice> MSG hi\nbob< MSG alice hi\nin any order:\n    alice< x\n    alice< y\n"
    )
    assert after == f"{FIRST}alice> MSG hi\nbob< MSG alice hi\n"


def test_a_repeat_is_rewritten_if_all_rounds_received_the_same(tmp_path):
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
        ("alice> LOGIN alice\nalice<~ ${x} now\nalice>~ MSG ${x}\n", "${x} is not bound"),
        (f"{FIRST}repeat 2:\n    bob< x\nalice> WHO\nalice< USER alice\nalice< USER bob\n", "no steps left"),
    ],
)
def test_it_refuses_to_lose_a_step(text, why, tmp_path):
    done, after = updated(tmp_path, text)
    assert why in done.refused
    assert after == text


def test_it_refuses_to_remove_a_send_that_is_no_longer_possible(tmp_path):
    text = f"{FIRST}alice> MSG hi\nbob< MSG alice hi\nbob> WHO\nbob< USER alice\nbob< USER bob\n"
    done, after = updated(tmp_path, text, faulty("closes-early"))
    assert "bob lost the connection in line 6, so this cannot be sent" in done.refused
    assert after == text


def test_a_text_with_fewer_actions_is_refused_whatever_the_cause():
    script = parse(f"{FIRST}bob> QUIT\n")
    require_nothing_lost(script, f"# the same\n{FIRST}bob> QUIT\n")
    with pytest.raises(UpdateRefused, match="an action would be lost"):
        require_nothing_lost(script, FIRST)


def test_it_does_not_rewrite_an_included_file(tmp_path):
    (tmp_path / "common.chat").write_text("define X logs in:\n    X>~ LOGIN ${X}\n    X< YES\n")
    done, after = updated(tmp_path, "include common.chat\nalice logs in\n")
    assert "common.chat:3 is wrong, and included files are not rewritten" in done.refused
    assert after == "include common.chat\nalice logs in\n"


COMMON = """define X logs in:
    X>~ LOGIN ${X}
    X< OK

define X leaves:
    X> QUIT
    X< Goodbye!
    X is closed

define X says TEXT:
    X>~ MSG ${TEXT}
    X receives nothing
"""


def test_right_lines_of_an_included_file_do_not_stand_in_the_way_of_wrong_lines_of_the_script(tmp_path):
    (tmp_path / "common.chat").write_text(COMMON)
    # The lines have the numbers of lines in the included file, some of which are right and some of which are wrong.
    text = (
        "include common.chat\n\nalice logs in\nbob logs in\nalice> WHO\nalice< USER bob\nbob says hi\nalice< hi\n"
        "# nine\n# ten\nalice says hello\nbob< MSG alice\nalice leaves\nbob< INFO\n"
    )
    done, after = updated(tmp_path, text)
    assert not done.refused
    assert after == text.replace("bob\nbob says", "alice\nalice< USER bob\nbob says").replace(
        "alice< hi", "alice< MSG bob hi"
    ).replace("MSG alice\n", "MSG alice hello\n").replace("INFO\n", "INFO alice disconnected\n")
    assert (tmp_path / "common.chat").read_text() == COMMON


@pytest.mark.parametrize(
    ("common", "steps"),
    [
        ("define X asks:\n    X> WHO\n    X< USER alice\n", "# three\n# four\nalice asks\n"),
        ("define X asks:\n    X> WHO\n\n\n    X< USER bob\n", "# three\n# four\nalice asks\n"),
        ("define X asks:\n    X> WHO\n\n    X receives nothing\n", "# three\nalice asks\n"),
        ("define X asks:\n    X> WHO\n", "# three\n# four\nalice asks\n"),
    ],
)
def test_nothing_is_added_to_the_script_for_a_line_of_an_included_file(common, steps, tmp_path):
    (tmp_path / "common.chat").write_text(common)
    text = f"include common.chat\n{FIRST}{steps}"
    done, after = updated(tmp_path, text)
    assert "and included files are not rewritten" in done.refused
    assert after == text


def test_it_refuses_a_server_that_answers_differently_each_time(tmp_path):
    class Counts(Chat):
        served = 0

        def answer(self, sock, text):
            Counts.served += 1
            super().answer(sock, f"{text} {Counts.served}")

    text = "alice> LOGIN alice\nalice< OK\n"
    done, after = updated(tmp_path, text, lambda ask: Counts())
    assert (
        "differently each time; a pattern can match all answers: in line 2 alice first received `< OK 1`, then `< OK 2`"
        in done.refused
    )
    assert after == text


def test_the_changing_line_is_named_by_its_line_in_the_file(tmp_path):
    class Counts(Chat):
        served = 0

        def answer(self, sock, text):
            Counts.served += text.startswith("Goodbye")
            super().answer(sock, f"{text} {Counts.served}" if text.startswith("Goodbye") else text)

    # Lines above it come and go: two are missing, and one was never sent.
    text = "alice> LOGIN alice\nalice receives nothing\nalice> WHO\nalice< x\nalice< y\nalice< z\nalice> QUIT\nalice< Bye\n"
    done, after = updated(tmp_path, text, lambda ask: Counts())
    assert "in line 8 alice first received `< Goodbye! 1`, then `< Goodbye! 2`" in done.refused
    assert after == text


def test_it_does_not_overwrite_a_file_that_was_changed_during_the_update(tmp_path):
    path = tmp_path / "a.chat"

    def serve_and_edit(ask: ServerSpec) -> Chat:
        path.write_text("# edited\n")
        return Chat()

    path.write_text("alice> LOGIN alice\nalice< NO\n")
    done = update(path, InProcess(serve_and_edit))
    assert "changed while it was being played" in done.refused
    assert path.read_text() == "# edited\n"
    assert os.listdir(tmp_path) == ["a.chat"]


def test_links_and_file_modes_are_kept(tmp_path):
    real = tmp_path / "real.chat"
    real.write_text("alice> LOGIN alice\nalice< NO\n")
    real.chmod(0o640)
    link = tmp_path / "link.chat"
    link.symlink_to(real)
    assert update(link, InProcess(serve_correctly)).diff
    assert link.is_symlink()
    assert real.read_text() == "alice> LOGIN alice\nalice< OK\n"
    assert real.stat().st_mode & 0o777 == 0o640


def test_an_end_that_the_script_does_not_say_is_recorded_only_when_told_to(tmp_path):
    path = tmp_path / "s.chat"
    path.write_text("alice> LOGIN alice\nalice< OK\nalice> QUIT\nalice receives nothing\n")
    before = path.read_text()
    done = update(path, InProcess(serve_correctly))
    assert "line 4: alice is closed, which the script does not say" in done.refused
    assert path.read_text() == before
    assert "+alice is closed" in update(path, InProcess(serve_correctly), ends=True).diff


def test_what_a_server_raises_is_never_recorded(tmp_path):
    path = tmp_path / "s.chat"
    path.write_text(
        "server: fault=crashes\n\nalice> LOGIN alice\nalice< OK\nbob> LOGIN bob\nbob< OK\nalice> MSG hi\n"
    )
    done = update(path, InProcess(serve), ends=True)
    assert done.refused == "line 7: the server raised KeyError"
