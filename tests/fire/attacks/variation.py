"""New attacks out of chance, out of one, or out of two. Pure: the same random numbers give the same attack.

Knows what an attack can be (`plan.py`), and nothing about what attacks do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.fire.attacks import plan
from tests.fire.attacks.plan import Action, Attack, Group, Stop

# Around the limits of the server, beside sizes of every order of magnitude.
_SIZES = (1, 2, 10, 100, 1_000, 4_000, 4_085, 4_095, 4_096, 4_097, 8_192, 16_384, 40_000)
_AT_ONCE = (1, 2, 8, 16, 64, 200)
_MOST_MUTATIONS = 3


def random_attack(rng: random.Random) -> Attack:
    """An attack that resembles no other."""
    groups = tuple(_random_group(rng) for _ in range(rng.choice((1, 1, 2, 2, 3))))
    return fitted(groups, _seconds(rng), _random_stops(rng), rng)


def mutated(attack: Attack, rng: random.Random) -> Attack:
    """One to three things of it are different."""
    for _ in range(rng.randint(1, _MOST_MUTATIONS)):
        attack = _mutation(attack, rng)
    return attack


def crossed(attack: Attack, other: Attack, rng: random.Random) -> Attack:
    """Some groups of one, some of the other."""
    groups = [group for group in (*attack.groups, *other.groups) if rng.random() < 0.6]
    groups = groups[: plan.MOST_GROUPS] or [*attack.groups]
    return fitted(tuple(groups), attack.seconds, rng.choice((attack.stops, other.stops)), rng)


def fitted(groups: tuple[Group, ...], seconds: float, stops: tuple[Stop, ...], rng: random.Random) -> Attack:
    """An attack of these groups, with as few clients and returns as it can have."""
    total = sum(group.clients for group in groups)
    share = min(1.0, plan.MOST_CLIENTS / total)
    fitting = []
    for group in groups:
        clients = max(1, int(group.clients * share))
        # Leave to all others at least what they need.
        most = plan.MOST_CONNECTIONS // len(groups)
        returns = min(group.returns, max(0, most // clients - 1))
        fitting.append(
            replace(group, clients=clients, addresses=min(group.addresses, clients), returns=returns)
        )
    while sum(group.clients for group in fitting) > plan.MOST_CLIENTS:
        largest = max(range(len(fitting)), key=lambda number: fitting[number].clients)
        fewer = fitting[largest].clients - 1
        fitting[largest] = replace(
            fitting[largest], clients=fewer, addresses=min(fitting[largest].addresses, fewer)
        )
    return Attack(tuple(fitting), seconds, rng.randrange(1 << 32), stops)


def _mutation(attack: Attack, rng: random.Random) -> Attack:
    groups, stops, seconds = list(attack.groups), attack.stops, attack.seconds
    number = rng.randrange(len(groups))
    kind = rng.choices(
        ("field", "program", "add", "remove", "copy", "stops", "seconds"), (10, 6, 1, 1, 1, 2, 1)
    )[0]
    if kind == "field":
        name = rng.choice(list(_FIELDS))
        groups[number] = _with(groups[number], **{name: _FIELDS[name](rng)})
    elif kind == "program":
        groups[number] = replace(groups[number], program=_other_program(groups[number].program, rng))
    elif kind == "add" and len(groups) < plan.MOST_GROUPS:
        groups.append(_random_group(rng))
    elif kind == "remove" and len(groups) > 1:
        del groups[number]
    elif kind == "copy" and len(groups) < plan.MOST_GROUPS:
        name = rng.choice(list(_FIELDS))
        groups.append(_with(groups[number], **{name: _FIELDS[name](rng)}))
    elif kind == "stops":
        stops = _random_stops(rng, 1)
    else:
        seconds = _seconds(rng)
    return fitted(tuple(groups), seconds, stops, rng)


def _with(group: Group, **values: Any) -> Group:
    """The group with this field changed, and what depends on it."""
    clients = values.get("clients", group.clients)
    addresses = min(values.get("addresses", group.addresses), clients)
    return replace(group, **{**values, "addresses": addresses})


def _random_group(rng: random.Random) -> Group:
    values = {name: make(rng) for name, make in _FIELDS.items()}
    if rng.random() < 0.7:
        values.update(starts_s=0.0, leaves="stays", returns=0)
    program = tuple(_random_action(rng) for _ in range(rng.choice((1, 1, 2, 3))))
    return _with(Group(program=program), **values)


def _random_action(rng: random.Random) -> Action:
    return Action(rng.choice(plan.ACTIONS), rng.choice((1, 1, 3, 10)), _size(rng), _text(rng))


def _other_program(program: tuple[Action, ...], rng: random.Random) -> tuple[Action, ...]:
    actions = list(program)
    kind = rng.choice(("add", "remove", "size", "text", "weight", "replace"))
    if (kind == "add" and len(actions) < plan.MOST_ACTIONS) or not actions:
        actions.append(_random_action(rng))
        return tuple(actions)
    number = rng.randrange(len(actions))
    if kind == "remove":
        del actions[number]
    elif kind == "size":
        actions[number] = replace(actions[number], size=_size(rng))
    elif kind == "text":
        actions[number] = replace(actions[number], text=_text(rng))
    elif kind == "weight":
        actions[number] = replace(actions[number], weight=rng.randint(1, 10))
    else:
        actions[number] = _random_action(rng)
    return tuple(actions)


def _random_stops(rng: random.Random, least: int = 0) -> tuple[Stop, ...]:
    number = rng.choice((least, 0, 0, 1, 2))
    return tuple(
        Stop(round(rng.uniform(0, plan.MOST_SECONDS), 1), round(rng.uniform(0.05, plan.MOST_STOPPED_S), 2))
        for _ in range(number)
    )


def _seconds(rng: random.Random) -> float:
    return round(rng.uniform(2.5, plan.MOST_SECONDS), 1)


def _log_uniform(rng: random.Random, least: int, most: int) -> int:
    return round(math.exp(rng.uniform(math.log(least), math.log(most))))


def _size(rng: random.Random) -> int:
    return rng.choice(_SIZES) if rng.random() < 0.7 else _log_uniform(rng, 1, 65_536)


def _text(rng: random.Random) -> str:
    return rng.choices(plan.TEXTS, (3, 2, 1, 1))[0]


def _moment(rng: random.Random) -> float:
    return round(rng.uniform(0, plan.MOST_SECONDS), 1)


_FIELDS: dict[str, Callable[[random.Random], Any]] = {
    "clients": lambda rng: _log_uniform(rng, 1, plan.MOST_CLIENTS),
    "addresses": lambda rng: _log_uniform(rng, 1, plan.MOST_CLIENTS),
    "dialect": lambda rng: rng.choice(plan.DIALECTS),
    "names": lambda rng: rng.choices(plan.NAMES, (1, 4, 4, 2, 1))[0],
    "actions_at_once": lambda rng: rng.choice(_AT_ONCE),
    "sends_per_s": lambda rng: rng.choice((0.0, 0.0, 0.0, 1.0, 5.0, 20.0)),
    "reads": lambda rng: rng.choice(plan.READS),
    "read_bytes_per_s": lambda rng: _log_uniform(rng, 4_096, 1_000_000),
    "receive_buffer": lambda rng: rng.choice((0, 0, 4_096, 65_536, 1 << 20)),
    "starts_s": lambda rng: rng.choice((0.0, 0.0, _moment(rng))),
    "leaves": lambda rng: rng.choice(plan.LEAVES),
    "leaves_s": _moment,
    "leaves_over_s": lambda rng: rng.choice((0.0, 0.0, _moment(rng))),
    "returns": lambda rng: rng.choice((0, 0, 1, 5, 50)),
    "away_s": lambda rng: rng.choice((0.0, 0.1, 0.5)),
}
