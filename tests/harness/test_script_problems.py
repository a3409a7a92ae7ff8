"""Every problem of a script or an adapter, as its reader sees it: where it is, the line, what is wrong and what is right.

`golden/problems.txt` holds the problem of each script below. `python -m tests.harness.test_script_problems` writes it
again; read the difference before you commit it.
"""

from __future__ import annotations

import ast
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import pytest
from gevent.server import StreamServer

from harness import InProcess, Nodes, PlayOptions, ScriptError, ServerSpec, Target, UnsupportedSpec, play
from harness.language.adapter import load_adapter
from harness.language.columns import width
from harness.language.expansion import expand
from harness.language.loading import load
from harness.language.problems import LineError, ScriptProblem
from harness.language.steps import Define, Include, Repeat, Script, Send
from harness.language.validation import require_steps, validate
from harness.playing.pipeline import missing_features, perform, stage_for
from harness.stage.target import UnsupportedTime
from tests.harness.servers import puppet
from tests.harness.servers.talk import serve

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden" / "problems.txt"

# --- servers, for problems that only a target has -----------------------------------------------------------


def at_a_path(spec: ServerSpec) -> StreamServer:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("sock")
    listener.listen()
    listener.setblocking(False)
    return StreamServer(listener, lambda sock, address: sock.recv(1))


class Elsewhere(Target):
    """Lacks everything."""

    def __str__(self) -> str:
        return "elsewhere"

    def start(self, spec: ServerSpec, within_s: float) -> NoReturn:
        raise UnsupportedTime(f"time cannot pass x{spec.time_factor} {self}")


HERE = InProcess(serve)


@dataclass(frozen=True)
class Wrong:
    """A script, or an adapter, with one mistake."""

    text: str
    target: Target | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    name: str = "s.chat"


def header(line: str) -> Wrong:
    return Wrong(f"{line}\n\na> x\n")


def step(line: str) -> Wrong:
    return Wrong(f"a> x\n{line}\n")


def adapter(text: str) -> Wrong:
    return Wrong(text, name="s.adapter")


MANY = " | ".join("x" * 15)

