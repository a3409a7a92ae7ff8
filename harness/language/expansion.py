"""Repeats, definitions and includes expanded into plain steps, each knowing where it came from.

Pure: knows no targets and no sockets.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from harness.language.located_problem import script_error
from harness.language.patterns import bind
from harness.language.step_forms import VERBS
from harness.language.steps import (
    NAME,
    PARAMETER,
    RECEIVING,
    RESERVED,
    SENDING,
    Acts,
    AnyOrder,
    Blank,
    Call,
    CallFails,
    CallTakes,
    Comment,
    Connects,
    Define,
    Ends,
    Include,
    Item,
    Receive,
    ReceivePattern,
    ReceivesNothing,
    Repeat,
    Script,
    Send,
    SendPattern,
    Step,
    Together,
)

Kind = TypeVar("Kind", covariant=True)
_WITH_CLIENT = (CallFails, CallTakes, Connects, Acts, Ends, *RECEIVING, ReceivesNothing, *SENDING)


@dataclass(frozen=True, slots=True)
class CallSite:
    """A place in a file that led here: the call of a defined step, or a round of a repeat."""

    file: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Located(Generic[Kind]):
    """A plain step, the script whose line it is, and the sites that led to it, outermost first."""

    step: Kind
    script: Script
    via: tuple[CallSite, ...] = ()

    @property
    def line(self) -> int:
        line: int = getattr(self.step, "line", 0)
        return line


@dataclass(frozen=True, slots=True)
class _Scope:
    values: Mapping[str, str]
    via: tuple[CallSite, ...] = ()
    open_calls: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Definition:
    define: Define
    script: Script


def expand(script: Script) -> Iterator[Located[Step]]:
    """Every plain step in the order in which it is played."""
    return _Expander(script).steps()


class _Expander:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.definitions: list[_Definition] = []
        self._collect(script, own=True)

    def steps(self) -> Iterator[Located[Step]]:
        for item in self.script.body:
            if not isinstance(item, (Define, Include)):
                yield from self._expand(item, self.script, _Scope({}))

    def _collect(self, script: Script, own: bool) -> None:
        for item in script.body:
            if isinstance(item, Define):
                self._check_define(item, script)
                self.definitions.append(_Definition(item, script))
            elif isinstance(item, Include):
                if item.script is None:
                    raise script_error(
                        script, item.line, 0, "this include was not read", "a script from load()", item
                    )
                self._collect(item.script, own=False)
            elif not own and not isinstance(item, (Comment, Blank)):
                raise script_error(
                    script,
                    item.line,
                    0,
                    "a step in a file that is included",
                    "definitions and headers alone",
                    item,
                )

    def _check_define(self, define: Define, script: Script) -> None:
        shape = _shape(define)
        for other in self.definitions:
            if _shape(other.define) == shape:
                where = f"{other.script.file}:{other.define.line}"
                raise script_error(
                    script, define.line, 7, f"defined already in {where}", "another verb", define
                )
        for name in define.parameters:
            for item in _within(define.body):
                # `X> LOGIN X` would send an X: a literal never means anything but itself, so it is asked for.
                if isinstance(item, (Send, Receive)) and re.search(rf"\b{name}\b", item.text):
                    column = len(item.client) + 2 + item.text.index(name)
                    arrow = ">~" if isinstance(item, Send) else "<~"
                    raise script_error(
                        script, item.line, column, f"a literal says {name} itself, not what it stands for",
                        f"{item.client}{arrow} with ${{{name}}}, or a parameter of another name", item,
                    )  # fmt: skip

    def _expand(self, item: Item, script: Script, scope: _Scope) -> Iterator[Located[Step]]:
        match item:
            case Comment() | Blank():
                return
            case Repeat(times, body, name):
                for turn in range(1, times + 1):
                    values = {**scope.values, name: str(turn)} if name else scope.values
                    call_site = CallSite(script.file, item.line, f"round {turn} of {times}")
                    inner = replace(scope, values=values, via=(*scope.via, call_site))
                    for step in body:
                        yield from self._expand(step, script, inner)
            case Call():
                yield from self._call(item, script, scope)
            case Together(body):
                sends = tuple(
                    self._bound(send, script, scope)
                    for send in body
                    if not isinstance(send, (Comment, Blank))
                )
                yield Located(replace(item, body=sends), script, scope.via)
            case AnyOrder(body, same_for):
                receives = tuple(
                    self._bound(one, script, scope) for one in body if not isinstance(one, (Comment, Blank))
                )
                names = tuple(scope.values.get(name, name) for name in same_for)
                yield Located(AnyOrder(receives, names, line=item.line), script, scope.via)
            case Define() | Include():
                raise script_error(
                    script, item.line, 0, "a definition inside a block", "it at the left margin", item
                )
            case _:
                yield Located(self._bound(item, script, scope), script, scope.via)

    def _bound(self, step: Step, script: Script, scope: _Scope):  # type: ignore[no-untyped-def]
        """The step with the scope's values in place of its parameters."""
        if not scope.values or not isinstance(step, _WITH_CLIENT):
            return step
        if isinstance(step, (SendPattern, ReceivePattern)):
            step = replace(step, pattern=bind(step.pattern, scope.values))
        if isinstance(step, Connects) and step.endpoint is not None and step.endpoint in scope.values:
            step = replace(step, endpoint=scope.values[step.endpoint])
        if step.client is not None and step.client in scope.values:
            client = scope.values[step.client]
            if not NAME.fullmatch(client) or client in RESERVED:
                where = scope.via[-1]
                raise script_error(
                    script, step.line, 0, f"{step.client} is {client!r} here ({where.file}:{where.line})",
                    "the name of a client", step,
                )  # fmt: skip
            step = replace(step, client=client)
        return step

    def _call(self, call: Call, script: Script, scope: _Scope) -> Iterator[Located[Step]]:
        sentence = " ".join(scope.values.get(word, word) for word in call.sentence.split(" "))
        found = self._definition(sentence)
        if found is None:
            raise script_error(script, call.line, 0, "this says nothing known", self._known(sentence), call)
        definition, values = found
        if id(definition.define) in scope.open_calls:
            raise script_error(script, call.line, 0, "this defined step leads back to itself", "an end", call)
        call_site = CallSite(script.file, call.line, sentence)
        inner = _Scope(values, (*scope.via, call_site), (*scope.open_calls, id(definition.define)))
        for step in definition.define.body:
            yield from self._expand(step, definition.script, inner)

    def _definition(self, sentence: str) -> tuple[_Definition, Mapping[str, str]] | None:
        fitting = [
            (definition, values)
            for definition in self.definitions
            if (values := _values(definition.define, sentence)) is not None
        ]
        # The definition that says more words itself is meant: `X says hello` before `X says TEXT`.
        return min(fitting, key=lambda one: len(one[1]), default=None)

    def _known(self, sentence: str) -> str:
        client, _, verb = sentence.partition(" ")
        near = difflib.get_close_matches(verb, VERBS, n=1)
        if near:
            return f"perhaps `{client} {near[0]}`"
        own = [f"`{' '.join(definition.define.words)}`" for definition in self.definitions]
        return "a step of the language" + (f", or one that is defined: {', '.join(own)}" if own else "")


def _shape(define: Define) -> tuple[str, ...]:
    return tuple("*" if PARAMETER.fullmatch(word) else word for word in define.words)


def _values(define: Define, sentence: str) -> Mapping[str, str] | None:
    """What the parameters stand for here. One at the very end takes all the words that are left."""
    values: dict[str, str] = {}
    rest = sentence
    for number, word in enumerate(define.words, 1):
        last = number == len(define.words)
        message, _, rest = (rest, "", "") if last else rest.partition(" ")
        if not message:
            return None
        if PARAMETER.fullmatch(word):
            values[word] = message
        elif word != message:
            return None
    return values


def _within(body: tuple[Item, ...]) -> Iterator[Item]:
    for item in body:
        yield item
        if isinstance(item, (Together, AnyOrder, Repeat)):
            yield from _within(item.body)
