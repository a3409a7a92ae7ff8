"""Draw `session.svg` and `session-narrow.svg`: one room, seen with nc and with the client.

    python docs/pictures/session.py

Starts a server and two programs in pseudo-terminals, types into them and draws their screens. The session is real, and so are
its times: it takes about half a minute.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyte

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from svg import screen_after, side_by_side, stacked, terminal  # noqa: E402

from tests.client.pty_program import PtyProgram  # noqa: E402
from tests.client.real_server import RealServer, client_argv  # noqa: E402

ROWS, NC_COLUMNS, CLIENT_COLUMNS = 18, 34, 46
DESCRIPTION = "One room of the chat: bob uses nc (what he types is bold), and alice uses the terminal client"
CLEAR = "\x0c"


def main() -> int:
    """Play the session and write the pictures."""
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

            alice = open_terminal(client_argv([server.at("slash"), "--name", "alice"]), CLIENT_COLUMNS)
            alice.expect("1 here")
            alice.expect_at_cursor("alice>")
            alice.type(CLEAR)
            alice.wait_for(lambda: alice.lines() == ["alice>"], "an empty screen")
            bob = open_terminal([netcat, server.host, str(server.ports["line"])], NC_COLUMNS)
            bob_types = play(alice, bob)
            panels = [
                terminal("bob: nc localhost 4000", screen_of(bob.raw, NC_COLUMNS, typed=bob_types)),
                terminal("alice: geventchat connect localhost", screen_of(alice.raw, CLIENT_COLUMNS)),
            ]
    finally:
        for program in programs:
            program.close()
        server.stop()
    for name, picture in (("session", side_by_side), ("session-narrow", stacked)):
        target = Path(__file__).with_name(f"{name}.svg")
        target.write_text(picture(panels, DESCRIPTION), "utf-8")
        print(f"wrote {target.relative_to(ROOT)}")
    return 0


def play(alice: PtyProgram, bob: PtyProgram) -> list[str]:
    """Play the conversation, each line when the one before has arrived, as fast as people type; return what bob types."""
    bob_types: list[str] = []

    def say(speaker: PtyProgram, line: str, listener: PtyProgram, heard: str, seconds: float) -> None:
        time.sleep(seconds)
        if speaker is bob:
            bob_types.append(line)
        speaker.type(line + ("\r" if speaker is alice else "\n"))
        listener.expect(heard)

    say(bob, "LOGIN bob", alice, "bob joined", 0)
    bob.expect("OK")
    say(bob, "MSG hello from nc 👋", alice, "hello from nc", 4)
    say(alice, "hi bob, just nc?", bob, "MSG alice hi bob", 5)
    say(bob, "MSG nc is enough, alice", alice, "nc is enough", 6)
    say(alice, "/dm bob lunch at noon?", bob, "DM alice lunch", 7)
    say(bob, "DM alice yes!", alice, "yes!", 3)
    say(alice, "/users", alice, "2 here", 2)
    say(bob, "WHO", bob, "USER bob", 0)
    say(bob, "QUIT", alice, "bob left", 1)
    bob.expect("Goodbye!")
    alice.type("see you at no")
    alice.expect_at_cursor("alice> see you at no")
    return bob_types


def screen_of(written: bytes, columns: int, typed: Sequence[str] = ()) -> pyte.Screen:
    """The screen after these bytes, with typed lines in bold: nc itself shows them like what it receives."""
    for line in typed:
        # Each occurs once: a terminal echoes what is typed.
        written = written.replace(f"{line}\r\n".encode(), f"\x1b[1;97m{line}\x1b[0m\r\n".encode(), 1)
    return screen_after(written, columns, ROWS)


if __name__ == "__main__":
    sys.exit(main())
