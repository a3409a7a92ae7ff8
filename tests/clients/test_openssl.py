"""The program that comes with OpenSSL is a client of a TLS listener."""

from __future__ import annotations

import subprocess

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
