"""The session as a state machine: every question, refusal, loss and way to leave, without sockets, terminals or time."""

from __future__ import annotations

import itertools
import json

import pytest

from geventchat.chat.passwords import Secret
from geventchat.client.address import Address
from geventchat.client.connection import Connected, ConnectFailed, SpeaksTls, Writable
from geventchat.client.options import Options
from geventchat.client.outgoing_queue import MAX_UNDER_WAY
from geventchat.client.session import (
    CONNECT_TIMEOUT_S,
    DELIVERY_TIMEOUT_S,
    GOODBYE_TIMEOUT_S,
    INTERRUPTED_TIMEOUT_S,
    LOGIN_TIMEOUT_S,
    SEARCH_TIMEOUT_S,
    SECOND_INTERRUPT_S,
    ExitCode,
    Plan,
    Terminated,
    backoff,
)
from geventchat.client.terminal import (
    Cancelled,
    InputEnded,
    Interrupted,
    LineEntered,
    LineUnreadable,
    OutputClosed,
    Resumed,
    TerminalEvent,
)
from tests.client.recorders import DEFAULTS, PLAN, RecordingConnection, Run

NOTHING = Plan(None, None, None, None, None)
JSON = Plan("chat.example", 12345, "json", "alice", None)
WELCOME = [
    "✅ Welcome to the chat, alice!",
    "💡 Type a message and press Enter. /help lists the commands.",
]
WELCOME_2 = (
    '{"type": "welcome", "v": 2, "username": "alice", "epoch": "e1", "rooms": {"lobby": {"users": ["alice"], '
    '"user_count": 1, "last_id": 0, "replay_from": 1, "topic": ""}}, "timestamp_ms": 1}'
)


def online(plan: Plan = PLAN, *, interactive: bool = True, options: Options = DEFAULTS) -> Run:
    """A session that has just logged in, in `line`."""
    run = Run(plan, interactive=interactive, options=options)
    run.accept()
    run.receive("OK")
    if interactive:
        run.receive("USER alice", "PONG end-of-users", "OK")
    run.sent()
    return run


def refused(address: str = "chat.example:4000") -> ConnectFailed:
    return ConnectFailed(f"Connection refused by {address}.")


# Questions.


def test_missing_options_are_asked_for() -> None:
    run = Run(NOTHING)
    run.type("")
    run.type("5000")
    assert run.runtime.addresses == []
    run.type(" alice ")
    assert run.terminal.questions == [
        "Server host (default: localhost): ",
        "Server port (default: 12345, then 4000): ",
        "Enter your username: ",
    ]
    assert run.runtime.addresses == [Address("localhost", 5000)]
    # The port suggests the dialect.
    assert run.accept() == b"alice\n"


def test_what_the_answer_says_is_not_asked_for_again() -> None:
    run = Run(Plan(None, None, "json", "alice", None))
    run.type("[::1]:7777")
    assert run.runtime.addresses == [Address("::1", 7777)]
    run = Run(Plan(None, None, "json", "alice", None))
    run.type("::1")
    assert run.terminal.questions[-1] == "Server port (default: 12345): "
    run.type("")
    assert run.runtime.addresses == [Address("::1", 12345)]
    run = Run(NOTHING)
    run.type("json://alice@chat.example:7777/dev")
    assert run.runtime.addresses == [Address("chat.example", 7777)]
    assert json.loads(run.accept()) == {"type": "join", "v": 2, "username": "alice", "rooms": {"dev": None}}


@pytest.mark.parametrize(
    ("dialect", "port", "login"),
    [
        ("line", 4000, b"LOGIN alice\n"),
        ("json", 12345, b'{"type": "join", "v": 2, "username": "alice", "rooms": {"lobby": null}}\n'),
        ("slash", 5000, b"alice\n"),
    ],
)
def test_a_missing_port_is_the_default_of_the_dialect(dialect: str, port: int, login: bytes) -> None:
    run = Run(Plan("chat.example", None, dialect, "alice", None))
    assert run.runtime.addresses == [Address("chat.example", port)]
    assert run.accept() == login


def test_without_a_port_and_a_dialect_json_is_looked_for_first_and_then_line() -> None:
    run = Run(Plan("chat.example", None, None, "alice", None))
    assert run.runtime.timeouts == [SEARCH_TIMEOUT_S]
    assert run.happen(refused()) == []
    assert run.runtime.addresses == [Address("chat.example", 12345), Address("chat.example", 4000)]
    assert run.runtime.timeouts[-1] == CONNECT_TIMEOUT_S
    assert run.accept() == b"LOGIN alice\n"
    assert run.receive("OK") == WELCOME
    # Where it was found once it is looked for again.
    run.hang_up()
    run.wait(1)
    assert run.runtime.addresses[-1] == Address("chat.example", 4000)


def test_over_tls_a_server_is_looked_for_in_the_same_places() -> None:
    run = Run(Plan("chat.example", None, None, "alice", tls=True))
    run.happen(refused())
    assert run.runtime.addresses == [
        Address("chat.example", 12345, tls=True),
        Address("chat.example", 4000, tls=True),
    ]
    run = Run(NOTHING)
    run.type("chats://alice@chat.example:7")
    assert run.runtime.addresses == [Address("chat.example", 7, tls=True)]


