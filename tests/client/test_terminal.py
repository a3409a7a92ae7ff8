"""The client in a real terminal, connected to a real server. What can be tested without one is tested elsewhere."""

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
from tests.client.real_server import RealServer, client_argv

if TYPE_CHECKING:
    from tests.client.pty_program import PtyProgram

Open = Callable[..., "PtyProgram"]
LogIn = Callable[[str], RawClient]

COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
CTRL_C, CTRL_D, CTRL_N, CTRL_Y, CTRL_Z, CTRL_UNDERSCORE, ESCAPE, UP, PAGE_UP, PAGE_DOWN = (
    "\x03",
    "\x04",
    "\x0e",
    "\x19",
    "\x1a",
    "\x1f",
    "\x1b",
    "\x1b[A",
    "\x1b[5~",
    "\x1b[6~",
)


pytestmark = pytest.mark.usefixtures("free_names")


@pytest.fixture
def server(lasting_server: RealServer) -> RealServer:
    """One server for all tests here: none of them ends it."""
    return lasting_server


def online(program: PtyProgram, name: str) -> PtyProgram:
    program.expect(f"Welcome to the chat, {name}!")
    program.expect_at_cursor(f"{name}>")
    return program


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


def test_two_clients_and_nc_in_two_rooms(server: RealServer, terminal: Open, netcat: Netcat) -> None:
    netcat.send("LOGIN carol")
    netcat.expect("OK")
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    bob = online(terminal(f"json://bob@{server.at('json')}", columns=100), "bob")
    bob.expect("👥 3 here: carol, alice, bob")
    alice.type("hello from a terminal\r")
    netcat.expect("MSG alice hello from a terminal")
    bob.expect("] alice: hello from a terminal")
    alice.expect("] alice: hello from a terminal")
    netcat.send("MSG hello from nc, bob")
    alice.expect("] carol: hello from nc, bob")
    bob.expect_output(b"\a")
    # Only bob's dialect has many rooms at a time.
    bob.type("/join dev\r")
    bob.expect("bob  1:lobby [2:dev]")
    alice.type("/join dev\r")
    bob.expect("🟢 alice joined the room")
    alice.expect("[2:dev]")
    netcat.send("MSG anyone left? bob?")
    bob.expect("1:lobby(1!) [2:dev]")
    alice.type("```\r")
    bob.expect("] alice: │ ```")
    bob.type(CTRL_N)
    bob.expect("new since you left")
    bob.expect("] carol: anyone left? bob?")
    bob.type("/dm carol between us\r")
    netcat.expect("DM bob between us")
    bob.expect("] you → carol: between us")
    bob.type("@ca\tis here\r")
    netcat.expect("MSG bob @carol is here")
    netcat.send("QUIT")
    bob.expect("🔴 carol left the room")
    for program in (alice, bob):
        program.type("/q\r")
        assert program.exit_code() == 0


def test_a_message_in_the_middle_of_typing_leaves_the_typing_whole(
    server: RealServer, terminal: Open, raw_client: LogIn
) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    alice.type("half a sen")
    alice.expect_at_cursor("alice> half a sen")
    for number in range(60):
        carol.send(f"MSG interruption {number}")
        if number % 20 == 0:
            alice.type("t")
    alice.expect("] carol: interruption 59")
    alice.expect_at_cursor("alice> half a senttt")
    assert sum("half a sen" in line for line in alice.lines()) == 1
    history = [line for line in alice.lines() if "interruption" in line]
    assert [int(line.rsplit(" ", 1)[1]) for line in history] == list(range(60 - len(history), 60))
    alice.type(PAGE_UP)
    alice.expect("scrolled up: PageDown")
    assert not any("interruption 59" in line for line in alice.lines())
    alice.type(PAGE_DOWN)
    alice.expect("] carol: interruption 59")


