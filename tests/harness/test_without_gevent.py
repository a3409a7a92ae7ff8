"""Everything except gevent servers in this process works where gevent is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import HANG_S

ROOT = Path(__file__).parents[2]
CHAT = f"{sys.executable} -S {Path(__file__).parent / 'servers' / 'threaded.py'} {{port}}"
ASYNCIO = "tests.harness.servers.aio:chat"
GOOD = "fence: PING -> PONG\n\nalice> LOGIN alice\nalice< OK\n"
LOOSE = "fence: PING -> PONG\n\nalice> LOGIN alice\nalice<~ ${_}\n"

WITHOUT_GEVENT = """
import importlib.abc, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("gevent", "greenlet"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""
HARNESS = f"{WITHOUT_GEVENT}\nfrom harness.cli import main\nsys.exit(main(sys.argv[1:]))"
PYTEST = f"{WITHOUT_GEVENT}\nimport pytest\nsys.exit(pytest.main(sys.argv[1:]))"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.chat").write_text(GOOD)
    (tmp_path / "loose.chat").write_text(LOOSE)
    return tmp_path


def run(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-c", code, *arguments]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert "Traceback" not in ran.stdout + ran.stderr
    return ran


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        (["--help"], 0, "usage: harness"),
        (["check", "."], 0, "2 scripts are valid"),
        (["play", ".", "--server", CHAT], 0, "2 passed"),
        (["play", ".", "--server", CHAT, "-j", "2"], 0, "2 passed"),
        (["update", "good.chat", "--server", CHAT], 0, "unchanged good.chat"),
        (["play", ".", "--connect", "127.0.0.1:1"], 2, "connection refused by 127.0.0.1:1"),
        (["audit", ".", "--server", CHAT], 1, "SURVIVED loose.chat:4"),
        (["compare", ".", "--server", f"one={CHAT}"], 0, "2 of 2"),
        (["explore", ".", "--server", CHAT], 2, "only a server in this process can be scheduled"),
        (["play", ".", "--app", ASYNCIO], 0, "2 passed"),
        (["play", ".", "--app", f"asyncio:{ASYNCIO}", "-j", "2"], 0, "2 passed"),
        (["explore", ".", "--app", ASYNCIO], 0, "2 passed"),
        (["compare", ".", "--app", f"one={ASYNCIO}"], 0, "2 of 2"),
    ],
)
def test_a_command_works(folder: Path, arguments: list[str], code: int, output: str) -> None:
    ran = run(HARNESS, folder, *arguments)
    assert (ran.returncode, output in ran.stdout + ran.stderr) == (code, True), ran.stdout + ran.stderr


@pytest.mark.parametrize("command", ["play", "explore"])
def test_a_gevent_server_in_this_process_is_refused_with_advice(folder: Path, command: str) -> None:
    ran = run(HARNESS, folder, command, ".", "--app", "tests.harness.servers.talk:serve")
    assert ran.returncode == 2
    assert ran.stderr == "harness: gevent servers in this process need gevent: pip install 'gevent>=26.9'\n"


def test_the_recorder_works(folder: Path) -> None:
    ran = run(HARNESS, folder, "record", "--connect", "x", "--listen", "0", "-o", "out.chat")
    assert ran.stderr == "harness: 'x' is not an address; expected HOST:PORT\n"
    code = f"{WITHOUT_GEVENT}\nimport harness.record.recorder"
    assert run(code, folder).returncode == 0


@pytest.mark.parametrize("target", [("--harness-server", CHAT), ("--harness-app", ASYNCIO)])
def test_pytest_plays_transcripts_and_gives_tests_a_stage(folder: Path, target: tuple[str, str]) -> None:
    (folder / "pytest.ini").write_text("[pytest]\nharness_files = *.chat\nfilterwarnings = error\n")
    (folder / "test_chat.py").write_text(
        "def test_ping(stage):\n    alice = stage.client('alice')\n    alice.send('PING')\n    alice.expect('PONG')\n"
    )
    options = ("-p", "harness.pytest_plugin", "-p", "no:cacheprovider", *target)
    ran = run(PYTEST, folder, *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout
