"""A sample of the transcripts over TLS; `python -m tests.over_tls` plays them all."""

from __future__ import annotations

import pytest

from tests import over_tls


def test_a_sample_of_the_transcripts_is_the_same_over_tls(capfd: pytest.CaptureFixture[str]):
    sample = over_tls.scripts()[::30]
    assert len(sample) > 5
    code = over_tls.play(sample)
    assert code == 0, capfd.readouterr().out


def test_those_that_differ_exist():
    assert all((over_tls.FOLDER / name).exists() for name in over_tls.DIFFERENT)
