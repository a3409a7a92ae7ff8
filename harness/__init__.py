"""Scripted conversations of many clients with a line server, proven byte for byte. The public names, nothing else.

They are imported when they are first used: the pytest plugin lives in this package, and a test run that plays no
transcript must not pay for gevent.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.asking import Ask as Ask
    from harness.asking import Target as Target
    from harness.asking import TargetError as TargetError
    from harness.asking import UnsupportedAsk as UnsupportedAsk
    from harness.clock import Clock as Clock
    from harness.connection import End as End
    from harness.errors import ScriptError as ScriptError
    from harness.fence import Fence as Fence
    from harness.fence import Grade as Grade
    from harness.player import Manner as Manner
    from harness.player import play as play
    from harness.script import check as check
    from harness.script import load as load
    from harness.script import parse as parse
    from harness.script import render as render
    from harness.stage import Stage as Stage
    from harness.steps import Script as Script
    from harness.targets import Address as Address
    from harness.targets import Command as Command
    from harness.targets import InProcess as InProcess
    from harness.verdict import Outcome as Outcome
    from harness.verdict import Verdict as Verdict

_HOMES = {
    "Address": "targets",
    "Ask": "asking",
    "Clock": "clock",
    "Command": "targets",
    "End": "connection",
    "Fence": "fence",
    "Grade": "fence",
    "InProcess": "targets",
    "Manner": "player",
    "Outcome": "verdict",
    "Script": "steps",
    "ScriptError": "errors",
    "Stage": "stage",
    "Target": "asking",
    "TargetError": "asking",
    "UnsupportedAsk": "asking",
    "Verdict": "verdict",
    "check": "script",
    "load": "script",
    "parse": "script",
    "play": "player",
    "render": "script",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
