"""An audit makes each mistake that a server could make, and names the lines of a script that would not notice it."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from gevent.server import StreamServer

from harness import InProcess, Outcome, Script, ServerSpec, Target, Verdict, load, parse, play
from harness.audit.audit import Audit, Sample, audit, headline, report, summary
from harness.audit.mutations import Mutation, MutationKind, Mutator, mutations
from harness.batch import scripts_in
from harness.cli import main
from harness.language.columns import width
from harness.playing.verdict import FailureKind
from harness.report.styled_text import plain
from harness.report.text import report as verdict_report
from tests.harness.servers import talk
from tests.harness.servers.talk import serve

THREE_CLIENTS = """\
alice> LOGIN alice
alice< OK
bob> LOGIN bob
bob< OK
carol connects

alice> MSG hello
bob< MSG alice hello
carol receives nothing
bob> WHO
bob< USER alice
bob< USER bob
"""
TRANSCRIPTS = list(scripts_in([Path(__file__).parents[1] / "transcripts"]))
TALK = InProcess(serve)


def passed(text: str) -> Verdict:
    verdict = play(parse(text), TALK)
    assert verdict.passed, plain(verdict_report(verdict))
    return verdict


def mutated(text: str) -> list[tuple[str, int, str, str]]:
    """Each mutation as its text, its turn, its client and its line."""
    return [(one.text, one.turn, one.client, one.data.decode().strip()) for one in mutations(passed(text))]


def audited(text: str, target: Target = TALK, sample: Sample = Sample()) -> Audit:  # noqa: B008  # frozen
    return audit(parse(text, "talk.chat"), target, sample=sample)


def played_with(script: Script, mutation: Mutation) -> Verdict:
    mutator = Mutator(mutation, b"\n")
    verdict = play(script, TALK, inbox_filter=mutator)
    assert mutator.applied
    return verdict


# --- mutations ----------------------------------------------------------------------------------------------


def test_every_line_is_mutated_in_every_visible_way() -> None:
    assert [what for what, turn, *_ in mutated(THREE_CLIENTS) if turn == 3] == [
        "dropped",
        "sent twice",
        "altered",
        "altered",
        "delayed by one turn",
        "sent to alice instead",
        "also sent to alice",
        "also sent to carol",
    ]


def test_mutations_are_the_same_every_time() -> None:
    assert mutated(THREE_CLIENTS) == mutated(THREE_CLIENTS)


def test_a_line_is_sent_only_to_clients_that_are_connected() -> None:
    first = {what for what, turn, *_ in mutated(THREE_CLIENTS) if turn == 1}
    assert not any("sent to" in what for what in first)


def test_nothing_is_delayed_beyond_the_last_turn() -> None:
    assert not any(what.startswith("delayed") for what, turn, *_ in mutated(THREE_CLIENTS) if turn == 4)


def test_a_line_is_swapped_with_the_next_one() -> None:
    assert [line for what, _, _, line in mutated(THREE_CLIENTS) if what.startswith("swapped")] == [
        "USER alice"
    ]


LOGGED_IN = "alice> LOGIN alice\nalice< OK\nbob> LOGIN bob\nbob< OK\n"


def test_equal_lines_are_not_swapped() -> None:
    text = (
        LOGGED_IN
        + "alice>> MSG hi\\nMSG hi\\nMSG ho\\n\nbob< MSG alice hi\nbob< MSG alice hi\nbob< MSG alice ho\n"
    )
    # The second with the third, not the first with the second.
    assert [line for what, _, _, line in mutated(text) if what.startswith("swapped")] == ["MSG alice hi"]


def test_lines_whose_order_is_free_are_not_swapped() -> None:
    text = LOGGED_IN + "bob> WHO\nin any order:\n  bob< USER bob\n  bob< USER alice\n"
    assert not any(what.startswith("swapped") for what, *_ in mutated(text))
    assert audited(text).outcome is Outcome.PASSED


THE_SAME_FOR = (
    LOGGED_IN
    + "carol> LOGIN carol\ncarol< OK\ntogether:\n  alice> MSG x\n  alice> MSG y\n"
    + "in any order, the same for bob carol:\n  < MSG alice x\n  < MSG alice y\n"
)


def test_lines_whose_order_must_be_the_same_for_two_clients_are_swapped_for_each_and_noticed() -> None:
    swapped = [one for one in mutations(passed(THE_SAME_FOR)) if one.kind is MutationKind.SWAPPED]
    assert {one.client for one in swapped} == {"bob", "carol"}
    for one in swapped:
        assert played_with(parse(THE_SAME_FOR), one).failures[0].kind is FailureKind.DISAGREED


def test_nothing_is_sent_to_a_client_that_does_not_read() -> None:
    text = LOGGED_IN + "bob stops reading\nalice> WHO\nalice< USER alice\nalice< USER bob\nbob reads again\n"
    assert [one for one in mutated(text) if one[0] == "also sent to bob" and one[1] > 2] == []
    text = text.replace("bob stops reading\n", "").replace("bob reads again\n", "")
    assert [one for one in mutated(text) if one[0] == "also sent to bob" and one[1] > 2] != []


def test_a_line_that_is_expected_in_pieces_is_one_line() -> None:
    text = "alice> LOGIN alice\nalice<< O\nalice<< K\\n\n"
    assert set(Counter(line for _, _, _, line in mutated(text))) == {"OK"}
    assert audited(text).outcome is Outcome.PASSED


_KINDS_OF_FAILURE = {
    MutationKind.DROPPED: {FailureKind.MISSING},
    MutationKind.DUPLICATED: {FailureKind.EXTRA},
    MutationKind.ALTERED: {FailureKind.DIFFERENT},
    MutationKind.SWAPPED: {FailureKind.OUT_OF_ORDER},
    MutationKind.DELAYED: {FailureKind.MISSING},
    MutationKind.MISDIRECTED: {FailureKind.MISSING, FailureKind.EXTRA},
    MutationKind.LEAKED: {FailureKind.EXTRA},
}


@pytest.mark.parametrize("kind", MutationKind, ids=lambda kind: kind.name.lower())
def test_each_kind_of_mutation_is_noticed(kind: MutationKind) -> None:
    script = parse(THREE_CLIENTS)
    these = [one for one in mutations(passed(THREE_CLIENTS)) if one.kind is kind]
    assert these
    for one in these:
        verdict = played_with(script, one)
        assert verdict.outcome is Outcome.FAILED
        assert verdict.failures[0].kind in _KINDS_OF_FAILURE[kind]
        expected = {
            MutationKind.MISDIRECTED: {one.client, one.other},
            MutationKind.LEAKED: {one.other},
        }.get(kind, {one.client})
        assert {failure.client for failure in verdict.failures} == expected
        assert verdict.failures[0].turn == one.turn


def test_a_delayed_line_arrives_one_turn_later() -> None:
    delayed = next(
        one for one in mutations(passed(THREE_CLIENTS)) if one.kind is MutationKind.DELAYED and one.turn == 3
    )
    later = THREE_CLIENTS.replace("bob< MSG alice hello\n", "").replace(
        "bob< USER alice", "bob< MSG alice hello\nbob< USER alice"
    )
    assert play(parse(later), TALK, inbox_filter=Mutator(delayed, b"\n")).passed


def test_what_a_mutation_has_taken_away_is_not_awaited_in_later_turns() -> None:
    script = parse(THREE_CLIENTS)
    dropped = next(
        one for one in mutations(passed(THREE_CLIENTS)) if one.kind is MutationKind.DROPPED and one.turn == 3
    )
    verdict = played_with(script, dropped)
    assert (verdict.outcome, len(verdict.turns), verdict.late_lines) == (Outcome.FAILED, 3, ())


# --- survivors ----------------------------------------------------------------------------------------------


def survivors(line: str) -> list[str]:
    done = audited(LOGGED_IN + f"alice> MSG hello 7\n{line}\n")
    assert done.unchanged.passed
    return [one.altered.decode().strip() if one.altered else one.mutation.text for one in done.survivors]


def test_nothing_survives_a_literal_line() -> None:
    assert survivors("bob< MSG alice hello 7") == []


def test_an_altered_word_survives_a_capture_of_anything() -> None:
    assert survivors("bob<~ MSG ${_} hello 7") == ["MSG ?? hello 7"]
    assert survivors("bob<~ MSG ${_}") == ["MSG ?? hello 7", "MSG alice ?? 7", "MSG alice hello ??"]


def test_an_altered_word_survives_a_capture_that_is_never_used_again() -> None:
    assert survivors("bob<~ MSG ${who} hello 7") == ["MSG ?? hello 7"]
    assert survivors("bob<~ MSG ${who} hello 7\nalice>~ MSG ${who}\nbob< MSG alice alice") == []


def test_nothing_survives_a_restricted_capture() -> None:
    assert survivors("bob<~ MSG alice hello ${_:int}") == []
    assert survivors("bob<~ MSG ${_:/[a-z]+/} hello ${n:/[0-9]/}") == []


def test_an_altered_line_end_survives_a_regular_expression_for_anything() -> None:
    assert "MSG alice hello 7" in survivors("bob<~ MSG alice ${_:/.*/}")  # with \r\n


def test_the_report_names_the_line_its_mutations_and_a_remedy() -> None:
    done = audited(LOGGED_IN + "alice> MSG hello\nbob<~ MSG ${_}\n")
    text = plain(report(done))
    assert "SURVIVED talk.chat:6   2 mutations of this line would not be noticed" in text
    assert "  script    bob<~ MSG ${_}\n" in text
    assert "  received  MSG alice hello\n" in text
    assert "  altered   MSG ?? hello\n" in text
    assert "${_:int}" in text
    assert headline(done) == "talk.chat:6 2 mutations not noticed"


def test_the_report_fits_a_narrow_terminal() -> None:
    done = audited(LOGGED_IN + "alice> MSG hello\nbob<~ MSG ${who} hello\n")
    shown = plain([*report(done, 40), *summary([done], 1.0, 40)])
    assert "  hint  ${who} matches any text, and no\n        later line" in shown
    assert max(map(width, shown.splitlines())) <= 40


def test_the_hint_depends_on_what_makes_the_line_loose() -> None:
    text = plain(report(audited(LOGGED_IN + "alice> MSG hello\nbob<~ MSG ${who} ${_:/.*/}\n")))
    assert "${who} matches any text, and no later line depends on it" in text
    text = plain(report(audited(LOGGED_IN + "alice> MSG hello\nbob<~ MSG alice ${_:/.*/}\n")))
    assert "the regular expression matches more than the server sends" in text
    swapped = "together:\n    alice> MSG 1\n    alice> MSG 2\n"
    numbers = "bob<~ MSG alice ${x:int}\nbob<~ MSG alice ${y:int}\n"
    text = plain(report(audited(LOGGED_IN + swapped + numbers)))
    assert "${x:int} matches any number; write the number, or a name that a later line uses" in text
    assert "regular expression" not in text


# --- audits without a result --------------------------------------------------------------------------------


def test_a_script_that_fails_unchanged_is_not_audited() -> None:
    done = audited("alice> LOGIN alice\nalice< NO\n")
    assert (done.conclusive, done.played, done.outcome) == (False, 0, Outcome.SCRIPT_ERROR)
    assert "FAILED talk.chat:2" in plain(report(done))


def test_a_server_that_answers_differently_in_the_replay_is_reported_as_unstable() -> None:
    made: list[object] = []

    def moody(spec: ServerSpec) -> object:
        made.append(talk.FAULTS["silent" if made else "none"]())
        return made[-1]

    done = audited("alice> LOGIN alice\nalice< OK\n", InProcess(moody))
    assert done.outcome is Outcome.TARGET_ERROR
    assert len(done.unstable) == done.played > 0
    assert "UNSTABLE talk.chat:2   replayed, the server did not send this line to alice" in plain(
        report(done)
    )


def test_a_line_is_found_in_a_replay_with_more_lines_before_it() -> None:
    plays: list[object] = []

    def talkative(spec: ServerSpec) -> StreamServer:
        plays.append(None)
        answer = b"motd\n" * len(plays) + b"end\n"

        def talk(sock: Any, address: object) -> None:
            while sock.recv(100):
                sock.sendall(answer)

        return StreamServer(("127.0.0.1", 0), talk)

    done = audited("alice> hi\nalice receives any lines until end\n", InProcess(talkative))
    assert (done.survivors, done.unstable) == ((), ())
    assert done.played == 4


def test_a_target_that_fails_during_the_audit_has_not_noticed_a_mutation() -> None:
    made: list[object] = []

    def once(spec: ServerSpec) -> object:
        if made:
            raise RuntimeError("no second time")
        made.append(talk.FAULTS["none"]())
        return made[-1]

    done = audited("alice> LOGIN alice\nalice< OK\n", InProcess(once))
    assert not done.conclusive
    assert done.outcome is Outcome.TARGET_ERROR
    assert "no second time" in plain(report(done))


# --- samples ------------------------------------------------------------------------------------------------


def test_a_sample_is_selected_by_its_seed_and_the_rest_is_counted() -> None:
    every = mutations(passed(THREE_CLIENTS))
    some = Sample(5, 1).of(every, "a/talk.chat")
    assert len(some) == 5
    assert some == Sample(5, 1).of(every, "b/talk.chat")
    assert some != Sample(5, 2).of(every, "a/talk.chat")
    assert list(some) == sorted(some, key=every.index)
    done = audited(THREE_CLIENTS, sample=Sample(5))
    assert (done.played, done.possible) == (5, len(every))
    text = plain(summary([done], 1.0))
    assert f"skipped because of --most: {len(every) - 5} of {len(every)} mutations" in text


def test_a_script_without_received_lines_is_named() -> None:
    done = audited("alice connects\nalice closes\n")
    assert done.outcome is Outcome.PASSED
    assert "no client receives a line: talk.chat" in plain(summary([done], 1.0))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_transcripts_of_this_project_notice_a_sample_of_mutations(
    path: Path, harness_target: Target
) -> None:
    done = audit(load(path), harness_target, sample=Sample(4))
    assert done.outcome is Outcome.PASSED, plain(report(done))


# --- the command --------------------------------------------------------------------------------------------

GOOD = "alice> LOGIN alice\nalice< OK\n"
LOOSE = "alice> LOGIN alice\nalice<~ ${_}\n"
BAD = "alice> LOGIN alice\nalice< NO\n"
APP = ("--app", "tests.harness.servers.talk:serve")
COMMAND = f"{sys.executable} -m tests.harness.servers.talk {{port}} none"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return tmp_path


def run(folder: Path, *options: str, **files: str) -> int:
    for name, text in files.items():
        (folder / f"{name}.chat").write_text(text)
    return main(["audit", str(folder), *options])


def test_the_exit_code_is_0_if_every_mutation_is_noticed(folder, capsys):
    assert run(folder, *APP, good=GOOD) == 0
    assert "1 script, 4 mutations: 4 noticed in" in capsys.readouterr().out


def test_the_exit_code_is_1_if_a_mutation_survives(folder, capsys):
    assert run(folder, *APP, good=GOOD, loose=LOOSE) == 1
    out = capsys.readouterr().out
    assert "loose.chat:2   1 mutation of this line would not be noticed" in out
    assert "2 scripts, 8 mutations: 7 noticed, 1 survived in" in out


def test_the_exit_code_is_2_if_a_script_fails_or_is_invalid(folder, capsys):
    assert run(folder, *APP, good=GOOD, loose=LOOSE, bad=BAD) == 2
    assert "not audited: " in capsys.readouterr().out
    (folder / "bad.chat").write_text("what?\n")
    assert run(folder, *APP) == 2


def test_a_skipped_script_does_not_change_the_exit_code(folder, capsys):
    assert run(folder, *APP, other="needs: magic\n\n" + LOOSE) == 0
    assert "skipped" in capsys.readouterr().out


def test_two_processes_find_the_same(folder, capsys):
    run(folder, *APP, good=GOOD, loose=LOOSE)
    alone = capsys.readouterr().out.rpartition(" in ")[0]
    assert run(folder, *APP, "-j", "2") == 1
    assert capsys.readouterr().out.rpartition(" in ")[0] == alone


def test_the_number_of_mutations_can_be_limited(folder, capsys):
    assert run(folder, *APP, "--most", "3", "--seed", "5", good=GOOD) == 0
    out = capsys.readouterr().out
    assert "1 script, 3 mutations: 3 noticed" in out
    assert "skipped because of --most: 1 of 4 mutations" in out


@pytest.mark.parametrize("number", ["0", "few"])
def test_a_limit_must_be_a_whole_number_from_1(folder, capsys, number):
    with pytest.raises(SystemExit):
        run(folder, *APP, "--most", number, good=GOOD)
    assert f"argument --most: {number!r} is not a whole number from 1" in capsys.readouterr().err


def test_without_a_fence_line_the_summary_says_that_silence_is_not_proven(folder, capsys):
    assert run(folder, "--server", COMMAND, "--most", "2", loose=LOOSE, good=GOOD) in (0, 1)
    assert "silence is not proven in 2 scripts" in capsys.readouterr().out
    who = "fence: WHO -> USER alice\n\n"
    assert run(folder, "--server", COMMAND, "--most", "2", loose=who + LOOSE, good=who + GOOD) in (0, 1)
    assert "silence" not in capsys.readouterr().out


# --- pytest -------------------------------------------------------------------------------------------------


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nharness_files = *.chat\nfilterwarnings = error\n")
    (pytester.path / "good.chat").write_text(GOOD)
    (pytester.path / "loose.chat").write_text(LOOSE)
    (pytester.path / "other.chat").write_text("needs: magic\n\n" + GOOD)
    return pytester


def run_pytest(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    return project.runpytest_inprocess(
        "-p", "no:cacheprovider", "-p", "harness.pytest_plugin", "--harness-app", APP[1], "-rfEs", *options
    )


def test_pytest_audits_each_transcript(project):
    run_pytest(project).assert_outcomes(passed=2, skipped=1)
    result = run_pytest(project, "--harness-audit")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    text = result.stdout.str()
    assert "SURVIVED loose.chat:2   1 mutation of this line would not be noticed" in text
    assert "Traceback" not in text


def test_pytest_limits_the_number_of_mutations(project):
    (project.path / "loose.chat").unlink()
    run_pytest(project, "--harness-audit", "--harness-audit-most", "1").assert_outcomes(passed=1, skipped=1)


def test_pytest_refuses_two_modes_at_once(project):
    result = run_pytest(project, "--harness-audit", "--harness-update")
    assert "use only one of --harness-update and --harness-audit" in result.stderr.str()
