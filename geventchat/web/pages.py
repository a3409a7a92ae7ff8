"""The files of the chat page, as responses that browsers can keep. Reads them once, from the folder `static`."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from geventchat.web.http import Request, Response

# Nothing but the files of this folder and the WebSocket of this server, no scripts or styles within the page, and no texts
# that become markup.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
# On every response, also to what is not a request.
COMMON_FIELDS = (
    ("Content-Security-Policy", _POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "png": "image/png",
}
_PAGE = "index.html"


@dataclass(frozen=True, slots=True)
class Page:
    """One file, as it is and compressed."""

    content: bytes
    compressed: bytes
    content_type: str
    tag: str

    def answer(self, request: Request) -> Response:
        """The file, or that it has not changed since the client got it."""
        compressed = _accepts_gzip(request)
        tag = f'"{self.tag}{"-gzip" if compressed else ""}"'
        fields = (("ETag", tag), ("Cache-Control", "no-cache"), ("Vary", "Accept-Encoding"))
        known = [one.removeprefix("W/") for one in _listed(request, "if-none-match")]
        if tag in known or "*" in known:
            return Response(304, fields=fields)
        if compressed:
            return Response(200, self.compressed, self.content_type, (*fields, ("Content-Encoding", "gzip")))
        return Response(200, self.content, self.content_type, fields)


def pages() -> dict[str, Page]:
    """The files by their paths; the page itself has an empty one."""
    return {"" if name == _PAGE else name: page for name, page in _read()}


def _read() -> Iterator[tuple[str, Page]]:
    for file in resources.files("geventchat.web").joinpath("static").iterdir():
        content = file.read_bytes()
        content_type = _TYPES[file.name.rpartition(".")[2]]
        tag = hashlib.sha256(content).hexdigest()[:16]
        yield file.name, Page(content, gzip.compress(content, mtime=0), content_type, tag)


def _accepts_gzip(request: Request) -> bool:
    for coding in _listed(request, "accept-encoding"):
        name, _, weight = coding.lower().partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _listed(request: Request, field: str) -> list[str]:
    return [value.strip() for value in request.fields.get(field, "").split(",")]
