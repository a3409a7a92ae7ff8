"""Compare the servers of other dialects with suite:chat-line: `python -m tests.independent.adapted`, then options of
`harness compare`.

Servers whose tool is not installed are left out. Known differences are in known.txt; `--write-baseline FILE` replaces that.
"""

from __future__ import annotations

import shutil
import sys

from harness.cli import main
from tests.independent.adapted.servers import BASELINE, HERE, NAMES, compared, tool


def compare(more: list[str]) -> int:
    words = ["compare", "suite:chat-line", "--within", "2s", "-j", "8"]
    for name in NAMES:
        if shutil.which(tool(name)) is None:
            print(f"{name} is left out: {tool(name)} is not installed", file=sys.stderr)
            continue
        server = compared(name, HERE.parents[2] / ".cache" / "independent")
        words += ["--server", f"{name}={server.choice.server}", "--adapter", f"{name}={HERE / name}.adapter"]
    if "--write-baseline" not in more:
        words += ["--baseline", str(BASELINE)]
    return main([*words, *more])


if __name__ == "__main__":
    sys.exit(compare(sys.argv[1:]))
