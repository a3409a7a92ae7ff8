"""The transcripts over TLS."""

from __future__ import annotations

import pytest

from tests import over_tls

# On a busy machine all of them would take too long for one test.
PARTS = 5


@pytest.mark.parametrize("part", range(PARTS))
def test_the_transcripts_are_the_same_over_tls(part: int, capfd: pytest.CaptureFixture[str]):
    scripts = over_tls.scripts()[part::PARTS]
    assert len(scripts) > 40
    code = over_tls.play(scripts)
    assert code == 0, capfd.readouterr().out


def test_those_that_differ_exist():
    assert all((over_tls.FOLDER / name).exists() for name in over_tls.DIFFERENT)