def test_a_server_that_was_found_and_cannot_be_trusted_is_not_looked_for_elsewhere() -> None:
    run = Run(Plan("chat.example", None, None, "alice", tls=True))
    assert run.happen(ConnectFailed("The certificate has expired.", final=True)) == [
        "❌ The certificate has expired."
    ]
    assert run.exit_code == ExitCode.FAILED
    # After a loss, it can have a new one soon.
    run = online()
    run.hang_up()
    run.wait(1)
    run.happen(ConnectFailed("The certificate has expired.", final=True))
    assert "Attempt 1 failed: The certificate has expired. Next attempt in" in run.entries()[-1]


@pytest.mark.parametrize("interactive", [True, False])
def test_a_server_that_speaks_only_tls_is_named(interactive: bool) -> None:
    run = Run(Plan("chat.example", None, None, "alice"), interactive=interactive)
    run.accept()
    assert run.happen(SpeaksTls(run.connection)) == [
        f"{'❌' if interactive else '!'} chat.example:12345 speaks TLS: use chats://chat.example:12345."
    ]
    assert run.exit_code == ExitCode.FAILED


@pytest.mark.parametrize("lines", [[], ["220 mail"]])
def test_something_else_on_the_port_of_json_is_passed_over(lines: list[str]) -> None:
    run = Run(Plan("chat.example", None, None, "alice", None))
    run.accept()
    assert run.receive(*lines) == []
    assert run.wait(SEARCH_TIMEOUT_S) == []
    assert run.connection.closed
    assert run.runtime.addresses[-1] == Address("chat.example", 4000)
    assert run.happen(refused()) == ["❌ Connection refused by chat.example:4000."]
    assert run.exit_code is ExitCode.FAILED


def test_an_invalid_answer_is_explained_and_the_question_asked_again() -> None:
    run = Run(NOTHING)
    assert run.type("no host") == ["❌ Invalid address 'no host': use HOST or HOST:PORT."]
    run.type("chat.example")
    assert run.type("70000") == ["❌ Invalid port '70000': use a number from 1 to 65535."]
    run.type("")
    for name in ("", "al ice", "a!b", "a\x1bb", "/quit", "x" * 21):
        (error,) = run.type(name)
        assert error == f"❌ Invalid name {name!r}: use 1 to 20 letters, digits, '_', '-' or '.'."
    assert run.happen(LineUnreadable("Not UTF-8.")) == ["❌ Not UTF-8."]
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
    run = Run(PLAN if connecting else NOTHING)
    assert run.happen(event) == []
    assert run.exit_code is code


# Connecting and logging in.


def test_a_login_shows_a_welcome_and_the_people_in_the_room() -> None:
    run = Run()
    assert run.session.prompt == "alice (offline)> "
    assert run.accept() == b"LOGIN alice\n"
    assert run.receive("OK") == WELCOME
    assert run.sent() == b"WHO\nPING end-of-users\nHISTORY 50\n"
    assert run.receive("USER bob", "USER alice", "PONG end-of-users") == ["👥 2 here: bob, alice"]
    assert run.receive("OK") == []
    assert run.session.prompt == "alice> "
    assert list(run.session.conversation.others) == ["bob"]
    assert run.terminal.requested_lines == 1
    assert run.status == []


def test_the_name_is_the_one_that_everyone_else_sees() -> None:
    run = Run(Plan("chat.example", 12345, None, "alice", None))
    run.accept()
    assert run.receive('{"type": "welcome", "message": "hi", "users": ["Alice"]}') == [
        "✅ Welcome to the chat, Alice!",
        WELCOME[1],
        "👥 1 here: Alice",
    ]
    assert run.session.prompt == "Alice> "


def test_a_server_that_speaks_only_version_1_of_json_is_understood() -> None:
    run = Run(JSON)
    run.accept()
    assert run.receive('{"type": "error", "message": "Username already taken"}') == [
        "❌ The name alice is taken."
    ]
    run.type("bob")
    assert json.loads(run.sent())["username"] == "bob"
    run.receive('{"type": "welcome", "message": "hi", "users": ["bob"]}')
    run.type("hello")
    assert run.sent() == b'{"type": "chat", "message": "hello"}\n{"type": "ping"}\n'


def test_a_script_is_not_welcomed() -> None:
    run = Run(interactive=False)
    assert run.accept() == b"LOGIN alice\n"
    assert run.receive("OK") == []
    assert run.sent() == b""
    assert run.terminal.requested_lines == 1


@pytest.mark.parametrize("interactive", [False, True])
def test_a_failed_first_connection_ends_the_session(interactive: bool) -> None:
    run = Run(interactive=interactive)
    (error,) = run.happen(refused())
    assert error[2:] == "Connection refused by chat.example:4000."
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
    assert run.hang_up() == [f"❌ {reason}"]
    assert run.exit_code is ExitCode.FAILED


def test_a_login_that_is_not_answered_fails() -> None:
    run = Run()
    run.accept()
    run.receive("220 ready")
    assert run.wait(LOGIN_TIMEOUT_S) == [
        '❌ No answer to the login within 10 s. The server said: "220 ready".'
    ]
    assert run.exit_code is ExitCode.FAILED
    assert run.connection.closed


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
    run.wait(1)
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
    assert run.receive("x" * 2_000_000, "OK") == WELCOME


def test_a_refused_name_is_asked_for_again_on_the_same_connection() -> None:
    run = Run()
    run.accept()
    assert run.receive("ERR username-taken") == ["❌ The name alice is taken."]
    assert run.session.prompt == "Enter your username: "
    assert run.session.deadline is None
    run.type("bob")
    assert run.sent() == b"LOGIN bob\n"
    assert run.receive("ERR invalid-username") == ["❌ The server does not allow the name bob."]
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
    assert run.connection.closed


