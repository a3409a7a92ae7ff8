"""The options of all commands and of the pytest plugin, in one table.

A row with `commands` is an option of these commands. Every option of `play` is also an option of the pytest plugin, unless
pytest itself has it; a row with `pytest` is an option of the plugin besides these. Each option of the plugin is also a key of
pytest's ini file, but for its modes.
Importing this must stay cheap: it happens in every pytest run and for `--help`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pytest

    from harness.interception.schedule import Perturbation
    from harness.language.fences import Fence
    from harness.playing.pipeline import PlayOptions
    from harness.stage.transport import TlsTrust
    from harness.targets.choice import TargetChoice


# --- types of options ---------------------------------------------------------------------------------------


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _output(text: str) -> Path:
    """A file that the run will write: an error now, not when the run is over."""
    path = Path(text)
    _require(path, "is a folder" if os.path.isdir(path) else "", folder=path.parent)
    return path


def _output_folder(text: str) -> Path:
    """A folder in which the run will write, and which it makes if needed."""
    path = Path(text)
    _require(path, "", folder=next((one for one in (path, *path.parents) if os.path.exists(one)), path))
    return path


def _require(path: Path, problem: str, folder: Path) -> None:
    written = path
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        written = folder
    except OSError as error:
        problem = problem or error.strerror or str(error)
    if not problem and not os.path.isdir(folder):
        problem = f"{folder} is not a folder"
    if not problem and not os.access(written, os.W_OK):
        problem = "permission denied"
    if problem:
        raise argparse.ArgumentTypeError(f"cannot write {path}: {problem}")


def _perturbations(text: str) -> frozenset[Perturbation]:
    from harness.interception.schedule import Perturbation, perturbations

    try:
        return perturbations(text)
    except ValueError:
        known = ", ".join(one.value for one in Perturbation)
        raise argparse.ArgumentTypeError(f"unknown kind in {text!r}; known: {known}") from None


def _of_kind(kind: str) -> Callable[[str], tuple[str, str]]:
    """The list in which several options are collected, in the order of the command line."""
    return lambda text: (kind, text)


# --- the table ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    flag: str
    """The flag on the command line; empty for a mode of the pytest plugin."""
    help: str
    commands: str = ""
    """The names of the commands that have it."""
    metavar: str | None = None
    dest: str | None = None
    type: Callable[[str], Any] = str
    default: Any = None
    action: str = "store"
    required: bool = False
    is_target: bool = False
    """At most one of these can be given."""
    of_server: bool = False
    """It says how a server command is used."""
    pytest: str = ""
    """For an option of the plugin that does not follow from `play`."""
    pytest_has: str = ""
    """The option of pytest itself that does the same."""

    @property
    def of_playing(self) -> bool:
        """Whether the pytest plugin has it because `play` has it."""
        return "play" in self.commands.split() and not self.pytest_has

    @property
    def pytest_flag(self) -> str:
        """Its name in the pytest plugin; empty if the plugin does not have it."""
        return f"--harness-{self.flag.lstrip('-')}" if self.of_playing else self.pytest

    @property
    def ini_key(self) -> str:
        """Its name in pytest's ini file; empty if it cannot be set there."""
        return self.pytest_flag.lstrip("-").replace("-", "_") if self.flag else ""

    @property
    def name(self) -> str:
        """Its name among the options of the plugin: that of `play`, or else `audit_most`."""
        return self.attribute if self.of_playing else self.ini_key.removeprefix("harness_")

    @property
    def attribute(self) -> str:
        """Its name among the parsed options of a command."""
        return self.dest or self.flag.lstrip("-").replace("-", "_")

    def arguments(self) -> dict[str, Any]:
        """Arguments for argparse and pytest besides the flag."""
        if self.action == "store_true":
            return {"action": self.action, "help": self.help}
        return {
            "action": self.action,
            "help": self.help,
            "metavar": self.metavar,
            "type": self.type,
            "default": self.default,
        }


