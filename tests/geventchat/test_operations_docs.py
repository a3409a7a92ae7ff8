"""docs/operations.md: its way from nothing to a public chat, with another folder, other ports, and the user of the test."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

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
    found = re.search(
        r"^## From nothing to a public chat\n.*?^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
    assert found is not None
    live = tmp_path / "live"
    live.mkdir()
    cert, key = make(live)
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
        "chat.example": "localhost",
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
    # The server of the script outlives it, and so do its pipes.
    with (tmp_path / "shown").open("w+") as shown:
        try:
            code = subprocess.run(
                ["/bin/sh", "-euc", script],
                stdout=shown,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment(CURL_CA_BUNDLE=str(live / "fullchain.pem"), LC_ALL="C.UTF-8"),
                timeout=HANG_S,
                check=False,
            ).returncode
            text = (tmp_path / "shown").read_text()
            assert code == 0, text
            for line in (
                r"^web-origin +https://localhost:\d+ ",
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


def _end(lock: Path) -> None:
    """End the server that the script has started, if it still runs."""
    try:
        pid = int(lock.read_text())
        if b"geventchat" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        pass
