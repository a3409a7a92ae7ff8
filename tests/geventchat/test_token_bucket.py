"""The token bucket: a burst at once, a rate in the long run, and that its delays are sufficient."""

from __future__ import annotations

import pytest

from geventchat.rate import Rate, TokenBucket


def test_a_burst_is_granted_at_once_and_then_the_rate_holds():
    bucket = TokenBucket(Rate(per_s=10, burst=5))
    assert bucket.take(7, 100.0) == 5
    assert bucket.delay_s(1, 100.0) == pytest.approx(0.1)
    assert bucket.take(2, 100.05) == 0
    assert bucket.take(2, 100.1) == 1
    assert bucket.take(1, 100.2) == 1
    assert bucket.take(100, 1000.0) == 5
