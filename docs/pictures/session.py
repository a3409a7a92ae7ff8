"""Draw `session.svg` and `session-narrow.svg`: one room, seen with nc, with the terminal client and in a browser.

    python docs/pictures/session.py

Starts a server, two programs in pseudo-terminals and Chromium, types into them and draws what they show, one moment after the
other: the pictures move. The session is real, and so are its times: it takes about a minute.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyte

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from svg import GAP, Panel, film, page, rows, screen_after, terminal  # noqa: E402

from tests.browser.chromium import Chromium, Page, program  # noqa: E402
from tests.client.pty_program import PtyProgram  # noqa: E402
from tests.client.real_server import RealServer, client_argv  # noqa: E402

# With fewer columns, the client leaves out the seconds of its times.
ROWS, NC_COLUMNS, CLIENT_COLUMNS = 14, 31, 50
# Of the browser's window, below the other two.
WIDE_HEIGHT, NARROW_HEIGHT, PIXELS = 350, 446, 2
IMAGE = {"format": "webp", "quality": 55}
# How long a moment is shown in which someone types, one in which a message has arrived, and the last one.
TYPED_S, SAID_S, LAST_S = 0.6, 1.4, 5.0
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
            alice.expect("👥 2 here")
            alice.expect_at_cursor("alice>")
            # Its title still says how many people are here.
            alice.type("/clear\r")
            alice.wait_for(lambda: not any("👥" in line for line in alice.lines()), "an empty screen")
            bob = open_terminal([netcat, server.host, str(server.ports["line"])], NC_COLUMNS)
            session = Session(alice, bob, carol)
            play(session)
            carol.close()
    finally:
        for one in programs:
            one.close()
        browser.close()
        server.stop()
    nc, client, wide, narrow = session.panels()
    pictures = {"session": [[nc, client], [wide]], "session-narrow": [[nc], [client], [narrow]]}
    for name, panels in pictures.items():
        target = Path(__file__).with_name(f"{name}.svg")
        target.write_text(rows(panels, DESCRIPTION), "utf-8")
        print(f"wrote {target.relative_to(ROOT)}")
    return 0


class Moment(NamedTuple):
    """What is on the three screens, the browser's in both sizes, and for how long it is shown."""

    nc: Panel
    client: Panel
    wide: bytes
    narrow: bytes
    seconds: float


class Session:
    """The three people, and the moments of their conversation."""

    def __init__(self, alice: PtyProgram, bob: PtyProgram, carol: Page) -> None:
        self.alice, self.bob, self.carol = alice, bob, carol
        self.moments: list[Moment] = []
        self._bob_types: list[str] = []

    def say(self, speaker: PtyProgram, line: str, listener: PtyProgram, heard: str, after_s: float) -> None:
        """Type a line after a pause, and wait until it has arrived everywhere."""
        time.sleep(after_s)
        if speaker is self.bob:
            self._bob_types.append(line)
        speaker.type(line)
        self.take(TYPED_S, browser=False)
        speaker.type("\r" if speaker is self.alice else "\n")
        listener.expect(heard)
        self.take(SAID_S)

    def take(self, seconds: float, *, browser: bool = True) -> None:
        """Remember this moment."""
        for terminal_of in (self.alice, self.bob):
            while terminal_of.read(0.3):
                pass
        nc = terminal("bob: nc localhost 4000", screen_of(self.bob.raw, NC_COLUMNS, self._bob_types))
        client = terminal("alice: geventchat connect localhost", screen_of(self.alice.raw, CLIENT_COLUMNS))
        if browser or not self.moments:
            wide = self._photograph(int(nc.width + GAP + client.width), WIDE_HEIGHT)
            narrow = self._photograph(int(client.width), NARROW_HEIGHT)
        else:
            wide, narrow = self.moments[-1].wide, self.moments[-1].narrow
        self.moments.append(Moment(nc, client, wide, narrow, seconds))

    def panels(self) -> tuple[Panel, Panel, Panel, Panel]:
        """nc, the client, and the browser in a wide and in a narrow window."""
        seconds = [moment.seconds for moment in self.moments]
        width, narrow_width = (
            self.moments[0].nc.width + GAP + self.moments[0].client.width,
            self.moments[0].client.width,
        )
        wide = [page("carol: a browser", one.wide, width, WIDE_HEIGHT) for one in self.moments]
        narrow = [page("carol: a browser", one.narrow, narrow_width, NARROW_HEIGHT) for one in self.moments]
        return (
            film([one.nc for one in self.moments], seconds),
            film([one.client for one in self.moments], seconds),
            film(wide, seconds),
            film(narrow, seconds),
        )

    def _photograph(self, width: int, height: int) -> bytes:
        """The page in a window of this size, scrolled to its end."""
        self.carol.resize(width, height, PIXELS)
        for _ in range(2):
            self.carol.run("new Promise((done) => setTimeout(done, 300))")
            self.carol.run("document.querySelector('#log').scrollTop = 1e9")
        return self.carol.screenshot(**IMAGE)


def play(session: Session) -> None:
    """Play the conversation, each line when the one before has arrived, as fast as people type."""
    alice, bob, carol = session.alice, session.bob, session.carol
    session.take(SAID_S)
    session.say(bob, "LOGIN bob", alice, "bob joined", 0)
    bob.expect("OK")
    session.say(bob, "MSG hello from nc", alice, "hello from nc", 1)
    time.sleep(2)
    carol.click("#message")
    carol.type("and I use a browser")
    carol.press("Enter")
    bob.expect("MSG carol and I use")
    alice.expect("and I use a browser")
    session.take(SAID_S)
    session.say(alice, "one room for all", bob, "MSG alice one room", 1)
    session.say(bob, "MSG nc is enough, alice", alice, "nc is enough", 2)
    session.say(alice, "/msg bob lunch at noon?", bob, "DM alice lunch", 1)
    session.say(bob, "DM alice yes!", alice, "yes!", 1)
    session.say(alice, "/who", alice, "👥 3 here", 1)
    session.say(bob, "QUIT", alice, "bob left", 0)
    bob.expect("Goodbye!")
    carol.wait("document.querySelector('#rows').innerText.includes('bob left')")
    alice.type("see you at no")
    alice.expect_at_cursor("alice> see you at no")
    session.take(LAST_S)


def screen_of(written: bytes, columns: int, typed: Sequence[str] = ()) -> pyte.Screen:
    """The screen after these bytes, with typed lines in bold: nc itself shows them like what it receives."""
    for line in typed:
        # Each occurs once: a terminal echoes what is typed.
        written = re.sub(
            rb"%s(?=\r\n|$)" % re.escape(line.encode()), b"\x1b[1;97m\\g<0>\x1b[0m", written, count=1
        )
    return screen_after(written, columns, ROWS)


if __name__ == "__main__":
    sys.exit(main())
