"""Any name: its skeleton is final and the same in every case, imitations are recognised, and names can come and go."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from geventchat.chat.confusables import PROTOTYPES
from geventchat.chat.lookalikes import LookAlikes, skeleton, skeletons
from geventchat.chat.names import MAX_LENGTH, InvalidName, Name, parse_name

IMITATIONS: dict[str, list[str]] = defaultdict(list)
for _code, _prototype in PROTOTYPES.items():
    IMITATIONS[_prototype].append(chr(_code))

CONFUSABLE = st.sampled_from(
    [*map(chr, PROTOTYPES), *"aiIlLmMn0O1_-.", *"\u0301\u0308\u0323\u0345ßΣςİı\u0587"]
)
TEXT = st.text(st.one_of(CONFUSABLE, st.characters()), max_size=24)
PLAIN = st.text(
    st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."),
    min_size=1,
    max_size=20,
)


def parsed(typed: str) -> Name | None:
    try:
        return parse_name(typed)
    except InvalidName:
        return None


@given(TEXT)
def test_a_skeleton_is_its_own(text: str):
    assert skeleton(skeleton(text)) == skeleton(text)


@given(TEXT, TEXT)
def test_texts_that_look_alike_do_so_beside_others(one: str, other: str):
    assert skeleton(one + "a" + other) == skeleton(skeleton(one) + "a" + skeleton(other))


@given(TEXT)
def test_names_with_one_key_have_a_skeleton_in_common(typed: str):
    name = parsed(typed)
    assume(name is not None)
    for other in map(parsed, (typed.upper(), typed.lower(), typed.swapcase(), typed.title())):
        if other is not None and other.key == name.key:
            assert set(skeletons(name)) & set(skeletons(other))


@given(PLAIN)
def test_a_name_in_ascii_has_one_skeleton_in_every_case(typed: str):
    (found,) = skeletons(parse_name(typed))
    assert found.isascii()
    for form in (typed, typed.upper(), typed.lower(), typed.swapcase(), typed.title()):
        assert skeleton(form) == found


@given(PLAIN, st.data())
def test_a_name_that_imitates_one_in_ascii_is_recognised(typed: str, data: st.DataObject):
    """Whatever is replaced, by whatever looks like it, in whatever case."""
    pieces = []
    for char in typed:
        imitations = IMITATIONS.get(skeleton(char), [])
        pieces.append(data.draw(st.sampled_from([char, char.swapcase(), *imitations])))
    imitation = parsed("".join(pieces))
    assume(imitation is not None)
    held = LookAlikes()
    held.add(parse_name(typed))
    same = imitation.key == parse_name(typed).key
    assert held.resembles(imitation) is (not same and not imitation.shown.isascii())


NAMES = [
    *map(
        parse_name,
        (
            "alice",
            "\u0430lice",
            "\u0391LICE",
            "bo1",
            "bol",
            "b\u043el",
            "Stra\u00dfe",
            "STRASSE",
            "Stra\u03b2e",
        ),
    ),
    *map(parse_name, ("\u0412ob", "bob", "BOB", "\u0432ob", "zo\u00eb")),
]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(NAMES)), max_size=30))
def test_names_come_and_go_as_in_a_list_of_them_all(steps: list[tuple[bool, Name]]):
    held = LookAlikes()
    times: Counter[str] = Counter()
    first: dict[str, Name] = {}
    for enters, name in steps:
        if enters:
            held.add(name)
            times[name.key] += 1
            first.setdefault(name.key, name)
        elif times[name.key]:
            held.remove(name)
            times[name.key] -= 1
            if not times[name.key]:
                del first[name.key]
        for new in NAMES:
            another = any(
                set(skeletons(new)) & set(skeletons(old))
                and not (new.shown.isascii() and old.shown.isascii())
                for key, old in first.items()
                if key != new.key
            )
            assert held.resembles_another(new) is another
            assert held.resembles(new) is (another and new.key not in first)
    for key, name in list(first.items()):
        for _ in range(times[key]):
            held.remove(name)
    assert (held._held, held._plain, held._other) == ({}, {}, {})


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(TEXT)
def test_a_skeleton_is_not_much_longer_than_its_name(typed: str):
    name = parsed(typed)
    assume(name is not None)
    assert all(len(found) <= 20 * MAX_LENGTH for found in skeletons(name))
