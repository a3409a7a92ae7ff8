"""The audit: each thing that a server can get wrong is done, caught and named; what cannot be seen is not counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness import InProcess, Outcome, Script, ServerSpec, Target, Verdict, load, parse, play
from harness.audit.audit_report import headline, report, summary
from harness.audit.auditing import AuditResult, Sample, audit
from harness.audit.mutations import Kind, Mutation, mutations
from harness.audit.tampering import Tampering
from harness.playing.files import scripts_in
from harness.playing.verdict import FailureKind
from harness.reporting.styled_text import plain
from tests.harness.servers.talk import Message, Silent, serve

THREE = """\
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
OURS = list(scripts_in([Path(__file__).parents[1] / "transcripts"]))
TALK = InProcess(serve)


def clean(text: str, target: Target = TALK) -> Verdict:
    verdict = play(parse(text), target)
    assert verdict.passed, plain(report(AuditResult(verdict)))
    return verdict


def found(text: str) -> list[tuple[str, int, str, str]]:
    """The mutations in short: what, in which turn, to whose line, and what that line is."""
    return [(one.text, one.turn, one.client, one.wire.decode().strip()) for one in mutations(clean(text))]


def audit_result(text: str, target: Target = TALK, sample: Sample = Sample()) -> AuditResult:  # noqa: B008  # frozen
    return audit(parse(text, "talk.chat"), target, sample=sample)


def played(script: Script, mutation: Mutation) -> Verdict:
    tampering = Tampering(mutation)
    verdict = play(script, TALK, inbox_filter=tampering)
    assert tampering.applied
    return verdict


# --- which mutations there are ------------------------------------------------------------------------------


def test_every_line_is_changed_in_every_way_that_somebody_could_see() -> None:
    hello = [what for what, turn, *_ in found(THREE) if turn == 3]
    assert hello == [
        "dropped",
        "doubled",
        "altered",
        "altered",
        "delayed by a turn",
        "sent to alice instead",
        "sent to alice too",
        "sent to carol too",
    ]


def test_they_are_the_same_every_time() -> None:
    assert found(THREE) == found(THREE)


def test_a_line_can_only_go_to_whoever_is_there_already() -> None:
    first = {what for what, turn, *_ in found(THREE) if turn == 1}
    assert not any("sent to" in what for what in first)


def test_nothing_is_delayed_past_the_end() -> None:
    assert not any(what.startswith("delayed") for what, turn, *_ in found(THREE) if turn == 4)


def test_a_line_is_swapped_with_the_next_and_the_last_with_none() -> None:
    swapped = [line for what, _, _, line in found(THREE) if what.startswith("swapped")]
    assert swapped == ["USER alice"]


LOGGED_IN = "alice> LOGIN alice\nalice< OK\nbob> LOGIN bob\nbob< OK\n"


def test_two_equal_lines_that_change_places_are_no_change() -> None:
    text = (
        LOGGED_IN
        + "alice>> MSG hi\\nMSG hi\\nMSG ho\\n\nbob< MSG alice hi\nbob< MSG alice hi\nbob< MSG alice ho\n"
    )
    swapped = [line for what, _, _, line in found(text) if what.startswith("swapped")]
    assert swapped == ["MSG alice hi"]  # the second with the third, not the first with the second


def test_where_any_order_is_right_changing_places_is_no_change() -> None:
    text = LOGGED_IN + "bob> WHO\nin any order:\n  bob< USER bob\n  bob< USER alice\n"
    assert not any(what.startswith("swapped") for what, *_ in found(text))
    assert audit_result(text).sound


THE_SAME_FOR = (
    LOGGED_IN
    + "carol> LOGIN carol\ncarol< OK\ntogether:\n  alice> MSG x\n  alice> MSG y\n"
    + "in any order, the same for bob carol:\n  < MSG alice x\n  < MSG alice y\n"
)


