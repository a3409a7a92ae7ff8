"""Names that look like another: which do, the table of characters that look alike, and what a check costs."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from unicodedata import category

import pytest

from geventchat.chat import confusables
from geventchat.chat.confusables import PROTOTYPES, UNICODE_VERSION
from geventchat.chat.lookalikes import LookAlikes, skeleton, skeletons
from geventchat.chat.names import RESERVED_NAMES, InvalidName, Name, parse_name
from tests.geventchat.icu import NotInstalled, SpoofChecker

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "confusables.py"


def holding(*names: str) -> LookAlikes:
    held = LookAlikes()
    for name in names:
        held.add(parse_name(name))
    return held


# --- Which names look like another -----------------------------------------------------------------------------------

ALIKE = [
    ("alice", "\u0430lice"),  # Cyrillic a
    ("Alice", "\u0391lice"),  # Greek Alpha
    ("alice", "\u0391LICE"),
    ("paypal", "\u0440\u0430\u0443\u0440\u0430l"),  # Cyrillic but for the l
    ("paypal", "\u0440\u0430\u0443\u0440\u0430\u04cf"),  # Cyrillic, with a palochka
    ("scope", "\u0455\u0441\u043e\u0440\u0435"),  # all Cyrillic
    ("Ivan", "\u0406van"),  # Cyrillic I with a dot
    ("bob", "b\u03bfb"),  # Greek omicron
    ("b0b", "b\u043eb"),  # a Cyrillic o like a zero
    ("o1", "\u03bfl"),  # a Greek omicron and an l like a one
    ("al1ce", "\u0430lice"),
    ("you2", "y\u03bfu2"),
    ("rnary", "m\u0430ry"),  # r and n like m
    ("mary", "rn\u0430ry"),
    ("dina", "d\u0131na"),  # dotless i
    # Alike in capitals only.
    ("Bob", "\u0412ob"),  # Cyrillic Ve
    ("bob", "\u0412ob"),
    ("bob", "\u0432ob"),
    ("ken", "\u039aen"),  # Greek Kappa
    ("CAT", "\u13df\u13aa\u13a2"),  # Cherokee, whose lower case looks different
    ("cat", "\uabaf\uab7a\uab72"),
    # Alike in lower case only: Cyrillic Shha.
    ("hot", "\u04bbot"),
    ("hot", "\u04baot"),
    # A capital that is imitated only as one, beside a letter that is imitated only in lower case.
    ("bobh", "\u0412ob\u04bb"),
    # Neither is in ASCII.
    ("zo\u00eb", "z\u043e\u00eb"),
    ("Stra\u00dfe", "Stra\u03b2e"),  # sharp s and beta
    ("\u0418\u0432\u0430\u043d", "\u0418\u0432a\u043d"),
    ("\u038c\u03bc\u03b7\u03c1\u03bf\u03c2", "O\u0301\u03bc\u03b7\u03c1\u03bfς"),
    ("\u0628\u0665", "\u0628\u06f5"),  # a beh before an Arabic five, and before a Persian one
]


@pytest.mark.parametrize(("one", "other"), ALIKE, ids=range(len(ALIKE)))
def test_these_names_look_alike(one: str, other: str):
    assert parse_name(one).key != parse_name(other).key
    assert holding(one).resembles(parse_name(other))
    assert holding(other).resembles(parse_name(one))


DIFFERENT = [
    ("alice", "\u0430licia"),
    ("zoe", "zo\u00eb"),
    ("jose", "jos\u00e9"),
    ("\u0418\u0440\u0430", "\u0418\u0440\u043c\u0430"),
    ("\u042e\u0440\u0430", "\u042e\u0442\u0430"),
    ("\u0420\u0438\u0433\u0430", "\u0420\u0438\u0443\u0430"),
    ("\u0396\u03c9\u03ae", "\u0396\u03ad\u03b7"),
    ("\u5c0f\u660e", "\u5c0f\u7ea2"),
    ("\u05d3\u05df", "\u05d2\u05d3"),
    ("M\u00fcller", "M\u00f6ller"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=range(len(DIFFERENT)))
def test_these_names_look_different(one: str, other: str):
    assert not holding(one).resembles(parse_name(other))
    assert not holding(other).resembles(parse_name(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [("bo1", "bol"), ("rnary", "mary"), ("b0b", "bob"), ("Ivan", "lvan"), ("al1ce", "alice")],
)
def test_two_names_in_plain_ascii_can_look_alike(one: str, other: str):
    assert skeletons(parse_name(one)) == skeletons(parse_name(other))
    assert not holding(one).resembles(parse_name(other))
    assert not holding(other).resembles(parse_name(one))


def test_a_name_that_is_typed_in_wide_letters_is_plain():
    assert not holding("bol").resembles(parse_name("ｂｏ１"))
    assert not holding("ｂｏ１").resembles(parse_name("bol"))


def test_a_name_that_looks_like_a_reserved_one_is_recognised():
    held = holding(*RESERVED_NAMES)
    for imitation in ("\u0430dmin", "SERVE\u13a1", "r\u03bfot", "Idle-time\u03bfut", "\u0443\u043eu"):
        assert held.resembles(parse_name(imitation)), imitation
    assert not held.resembles(parse_name("r00t"))


# --- Names that come and go -------------------------------------------------------------------------------------------


def test_a_name_looks_like_no_other_once_that_is_removed():
    held = holding("alice")
    held.remove(parse_name("alice"))
    assert not held.resembles(parse_name("\u0430lice"))


def test_several_names_can_have_one_skeleton():
    held = holding("bo1", "bol")
    held.remove(parse_name("bo1"))
    assert held.resembles(parse_name("b\u043el"))
    held.remove(parse_name("bol"))
    assert not held.resembles(parse_name("b\u043el"))


def test_a_name_that_is_held_twice_is_held_until_it_is_removed_twice():
    held = holding("alice", "Alice")
    held.remove(parse_name("ALICE"))
    assert held.resembles(parse_name("\u0430lice"))
    held.remove(parse_name("alice"))
    assert not held.resembles(parse_name("\u0430lice"))


def test_a_name_that_is_held_is_not_refused_for_what_it_looks_like():
    # The owner of an account can log in to it, although a look-alike came first.
    held = holding("\u0430lice", "alice")
    assert not held.resembles(parse_name("alice"))
    assert not held.resembles(parse_name("\u0410LICE"))
    assert held.resembles(parse_name("\u0391lice"))


def test_the_spelling_that_was_added_first_is_the_one_that_is_removed():
    # They have one key, but are shown differently: one has skeletons that the other lacks.
    held = holding("Straße")
    held.add(parse_name("STRASSE"))
    held.remove(parse_name("STRASSE"))
    held.remove(parse_name("strasse"))
    assert not held.resembles(parse_name("Stra\u03b2e"))
    assert not held.resembles(parse_name("str\u0430sse"))


def test_a_name_that_is_not_held_cannot_be_removed():
    held = holding("alice")
    with pytest.raises(KeyError):
        held.remove(parse_name("bob"))


# --- The table -------------------------------------------------------------------------------------------------------


def names_of_one_letter() -> Iterator[Name]:
    """A name with each character that names can have; some have to follow another one."""
    for code in range(sys.maxunicode + 1):
        if category(chr(code))[0] not in "LMN_" and chr(code) not in "_-.":
            continue
        for before in ("", "a", "\u05d0"):
            try:
                yield parse_name(before + chr(code))
            except InvalidName:
                continue
            break


def without_case(text: str) -> str:
    return "".join("l" if char in "iI" else char.lower() if char.isascii() else char for char in text)


def test_skeletons_are_those_of_icu_without_case_in_ascii():
    try:
        icu = SpoofChecker()
    except NotInstalled as missing:
        pytest.skip(str(missing))

    def expected(text: str) -> str:
        before = ""
        while text != before:
            before, text = text, without_case(icu.skeleton(text))
        return text

    assert expected("Rn\u0430ry1") == "rnaryl"
    tried, differ = 0, []
    for name in names_of_one_letter():
        for form in {name.shown, name.key, name.key.upper()}:
            tried += 1
            if skeleton(form) != expected(form):
                differ.append(f"{form!r} is like {skeleton(form)!a}, in ICU like {expected(form)!a}")
    assert tried > 120_000
    # From one version of Unicode to the next, a few characters are changed.
    tolerated = 0 if icu.unicode_version == UNICODE_VERSION else 20
    assert len(differ) <= tolerated, "\n".join(differ)


def test_every_prototype_is_final():
    for code, prototype in PROTOTYPES.items():
        assert skeleton(chr(code)) == skeleton(prototype) == prototype != chr(code)


def test_the_table_needs_little_memory():
    tracemalloc.start()
    try:
        table = confusables._read(confusables._ROWS)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert table == PROTOTYPES
    assert 1_000 < len(table) < 3_000
    assert size < 500_000


SOURCE = """\ufeff# confusables.txt
# © 2024 Unicode®, Inc.
# Unicode Security Mechanisms for UTS #39
# Version: 16.0.0
#
0430 ;\t0061 ;\tMA\t# ( а → a ) CYRILLIC SMALL LETTER A → LATIN SMALL LETTER A\t#
006D ;\t0072 006E ;\tMA\t# ( m → rn ) LATIN SMALL LETTER M → LATIN SMALL LETTER R, LATIN SMALL LETTER N\t#
041C ;\t004D ;\tMA\t# ( М → M ) CYRILLIC CAPITAL LETTER EM → LATIN CAPITAL LETTER M\t#
0049 ;\t006C ;\tMA\t# ( I → l ) LATIN CAPITAL LETTER I → LATIN SMALL LETTER L\t#
048B ;\t0439 0326 ;\tMA\t# ( ҋ → й̦ ) CYRILLIC SMALL LETTER SHORT I WITH TAIL → …\t#
2010 ;\t002D ;\tMA\t#* ( ‐ → - ) HYPHEN → HYPHEN-MINUS\t#
FB01 ;\t0066 0069 ;\tMA\t# ( ﬁ → fi ) LATIN SMALL LIGATURE FI → LATIN SMALL LETTER F, LATIN SMALL LETTER I\t#
01CE ;\t0103 ;\tMA\t# ( ǎ → ă ) LATIN SMALL LETTER A WITH CARON → LATIN SMALL LETTER A WITH BREVE\t#
030C ;\t0306 ;\tMA\t# ( ̌ → ̆ ) COMBINING CARON → COMBINING BREVE\t#
"""


def generate(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, path], capture_output=True, text=True)


def frame(text: str) -> tuple[str, str]:
    """The module without its rows."""
    before, _, after = text.partition('_ROWS = """\\\n')
    return before, after.partition('\n"""\n')[2]


