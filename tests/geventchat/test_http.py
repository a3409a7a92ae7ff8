"""Requests that are read, requests that are refused, and what is written."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest

from geventchat.web.http import (
    MAX_FIELDS,
    MAX_TARGET_BYTES,
    BadRequest,
    Request,
    RequestReader,
    Response,
    date,
    error_response,
    written,
)

HEAD_BYTES = 4096
BODY_BYTES = 64


def reader(data: bytes = b"") -> RequestReader:
    new = RequestReader(HEAD_BYTES, BODY_BYTES)
    new.feed(data)
    return new


def read(head: str, body: bytes = b"") -> Request:
    request = reader(head.replace("\n", "\r\n").encode("latin-1") + body).take()
    assert request is not None
    return request


def refused(data: bytes) -> tuple[int, str]:
    with pytest.raises(BadRequest) as caught:
        reader(data).take()
    return caught.value.status, caught.value.message


def test_a_request_is_read_with_its_decoded_path_its_fields_and_its_body():
    request = read(
        "POST /api/rooms/caf%C3%A9/messages?after=1&limit=2 HTTP/1.1\nHost: Chat.Example:4080\nX-One:  a b \n"
        "Content-Length: 3\nx-one: c\n\n",
        b"abc",
    )
    assert (request.method, request.path) == ("POST", ("api", "rooms", "café", "messages"))
    assert request.parameters() == {"after": "1", "limit": "2"}
    assert request.host == "chat.example:4080"
    assert request.fields == {"host": "Chat.Example:4080", "x-one": "a b, c", "content-length": "3"}
    assert (request.body, request.keep_alive) == (b"abc", True)
    assert request.head.startswith(b"POST /api")
    assert request.head.endswith(b"\r\n\r\n")


def test_requests_in_one_chunk_are_taken_one_by_one_and_what_follows_the_last_is_left():
    both = reader(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n\x81\x80rest")
    assert [both.take().path, both.take().path] == [("a",), ("b",)]
    assert both.rest == b"\x81\x80rest"


def test_a_reader_is_idle_between_requests_alone():
    between = reader()
    assert between.is_idle
    for part in (b"POST / HTTP/1.1\r\n", b"Host: x\r\nContent-Length: 1\r\n\r\n"):
        between.feed(part)
        assert between.take() is None
        assert not between.is_idle
    between.feed(b"a")
    assert between.take() is not None
    assert between.is_idle


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: Close\n", False),
        ("1.1", "Connection: upgrade, close\n", False),
        ("1.0", "", False),
        ("1.0", "Connection: keep-alive\n", True),
    ],
)
def test_a_connection_goes_on_as_its_version_and_its_fields_say(version: str, connection: str, keeps: bool):
    assert read(f"GET / HTTP/{version}\nHost: x\n{connection}\n").keep_alive is keeps


def test_http_1_0_needs_no_host():
    assert read("GET / HTTP/1.0\n\n").host == ""


def test_an_absolute_target_names_the_host():
    request = read("GET HTTP://Example:80/a?b HTTP/1.1\nHost: example:80\n\n")
    assert (request.host, request.path, request.query) == ("example:80", ("a",), "b")
    assert read("GET http://example?b HTTP/1.0\n\n").path == ("",)


def test_one_empty_line_in_front_of_a_request_is_ignored():
    assert reader(b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").take().path == ("",)
    assert refused(b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n") == (400, "the request line is empty")


def test_a_client_that_waits_for_100_continue_gets_it_once():
    waiting = reader(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n")
    assert waiting.take() is None
    assert [waiting.take_continue(), waiting.take_continue()] == [True, False]
    hurried = reader(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\na")
    assert hurried.take() is None
    assert not hurried.take_continue()
    assert not reader().take_continue()


def test_a_client_of_http_1_0_gets_no_100_continue_whatever_it_expects():
    for expectation in (b"100-continue", b"tea"):
        old = reader(b"POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: " + expectation + b"\r\n\r\n")
        assert old.take() is None
        assert not old.take_continue()
        old.feed(b"a")
        assert old.take().body == b"a"


SMUGGLED = b"GET / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"GET / HTTP/1.1\nHost: x\n\n", 400, "a line does not end in CR LF"),
        (SMUGGLED + b"A: b\n\r\n", 400, "a line does not end in CR LF"),
        (SMUGGLED + b"\n", 400, "a line does not end in CR LF"),
        (SMUGGLED + b"A: b\rC: d\r\n", 400, "a line of the header is not a field: 'A: b\\rC: d'"),
        (SMUGGLED + b"A : b\r\n", 400, "a line of the header is not a field: 'A : b'"),
        (SMUGGLED + b"A: b\r\n c\r\n", 400, "a line of the header is folded"),
        (SMUGGLED + b"A: b\0\r\n", 400, "a line of the header is not a field: 'A: b\\x00'"),
        (SMUGGLED + b": b\r\n", 400, "a line of the header is not a field: ': b'"),
        (SMUGGLED + b"A\r\n", 400, "a line of the header is not a field: 'A'"),
        (SMUGGLED + b"Host: x\r\n\r\n", 400, "duplicate field host"),
        (
            SMUGGLED + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
            400,
            "duplicate field content-length",
        ),
        (SMUGGLED + b"Content-Length: 1, 1\r\n\r\na", 400, "not a length: '1, 1'"),
        (SMUGGLED + b"Content-Length: +1\r\n\r\na", 400, "not a length: '+1'"),
        (SMUGGLED + b"Content-Length: -1\r\n\r\na", 400, "not a length: '-1'"),
        (SMUGGLED + b"Content-Length: 0x1\r\n\r\na", 400, "not a length: '0x1'"),
        (SMUGGLED + b"Content-Length:\r\n\r\na", 400, "not a length: ''"),
        (SMUGGLED + b"Content-Length: \xb2\r\n\r\na", 400, "not a length: '²'"),
        (
            SMUGGLED + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "both Content-Length and Transfer-Encoding",
        ),
        (SMUGGLED + b"Transfer-Encoding: chunked\r\n\r\n", 411, "a body needs a Content-Length"),
        (SMUGGLED + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400, None),
        (
            SMUGGLED + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
            501,
            "unknown transfer coding gzip, chunked",
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 411, "POST needs a Content-Length"),
        (SMUGGLED + b"Content-Length: 65\r\n\r\n", 413, "the body has more than 64 bytes"),
        (SMUGGLED + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n", 413, "the body is too large"),
        (SMUGGLED + b"Expect: tea\r\n\r\n", 417, "unknown expectation tea"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "the field Host is missing"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "not a host: 'a b'"),
        (b"GET / HTTP/1.1\r\nHost: user@x\r\n\r\n", 400, "not a host: 'user@x'"),
        (b"GET / HTTP/1.1\r\nHost: \r\n\r\n", 400, "not a host: ''"),
        (
            b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n",
            400,
            "the target names another host than the field Host",
        ),
        (b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not a path: 'ftp://x/'"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not a path: '*'"),
        (b"GET /# HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not a path: '/#'"),
        (b"GET /%g1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not a percent-encoding: '%g1'"),
        (b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not UTF-8: '%ff'"),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", 400, None),
        (b"GET  / HTTP/1.1\r\n", 400, "not a request line: 'GET  / HTTP/1.1'"),
        (b"GET /\r\n", 400, "not a request line: 'GET /'"),
        (b"GET / HTTP/1.1 \r\n", 400, "not a request line: 'GET / HTTP/1.1 '"),
        (b"\x16\x03\x01\x02\x00\x01\r\n", 400, None),
        (b"LOGIN alice\r\n", 400, "not a request line: 'LOGIN alice'"),
        (b"PRI * HTTP/2.0\r\n", 505, "HTTP/2.0 is not HTTP/1.1"),
        (b"get / HTTP/1.1\r\n", 501, "unknown method get"),
        (b"CONNECT x:80 HTTP/1.1\r\n", 501, "unknown method CONNECT"),
        (b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n", 414, "the target has more than 2048 bytes"),
        (b"GET /" + b"a" * HEAD_BYTES, 414, "the request line has more than 4096 bytes"),
        (SMUGGLED + b"A: " + b"b" * HEAD_BYTES, 431, "the header has more than 4096 bytes"),
        (SMUGGLED + b"A: b\r\n" * MAX_FIELDS, 431, "the header has more than 64 fields"),
    ],
)
def test_what_can_be_read_in_two_ways_or_is_too_large_is_refused(
    data: bytes, status: int, message: str | None
):
    got = refused(data)
    assert got[0] == status
    assert message is None or got[1] == message


def test_a_head_can_have_exactly_as_many_bytes_as_the_limit():
    head = SMUGGLED + b"A: " + b"b" * (HEAD_BYTES - len(SMUGGLED) - 7) + b"\r\n\r\n"
    assert len(head) == HEAD_BYTES
    assert reader(head).take() is not None
    assert refused(head.replace(b"b\r", b"bb\r"))[0] == 431


def test_nothing_behind_an_error_is_read_as_a_request():
    broken = reader(b"GET /\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
    for _ in range(2):
        with pytest.raises(BadRequest):
            broken.take()
        broken.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def test_a_reader_that_has_refused_is_in_no_cycle():
    gc.collect()
    gc.disable()
    try:
        broken = reader(b"GET /\r\n")
        for _ in range(2):
            with suppress(BadRequest):
                broken.take()
        del broken
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("query", ["a=1&a=2", "a=%ff", "%zz"])
def test_parameters_that_are_ambiguous_or_not_utf_8_are_refused(query: str):
    with pytest.raises(BadRequest):
        read(f"GET /?{query} HTTP/1.1\nHost: x\n\n").parameters()


def test_a_response_has_a_date_a_type_a_length_and_says_whether_the_connection_goes_on():
    response = Response(200, b"hello", fields=(("ETag", '"1"'),))
    assert written(response, 784111777.9, keep_alive=True) == (
        b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b'Content-Length: 5\r\nETag: "1"\r\nConnection: keep-alive\r\n\r\nhello'
    )
    without_body = written(response, 784111777.9, keep_alive=False, is_head=True)
    assert without_body.endswith(b'Content-Length: 5\r\nETag: "1"\r\nConnection: close\r\n\r\n')
    assert b"Content-" not in written(Response(304, b"hello"), 0, keep_alive=True)
    assert written(error_response(BadRequest(431, "too much")), 0, keep_alive=False).endswith(
        b"\r\n\r\ntoo much\n"
    )


@pytest.mark.parametrize("field", [("A", "b\r\nC: d"), ("A b", "c"), ("A", "é")])
def test_a_field_cannot_add_another(field: tuple[str, str]):
    with pytest.raises(ValueError, match="is not a field"):
        written(Response(200, fields=(field,)), 0, keep_alive=True)


def test_dates_have_english_names_and_two_digits():
    assert date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"
