"""Verdicts as the JUnit XML that build servers read. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape, quoteattr

from harness.language.exhaustive import assert_never
from harness.playing.verdict import Outcome, Verdict
from harness.report import styled_text
from harness.report.text import headline, passed_note, report

# XML 1.0 cannot hold these characters, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(verdicts: Sequence[Verdict], took_s: float) -> str:
    """The whole report."""
    return suite("harness", [one.outcome for one in verdicts], map(_case, verdicts), took_s)


def suite(name: str, outcomes: Sequence[Outcome], cases: Iterable[str], took_s: float) -> str:
    """A document of one suite of these cases."""
    number = {outcome: sum(one is outcome for one in outcomes) for outcome in Outcome}
    errors = number[Outcome.SCRIPT_ERROR] + number[Outcome.TARGET_ERROR]
    failures = number[Outcome.FAILED] + number[Outcome.XPASSED]
    skipped = number[Outcome.SKIPPED] + number[Outcome.XFAILED]
    head = (
        f'<testsuite name="{name}" tests="{len(outcomes)}" failures="{failures}" '
        f'errors="{errors}" skipped="{skipped}" time="{took_s:.3f}">'
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<testsuites>\n{head}\n{"".join(cases)}</testsuite>\n'
        "</testsuites>\n"
    )


def _case(verdict: Verdict) -> str:
    folder, _, name = verdict.file.rpartition("/")
    head = (
        f'<testcase classname={attribute(folder or ".")} name={attribute(name)} time="{verdict.real_s:.3f}"'
    )
    kind = attribute(verdict.script.title or name)
    match verdict.outcome:
        case Outcome.PASSED:
            note = passed_note(verdict)
            if not note:
                return f"{head}/>\n"
            return f"{head}><system-out>passed{escape(_clean(note))}</system-out></testcase>\n"
        case Outcome.SKIPPED:
            return f"{head}><skipped message={attribute(verdict.reason)}/></testcase>\n"
        case Outcome.XFAILED:
            known = f"{verdict.outcome.value}: {verdict.reason}"
            return f"{head}><skipped message={attribute(known)}/></testcase>\n"
        case Outcome.XPASSED:
            element, message = "failure", f"{verdict.outcome.value}: {verdict.reason}"
        case Outcome.FAILED:
            element, message = "failure", headline(verdict.failures[0])
        case Outcome.SCRIPT_ERROR | Outcome.TARGET_ERROR:
            element, message = "error", verdict.outcome.value
        case outcome:
            assert_never(outcome)
    text = cleaned(styled_text.plain(report(verdict)))
    return f"{head}><{element} message={attribute(message)} type={kind}>{text}</{element}></testcase>\n"


def attribute(text: str) -> str:
    """The value of an attribute, with its quotes."""
    return quoteattr(_clean(text))


def cleaned(text: str) -> str:
    """The content of an element."""
    return escape(_clean(text))


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
