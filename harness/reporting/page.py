"""Verdicts -> one HTML page that holds everything: no script from elsewhere, no font, no picture to load. Pure."""

from __future__ import annotations

import html
from collections.abc import Sequence

from harness.playing.verdict import Outcome, Verdict
from harness.reporting import styled_text
from harness.reporting.report import lanes, report

_ORDER = (Outcome.FAILED, Outcome.TARGET_BROKEN, Outcome.SCRIPT_WRONG, Outcome.SKIPPED, Outcome.PASSED)
_STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfb; --text: #22252b; --quiet: #7b8088; --rule: #dcdcd6;
  --good: #1c7c3c; --bad: #c62828; --wanted: #9a6a00; --hint: #0b6e8a; --card: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181d; --text: #dfe2e7; --quiet: #8b919b; --rule: #30343c;
  --good: #6fcf8a; --bad: #ff7b72; --wanted: #e0b34c; --hint: #62c4e0; --card: #1c1f26; } }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.5rem 4rem; background: var(--paper); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .2rem; }
.sum { color: var(--quiet); margin: 0 0 1.5rem; }
.bar { display: flex; height: .5rem; border-radius: .25rem; overflow: hidden; margin: 0 0 1.5rem; background: var(--rule); }
.bar i { display: block; } .bar .passed { background: var(--good); } .bar .failed { background: var(--bad); }
.bar .skipped { background: var(--quiet); } .bar .broken { background: var(--wanted); }
details { border: 1px solid var(--rule); border-radius: .5rem; margin: 0 0 .6rem; background: var(--card); }
summary { cursor: pointer; padding: .55rem .9rem; display: flex; gap: .8rem; align-items: baseline; }
summary b { min-width: 7.5rem; } summary span { color: var(--quiet); margin-left: auto; }
summary .passed { color: var(--good); } summary .failed { color: var(--bad); } summary .skipped { color: var(--quiet); }
summary .broken { color: var(--wanted); }
pre { margin: 0; padding: .9rem 1.1rem 1.1rem; overflow-x: auto; border-top: 1px solid var(--rule);
  font: 13.5px/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.strong { font-weight: 700; } .quiet { color: var(--quiet); } .good { color: var(--good); }
.bad { color: var(--bad); font-weight: 700; } .wanted { color: var(--wanted); } .hint { color: var(--hint); }
"""
_CLASSES = {
    Outcome.PASSED: "passed",
    Outcome.FAILED: "failed",
    Outcome.SKIPPED: "skipped",
    Outcome.SCRIPT_WRONG: "broken",
    Outcome.TARGET_BROKEN: "broken",
}


def document(verdicts: Sequence[Verdict], took_s: float) -> str:
    """The whole page; what failed comes first and lies open."""
    ordered = sorted(verdicts, key=lambda verdict: _ORDER.index(verdict.outcome))
    counts = [(one, sum(verdict.outcome is one for verdict in verdicts)) for one in _ORDER]
    summary = ", ".join(f"{count} {one.value}" for one, count in counts if count)
    bar = "".join(f'<i class="{_CLASSES[one]}" style="flex: {count}"></i>' for one, count in counts if count)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Transcripts: {html.escape(summary)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>Transcripts</h1>\n<p class="sum">{html.escape(summary)} in {took_s:.2f} s</p>\n'
        f'<div class="bar">{bar}</div>\n{"".join(_section(verdict) for verdict in ordered)}</body>\n</html>\n'
    )


def _section(verdict: Verdict) -> str:
    title = html.escape(verdict.script.title or "")
    open_ = "" if verdict.outcome in (Outcome.PASSED, Outcome.SKIPPED) else " open"
    lines = list(report(verdict))
    if verdict.outcome is Outcome.PASSED:
        lines = [*lanes(verdict, turns=len(verdict.turns)), [], *lines]
    return (
        f"<details{open_}>\n"
        f'<summary><b class="{_CLASSES[verdict.outcome]}">{html.escape(verdict.outcome.value)}</b>'
        f"<strong>{html.escape(verdict.file)}</strong> {title}"
        f"<span>{verdict.real_s * 1000:.1f} ms</span></summary>\n"
        f"<pre>{styled_text.html_lines(lines)}</pre>\n</details>\n"
    )
