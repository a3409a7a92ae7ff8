"""Draw `rooms.svg`: the client in two rooms, with unread messages, a mention and a block of code.

    python docs/pictures/rooms.py

Starts a server, the client in a pseudo-terminal and two people in the `line` dialect, and draws the client's screen. The times
are real: it takes about half a minute.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from svg import rows, screen_after, terminal  # noqa: E402

from tests.client.pty_program import PtyProgram  # noqa: E402
from tests.client.raw_client import RawClient  # noqa: E402
from tests.client.real_server import RealServer, client_argv  # noqa: E402

# Narrow enough to be read on a phone.
ROWS, COLUMNS = 20, 56
DESCRIPTION = (
    "The terminal client in two rooms: unread messages, a mention, a direct message and a block of code"
)
CODE = ("def pause_s(attempt):", "    return min(2**attempt / 2, 30)", "", "# as in docs/client.md")


def main() -> int:
    """Play the session and write the picture."""
    server = RealServer()
    program = None
    try:
        with tempfile.TemporaryDirectory() as home:
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": home,
                "TERM": "xterm-256color",
                "LANG": "C.UTF-8",
            }
            rooms = ["--room", "lobby", "--room", "dev"]
            argv = client_argv([server.at("json"), "--name", "alice", *rooms])
            program = PtyProgram(argv, environment, rows=ROWS, columns=COLUMNS)
            play(server, program)
            screen = screen_after(program.raw, COLUMNS, ROWS)
            picture = rows([[terminal("geventchat connect chat.example --name alice", screen)]], DESCRIPTION)
    finally:
        if program is not None:
            program.close()
        server.stop()
    target = Path(__file__).with_suffix(".svg")
    target.write_text(picture, "utf-8")
    print(f"wrote {target.relative_to(ROOT)}")
    return 0


def play(server: RealServer, alice: PtyProgram) -> None:
    """Play the conversation, each line when the one before has arrived."""
    alice.expect("1:lobby")
    alice.expect("2:dev")
    bob, carol = (RawClient(server.host, server.ports["line"], name) for name in ("bob", "carol"))
    bob.send("JOIN dev")
    bob.send("TOPIC release on Friday")
    alice.type("\x1b2/clear\r")
    alice.expect("dev · 2 here · release on Friday")
    alice.type("how long does it wait between two attempts?\r")
    alice.expect("attempts?")
    alice.type("\x1b1")
    alice.expect("[1:lobby]")
    time.sleep(7)
    bob.send("MSG half a second, then **twice as long** each time, up to 30 s:")
    for line in CODE:
        bob.send(f"MSG │ {line}".rstrip())
    alice.expect("2:dev(5)")
    alice.type("\x1b2")
    alice.expect("new since you left")
    time.sleep(5)
    bob.send("MSG alice: the page is https://chat.example/docs#pauses, see `pause_s`")
    alice.expect("the page is")
    time.sleep(4)
    bob.send("MSG * bob looks for coffee")
    alice.expect("looks for coffee")
    carol.send("MSG good morning everyone, the build of last night is green again")
    carol.send("MSG who has the key of the lab?")
    carol.send("MSG alice, you had it yesterday")
    alice.expect("1:lobby(3!)")
    time.sleep(3)
    carol.send("DM alice are you in the office today?")
    alice.expect("are you in")
    alice.type("thanks! That is what I was looking ")
    alice.expect_at_cursor("alice> thanks! That is what I was looking")


if __name__ == "__main__":
    sys.exit(main())
