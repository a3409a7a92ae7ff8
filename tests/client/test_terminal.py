"""The client in a real terminal, with a real server at the other end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.people import RawPerson
from tests.client.pty_program import PtyProgram
from tests.client.real_server import RealServer

Open = Callable[..., PtyProgram]
Come = Callable[[str], RawPerson]

DIALECTS = ("line", "json", "slash")
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
CTRL_C, CTRL_D, CTRL_U, UP = "\x03", "\x04", "\x15", "\x1b[A"


def inside(program: PtyProgram, name: str) -> PtyProgram:
    program.sees(f"Welcome to the chat, {name}!")
    program.sees(" here: ")
    program.has_at_cursor(f"{name}>")
    return program


def shown(program: PtyProgram, text: str) -> int:
    """How often a message with this text is on the screen."""
    return sum(line.endswith(text) for line in program.lines() if re.match(r"\[\d\d:\d\d:\d\d\] ", line))


class Netcat:
    """A person with `nc`."""

    def __init__(self, host: str, port: int) -> None:
        command = shutil.which("nc")
        if command is None:
            if os.environ.get("CI") == "true":
                pytest.fail("nc is not installed here, and this is where it has to be")
            pytest.skip("nc is not installed")
        self.process = subprocess.Popen(
            [command, host, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    def hears(self, line: str) -> None:
        assert self.process.stdout is not None
        for heard in self.process.stdout:
            if heard == line.encode() + b"\n":
                return
        pytest.fail(f"nc never heard {line!r}")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def netcat(server: RealServer) -> Iterator[Netcat]:
    someone = Netcat(server.host, server.ports["line"])
    yield someone
    someone.close()


def test_two_clients_and_an_nc_talk(server: RealServer, terminal: Open, netcat: Netcat) -> None:
    netcat.say("LOGIN carol")
    netcat.hears("OK")
    alice = inside(terminal(server.at("line"), "--name", "alice"), "alice")
    bob = inside(terminal(server.at("json"), "--name", "bob"), "bob")
    bob.sees("👥 3 here: carol, alice, bob")
    alice.type("hello from a terminal\r")
    netcat.hears("MSG alice hello from a terminal")
    bob.sees("] alice: hello from a terminal")
    netcat.say("MSG hello from nc")
    alice.sees("] carol: hello from nc")
    bob.sees("] carol: hello from nc")
    bob.type("/dm carol between us\r")
    netcat.hears("DM bob between us")
    bob.sees("] you → carol: between us")
    netcat.say("DM alice psst")
    alice.sees("] carol → you: psst")
    netcat.say("QUIT")
    alice.sees("🔴 carol left the chat")
    bob.sees("🔴 carol left the chat")
    assert shown(bob, "psst") == 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_ones_own_words_are_on_the_screen_once(
    server: RealServer, terminal: Open, person: Come, dialect: str
) -> None:
    carol = person("carol")
    alice = inside(terminal(server.at(dialect), "--name", "alice"), "alice")
    alice.type("only once\r")
    carol.hears("MSG alice only once")
    alice.type("/dm carol also once\r")
    carol.hears("DM alice also once")
    alice.type("/ping\r")
    alice.sees("🏓 The server answered in")
    assert shown(alice, "alice: only once") == 1
    assert shown(alice, "you → carol: also once") == 1
    assert sum("once" in line for line in alice.lines()) == 2


def test_joins_and_leaves_are_seen(server: RealServer, terminal: Open, person: Come) -> None:
    alice = inside(terminal(server.at("slash"), "--name", "alice"), "alice")
    bob = person("bob")
    alice.sees("🟢 bob joined the chat")
    bob.close()
    alice.sees("🔴 bob left the chat")


def test_a_message_in_the_middle_of_typing_leaves_the_typing_whole(
    server: RealServer, terminal: Open, person: Come
) -> None:
    alice = inside(terminal(server.at("line"), "--name", "alice"), "alice")
    carol = person("carol")
    alice.type("half a sen")
    alice.has_at_cursor("alice> half a sen")
    for number in range(40):
        carol.say(f"MSG interruption {number}")
    alice.sees("] carol: interruption 39")
    alice.has_at_cursor("alice> half a sen")
    assert sum("half a sen" in line for line in alice.lines()) == 1
    assert "interruption 39" in alice.lines()[-2]
    alice.type("tence\r")
    carol.hears("MSG alice half a sentence")
    history = [line for line in alice.lines() if "interruption" in line]
    assert [int(line.rsplit(" ", 1)[1]) for line in history] == list(range(40 - len(history), 40))


def test_a_resize_in_the_middle_of_typing_leaves_the_typing_whole(
    server: RealServer, terminal: Open, person: Come
) -> None:
    alice = inside(terminal(server.at("line"), "--name", "alice", columns=60), "alice")
    carol = person("carol")
    alice.type("a line that is long enough to be wrapped when it is narrow")
    alice.wait_for(lambda: "".join(alice.lines()).endswith("when it is narrow"), "the typed line")
    alice.resize(20, 40)
    alice.wait_for(
        lambda: (
            alice.lines()[-2:] == ["alice> a line that is long enough to be", "wrapped when it is narrow"]
        ),
        "the typed line, wrapped",
    )
    carol.say("MSG narrow?")
    alice.sees("] carol: narrow?")
    alice.resize(24, 90)
    carol.say("MSG and wide again")
    alice.sees("] carol: and wide again")
    alice.has_at_cursor("alice> a line that is long enough to be wrapped when it is narrow")
    alice.type("\r")
    carol.hears("MSG alice a line that is long enough to be wrapped when it is narrow")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_lost_server_is_reported_and_found_again(
    server: RealServer, terminal: Open, person: Come, dialect: str
) -> None:
    alice = inside(terminal(server.at(dialect), "--name", "alice"), "alice")
    server.kill()
    alice.sees("🔌 Lost the connection to")
    alice.sees("Reconnecting in 0.5 s.")
    alice.has_at_cursor("alice (offline)>")
    alice.type("what I was about to say\r")
    alice.sees("❌ Not connected. Your line stays here until the connection is back.")
    alice.has_at_cursor("alice (offline)> what I was about to say")
    alice.sees("Reconnecting in 1 s.")
    server.start()
    alice.sees("✅ Reconnected as alice.")
    alice.has_at_cursor("alice> what I was about to say")
    carol = person("carol")
    alice.type("\r")
    carol.hears("MSG alice what I was about to say")


def test_a_server_that_stops_says_so(server: RealServer, terminal: Open) -> None:
    alice = inside(terminal(server.at("line"), "--name", "alice"), "alice")
    server.stop()
    alice.sees("the server is shutting down. Reconnecting")
    alice.type("/quit\r")
    assert alice.exit_code() == 0
    alice.sees("👋 Goodbye, alice!")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_taken_name_is_asked_for_again(
    server: RealServer, terminal: Open, person: Come, dialect: str
) -> None:
    person("alice")
    other = terminal(server.at(dialect), "--name", "Alice")
    other.sees("❌ The name Alice is taken.")
    other.has_at_cursor("Enter your username:")
    other.type("al ice\r")
    other.sees("❌ Invalid name 'al ice': use 1 to 20 letters, digits, '_', '-' or '.'.")
    other.wait_for(lambda: other.lines()[-1] == "Enter your username:", "the question again")
    other.type("bob\r")
    inside(other, "bob")


def test_what_was_not_told_is_asked(server: RealServer, terminal: Open) -> None:
    alice = terminal()
    alice.has_at_cursor("Server host (default: localhost):")
    alice.type("no such host\r")
    alice.sees("❌ Invalid address 'no such host': use HOST or HOST:PORT.")
    alice.wait_for(lambda: alice.lines()[-1] == "Server host (default: localhost):", "the question again")
    alice.type(f"{server.host}\r")
    alice.has_at_cursor("Server port (default: 4000):")
    alice.type(f"{server.ports['slash']}\r")
    alice.has_at_cursor("Enter your username:")
    alice.type("alice\r")
    inside(alice, "alice")


@pytest.mark.parametrize(("dialect", "port"), [("line", 4000), ("json", 12345), ("slash", 5000)])
def test_the_default_port_is_the_one_of_the_dialect(terminal: Open, dialect: str, port: int) -> None:
    alice = terminal("--dialect", dialect)
    alice.has_at_cursor("Server host (default: localhost):")
    alice.type("\r")
    alice.has_at_cursor(f"Server port (default: {port}):")
    alice.type(CTRL_D)
    assert alice.exit_code() == 1


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(("key", "code"), [(CTRL_C, 130), (CTRL_D, 1)])
def test_a_question_can_be_walked_out_of(terminal: Open, plain: bool, key: str, code: int) -> None:
    alice = terminal(*["--plain"] * plain)
    alice.sees("Server host (default: localhost):")
    alice.type(key)
    assert alice.exit_code() == code
    assert alice.settings_now() == alice.settings_before
    assert "Traceback" not in "\n".join(alice.lines())
    # The shell's next prompt has a line of its own.
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
def test_every_way_to_leave_is_clean(
    server: RealServer, terminal: Open, person: Come, keys: str, plain: bool
) -> None:
    carol = person("carol")
    alice = terminal(server.at("line"), "--name", "alice", *["--plain"] * plain)
    alice.sees(" here: carol, alice")
    alice.type(keys)
    carol.hears("INFO alice disconnected")
    assert alice.exit_code() == 0
    assert alice.lines()[-1] == "👋 Goodbye, alice!"
    assert alice.settings_now() == alice.settings_before


@pytest.mark.parametrize("plain", [True, False])
def test_sigterm_leaves_with_its_own_code_and_gives_the_terminal_back(
    server: RealServer, terminal: Open, person: Come, plain: bool
) -> None:
    carol = person("carol")
    alice = terminal(server.at("line"), "--name", "alice", *["--plain"] * plain)
    bob = terminal(server.at("line"), *["--plain"] * plain)
    alice.sees(" here: carol, alice")
    bob.sees("Enter your username:")
    for program in (alice, bob):
        program.process.terminate()
        assert program.exit_code() == 143
        assert program.settings_now() == program.settings_before
        assert "Traceback" not in "\n".join(program.lines())
    carol.hears("INFO alice disconnected")


def test_ctrl_d_does_not_leave_while_something_is_typed(
    server: RealServer, terminal: Open, person: Come
) -> None:
    carol = person("carol")
    alice = inside(terminal(server.at("line"), "--name", "alice"), "alice")
    alice.type(f"still here{CTRL_D}\r")
    carol.hears("MSG alice still here")


def test_colour_is_used_on_a_terminal(server: RealServer, terminal: Open, person: Come) -> None:
    carol = person("carol")
    alice = inside(terminal(server.at("line"), "--name", "alice"), "alice")
    carol.say("DM alice psst")
    alice.sees("carol → you: psst")
    assert COLOUR.search(alice.raw)


@pytest.mark.parametrize("plain", [True, False])
def test_no_color_means_no_colour(server: RealServer, terminal: Open, person: Come, plain: bool) -> None:
    carol = person("carol")
    alice = terminal(server.at("line"), "--name", "alice", *["--plain"] * plain, NO_COLOR="1")
    alice.sees(" here: carol, alice")
    alice.type("/nonsense\r")
    alice.sees("❌ Unknown command /nonsense.")
    carol.say("DM alice psst")
    alice.sees("carol → you: psst")
    alice.type("/q\t")
    assert not COLOUR.search(alice.raw)


def test_a_mention_and_a_private_message_ring(server: RealServer, terminal: Open, person: Come) -> None:
    carol = person("carol")
    alice = inside(terminal(server.at("line"), "--name", "alice"), "alice")
    carol.say("MSG nothing about you")
    alice.sees("] carol: nothing about you")
    assert b"\a" not in alice.raw
    carol.say("MSG Alice, look")
    alice.wrote(b"\a")
    carol.say("DM alice psst")
    alice.wait_for(lambda: alice.raw.count(b"\a") == 2, "a second ring")


def test_the_bell_can_be_turned_off(server: RealServer, terminal: Open, person: Come) -> None:
    carol = person("carol")
    alice = inside(terminal(server.at("line"), "--name", "alice", "--no-bell"), "alice")
    carol.say("MSG alice, look")
    alice.sees("] carol: alice, look")
    alice.type("/ping\r")
    alice.sees("🏓")
    assert b"\a" not in alice.raw


def test_tab_completes_commands_and_names(server: RealServer, terminal: Open, person: Come) -> None:
    carol = person("carol")
    alice = inside(terminal(server.at("line"), "--name", "alice"), "alice")
    alice.type("/d\tca\tpsst\r")
    carol.hears("DM alice psst")
    alice.type("ca\thi\r")
    carol.hears("MSG alice carol: hi")
    alice.type("al\t is no name to complete for alice\r")
    carol.hears("MSG alice al is no name to complete for alice")
    alice.type("/q\t")
    alice.sees(" /quit")
    alice.type(f"{CTRL_U}/u\t\r")
    alice.sees("👥 2 here: carol, alice")


def test_a_newcomer_is_completed_too(server: RealServer, terminal: Open, person: Come) -> None:
    alice = inside(terminal(server.at("json"), "--name", "alice"), "alice")
    bob = person("bob")
    alice.sees("🟢 bob joined the chat")
    alice.type("/dm b\thi\r")
    bob.hears("DM alice hi")


def test_the_history_outlives_the_session(
    server: RealServer, terminal: Open, person: Come, environment: dict[str, str]
) -> None:
    carol = person("carol")
    first = inside(terminal(server.at("line"), "--name", "alice"), "alice")
    first.type("worth repeating\r")
    carol.hears("MSG alice worth repeating")
    first.type("/q\r")
    assert first.exit_code() == 0
    second = inside(terminal(server.at("line"), "--name", "bob"), "bob")
    second.type(UP)
    second.has_at_cursor("bob> /q")
    second.type(UP)
    second.has_at_cursor("bob> worth repeating")
    second.type("\r")
    carol.hears("MSG bob worth repeating")
    assert Path(environment["XDG_STATE_HOME"], "geventchat", "history").stat().st_mode & 0o777 == 0o600


def test_a_history_that_cannot_be_kept_is_mentioned_and_nothing_else(
    server: RealServer, terminal: Open, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    alice = terminal(server.at("line"), "--name", "alice", XDG_STATE_HOME=str(tmp_path / "file"))
    alice.sees("💡 The history of your input is off")
    inside(alice, "alice")


def test_a_pasted_text_is_sent_line_by_line(server: RealServer, terminal: Open, person: Come) -> None:
    carol = person("carol")
    alice = inside(terminal(server.at("line"), "--name", "alice"), "alice")
    alice.type("\x1b[200~one\ntwo\x1b[201~\r")
    carol.hears("MSG alice one")
    carol.hears("MSG alice two")


def test_who_is_cut_off_for_silence_comes_back_with_enter(
    serve: Callable[..., RealServer], terminal: Open
) -> None:
    server = serve("--idle-timeout=1")
    alice = terminal(server.at("line"), "--name", "alice")
    alice.sees("the server disconnected you for being idle. Press Enter to reconnect.")
    alice.has_at_cursor("alice (offline)>")
    alice.type("back again\r")
    alice.sees("✅ Reconnected as alice.")
    alice.sees("] alice: back again")
    assert shown(alice, "alice: back again") == 1


def test_keep_alive_stays_within_the_idle_limit(serve: Callable[..., RealServer], terminal: Open) -> None:
    server = serve("--idle-timeout=3")
    alice = inside(terminal(server.at("line"), "--name", "alice", "--keep-alive", "1"), "alice")
    bob = terminal(server.at("line"), "--name", "bob")
    bob.sees("for being idle")
    # Bob came later and was cut off: by now alice would have been, too.
    alice.sees("🔴 bob left the chat")
    alice.type("/ping\r")
    alice.sees("🏓 The server answered")
    assert not any("Lost" in line for line in alice.lines())


def test_nobody_to_connect_to_is_one_line(terminal: Open) -> None:
    alice = terminal("127.0.0.1:1", "--name", "alice")
    assert alice.exit_code() == 1
    alice.sees("❌ Connection refused by 127.0.0.1:1.")
    assert len(alice.lines()) == 1


def without_prompt_toolkit(tmp_path: Path) -> str:
    """A folder for PYTHONPATH that makes it look uninstalled."""
    package = tmp_path / "hidden" / "prompt_toolkit.py"
    package.parent.mkdir()
    package.write_text("raise ModuleNotFoundError('No module named prompt_toolkit', name='prompt_toolkit')\n")
    return str(package.parent)


def test_without_prompt_toolkit_one_can_talk_and_is_told_how_to_get_it(
    server: RealServer, terminal: Open, person: Come, tmp_path: Path
) -> None:
    carol = person("carol")
    alice = terminal(server.at("json"), "--name", "alice", PYTHONPATH=without_prompt_toolkit(tmp_path))
    alice.sees("pip install 'geventchat[client]'")
    alice.sees("👥 2 here: carol, alice")
    alice.type("hello\n")
    carol.hears("MSG alice hello")
    carol.say("MSG hello alice")
    alice.sees("] carol: hello alice")
    # The terminal itself has left on the screen what was typed.
    assert sum(line.endswith("hello") for line in alice.lines()) == 1


def test_the_plain_mode_finds_a_lost_server_too(server: RealServer, terminal: Open, person: Come) -> None:
    alice = terminal(server.at("line"), "--name", "alice", "--plain")
    alice.sees(" here: alice")
    server.kill()
    alice.sees("🔌 Lost the connection to")
    alice.type("anyone?\n")
    alice.sees("❌ Not connected: the message was not sent.")
    server.start()
    alice.sees("✅ Reconnected as alice.")
    carol = person("carol")
    alice.type("hello again\n")
    carol.hears("MSG alice hello again")
