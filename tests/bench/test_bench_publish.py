"""The figures in README.md and in docs: what they say, and where they stand."""

from __future__ import annotations

import json

import pytest
from made_up_results import idle, results, traffic

from bench import tables
from bench.metrics import Results, Run
from bench.publish import FOLDER, PAGES, NotPublished, blocks, conditions, filled, sentence

HEAD = {
    "date": "2020-02-02",
    "kind": "full",
    "processor": "Abacus 3",
    "cores": "2",
    "system": "Linux 6.1",
    "python": "3.11.7",
    "took": "31.5 minutes",
    "disturbed": "other work disturbed 0 of 428 runs",
}
FOUND = results(
    {
        ("saturated-100", "geventchat"): traffic(0.07),
        ("saturated-100", "asyncio"): traffic(7.8),
        ("saturated-100", "redis"): traffic(0.24),
        ("one-at-a-time", "geventchat"): traffic(2.0),
        ("one-at-a-time", "uvloop"): traffic(1.0),
        ("idle-8000", "geventchat"): idle(),
    }
)


def test_the_sentence_has_rounded_figures() -> None:
    assert sentence(FOUND) == (
        "In a chat of 100 people, geventchat delivers 14 million messages per second of one core: 110 times as many as the same"
        " chat on plain asyncio, and 3.4 times as many as Redis.\n"
    )


def test_a_peer_without_a_result_is_not_in_the_sentence() -> None:
    found = results(
        {
            ("saturated-100", "geventchat"): traffic(0.07),
            ("saturated-100", "asyncio"): traffic(7.8),
            ("saturated-100", "redis"): "gap: lost",
        }
    )
    assert sentence(found).endswith("110 times as many as the same chat on plain asyncio.\n")


def test_the_conditions_name_the_machine_and_its_other_work() -> None:
    machine = "(2 cores, Abacus 3, Linux 6.1, Python 3.11)"
    assert conditions(HEAD) == (
        f"Measured on 2020-02-02 in 31.5 minutes {machine}; other work disturbed 0 of 428 runs.\n"
    )


def test_a_page_is_filled_between_its_comments() -> None:
    page = "a\n<!-- benchmark: sentence -->\nold\nold\n<!-- end of sentence -->\nb\n"
    once = filled(page, {"sentence": "new\n"})
    assert once == "a\n<!-- benchmark: sentence -->\nnew\n<!-- end of sentence -->\nb\n"
    assert filled(once, {"sentence": "new\n"}) == once


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("nothing\n", "a block has no end, or there is none"),
        ("<!-- benchmark: sentence -->\n", "a block has no end"),
        ("<!-- benchmark: sentence -->\n<!-- end of table -->\n", "a block has no end"),
        ("<!-- benchmark: odd -->\n<!-- end of odd -->\n", "unknown block 'odd'; known: sentence"),
    ],
)
def test_a_page_with_a_broken_block_is_not_written(page: str, message: str) -> None:
    with pytest.raises(NotPublished, match=message):
        filled(page, {"sentence": "new\n"})


def test_requirements_that_are_not_met_are_listed() -> None:
    text = blocks(FOUND, HEAD)["unmet"]
    assert text.splitlines()[1].startswith("Requirements: 4 met, 2 not met, ")
    assert "CPU per delivery: at most 1.25 x uvloop |" in text
    assert "memory per idle client" not in text


def test_the_pages_of_this_repository_can_be_filled() -> None:
    content = blocks(FOUND, HEAD)
    assert all(
        "14 million" in filled(page.read_text("utf-8"), content) or page.name != "README.md" for page in PAGES
    )


def test_the_published_pages_show_what_was_measured() -> None:
    """The figures in README.md and docs/performance.md, and the page of all results, are those of docs/benchmark/raw.json."""
    raw = json.loads((FOLDER / "raw.json").read_text("utf-8"))
    found = Results(Run(**run) for run in raw["runs"])
    content = blocks(found, raw["head"])
    for page in PAGES:
        text = page.read_text("utf-8")
        assert filled(text, content) == text, page.name
    table = tables.headline(found)
    assert table in (FOLDER / "results.md").read_text("utf-8")
