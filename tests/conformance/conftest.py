"""geventchat takes part in its own suite: in process, as a server that goes by all three documents."""

from __future__ import annotations

import pytest

from harness import InProcess
from tests.app import serve

FEATURES = frozenset({"000", "001", "002", "idle-info"})


@pytest.fixture
def harness_target() -> InProcess:
    return InProcess(serve, features=FEATURES)
