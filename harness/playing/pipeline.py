"""Plays a Script on a Stage -> Verdict. The only module that knows both the language and the stage.

How it is known that everything has happened is the stage's business; what should have happened is hearing's and
judging's. Here the two meet, turn by turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.interception.faults import Faults
from harness.interception.interceptor import Interceptable
from harness.language.forms import header_line
from harness.language.located_problem import script_error
from harness.language.plan import Plan, plan, require_steps
from harness.language.problems import ScriptError
from harness.language.steps import Eol, FenceLine, LineEnd, Script, Server, Within
from harness.playing.requirements import missing_features, unsupported_spec_problem
from harness.playing.script_run import InboxFilter, ScriptRun
from harness.playing.verdict import Outcome, TurnReport, Verdict
from harness.stage.fence import Fence
from harness.stage.stage import Stage
from harness.targets.target import ServerSpec, Target, TargetError, UnsupportedSpec

WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class PlayOptions:
    """How scripts are played where they do not say it themselves."""

    fence: FenceLine | None = None
    within_s: float = WITHIN_S


def play(
    script: Script,
    target: Target,
    play_options: PlayOptions = PlayOptions(),  # frozen
    *,
    keep_going: bool = False,
    on_turn: Callable[[TurnReport], None] | None = None,
    inbox_filter: InboxFilter | None = None,
) -> Verdict:
    """The verdict on this script at this target. `keep_going` plays on past what is wrong, taking it as heard."""
    began = time.monotonic()
    try:
        made = plan(script)
        require_steps(made)
        missing = missing_features(script, target)
        if missing:
            return Verdict(script, Outcome.SKIPPED, target=str(target), reason=missing)
        _require_faults(made, target)
        return _play(made, target, play_options, keep_going, on_turn, inbox_filter, began)
    except ScriptError as wrong:
        return _verdict(script, Outcome.SCRIPT_WRONG, target, began, str(wrong))
    except UnsupportedSpec as wrong:
        return _verdict(
            script, Outcome.SCRIPT_WRONG, target, began, str(unsupported_spec_problem(script, wrong))
        )
    except TargetError as wrong:
        return _verdict(script, Outcome.TARGET_BROKEN, target, began, str(wrong))


def _play(
    made: Plan,
    target: Target,
    play_options: PlayOptions,
    keep_going: bool,
    on_turn: Callable[[TurnReport], None] | None,
    inbox_filter: InboxFilter | None,
    began: float,
) -> Verdict:
    script = made.script
    server, within = script.setting(Server), script.setting(Within)
    line, eol = script.setting(FenceLine) or play_options.fence, script.setting(LineEnd)
    spec = ServerSpec(server.endpoints, server.options) if server else ServerSpec()
    within_s = within.microseconds / 1_000_000 if within else play_options.within_s
    wire = (eol.eol if eol else Eol.LF).wire
    fence = Fence(line.question, line.answers) if line else None
    faults = Faults() if made.fault() else None
    if faults is not None and isinstance(target, Interceptable):
        target = target.intercepted_by(faults)
    with Stage(target, spec, fence=fence, eol=wire, within=within_s) as stage:
        playing = ScriptRun(made, stage, wire, within_s, keep_going, on_turn, inbox_filter, faults)
        playing.run()
        if playing.all_connections_refused:
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
            late_lines=tuple(playing.late_lines),
            server_output=stage.server_output() if playing.failures else "",
            real_s=time.monotonic() - began,
            eol=wire,
        )


def _require_faults(made: Plan, target: Target) -> None:
    fault = made.fault()
    if fault is not None and not isinstance(target, Interceptable):
        raise script_error(
            fault.script,
            fault.line,
            0,
            f"{target} cannot be made to suffer this",
            "a gevent server in this process; `needs: faults` in the header skips the script elsewhere",
            fault.step,
        )


def _verdict(script: Script, outcome: Outcome, target: Target, began: float, reason: str) -> Verdict:
    return Verdict(script, outcome, target=str(target), reason=reason, real_s=time.monotonic() - began)


def stage_for(target: Target, header: Mapping[str, str]) -> Stage:
    """The stage that a script with this header would be played on: server, fence, eol and within."""
    spec, fence, eol, within_s = ServerSpec(), None, b"\n", 5.0
    for key, value in header.items():
        match header_line(f"{key}: {value}", 0):
            case Server(endpoints, options):
                spec = ServerSpec(endpoints, options)
            case FenceLine(line, answers):
                fence = Fence(line, answers)
            case LineEnd(end):
                eol = end.wire
            case Within(microseconds):
                within_s = microseconds / 1_000_000
            case other:
                raise ValueError(f"{type(other).__name__} says nothing about a stage")
    return Stage(target, spec, fence=fence, eol=eol, within=within_s)
