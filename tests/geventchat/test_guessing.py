"""How often passwords can be guessed, in virtual time."""

from __future__ import annotations

import pytest

from geventchat.chat.guessing import (
    FORGET_S,
    FREE_FAILURES_OF_STRANGERS,
    MAX_COUNTERS,
    MAX_KNOWN_ADDRESSES,
    Guessing,
    remember,
    wait_s,
)
from tests.geventchat.manual_clock import ManualClock

RIGHT, WRONG = True, False
TOO_EARLY = None


class Scene:
    """One account's owner, people who guess, and a clock."""

    def __init__(self, **options: int) -> None:
        self.clock = ManualClock()
        self.guessing = Guessing(**options)
        self.verified = 0

    def log_in(
        self, right: bool, address: str = "192.0.2.1", *, known: bool = False, account: str = "alice"
    ) -> bool | None:
        """The outcome of an attempt."""

        def verify() -> bool:
            self.verified += 1
            return right

        return self.guessing.attempt(account, address, known, self.clock.monotonic, verify)

    def fail(self, times: int, address: str = "192.0.2.1", *, known: bool = False) -> None:
        """Fail as often as this, as soon as possible each time."""
        for _ in range(times):
            while self.log_in(WRONG, address, known=known) is TOO_EARLY:
                self.clock.now += 1


