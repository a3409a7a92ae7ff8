"""What a script lets a server do in more than one way, and how a pass says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness import Command, Grade, InProcess, Outcome, ScriptError, Verdict, check, parse, play
from harness.audit.audit import audit
from harness.audit.audit import summary as audit_summary
from harness.report import html, junit
from harness.report.styled_text import plain
from harness.report.text import report, run_summary
from harness.stage.connection import Inbox
from tests.harness.servers.puppet import serve

PUPPET = Path(__file__).parent / "servers" / "puppet.py"
HERE = InProcess(serve)
ELSEWHERE = Command([sys.executable, "-S", str(PUPPET), "{port}"])
NAMES = "ann> NAME ann\nbob> NAME bob\n"


def played(steps: str, header: str = "", target: InProcess | Command = HERE) -> tuple[Verdict, str]:
    verdict = play(parse(f"{header}\n{NAMES}{steps}" if header else NAMES + steps), target)
    return verdict, plain(report(verdict))


def passed(steps: str, header: str = "", target: InProcess | Command = HERE) -> str:
    """What the report of this script says, which has to pass."""
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


# --- ignore -------------------------------------------------------------------------------------------------


def test_lines_that_are_ignored_are_as_if_they_had_never_come():
    text = passed(
        "ann> bob: NOTICE one | hello | NOTICE two\nbob< hello\nann> ann: NOTICE x\nann receives nothing\n",
        "ignore: NOTICE ${_}\n",
    )
    assert text == "passed <script>, 3 lines ignored"


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
    inbox = Inbox(lambda line: line == b"rest\n")
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
    inbox = Inbox(lambda line: True)
    for number in range(100):
        inbox.receive(b"x\n", float(number))
    assert len(inbox.arrivals) == 1


def test_lines_without_end_that_are_ignored_keep_no_fence_from_holding():
    steps = "ann> TICK bob\nann> bob: hello\nbob< hello\n"
    verdict, text = played(steps, "ignore: TICK ${_:int}\n", ELSEWHERE)
    assert verdict.passed, text
    assert "lines ignored" in text
    verdict, text = played(
        steps, "ignore: TICK ${_:int}\nfence: PING -> PONG\nfence-after: PING\n", ELSEWHERE
    )
    assert verdict.passed, text
    fenced = "ignore: TICK ${_:int}\nfence: PING -> PONG\n"
    verdict, text = played(steps, fenced, ELSEWHERE)
    assert (verdict.passed, verdict.grade) == (True, Grade.ANSWERED), text
    assert "never became idle" in failed(steps, "within: 500ms\n", ELSEWHERE)


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
    assert "not audited, because the scripts do not notice it: 1 line ignored" in text
    found = audit(parse(f"ignore ann: hi\n\n{NAMES}ann> bob: hi\nbob< hi\n"), HERE)
    assert [one.mutation.text for one in found.survivors] == ["also sent to ann"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("ignore: NOTICE ${x}\n\na> x\n", "s.chat:1:16: a line that is ignored binds nothing"),
        ("ignore: ${_\n\na> x\n", "s.chat:1:12: expected }"),
        ("ignore 1a: x\n\na> x\n", "s.chat:1:8: '1a' is not a name for a client"),
        ("ignore bob: x\n\na> x\n", "s.chat:1:8: no client is called bob"),
        ("ignore:\n\na> x\n", "s.chat:1:1: unrecognised step"),
        ("title a: x\n\na> x\n", "s.chat:1:1: "),
        ("ignore: O${_}\n\na> x\na< OK\n", "s.chat:4:1: `ignore: O${_}` (s.chat:1) would take this line"),
        (
            "fence: PING -> PONG\nignore: P${_}\n\na> x\n",
            "s.chat:2:1: this would also ignore the fence answer",
        ),
        (
            "fence: P ${token} -> Q ${token}\nignore: Q ${_:int}\n\na> x\n",
            "s.chat:2:1: this would also ignore",
        ),
    ],
)
def test_a_rule_that_cannot_be_right_is_an_error(text, wrong):
    assert problem(text).startswith(wrong)
