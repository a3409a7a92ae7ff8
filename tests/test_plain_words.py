"""Plain English and the words of the field: a list of private words that must not come back, with what to write instead."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".md", ".toml", ".yml", ".c", ".h", ".js", ".sh", ".chat", ".service", ""}

# Names that this code once had for things that the field has a word for.
PRIVATE_NAMES = {
    "[Vv]igil": "waiter",
    "Surroundings": "ServerContext",
    "Stranger": "ForeignProtocol",
    "Happening": "LogEvent or SessionEvent",
    "Parting": "NoticeReason",
    "Dismissed": "DisconnectNotice",
    "Relayed": "DirectMessageSent",
    "Helped": "HelpText",
    "Violation": "InvalidCommand",
    "[Ff]oresight": "validation",
    "[Uu]nfolding": "expansion",
    "[Dd]oings": "steps",
    "Deed": "ConnectionAction",
    "Restless": "NeverIdle",
    "Deaf": "OutputClosed",
    "Whim": "Perturbation",
    r"Sway\w*": "Interceptor",
    "[Ee]ntrants": "servers",
    "Told": "DirectMessage, or what else it is",
    "Manner": "PlayOptions",
    "Outbox": "Subscriber or Audience",
    "Flusher": "Delivery",
    "Hearing": "DeliveryTracker",
}
# Sentences that read as if they had been translated.
TRANSLATED = {
    "(is|are) told": "gets, receives; is sent",
    "who is silent": "a client that is idle",
    "so many of": "this many",
    "is no more": "is gone, is closed",
    "is said once": "is given once",
    "that there is not": "unknown",
    "owe[ds]": "pending; has a debt",
    "nothing of anyone": "nothing about the clients",
    "of (its|their|his) own": "its own, a separate; itself",
    "(is|are) nobody's": "belongs to no one",
    "is let go": "is disconnected, is freed",
    "nobody (can|waits|hears|reads)": "no client can, waits, …",
    "is asked of": "is required of",
    "in the same breath": "at once, in the same batch",
    "turns? of (the (event )?|its )loop": "iteration of the event loop",
    "is no (command|line|reason|setting|stranger|cutoff)": "is not a …",
    "who logs in": "a client that logs in",
    "leaves without a word": "leaves silently",
    "who may": "who can",
    "so many at most": "a limited number of",
}


def files() -> list[str]:
    """Every text file of the project."""
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a clone of the repository")
    return [name for name in listed.stdout.splitlines() if Path(name).suffix in SUFFIXES]


def found_in(text: str, words: Mapping[str, str], ignore_case: bool) -> Iterator[str]:
    """Each place of such a word, with what to write instead."""
    flags = re.IGNORECASE if ignore_case else 0
    any_word = re.compile(rf"\b(?:{'|'.join(words)})\b", flags)
    for number, line in enumerate(text.splitlines(), 1):
        for match in any_word.finditer(line):
            [instead] = [words[word] for word in words if re.fullmatch(word, match[0], flags)]
            yield f"{number}: {match[0]!r} (write: {instead}): {line.strip()[:100]}"


@pytest.mark.parametrize(
    ("words", "ignore_case"),
    [(PRIVATE_NAMES, False), (TRANSLATED, True)],
    ids=["private names", "translated English"],
)
def test_words_that_must_not_come_back(words: Mapping[str, str], ignore_case: bool):
    found = [
        f"{name}:{place}"
        for name in files()
        if name != "tests/test_plain_words.py"
        for place in found_in((ROOT / name).read_text(errors="replace"), words, ignore_case)
    ]
    assert not found, "\n".join(found)


def test_each_finding_says_what_to_write_instead():
    assert list(found_in("a\nThe turn of the loop", TRANSLATED, True)) == [
        "2: 'turn of the loop' (write: iteration of the event loop): The turn of the loop"
    ]
    assert list(found_in("class Vigil: swayed", PRIVATE_NAMES, False)) == [
        "1: 'Vigil' (write: waiter): class Vigil: swayed"
    ]
