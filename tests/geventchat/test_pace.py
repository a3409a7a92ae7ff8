"""The token bucket: so many at once, so many a second, and never a line lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geventchat.net.pace import Pace


def test_a_burst_passes_then_the_rate_holds():
    pace = Pace(per_s=10, burst=5, now=100.0)
    assert pace.take(7, 100.0) == 5
    assert pace.delay_s == 0.1
    assert pace.take(2, 100.05) == 0
    assert pace.take(2, 100.1) == 1
    assert pace.take(1, 100.2) == 1
    assert pace.take(100, 1000.0) == 5


@given(
    per_s=st.floats(0.1, 1000),
    burst=st.integers(1, 500),
    floods=st.lists(st.tuples(st.integers(1, 300), st.floats(0, 5)), max_size=20),
)
def test_waiting_as_long_as_it_says_is_enough_and_the_rate_is_never_passed(per_s, burst, floods):
    now = 50.0
    pace = Pace(per_s, burst, now)
    handled = 0
    for lines, silence in floods:
        now += silence
        while lines:
            granted = pace.take(lines, now)
            lines -= granted
            handled += granted
            assert handled <= burst + (now - 50.0) * per_s + 1e-3
            if lines:
                now += pace.delay_s
                assert pace.take(0, now) == 0
                before = lines
                granted = pace.take(lines, now)
                assert granted >= 1
                lines -= granted
                handled += granted
                assert lines < before
