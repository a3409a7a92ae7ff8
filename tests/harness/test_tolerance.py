"""Tolerances: a script lets a server behave in several ways, and the report of a pass counts them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from harness import Command, Grade, InProcess, Outcome, ScriptError, Verdict, check, parse, play
from harness.audit.audit import audit
from harness.audit.audit import summary as audit_summary
from harness.language.adapter import parse_adapter
from harness.language.fences import Fence
from harness.language.loading import load, render
from harness.playing.pipeline import PlayOptions
from harness.playing.verdict import FailureKind, Tolerated
from harness.report import html, junit
from harness.report.styled_text import plain
from harness.report.text import report, run_summary
from harness.stage.connection import End, Inbox
from harness.stage.event_loop import RealTime
from harness.stage.fence import AnswerFence, FenceFailed
from harness.stage.stage import Stage
from harness.update import update
from tests.harness.servers.puppet import serve

PUPPET = Path(__file__).parent / "servers" / "puppet.py"
HERE = InProcess(serve)
ELSEWHERE = Command([sys.executable, "-S", str(PUPPET), "{port}"])
NAMES = "ann> NAME ann\nbob> NAME bob\n"


def played(steps: str, header: str = "", target: InProcess | Command = HERE) -> tuple[Verdict, str]:
    verdict = play(parse(f"{header}\n{NAMES}{steps}" if header else NAMES + steps), target)
    return verdict, plain(report(verdict))


def passed(steps: str, header: str = "", target: InProcess | Command = HERE) -> str:
    """The report of this script, which has to pass."""
    verdict, text = played(steps, header, target)
    assert verdict.passed, text
    return text.strip()


def failed(steps: str, header: str = "", target: InProcess | Command = HERE) -> str:
    verdict, text = played(steps, header, target)
    assert verdict.outcome is Outcome.FAILED, text
    return text


def problem(text: str) -> str:
    with pytest.raises(ScriptError) as caught:
        check(parse(text, "s.chat"))
    return str(caught.value)


def audited(steps: str, header: str = "") -> str:
    """The last lines of an audit in which every mutation has to be noticed."""
    found = audit(parse(f"{header}\n{NAMES}{steps}" if header else NAMES + steps), HERE)
    assert found.played, found
    assert (found.survivors, found.unstable) == ((), ())
    return plain(audit_summary([found], 0.0))


# --- less quiet ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "note"),
    [("settle: 99ms\n", ", 1 settle below 100 ms"), ("settle: 100ms\n", ""), ("settle: 1s\n", ""), ("", "")],
)
def test_less_quiet_than_usual_is_a_tolerance_where_quiet_proves_something(header: str, note: str) -> None:
    text = passed("ann> bob: hello\nbob< hello\n", header, ELSEWHERE)
    assert text.startswith(f"passed <script>{note}  (settled: ")
    assert passed("ann> bob: hello\nbob< hello\n", header) == "passed <script>"  # exact


def test_less_quiet_is_counted_beside_answers_and_however_it_was_chosen() -> None:
    script = parse(f"fence: PING -> PONG\n\n{NAMES}ann> bob: hello\nbob< hello\n")
    for settle_s, expected in ((0.02, 1), (0.1, 0)):
        verdict = play(script, ELSEWHERE, PlayOptions(settle_s=settle_s))
        assert (verdict.passed, verdict.grade) == (True, Grade.ANSWERED)
        assert verdict.tolerated[Tolerated.SHORT_SETTLE] == expected
    short = play(script, ELSEWHERE, PlayOptions(settle_s=0.02))
    assert run_summary([short, short], 1).endswith("(answered); 2 settles below 100 ms")
    assert "1 settle below 100 ms" in html.document([short], 1)
    assert "1 settle below 100 ms" in junit.document([short], 1)


def test_an_audit_says_that_quiet_was_awaited_for_less_time() -> None:
    script = parse(f"settle: 30ms\n\n{NAMES}ann> bob: hello\nbob< hello\n")
    shown = plain(audit_summary([audit(script, ELSEWHERE)] * 2, 0.0))
    assert (
        "quiet is awaited for less than 100 ms in 2 scripts: what a server sends later counts for a later turn"
        in shown
    )
    assert "not audited in full" not in shown
    assert "less than 100 ms" not in plain(audit_summary([audit(script, HERE)], 0.0))


# --- ignore -------------------------------------------------------------------------------------------------


def test_lines_that_are_ignored_are_as_if_they_had_never_come():
    text = passed(
        "ann> bob: NOTICE one | hello | NOTICE two\nbob< hello\nann> ann: NOTICE x\nann receives nothing\n",
        "ignore: NOTICE ${_}\n",
    )
    assert text == "passed <script>, 3 lines ignored"


def test_the_lines_that_an_included_file_ignores_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "common.chat").write_text("ignore: NOTICE ${_}\n\ndefine X is named:\n    X>~ NAME ${X}\n")
    (tmp_path / "s.chat").write_text(
        "include common.chat\n\nann is named\nann> ann: NOTICE 1 | hi\nann< hi\n"
    )
    verdict = play(load(tmp_path / "s.chat"), HERE)
    assert verdict.passed, plain(report(verdict))
    assert verdict.tolerated[Tolerated.IGNORED] == 1


def test_one_client_can_ignore_what_another_must_not_receive():
    header = "ignore bob: NOTICE ${_}\n"
    assert passed("ann> bob: NOTICE x\n", header) == "passed <script>, 1 line ignored"
    assert "ann received something unexpected" in failed("ann> ann: NOTICE x\n", header)


def test_a_pattern_takes_whole_lines_only():
    header = "ignore: TICK ${_:int}\n"
    assert "received  TICK 1x" in failed("ann> bob: TICK 1x\n", header)
    assert "received  a TICK 1" in failed("ann> bob: a TICK 1\n", header)
    # Without its end it is not yet a line, and its end belongs to a line that was claimed in part.
    assert "received  << TICK 1" in failed("ann> bob! TICK 1\n", header)
    passed("ann> bob! 1 TICK\nbob<< 1\\x20TICK\nann> bob: TICK 1\nbob<< TICK 1\\n\n", header)
    assert passed("ann> bob! TICK\nann> bob: \\x20\nbob<< TICK\\\\x20\\n\n", header)


def test_the_rest_of_a_line_is_not_taken_for_a_line():
    inbox = Inbox(lambda line: b"" if line == b"rest\n" else None)
    inbox.receive(b"the ", 0.0)
    assert inbox.take(4) == b"the "
    inbox.receive(b"rest\nrest\nmore\n", 1.0)
    assert bytes(inbox) == b"rest\nmore\n"
    assert inbox.arrived_at(0) == 1.0
    inbox.take(2)
    inbox.take(len(inbox))
    inbox.receive(b"rest\n", 2.0)
    assert bytes(inbox) == b""


def test_arrivals_do_not_grow_with_what_is_ignored():
    inbox = Inbox(lambda line: b"")
    for number in range(100):
        inbox.receive(b"x\n", float(number))
    assert len(inbox.arrivals) == 1


def test_lines_without_end_that_are_ignored_keep_no_fence_from_holding():
    steps = "ann> TICK bob\nann> bob: hello\nbob< hello\n"
    verdict, text = played(steps, "ignore: TICK ${_:int}\n", ELSEWHERE)
    assert verdict.passed, text
    assert "lines ignored" in text
    fenced = "ignore: TICK ${_:int}\nfence: PING -> PONG\n"
    verdict, text = played(steps, fenced, ELSEWHERE)
    assert (verdict.passed, verdict.grade) == (True, Grade.ANSWERED), text
    assert "the server was never quiet" in failed(steps, "within: 500ms\n", ELSEWHERE)


def test_a_missing_line_that_was_ignored_is_named():
    text = failed("ann> bob: NOTICE 7\nbob<~ NOTICE ${n}\n", "ignore: NOTICE ${_}\n")
    assert "ignored   1 line, the last of them `NOTICE 7`" in text
    assert "such a line came, but `ignore: NOTICE ${_}` (<script>:1) takes it" in text


def test_every_report_says_what_a_pass_does_not_prove():
    verdict, _ = played("ann> bob: NOTICE 1\n", "ignore: NOTICE ${_}\n")
    assert run_summary([verdict, verdict], 1.0) == "2 passed in 1.00 s (exact); 2 lines ignored"
    assert "<system-out>passed, 1 line ignored</system-out>" in junit.document([verdict], 1.0)
    assert '<span class="warning">1 line ignored</span>' in html.document([verdict], 1.0)


def test_an_audit_counts_what_is_ignored_and_sees_it_as_the_script_does():
    text = audited("ann> bob: NOTICE 1 | hi\nbob< hi\nann> ann: yes\nann< yes\n", "ignore: NOTICE ${_}\n")
    assert "tolerated by the scripts, and so not audited in full: 1 line ignored" in text
    found = audit(parse(f"ignore ann: hi\n\n{NAMES}ann> bob: hi\nbob< hi\n"), HERE)
    assert [one.mutation.text for one in found.survivors] == ["also sent to ann"]


# --- what an adapter removes and respells -------------------------------------------------------------------

ADAPTER = parse_adapter(
    """ignore: NOTICE ${_}
