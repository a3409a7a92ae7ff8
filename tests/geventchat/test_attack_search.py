"""The search for attacks: what an attack is, how one is found, and the worst attacks found so far in their short forms."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from geventchat import Limits
from tests.fire.attacks import actions, bounds, plan, play, search
from tests.fire.attacks.bounds import broken, worst_memory_bytes
from tests.fire.attacks.plan import Action, Attack, Group
from tests.fire.attacks.play import Measured
from tests.fire.attacks.variation import crossed, mutated, random_attack

LIMITS = Limits()
KEPT = {**search.attacks_in(search.SEEDS), **search.attacks_in(search.BEST)}
# One attack can be the worst in several ways.
BEST: dict[Attack, str] = {}
for _objective, _attack in search.attacks_in(search.BEST).items():
    if _objective in search.OBJECTIVES:
        BEST[_attack] = f"{BEST[_attack]}, {_objective}" if _attack in BEST else _objective
QUIET = Measured(
    seconds=4.0,
    clients=10,
    addresses=10,
    connected=20,
    memory_bytes=1_000_000,
    promised_bytes=40_000_000,
    cpu_per_s=0.1,
    cpu_after_per_s=0.01,
    latency_p99_ms=2.0,
    latency_missing=0,
    newcomer_ms=2.0,
    newcomers_refused=0,
    disconnected=(),
    names_claimed=3,
    names_taken=0,
    tracebacks=0,
    connections_left=0,
    log_lines=50,
    log_bytes_per_s=500.0,
    log_s=6.0,
    slow=0,
    stopped_s=0.0,
    behind_bytes=0,
    readers_paused_s=0.02,
    starved_s=0.01,
    died=False,
)
HARMLESS = Attack((Group(clients=10, program=(Action("say"),), sends_per_s=1.0),))


# --- Attacks ---------------------------------------------------------------------------------------------------------


def varied(count: int) -> list[Attack]:
    rng = random.Random(1)
    attacks = [random_attack(rng)]
    while len(attacks) < count:
        parent, other = rng.choice(attacks), rng.choice(attacks)
        attacks += [random_attack(rng), mutated(parent, rng), crossed(parent, other, rng)]
    return attacks


def test_every_attack_that_is_made_up_is_within_the_limits_and_survives_json():
    for attack in varied(1_000):
        assert plan.from_json(json.loads(json.dumps(plan.to_json(attack)))) == attack
        assert attack.short().seconds <= 2.5


def test_every_action_is_encoded_in_every_dialect():
    people = actions.People(["a0"], ["b0"], ["reader"])
    for kind, dialect, text in itertools.product(plan.ACTIONS, plan.DIALECTS, plan.TEXTS):
        assert actions.encode(Action(kind, 1, 100, text), dialect, people, random.Random(1))


def test_partners_write_to_each_other():
    assert actions.partners(["a", "b", "c", "d"]) == [b"b", b"a", b"d", b"c"]
    assert actions.partners(["a", "b", "c"]) == [b"b", b"a", b"c"]
    group = Group(clients=2, program=(Action("dm-partner", 1, 2),), actions_at_once=1, sends_per_s=1.0)
    (sent, *_) = actions.blocks(group, actions.People(["a", "b"], [], []), random.Random(1))
    assert actions.piece([sent], 0, b"b") == b"DM b xx\n"


def test_what_is_sent_without_a_pause_comes_in_pieces_that_cost_the_load_little():
    people = actions.People([], [], [])
    for action, sends_per_s in itertools.product(
        (Action("blank", 1, 1), Action("say", 1, 60_000)), (0.0, 5.0)
    ):
        group = Group(program=(action,), actions_at_once=2, sends_per_s=sends_per_s)
        for piece in actions.blocks(group, people, random.Random(1)):
            assert len(piece) <= actions.MOST_BLOCK_BYTES
            assert sends_per_s or len(piece) >= 4_096


def test_the_clients_of_an_attack_have_separate_names_unless_they_clash():
    for attack in varied(200):
        if all(group.names != "clash" for group in attack.groups):
            names = [name for group in actions.names_of(attack) for name in group if name]
            assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"groups": []}, "not 1 to 4 groups: 0"),
        ({"groups": [{"clients": 0}]}, "clients is not from 1 to 600: 0"),
        ({"groups": [{"clients": 400}, {"clients": 400}]}, "clients of all groups is not from 1 to 600: 800"),
        ({"groups": [{"clients": True}]}, "clients is not from 1 to 600: True"),
        ({"groups": [{"dialect": "irc"}]}, "dialect is not one of line, json, slash, json2: 'irc'"),
        (
            {"groups": [{"leaves": "reset", "clients": 600, "returns": 50}]},
            "connections is not from 1 to 3000: 30600",
        ),
        ({"groups": [{"program": [{"kind": "shout"}]}]}, "kind is not one of say, ping"),
        ({"groups": [{"program": [{}]}]}, "Action: "),
        ({"groups": [{"speed": 1}]}, "unknown in Group: ['speed']"),
        ({"groups": [{}], "seconds": 1e9}, "seconds is not from 1 to 5.0: 1000000000.0"),
        ({"groups": [{}], "stops": [{"at_s": 0, "for_s": 60}]}, "for_s is not from 0.01 to 0.6: 60"),
        ([], "not an object: []"),
        ({"groups": {}}, "not a list: {}"),
    ],
)
def test_an_attack_that_cannot_be_played_is_refused(values: object, error: str):
    with pytest.raises(ValueError, match=re.escape(error)):
        plan.from_json(values)


# --- Bounds ----------------------------------------------------------------------------------------------------------


def test_the_worst_case_of_memory_is_the_one_that_is_published():
    page = (play.ROOT / "SECURITY.md").read_text()
    published = re.search(r"that is ([\d.]+) GB for 1,000 clients and ([\d.]+) GB for ([\d,]+)\.", page)
    assert published is not None
    assert int(published[3].replace(",", "")) == LIMITS.clients
    assert published[1] == f"{worst_memory_bytes(LIMITS, 1_000) / 1e9:.1f}"
    assert published[2] == f"{worst_memory_bytes(LIMITS, LIMITS.clients) / 1e9:.1f}"
    assert f"{bounds.PERSON_BYTES} bytes per person" in page
    assert f"has at most {bounds.ANSWER_BYTES // 1000} KB" in page
    assert f"{bounds.CONTACT_BYTES} bytes for each of its `contacts`" in page
    assert f"{bounds.CONNECTION_BYTES // 1024} KiB for a connection in use" in page


def test_each_part_of_the_worst_case_of_memory_counts():
    worst = worst_memory_bytes(LIMITS, 100)
    for name in ("line_bytes", "chunk_bytes", "piece_bytes"):
        more = replace(LIMITS, **{name: getattr(LIMITS, name) + 1})
        assert worst_memory_bytes(more, 100) == worst + 100
    for name in ("queue_bytes", "answer_bytes"):
        more = replace(LIMITS, **{name: getattr(LIMITS, name) + 1})
        assert worst_memory_bytes(more, 100) == worst + 300
    assert worst_memory_bytes(LIMITS, 100, people=101) == worst + 100 * 256
    many = worst_memory_bytes(LIMITS, 100, people=9_000)
    assert worst_memory_bytes(LIMITS, 100, people=9_001) == many + 100 * 3 * 244
    assert worst_memory_bytes(replace(LIMITS, contacts=99), 100) == worst - 100 * 256
    assert worst_memory_bytes(LIMITS, 100, behind=0) < worst_memory_bytes(LIMITS, 100, behind=1)


def test_a_quiet_trial_exceeds_no_bound():
    assert broken(QUIET) == []


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        (replace(QUIET, died=True), "the server runs on: it died"),
        (replace(QUIET, tracebacks=1), "no input raises: 1 tracebacks"),
        (
            replace(QUIET, memory_bytes=40_000_001),
            "worst case of memory: 40,000,001 bytes, allowed: 40,000,000",
        ),
        (replace(QUIET, disconnected=("reader-line (reset)",)), "disconnected: reader-line (reset)"),
        (replace(QUIET, names_taken=1), "a name is free at once: 1 taken"),
        (replace(QUIET, connections_left=1), "clients that have gone are not connected: 1 connections"),
        (replace(QUIET, log_lines=31_301), "log lines per address: 31,301 lines, allowed: 31,300"),
        (replace(QUIET, cpu_after_per_s=0.51), "no work for clients that have gone: 0.51 s"),
        (replace(QUIET, newcomer_ms=60_000), "a newcomer can log in: 60000 ms"),
        (replace(QUIET, latency_p99_ms=60_000), "speakers wait one address after the other: 60000 ms"),
    ],
)
def test_each_bound_that_is_exceeded_is_named(measured: Measured, text: str):
    assert text in str(broken(measured)[0])
    assert len(broken(measured)) == 1


def test_a_starved_server_can_work_on_when_all_have_gone():
    assert broken(replace(QUIET, cpu_after_per_s=0.9, starved_s=2.0)) == []


def test_a_disconnection_is_not_the_fault_of_the_server_if_the_readers_could_not_run():
    (one,) = broken(replace(QUIET, disconnected=("reader-line (reset)",), readers_paused_s=2.0))
    assert not one.strict


def test_what_the_machine_delays_is_not_the_delay_of_an_attack():
    late = replace(QUIET, latency_p99_ms=1_400.0, addresses=10)
    assert search.OBJECTIVES["latency"](replace(late, starved_s=0.0)) == 100
    assert search.OBJECTIVES["latency"](replace(late, starved_s=1.4)) == 0


# --- The search ------------------------------------------------------------------------------------------------------


def unread_direct_messages(attack: Attack) -> Measured:
    """A server with a weakness: what is written to clients that do not read is bounded only for fewer than 50 of them."""
    unread = sum(
        group.clients
        for group in attack.groups
        if group.reads == "nothing" and any(action.kind == "dm-group" for action in group.program)
    )
    return replace(QUIET, memory_bytes=1_000_000 + unread * 800_000)


def searched(
    directory: Path, trial: Callable[[Attack], Measured], trials: int, *, seed: int = 1, jobs: int = 1
) -> tuple[search.Outcome, list[str]]:
    said: list[str] = []
    one = search.Search(trial, seed, {"harmless": HARMLESS}, directory, jobs=jobs, say=said.append)
    return one.run(60, trials), said


def test_the_search_finds_a_weakness_that_no_given_attack_shows(tmp_path: Path):
    outcome, said = searched(tmp_path, unread_direct_messages, 400)
    assert {finding.broken.bound for finding in outcome.findings} == {"worst case of memory"}
    kept = plan.load(tmp_path / "finding-worst-case-of-memory-1.json")
    assert kept == outcome.findings[0].attack
    assert broken(unread_direct_messages(kept))
    assert any(line.startswith("      FINDING worst case of memory") for line in said)
    assert "FINDING worst case of memory" in search.summary(outcome)
    best = json.loads((tmp_path / "memory.json").read_text())
    assert best["measured"]["memory_share"] > 1


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_same_seed_tries_the_same_attacks(tmp_path: Path, jobs: int):
    def attacks(seed: int, directory: str) -> list[Attack]:
        outcome, _ = searched(tmp_path / directory, unread_direct_messages, 60, seed=seed, jobs=jobs)
        return [kept.attack for best in outcome.best.values() for kept in best]

    assert attacks(5, "a") == attacks(5, "b")
    assert attacks(5, "a") != attacks(6, "c")


def test_a_bound_exceeded_only_once_is_not_a_finding(tmp_path: Path):
    tried: list[Attack] = []

    def once(attack: Attack) -> Measured:
        tried.append(attack)
        return replace(QUIET, names_taken=1 if len(tried) == 1 else 0)

    outcome, said = searched(tmp_path, once, 5)
    assert outcome.findings == []
    assert "      not exceeded again" in said
    assert tried[0] == tried[1]
    assert "no bound was exceeded" in search.summary(outcome)


def test_the_value_of_the_best_is_the_lower_of_two_measurements(tmp_path: Path):
    loads = iter([0.1, 0.9, 0.2, *[0.0] * 100])
    outcome, _ = searched(tmp_path, lambda attack: replace(QUIET, cpu_per_s=next(loads)), 2)
    assert outcome.best["cpu"][0].value == 0.2


def test_an_interrupted_search_keeps_what_it_has_found_and_hours_add_up(tmp_path: Path):
    def interrupted(attack: Attack) -> Measured:
        if attack is not HARMLESS:
            raise KeyboardInterrupt
        return QUIET

    for runs in (1, 2):
        outcome, said = searched(tmp_path, interrupted, 10)
        assert said[-1] == "interrupted"
        assert outcome.totals.trials == 1
        totals = json.loads((tmp_path / "totals.json").read_text())[str(search.VERSION)]
        assert totals["trials"] == runs
        assert totals["cpu_s"] >= 0
        assert plan.load(tmp_path / "memory.json") == HARMLESS


def test_searches_at_the_same_time_add_to_the_same_totals(tmp_path: Path):
    code = """if True:
        import sys
        from pathlib import Path
        from tests.fire.attacks.search import Search
        from tests.geventchat.test_attack_search import HARMLESS, QUIET
        say = lambda line: None
        Search(lambda attack: QUIET, 1, {"harmless": HARMLESS}, Path(sys.argv[1]), say=say).run(60, 200)
    """
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, cwd=play.ROOT) for _ in range(3)]
    assert [one.wait() for one in running] == [0, 0, 0]
    assert json.loads((tmp_path / search.TOTALS).read_text())[str(search.VERSION)]["trials"] == 600


def test_what_was_kept_earlier_is_not_lost_before_it_has_been_tried_again(tmp_path: Path):
    def interrupted(attack: Attack) -> Measured:
        if attack.seconds == 2:
            raise KeyboardInterrupt
        return QUIET

    kept = tmp_path / "memory.json"
    kept.write_text(json.dumps(plan.to_json(HARMLESS.short(2))))
    starts = {"other": HARMLESS, "memory": plan.load(kept)}
    search.Search(interrupted, 1, {**starts, "last": HARMLESS}, tmp_path, say=lambda line: None).run(60)
    assert plan.load(kept).seconds == 2
    assert plan.load(tmp_path / "cpu.json") == HARMLESS


def test_trials_that_fail_do_not_end_the_search_unless_all_do(tmp_path: Path):
    tried: list[Attack] = []

    def sometimes(attack: Attack) -> Measured:
        tried.append(attack)
        if len(tried) % 2:
            raise AssertionError("the honest pair could not log in")
        return QUIET

    outcome, said = searched(tmp_path, sometimes, 10)
    assert outcome.totals.trials == 5
    assert sum(line.startswith("the trial failed: AssertionError: the honest pair") for line in said) == 5

    def never(attack: Attack) -> Measured:
        raise AssertionError("no")

    with pytest.raises(AssertionError):
        searched(tmp_path, never, 10)


# --- On a real server ------------------------------------------------------------------------------------------------


def test_the_search_finds_that_a_server_without_a_floor_rate_disconnects_readers(tmp_path: Path):
    attack = plan.load(search.SEEDS / "talkers-of-fifty-addresses.json").short(2)
    weak = search.Search(
        lambda attack: play.play(attack, "--floor-rate=0"),
        1,
        {"talkers": attack},
        tmp_path,
        say=lambda line: None,
    )
    bound = "who keeps reading is not disconnected"
    assert bound in {finding.broken.bound for finding in weak.run(60, 1).findings}


def test_figures_survive_json():
    assert play.from_json(json.loads(json.dumps(play.to_json(QUIET)))) == QUIET


def test_the_command_searches_and_replays(tmp_path: Path):
    command = [sys.executable, "-m", "tests.fire", "attack"]
    for name, seconds in (("first", 1.0), ("second", 1.1)):
        (tmp_path / f"{name}.json").write_text(json.dumps(plan.to_json(HARMLESS.short(seconds))))
    options = ["--seconds=1", "--jobs=2", f"--into={tmp_path}"]
    done = subprocess.run([*command, "search", *options], cwd=play.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +\d+ given/first .*\n +\d+ given/second ", done.stdout), done.stdout
    assert json.loads((tmp_path / search.TOTALS).read_text())[str(search.VERSION)]["cpu_s"] > 1
    assert (tmp_path / "memory.json").exists()
    missing = subprocess.run([*command, "replay", "no.json"], cwd=play.ROOT, capture_output=True, text=True)
    assert missing.returncode == 2
    assert missing.stderr == "attack: [Errno 2] No such file or directory: 'no.json'\n"


def test_the_kept_attacks_are_read_from_their_files():
    assert {"ghosts", "memory", "log"} <= set(KEPT)
    assert all(plan.from_json(plan.to_json(attack)) == attack for attack in KEPT.values())


# None of the worst uses rooms, accounts and roles.
PLAYED = {**BEST, KEPT["rooms-and-roles"]: "rooms and roles"}


@pytest.mark.parametrize("attack", PLAYED, ids=PLAYED.values())
def test_the_worst_attacks_found_so_far_exceed_no_bound(attack: Attack):
    measured = play.play(attack.short())
    assert [str(one) for one in broken(measured) if one.strict] == [], measured
