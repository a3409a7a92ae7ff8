"""The session as a state machine: every question, refusal, loss and way to leave, without sockets, terminals or time."""

from __future__ import annotations

import errno
import itertools

import pytest

from geventchat.client.address import Address
from geventchat.client.connection import Connected, ConnectFailed, Connection
from geventchat.client.session import (
    GOODBYE_TIMEOUT_S,
    INTERRUPTED_TIMEOUT_S,
    LINES_PER_PING,
    LOGIN_TIMEOUT_S,
    MAX_UNANSWERED_PINGS,
    SCRIPT_TIMEOUT_S,
    ExitCode,
    Plan,
    Session,
    Terminated,
    TimerExpired,
    backoff,
)
from geventchat.client.terminal import (
    InputEnded,
    Interrupted,
    LineEntered,
    LineUnreadable,
    OutputClosed,
    TerminalEvent,
)
from tests.client.recorders import (
    RecordingRuntime,
    RecordingTerminal,
    RecordingTransport,
    TickingClock,
    connected,
)

PLAN = Plan("chat.example", 4000, None, "alice", None)
WELCOME = [
    "✅ Welcome to the chat, alice!",
    "💡 Type a message and press Enter. /help lists the commands.",
]


class Run:
    """A session and everything around it."""

    def __init__(self, plan: Plan = PLAN, *, interactive: bool = True) -> None:
        self.terminal = RecordingTerminal(interactive=interactive, echoes_input=False)
        self.runtime = RecordingRuntime()
        self.session = Session(plan, self.terminal, self.runtime, TickingClock().clock())
        self.connection: Connection
        self.transport: RecordingTransport
        self.session.start()

    def accept(self) -> bytes:
        """The server accepts the connection; what the client sends."""
        self.connection, self.transport = connected(self.session.handle)
        return self.transport.sent()

    def receive(self, *lines: str) -> list[str]:
        """The server sends lines; what is shown."""
        self.connection.data_received("".join(f"{line}\n" for line in lines).encode())
        return self.terminal.shown()

    def hang_up(self, error: Exception | None = None) -> list[str]:
        """The connection ends; what is shown."""
        self.connection.connection_lost(error)
        return self.terminal.shown()

    def type(self, text: str) -> list[str]:
        """A line is typed; what is shown."""
        return self.happen(LineEntered(text))

    def happen(self, event: TerminalEvent | Terminated | ConnectFailed) -> list[str]:
        """Handle an event; what is shown."""
        self.session.handle(event)
        return self.terminal.shown()

    def expire(self) -> list[str]:
        """The time of the state is up; what is shown."""
        (timer,) = self.runtime.running_timers
        timer.cancelled = True
        self.session.handle(TimerExpired())
        return self.terminal.shown()

    @property
    def timer_s(self) -> float | None:
        """The seconds of the one timer that runs."""
        seconds = [timer.seconds for timer in self.runtime.running_timers]
        assert len(seconds) <= 1
        return seconds[0] if seconds else None

    @property
    def exit_code(self) -> ExitCode | None:
        return self.runtime.exit_code


def online(plan: Plan = PLAN, *, interactive: bool = True) -> Run:
    """A session that has just logged in."""
    run = Run(plan, interactive=interactive)
    run.accept()
    run.receive("OK", "USER alice", "PONG end-of-users")
    run.transport.sent()
    return run


def refused(address: str = "chat.example:4000") -> ConnectFailed:
    return ConnectFailed(f"Connection refused by {address}.")


# Questions.


def test_missing_options_are_asked_for() -> None:
    run = Run(Plan(None, None, None, None, None))
    run.type("")
    run.type("5000")
    assert run.runtime.addresses == []
    run.type(" alice ")
    assert run.terminal.questions == [
        "Server host (default: localhost): ",
        "Server port (default: 4000): ",
        "Enter your username: ",
    ]
    assert run.runtime.addresses == [Address("localhost", 5000)]
    # The port suggests the dialect.
    assert run.accept() == b"alice\n"


