"""Valid passwords and tokens, and that neither is shown."""

from __future__ import annotations

import copy
import traceback
from dataclasses import dataclass
from hashlib import sha256

import pytest

from geventchat.chat import passwords
from geventchat.chat.passwords import (
    DamagedHash,
    Password,
    Secret,
    WeakPassword,
    is_token,
    prepare,
    token_from,
    token_matches,
)

TOKEN, STORED = token_from(bytes(range(32)))
TOO_SHORT = "a password has at least 8 characters"
TOO_LONG = "a password has at most 128 characters"


def refusal(typed: str) -> str:
    """Why this is not allowed."""
    with pytest.raises(WeakPassword) as refused:
        prepare(typed)
    return str(refused.value)


# --- Passwords -------------------------------------------------------------------------------------------------------


def test_a_password_can_have_spaces_and_any_script():
    for text in (
        "correct horse battery staple",
        "пароль и пароль",
        "パスワードです。はい",
        "🐎🔋📎🐎🔋📎🐎🔋",
    ):
        assert prepare(text).reveal() == text


def test_a_password_has_eight_to_128_characters():
    assert prepare("a" * 8).reveal() == "a" * 8
    assert prepare("é" * 128).reveal() == "é" * 128
    for short in ("", "a" * 7, "e\u0301" * 7):
        assert refusal(short) == TOO_SHORT
    for long in ("a" * 129, "é" * 129):
        assert refusal(long) == TOO_LONG


def test_what_is_not_shown_does_not_count():
    assert refusal("  a b c  ") == TOO_SHORT
    assert refusal("\u200b" * 8) == TOO_SHORT
    assert refusal("abcd\u200b\u2060\ufeff\u00ad") == TOO_SHORT
    assert prepare(" " * 200 + "a" * 128).reveal() == "a" * 128


def test_a_password_is_cleaned_like_a_text():
    assert prepare("\tpass\tword\u200b \x1b[31m\ud800 ").reveal() == "pass word \ufffd[31m\ufffd"
    assert prepare("a\u0301" + "\u0316" * 50 + "bcdefgh").reveal() == "\u00e1" + "\u0316" * 3 + "bcdefgh"


def test_a_character_can_be_typed_in_several_ways():
    for joined, typed in (
        ("\u00e9", "e\u0301"),
        ("\u1f84", "\u03b1\u0313\u0301\u0345"),
        ("각", "\u1100\u1161\u11a8"),
    ):
        assert prepare(joined * 128) == prepare(typed * 128)
    assert prepare("passwor\ufb01") != prepare("passworfi"), "compatibility characters are different"


def test_a_long_text_is_neither_cleaned_nor_normalised(monkeypatch: pytest.MonkeyPatch):
    longest = "e\u0301" * 64 + "a" * (12 * 128 - 3 * 64)
    assert len(longest.encode()) == 1_536
    with pytest.raises(WeakPassword):
        prepare(longest)

    def fail(*_: object) -> str:
        raise AssertionError("it was looked at")

    monkeypatch.setattr(passwords, "clean", fail)
    monkeypatch.setattr(passwords, "normalize", fail)
    for text in (longest + "a", "\u0301" * 769, "\U00020000" * 385, "\ud800" * 513, "a" * 1_000_000):
        assert refusal(text) == TOO_LONG


def test_stacks_are_dropped_before_normalising(monkeypatch: pytest.MonkeyPatch):
    seen: list[str] = []

    def normalize(form: str, text: str) -> str:
        seen.append(text)
        return text

    monkeypatch.setattr(passwords, "normalize", normalize)
    prepare("a" + "\u0301\u0316" * 300 + "bcdefgh")
    assert seen == ["a\u0301\u0316\u0301\u0316bcdefgh"]


# --- Secrets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    name: str
    password: Secret


def test_a_secret_is_not_shown():
    secret = Secret("hunter2hunter2")
    for shown in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        "%s %r" % (secret, secret),  # noqa: UP031 - as the log does it
        repr(Command("alice", secret)),
        repr([copy.deepcopy(secret)]),
        repr(prepare("hunter2hunter2")),
    ):
        assert "hunter2" not in shown
    assert not hasattr(secret, "__dict__")
    assert repr(secret) == "Secret(…)"
    assert repr(prepare("hunter2hunter2")) == "Password(…)"


@pytest.mark.parametrize("typed", ["hunter2", "hunter2\ud800" * 200, "hunter2" * 20, TOKEN.reveal()])
def test_a_refusal_does_not_contain_the_password(typed: str):
    with pytest.raises(WeakPassword) as refused:
        prepare(typed)
    error: BaseException | None = refused.value
    assert error is not None
    assert error.__cause__ is None
    assert error.__context__ is None
    assert typed[:7] not in "".join(traceback.format_exception(error)).replace(TOKEN.reveal(), typed)
    assert typed[:7] not in repr(error)


def test_secrets_are_equal_if_their_texts_are():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("\ud800") == Secret("\ud800")
    assert Secret("a") != "a"
    assert Secret("abcdefgh") != Password("abcdefgh"), "one is as typed, one is prepared"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


# --- Tokens ----------------------------------------------------------------------------------------------------------


def test_a_token_is_256_bits_behind_a_prefix_and_stored_hashed():
    assert TOKEN.reveal() == "gct_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert sha256(TOKEN.reveal().encode()).hexdigest() == STORED
    for size in (0, 16, 31, 33):
        with pytest.raises(ValueError, match=f"32 random bytes, not {size}"):
            token_from(bytes(size))


def test_a_token_differs_from_a_password_by_its_form():
    text = TOKEN.reveal()
    assert is_token(text)
    assert refusal(text) == "a password cannot look like a token"
    assert refusal(f" {text}\u200b") == "a password cannot look like a token"
    for other in (text[:-1], text + "A", text.upper(), text + "\n", text[4:], text.replace("A", "+"), ""):
        assert not is_token(other)


def test_only_its_own_token_matches():
    other, _ = token_from(bytes(32))
    assert token_matches(TOKEN.reveal(), STORED)
    for typed in (other.reveal(), TOKEN.reveal().lower(), TOKEN.reveal()[:-1], "", STORED, "\ud800"):
        assert not token_matches(typed, STORED)


@pytest.mark.parametrize("stored", ["", STORED[:-1], STORED + "0", STORED.upper(), STORED + "\n", "é" * 64])
def test_a_damaged_hash_of_a_token_is_an_error_and_not_a_match(stored: str):
    with pytest.raises(DamagedHash, match="not 64 hexadecimal digits"):
        token_matches(TOKEN.reveal(), stored)
