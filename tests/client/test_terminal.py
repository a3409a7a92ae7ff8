"""The client in a real terminal, connected to a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.client.raw_client import RawClient
from tests.client.real_server import RealServer

if TYPE_CHECKING:
    from tests.client.pty_program import PtyProgram

Open = Callable[..., "PtyProgram"]
LogIn = Callable[[str], RawClient]
StartServer = Callable[..., RealServer]

DIALECTS = ("line", "json", "slash")
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
CTRL_C, CTRL_D, CTRL_U, UP = "\x03", "\x04", "\x15", "\x1b[A"


def online(program: PtyProgram, name: str) -> PtyProgram:
    program.expect(f"Welcome to the chat, {name}!")
    program.expect(" here: ")
    program.expect_at_cursor(f"{name}>")
    return program


def shown_messages(program: PtyProgram, text: str) -> int:
    """How often a message with this text is on the screen."""
    return sum(line.endswith(text) for line in program.lines() if re.match(r"\[\d\d:\d\d:\d\d\] ", line))


class Netcat:
    """A person who uses `nc`."""

    def __init__(self, host: str, port: int) -> None:
        command = shutil.which("nc")
        if command is None:
            if os.environ.get("CI") == "true":
                pytest.fail("nc has to be installed in CI")
            pytest.skip("nc is not installed")
        self.process = subprocess.Popen(
            [command, host, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    def expect(self, line: str) -> None:
        assert self.process.stdout is not None
        for received in self.process.stdout:
            if received == line.encode() + b"\n":
                return
        pytest.fail(f"nc did not receive {line!r}")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def netcat(server: RealServer) -> Iterator[Netcat]:
    program = Netcat(server.host, server.ports["line"])
    yield program
    program.close()


def test_two_clients_and_nc_in_one_chat(server: RealServer, terminal: Open, netcat: Netcat) -> None:
    netcat.send("LOGIN carol")
    netcat.expect("OK")
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    bob = online(terminal(server.at("json"), "--name", "bob"), "bob")
    bob.expect("👥 3 here: carol, alice, bob")
    alice.type("hello from a terminal\r")
    netcat.expect("MSG alice hello from a terminal")
    bob.expect("] alice: hello from a terminal")
    netcat.send("MSG hello from nc")
    alice.expect("] carol: hello from nc")
    bob.expect("] carol: hello from nc")
    bob.type("/dm carol between us\r")
    netcat.expect("DM bob between us")
    bob.expect("] you → carol: between us")
    netcat.send("DM alice psst")
    alice.expect("] carol → you: psst")
    netcat.send("QUIT")
    alice.expect("🔴 carol left the chat")
    bob.expect("🔴 carol left the chat")
    assert shown_messages(bob, "psst") == 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_own_messages_are_on_the_screen_once(
    server: RealServer, terminal: Open, raw_client: LogIn, dialect: str
) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at(dialect), "--name", "alice"), "alice")
    alice.type("only once\r")
    carol.expect("MSG alice only once")
    alice.type("/dm carol also once\r")
    carol.expect("DM alice also once")
    alice.type("/ping\r")
    alice.expect("🏓 The server answered in")
    assert shown_messages(alice, "alice: only once") == 1
    assert shown_messages(alice, "you → carol: also once") == 1
    assert sum("once" in line for line in alice.lines()) == 2


def test_joins_and_departures_are_shown(server: RealServer, terminal: Open, raw_client: LogIn) -> None:
    alice = online(terminal(server.at("slash"), "--name", "alice"), "alice")
    bob = raw_client("bob")
    alice.expect("🟢 bob joined the chat")
    bob.close()
    alice.expect("🔴 bob left the chat")


def test_a_message_in_the_middle_of_typing_leaves_the_typing_whole(
    server: RealServer, terminal: Open, raw_client: LogIn
) -> None:
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    carol = raw_client("carol")
    alice.type("half a sen")
    alice.expect_at_cursor("alice> half a sen")
    for number in range(40):
        carol.send(f"MSG interruption {number}")
    alice.expect("] carol: interruption 39")
    alice.expect_at_cursor("alice> half a sen")
    assert sum("half a sen" in line for line in alice.lines()) == 1
    assert "interruption 39" in alice.lines()[-2]
    alice.type("tence\r")
    carol.expect("MSG alice half a sentence")
    history = [line for line in alice.lines() if "interruption" in line]
    assert [int(line.rsplit(" ", 1)[1]) for line in history] == list(range(40 - len(history), 40))


def test_keys_pressed_while_messages_arrive_are_not_echoed_into_them(
    start_server: StartServer, terminal: Open
) -> None:
    server = start_server("--rate=0")
    alice = online(terminal(server.at("line"), "--name", "alice", rows=800), "alice")
    carol = RawClient(server.host, server.ports["line"], "carol")
    text = "the quick brown fox jumps over the lazy dog"
    for _ in range(8):
        # A terminal that is in cooked mode for a moment echoes what is typed in that moment.
        for key in text:
            carol.send("MSG tick\nMSG tock")
            alice.type(key)
            alice.read(0.001)
        alice.type("\r")
        carol.expect(f"MSG alice {text}")
    carol.send("MSG the end")
    alice.expect("] carol: the end")
    alice.expect_at_cursor("alice>")
    carol.close()
    for line in alice.lines()[4:-1]:
        assert re.fullmatch(r"\[[\d:]+\] (carol: (tick|tock|the end)|alice: the quick .*)", line), line


def test_a_resize_in_the_middle_of_typing_leaves_the_typing_whole(
    server: RealServer, terminal: Open, raw_client: LogIn
) -> None:
    alice = online(terminal(server.at("line"), "--name", "alice", columns=60), "alice")
    carol = raw_client("carol")
    alice.type("a line that is long enough to be wrapped when it is narrow")
    alice.wait_for(lambda: "".join(alice.lines()).endswith("when it is narrow"), "the typed line")
    alice.resize(20, 40)
    alice.wait_for(
        lambda: (
            alice.lines()[-2:] == ["alice> a line that is long enough to be", "wrapped when it is narrow"]
        ),
        "the typed line, wrapped",
    )
    carol.send("MSG narrow?")
    alice.expect("] carol: narrow?")
    alice.resize(24, 90)
    carol.send("MSG and wide again")
    alice.expect("] carol: and wide again")
    alice.expect_at_cursor("alice> a line that is long enough to be wrapped when it is narrow")
    alice.type("\r")
    carol.expect("MSG alice a line that is long enough to be wrapped when it is narrow")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_lost_connection_is_reported_and_restored(
    server: RealServer, terminal: Open, raw_client: LogIn, dialect: str
) -> None:
    alice = online(terminal(server.at(dialect), "--name", "alice"), "alice")
    server.kill()
    alice.expect("🔌 Lost the connection to")
    alice.expect("Reconnecting in 0.5 s.")
    alice.expect_at_cursor("alice (offline)>")
    alice.type("what I was about to say\r")
    alice.expect("❌ Not connected. Your line stays here until the connection is back.")
    alice.expect_at_cursor("alice (offline)> what I was about to say")
    alice.expect("Reconnecting in 1 s.")
    server.start()
    alice.expect("✅ Reconnected as alice.")
    alice.expect_at_cursor("alice> what I was about to say")
    carol = raw_client("carol")
    alice.type("\r")
    carol.expect("MSG alice what I was about to say")


def test_a_server_shutdown_is_reported(server: RealServer, terminal: Open) -> None:
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    server.stop()
    alice.expect("the server is shutting down. Reconnecting")
    alice.type("/quit\r")
    assert alice.exit_code() == 0
    alice.expect("👋 Goodbye, alice!")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_taken_name_is_asked_for_again(
    server: RealServer, terminal: Open, raw_client: LogIn, dialect: str
) -> None:
    raw_client("alice")
    other = terminal(server.at(dialect), "--name", "Alice")
    other.expect("❌ The name Alice is taken.")
    other.expect_at_cursor("Enter your username:")
    other.type("al ice\r")
    other.expect("❌ Invalid name 'al ice': use 1 to 20 letters, digits, '_', '-' or '.'.")
    other.wait_for(lambda: other.lines()[-1] == "Enter your username:", "the question again")
    other.type("bob\r")
    online(other, "bob")


def test_missing_options_are_asked_for(server: RealServer, terminal: Open) -> None:
    alice = terminal()
    alice.expect_at_cursor("Server host (default: localhost):")
    alice.type("no such host\r")
    alice.expect("❌ Invalid address 'no such host': use HOST or HOST:PORT.")
    alice.wait_for(lambda: alice.lines()[-1] == "Server host (default: localhost):", "the question again")
    alice.type(f"{server.host}\r")
    alice.expect_at_cursor("Server port (default: 4000):")
    alice.type(f"{server.ports['slash']}\r")
    alice.expect_at_cursor("Enter your username:")
    alice.type("alice\r")
    online(alice, "alice")


@pytest.mark.parametrize(("dialect", "port"), [("line", 4000), ("json", 12345), ("slash", 5000)])
def test_the_default_port_belongs_to_the_dialect(terminal: Open, dialect: str, port: int) -> None:
    alice = terminal("--dialect", dialect)
    alice.expect_at_cursor("Server host (default: localhost):")
    alice.type("\r")
    alice.expect_at_cursor(f"Server port (default: {port}):")
    alice.type(CTRL_D)
    assert alice.exit_code() == 1


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(("key", "code"), [(CTRL_C, 130), (CTRL_D, 1)])
def test_leaving_at_a_question_restores_the_terminal(
    terminal: Open, plain: bool, key: str, code: int
) -> None:
    alice = terminal(*["--plain"] * plain)
    alice.expect("Server host (default: localhost):")
    alice.type(key)
    assert alice.exit_code() == code
    assert alice.settings() == alice.settings_before
    assert "Traceback" not in "\n".join(alice.lines())
    # The next prompt of the shell begins on a new line.
    assert alice.screen.cursor.x == 0


@pytest.mark.parametrize(
    ("keys", "plain"),
    [
        (CTRL_C, False),
        (CTRL_D, False),
        ("/quit\r", False),
        ("/exit\r", False),
        ("/q\r", False),
        (CTRL_C, True),
        (CTRL_D, True),
    ],
)
def test_every_way_to_leave_restores_the_terminal(
    server: RealServer, terminal: Open, raw_client: LogIn, keys: str, plain: bool
) -> None:
    carol = raw_client("carol")
    alice = terminal(server.at("line"), "--name", "alice", *["--plain"] * plain)
    alice.expect(" here: carol, alice")
    alice.type(keys)
    carol.expect("INFO alice disconnected")
    assert alice.exit_code() == 0
    assert alice.lines()[-1] == "👋 Goodbye, alice!"
    assert alice.settings() == alice.settings_before


@pytest.mark.parametrize("plain", [True, False])
def test_sigterm_has_an_exit_code_and_restores_the_terminal(
    server: RealServer, terminal: Open, raw_client: LogIn, plain: bool
) -> None:
    carol = raw_client("carol")
    alice = terminal(server.at("line"), "--name", "alice", *["--plain"] * plain)
    bob = terminal(server.at("line"), *["--plain"] * plain)
    alice.expect(" here: carol, alice")
    bob.expect("Enter your username:")
    for program in (alice, bob):
        program.process.terminate()
        assert program.exit_code() == 143
        assert program.settings() == program.settings_before
        assert "Traceback" not in "\n".join(program.lines())
    carol.expect("INFO alice disconnected")


def test_ctrl_d_does_not_leave_behind_typed_text(
    server: RealServer, terminal: Open, raw_client: LogIn
) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    alice.type(f"still here{CTRL_D}\r")
    carol.expect("MSG alice still here")


def test_colour_is_used_on_a_terminal(server: RealServer, terminal: Open, raw_client: LogIn) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    carol.send("DM alice psst")
    alice.expect("carol → you: psst")
    assert COLOUR.search(alice.raw)


@pytest.mark.parametrize("plain", [True, False])
def test_no_color_turns_colour_off(
    server: RealServer, terminal: Open, raw_client: LogIn, plain: bool
) -> None:
    carol = raw_client("carol")
    alice = terminal(server.at("line"), "--name", "alice", *["--plain"] * plain, NO_COLOR="1")
    alice.expect(" here: carol, alice")
    alice.type("/nonsense\r")
    alice.expect("❌ Unknown command /nonsense.")
    carol.send("DM alice psst")
    alice.expect("carol → you: psst")
    alice.type("/q\t")
    assert not COLOUR.search(alice.raw)


def test_a_mention_and_a_direct_message_ring(server: RealServer, terminal: Open, raw_client: LogIn) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    carol.send("MSG nothing about you")
    alice.expect("] carol: nothing about you")
    assert b"\a" not in alice.raw
    carol.send("MSG Alice, look")
    alice.expect_output(b"\a")
    carol.send("DM alice psst")
    alice.wait_for(lambda: alice.raw.count(b"\a") == 2, "a second ring")


def test_the_bell_can_be_turned_off(server: RealServer, terminal: Open, raw_client: LogIn) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("line"), "--name", "alice", "--no-bell"), "alice")
    carol.send("MSG alice, look")
    alice.expect("] carol: alice, look")
    alice.type("/ping\r")
    alice.expect("🏓")
    assert b"\a" not in alice.raw


def test_tab_completes_commands_and_names(server: RealServer, terminal: Open, raw_client: LogIn) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    alice.type("/d\tca\tpsst\r")
    carol.expect("DM alice psst")
    alice.type("ca\thi\r")
    carol.expect("MSG alice carol: hi")
    alice.type("al\t is no name to complete for alice\r")
    carol.expect("MSG alice al is no name to complete for alice")
    alice.type("/q\t")
    alice.expect(" /quit")
    alice.type(f"{CTRL_U}/u\t\r")
    alice.expect("👥 2 here: carol, alice")


def test_tab_completes_a_newcomer(server: RealServer, terminal: Open, raw_client: LogIn) -> None:
    alice = online(terminal(server.at("json"), "--name", "alice"), "alice")
    bob = raw_client("bob")
    alice.expect("🟢 bob joined the chat")
    alice.type("/dm b\thi\r")
    bob.expect("DM alice hi")


def test_the_history_lasts_longer_than_the_session(
    server: RealServer, terminal: Open, raw_client: LogIn, environment: dict[str, str]
) -> None:
    carol = raw_client("carol")
    first = online(terminal(server.at("line"), "--name", "alice"), "alice")
    first.type("worth repeating\r")
    carol.expect("MSG alice worth repeating")
    first.type("/q\r")
    assert first.exit_code() == 0
    second = online(terminal(server.at("line"), "--name", "bob"), "bob")
    second.type(UP)
    second.expect_at_cursor("bob> /q")
    second.type(UP)
    second.expect_at_cursor("bob> worth repeating")
    second.type("\r")
    carol.expect("MSG bob worth repeating")
    assert Path(environment["XDG_STATE_HOME"], "geventchat", "history").stat().st_mode & 0o777 == 0o600


def test_without_a_history_file_the_client_works(server: RealServer, terminal: Open, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    alice = terminal(server.at("line"), "--name", "alice", XDG_STATE_HOME=str(tmp_path / "file"))
    alice.expect("💡 The history of your input is off")
    online(alice, "alice")


def test_a_paste_is_sent_line_by_line(server: RealServer, terminal: Open, raw_client: LogIn) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    alice.type("\x1b[200~one\ntwo\x1b[201~\r")
    carol.expect("MSG alice one")
    carol.expect("MSG alice two")


def test_an_idle_person_reconnects_with_enter(start_server: StartServer, terminal: Open) -> None:
    server = start_server("--idle-timeout=1")
    alice = terminal(server.at("line"), "--name", "alice")
    alice.expect("the server disconnected you for being idle. Press Enter to reconnect.")
    alice.expect_at_cursor("alice (offline)>")
    alice.type("back again\r")
    alice.expect("✅ Reconnected as alice.")
    alice.expect("] alice: back again")
    assert shown_messages(alice, "alice: back again") == 1


def test_keep_alive_prevents_the_idle_timeout(start_server: StartServer, terminal: Open) -> None:
    server = start_server("--idle-timeout=6")
    alice = online(terminal(server.at("line"), "--name", "alice", "--keep-alive", "1"), "alice")
    bob = terminal(server.at("line"), "--name", "bob")
    bob.expect("for being idle")
    # bob came later and was disconnected: without her pings, alice would have been, too.
    alice.expect("🔴 bob left the chat")
    alice.type("/ping\r")
    alice.expect("🏓 The server answered")
    assert not any("Lost" in line for line in alice.lines())


def test_a_refused_connection_is_one_line(terminal: Open) -> None:
    alice = terminal("127.0.0.1:1", "--name", "alice")
    assert alice.exit_code() == 1
    alice.expect("❌ Connection refused by 127.0.0.1:1.")
    assert len(alice.lines()) == 1


def without_prompt_toolkit(tmp_path: Path) -> str:
    """A directory for PYTHONPATH that makes prompt_toolkit look uninstalled."""
    package = tmp_path / "hidden" / "prompt_toolkit.py"
    package.parent.mkdir()
    package.write_text("raise ModuleNotFoundError('No module named prompt_toolkit', name='prompt_toolkit')\n")
    return str(package.parent)


def test_without_prompt_toolkit_the_client_works_and_says_how_to_install_it(
    server: RealServer, terminal: Open, raw_client: LogIn, tmp_path: Path
) -> None:
    carol = raw_client("carol")
    alice = terminal(server.at("json"), "--name", "alice", PYTHONPATH=without_prompt_toolkit(tmp_path))
    alice.expect("pip install 'geventchat[client]'")
    alice.expect("👥 2 here: carol, alice")
    alice.type("hello\n")
    carol.expect("MSG alice hello")
    carol.send("MSG hello alice")
    alice.expect("] carol: hello alice")
    # The terminal itself keeps what was typed on the screen.
    assert sum(line.endswith("hello") for line in alice.lines()) == 1


def test_the_plain_mode_restores_a_lost_connection(
    server: RealServer, terminal: Open, raw_client: LogIn
) -> None:
    alice = terminal(server.at("line"), "--name", "alice", "--plain")
    alice.expect(" here: alice")
    server.kill()
    alice.expect("🔌 Lost the connection to")
    alice.type("anyone?\n")
    alice.expect("❌ Not connected: the message was not sent.")
    server.start()
    alice.expect("✅ Reconnected as alice.")
    carol = raw_client("carol")
    alice.type("hello again\n")
    carol.expect("MSG alice hello again")