def test_a_narrowed_window_has_no_remnants(server: RealServer, terminal: Open, raw_client: LogIn) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("line"), "--name", "alice", columns=90, NO_COLOR="1"), "alice")
    carol.send("MSG a line that has to be wrapped when the window is narrow, between its words")
    alice.expect("] carol: a line")
    alice.type("a draft that is long enough to be wrapped, too")
    alice.expect_at_cursor("alice> a draft that is long enough to be wrapped, too")
    cleared = alice.raw.count(b"\x1b[2J")
    alice.resize(12, 40)
    alice.wait_for(
        lambda: alice.lines()[-2:] == ["alice> a draft that is long enough to be", " wrapped, too"],
        "the draft",
    )
    # Some terminals keep what no longer has room.
    assert alice.raw.count(b"\x1b[2J") > cleared
    assert [line.strip() for line in alice.lines() if "wrapped" in line or "between" in line][:2] == [
        "wrapped when the window is narrow,",
        "between its words",
    ]
    assert sum("alice>" in line for line in alice.lines()) == 1
    alice.resize(9, 20)
    rows = [
        " [1:lobby]",
        "alice> a draft that",
        "is long enough to be",
        " wrapped, too",
    ]
    alice.wait_for(lambda: alice.lines()[-4:] == rows, "the draft in 20 columns")
    alice.resize(24, 90)
    alice.wait_for(
        lambda: alice.lines()[-1:] == ["alice> a draft that is long enough to be wrapped, too"],
        "the draft",
    )
    assert not COLOUR.search(alice.raw)
    # With the same number of rows, those that fit as before are drawn again, too.
    cleared = alice.raw.count(b"\x1b[2J")
    alice.resize(24, 80)
    alice.wait_for(
        lambda: (
            alice.raw.count(b"\x1b[2J") > cleared
            and any("Welcome to the chat, alice!" in line for line in alice.lines())
        ),
        "what fits as before",
    )


def test_a_paste_is_text_and_none_of_it_is_lost(
    server: RealServer, terminal: Open, raw_client: LogIn
) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("json"), "--name", "alice"), "alice")
    lines = ["/quit", "if x:", "    return", "", *[f"line {number}" for number in range(196)]]
    alice.type("\x1b[200~" + "\n".join(lines) + "\n\x1b[201~")
    alice.expect("Send 200 lines to lobby? y: send, n: drop, e: edit")
    alice.type("y")
    carol.expect("MSG alice │ line 195")
    said = [line for line in carol.received.decode().splitlines() if line.startswith("MSG")]
    assert said == [f"MSG alice │ {line}".rstrip() for line in lines]
    # The same without marks, as from a terminal that has none.
    alice.expect_at_cursor("alice>")
    alice.type("/quit\rand the rest\r")
    alice.expect("and the rest")
    alice.type(f"{CTRL_C}still here\r")
    carol.expect("MSG alice still here")


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
        ((CTRL_C, CTRL_C), False),
        ((CTRL_D,), False),
        (("/quit\r",), False),
        ((CTRL_C, CTRL_C), True),
        ((CTRL_D,), True),
    ],
)
def test_every_way_to_leave_restores_the_terminal(
    server: RealServer, terminal: Open, raw_client: LogIn, keys: tuple[str, ...], plain: bool
) -> None:
    carol = raw_client("carol")
    alice = terminal(server.at("line"), "--name", "alice", *["--plain"] * plain)
    alice.expect_output(b" here: carol, alice")
    if len(keys) > 1:
        alice.type(keys[0])
        alice.expect("Ctrl-C again leaves")
    alice.type(keys[-1])
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
    alice.expect_output(b" here: carol, alice")
    alice.process.terminate()
    assert alice.exit_code() == 143
    assert alice.settings() == alice.settings_before
    assert "Traceback" not in "\n".join(alice.lines())
    carol.expect("INFO alice disconnected")