def test_the_table_is_generated_from_the_characters_that_names_can_have(tmp_path: Path):
    (tmp_path / "confusables.txt").write_text(SOURCE)
    done = generate(tmp_path / "confusables.txt")
    assert (done.returncode, done.stderr) == (0, "")
    assert frame(done.stdout) == frame((ROOT / "geventchat" / "chat" / "confusables.py").read_text())
    made: dict[str, dict[int, str]] = {}
    exec(done.stdout, made)
    letters = {ord(chr(code).upper()): chr(code) for code in range(ord("a"), ord("z") + 1)}
    special = {"I": "l", "i": "l", "M": "rn", "m": "rn"}
    assert made["PROTOTYPES"] == {
        **letters,
        **{ord(char): text for char, text in special.items()},
        0x430: "a",
        0x41C: "rn",
        # A prototype is decomposed and looked up again.
        0x48B: "\u0438\u0326\u0306",
        0x30C: "\u0306",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "[Errno 2] No such file or directory"),
        (b"<html>not found</html>", "it has no version, no copyright or no confusable characters"),
        (SOURCE.split("0430")[0].encode(), "it has no version, no copyright or no confusable characters"),
        (b"\xff\xfe", "'utf-8' codec can't decode"),
    ],
)
def test_a_file_that_is_not_the_list_is_refused(content: bytes | None, message: str, tmp_path: Path):
    file = tmp_path / "confusables.txt"
    if content is not None:
        file.write_bytes(content)
    done = generate(file)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{file}: {message}")


