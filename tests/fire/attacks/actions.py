"""The bytes that each action of an attack sends. Pure: knows dialects, no sockets and no time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.fire.attacks import wire
from tests.fire.attacks.plan import Action, Attack, Group

# As much as is sent in one piece.
MOST_BLOCK_BYTES = 65_536
_LEAST_BLOCK_BYTES = 4_096
# How many different pieces a group has; its clients begin at different ones.
_BLOCKS = 12
# The rooms that attackers enter.
_ROOM = "attack"
_ROOMS = 50
# Stands for a client's partner: the next one in its group, which has this one as its partner.
_PARTNER = "\u2020partner\u2020"
_PARTNER_BYTES = _PARTNER.encode()
# Marks that neither compose with a letter nor with each other, and letters without case.
_MARKS = "\u0331\u0332\u0333\u0347"
_FIRST_LETTER = 0x10D0


@dataclass(frozen=True, slots=True)
class People:
    """The people that a client of a group can write to."""

    group: Sequence[str]
    strangers: Sequence[str]
    honest: Sequence[str]


def names_of(attack: Attack) -> list[list[str]]:
    """The name of each client of each group; an empty one for those who do not log in."""
    names: list[list[str]] = []
    for number, group in enumerate(attack.groups):
        names.append([_name(group.names, number, client) for client in range(group.clients)])
    for number, group in enumerate(attack.groups):
        if group.names == "clash":
            others = [name for name in names[number - 1] if name] or [_name("short", number, 0)]
            names[number] = [others[client % len(others)] for client in range(group.clients)]
    return names


def _name(kind: str, group: int, client: int) -> str:
    number = group * 1_000 + client
    if kind == "none":
        return ""
    if kind == "wide":
        return wire.wide_name(number)
    if kind == "marks":
        letters = [chr(_FIRST_LETTER + (number >> 4 * digit) % 16) for digit in range(4)]
        return "".join(letter + _MARKS for letter in letters)
    return f"{'abcd'[group]}{client}"


def blocks(group: Group, people: People, rng: random.Random) -> list[bytes]:
    """The pieces that the clients of a group send in turn, over and over."""
    if not group.program:
        return []
    weights = [action.weight for action in group.program]
    made = []
    for _ in range(_BLOCKS):
        block = bytearray()
        for action in rng.choices(group.program, weights, k=group.actions_at_once):
            block += encode(action, group.dialect, people, rng)
            if len(block) >= MOST_BLOCK_BYTES:
                break
        if not group.sends_per_s:
            # Each piece costs the load generator a call, so pieces that are sent without a pause are not tiny.
            block *= -(-_LEAST_BLOCK_BYTES // len(block))
        made.append(bytes(block[:MOST_BLOCK_BYTES]))
    return made


def partners(names: Sequence[str]) -> list[bytes]:
    """The name of each client's partner, in pairs; the last of an odd number writes to itself."""
    return [names[min(number ^ 1, len(names) - 1)].encode() for number in range(len(names))]


def piece(pieces: Sequence[bytes], number: int, partner: bytes) -> bytes:
    """One of the pieces, as a client with this partner sends it."""
    return pieces[number % len(pieces)].replace(_PARTNER_BYTES, partner)


def endless(pieces: Sequence[bytes], first: int, partner: bytes) -> Iterator[bytes]:
    """The pieces, from this one on, again and again."""
    number = first
    while True:
        yield piece(pieces, number, partner)
        number += 1


def encode(action: Action, dialect: str, people: People, rng: random.Random) -> bytes:
    """The bytes of one action."""
    size = action.size
    match action.kind:
        case "say":
            return wire.say(dialect, _text(action))
        case "ping":
            return wire.ping(dialect, _text(action))
        case "who":
            return wire.who(dialect)
        case "dm-group" | "dm-partner" | "dm-stranger" | "dm-honest" | "dm-self" | "dm-absent":
            return wire.direct(dialect, _recipient(action.kind, people, rng), _text(action))
        case "unfinished":
            return wire.say(dialect, _text(action)).rstrip(b"\n")
        case "blank":
            return b"\n" * size
        case "garbage":
            return rng.randbytes(size)
        case "telnet":
            return (b"\xff\xfd\x18\xff\xfa\x18\x00\xff\xf0" * size)[:size] + b"\n"
        case "bad-utf8":
            return b"\xf0\x9f" * max(1, size // 2) + b"\n"
        case "bad-json":
            return b'{"type":"chat","message":"' + b"\\u0000" * max(1, size // 6) + b"\n"
        case "many-values":
            return b'{"type":"chat","message":"x","more":[' + b"0," * max(1, size // 2) + b"0]}\n"
        case "nested-json":
            return b'{"type":' + b"[" * max(1, size // 2) + b"]" * max(1, size // 2) + b"}\n"
        case "bad-login":
            return wire.login(dialect, "e\u0301" + "\u0300\u0316" * max(1, size // 4))
        case "unknown":
            return b"/" + b"x" * size + b"\n"
        case "enter":
            return wire.command(dialect, "join", f"{_ROOM}{rng.randrange(_ROOMS)}")
        case "leave" | "rooms" | "history":
            return wire.command(dialect, action.kind)
        case "topic" | "key" | "register":
            return wire.command(dialect, action.kind, text=_text(action))
        case "ban" | "kick":
            return wire.command(dialect, action.kind, _recipient("dm-group", people, rng), _text(action))
        case "invite" | "ignore":
            return wire.command(dialect, action.kind, _recipient("dm-honest", people, rng))
    raise ValueError(f"unknown action: {action.kind}")


def _text(action: Action) -> str:
    size = action.size
    return {
        "plain": "x" * size,
        "wide": wire.WIDE * max(1, size // 4),
        "control": "x" + "\x01" * size,
        "marks": "x" + _MARKS * max(1, size // 8),
    }[action.text]


def _recipient(kind: str, people: People, rng: random.Random) -> str:
    if kind == "dm-partner":
        return _PARTNER
    among = {
        "dm-group": people.group,
        "dm-self": people.group[:1],
        "dm-stranger": people.strangers,
        "dm-honest": people.honest,
    }.get(kind, ())
    return rng.choice(among) if among else "absent"