_TARGET = "play update audit explore generate laws"
_PLAYS = f"{_TARGET} compare"
_NAMED = "any number of times"

OPTIONS = (
    # The target
    Option("--server", "a server command; {port} becomes a free port", _TARGET, "CMD",
           is_target=True),
    Option("--connect", "a server that is already running, or unix:/PATH", _TARGET, "HOST:PORT",
           is_target=True),
    Option("--app", "a gevent or asyncio server in this process", _TARGET, "MODULE:FACTORY",
           is_target=True),
    Option("--node", "a process of a server that has several; {port:b} becomes the port of node b; once for each node",
           _TARGET, "NAME='CMD'", action="append", is_target=True),
    Option("--ready", "an output line that says where the server listens, in a group (?P<port>…), (?P<path>…) or one named "
           f"after an endpoint; {_NAMED}", _TARGET, "REGEX", action="append", of_server=True),
    Option("--shared", "one server for all scripts, instead of one for each", _TARGET, action="store_true",
           default=False, of_server=True),
    Option("--features", "features of the server; scripts that need others are skipped", _TARGET, "'ONE TWO'",
           default=""),
    # The targets of compare
    Option("--server", f"a server command; {{port}} becomes a free port; {_NAMED}", "compare", "NAME='CMD'",
           dest="servers", type=_of_kind("server"), action="append"),
    Option("--connect", f"a server that is already running; {_NAMED}", "compare", "NAME=HOST:PORT",
           dest="servers", type=_of_kind("connect"), action="append"),
    Option("--app", f"a gevent or asyncio server in this process; {_NAMED}", "compare", "NAME=MODULE:FACTORY",
           dest="servers", type=_of_kind("app"), action="append"),
    Option("--features", "features of that server; scripts that need others are skipped there", "compare",
           "NAME='ONE TWO'", default=[], action="append", pytest="--harness-compare-features"),
    # record
    Option("--connect", "the server", "record", "HOST:PORT", required=True),
    Option("--listen", "where the clients connect", "record", "[HOST:]PORT", required=True),
    Option("-o", "the transcript to write", "record", "FILE", dest="output", type=_output, required=True),
    # How to play
    Option("--fence", "a line and its answer, or how others hear it, or none, for scripts without `fence:`", f"{_PLAYS} record",
           "'PING -> PONG'"),
    Option("--within", "the time limit of one step, for scripts without `within:` (5s)", _PLAYS, "5s"),
    Option("--settle", "how long nothing comes before a server counts as quiet, for scripts without `settle:` (100ms)",
           _PLAYS, "100ms"),
    Option("--start", "how long a server command can take until it listens, for scripts without `start:` (10s)", _PLAYS,
           "10s"),
    Option("--tag", "only scripts with this tag, or with one of several", "play update audit explore check compare",
           "'ONE TWO'", default=""),
    Option("--time", "how many times faster time passes for a server command, for scripts without `time:` (x1)", _PLAYS,
           "x100"),
    Option("--transport", "tls, websocket, websocket /PATH or tls websocket, for scripts without `transport:` (tcp)", _PLAYS,
           "tls"),
    Option("--tls-ca", "a file with the certificates that clients accept (those of the system)", _PLAYS, "FILE"),
    Option("--tls-insecure", "accept any certificate", _PLAYS, action="store_true"),
    Option("--adapter", "how the server differs from the scripts on purpose: greeting, spelling, what to ignore",
           _TARGET, "FILE", type=Path),
    Option("--adapter", "the adapter of that server", "compare", "NAME=FILE", dest="adapters", default=[],
           action="append", pytest="--harness-compare-adapter"),
    Option("-k", "only files whose path contains TEXT", "play update check audit explore compare", "TEXT",
           dest="keyword", pytest_has="-k"),
    Option("-x", "stop at the first failure", "play", dest="exitfirst", action="store_true", pytest_has="-x"),
    Option("-v", "also list the scripts that pass", "play", dest="verbose", action="store_true", pytest_has="-v"),
    Option("--repeat", "play each script N times and report which of them are flaky", "play", "N", type=_positive),
    Option("-j", "the number of processes (1)", "play audit explore generate compare", "N", dest="jobs",
           type=_positive, default=1, pytest_has="-n of pytest-xdist"),
    Option("--ends", "also record ends of connections that the script does not say", "update", action="store_true",
           pytest="--harness-update-ends"),
    # audit
    Option("--most", "play at most N mutations of each file", "audit", "N", type=_positive,
           pytest="--harness-audit-most"),
    Option("--seed", "which mutations --most selects (0)", "audit", "S", type=_whole, default=0,
           pytest="--harness-audit-seed"),
    # explore
    Option("--runs", "the number of schedules (20)", "explore", "N", type=_positive, default=20),
    Option("--seed", "the seed of the first schedule (1)", "explore", "S", type=_whole, default=1,
           pytest="--harness-explore-seed"),
    Option("--only", "some of reads,writes,stalls,order,accepts", "explore", "KINDS", type=_perturbations,
           pytest="--harness-explore-only"),
    # generate
    Option("--model", "what makes a model", "generate", "MODULE:MODEL", required=True),
    Option("--runs", "the number of conversations (100)", "generate", "N", type=_positive, default=100),
    Option("--moves", "the number of moves in a conversation (30)", "generate", "N", type=_positive, default=30),
    Option("--seed", "the seed of the first conversation (1)", "generate", "S", type=_whole, default=1),
    Option("-o", "the folder for a conversation that fails (.)", "generate", "DIR", dest="folder", type=_output_folder,
           default=Path()),
    # laws
    Option("--model", "what makes a model", "laws", "MODULE:MODEL", required=True),
    Option("--clients", "the number of clients (200)", "laws", "N", type=_positive, default=200),
    Option("--seconds", "how long they talk, in the server's time (10)", "laws", "N", type=_positive, default=10),
    Option("--rate", "how many messages they send per second, all together (100)", "laws", "N", type=_positive,
           default=100),
    Option("--seed", "the seed of the traffic (1)", "laws", "S", type=_whole, default=1),
    # Reports
    Option("--junit", "write a JUnit report", "play compare", "FILE", type=_output, pytest_has="--junitxml"),
    Option("--baseline", "the known differences, which do not count", "compare", "FILE", type=Path,
           pytest="--harness-compare-baseline"),
    Option("--write-baseline", "write the differences that were found as a baseline", "compare", "FILE", type=_output,
           pytest="--harness-compare-write-baseline"),
    Option("--markdown", "write the table as Markdown", "compare", "FILE", type=_output),
    Option("--html", "write a self-contained HTML page", "play compare", "FILE", type=_output),
    # Modes of the pytest plugin
    Option("", "rewrite the expectations of transcripts that fail", action="store_true", pytest="--harness-update"),
    Option("", "check that each transcript fails whenever its server is changed", action="store_true",
           pytest="--harness-audit"),
    Option("", "also play each transcript under N schedules (only with an app)", metavar="N", type=_positive,
           pytest="--harness-explore"),
    Option("", f"play each transcript at this server, and end with a table; {_NAMED}", metavar="NAME=CMD",
           dest="harness_compare", type=_of_kind("server"), action="append", pytest="--harness-compare"),
    Option("", "the same for a server that is already running", metavar="NAME=HOST:PORT",
           dest="harness_compare", type=_of_kind("connect"), action="append", pytest="--harness-compare-connect"),
    Option("", "the same for a gevent or asyncio server in this process", metavar="NAME=MODULE:FACTORY",
           dest="harness_compare", type=_of_kind("app"), action="append", pytest="--harness-compare-app"),
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the options of this command."""
    rows = [row for row in OPTIONS if command in row.commands.split()]
    targets = parser.add_mutually_exclusive_group() if any(row.is_target for row in rows) else None
    for row in rows:
        extra: dict[str, Any] = {"dest": row.dest} if row.dest else {}
        if row.required:
            extra["required"] = True
        owner = targets if targets is not None and row.is_target else parser
        owner.add_argument(row.flag, **row.arguments(), **extra)


def given_words(command: str, options: argparse.Namespace, without: Iterable[str]) -> Iterator[str]:
    """The options of this command that differ from their defaults, as it takes them, but for some of these flags."""
    for row in OPTIONS:
        if command in row.commands.split() and row.flag not in without:
            value = getattr(options, row.attribute, None)
            yield from _words(row, row.flag, None if value == row.default else value)


def given_to_pytest(config: pytest.Config, without: Iterable[str]) -> Iterator[str]:
    """The options of the plugin on the command line of pytest, as it takes them, but for some of these flags."""
    for row in OPTIONS:
        if row.pytest_flag and row.pytest_flag not in without:
            yield from _words(row, row.pytest_flag, config.getoption(row.pytest_flag))


def _words(row: Option, flag: str, value: Any) -> Iterator[str]:
    """The words of an option with this value; none if it has none."""
    if value is None or value is False or value == "":
        return
    for one in value if row.action == "append" else [value]:
        text = "" if row.action == "store_true" else _as_text(one)
        # Apart, argparse would take a text that begins like this for another option.
        yield from [f"{flag}={text}"] if text.startswith("-") else filter(None, (flag, text))


def _as_text(value: object) -> str:
    from harness.interception.schedule import kinds

    return kinds(value) if isinstance(value, frozenset) else str(value)


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add the scripts as arguments."""
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="scripts, folders of scripts, or suite:NAME"
    )


