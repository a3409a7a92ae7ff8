"""Faults as steps: said, read back, refused where they cannot be, and done to a server as a kernel would do them."""

from __future__ import annotations

import pytest

from harness import InProcess, Outcome, ScriptError, Verdict, parse, play, render
from harness.reporting import styled_text
from harness.reporting.report import report
from tests.harness.servers.faulty import serve


def played(text: str) -> Verdict:
    return play(parse(text, "fault.chat"), InProcess(serve))


def require_pass(text: str) -> None:
    verdict = played(text)
    assert verdict.passed, styled_text.plain(report(verdict))


# --- the words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentence",
    [
        "accepting fails with EMFILE",
        "accepting fails with EMFILE 2 times",
        "reading from alice fails with ECONNRESET",
        "reading from alice takes 20 bytes",
        "sending to bob fails with EPIPE 3 times",
        "sending to bob takes 1 byte",
        "sending to bob takes nothing",
        "sending to bob takes all again",
        "alice vanishes",
        "the clock jumps 1.5s",
        "the clock jumps back 90s",
    ],
)
def test_what_a_fault_says_is_what_is_read(sentence: str) -> None:
    assert render(parse(sentence + "\n")) == sentence + "\n"


@pytest.mark.parametrize(
    ("sentence", "column", "wrong"),
    [
        ("sending to bob fails with EPIP", 27, "'EPIP' is no error"),
        ("sending to bob fails with EPIPE 0 times", 27, "failing not even once"),
        ("sending to bob takes a byte", 22, "'a byte' is no amount"),
        ("sending to 1 takes 1 byte", 12, "'1' is no client"),
        ("reading from takes 1 byte", 14, "'nobody' is no client"),
        ("accepting bob fails with EMFILE", 11, "accepting is for nobody in particular"),
        ("the clock jumps 1", 17, "'1' is no duration"),
    ],
)
def test_what_is_nearly_a_fault_is_told_with_its_place(sentence: str, column: int, wrong: str) -> None:
    with pytest.raises(ScriptError) as told:
        parse(sentence + "\n")
    assert (told.value.line, told.value.column) == (1, column)
    assert wrong in str(told.value)


def test_the_words_of_faults_stay_free_for_names_and_defined_steps() -> None:
    require_pass(
        "define the CLIENT speaks:\n    CLIENT> hi\n    CLIENT< hi\n\n"
        "the> hello\nthe< hello\nthe clock speaks\nthe the speaks\nsending> x\nsending< x\n"
    )


def test_a_fault_in_a_defined_step_is_for_the_client_that_it_names() -> None:
    require_pass(
        "define X stutters:\n    sending to X takes 1 byte\n\nalice> one\nalice< one\nalice stutters\nalice> two\nalice< two\n"
    )


# --- where it cannot be ---------------------------------------------------------------------------------------


class Elsewhere:
    """A target of which only its features are asked."""

    features = frozenset({"stderr"})

    def __str__(self) -> str:
        return "a server elsewhere"


@pytest.mark.parametrize("fault", ["sending to a takes 1 byte", "the clock jumps 1h", "a vanishes"])
def test_elsewhere_a_fault_is_an_error_of_the_script_or_a_reason_to_skip_it(fault: str) -> None:
    verdict = play(parse(f"a connects\n{fault}\n"), Elsewhere())  # type: ignore[arg-type]
    assert verdict.outcome is Outcome.SCRIPT_WRONG
    assert "2:1: a server elsewhere cannot be made to suffer this" in verdict.reason
    skipped = play(parse(f"needs: faults\n\na connects\n{fault}\n"), Elsewhere())  # type: ignore[arg-type]
    assert skipped.outcome is Outcome.SKIPPED
    assert skipped.reason == "needs faults, which a server elsewhere lacks"


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("sending to bob takes 1 byte\nbob> x\nbob< x\n", "bob has not connected yet"),
        ("bob> x\nbob< x\nbob closes\nreading from bob fails with EIO\n", "bob closed in line 3"),
        ("bob connects\nbob vanishes\nbob> x\n", "bob vanished in line 2"),
        ("bob connects\nbob vanishes\nbob is closed\n", "bob vanished in line 2 already"),
    ],
)
def test_a_fault_of_someone_who_is_not_there_is_the_scripts_own(script: str, wrong: str) -> None:
    verdict = played(script)
    assert verdict.outcome is Outcome.SCRIPT_WRONG
    assert wrong in verdict.reason


