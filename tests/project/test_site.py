"""The pages as a site: links between its places, lists, anchors, and the navigation."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.project.test_links import anchors, tracked

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("mkdocs_hooks")


@pytest.mark.parametrize(
    ("path", "link", "changed"),
    [
        ("README.md", "[a](docs/json.md#join)", "[a](json.md#join)"),
        ("README.md", "![a](docs/pictures/x.svg)", "![a](pictures/x.svg)"),
        ("README.md", '<img src="docs/pictures/x.svg">', '<img src="pictures/x.svg">'),
        ("docs/web.md", '<img src="pictures/x.png">', '<img src="../pictures/x.png">'),
        (
            "docs/web.md",
            '[<img src="pictures/x.png">](pictures/x.png)',
            '[<img src="../pictures/x.png">](pictures/x.png)',
        ),
        ("docs/json.md", "[a](../README.md)", "[a](index.md)"),
        ("docs/json.md", "[a](protocols.md)", "[a](protocols.md)"),
        ("docs/performance.md", "[a](../bench/README.md)", "[a](benchmark/method.md)"),
        ("bench/README.md", "[a](../docs/performance.md)", "[a](../performance.md)"),
        ("README.md", "the [licence](LICENSE.unicode)", "the licence"),
        ("README.md", "[a](#here) [b](https://example.org/c.md)", "[a](#here) [b](https://example.org/c.md)"),
        ("README.md", "```\n[a](docs/json.md)\n```", "```\n[a](docs/json.md)\n```"),
    ],
)
def test_a_link_leads_to_a_place_in_the_site(hooks: ModuleType, path: str, link: str, changed: str) -> None:
    assert hooks.with_links(link, path) == changed


def test_a_list_gets_a_blank_line_before_it_and_the_rest_stays(hooks: ModuleType) -> None:
    assert hooks.with_blank_lines("a\n- b\n  c\n- d\n\n1. e\n2. f\n") == "a\n\n- b\n  c\n- d\n\n1. e\n2. f\n"
    unchanged = "# A\n\ntext\nmore - text\n\n- b\n\n  - c\n\n```\na\n- b\n```\n"
    assert hooks.with_blank_lines(unchanged) == unchanged


def test_anchors_are_those_of_github(hooks: ModuleType) -> None:
    headings = ["One & two", "`MSG hi`, step by step", "In slash", "What falls short"]
    page = "".join(f"## {heading}\n" for heading in headings)
    assert {hooks.anchor(heading.replace("`", "")) for heading in headings} == anchors(page)


def test_the_navigation_has_every_page_once(hooks: ModuleType) -> None:
    shown = re.findall(r"^ +- .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    pages = {name for name in tracked() if name.startswith("docs/") and name.endswith(".md")}
    places = {hooks.place_of(page) for page in pages | set(hooks.PAGES)}
    assert places - set(shown) == set(), "add these to the navigation in mkdocs.yml"
    assert sorted(shown) == sorted(places), "mkdocs.yml names a page that does not exist, or one twice"