def test_a_port_in_the_answer_is_not_asked_for_again() -> None:
    run = Run(Plan(None, None, "json", "alice", None))
    run.type("[::1]:7777")
    assert run.runtime.addresses == [Address("::1", 7777)]
    run = Run(Plan(None, None, "json", "alice", None))
    run.type("::1")
    assert run.terminal.questions[-1] == "Server port (default: 12345): "
    run.type("")
    assert run.runtime.addresses == [Address("::1", 12345)]


@pytest.mark.parametrize(
    ("dialect", "port", "login"),
    [
        (None, 4000, b"LOGIN alice\n"),
        ("line", 4000, b"LOGIN alice\n"),
        ("json", 12345, b'{"type": "join", "username": "alice"}\n'),
        ("slash", 5000, b"alice\n"),
    ],
)
def test_a_missing_port_is_the_default_of_the_dialect(dialect: str | None, port: int, login: bytes) -> None:
    run = Run(Plan("chat.example", None, dialect, "alice", None))
    assert run.runtime.addresses == [Address("chat.example", port)]
    assert run.accept() == login


def test_an_invalid_answer_is_explained_and_the_question_asked_again() -> None:
    run = Run(Plan(None, None, None, None, None))
    assert run.type("no host") == ["! Invalid address 'no host': use HOST or HOST:PORT."]
    run.type("chat.example")
    assert run.type("70000") == ["! Invalid port '70000': use a number from 1 to 65535."]
    run.type("")
    for name in ("", "al ice", "a!b", "a\x1bb", "/quit", "x" * 21):
        (error,) = run.type(name)
        assert error == f"! Invalid name {name!r}: use 1 to 20 letters, digits, '_', '-' or '.'."
    assert run.happen(LineUnreadable("Not UTF-8.")) == ["! Not UTF-8."]
    assert [question.split()[1] for question in run.terminal.questions] == [
        *["host", "host", "port", "port"],
        *["your"] * 8,
    ]
    assert run.runtime.addresses == []


@pytest.mark.parametrize(
    "name", ["alice", "a", "x" * 20, "Zoë", "日本", "a_b-c.d", "नमस्ते", "7", "e\u0301" * 20]
)
def test_a_valid_name_is_sent_at_once(name: str) -> None:
    run = Run(Plan("chat.example", 4000, None, name, None))
    assert run.terminal.questions == []
    assert run.accept().startswith(b"LOGIN ")


def test_a_name_is_sent_as_everyone_will_see_it() -> None:
    assert Run(Plan("h", 4000, None, " ｅ\u0301va ", None)).accept() == "LOGIN éva\n".encode()


def test_an_invalid_name_ends_a_script_before_it_connects() -> None:
    run = Run(Plan("chat.example", 4000, None, "a b", None), interactive=False)
    assert run.exit_code is ExitCode.FAILED
    assert run.runtime.addresses == []


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (Interrupted(), ExitCode.INTERRUPTED),
        (InputEnded(), ExitCode.FAILED),
        (Terminated(), ExitCode.TERMINATED),
        (OutputClosed(), ExitCode.FAILED),
    ],
)
@pytest.mark.parametrize("connecting", [False, True])
def test_a_session_that_was_never_online_ends_without_a_goodbye(
    event: TerminalEvent | Terminated, code: ExitCode, connecting: bool
) -> None:
    run = Run(PLAN if connecting else Plan(None, None, None, None, None))
    assert run.happen(event) == []
    assert run.exit_code is code


# Connecting and logging in.


def test_a_person_is_welcomed_and_shown_who_is_there() -> None:
    run = Run()
    assert run.session.prompt == "alice (offline)> "
    assert run.accept() == b"LOGIN alice\n"
    assert run.timer_s == LOGIN_TIMEOUT_S
    assert run.receive("OK") == WELCOME
    assert run.timer_s is None
    assert run.transport.sent() == b"WHO\nPING end-of-users\n"
    assert run.receive("USER bob", "USER alice", "PONG end-of-users") == ["👥 2 here: bob, alice"]
    assert run.session.prompt == "alice> "
    assert list(run.session.others) == ["bob"]
    assert run.terminal.requested_lines == 1


def test_the_name_is_the_one_that_everyone_else_sees() -> None:
    run = Run(Plan("chat.example", 12345, None, "alice", None))
    run.accept()
    assert run.receive('{"type": "welcome", "message": "hi", "users": ["Alice"]}') == [
        "✅ Welcome to the chat, Alice!",
        WELCOME[1],
        "👥 1 here: Alice",
    ]
    assert run.session.prompt == "Alice> "


