"""Script -> plain steps: repeats unrolled, definitions and includes substituted. Pure.

- A range of clients, `c1..c50`, means each of them in turn. A script has at most `MOST_STEPS` steps.
- Every step knows its file and line, and the calls and repeats that led to it.
- A definition sees only its own parameters; a repeat adds its counter to the enclosing scope. A parameter is a word, `X`, or
  `${X}`; a counter is `${n}` alone.
- If several definitions match a sentence, the one with the most words besides its parameters wins: `X says hello to WHO`
  before `X says TEXT`. A tie is an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from harness.language.forms import KNOWN, MOST_DIGITS, VERBS, are_different, check_client, write_line
from harness.language.patterns import bind
from harness.language.problems import LineError, ScriptError, ScriptProblem
from harness.language.steps import (
    COUNTER,
    PARAMETER,
    AnyOrder,
    Blank,
    Block,
    Call,
    Comment,
    ConnectsToPort,
    Define,
    Either,
    Include,
    InTime,
    Item,
    OneOf,
    Or,
    PlainStep,
    Receive,
    ReceiveBody,
    Repeat,
    Script,
    Send,
    Together,
    client_names,
    names_in,
)

StepType = TypeVar("StepType", covariant=True)


@dataclass(frozen=True, slots=True)
class CallSite:
    """A place in a file that led to a step: the call of a defined step, or one round of a repeat."""

    file: str
    line: int
    text: str
    is_call: bool = True
    """Otherwise it is a round of a repeat."""


@dataclass(frozen=True, slots=True)
class Located(Generic[StepType]):
    """A plain step, the script in which it stands, and the call sites that led to it, outermost first."""

    step: StepType
    script: Script
    via: tuple[CallSite, ...] = ()

    @property
    def line(self) -> int:
        line: int = getattr(self.step, "line", 0)
        return line

    def problem(self, message: str, expected: str, column: int = 0, step: Item | None = None) -> ScriptError:
        """An error about this step, or about one inside it. `column` counts from 0 within the step's text."""
        line = (step.line if step is not None else 0) or self.line
        if 0 < line <= len(self.script.source):
            text = self.script.source[line - 1]
            column += len(text) - len(text.lstrip(" "))
        else:
            text = write_line(step or self.step)  # type: ignore[arg-type]
        return ScriptError(ScriptProblem(self.script.file, line, column + 1, message, expected, text))


@dataclass(frozen=True, slots=True)
class Expansion:
    """A script and its plain steps, in the order in which they are played."""

    script: Script
    steps: tuple[Located[PlainStep], ...]


MOST_STEPS = 100_000


def expand(script: Script) -> Expansion:
    """Expand the script; ScriptError for an unknown step or a definition that cannot be used."""
    # A file that is included by several ways has its definitions once.
    definitions = tuple({id(one[0]): one for one in _definitions(script, own=True)}.values())
    for number, (define, home) in enumerate(definitions):
        _check_definition(Located(define, home), definitions[:number])
    expander = _Expander(definitions)
    steps: list[Located[PlainStep]] = []
    for item in script.body:
        if not isinstance(item, (Define, Include)):
            for located in expander.expand(item, script, _Scope({}, {})):
                steps.append(located)
                if len(steps) > MOST_STEPS:
                    raise Located(item, script).problem(
                        f"the script has more than {MOST_STEPS} steps with this",
                        "fewer rounds, or fewer clients",
                    )
    return Expansion(script, tuple(steps))


# --- definitions --------------------------------------------------------------------------------------------

_Definition = tuple[Define, Script]


def _definitions(script: Script, own: bool) -> Iterator[_Definition]:
    for item in script.body:
        if isinstance(item, Define):
            yield item, script
        elif isinstance(item, Include):
            if item.script is None:
                raise Located(item, script).problem("this include has not been read", "a script from load()")
            yield from _definitions(item.script, own=False)
        elif not own and not isinstance(item, (Comment, Blank)):
            raise Located(item, script).problem("a step in an included file", "only definitions and headers")


def _check_definition(located: Located[Define], before: tuple[_Definition, ...]) -> None:
    define = located.step
    for other, home in before:
        if _shape(other) == _shape(define):
            raise located.problem(f"already defined in {home.file}:{other.line}", "another verb", 7)
    for name in define.parameters:
        for item in _within(define.body):
            said = item.receive if isinstance(item, OneOf) else item
            # `X> LOGIN X` would send an X: a literal has no special meaning, so this is almost certainly a mistake.
            if isinstance(said, (Send, Receive)) and re.search(rf"\b{name}\b", said.text):
                arrow = ">~" if isinstance(said, Send) else "<~"
                raise located.problem(
                    f"a literal means {name} itself, not its value",
                    f"{said.client}{arrow} with ${{{name}}}, or a parameter of another name",
                    len(write_line(item)) - len(said.text) + said.text.index(name),
                    item,
                )


