"""Keys of messages compared with a list of everything that was sent; their number is bounded whatever is sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geventchat.chat.events import Confirmed
from geventchat.chat.message_keys import MessageKeys
from geventchat.settings import Limits

KEPT_S = 10
SENDING = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("1234567"), st.integers(0, 6)), max_size=60
)


def keys(per_name: int = 1_000, in_all: int = 1_000) -> MessageKeys:
    limits = Limits(message_key_s=KEPT_S, message_keys_per_name=per_name, message_keys=in_all)
    return MessageKeys(limits.chat)


@given(SENDING)
def test_a_key_is_known_for_its_time_and_no_longer(sending: list[tuple[str, str, int]]):
    known, sent, now = keys(), dict[tuple[str, str], tuple[int, Confirmed]](), 1_000
    for at, (name, key, pause) in enumerate(sending):
        now += pause
        for (other, its_key), (then, answer) in sent.items():
            expected = answer if now - then < KEPT_S else None
            assert known.find(other, its_key, now) == expected
        known.remember(name, key, Confirmed("lobby", at), now)
        sent[name, key] = now, Confirmed("lobby", at)


@given(SENDING, st.integers(1, 4), st.integers(1, 6))
def test_the_latest_keys_of_a_name_are_known(sending: list[tuple[str, str, int]], per_name: int, in_all: int):
    """All at one moment."""
    known, latest = keys(per_name, in_all), dict[str, dict[str, Confirmed]]()
    for at, (name, key, _) in enumerate(sending):
        answer = Confirmed("lobby", at)
        known.remember(name, key, answer, 0)
        mine = latest[name] = latest.pop(name, {})
        mine.pop(key, None)
        mine[key] = answer
        while len(mine) > per_name:
            del mine[next(iter(mine))]
        # Of the name that has sent nothing for the longest time.
        while sum(map(len, latest.values())) > in_all:
            quietest = next(iter(latest))
            del latest[quietest][next(iter(latest[quietest]))]
            if not latest[quietest]:
                del latest[quietest]
        assert len(known) == sum(map(len, latest.values())) <= in_all
        for other in "abc":
            for each in "1234567":
                assert known.find(other, each, 0) == latest.get(other, {}).get(each)


@given(SENDING)
def test_what_is_too_old_is_forgotten_while_others_send(sending: list[tuple[str, str, int]]):
    known, now = keys(), 0
    for name, key, pause in sending:
        now += pause
        known.remember(name, key, Confirmed(), now)
    for at in range(60):
        known.remember("z", str(at % 2), Confirmed(), now + KEPT_S)
    assert len(known) == 2
