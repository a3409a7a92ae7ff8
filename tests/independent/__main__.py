"""Compare the independent servers: `python -m tests.independent chat-line|line|json|slash`, then options of `harness compare`.

Servers whose tool is not installed are left out. Known differences are in known.txt; `--write-baseline FILE` replaces that.
"""

from __future__ import annotations

import sys

from harness.cli import main
from tests.independent.servers import BASELINE, FENCES, HERE, SERVERS, scripts_of

SUITES = {"chat-line": "line", "line": "line", "json": "json", "slash": "slash"}


def compare(suite: str, more: list[str]) -> int:
    dialect, folder = SUITES[suite], HERE.parents[1] / ".cache" / "independent"
    words = ["compare", *map(str, scripts_of(suite)), "--within", "2s", "-j", "8"]
    words += ["--fence", FENCES[dialect]] if dialect in FENCES else []
    for server in SERVERS:
        if not server.speaks(dialect):
            continue
        if not server.installed:
            print(f"{server.name} is left out: {server.tool} is not installed", file=sys.stderr)
            continue
        choice = server.compared(folder).choice
        words += ["--server", f"{server.name}={choice.server}"]
        words += ["--features", f"{server.name}={' '.join(sorted(choice.features))}"]
    if BASELINE.exists() and "--write-baseline" not in more:
        words += ["--baseline", str(BASELINE)]
    return main([*words, *more])


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in SUITES:
        sys.exit(f"usage: python -m tests.independent {'|'.join(SUITES)} [options of harness compare]")
    sys.exit(compare(sys.argv[1], sys.argv[2:]))
