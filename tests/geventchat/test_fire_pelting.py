"""Ten thousand strings of garbage in every dialect leave the server up, the others untouched and nothing behind."""

from __future__ import annotations

import pytest

from tests.fire.garbage import KINDS
from tests.fire.pelting import DIALECTS, pelt


@pytest.mark.parametrize("dialect", DIALECTS)
def test_garbage_leaves_the_server_up_the_others_untouched_and_nothing_behind(dialect: str) -> None:
    run = pelt(3_400, seed=1, dialect=dialect)
    assert run.strings == sum(run.kinds.values()) == 3_400
    assert set(run.kinds) == set(KINDS)
    # It was garbage of every sort, or a door that is closed to all would pass.
    assert run.departures["closed"] > 500
    assert run.departures["http"] > 30
    assert run.departures["tls"] > 30
