"""Any history of attempts, some of them at the same time, compared with the rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from geventchat.chat.guessing import Guessing
from tests.geventchat.manual_clock import ManualClock

FREE, FREE_OF_STRANGERS = 3, 5
DAY_S = 86_400.0
KNOWN = {"alice": ("a", "b"), "bob": ("c",)}
# The account, the address, how it ends, the pause before it, and how many of the next attempts begin and end meanwhile.
ATTEMPTS = st.tuples(
    st.sampled_from(["alice", "alice", "bob"]),
    st.sampled_from("abcd"),
    st.sampled_from(["right", "wrong", "wrong", "wrong", "none"]),
    st.sampled_from([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 8.0, 60.0, 900.0, DAY_S]),
    st.sampled_from([0, 0, 0, 1, 2, 5]),
)
HISTORIES = st.lists(ATTEMPTS, max_size=40)


class HungUp(Exception):
    """How an attempt ends without a result."""


@dataclass
class Rule:
    """The attempts that one counter allows, by its failures since the last success."""

    free: int
    failed_at: list[float] = field(default_factory=list)
    running: int = 0

    def allows(self, now: float) -> bool:
        if self.failed_at and now >= self.failed_at[-1] + DAY_S:
            self.failed_at.clear()
        failures = len(self.failed_at)
        if failures >= self.free:
            wait = min(900.0, 2.0 ** (failures - self.free + 1))
            return now >= self.failed_at[-1] + wait and not self.running
        return self.running < self.free - failures


class World:
    """The counters and the rules, side by side."""

    def __init__(self) -> None:
        self.clock = ManualClock(0.0)
        self.guessing = Guessing(free=FREE, free_of_strangers=FREE_OF_STRANGERS)
        self.rules: dict[tuple[str, str], Rule] = {}
        self.results: list[tuple[str, str, object]] = []

    def play(self, history: Iterable[tuple]) -> World:
        attempts = iter(history)
        for attempt in attempts:
            self._play(attempt, attempts)
        return self

    def _play(self, attempt: tuple, later: Iterator[tuple]) -> None:
        account, address, ending, pause, meanwhile = attempt
        self.clock.now += pause
        rules = self._rules(account, address)
        allowed = all(rule.allows(self.clock.now) for rule in rules)
        called = False

        def verify() -> bool:
            nonlocal called
            called = True
            for rule in rules:
                rule.running += 1
            for _, one in zip(range(meanwhile), later, strict=False):
                self._play(one, later)
            for rule in rules:
                rule.running -= 1
            if ending == "none":
                raise HungUp
            return ending == "right"

        known = address in KNOWN[account]
        try:
            result: object = self.guessing.attempt(account, address, known, self.clock.monotonic, verify)
        except HungUp:
            result = HungUp
        assert called == allowed
        assert (result is None) == (not allowed)
        if result is False:
            for rule in rules:
                rule.failed_at.append(self.clock.now)
        elif result is True:
            rules[0].failed_at.clear()
        self.results.append((account, address, result))

    def _rules(self, account: str, address: str) -> list[Rule]:
        own = self.rules.setdefault((account, address), Rule(FREE))
        if address in KNOWN[account]:
            return [own]
        return [own, self.rules.setdefault((account, ""), Rule(FREE_OF_STRANGERS))]


@given(HISTORIES)
def test_every_attempt_is_verified_or_not_as_the_rules_say(history):
    world = World().play(history)
    recent = [rule for rule in world.rules.values() if rule.failed_at[-1:] > [world.clock.now - DAY_S]]
    assert len(world.guessing) >= len(recent)


@given(HISTORIES, st.sampled_from("ab"))
def test_what_others_do_makes_no_difference_to_a_known_address(history, address):
    own, pause = [], 0.0
    for account, by, ending, before, _ in history:
        pause += before
        if (account, by) == ("alice", address):
            own.append((account, by, ending, pause, 0))
            pause = 0.0
    together = World().play((*attempt[:4], 0) for attempt in history)
    alone = World().play(own)
    assert [result for result in together.results if result[:2] == ("alice", address)] == alone.results


@given(HISTORIES, st.integers(1, 3))
def test_the_number_of_counters_is_bounded_and_strangers_still_wait(history, most):
    clock = ManualClock(0.0)
    guessing = Guessing(free=FREE, free_of_strangers=FREE_OF_STRANGERS, most=most)
    guesses = 0
    for _, address, _, pause, _ in history * 3:
        # Within a day nothing is forgotten.
        clock.now += min(pause, 600.0)
        guesses += guessing.attempt("alice", address, False, clock.monotonic, lambda: False) is False
        assert len(guessing) <= most + 1
    # Each wait after the fifth failure is at least two seconds.
    assert guesses <= FREE_OF_STRANGERS + clock.now / 2 + 1