def test_a_wrong_guess_of_the_dialect_is_corrected() -> None:
    run = Run()
    run.accept()
    assert run.receive('{"type": "error", "message": "Invalid JSON"}') == []
    assert run.connection.closed
    assert len(run.runtime.addresses) == 2
    assert json.loads(run.accept())["v"] == 2


def test_a_guess_is_corrected_once() -> None:
    run = Run()
    run.accept()
    run.receive("[error] Invalid username.")
    run.accept()
    assert run.receive("ERR unknown-command") == ["❌ The server speaks line: try --dialect line."]
    assert run.exit_code is ExitCode.FAILED


def test_a_wrong_dialect_on_the_command_line_is_not_corrected() -> None:
    run = Run(Plan("chat.example", 4000, "slash", "alice", None))
    run.accept()
    assert run.receive("ERR must-login-first") == ["❌ The server speaks line: try --dialect line."]
    assert run.exit_code is ExitCode.FAILED


# Passwords.


def test_a_name_that_belongs_to_an_account_needs_its_password_which_is_hidden() -> None:
    run = Run()
    run.accept()
    assert run.receive("ERR password-required") == []
    assert (run.session.hidden, run.session.prompt) == (True, "Password for alice (empty: another name): ")
    run.type("wrong horse")
    assert run.sent() == b"LOGIN alice wrong horse\n"
    assert run.receive("ERR wrong-password") == ["❌ The password is wrong."]
    run.type("right horse")
    assert run.sent() == b"LOGIN alice right horse\n"
    assert run.receive("OK") == WELCOME
    assert not run.session.hidden
    # A reconnect does not ask again.
    run.hang_up()
    run.wait(1)
    assert run.accept() == b"LOGIN alice right horse\n"


def test_no_password_leads_to_another_name() -> None:
    run = Run()
    run.accept()
    run.receive("ERR password-required")
    run.type("")
    assert (run.session.hidden, run.session.prompt) == (False, "Enter your username: ")
    run.type("bob")
    assert run.sent() == b"LOGIN bob\n"


def test_a_script_takes_the_password_from_its_environment_or_fails() -> None:
    run = Run(Plan("chat.example", 4000, "line", "alice", Secret("correct horse")), interactive=False)
    assert run.accept() == b"LOGIN alice\n"
    run.receive("ERR password-required")
    assert run.sent() == b"LOGIN alice correct horse\n"
    assert run.receive("ERR wrong-password") == ["! The password is wrong."]
    assert run.exit_code is ExitCode.FAILED
    run = Run(interactive=False)
    run.accept()
    assert run.receive("ERR password-required") == ["! The name belongs to someone and needs a password."]
    assert run.exit_code is ExitCode.FAILED


def test_registering_asks_twice_and_shows_nothing() -> None:
    run = online()
    assert run.type("/register") == []
    assert (run.session.hidden, run.session.prompt) == (True, "New password: ")
    assert run.type("correct horse") == []
    assert run.session.prompt == "Once more: "
    assert run.type("correct house") == ["❌ The two are not the same: nothing was changed."]
    assert run.sent() == b""
    run.type("/register")
    run.type("correct horse")
    run.type("correct horse")
    assert run.sent() == b"REGISTER correct horse\n"
    assert run.receive("OK") == ["✅ The name is yours now: logging in with it needs the password."]
    assert not run.session.asking
    # From now on the name needs it.
    run.hang_up()
    run.wait(1)
    assert run.accept() == b"LOGIN alice correct horse\n"


def test_a_password_that_is_refused_is_not_used() -> None:
    run = online()
    run.type("/register")
    run.type("short")
    run.type("short")
    (error,) = run.receive("ERR weak-password")
    assert error.startswith("❌ The server does not allow this password")
    run.hang_up()
    run.wait(1)
    assert run.accept() == b"LOGIN alice\n"


def test_changing_a_password_asks_for_both() -> None:
    run = online()
    run.type("/password")
    assert run.session.prompt == "Password until now: "
    run.type("old horse")
    run.type("new horse")
    run.type("new horse")
    assert run.sent() == b"PASSWORD old horse new horse\n"


def test_an_answer_is_not_completed() -> None:
    run = online()
    assert run.session.complete("/reg").candidates == ["/register"]
    run.type("/register")
    assert run.session.complete("/reg").candidates == ()
    assert run.sent() == b""


@pytest.mark.parametrize("event", [Cancelled(), InputEnded()])
def test_leaving_at_the_question_of_a_reconnection_warns_of_what_was_not_said(event: TerminalEvent) -> None:
    run = online()
    run.hang_up()
    run.type("not said yet")
    run.wait(1)
    run.accept()
    run.receive("ERR password-required")
    assert run.session.prompt.startswith("Password for alice")
    assert run.happen(event) == ["❌ 1 of your messages were not said. Leave again to lose them."]
    assert run.session.asking
    run.happen(event)
    assert run.exit_code is ExitCode.OK


@pytest.mark.parametrize("event", [Cancelled(), Interrupted()])
def test_a_question_can_be_cancelled(event: TerminalEvent) -> None:
    run = online()
    run.type("/register")
    assert run.happen(event) == []
    assert not run.session.asking
    assert run.exit_code is None
    run.type("hello")
    assert run.sent().startswith(b"MSG hello\n")


def test_a_terminal_that_echoes_does_not_take_a_password_behind_the_command() -> None:
    run = Run(echoes_input=True)
    run.accept()
    run.receive("OK")
    run.sent()
    assert run.type("/register correct horse") == [
        "❌ Passwords are not shown here: type the command alone, and it asks for them."
    ]
    assert run.sent() == b""


