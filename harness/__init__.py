"""Scripted conversations of many clients with a line server, proven byte for byte. The public names, nothing else.

They are imported when they are first used: the pytest plugin lives in this package, and a test run that plays no
transcript must not pay for gevent.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.language.problems import ScriptError as ScriptError
    from harness.language.script import check as check
    from harness.language.script import load as load
    from harness.language.script import parse as parse
    from harness.language.script import render as render
    from harness.language.steps import Script as Script
    from harness.playing.pipeline import PlayOptions as PlayOptions
    from harness.playing.pipeline import play as play
    from harness.playing.verdict import Outcome as Outcome
    from harness.playing.verdict import Verdict as Verdict
    from harness.stage.connection import End as End
    from harness.stage.fence import Fence as Fence
    from harness.stage.fence import Grade as Grade
    from harness.stage.stage import Stage as Stage
    from harness.stage.virtual_time import Clock as Clock
    from harness.targets import Address as Address
    from harness.targets import Command as Command
    from harness.targets import InProcess as InProcess
    from harness.targets.target import ServerSpec as ServerSpec
    from harness.targets.target import Target as Target
    from harness.targets.target import TargetError as TargetError
    from harness.targets.target import UnsupportedSpec as UnsupportedSpec

_HOMES = {
    "Address": "targets",
    "Clock": "stage.virtual_time",
    "Command": "targets",
    "End": "stage.connection",
    "Fence": "stage.fence",
    "Grade": "stage.fence",
    "InProcess": "targets",
    "Outcome": "playing.verdict",
    "PlayOptions": "playing.pipeline",
    "Script": "language.steps",
    "ScriptError": "language.problems",
    "ServerSpec": "targets.target",
    "Stage": "stage.stage",
    "Target": "targets.target",
    "TargetError": "targets.target",
    "UnsupportedSpec": "targets.target",
    "Verdict": "playing.verdict",
    "check": "language.script",
    "load": "language.script",
    "parse": "language.script",
    "play": "playing.pipeline",
    "render": "language.script",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
