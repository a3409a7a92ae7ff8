"""Draw `session.svg` and `session-narrow.svg`: one room, seen with nc, with the terminal client and in a browser.

    python docs/pictures/session.py

Starts a server, two programs in pseudo-terminals and Chromium, types into them and draws what they show. The session is real,
and so are its times: it takes about half a minute.
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

from svg import GAP, page, rows, screen_after, terminal  # noqa: E402

from tests.browser.chromium import Chromium, Page, program  # noqa: E402
from tests.client.pty_program import PtyProgram  # noqa: E402
from tests.client.real_server import RealServer, client_argv  # noqa: E402

ROWS, NC_COLUMNS, CLIENT_COLUMNS = 18, 34, 46
# Of the browser's window, beside the other two and below them.
WIDE_HEIGHT, NARROW_HEIGHT, PIXELS = 350, 446, 2
DESCRIPTION = "One room of the chat: bob uses nc (what he types is bold), alice the terminal client, and carol a browser"


def main() -> int:
    """Play the session and write the pictures."""
    netcat = shutil.which("nc")
    if netcat is None or program() is None:
        print("session.py: nc and Chromium are required", file=sys.stderr)
        return 1
    server = RealServer(schemes=("line", "json", "web"))
    browser = Chromium()
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

            carol = browser.page(f"http://{server.at('web')}/", prefers_color_scheme="dark")
            carol.wait("!document.querySelector('#login').hidden")
            carol.click("#login-name")
            carol.type("carol")
            carol.press("Enter")
            carol.wait("!document.querySelector('#app').hidden")
            alice = open_terminal(client_argv([server.at("json"), "--name", "alice"]), CLIENT_COLUMNS)
            alice.expect("2 here")
            alice.expect_at_cursor("alice>")
            alice.type("/clear\r")
            alice.wait_for(lambda: "2 here" not in "".join(alice.lines()), "an empty screen")
            bob = open_terminal([netcat, server.host, str(server.ports["line"])], NC_COLUMNS)
            bob_types = play(alice, bob, carol)
            nc = terminal("bob: nc localhost 4000", screen_of(bob.raw, NC_COLUMNS, typed=bob_types))
            client = terminal("alice: geventchat connect localhost", screen_of(alice.raw, CLIENT_COLUMNS))
            wide = web_page(carol, nc.width + GAP + client.width, WIDE_HEIGHT)
            narrow = web_page(carol, client.width, NARROW_HEIGHT)
            carol.close()
    finally:
        for one in programs:
            one.close()
        browser.close()
        server.stop()
    pictures = {"session": [[nc, client], [wide]], "session-narrow": [[nc], [client], [narrow]]}
    for name, panels in pictures.items():
        target = Path(__file__).with_name(f"{name}.svg")
        target.write_text(rows(panels, DESCRIPTION), "utf-8")
        print(f"wrote {target.relative_to(ROOT)}")
    return 0


def play(alice: PtyProgram, bob: PtyProgram, carol: Page) -> list[str]:
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
    say(bob, "MSG hello from nc", alice, "hello from nc", 4)
    time.sleep(5)
    carol.click("#message")
    carol.type("and I am in a browser")
    carol.press("Enter")
    bob.expect("MSG carol and I am")
    alice.expect("and I am in a browser")
    say(alice, "one room for all of us", bob, "MSG alice one room", 6)
    say(bob, "MSG nc is enough, alice", alice, "nc is enough", 7)
    say(alice, "/msg bob lunch at noon?", bob, "DM alice lunch", 4)
    say(bob, "DM alice yes!", alice, "yes!", 3)
    say(alice, "/who", alice, "3 here", 2)
    say(bob, "QUIT", alice, "bob left", 1)
    bob.expect("Goodbye!")
    carol.wait("document.querySelector('#rows').innerText.includes('bob left')")
    alice.type("see you at no")
    alice.expect_at_cursor("alice> see you at no")
    return bob_types


def web_page(browser: Page, width: float, height: int):
    """The page in a window of this size, scrolled to its end."""
    browser.resize(int(width), height, PIXELS)
    browser.run("new Promise((done) => setTimeout(done, 300))")
    browser.run("document.querySelector('#log').scrollTop = 1e9")
    browser.run("new Promise((done) => setTimeout(done, 300))")
    return page("carol: a browser", browser.screenshot(), width, height)


def screen_of(written: bytes, columns: int, typed: Sequence[str] = ()) -> pyte.Screen:
    """The screen after these bytes, with typed lines in bold: nc itself shows them like what it receives."""
    for line in typed:
        # Each occurs once: a terminal echoes what is typed.
        written = written.replace(f"{line}\r\n".encode(), f"\x1b[1;97m{line}\x1b[0m\r\n".encode(), 1)
    return screen_after(written, columns, ROWS)


if __name__ == "__main__":
    sys.exit(main())