@pytest.fixture(params=[False, True], ids=["stranger", "known address"])
def known(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# --- One address -----------------------------------------------------------------------------------------------------


def test_three_failures_are_free_and_then_each_doubles_the_wait(known: bool):
    scene = Scene()
    for _ in range(3):
        assert scene.log_in(WRONG, known=known) is False
    for wait in (2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900):
        assert scene.log_in(RIGHT, known=known) is TOO_EARLY, "not even the right password"
        scene.clock.now += wait - 0.001
        assert scene.log_in(RIGHT, known=known) is TOO_EARLY
        scene.clock.now += 0.001
        assert scene.log_in(WRONG, known=known) is False


def test_what_comes_too_early_is_not_verified_and_costs_nothing():
    scene = Scene()
    scene.fail(3)
    assert scene.verified == 3
    for _ in range(1_000):
        assert scene.log_in(WRONG) is TOO_EARLY
    assert scene.verified == 3
    scene.clock.now += 2
    assert scene.log_in(RIGHT) is True


def test_a_wait_is_counted_from_the_result(known: bool):
    scene = Scene()
    scene.fail(2, known=known)

    def slow() -> bool:
        scene.clock.now += 30
        return False

    scene.guessing.attempt("alice", "192.0.2.1", known, scene.clock.monotonic, slow)
    scene.clock.now += 1.999
    assert scene.log_in(RIGHT, known=known) is TOO_EARLY
    scene.clock.now += 0.001
    assert scene.log_in(RIGHT, known=known) is True


def test_a_success_forgets_the_failures_of_its_address(known: bool):
    scene = Scene()
    scene.fail(6, known=known)
    scene.clock.now += 900
    assert scene.log_in(RIGHT, known=known) is True
    for _ in range(3):
        assert scene.log_in(WRONG, known=known) is False
    assert scene.log_in(WRONG, known=known) is TOO_EARLY
    scene.clock.now += 2
    assert scene.log_in(WRONG, known=known) is False


def test_another_password_is_guessed_anew_from_every_address(known: bool):
    scene = Scene(free_of_strangers=3)
    scene.fail(3, known=known)
    assert scene.log_in(WRONG, account="bob") is False
    scene.guessing.forget("alice")
    assert scene.log_in(RIGHT, known=known) is True
    # Only those of this account.
    assert len(scene.guessing) == 2


def test_addresses_and_accounts_are_counted_apart(known: bool):
    scene = Scene()
    scene.fail(3, known=known)
    assert scene.log_in(WRONG, known=known) is TOO_EARLY
    assert scene.log_in(WRONG, "192.0.2.2", known=known) is False
    assert scene.log_in(WRONG, known=known, account="bob") is False


def test_failures_are_forgotten_a_day_after_the_last_one(known: bool):
    scene = Scene()
    scene.fail(3, known=known)
    scene.clock.now += FORGET_S - 1
    assert scene.log_in(WRONG, known=known) is False
    assert scene.log_in(WRONG, known=known) is TOO_EARLY, "it was the fourth"
    scene.clock.now += FORGET_S
    for _ in range(3):
        assert scene.log_in(WRONG, known=known) is False
    assert scene.log_in(WRONG, known=known) is TOO_EARLY


# --- Attempts at the same time ---------------------------------------------------------------------------------------


def at_once(
    scene: Scene, times: int, results: list[bool | None], right: bool = WRONG, **options: bool
) -> None:
    """As many attempts as this, each of which begins before those before it are finished."""
    if not times:
        return

    def verify() -> bool:
        at_once(scene, times - 1, results, right, **options)
        return right

    known = options.get("known", False)
    results.append(scene.guessing.attempt("alice", "192.0.2.1", known, scene.clock.monotonic, verify))


def test_no_more_can_be_tried_at_once_than_one_after_the_other(known: bool):
    scene = Scene()
    results: list[bool | None] = []
    at_once(scene, 200, results, known=known)
    assert sorted(results, key=str) == [False, False, False, None]
    assert scene.log_in(RIGHT, known=known) is TOO_EARLY


def test_after_a_wait_one_can_be_tried_at_a_time(known: bool):
    scene = Scene()
    scene.fail(3, known=known)
    scene.clock.now += 2
    results: list[bool | None] = []
    at_once(scene, 5, results, known=known)
    assert results == [None, False]


def test_what_ends_without_a_result_is_not_a_failure(known: bool):
    scene = Scene()

    class HungUp(BaseException):
        """An exception thrown into a greenlet is not always an Exception."""

    def verify() -> bool:
        raise HungUp

    for _ in range(1_000):
        with pytest.raises(HungUp):
            scene.guessing.attempt("alice", "192.0.2.1", known, scene.clock.monotonic, verify)
    assert len(scene.guessing) == 0
    scene.fail(3, known=known)
    scene.clock.now += 2
    with pytest.raises(HungUp):
        scene.guessing.attempt("alice", "192.0.2.1", known, scene.clock.monotonic, verify)
    assert scene.log_in(RIGHT, known=known) is True


def test_a_result_that_says_more_than_yes_or_no_is_passed_on():
    scene = Scene()
    assert (
        scene.guessing.attempt("alice", "a", False, scene.clock.monotonic, lambda: "a new hash")
        == "a new hash"
    )
    assert scene.guessing.attempt("alice", "a", False, scene.clock.monotonic, lambda: "") == ""


# --- Many addresses --------------------------------------------------------------------------------------------------


def test_strangers_together_have_a_hundred_failures_and_then_wait():
    scene = Scene()
    for number in range(100):
        assert scene.log_in(WRONG, f"192.0.2.{number}") is False
    for wait in (2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900):
        assert scene.log_in(RIGHT, "198.51.100.1") is TOO_EARLY, "a new address, too"
        scene.clock.now += wait
        assert scene.log_in(WRONG, f"2001:db8:{wait:x}::") is False


def test_many_addresses_make_few_guesses_in_a_day():
    scene = Scene()
    guesses = 0
    for second in range(0, 86_400, 10):
        guesses += scene.log_in(WRONG, f"address{second}") is False
    assert guesses <= 100 + 10 + 96


def test_an_owner_is_never_locked_out_of_a_known_address_by_others():
    scene = Scene()
    for number in range(1_000):
        scene.log_in(WRONG, f"192.0.2.{number}")
        assert scene.log_in(RIGHT, "198.51.100.1", known=True) is True
    scene.fail(3, "198.51.100.2", known=True)
    assert scene.log_in(RIGHT, "198.51.100.1", known=True) is True, "another known address has failed"


def test_what_strangers_try_at_once_does_not_hold_up_a_known_address():
    scene = Scene()
    results: list[bool | None] = []

    def verify() -> bool:
        at_once(scene, 3, results, known=True, right=RIGHT)
        return False

    scene.guessing.attempt("alice", "192.0.2.1", False, scene.clock.monotonic, verify)
    assert results == [True, True, True]


def test_a_success_of_one_stranger_does_not_give_the_others_more_guesses():
    scene = Scene()
    for number in range(99):
        scene.log_in(WRONG, f"192.0.2.{number}")
    assert scene.log_in(RIGHT, "198.51.100.1") is True
    assert scene.log_in(WRONG, "198.51.100.2") is False
    assert scene.log_in(WRONG, "198.51.100.3") is TOO_EARLY


def test_an_address_that_becomes_known_begins_anew():
    scene = Scene()
    scene.fail(2)
    assert scene.log_in(RIGHT) is True
    for _ in range(3):
        assert scene.log_in(WRONG, known=True) is False
    assert scene.log_in(WRONG, known=True) is TOO_EARLY


# --- Memory ----------------------------------------------------------------------------------------------------------


def test_counters_of_single_strangers_are_bounded():
    scene = Scene(most=100)
    for number in range(1_000):
        assert scene.log_in(WRONG, f"address{number}", account=f"account{number % 10}") is not True
    assert len(scene.guessing) == 100 + 10


def test_an_account_has_as_many_counters_for_known_addresses_as_it_can_have_such_addresses():
    scene = Scene(most=1)
    for number in range(100):
        for account in ("alice", "bob"):
            scene.log_in(WRONG, f"address{number}", account=account, known=True)
    assert len(scene.guessing) == 2 * MAX_KNOWN_ADDRESSES
    scene.log_in(RIGHT, "address99", account="bob", known=True)
    assert len(scene.guessing) == 2 * MAX_KNOWN_ADDRESSES - 1


def test_at_the_bound_the_stranger_whose_last_failure_is_longest_ago_is_forgotten():
    scene = Scene(most=2)
    scene.fail(2, "a")
    scene.fail(1, "b")
    scene.fail(1, "a")
    scene.fail(1, "c")
    assert scene.log_in(WRONG, "a") is TOO_EARLY
    scene.fail(2, "b")
    assert scene.log_in(WRONG, "b") is False, "its first failure was forgotten"


@pytest.mark.parametrize("known", [False, True], ids=["strangers", "a known address"])
def test_failures_at_other_accounts_do_not_make_the_counters_of_an_account_forgotten(known: bool):
    scene = Scene()
    for number in range(3 if known else FREE_FAILURES_OF_STRANGERS):
        scene.log_in(WRONG, "a" if known else f"a{number}", known=known)
    for number in range(2 * MAX_COUNTERS):
        scene.log_in(WRONG, "b", account=f"account{number}", known=known)
    assert scene.log_in(RIGHT, "a", known=known) is TOO_EARLY


def test_a_counter_that_was_forgotten_at_the_bound_still_counts_for_strangers_together():
    scene = Scene(most=2)
    guesses = 0
    for number in range(1_000):
        guesses += scene.log_in(WRONG, f"address{number % 10}") is False
    assert guesses == 100


def test_old_counters_are_forgotten_without_being_used():
    scene = Scene()
    for number in range(50):
        scene.log_in(WRONG, f"address{number}", known=True)
    scene.clock.now += FORGET_S
    scene.log_in(WRONG, "another", known=True)
    assert len(scene.guessing) == 1


# --- Known addresses -------------------------------------------------------------------------------------------------


def test_the_latest_twenty_addresses_of_an_account_are_known():
    known: tuple[str, ...] = ()
    for number in range(25):
        known = remember(known, f"address{number}")
    assert known == tuple(f"address{number}" for number in range(5, 25))
    assert len(known) == MAX_KNOWN_ADDRESSES
    known = remember(known, "address10")
    assert known == (*(f"address{number}" for number in range(5, 25) if number != 10), "address10")
    assert remember(known, "address10") is known, "there is nothing new to be stored"


def test_to_pause_is_not_a_faster_way_to_guess_than_to_go_on():
    free = 3
    until_longest = next(n for n in range(free, 100) if wait_s(n, free) == 900)
    spent = sum(wait_s(n, free) for n in range(until_longest))
    assert (spent + FORGET_S) / until_longest >= 900
