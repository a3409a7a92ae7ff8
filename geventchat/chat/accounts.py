"""Who someone is beyond one connection. Pure; knows no passwords."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """A reserved name. Its key is the key of the name, so nobody else can have either."""

    key: str
    name: str