def test_where_the_order_must_be_the_same_for_two_changing_it_for_one_is_noticed() -> None:
    swapped = [one for one in mutations(clean(THE_SAME_FOR)) if one.kind is Kind.SWAPPED]
    assert {one.client for one in swapped} == {"bob", "carol"}
    for one in swapped:
        assert played(parse(THE_SAME_FOR), one).failures[0].kind is FailureKind.DISAGREED


def test_nothing_is_sent_to_whoever_does_not_read() -> None:
    text = LOGGED_IN + "bob stops reading\nalice> WHO\nalice< USER alice\nalice< USER bob\nbob reads again\n"
    to_bob = [one for one in found(text) if "bob too" in one[0] and one[1] > 2]
    assert to_bob == []
    text = text.replace("bob stops reading\n", "")
    text = text.replace("bob reads again\n", "")
    assert [one for one in found(text) if "bob too" in one[0] and one[1] > 2] != []


def test_a_line_that_is_awaited_in_pieces_is_one_line() -> None:
    text = "alice> LOGIN alice\nalice<< O\nalice<< K\\n\n"
    lines = Counter(line for _, _, _, line in found(text))
    assert set(lines) == {"OK"}
    assert audit_result(text).sound


# --- each is caught, and told as what it is -----------------------------------------------------------------

_FAULTS = {
    Kind.DROPPED: {FailureKind.MISSING},
    Kind.DOUBLED: {FailureKind.EXTRA},
    Kind.ALTERED: {FailureKind.DIFFERENT},
    Kind.SWAPPED: {FailureKind.OUT_OF_ORDER},
    Kind.DELAYED: {FailureKind.MISSING},
    Kind.MISSENT: {FailureKind.MISSING, FailureKind.EXTRA},
    Kind.LEAKED: {FailureKind.EXTRA},
}


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name.lower())
def test_each_kind_is_caught_and_named(kind: Kind) -> None:
    script = parse(THREE)
    these = [one for one in mutations(clean(THREE)) if one.kind is kind]
    assert these
    for one in these:
        verdict = played(script, one)
        assert verdict.outcome is Outcome.FAILED
        assert verdict.failures[0].kind in _FAULTS[kind]
        blamed = {failure.client for failure in verdict.failures}
        assert blamed == {Kind.MISSENT: {one.client, one.other}, Kind.LEAKED: {one.other}}.get(
            kind, {one.client}
        )
        assert verdict.failures[0].turn == one.turn


def test_a_delayed_line_does_come_a_turn_later() -> None:
    late = next(one for one in mutations(clean(THREE)) if one.kind is Kind.DELAYED and one.turn == 3)
    loose = THREE.replace("bob< MSG alice hello\n", "").replace(
        "bob< USER alice", "bob< MSG alice hello\nbob< USER alice"
    )
    verdict = play(parse(loose), TALK, inbox_filter=Tampering(late))
    assert verdict.passed


# --- what is too loose --------------------------------------------------------------------------------------


def survivors(line: str) -> list[str]:
    done = audit_result(LOGGED_IN + f"alice> MSG hello 7\n{line}\n")
    assert done.clean.passed
    return [one.became.decode().strip() if one.became else one.mutation.text for one in done.survivors]


def test_an_exact_line_lets_nothing_pass() -> None:
    assert survivors("bob< MSG alice hello 7") == []


def test_a_pattern_that_takes_anything_lets_it_pass() -> None:
    assert survivors("bob<~ MSG ${_} hello 7") == ["MSG ?? hello 7"]
    assert survivors("bob<~ MSG ${_}") == ["MSG ?? hello 7", "MSG alice ?? 7", "MSG alice hello ??"]


def test_a_name_that_is_never_used_again_takes_anything() -> None:
    assert survivors("bob<~ MSG ${who} hello 7") == ["MSG ?? hello 7"]
    assert survivors("bob<~ MSG ${who} hello 7\nalice>~ MSG ${who}\nbob< MSG alice alice") == []


