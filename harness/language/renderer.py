"""Script -> text, so that parse(render(script)) == script. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from harness.language import fault_forms
from harness.language.escapes import render_bytes
from harness.language.forms import render_duration
from harness.language.patterns import render_pattern
from harness.language.steps import (
    Acts,
    AnyOrder,
    Blank,
    Call,
    CallFails,
    CallTakes,
    ClockJumps,
    Comment,
    Connects,
    Define,
    Ends,
    FenceLine,
    Include,
    Item,
    Layout,
    LineEnd,
    Needs,
    Receive,
    ReceiveBytes,
    ReceivePattern,
    ReceivesNothing,
    Repeat,
    Script,
    Send,
    SendBytes,
    SendPattern,
    Server,
    Setting,
    Title,
    Together,
    Wait,
    Within,
)

INDENT = "    "


def render(script: Script) -> str:
    """The script as text."""
    lines = [_setting(item) for item in script.header]
    if script.header:
        lines.append("")
    for item in script.body:
        lines.extend(render_item(item))
    return "".join(f"{line}\n" for line in lines)


def render_item(item: Item) -> Iterator[str]:
    """The lines of one step, a block with all that is in it."""
    match item:
        case Together(body):
            yield "together:"
        case AnyOrder(body, same_for):
            yield f"in any order, the same for {' '.join(same_for)}:" if same_for else "in any order:"
        case Repeat(times, body, name):
            yield f"repeat {times} as {name}:" if name else f"repeat {times}:"
        case Define(words, body):
            yield f"define {' '.join(words)}:"
        case _:
            yield _line(item)
            return
    for inner in body:
        for line in render_item(inner):
            yield INDENT + line if line else ""


def _line(item: Item) -> str:
    match item:
        case Send(client, text):
            return _after(f"{client}>", text)
        case Receive(client, text):
            return _after(f"{client}<", text)
        case SendBytes(client, data):
            return _after(f"{client}>>", render_bytes(data))
        case ReceiveBytes(client, data):
            return _after(f"{client}<<", render_bytes(data))
        case SendPattern(client, pattern):
            return _after(f"{client}>~", render_pattern(pattern))
        case ReceivePattern(client, pattern):
            return _after(f"{client}<~", render_pattern(pattern))
        case Connects(client, endpoint):
            return f"{client} connects to {endpoint}" if endpoint else f"{client} connects"
        case ReceivesNothing(client):
            return f"{client} receives nothing"
        case Acts(client, action):
            return f"{client} {action.value}"
        case Ends(client, ending):
            return f"{client} {ending.value}"
        case CallFails() | CallTakes() | ClockJumps():
            return fault_forms.render(item)
        case Wait(microseconds):
            return f"wait {render_duration(microseconds)}"
        case Call(sentence):
            return sentence
        case Include(path):
            return f"include {path}"
        case Comment() | Blank():
            return _layout(item)
        case _:
            raise TypeError(f"{item!r} is no step")


def _after(head: str, content: str) -> str:
    return f"{head} {content}" if content else head


def _layout(item: Layout) -> str:
    return f"#{item.text}" if isinstance(item, Comment) else ""


def _setting(item: Setting | Layout) -> str:
    match item:
        case Title(text):
            return f"title: {text}"
        case Server(endpoints, options):
            return " ".join(("server:", *endpoints, *(f"{key}={value}" for key, value in options.items())))
        case Needs(features):
            return " ".join(("needs:", *features))
        case FenceLine(question, answers):
            return f"fence: {question} -> {' | '.join(answers)}"
        case LineEnd(eol):
            return f"eol: {eol.value}"
        case Within(microseconds):
            return f"within: {render_duration(microseconds)}"
        case _:
            return _layout(item)
