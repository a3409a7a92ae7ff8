"""docs/web.md: its commands work, and its tables are complete."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from geventchat.chat.events import Rejection
from geventchat.dialects.websocket import CLOSE_CODES
from geventchat.dialects.words import error_word
from geventchat.web.api import _STATUSES
from tests.geventchat.processes import environment, port_of, ready_lines, running
from tests.geventchat.test_passwd import passwd
from tests.patience import HANG_S

PAGE = (Path(__file__).resolve().parents[2] / "docs/web.md").read_text()


def test_the_commands_for_bots_give_the_answers_that_are_shown(tmp_path: Path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (sudo .ci/packages)")
    token = passwd("--data", str(tmp_path), "--token", "ci", typed="").stdout.decode().strip()
    examples = re.findall(r"^```sh\n(curl .*)\n```\n\n```\n(\{.*\})\n```$", PAGE, re.MULTILINE)
    assert len(examples) == 2
    listen = ("-p", "0", "--host", "127.0.0.1", "--listen", "web://127.0.0.1:0", "--data", str(tmp_path))
    with running(*listen, "--log-level", "error") as server:
        web = next(port_of(line) for line in ready_lines(server) if "(web)" in line)
        for command, shown in examples:
            command = command.replace("localhost:4080", f"127.0.0.1:{web}").replace("after=16", "after=0")
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                capture_output=True,
                env=environment(TOKEN=token),
                timeout=HANG_S,
                check=True,
            )
            # Ids and times differ.
            answer, expected = json.loads(done.stdout), json.loads(shown.replace('"id": 17', '"id": 1'))
            for message in answer.get("messages", []):
                message["timestamp_ms"] = 1795225007000
            assert answer == expected


def test_the_program_in_python_joins_and_answers():
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    listen = ("-p", "0", "--host", "127.0.0.1", "--listen", "web://127.0.0.1:0", "--log-level", "error")
    with running(*listen) as server:
        line, web, _ = ready_lines(server)
        program = program.replace("localhost:4080", f"127.0.0.1:{port_of(web)}")
        command = [sys.executable, "-c", program]
        with (
            socket.create_connection(("127.0.0.1", port_of(line)), HANG_S) as alice,
            alice.makefile("rwb") as lines,
            subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as robot,
        ):
            lines.write(b"LOGIN alice\n")
            lines.flush()
            heard = [lines.readline()]
            # Either is first.
            while b"robot" not in heard[-1] and robot.poll() is None:
                lines.write(b"WHO\n")
                lines.flush()
                heard.append(lines.readline())
            lines.write(b"MSG !ping\n")
            lines.flush()
            while heard[-1] and heard[-1] != b"MSG robot pong\n":
                heard.append(lines.readline())
            assert heard[-1] == b"MSG robot pong\n", heard
            robot.kill()


def test_every_close_code_is_listed():
    listed = {int(code) for code in re.findall(r"^\| ([14]\d{3}) \|", PAGE, re.MULTILINE)}
    assert listed == {code for code, _ in CLOSE_CODES.values()} | {1002, 1003, 1007, 1009}


def test_every_code_of_an_error_has_the_status_that_is_listed():
    rows = dict(re.findall(r"^\| (4\d\d) \| (.*) \|$", PAGE, re.MULTILINE))
    for reason, status in _STATUSES.items():
        assert f"`{error_word(reason)}`" in rows[str(status)]
    for reason in (
        Rejection.BANNED_FROM_ROOM,
        Rejection.MUTED,
        Rejection.NO_VOICE,
        Rejection.WRONG_KEY,
        Rejection.INVITATION_REQUIRED,
        Rejection.NAME_INVALID,
    ):
        assert f"`{error_word(reason)}`" in rows["403"]