WRONG = (
    # A file
    Wrong("", name="missing.chat"),
    Wrong("a> caf\udce9\n"),
    Wrong("\ufeffa> x\n"),
    Wrong("a> x\r\n"),
    Wrong("\ta> x\n"),
    Wrong("title: nothing\n"),
    # A header
    header("tilte: x"),
    header("colour: red"),
    header("title:x"),
    header("title:  x"),
    header("title: x "),
    header("title: "),
    header("title:"),
    Wrong("title: x\nskip:\n\na> x\n"),
    header("title: a\x07b"),
    Wrong("title: x\na> x\n"),
    Wrong("title: x\ntitle: y\n\na> x\n"),
    Wrong("a> x\n\ntitle: x\n"),
    header("target: nothing"),
    header("server: a/b"),
    header("server: line line"),
    header("needs: a/b"),
    header("tags: a/b"),
    header("tags: a a"),
    header("fence: PING"),
    header("fence: PING -> PONG |  | ERR"),
    header("fence: MSG ${token} heard as  | ERR"),
    header("fence: MSG ${token} heard as MSG ${_}"),
    header("fence: MSG ${token} heard as ${token}\\n"),
    header("fence-after: LOGIN"),
    header("unfenced: a a"),
    header("unfenced: b"),
    header("eol: cr"),
    header("within: 5"),
    header("within: 0s"),
    header("settle: 0.0000001s"),
    header("ignore: NOTICE ${x}"),
    header("ignore b: x"),
    Wrong("ignore: O${_}\n\na> x\na< OK\n"),
    header("reply: PING"),
    header("reply: PING ${t} -> PONG ${u}"),
    Wrong("fence: PING -> PONG\nignore: P${_}\n\na> x\n"),
    Wrong("fence: PING -> P${_}\n\na> x\na< PONG\n"),
    header("time: x0"),
    header("transport: udp"),
    # A line
    step("a conects"),
    step("a speaks"),
    step("a receives: x"),
    step("a sends x"),
    step("a disconnects"),
    step("x"),
    step("togehter:"),
    step("repeat 3"),
    step("a closes "),
    step("a< OK "),
    step("a< a\tb"),
    step("a< a\x07b"),
    step("a<OK"),
    step("a< "),
    step("< OK"),
    step("1a> x"),
    step("wait> x"),
    step("c3..c1> x"),
    step("c1..c2000> x"),
    step("optional a> x"),
    step("optional a receives nothing"),
    step("a > x"),
    step("a receives any lines until"),
    step("a receives ten bytes"),
    step("one of a b> x"),
    step("one of a a< x"),
    step("a<< \\q"),
    step("a<< x "),
    step("a<< \u00e9\u0301\u200b"),
    step("a<<"),
    step("wait 5"),
    step(f"wait {'9' * 5000}s"),
    step("within 0s:\n    a< x"),
    step("repeat 0:\n    a> x"),
    step("a connects to port http"),
    step("a connects to port 1234567890123"),
    step("a connects to port 65536"),
    step("a connects to port 256*256+${x}"),
    step("a connects with udp"),
    step("a receives ${n} bytes: "),
    step("sending to a fails with ENONE"),
    step("sending to a takes much"),
    step("accepting a fails with EMFILE"),
    step("sending to fails with EPIPE"),
    step("node b is dead"),
    step("the link of node b is broken"),
    # A pattern
    step("a<~ costs $5"),
    step("a<~ ${"),
    step("a<~ ${x"),
    step("a<~ ${x:/abc"),
    step("a<~ ${x://}"),
    step("a<~ ${x:/a/b/}"),
    step("a<~ ${x:/(a)/}"),
    step("a<~ ${x:/[a/}"),
    step("a<~ ${x:/[[a]/}"),
    step("a<~ ${x:/a{1,99999999999}/}"),
    step(f"a<~ ${{x:/{'(?:' * 3000}{')' * 3000}/}}"),
    step("a>~ ${x:int}"),
    # A block
    Wrong("a> x\n  a< x\n"),
    Wrong("together:\n    a> x\n      b> x\n"),
    step("together:"),
    step("together:\n    a< x"),
    step("in any order:\n    a> x"),
    step("in any order, the same for a b:\n    c< x"),
    step("either:\n    a< x"),
    step("or:\n    a< x"),
    step("either:\n    a> x\nor:\n    a< x"),
    step("either:\n    a< OK\nor:\n    a< PASSWORD?\n    a> secret"),
    step("either:\n    a closes\nor:\n    a< x"),
    step("either:\n    a< x\n    a closes\nor:\n    a< x"),
    step("either:\n    the server raises E\nor:\n    a< x"),
    step("repeat 2:\n    define X y:\n        X> y"),
    # Definitions, counters and includes
    Wrong("define X shouts:\n    X> x\na speaks\n"),
    Wrong("define X:\n    X> x\n"),
    Wrong("define X sends X:\n    X> x\n"),
    Wrong("define X closes:\n    X> x\n"),
    Wrong("define X logs in:\n    X> LOGIN X\n"),
    Wrong("define X logs in:\n    X> x\ndefine Y logs in:\n    Y> y\n"),
    Wrong("define X says Y now:\n    X> x\ndefine X says hi Z:\n    X> y\na says hi now\n"),
    Wrong("define X loops:\n    X loops\na loops\n"),
    Wrong("define A goes to B:\n    B> x\na goes to 1\n"),
    Wrong("repeat 2 as n:\n    c${m}> x\n"),
    Wrong("define X reads N:\n    X receives ${N} bytes\na> x\na reads much\n"),
    Wrong("repeat 999999999:\n    a> x\n"),
    Wrong("include other.chat\n\na> x\n"),
    Wrong("include other.chat\n\na> x\n", files={"other.chat": "a> x\n"}),
    Wrong(
        "include other.chat\n\nb hits\n", files={"other.chat": "define X hits:\n    X> a\n    X< \u00e9 \n"}
    ),
    Wrong("a> x\n\nrepeat 2 as n:\n    one of c1..c${n}< x\n"),
    Wrong("define X and Y agree:\n    in any order, the same for X Y:\n        < x\n\na and c3..c1 agree\n"),
    Wrong("define X and Y agree:\n    in any order, the same for X Y:\n        < x\n\na and a agree\n"),
    step("one of c1..c${n} d< x"),
    step(f"sending to a takes {'9' * 5000} bytes"),
    Wrong(f"define X gets N:\n    X receives ${{N}} bytes\n\na> x\na gets {'9' * 12}\n"),
    Wrong("unfenced: a c1..c${n}\n\na> x\n"),
    Wrong("ignore c1..c${n}: x\n\na> x\n"),
    # A plan
    step("b< x"),
    step("b closes"),
    step("a connects"),
    step("a closes\na> x"),
    step("a is closed\na< x"),
    step("a is closed\na is closed"),
    step("a< x\na receives nothing"),
    step("a receives nothing\na< x"),
    step("a>~ ${n}"),
    step("optional a<~ ${n}\na>~ ${n}"),
    step("b connects to port ${n}"),
    step("a receives ${n} bytes"),
    Wrong("a> x\nb> x\na<~ ${n:int}\nb receives ${n} bytes\n"),
    Wrong("a> x\nb> x\nwithin 1s:\n    a< x\n"),
    step("either:\n    a is closed\nor:\n    a< x\n\na> y"),
    step("either:\n    a is closed\nor:\n    a< x\n\na connects"),
    step("either:\n    a is closed\nor:\n    a< x\na is reset"),
    step("node b is continued"),
    # An adapter
    adapter("greets\n"),
    adapter("ignores: x\n"),
    adapter("colour: red\n"),
    adapter("eol: lf\neol: crlf\n"),
    adapter("eol: cr\n"),
    adapter("sends: LOGIN ${name}\n"),
    adapter("sends: LOGIN ${name} => NICK ${nick}\n"),
    adapter("ignore: ${_}\nfence: PING -> PONG\n"),
    Wrong("", name="missing.adapter"),
    # A target, and a play
    Wrong("server: json\n\na> x\n", HERE),
    Wrong("server: idel=60\n\na> x\n", HERE),
    Wrong("needs: virtual-tiem\n\na> x\n", HERE),
    Wrong("a connects to admin\n", HERE),
    Wrong("a> x\nthe server raises ValueError\n", Elsewhere()),
    Wrong("accepting fails with EMFILE\na connects\n", Elsewhere()),
    Wrong("a> x\nnode b is killed\n", HERE),
    Wrong("time: x60\n\na> x\n", Elsewhere()),
    Wrong("a connects\na aborts\n", InProcess(at_a_path)),
    Wrong("node b is killed\na> x\n", Nodes({"a": f"{sys.executable} -S {puppet.__file__} {{port}}"})),
    Wrong("accepting fails with EMFILE\na connects\nsending to a takes 1 byte\n", HERE),
    Wrong(
        f"a> NAME a\nb> NAME b\ntogether:\n    a> a: {MANY}\n    b> b: {MANY} | y\na< y\n"
        + "either:\n    a< x\nor:\n    b< x\n" * 30,
        InProcess(puppet.serve),
    ),
)


