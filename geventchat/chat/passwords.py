"""What can be a password, what a token looks like, and how both are held without being shown. Pure.

Hashing a password takes a fraction of a second: it is a job of the client's greenlet, and here is only what such a job
calls. A token is random, so that a plain SHA-256 of it says nothing about it.

Input is measured before it is normalised, and loses its stacks of marks: normalising a long run of them takes quadratic
time.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Protocol
from unicodedata import normalize

from geventchat.chat.text import clean

MIN_LENGTH = 8
MAX_LENGTH = 128
# A character can be typed as a base and several marks, which normalising joins; no character takes more bytes than this.
_MAX_TYPED_BYTES = 12 * MAX_LENGTH
TOKEN_BYTES = 32
_TOKEN_PREFIX = "gct_"
# 32 bytes in URL-safe Base64 without padding.
_TOKEN = re.compile(_TOKEN_PREFIX + "[A-Za-z0-9_-]{43}")
_STORED_TOKEN = re.compile("[0-9a-f]{64}")


class WeakPassword(Exception):
    """The password is not allowed; the message says why, and does not contain it."""


class DamagedHash(Exception):
    """The stored value is not the hash of a password or token, so nothing matches it."""


class HasherFull(Exception):
    """Too many hashes are waiting."""


class HashingFailed(Exception):
    """A hash could not be computed; whether a password is right is not known."""


class Secret:
    """A text that is not shown: not in logs, not in errors, not in the `repr` of a command that contains it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and compare_digest(_encoded(self._text), _encoded(other._text))

    def __hash__(self) -> int:
        return hash(self._text)


class Password(Secret):
    """A password as it is hashed: made by `prepare` alone."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of a verification: false if the password is wrong."""

    matches: bool
    # To be stored in place of the old hash, which has another cost than new ones.
    replacement: str | None = None

    def __bool__(self) -> bool:
        return self.matches


class PasswordHasher(Protocol):
    """Hashes passwords. `hash` and `verify` block their greenlet.

    `origin` is the address of the client that asks, and `known` says whether it has logged in to the account before.
    """

    def is_full(self, origin: str, known: bool = False) -> bool:
        """True if `hash` and `verify` would raise HasherFull now."""

    def hash(self, password: Password, origin: str, known: bool = False) -> str:
        """The hash to be stored; raise HasherFull or HashingFailed."""

    def verify(self, password: Password, stored: str, origin: str, known: bool = False) -> Verified:
        """Compare with a stored hash; raise DamagedHash if it is not one, HasherFull or HashingFailed."""


def prepare(typed: str) -> Password:
    """The password that this is, however it was typed; raise WeakPassword if it is not allowed."""
    if len(_encoded(typed)) > _MAX_TYPED_BYTES:
        raise WeakPassword(f"a password has at most {MAX_LENGTH} characters")
    text = normalize("NFC", clean(typed))
    if len(text) < MIN_LENGTH:
        raise WeakPassword(f"a password has at least {MIN_LENGTH} characters")
    if len(text) > MAX_LENGTH:
        raise WeakPassword(f"a password has at most {MAX_LENGTH} characters")
    if is_token(text):
        raise WeakPassword("a password cannot look like a token")
    return Password(text)


def is_token(typed: str) -> bool:
    """True if this has the form of a token, which no password has."""
    return _TOKEN.fullmatch(typed) is not None


def token_from(random: bytes) -> tuple[Secret, str]:
    """A token of these random bytes, to be shown once, and what is stored in its place."""
    if len(random) != TOKEN_BYTES:
        raise ValueError(f"a token has {TOKEN_BYTES} random bytes, not {len(random)}")
    shown = _TOKEN_PREFIX + urlsafe_b64encode(random).rstrip(b"=").decode()
    return Secret(shown), _token_hash(shown)


def token_matches(typed: str, stored: str) -> bool:
    """True if this is the token whose hash was stored; raise DamagedHash if that is not a hash."""
    if not _STORED_TOKEN.fullmatch(stored):
        raise DamagedHash("the stored hash of a token is not 64 hexadecimal digits")
    return is_token(typed) and compare_digest(_token_hash(typed), stored)


def stored_token(typed: Secret) -> str | None:
    """The hash that is stored for this token; None if this does not look like a token."""
    text = typed.reveal()
    return _token_hash(text) if is_token(text) else None


def _token_hash(shown: str) -> str:
    return sha256(shown.encode()).hexdigest()


def _encoded(text: str) -> bytes:
    # JSON can smuggle lone surrogates in. An error about them would contain the text.
    return text.encode("utf-8", "surrogatepass")
