"""Verdicts on servers and scripts that tempt the harness to be wrong: late deliveries, invisible lines, lookalikes."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from harness import (
    Address,
    Command,
    Fence,
    Grade,
    InProcess,
    Outcome,
    PlayOptions,
    ScriptError,
    ServerSpec,
    Stage,
    Verdict,
    check,
    load,
    parse,
    play,
)
from harness.compare.compare import Cell, cell_of
from harness.compare.report import mark
from harness.language.adapter import parse_adapter
from harness.language.forms import write_line
from harness.playing.verdict import FailureKind, Overtaken
from harness.report.styled_text import plain
from harness.report.text import report, run_summary, summary
from harness.update import update
from tests.harness.servers import puppet

HUB = Path(__file__).parent / "servers" / "hub.py"
PUPPET = str(HUB.with_name("puppet.py"))
HEADER = "fence: PING -> PONG\nwithin: 2s\n\n"
LOGINS = "ann> LOGIN ann\nann< OK\nbob> LOGIN bob\nbob< OK\n"


def hub(*options: str) -> Command:
    return Command([sys.executable, "-S", str(HUB), "{port}", *" ".join(options).split()])


def played(steps: str, *options: str, header: str = HEADER) -> tuple[Verdict, str]:
    verdict = play(parse(header + steps), hub(*options))
    return verdict, plain(report(verdict))


# --- answers that prove nothing -----------------------------------------------------------------------------

LATE = ["hub=250 after", "writers=250 after", "tasks"]
"""Later than any answer, by more than a busy machine keeps the harness from reading one."""
PATIENT = f"settle: 400ms\n{HEADER}"


@pytest.mark.parametrize("late", LATE)
def test_a_line_that_comes_after_the_answers_fails_the_turn_that_caused_it(late: str) -> None:
    steps = LOGINS + "ann> MSG hi\nbob receives nothing\nann> MSG again\n"
    verdict, text = played(steps, late, header=PATIENT)
    assert verdict.outcome is Outcome.FAILED, text
    first = verdict.failures[0]
    assert (first.kind, first.client, first.line) == (FailureKind.EXTRA, "bob", 10)
    assert verdict.grade is Grade.SETTLED
    assert "hint  lines came after the server had answered the fence line" in text


@pytest.mark.parametrize("late", [*LATE, "hub=5"])
def test_a_line_that_is_a_turn_late_does_not_pass_there(late: str) -> None:
    steps = LOGINS + "ann> MSG one\nbob receives nothing\nann> PING\nann< PONG\nbob< MSG ann one\n"
    verdict, text = played(steps, late, header=PATIENT)
    assert verdict.outcome is Outcome.FAILED, text
    assert verdict.failures[0].line == 10


@pytest.mark.parametrize("late", LATE)
def test_a_server_that_delivers_late_passes_a_script_that_is_right_but_is_not_graded_answered(
    late: str,
) -> None:
    steps = LOGINS + "ann> MSG one\nbob< MSG ann one\nbob> MSG two\nann< MSG bob two\n"
    verdict, text = played(steps, late, header=PATIENT)
    assert verdict.passed, text
    assert verdict.grade is Grade.SETTLED
    assert "(settled: lines came after the server had answered the fence line" in text


def test_what_comes_behind_an_answer_shows_that_answers_come_first() -> None:
    steps = LOGINS + "ann> MSG one\nbob< MSG ann one\n\nann> MSG two\nbob< MSG ann two\n"
    verdict, text = played(steps, "behind")
    assert verdict.passed, text
    assert (verdict.grade, verdict.overtaken) == (Grade.SETTLED, Overtaken.IN_A_TURN)


def test_what_another_client_caused_meanwhile_can_come_behind_an_answer() -> None:
    names = "ann> NAME ann\nann receives nothing\nbob> NAME bob\nbob receives nothing\n"
    both = "together:\n    ann> ann: one\n    bob> LATER 50 ann: two\nann< one\nann< two\n"
    verdict = play(parse(HEADER + names + both), Command([sys.executable, "-S", PUPPET, "{port}"]))
    assert verdict.passed, plain(report(verdict))
    assert (verdict.grade, verdict.overtaken) == (Grade.ANSWERED, None)


def test_a_part_of_a_line_that_an_adapter_holds_back_comes_after_the_answers_like_any_other() -> None:
    script = parse(f"{PATIENT}{LOGINS}ann> MSG one\nbob<< MSG ann one\n")
    adapter = parse_adapter("ignore: no\n")
    verdict = play(script, hub("hub=250 after unended"), PlayOptions(adapter=adapter))
    assert verdict.passed, plain(report(verdict))
    assert (verdict.grade, verdict.overtaken) == (Grade.SETTLED, Overtaken.IN_A_TURN)


def test_a_failed_turn_is_watched_for_what_comes_after_the_answers() -> None:
    verdict, text = played(
        f"{LOGINS}ann> MSG one\nbob receives nothing\n", "hub=250 after echoes", header=PATIENT
    )
    assert verdict.overtaken is Overtaken.AFTER_A_FAILURE, text
    assert {(one.kind, one.client) for one in verdict.failures} == {
        (FailureKind.EXTRA, "ann"),  # its OK
        (FailureKind.EXTRA, "bob"),
    }


def test_answers_are_watched_after_a_turn_that_waited_for_quiet() -> None:
    steps = LOGINS + "cat> LOGIN cat\ncat< OK\ncat closes\nann< INFO cat left\nbob< INFO cat left\n"
    verdict, text = played(steps + "ann> MSG hi\nbob receives nothing\n", "hub=20")
    assert verdict.outcome is Outcome.FAILED, text
    assert (verdict.failures[0].kind, verdict.failures[0].client) == (FailureKind.EXTRA, "bob")


def test_what_came_while_the_harness_waited_for_quiet_does_not_end_its_watching() -> None:
    steps = LOGINS + "cat> LOGIN cat\ncat< OK\ncat closes\nann< INFO cat left\nbob< INFO cat left\n"
    late = "ann> MSG hi\nbob receives nothing\nann> HELLO\nann< ERR unknown\nbob< MSG ann hi\n"
    for _ in range(6):
        verdict, text = played(steps + late, "hub=12", "errs")
        assert verdict.outcome is Outcome.FAILED, text
        assert (verdict.failures[0].kind, verdict.failures[0].client) == (FailureKind.EXTRA, "bob")


CROWD = ("ann", "bob", "cat", "dan", "eve")
A_TURN_LATE = (
    "ann> MSG one\nbob receives nothing\n\nann> HELLO\nwait 300ms\nann< ERR unknown\nin any order:\n"
    + "".join(f"    {name}< MSG ann one\n" for name in CROWD[1:])
)


def test_turns_that_only_introduce_clients_do_not_end_the_watching() -> None:
    logins = "".join(f"{name}> LOGIN {name}\n{name}< OK\n\n" for name in CROWD)
    verdict, text = played(logins + A_TURN_LATE, "hub=100", "errs", header=PATIENT)
    assert verdict.outcome is Outcome.FAILED, text
    assert (verdict.failures[0].kind, verdict.failures[0].client) == (FailureKind.EXTRA, "bob")


def test_what_introductions_deliver_before_the_answers_says_nothing_of_messages() -> None:
    logins = "ann> LOGIN ann\nann< OK\n\n"
    for at, name in enumerate(CROWD[1:], 1):
        heard = "".join(f"{one}< INFO {name} joined\n" for one in CROWD[:at])
        logins += f"{name}> LOGIN {name}\n{name}< OK\n{heard}\n"
    verdict, text = played(logins + A_TURN_LATE, "hub=100", "errs", "joins", header=PATIENT)
    assert verdict.outcome is Outcome.FAILED, text
    assert (verdict.failures[0].kind, verdict.failures[0].client) == (FailureKind.EXTRA, "bob")


def test_a_server_that_delivers_before_it_answers_is_graded_answered_and_played_once() -> None:
    verdict, text = played(LOGINS + "ann> MSG one\nbob< MSG ann one\n")
    assert verdict.passed, text
    assert verdict.grade is Grade.ANSWERED
    assert verdict.overtaken is None


def test_a_conversation_in_python_is_settled_with_a_quiet_moment() -> None:
    with Stage(hub("hub=250 after"), fence=Fence("PING", ("PONG",)), settle=0.4) as stage:
        ann, bob = stage.clients("ann", "bob")
        for client in (ann, bob):
            client.send(f"LOGIN {client.name}")
            client.expect("OK")
        ann.send("MSG hi")
        with pytest.raises(AssertionError, match="bob received `< MSG ann hi`, which was not expected"):
            stage.settle()


# --- what is not asked, and what it was asked ---------------------------------------------------------------


def test_a_part_of_a_line_before_a_close_gives_the_same_verdict_each_time() -> None:
    steps = LOGINS + "ann>> MSG hi\\nMSG h\nann closes\nbob< MSG ann hi\nbob< INFO ann left\n"
    found = {played(steps, "echoes", header="fence: PING -> PONG\n\n")[0].outcome for _ in range(12)}
    assert found == {Outcome.FAILED}  # ann receives an OK


def impatient(spec: ServerSpec) -> StreamServer:
    def talk(sock: Any, address: object) -> None:
        with gevent.Timeout(30, False), suppress(ConnectionResetError):
            for line in sock.makefile("rb"):
                sock.sendall(line)

    return StreamServer(("127.0.0.1", 0), talk)


@pytest.mark.parametrize("leaves", ["closes", "aborts", "closes\nann connects\nann> hi\nann< hi"])
def test_a_client_that_has_lost_its_connection_cannot_leave_unnoticed(leaves: str) -> None:
    verdict = play(parse(f"ann> hi\nann< hi\nwait 60s\nann {leaves}\n"), InProcess(impatient))
    assert verdict.outcome is Outcome.FAILED
    assert verdict.failures[0].kind is FailureKind.LOST_CONNECTION
    assert play(parse(f"ann> hi\nann< hi\nwait 29s\nann {leaves}\n"), InProcess(impatient)).passed


def test_a_client_whose_connection_may_have_ended_can_leave() -> None:
    either = "ann> hi\neither:\n    ann< hi\nor:\n    ann< hi\n    ann is closed\n"
    steps = f"{either}wait 60s\nann closes\nann connects\n"
    assert play(parse(steps), InProcess(impatient)).passed
    # Of its next connection nothing is uncertain.
    verdict = play(parse(f"{steps}ann> hi\nann< hi\nwait 60s\nann closes\n"), InProcess(impatient))
    assert verdict.outcome is Outcome.FAILED
    assert (verdict.failures[0].kind, verdict.failures[0].line) == (FailureKind.LOST_CONNECTION, 13)


def test_a_conversation_in_python_notices_that_a_connection_was_lost() -> None:
    with Stage(InProcess(impatient)) as stage:
        ann, bob, cat = stage.clients("ann", "bob", "cat")
        for client in (ann, bob, cat):
            client.connect()
        stage.wait(29)
        stage.settle()
        bob.close()
        cat.abort()
        stage.wait(1)
        ann_lost = "ann lost its connection, which is closed"
        with pytest.raises(AssertionError, match=ann_lost) as failed:
            stage.settle()
        assert "is connected" not in str(failed.value)
        ann.close()  # it has nothing left to close
        with pytest.raises(AssertionError, match=ann_lost):
            stage.settle()
        ann.expect_closed()
        stage.settle()
        bob.connect()  # again, so that it can lose another connection
        stage.wait(30)
        with pytest.raises(AssertionError, match="bob lost its connection, which is closed"):
            stage.settle()


def test_a_conversation_in_python_notices_that_a_connection_was_reset() -> None:
    def resets(sock: Any, address: object) -> None:
        sock.recv(1)  # what is left unread turns the end into a reset

    with Stage(InProcess(lambda spec: StreamServer(("127.0.0.1", 0), resets))) as stage:
        stage.client("ann").send("hi")
        with pytest.raises(AssertionError, match="ann lost its connection, which is reset"):
            stage.settle()


def test_what_a_client_does_after_it_has_left_waits_for_its_leaving() -> None:
    steps = LOGINS + "ann closes\nann connects\nann> LOGIN ann\nann< OK\nbob< INFO ann left\n"
    for _ in range(10):
        verdict, text = played(steps)
        assert verdict.passed, text


def test_a_client_that_has_only_connected_is_not_asked() -> None:
    verdict, text = played("ann connects\nann< welcome\n\nann> LOGIN ann\nann< OK\n", "greets", "strict")
    assert verdict.passed, text
    assert verdict.grade is Grade.SETTLED


def test_a_fence_line_can_begin_after_the_login() -> None:
    steps = "ann> HELLO\nann receives nothing\n\nann> LOGIN ann\nann< OK\n"
    verdict, text = played(steps, header="fence: PING -> PONG\nfence-after: LOGIN\n\n")
    assert verdict.passed, text
    verdict, text = played("ann> HELLO\nann receives nothing\n", "strict")
    assert verdict.outcome is Outcome.FAILED


def test_the_report_shows_the_fence_line_that_a_server_hung_up_on() -> None:
    program = (
        "import socketserver, sys\n"
        "class H(socketserver.StreamRequestHandler):\n"
        "    def handle(self):\n"
        "        for line in self.rfile:\n"
        "            if line.startswith(b'PING'): return\n"
        "            self.wfile.write(b'OK\\n')\n"
        "socketserver.ThreadingTCPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
    )
    verdict = play(
        parse("fence: PING -> PONG\n\nann> LOGIN ann\nann< OK\n"),
        Command([sys.executable, "-S", "-c", program, "{port}"]),
    )
    text = plain(report(verdict))
    assert verdict.failures[0].kind is FailureKind.LOST_CONNECTION
    assert "  harness   sent the fence line `PING` as ann, which was not answered" in text
    assert "`fence-after: …`, `unfenced: ann` or `fence: none`" in text


def test_the_report_shows_a_fence_line_that_reaches_another_client() -> None:
    program = (
        "import socketserver, sys\n"
        "clients = []\n"
        "class H(socketserver.StreamRequestHandler):\n"
        "    def handle(self):\n"
        "        clients.append(self.wfile)\n"
        "        for line in self.rfile:\n"
        "            for other in clients:\n"
        "                other.write(line if other is self.wfile else b'heard ' + line)\n"
        "socketserver.ThreadingTCPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
    )
    verdict = play(
        parse("fence: PING ${token} -> PING ${token}\n\nann> a\nann< a\nbob> b\nbob< b\nann< heard b\n"),
        Command([sys.executable, "-S", "-c", program, "{port}"]),
    )
    assert verdict.outcome is Outcome.FAILED
    assert re.search(
        r"  harness   sent the fence line `PING f\d+` as bob, which was answered", plain(report(verdict))
    )


def test_a_client_can_be_left_out_of_the_fence() -> None:
    header = "fence: PING -> PONG\nunfenced: ann\n\n"
    verdict, text = played("ann> HELLO\nann is closed\nbob> LOGIN bob\nbob< OK\n", "strict", header=header)
    assert verdict.passed, text
    assert verdict.grade is Grade.SETTLED


def test_fence_none_wins_over_the_option() -> None:
    script = parse("fence: none\n\nann> LOGIN ann\nann< OK\n")
    verdict = play(script, hub(), PlayOptions(Fence("NOSUCH", ("PONG",))))
    assert verdict.passed
    assert verdict.grade is Grade.SETTLED


@pytest.mark.parametrize(
    ("header", "steps", "message"),
    [
        ("fence-after: LOGN", "ann> LOGIN ann", "no client sends a line that begins with 'LOGN'"),
        ("unfenced: bbo", "bob> LOGIN bob", "no client is called bbo"),
        ("unfenced: bob bob", "bob> LOGIN bob", "'bob' twice"),
        ("settle: 0s", "bob> LOGIN bob", "no time at all"),
    ],
)
def test_a_header_that_cannot_be_meant_is_an_error(header: str, steps: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        check(parse(f"{header}\n\n{steps}\n"))


def test_a_fence_line_can_begin_after_a_line_with_captures_or_in_parts() -> None:
    header = "fence: PING -> PONG\nfence-after: LOGIN\n\n"
    steps = "ann>> LOG\nann>> IN ann\\n\nann< OK\n\ndefine X enters:\n    X>~ LOGIN ${X}\n    X< OK\n\nbob enters\n"
    verdict, text = played(steps, header=header)
    assert verdict.passed, text
    last = verdict.turns[-1].fence_lines
    assert {one.client for one in last} == {"ann", "bob"}


def test_a_server_that_goes_on_running_is_played_again_once_the_clients_have_left() -> None:
    steps = LOGINS + "ann> MSG one\nbob< MSG ann one\nbob> MSG two\nann< MSG bob two\n"
    with Stage(hub("hub=200")) as stage:
        host, port = stage.address(None)
        # How busy a server is that the harness has not started is unknown.
        verdict = play(
            parse(PATIENT.replace("400ms", "1500ms").replace("2s", "20s") + steps), Address(host, port)
        )
    assert verdict.passed, plain(report(verdict))
    assert verdict.overtaken is not None


def test_a_line_that_comes_once_and_fails_its_turn_is_reported_though_the_next_play_passes() -> None:
    steps = LOGINS + "ann> MSG one\nbob receives nothing\n\nbob> MSG two\nann receives nothing\n"
    with Stage(hub("hub=200 after once")) as stage:
        host, port = stage.address(None)
        header = PATIENT.replace("400ms", "1500ms").replace("2s", "20s")
        verdict, again = (play(parse(header + steps), Address(host, port)) for _ in range(2))
    text = plain(report(verdict))
    assert (verdict.outcome, again.outcome) == (Outcome.FAILED, Outcome.PASSED), text
    assert [(one.kind, one.received) for one in verdict.failures] == [(FailureKind.EXTRA, b"MSG ann one\n")]
    assert "the script passed, so the server does not do the same each time" in " ".join(text.split())


@pytest.mark.parametrize("option", ["", "held"])
def test_an_optional_line_that_comes_a_turn_late_is_no_failure_if_waiting_for_it_finds_it_in_its_turn(
    option: str,
) -> None:
    steps = (
        f"{LOGINS}ann> MSG one\nbob< MSG ann one\n\nann> SLOW news\noptional bob< MSG ann news\n\n"
        "ann> MSG two\nbob< MSG ann two\n\nann> MSG three\nbob< MSG ann three\n"
    )
    verdict, text = played(steps, option, header=PATIENT.replace("400ms", "600ms"))
    assert verdict.passed, text


def test_an_optional_line_that_comes_after_the_last_turn_is_no_failure_either() -> None:
    steps = (
        f"{LOGINS}ann> MSG one\nbob< MSG ann one\n\nann> SLOW news\noptional bob< MSG ann news\n\n"
        "ann> MSG two\nbob< MSG ann two\n"
    )
    verdict, text = played(steps, header=PATIENT.replace("400ms", "600ms"))
    assert verdict.passed, text


@pytest.mark.parametrize("optional", ["", "optional ann< Welcome\n"])
def test_a_server_that_dies_is_no_late_line(optional: str) -> None:
    steps = f"{LOGINS}{optional}ann> MSG one\nbob< MSG ann one\n\nann> DIE 200\nann receives nothing\n"
    with Stage(hub()) as stage:
        host, port = stage.address(None)
        verdict = play(parse(PATIENT + steps), Address(host, port))
    text = plain(report(verdict))
    assert verdict.outcome is Outcome.FAILED, text
    assert {one.kind for one in verdict.failures} == {FailureKind.LOST_CONNECTION}


def test_a_late_line_that_a_client_replies_to_is_late() -> None:
    header = f"reply bob: MSG ${{_}} ${{text}} -> MSG ${{text}}\n{PATIENT}"
    steps = f"{LOGINS}ann> MSG hello there\nann receives nothing\n"
    verdict, text = played(steps, "hub=250 after", header=header)
    assert verdict.outcome is Outcome.FAILED, text
    assert [(one.kind, one.client) for one in verdict.failures] == [(FailureKind.EXTRA, "ann")]


def test_a_line_that_fails_its_turn_each_time_is_reported_though_an_earlier_turn_could_do_without_it() -> (
    None
):
    steps = f"{LOGINS}ann> MSG one\noptional bob< MSG bob one\nbob< MSG ann one\n\nann> MSG two\nbob receives nothing\n"
    verdict, text = played(steps, header=PATIENT)
    assert [(one.kind, one.received) for one in verdict.failures] == [(FailureKind.EXTRA, b"MSG ann two\n")]
    assert verdict.grade is Grade.SETTLED
    flat = " ".join(text.split())
    assert "what came could be what an earlier turn had done without; the script was played again" in flat
    assert "proves nothing" not in flat


# --- lines that look like answers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "expected", "wrong"),
    [
        ("PONG | ERR ${_}", "ann< ERR username-taken", True),
        ("PONG | ERR ${_}", "ann<~ ERR ${why}", True),
        ("PONG | ERR ${_}", "ann<~ ${n:int} ERR", False),
        ("PONG | ERR ${_}", "ann<< ERR x\\n", True),
        ("PONG | ERR ${_}", "in any order:\n    ann< x\n    ann< ERR x", True),
        ("PONG ${token} | ERR ${_} ${token}", "ann< ERR username-taken", False),
        ("PONG | ERR must-login-first", "ann< ERR must-login-first", False),
        ("PONG", "ann<~ ${anything}", False),
    ],
)
def test_a_wildcard_answer_that_could_swallow_an_expected_line_is_an_error(
    answers: str, expected: str, wrong: bool
) -> None:
    script = parse(f"fence: PING -> {answers}\n\nann> LOGIN ann\n{expected}\n")
    if not wrong:
        check(script)
        return
    with pytest.raises(ScriptError, match=r"the fence answer `ERR \$\{_\}` would also match this line"):
        check(script)


def test_the_option_is_held_against_the_script_too() -> None:
    script = parse("ann> LOGIN ann\nann< ERR username-taken\n")
    verdict = play(script, hub(), PlayOptions(Fence("PING", ("PONG", "ERR ${_}"))))
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert "would also match this line" in verdict.reason


@pytest.mark.parametrize("times", range(3))
def test_literal_answers_are_counted_in_order(times: int) -> None:
    steps = LOGINS + "ann> PING\nann> MSG hi\nann> PING\nann< PONG\nann< OK\nann< PONG\nbob< MSG ann hi\n"
    verdict, text = played(steps, "echoes")
    assert verdict.passed, text


def test_an_expected_lookalike_that_is_alone_costs_nothing() -> None:
    verdict, text = played("ann> PING\nann< PONG\n")
    assert verdict.passed, text
    assert verdict.grade is Grade.ANSWERED


def test_a_missing_lookalike_is_missed() -> None:
    verdict, text = played("ann> LOGIN ann\nann< OK\nann< PONG\n")
    assert verdict.outcome is Outcome.FAILED, text
    assert (verdict.failures[0].kind, verdict.failures[0].line) == (FailureKind.MISSING, 6)


# --- answers behind bytes that have no line end ---------------------------------------------------------------

MARK, PROMPT = "fffb06", "3e20"  # a timing mark of telnet, and `> `


def after_raw(raw: str, expected: str, fence: str = "PING -> PONG") -> tuple[Verdict, str]:
    steps = f"{LOGINS}ann> WAVE\n{expected}\n\nann> MSG hi\nbob< MSG ann hi\n"
    return played(steps, f"raw={raw}", header=f"fence: {fence}\nwithin: 1s\n\n")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (MARK, "ann<< \\xff\\xfb\\x06"),
        (
            MARK * 2 + "fffa18014142fff0",
            "ann<< \\xff\\xfb\\x06\\xff\\xfb\\x06\\xff\\xfa\\x18\\x01AB\\xff\\xf0",
        ),
        (PROMPT, "ann<< >\\x20"),
        ("6f6b0a" + PROMPT, "ann<< ok\\n>\\x20"),
        (PROMPT, "ann receives 2 bytes: >\\x20"),
    ],
)
def test_an_answer_is_found_behind_expected_bytes_without_a_line_end(raw: str, expected: str) -> None:
    verdict, text = after_raw(raw, expected)
    assert verdict.passed, text
    assert verdict.grade is Grade.ANSWERED


def test_an_answer_is_found_behind_telnet_sequences_that_are_not_expected() -> None:
    verdict, text = after_raw(MARK, "bob receives nothing")
    failure = verdict.failures[0]
    assert (failure.kind, failure.client, failure.received) == (FailureKind.EXTRA, "ann", b"\xff\xfb\x06"), (
        text
    )


def test_an_answer_with_a_token_is_found_behind_any_bytes() -> None:
    fence = "PING ${token} -> PONG ${token}"
    verdict, text = after_raw(PROMPT, "bob receives nothing", fence)
    failure = verdict.failures[0]
    assert (failure.kind, failure.client, failure.received) == (FailureKind.EXTRA, "ann", b"> "), text
    verdict, text = after_raw("68656c6c6f", "ann receives 5 bytes", fence)
    assert verdict.passed, text
    assert verdict.grade is Grade.ANSWERED


def test_the_prompt_that_follows_an_answer_is_a_part_of_it_or_removed() -> None:
    steps = "ann> LOGIN ann\nann<< OK\\n>\\x20\nbob> LOGIN bob\nbob<< OK\\n>\\x20\n"
    verdict, text = played(steps, "prompts", header="fence: PING -> PONG\\n>\\x20\n\n")
    assert (verdict.outcome, verdict.grade) == (Outcome.PASSED, Grade.ANSWERED), text
    adapter = parse_adapter("fence: PING -> PONG\nprompts: >\\x20\n")
    verdict = play(parse(LOGINS), hub("prompts"), PlayOptions(adapter=adapter))
    assert (verdict.outcome, verdict.grade) == (Outcome.PASSED, Grade.ANSWERED), plain(report(verdict))


def test_an_answer_that_can_be_the_end_of_another_line_is_not_taken_for_one() -> None:
    verdict, text = after_raw(PROMPT, "bob receives nothing")
    assert verdict.failures[0].kind is FailureKind.UNANSWERED, text
    assert r"is found if the turn expects these bytes (`ann<< >\x20`)" in " ".join(text.split())
    # An end of a line that is not an answer stays.
    verdict, text = after_raw("4d534720616e6e20504f4e470a", "ann< MSG ann PONG")
    assert verdict.passed, text


UNTIL = "ann receives any lines until END"


@pytest.mark.parametrize(
    ("raw", "expected", "grade"),
    [
        ("PONG\nEND\n", UNTIL, Grade.ANSWERED),
        ("PONG\nx\nPONG\nEND\nPONG\n", f"{UNTIL}\nann< PONG", Grade.ANSWERED),
        ("x\nEND\n", UNTIL, Grade.ANSWERED),
        ("10\nPONG\nPONG\n\n", "ann<~ ${n:int}\nann receives ${n} bytes\nann<", Grade.ANSWERED),
        ("PONG\nEND\n", f"either:\n    ann< x\nor:\n    ann< y\n{UNTIL}", None),
        ("x\nPONG\nEND\n", f"either:\n    ann< x\nor:\n    ann< y\n{UNTIL}", Grade.SETTLED),
    ],
)
def test_an_answer_is_found_behind_any_lines_that_look_like_it(
    raw: str, expected: str, grade: Grade | None
) -> None:
    verdict, text = after_raw(raw.encode().hex(), expected)
    assert verdict.passed is (grade is not None), text
    assert grade in (None, verdict.grade)


@pytest.mark.parametrize("expected", ["ann<< \\xff\\xfb\\x06PONG\\n", "ann<< \\xff\\xfb\\x06\nann< PONG"])
def test_an_expected_answer_behind_bytes_is_not_taken_for_that_to_the_fence_line(expected: str) -> None:
    for _ in range(3):
        verdict, text = after_raw(f"{MARK}504f4e470a4d4f52450a", f"{expected}\nann< MORE")
        assert verdict.passed, text
        assert verdict.grade is Grade.ANSWERED


# --- servers that end while something is awaited -----------------------------------------------------------------


@pytest.mark.parametrize("fence", ["fence: PING -> PONG\n", ""])
def test_a_server_that_dies_while_a_line_is_awaited_is_a_failure_with_its_exit_status(fence: str) -> None:
    steps = "ann> LOGIN ann\nann< OK\nann> DIE 150\nann< never\n"
    for _ in range(3):
        verdict, text = played(steps, header=f"{fence}within: 5s\n\n")
        assert verdict.outcome is Outcome.FAILED, text
        assert verdict.failures[0].kind is FailureKind.SERVER_DIED
        assert "exited with status 7" in text


def test_a_fence_line_that_is_no_longer_answered_is_a_failure_wherever_it_is_noticed() -> None:
    steps = LOGINS + "ann> MUTE\nbob receives nothing\n"
    verdict, text = played(steps, header="fence: PING -> PONG\nwithin: 300ms\n\n")
    assert verdict.outcome is Outcome.FAILED, text
    assert verdict.failures[0].kind is FailureKind.UNANSWERED
    assert verdict.failures[0].line == 8


# --- exceptions of a server in this process -----------------------------------------------------------------


class Raising(StreamServer):
    """Answers each line with OK; `RAISE` raises, `LATER` raises when the client has left."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.converse)

    def converse(self, sock: Any, _address: object) -> None:
        seen = b""
        with sock, sock.makefile("rb") as lines:
            for line in lines:
                seen = line
                if line == b"SPAWN\n":
                    gevent.spawn(self.fail)
                if line == b"RAISE\n":
                    self.fail()
                sock.sendall(b"OK\n")
        if seen == b"LATER\n":
            self.fail()

    def fail(self) -> None:
        raise ValueError("a mistake of the server")


