"""The token bucket: a burst at once, a rate in the long run, and that its delays are sufficient."""

from __future__ import annotations

from geventchat.net.flow import TokenBucket


def test_a_burst_is_granted_at_once_and_then_the_rate_holds():
    bucket = TokenBucket(per_s=10, burst=5, now=100.0)
    assert bucket.take(7, 100.0) == 5
    assert bucket.delay_s(1, 100.0) == 0.1
    assert bucket.take(2, 100.05) == 0
    assert bucket.take(2, 100.1) == 1
    assert bucket.take(1, 100.2) == 1
    assert bucket.take(100, 1000.0) == 5


def test_time_that_runs_backwards_takes_nothing_away():
    bucket = TokenBucket(10, 5, 100.0)
    assert bucket.take(2, 90.0) == 2
    assert bucket.take(5, 100.0) == 3
    assert bucket.take(1, 90.0) == 0
    assert bucket.take(2, 100.2) == 2
