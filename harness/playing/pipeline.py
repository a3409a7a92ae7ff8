"""The way of a script from a file to a verdict: read, expand, validate, perform, judge. Each phase takes what the one before
returned, and a script passes each of them once.

Also the settings of a stage, which a script's header and a test in Python choose alike.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.language.adapter import Adapter
from harness.language.expansion import expand
from harness.language.fences import Fence
from harness.language.forms import HEADER_KEYS, header_line
from harness.language.loading import load
from harness.language.problems import LineError, ScriptError, ScriptProblem
from harness.language.steps import (
    DefaultTransport,
    Eol,
    ExpectedToFail,
    FenceAfter,
    LineEnd,
    Needs,
    Rule,
    Script,
    Server,
    Setting,
    Settle,
    Skip,
    Start,
    TimeFactor,
    Transport,
    Unfenced,
    Within,
    names_in,
)
from harness.language.validation import Plan, check_fence, require_steps, validate
from harness.playing.execution import Execution, InboxFilter
from harness.playing.verdict import (
    Failure,
    FailureKind,
    Outcome,
    Overtaken,
    Performance,
    TurnReport,
    Verdict,
    judge,
)
from harness.stage.connection import End
from harness.stage.fence import SETTLE_S
from harness.stage.stage import Stage
from harness.stage.target import ServerSpec, Target, TargetError, UnsupportedSpec, UnsupportedTime
from harness.stage.transport import TlsTrust

WITHIN_S = 5.0

# The features of the harness's own targets; others can have more.
_FEATURES = frozenset({"virtual-time", "in-process", "restart", "stderr", "proven-split", "faults", "nodes"})


@dataclass(frozen=True, slots=True)
class PlayOptions:
    """Settings of a play for which the header of a script has no value."""

    fence: Fence | None = None
    within_s: float = WITHIN_S
    settle_s: float = SETTLE_S
    start_s: float | None = None
    time_factor: int = 1
    transport: Transport = field(default_factory=Transport)
    tls: TlsTrust = field(default_factory=TlsTrust)
    adapter: Adapter | None = None
    """How the server differs from what scripts say, on purpose. Its settings replace those of scripts."""
    trust_answers: bool = True
    """Whether the answers to fence lines count at first. They do not where it is known that lines come after them."""


def play(
    script: Script,
    target: Target,
    play_options: PlayOptions = PlayOptions(),  # frozen
    *,
    keep_going: bool = False,
    inbox_filter: InboxFilter | None = None,
) -> Verdict:
    """The verdict on this script at this target. `keep_going` plays on after a failure, taking what was received as
    right; `inbox_filter` may change what the clients have received before it is compared."""
    began = time.monotonic()

    def verdict(outcome: Outcome, reason: str, problem: ScriptProblem | None = None) -> Verdict:
        took_s = time.monotonic() - began
        return Verdict(script, outcome, target=str(target), reason=reason, problem=problem, real_s=took_s)

    try:
        plan = validate(expand(script))
        require_steps(plan)
        skip = script.setting(Skip)
        if skip is not None:
            return verdict(Outcome.SKIPPED, skip.reason)
        adapter = play_options.adapter
        missing = missing_features(script, target, adapter.features if adapter else frozenset())
        if missing:
            return verdict(Outcome.SKIPPED, f"needs {', '.join(missing)}, which {target} lacks")
        fence = adapter.fence if adapter else None
        check_fence(plan, fence or script.setting(Fence) or play_options.fence)
        judged = judge(perform(plan, target, play_options, keep_going, inbox_filter))
        if judged.overtaken:
            judged = _played_again(judged, plan, target, play_options, keep_going)
    except ScriptError as error:
        return verdict(Outcome.SCRIPT_ERROR, str(error), error.problem)
    except UnsupportedSpec as unsupported:
        problem = _unsupported(script, unsupported).problem
        return verdict(Outcome.SCRIPT_ERROR, str(problem), problem)
    except TargetError as broken:
        return verdict(Outcome.TARGET_ERROR, str(broken))
    return replace(_as_known(judged), real_s=time.monotonic() - began)


def _as_known(judged: Verdict) -> Verdict:
    """The verdict, in the light of what the script says of itself."""
    known = judged.script.setting(ExpectedToFail)
    if known is None:
        return judged
    outcome = Outcome.XPASSED if judged.passed else Outcome.XFAILED
    return replace(judged, outcome=outcome, reason=known.reason)


def _played_again(
    first: Verdict, plan: Plan, target: Target, play_options: PlayOptions, keep_going: bool
) -> Verdict:
    """The verdict of a play that waits for quiet after each turn, and so knows which turn a line belongs to. A failure of
    the first play stays one if the second does not show it, unless what was missing, or too much, can have been late."""
    late = first.overtaken in (Overtaken.IN_A_TURN, Overtaken.PERHAPS)
    again_decides = late and all(_can_be_late(one, first) for one in first.failures)
    try:
        again = judge(perform(plan, target, replace(play_options, trust_answers=False), keep_going))
    except TargetError:
        if again_decides:
            raise
        return first  # it has ended the server
    if not again_decides and again.passed:
        return replace(first, not_repeated=not first.passed)
    return replace(again, overtaken=first.overtaken)


_LATE = (
    FailureKind.MISSING,
    FailureKind.EXTRA,
    FailureKind.DIFFERENT,
    FailureKind.OUT_OF_ORDER,
    FailureKind.DISAGREED,
    FailureKind.STILL_OPEN,
    FailureKind.NOT_RAISED,
)
"""The failures that something which is merely late can cause."""


def _can_be_late(failure: Failure, verdict: Verdict) -> bool:
    """Whether it can be caused by something late: also by an end for which an earlier turn did not wait."""
    earlier = verdict.turns[: failure.turn - 1]
    can_end = any(failure.client in choice.ending for turn in earlier for choice in turn.choices)
    return failure.kind in _LATE or (failure.kind is FailureKind.LOST_CONNECTION and can_end)


def play_file(
    path: Path,
    target: Target,
    play_options: PlayOptions = PlayOptions(),  # frozen
    *,
    keep_going: bool = False,
) -> Verdict:
    """The verdict on one file; a file that cannot be read, or is not a script, is a verdict too."""
    try:
        script = load(path)
    except ScriptError as error:
        return replace(unreadable(path, error), target=str(target))
    return play(script, target, play_options, keep_going=keep_going)


def unreadable(path: Path, error: ScriptError) -> Verdict:
    """The verdict on a file that cannot be read, or is not a script, at any target."""
    return Verdict(Script(file=str(path)), Outcome.SCRIPT_ERROR, reason=str(error), problem=error.problem)


def perform(
    plan: Plan,
    target: Target,
    play_options: PlayOptions,
    keep_going: bool = False,
    inbox_filter: InboxFilter | None = None,
) -> Performance:
    """Play the plan on a stage and record what was observed."""
    settings = _StageSettings.of_script(plan.script, play_options)
    done: Performance | None = None
    try:
        with settings.stage(_with_faults(plan, target)) as stage:
            if not play_options.trust_answers:
                stage.distrust_answers()
            execution = Execution(plan, stage, keep_going, inbox_filter)
            execution.run()
            margin_s = stage.margin_s
            interrupted = execution.turns[-1].interruption is not None
            # Before the clients leave, which is no part of a turn. The end of a turn that was interrupted is not proven at all.
            grade = None if interrupted else stage.grade
            if not interrupted:
                try:
                    execution.leave()
                except TargetError:
                    if not execution.failed:
                        raise
            turns = tuple(execution.turns)
            if _all_refused(turns):
                raise TargetError(f"connection refused by {target}")
            done = Performance(
                plan,
                str(target),
                turns,
                grade,
                settings.fence,
                "virtual-time" in target.features,
                settings.eol.wire,
                tuple(execution.late_lines),
                stage.server_output() if execution.failed else "",
                overtaken=execution.overtaken,
                settle_s=settings.settle_s,
                time_factor=stage.loop.factor,
                margin_s=margin_s,
                unseen=stage.loop.unseen,
                answers_prove=stage.server.answers_prove,
            )
    except TargetError:
        # A turn that has failed says more than how the server ends: one that never becomes idle does not stop either.
        if done is None or not execution.failed:
            raise
    return done


def _all_refused(turns: tuple[TurnReport, ...]) -> bool:
    """Whether every connection was refused, and one of them against what the script says: the server does not run."""
    client_turns = [one for turn in turns for one in turn.client_turns]
    return (
        bool(client_turns)
        and all(one.end is End.REFUSED and not one.end_detail for one in client_turns)
        and any(not one.as_expected for one in client_turns)
    )


# --- the stage ----------------------------------------------------------------------------------------------

_OF_A_STAGE: tuple[type[Setting], ...] = (
    Server,
    Fence,
    FenceAfter,
    Unfenced,
    LineEnd,
    Within,
    Settle,
    Start,
    TimeFactor,
    DefaultTransport,
)
"""The settings of a header that say something of the stage, besides the rules."""


@dataclass(frozen=True, slots=True)
class _StageSettings:
    spec: ServerSpec = field(default_factory=ServerSpec)
    fence: Fence = Fence()  # noqa: RUF009  # frozen
    fence_after: str = ""
    unfenced: tuple[str, ...] = ()
    eol: Eol = Eol.LF
    within_s: float = WITHIN_S
    settle_s: float = SETTLE_S
    rules: tuple[tuple[Rule, str], ...] = ()
    transport: Transport = field(default_factory=Transport)
    tls: TlsTrust = field(default_factory=TlsTrust)
    adapter: Adapter | None = None

    @classmethod
    def of_script(cls, script: Script, play_options: PlayOptions) -> _StageSettings:
        spec = ServerSpec(start_s=play_options.start_s, time_factor=play_options.time_factor)
        settings = cls(
            spec,
            within_s=play_options.within_s,
            settle_s=play_options.settle_s,
            transport=play_options.transport,
            tls=play_options.tls,
            adapter=play_options.adapter,
            rules=tuple((rule, home.file) for rule, home in script.rules()),
        )
        found: list[Setting | None] = [
            play_options.fence,
            *(script.setting(kind) for kind in _OF_A_STAGE),
            *(play_options.adapter.settings if play_options.adapter else ()),
        ]
        for setting in found:
            if setting is not None:
                settings = settings.changed_by(setting)
        return settings

    def changed_by(self, setting: Setting) -> _StageSettings:
        match setting:
            case Server(endpoints, options):
                return replace(self, spec=replace(self.spec, endpoints=endpoints, options=options))
            case Fence():
                return replace(self, fence=setting)
            case FenceAfter(beginning):
                return replace(self, fence_after=beginning)
            case Unfenced(clients):
                return replace(self, unfenced=names_in(clients))
            case LineEnd(eol):
                return replace(self, eol=eol)
            case Within(microseconds):
                return replace(self, within_s=microseconds / 1_000_000)
            case Settle(microseconds):
                return replace(self, settle_s=microseconds / 1_000_000)
            case Start(microseconds):
                return replace(self, spec=replace(self.spec, start_s=microseconds / 1_000_000))
            case DefaultTransport(transport):
                return replace(self, transport=transport)
            case TimeFactor(factor):
                return replace(self, spec=replace(self.spec, time_factor=factor))
            case _:
                raise ValueError(f"{type(setting).__name__} is not a setting of a stage")

    def stage(self, target: Target) -> Stage:
        return Stage(
            target,
            self.spec,
            fence=self.fence,
            fence_after=self.fence_after,
            unfenced=self.unfenced,
            eol=self.eol.wire,
            within=self.within_s,
            settle=self.settle_s,
            rules=self.rules,
            transport=self.transport,
            trust=self.tls,
            adapter=self.adapter,
        )


def stage_for(
    target: Target,
    header: Mapping[str, str],
    play_options: PlayOptions = PlayOptions(),  # frozen
) -> Stage:
    """The stage on which a script with this header would be played; `-` in a key can be written `_`. LineError for a setting
    that says something of a script, and nothing of a stage."""
    settings = []
    for number, (key, value) in enumerate(header.items(), 1):
        setting = header_line(f"{key.replace('_', '-')}: {value}", number)
        if not isinstance(setting, (*_OF_A_STAGE, Rule)):
            known = ", ".join(f"{HEADER_KEYS[kind]}:" for kind in _OF_A_STAGE)
            raise LineError(0, f"`{key}:` is for scripts only", f"{known}, ignore: or reply:")
        settings.append(setting)
    return _StageSettings.of_script(Script(tuple(settings)), play_options).stage(target)


# --- what the script requires of the target -----------------------------------------------------------------


def missing_features(script: Script, target: Target, more: frozenset[str] = frozenset()) -> list[str]:
    """The features that the script needs and the target lacks. ScriptError for a feature that is only misspelt: such a
    script would be skipped everywhere, for ever, without anyone noticing."""
    needs = script.setting(Needs)
    if needs is None:
        return []
    missing = [feature for feature in needs.features if feature not in target.features | more]
    for feature in missing:
        near = difflib.get_close_matches(feature, _FEATURES | target.features, n=1, cutoff=0.8)
        if near and feature not in _FEATURES:
            raise _header_error(script, needs, feature, f"unknown feature {feature!r}", f"perhaps {near[0]}")
    return missing


def _with_faults(plan: Plan, target: Target) -> Target:
    """The target with fault injection, where the plan has faults."""
    raises = plan.first_raise()
    if raises is not None and "in-process" not in target.features:
        raise raises.problem(
            f"{target} does not show what its code raises",
            "a server in this process; `needs: in-process` in the header skips the script elsewhere",
        )
    part = plan.first_node_step()
    if part is not None and "nodes" not in target.features:
        raise part.problem(
            f"{target} has no nodes",
            "a target of nodes (--node NAME='CMD'); `needs: nodes` in the header skips the script elsewhere",
        )
    fault = plan.first_fault()
    if fault is None:
        return target
    faulty = target.with_faults()
    if faulty is None:
        raise fault.problem(
            f"{target} does not support fault injection",
            "a server in this process; `needs: faults` in the header skips the script elsewhere",
        )
    return faulty


def _unsupported(script: Script, unsupported: UnsupportedSpec) -> ScriptError:
    """The problem of an option or endpoint that the target does not have, at the word that requires it."""
    fast = isinstance(unsupported, UnsupportedTime)
    server = script.setting(TimeFactor) if fast else script.setting(Server)
    quoted = re.search(r"'([^']+)'", str(unsupported))
    expected = "a server command, or a server in this process" if fast else "what this target knows"
    if server is None:
        source = script.source[0] if script.source else ""
        column = len(source) - len(source.lstrip(" ")) + 1
        return ScriptError(ScriptProblem(script.file, 1, column, str(unsupported), expected, source))
    return _header_error(script, server, quoted[1] if quoted else "", str(unsupported), expected)


def _header_error(script: Script, setting: Setting, word: str, message: str, expected: str) -> ScriptError:
    home = _home(script, setting) or script
    text = home.source[setting.line - 1] if 0 < setting.line <= len(home.source) else ""
    value = text.find(": ") + 2
    found = re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w.-])", text[value:]) if word else None
    column = value + (found.start() if found else 0) + 1
    return ScriptError(ScriptProblem(home.file, setting.line, column, message, expected, text))


def _home(script: Script, setting: Setting) -> Script | None:
    """The script whose header contains the setting: this one, or one that it includes."""
    if any(item is setting for item in script.header):
        return script
    return next((home for one in script.included if (home := _home(one, setting))), None)
