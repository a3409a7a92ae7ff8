"""Thousands of strings of garbage, in every dialect: others are unaffected and nothing is left behind."""

from __future__ import annotations

import pytest

from tests.fire.garbage import KINDS
from tests.fire.garbage_clients import LISTENERS, send_garbage


@pytest.mark.parametrize("dialect", LISTENERS)
def test_garbage_does_not_affect_others_and_leaves_nothing_behind(dialect: str) -> None:
    run = send_garbage(1_500, seed=1, dialect=dialect)
    assert run.strings == sum(run.kinds.values()) == 1_500
    assert set(run.kinds) == set(KINDS)
    # A server that refused every connection would pass everything else.
    assert run.reasons["closed"] > 200
    assert run.reasons["http"] > 15
    assert run.reasons["tls"] > 15