# Online.


def test_typed_lines_are_sent_and_the_next_one_is_requested() -> None:
    run = online()
    assert run.type("hello") == []
    assert run.sent() == b"MSG hello\nPING 3\n"
    assert run.receive("PONG 3") == ["[12:00:00] alice: hello"]
    assert run.type("  ") == []
    assert run.type("/nonsense") == ["❌ Unknown command /nonsense. /help lists the commands."]
    assert run.type("/conect") == ["❌ Unknown command /conect. /help lists the commands."]
    assert run.type("/jion dev") == [
        "❌ Unknown command /jion. Did you mean /join? /help lists the commands."
    ]
    assert run.happen(LineUnreadable("Not UTF-8.")) == ["❌ Not UTF-8."]
    assert run.sent() == b""
    assert run.terminal.requested_lines == 7


def test_a_line_that_is_too_long_is_reported() -> None:
    run = online()
    assert run.receive("x" * 2_000_000, "MSG bob hi") == [
        "❌ The server sent a line that is too long to show.",
        "[12:00:00] bob: hi",
    ]


@pytest.mark.parametrize("interactive", [True, False])
def test_a_client_that_only_reads_is_kept_alive(interactive: bool) -> None:
    """Also a script, and without being asked to."""
    run = online(interactive=interactive)
    run.wait(Options().keep_alive - 1)
    assert run.sent() == b""
    run.wait(1)
    ping = run.sent()
    # In `line` a list of people is as good a sign, and shows who has entered.
    assert ping == (b"WHO\nPING end-of-users\n" if interactive else b"PING\n")
    assert run.receive("USER bob", "PONG end-of-users" if interactive else "PONG") == []
    run.wait(Options().keep_alive)
    assert run.sent() == ping
    assert run.exit_code is None


def test_what_is_sent_postpones_the_keep_alive_and_what_is_received_does_not() -> None:
    run = online()
    run.wait(15)
    run.type("hello")
    run.receive("PONG 3")
    run.sent()
    run.wait(15)
    run.receive("MSG bob hi")
    assert run.sent() == b""
    run.wait(5)
    assert run.sent() != b""


def test_without_keep_alive_nothing_is_scheduled() -> None:
    run = online(options=Options(keep_alive=0.0))
    assert run.session.deadline is None


# A server that does not answer.


def test_a_missing_answer_is_shown_then_the_client_reconnects_and_sends_again_what_was_not_said() -> None:
    run = Run(JSON)
    run.accept()
    run.receive(WELCOME_2)
    run.type("/ping")
    run.receive('{"type": "pong", "ref": "1"}')
    run.type("hello")
    chat = json.loads(run.sent().splitlines()[-1])
    assert chat == {"type": "chat", "room": "lobby", "message": "hello", "key": "k1", "ref": "2"}
    assert run.status == []
    run.wait(4)
    assert run.status == ["no answer for 4 s", "1 not confirmed"]
    shown = run.wait(26)
    assert shown == [
        "🔌 Lost the connection to chat.example:12345: no answer for 30 s. Next attempt in 0.5 s."
    ]
    assert run.connection.closed
    run.wait(0.5)
    assert json.loads(run.accept())["rooms"] == {"lobby": 0}
    run.receive(WELCOME_2)
    again = [json.loads(line) for line in run.sent().splitlines()]
    # The same key: if the old connection had said it after all, it would not be said twice.
    assert [(one["message"], one["key"]) for one in again if one["type"] == "chat"] == [("hello", "k1")]


def test_the_seconds_without_an_answer_are_counted_on_the_screen() -> None:
    run = online(options=Options(keep_alive=0.0, reconnect_after=0.0))
    run.type("hello")
    began = run.ticking.seconds
    for second in (3, 4, 5):
        assert run.session.deadline == began + second
        refreshed = run.terminal.refreshed
        run.wait(began + second - run.ticking.seconds)
        assert run.terminal.refreshed > refreshed
        assert run.status[0] == f"no answer for {second} s"


def test_a_server_that_was_slow_is_not_given_up() -> None:
    run = online()
    run.type("hello")
    run.wait(20)
    run.receive("MSG bob hi")
    run.wait(20)
    assert run.status == ["no answer for 20 s", "1 not confirmed"]
    run.receive("PONG 3")
    assert run.status == []
    assert len(run.runtime.addresses) == 1


def test_a_long_answer_over_a_slow_link_is_not_silence() -> None:
    run = Run()
    run.accept()
    for _ in range(10):
        run.wait(9)
        run.receive_part()
    run.receive("OK", "PONG end-of-users")
    run.type("hello")
    for _ in range(20):
        run.wait(2.5)
        run.receive_part()
    assert run.status == []
    assert len(run.runtime.addresses) == 1


def test_a_server_that_never_answers_pings_is_not_given_up() -> None:
    run = Run()
    run.accept()
    run.receive("OK")
    run.wait(100)
    assert len(run.runtime.addresses) == 1


def test_the_limit_can_be_turned_off() -> None:
    run = online(options=Options(reconnect_after=0.0))
    run.type("hello")
    run.wait(1000)
    assert run.status == ["no answer for 1000 s", "1 not confirmed"]


def test_the_time_during_which_this_program_was_stopped_is_not_the_servers_silence() -> None:
    run = online()
    run.type("hello")
    run.ticking.seconds += 1000
    run.happen(Resumed())
    run.wait(1)
    assert run.status == []
    assert len(run.runtime.addresses) == 1


