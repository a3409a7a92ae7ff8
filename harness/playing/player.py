"""Plays a Script on a Stage -> Verdict. The only module that knows both the language and the stage.

How it is known that everything has happened is the stage's business; what should have happened is hearing's and
judging's. Here the two meet, turn by turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from harness.beneath.faults import Faults
from harness.beneath.sway import Swayable
from harness.language.complaint import complain
from harness.language.errors import ScriptError
from harness.language.needs import asked_too_much, lacking
from harness.language.plan import Plan, plan, require_steps
from harness.language.steps import Eol, FenceLine, LineEnd, Script, Server, Within
from harness.playing.playing import Layer, Playing
from harness.playing.verdict import Outcome, TurnReport, Verdict
from harness.stage.fence import Fence
from harness.stage.stage import Stage
from harness.targets.asking import Ask, Target, TargetError, UnsupportedAsk

WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Manner:
    """How scripts are played where they do not say it themselves."""

    fence: FenceLine | None = None
    within_s: float = WITHIN_S


def play(
    script: Script,
    target: Target,
    manner: Manner = Manner(),  # frozen
    *,
    keep_going: bool = False,
    on_turn: Callable[[TurnReport], None] | None = None,
    layer: Layer | None = None,
) -> Verdict:
    """The verdict on this script at this target. `keep_going` plays on past what is wrong, taking it as heard."""
    began = time.monotonic()
    try:
        made = plan(script)
        require_steps(made)
        missing = lacking(script, target)
        if missing:
            return Verdict(script, Outcome.SKIPPED, target=str(target), reason=missing)
        _require_faults(made, target)
        return _play(made, target, manner, keep_going, on_turn, layer, began)
    except ScriptError as wrong:
        return _verdict(script, Outcome.SCRIPT_WRONG, target, began, str(wrong))
    except UnsupportedAsk as wrong:
        return _verdict(script, Outcome.SCRIPT_WRONG, target, began, str(asked_too_much(script, wrong)))
    except TargetError as wrong:
        return _verdict(script, Outcome.TARGET_BROKEN, target, began, str(wrong))


def _play(
    made: Plan,
    target: Target,
    manner: Manner,
    keep_going: bool,
    on_turn: Callable[[TurnReport], None] | None,
    layer: Layer | None,
    began: float,
) -> Verdict:
    script = made.script
    server, within = script.setting(Server), script.setting(Within)
    line, eol = script.setting(FenceLine) or manner.fence, script.setting(LineEnd)
    ask = Ask(server.endpoints, server.options) if server else Ask()
    within_s = within.microseconds / 1_000_000 if within else manner.within_s
    wire = (eol.eol if eol else Eol.LF).wire
    fence = Fence(line.ask, line.answers) if line else None
    faults = Faults() if made.fault() else None
    if faults is not None and isinstance(target, Swayable):
        target = target.swayed(faults)
    with Stage(target, ask, fence=fence, eol=wire, within=within_s) as stage:
        playing = Playing(made, stage, wire, within_s, keep_going, on_turn, layer, faults)
        playing.run()
        if playing.nobody_was_let_in:
            raise TargetError(f"nobody listens at {target}")
        return Verdict(
            script,
            Outcome.FAILED if playing.failures else Outcome.PASSED,
            target=str(target),
            grade=stage.grade,
            fenced=fence is not None,
            virtual_time="virtual-time" in target.features,
            clients=made.clients,
            turns=tuple(playing.turns),
            failures=tuple(playing.failures),
            late=tuple(playing.late),
            last_words=stage.last_words() if playing.failures else "",
            real_s=time.monotonic() - began,
            eol=wire,
        )


def _require_faults(made: Plan, target: Target) -> None:
    fault = made.fault()
    if fault is not None and not isinstance(target, Swayable):
        raise complain(
            fault.script,
            fault.line,
            0,
            f"{target} cannot be made to suffer this",
            "a gevent server in this process; `needs: faults` in the header skips the script elsewhere",
            fault.step,
        )


def _verdict(script: Script, outcome: Outcome, target: Target, began: float, reason: str) -> Verdict:
    return Verdict(script, outcome, target=str(target), reason=reason, real_s=time.monotonic() - began)
