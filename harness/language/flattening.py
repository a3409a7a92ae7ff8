"""A script as plain turns, taken apart and put together again: definitions, repeats and includes are gone. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.language.plan import plan
from harness.language.rendering import render
from harness.language.script import parse
from harness.language.steps import (
    SENDING,
    AnyOrder,
    Doing,
    Expecting,
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

    doings: tuple[Doing, ...]
    expects: tuple[Expecting, ...]


def flat(script: Script) -> tuple[PlainTurn, ...]:
    """The turns of the script as they are played; ScriptError where it cannot be."""
    return tuple(
        PlainTurn(tuple(placed.step for placed in turn.doings), tuple(placed.step for placed in turn.expects))
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
    body: tuple[Item, ...] = tuple(step for turn in turns for step in (*turn.doings, *turn.expects))
    return parse(render(Script(header, body)), like.file)


def doers(doing: Doing) -> tuple[str, ...]:
    """The clients who do this."""
    if isinstance(doing, Together):
        return tuple(step.client for step in doing.body if isinstance(step, SENDING))
    client = getattr(doing, "client", None)
    return (client,) if client else ()


def without(turns: Iterable[PlainTurn], client: str) -> tuple[PlainTurn, ...]:
    """The turns as if this client had never been there."""
    out = []
    for turn in turns:
        doings = tuple(kept for doing in turn.doings for kept in _doing_without(doing, client))
        expects = tuple(kept for step in turn.expects for kept in _expect_without(step, client))
        if doings:
            out.append(PlainTurn(doings, expects))
    return tuple(out)


def _doing_without(doing: Doing, client: str) -> tuple[Doing, ...]:
    if isinstance(doing, Together):
        left = tuple(step for step in doing.body if getattr(step, "client", "") != client)
        return (Together(left, line=doing.line),) if left else ()
    return () if client in doers(doing) else (doing,)


def _expect_without(step: Expecting, client: str) -> tuple[Expecting, ...]:
    if isinstance(step, AnyOrder):
        names = tuple(name for name in step.same_for if name != client)
        left = tuple(one for one in step.body if getattr(one, "client", "") != client)
        if not left or (step.same_for and len(names) < 2):
            return ()  # what is heard instead is put in its place
        return (AnyOrder(left, names, line=step.line),)
    return () if step.client == client else (step,)
