"""The target as named by options: a command, an address or a factory, as text. Imports each kind only when it is used."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any, cast

from harness.stage.kernel import UNIX, parse_unix
from harness.stage.target import ONLY, Target, ends_the_process
from harness.targets.address import Address
from harness.targets.application import made_for_asyncio
from harness.targets.command import Command

LOOPS = ("asyncio", "gevent")
"""Prefixes for the name of a factory that does not show on which loop its server runs."""

_FRAMES = 3
"""How many of the innermost frames of a traceback are shown."""

_HARNESS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")


class UsageError(Exception):
    """The command line or the configuration is invalid; the message says why."""


@dataclass(frozen=True, slots=True)
class TargetChoice:
    """The target as named by options; picklable."""

    server: str | None = None
    connect: str | None = None
    app: str | None = None
    shared: bool = False
    ready: tuple[str, ...] = ()
    features: frozenset[str] = frozenset()
    nodes: tuple[str, ...] = ()
    """NAME=COMMAND for each."""

    @property
    def named(self) -> bool:
        """Whether it names a target at all."""
        return bool(self._names)

    @property
    def _names(self) -> list[object]:
        named = (self.server, self.connect, self.app, self.nodes or None)
        return [one for one in named if one is not None]

    def target(self) -> Target:
        """Make the target."""
        if len(self._names) != 1:
            raise UsageError("name one target: a server command, an address, an app or nodes")
        if self.nodes:
            return self._of_nodes()
        if self.server is not None:
            try:
                return Command(self.server, ready=self.ready, shared=self.shared, features=self.features)
            except ValueError as wrong:
                raise UsageError(str(wrong)) from None
            except re.error as wrong:
                raise UsageError(f"--ready {wrong.pattern!r}: {wrong}") from None
        if self.connect is not None:
            return _address(self.connect, self.features)
        return self._in_process(self.app or "")

    def _of_nodes(self) -> Target:
        from harness.targets.nodes import Nodes

        commands: dict[str, str] = {}
        for text in self.nodes:
            name, equals, command = text.partition("=")
            if not equals or not command or name in commands:
                why = f"node {name} twice" if name in commands else f"{text!r} names no node and its command"
                raise UsageError(f"{why}; expected --node NAME='COMMAND {{port}}' for each")
            commands[name] = command
        try:
            return Nodes(commands, features=self.features)
        except ValueError as wrong:
            raise UsageError(str(wrong)) from None

    def _in_process(self, name: str) -> Target:
        from harness.stage.virtual_time import started_by_a_server

        loop, rest = _loop_of(name)
        try:
            with started_by_a_server():
                factory = named(rest, "factory")
            if loop == "asyncio" or (not loop and made_for_asyncio(factory)):
                from harness.targets.asyncio_server import InProcessAsyncio

                return InProcessAsyncio(factory, features=self.features)
            from harness.targets.inprocess import InProcess
        except (ModuleNotFoundError, UsageError) as error:
            missing = error.__cause__ if isinstance(error, UsageError) else error
            if not isinstance(missing, ModuleNotFoundError) or missing.name != "gevent":
                raise
            raise UsageError(
                "gevent servers in this process need gevent: pip install 'gevent>=26.9'"
            ) from missing
        return InProcess(factory, features=self.features)


def _loop_of(name: str) -> tuple[str, str]:
    """The loop that is named before MODULE:FACTORY, if one is, and the rest."""
    loop, _, rest = name.partition(":")
    return (loop, rest) if loop in LOOPS and ":" in rest else ("", name)


def _address(text: str, features: frozenset[str]) -> Address:
    """HOST:PORT or unix:/PATH, or NAME=HOST:PORT,NAME=unix:/PATH for a server of several endpoints."""
    if text.startswith(UNIX) or "=" not in text:
        return Address({ONLY: _place(text)}, features=features)
    endpoints = (one.partition("=") for one in text.split(","))
    return Address({name: _place(address) for name, _, address in endpoints}, features=features)


def _place(text: str) -> tuple[str, int] | str:
    if not text.startswith(UNIX):
        return host_port(text)
    try:
        parse_unix(text)
    except ValueError as wrong:
        raise UsageError(str(wrong)) from None
    return text


def host_port(text: str, lowest: int = 1) -> tuple[str, int]:
    """HOST:PORT, [HOST]:PORT or :PORT; with `lowest=0`, port 0 means any free port."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not lowest <= int(port) < 65536:
        raise UsageError(f"{text!r} is not an address; expected HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def named(name: str, what: str) -> Callable[..., Any]:
    """The callable MODULE:NAME; modules are also looked for in the current folder."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UsageError(f"{name!r} does not name a {what}; expected MODULE:{what.upper()}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ImportError as wrong:
        raise UsageError(f"{name}: {wrong}") from wrong
    except BaseException as error:
        if not is_a_mistake(error):
            raise
        raise UsageError(f"{name}: the module raised {described(error)}") from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as wrong:
        raise UsageError(f"{name}: {wrong}") from wrong
    if not callable(found):
        raise UsageError(f"{name} is not a {what}: it cannot be called")
    return cast("Callable[..., Any]", found)


def is_a_mistake(error: BaseException) -> bool:
    """Whether a user's code raised this, and not a signal such as Ctrl-C. Code that exits would end the run."""
    return isinstance(error, Exception) or ends_the_process(error)


def described(error: BaseException) -> str:
    """An exception of a user's code, with the end of its traceback."""
    # The outermost frames are those in which the harness calls this code, or imports it.
    frames = list(dropwhile(_is_ours, traceback.extract_tb(error.__traceback__)))[-_FRAMES:]
    text = "".join(traceback.format_exception_only(error)).strip()
    return "\n".join([text, *(frame.rstrip() for frame in traceback.format_list(frames))])


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith((_HARNESS, "<frozen importlib")) or frame.filename == importlib.__file__
