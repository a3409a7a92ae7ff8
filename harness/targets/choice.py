"""The target as options name it: a command, an address or a factory, in words -> a Target. Knows no scripts."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from harness.targets import Address, Command, InProcess
from harness.targets.target import ServerSpec, Target


class UsageError(Exception):
    """What was said about the target makes none; the message says why."""


@dataclass(frozen=True, slots=True)
class TargetChoice:
    """The target as options name it; it can be handed to another process."""

    server: str | None = None
    connect: str | None = None
    app: str | None = None
    shared: bool = False
    ready: str | None = None
    features: frozenset[str] = frozenset()

    def target(self) -> Target:
        """The target itself."""
        if sum(choice is not None for choice in (self.server, self.connect, self.app)) != 1:
            raise UsageError("say what is tested: a server command, an address or an app; one of them")
        if self.server is not None:
            return Command(self.server, ready=self.ready, shared=self.shared, features=self.features)
        if self.connect is not None:
            return _address(self.connect, self.features)
        return InProcess(_factory(self.app or ""), features=self.features)


def _address(text: str, features: frozenset[str]) -> Address:
    """HOST:PORT, or NAME=HOST:PORT,NAME=HOST:PORT for a server of several endpoints."""
    if "=" not in text:
        return Address(*host_port(text), features=features)
    places = (one.partition("=") for one in text.split(","))
    return Address({name: host_port(place) for name, _, place in places}, features=features)


def host_port(text: str, lowest: int = 1) -> tuple[str, int]:
    """HOST:PORT, [HOST]:PORT or :PORT -> what a socket connects to, or listens on: there 0 is any free port."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not lowest <= int(port) < 65536:
        raise UsageError(f"{text!r} is no address; expected HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def _factory(name: str) -> Callable[[ServerSpec], Any]:
    return cast("Callable[[ServerSpec], Any]", named(name, "factory"))


def named(name: str, what: str) -> Callable[..., Any]:
    """What MODULE:NAME stands for, which must be callable; modules are looked for from here."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UsageError(f"{name!r} names no {what}; expected MODULE:{what.upper()}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as wrong:
        raise UsageError(f"{name}: {wrong}") from wrong
    if not callable(found):
        raise UsageError(f"{name} is no {what}: it cannot be called")
    return cast("Callable[..., Any]", found)