def told(wrong: Wrong) -> tuple[ScriptProblem, BaseException | None]:
    """The problem, as the command line meets it, and the error that it came with."""
    for name, text in {wrong.name: wrong.text, **wrong.files}.items():
        if not name.startswith("missing"):
            Path(name).write_bytes(text.encode("utf-8", "surrogateescape"))
    try:
        if wrong.name.endswith(".adapter"):
            load_adapter(wrong.name)
        script = load(wrong.name)
        plan = validate(expand(script))
        require_steps(plan)
        assert wrong.target is not None, f"nothing is wrong with {wrong.text!r}"
        missing_features(script, wrong.target)
        perform(plan, wrong.target, PlayOptions(within_s=1.0))
    except ScriptError as error:
        return error.problem, error
    except UnsupportedSpec:
        problem = play(script, wrong.target).problem
        assert problem is not None
        return problem, None
    raise AssertionError(f"nothing is wrong with {wrong.text!r}")


@cache
def everything() -> list[tuple[ScriptProblem, BaseException | None]]:
    return [told(wrong) for wrong in WRONG]


def all_told(columns: int = 80) -> str:
    return "\n".join(f"{problem.text(columns)}\n" for problem, _ in everything())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_problem_has_the_text_of_the_golden_file() -> None:
    assert all_told() == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", [80, 60, 40])
