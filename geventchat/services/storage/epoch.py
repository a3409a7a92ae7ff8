"""The name of an epoch of message ids. Pure but for the source of randomness."""

from __future__ import annotations

import secrets


def random_epoch() -> str:
    """A name that no other epoch has."""
    return secrets.token_hex(8)