def test_ctrl_z_suspends_and_fg_goes_on(
    server: RealServer, terminal: Open, raw_client: LogIn, environment: dict[str, str]
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    pytest.importorskip("pyte", reason="a test of a client in a terminal needs pyte")
    from tests.client.pty_program import PtyProgram

    carol = raw_client("carol")
    client = " ".join(client_argv([server.at("line"), "--name", "alice"]))
    shell = PtyProgram(
        [bash, "-c", f"set -m; {client}; echo stopped $?; stty -a; fg; echo ended $?"],
        environment,
        rows=24,
        columns=80,
    )
    try:
        online(shell, "alice")
        shell.type("a draft")
        shell.expect_at_cursor("alice> a draft")
        shell.type(CTRL_Z)
        shell.expect_output(b"stopped 148")
        shell.expect_output(b" icanon")
        assert b"-icanon" not in shell.raw
        assert shell.raw.index(b"\x1b[?1049l") < shell.raw.index(b"stopped 148")
        shell.expect_at_cursor("alice> a draft")
        carol.send("MSG welcome back")
        shell.expect("] carol: welcome back")
        shell.type("\r")
        carol.expect("MSG alice a draft")
        shell.type("/q\r")
        shell.expect_output(b"ended 0")
        assert shell.exit_code() == 0
    finally:
        shell.close()


def test_colour_title_and_links_are_used_on_a_terminal(
    server: RealServer, terminal: Open, raw_client: LogIn
) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    carol.send("MSG alice: see https://a.example/b")
    alice.expect("carol: alice: see https://a.example/b")
    assert COLOUR.search(alice.raw)
    alice.expect_output("\x1b]2;lobby · alice\x1b\\".encode())
    alice.expect_output(b"\x1b]8;;https://a.example/b\x1b\\")
    carol.send("MSG nothing")
    alice.expect("] carol: nothing")
    assert alice.raw.count(b"\a") == 1


def test_notifications_and_the_mouse_are_off_until_they_are_set(
    server: RealServer, terminal: Open, raw_client: LogIn
) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("line"), "--name", "alice", rows=10), "alice")
    carol.send("MSG alice: one")
    alice.expect("] carol: alice: one")
    alice.type("/set notify osc9\r")
    alice.expect("notify = osc9")
    carol.send("MSG alice: two")
    alice.expect_output(b"\x1b]9;geventchat: carol in lobby: alice: two\x1b\\")
    alice.type("/set notify osc777\r")
    alice.expect("notify = osc777")
    carol.send("DM alice three; four")
    alice.expect_output("\x1b]777;notify;carol;carol → you: three; four\x1b\\".encode())
    assert (alice.raw.count(b"\x1b]9;"), alice.raw.count(b"\x1b]777;")) == (1, 1)
    assert b"\x1b[?1000h" not in alice.raw
    alice.type("/set mouse on\r")
    alice.expect_output(b"\x1b[?1000h")
    alice.expect("mouse = on")
    alice.type("\x1b[<64;1;1M")
    alice.expect("scrolled up: PageDown")
    alice.type("/q\r")
    assert alice.exit_code() == 0
    assert alice.raw.rindex(b"\x1b[?1000l") > alice.raw.rindex(b"\x1b[?1000h")


@pytest.mark.parametrize(
    ("arguments", "variables"), [(["--plain"], {}), ([], {"TERM": "dumb"}), (["--screen-reader"], {})]
)
def test_a_terminal_can_show_plain_lines_and_no_password(
    server: RealServer, terminal: Open, raw_client: LogIn, arguments: list[str], variables: dict[str, str]
) -> None:
    carol = raw_client("carol")
    # The room of the one before has a history.
    room = f"plain{len(arguments) + 2 * len(variables)}{arguments[:1] == ['--plain']}"
    carol.send(f"JOIN {room}")
    carol.expect_end("OK", 2)
    alice = terminal(
        f"json://alice@{server.at('json')}/{room}", "--no-bell", *arguments, NO_COLOR="1", **variables
    )
    alice.expect("2 here: carol, alice")
    alice.type("said plainly\n")
    carol.expect("MSG alice said plainly")
    carol.send("MSG answered plainly")
    alice.expect("carol: answered plainly")
    # The terminal itself keeps what was typed on the screen.
    assert sum(line.endswith("said plainly") for line in alice.lines()) == 1
    alice.type("/quit\nis text in a paste\n")
    carol.expect("MSG alice is text in a paste")
    alice.type("/register\n")
    alice.expect("New password:")
    alice.type("correct horse\n")
    alice.expect("Once more:")
    alice.type("wrong house\n")
    alice.expect("The two are not the same")
    alice.type("/who\n")
    alice.wait_for(lambda: sum("2 here:" in line for line in alice.lines()) == 2, "a second list of people")
    assert b"horse" not in alice.raw
    assert b"\x1b[" not in alice.raw
    alice.type(CTRL_D)
    assert alice.exit_code() == 0


