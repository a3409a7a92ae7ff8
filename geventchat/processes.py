"""Finds the settings of a server that runs as another process, in /proc. Imports no gevent."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from geventchat.arguments import COMMANDS, parse, resolve_arguments
from geventchat.settings import ConfigError, Settings


def settings_of_process(pid: int, arguments: argparse.Namespace) -> tuple[Settings, Path]:
    """The settings of this process, or of its descendant that is a server, and its directory.

    The settings in `arguments` override them.
    """
    pid, words = _find_server(pid)
    combined = parse(words)
    if getattr(arguments, "positional_port", None) is not None or arguments.port is not None:
        combined.port, combined.positional_port = arguments.port, arguments.positional_port
    for name, value in vars(arguments).items():
        if name not in ("port", "positional_port") and name in vars(combined) and value is not None:
            setattr(combined, name, value)
    pairs = (word.partition("=") for word in _words_of(pid, "environ"))
    environment = {name: value for name, _, value in pairs}
    directory = Path(f"/proc/{pid}/cwd")
    return resolve_arguments(combined, environment, directory), directory


def _find_server(first: int) -> tuple[int, list[str]]:
    """The process that is a server, and its arguments: `first`, or a descendant, such as that of a shell script."""
    waiting = [first]
    for pid in waiting:
        try:
            words = _server_arguments(_words_of(pid, "cmdline"))
        except ConfigError:
            if pid == first:
                raise
            continue  # It has ended meanwhile.
        if words is not None:
            return pid, words
        waiting.extend(_children_of(pid))
    raise ConfigError("pid", f"pid: process {first} is not a geventchat server and has not started one")


def _children_of(pid: int) -> list[int]:
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []  # It has ended meanwhile.
    return [int(word) for text in lists for word in text.split()]


def _words_of(pid: int, name: str) -> list[str]:
    try:
        content = Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError as error:
        raise ConfigError("pid", f"pid: cannot read /proc/{pid}/{name}: {error.strerror}") from error
    return content.decode(errors="surrogateescape").split("\0")[:-1]


def _server_arguments(words: Sequence[str]) -> list[str] | None:
    """The arguments of a server in a command line such as `python -m geventchat 5000` or `tini -- geventchat 5000`."""
    for index, word in enumerate(words):
        if word.rpartition("/")[2] == "geventchat" or word.endswith("geventchat/__main__.py"):
            following = list(words[index + 1 :])
            return None if following[:1] and following[0] in COMMANDS else following
    return None
