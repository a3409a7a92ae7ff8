"""Take the pictures of the chat page: `web.png` and those of docs/web.md; or with a folder every scene into it.

    python docs/pictures/web.py [FOLDER]

Starts a server, lets a few people talk, and takes pictures of the page in Chromium. `pngquant` makes the files a third as
large. With the font Inter installed, they look as they do in the documentation.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from itertools import product
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]

from tests.browser.chat import ChatPage, ChatServer, chat  # noqa: E402
from tests.browser.chromium import Chromium, Page, program  # noqa: E402

SIZES = {320: 640, 768: 900, 1440: 900}
THEMES = ("light", "dark")
EVERYTHING = tuple(product(SIZES, THEMES))
README_SIZE = (1180, 760)
# Each scene in each width, and each width in both themes.
IN_THE_DOCUMENTATION = {
    "empty": ((320, "light"), (768, "dark"), (1440, "light")),
    "busy": ((320, "dark"), (768, "light"), (1440, "dark")),
    "offline": ((320, "light"), (768, "dark"), (1440, "light")),
}

LOBBY = [
    ("bob", "Good morning! The new build is up: https://ci.example.org/builds/1204"),
    ("bob", "It is 12 % faster than the last one."),
    ("carol", "Nice. Is that the change with the shared frames?"),
    ("bob", "Yes. One message, framed once, whoever hears it:"),
    ("bob", "`frame = encoding.frame(event)`"),
    ("bob", "`for audience in room.audiences:`"),
    ("bob", "`    audience.append(frame)`"),
    ("dave", "And people on `nc` notice nothing at all :)"),
    ("carol", "alice: could you look at the numbers before lunch?"),
    ("robot", "build 1204: 3,214 tests passed in 4 min 12 s"),
]
OTHERS = ["Deploy at two?", "Works for me.", "alice, you too?"]


def main(folder: Path | None) -> int:
    """Take the pictures; returns the exit code."""
    if program() is None:
        print("web.py: chromium is not installed", file=sys.stderr)
        return 1
    browser = Chromium()
    try:
        with chat() as server:
            if folder is None:
                take_for_documentation(browser, server)
            else:
                folder.mkdir(exist_ok=True)
                take_all(browser, server, folder)
    finally:
        browser.close()
    return 0


def take_for_documentation(browser: Chromium, server: ChatServer) -> None:
    """The pictures of the README and of docs/web.md."""
    page = empty(browser, server)
    photograph(page.page, HERE, "empty", IN_THE_DOCUMENTATION["empty"])
    page.close()
    page = busy(browser, server)
    page.page.resize(*README_SIZE)
    take(page.page, HERE / "web.png")
    page.page.run("showPeoplePanel(false)")
    photograph(page.page, HERE, "busy", IN_THE_DOCUMENTATION["busy"])
    go_offline(page)
    photograph(page.page, HERE, "offline", IN_THE_DOCUMENTATION["offline"])


def opened(browser: Chromium, server: ChatServer) -> ChatPage:
    """The page, wide and light, at nine o'clock in the morning."""
    page = ChatPage(browser, server, width=1440, prefers_color_scheme="light")
    west = datetime.now(timezone.utc).hour - 9
    page.page.command(
        "Emulation.setTimezoneOverride", timezoneId=f"Etc/GMT{west if west <= 12 else west - 24:+d}"
    )
    page.page.reload()
    return page


def empty(browser: Chromium, server: ChatServer) -> ChatPage:
    """The page of the first one who comes."""
    page = opened(browser, server)
    page.log_in("alice")
    return page


def busy(browser: Chromium, server: ChatServer) -> ChatPage:
    """The page of alice in the middle of a conversation."""
    page = empty(browser, server)
    page.page.run("enter('operations').then(() => enter('tea')).then(() => open(roomNamed('lobby')))")
    page.page.wait("knownRoom('tea')?.present && current.name === 'lobby'")
    people = {
        name: server.bot(name, rooms={"lobby": None, "operations": None})
        for name in ("bob", "carol", "dave", "robot")
    }
    for name, text in LOBBY:
        people[name].ask(type="chat", room="lobby", message=text)
    page.wait_for(LOBBY[-1][1])
    page.say("On it. Ping me if I forget, @carol.")
    page.page.wait("!unsent.length")
    for text in OTHERS:
        people["dave"].ask(type="chat", room="operations", message=text)
    people["bob"].ask(type="dm", to="alice", message="lunch at noon?")
    people["dave"].ask(type="topic", room="lobby", topic="Release week: be kind, test twice")
    people["carol"].ask(type="typing", room="lobby")
    page.page.wait(
        "byId('typing').textContent && byId('topic').textContent && conversations.get('@bob')?.unread === 1"
    )
    page.page.wait("document.querySelector('#rooms .mentioned')")
    return page


def go_offline(page: ChatPage) -> None:
    """Take the connection away, and write something."""
    page.lose_connection()
    page.say("Written on the train, between two tunnels.")
    page.page.wait("document.querySelector('#pending .row')")


def take_all(browser: Chromium, server: ChatServer, folder: Path) -> None:
    """Each scene, in each width and theme."""
    login = opened(browser, server)
    photograph(login.page, folder, "login")
    login.close()
    quiet = empty(browser, server)
    photograph(quiet.page, folder, "empty")
    quiet.close()
    page = busy(browser, server)
    for width in SIZES:
        page.page.resize(width, SIZES[width])
        page.page.run("showPeoplePanel(true)")
        photograph(page.page, folder, "people", tuple(product((width,), THEMES)))
    page.page.run("showPeoplePanel(false)")
    photograph(page.page, folder, "busy")
    page.page.resize(320, 640)
    page.page.run("showSidebar(true)")
    photograph(page.page, folder, "rooms", tuple(product((320,), THEMES)))
    page.page.run("showSidebar(false); showFinder()")
    photograph(page.page, folder, "finder")
    page.page.run("byId('finder').close(); showSettings()")
    photograph(page.page, folder, "settings")
    page.page.run("byId('settings').close()")
    go_offline(page)
    photograph(page.page, folder, "offline")


def photograph(page: Page, folder: Path, name: str, pictures: Iterable[tuple[int, str]] = EVERYTHING) -> None:
    """Take a picture in each of these widths and themes."""
    for width, theme in pictures:
        page.emulate({"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"})
        page.resize(width, SIZES[width])
        take(page, folder / f"web-{name}-{width}-{theme}.png")


def take(page: Page, file: Path) -> None:
    """Take one picture, once the page stands still."""
    # Nothing is under the pointer, and the cursor does not blink.
    page.command("Input.dispatchMouseEvent", type="mouseMoved", x=0, y=0)
    page.run("document.documentElement.style.caretColor = 'transparent'")
    page.run(
        "document.fonts.ready.then(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 60))))"
    )
    file.write_bytes(page.screenshot())
    quantizer = shutil.which("pngquant")
    if quantizer is not None:
        subprocess.run([quantizer, "--force", "--strip", "--output", str(file), str(file)], check=True)
    print(f"{file} {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
