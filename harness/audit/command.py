"""python -m harness audit: arguments in, exit code out."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, TextIO

from harness.audit.audit_report import report, summary
from harness.audit.auditing import AuditResult, Sample
from harness.audit.files import audit_files
from harness.options import (
    BROKEN,
    FAILED,
    FINE,
    add_files,
    add_jobs,
    add_target,
    at_least_one,
    choice,
    chosen,
    play_options,
)
from harness.playing.verdict import Outcome
from harness.reporting import styled_text


def add(commands: Any) -> None:
    """Make `audit` one of the commands."""
    parser = commands.add_parser("audit", help="find out what scripts would not notice")
    add_files(parser)
    add_target(parser)
    parser.add_argument(
        "--most",
        type=at_least_one,
        metavar="N",
        help="play N changes of each file at most, drawn by the seed",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which ones --most draws (0)")
    add_jobs(parser)
    parser.set_defaults(run=_audit)


def _audit(options: argparse.Namespace) -> int:
    paths = chosen(options)
    began = time.monotonic()
    counter = _Counter(len(paths), sys.stderr)
    done: list[AuditResult] = []
    sample = Sample(options.most, options.seed)
    for audit_result in audit_files(
        paths, choice(options), play_options(options), sample, options.jobs, counter.played
    ):
        done.append(audit_result)
        counter.clear()
        print(styled_text.painted(list(report(audit_result)), sys.stdout), end="", flush=True)
        counter.through(audit_result)
    counter.clear()
    print(styled_text.painted(list(summary(done, time.monotonic() - began)), sys.stdout), end="")
    return max(map(_code, done))


def _code(audit_result: AuditResult) -> int:
    if audit_result.clean.outcome is Outcome.SKIPPED:
        return FINE
    if not audit_result.judged or audit_result.unsteady:
        return BROKEN
    return FAILED if audit_result.survivors else FINE


class _Counter:
    """How far it has come, as a line that overwrites itself on a terminal."""

    def __init__(self, files: int, out: TextIO) -> None:
        self._files = files
        self._out = out if out.isatty() else None
        self._done: list[AuditResult] = []
        self._plays = 0

    def played(self) -> None:
        self._plays += 1
        if not self._plays % 10:
            self._show()

    def through(self, audit_result: AuditResult) -> None:
        self._done.append(audit_result)
        self._show()

    def _show(self) -> None:
        if self._out is not None:
            survivors = sum(len(one.survivors) for one in self._done)
            plays = max(self._plays, sum(one.played for one in self._done))
            self._out.write(f"\r{len(self._done)}/{self._files} files  {plays} plays  {survivors} unnoticed")
            self._out.flush()

    def clear(self) -> None:
        """Take the line away, so that something else can be written."""
        if self._out is not None:
            self._out.write("\r\x1b[K")
            self._out.flush()
