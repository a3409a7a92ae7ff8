"""Values of the chat as JSON and back: what one process hands over to the next when the program is replaced. Pure.

A class with state returns it as a dictionary from `to_state` and restores it in `take_state`, both beside its fields. The keys
are the names of its attributes. `TRANSIENT` lists the attributes that are not handed over. A test compares both with the
actual attributes, so a new one cannot be forgotten.

Frozen values and members of enumerations are `[name of the class, …]`, sets and lists are `["set", …]` and `["list", …]`.
Everything else is plain JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from operator import attrgetter
from typing import Any

from geventchat.chat.accounts import Account
from geventchat.chat.events import (
    Announcement,
    Confirmed,
    Departure,
    DirectMessage,
    Joined,
    Left,
    MessageDeleted,
    PastMessage,
    Said,
    TopicChanged,
    Typing,
)
from geventchat.chat.names import Name
from geventchat.chat.records import AccountRecord, Act, KeptMessage, Restriction, RestrictionKind

State = dict[str, Any]

_VALUES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Account,
        AccountRecord,
        Act,
        Announcement,
        Confirmed,
        Departure,
        DirectMessage,
        Joined,
        KeptMessage,
        Left,
        MessageDeleted,
        Name,
        PastMessage,
        Restriction,
        RestrictionKind,
        Said,
        TopicChanged,
        Typing,
    )
}
_PLAIN = frozenset({str, int, float, bool, type(None)})
# Reads all fields in one call, because there can be 100,000 messages. With a single field it would not return a tuple.
_FIELDS = {
    kind: attrgetter(*[one.name for one in fields(kind)]) for kind in _VALUES.values() if is_dataclass(kind)
}


class BadState(Exception):
    """A state that this program cannot take over."""


def pack(value: Any) -> Any:
    """A value as JSON."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    name = kind.__name__
    if kind in _FIELDS:
        return [name, *[one if type(one) in _PLAIN else pack(one) for one in _FIELDS[kind](value)]]
    if isinstance(value, Enum) and name in _VALUES:
        return [name, value.name]
    if isinstance(value, set | frozenset):
        return ["set", *sorted(value)]
    if isinstance(value, list | tuple):
        return ["list", *map(pack, value)]
    raise TypeError(f"{name} cannot be handed over")


def unpack(packed: Any) -> Any:
    """The packed value; a list comes back as a tuple, and a set as a frozenset. Raises BadState."""
    if not isinstance(packed, list):
        return packed
    name, *rest = packed
    if name == "list":
        return tuple(map(unpack, rest))
    if name == "set":
        return frozenset(rest)
    kind = _VALUES.get(name)
    if kind is None:
        raise BadState(f"unknown kind of value {name!r:.40}")
    if kind in _FIELDS:
        return kind(*[unpack(one) if type(one) is list else one for one in rest])
    return kind[rest[0]]


def pack_all(values: Iterable[Any]) -> list[Any]:
    """These values as JSON."""
    return [pack(value) for value in values]


def unpack_all(packed: Iterable[Any]) -> list[Any]:
    """The packed values."""
    return [unpack(value) for value in packed]