def test_a_script_is_not_welcomed() -> None:
    run = Run(interactive=False)
    assert run.accept() == b"LOGIN alice\n"
    assert run.receive("OK") == []
    assert run.transport.sent() == b""
    assert run.terminal.requested_lines == 1


@pytest.mark.parametrize("interactive", [False, True])
def test_a_failed_first_connection_ends_the_session(interactive: bool) -> None:
    run = Run(interactive=interactive)
    assert run.happen(refused()) == ["! Connection refused by chat.example:4000."]
    assert run.exit_code is ExitCode.FAILED


@pytest.mark.parametrize(
    ("last_words", "reason"),
    [
        (["ERR server-full"], "Login failed: the server is full."),
        (
            ["ERR too-many-connections"],
            "Login failed: the server has too many connections from this address.",
        ),
        (["INFO server-shutdown"], "Login failed: the server is shutting down."),
        ([], "Login failed: the server closed it."),
        (["220 mail", "what?"], 'Login failed: the server closed it. The server said: "220 mail".'),
        (["x" * 99], f'Login failed: the server closed it. The server said: "{"x" * 60}".'),
    ],
)
def test_a_failed_login_says_why(last_words: list[str], reason: str) -> None:
    run = Run()
    run.accept()
    run.receive(*last_words)
    assert run.hang_up() == [f"! {reason}"]
    assert run.exit_code is ExitCode.FAILED


def test_a_login_that_is_not_answered_fails() -> None:
    run = Run()
    run.accept()
    run.receive("220 ready")
    assert run.expire() == ['! No answer to the login within 10 s. The server said: "220 ready".']
    assert run.exit_code is ExitCode.FAILED
    assert run.transport.closed


@pytest.mark.parametrize(
    ("dialect", "greeting", "welcome"),
    [
        ("line", "INFO Be kind. \x1b[31m", "OK"),
        ("line", "INFO ann disconnected", "OK"),
        ("slash", "[info] Be kind. \x1b[31m", "Connected! Type /help for commands"),
    ],
)
def test_a_greeting_is_shown_once_and_safely(dialect: str, greeting: str, welcome: str) -> None:
    run = Run(Plan("chat.example", 4000, dialect, "alice", None))
    run.accept()
    shown = run.receive(greeting)
    expected = {"line": greeting.removeprefix("INFO "), "slash": greeting.removeprefix("[info] ")}[dialect]
    assert shown == ["💡 " + expected.replace("\x1b", "�")]
    assert run.receive(welcome)[0] == "✅ Welcome to the chat, alice!"
    run.hang_up()
    run.expire()
    run.accept()
    assert run.receive(greeting) == []
    assert run.receive(welcome)[0] == "✅ Reconnected as alice."


def test_a_script_does_not_show_the_greeting() -> None:
    run = Run(interactive=False)
    run.accept()
    assert run.receive("INFO Be kind.") == []
    assert run.receive("OK") == []


def test_a_line_that_is_too_long_does_not_disturb_the_login() -> None:
    run = Run()
    run.accept()
    run.connection.data_received(b"x" * 5_000_000 + b"\nOK\n")
    assert run.terminal.shown() == WELCOME


def test_a_refused_name_is_asked_for_again_on_the_same_connection() -> None:
    run = Run()
    run.accept()
    assert run.receive("ERR username-taken") == ["! The name alice is taken."]
    assert run.session.prompt == "Enter your username: "
    assert run.timer_s is None
    run.type("bob")
    assert run.transport.sent() == b"LOGIN bob\n"
    assert run.receive("ERR invalid-username") == ["! The server does not allow the name bob."]
    run.type("eve")
    run.receive("OK")
    assert run.session.prompt == "eve> "
    assert len(run.runtime.addresses) == 1


def test_a_server_that_hangs_up_during_the_question_is_connected_to_again() -> None:
    run = Run()
    run.accept()
    run.receive("ERR username-taken")
    assert run.hang_up() == []
    run.type("bob")
    assert len(run.runtime.addresses) == 2
    assert run.accept() == b"LOGIN bob\n"