_INI_KINDS: Mapping[str, Literal["bool", "string", "linelist"]] = {
    "store": "string",
    "store_true": "bool",
    "append": "linelist",
}


def add_pytest_options(parser: pytest.Parser) -> None:
    """Add the options and the ini keys of the pytest plugin."""
    group = parser.getgroup("harness", "transcripts of line servers")
    for row in OPTIONS:
        if row.pytest_flag:
            # Without a default: only then is it known what the command line says, and what the ini.
            dest = {"dest": row.dest} if row.dest and not row.flag else {}
            group.addoption(row.pytest_flag, **{**row.arguments(), "default": None, **dest})
        if row.ini_key:
            parser.addini(row.ini_key, row.help, _INI_KINDS[row.action])
    parser.addini(
        "harness_files", "the transcripts to collect: patterns relative to the root folder", "linelist"
    )


# --- what they mean -----------------------------------------------------------------------------------------


def from_pytest(config: pytest.Config) -> argparse.Namespace:
    """The options of the plugin, those of playing under the names that they have for `play`: from the command line of pytest,
    or else from its ini. A target on the command line replaces those of the ini; if it is no server command, also what the
    ini says of one. ArgumentTypeError if a text of the ini is invalid."""
    rows = [row for row in OPTIONS if row.ini_key]
    given = {row.name: config.getoption(row.ini_key) for row in rows}
    target_given = any(given[row.name] is not None for row in rows if row.is_target)
    other_kind = target_given and given["server"] is None
    for row in rows:
        if given[row.name] is None:
            replaced = (target_given and row.is_target) or (other_kind and row.of_server)
            found = None if replaced else config.getini(row.ini_key)
            if isinstance(found, str):
                found = row.type(found) if found else None
            given[row.name] = row.default if found in (None, []) else found
    return argparse.Namespace(**given)


