"""python -m tests.over_websocket [SCRIPT ...]: plays the transcripts of `json` in tests/transcripts, or these, over WebSockets.

The same conversations, object for object, in frames.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from harness.cli import main as harness

FOLDER = Path(__file__).parent / "transcripts"
_ONLY_JSON = re.compile("^server: json(?: [a-z-]+=.*)?$", re.MULTILINE)

_CODE = "the end has a code"
_REFUSED = "a refused client gets 503 instead of a handshake"
_VERSION = "it is version 2 from the beginning"
_MESSAGES = "messages that are too long or not UTF-8 end the connection"
DIFFERENT = {
    "json-full.chat": _REFUSED,
    "json-idle-asked.chat": _CODE,
    "json-invalid.chat": _VERSION,
    "json-join-first.chat": _VERSION,
    "json-line-errors.chat": _MESSAGES,
    "json-server-full.chat": _REFUSED,
    "json-wrong-type.chat": _VERSION,
    "json2-account.chat": _CODE,
    "json2-idle.chat": _CODE,
    "json2-line-errors.chat": _MESSAGES,
    "json2-server-full.chat": _REFUSED,
    "json2-version.chat": _VERSION,
}


def scripts() -> list[Path]:
    """The transcripts that are the same over WebSockets."""
    found = [path for path in sorted(FOLDER.glob("*.chat")) if _ONLY_JSON.search(path.read_text())]
    return [path for path in found if path.name not in DIFFERENT]


def play(paths: list[Path]) -> int:
    """Play them; returns the exit code of the harness."""
    return harness(["play", *map(str, paths), "--app", "tests.app:serve_web", "--transport", "websocket /ws"])


if __name__ == "__main__":
    sys.exit(play(list(map(Path, sys.argv[1:])) or scripts()))
