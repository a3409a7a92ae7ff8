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
    r"\b(vigil|Vigil|departure|Departure|Stranger|Surroundings|surroundings|Happening|happening|Parting|Dismissed|"
    r"Relayed|Helped|Violation|foresight|Foresight|unfolding|doings|hearings?|Hearing|Restless|Deaf|Whim|sway|Sway\w*|"
    r"beneath|telling|entrants|told\.py|Told|Settled|Manner)\b"
)
# Sentences that read as if they had been translated.
TRANSLATED = re.compile(
    r"\b(is told|are told|who is silent|so many of|is no more|is said once|that there is|owed|"
    r"nothing of anyone|of their own accord|whom it|is nobody's|are nobody's)\b",
    re.IGNORECASE,
)
# Where such a word is what it says: `departure` is the ordinary word for somebody who leaves.
ALLOWED = {
    "tests/test_plain_words.py": ".*",
    "geventchat/chat/rooms.py": "departure",
    "geventchat/chat/chat.py": "departure",
    "geventchat/net/connection.py": "departure",
}


def files() -> list[str]:
    """Every text file of the project."""
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a clone of the repository")
    return [name for name in listed.stdout.splitlines() if Path(name).suffix in SUFFIXES]


@pytest.mark.parametrize("pattern", [PRIVATE_NAMES, TRANSLATED], ids=["private names", "translated English"])
def test_words_that_must_not_come_back(pattern: re.Pattern[str]):
    found = []
    for name in files():
        allowed = ALLOWED.get(name)
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), 1):
            for match in pattern.finditer(line):
                if allowed is None or not re.fullmatch(allowed, match.group()):
                    found.append(f"{name}:{number}: {match.group()}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
