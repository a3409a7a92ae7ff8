"""One browser for all tests of a worker, a server for the tests of a file, and pages that are closed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from tests.browser.chat import ChatPage, ChatServer, OpenPage, chat
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


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    """A server for the tests that do not stop it. The names of each test are its own; alice leaves with her page."""
    with chat() as running:
        yield running


@pytest.fixture
def open_page(browser: Chromium) -> Iterator[OpenPage]:
    """Opens pages, and closes them after the test. A test fails if anything went wrong in one of them."""
    pages: list[ChatPage] = []

    def opened(server: ChatServer, name: str = "", **more: Any) -> ChatPage:
        page = ChatPage(browser, server, **more)
        pages.append(page)
        if name:
            page.log_in(name)
        return page

    yield opened
    for page in pages:
        page.close()