def in_process(steps: str) -> tuple[Verdict, str]:
    verdict = play(parse(steps), InProcess(lambda _spec: Raising()))
    return verdict, plain(report(verdict))


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ("ann> SPAWN\nann< OK\nann> hi\nann< OK\n", 1),
        ("ann> hi\nann< OK\nann> RAISE\nann is closed\n", 3),
        ("ann> hi\nann< OK\nann> LATER\nann< OK\n", 3),
        ("ann> LATER\nann< OK\nann closes\n", 3),
    ],
)
def test_an_exception_that_nothing_handles_fails_the_turn_with_its_traceback(steps: str, line: int) -> None:
    verdict, text = in_process(steps)
    assert verdict.outcome is Outcome.FAILED
    assert (verdict.failures[0].kind, verdict.failures[0].line) == (FailureKind.RAISED, line)
    assert "the server raised ValueError" in text
    assert "| Traceback (most recent call last)" in text
    assert "expect `the server raises ValueError` in this turn" in text


def test_an_exception_that_the_script_expects_passes_and_is_not_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    verdict, text = in_process("ann> SPAWN\nann< OK\nthe server raises ValueError\n")
    assert verdict.passed, text
    assert capfd.readouterr().err == ""


def test_an_exception_that_comes_when_the_clients_leave_can_be_expected_in_the_last_turn() -> None:
    verdict, text = in_process("ann> hi\nann< OK\nann> LATER\nann< OK\nthe server raises ValueError\n")
    assert verdict.passed, text
    verdict, text = in_process("ann> LATER\nann< OK\nthe server raises KeyError\n")
    assert {one.kind for one in verdict.failures} == {FailureKind.NOT_RAISED}, text


