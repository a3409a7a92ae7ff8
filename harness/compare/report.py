"""The table of a comparison: its rows, columns, totals and causes, for a terminal, as Markdown, HTML and JUnit. Pure."""

from __future__ import annotations

import html
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from harness.compare.baseline import Known, distinct, of_run
from harness.compare.compare import Cell, Difference
from harness.language.columns import cut, width, windowed
from harness.language.exhaustive import assert_never
from harness.playing.verdict import Outcome, Tolerated
from harness.report.html import TONES, details, page
from harness.report.junit import attribute, cleaned, suite
from harness.report.styled_text import Line, Span, Tone, count, padded, plain, wrapped
from harness.report.text import counted, first_difference, report

_ERRORS = (Outcome.SCRIPT_ERROR, Outcome.TARGET_ERROR)
_PASSED_ROW = "passed"
_HEADING = "Servers compared"


@dataclass(frozen=True, slots=True)
class Total:
    passed: int
    played: int

    def __str__(self) -> str:
        return f"{self.passed} of {self.played}"


@dataclass(frozen=True, slots=True)
class Group:
    """One cause, wherever one server has it."""

    cause: str
    places: tuple[tuple[Cell, Difference], ...]

    @property
    def scripts(self) -> int:
        return len({cell.file for cell, _ in self.places})


@dataclass(frozen=True, slots=True)
class Table:
    cells: tuple[Cell, ...]
    baseline: frozenset[Known] = frozenset()
    known: frozenset[Known] = field(init=False)
    """The differences of the baseline that do not count here, with the files of this run."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", of_run(self.baseline, self.files))

    @staticmethod
    def of_texts(
        texts: Iterable[str], servers: Sequence[str], baseline: frozenset[Known] = frozenset()
    ) -> Table:
        """The table of cells that were sent as text, with the servers in this order."""
        cells = sorted(map(Cell.from_text, texts), key=lambda cell: (cell.file, servers.index(cell.server)))
        return Table(tuple(cells), baseline)

    @property
    def servers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.server for cell in self.cells))

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.file for cell in self.cells))

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of all scripts."""
        return tuple(sorted({tag for cell in self.cells for tag in cell.script_tags}))

    def row(self, file: str) -> tuple[Cell | None, ...]:
        """The cells of one script; None where a server has not played it."""
        found = {cell.server: cell for cell in self.cells if cell.file == file}
        return tuple(found.get(server) for server in self.servers)

    def title(self, file: str) -> str:
        return next((cell.title for cell in self.cells if cell.file == file), "")

    def short_name(self, file: str) -> str:
        """The file's name without the folders that all scripts share."""
        common = os.path.commonpath([os.path.dirname(os.path.abspath(one)) for one in self.files])
        return os.path.relpath(file, common)

    def total(self, server: str, tag: str | None = None) -> Total:
        """The total over all scripts, or over those with this tag."""
        outcomes = [
            cell.outcome
            for cell in self.cells
            if cell.server == server and (tag is None or tag in cell.script_tags)
        ]
        passed = outcomes.count(Outcome.PASSED)
        return Total(passed, passed + outcomes.count(Outcome.FAILED) + outcomes.count(Outcome.XPASSED))

    def total_rows(self) -> Iterator[tuple[str, list[str]]]:
        """The last rows of the table: a label and the totals of each server."""
        for tag in (None, *self.tags):
            label = _PASSED_ROW if tag is None else f"with [{tag}]"
            yield label, [str(self.total(server, tag)) for server in self.servers]

    def tolerances(self) -> Iterator[str]:
        """For each server, how much the scripts that it passed tolerated."""
        for server in self.servers:
            found = Counter[Tolerated]()
            for cell in self.cells:
                if cell.server == server:
                    found.update(cell.tolerated)
            if found:
                yield f"{server} passed with {counted(found)}"

    def is_known(self, cell: Cell) -> bool:
        """True if all differences of this cell are known."""
        return cell.is_known(self.known)

    def entries(self) -> frozenset[Known]:
        """All differences as a baseline names them."""
        names = distinct({file: self.short_name(file) for file in self.files})
        return frozenset(replace(one, script=names[one.script]) for one in self._found())

    def gone(self) -> list[Known]:
        """The known differences that no longer occur in the scripts that were played."""
        played = {
            (cell.server, cell.file)
            for cell in self.cells
            if cell.outcome in (Outcome.PASSED, Outcome.FAILED, Outcome.XPASSED, Outcome.XFAILED)
        }
        return sorted(one for one in self.known - self._found() if (one.server, one.script) in played)

    def _found(self) -> frozenset[Known]:
        return frozenset(
            Known(cell.server, cell.file, one.cause) for cell in self.cells for one in cell.differences
        )

    def outcomes(self) -> Iterator[Outcome]:
        """The outcome that each cell counts as: a known difference counts as passed."""
        for cell in self.cells:
            yield Outcome.PASSED if self.is_known(cell) else cell.outcome

    def groups(self, server: str) -> list[Group]:
        """The causes of this server's differences: those in most scripts first."""
        found: dict[str, list[tuple[Cell, Difference]]] = {}
        for cell in self.differences(server):
            for one in cell.differences or (_error_in(cell),):
                found.setdefault(one.cause, []).append((cell, one))
        groups = [Group(cause, tuple(places)) for cause, places in found.items()]
        return sorted(groups, key=lambda group: -group.scripts)

    def differences(self, server: str) -> tuple[Cell, ...]:
        """The scripts in which this server failed, or could not be played."""
        return tuple(cell for cell in self.cells if cell.server == server and not cell.outcome.expected)