PYTEST_MODES = ("update", "audit", "explore", "compare")
"""The commands that are modes of the pytest plugin. Without one of them it plays."""


def misplaced(config: pytest.Config, mode: str) -> str:
    """What is wrong if the command line of pytest has an option that this mode does not have. In the ini it is not wrong: it
    is for the modes that have it."""
    for row in OPTIONS:
        commands = row.commands.split()
        if row.ini_key and mode not in commands and config.getoption(row.ini_key) is not None:
            if mode != "play":
                return f"{row.pytest_flag} cannot be used with --harness-{mode}"
            return f"{row.pytest_flag} needs --harness-{next(one for one in PYTEST_MODES if one in commands)}"
    return ""


def names_a_target(options: argparse.Namespace) -> bool:
    """Whether the options name a target; the header of a script can as well."""
    return bool(_named_targets(options))


def _named_targets(options: argparse.Namespace) -> list[str]:
    return [row.flag for row in OPTIONS if row.is_target and getattr(options, row.attribute) is not None]


def target_choice(options: argparse.Namespace) -> TargetChoice:
    """The target that was chosen; UsageError if the options for it contradict each other."""
    from harness.targets.choice import TargetChoice, UsageError

    named = _named_targets(options)
    if len(named) > 1:
        raise UsageError(f"use only one of {' and '.join(named)}")
    if named and named != ["--server"]:
        for row in OPTIONS:
            if row.of_server and getattr(options, row.attribute):
                raise UsageError(f"{row.flag} is for --server, not for {named[0]}")
    return TargetChoice(
        options.server,
        options.connect,
        options.app,
        options.shared,
        tuple(options.ready or ()),
        frozenset(options.features.split()),
        tuple(options.node or ()),
    )


