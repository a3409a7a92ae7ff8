"""Faults as steps: how they are written, where they are rejected, and that they behave as a kernel would."""

from __future__ import annotations

from typing import NoReturn

import gevent.ssl
import pytest
from gevent.server import StreamServer

from harness import InProcess, Outcome, ScriptError, ServerSpec, Target, Verdict, parse, play, render
from harness.playing.pipeline import PlayOptions
from harness.report import styled_text
from harness.report.text import report
from harness.stage.transport import TlsTrust
from tests.certificates import made_certificate
from tests.harness.servers.faulty import serve


def played(text: str) -> Verdict:
    return play(parse(text, "fault.chat"), InProcess(serve))


def require_pass(text: str) -> None:
    verdict = played(text)
    assert verdict.passed, styled_text.plain(report(verdict))


# --- the forms ------------------------------------------------------------------------------------------------


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
def test_a_fault_renders_as_it_was_written(sentence: str) -> None:
    assert render(parse(sentence + "\n")) == sentence + "\n"


@pytest.mark.parametrize(
    ("sentence", "column", "wrong"),
    [
        ("sending to bob fails with EPIP", 27, "'EPIP' is not an error"),
        ("sending to bob fails with EPIPE 0 times", 33, "a count of 0"),
        ("sending to bob takes a byte", 22, "'a byte' is not an amount"),
        ("sending to 1 takes 1 byte", 12, "'1' is not a name for a client"),
        ("reading from takes 1 byte", 14, "no client is named here"),
        ("accepting bob fails with EMFILE", 11, "accepting concerns no client in particular"),
        ("the clock jumps 1", 17, "'1' is not a duration"),
    ],
)
def test_a_mistake_in_a_fault_is_reported_with_its_column(sentence: str, column: int, wrong: str) -> None:
    with pytest.raises(ScriptError) as told:
        parse(sentence + "\n")
    assert (told.value.problem.line, told.value.problem.column) == (1, column)
    assert wrong in str(told.value)


def test_clients_and_defined_steps_can_be_named_with_the_words_of_faults() -> None:
    require_pass(
        "define the CLIENT speaks:\n    CLIENT> hi\n    CLIENT< hi\n\n"
        "the> hello\nthe< hello\nthe clock speaks\nthe the speaks\nsending> x\nsending< x\n"
    )


def test_a_fault_in_a_defined_step_concerns_the_client_in_its_parameter() -> None:
    require_pass(
        "define X stutters:\n    sending to X takes 1 byte\n\nalice> one\nalice< one\nalice stutters\nalice> two\nalice< two\n"
    )


# --- where it is not supported ---------------------------------------------------------------------------------------


class Elsewhere(Target):
    """A target without fault injection, which is never started."""

    @property
    def features(self) -> frozenset[str]:
        return frozenset({"stderr"})

    def start(self, spec: ServerSpec, within_s: float) -> NoReturn:
        raise AssertionError("nothing is started")

    def __str__(self) -> str:
        return "a server elsewhere"


@pytest.mark.parametrize("fault", ["sending to a takes 1 byte", "the clock jumps 1h", "a vanishes"])
def test_on_other_targets_a_fault_is_an_error_of_the_script_or_a_reason_to_skip_it(fault: str) -> None:
    verdict = play(parse(f"a connects\n{fault}\n"), Elsewhere())
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert "2:1: a server elsewhere does not support fault injection" in verdict.reason
    skipped = play(parse(f"needs: faults\n\na connects\n{fault}\n"), Elsewhere())
    assert skipped.outcome is Outcome.SKIPPED
    assert skipped.reason == "needs faults, which a server elsewhere lacks"


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("sending to bob takes 1 byte\nbob> x\nbob< x\n", "bob has not connected yet"),
        ("bob> x\nbob< x\nbob closes\nreading from bob fails with EIO\n", "bob closed in line 3"),
        ("bob connects\nbob vanishes\nbob> x\n", "bob vanished in line 2"),
        ("bob connects\nbob vanishes\nbob is closed\n", "bob already vanished in line 2"),
    ],
)
def test_a_fault_of_a_client_that_is_not_connected_is_an_error_of_the_script(script: str, wrong: str) -> None:
    verdict = played(script)
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert wrong in verdict.reason


TLS = "transport: tls\n\nalice connects\n"


@pytest.mark.parametrize(
    "fault", ["reading from alice fails with ECONNRESET", "sending to alice takes 1 byte", "alice vanishes"]
)
def test_a_fault_in_a_connection_whose_calls_openssl_makes_is_an_error_of_the_script(fault: str) -> None:
    verdict = played_over_tls_of_gevent(f"{TLS}{fault}\n")
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert "4:1: the server's TLS reads and writes this connection itself" in verdict.reason


def test_faults_that_concern_no_connection_work_with_every_tls() -> None:
    verdict = played_over_tls_of_gevent(
        f"{TLS}the clock jumps 1h\naccepting fails with EMFILE\nalice> hi\nalice< hi\n"
    )
    assert verdict.passed, styled_text.plain(report(verdict))


def played_over_tls_of_gevent(text: str) -> Verdict:
    files = made_certificate()
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)

    def echo(sock: gevent.ssl.SSLSocket, _address: object) -> None:
        while data := sock.recv(100):
            sock.sendall(data)

    target = InProcess(lambda spec: StreamServer(("127.0.0.1", 0), echo, ssl_context=context))
    return play(parse(text), target, PlayOptions(tls=TlsTrust(str(files.cert))))


# --- what it does ---------------------------------------------------------------------------------------------


def test_a_partial_send_reveals_a_server_that_ignores_its_result() -> None:
    script = "bob> hello\nbob< hello\nsending to bob takes 1 byte\nbob> hello\nbob< hello\n"
    require_pass(script)
    verdict = played("server: kind=careless\n\n" + script)
    assert [(failure.line, failure.received) for failure in verdict.failures] == [(7, b"h")]


