"""What is tested: a server in this process, a command, an address. The public names of all that a target is."""

from __future__ import annotations

from harness.targets.address import Address
from harness.targets.asking import Ask, Running, Target, TargetError, UnsupportedAsk
from harness.targets.command import Command
from harness.targets.inprocess import InProcess

__all__ = ["Address", "Ask", "Command", "InProcess", "Running", "Target", "TargetError", "UnsupportedAsk"]
