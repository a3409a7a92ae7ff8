"""Find a server on this machine: without it its transcripts are skipped, but in CI they fail."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest

# Debian installs servers outside the PATH of an ordinary user.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def program(name: str, package: str) -> str:
    """The path of the program."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        _not_installed(f"{name} is not installed; Debian's package {package} has it")
    return found or ""


def module(name: str) -> str:
    """The name of the module, if it can be run."""
    if importlib.util.find_spec(name) is None:
        _not_installed(f"{name} is not installed; pip installs it")
    return name


def _not_installed(reason: str) -> None:
    """Skip the test; CI has installed everything, so there it fails."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}; CI needs it", pytrace=False)
    pytest.skip(reason)
