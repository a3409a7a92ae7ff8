"""Play a suite against several servers: a `Cell` for each script and server, and tags that say where lines come from.

A tag is a comment that begins with names in brackets, `# [rfc-1459 draft] ...`. It holds for every line below it, up to
the next such comment in the same file; `# []` ends it. Everything but a comparison ignores tags.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from harness.batch import run_jobs
from harness.compare.baseline import Known
from harness.language.adapter import Adapter, load_adapter
from harness.language.columns import cut, windowed
from harness.language.loading import check
from harness.language.problems import ScriptError
from harness.language.steps import Comment, Include, Script
from harness.playing.pipeline import PlayOptions, play_file
from harness.playing.verdict import Failure, FailureKind, Outcome, Tolerated, Verdict, all_failures
from harness.report.lanes import END_WORDS, WIDEST, received_text, with_detail
from harness.report.text import first_difference, headline, place, summary
from harness.stage.connection import End
from harness.stage.target import Target
from harness.targets.choice import TargetChoice, UsageError

# --- servers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ComparedServer:
    """A server with its name in the table; it can be passed to another process."""

    name: str
    choice: TargetChoice
    adapter: Adapter | None = None


def split_name(text: str) -> tuple[str, str]:
    """Split NAME=REST."""
    name, _, rest = text.partition("=")
    if not rest or not name.replace("-", "_").replace(".", "_").isidentifier():
        raise UsageError(
            f"{text!r} does not name a server; write NAME='COMMAND', such as mine='./server {{port}}'"
        )
    return name, rest


def compared_servers(
    servers: Iterable[tuple[str, str]], features: Iterable[str], adapters: Iterable[str] = ()
) -> tuple[ComparedServer, ...]:
    """The servers of pairs such as `("connect", "mine=localhost:4000")`; features are written NAME='ONE TWO', adapters
    NAME=FILE."""
    choices: dict[str, TargetChoice] = {}
    for kind, text in servers:
        name, rest = split_name(text)
        if name in choices:
            raise UsageError(f"duplicate server name {name}")
        chosen: dict[str, Any] = {kind: rest}
        choices[name] = TargetChoice(**chosen)
    for text in features:
        name, words = split_name(text)
        if name not in choices:
            raise UsageError(f"features for unknown server {name}; known: {', '.join(choices)}")
        added = frozenset(words.replace(",", " ").split())
        choices[name] = replace(choices[name], features=choices[name].features | added)
    adapted: dict[str, Adapter] = {}
    for text in adapters:
        name, file = split_name(text)
        if name not in choices:
            raise UsageError(f"an adapter for unknown server {name}; known: {', '.join(choices)}")
        if name in adapted:
            raise UsageError(f"two adapters for server {name}")
        adapted[name] = load_adapter(file)
    return tuple(ComparedServer(name, choice, adapted.get(name)) for name, choice in choices.items())


# --- differences --------------------------------------------------------------------------------------------

CLIENT, TEXT, TIME = "CLIENT", "TEXT", "TIME"
"""Stand for the name of any client, a text that was sent and the time of day, so that one cause reads the same in all
scripts and runs."""

# Seconds or milliseconds since 1970, where that is about now.
_TIMESTAMP = re.compile(r"(?<![\d.])(\d{10})(?:\d{3})?(?![\d.])")
_RECENT_S = 3_600

_DAY, _MONTH = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)", "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLOCK = r"\d{1,2}:\d{2}:\d{2}(?:[.,]\d+)?(?: ?(?:UTC|GMT|Z|[+-]\d{2}:?\d{2}))?"
_HOST = r"(?:\d{1,3}(?:\.\d{1,3}){3}|localhost|\[[0-9A-Fa-f:.%]+\])"
_VARYING = (
    (rf"\d{{4}}-\d{{2}}-\d{{2}}[T ]{_CLOCK}", TIME),
    (rf"(?:{_DAY},? )?\d{{1,2}}[ -]{_MONTH}[ -]\d{{4}} {_CLOCK}", TIME),
    (rf"{_DAY} {_MONTH} +\d{{1,2}} {_CLOCK} \d{{4}}", TIME),
    (r"\d{4}-\d{2}-\d{2}", TIME),
    (_CLOCK, TIME),
    (r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", "UUID"),
    (r"0x[0-9A-Fa-f]{6,16}", "ADDRESS"),
    (r"(?=[0-9A-Fa-f]*\d)(?=\d*[A-Fa-f])[0-9A-Fa-f]{16,}", "HEX"),
    (r"(?:[Pp]id|PID)[ =:]+\d+", "PID"),
    (rf"({_HOST}):\d{{1,5}}", r"\1:PORT"),
    (rf"('{_HOST}', )\d{{1,5}}", r"\1PORT"),
    (r"(\d{1,3}(?:,\d{1,3}){3}),\d{1,3},\d{1,3}", r"\1,PORT"),
    (r"(?:unix:)?/(?:tmp|run/user|var/folders)/[^\s'\"`,;()]+", "PATH"),
    (r"([Pp]ort[ =:]+)\d{1,5}", r"\1PORT"),
)
"""Patterns of texts that differ between runs, days or machines, and their replacements. They are always replaced, so that a
cause is the same whenever it is found."""
_ALL_VARYING = [(re.compile(rf"(?<![\w.:-]){varies}(?![\w:-])(?!\.\d)"), same) for varies, same in _VARYING]

_OF_THIS_RUN = re.compile(r" \(waited [0-9.e+-]+ s\)| within [0-9.e+-]+ s\b| \(line \d+\)")
"""In the details of a failure: how long the harness waited, and the line of the header."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A step of a script at which a server behaved differently."""

    line: int
    """The line of the script itself."""
    parts: tuple[str, ...]
    """The cause in words that do not depend on the place in the script: words of the harness, and between these the line
    that was heard and the one that was expected, where there are such lines."""
    tags: tuple[str, ...] = ()

    @property
    def cause(self) -> str:
        return "".join(self.parts)


