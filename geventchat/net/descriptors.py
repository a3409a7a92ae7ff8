"""How many files this process may have open, and so how many clients. Must not know the rest of the server."""

from __future__ import annotations

import resource
from dataclasses import replace

from geventchat.settings import Limits

# Standard streams, the loop, the listeners, the log, a library that is imported late.
_RESERVE = 64


def raise_limit() -> None:
    """Ask for as many as the hard limit allows; for a program's own start, since it holds for the whole process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return  # Some systems allow less than they say; the limit that holds is looked at when the server starts.


def fitting(limits: Limits) -> Limits:
    """The limits, with no more clients than there can be descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or limits.clients + limits.closing + _RESERVE <= soft:
        return limits
    closing = min(limits.closing, soft // 16)
    return replace(limits, clients=max(1, min(limits.clients, soft - _RESERVE - closing)), closing=closing)
