"""Certificates for tests, made by OpenSSL's own program when one is needed first: a stored one would expire."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Files(NamedTuple):
    """A certificate, which is its own authority, and its key."""

    cert: Path
    key: Path


def make(folder: Path, name: str = "localhost", *arguments: str) -> Files:
    """A new certificate for this name and the loopback addresses. More arguments go to `openssl req`."""
    files = Files(folder / f"{name}.pem", folder / f"{name}.key")
    run(
        *(
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ),
        *("-keyout", str(files.key), "-out", str(files.cert), "-subj", f"/CN={name}"),
        *("-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1,IP:::1", *arguments),
    )
    return files


def run(*arguments: str) -> None:
    """Run OpenSSL's program."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@cache
def made_certificate() -> Files:
    """One certificate for this process."""
    folder = tempfile.mkdtemp(prefix="geventchat-certificate-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make(Path(folder))