def test_a_capture_that_says_what_it_takes_lets_nothing_pass() -> None:
    assert survivors("bob<~ MSG alice hello ${_:int}") == []
    assert survivors("bob<~ MSG ${_:/[a-z]+/} hello ${n:/[0-9]/}") == []


def test_a_regular_expression_of_anything_does_not_even_see_the_line_end() -> None:
    assert "MSG alice hello 7" in survivors("bob<~ MSG alice ${_:/.*/}")  # with \r\n


def test_the_report_names_line_mutation_and_what_would_hold_it() -> None:
    done = audit_result(LOGGED_IN + "alice> MSG hello\nbob<~ MSG ${_}\n")
    text = plain(report(done))
    assert "SURVIVED talk.chat:6   2 changes to this line would go unnoticed" in text
    assert "  the script  bob<~ MSG ${_}\n" in text
    assert "  it heard    MSG alice hello\n" in text
    assert "  altered     MSG ?? hello\n" in text
    assert "${_:int}" in text
    assert headline(done) == "talk.chat:6 2 changes would go unnoticed"


def test_each_loose_line_is_told_with_its_own_advice() -> None:
    text = plain(report(audit_result(LOGGED_IN + "alice> MSG hello\nbob<~ MSG ${who} ${_:/.*/}\n")))
    assert "${who} takes any text, and nothing after it needs it" in text
    text = plain(report(audit_result(LOGGED_IN + "alice> MSG hello\nbob<~ MSG alice ${_:/.*/}\n")))
    assert "the regular expression takes more than the server says" in text


# --- what cannot be audited ---------------------------------------------------------------------------------


def test_a_script_that_does_not_pass_untouched_is_not_audited() -> None:
    done = audit_result("alice> LOGIN alice\nalice< NO\n")
    assert not done.judged
    assert done.played == 0
    assert "FAILED talk.chat:2" in plain(report(done))


def test_a_server_that_says_something_else_the_next_time_is_told_as_that() -> None:
    made: list[Message] = []

    def moody(ask: ServerSpec) -> Message:
        made.append(Silent() if made else Message())
        return made[-1]

    done = audit_result("alice> LOGIN alice\nalice< OK\n", InProcess(moody))
    assert not done.sound
    assert len(done.unsteady) == done.played > 0
    assert "UNSTEADY talk.chat:2   played again, the server did not say this to alice" in plain(report(done))


def test_a_target_that_breaks_is_not_taken_for_one_that_was_caught() -> None:
    made: list[Message] = []

    def once(ask: ServerSpec) -> Message:
        if made:
            raise RuntimeError("no second time")
        made.append(Message())
        return made[-1]

    done = audit_result("alice> LOGIN alice\nalice< OK\n", InProcess(once))
    assert not done.judged
    assert done.broken is not None
    assert "no second time" in plain(report(done))


# --- how many -----------------------------------------------------------------------------------------------


def test_a_sample_is_drawn_by_its_seed_and_what_it_leaves_out_is_said() -> None:
    every = mutations(clean(THREE))
    some = Sample(5, 1).of(every, "a/talk.chat")
    assert len(some) == 5
    assert some == Sample(5, 1).of(every, "b/talk.chat")
    assert some != Sample(5, 2).of(every, "a/talk.chat")
    assert list(some) == sorted(some, key=every.index)
    done = audit_result(THREE, sample=Sample(5))
    assert (done.played, done.left_out) == (5, len(every) - 5)
    assert f"left out by --most: {len(every) - 5} of {len(every)}" in plain(summary([done], 1.0))


def test_a_script_in_which_nobody_hears_anything_is_named() -> None:
    done = audit_result("alice connects\nalice closes\n")
    assert done.sound
    assert "nothing to change in talk.chat" in plain(summary([done], 1.0))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_our_own_transcripts_notice_what_is_drawn_of_them(path: Path, harness_target: Target) -> None:
    done = audit(load(path), harness_target, sample=Sample(4))
    assert done.sound, plain(report(done))
