"""Draws `session.svg`: two terminals with the client and one with `nc`, each in another dialect, in a real session.

    python docs/pictures/session.py

Starts a server and three programs in pseudo-terminals, types into them, and draws what their screens show at the end.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from svg import Window, draw  # noqa: E402

from tests.client.pty_program import PtyProgram  # noqa: E402
from tests.client.real_server import RealServer, client_argv  # noqa: E402

ROWS, COLUMNS, NC_COLUMNS = 14, 62, 34
DESCRIPTION = "alice and bob with the client, carol with nc, each in another dialect, in one chat"


def main() -> int:
    """Play the session and write the picture."""
    netcat = shutil.which("nc")
    if netcat is None:
        print("session.py: nc is not installed", file=sys.stderr)
        return 1
    server = RealServer()
    programs: list[PtyProgram] = []
    try:
        with tempfile.TemporaryDirectory() as home:
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": home,
                "XDG_STATE_HOME": home,
                "TERM": "xterm-256color",
                "LANG": "C.UTF-8",
            }

            def open_terminal(argv: list[str], columns: int) -> PtyProgram:
                programs.append(PtyProgram(argv, environment, rows=ROWS, columns=columns))
                return programs[-1]

            def connect(name: str, dialect: str) -> PtyProgram:
                program = open_terminal(client_argv([server.at(dialect), "--name", name]), COLUMNS)
                program.has_at_cursor(f"{name}>")
                program.sees(" here: ")
                return program

            alice = connect("alice", "slash")
            carol = open_terminal([netcat, server.host, str(server.ports["line"])], NC_COLUMNS)
            carol.type("LOGIN carol\n")
            carol.sees("OK")
            alice.sees("carol joined")
            bob = connect("bob", "json")
            play(alice, bob, carol)
            windows = [
                Window("alice · the client · slash", alice.screen),
                Window("bob · the client · json", bob.screen),
                Window("carol · nc · line", carol.screen),
            ]
            picture = draw(windows, DESCRIPTION)
    finally:
        for program in programs:
            program.close()
        server.stop()
    target = Path(__file__).with_suffix(".svg")
    target.write_text(picture, "utf-8")
    print(f"wrote {target.relative_to(ROOT)}")
    return 0


def play(alice: PtyProgram, bob: PtyProgram, carol: PtyProgram) -> None:
    """What they say, each once the other has seen the last."""
    alice.sees("bob joined")
    carol.type("MSG hello from nc 👋\n")
    alice.sees("hello from nc")
    bob.sees("hello from nc")
    bob.type("hi carol, no client at all?\r")
    carol.sees("MSG bob hi carol")
    alice.sees("hi carol")
    carol.type("MSG nc will do, alice knows\n")
    alice.sees("alice knows")
    bob.sees("alice knows")
    bob.type("/dm alice shall we tell her?\r")
    alice.sees("shall we tell her?")
    bob.sees("shall we tell her?")
    bob.type("/ping\r")
    bob.sees("The server answered")
    alice.type("there is also a cli")
    alice.has_at_cursor("alice> there is also a cli")
    carol.type("DM bob psst\n")
    bob.sees("carol → you: psst")
    carol.type("QUIT\n")
    carol.sees("Goodbye!")
    for program in (alice, bob):
        program.sees("carol left")
    bob.type("/users\r")
    bob.sees("2 here")
    bob.has_at_cursor("bob>")
    alice.has_at_cursor("alice> there is also a cli")


if __name__ == "__main__":
    sys.exit(main())