@pytest.mark.parametrize("kind", ["KeyError", "ValueError"])
def test_an_exception_that_does_not_come_is_missing(kind: str) -> None:
    verdict, text = in_process(f"ann> hi\nann< OK\nthe server raises {kind}\n")
    assert verdict.outcome is Outcome.FAILED
    assert f"FAILED <script>:3   the server did not raise {kind}" in text


def test_a_server_elsewhere_cannot_be_expected_to_raise() -> None:
    verdict, text = played("ann> LOGIN ann\nann< OK\nthe server raises ValueError\n")
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert "does not show what its code raises" in text


def test_a_server_that_raises_when_it_is_stopped_is_a_target_error() -> None:
    class Unstoppable(Raising):
        def stop(self, timeout: float | None = None) -> None:
            super().stop(timeout)
            self.fail()

    verdict = play(parse("ann> hi\nann< OK\n"), InProcess(lambda _spec: Unstoppable()))
    assert verdict.outcome is Outcome.TARGET_ERROR
    assert "does not stop: ValueError('a mistake of the server')" in verdict.reason
    verdict = play(parse("ann> hi\nann< NO\n"), InProcess(lambda _spec: Unstoppable()))
    assert [(one.kind, one.line) for one in verdict.failures] == [(FailureKind.DIFFERENT, 2)]