def play_options(options: argparse.Namespace) -> PlayOptions:
    """The settings for scripts without their own."""
    from harness.language.adapter import load_adapter

    texts = {name: getattr(options, name) for name in PLAY_HEADERS}
    made = play_options_of(texts, options.tls_ca, options.tls_insecure)
    adapter = getattr(options, "adapter", None)  # each server of a comparison has its own
    return made if adapter is None else replace(made, adapter=load_adapter(adapter))


PLAY_HEADERS = ("fence", "within", "settle", "start", "time", "transport")
"""The options that replace headers of the same name."""


def play_options_of(
    texts: Mapping[str, str | None], tls_ca: str | None = None, tls_insecure: bool = False
) -> PlayOptions:
    """The same from the texts of options that replace headers; LineError or UsageError if one is invalid."""
    from harness.language.fences import Fence
    from harness.language.forms import header_line
    from harness.language.steps import DefaultTransport, Settle, Start, TimeFactor, Within
    from harness.playing.pipeline import PlayOptions

    made = PlayOptions(tls=_trust(tls_ca, tls_insecure))
    for key, text in texts.items():
        match header_line(f"{key}: {text}") if text else None:
            case Fence() as line:
                made = replace(made, fence=line)
            case Within(microseconds):
                made = replace(made, within_s=microseconds / 1_000_000)
            case Settle(microseconds):
                made = replace(made, settle_s=microseconds / 1_000_000)
            case Start(microseconds):
                made = replace(made, start_s=microseconds / 1_000_000)
            case TimeFactor(factor):
                made = replace(made, time_factor=factor)
            case DefaultTransport(transport):
                made = replace(made, transport=transport)
    return made


def _trust(authorities: str | None, insecure: bool) -> TlsTrust:
    from harness.stage.transport import TlsTrust
    from harness.targets.choice import UsageError

    if authorities and insecure:
        raise UsageError("--tls-ca and --tls-insecure contradict each other")
    trust = TlsTrust(authorities, insecure)
    if authorities:
        try:
            trust.context()
        except OSError as wrong:
            raise UsageError(
                f"--tls-ca {authorities}: no certificates can be read from it ({wrong})"
            ) from None
    return trust


def fence_line(options: argparse.Namespace) -> Fence | None:
    """The fence of scripts that have none."""
    return play_options_of({"fence": options.fence}).fence