def test_a_script_fails_when_the_server_does_not_answer() -> None:
    run = online(interactive=False)
    run.type("/ping")
    run.receive("PONG")
    run.type("hello")
    assert run.wait(30) == ["! Lost the connection to chat.example:4000: no answer for 30 s."]
    assert run.exit_code is ExitCode.FAILED


# Lost connections.


def test_a_script_ends_when_its_connection_is_lost() -> None:
    run = online(interactive=False)
    assert run.hang_up("connection reset by peer") == [
        "! Lost the connection to chat.example:4000: connection reset by peer."
    ]
    assert run.exit_code is ExitCode.FAILED


def test_a_lost_connection_is_restored_with_growing_pauses_and_one_line_that_counts() -> None:
    run = online()
    lost = "🔌 Lost the connection to chat.example:4000: the server closed it."
    assert run.hang_up() == [f"{lost} Next attempt in 0.5 s."]
    assert run.session.prompt == "alice (offline)> "
    for attempt, pause_s in enumerate((0.5, 1, 2, 4, 8, 16, 30, 30), 1):
        at = run.ticking.seconds
        while len(run.runtime.addresses) == attempt:
            assert run.wait(0.01) == []
        assert 0.74 * pause_s <= run.ticking.seconds - at <= pause_s + 0.02
        assert run.happen(refused()) == []
        # One line, however often it fails.
        (line,) = [entry for entry in run.entries() if entry.startswith("🔌")]
        assert line.startswith(
            f"{lost} Attempt {attempt} failed: Connection refused by chat.example:4000. Next"
        )
        assert run.status[0].startswith(f"offline: attempt {attempt + 1} in ")
    run.wait(30)
    assert run.status == ["connecting: attempt 9"]
    assert run.accept() == b"LOGIN alice\n"
    assert run.receive("OK") == ["✅ Reconnected as alice after 9 attempts."]
    # The list of people is updated without being shown.
    assert run.sent() == b"WHO\nPING end-of-users\nHISTORY 200\n"
    assert run.receive("USER bob", "USER alice", "PONG end-of-users", "OK") == []
    assert list(run.session.conversation.others) == ["bob"]
    # The next loss begins with the shortest pause again.
    assert run.hang_up()[0].endswith("Next attempt in 0.5 s.")


def test_the_seconds_until_the_next_attempt_are_counted() -> None:
    run = online()
    run.hang_up()
    for _ in range(5):
        run.wait(40)
        run.happen(refused())
    seen = set()
    for _ in range(20):
        run.wait(1)
        seen.add(run.entries()[-1].rsplit("in ", 1)[1])
    assert len(seen) >= 10


def test_the_pauses_are_scattered() -> None:
    pauses = set()
    for _ in range(20):
        run = online()
        run.hang_up()
        while len(run.runtime.addresses) == 1:
            run.wait(0.005)
        pauses.add(round(run.ticking.seconds, 3))
    assert len(pauses) > 1


def test_the_pauses_grow_to_a_longest_one() -> None:
    assert list(itertools.islice(backoff(), 9)) == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def reconnecting() -> Run:
    run = online()
    run.hang_up()
    run.wait(1)
    run.accept()
    return run


def test_a_name_that_the_server_still_holds_is_waited_for() -> None:
    run = reconnecting()
    assert run.receive("ERR username-taken") == []
    assert "The name alice is still in use on the server." in run.entries()[-1]
    assert run.connection.closed
    run.wait(1)
    run.accept()
    assert run.receive("OK") == ["✅ Reconnected as alice after 2 attempts."]


def test_a_full_server_is_waited_for() -> None:
    run = reconnecting()
    run.receive("ERR server-full")
    assert run.hang_up() == []
    assert "Attempt 1 failed: Login failed: the server is full." in run.entries()[-1]


def test_a_name_that_the_server_no_longer_allows_ends_the_session() -> None:
    run = reconnecting()
    assert run.receive("ERR invalid-username") == ["❌ The server does not allow the name alice."]
    assert run.exit_code is ExitCode.FAILED
    assert run.terminal.has_left_screen


def test_a_stopping_server_is_reconnected_to() -> None:
    run = online()
    run.receive("INFO server-shutdown")
    assert run.hang_up() == [
        "🔌 Lost the connection to chat.example:4000: the server is shutting down. Next attempt in 0.5 s."
    ]


def test_events_of_an_old_connection_are_ignored() -> None:
    run = online()
    old = run.connection
    run.hang_up()
    run.wait(1)
    run.accept()
    run.receive("OK")
    new, run.connection = run.connection, old
    assert run.receive("MSG eve boo") == []
    assert run.happen(Writable(old)) == []
    assert run.hang_up() == []
    run.connection = new
    assert run.session.prompt == "alice> "


def test_an_idle_person_without_keep_alive_reconnects_with_enter() -> None:
    run = online(options=Options(keep_alive=0.0))
    run.receive("INFO idle-timeout")
    assert run.hang_up() == [
        (
            "🔌 Lost the connection to chat.example:4000: the server disconnected you for being idle. "
            "Press Enter to reconnect."
        )
    ]
    assert run.session.deadline is None
    assert run.status == ["offline: Enter connects"]
    run.type("back again")
    assert len(run.runtime.addresses) == 2
    run.accept()
    assert run.receive("OK") == ["✅ Reconnected as alice."]
    assert b"MSG back again\n" in run.sent()


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
    assert run.hang_up() == [f"❌ Lost the connection to chat.example:4000: {reason}."]
    assert run.exit_code is ExitCode.FAILED
    assert len(run.runtime.addresses) == 1


