"""python -m tests.over_tls [SCRIPT ...]: plays the transcripts in tests/transcripts, or these, over TLS.

The same conversations, byte for byte, with an encrypted connection for each client.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness.cli import main as harness

FOLDER = Path(__file__).parent / "transcripts"

# A client that is refused gets an alert, before a handshake that would cost the server more than the client.
_REFUSED = "a refused client gets an alert instead of a handshake"
# To the harness, a client is connected once its handshake is complete.
_ACCEPTS = "nothing accepts the client that shakes hands"
DIFFERENT = {
    "fault-accept-freed.chat": _ACCEPTS,
    "fault-accept.chat": _ACCEPTS,
    "json-full.chat": _REFUSED,
    "json-server-full.chat": _REFUSED,
    "json2-server-full.chat": _REFUSED,
    "line-greeting.chat": _REFUSED,
    "line-server-full.chat": _REFUSED,
    "line-too-many-from-one-address.chat": _REFUSED,
    "slash-full.chat": _REFUSED,
    "slash-too-many.chat": _REFUSED,
}


def scripts() -> list[Path]:
    """The transcripts that are the same over TLS."""
    return [path for path in sorted(FOLDER.glob("*.chat")) if path.name not in DIFFERENT]


def play(paths: list[Path]) -> int:
    """Play them; returns the exit code of the harness."""
    words = ["play", *map(str, paths), "--app", "tests.app:serve_tls"]
    return harness([*words, "--transport", "tls", "--tls-insecure"])


if __name__ == "__main__":
    sys.exit(play(list(map(Path, sys.argv[1:])) or scripts()))
