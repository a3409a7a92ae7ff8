"""What docs/audit-and-compare.md shows of the audit is true: its script is audited, and the mistake is planted and found."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from harness.cli import main

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def block(page: str, part: str) -> str:
    """The one block that holds this."""
    (found,) = [text for text in blocks(page) if part in text]
    return found


PAGE = "audit-and-compare.md"
SERVER = f"{sys.executable} chat.py {{port}}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "chat.py").write_text(block("transcripts.md", "socketserver.ThreadingTCPServer"))
    (tmp_path / "hello.chat").write_text(block(PAGE, "title: bob hears what alice says\n"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> int:
    return main([command, "hello.chat", "--server", SERVER, "--within", "2s"])


def untimed(text: str) -> str:
    return re.sub(r" in [0-9.]+ s", "", text)


def test_the_loose_script_is_told_as_it_is_shown(folder, capsys):
    assert run("audit") == 1
    shown = block(PAGE, "$ python -m harness audit hello.chat").split("\n", 1)[1]
    assert untimed(capsys.readouterr().out) == untimed(shown)


def test_the_mistake_passes_the_loose_script_and_not_the_tight_one(folder, capsys):
    server, script = folder / "chat.py", folder / "hello.chat"
    right = server.read_text()
    assert "MSG {name} {rest}" in right
    server.write_text(right.replace("MSG {name} {rest}", "MSG {other} {rest}"))
    assert run("play") == 0
    script.write_text(script.read_text().replace("bob<~ MSG ${who} hello", "bob< MSG alice hello"))
    capsys.readouterr()
    assert run("play") == 1
    assert block(PAGE, "FAILED hello.chat:9") in capsys.readouterr().out
    server.write_text(right)
    assert run("audit") == 0
