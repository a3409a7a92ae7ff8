"""Verdicts -> the XML that build servers read. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from harness.playing.verdict import Outcome, Verdict
from harness.reporting import styled_text
from harness.reporting.failure_text import headline
from harness.reporting.report import report

# What XML 1.0 cannot hold, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(verdicts: Sequence[Verdict], took_s: float) -> str:
    """The whole report."""
    count = {outcome: sum(one.outcome is outcome for one in verdicts) for outcome in Outcome}
    errors = count[Outcome.SCRIPT_WRONG] + count[Outcome.TARGET_BROKEN]
    head = (
        f'<testsuite name="harness" tests="{len(verdicts)}" failures="{count[Outcome.FAILED]}" '
        f'errors="{errors}" skipped="{count[Outcome.SKIPPED]}" time="{took_s:.3f}">'
    )
    cases = "".join(_case(verdict) for verdict in verdicts)
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<testsuites>\n{head}\n{cases}</testsuite>\n</testsuites>\n'
    )


def _case(verdict: Verdict) -> str:
    folder, _, name = verdict.file.rpartition("/")
    title = verdict.script.title or name
    head = (
        f'<testcase classname={_attribute(folder or ".")} name={_attribute(name)} time="{verdict.real_s:.3f}"'
    )
    text = escape(_clean(styled_text.plain(report(verdict))))
    match verdict.outcome:
        case Outcome.PASSED:
            return f"{head}/>\n"
        case Outcome.SKIPPED:
            return f"{head}><skipped message={_attribute(verdict.reason)}/></testcase>\n"
        case Outcome.FAILED:
            message = _attribute(headline(verdict.failures[0]))
            return f"{head}><failure message={message} type={_attribute(title)}>{text}</failure></testcase>\n"
        case _:
            message = _attribute(verdict.outcome.value)
            return f"{head}><error message={message} type={_attribute(title)}>{text}</error></testcase>\n"


def _attribute(text: str) -> str:
    return quoteattr(_clean(text))


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
