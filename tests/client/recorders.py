"""A terminal, a connection, a runtime and a clock that record what the session asks of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import count

from geventchat.client.address import Address
from geventchat.client.connection import Connected, Connection, DataReceived, Disconnected, LineReceived
from geventchat.client.display import Clock
from geventchat.client.options import Options
from geventchat.client.render import Look, plain_line, safe
from geventchat.client.session import ExitCode, Plan, Session, SessionEvent, TimerExpired
from geventchat.client.styles import ROLES
from geventchat.client.terminal import LineEntered, SessionView
from geventchat.client.windows import Entry, Window
from geventchat.dialects.framing import LineFraming

NOON = datetime(2024, 1, 15, 12, 0, 0)
# Without any style, so that tests read what people read.
LOOK = Look(dict.fromkeys(ROLES, ""), "%H:%M:%S", "emoji", markdown=True, links=False)


class RecordingTerminal:
    """Remembers what it shows, without colour and in order. An error of a script begins with `!`, a ring is `*`."""

    def __init__(
        self, *, interactive: bool = True, echoes_input: bool = False, linear: bool | None = None
    ) -> None:
        self.interactive = interactive
        self.echoes_input = echoes_input
        self.linear = not interactive or echoes_input if linear is None else linear
        self.view: SessionView | None = None
        self.questions: list[str] = []
        self.requested_lines = 0
        self.refreshed = 0
        self.options: list[Options] = []
        self.has_left_screen = False
        self._shown: list[str] = []

    def shown(self) -> list[str]:
        """The lines shown since the last call."""
        shown, self._shown = self._shown, []
        return shown

    def open(self, view: SessionView) -> None:
        self.view = view

    def ask(self) -> None:
        assert self.view is not None
        assert self.view.asking
        self.questions.append(self.view.prompt)

    def request_line(self) -> None:
        self.requested_lines += 1

    def show(self, window: Window, entry: Entry) -> None:
        elsewhere = self.view is not None and window is not self.view.conversation.current
        room = window.title if elsewhere and not window.is_person else ""
        self._shown.append(plain_line(entry, LOOK, room))

    def show_error(self, text: str) -> None:
        self._shown.append(f"! {safe(text)}")

    def refresh(self) -> None:
        self.refreshed += 1

    def configure(self, options: Options) -> None:
        self.options.append(options)

    def ring(self) -> None:
        self._shown.append("*")

    def notify(self, title: str, text: str) -> None:
        self._shown.append(f"[{title}] {text}")

    def leave_screen(self) -> None:
        self.has_left_screen = True

    def close(self) -> None:
        raise AssertionError("the session does not close the terminal")


class RecordingConnection(Connection):
    """Remembers what was sent and asked."""

    def __init__(self) -> None:
        self.blocked = False
        self.closed = False
        self._sent = b""
        self.framing = LineFraming(1_000_000)

    def sent(self) -> bytes:
        """The bytes sent since the last call."""
        sent, self._sent = self._sent, b""
        return sent

    def send(self, data: bytes) -> None:
        self._sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class RecordingRuntime:
    """Remembers addresses and the exit code."""

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self.timeouts: list[float] = []
        self.exit_code: ExitCode | None = None

    def connect(self, address: Address, timeout_s: float) -> None:
        self.addresses.append(address)
        self.timeouts.append(timeout_s)

    def end(self, code: ExitCode) -> None:
        assert self.exit_code is None
        self.exit_code = code


class TickingClock:
    """Noon, and seconds that the test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def clock(self) -> Clock:
        """The clock of a session."""
        return Clock(lambda: NOON, lambda: self.seconds)


def new_keys() -> Iterator[str]:
    """Keys of messages that a test can foresee: k1, k2, …"""
    return (f"k{number}" for number in count(1))


DEFAULTS = Options()
PLAN = Plan("chat.example", 4000, None, "alice", None)


class Run:
    """A session and everything around it."""

    def __init__(
        self,
        plan: Plan = PLAN,
        *,
        interactive: bool = True,
        echoes_input: bool = False,
        options: Options = DEFAULTS,
    ) -> None:
        self.terminal = RecordingTerminal(interactive=interactive, echoes_input=echoes_input)
        self.runtime = RecordingRuntime()
        self.ticking = TickingClock()
        keys = new_keys()
        self.session = Session(
            plan, self.terminal, self.runtime, self.ticking.clock(), options, new_key=lambda: next(keys)
        )
        self.connection: RecordingConnection
        self.session.start()

    def accept(self) -> bytes:
        """The server accepts the connection; what the client sends."""
        self.connection = RecordingConnection()
        self.session.handle(Connected(self.connection))
        return self.connection.sent()

    def receive(self, *lines: str) -> list[str]:
        """The server sends lines; what is shown."""
        self.session.handle(DataReceived(self.connection))
        for line in self.connection.framing.feed("".join(f"{line}\n" for line in lines).encode()):
            self.session.handle(LineReceived(self.connection, line))
        return self.terminal.shown()

    def receive_part(self) -> list[str]:
        """The server sends the beginning of a line; what is shown."""
        self.session.handle(DataReceived(self.connection))
        return self.terminal.shown()

    def hang_up(self, reason: str = "the server closed it") -> list[str]:
        """The connection ends; what is shown."""
        self.session.handle(Disconnected(self.connection, reason))
        return self.terminal.shown()

    def type(self, text: str, *, literal: bool = False) -> list[str]:
        """A line is typed; what is shown."""
        return self.happen(LineEntered(text, literal))

    def happen(self, event: SessionEvent) -> list[str]:
        """Handle an event; what is shown."""
        self.session.handle(event)
        return self.terminal.shown()

    def wait(self, seconds: float) -> list[str]:
        """Let time pass; what is shown."""
        end = self.ticking.seconds + seconds
        for _ in range(10_000):
            at = self.session.deadline
            if at is None or at > end:
                break
            self.ticking.seconds = max(at, self.ticking.seconds)
            self.session.handle(TimerExpired())
        else:
            raise AssertionError("the deadline does not move")
        self.ticking.seconds = end
        return self.terminal.shown()

    def sent(self) -> bytes:
        """The bytes sent since the last call."""
        return self.connection.sent()

    @property
    def exit_code(self) -> ExitCode | None:
        return self.runtime.exit_code

    @property
    def status(self) -> list[str]:
        return list(self.session.status)

    def entries(self) -> list[str]:
        """What the current window shows."""
        return [plain_line(entry, LOOK) for entry in self.session.conversation.current.entries]