def test_a_refused_name_ends_a_script() -> None:
    run = Run(interactive=False)
    run.accept()
    assert run.receive("ERR username-taken") == ["! The name alice is taken."]
    assert run.exit_code is ExitCode.FAILED
    assert run.transport.closed


def test_a_wrong_guess_of_the_dialect_is_corrected() -> None:
    run = Run()
    run.accept()
    assert run.receive('{"type": "error", "message": "Invalid JSON"}') == []
    assert run.transport.closed
    assert len(run.runtime.addresses) == 2
    assert run.accept() == b'{"type": "join", "username": "alice"}\n'


def test_a_guess_is_corrected_once() -> None:
    run = Run()
    run.accept()
    run.receive("[error] Invalid username.")
    run.accept()
    assert run.receive("ERR unknown-command") == ["! The server speaks line: try --dialect line."]
    assert run.exit_code is ExitCode.FAILED


def test_a_wrong_dialect_on_the_command_line_is_not_corrected() -> None:
    run = Run(Plan("chat.example", 4000, "slash", "alice", None))
    run.accept()
    assert run.receive("ERR must-login-first") == ["! The server speaks line: try --dialect line."]
    assert run.exit_code is ExitCode.FAILED


# Online.


def test_typed_lines_are_sent_and_the_next_one_is_requested() -> None:
    run = online()
    assert run.type("hello") == ["[12:00:00] alice: hello"]
    assert run.type("  ") == []
    assert run.type("/nonsense") == ["! Unknown command /nonsense. /help lists the commands."]
    assert run.happen(LineUnreadable("Not UTF-8.")) == ["! Not UTF-8."]
    assert run.transport.sent() == b"MSG hello\n"
    run.receive("MSG bob hi")
    assert run.terminal.requested_lines == 5


def test_a_line_that_is_too_long_is_reported() -> None:
    run = online()
    run.connection.data_received(b"x" * 5_000_000 + b"\nMSG bob hi\n")
    assert run.terminal.shown() == [
        "! The server sent a line that is too long to show.",
        "[12:00:00] bob: hi",
    ]


def test_a_keep_alive_is_sent_when_nothing_else_was() -> None:
    run = online(Plan("chat.example", 4000, None, "alice", 20.0))
    assert run.timer_s == 20.0
    run.expire()
    assert run.transport.sent() == b"PING\n"
    assert run.timer_s == 20.0
    timers = len(run.runtime.timers)
    run.receive("MSG bob hi")
    assert len(run.runtime.timers) == timers
    run.type("hello")
    assert len(run.runtime.timers) == timers + 1
    assert run.timer_s == 20.0


def test_without_keep_alive_no_timer_runs() -> None:
    run = online()
    run.type("hello")
    assert run.timer_s is None


# Lost connections.


def test_a_script_ends_when_its_connection_is_lost() -> None:
    run = online(interactive=False)
    assert run.hang_up(ConnectionResetError(errno.ECONNRESET, "reset")) == [
        "! Lost the connection to chat.example:4000: connection reset by peer."
    ]
    assert run.exit_code is ExitCode.FAILED


def test_a_lost_connection_is_restored_with_growing_pauses() -> None:
    run = online()
    assert run.hang_up() == [
        "🔌 Lost the connection to chat.example:4000: the server closed it. Reconnecting in 0.5 s."
    ]
    assert run.session.prompt == "alice (offline)> "
    for pause_s in (0.5, 1, 2, 4, 8, 16, 30, 30):
        assert run.timer_s is not None
        assert 0.75 * pause_s <= run.timer_s <= pause_s
        run.expire()
        assert run.timer_s is None
        shown = run.happen(refused())
        next_s = min(pause_s * 2, 30)
        # The same news is not repeated.
        repeated = pause_s == 30
        news = f"🔌 Connection refused by chat.example:4000. Reconnecting in {next_s:g} s."
        assert shown == ([] if repeated else [news])
    run.expire()
    assert run.accept() == b"LOGIN alice\n"
    assert run.receive("OK") == ["✅ Reconnected as alice."]
    # The list of people is updated without being shown.
    assert run.transport.sent() == b"WHO\nPING end-of-users\n"
    assert run.receive("USER bob", "USER alice", "PONG end-of-users") == []
    assert list(run.session.others) == ["bob"]
    # The next loss begins with the shortest pause again.
    assert run.hang_up()[0].endswith("Reconnecting in 0.5 s.")