# --- What a check costs ----------------------------------------------------------------------------------------------

# The costliest names: three forms, each of them decomposed into four times as many characters.
COSTLY = [
    "\u1f84" * 20,
    "\u1f3a" * 20,
    "\ud58a" * 20,
    "\u1fa7" * 20,
    "q" + "\u0323\u0324\u0325\u0331a" * 3,
    "м" * 20,
]


def least_ns(names: list[Name], held: LookAlikes) -> int:
    """The CPU time that it takes to check, add and remove one of these names: the least of all."""
    least = sys.maxsize
    for name in names:
        began = time.thread_time_ns()
        held.resembles(name)
        held.add(name)
        held.remove(name)
        least = min(least, time.thread_time_ns() - began)
    return least


@pytest.mark.parametrize("typed", COSTLY, ids=range(len(COSTLY)))
def test_no_name_is_expensive_to_compare(typed: str):
    assert least_ns([parse_name(typed)] * 20, LookAlikes()) < 1_000_000


def test_a_check_takes_as_long_with_many_names_as_with_one():
    new = [parse_name(f"\u0430lice{n}") for n in range(500)]
    one, many = holding("guest"), holding(*(f"guest{n}" for n in range(20_000)))
    ratios: list[float] = []
    while len(ratios) < 10 and not (ratios and ratios[-1] < 3):
        ratios.append(least_ns(new, many) / least_ns(new, one))
    assert ratios[-1] < 3, ratios