def _shape(define: Define) -> tuple[str, ...]:
    return tuple("*" if PARAMETER.fullmatch(word) else word for word in define.words)


def _within(body: tuple[Item, ...]) -> Iterator[Item]:
    for item in body:
        yield item
        if isinstance(item, Block):
            yield from _within(item.body)


def _arguments(define: Define, sentence: str) -> Mapping[str, str] | None:
    """The parameters' values in this sentence. A parameter at the very end takes all the words that are left."""
    values: dict[str, str] = {}
    rest = sentence
    for number, word in enumerate(define.words, 1):
        last = number == len(define.words)
        given, _, rest = (rest, "", "") if last else rest.partition(" ")
        if not given:
            return None
        if PARAMETER.fullmatch(word):
            values[word] = given
        elif word != given:
            return None
    return values


def _own_words(fitting: tuple[Define, Script, Mapping[str, str]]) -> int:
    define, _, values = fitting
    return len(define.words) - len(values)


# --- expansion ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scope:
    parameters: Mapping[str, str]
    values: Mapping[str, str]
    """Of parameters and counters."""
    via: tuple[CallSite, ...] = ()
    open_calls: tuple[int, ...] = ()


class _Expander:
    def __init__(self, definitions: tuple[_Definition, ...]) -> None:
        self._definitions = definitions

    def expand(self, item: Item, script: Script, scope: _Scope) -> Iterator[Located[PlainStep]]:
        match item:
            case Comment() | Blank():
                return
            case Repeat(times, body, name):
                for number in range(1, times + 1):
                    values = {**scope.values, name: str(number)} if name else scope.values
                    site = CallSite(script.file, item.line, f"round {number} of {times}", is_call=False)
                    inner = replace(scope, values=values, via=(*scope.via, site))
                    for step in body:
                        yield from self.expand(step, script, inner)
            case Call():
                yield from self._call(item, script, scope)
            case Together(body):
                sends = _each_bound(body, script, scope)
                yield Located(replace(item, body=tuple(sends)), script, scope.via)
            case Either(body) | Or(body) | InTime(_, body):
                ways = _each_bound(body, script, scope)
                yield Located(replace(item, body=tuple(ways)), script, scope.via)
            case OneOf(clients, receive):
                ones = _each_bound([replace(receive, client=client) for client in clients], script, scope)
                _check_different([_substituted(one, scope) for one in clients], "a choice", item, script)
                for at, way in enumerate(ones):
                    kind = Or if at else Either
                    yield Located(kind((way,), line=item.line), script, scope.via)
            case AnyOrder(body, same_for):
                receives = _each_bound(body, script, scope)
                agreeing = [_client(name, item, script, scope) for name in same_for]
                if agreeing:
                    _check_agreement(agreeing, receives, item, script)
                yield Located(
                    AnyOrder(tuple(receives), names_in(agreeing), line=item.line), script, scope.via
                )
            case Define() | Include():
                raise Located(item, script).problem(
                    "a definition inside a block", "definitions at the left margin"
                )
            case _:
                for step in _each_bound([item], script, scope):
                    yield Located(step, script, scope.via)

    def _call(self, call: Call, script: Script, scope: _Scope) -> Iterator[Located[PlainStep]]:
        subject, *rest = (_substituted(word, scope) for word in call.sentence.split(" "))
        try:
            subjects = client_names(subject)
        except ValueError:
            subjects = (subject,)  # in a definition it can be a word of any kind
        for one in subjects:
            yield from self._call_one(call, " ".join((one, *rest)), script, scope)

    def _call_one(
        self, call: Call, sentence: str, script: Script, scope: _Scope
    ) -> Iterator[Located[PlainStep]]:
        fitting = [
            (define, home, values)
            for define, home in self._definitions
            if (values := _arguments(define, sentence)) is not None
        ]
        if not fitting:
            raise Located(call, script).problem("unrecognised step", self._known(sentence))
        most = max(map(_own_words, fitting))
        best = [one for one in fitting if _own_words(one) == most]
        if len(best) > 1:
            both = " and ".join(
                f"`{' '.join(define.words)}` ({home.file}:{define.line})" for define, home, _ in best
            )
            raise Located(call, script).problem(
                f"this can be {both}", "one definition with more literal words than the others"
            )
        define, home, values = best[0]
        if id(define) in scope.open_calls:
            raise Located(call, script).problem("this step calls itself", "a definition that ends")
        site = CallSite(script.file, call.line, sentence)
        inner = _Scope(values, values, (*scope.via, site), (*scope.open_calls, id(define)))
        for step in define.body:
            yield from self.expand(step, home, inner)

    def _known(self, sentence: str) -> str:
        client, _, verb = sentence.partition(" ")
        said = re.match(r"(sends|says|receives|gets):? (.+)", verb)
        if said is not None:
            arrow = ">" if said[1] in ("sends", "says") else "<"
            return f"perhaps `{client}{arrow} {said[2]}`"
        near = difflib.get_close_matches(verb, VERBS, n=2)
        # A second one only where it is about as likely.
        close = [_alike(verb, one) for one in near]
        if near:
            likely = [one for one, alike in zip(near, close, strict=True) if alike > close[0] - _AS_LIKELY]
            return f"perhaps {' or '.join(f'`{client} {one}`' for one in likely)}"
        own = [f"`{' '.join(define.words)}`" for define, _ in self._definitions]
        if own:
            return f"a step of the language, or a defined one: {', '.join(own)}"
        return KNOWN


