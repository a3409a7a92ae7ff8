"""One line of a transcript -> what it says. Pure; knows nothing of the lines around it (see parsing)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from harness.language import fault_forms
from harness.language.forms import header_line, parse_duration
from harness.language.message_forms import check_client, talk
from harness.language.problems import LineError
from harness.language.steps import (
    PARAMETER,
    Acts,
    Call,
    CallFails,
    CallTakes,
    ClockJumps,
    ConnectionAction,
    Connects,
    Ending,
    Ends,
    Include,
    Receive,
    ReceiveBytes,
    ReceivePattern,
    ReceivesNothing,
    Send,
    SendBytes,
    SendPattern,
    Wait,
)

__all__ = [
    "AnyOrderHead",
    "DefineHead",
    "LineError",
    "RepeatHead",
    "Sentence",
    "TogetherHead",
    "header_line",
    "sentence",
]

_REPEAT = re.compile(r"repeat (?P<times>[0-9]+)(?: as (?P<name>[A-Za-z][A-Za-z0-9_]*))?:")
_ACTIONS = {action.value: action for action in ConnectionAction}
_ENDINGS = {ending.value: ending for ending in Ending}
VERBS = ("connects", "connects to ENDPOINT", "receives nothing", *_ENDINGS, *_ACTIONS)
_EXPECTED = (
    "a> text, a< text, a>> bytes, a<< bytes, a>~ pattern, a<~ pattern, "
    + ", ".join(f"a {verb}" for verb in VERBS)
    + ", wait 60s, together:, in any order:, repeat 3:, define …:, include FILE, or a defined step"
)


@dataclass(frozen=True, slots=True)
class TogetherHead:
    pass


@dataclass(frozen=True, slots=True)
class AnyOrderHead:
    same_for: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RepeatHead:
    times: int
    name: str | None


@dataclass(frozen=True, slots=True)
class DefineHead:
    words: tuple[str, ...]


_Simple = (
    Call
    | CallFails
    | CallTakes
    | ClockJumps
    | Connects
    | Acts
    | Ends
    | Include
    | Receive
    | ReceiveBytes
    | ReceivePattern
    | ReceivesNothing
    | Send
    | SendBytes
    | SendPattern
    | Wait
)
Sentence = _Simple | TogetherHead | AnyOrderHead | RepeatHead | DefineHead


def sentence(text: str, number: int) -> Sentence:
    """What this line (without its indentation) says; Wrong when it says nothing known."""
    message = talk(text, number)
    if message is not None:
        return message
    _no_trailing_space(text)
    if text == "together:":
        return TogetherHead()
    first = text.split(" ", 1)[0]
    reader = _BY_FIRST_WORD.get(first.rstrip(":"))
    return reader(text, number) if reader is not None else _about_client(text, number)


def is_step(text: str) -> bool:
    """True when the language itself gives this sentence a meaning, so that none can be defined for it."""
    try:
        return not isinstance(sentence(text, 0), Call)
    except LineError:
        return True


def _no_trailing_space(text: str) -> None:
    if text != text.rstrip():
        raise LineError(len(text.rstrip()), "white space at the end of the line", "none")


# --- sentences that begin with a word of the language ---------------------------------------------


def _wait(text: str, number: int) -> Sentence:
    return Wait(
        parse_duration(text.removeprefix("wait").lstrip(" "), text.find(" ") + 1 or len(text)), line=number
    )


def _in_any_order(text: str, number: int) -> Sentence:
    if text == "in any order:":
        return AnyOrderHead(())
    start = "in any order, the same for "
    if not (text.startswith(start) and text.endswith(":")):
        raise LineError(0, "not quite `in any order`", "in any order:   or   in any order, the same for b c:")
    names = tuple(text[len(start) : -1].split())
    if len(set(names)) < 2 or len(set(names)) != len(names):
        raise LineError(
            len(start), "agreement needs two different clients or more", "in any order, the same for b c:"
        )
    for name in names:
        check_client(name, text.index(name, len(start)))
    return AnyOrderHead(names)


def _repeat(text: str, number: int) -> Sentence:
    found = _REPEAT.fullmatch(text)
    if found is None:
        raise LineError(0, "not quite `repeat`", "repeat 3:   or   repeat 3 as n:")
    if int(found["times"]) < 1:
        raise LineError(7, "repeated not even once", "a number from 1")
    return RepeatHead(int(found["times"]), found["name"])


def _define(text: str, number: int) -> Sentence:
    if not text.endswith(":"):
        raise LineError(len(text), "the head of a define has no end", "define X logs in:")
    words = tuple(text[:-1].split()[1:])
    if len(words) < 2 or all(PARAMETER.fullmatch(word) for word in words):
        raise LineError(
            len(text) - 1, "nothing is defined here", "who, and a verb of one's own: define X logs in:"
        )
    parameters = [word for word in words if PARAMETER.fullmatch(word)]
    for word in parameters:
        if parameters.count(word) > 1:
            raise LineError(text.rindex(word), f"{word} twice in one head", "each parameter once")
    if is_step(" ".join("x" if word in parameters else word for word in words)):
        raise LineError(7, "this is a step of the language already", "a verb of one's own: define X logs in:")
    return DefineHead(words)


def _include(text: str, number: int) -> Sentence:
    path = text.removeprefix("include").strip(" ")
    if not path:
        raise LineError(len(text), "nothing is included", "include FILE, named from this script's folder")
    return Include(path, line=number)


_BY_FIRST_WORD: dict[str, Callable[[str, int], Sentence]] = {
    "wait": _wait,
    "in": _in_any_order,
    "repeat": _repeat,
    "define": _define,
    "include": _include,
}


# --- sentences about a client ---------------------------------------------------------------------


def _about_client(text: str, number: int) -> Sentence:
    fault = fault_forms.read(text, number)
    if fault is not None:
        return fault
    client, _, verb = text.partition(" ")
    if text.rstrip(":") in ("together", "in any order"):
        raise LineError(len(text), "no colon", f"{text.rstrip(':')}:")
    if not verb or text.endswith(":"):
        raise LineError(0, "this says nothing known", _EXPECTED)
    if verb == "connects":
        made: Sentence = Connects(client, line=number)
    elif verb.startswith("connects to ") and " " not in verb[12:]:
        made = Connects(client, verb[12:], line=number)
    elif verb == "receives nothing":
        made = ReceivesNothing(client, line=number)
    elif verb in _ACTIONS:
        made = Acts(client, _ACTIONS[verb], line=number)
    elif verb in _ENDINGS:
        made = Ends(client, _ENDINGS[verb], line=number)
    else:
        return Call(text, line=number)
    check_client(client, 0)
    return made