# --- what it does ---------------------------------------------------------------------------------------------


def test_a_small_send_shows_who_takes_for_granted_that_it_takes_all() -> None:
    script = "bob> hello\nbob< hello\nsending to bob takes 1 byte\nbob> hello\nbob< hello\n"
    require_pass(script)
    verdict = played("server: kind=careless\n\n" + script)
    assert [(failure.line, failure.received) for failure in verdict.failures] == [(7, b"h")]


def test_sending_nothing_holds_all_of_it_back_without_a_busy_loop() -> None:
    # A loop that is busy never comes to rest, which fails the script.
    require_pass(
        "bob> one\nbob< one\nsending to bob takes nothing\nbob> two\nbob receives nothing\nwait 1h\nbob receives nothing\n"
        "sending to bob takes all again\nbob< two\n"
    )


def test_reading_nothing_holds_what_is_said_back() -> None:
    require_pass(
        "bob> one\nbob< one\nreading from bob takes nothing\nbob> two\nbob receives nothing\n"
        "reading from bob takes all again\nbob< two\n"
    )


def test_a_connection_lost_by_reading_is_lost_for_writing_too() -> None:
    require_pass(
        "a> x\na< x\nbob> x\nbob< x\nreading from bob fails with ECONNRESET\nbob> y\n"
        "bob is disconnected\na< lost: Connection reset by peer\n"
    )


def test_an_error_that_is_a_calls_own_does_not_last() -> None:
    require_pass("bob> x\nbob< x\nsending to bob fails with EAGAIN 2 times\nbob> y\nbob< y\n")


def test_a_failing_send_is_met_by_whoever_sends() -> None:
    require_pass(
        "a> x\na< x\nbob> x\nbob< x\nsending to bob fails with EPIPE\nbob> y\nbob is closed\na< lost: Broken pipe\n"
    )


def test_accepting_fails_as_often_as_it_says() -> None:
    require_pass(
        "a> x\na< x\naccepting fails with EMFILE 2 times\nbob> hello\nbob receives nothing\n"
        "wait 9ms\nbob receives nothing\nwait 1ms\nbob receives nothing\nwait 1s\nbob< hello\n"
    )


@pytest.mark.parametrize(("kind", "seconds"), [("probing", 25), ("limited", 15)])
def test_a_silent_peer_that_vanished_is_found_out_when_the_servers_own_options_say(
    kind: str, seconds: int
) -> None:
    require_pass(
        f"server: kind={kind}\n\na> x\na< x\nbob> x\nbob< x\nbob vanishes\na receives nothing\n"
        f"wait {seconds - 1}.999s\na receives nothing\nwait 1ms\na< lost: Connection timed out\n"
    )


def test_without_any_option_nobody_ever_finds_out_about_a_silent_peer() -> None:
    require_pass("a> x\na< x\nbob> x\nbob< x\nbob vanishes\nwait 72h\na receives nothing\n")


def test_what_a_vanished_peer_is_told_starts_another_clock() -> None:
    # The news of carol is sent to bob too, ten seconds after he vanished; the limit of 12 s counts from there.
    require_pass(
        "server: kind=limited\n\na> x\na< x\nbob> x\nbob< x\ncarol> x\ncarol< x\nbob vanishes\nwait 10s\n"
        "carol closes\na< gone\nwait 11.999s\na receives nothing\nwait 1ms\na< lost: Connection timed out\n"
    )


def test_someone_who_vanished_can_come_back_beside_their_own_ghost() -> None:
    require_pass(
        "server: kind=probing\n\nbob> x\nbob< x\nbob vanishes\nwait 20s\nbob connects\nbob> y\nbob< y\n"
        "wait 5s\nbob< lost: Connection timed out\n"
    )


def test_the_clock_jumps_and_shows_who_goes_by_it() -> None:
    script = "bob> x\nbob< x\nthe clock jumps 1h\nwait 2s\nbob> y\nbob< y\nthe clock jumps back 2h\nwait 1s\nbob> z\nbob< z\n"
    require_pass(script)
    verdict = played("server: kind=wall-clock\n\n" + script)
    assert verdict.outcome is Outcome.FAILED
    assert verdict.failures[0].client == "bob"