def test_a_client_does_not_reconnect_if_a_kick_from_a_room_is_followed_by_the_end() -> None:
    run = online()
    run.type("/join dev")
    run.receive("OK")
    assert run.receive("INFO kicked for shouting") == ["❌ You were kicked from dev: for shouting"]
    run.hang_up()
    assert run.exit_code is ExitCode.FAILED


def test_a_client_stops_reconnecting_when_it_is_banned() -> None:
    run = reconnecting()
    run.receive("ERR banned")
    assert run.hang_up() == ["❌ Login failed: you are banned from the server."]
    assert run.exit_code is ExitCode.FAILED


def test_a_blank_line_reconnects_and_sends_nothing() -> None:
    run = online(options=Options(keep_alive=0.0))
    run.receive("INFO idle-timeout")
    run.hang_up()
    run.type("")
    run.happen(refused())
    run.wait(1)
    run.accept()
    run.receive("OK")
    assert b"MSG" not in run.sent()


def test_a_keep_alive_that_was_too_slow_becomes_faster() -> None:
    run = online(options=Options(keep_alive=3.0))
    for interval_s in (1.5, 1.0, 1.0):
        run.receive("ERR idle-timeout")
        assert run.hang_up()[0].endswith("Next attempt in 0.5 s.")
        run.wait(0.5)
        run.accept()
        run.receive("OK", "PONG end-of-users", "OK")
        run.sent()
        run.wait(interval_s - 0.01)
        assert run.sent() == b""
        run.wait(0.01)
        assert run.sent() != b""
        run.receive("PONG end-of-users")


def test_the_reason_of_one_connection_is_not_reported_for_the_next() -> None:
    run = online()
    run.receive("INFO server-shutdown")
    run.hang_up()
    run.wait(1)
    run.accept()
    run.receive("220 mail")
    run.hang_up()
    assert (
        'Attempt 1 failed: Login failed: the server closed it. The server said: "220 mail".'
        in run.entries()[-1]
    )
    run.wait(1)
    run.accept()
    run.hang_up()
    assert "Attempt 2 failed: Login failed: the server closed it. Next" in run.entries()[-1]


def test_what_is_typed_without_a_connection_is_sent_when_it_is_back() -> None:
    run = online()
    run.hang_up()
    requested = run.terminal.requested_lines
    assert run.type("hello") == []
    assert run.type("/me waves") == []
    assert run.type("/topic tea") == ["❌ Not connected: try again when the connection is back."]
    assert run.type("/help")[0].startswith("/join")
    assert run.terminal.requested_lines == requested + 4
    assert run.status[1:] == ["2 not confirmed"]
    run.wait(1)
    run.accept()
    run.receive("OK")
    sent = [line for line in run.sent().splitlines() if line.startswith(b"MSG")]
    assert sent == [b"MSG hello", b"MSG * alice waves"]


@pytest.mark.parametrize("event", [LineEntered("/quit"), InputEnded(), Terminated()])
def test_a_person_can_leave_without_a_connection(event: TerminalEvent | Terminated) -> None:
    run = online()
    run.hang_up()
    assert run.happen(event) == ["👋 Goodbye, alice!"]
    assert run.exit_code is (
        ExitCode.TERMINATED if event == Terminated() and type(event) is Terminated else ExitCode.OK
    )
    assert run.session.deadline is None


def test_leaving_with_unsent_messages_has_to_be_said_twice() -> None:
    run = online()
    run.hang_up()
    run.type("do not lose me")
    assert run.type("/quit") == ["❌ 1 of your messages were not said. Leave again to lose them."]
    assert run.exit_code is None
    run.type("/quit")
    assert run.exit_code is ExitCode.OK


# A login that is too long.

LINE_TOO_LONG = '{"type": "error", "message": "Line too long"}'


def rooms_of(login: bytes) -> list[str]:
    return list(json.loads(login)["rooms"])


def test_a_login_with_too_many_rooms_for_the_server_enters_one_and_then_the_others() -> None:
    run = Run(JSON, options=Options(rooms=("lobby", "dev", "ops"), scrollback=0))
    assert rooms_of(run.accept()) == ["lobby", "dev", "ops"]
    assert run.receive(LINE_TOO_LONG) == []
    assert rooms_of(run.sent()) == ["lobby"]
    run.receive(WELCOME_2)
    requests = [json.loads(line) for line in run.sent().splitlines()]
    assert [(one["type"], one["room"]) for one in requests] == [("enter", "dev"), ("enter", "ops")]


def test_a_login_that_is_too_long_even_with_one_room_says_so() -> None:
    run = Run(JSON)
    run.accept()
    run.receive(LINE_TOO_LONG)
    assert rooms_of(run.sent()) == ["lobby"]
    run.receive(LINE_TOO_LONG)
    assert run.sent() == b""
    (error,) = run.wait(LOGIN_TIMEOUT_S)
    assert "too long for the server" in error
    assert run.exit_code is ExitCode.FAILED


# Another name.


def test_a_new_name_is_a_new_login_in_the_same_rooms() -> None:
    run = Run(JSON)
    run.accept()
    run.receive(WELCOME_2)
    run.sent()
    assert run.type("/nick bob") == []
    assert run.sent() == b'{"type": "quit"}\n'
    assert run.connection.closed
    assert json.loads(run.accept()) == {
        "type": "join",
        "v": 2,
        "username": "bob",
        "epoch": "e1",
        "rooms": {"lobby": 0},
    }
    assert run.receive(WELCOME_2.replace('"username": "alice"', '"username": "bob"')) == [
        "✅ You are bob now."
    ]
    assert run.session.prompt == "bob> "


