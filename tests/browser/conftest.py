"""One browser for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.browser.chromium import Chromium, program


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    """The browser, or a skip with the reason."""
    if find_spec("websockets") is None:
        pytest.skip("websockets is not installed (pip install -e '.[test]')")
    if program() is None:
        pytest.skip("chromium is not installed (sudo .ci/packages)")
    chromium = Chromium()
    try:
        yield chromium
    finally:
        chromium.close()