def test_what_is_shown_below_a_problem_fits_the_terminal(columns: int) -> None:
    for text in all_told(columns).split("\n\n"):
        assert all(width(line) <= columns for line in text.splitlines()[1:]), text


def test_the_caret_stands_below_what_is_wrong_also_in_long_and_wide_lines() -> None:
    long = "\N{CJK UNIFIED IDEOGRAPH-65E5}" * 100
    problem = told(Wrong(f"a> {long}\tb{long}\n"))[0]
    _, line, caret, _ = problem.text(60).splitlines()
    assert width(line) <= 60
    assert width(line.partition("\N{REPLACEMENT CHARACTER}")[0]) == caret.index("^")


# --- completeness -------------------------------------------------------------------------------------------

_CHECKED = ("harness/language/*.py", "harness/playing/pipeline.py", "harness/playing/execution.py")
_PROBLEMS = ("LineError(", "ScriptError(", ".problem(", "header_problem(", "_error(")


def raised() -> Iterator[tuple[Path, range]]:
    """Where the harness raises a problem: the file and the lines of each statement."""
    for pattern in _CHECKED:
        for path in ROOT.glob(pattern):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                lines = range(getattr(node, "lineno", 0), (getattr(node, "end_lineno", 0) or 0) + 1)
                if isinstance(node, ast.Raise) and node.exc is not None:
                    if any(name in ast.unparse(node.exc) for name in _PROBLEMS):
                        yield path, lines
                elif isinstance(node, ast.Expr) and "self._fail(" in ast.unparse(node):
                    yield path, lines


def passed_through(error: BaseException | None) -> Iterator[tuple[Path, int]]:
    """The places that this error and those before it came through."""
    while error is not None:
        trace: TracebackType | None = error.__traceback__
        while trace is not None:
            yield Path(trace.tb_frame.f_code.co_filename), trace.tb_lineno
            trace = trace.tb_next
        error = error.__context__


ONLY_IN_PYTHON = (
    Script(body=(Include("other.chat"),)),
    Script(body=(Repeat(2, (Define(("X", "hits"), (Send("X", "x"),)),)),)),  # type: ignore[arg-type]
)


def test_every_problem_has_a_script_that_shows_it() -> None:
    reached = {place for _, error in everything() for place in passed_through(error)}
    for script in ONLY_IN_PYTHON:
        with pytest.raises(ScriptError) as caught:
            expand(script)
        reached.update(passed_through(caught.value))
    with pytest.raises(LineError, match="`skip:` is for scripts only") as wrong:
        stage_for(InProcess(serve), {"skip": "not now"})
    reached.update(passed_through(wrong.value))
    unseen = [
        f"{path.relative_to(ROOT)}:{lines[0]}"
        for path, lines in raised()
        if not any((path, line) in reached for line in lines)
    ]
    assert unseen == []


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        os.chdir(made)
        GOLDEN.write_text(all_told(), encoding="utf-8")
