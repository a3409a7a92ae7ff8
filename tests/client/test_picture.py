"""The picture of a session: everything on the screens is in it, in its place."""

from __future__ import annotations

import importlib
from types import ModuleType
from xml.etree import ElementTree

import pyte
import pytest

from tests.client.real_server import ROOT

NAMESPACE = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def svg(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "pictures"))
    return importlib.import_module("svg")


def drawn(svg: ModuleType, data: str) -> list[ElementTree.Element]:
    screen = pyte.Screen(20, 2)
    pyte.Stream(screen).feed(data)
    picture = svg.draw([svg.Window("one & only", screen)], "a <test>")
    return list(ElementTree.fromstring(picture).iter(f"{NAMESPACE}text"))


def test_neighbouring_cells_of_one_look_are_one_text_in_its_place(svg: ModuleType) -> None:
    title, plain, bold = drawn(svg, "a<b \x1b[1;31mred\x1b[0m")
    assert title.text == "one & only"
    assert (plain.text, float(plain.attrib["x"])) == ("a<b", svg.MARGIN)
    assert (bold.text, bold.attrib["fill"], bold.attrib["font-weight"]) == ("red", svg.COLOURS["red"], "bold")
    assert float(bold.attrib["x"]) == pytest.approx(svg.MARGIN + 4 * svg.CELL_WIDTH, abs=0.1)


def test_a_wide_character_takes_two_cells(svg: ModuleType) -> None:
    _, wide, after = drawn(svg, "👋hi")
    assert (wide.text, after.text) == ("👋", "hi")
    assert float(after.attrib["x"]) == pytest.approx(svg.MARGIN + 2 * svg.CELL_WIDTH, abs=0.1)
