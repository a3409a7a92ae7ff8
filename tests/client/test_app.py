"""The command line of the client, and the cost of starting it."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from geventchat.client.app import KEEP_ALIVE_S, Options, Program, parse_options
from geventchat.client.session import Plan, Session, SessionEvent
from tests.client.real_server import ROOT
from tests.client.recorders import RecordingTerminal, TickingClock
from tests.patience import HANG_S


def test_the_options_are_the_requested_ones() -> None:
    options = parse_options(["[::1]:77", "--name", "al", "--dialect", "slash", "--no-bell", "--plain"])
    assert options == Options(Plan("::1", 77, "slash", "al", None), bell=False, plain=True)
    assert parse_options([]) == Options(Plan(None, None, None, None, None), bell=True, plain=False)


@pytest.mark.parametrize(
    ("argv", "seconds"),
    [
        (["--keep-alive", "localhost"], KEEP_ALIVE_S),
        (["localhost", "--keep-alive"], KEEP_ALIVE_S),
        (["--keep-alive", "5", "localhost"], 5.0),
        (["--keep-alive=7", "localhost"], 7.0),
        (["localhost", "--keep-alive", "--no-bell"], KEEP_ALIVE_S),
    ],
)
def test_keep_alive_takes_a_number_or_none(argv: list[str], seconds: float) -> None:
    plan = parse_options(argv).plan
    assert (plan.keep_alive_s, plan.host) == (seconds, "localhost")


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["host:x"], "Invalid port 'x': use a number from 1 to 65535."),
        (["--keep-alive=0"], "'0' is not a number from 1 to 86400"),
        (["--keep-alive=nan"], "'nan' is not a number from 1 to 86400"),
        (["--dialect", "irc"], "invalid choice"),
    ],
)
def test_wrong_usage_exits_with_two_and_a_reason(
    argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_options(argv)
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_bug_in_the_session_ends_the_program() -> None:
    class BrokenSession(Session):
        def handle(self, event: SessionEvent) -> None:
            raise RuntimeError("bug")

    async def run() -> None:
        program = Program()
        plan = Plan("127.0.0.1", 1, None, "alice", None)
        await program.run(BrokenSession(plan, RecordingTerminal(), program, TickingClock().clock()))

    with pytest.raises(RuntimeError, match="bug"):
        asyncio.run(asyncio.wait_for(run(), 10))


def test_the_client_starts_without_the_server() -> None:
    program = (
        "import sys; sys.argv = ['geventchat', 'connect', '--help']\n"
        "from geventchat.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "loaded = {name.partition('.')[0] for name in sys.modules} | set(sys.modules)\n"
        "print(loaded & {'gevent', 'prompt_toolkit', 'geventchat.server', 'geventchat.net'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=HANG_S, check=True
    )
    assert done.stdout.splitlines()[0].startswith("usage: geventchat connect")
    assert done.stdout.splitlines()[-1] == "set()"
