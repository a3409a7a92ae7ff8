"""The command line of the client, the file and the environment, put together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from geventchat.chat.passwords import Secret
from geventchat.client.app import begin, parse_arguments
from geventchat.client.options import Config, Options
from geventchat.client.session import Plan
from tests.client.real_server import ROOT
from tests.patience import HANG_S


def begun(*argv: str, config: Config | None = None, **environment: str) -> tuple[Plan, Options, bool]:
    start = begin(parse_arguments(argv), config or Config(), environment)
    return start.plan, start.config.options, start.plain


def test_the_options_are_the_requested_ones() -> None:
    plan, options, plain = begun(
        "[::1]:77", "--name", "al", "--dialect", "slash", "--no-bell", "--plain", "--room", "dev"
    )
    assert plan == Plan("::1", 77, "slash", "al", None)
    assert options == Options(bell=False, rooms=("dev",))
    assert plain
    assert begun() == (Plan(), Options(), False)


def test_an_address_can_ask_for_tls() -> None:
    plan, options, _ = begun("chats://h:7", "--tls-ca", "ca.pem")
    assert (plan, options.tls_ca) == (Plan("h", 7, tls=True), "ca.pem")
    file = Config(Options(server="json+tls://h", tls_ca="own.pem"))
    plan, options, _ = begun(config=file)
    assert (plan, options.tls_ca) == (Plan("h", None, "json", tls=True), "own.pem")
    # An address on the command line does not inherit it.
    assert not begun("h", config=file)[0].tls


def test_the_file_says_what_the_command_line_does_not() -> None:
    file = Config(Options(server="json://bob@h:7/ops", name="al", bell=False, rooms=("x",)))
    assert begun(config=file)[:2] == (
        Plan("h", 7, "json", "bob"),
        Options(server="json://bob@h:7/ops", name="al", bell=False, rooms=("ops",)),
    )
    plan, options, _ = begun("other", "--name", "eve", "--screen-reader", config=file)
    assert plan == Plan("other", None, None, "eve")
    assert (options.screen_reader, options.rooms) == (True, ("x",))


def test_a_password_comes_from_the_environment_alone() -> None:
    plan, _, _ = begun("h", GEVENTCHAT_PASSWORD="correct horse")
    assert plan.password == Secret("correct horse")
    assert "horse" not in repr(plan)


@pytest.mark.parametrize(
    ("argv", "seconds"),
    [
        ([], 20.0),
        (["--keep-alive", "localhost"], 20.0),
        (["localhost", "--keep-alive"], 20.0),
        (["--keep-alive", "5", "localhost"], 5.0),
        (["--keep-alive=7", "localhost"], 7.0),
        (["localhost", "--keep-alive", "--no-bell"], 20.0),
        (["localhost", "--no-keep-alive"], 0.0),
    ],
)
def test_the_client_keeps_the_connection_alive_by_default(argv: list[str], seconds: float) -> None:
    assert begun(*argv)[1].keep_alive == seconds


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["host:x"], "Invalid port 'x': use a number from 1 to 65535."),
        (
            ["http://host"],
            "Invalid address 'http://host': use chat://HOST:PORT, chats://HOST:PORT for TLS, or",
        ),
        (["--keep-alive=0"], "'0' is not a number from 1 to 86400"),
        (["--keep-alive=nan"], "'nan' is not a number from 1 to 86400"),
        (["--dialect", "irc"], "invalid choice"),
    ],
)
def test_wrong_usage_exits_with_two_and_a_reason(
    argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_arguments(argv)
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


def run(*argv: str, module: str = "geventchat.client") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *argv],
        capture_output=True,
        text=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        timeout=HANG_S,
        check=False,
    )


def test_it_is_a_module_and_a_command(tmp_path: Path) -> None:
    assert run("--help").stdout.startswith("usage: geventchat connect")
    assert run("conect", "localhost", module="geventchat").stderr == (
        "geventchat: unknown command 'conect'; did you mean connect?\nTry: geventchat --help\n"
    )
    wrong = tmp_path / "client.toml"
    wrong.write_text("bel = true")
    done = run("h", "--name", "x", "--config", str(wrong))
    assert (done.returncode, done.stderr) == (
        2,
        f"geventchat: {wrong}: unknown setting bel; did you mean bell?\n",
    )
