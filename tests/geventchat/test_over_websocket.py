"""The transcripts of `json` over WebSockets."""

from __future__ import annotations

import pytest
import websockets  # noqa: F401 - without it the module is skipped

from tests import over_websocket


def test_the_transcripts_are_the_same_over_websockets(capfd: pytest.CaptureFixture[str]):
    scripts = over_websocket.scripts()
    assert len(scripts) > 50
    code = over_websocket.play(scripts)
    assert code == 0, capfd.readouterr().out


def test_those_that_differ_exist():
    assert all((over_websocket.FOLDER / name).exists() for name in over_websocket.DIFFERENT)