def test_the_pauses_are_scattered() -> None:
    pauses = set()
    for _ in range(20):
        run = online()
        run.hang_up()
        pauses.add(run.timer_s)
    assert len(pauses) > 1


def test_the_pauses_grow_to_a_longest_one() -> None:
    assert list(itertools.islice(backoff(), 9)) == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def reconnecting() -> Run:
    run = online()
    run.hang_up()
    run.expire()
    run.accept()
    return run


def test_a_name_that_the_server_still_holds_is_waited_for() -> None:
    run = reconnecting()
    assert run.receive("ERR username-taken") == [
        "🔌 The name alice is still in use on the server. Reconnecting in 1 s."
    ]
    assert run.transport.closed
    run.expire()
    run.accept()
    assert run.receive("OK") == ["✅ Reconnected as alice."]


def test_a_full_server_is_waited_for() -> None:
    run = reconnecting()
    run.receive("ERR server-full")
    assert run.hang_up() == ["🔌 Login failed: the server is full. Reconnecting in 1 s."]


def test_a_name_that_the_server_no_longer_allows_ends_the_session() -> None:
    run = reconnecting()
    assert run.receive("ERR invalid-username") == ["! The server does not allow the name alice."]
    assert run.exit_code is ExitCode.FAILED


def test_a_stopping_server_is_reconnected_to() -> None:
    run = online()
    run.receive("INFO server-shutdown")
    assert run.hang_up() == [
        "🔌 Lost the connection to chat.example:4000: the server is shutting down. Reconnecting in 0.5 s."
    ]


def test_events_of_an_old_connection_are_ignored() -> None:
    run = online()
    run.receive("ERR username-taken")
    old = run.connection
    run.hang_up()
    run.expire()
    run.accept()
    run.receive("OK")
    old.data_received(b"MSG eve boo\n")
    old.resume_writing()
    old.connection_lost(None)
    assert run.terminal.shown() == []
    assert run.session.prompt == "alice> "


def test_an_idle_person_reconnects_with_enter() -> None:
    run = online()
    run.receive("INFO idle-timeout")
    assert run.hang_up() == [
        (
            "🔌 Lost the connection to chat.example:4000: the server disconnected you for being idle. "
            "Press Enter to reconnect."
        )
    ]
    assert run.timer_s is None
    assert run.session.accepts("back again")
    assert run.type("/help")[0].startswith("/help")
    assert len(run.runtime.addresses) == 1
    run.type("back again")
    assert len(run.runtime.addresses) == 2
    run.accept()
    assert run.receive("OK") == ["✅ Reconnected as alice.", "[12:00:00] alice: back again"]
    assert run.transport.sent() == b"WHO\nPING end-of-users\nMSG back again\n"


@pytest.mark.parametrize(
    ("notice", "reason"),
    [
        ("INFO kicked", "an operator disconnected you"),
        ("INFO kicked for shouting", "an operator disconnected you"),
        ("ERR banned", "you are banned from the server"),
        ("INFO logged-in-elsewhere", "you have logged in elsewhere"),
    ],
)
def test_someone_who_was_thrown_out_does_not_reconnect(notice: str, reason: str) -> None:
    run = online()
    run.receive(notice)
    assert run.hang_up() == [f"! Lost the connection to chat.example:4000: {reason}."]
    assert run.exit_code is ExitCode.FAILED
    assert len(run.runtime.addresses) == 1


def test_someone_who_is_banned_meanwhile_does_not_try_again() -> None:
    run = online()
    run.hang_up()
    run.expire()
    run.accept()
    run.receive("ERR banned")
    assert run.hang_up() == ["! Login failed: you are banned from the server."]
    assert run.exit_code is ExitCode.FAILED


def test_a_blank_line_reconnects_and_sends_nothing() -> None:
    run = online()
    run.receive("INFO idle-timeout")
    run.hang_up()
    run.type("")
    assert run.happen(refused()) == ["🔌 Connection refused by chat.example:4000. Reconnecting in 0.5 s."]
    run.expire()
    run.accept()
    assert run.receive("OK") == ["✅ Reconnected as alice."]
    assert run.transport.sent() == b"WHO\nPING end-of-users\n"


