"""Which pages may use the chat: those of this server, under a name of this server."""

from __future__ import annotations

import pytest

from geventchat.web.origins import Origins, is_origin, read_origin

LISTED = ["https://chat.example", "http://chat.example:8080", "Plain.example", "[2001:db8::1]"]
LOCAL = "192.0.2.7"


def allowed(origin: str | None, host: str) -> bool:
    origins = Origins(["0.0.0.0", "Bound.example"], map(read_origin, LISTED))
    return origins.refuse(origin, host, lambda: LOCAL) is None


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "evil.example"),
        ("http://localhost:4080", "localhost:4080"),
        ("http://app.localhost", "app.localhost"),
        ("http://127.0.0.1:4080", "127.0.0.1:4080"),
        ("http://127.9.9.9", "127.9.9.9"),
        ("http://[::1]:4080", "[::1]:4080"),
        ("HTTP://LOCALHOST:80", "localhost"),
        ("http://localhost", "localhost:80"),
        ("https://localhost:443", "localhost"),
        ("http://bound.example:4080", "bound.example:4080"),
        ("http://192.0.2.7:4080", "192.0.2.7:4080"),
        ("https://chat.example", "chat.example"),
        ("https://chat.example", "chat.example:443"),
        ("http://chat.example:8080", "chat.example:8080"),
        ("http://plain.example", "plain.example"),
        ("https://plain.example:999", "plain.example:999"),
        ("http://[2001:db8::1]:4080", "[2001:db8::1]:4080"),
    ],
)
def test_pages_of_this_server_and_programs_may_use_the_chat(origin: str | None, host: str):
    assert allowed(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        # Another page.
        ("http://evil.example", "localhost:4080"),
        ("http://localhost:4081", "localhost:4080"),
        ("https://localhost:80", "localhost"),
        ("http://localhost.evil.example", "localhost"),
        ("http://evil-localhost", "localhost"),
        ("http://evil-localhost", "evil-localhost"),
        ("http://evillocalhost:4080", "evillocalhost:4080"),
        ("http://localhost@evil.example", "localhost"),
        ("null", "localhost"),
        ("", "localhost"),
        ("file://", ""),
        ("http://localhost, http://localhost", "localhost"),
        ("http://localhost/", "localhost"),
        ("chrome-extension://localhost", "localhost"),
        # A page whose name was made to point here.
        ("http://evil.example:4080", "evil.example:4080"),
        ("http://evil.localhost.example", "evil.localhost.example"),
        ("http://192.0.2.8", "192.0.2.8"),
        ("http://127.0.0.1.evil.example", "127.0.0.1.evil.example"),
        # A listed name, but not the listed origin.
        ("http://chat.example", "chat.example"),
        ("https://chat.example:8080", "chat.example:8080"),
        ("https://other.chat.example", "other.chat.example"),
        ("http://plain.example.", "plain.example."),
    ],
)
def test_other_pages_are_refused(origin: str, host: str):
    assert not allowed(origin, host)


def test_an_address_in_ipv6_notation_is_the_same_address():
    origins = Origins([], [])
    assert origins.refuse("http://[2001:db8:0::1]", "[2001:db8:0::1]", lambda: "2001:db8::1%eth0") is None


def test_a_refusal_says_how_to_allow_a_name():
    origins = Origins([], [read_origin("https://chat.example")])
    refusal = origins.refuse("http://mine.example", "mine.example", lambda: LOCAL)
    assert (
        refusal
        == "this server does not know itself as mine.example; its operator can allow that with --web-origin"
    )
    assert origins.refuse_host("mine.example", lambda: LOCAL) == refusal
    assert origins.refuse_host("chat.example", lambda: LOCAL) is None


@pytest.mark.parametrize(
    "text", ["", "https://", "ftp://x", "https://x/", "x y", "x:port", "https://user@x", "*"]
)
def test_what_is_neither_an_origin_nor_a_name_cannot_be_listed(text: str):
    assert not is_origin(text)
    with pytest.raises(ValueError, match="is not an origin"):
        read_origin(text)
