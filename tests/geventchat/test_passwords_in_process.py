"""Transcripts with passwords, played in this process, have one outcome: with `derive_here` nothing happens outside it."""

from __future__ import annotations

import pytest

from geventchat.chat.guessing import Guessing
from geventchat.services.passwords import Cost, Hasher, derive_here
from harness import InProcess, ServerSpec, parse, play
from harness.interception.schedule import Schedule
from harness.report.styled_text import plain
from harness.report.text import report
from harness.stage.fence import Grade
from tests.fire.passwords import PASSWORD, EchoServer


class GuardedServer(EchoServer):
    """The echo server, with limited guessing."""

    def __init__(self, spec: ServerSpec) -> None:
        super().__init__(Hasher(Cost(4, 1, 1), derive=derive_here))
        self._guessing = Guessing()
        self._clock = spec.clock

    def log_in(self, name: str, password: str, host: str) -> str:
        """The answer to a login with a password."""
        answer: list[str] = []

        def verify() -> bool:
            answer.append(super(GuardedServer, self).log_in(name, password, host))
            return answer[-1] == "OK"

        self._guessing.attempt(name, host, False, self._clock.monotonic, verify)
        return answer[-1] if answer else "ERR too-many-attempts"


SCRIPT = f"""
title: three wrong passwords are free, and then the time to wait doubles, while others chat

alice> LOGIN alice
alice< OK
bob> LOGIN bob
bob< OK

together:
  mallory> LOGIN carol wrong horse battery
  mallory> LOGIN carol wrong horse battery
  mallory> LOGIN carol wrong horse battery
  mallory> LOGIN carol {PASSWORD}
  carol> LOGIN carla {PASSWORD}
  dave> LOGIN dave wrong horse battery
mallory< ERR wrong-password
mallory< ERR wrong-password
mallory< ERR wrong-password
mallory< ERR too-many-attempts
carol< OK
dave< ERR wrong-password
alice> MSG one
bob< MSG alice one
carol< MSG alice one

mallory> LOGIN carol {PASSWORD}
mallory< ERR too-many-attempts
wait 1.999s
mallory> LOGIN carol {PASSWORD}
mallory< ERR too-many-attempts
wait 1ms
mallory> LOGIN carol wrong horse battery
mallory< ERR wrong-password
wait 3.999s
mallory> LOGIN carol {PASSWORD}
mallory< ERR too-many-attempts
wait 1ms
mallory> LOGIN carol {PASSWORD}
mallory< OK
alice> MSG two
bob< MSG alice two
carol< MSG alice two
mallory< MSG alice two
"""


@pytest.mark.parametrize("seed", [None, *range(10)])
def test_a_transcript_with_passwords_has_one_outcome(seed: int | None):
    target = InProcess(GuardedServer)
    verdict = play(parse(SCRIPT), target if seed is None else target.intercepted_by(Schedule(seed)))
    assert verdict.passed, plain(report(verdict))
    assert verdict.grade is Grade.EXACT
