"""The program that comes with OpenSSL, and others that people have, are clients of a TLS listener."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.certificates import made_certificate
from tests.geventchat.processes import port_of, ready_lines, running
from tests.patience import HANG_S


def test_s_client_checks_the_certificate_and_chats() -> None:
    cert, key = made_certificate()
    files = ("--tls-cert", str(cert), "--tls-key", str(key))
    with running("--listen", "line+tls://127.0.0.1:0", *files) as server:
        (line, _) = ready_lines(server)
        assert line.endswith(" (line+tls)")
        for version in ("-tls1_2", "-tls1_3"):
            ended = subprocess.run(
                [
                    *("openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", str(cert), version),
                    *("-verify_hostname", "localhost", "-connect", f"127.0.0.1:{port_of(line)}"),
                ],
                input=b"LOGIN alice\nMSG hi\nPING\nQUIT\n",
                capture_output=True,
                timeout=HANG_S,
                check=False,
            )
            assert ended.stdout == b"OK\nPONG\nGoodbye!\n", ended.stderr


def test_earlier_versions_and_renegotiation_are_refused_at_once() -> None:
    cert, key = made_certificate()
    files = ("--tls-cert", str(cert), "--tls-key", str(key))
    with running("--listen", "line+tls://127.0.0.1:0", *files) as server:
        (line, _) = ready_lines(server)
        client = ["openssl", "s_client", "-connect", f"127.0.0.1:{port_of(line)}"]
        earlier = [*client, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]
        ended = subprocess.run(
            earlier, stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG_S, check=False
        )
        assert (ended.returncode, b"alert protocol version" in ended.stderr) == (1, True), ended.stderr
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([*client, "-tls1_2"], **pipes) as again:
            assert again.stdin is not None
            assert again.stdout is not None
            again.stdin.write(b"LOGIN alice\n")
            again.stdin.flush()
            while again.stdout.readline() != b"OK\n":
                assert again.poll() is None
            again.stdin.write(b"R\n")
            again.stdin.flush()
            assert again.wait(HANG_S) == 1
            assert b"no renegotiation" in again.stderr.read()


@pytest.mark.parametrize(
    "command",
    [
        "ncat --ssl --ssl-verify --ssl-trustfile {cert} localhost {port}",
        "socat - openssl:localhost:{port},cafile={cert}",
    ],
    ids=lambda command: command.split()[0],
)
def test_other_programs_check_the_certificate_and_chat(command: str) -> None:
    words = command.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed (sudo .ci/packages)")
    cert, key = made_certificate()
    files = ("--tls-cert", str(cert), "--tls-key", str(key))
    with running("--listen", "line+tls://127.0.0.1:0", *files) as server:
        (line, _) = ready_lines(server)
        ended = subprocess.run(
            [word.format(cert=cert, port=port_of(line)) for word in words],
            input=b"LOGIN alice\nMSG hi\nPING\nQUIT\n",
            capture_output=True,
            timeout=HANG_S,
            check=False,
        )
        assert ended.stdout == b"OK\nPONG\nGoodbye!\n", ended.stderr