def test_a_conversation_in_python_fails_with_the_exception() -> None:
    with Stage(InProcess(lambda _spec: Raising())) as stage:
        ann = stage.client("ann")
        ann.send("SPAWN")
        ann.expect("OK")
        with pytest.raises(AssertionError, match=r"(?s)the server raised ValueError: a mistake.*Traceback"):
            stage.settle()
        ann.send("SPAWN")
        ann.expect("OK")
        assert [error.kind for error in stage.take_errors()] == ["ValueError"]
        stage.settle()


# --- what a grade is of -------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", ["", "xfail: known\n"])
def test_a_run_that_no_fence_line_ended_has_no_grade(known: str) -> None:
    verdict, _ = played(
        "ann> LOGIN ann\nann< OK\n", header=f"fence: NOSUCH -> PONG\nwithin: 200ms\n{known}\n"
    )
    assert [one.kind for one in verdict.failures] == [FailureKind.UNANSWERED]
    assert verdict.grade is None
    assert run_summary([verdict], 1.0) == f"1 failed{' as expected' if known else ''} in 1.00 s"


# --- where a failure is --------------------------------------------------------------------------------------

COMMON = "define X logs in:\n    X>~ LOGIN ${X}\n    X< NO\n\ndefine X leaves:\n    X half-closes\n    X is reset\n"