def _error_in(cell: Cell) -> Difference:
    """The error of a script or server without its place, so that all scripts with the same one are one cause."""
    found = re.match(rf"(.*?: ){re.escape(cell.file)}:(\d+)(?::\d+)?: ", cell.message)
    return (
        Difference(int(found[2]), (found[1] + cell.message[found.end() :],))
        if found
        else Difference(0, (cell.message,))
    )


def mark(cell: Cell | None, known: bool = False) -> str:
    """The text of a cell."""
    if cell is None:
        return ""
    if known:
        return "known"
    match cell.outcome:
        case Outcome.PASSED:
            return "ok"
        case Outcome.SKIPPED:
            return "-"
        case Outcome.FAILED:
            return f"line {cell.own_line}"
        case Outcome.XFAILED:
            return f"({cell.own_line})"
        case Outcome.XPASSED:
            return "passed"
        case Outcome.SCRIPT_ERROR | Outcome.TARGET_ERROR:
            return "error"
        case outcome:
            return assert_never(outcome)


def _tag_text(tags: Sequence[str]) -> str:
    return f"[{' '.join(tags)}]" if tags else ""


def _where(cell: Cell) -> str:
    return cell.file if cell.outcome in _ERRORS else cell.place


def _heading_of(table: Table, server: str) -> str:
    cells = table.differences(server)
    of = table.total(server).played + sum(cell.outcome in _ERRORS for cell in cells)
    scripts = f"{len(cells)} of {count(of, 'script')}"
    return f"{server} differs in {scripts}: {count(len(table.groups(server)), 'cause')}"


def _places(table: Table, group: Group) -> Iterator[str]:
    """Where the cause is found, each script once, with the tags of its lines."""
    by_script: dict[str, list[Difference]] = {}
    for cell, difference in group.places:
        by_script.setdefault(table.short_name(cell.file), []).append(difference)
    for script, found in by_script.items():
        lines = ",".join(dict.fromkeys(str(one.line) for one in found if one.line))
        yield f"{script}:{lines}" if lines else script


def _with_lines(group: Group, words: Callable[[str], str], line: Callable[[str], str]) -> str:
    """The cause, with its words and the lines in it each rendered, which then need no backticks."""
    parts = group.places[0][1].parts
    if len(parts) == 1:
        return words(parts[0])
    return "".join(line(part) if at % 2 else words(part.strip("`")) for at, part in enumerate(parts))


def _tags_of(group: Group) -> str:
    return _tag_text(sorted({tag for _, one in group.places for tag in one.tags}))


# --- for a terminal -----------------------------------------------------------------------------------------


def text(table: Table, columns: int | None = None) -> Iterator[Line]:
    """The table, and for each server the causes of its differences with the scripts that have them."""
    for line in _text(table, columns):
        yield from wrapped(line, columns)


def _text(table: Table, columns: int | None) -> Iterator[Line]:
    yield from _grid(table, columns)
    for tolerance in table.tolerances():
        yield [Span(tolerance, Tone.WARNING)]
    for server in table.servers:
        groups = table.groups(server)
        if groups:
            yield []
            yield [Span(_heading_of(table, server), Tone.STRONG)]
            for group in groups:
                known = all(one.cause in cell.known_causes(table.known) for cell, one in group.places)
                yield [
                    Span(f"{group.scripts:>4}x  ", Tone.STRONG),
                    Span(_shortened(group.places[0][1].parts, columns), Tone.DIM if known else Tone.BAD),
                    Span("  (known)" if known else "", Tone.DIM),
                    Span(f"  {_tags_of(group)}".rstrip(), Tone.DIM),
                ]
                yield [Span("       "), Span(" ".join(_places(table, group)))]
    gone = table.gone()
    if gone:
        yield []
        yield [Span("known, and no longer found: remove these from the baseline", Tone.WARNING)]
        for one in gone:
            what = _shortened((one.cause,), columns)
            yield [Span("  "), Span(f"{one.server}  {table.short_name(one.script)}  {what}")]