_AS_LIKELY = 0.1


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _check_different(clients: Sequence[str], why: str, block: Item, script: Script) -> None:
    if not are_different(names_in(clients)):
        raise Located(block, script).problem(
            f"{why} needs at least two different clients", f"other names than {' '.join(clients)}"
        )


def _check_agreement(clients: Sequence[str], receives: Iterable[Any], block: Item, script: Script) -> None:
    _check_different(clients, "agreement", block, script)
    agreeing = frozenset(names_in(clients))
    for one in receives:
        if one.client and one.client not in agreeing:
            raise Located(block, script).problem(
                f"{one.client} is not among the clients that agree", " or ".join(clients), step=one
            )


def _each_bound(body: Iterable[Any], script: Script, scope: _Scope) -> list[Any]:
    """The steps with the scope's values in place of its parameters, one for each client of a range."""
    steps = (_bound(one, script, scope) for one in body if not isinstance(one, (Comment, Blank)))
    return [each for step in steps for each in _spread(step)]


def _spread(step: Any) -> list[Any]:
    client = getattr(step, "client", None)
    if not client or ".." not in client:
        return [step]
    return [replace(step, client=name) for name in client_names(client)]


def _substituted(word: str, scope: _Scope) -> str:
    """The value of a parameter; any other word with the values of the scope in place of what stands in it as `${n}`."""
    if word in scope.parameters:
        return scope.parameters[word]
    return COUNTER.sub(lambda found: scope.values.get(found[1], found[0]), word)


def _number(step: Any, value: int | str, script: Script, scope: _Scope) -> int | str:
    """The value of a parameter or counter as a number; a captured one stays a name."""
    known = scope.values.get(value) if isinstance(value, str) else None
    if known is None:
        return value
    if not (known.isascii() and known.isdigit() and len(known) <= MOST_DIGITS):
        raise Located(step, script).problem(
            f"${{{value}}} is {known!r} here", "a number of at most nine digits"
        )
    return int(known)


def _bound(step: Any, script: Script, scope: _Scope) -> Any:
    """The step with the scope's values in place of its parameters. They are found by the names of attributes, so that
    no list has to name every kind of step: `client`, `endpoint` and `pattern` mean the same in all of them."""
    if scope.values and hasattr(step, "pattern"):
        step = replace(step, pattern=bind(step.pattern, scope.values))
    if isinstance(step, ReceiveBody):
        step = replace(step, size=_number(step, step.size, script, scope))
    if isinstance(step, ConnectsToPort):
        terms = (replace(one, value=_number(step, one.value, script, scope)) for one in step.port)
        step = replace(step, port=tuple(terms))
    if getattr(step, "endpoint", None) in scope.parameters:
        step = replace(step, endpoint=scope.parameters[step.endpoint])
    if getattr(step, "node", None) in scope.parameters:
        step = replace(step, node=scope.parameters[step.node])
    if not getattr(step, "client", None):
        return step
    client = _client(step.client, step, script, scope)
    return step if client == step.client else replace(step, client=client)


def _client(name: str, step: Any, script: Script, scope: _Scope) -> str:
    """The client, or the range of clients, that a step calls this."""
    client = _substituted(name, scope)
    unknown = COUNTER.search(client)
    if unknown is not None:
        raise Located(step, script).problem(
            f"{unknown[0]} is not a counter here", f"`repeat 3 as {unknown[1]}:` around it"
        )
    if client != name:
        try:
            check_client(client)
        except LineError:
            where = scope.via[-1]
            raise Located(step, script).problem(
                f"{name} is {client!r} here ({where.file}:{where.line})", "the name of a client"
            ) from None
    return client
