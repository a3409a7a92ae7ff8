"""Any sequence of takes and charges keeps the rate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geventchat.rate import Rate, TokenBucket

RATES = st.floats(0.1, 1_000)
BURSTS = st.integers(1, 500)


@given(
    per_s=RATES,
    burst=BURSTS,
    requests=st.lists(st.tuples(st.integers(1, 300), st.floats(0, 5)), max_size=20),
)
def test_the_rate_is_never_exceeded_and_the_announced_delay_is_enough(per_s, burst, requests):
    began = now = 50.0
    bucket = TokenBucket(Rate(per_s, burst))
    granted = 0
    for wanted, pause_s in requests:
        now += pause_s
        while wanted:
            some = bucket.take(wanted, now)
            wanted -= some
            granted += some
            assert granted <= burst + (now - began) * per_s + 1e-3
            if wanted:
                assert bucket.take(1, now) == 0, "more was there than it granted"
                delay_s = bucket.delay_s(1, now)
                assert 0 < delay_s <= 1 / per_s + 1e-6
                now += delay_s
                assert bucket.take(0, now) == 0
                assert bucket.delay_s(1, now) == 0
                before = wanted
                some = bucket.take(wanted, now)
                wanted -= some
                granted += some
                assert wanted < before, "after the delay there was still no token"


@given(
    per_s=RATES,
    burst=BURSTS,
    charges=st.lists(st.tuples(st.floats(0, 1_000), st.floats(0, 5)), min_size=1, max_size=20),
)
def test_charges_beyond_the_burst_are_waited_for(per_s, burst, charges):
    began = now = 50.0
    bucket = TokenBucket(Rate(per_s, burst))
    charged = 0.0
    for cost, pause_s in charges:
        now += pause_s
        # A caller waits until the bucket is not in debt before it charges.
        now += bucket.delay_s(0, now)
        assert charged <= burst + (now - began) * per_s + 1e-3
        bucket.charge(cost, now)
        charged += cost


@given(per_s=RATES, burst=BURSTS, cost=st.floats(0, 5_000), pause_s=st.floats(0, 100))
def test_it_is_full_exactly_when_everything_has_come_back(per_s, burst, cost, pause_s):
    bucket = TokenBucket(Rate(per_s, burst))
    assert bucket.is_full(0.0)
    bucket.charge(cost, 0.0)
    missing_s = cost / per_s
    if abs(pause_s - missing_s) > 1e-6:
        assert bucket.is_full(pause_s) == (pause_s > missing_s)
    assert bucket.take(10**6, pause_s + missing_s + 1) == burst, "it never holds more than the burst"


@given(wanted=st.integers(0, 10**9), cost=st.floats(0, 10**9))
def test_without_a_rate_everything_is_granted_at_once(wanted, cost):
    bucket = TokenBucket(Rate(0, 1))
    bucket.charge(cost, 0.0)
    assert bucket.take(wanted, 0.0) == wanted
    assert bucket.delay_s(wanted, 0.0) == 0.0
    assert bucket.is_full(0.0)


@given(per_s=RATES, burst=BURSTS, charges=st.lists(st.floats(0, 1_000), max_size=50))
def test_a_debt_is_never_more_than_the_burst_and_one_charge(per_s, burst, charges):
    bucket = TokenBucket(Rate(per_s, burst))
    for cost in charges:
        bucket.charge(cost, 0.0)
    assert bucket.delay_s(0, 0.0) <= (burst + max(charges, default=0.0)) / per_s + 1e-6
