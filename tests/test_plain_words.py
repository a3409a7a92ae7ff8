"""The project uses the field's words and plain English: a list of the private words and phrases that must not come back."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".md", ".toml", ".yml", ".c", ".h", ".js", ".sh", ".chat", ".service", ""}

# Names that this code once had for things that the field has a word for.
PRIVATE_NAMES = re.compile(
    r"\b([Vv]igil|Surroundings|Stranger|Happening|Parting|Dismissed|Relayed|Helped|Violation|[Ff]oresight|[Uu]nfolding|"
    r"[Dd]oings|Deed|Restless|Deaf|Whim|Sway\w*|[Ee]ntrants|Told|Manner|Outbox|Flusher)\b"
)
# Sentences that read as if they had been translated.
TRANSLATED = re.compile(
    r"\b(is told|are told|who is silent|so many of|is no more|is said once|that there is not|owed|owes|"
    r"nothing of anyone|of their own accord|is nobody's|are nobody's|is let go|nobody else|nobody (can|waits|hears|reads)|"
    r"anybody|everybody|is asked of|in the same breath|turns? of the (event )?loop|turn of its loop|"
    r"is no (command|line|reason|setting|stranger|cutoff)|who logs in|leaves without a word)\b",
    re.IGNORECASE,
)


def files() -> list[str]:
    """Every text file of the project."""
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a clone of the repository")
    return [name for name in listed.stdout.splitlines() if Path(name).suffix in SUFFIXES]


@pytest.mark.parametrize("pattern", [PRIVATE_NAMES, TRANSLATED], ids=["private names", "translated English"])
def test_words_that_must_not_come_back(pattern: re.Pattern[str]):
    found = [
        f"{name}:{number}: {match.group()}: {line.strip()[:100]}"
        for name in files()
        if name != "tests/test_plain_words.py"
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), 1)
        for match in pattern.finditer(line)
    ]
    assert not found, "\n".join(found)