def _differences(verdict: Verdict, tags: Tags | None) -> Iterator[Difference]:
    if verdict.outcome is Outcome.XPASSED:
        yield Difference(0, (f"{verdict.outcome.value}: {verdict.reason}",))
    for failure in all_failures(verdict):
        found = tags.at(failure.file, failure.line) if tags else ()
        yield Difference(_own_line(failure, verdict.script.file), cause_of(failure, verdict), found)


_CAN_GREET = (FailureKind.EXTRA, FailureKind.DIFFERENT)


def cause_of(failure: Failure, verdict: Verdict) -> tuple[str, ...]:
    """The difference without the script in which it was found, in the parts of a `Difference`."""
    # Replaces names only in words of the server and the script: a client can be called `a`.
    heard = expected = None
    if failure.received is not None:
        heard = _general(received_text(failure.received, verdict.eol), failure, verdict)
    if failure.expected is not None:
        expected = _general(failure.expected.text, failure, verdict)
    # Around the place where they begin to differ, because another such line is another cause.
    differs = first_difference(heard or "", expected or "")
    heard, expected = (one and windowed(one, differs, WIDEST)[0] for one in (heard, expected))
    parts: tuple[str, ...]
    if heard is not None and failure.kind in _CAN_GREET and _is_greeting(failure, verdict):
        parts = "a greeting: `", heard, "`"
    elif heard is not None and failure.kind is FailureKind.TOO_LATE:
        parts = "heard `", heard, "` too late"
    elif heard is not None and expected and failure.kind is FailureKind.OUT_OF_ORDER:
        parts = "another order: `", heard, "` before `", expected, "`"
    elif heard is not None and expected:
        parts = "heard `", heard, "` instead of `", expected, "`"
    elif heard is not None:
        parts = "heard `", heard, "`, and nothing was expected"
    elif expected is not None:
        parts = "heard nothing instead of `", expected, "`"
    elif failure.ending is not None:
        ended = failure.kind.value
        if failure.kind is FailureKind.WRONG_END:
            ended = with_detail(END_WORDS[failure.end or End.CLOSED], failure.end_detail)
        expected_end = with_detail(failure.ending.value, failure.ending_detail)
        parts = (f"the connection {ended} where it {expected_end}",)
    else:
        parts = (_event(failure, verdict),)
    # One line, of one column, in a baseline.
    return tuple(re.sub(r"[\t\r\n]+", " ", cut(part, 3 * WIDEST)) for part in parts)


def _event(failure: Failure, verdict: Verdict) -> str:
    """The failure in words, if it is neither a line nor the end of a connection."""
    detail = failure.detail.partition("\n")[0].replace(verdict.target, "").strip()
    detail = _general(_OF_THIS_RUN.sub("", detail), failure, verdict)
    match failure.kind:
        case FailureKind.RAISED:
            return f"the server raised {detail}"
        case FailureKind.UNANSWERED:
            return detail
        case FailureKind.NOT_RAISED | FailureKind.NEVER_IDLE | FailureKind.NEVER_QUIET | FailureKind.NOT_READ:
            detail = ""
        case FailureKind.NO_PORT:
            detail = re.sub(r"^\d+, which", "a number that", detail)
        case FailureKind.LOST_CONNECTION | FailureKind.REFUSED_ENTRY if failure.end_detail:
            detail = with_detail(END_WORDS[failure.end or End.CLOSED], failure.end_detail)
    happened = headline(replace(failure, client="the client"))
    return f"{happened}: {detail}" if detail else happened


