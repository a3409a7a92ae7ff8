"""Any input can be parsed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geventchat.chat.commands import Say
from geventchat.client.address import Address, split_address
from geventchat.client.input import parse_input, split_lines


@given(st.text())
def test_a_second_slash_makes_a_message_of_any_text(text: str) -> None:
    assert parse_input("//" + text) == Say(("/" + text.rstrip(),))


@given(st.text())
def test_any_input_can_be_parsed_line_by_line(text: str) -> None:
    for line in split_lines(text):
        assert "\n" not in line
        assert "\r" not in line
        parse_input(line)


@given(st.sampled_from(["localhost", "10.0.0.1", "::1", "2001:db8::7"]), st.integers(1, 65535))
def test_a_shown_address_can_be_typed(host: str, port: int) -> None:
    assert split_address(str(Address(host, port))) == (host, port)