def test_keep_alive_reconnects_by_itself_and_more_often() -> None:
    run = online(Plan("chat.example", 4000, None, "alice", 3.0))
    for interval_s in (1.5, 1.0, 1.0):
        run.receive("ERR idle-timeout")
        assert run.hang_up()[0].endswith("Reconnecting in 0.5 s.")
        run.expire()
        run.accept()
        run.receive("OK")
        assert run.timer_s == interval_s


def test_other_losses_do_not_change_the_keep_alive_interval() -> None:
    run = online(Plan("chat.example", 4000, None, "alice", 20.0))
    run.hang_up()
    run.expire()
    run.accept()
    run.receive("OK")
    assert run.timer_s == 20.0


def test_the_reason_of_one_connection_is_not_reported_for_the_next() -> None:
    run = online()
    run.receive("INFO server-shutdown")
    run.hang_up()
    run.expire()
    run.accept()
    run.receive("220 mail")
    assert run.hang_up() == [
        '🔌 Login failed: the server closed it. The server said: "220 mail". Reconnecting in 1 s.',
    ]
    run.expire()
    run.accept()
    assert run.hang_up() == ["🔌 Login failed: the server closed it. Reconnecting in 2 s."]


def test_a_message_is_not_accepted_without_a_connection() -> None:
    run = online()
    run.hang_up()
    for line in ("/quit", "/help", "  "):
        assert run.session.accepts(line)
    assert run.terminal.shown() == []
    assert not run.session.accepts("hello")
    assert run.terminal.shown() == [
        "! Not connected. Your line stays here until the connection is back.",
    ]
    # A terminal that cannot keep it delivers it all the same.
    requested = run.terminal.requested_lines
    assert run.type("hello") == ["! Not connected: the message was not sent."]
    assert run.type("") == []
    assert run.type("/help")[0].startswith("/help")
    assert run.happen(LineUnreadable("Not UTF-8.")) == ["! Not UTF-8."]
    assert run.terminal.requested_lines == requested + 4


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (LineEntered("/quit"), ExitCode.OK),
        (InputEnded(), ExitCode.OK),
        (Interrupted(), ExitCode.OK),
        (Terminated(), ExitCode.TERMINATED),
    ],
)
def test_a_person_can_leave_without_a_connection(event: TerminalEvent | Terminated, code: ExitCode) -> None:
    run = online()
    run.hang_up()
    assert run.happen(event) == ["👋 Goodbye, alice!"]
    assert run.exit_code is code
    assert run.timer_s is None


# Leaving.


@pytest.mark.parametrize(
    ("event", "code", "timeout_s"),
    [
        (LineEntered("/quit"), ExitCode.OK, GOODBYE_TIMEOUT_S),
        (InputEnded(), ExitCode.OK, GOODBYE_TIMEOUT_S),
        (Interrupted(), ExitCode.OK, GOODBYE_TIMEOUT_S),
        (Terminated(), ExitCode.TERMINATED, INTERRUPTED_TIMEOUT_S),
        (OutputClosed(), ExitCode.FAILED, INTERRUPTED_TIMEOUT_S),
    ],
)
def test_a_person_leaves_with_the_servers_goodbye_or_without_it(
    event: TerminalEvent | Terminated, code: ExitCode, timeout_s: float
) -> None:
    goodbye = [] if code is ExitCode.FAILED else ["👋 Goodbye, alice!"]
    for end in ("goodbye", "hang up", "timeout", "impatience"):
        run = online()
        assert run.happen(event) == []
        assert run.transport.sent() == b"QUIT\n"
        assert run.timer_s == timeout_s
        assert run.receive("MSG bob wait") == ["[12:00:00] bob: wait"]
        assert run.exit_code is None
        match end:
            case "goodbye":
                shown = run.receive("Goodbye!")
            case "hang up":
                shown = run.hang_up()
            case "timeout":
                shown = run.expire()
            case _:
                shown = run.happen(Interrupted())
        assert shown == goodbye
        assert run.exit_code is code
        assert run.timer_s is None
        assert run.transport.closed or end == "hang up"


