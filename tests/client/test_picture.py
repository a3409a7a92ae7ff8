"""The pictures of the README: everything on the screens is in them, in its place, and they fit a page and a phone."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from xml.etree import ElementTree

import pyte
import pytest

from tests.client.real_server import ROOT

NAMESPACE = "{http://www.w3.org/2000/svg}"
PICTURES = ROOT / "docs" / "pictures"
# How wide a README is on GitHub, and the most for a phone: 50 columns of a terminal, in which its letters are 11 pixels high.
PAGE, PHONE = 838, 504


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
    picture = svg.rows([[svg.terminal("one & only", screen_with(data))]], "a <test>")
    return list(ElementTree.fromstring(picture).iter(f"{NAMESPACE}{element}"))


def test_neighbouring_cells_of_one_look_are_one_text_in_its_place(svg: ModuleType) -> None:
    title, plain, bold = drawn(svg, "a<b \x1b[1;31mred\x1b[0m")
    assert title.text == "one & only"
    assert (plain.text, float(plain.attrib["x"])) == ("a<b", svg.MARGIN)
    assert (bold.text, bold.attrib["fill"], bold.attrib["font-weight"]) == ("red", svg.COLOURS["red"], "bold")
    assert float(bold.attrib["x"]) == pytest.approx(svg.MARGIN + 4 * svg.CELL_WIDTH, abs=0.1)


def test_what_is_behind_a_text_is_drawn(svg: ModuleType) -> None:
    _, reverse, red = drawn(svg, "\x1b[7mab \x1b[0m\x1b[41;4mcd\x1b[0m")
    assert (reverse.attrib["fill"], red.attrib["text-decoration"]) == (svg.BACKGROUND, "underline")
    behind = [
        (box.attrib["fill"], float(box.attrib["width"])) for box in drawn(svg, "\x1b[7mab \x1b[41mc", "rect")
    ]
    assert behind[1] == (svg.FOREGROUND, pytest.approx(3 * svg.CELL_WIDTH, abs=0.1))


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
    client = (ROOT / "geventchat" / "client" / "render.py").read_text("utf-8")
    symbols = sys.modules["symbols"]
    assert {letter for letter in client if symbols.is_symbol(letter)} <= set(symbols.SYMBOLS)


def test_a_line_that_fills_its_terminal_is_an_error(svg: ModuleType) -> None:
    assert svg.terminal("nc", screen_with("x" * 19))
    with pytest.raises(svg.Wrapped, match="nc: 'xxxxxxxxxxxxxxxxxxxx' fills its line"):
        svg.terminal("nc", screen_with("x" * 20))


def test_panels_are_in_rows_of_the_same_width(svg: ModuleType) -> None:
    a, b = svg.Panel("a", 100, 50, "<g/>"), svg.Panel("b", 40, 80, "<g/>")
    c = svg.page("c", b"png", 10, 10)
    picture = ElementTree.fromstring(svg.rows([[a, b], [c]], ""))
    assert int(picture.attrib["width"]) == 140 + svg.GAP
    assert int(picture.attrib["height"]) == 90 + 2 * svg.TITLE_HEIGHT + svg.GAP
    widths = [float(one.attrib["width"]) + 1 for one in picture.iter(f"{NAMESPACE}rect")]
    assert widths == [100, 40, 140 + svg.GAP]
    (image,) = picture.iter(f"{NAMESPACE}image")
    assert image.attrib["href"] == "data:image/png;base64,cG5n"


def test_a_film_shows_each_moment_in_its_time_and_draws_what_stays_once(svg: ModuleType) -> None:
    frames = [
        svg.Panel("a", 10, height, text)
        for height, text in [(5, "<a/>\n<b/>"), (9, "<a/>"), (9, "<a/>\n<c/>")]
    ]
    film = svg.film(frames, [1, 1, 2])
    assert (film.title, film.width, film.height) == ("a", 10, 9)
    assert film.drawing.count("<a/>") == 1
    groups = dict(re.findall(r'<g class="(\S+)">\n(\S+)\n</g>', film.drawing))
    assert groups == {"f0": "<b/>", "f2": "<c/>"}
    # Without motion, the last moment is there.
    assert (
        ".f0{visibility:hidden}@keyframes f0{0.00%{visibility:visible}25.00%{visibility:hidden}}"
        in film.drawing
    )
    assert (
        ".f2{visibility:visible}@keyframes f2{0.00%{visibility:hidden}50.00%{visibility:visible}}"
        in film.drawing
    )
    assert film.drawing.count("4s step-end infinite") == 2


@pytest.mark.parametrize("script", ["session", "rooms", "failure", "web"])
def test_a_script_finds_what_it_imports(svg: ModuleType, script: str) -> None:
    pytest.importorskip("tests.browser.chromium")
    try:
        assert importlib.import_module(script).main
    finally:
        sys.modules.pop(script, None)


@pytest.mark.parametrize(
    ("name", "width"),
    [("session.svg", PAGE), ("session-narrow.svg", PHONE), ("rooms.svg", PAGE), ("failure.svg", PAGE)],
)
def test_a_picture_fits_and_needs_no_font_of_symbols(svg: ModuleType, name: str, width: int) -> None:
    text = (PICTURES / name).read_text("utf-8")
    assert int(ElementTree.fromstring(text).attrib["width"]) <= width
    assert len(text) < 300_000
    assert not any(map(sys.modules["symbols"].is_symbol, text))


@pytest.mark.parametrize("name", ["session.svg", "session-narrow.svg"])
def test_the_picture_of_the_readme_moves_and_shows_three_people_in_one_room(name: str) -> None:
    picture = ElementTree.fromstring((PICTURES / name).read_text("utf-8"))
    texts = ["".join(text.itertext()).strip() for text in picture.iter(f"{NAMESPACE}text")]
    assert {"bob: nc localhost 4000", "alice: geventchat connect localhost", "carol: a browser"} <= set(texts)
    styles = "".join(style.text or "" for style in picture.iter(f"{NAMESPACE}style"))
    assert "@keyframes" in styles
    # Without motion, the last moment is there.
    assert "prefers-reduced-motion" in styles
    # It was a real session, so no two messages have the same time.
    times = [text for text in texts if re.fullmatch(r"\[\d\d:\d\d:\d\d\]", text)]
    assert len(times) == len(set(times)) >= 5
    assert {"MSG alice one room for all", "one room for all"} <= set(texts)
