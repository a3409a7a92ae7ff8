"""A zoo of small chat servers, right, late and wrong in exactly one place, to measure how often verdicts are wrong.

`SERVERS` is the table; what the options mean is in `servers/room.py`. `python -m tests.harness.zoo` measures.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from subprocess import run

from harness import Command, InProcess, InProcessAsyncio, Target

FOLDER = Path(__file__).parent
WRONG = frozenset({"echo", "dup", "partdup", "stranger", "drop", "reverse"})
"""The flaws for which some right script must fail."""
BEHIND = frozenset({"deliver", "tick", "drop", "reverse"})
"""The flaws that delay every message, and the answer to SYNC with them."""

MEANS = {
    "early": "answers are written by one {thread}, messages by another",
    "deliver": "messages come {ms} ms late",
    "tick": "a timer delivers messages every {ms} ms",
    "part": "departures are announced {ms} ms late",
    "greet": "clients are greeted after {ms} ms",
    "batch": "writes to a client are collected for {ms} ms",
    "echo": "senders also receive their own messages, after {ms} ms",
    "dup": "the others receive each message again after {ms} ms",
    "partdup": "departures are announced again after {ms} ms",
    "stranger": "clients that have not logged in also receive messages, after {ms} ms",
    "drop": "messages come {ms} ms late, and not at all if their sender has left by then",
    "reverse": "messages are collected for {ms} ms and delivered in reverse order",
}


@dataclass(frozen=True)
class Architecture:
    """How a kind of server is built and started. `thread` is the unit that is early."""

    name: str
    words: tuple[str, ...]
    thread: str = "thread"
    tool: str = ""
    """The program that must be installed: the compiler for compiled servers."""
    environment: tuple[tuple[str, str], ...] = (("PYTHONPATH", str(FOLDER)),)


def _python(module: str, *options: str, site: bool = False) -> tuple[str, ...]:
    return (sys.executable, *(() if site else ("-S",)), "-m", f"servers.{module}", "{port}", *options)


def _file(name: str) -> str:
    return str(FOLDER / "servers" / name)


ARCHITECTURES = {
    "threads": Architecture("a thread per client", _python("threads")),
    "socketserver": Architecture("socketserver", _python("stdserver")),
    "hub": Architecture("reader threads and a hub thread", _python("hub")),
    "pool": Architecture("a thread pool", _python("pool")),
    "tasks": Architecture("asyncio streams, writer tasks", _python("tasks"), "task"),
    "protocol": Architecture("asyncio protocols", _python("protocol")),
    "select": Architecture("a select loop", _python("loops", "select")),
    "poll": Architecture("a poll loop", _python("loops", "poll")),
    "epoll": Architecture("an epoll loop", _python("loops", "epoll")),
    "fork": Architecture("a process per client", _python("loops", "fork"), "process"),
    "gevent": Architecture("gevent", _python("green", site=True), "greenlet"),
    "c": Architecture("an epoll loop in C", ("{built}/epoll", "{port}"), tool="gcc"),
    "node": Architecture("Node", ("node", _file("node.js"), "{port}"), "callback", tool="node"),
    "perl": Architecture("a select loop in Perl", ("perl", _file("select.pl"), "{port}"), tool="perl"),
    "rust": Architecture("channels in Rust, as in Go", ("{built}/channels", "{port}"), tool="rustc"),
    "java": Architecture(
        "a thread per client in Java", ("java", "-Xshare:auto", "-cp", "{built}", "Threads", "{port}"), tool="javac"
    ),
}  # fmt: skip

_IN_PROCESS = {"gevent": "green", "tasks": "tasks", "protocol": "protocol"}
"""The modules with a factory."""

_BUILDS = {
    "gcc": ("gcc", "-O1", "-o", "{built}/epoll", _file("epoll.c")),
    "rustc": ("rustc", "-O", "-o", "{built}/channels", _file("channels.rs")),
    "javac": ("javac", "-d", "{built}", _file("Threads.java")),
}


@dataclass(frozen=True)
class ZooServer:
    """One server: an architecture and its options."""

    kind: str
    options: tuple[str, ...] = ()
    in_process: bool = False

    @property
    def name(self) -> str:
        return " ".join((self.kind, *self.options, *(("in process",) if self.in_process else ())))

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.kind]

    @property
    def early(self) -> bool:
        return "early" in self.options

    @property
    def flaw(self) -> str:
        """Its only flaw, or nothing."""
        return next((option.partition("=")[0] for option in self.options if "=" in option), "")

    @property
    def delay_ms(self) -> float:
        return next((float(option.partition("=")[2]) for option in self.options if "=" in option), 0.0)

    @property
    def right(self) -> bool:
        return self.flaw not in WRONG

    @property
    def where(self) -> str:
        """Its flaw: the place in which it is late or wrong."""
        means = [MEANS[option.partition("=")[0]] for option in self.options]
        return "; ".join(means).format(ms=f"{self.delay_ms:g}", thread=self.architecture.thread) or "nothing"

    def missing(self) -> str:
        """The program that this machine lacks to run it; empty if none."""
        tool = self.architecture.tool
        return f"{tool} is not installed" if tool and shutil.which(tool) is None else ""

    def target(self, built: str) -> Target:
        """The server as a target that is started once; `built` is the folder with what was compiled."""
        if self.in_process:
            options = dict(option.partition("=")[::2] for option in self.options)
            module = import_module(f"{__name__}.servers.{_IN_PROCESS[self.kind]}")
            kind = InProcess if self.kind == "gevent" else InProcessAsyncio
            return kind(lambda _spec: module.server(0, options))
        words = [word.replace("{built}", built) for word in (*self.architecture.words, *self.options)]
        return Command(words, shared=True, environment=dict(self.architecture.environment), starts_within=60)


def build(servers: list[ZooServer], built: str) -> None:
    """Compile what these servers need."""
    for tool in {server.architecture.tool for server in servers} & _BUILDS.keys():
        run([word.replace("{built}", built) for word in _BUILDS[tool]], check=True)


def _servers() -> list[ZooServer]:
    outside = {
        "threads": "| early | deliver=1 | deliver=10 | deliver=150 | dup=10 | partdup=10 | echo=0 | stranger=10 | drop=10",
        "socketserver": "| tick=20 | batch=5 | dup=0",
        "hub": "| early | early deliver=10 | dup=2 | reverse=2 | part=10",
        "pool": "| early | deliver=10",
        "tasks": "| early | early deliver=20 | dup=10",
        "protocol": "| deliver=3 | greet=10 | part=150",
        "select": "| tick=20 | echo=10",
        "poll": "| batch=5 | greet=0",
        "epoll": "| drop=10 | partdup=2",
        "fork": "| early | deliver=10 | dup=10",
        "gevent": "| early | deliver=10",
        "c": "| deliver=10 | dup=10 | echo=0",
        "node": "| early | deliver=10 | part=10 | dup=2",
        "perl": "| deliver=10 | echo=10",
        "rust": "| early | deliver=10 | dup=10",
        "java": "| early | dup=10",
    }
    inside = {
        "gevent": "| early | deliver=10 | early deliver=10 | batch=5 | part=10 | dup=10 | early dup=0 | echo=0 | partdup=10"
        "| stranger=0 | drop=10 | reverse=2 | greet=10",
        "tasks": "| early | early deliver=20 | dup=10 | drop=10",
        "protocol": "| deliver=150 | echo=10 | partdup=0 | greet=10",
    }
    return [
        ZooServer(kind, tuple(options.split())) for kind, row in outside.items() for options in row.split("|")
    ] + [
        ZooServer(kind, tuple(options.split()), in_process=True)
        for kind, row in inside.items()
        for options in row.split("|")
    ]


SERVERS = _servers()
