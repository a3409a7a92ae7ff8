"""A real server with a chat page, people and bots in its rooms, and pages."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.browser.chromium import Chromium, Page
from tests.geventchat.processes import environment, ready_lines
from tests.patience import HANG_S

# On a busy machine seconds pass between two steps of a test.
STOP_THE_CLOCK = "window.now = Date.now(); Date.now = () => window.now;"
NEVER_LIMITED = ("--rate", "0", "--log-level", "error")


class ChatServer:
    """`python -m geventchat` with `line`, `json` and `web`. It can be stopped, and started again on the same ports."""

    def __init__(self, *options: str) -> None:
        # A random loopback address keeps the ports free for a restart, whatever else runs on this machine.
        self.host = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        self.ports = {"line": 0, "json": 0, "web": 0}
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._clients: list[_Lines] = []
        self.start()

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{self.host}:{self.ports['web']}/"

    def start(self) -> None:
        """Start the server, and read its ports from its output."""
        listen = [f"--listen={scheme}://{self.host}:{port}" for scheme, port in self.ports.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "geventchat", *listen, *NEVER_LIMITED, *self._options],
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        for line in ready_lines(self._process):
            if found := re.search(r":(\d+)(?: \(([\w+]+)\))?$", line):
                self.ports[found[2] or "line"] = int(found[1])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server with this signal, if it runs."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.communicate(timeout=HANG_S)
            self._process = None

    def person(self, name: str) -> Person:
        """Log in a user over `line`."""
        self._clients.append(person := Person(self, name))
        return person

    def bot(self, name: str, **fields: object) -> Bot:
        """Log in a bot over version 2 of `json`."""
        self._clients.append(bot := Bot(self, name, **fields))
        return bot

    def refusal(self, **fields: object) -> dict[str, Any]:
        """The answer to a request of a program that has not joined."""
        self._clients.append(stranger := _Lines((self.host, self.ports["json"])))
        stranger.send(json.dumps(fields))
        answer: dict[str, Any] = json.loads(stranger.next())
        return answer

    def close(self) -> None:
        """Kill the server, and close its clients."""
        self.stop(signal.SIGKILL)
        for client in self._clients:
            client.close()


class _Lines:
    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=HANG_S)
        self._lines = self._socket.makefile("rb")

    def send(self, *lines: str) -> None:
        """Send lines."""
        self._socket.sendall("".join(f"{line}\n" for line in lines).encode())

    def next(self) -> str:
        """The next line that arrives."""
        line = self._lines.readline()
        assert line, "the connection is closed"
        return line.decode().rstrip("\n")

    def until(self, end: str) -> list[str]:
        """The lines up to the first one that contains `end`."""
        lines = [self.next()]
        while end not in lines[-1]:
            lines.append(self.next())
        return lines

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()


class Person(_Lines):
    """A user of `line`."""

    def __init__(self, server: ChatServer, name: str) -> None:
        super().__init__((server.host, server.ports["line"]))
        self.send(f"LOGIN {name}")
        assert self.next() == "OK"

    def say(self, *texts: str) -> None:
        """Say texts, and wait until the server has handled them."""
        self.send(*(f"MSG {text}" for text in texts), "PING said")
        self.until("PONG said")


class Bot(_Lines):
    """A bot that speaks version 2 of `json`."""

    def __init__(self, server: ChatServer, name: str, **fields: object) -> None:
        super().__init__((server.host, server.ports["json"]))
        welcome = self.ask(type="join", v=2, username=name, **fields)
        assert welcome["type"] == "welcome", welcome

    def ask(self, **fields: object) -> dict[str, Any]:
        """Send a request, and return its answer."""
        self.send(json.dumps({**fields, "ref": "asked"}))
        while True:
            answer: dict[str, Any] = json.loads(self.next())
            if answer.get("ref") == "asked":
                return answer


@contextmanager
def chat(*options: str) -> Iterator[ChatServer]:
    """A server for the length of a `with` block."""
    server = ChatServer(*options)
    try:
        yield server
    finally:
        server.close()


class ChatPage:
    """The page of one user."""

    def __init__(
        self, browser: Chromium, server: ChatServer, *, url: str = "", width: int = 1024, **media: str
    ) -> None:
        self.page: Page = browser.page(url or server.url, width=width, height=720, **media)

    def log_in(self, name: str, password: str = "", within: str = "connection.replayed") -> None:
        """Log in, as users do."""
        self.page.run(
            f"byId('login-name').value = {json.dumps(name)}; byId('login-password').value = {json.dumps(password)}"
        )
        self.page.click("#login-join")
        self.page.wait(within)

    def say(self, text: str) -> None:
        """Type a text and press Enter."""
        self.page.run("byId('message').focus()")
        self.page.type(text)
        self.page.press("Enter")

    def texts(self) -> list[str]:
        """The texts of the messages in the document, in order."""
        found: list[str] = self.page.run(
            "[...document.querySelectorAll('#rows .row .text')].map((one) => one.textContent)"
        )
        return found

    def wait_for(self, text: str) -> None:
        """Wait until a message with this text is shown, and none is waiting to be sent."""
        condition = f"[...document.querySelectorAll('#rows .text')].some((one) => one.textContent === {json.dumps(text)})"
        self.page.wait(f"{condition} && !unsent.length")

    def lose_connection(self) -> None:
        """Close the connection, and do not reconnect."""
        self.page.run("connection.pause = 1e9; connection.socket.close(4999); lost(4999)")

    def close(self) -> None:
        """Close the page. Raises if anything went wrong in it."""
        self.page.close()


# Opens the page of a server, and logs in under a name if there is one; a fixture.
OpenPage = Callable[..., ChatPage]


@contextmanager
def below_a_path(server: ChatServer, path: bytes) -> Iterator[str]:
    """A proxy that serves the page below a path, such as `/chat/`; yields that address."""
    with socket.create_server((server.host, 0)) as listening:
        threading.Thread(target=_pass_on_all, args=(listening, server, path), daemon=True).start()
        yield f"http://{server.host}:{listening.getsockname()[1]}{path.decode()}"
        # Ends the thread.
        listening.shutdown(socket.SHUT_RDWR)


def _pass_on_all(listening: socket.socket, server: ChatServer, path: bytes) -> None:
    with suppress(OSError):
        while True:
            outer, _ = listening.accept()
            threading.Thread(target=_connect, args=(outer, server, path), daemon=True).start()


def _connect(outer: socket.socket, server: ChatServer, path: bytes) -> None:
    with outer, suppress(OSError), socket.create_connection((server.host, server.ports["web"])) as inner:
        back = threading.Thread(target=_pass_on, args=(inner, outer, b""), daemon=True)
        back.start()
        _pass_on(outer, inner, b"GET " + path)
        back.join()


def _pass_on(source: socket.socket, target: socket.socket, old: bytes) -> None:
    with suppress(OSError):
        while chunk := source.recv(65_536):
            target.sendall(chunk.replace(old, b"GET /") if old else chunk)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