def test_a_blocked_send_delays_everything_without_a_busy_loop() -> None:
    # A busy loop never becomes idle, which would fail the script.
    require_pass(
        "bob> one\nbob< one\nsending to bob takes nothing\nbob> two\nbob receives nothing\nwait 1h\nbob receives nothing\n"
        "sending to bob takes all again\nbob< two\n"
    )


def test_a_blocked_read_delays_the_lines_sent_to_it() -> None:
    require_pass(
        "bob> one\nbob< one\nreading from bob takes nothing\nbob> two\nbob receives nothing\n"
        "reading from bob takes all again\nbob< two\n"
    )


def test_a_connection_lost_while_reading_is_lost_for_writing_too() -> None:
    require_pass(
        "a> x\na< x\nbob> x\nbob< x\nreading from bob fails with ECONNRESET\nbob> y\n"
        "bob is disconnected\na< lost: Connection reset by peer\n"
    )


def test_an_error_that_is_not_fatal_does_not_last() -> None:
    require_pass("bob> x\nbob< x\nsending to bob fails with EAGAIN 2 times\nbob> y\nbob< y\n")


def test_a_failing_send_ends_the_connection() -> None:
    require_pass(
        "a> x\na< x\nbob> x\nbob< x\nsending to bob fails with EPIPE\nbob> y\nbob is closed\na< lost: Broken pipe\n"
    )


@pytest.mark.parametrize("before", ["", "reading from bob takes nothing\n"])
def test_a_failing_send_makes_the_connection_readable(before: str) -> None:
    require_pass(
        f"server: kind=queueing\n\na> x\na< x\nbob> x\nbob< x\n{before}sending to bob fails with EPIPE\ncarol> x\ncarol< x\n"
        "carol closes\na< gone\nbob is disconnected\na< lost: Broken pipe\n"
    )


def test_accepting_fails_the_given_number_of_times() -> None:
    require_pass(
        "a> x\na< x\naccepting fails with EMFILE 2 times\nbob> hello\nbob receives nothing\n"
        "wait 9ms\nbob receives nothing\nwait 1ms\nbob receives nothing\nwait 1s\nbob< hello\n"
    )


@pytest.mark.parametrize(("kind", "seconds"), [("probing", 25), ("limited", 15)])
def test_keepalive_options_decide_when_a_vanished_peer_is_detected(kind: str, seconds: int) -> None:
    require_pass(
        f"server: kind={kind}\n\na> x\na< x\nbob> x\nbob< x\nbob vanishes\na receives nothing\n"
        f"wait {seconds - 1}.999s\na receives nothing\nwait 1ms\na< lost: Connection timed out\n"
    )


@pytest.mark.parametrize(
    ("kind", "quiet", "seconds"),
    [("probing", 7, 18), ("probing", 12, 23), ("probing", 47, 18), ("limited", 7, 8), ("limited", 12, 13)],
)
def test_probes_count_from_the_last_thing_that_a_vanished_peer_sent_or_acknowledged(
    kind: str, quiet: int, seconds: int
) -> None:
    require_pass(
        f"server: kind={kind}\n\na> x\na< x\nbob> x\nbob< x\nwait {quiet}s\nbob vanishes\na receives nothing\n"
        f"wait {seconds - 1}.999s\na receives nothing\nwait 1ms\na< lost: Connection timed out\n"
    )


def test_without_keepalive_a_vanished_peer_to_which_nothing_is_written_is_never_detected() -> None:
    require_pass("a> x\na< x\nbob> x\nbob< x\nbob vanishes\nwait 72h\na receives nothing\n")


def test_without_keepalive_a_write_to_a_vanished_peer_is_given_up_by_the_kernel() -> None:
    # The line about carol is sent to bob too.
    require_pass(
        "a> x\na< x\nbob> x\nbob< x\ncarol> x\ncarol< x\nbob vanishes\nwait 10s\ncarol closes\na< gone\n"
        "wait 924.599s\na receives nothing\nwait 1ms\na< lost: Connection timed out\n"
    )


def test_a_write_to_a_vanished_peer_starts_the_user_timeout() -> None:
    # The line about carol is sent to bob too, ten seconds after he vanished; the limit of 12 s counts from there.
    require_pass(
        "server: kind=limited\n\na> x\na< x\nbob> x\nbob< x\ncarol> x\ncarol< x\nbob vanishes\nwait 10s\n"
        "carol closes\na< gone\nwait 11.999s\na receives nothing\nwait 1ms\na< lost: Connection timed out\n"
    )


def test_a_vanished_client_can_connect_again_while_its_old_connection_lives_on() -> None:
    require_pass(
        "server: kind=probing\n\nbob> x\nbob< x\nbob vanishes\nwait 20s\nbob connects\nbob> y\nbob< y\n"
        "wait 5s\nbob< lost: Connection timed out\n"
    )


def test_a_clock_jump_reveals_a_server_that_measures_by_wall_clock() -> None:
    script = "bob> x\nbob< x\nthe clock jumps 1h\nwait 2s\nbob> y\nbob< y\nthe clock jumps back 2h\nwait 1s\nbob> z\nbob< z\n"
    require_pass(script)
    verdict = played("server: kind=wall-clock\n\n" + script)
    assert verdict.outcome is Outcome.FAILED
    assert verdict.failures[0].client == "bob"


def test_a_fault_of_a_connection_that_the_server_has_not_accepted_is_an_error_of_the_script() -> None:
    verdict = played("accepting fails with EMFILE\nbob connects\nsending to bob takes 1 byte\n")
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert "3:1: the server has not accepted a connection of this client" in verdict.reason
