"""docs/deploy/Dockerfile without a container: its steps in another folder, and what they have installed as a server.

CI builds the image itself.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.geventchat.processes import environment, port_of, ready_lines
from tests.geventchat.test_health import free_port
from tests.patience import HANG_S, killed_at_the_end

ROOT = Path(__file__).resolve().parents[2]
LINES = re.sub(r"\\\n", "", (ROOT / "docs/deploy/Dockerfile").read_text()).splitlines()
# Each instruction with its words, in order.
STEPS = [tuple(line.split(" ", 1)) for line in LINES if line and not line.startswith("#")]
# `docker stop` kills after this time.
STOP_S = 10


def words(instruction: str) -> list[str]:
    return [text for name, text in STEPS if name == instruction]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first stage has put the program, made of what is in the build context."""
    place = tmp_path_factory.mktemp("image")
    ignored = (ROOT / ".dockerignore").read_text().split()

    def leave_out(folder: str, names: list[str]) -> set[str]:
        below = Path(folder).relative_to(ROOT)
        paths = {name: str(below / name) for name in names}
        patterns = [(pattern, pattern.removeprefix("**/")) for pattern in ignored]
        return {
            name
            for name, path in paths.items()
            for pattern, tail in patterns
            if fnmatch.fnmatch(path, pattern) or (tail != pattern and fnmatch.fnmatch(name, tail))
        }

    shutil.copytree(ROOT, place / "source", ignore=leave_out, symlinks=True)
    (build, *_) = words("RUN")
    for old, new in {
        "/opt/geventchat": str(place / "opt"),
        "/source": str(place / "source"),
        "python -m": f"{shlex.quote(sys.executable)} -m",
        # Of this machine, not of an image.
        " --no-cache-dir": " --quiet",
    }.items():
        assert old in build
        build = build.replace(old, new)
    done = subprocess.run(
        ["/bin/sh", "-ec", build], env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode and re.search(
        "No matching distribution|ConnectionError|NewConnectionError", done.stderr
    ):
        pytest.skip("pip cannot download packages here")
    assert done.returncode == 0, done.stderr
    return place / "opt"


# Three minutes are not enough to make an environment and install into it beside ten other tests and four busy loops.
@pytest.mark.timeout(600)
def test_what_the_image_contains_serves_is_healthy_and_stops_in_time(installed: Path, tmp_path: Path):
    # The settings of the image, and no path of this repository.
    variables = dict(pair.split("=", 1) for pair in words("ENV"))
    variables["PATH"] = (
        variables["PATH"].replace("/opt/geventchat", str(installed)).replace("$PATH", os.environ["PATH"])
    )
    (entry,) = map(json.loads, words("ENTRYPOINT"))
    (data,) = re.findall(r"--data (\S+)", "\n".join(LINES))
    assert f"install -d -o chat -m 700 {data}" in words("RUN")[1]
    assert words("USER") == ["chat"]
    arguments = [
        str(free_port()),
        "--host",
        "127.0.0.1",
        "--data",
        str(tmp_path / "data"),
        "--listen",
        "web://127.0.0.1:0",
    ]
    more = {"env": environment(**variables), "cwd": tmp_path, "text": True}
    command = [shutil.which(entry[0], path=variables["PATH"]), *entry[1:], *arguments]
    assert command[0] == str(installed / "bin/geventchat")
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more) as server,
        killed_at_the_end(server),
    ):
        _, web, _ = ready_lines(server)
        page = urllib.request.urlopen(f"http://127.0.0.1:{port_of(web)}/", timeout=HANG_S).read()
        assert b"<script" in page
        (check,) = [json.loads(text.split("CMD ")[1]) for text in words("HEALTHCHECK")]
        check[check.index("--pid") + 1] = str(server.pid)
        path = shutil.which(check[0], path=variables["PATH"])
        answer = subprocess.run([path, *check[1:]], capture_output=True, check=False, timeout=HANG_S, **more)
        assert (answer.returncode, answer.stdout[:9]) == (0, "healthy: "), answer
        answer = subprocess.run(
            [path, "admin", "status", "--pid", str(server.pid)],
            capture_output=True,
            check=False,
            timeout=HANG_S,
            **more,
        )
        assert answer.returncode == 0, answer.stderr
        (stop,) = words("STOPSIGNAL")
        server.send_signal(signal.Signals[stop])
        assert server.wait(STOP_S) == 0
    assert float(variables["GEVENTCHAT_SHUTDOWN_TIMEOUT"]) + 1 < STOP_S
