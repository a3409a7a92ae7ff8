"""docs/operations.md: its way from nothing to a public chat, with another folder, other ports, and the user of the test.

The name stays `chat.example`: `localhost` would be allowed as the origin of the page, whatever the settings say. It leads to
this machine.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import pytest

from tests.certificates import make
from tests.geventchat.processes import environment
from tests.geventchat.test_health import free_port
from tests.patience import HANG_S, until

PAGE = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()
# Steps of the page, without those that install the program and make its user.
SKIPPED = re.compile(r"^(?:python3 -m venv|useradd|alias|/opt/geventchat/bin/pip) .*\n", re.MULTILINE)


def test_the_way_from_nothing_to_a_public_chat_can_be_gone(tmp_path: Path):
    for program in ("curl", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (sudo .ci/packages)")
    pytest.importorskip("websockets", reason="websockets is not installed (pip install -e '.[test]')")
    found = re.search(
        r"^## From nothing to a public chat\n.*?^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
    assert found is not None
    live = tmp_path / "live"
    live.mkdir()
    cert, key = make(live, "chat.example")
    cert.rename(live / "fullchain.pem")
    key.rename(live / "privkey.pem")
    ports = {port: str(free_port()) for port in ("4000", "6697", "8443", "9464")}
    script = SKIPPED.sub("", found[1])
    for old, new in {
        "/etc/letsencrypt/live/chat.example": str(live),
        "/etc/geventchat.toml": f"{tmp_path}/chat.toml",
        "/var/lib/geventchat": f"{tmp_path}/data",
        "/root/": f"{tmp_path}/",
        "-o chat ": "",
        "-connect chat.example": "-connect localhost",
        "+tls://:": "+tls://127.0.0.1:",
        "metrics://": "metrics://127.0.0.1:9464",
        "as-chat passwd --data DIR alice": "printf 'correct horse\\n' | as-chat passwd --data DIR alice",
        "chat.toml &\n": f"chat.toml > {tmp_path}/out 2> {tmp_path}/log &\n"
        f"until grep -q Waiting {tmp_path}/out; do kill -0 $!; sleep 0.05; done\n",
    }.items():
        old = old.replace("DIR", f"{tmp_path}/data")
        assert old in script, old
        script = script.replace(old, new.replace("DIR", f"{tmp_path}/data"))
    script = script.replace("as-chat", f"'{sys.executable}' -m geventchat")
    script = re.sub("|".join(ports), lambda matched: ports[matched[0]], script)
    (tmp_path / ".curlrc").write_text("connect-to = chat.example::127.0.0.1:\n")
    variables = environment(
        CURL_CA_BUNDLE=str(live / "fullchain.pem"), CURL_HOME=str(tmp_path), LC_ALL="C.UTF-8"
    )
    start, use = re.split("^(?=# 7)", script, flags=re.MULTILINE)
    page = re.search(r"the page at (https://[^\s,]+)", start)
    assert page is not None
    # The server of the script outlives it, and so do its pipes.
    with (tmp_path / "shown").open("w+") as shown:
        try:
            run_steps(start, variables, shown)
            open_as_browsers_do(page[1], variables)
            run_steps(use, variables, shown)
            text = (tmp_path / "shown").read_text()
            for line in (
                r"^web-origin +https://chat\.example:\d+ ",
                "^made the account alice$",
                "^Goodbye!$",
                "^# HELP geventchat_connections ",
                r'^\{"type": "ok", "room": "lobby", "id": 2\}',
                "^done$",
                "^file: .*/backup.db$",
                "^at once: -$",
                r"^pid: \d+$",
            ):
                assert re.search(line, text, re.MULTILINE), f"{line} is missing in {text}"
            log = tmp_path / "log"
            assert until(lambda: "stopped orderly=True" in log.read_text()), log.read_text()
            assert (tmp_path / "ci-token").stat().st_mode & 0o777 == 0o600
            assert (tmp_path / "ci-token").read_text().strip() not in text + log.read_text()
            assert (tmp_path / "data-restored/chat.db").stat().st_size
        finally:
            _end(tmp_path / "data/lock")


def run_steps(script: str, variables: dict[str, str], shown: IO[str]) -> None:
    """Run some of the steps to their end."""
    code = subprocess.run(
        ["/bin/sh", "-euc", script],
        stdout=shown,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=variables,
        timeout=HANG_S,
        check=False,
    ).returncode
    assert code == 0, Path(shown.name).read_text()


def open_as_browsers_do(page: str, variables: dict[str, str]) -> None:
    """Load the page at this address, and connect from there: with the origin that this address has."""
    from websockets.sync.client import connect

    html = subprocess.run(["curl", "-sSf", page], env=variables, capture_output=True, text=True, check=False)
    assert "<title>geventchat</title>" in html.stdout, html.stderr
    host = urlsplit(page).netloc
    trusted = ssl.create_default_context(cafile=variables["CURL_CA_BUNDLE"])
    raw = socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2])), timeout=HANG_S)
    with connect(f"wss://{host}/ws", sock=raw, ssl=trusted, origin=f"https://{host}") as chat:
        chat.send('{"type": "join", "v": 2, "username": "visitor"}')
        assert '"type": "welcome"' in chat.recv(HANG_S)


def _end(lock: Path) -> None:
    """End the server that the script has started, if it still runs."""
    try:
        pid = int(lock.read_text())
        if b"geventchat" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        pass
