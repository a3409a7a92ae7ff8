"""Verdicts as one self-contained HTML page: it loads no script, font, style sheet or picture. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from harness.playing.verdict import Outcome, Verdict
from harness.report import styled_text
from harness.report.lanes import lanes
from harness.report.text import report, run_summary, tolerated_text

_ORDER = (
    Outcome.FAILED, Outcome.XPASSED, Outcome.TARGET_ERROR, Outcome.SCRIPT_ERROR, Outcome.XFAILED, Outcome.SKIPPED,
    Outcome.PASSED,
)  # fmt: skip
TONES = {
    Outcome.PASSED: "good",
    Outcome.FAILED: "bad",
    Outcome.XPASSED: "bad",
    Outcome.XFAILED: "dim",
    Outcome.SKIPPED: "dim",
    Outcome.SCRIPT_ERROR: "warning",
    Outcome.TARGET_ERROR: "warning",
}
_STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfb; --text: #22252b; --dim: #6f747c; --rule: #dcdcd6;
  --good: #1c7c3c; --bad: #c62828; --warning: #9a6a00; --hint: #0b6e8a; --card: #ffffff; --tint: #fbe9e7; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181d; --text: #dfe2e7; --dim: #8b919b; --rule: #30343c;
  --good: #6fcf8a; --bad: #ff7b72; --warning: #e0b34c; --hint: #62c4e0; --card: #1c1f26; --tint: #35211f; } }
body { margin: 0 auto; max-width: 80rem; padding: 2rem 1.5rem 4rem; background: var(--paper); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
.sum { color: var(--dim); margin: 0 0 1.5rem; }
.strong { font-weight: 700; } .dim { color: var(--dim); } .good { color: var(--good); } .bad { color: var(--bad); }
.warning { color: var(--warning); } .hint { color: var(--hint); }
.bar { display: flex; height: .5rem; border-radius: .25rem; overflow: hidden; margin: 0 0 1.5rem; }
.bar i { background: currentColor; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; background: var(--card); border: 1px solid var(--rule); }
th, td { padding: .4rem .8rem; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: baseline; }
thead th { position: sticky; top: 0; background: var(--card); }
tbody th { font-weight: 400; } tbody th small { display: block; color: var(--dim); }
tfoot th, tfoot td { color: var(--dim); font-weight: 400; border-bottom: 0; padding: .15rem .8rem; }
td { white-space: nowrap; } td.bad { background: var(--tint); } td small { color: var(--dim); }
td a { color: inherit; font-weight: 700; }
details { border: 1px solid var(--rule); border-radius: .5rem; margin: 0 0 .6rem; background: var(--card); }
details:target { border-color: var(--bad); }
summary { cursor: pointer; padding: .55rem .9rem; display: flex; gap: .8rem; align-items: baseline; }
summary b { min-width: 7.5rem; } summary .dim { margin-left: auto; }
code { white-space: pre-wrap; }
pre { margin: 0; padding: .9rem 1.1rem 1.1rem; overflow-x: auto; border-top: 1px solid var(--rule);
  font: 13.5px/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
"""


def page(heading: str, summary: str, body: str) -> str:
    """A whole page around this body, which is HTML already; heading and summary are text."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(heading)}: {html.escape(summary)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{html.escape(heading)}</h1>\n<p class="sum">{html.escape(summary)}</p>\n{body}</body>\n</html>\n'
    )


def details(summary: str, lines: Iterable[styled_text.Line], *, opened: bool, anchor: str = "") -> str:
    """A report that can be folded away below its summary, which is HTML already."""
    name = f' id="{anchor}"' if anchor else ""
    return (
        f"<details{name}{' open' if opened else ''}>\n<summary>{summary}</summary>\n"
        f"<pre>{styled_text.html_lines(lines)}</pre>\n</details>\n"
    )


def document(verdicts: Sequence[Verdict], took_s: float) -> str:
    """The page of a run: failures come first and are unfolded."""
    ordered = sorted(verdicts, key=lambda verdict: _ORDER.index(verdict.outcome))
    numbers = {one: sum(verdict.outcome is one for verdict in verdicts) for one in _ORDER}
    bar = "".join(f'<i class="{TONES[one]}" style="flex: {number}"></i>' for one, number in numbers.items())
    summary = run_summary(verdicts, took_s)
    return page("Transcripts", summary, f'<div class="bar">{bar}</div>\n{"".join(map(_section, ordered))}')


def _section(verdict: Verdict) -> str:
    lines = list(report(verdict))
    if verdict.outcome is Outcome.PASSED:
        lines = [*lanes(verdict, turns=len(verdict.turns)), [], *lines]
    summary = (
        f'<b class="{TONES[verdict.outcome]}">{verdict.outcome.value}</b>'
        f"<strong>{html.escape(verdict.file)}</strong> {html.escape(verdict.script.title or '')}"
        f'<span class="warning">{html.escape(tolerated_text([verdict]))}</span>'
        f'<span class="dim">{verdict.real_s * 1000:.1f} ms</span>'
    )
    return details(summary, lines, opened=not verdict.outcome.expected)
