"""Fixtures for all tests of the harness."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _wide_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are as wide as the terminal: without this, texts would depend on it, and on the names of temporary folders."""
    monkeypatch.setenv("COLUMNS", "300")
