"""A script as plain turns, taken apart and put together again: definitions, repeats and includes are gone. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.language.plan import plan
from harness.language.renderer import render
from harness.language.script import parse
from harness.language.steps import (
    SENDING,
    ActionStep,
    AnyOrder,
    ExpectationStep,
    FenceLine,
    Item,
    LineEnd,
    Needs,
    Script,
    Server,
    Setting,
    Title,
    Together,
    Within,
)


@dataclass(frozen=True, slots=True)
class PlainTurn:
    """One or more things done and what is then received, as plain steps."""

    actions: tuple[ActionStep, ...]
    expectations: tuple[ExpectationStep, ...]


def flat(script: Script) -> tuple[PlainTurn, ...]:
    """The turns of the script as they are played; ScriptError where it cannot be."""
    return tuple(
        PlainTurn(
            tuple(located.step for located in turn.actions),
            tuple(located.step for located in turn.expectations),
        )
        for turn in plan(script).turns
    )


def script_of(turns: Iterable[PlainTurn], like: Script) -> Script:
    """A script of these turns, with the settings of another one: as if it had been read from a file."""
    settings: tuple[Setting | None, ...] = (
        like.setting(Title),
        like.setting(Server),
        like.setting(Needs),
        like.setting(FenceLine),
        like.setting(LineEnd),
        like.setting(Within),
    )
    header = tuple(setting for setting in settings if setting is not None)
    body: tuple[Item, ...] = tuple(step for turn in turns for step in (*turn.actions, *turn.expectations))
    return parse(render(Script(header, body)), like.file)


def actors(doing: ActionStep) -> tuple[str, ...]:
    """The clients who do this."""
    if isinstance(doing, Together):
        return tuple(step.client for step in doing.body if isinstance(step, SENDING))
    client = getattr(doing, "client", None)
    return (client,) if client else ()


def without(turns: Iterable[PlainTurn], client: str) -> tuple[PlainTurn, ...]:
    """The turns as if this client had never been there."""
    out = []
    for turn in turns:
        actions = tuple(kept for doing in turn.actions for kept in _action_without(doing, client))
        expectations = tuple(kept for step in turn.expectations for kept in _expect_without(step, client))
        if actions:
            out.append(PlainTurn(actions, expectations))
    return tuple(out)


def _action_without(doing: ActionStep, client: str) -> tuple[ActionStep, ...]:
    if isinstance(doing, Together):
        left = tuple(step for step in doing.body if getattr(step, "client", "") != client)
        return (Together(left, line=doing.line),) if left else ()
    return () if client in actors(doing) else (doing,)


def _expect_without(step: ExpectationStep, client: str) -> tuple[ExpectationStep, ...]:
    if isinstance(step, AnyOrder):
        names = tuple(name for name in step.same_for if name != client)
        left = tuple(one for one in step.body if getattr(one, "client", "") != client)
        if not left or (step.same_for and len(names) < 2):
            return ()  # what is heard instead is put in its place
        return (AnyOrder(left, names, line=step.line),)
    return () if step.client == client else (step,)
