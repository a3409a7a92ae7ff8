"""A sample of the transcripts over WebSockets; `python -m tests.over_websocket` plays them all."""

from __future__ import annotations

import pytest
import websockets  # noqa: F401 - without it the module is skipped

from tests import over_websocket


def test_a_sample_of_the_transcripts_is_the_same_over_websockets(capfd: pytest.CaptureFixture[str]):
    sample = over_websocket.scripts()[::6]
    assert len(sample) > 8
    code = over_websocket.play(sample)
    assert code == 0, capfd.readouterr().out


def test_those_that_differ_exist():
    assert all((over_websocket.FOLDER / name).exists() for name in over_websocket.DIFFERENT)