def _general(line: str, failure: Failure, verdict: Verdict) -> str:
    """The line without what happens to be in it: clients, the texts that they sent in this turn, the time of day, and words
    of fence lines."""
    line = verdict.without_tokens(line)
    turn = next((one for one in verdict.turns if one.number == failure.turn), None)
    texts = set[str]()
    for action in turn.actions if turn else ():
        words = action.text.removeprefix("> ").split(" ", 2)
        texts.update(action.text.partition(words[at - 1] + " ")[2] for at in range(1, len(words)))
    for text in sorted(texts - {"", *verdict.clients}, key=len, reverse=True):
        line = _replaced(text, TEXT, line)
    for name in sorted(verdict.clients, key=len, reverse=True):
        line = _replaced(name, CLIENT, line)
    now = time.time()
    line = _TIMESTAMP.sub(lambda found: TIME if abs(int(found[1]) - now) < _RECENT_S else found[0], line)
    for varies, same in _ALL_VARYING:
        line = varies.sub(same, line)
    return line


def _replaced(part: str, by: str, text: str) -> str:
    return re.sub(rf"(?<![\w.-]){re.escape(part)}(?![\w.-])", by, text)


def _is_greeting(failure: Failure, verdict: Verdict) -> bool:
    """Whether it is the first that its client ever received, and comes before what was expected, not in its place."""
    for turn in verdict.turns[: failure.turn]:
        one = turn.client_turn(failure.client)
        received = [entry.received for entry in one.entries if entry.received is not None] if one else []
        if one is not None and received:
            # More came than was expected before the first line that is right.
            wrong = list(takewhile(lambda entry: not entry.matches, one.entries))
            surplus = sum((entry.received is not None) - (entry.expected is not None) for entry in wrong)
            # Alone in a turn in which the client sent something, it can as well be an answer.
            sent = any(one.text[:1] == ">" and one.client == failure.client for one in turn.actions)
            return received[0] is failure.received and surplus > 0 and len(received) > sent
    return False


# --- cells --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """The result of one server in one script."""

    file: str
    title: str
    server: str
    outcome: Outcome
    where: str = ""
    """The file of the first difference."""
    line: int = 0
    message: str = ""
    """The difference, or the reason why the script was not played."""
    tags: tuple[str, ...] = ()
    """The tags of the line that was not met."""
    script_tags: tuple[str, ...] = ()
    """All tags of the script."""
    place: str = ""
    """Where the first difference is, with the line of the script that led there."""
    own_line: int = 0
    """The line of the script itself."""
    differences: tuple[Difference, ...] = ()
    """All differences: the script goes on after the first."""
    tolerated: Mapping[Tolerated, int] = field(default_factory=Counter)
    """The tolerated lines of a script that passed, by kind."""
    verdict: Verdict | None = field(default=None, compare=False, repr=False)

    @property
    def causes(self) -> str:
        """Each cause once."""
        return "; ".join(dict.fromkeys(one.cause for one in self.differences))

    def known_causes(self, known: frozenset[Known]) -> frozenset[str]:
        """The causes that a baseline has for this server and script."""
        return frozenset(one.cause for one in known if (one.server, one.script) == (self.server, self.file))

    def is_known(self, known: frozenset[Known]) -> bool:
        """Whether the server differs there in nothing new."""
        causes = self.known_causes(known)
        return bool(self.differences) and all(one.cause in causes for one in self.differences)

    def as_text(self) -> str:
        """The cell without its verdict, to be sent between processes that exchange text."""
        where = (self.file, self.title, self.server, self.outcome.value, self.where)
        rest = (self.line, self.message, self.tags, self.script_tags, self.place, self.own_line)
        found = [(one.line, one.parts, one.tags) for one in self.differences]
        return json.dumps([*where, *rest, found, {one.name: n for one, n in self.tolerated.items()}])

    @staticmethod
    def from_text(text: str) -> Cell:
        """Read a cell that `as_text` wrote."""
        (file, title, server, outcome, where, line, message, tags, script_tags, place, own, found, more) = (
            json.loads(text)
        )
        return Cell(
            file,
            title,
            server,
            Outcome(outcome),
            where,
            line,
            message,
            tuple(tags),
            tuple(script_tags),
            place,
            own,
            tuple(Difference(at, tuple(parts), tuple(tagged)) for at, parts, tagged in found),
            Counter({Tolerated[name]: number for name, number in more.items()}),
        )


