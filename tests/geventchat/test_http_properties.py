"""The requests that are read do not depend on how their bytes are divided."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from geventchat.web.http import BadRequest, RequestReader

# Valid parts are more frequent, so that the parts after them are read, too.
METHODS = st.sampled_from(["GET"] * 4 + ["HEAD", "POST", "get"])
TARGETS = st.sampled_from(["/", "/a/b?c=d", "/%c3%a9"] * 3 + ["http://x/", "*", "/%ff", "/" + "a" * 90])
VERSIONS = st.sampled_from(["HTTP/1.1"] * 9 + ["HTTP/1.0", "HTTP/2.0"])
LINES = st.sampled_from(
    ["A: b", "Connection: close", "Content-Length: 3", "A: " + "b" * 60] * 3
    + [
        "Host: y",
        " folded",
        "A : b",
        "Content-Length: 30",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
    ]
)
ENDS = st.sampled_from(["\r\n"] * 30 + ["\n", "\r"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    lines = [
        f"{draw(METHODS)} {draw(TARGETS)} {draw(VERSIONS)}",
        "Host: x",
        *draw(st.lists(LINES, max_size=3)),
        "",
    ]
    return "".join(line + draw(ENDS) for line in lines).encode() + draw(st.sampled_from([b"", b"abc"]))


STREAMS = st.lists(st.one_of(requests(), st.sampled_from([b"\r\n", b"\n", b"\x00\xff"])), max_size=4).map(
    b"".join
)


def outcome(chunks: list[bytes]) -> list[object]:
    """The requests that are read, up to the first error."""
    reader, found = RequestReader(head_bytes=100, body_bytes=20), list[object]()
    for chunk in chunks:
        reader.feed(chunk)
        try:
            while (request := reader.take()) is not None:
                found.append(request)
        except BadRequest as error:
            return [*found, (error.status, error.message)]
    return found


@given(STREAMS, st.lists(st.integers(0, 500)))
def test_any_division_into_chunks_gives_the_same_requests_and_the_same_error(stream: bytes, cuts: list[int]):
    whole = outcome([stream])
    ends = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    assert outcome([stream[at:end] for at, end in pairwise(ends)]) == whole
    assert outcome([stream[at : at + 1] for at in range(len(stream))]) == whole


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_read_refused_or_incomplete(data: bytes):
    outcome([data])
