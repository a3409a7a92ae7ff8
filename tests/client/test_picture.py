"""The pictures of the README: everything on the screens is in them, in its place, and they fit a page and a phone."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from xml.etree import ElementTree

import pyte
import pytest

from tests.client.real_server import ROOT

NAMESPACE = "{http://www.w3.org/2000/svg}"
PICTURES = ROOT / "docs" / "pictures"
# How wide a README is on GitHub, and the width of a phone on which a narrow picture is about as wide as its screen.
PAGE, PHONE = 838, 480


@pytest.fixture
def svg(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(PICTURES))
    yield importlib.import_module("svg")
    for name in ("svg", "symbols"):
        sys.modules.pop(name, None)


def screen_with(data: str) -> pyte.Screen:
    screen = pyte.Screen(20, 3)
    pyte.Stream(screen).feed(data)
    return screen


def drawn(svg: ModuleType, data: str, element: str = "text") -> list[ElementTree.Element]:
    picture = svg.side_by_side([svg.terminal("one & only", screen_with(data))], "a <test>")
    return list(ElementTree.fromstring(picture).iter(f"{NAMESPACE}{element}"))


def test_neighbouring_cells_of_one_look_are_one_text_in_its_place(svg: ModuleType) -> None:
    title, plain, bold = drawn(svg, "a<b \x1b[1;31mred\x1b[0m")
    assert title.text == "one & only"
    assert (plain.text, float(plain.attrib["x"])) == ("a<b", svg.MARGIN)
    assert (bold.text, bold.attrib["fill"], bold.attrib["font-weight"]) == ("red", svg.COLOURS["red"], "bold")
    assert float(bold.attrib["x"]) == pytest.approx(svg.MARGIN + 4 * svg.CELL_WIDTH, abs=0.1)


def test_a_wide_character_takes_two_cells(svg: ModuleType) -> None:
    _, wide, after = drawn(svg, "漢hi")
    assert (wide.text, after.text) == ("漢", "hi")
    assert float(after.attrib["x"]) == pytest.approx(svg.MARGIN + 2 * svg.CELL_WIDTH, abs=0.1)


def test_a_symbol_is_drawn_and_not_left_to_a_font(svg: ModuleType) -> None:
    _, after = drawn(svg, "🟢 bob")
    assert after.text == " bob"
    (circle,) = drawn(svg, "🟢 bob", "circle")
    assert circle.attrib["fill"] == "#5fb760"


def test_a_symbol_without_a_drawing_is_an_error(svg: ModuleType) -> None:
    with pytest.raises(
        sys.modules["symbols"].NotDrawn, match=r"'🦆' \(U\+1F986\) is not in docs/pictures/symbols.py"
    ):
        drawn(svg, "🦆")


def test_every_symbol_of_the_client_has_a_drawing(svg: ModuleType) -> None:
    client = "".join(path.read_text("utf-8") for path in (ROOT / "geventchat" / "client").glob("*.py"))
    symbols = sys.modules["symbols"]
    assert {letter for letter in client if symbols.is_symbol(letter)} <= set(symbols.SYMBOLS)


def test_a_line_that_fills_its_terminal_is_an_error(svg: ModuleType) -> None:
    assert svg.terminal("nc", screen_with("x" * 19))
    with pytest.raises(svg.Wrapped, match="nc: 'xxxxxxxxxxxxxxxxxxxx' fills its line"):
        svg.terminal("nc", screen_with("x" * 20))


def test_panels_stand_side_by_side_or_one_above_the_other(svg: ModuleType) -> None:
    panels = [svg.Panel("a", 100, 50, "<g/>"), svg.Panel("b", 40, 80, "<g/>"), svg.Panel("c", 10, 10, "<g/>")]
    wide, narrow = (ElementTree.fromstring(draw(panels, "")) for draw in (svg.side_by_side, svg.stacked))
    assert int(wide.attrib["width"]) == 150 + 2 * svg.GAP
    assert int(wide.attrib["height"]) == 80 + svg.TITLE_HEIGHT
    assert int(narrow.attrib["width"]) == 100
    assert int(narrow.attrib["height"]) == 140 + 3 * svg.TITLE_HEIGHT + 2 * svg.GAP


@pytest.mark.parametrize(
    ("name", "width"), [("session.svg", PAGE), ("session-narrow.svg", PHONE), ("failure.svg", PAGE)]
)
def test_a_picture_fits_and_needs_no_font_of_symbols(svg: ModuleType, name: str, width: int) -> None:
    text = (PICTURES / name).read_text("utf-8")
    assert int(ElementTree.fromstring(text).attrib["width"]) <= width
    assert not any(map(sys.modules["symbols"].is_symbol, text))