def cell_of(server: str, verdict: Verdict) -> Cell:
    """The cell for this verdict."""
    script = verdict.script
    try:
        tags = Tags(script)
        script_tags = tags.all()
    except ScriptError:
        tags, script_tags = None, ()
    where, line, message, broken_tags = "", 0, "", tuple[str, ...]()
    shown, own_line = "", 0
    if verdict.failures:
        first = verdict.failures[0]
        where, line, message = first.file, first.line, headline(first)
        shown, own_line = place(first), _own_line(first, script.file)
        broken_tags = tags.at(where, line) if tags else ()
    elif verdict.outcome is Outcome.SKIPPED:
        message = verdict.reason.replace(verdict.target, server)
    elif not verdict.passed:
        message = summary(verdict)
    if verdict.outcome is Outcome.XFAILED:
        message = f"{message} ({verdict.outcome.value}: {verdict.reason})"
    return Cell(
        script.file, script.title or "", server, verdict.outcome,
        where, line, message, broken_tags, script_tags, shown, own_line,
        tuple(_differences(verdict, tags)), verdict.tolerated if verdict.passed else Counter(), verdict,
    )  # fmt: skip


def _own_line(failure: Failure, file: str) -> int:
    """The line of the script in which the failure is, or which led there."""
    sites = [site.line for site in failure.via if site.is_call and site.file == file]
    return sites[0] if sites and failure.file != file else failure.line


def compare(
    paths: Sequence[Path], servers: Sequence[ComparedServer], play_options: PlayOptions, processes: int
) -> Iterator[Cell]:
    """A cell for each script and server: one script with all servers, then the next script."""
    jobs = [(path, server.name) for path in paths for server in servers]
    adapters = {server.name: server.adapter for server in servers}
    work = partial(_play, play_options=play_options, adapters=adapters)
    verdicts = run_jobs(work, jobs, partial(_make_targets, tuple(servers)), processes)
    for (_, name), verdict in zip(jobs, verdicts, strict=True):
        yield cell_of(name, verdict)


def _make_targets(servers: tuple[ComparedServer, ...]) -> dict[str, Target]:
    return {server.name: server.choice.target() for server in servers}


def _play(
    job: tuple[Path, str],
    targets: Mapping[str, Target],
    play_options: PlayOptions,
    adapters: Mapping[str, Adapter | None],
) -> Verdict:
    path, name = job
    return play_file(path, targets[name], replace(play_options, adapter=adapters[name]), keep_going=True)


# --- tags ---------------------------------------------------------------------------------------------------

_TAGS = re.compile(r" ?\[(?P<tags>[\w.-]*(?: [\w.-]+)*)\](?: |$)")


class Tags:
    """The tags of one script and of everything that it includes."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._by_file = {file: sorted(tagged) for file, tagged in _tags_by_file(script)}

    def at(self, file: str, line: int) -> tuple[str, ...]:
        """The tags that hold for this line."""
        above = [tags for tagged, tags in self._by_file.get(file, []) if tagged <= line]
        return above[-1] if above else ()

    def all(self) -> tuple[str, ...]:
        """The tags of everything that this file itself expects, sorted.

        Included steps do not count: a script whose clients log in is not thereby a script about logins.
        """
        found: set[str] = set()
        for turn in check(self._script).turns:
            for located in turn.expectations:
                if located.script.file == self._script.file:
                    found.update(self.at(located.script.file, located.line))
        return tuple(sorted(found))


_TaggedLines = list[tuple[int, tuple[str, ...]]]


def _tags_by_file(script: Script) -> Iterator[tuple[str, _TaggedLines]]:
    yield script.file, list(_tagged_lines((*script.header, *script.body)))
    for item in script.body:
        if isinstance(item, Include) and item.script is not None:
            yield from _tags_by_file(item.script)


def _tagged_lines(items: tuple[Any, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    for item in items:
        if isinstance(item, Comment):
            found = _TAGS.match(item.text)
            if found:
                yield item.line, tuple(found["tags"].split())
        else:
            yield from _tagged_lines(getattr(item, "body", ()))
