"""A protocol is recognised however its first bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventchat.net.sniffing import ForeignProtocol
from tests.geventchat.test_sniffing import EXPECTED, verdict_on


def cut(data: bytes, offsets: list[int]) -> list[bytes]:
    edges = [0, *sorted(offset % (len(data) + 1) for offset in offsets), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize(("data", "verdict"), EXPECTED)
@given(cuts=st.lists(st.integers(0, 500), max_size=6))
def test_a_protocol_is_recognised_however_it_is_cut(
    data: bytes, verdict: ForeignProtocol | bool, cuts: list[int]
):
    assert verdict_on(cut(data, cuts)) is verdict