_TEXT_ROWS = 4
"""The rows of a terminal that each of the two lines of a cause can fill."""


def _shortened(parts: Sequence[str], columns: int | None) -> str:
    """The cause, with long lines in it cut around the place where they begin to differ."""
    if columns is None:
        return "".join(parts)
    room = columns * _TEXT_ROWS
    lines = parts[1::2]
    differs = first_difference(lines[0], lines[1]) if len(lines) > 1 else 0
    shown = [windowed(part, differs, room)[0] if at % 2 else part for at, part in enumerate(parts)]
    return cut("".join(shown), 3 * room)


def _grid(table: Table, columns: int | None) -> Iterator[Line]:
    """The scripts and totals of all servers, or of as many as are beside each other in this width, then of the next."""
    rows = [(table.short_name(file), table.row(file)) for file in table.files]
    totals = list(table.total_rows())
    first = max(width(label) for label, _ in (*rows, *totals))
    sizes = [
        max(width(server), *(width(_mark(table, row[at])) for _, row in rows), len("00 of 00"))
        for at, server in enumerate(table.servers)
    ]
    if columns is not None:
        first = min(first, columns // 2)
        sizes = [min(size, columns - first - len(_GAP)) for size in sizes]
    for number, shown in enumerate(_blocks(first, sizes, columns)):
        if number:
            yield []
        heads = (Span(_GAP + _filled(table.servers[at], sizes[at]), Tone.STRONG) for at in shown)
        yield [Span(" " * first), *heads]
        for label, row in rows:
            marks = (
                Span(_GAP + _filled(_mark(table, row[at]), sizes[at]), _tone(table, row[at])) for at in shown
            )
            # The end of a path says more than its beginning.
            yield [Span(padded(cut(label[::-1], first)[::-1], first)), *marks]
        for label, values in totals:
            cells = (Span(_GAP + _filled(values[at], sizes[at]), Tone.DIM) for at in shown)
            yield [Span(_filled(label, first), Tone.DIM), *cells]


_GAP = "  "
"""Before each server of the table."""


def _blocks(first: int, sizes: Sequence[int], columns: int | None) -> list[list[int]]:
    """The numbers of the servers, divided so that each part fits beside the names of the scripts."""
    blocks, filled = list[list[int]](), 0
    for at, size in enumerate(sizes):
        if not blocks or (columns is not None and filled + len(_GAP) + size > columns):
            blocks.append([])
            filled = first
        blocks[-1].append(at)
        filled += len(_GAP) + size
    return blocks


def _filled(text: str, columns: int) -> str:
    return padded(cut(text, columns), columns)


def _mark(table: Table, cell: Cell | None) -> str:
    return mark(cell, cell is not None and table.is_known(cell))


def _tone(table: Table, cell: Cell | None) -> Tone:
    return Tone.DIM if cell is None or table.is_known(cell) else Tone(TONES[cell.outcome])


# --- Markdown -----------------------------------------------------------------------------------------------

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&])")


def markdown(table: Table) -> str:
    """The table, its totals, and the report of each difference."""
    return "\n".join(_markdown_lines(table)) + "\n"


def _markdown_lines(table: Table) -> Iterator[str]:
    yield f"# {_HEADING}"
    yield ""
    yield _markdown_row("script", *map(_escaped, table.servers))
    yield _markdown_row(*["---"] * (len(table.servers) + 1))
    for file in table.files:
        code = _code(table.short_name(file)).replace("|", r"\|")  # a bar would end the cell
        name = f"{code} {_escaped(table.title(file))}".rstrip()
        yield _markdown_row(name, *(_markdown_cell(table, cell) for cell in table.row(file)))
    for label, values in table.total_rows():
        yield _markdown_row(_escaped(label), *values)
    for tolerance in table.tolerances():
        yield f"\n{_escaped(tolerance)}"
    for server in table.servers:
        found = table.differences(server)
        if found:
            yield ""
            yield f"## {_escaped(_heading_of(table, server))}"
            yield ""
            for group in table.groups(server):
                cause = _with_lines(group, _escaped, _code)
                yield f"- {group.scripts}x {cause}: {_escaped(' '.join(_places(table, group)))}"
            for cell in found:
                yield from _markdown_difference(cell)


def _markdown_row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.splitlines()))


def _code(text: str) -> str:
    """The text as code, whatever is in it."""
    marks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{marks}{space}{' '.join(text.splitlines())}{space}{marks}"


def _markdown_cell(table: Table, cell: Cell | None) -> str:
    if cell is None or cell.outcome.expected or table.is_known(cell):
        return _mark(table, cell)
    return f"**{mark(cell)}** {_escaped(_tag_text(cell.tags))}".rstrip()