ignore ann: TICK ${_:int}
prompts: >\\x20
receives: you are ${_} => hello
sends: GREET ${name} => ${name}: you are ${name}
""",
    "x.adapter",
)


def adapted(steps: str, header: str = "") -> tuple[Verdict, str]:
    script = parse(f"{header}\n{NAMES}{steps}" if header else NAMES + steps)
    verdict = play(script, HERE, PlayOptions(adapter=ADAPTER))
    return verdict, plain(report(verdict)).strip()


def test_what_an_adapter_ignores_is_counted_like_what_a_script_ignores() -> None:
    steps = "ann> bob: NOTICE 1 | hi | OTHER 2\nbob< hi\n"
    verdict, text = adapted(steps, "ignore: OTHER ${_}\n")
    assert verdict.passed
    assert text == "passed <script>, 2 lines ignored"
    found = audit(parse(f"ignore: OTHER ${{_}}\n\n{NAMES}{steps}"), HERE, PlayOptions(adapter=ADAPTER))
    assert "tolerated by the scripts, and so not audited in full: 2 lines ignored" in plain(
        audit_summary([found], 0.0)
    )


def test_what_an_adapter_ignores_for_one_client_another_receives() -> None:
    assert adapted("ann> ann: TICK 1\n")[1] == "passed <script>, 1 line ignored"
    assert "bob received something unexpected" in adapted("ann> bob: TICK 1\n")[1]


def test_prompts_and_lines_in_other_words_are_counted_in_both_directions() -> None:
    _, text = adapted("ann> bob: > hi\nbob< hi\nann> GREET bob\nbob< hello\n")
    assert text == "passed <script>, 1 prompt removed, 2 lines respelled"


def test_a_failure_shows_what_an_adapter_took() -> None:
    verdict, text = adapted("ann> GREET ann\nann< you are ann\n")
    assert verdict.outcome is Outcome.FAILED
    assert "  sent      1 line, the last of them `GREET ann`, as `ann: you are ann`\n" in text
    assert "  respelled 1 line, the last of them `you are ann`, as `hello`\n" in text
    hint = "such a line came, but `receives: you are ${_} => hello` (x.adapter:4) respells it"
    assert hint in text
    _, text = adapted("ann> bob: NOTICE 7\nbob<~ NOTICE ${n}\n")
    assert "  ignored   1 line, the last of them `NOTICE 7`\n" in text
    assert "such a line came, but `ignore: NOTICE ${_}` (x.adapter:1) takes it" in text
    _, text = adapted("ann> bob: > x\nbob< y\n")
    assert "  prompt    1 prompt, the last of them `<< >\\x20`\n" in text


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("ignore: NOTICE ${x}\n\na> x\n", "s.chat:1:16: a line that is ignored binds nothing"),
        ("ignore: ${_\n\na> x\n", "s.chat:1:12: expected }"),
        ("ignore 1a: x\n\na> x\n", "s.chat:1:8: '1a' is not a name for a client"),
        ("ignore bob: x\n\na> x\n", "s.chat:1:8: no client is called bob"),
        ("ignore:\n\na> x\n", "s.chat:1:8: no value"),
        ("title a: x\n\na> x\n", "s.chat:1:1: "),
        ("ignore: O${_}\n\na> x\na< OK\n", "s.chat:4:1: `ignore: O${_}` (s.chat:1) would take this line"),
        (
            "fence: PING -> PONG\nignore: P${_}\n\na> x\n",
            "s.chat:2:1: this would also take the fence answer",
        ),
        (
            "fence: PING -> PONG\\n>\\x20\nignore a: ${_}\n\na> x\n",
            "s.chat:2:1: this would also take the fence answer",
        ),
        (
            "fence: P ${token} -> Q ${token}\nignore: Q ${_:int}\n\na> x\n",
            "s.chat:2:1: this would also take",
        ),
    ],
)
def test_a_rule_that_cannot_be_right_is_an_error(text, wrong):
    assert problem(text).startswith(wrong)


# --- optional lines -----------------------------------------------------------------------------------------

MOTD = "optional bob< motd\noptional bob<~ motd ${n:int}\nbob< hello\n"


@pytest.mark.parametrize(
    ("sent", "absent"),
    [("hello", 2), ("motd | hello", 1), ("motd 7 | hello", 1), ("motd | motd 7 | hello", 0)],
)
def test_an_optional_line_can_be_missing_in_its_place(sent: str, absent: int) -> None:
    note = f", {absent} optional line{'s' * (absent > 1)} absent" if absent else ""
    assert passed(f"ann> bob: {sent}\n{MOTD}") == f"passed <script>{note}"


def test_an_optional_line_in_another_place_is_unexpected() -> None:
    text = failed(f"ann> bob: hello | motd\n{MOTD}")
    assert "bob received something unexpected" in text
    assert "received  motd" in text
    assert "motd ${n:int}" not in text.partition("paste:")[0]
    # Optional lines that did not come are kept in the lines to paste.
    assert text.partition("paste:\n")[2].splitlines()[:4] == [*MOTD.splitlines(), "bob< motd"]


def test_optional_lines_at_the_end_of_a_turn_and_in_any_order() -> None:
    free = "in any order:\n    bob< one\n    optional bob< two\n    bob< three\n    optional bob< four\n"
    assert passed(
        f"ann> bob: three | two | one\n{free}bob< end\n".replace("one\nin", "one | end\nin")
    ).endswith(", 1 optional line absent")
    assert passed("ann> ann: x\nann< x\noptional bob< hi\n").endswith(", 1 optional line absent")
    assert "received  five" in failed(f"ann> bob: three | five | one\n{free}")


def test_many_optional_lines_that_look_alike_take_no_time() -> None:
    lines = "optional bob< x\n" * 60
    assert "received  y" in failed(f"ann> bob: {' | '.join(['x'] * 30)} | y\n{lines}bob< z\n")


def test_the_order_that_clients_agree_on_can_lack_an_optional_line() -> None:
    same = "in any order, the same for ann bob:\n    < one\n    optional < two\n    < three\n"
    assert passed(f"ann> ann: three | one\nann> bob: three | two | one\n{same}".replace("\nann> bob", "\nbob> bob")
                  .replace("ann> ann", "together:\n    ann> ann").replace("bob> bob", "    bob> bob"),
                  ).endswith(", 1 optional line absent")  # fmt: skip


def test_an_audit_does_not_drop_an_optional_line_but_alters_it() -> None:
    text = audited("ann> bob: motd | hello\noptional bob< motd\noptional bob< more\nbob< hello\n")
    assert "in full: 1 optional line absent, 1 optional line that can be missing" in text


# --- any lines until ----------------------------------------------------------------------------------------

UNTIL = "bob receives any lines until end ${n:int}\nbob< after\n"


def test_any_lines_can_come_up_to_the_first_that_matches() -> None:
    assert passed(f"ann> bob: a | end x | end 7 | after\n{UNTIL}ann>~ bob: ${{n}}\nbob< 7\n") == (
        "passed <script>, 2 lines of any text"
    )
    assert passed(f"ann> bob: end 7 | after\n{UNTIL}") == "passed <script>"
    assert "received something unexpected" in failed(f"ann> bob: a | end 7 | end 8 | after\n{UNTIL}")


@pytest.mark.parametrize("target", [HERE, ELSEWHERE], ids=["here", "elsewhere"])
def test_a_line_that_never_comes_fails_with_what_was_heard(target: InProcess | Command) -> None:
    text = failed(
        "ann> bob: a | b\nbob receives any lines until end\n", "within: 400ms\nfence: PING -> PONG\n", target
    )
    assert "bob did not receive what was expected" in text
    assert "expected  receives any lines until end" in text
    assert "heard     2 lines, the last of them `b`" in text
    assert "- receives any lines until end" in text
    assert "!" not in text


def test_a_line_that_never_comes_is_not_updated_away(tmp_path: Path) -> None:
    path = tmp_path / "u.chat"
    path.write_text(f"{NAMES}ann> bob: a | b\nbob receives any lines until end\n")
    assert update(path, HERE).refused == "line 4: bob received no line that matches"
    path.write_text(f"{NAMES}ann> bob: a | end | x\noptional bob< no\nbob receives any lines until end\n")
    assert update(path, HERE).diff.splitlines()[-1] == "+bob< x"


def test_an_audit_does_not_change_lines_that_could_be_any() -> None:
    text = audited("ann> bob: x | y | end\nbob< x\nbob receives any lines until end\nann> ann: hi\nann< hi\n")
    assert "in full: 1 line of any text" in text


def test_an_optional_line_of_which_the_beginning_came_is_awaited() -> None:
    sent = "ann>> bob! hel\\nLATER 200 bob: lo\\n\n"
    passed(f"{sent}optional bob< hello\n", "settle: 50ms\n", ELSEWHERE)
    text = failed(f"{sent}optional bob< help\n", "settle: 50ms\n", ELSEWHERE)
    assert "received  hello" in text
    # An adapter holds the beginning back.
    script = parse(f"settle: 50ms\n\n{NAMES}{sent}optional bob< hello\n")
    assert play(script, ELSEWHERE, PlayOptions(adapter=parse_adapter("ignore: no\n"))).passed


# --- either, or ---------------------------------------------------------------------------------------------


def test_the_rest_of_a_body_is_awaited_though_another_way_is_nearer() -> None:
    ways = "either:\n    bob<~ MSG ${n:int}\n    bob receives ${n} bytes\n    bob<\nor:\n    bob receives nothing\n"
    assert passed(f"ann> bob: MSG 5\nann> LATER 300 bob: hello\n{ways}", "settle: 20ms\n", ELSEWHERE)
    assert passed(f"ann> bob: MSG 5 | hello\n{ways}")
    assert "bob did not receive" in failed(f"ann> bob: MSG 5 | hell\n{ways}")


WAYS = "either:\n    bob< yes\nor:\n    bob< no\n    ann<~ denied ${n:int}\nor:\n    ann< gone\n"


def test_one_of_the_ways_has_to_be_the_way_for_all_clients() -> None:
    assert passed(f"ann> bob: yes\n{WAYS}") == "passed <script>, 1 choice between several ways"
    assert passed(f"ann> ann: gone\n{WAYS}")
    both = "together:\n    ann> ann: denied 5\n    bob> bob: no\n"
    assert passed(both + WAYS)
    assert "received" in failed(both.replace("no", "yes") + WAYS)


def test_the_failure_is_that_of_the_nearest_way_and_says_that_there_are_others() -> None:
    text = failed(f"together:\n    ann> ann: denied 5\n    bob> bob: nope\n{WAYS}")
    assert "received  nope\n  expected  no " in text
    assert "or        one of the 2 other ways of line 6" in text


def test_many_choices_in_one_turn_are_no_search() -> None:
    ways = "".join(f"either:\n    ann< {n}\nor:\n    bob< {n}\n" for n in range(40))
    left, right = " | ".join(map(str, range(0, 40, 2))), " | ".join(map(str, range(1, 40, 2)))
    sent = f"together:\n    ann> ann: {left}\n    bob> bob: {right}\n"
    assert passed(sent + ways) == "passed <script>, 40 choices between several ways"
    assert "received" in failed(sent.replace("39", "x") + ways)


KNOWN = "".join(f"{one}> NAME {one}\n{one}> {one}: hi\n{one}< hi\n" for one in ("ann", "bob"))
LATE = f"settle: 20ms\n\n{KNOWN}ann> bob: no\nann> LATER 150 CLOSE bob: bye\n"


@pytest.mark.parametrize("nearest", ["bob receives nothing", "bob< no", "bob< no\n    bob is closed"])
def test_a_way_of_which_something_is_missing_is_awaited_though_another_is_nearer(nearest: str) -> None:
    ways = f"either:\n    {nearest}\nor:\n    bob< no\n    bob< bye\n    bob is closed\n"
    assert play(parse(LATE + ways), ELSEWHERE).passed


def test_a_way_that_what_came_contradicts_is_not_awaited() -> None:
    ways = (
        "either:\n    bob receives nothing\nor:\n    bob< yes\n    bob< bye\nor:\n    ann< no\n    bob< bye\n"
    )
    verdict = play(parse(f"within: 60s\n{LATE.partition('ann> LATER')[0]}{ways}"), ELSEWHERE)
    assert [(one.kind, one.received) for one in verdict.failures] == [(FailureKind.EXTRA, b"no\n")]
    assert verdict.real_s < 30


def test_too_many_combinations_are_an_error_of_the_script() -> None:
    ways = "either:\n    ann< x\nor:\n    bob< x\n" * 30
    lines = " | ".join(["x"] * 15)
    sent = f"together:\n    ann> ann: {lines}\n    bob> bob: {lines} | y\n"
    assert passed(sent.replace(" | y", "") + ways)
    verdict, text = played(f"{sent}ann< y\n{ways}")
    assert verdict.outcome is Outcome.SCRIPT_ERROR
    assert "<script>:7:1: the ways in which this turn can go have too many combinations" in text


def test_a_way_can_follow_bytes_without_a_line_end() -> None:
    sent = "ann> bob! >\nann> bob: no\nbob<< >\n"
    assert passed(f"{sent}either:\n    bob< yes\nor:\n    bob< no\n")
    assert passed("ann> bob! >\nann> bob: no\neither:\n    bob< yes\nor:\n    bob<< >\n    bob< no\n")


def test_an_audit_leaves_out_a_line_at_another_client_that_may_have_it() -> None:
    text = audited("ann> bob: x\neither:\n    ann< x\nor:\n    bob< x\nann> ann: hi\nann< hi\n")
    assert "in full: 1 choice between several ways" in text


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a> x\nor:\n    a< x\n", "s.chat:2:1: an or: without an either: above it"),
        ("a> x\neither:\n    a< x\n", "s.chat:2:1: an either: without another way"),
        ("a> x\neither:\n    a< x\na< y\nor:\n    a< x\n", "s.chat:2:1: an either: without another way"),
        ("a> x\neither:\nor:\n    a< x\n", "s.chat:2:8: nothing is indented below this line"),
        (
            "a> x\neither:\n    a> x\nor:\n    a< x\n",
            "s.chat:3:5: a way that begins with a send: nothing that was received says which way to go",
        ),
        (
            "a> x\neither:\n    a< x\nor:\n    # y\n    a closes\n",
            "s.chat:6:5: a way that begins with an action: nothing that was received says which way to go",
        ),
        ("a> x\neither:\n    a< x\n    a> y\nor:\n    a< y\n", "s.chat:4:5: a send in one way only: "),
        ("a> x\neither:\n    a< x\n    wait 1s\nor:\n    a< y\n", "s.chat:4:5: an action in one way only: "),
        (
            "a> x\neither:\n    the server raises E\nor:\n    a< y\n",
            "s.chat:3:5: another kind of step inside",
        ),
        (
            "a> x\neither:\n    a is closed\n    a< x\nor:\n    a< y\n",
            "s.chat:4:5: a lost the connection in line 3",
        ),
        (
            "a> x\neither:\n    a< x\nor:\n    a is closed\n    a is closed\n",
            "s.chat:6:5: a already lost the connection in line 5",
        ),
        (
            "a> x\neither:\n    a is closed\nor:\n    a receives nothing\n\na> y\n",
            "s.chat:7:1: a may have lost the connection in line 3, so this cannot be sent",
        ),
        (
            "a> x\neither:\n    a is closed\nor:\n    a receives nothing\n\na connects\n",
            "s.chat:7:1: a may have lost the connection in line 3, so it may still be connected",
        ),
        (
            "a> x\neither:\n    a is closed\nor:\n    a receives nothing\na half-closes\n",
            "s.chat:6:1: a may have lost the connection in line 3",
        ),
        (
            "a> x\neither:\n    a receives nothing\nor:\n    a is closed\na is reset\n",
            "s.chat:6:1: a may have lost the connection in line 5",
        ),
        (
            "a> x\nb> x\neither:\n    a is closed\nor:\n    b< y\nb> z\na< x\n",
            "s.chat:8:1: a may have lost the connection in line 4",
        ),
        (
            "a> x\neither:\n    a is closed\nor:\n    a is reset\na> y\n",
            "s.chat:6:1: a lost the connection in line 3, so this cannot be sent",
        ),
        (
            "a> x\na< y\neither:\n    a receives nothing\nor:\n    a is closed\n",
            "s.chat:4:5: a receives something in line 2",
        ),
        (
            "a> x\neither:\n    a receives nothing\nor:\n    a< x\na< y\n",
            "s.chat:6:1: a receives nothing according to line 3",
        ),
        ("a> x\neither:\n    b is closed\nor:\n    a< x\n", "s.chat:3:5: b has not connected yet"),
        ("a> x\neither\n", "s.chat:2:1: unrecognised step"),
        ("optional a> x\n", "s.chat:1:1: a send is never optional"),
        ("a> x\noptional 1< x\n", "s.chat:2:10: '1' is not a name"),
        ("a> x\noptional a closes\n", "s.chat:2:10: only a line or bytes can be missing"),
        ("a> x\na receives any lines until ${x\n", "s.chat:2:31: expected }"),
        ("a> x\na receives any lines until\n", "s.chat:2:27: no line that ends it"),
        ("a> x\nin any order:\n    a receives any lines until x\n", "s.chat:3:5: "),
        ("a> x\noptional a<~ ${x}\na>~ ${x}\n", "s.chat:3:5: ${x} is not bound where line 2 is not received"),
        (
            "a> x\neither:\n    a<~ ${x}\nor:\n    a< y\na>~ ${x}\n",
            "s.chat:6:5: ${x} is not bound where line 3 is not received",
        ),
    ],
)
def test_a_way_that_cannot_be_right_is_an_error(text: str, wrong: str) -> None:
    assert problem(text).startswith(wrong)


@pytest.mark.parametrize(
    ("received", "sent", "reply"),
    [
        ("a< PASS?", "a> s$x", "`reply a: PASS? -> s$$x`"),
        ("a<~ PASS ${n} ${_}", "a>~ is ${n}", "`reply a: PASS ${n} ${_} -> is ${n}`"),
        ("a<~ PASS ${_}", "a>~ is ${other}", "`reply a: LINE -> ANSWER`"),
        ("a< PASS?", "b> x", "`reply b: LINE -> ANSWER`"),
        ("a<< x", "a> x", "`reply a: LINE -> ANSWER`"),
        ("a< x", "a>> x", "`reply a: LINE -> ANSWER`"),
    ],
)
def test_a_send_in_one_way_names_the_rule_that_answers_instead(received: str, sent: str, reply: str) -> None:
    text = problem(f"a> x\na<~ ${{other}}\nb> x\neither:\n    a< OK\nor:\n    {received}\n    {sent}\n")
    assert (
        "s.chat:8:5: a send in one way only: what clients do does not depend on what the server does" in text
    )
    assert f"expected: {reply} in the header,\n                for what only some servers ask" in text


def test_what_each_way_binds_is_bound() -> None:
    check(parse("a> x\neither:\n    a<~ x ${n}\nor:\n    a<~ y ${n}\na>~ ${n}\n"))


def test_what_one_way_says_of_a_turn_does_not_hold_in_the_next() -> None:
    check(parse("a> x\neither:\n    a receives nothing\nor:\n    a< x\na> y\na< y\n"))
    check(parse("a> x\neither:\n    a< x\nor:\n    a< y\na> y\na receives nothing\n"))
    check(parse("a> x\neither:\n    a is closed\nor:\n    a< y\na closes\na connects\na> y\na< y\n"))


ENDS = "either:\n    ann< no\nor:\n    ann< no\n    ann is closed\nor:\n    ann is reset\n"


@pytest.mark.parametrize("target", [HERE, ELSEWHERE], ids=["here", "elsewhere"])
@pytest.mark.parametrize("fence", ["", "fence: PING -> PONG\n"], ids=["quiet", "fenced"])
def test_a_connection_ends_in_one_way_and_stays_in_another(target: InProcess | Command, fence: str) -> None:
    for does in ("ann: no", "CLOSE ann: no"):
        steps = f"ann> {does}\n{ENDS}bob> bob: still here\nbob< still here\n"
        text = passed(steps, fence, target)
        assert text.startswith("passed <script>, 1 choice between several ways")
        assert target is HERE or "(settled: " in text


def test_a_client_is_not_asked_while_its_connection_may_end() -> None:
    # A question that is unread when the server closes resets the connection.
    fence = "fence: PING -> PONG\n"
    for does in ("ann: no", "CLOSE ann: no", "LATER 300 CLOSE ann: no"):
        steps = f"ann receives nothing\nann> {does}\n{ENDS}"
        verdict, text = played(steps, fence, ELSEWHERE)
        assert verdict.passed, text
        assert {one.client for one in verdict.turns[-1].fence_lines} == {"bob"}


def test_a_connection_that_stayed_is_asked_again() -> None:
    steps = f"ann> ann: no\n{ENDS}bob> LATER 20 ann: x\nann< x\n"
    with pytest.raises(ScriptError, match="ann may have lost"):
        check(parse(NAMES + steps))
    one_way = "either:\n    bob< no\nor:\n    ann is closed\n    bob< yes\n"
    verdict, text = played(
        f"ann> bob: no\n{one_way}bob> bob: x\nbob< x\n", "fence: PING -> PONG\n", ELSEWHERE
    )
    assert verdict.passed, text
    assert {one.client for one in verdict.turns[-1].fence_lines} == {"ann", "bob"}


def test_an_end_that_no_way_allows_is_a_failure_that_says_there_are_others() -> None:
    text = failed(f"ann> CLOSE ann: x\n{ENDS}")
    assert "  received  x\n  expected  no " in text
    assert "  or        one of the 2 other ways of line 4\n" in text
    assert "also" not in text, "the nearest way is that with the right end"
    text = failed("ann> CLOSE ann: no\neither:\n    ann< no\nor:\n    ann< no\n    ann is reset\n")
    assert "ann lost the connection" in text
    assert "  expected  ann is connected\n" in text
    assert "  actual    ann is closed      (exact: the server has nothing left to do)\n" in text
    assert "  or        the other way of line 4\n" in text


def test_what_a_way_says_of_an_end_is_updated(tmp_path: Path) -> None:
    path = tmp_path / "u.chat"
    path.write_text(f"{NAMES}ann> CLOSE ann: no\neither:\n    ann< x\nor:\n    ann< no\n    ann is reset\n")
    assert [line for line in update(path, HERE).diff.splitlines() if line[:1] in "+-"][2:] == [
        "-    ann is reset",
        "+    ann is closed",
    ]


def test_an_audit_knows_ways_that_end() -> None:
    text = audited(f"ann> CLOSE ann: no\n{ENDS}bob> bob: x\nbob< x\n")
    assert "in full: 1 choice between several ways" in text


def test_words_of_tolerance_are_names_and_literals_elsewhere() -> None:
    text = "optional> x\noptional< y\neither> either: x\nor> x\nor< or:\n"
    assert render(parse(text)) == text
    assert check(parse(f"define X either:\n    X> a\n{text}".replace("either:", "eithers:"))).clients


# --- replies ------------------------------------------------------------------------------------------------

PONGS = "reply: PING ${t} -> PONG ${t}\n"
LOG = "log> NAME log\n"


@pytest.mark.parametrize("target", [HERE, ELSEWHERE], ids=["here", "elsewhere"])
@pytest.mark.parametrize("fence", ["", "fence: PING -> PONG\n"], ids=["quiet", "fenced"])
def test_a_client_answers_by_itself_and_what_it_causes_belongs_to_the_turn(
    target: InProcess | Command, fence: str
) -> None:
    steps = f"{LOG}ann> bob: PING 7 | hello | PING x y\nbob< hello\nlog< PONG 7\nlog< PONG x y\n"
    text = passed(steps, PONGS + fence, target)
    assert text.startswith("passed <script>, 2 lines replied to")


def test_one_client_can_answer_what_another_must_not_receive() -> None:
    header = "reply bob: PING ${t} -> PONG ${t}\nignore bob: PING ${_}\n"
    assert passed(f"{LOG}ann> bob: PING 7\nlog< PONG 7\n", header) == "passed <script>, 1 line replied to"
    text = failed(f"{LOG}ann> bob: PING 7\nann> ann: PING 8\nlog< PONG 7\n", header)
    assert "ann received something unexpected" in text


def test_a_reply_waits_until_the_line_that_the_client_is_sending_has_ended() -> None:
    steps = f"{LOG}bob>> log: half\nann> bob: PING 7\nlog receives nothing\n"
    steps += "bob>> \\x20a line\\n\nlog< half a line\nlog< PONG 7\n"
    assert passed(steps, PONGS).endswith(", 1 line replied to")
    assert "log did not receive" in failed(f"{LOG}bob half-closes\nann> bob: PING 7\nlog< PONG 7\n", PONGS)


def test_replies_that_the_server_does_not_take_wait_and_keep_their_order() -> None:
    class Full:
        """A socket whose buffer takes four bytes at a time, and then none until it is read."""

        def __init__(self) -> None:
            self.taken, self.room = b"", 4

        def send(self, view: memoryview) -> int:
            if not self.room:
                raise BlockingIOError
            sent, self.room = min(len(view), self.room), 0
            self.taken += bytes(view[:sent])
            return sent

    with Stage(HERE) as stage:
        (ann,) = stage.clients("ann")
        connection, full = ann.connection, Full()
        connection.inbox.replies += b"PONG 1\n"
        connection.writes, connection._socket = True, full
        connection._reply()
        assert full.taken == b"PONG"
        connection._wait_until_writable = lambda otherwise, within_s: setattr(full, "room", 4)  # type: ignore[method-assign]
        connection.say(b"MSG hi\n")
        assert full.taken == b"PONG 1\nMSG hi\n"
        connection._socket = None


def test_replies_without_end_fail_the_turn() -> None:
    header = "reply: PONG -> PING\nwithin: 500ms\n"
    for target in (HERE, ELSEWHERE):
        text = failed("ann> PING\n", header, target)
        assert f"the server {'never became idle' if target is HERE else 'was never quiet'}\n" in text
        assert (
            "hint  the server answers what `reply: PONG -> PING` makes clients say, and so on without end"
            in text
        )


def test_what_is_replied_is_counted_where_a_fence_line_has_the_same_answer() -> None:
    text = passed(
        f"{LOG}ann> bob: PING\nlog< PONG\n", "fence: PING -> PONG\nreply: PING -> PONG\n", ELSEWHERE
    )
    assert text.startswith("passed <script>, 1 line replied to")


def test_a_line_begins_where_the_answer_to_a_fence_line_ended() -> None:
    steps = "ann> bob! Name?\nbob<< Name?\n\nann> bob: NOTICE x | OK\nbob< OK\n"
    text = passed(steps, "fence: PING -> PONG\nignore: NOTICE ${_}\n", ELSEWHERE)
    assert text.startswith("passed <script>, 1 line ignored")


def test_the_first_line_of_a_connection_is_whole_whatever_came_last_on_the_one_before() -> None:
    for claimed in (False, True):
        inbox = Inbox(lambda line: b"" if line == b"NOTICE\n" else None)
        inbox.receive(b"login: ", 0.0)
        if claimed:
            inbox.take(7)
        inbox.begin_anew()
        inbox.receive(b"NOTICE\nlogin: ", 0.0)
        assert bytes(inbox) == b"login: " * (1 if claimed else 2)


def test_an_audit_answers_no_line_that_only_it_has_made() -> None:
    text = audited(f"{LOG}ann> bob: PING 7 | hi\nbob< hi\nlog< PONG 7\nann> ann: x\nann< x\n", PONGS)
    assert "in full: 1 line replied to" in text


def test_a_missing_line_that_was_replied_to_is_named() -> None:
    text = failed(f"{LOG}ann> bob: PING 7\nbob<~ PING ${{n}}\nlog< PONG 7\n", PONGS)
    assert "replied   1 line, the last of them `PING 7`, by `PONG 7`" in text
    assert "such a line came, but `reply: PING ${t} -> PONG ${t}` (<script>:1) takes it" in text


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("reply: PING\n\na> x\n", "s.chat:1:8: a line without its answer"),
        ("reply: PING -> PONG ${t}\n\na> x\n", "s.chat:1:21: ${t} is not in the line that is answered"),
        ("reply: PING ${_} -> PONG ${_}\n\na> x\n", "s.chat:1:26: what is sent must be known"),
        ("reply: PING ${t} -> PONG $t\n\na> x\n", "s.chat:1:26: a lone $"),
        ("reply bob: A -> B\n\na> x\n", "s.chat:1:7: no client is called bob"),
        (
            "reply: O${x} -> B\n\na> x\na< OK\n",
            "s.chat:4:1: `reply: O${x} -> B` (s.chat:1) would take this line",
        ),
        (
            "fence: A -> PONG 1\nreply: PONG ${t} -> B\n\na> x\n",
            "s.chat:2:1: this would also take the fence answer",
        ),
    ],
)
def test_a_reply_that_cannot_be_right_is_an_error(text: str, wrong: str) -> None:
    assert problem(text).startswith(wrong)


# --- one of several clients ---------------------------------------------------------------------------------

TASKS = "one of ann bob< task 1\none of ann bob<~ task ${n:int}\none of ann bob<< x\\n\n"


def test_exactly_one_of_several_clients_receives_a_line() -> None:
    both = "together:\n    ann> ann: {}\n    bob> bob: {}\n"
    text = passed(both.format("task 2", "task 1 | x") + TASKS)
    assert text == "passed <script>, 3 choices between several ways"
    assert passed(f"ann> bob: task 1 | task 2 | x\n{TASKS}")
    text = failed(both.format("task 1", "task 1 | task 2 | x") + TASKS)
    assert "received something unexpected" in text
    text = failed(f"ann> bob: task 2 | x\n{TASKS}")
    assert "did not receive what was expected" in text
    assert "expected  task 1" in text
    assert "or        ann receives it" in text


def test_who_receives_a_task_is_a_parameter_too() -> None:
    text = "define A B share TASK:\n    one of A B<~ ${TASK}\n\n"
    verdict = play(parse(f"{text}{NAMES}ann> bob: do it\nann bob share do it\n"), HERE)
    assert verdict.passed, plain(report(verdict))
    assert problem(text.replace("<~ ${TASK}", "< TASK") + "a> x\n").startswith(
        "s.chat:2:17: a literal means TASK"
    )


def test_thirty_workers_share_a_hundred_tasks() -> None:
    names = [f"w{n}" for n in range(30)]
    header = "".join(f"{name}> NAME {name}\n" for name in names)
    lines = {name: [f"task {n}" for n in range(100) if n % 30 == at] for at, name in enumerate(names)}
    sends = "together:\n" + "".join(
        f"    {name}> {name}: {' | '.join(each)}\n" for name, each in lines.items()
    )
    tasks = "".join(f"one of {' '.join(names)}< task {n}\n" for n in range(100))
    verdict = play(parse(header + sends + tasks), HERE)
    assert verdict.passed, plain(report(verdict))


def test_a_line_that_goes_to_one_of_several_is_updated_in_place(tmp_path: Path) -> None:
    path = tmp_path / "u.chat"
    path.write_text(f"{NAMES}ann> bob: task 2\none of ann bob< task 1\n")
    assert update(path, HERE).diff.splitlines()[-2:] == ["-one of ann bob< task 1", "+one of ann bob< task 2"]


def test_an_audit_lets_another_of_them_have_the_line() -> None:
    text = audited("ann> bob: x\none of ann bob< x\nann> ann: hi\nann< hi\n")
    assert "in full: 1 choice between several ways" in text


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a> x\none of a< x\n", "s.chat:2:8: a choice needs at least two different clients"),
        ("a> x\none of a a< x\n", "s.chat:2:8: a choice needs at least two different clients"),
        ("a> x\none of a 1< x\n", "s.chat:2:10: '1' is not a name for a client"),
        ("a> x\none of a b< x\n", "s.chat:2:1: b has not connected yet"),
        ("a> x\none of a b> x\n", "s.chat:2:11: which client sends is never left open"),
        ("a> x\none of a b<x\n", "s.chat:2:12: no space after <"),
        ("a> x\none of a b<~ ${\n", "s.chat:2:16: expected a name"),
        ("a> x\nin any order:\n    one of a b< x\n", "s.chat:3:5: another kind of step inside in any order:"),
    ],
)
def test_a_choice_of_clients_that_cannot_be_right_is_an_error(text: str, wrong: str) -> None:
    assert problem(text).startswith(wrong)


# --- bodies of a known size ---------------------------------------------------------------------------------

BODY = "ann<~ BODY ${size:int}\nann receives ${size} bytes: one\\ntwo\nann<\nann< end\n"


def test_a_body_has_as_many_bytes_as_the_line_before_it_says() -> None:
    assert passed(f"ann> ann: BODY 7 | one | two | end\n{BODY}") == "passed <script>"
    assert passed("ann> ann: BODY 0 |  | end\n" + BODY.replace(": one\\ntwo", "")).endswith(
        ", 1 body of any bytes"
    )
    assert passed("ann> ann: aé\\nb\nann receives 3 bytes\nann<< \\\\nb\\n\n").endswith(
        ", 1 body of any bytes"
    )
    text = failed(f"ann> ann: BODY 6 | one | two | end\n{BODY}")
    assert "ann received something else" in text
    assert "but       ${size} is `6` since line 4, and 8 bytes came" in text
    assert "received something else" in failed(f"ann> ann: BODY 7 | one | TWO | end\n{BODY}")


@pytest.mark.parametrize("size", ["8", "9999999999999", "99999999999999999999999", "-1"])
def test_a_body_that_does_not_come_is_a_failure(size: str) -> None:
    header = "within: 300ms\nfence: PING -> PONG\n"
    for target in (HERE, ELSEWHERE):
        loose = BODY.replace(": one\\ntwo", "").replace("ann<\nann< end\n", "")
        text = failed(f"ann> ann: BODY {size} | one\n{loose}", header, target)
        assert "expected  receives ${size} bytes" in text
        assert f"${{size}} is `{size}` since line 7, and 4 bytes came" in text


def test_an_audit_does_not_change_a_body_of_any_bytes() -> None:
    steps = "ann> ann: BODY 7 | on | to\nann<~ BODY ${size:int}\nann receives ${size} bytes\n"
    text = audited(steps.replace("7", "6") + "ann> bob: x\nbob< x\n")
    assert "in full: 1 body of any bytes" in text
    audited(
        "ann> ann: BODY 7 | one | two\nann<~ BODY ${size:int}\nann receives ${size} bytes: one\\ntwo\nann<\n"
    )


def test_the_size_can_be_a_counter() -> None:
    assert passed("repeat 2 as n:\n    ann>~ ann: ab${n}\n    ann receives ${n} bytes\n    optional ann<< b\n"
                  "    ann receives any lines until ${_}\n").endswith("2 bodies of any bytes")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a> x\na receives ${n} bytes\n", "s.chat:2:12: ${n} is not bound yet"),
        (
            "a> x\nb> x\nb<~ ${n}\na receives ${n} bytes\n",
            "s.chat:4:12: b binds ${n} in this turn, in no order",
        ),
        ("a> x\noptional a<~ ${n}\na receives ${n} bytes\n", "s.chat:3:12: ${n} is not bound yet"),
        ("a> x\na receives ten bytes\n", "s.chat:2:12: this is not a number of bytes"),
        ("a> x\na receives 5 bytes: \\q\n", "s.chat:2:21: unknown escape"),
        ("a> x\na receives 9999999999 bytes\n", "s.chat:2:12: a number of 10 digits"),
        ("define X gets N:\n    X receives ${N} bytes\n\na> x\na gets y\n", "s.chat:2:5: ${N} is 'y' here"),
    ],
)
def test_a_body_that_cannot_be_right_is_an_error(text: str, wrong: str) -> None:
    assert problem(text).startswith(wrong)


# --- time ---------------------------------------------------------------------------------------------------

QUIET = "ann receives nothing\n"
LATER = f"{QUIET}ann> LATER 50 bob: x\nwait 1s\nwithin {{}}:\n    bob< x\n"


def test_in_virtual_time_a_limit_is_exact() -> None:
    text = passed(LATER.format("50ms"))
    assert text == "passed <script>  (slowest: 50ms of 50ms, in virtual time, which is exact)"
    verdict, _ = played(LATER.format("50ms"))
    assert f"<system-out>{text.replace(' <script>', '')}</system-out>" in junit.document([verdict], 1.0)
    audited(LATER.format("50ms") + "ann> ann: y\nann< y\n")
    text = failed(LATER.format("49.999ms") + "ann> ann: y\nann< y\n")
    assert "FAILED <script>:7   bob received it too late" in text
    assert "  received  x\n  expected  within 49.999ms of the action of the turn\n" in text
    assert "  measured  50ms, in virtual time, which is exact" in text


def test_in_real_time_the_report_names_the_clock() -> None:
    steps, header = LATER.replace("wait 1s\n", ""), "fence: PING -> PONG\n"
    clock = "in real time, on the clock of this machine: it contains the network and the harness's own delay"
    for fence in ("", header):
        text = " ".join(passed(steps.format("4s"), fence, ELSEWHERE).split())
        assert text.startswith("passed <script> (slowest: ")
        assert f"of 4s, {clock})" in text
        text = " ".join(failed(steps.format("20ms"), fence, ELSEWHERE).split())
        found = re.search(rf"measured ([0-9.]+)ms, {clock}", text)
        assert found
        assert 50 <= float(found[1]) < 1000


def test_a_line_that_does_not_come_at_all_is_missing() -> None:
    text = failed(f"{QUIET}ann> LATER 50 bob: x\nwithin 60ms:\n    bob< x\n")
    assert "bob did not receive what was expected" in text


def test_a_time_is_measured_from_a_together_too() -> None:
    steps = (
        QUIET
        + "together:\n    ann> LATER 50 bob: x\n    bob> LATER 20 ann: y\nwait 1s\nwithin 20ms:\n    ann< y\n    {}\n"
    )
    assert "bob received it too late" in failed(steps.format("bob< x"))
    assert "slowest: 20ms of 20ms" in passed(steps.format("optional ann< z") + "bob< x\n")


def test_what_came_too_late_is_not_updated_away(tmp_path: Path) -> None:
    path = tmp_path / "u.chat"
    path.write_text(NAMES + LATER.format("10ms"))
    assert update(path, HERE).refused == "line 7: bob received it too late"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a> x\na> y\nwithin 1s:\n    a< x\n", "s.chat:3:1: this turn has 2 actions to measure from"),
        ("a> x\nwithin 0s:\n    a< x\n", "s.chat:2:8: no time at all"),
        ("a> x\nwithin soon:\n    a< x\n", "s.chat:2:8: 'soon' is not a duration"),
        ("a> x\nwithin 1s:\na< x\n", "s.chat:2:11: nothing is indented below this line"),
        ("a> x\nwithin 1s:\n    a closes\n", "s.chat:3:5: another kind of step inside within:"),
        ("a> x\nwithin 1s\n", "s.chat:2:1: unrecognised step"),
    ],
)
def test_a_time_that_cannot_be_right_is_an_error(text: str, wrong: str) -> None:
    assert problem(text).startswith(wrong)


def test_a_line_has_arrived_with_its_last_byte() -> None:
    steps = (
        QUIET + "together:\n    ann> bob! par\n    bob> LATER 50 bob: t\nwait 1s\nwithin {}:\n    bob< part\n"
    )
    assert "slowest: 50ms of 50ms" in passed(steps.format("50ms"))
    assert "measured  50ms" in failed(steps.format("49ms"))


# --- what only shows from inside ------------------------------------------------------------------------------


def test_what_is_changed_from_outside_is_sifted_and_not_answered() -> None:
    inbox = Inbox(lambda line: b"answer\n" if line == b"taken\n" else None)
    inbox.receive(b"taken\n", 0.0)
    inbox.extend(b"taken\nkept\n")
    inbox.sift_again()
    assert (bytes(inbox), bytes(inbox.replies)) == (b"kept\n", b"answer\n")


def test_a_fence_asks_again_as_long_as_clients_reply() -> None:
    class Replying:
        end, replied_bytes, left = End.OPEN, 0, 2

    def fence(connection: Any, within_s: float) -> tuple[AnswerFence, list[int]]:
        made = AnswerFence(
            Fence("PING", ("PONG",)), frozenset(), b"\n", RealTime(), lambda: [connection], within_s, 0.1
        )
        rounds: list[int] = []

        def everything(actors: Iterable[Any]) -> None:
            rounds.append(len(tuple(actors)))
            connection.replied_bytes += connection.left > 0
            connection.left -= 1

        made._everything = everything  # type: ignore[method-assign]
        return made, rounds

    made, rounds = fence(Replying(), 5.0)
    made.everything(())
    assert rounds == [0, 1, 1]
    endless = Replying()
    endless.left = 1 << 60
    with pytest.raises(FenceFailed, match="kept sending lines that are replied to"):
        fence(endless, 0.05)[0].everything(())


def test_a_task_that_no_client_receives_is_missing_however_many_there_are() -> None:
    tasks = "one of ann bob< x\n" * 30
    text = failed(
        f"together:\n    ann> ann: {' | '.join('x' * 15)}\n    bob> bob: {' | '.join('x' * 14)}\n{tasks}"
    )
    assert "did not receive what was expected" in text
