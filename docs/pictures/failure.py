"""Draw failure.svg: one failing run, as a terminal shows it.

    python docs/pictures/failure.py

The run is real: the command runs on a pseudo-terminal, and its screen is drawn.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.resolve().parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

from svg import screen_after, stacked, terminal  # noqa: E402

from tests.client.pty_program import PtyProgram  # noqa: E402

COMMAND = ("harness", "play", "hello.chat", "--app", "leaky:serve")
ROWS, COLUMNS = 40, 66


def main() -> int:
    """Run the command and write the picture."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join((str(HERE.resolve()), str(ROOT))),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }
    in_this_folder = ("/bin/sh", "-c", f'cd {shlex.quote(str(HERE.resolve()))} && exec "$@"', "sh")
    argv = [*in_this_folder, sys.executable, "-m", *COMMAND]
    program = PtyProgram(argv, environment, rows=ROWS, columns=COLUMNS)
    try:
        code = program.exit_code()
        written = program.raw
    finally:
        program.close()
    if code != 1:
        sys.exit(f"expected a failing run, got exit code {code}:\n{written.decode()}")
    prompt = f"\x1b[32m$\x1b[0m {' '.join(COMMAND)}\r\n".encode()
    screen = screen_after(prompt + written.rstrip(), COLUMNS, ROWS)
    screen.cursor.hidden = True
    picture = stacked(
        [terminal("a failing run", screen)], "A failing run of a transcript, as a terminal shows it"
    )
    (HERE / "failure.svg").write_text(picture, encoding="utf-8")
    print("wrote docs/pictures/failure.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
