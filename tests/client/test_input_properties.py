"""Any input can be parsed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geventchat.client.address import Address, split_address
from geventchat.client.input import Known, Message, completions, lines_of, parse_input, sendable

LINES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]))


@given(LINES.filter(str.strip))
def test_a_second_slash_makes_a_message_of_any_text(text: str) -> None:
    assert parse_input("//" + text) == Message((("/" + text).strip(),))


@given(st.text(), st.booleans())
def test_any_input_can_be_parsed_and_completed(text: str, literal: bool) -> None:
    parsed = parse_input(text, literal=literal)
    assert not literal or parsed is None or isinstance(parsed, Message)
    completions(text, Known(["bob"], ["dev"]))


@given(st.lists(LINES, max_size=8))
def test_a_paste_loses_only_blank_lines_around_it_and_white_space_at_the_ends_of_lines(
    lines: list[str],
) -> None:
    said = lines_of("\n".join(lines))
    wanted = [line.strip() for line in lines]
    while wanted and not wanted[-1]:
        wanted.pop()
    while wanted and not wanted[0]:
        wanted.pop(0)
    assert [one.removeprefix("│").strip() for one in said] == [
        one.removeprefix("│").strip() for one in wanted
    ]


@given(LINES)
def test_pieces_of_a_text_are_the_text(text: str) -> None:
    long = f"{text} " * 400
    assert "".join("".join(sendable((long,), emoji=False)).split()) == "".join(long.split())


@given(st.sampled_from(["localhost", "10.0.0.1", "::1", "2001:db8::7"]), st.integers(1, 65535))
def test_a_shown_address_can_be_typed(host: str, port: int) -> None:
    assert split_address(str(Address(host, port))) == (host, port)
