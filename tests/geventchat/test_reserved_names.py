"""Reserved names: which are refused, how the list is set, and that it has every word that follows `INFO` on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import product
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from geventchat.chat.events import Broadcast, PrivateEvent, Rejection
from geventchat.chat.names import RESERVED_NAMES, InvalidName, key_of, parse_name
from geventchat.chat.passwords import Secret
from geventchat.dialects import DIALECTS
from geventchat.settings import Config, ConfigError, RawSetting, resolve

NAME = "somebody"
LINE = DIALECTS["line"]


def samples(kind: Any) -> list[Any]:
    """Values of a type of event or of a field of one, with every member of an enumeration, and NAME for each text."""
    origin = get_origin(kind)
    if origin in {Union, UnionType}:
        return [sample for one in get_args(kind) for sample in samples(one)]
    if origin is not None:
        return [(sample,) for sample in samples(get_args(kind)[0])]
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return [kind(*values) for values in product(*(samples(hints[one.name]) for one in fields(kind)))]
    if issubclass(kind, Enum):
        return list(kind)
    if kind is Secret:
        return [Secret(NAME)]
    return {str: [NAME], int: [1], bool: [False, True], NoneType: [None]}[kind]


def line_text() -> Iterator[str]:
    """Every line that the line dialect can send."""
    for event in samples(Broadcast):
        yield from LINE.encode(event).decode().splitlines()
    for event in samples(PrivateEvent):
        yield from LINE.encode_private(event).decode().splitlines()


def test_every_word_that_can_follow_info_in_the_line_dialect_is_reserved():
    followers = {line.split(" ")[1] for line in line_text() if line.startswith("INFO ")}
    assert NAME in followers
    assert followers >= {"idle-timeout", "server-shutdown"}
    missing = sorted(followers - {NAME} - set(RESERVED_NAMES))
    assert not missing, f"add to RESERVED_NAMES in chat/names.py: {missing}"


def test_each_reserved_name_would_be_a_name_and_is_written_as_its_key():
    for word in RESERVED_NAMES:
        assert parse_name(word).key == word
    assert len(set(RESERVED_NAMES)) == len(RESERVED_NAMES)


@pytest.mark.parametrize("typed", ["server", "SERVER", "ｓｅｒｖｅｒ", "strasse", "Straße"])
def test_a_reserved_name_is_refused_in_any_case_and_width(typed: str):
    reserved = frozenset(map(key_of, ("Server", "STRASSE")))
    assert parse_name(typed).key in reserved
    with pytest.raises(InvalidName) as rejected:
        parse_name(typed, reserved)
    assert rejected.value.reason is Rejection.NAME_INVALID


def test_a_name_is_reserved_as_a_whole():
    reserved = frozenset(RESERVED_NAMES)
    for word in RESERVED_NAMES:
        assert parse_name(word[:-1] + "_", reserved).key == word[:-1] + "_"


def configured(text: str) -> tuple[str, ...]:
    return resolve({"reserved-names": RawSetting(text, "--reserved-names")}, {}, None).config.reserved_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("you server", ("you", "server")),
        ("you,server", ("you", "server")),
        (" you,  server ,", ("you", "server")),
        ("Größe", ("Größe",)),
        ("", ()),
        (",", ()),
    ],
)
def test_the_list_is_separated_by_spaces_or_commas_and_can_be_empty(text: str, names: tuple[str, ...]):
    assert configured(text) == names


@pytest.mark.parametrize("text", ["a/b", "you a:b", "x" * 21, "you ☃", "\u0301"])
def test_a_list_with_a_name_that_no_client_could_have_is_refused(text: str):
    with pytest.raises(ConfigError) as refused:
        configured(text)
    assert str(refused.value) == (
        f"reserved-names: {text!r} is not zero or more names, each of 1 to 20 letters, digits, '_', '-' or '.'"
        " (from --reserved-names)"
    )


def test_by_default_the_list_is_that_of_the_chat():
    assert Config().reserved_names == RESERVED_NAMES
