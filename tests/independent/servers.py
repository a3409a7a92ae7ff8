"""The independent servers: how each is built and started, and which scripts the dialects that it speaks can be played with."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.batch import scripts_in
from harness.compare.compare import ComparedServer
from harness.targets.choice import TargetChoice

HERE = Path(__file__).parent
TRANSCRIPTS = HERE.parent / "transcripts"
BASELINE = HERE / "known.txt"
FENCES = {"line": "PING -> PONG | ERR must-login-first"}
"""The fence line of each dialect that has one before login, too."""
FEATURES = frozenset({"000", "001", "002", "idle-info"})
"""Those of every server: it follows all three documents of suite:chat-line."""
NEWER = (
    "account-*",
    "common-names-look-alikes",
    "ignore*",
    "json2-*",
    "line-help",
    "moderation-*",
    "rooms-*",
    "slash-help-all",
    "slash-history",
    "slash-rooms",
)
"""Transcripts of what the page about the protocols did not have when the servers were written."""


@dataclass(frozen=True, slots=True)
class IndependentServer:
    name: str
    tool: str
    """The program that builds or runs it."""
    package: str
    """The Debian package of the tool."""
    build: str = ""
    """The command that builds it: `{source}` is its folder, `{built}` what the command writes."""
    run: str = "{built}"
    endpoints: str = "{port:line} {idle=60}"

    def command(self, folder: Path) -> str:
        """The command of the harness that starts it, after building it into the folder."""
        paths = {"{source}": str(HERE / self.name), "{built}": str(folder / self.name)}
        built, sources = folder / self.name, (HERE / self.name).iterdir()
        if self.build and (
            not built.exists() or built.stat().st_mtime < max(one.stat().st_mtime for one in sources)
        ):
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(_filled(self.build, paths).split(), check=True)
        return f"{_filled(self.run, paths)} {self.endpoints}"

    @property
    def installed(self) -> bool:
        return shutil.which(self.tool) is not None

    def speaks(self, dialect: str) -> bool:
        return f"{{port:{dialect}}}" in self.endpoints

    def compared(self, folder: Path) -> ComparedServer:
        """The server for a comparison."""
        return ComparedServer(self.name, TargetChoice(server=self.command(folder), features=FEATURES))


def _filled(command: str, paths: dict[str, str]) -> str:
    for placeholder, path in paths.items():
        command = command.replace(placeholder, path)
    return command


def _python(name: str, endpoints: str = "{port:line} {idle=60}") -> IndependentServer:
    # All but one need nothing that is installed, and start sooner without a look at it.
    python = sys.executable if name == "py_gevent" else f"{sys.executable} -S"
    return IndependentServer(name, sys.executable, "python3", "", f"{python} {{source}}/chat.py", endpoints)


SERVERS = (
    IndependentServer("c_epoll", "gcc", "gcc", "gcc -O2 -o {built} {source}/chat.c"),
    IndependentServer(
        "cpp_threads", "g++", "g++", "g++ -std=c++17 -O2 -pthread -o {built} {source}/chat.cpp"
    ),
    IndependentServer(
        "rust_channels", "rustc", "rustc", "rustc -O --edition 2021 -o {built} {source}/chat.rs"
    ),
    IndependentServer(
        "node_net",
        "node",
        "nodejs",
        run="node {source}/chat.js",
        endpoints="{port:line} {idle=60} {port:slash}",
    ),
    IndependentServer("perl_select", "perl", "perl", run="perl {source}/chat.pl"),
    IndependentServer("tcl_events", "tclsh", "tcl", run="tclsh {source}/chat.tcl"),
    IndependentServer(
        "java_nio",
        "javac",
        "default-jdk-headless",
        "javac -d {built} {source}/Chat.java",
        "java -Xmx256m -cp {built} Chat",
    ),
    _python("py_streams", "{port:line} {idle=60} {port:json}"),
    _python("py_protocols", "{port:line} {idle=60} {port:slash} {port:json}"),
    _python("py_hub"),
    _python("py_selectors"),
    _python("py_socketserver"),
    _python("py_gevent"),
)


def scripts_of(suite: str) -> list[Path]:
    """The scripts of `chat-line`, or the transcripts of a dialect that ask for no other dialect, settings, faults or waits, and
    for nothing that is newer than the servers."""
    if suite == "chat-line":
        return list(scripts_in([Path("suite:chat-line")]))
    return [
        path
        for path in sorted(TRANSCRIPTS.glob("*.chat"))
        if not _is_newer(path) and _plain(path.read_text("utf-8"), suite)
    ]


def _is_newer(path: Path) -> bool:
    return any(path.match(f"{one}.chat") for one in NEWER)


def _plain(script: str, dialect: str) -> bool:
    needs_more = re.search(r"^(?:needs:|wait )", script, re.MULTILINE)
    return re.search(rf"^server: {dialect}$", script, re.MULTILINE) is not None and not needs_more
