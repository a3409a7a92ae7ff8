"""Whether a foreign server is on this machine: without it its transcripts are skipped, but on CI they fail."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest

# Debian puts servers where the PATH of a plain user does not lead.
_PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def program(name: str, package: str) -> str:
    """Where the program is."""
    found = shutil.which(name, path=_PLACES)
    if found is None:
        lacking(f"{name} is not installed; it comes with Debian's package {package}")
    return found or ""


def module(name: str) -> str:
    """The module's name, if it can be run."""
    if importlib.util.find_spec(name) is None:
        lacking(f"{name} is not installed; it comes from PyPI")
    return name


def lacking(reason: str) -> None:
    """Skip, since a user's machine need not have everything; fail where everything was to be installed."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}, and on CI it must be", pytrace=False)
    pytest.skip(reason)