def test_the_history_lasts_longer_than_the_session_and_has_no_passwords(
    server: RealServer, terminal: Open, raw_client: LogIn, environment: dict[str, str]
) -> None:
    carol = raw_client("carol")
    first = online(terminal(server.at("line"), "--name", "dora"), "dora")
    first.type("worth repeating\r")
    carol.expect("MSG dora worth repeating")
    first.expect_at_cursor("dora>")
    first.type("/register secret horse")
    first.expect_at_cursor("dora> /register ************")
    first.type("\r")
    first.expect("The name is yours now")
    first.type("/q\r")
    assert first.exit_code() == 0
    assert b"secret" not in first.raw
    second = online(terminal(server.at("line"), "--name", "emil"), "emil")
    second.type(UP)
    second.expect_at_cursor("emil> /q")
    second.type(UP)
    second.expect_at_cursor("emil> worth repeating")
    path = Path(environment["XDG_STATE_HOME"], "geventchat", "history")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "worth repeating\n/q\n"


def test_a_password_that_is_not_given_after_all_is_nowhere(
    server: RealServer, terminal: Open, raw_client: LogIn, environment: dict[str, str]
) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    alice.type("said before\r")
    carol.expect("MSG alice said before")
    alice.type("/register\r")
    alice.expect_at_cursor("New password:")
    alice.type("correct horse")
    alice.expect_at_cursor("New password: *************")
    alice.type(ESCAPE)
    alice.expect_at_cursor("alice>")
    # Neither Enter nor Ctrl-Y nor Ctrl-_ nor the arrows find it again.
    alice.type(f"\r{CTRL_Y}{CTRL_UNDERSCORE}{UP}")
    alice.expect_at_cursor("alice> said before")
    alice.type("\r")
    carol.expect_end("MSG alice said before", 2)
    assert carol.received.count(b"MSG") == 2
    alice.type("/q\r")
    assert alice.exit_code() == 0
    assert b"horse" not in alice.raw
    assert b"horse" not in Path(environment["XDG_STATE_HOME"], "geventchat", "history").read_bytes()