@pytest.mark.parametrize(
    ("steps", "shown"),
    [
        ("include common.chat\n\nann logs in\n", "common.chat:3 from {}:3"),
        ("include common.chat\n\nann> LOGIN ann\nann< OK\nann leaves\n", "common.chat:7 from {}:5"),
        (
            "repeat 2 as n:\n    ann>~ LOGIN ${n}\n    ann<~ OK\n    bob> hi\n    bob< x\n",
            "{}:5 (round 1 of 2)",
        ),
    ],
)
def test_a_failure_inside_an_include_or_a_repeat_names_the_line_that_led_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: str, shown: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "common.chat").write_text(COMMON)
    (tmp_path / "s.chat").write_text(steps)
    verdict = play(load(Path("s.chat")), hub(), PlayOptions(within_s=0.3))
    assert summary(verdict).startswith(shown.format("s.chat") + " ")
    assert plain(report(verdict)).startswith(f"FAILED {shown.format('s.chat')}   ")
    cell = Cell.from_text(cell_of("mine", verdict).as_text())
    assert cell.place == shown.format("s.chat")
    if "from" in shown:
        assert mark(cell) == f"line {shown.rpartition(':')[2]}"


def test_an_expected_end_in_an_included_file_is_not_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "common.chat").write_text(COMMON)
    text = "include common.chat\n\nann> LOGIN ann\nann< OK\n# five\n# six\n# seven\nann leaves\n"
    (tmp_path / "s.chat").write_text(text)
    done = update(Path("s.chat"), hub(), PlayOptions(within_s=0.3))
    assert done.refused == "common.chat:7 is wrong, and included files are not rewritten"
    assert (tmp_path / "s.chat").read_text() == text


