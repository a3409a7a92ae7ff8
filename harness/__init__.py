"""Scripted conversations of many clients with a line server, proven byte for byte. The public names.

Each is imported when it is first used: the pytest plugin lives in this package, and a test run that plays no transcript
should not pay for it. Only `InProcess` needs gevent.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.language.fences import Fence as Fence
    from harness.language.loading import check as check
    from harness.language.loading import load as load
    from harness.language.loading import parse as parse
    from harness.language.loading import render as render
    from harness.language.problems import ScriptError as ScriptError
    from harness.language.steps import Script as Script
    from harness.playing.pipeline import PlayOptions as PlayOptions
    from harness.playing.pipeline import play as play
    from harness.playing.verdict import Outcome as Outcome
    from harness.playing.verdict import Verdict as Verdict
    from harness.stage.awaited import AsyncStage as AsyncStage
    from harness.stage.connection import End as End
    from harness.stage.event_loop import Clock as Clock
    from harness.stage.fence import Grade as Grade
    from harness.stage.stage import Stage as Stage
    from harness.stage.stage import Unexpected as Unexpected
    from harness.stage.target import ServerSpec as ServerSpec
    from harness.stage.target import Target as Target
    from harness.stage.target import TargetError as TargetError
    from harness.stage.target import UnsupportedSpec as UnsupportedSpec
    from harness.targets.address import Address as Address
    from harness.targets.asyncio_server import InProcessAsyncio as InProcessAsyncio
    from harness.targets.command import Command as Command
    from harness.targets.inprocess import InProcess as InProcess
    from harness.targets.nodes import Nodes as Nodes

_HOMES = {
    "Address": "targets.address",
    "AsyncStage": "stage.awaited",
    "Clock": "stage.event_loop",
    "Command": "targets.command",
    "End": "stage.connection",
    "Fence": "language.fences",
    "Grade": "stage.fence",
    "InProcess": "targets.inprocess",
    "InProcessAsyncio": "targets.asyncio_server",
    "Nodes": "targets.nodes",
    "Outcome": "playing.verdict",
    "PlayOptions": "playing.pipeline",
    "Script": "language.steps",
    "ScriptError": "language.problems",
    "ServerSpec": "stage.target",
    "Stage": "stage.stage",
    "Target": "stage.target",
    "TargetError": "stage.target",
    "Unexpected": "stage.stage",
    "UnsupportedSpec": "stage.target",
    "Verdict": "playing.verdict",
    "check": "language.loading",
    "load": "language.loading",
    "parse": "language.loading",
    "play": "playing.pipeline",
    "render": "language.loading",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
