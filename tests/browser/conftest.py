"""One browser for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import Chromium, program


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    """The browser, or a skip with the reason."""
    if program() is None:
        pytest.skip("chromium is not installed (sudo .ci/packages)")
    chromium = Chromium()
    try:
        yield chromium
    finally:
        chromium.close()
