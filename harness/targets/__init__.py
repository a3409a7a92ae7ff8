"""What is tested: a server in this process, a command, an address. The public names of all that a target is."""

from __future__ import annotations

from harness.targets.address import Address
from harness.targets.command import Command
from harness.targets.inprocess import InProcess
from harness.targets.target import RunningServer, ServerSpec, Target, TargetError, UnsupportedSpec

__all__ = [
    "Address",
    "Command",
    "InProcess",
    "RunningServer",
    "ServerSpec",
    "Target",
    "TargetError",
    "UnsupportedSpec",
]
