"""The table of a comparison as one HTML page that holds everything: nothing is loaded from elsewhere. Pure."""

from __future__ import annotations

import html

from harness.compare.comparing import Cell
from harness.compare.table import BROKEN, Table, mark, source
from harness.playing.verdict import Outcome
from harness.reporting import styled_text
from harness.reporting.report import report

_CLASSES = {Outcome.PASSED: "good", Outcome.FAILED: "bad", Outcome.SKIPPED: "quiet"}
_STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfb; --text: #22252b; --quiet: #6f747c; --rule: #dcdcd6;
  --good: #1c7c3c; --bad: #c62828; --wanted: #9a6a00; --hint: #0b6e8a; --card: #ffffff; --tint: #fbe9e7; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181d; --text: #dfe2e7; --quiet: #8b919b; --rule: #30343c;
  --good: #6fcf8a; --bad: #ff7b72; --wanted: #e0b34c; --hint: #62c4e0; --card: #1c1f26; --tint: #35211f; } }
body { margin: 0 auto; max-width: 80rem; padding: 2rem 1.5rem 4rem; background: var(--paper); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
.sum { color: var(--quiet); margin: 0 0 1.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; background: var(--card); border: 1px solid var(--rule); }
th, td { padding: .4rem .8rem; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: baseline; }
thead th { position: sticky; top: 0; background: var(--card); }
tbody th { font-weight: 400; } tbody th small { display: block; color: var(--quiet); }
tfoot th, tfoot td { color: var(--quiet); font-weight: 400; border-bottom: 0; padding-top: .15rem; padding-bottom: .15rem; }
td { white-space: nowrap; } td.bad { background: var(--tint); } td small { color: var(--quiet); }
td a { color: inherit; font-weight: 700; }
details { border: 1px solid var(--rule); border-radius: .5rem; margin: 0 0 .6rem; background: var(--card); }
summary { cursor: pointer; padding: .55rem .9rem; } details:target { border-color: var(--bad); }
pre { margin: 0; padding: .9rem 1.1rem 1.1rem; overflow-x: auto; border-top: 1px solid var(--rule);
  font: 13.5px/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.strong { font-weight: 700; } .quiet { color: var(--quiet); } .good { color: var(--good); }
.bad { color: var(--bad); } .wanted { color: var(--wanted); } .hint { color: var(--hint); }
"""


def document(table: Table) -> str:
    """The whole page."""
    servers, files = table.servers, table.files
    counts = f"{len(files)} scripts at {len(servers)} servers"
    heads = "".join(f'<th scope="col">{_text(server)}</th>' for server in servers)
    rows = "".join(_row(table, file) for file in files)
    feet = "".join(_foot(table, tag) for tag in (None, *table.tags))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Servers compared: {_text(counts)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>Servers compared</h1>\n<p class="sum">{_text(counts)}</p>\n'
        f'<div class="wide"><table>\n<thead><tr><th scope="col">script</th>{heads}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n<tfoot>\n{feet}</tfoot>\n</table></div>\n"
        f"{''.join(_of_server(table, server) for server in servers)}</body>\n</html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text)


def _row(table: Table, file: str) -> str:
    title = table.title(file)
    small = f"<small>{_text(title)}</small>" if title else ""
    cells = "".join(_cell(table, cell) for cell in table.row(file))
    return f'<tr><th scope="row">{_text(table.short(file))}{small}</th>{cells}</tr>\n'


def _cell(table: Table, cell: Cell | None) -> str:
    if cell is None:
        return "<td></td>"
    kind = _CLASSES.get(cell.outcome, "wanted")
    words = _text(mark(cell))
    if cell.outcome in (Outcome.PASSED, Outcome.SKIPPED):
        return f'<td class="{kind}" title="{_text(cell.message)}">{words}</td>'
    tags = f" <small>{_text(source(cell.tags))}</small>" if cell.tags else ""
    return f'<td class="{kind}"><a href="#{_anchor(table, cell)}">{words}</a>{tags}</td>'


def _anchor(table: Table, cell: Cell) -> str:
    return f"s{table.servers.index(cell.server)}-f{table.files.index(cell.file)}"


def _foot(table: Table, tag: str | None) -> str:
    label = "scripts kept" if tag is None else f"of these, {tag}"
    sums = "".join(f"<td>{table.sum(server, tag)}</td>" for server in table.servers)
    return f'<tr><th scope="row">{_text(label)}</th>{sums}</tr>\n'


def _of_server(table: Table, server: str) -> str:
    found = table.divergences(server)
    if not found:
        return ""
    return f"<h2>Where {_text(server)} first diverges</h2>\n" + "".join(_details(table, one) for one in found)


def _details(table: Table, cell: Cell) -> str:
    where = cell.file if cell.outcome in BROKEN else f"{cell.where}:{cell.line}"
    told = styled_text.html_lines(report(cell.verdict)) if cell.verdict is not None else ""
    return (
        f'<details id="{_anchor(table, cell)}" open>\n<summary><strong>{_text(where)}</strong> '
        f'{_text(cell.message)} <span class="quiet">{_text(source(cell.tags))}</span></summary>\n'
        f"<pre>{told}</pre>\n</details>\n"
    )