def test_nothing_typed_while_leaving_is_sent() -> None:
    run = online()
    run.type("/quit")
    run.transport.sent()
    assert run.session.accepts("wait")
    assert run.type("wait") == []
    assert run.transport.sent() == b""


def test_nothing_happens_after_the_end() -> None:
    run = online()
    run.type("/quit")
    run.receive("Goodbye!", "MSG bob too late")
    for event in (LineEntered("x"), Interrupted(), Terminated(), OutputClosed()):
        assert run.happen(event) == []
    other, transport = connected(lambda event: None)
    run.session.handle(Connected(other))
    assert transport.sent() == b""
    assert run.exit_code is ExitCode.OK


# Scripts.


def test_a_script_succeeds_when_everything_was_answered() -> None:
    run = online(interactive=False)
    run.type("hello")
    run.happen(InputEnded())
    assert run.transport.sent() == b"MSG hello\nQUIT\n"
    assert run.receive("Goodbye!") == []
    assert run.exit_code is ExitCode.OK


def test_each_received_line_restarts_the_timeout_of_a_script() -> None:
    run = online(interactive=False)
    run.happen(InputEnded())
    timers = len(run.runtime.timers)
    run.receive("MSG bob one")
    run.receive("MSG bob two")
    assert len(run.runtime.timers) == timers + 2
    assert run.timer_s == SCRIPT_TIMEOUT_S


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        ("hang up", "The server closed the connection before it had answered everything"),
        ("timeout", "The server has not answered for 30 s"),
        ("interrupt", "Interrupted before the server had answered everything"),
    ],
)
def test_a_script_fails_without_the_servers_goodbye(end: str, problem: str) -> None:
    run = online(interactive=False)
    run.happen(InputEnded())
    match end:
        case "hang up":
            shown = run.hang_up()
        case "timeout":
            shown = run.expire()
        case _:
            shown = run.happen(Interrupted())
    assert shown == [f"! {problem}: the last lines may not have been delivered."]
    assert run.exit_code is ExitCode.FAILED


def test_a_script_fails_when_a_line_was_refused() -> None:
    run = online(interactive=False)
    run.type("/dm nobody hi")
    assert run.receive("ERR user-not-found") == ["! No such user. /users lists everyone online."]
    run.happen(InputEnded())
    run.receive("Goodbye!")
    assert run.exit_code is ExitCode.FAILED


def test_an_interrupted_script_has_an_exit_code_of_its_own() -> None:
    run = online(interactive=False)
    run.happen(Interrupted())
    assert run.timer_s == INTERRUPTED_TIMEOUT_S
    assert run.receive("Goodbye!") == []
    assert run.exit_code is ExitCode.INTERRUPTED
    run = online(interactive=False)
    run.happen(Interrupted())
    assert run.hang_up() == []
    assert run.exit_code is ExitCode.INTERRUPTED


def feed(run: Run, lines: int) -> int:
    """Deliver each line that the session requests; how many it took."""
    delivered = 0
    while delivered < lines and run.terminal.requested_lines:
        run.terminal.requested_lines -= 1
        run.type(f"line {delivered}")
        delivered += 1
    return delivered


def test_a_script_is_no_further_ahead_than_two_unanswered_pings() -> None:
    run = online(interactive=False)
    assert feed(run, 1000) == LINES_PER_PING * MAX_UNANSWERED_PINGS
    sent = run.transport.sent()
    assert sent.count(b"PING\n") == MAX_UNANSWERED_PINGS
    assert sent.endswith(b"PING\n")
    # Each answer brings a few more lines.
    for _ in range(3):
        run.receive("PONG")
        assert feed(run, 1000) == LINES_PER_PING


def test_a_script_waits_while_the_send_buffer_is_full() -> None:
    run = online(interactive=False)
    run.connection.pause_writing()
    assert feed(run, 1000) == 1
    run.receive("MSG bob hi")
    assert feed(run, 1000) == 0
    run.connection.resume_writing()
    assert feed(run, 1000) > 0


def test_a_person_is_never_made_to_wait() -> None:
    run = online()
    run.connection.pause_writing()
    assert feed(run, 100) == 100
    assert b"PING" not in run.transport.sent()