HEARS = "define X hears N:\n    X<~ N ${N}\n\n"
NUMBERS = "a>> a: N 1 | N 2\\na: N 9\\n\n"


@pytest.mark.parametrize(
    ("steps", "shown"),
    [
        (
            f"{NUMBERS}repeat 3 as n:\n    a<~ N ${{n}}\n",
            "s.chat:5 (round 3 of 3)   a received something else",
        ),
        (f"{HEARS}{NUMBERS}a hears 1\na hears 2\na hears 3\n", "s.chat:4 from s.chat:9   a received"),
        (
            f"{NUMBERS}a hears 1\na hears 2\na hears 3\n",
            "inc.chat:2 from s.chat:7   a received",
        ),
        (
            f"{NUMBERS}repeat 2:\n    a<~ N ${{_:int}}\n",
            "s.chat:5 (round 2 of 2)   a received something unexpected",
        ),
        (
            "a> PING\nrepeat 3:\n    a< PONG\n",
            "s.chat:5 (round 2 of 3)   a did not receive what was expected",
        ),
        (
            "repeat 3 as n:\n    c${n}>~ NAME c${n}\n\na> c2: x\nrepeat 3 as n:\n    c${n} receives nothing\n",
            "s.chat:8 (round 2 of 3)   c2 received something unexpected",
        ),
        (
            "repeat 3 as n:\n    c${n}>~ NAME c${n}\n\nc1 half-closes\nrepeat 3 as n:\n    c${n} is closed\n",
            "s.chat:8 (round 2 of 3)   c2 is still connected",
        ),
    ],
)
def test_a_failure_in_a_turn_of_several_rounds_or_calls_names_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: str, shown: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inc.chat").write_text(HEARS)
    include = "include inc.chat\n" if "inc.chat" in shown else ""
    (tmp_path / "s.chat").write_text(f"{include}a> NAME a\na receives nothing\n{steps}")
    verdict = play(load(Path("s.chat")), InProcess(puppet.serve))
    assert plain(report(verdict)).startswith(f"FAILED {shown}")


