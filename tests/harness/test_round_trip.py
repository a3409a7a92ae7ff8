"""Rendering and parsing are inverse: parse(render(s)) == s for any script."""

from __future__ import annotations

import pytest

from harness.language.forms import parse_duration
from harness.language.loading import parse, render


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60s", 60_000_000),
        ("59.999s", 59_999_000),
        ("200ms", 200_000),
        ("2m", 120_000_000),
        ("1h", 3_600_000_000),
    ],
)
def test_durations_are_exact(text, expected):
    assert parse_duration(text, 0) == expected


def test_comments_and_blank_lines_are_part_of_a_script():
    text = "# top\ntitle: t\n\n# a\nalice> hi\n\nrepeat 2:\n    # in\n\n    alice> x\n    # last\n\n# end\n"
    assert render(parse(text)) == text
