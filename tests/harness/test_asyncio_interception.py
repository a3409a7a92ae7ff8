"""Faults and schedules for asyncio servers: what they reveal, what correct servers withstand, and what stays as it was."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from harness import InProcessAsyncio, Outcome, ServerSpec, Verdict, parse, play, render
from harness.explore import Finding, count_actions, explore
from harness.interception.schedule import EVERY, Perturbation, Schedule
from harness.language.steps import Script
from harness.report.styled_text import plain
from harness.report.text import report as verdict_report
from tests.harness.servers import aio, aio_fragile
from tests.harness.servers.aio_fragile import TALK

# --- faults --------------------------------------------------------------------------------------------------


def played(text: str, factory: Any = aio_fragile.serve) -> Verdict:
    return play(parse(text, "fault.chat"), InProcessAsyncio(factory))


def require_pass(text: str) -> None:
    verdict = played(text)
    assert verdict.passed, plain(verdict_report(verdict))


HELLO = "a connects\nbob> x\na< x\n"


def test_a_partial_send_is_completed_by_a_transport() -> None:
    require_pass("a connects\nbob connects\nsending to a takes 1 byte\nbob> hello\na< hello\n")


def test_a_partial_send_reveals_a_server_that_ignores_its_result() -> None:
    verdict = played(
        "server: fault=careless\n\nbob> hello\nbob< hello\nsending to bob takes 1 byte\nbob> hello\nbob< hello\n"
    )
    assert [(failure.line, failure.received) for failure in verdict.failures] == [(7, b"h")]


def test_a_blocked_send_delays_everything_without_a_busy_loop() -> None:
    # A busy loop never becomes idle, which would fail the script.
    require_pass(
        HELLO + "sending to a takes nothing\nbob> two\na receives nothing\nwait 1h\na receives nothing\n"
        "sending to a takes all again\na< two\n"
    )


def test_a_blocked_read_delays_what_was_sent() -> None:
    require_pass(
        HELLO
        + "reading from bob takes nothing\nbob> two\na receives nothing\nreading from bob takes all again\na< two\n"
    )


def test_a_connection_is_lost_while_bytes_wait_for_it() -> None:
    require_pass(
        HELLO + "sending to a takes nothing\nbob> two\na receives nothing\n"
        "sending to a fails with EPIPE\nsending to a takes all again\na is closed\nbob< lost: Broken pipe\n"
    )


def test_a_connection_lost_while_reading_is_lost_for_writing_too() -> None:
    require_pass(
        HELLO + "reading from bob fails with ECONNRESET\nbob> y\nbob is disconnected\n"
        "a< lost: Connection reset by peer\n"
    )


def test_an_error_that_is_not_fatal_does_not_last() -> None:
    require_pass(HELLO + "sending to a fails with EAGAIN 2 times\nbob> y\na< y\n")


def test_accepting_fails_and_is_tried_again_after_a_second() -> None:
    # Some versions of asyncio try at once, as often as their backlog is long.
    require_pass(
        HELLO
        + "accepting fails with EMFILE 100 times\ncarol> hello\na receives nothing\nbob receives nothing\n"
        "wait 999ms\na receives nothing\nwait 100s\na< hello\nbob< hello\n"
    )


def test_keepalive_options_decide_when_a_vanished_peer_is_detected() -> None:
    require_pass(
        "server: kind=probing\n\n" + HELLO + "bob vanishes\na receives nothing\n"
        "wait 24.999s\na receives nothing\nwait 1ms\na< lost: Connection timed out\n"
    )


def test_without_keepalive_a_vanished_peer_is_never_detected() -> None:
    require_pass(HELLO + "bob vanishes\nwait 72h\na receives nothing\n")


def test_a_clock_jump_reveals_a_server_that_measures_by_wall_clock() -> None:
    script = HELLO + "the clock jumps 1h\nwait 2s\nbob> y\na< y\n"
    require_pass(script)
    verdict = played("server: fault=wall-clock\n\n" + script)
    assert verdict.outcome is Outcome.FAILED


def test_a_program_that_runs_its_own_loop_meets_faults_as_well() -> None:
    script = (
        "alice> hi\nalice< hi\nreading from alice fails with ECONNRESET\nalice> ho\nalice is disconnected\n"
        "the server raises ConnectionResetError\n"
    )
    verdict = played(script, aio.program)
    assert verdict.passed, plain(verdict_report(verdict))


def test_a_failed_accept_is_reported_but_no_error_of_the_server() -> None:
    from harness.interception.faults import Faults
    from harness.language.steps import CallFails, SocketCall
    from harness.stage.stage import Stage

    with Stage(InProcessAsyncio(aio.chat, interceptors=(Faults(),))) as stage:
        stage.server.inject(CallFails(SocketCall.ACCEPT, None, "EMFILE", 1), None)
        stage.client("alice").connect()
        stage.fence()
        assert "Too many open files" in stage.server_output()
        assert stage.take_errors() == ()


# --- schedules -----------------------------------------------------------------------------------------------


def talk(fault: str = "") -> Script:
    return parse(f"server: fault={fault}\n\n{TALK}" if fault else TALK, "talk.chat")


def finding(fault: str, perturbations: frozenset[Perturbation] = EVERY, runs: int = 20) -> Finding | None:
    target = InProcessAsyncio(aio_fragile.serve)
    explored = explore(talk(fault), target, range(1, runs + 1), perturbations=perturbations)
    assert explored.baseline.passed, plain(verdict_report(explored.baseline))
    return explored.finding


@pytest.mark.parametrize(
    ("fault", "found_by"),
    [
        ("reads", {Perturbation.READS}),
        ("stalls", {Perturbation.WRITES, Perturbation.STALLS}),
        ("order", {Perturbation.ORDER}),
    ],
)
def test_each_kind_of_perturbation_finds_its_own_faults(fault: str, found_by: set[Perturbation]) -> None:
    found = {kind for kind in Perturbation if finding(fault, frozenset({kind}))}
    assert found_by <= found


@pytest.mark.parametrize("fault", ["reads", "stalls", "order"])
def test_the_shortest_script_fails_only_because_of_the_schedule_and_does_so_again(fault: str) -> None:
    found = finding(fault)
    assert found is not None
    target = InProcessAsyncio(aio_fragile.serve)
    for _ in range(3):
        assert (
            play(talk(fault), target.intercepted_by(Schedule(found.seed))).failures == found.verdict.failures
        )
    script = parse(render(found.shortest.script))
    assert count_actions(script) < count_actions(talk(fault))
    assert play(script, target).passed
    assert not play(script, target.intercepted_by(Schedule(found.seed, left_out=EVERY - found.cause))).passed


@pytest.mark.parametrize("seed", range(1, 9))
def test_what_was_called_soon_keeps_its_order_under_every_schedule(seed: int) -> None:
    async def serve(spec: ServerSpec) -> asyncio.Server:
        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readline():
                for n in range(20):
                    asyncio.get_running_loop().call_soon(writer.write, f"{n}\n".encode())
            writer.close()

        return await asyncio.start_server(converse, "127.0.0.1", 0)

    script = parse("alice> go\n" + "".join(f"alice< {n}\n" for n in range(20)))
    target = InProcessAsyncio(serve).intercepted_by(Schedule(seed))
    assert play(script, target).passed


@pytest.mark.parametrize("seed", range(1, 6))
def test_virtual_time_is_the_same_under_every_schedule(seed: int) -> None:
    script = parse(
        "alice> hi\nalice< hi\nwait 59.999s\nalice receives nothing\nwait 1ms\nalice< idle\nalice is closed\n"
    )
    target = InProcessAsyncio(aio.program).intercepted_by(Schedule(seed))
    verdict = play(script, target)
    assert verdict.passed, plain(verdict_report(verdict))


def test_sockets_are_as_before_after_a_play() -> None:
    names = ("_accept", "recv", "recv_into", "send", "sendall", "sendmsg")
    before = {name: getattr(socket.socket, name) for name in names}
    assert play(talk(), InProcessAsyncio(aio_fragile.serve).intercepted_by(Schedule(1))).passed
    assert {name: getattr(socket.socket, name) for name in names} == before