def test_lines_of_two_files_that_have_the_same_number_have_rows_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inc.chat").write_text(f"# one\n# two\n# three\n{HEARS}")
    (tmp_path / "s.chat").write_text(
        "include inc.chat\na> NAME a\n\na> a: N 1 | N 3\na< N 2\na hears 1\nb> x\n"
    )
    verdict = play(load(Path("s.chat")), InProcess(puppet.serve))
    shown = plain(report(verdict))
    assert re.findall(r"\n +5  (.*)", shown) == ["< N 1", "- < N 2"], shown


# --- which definition is meant -------------------------------------------------------------------------------


def sent(steps: str) -> list[str]:
    return [write_line(one.step) for turn in check(parse(steps)).turns for one in turn.actions]


def test_the_definition_with_the_most_literal_words_is_used() -> None:
    says = "define X says TEXT:\n    X>~ MSG ${TEXT}\n"
    greets = "define X says hello to WHO:\n    X>~ HELLO ${WHO}\n"
    for definitions in (says + greets, greets + says):
        assert sent(f"{definitions}ann says hello to bob\n") == ["ann>~ HELLO bob"]
        assert sent(f"{definitions}ann says hello you\n") == ["ann>~ MSG hello you"]
    # Fewer parameters and fewer literal words: the other one is meant.
    longer = "define X moves A to B and C:\n    X>~ MOVE ${A} ${B} ${C}\n"
    shorter = "define X moves TEXT:\n    X>~ OTHER ${TEXT}\n"
    assert sent(f"{shorter}{longer}ann moves 1 to 2 and 3\n") == ["ann>~ MOVE 1 2 3"]


def test_two_definitions_that_fit_equally_well_are_an_error() -> None:
    with pytest.raises(
        ScriptError, match=r"this can be `X gives A now` \(<script>:1\) and `X gives now B`"
    ) as error:
        check(
            parse("define X gives A now:\n    X> 1\ndefine X gives now B:\n    X> 2\n\nann gives now now\n")
        )
    assert error.value.problem.line == 6