def test_a_new_name_waits_until_everything_is_confirmed() -> None:
    run = Run(JSON)
    run.accept()
    run.receive(WELCOME_2)
    run.sent()
    run.type("hello")
    (message,) = run.sent().splitlines()
    assert run.type("/nick bob") == [
        "❌ Some of your messages are not confirmed yet: try again when they are."
    ]
    assert run.sent() == b""
    run.receive(json.dumps({"type": "ok", "ref": json.loads(message)["ref"], "id": 1}))
    assert run.type("/nick bob") == []
    assert run.sent() == b'{"type": "quit"}\n'


def test_a_message_that_was_perhaps_said_under_one_name_is_not_said_under_another_by_itself() -> None:
    run = Run(JSON)
    run.accept()
    run.receive(WELCOME_2)
    run.type("hello")
    run.hang_up()
    run.wait(1)
    run.accept()
    run.receive('{"type": "error", "code": "password-required", "message": "Password required"}')
    run.type("")
    run.type("bob")
    run.sent()
    shown = run.receive(WELCOME_2.replace('"username": "alice"', '"username": "bob"'))
    assert shown[-1] == "💡 1 message perhaps not said: /resend sends it again, /resend drop forgets."
    assert run.sent() == b""
    run.type("/resend")
    assert json.loads(run.sent())["message"] == "hello"


def test_a_new_name_that_is_refused_leaves_the_old_one() -> None:
    run = online()
    run.type("/nick bob")
    assert run.accept() == b"LOGIN bob\n"
    assert run.receive("ERR username-taken") == ["❌ The name bob is taken."]
    assert run.accept() == b"LOGIN alice\n"
    assert run.receive("OK") == ["✅ Reconnected as alice."]


def test_a_new_name_that_needs_a_password_asks_for_it() -> None:
    for answer in ("correct horse", ""):
        run = online()
        run.type("/nick bob")
        run.accept()
        run.receive("ERR password-required")
        assert run.session.prompt.startswith("Password for bob")
        run.type(answer)
        if answer:
            assert run.sent() == b"LOGIN bob correct horse\n"
            assert run.receive("OK") == ["✅ You are bob now."]
        else:
            assert run.accept() == b"LOGIN alice\n"


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ("/nick a!b", "❌ Invalid name 'a!b': use 1 to 20 letters, digits, '_', '-' or '.'."),
        ("/nick alice", "❌ You are alice already."),
        ("/nick", "❌ Usage: /nick NAME"),
    ],
)
def test_a_name_that_cannot_be_taken_changes_nothing(typed: str, error: str) -> None:
    run = online()
    assert run.type(typed) == [error]
    assert run.sent() == b""


# Keys.


def test_the_second_ctrl_c_leaves() -> None:
    run = online()
    assert run.happen(Interrupted()) == []
    assert run.status == ["Ctrl-C again leaves"]
    assert run.sent() == b""
    run.wait(SECOND_INTERRUPT_S)
    assert run.status == []
    run.happen(Interrupted())
    assert run.exit_code is None
    run.happen(Interrupted())
    assert run.sent() == b"QUIT\n"


def test_typing_between_two_ctrl_c_makes_the_second_one_the_first() -> None:
    run = online()
    run.happen(Interrupted())
    run.type("hello")
    run.happen(Interrupted())
    assert b"QUIT" not in run.sent()


def test_the_second_ctrl_c_leaves_without_a_connection_too() -> None:
    run = online()
    run.hang_up()
    run.happen(Interrupted())
    assert run.exit_code is None
    assert run.happen(Interrupted()) == ["👋 Goodbye, alice!"]
    assert run.exit_code is ExitCode.OK


def test_a_paste_in_a_terminal_without_an_input_line_asks_before_it_is_sent() -> None:
    run = Run(echoes_input=True)
    run.accept()
    run.receive("OK", "PONG end-of-users", "OK")
    run.sent()
    text = "\n".join(f"line {number}" for number in range(20))
    run.type(text, literal=True)
    assert run.session.prompt == "Send 20 lines to lobby? (y or n) "
    assert run.type("n") == ["❌ The paste was not sent."]
    assert run.sent() == b""
    run.type(text, literal=True)
    run.type("y")
    assert run.sent().count(b"MSG") == MAX_UNDER_WAY
    run.type("/quit\nand more", literal=True)
    assert run.exit_code is None


# Leaving.