def test_settings_are_read_and_a_history_that_cannot_be_written_does_not_matter(
    server: RealServer, terminal: Open, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    config = tmp_path / ".config" / "geventchat" / "client.toml"
    config.parent.mkdir(parents=True)
    config.write_text('symbols = "plain"\ntimestamps = ""\nrooms = ["dev"]\n')
    alice = terminal(server.at("json"), "--name", "zoe", XDG_STATE_HOME=str(tmp_path / "file"))
    alice.expect("* The history of your input is off")
    alice.expect("* Welcome to the chat, zoe!")
    alice.expect("[1:dev]")
    alice.type("hi\r")
    alice.wait_for(lambda: "zoe: hi" in alice.lines(), "a message without a time")


def test_what_was_read_is_remembered_until_the_next_session(
    server: RealServer, terminal: Open, raw_client: LogIn
) -> None:
    carol = raw_client("carol")
    carol.send("JOIN remembered")
    carol.expect_end("OK", 2)
    alice = terminal(f"json://alice@{server.at('json')}/remembered")
    alice.expect("2 here: carol, alice")
    carol.send("MSG read")
    alice.expect("] carol: read")
    alice.type("/q\r")
    assert alice.exit_code() == 0
    carol.send("MSG missed")
    carol.send("PING")
    carol.expect("PONG")
    again = terminal(f"json://alice@{server.at('json')}/remembered")
    again.wait_for(
        lambda: (
            [
                line.rpartition("carol: ")[2].strip("─ ")
                for line in again.lines()
                if "carol: " in line or "──" in line
            ]
            == ["read", "new since you left", "missed"]
        ),
        "what was read, a line, and what was missed",
    )


def test_themes_and_colours_are_read_from_the_file_and_a_theme_can_be_typed(
    server: RealServer, terminal: Open, raw_client: LogIn, tmp_path: Path
) -> None:
    config = tmp_path / ".config" / "geventchat" / "client.toml"
    config.parent.mkdir(parents=True)
    config.write_text('theme = "light"\n[colours]\nstatus = "black on-cyan"\n')
    carol = raw_client("carol")
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    # The default theme has no magenta names, and its status bar is reversed.
    alice.expect_output(b"\x1b[30;46m")
    assert b"\x1b[7m" not in alice.raw
    carol.send("MSG alice: one")
    alice.expect_output(b"\x1b[1;31malice: one")
    alice.type("/set theme contrast\r")
    alice.expect("theme = contrast")
    carol.send("MSG alice: two")
    alice.expect_output(b"\x1b[1;7malice: two")
    # What was shown before is drawn anew, and own colours stay.
    alice.expect_output(b"\x1b[1;7malice: one")
    assert b"\x1b[7m" not in alice.raw


def test_without_colour_bold_and_reverse_remain(
    server: RealServer, terminal: Open, raw_client: LogIn
) -> None:
    carol = raw_client("carol")
    alice = online(terminal(server.at("json"), "--name", "alice", NO_COLOR="1"), "alice")
    carol.send("MSG **look** here")
    alice.expect("] carol: look here")
    row, line = next((row, line) for row, line in enumerate(alice.screen.display) if "look here" in line)
    cells = alice.screen.buffer[row]
    assert (cells[line.index("look")].bold, cells[line.index("here")].bold) == (True, False)
    row, line = next((row, line) for row, line in enumerate(alice.screen.display) if "[1:lobby]" in line)
    assert alice.screen.buffer[row][line.index("lobby")].reverse
    assert not COLOUR.search(alice.raw)


def test_the_title_is_given_back_and_it_and_links_can_be_turned_off(
    server: RealServer, terminal: Open, tmp_path: Path
) -> None:
    alice = online(terminal(server.at("line"), "--name", "alice"), "alice")
    alice.expect_output(b"\x1b]2;")
    alice.type("/q\r")
    assert alice.exit_code() == 0
    saved, shown, restored = (alice.raw.index(one) for one in (b"\x1b[22;2t", b"\x1b]2;", b"\x1b[23;2t"))
    assert saved < shown < restored
    config = tmp_path / ".config" / "geventchat" / "client.toml"
    config.parent.mkdir(parents=True)
    config.write_text("title = false\nlinks = false\n")
    bob = online(terminal(server.at("line"), "--name", "bob"), "bob")
    bob.type("see https://a.example\r")
    bob.expect("] bob: see https://a.example")
    assert b"\x1b]" not in bob.raw


def test_a_screen_reader_gets_words_and_the_room(
    server: RealServer, terminal: Open, raw_client: LogIn
) -> None:
    carol = raw_client("carol")
    carol.send("JOIN reading")
    carol.expect_end("OK", 2)
    alice = terminal(f"json://alice@{server.at('json')}/reading", "--screen-reader")
    alice.expect("2 here: carol, alice")
    alice.type("/join elsewhere\n")
    alice.expect("You are in elsewhere.")
    carol.send("MSG alice: **look**")
    alice.expect("] In reading: Mention. carol: alice: look")
    carol.send("DM alice psst")
    alice.expect("] Direct message from carol to you: psst")
    alice.type("/dm nobody psst\n")
    alice.expect("Error: nobody is not here. Not sent: psst")
    assert b"\x1b" not in alice.raw
    assert not any(ord(letter) > 0x2000 for line in alice.lines() for letter in line)


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (120, ["❌ Connection refused by 127.0.0.1:1."]),
        (30, ["❌ Connection refused by", "   127.0.0.1:1."]),
    ],
)
def test_a_refused_connection_is_one_sentence(terminal: Open, columns: int, lines: list[str]) -> None:
    alice = terminal("127.0.0.1:1", "--name", "alice", columns=columns)
    assert alice.exit_code() == 1
    assert alice.lines() == lines
