"""Draw `session.svg`: a real session of two clients and `nc`, each in another dialect.

    python docs/pictures/session.py

Starts a server and three programs in pseudo-terminals, types into them and draws their screens.
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
                program.expect_at_cursor(f"{name}>")
                program.expect(" here: ")
                return program

            alice = connect("alice", "slash")
            carol = open_terminal([netcat, server.host, str(server.ports["line"])], NC_COLUMNS)
            carol.type("LOGIN carol\n")
            carol.expect("OK")
            alice.expect("carol joined")
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
    """Play the conversation, each line when the one before has arrived."""
    alice.expect("bob joined")
    carol.type("MSG hello from nc 👋\n")
    alice.expect("hello from nc")
    bob.expect("hello from nc")
    bob.type("hi carol, no client at all?\r")
    carol.expect("MSG bob hi carol")
    alice.expect("hi carol")
    carol.type("MSG nc will do, alice knows\n")
    alice.expect("alice knows")
    bob.expect("alice knows")
    bob.type("/dm alice shall we tell her?\r")
    alice.expect("shall we tell her?")
    bob.expect("shall we tell her?")
    bob.type("/ping\r")
    bob.expect("The server answered in")
    alice.type("there is also a cli")
    alice.expect_at_cursor("alice> there is also a cli")
    carol.type("DM bob psst\n")
    bob.expect("carol → you: psst")
    carol.type("QUIT\n")
    carol.expect("Goodbye!")
    for program in (alice, bob):
        program.expect("carol left")
    bob.type("/users\r")
    bob.expect("2 here")
    bob.expect_at_cursor("bob>")
    alice.expect_at_cursor("alice> there is also a cli")


if __name__ == "__main__":
    sys.exit(main())