@pytest.mark.parametrize(
    ("event", "code", "timeout_s"),
    [
        (LineEntered("/quit"), ExitCode.OK, GOODBYE_TIMEOUT_S),
        (InputEnded(), ExitCode.OK, GOODBYE_TIMEOUT_S),
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
        assert run.sent() == b"QUIT\n"
        assert run.receive("MSG bob wait") == ["[12:00:00] bob: wait"]
        assert run.exit_code is None
        match end:
            case "goodbye":
                shown = run.receive("Goodbye!")
            case "hang up":
                shown = run.hang_up()
            case "timeout":
                assert run.wait(timeout_s - 0.01) == []
                shown = run.wait(0.01)
            case _:
                shown = run.happen(Interrupted())
        assert shown == goodbye
        assert run.exit_code is code
        assert run.session.deadline is None
        assert run.connection.closed or end == "hang up"


def test_leaving_waits_for_what_was_typed_before() -> None:
    run = online()
    run.type("\n".join(f"line {number}" for number in range(40)), literal=True)
    run.happen(InputEnded())
    assert b"QUIT" not in run.sent()
    assert run.status == ["leaving when everything is sent", "40 not confirmed"]
    pongs = 0
    while b"QUIT" not in (sent := run.sent()):
        pongs += 1
        assert pongs < 100
        run.receive("PONG")
    assert sent.endswith(b"QUIT\n")
    run.receive("Goodbye!")
    said = [entry for entry in run.entries() if "line" in entry]
    assert said == [f"[12:00:00] alice: line {number}" for number in range(40)]
    assert run.exit_code is ExitCode.OK


def test_leaving_over_a_slow_link_waits_for_every_answer() -> None:
    run = online()
    for text in ("one", "two", "three"):
        run.type(text)
    run.happen(InputEnded())
    assert b"QUIT" in run.sent()
    for _ in range(3):
        run.wait(20)
        assert run.status[0] == "leaving when everything is sent"
        run.receive("PONG")
    assert run.receive("Goodbye!") == ["👋 Goodbye, alice!"]
    assert run.exit_code is ExitCode.OK


def test_ctrl_c_ends_the_wait() -> None:
    run = online()
    run.type("\n".join(f"line {number}" for number in range(40)), literal=True)
    run.happen(InputEnded())
    shown = run.happen(Interrupted())
    assert shown == ["❌ 40 of your messages may not have been delivered.", "👋 Goodbye, alice!"]
    assert run.exit_code is ExitCode.OK


def test_nothing_typed_while_leaving_is_sent() -> None:
    run = online()
    run.type("/quit")
    run.sent()
    # It stays in the input line.
    assert not run.session.accepts("wait")
    assert run.terminal.shown() == ["❌ You are leaving: nothing more is sent."]
    assert run.type("wait") == []
    assert run.sent() == b""


def test_nothing_happens_after_the_end() -> None:
    run = online()
    run.type("/quit")
    run.receive("Goodbye!", "MSG bob too late")
    for event in (LineEntered("x"), Interrupted(), Terminated(), OutputClosed()):
        assert run.happen(event) == []
    other = RecordingConnection()
    run.session.handle(Connected(other))
    assert other.sent() == b""
    assert run.exit_code is ExitCode.OK


# Scripts.


def test_a_script_succeeds_when_everything_was_answered() -> None:
    run = online(interactive=False)
    run.type("hello")
    run.happen(InputEnded())
    assert run.sent() == b"MSG hello\nPING 1\nQUIT\n"
    assert run.receive("PONG 1", "Goodbye!") == ["[12:00:00] alice: hello"]
    assert run.exit_code is ExitCode.OK


def test_what_a_goodbye_follows_was_said() -> None:
    run = online(interactive=False)
    run.type("hello")
    run.happen(InputEnded())
    assert run.receive("Goodbye!") == ["[12:00:00] alice: hello"]


def test_each_received_line_restarts_the_timeout_of_a_script() -> None:
    run = online(interactive=False)
    run.happen(InputEnded())
    run.wait(DELIVERY_TIMEOUT_S - 1)
    run.receive("MSG bob one")
    run.wait(DELIVERY_TIMEOUT_S - 1)
    assert run.exit_code is None
    run.wait(1)
    assert run.exit_code is ExitCode.FAILED


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
            shown = run.wait(DELIVERY_TIMEOUT_S)
        case _:
            shown = run.happen(Interrupted())
    assert shown == [f"! {problem}: the last lines may not have been delivered."]
    assert run.exit_code is ExitCode.FAILED


def test_a_script_fails_when_a_line_was_refused() -> None:
    run = online(interactive=False)
    run.type("/dm zoe hi")
    assert run.receive("ERR user-not-found", "PONG") == ["! No such user. /who lists the people in the room."]
    run.happen(InputEnded())
    run.receive("Goodbye!")
    assert run.exit_code is ExitCode.FAILED


def test_an_interrupted_script_has_its_own_exit_code() -> None:
    run = online(interactive=False)
    run.happen(Interrupted())
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


def test_a_script_is_never_far_ahead_of_the_server() -> None:
    run = online(interactive=False)
    assert feed(run, 1000) == MAX_UNDER_WAY
    assert run.sent().count(b"MSG") == MAX_UNDER_WAY
    # Each answer brings one more line.
    for _ in range(3):
        run.receive("PONG")
        assert feed(run, 1000) == 1


def test_a_script_waits_while_the_send_buffer_is_full() -> None:
    run = online(interactive=False)
    run.connection.blocked = True
    assert feed(run, 1000) == 1
    run.receive("MSG bob hi")
    assert feed(run, 1000) == 0
    run.connection.blocked = False
    run.happen(Writable(run.connection))
    assert feed(run, 1000) > 0


def test_a_script_speaks_in_the_room_that_it_has_asked_for() -> None:
    run = Run(JSON, interactive=False)
    run.accept()
    run.receive(WELCOME_2)
    assert run.terminal.requested_lines == 1
    run.type("/join dev")
    # The next line is not read before it is clear where it would be said.
    assert run.terminal.requested_lines == 1
    run.receive('{"type": "entered", "room": "dev", "users": ["alice"], "user_count": 1, "ref": "1"}')
    assert run.terminal.requested_lines == 2
    run.sent()
    run.type("hello")
    assert json.loads(run.sent())["room"] == "dev"


def test_a_person_is_never_made_to_wait() -> None:
    run = online()
    run.connection.blocked = True
    assert feed(run, 100) == 100
