"""docs/json.md is true: its examples are played, and it describes every request, event and code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from geventchat.chat.commands import ParseError
from geventchat.chat.events import NoticeReason, Rejection
from geventchat.dialects.json2 import notice_code
from geventchat.dialects.words import error_word
from harness import InProcess, parse, play
from harness.report.styled_text import plain
from harness.report.text import report
from tests.app import serve

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "json.md").read_text(encoding="utf-8")
SCHEMA: dict[str, Any] = json.loads((DOCS / "json-v2.schema.json").read_text(encoding="utf-8"))
EXAMPLES = re.findall(r"^```chat\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def types_of(group: str) -> set[str]:
    """The types of the requests, answers or events in the schema."""
    definitions = SCHEMA["$defs"]
    names = [one["$ref"].removeprefix("#/$defs/") for one in definitions[group]["oneOf"]]
    return {definitions[name]["properties"]["type"]["const"] for name in names}


def script(example: str) -> str:
    """The example as a transcript: clients that do not join in it have joined before."""
    steps = ""
    others: list[str] = []
    for name in ("bob", "alice"):
        if not re.search(rf'^{name}> {{"type": "join"', example, re.MULTILINE):
            steps += f'{name}> {{"type": "join", "v": 2, "username": "{name}"}}\n'
            steps += f'{name}<~ {{"type": "welcome", ${{_}}}}\n'
            steps += "".join([f'{other}<~ {{"type": "user_joined", ${{_}}}}\n' for other in others])
            others.append(name)
    return f"title: an example\nserver: json\n\n{steps}{example}"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.partition("\n")[0][:80])
def test_an_example_is_what_happens(example: str):
    verdict = play(parse(script(example), "json.md"), InProcess(serve))
    assert verdict.passed, plain(report(verdict))


def test_every_request_has_a_section_with_an_example():
    requests = PAGE.partition("\n## Requests\n")[2].partition("\n## Events\n")[0]
    sections = re.split(r"^### ([\w, ]+)$", requests, flags=re.MULTILINE)[1:]
    described = [
        (name, section)
        for title, section in zip(sections[::2], sections[1::2], strict=True)
        for name in title.split(", ")
    ]
    assert sorted(name for name, _ in described) == sorted(types_of("request"))
    for name, section in described:
        examples = "".join(re.findall(r"^```chat\n(.*?)^```$", section, re.DOTALL | re.MULTILINE))
        assert re.search(rf'^\w+> {{"type": "{name}"', examples, re.MULTILINE), name


def test_every_event_is_in_the_table_with_its_fields():
    events = PAGE.partition("\n## Events\n")[2].partition("\n## Errors\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (?!what).* \| (.*) \|$", events, re.MULTILINE))
    assert set(rows) == types_of("event")
    for definition in SCHEMA["$defs"].values():
        kind = definition.get("properties", {}).get("type", {}).get("const")
        fields = [key for key in definition.get("properties", ()) if key != "type"]
        if kind in rows and "timestamp_ms" in fields and "deleted" not in fields:
            assert re.findall(r"`(\w+)`", rows[kind]) == fields


def test_every_code_is_explained():
    errors = PAGE.partition("\n## Errors\n")[2].partition("\n## Limits\n")[0]
    codes = {error_word(reason) for reason in (*Rejection, *ParseError)} | set(map(notice_code, NoticeReason))
    assert SCHEMA["$defs"]["error"]["properties"]["code"]["enum"] == sorted(codes)
    assert [code for code in sorted(codes) if f"`{code}`" not in errors] == []
