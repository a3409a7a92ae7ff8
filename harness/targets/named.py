"""The target of each script: the one that the options name, or else the one that its header names.

A target that a header names is made once for each way of naming it, so that `--shared` holds for these too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.language.loading import load
from harness.language.problems import ScriptError
from harness.language.steps import Script, TargetLine
from harness.stage.target import RunningServer, ServerSpec, Target, TargetError
from harness.targets.choice import TargetChoice, UsageError

HOW_TO_NAME_ONE = "--server 'COMMAND {port}', --connect HOST:PORT or --app MODULE:FACTORY"


class Targets:
    """Targets by script."""

    def __init__(self, choice: TargetChoice) -> None:
        self._choice = choice
        self._made: dict[TargetChoice, Target] = {}

    def of(self, path: Path) -> Target:
        """The target of the script in this file. Where it cannot be read, playing it will say so."""
        if self._choice.named:
            return self._made_of(self._choice)
        try:
            return self.of_script(load(path))
        except ScriptError:
            return NoTarget()

    def of_script(self, script: Script) -> Target:
        """The target of a script that has been read."""
        choice = self._choice if self._choice.named else named_by(script, self._choice)
        return self._made_of(choice) if choice is not None else NoTarget()

    def _made_of(self, choice: TargetChoice) -> Target:
        if choice not in self._made:
            self._made[choice] = choice.target()
        return self._made[choice]


def named_by(script: Script, choice: TargetChoice) -> TargetChoice | None:
    """The target that the header names, with everything else as chosen; None if it names none."""
    line = script.setting(TargetLine)
    if line is None:
        return None
    named: dict[str, Any] = {line.kind.value: line.text}
    return replace(choice, **named)


def require_targets(choice: TargetChoice, paths: Iterable[Path]) -> None:
    """Raise UsageError if a script has no target, before any is played."""
    if choice.named:
        return
    for path in paths:
        try:
            script = load(path)
        except ScriptError:
            continue
        if script.setting(TargetLine) is None:
            raise UsageError(f"{path} has no server; name it: {HOW_TO_NAME_ONE}, or `target:` in its header")


class NoTarget(Target):
    """Stands where no target is named."""

    def __str__(self) -> str:
        return "no server"

    @contextmanager
    def start(self, spec: ServerSpec, within_s: float) -> Iterator[RunningServer]:
        raise TargetError(f"no server is named: {HOW_TO_NAME_ONE}, or `target:` in the header")
        yield