def _markdown_difference(cell: Cell) -> Iterator[str]:
    yield ""
    yield f"{_code(_where(cell))} {_escaped(cell.message)} {_escaped(_tag_text(cell.tags))}".rstrip()
    if cell.verdict is not None:
        reported = plain(report(cell.verdict)).rstrip("\n")
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", reported)), default=0))
        yield from ("", f"{fence}text", reported, fence)


# --- HTML ---------------------------------------------------------------------------------------------------


def document(table: Table) -> str:
    """A page with the table, its totals, and the report of each difference."""
    heads = "".join(f'<th scope="col">{html.escape(server)}</th>' for server in table.servers)
    rows = "".join(_html_row(table, file) for file in table.files)
    totals = "".join(
        f'<tr><th scope="row">{html.escape(label)}</th>{"".join(f"<td>{value}</td>" for value in values)}</tr>\n'
        for label, values in table.total_rows()
    )
    body = (
        f'<div class="wide"><table>\n<thead><tr><th scope="col">script</th>{heads}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n<tfoot>\n{totals}</tfoot>\n</table></div>\n"
    ) + "".join(f'<p class="warning">{html.escape(one)}</p>\n' for one in table.tolerances())
    for server in table.servers:
        found = table.differences(server)
        if found:
            body += f"<h2>{html.escape(_heading_of(table, server))}</h2>\n<ul>\n"
            for group in table.groups(server):
                places = html.escape(" ".join(_places(table, group)))
                cause = _with_lines(group, html.escape, lambda line: f"<code>{html.escape(line)}</code>")
                body += f"<li>{group.scripts}x <strong>{cause}</strong> {places}</li>\n"
            body += "</ul>\n"
            body += "".join(_html_difference(table, cell) for cell in found)
    return page(_HEADING, f"{len(table.files)} scripts, {len(table.servers)} servers", body)


def _html_row(table: Table, file: str) -> str:
    title = table.title(file)
    small = f"<small>{html.escape(title)}</small>" if title else ""
    cells = "".join(_html_cell(table, cell) for cell in table.row(file))
    return f'<tr><th scope="row">{html.escape(table.short_name(file))}{small}</th>{cells}</tr>\n'


def _html_cell(table: Table, cell: Cell | None) -> str:
    if cell is None:
        return "<td></td>"
    tone, words = TONES[cell.outcome], html.escape(_mark(table, cell))
    if table.is_known(cell):
        tone = "dim"
    if cell.outcome.expected:
        return f'<td class="{tone}" title="{html.escape(cell.message)}">{words}</td>'
    tags = f" <small>{html.escape(_tag_text(cell.tags))}</small>" if cell.tags else ""
    return f'<td class="{tone}"><a href="#{_anchor(table, cell)}">{words}</a>{tags}</td>'


def _anchor(table: Table, cell: Cell) -> str:
    return f"s{table.servers.index(cell.server)}-f{table.files.index(cell.file)}"


def _html_difference(table: Table, cell: Cell) -> str:
    summary = (
        f"<strong>{html.escape(_where(cell))}</strong> {html.escape(cell.message)} "
        f'<span class="dim">{html.escape(_tag_text(cell.tags))}</span>'
    )
    lines = list(report(cell.verdict)) if cell.verdict is not None else []
    return details(summary, lines, opened=True, anchor=_anchor(table, cell))


# --- JUnit --------------------------------------------------------------------------------------------------


def junit(table: Table, took_s: float) -> str:
    """A test case for each script and server; what is known counts as skipped."""
    outcomes = [Outcome.SKIPPED if table.is_known(cell) else cell.outcome for cell in table.cells]
    cases = (_junit_case(table, cell, outcome) for cell, outcome in zip(table.cells, outcomes, strict=True))
    return suite("compare", outcomes, cases, took_s)


def _junit_case(table: Table, cell: Cell, outcome: Outcome) -> str:
    time_s = cell.verdict.real_s if cell.verdict is not None else 0.0
    name = table.short_name(cell.file)
    head = f'<testcase classname={attribute(cell.server)} name={attribute(name)} time="{time_s:.3f}"'
    causes = cell.causes
    match outcome:
        case Outcome.PASSED:
            return f"{head}/>\n"
        case Outcome.SKIPPED:
            reason = f"known: {causes}" if causes else cell.message
            return f"{head}><skipped message={attribute(reason)}/></testcase>\n"
        case Outcome.XFAILED:
            return f"{head}><skipped message={attribute(cell.message)}/></testcase>\n"
        case Outcome.FAILED | Outcome.XPASSED | Outcome.SCRIPT_ERROR | Outcome.TARGET_ERROR:
            element = "failure" if outcome in (Outcome.FAILED, Outcome.XPASSED) else "error"
            lines = plain(report(cell.verdict)) if cell.verdict is not None else ""
            message = attribute(causes or cell.message)
            return f"{head}><{element} message={message}>{cleaned(lines)}</{element}></testcase>\n"
        case unknown:
            return assert_never(unknown)
