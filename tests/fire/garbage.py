"""Byte strings that no well-behaved client sends, of many kinds, by seed. Pure."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import pairwise

from geventchat.dialects.verbs import HELP

_MEGABYTE = 1_000_000
Kind = Callable[[random.Random], bytes]

_AWKWARD = (
    "\x00", "\x07", "\x08", "\x1b[2J", "\x1b]0;pwned\x07", "\x7f", "\x85", "\x9b31m", "\u200b", "\u200d", "\u202e", "\u2066",
    "\u2028", "\u2029", "\ufeff", "\ufffe", "\U000e0001", "e\u0301" * 9, "\u0430dmin", "\ud7ff", "\U0010ffff", "\t", "\r", "\v",
    "q" + "\u0323" * 300, "\u0344" * 40, "\U0001f3f4\U000e0067\U000e007f", "\u2060" * 50, "\u061c\u200e\u200f", "\ufff9x\ufffb",
    "\u3000", "\uff21", "\u0130", "\u1e9e", "\u0390", "\u05d0a", "\u0661\u06f1", "\U0001f469\u200d\U0001f680",
)  # fmt: skip
_VERBS = (
    "LOGIN", "MSG", "WHO", "DM", "PING", "QUIT", "EXIT", "login", "mSg", "MSGS", "/help", "/users", "/dm", "/ping",
    "/quit", "/", "//", "/dm x", "JOIN", "NICK",
)  # fmt: skip


# The commands of rooms, accounts and moderation, which `line` and `slash` have in common, and most of them version 2 of json.
_COMMON = tuple(verb.name for line in HELP for verb in line.verbs)
_TYPES_OF_VERSION_2 = (*_COMMON, "enter", "typing", "unknown")
_FIELDS_OF_VERSION_2 = (
    *(
        "v",
        "rooms",
        "room",
        "key",
        "after",
        "before",
        "limit",
        "topic",
        "epoch",
        "ref",
        "password",
        "new",
        "token",
    ),
    *("username", "seconds", "reason", "on", "id", "revoke"),
)
# Values in place of a name, a room, a time or a number.
_ARGUMENTS = (
    *(
        "garbage1",
        "garbage2",
        "absent",
        "member-line",
        "lobby",
        "#dev",
        "on",
        "off",
        "-",
        "1h",
        "0",
        "17",
        "revoke",
    ),
    *(
        "name:garbage1",
        "account:garbage1",
        "10.0.0.0/8",
        "::/0",
        "999999999d",
        "secret words",
        "x" * 400,
        "\u202eabc",
    ),
)


def _noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 300)) + b"\n" * rng.randrange(2)


def _line_ends(rng: random.Random) -> bytes:
    return bytes(rng.choice(b"\n\r\n\r\x00 a") for _ in range(rng.randrange(1, 200)))


def _truncated_utf8(rng: random.Random) -> bytes:
    whole = "".join(chr(rng.choice((0xE9, 0x20AC, 0x1F600, 0x7FF, 0x10FFFF))) for _ in range(8)).encode()
    verb = rng.choice(("MSG ", "LOGIN ", "", '{"type": "chat", "message": "')).encode()
    return verb + whole[: -rng.randrange(1, 4)] + b"\n"


def _not_utf8(rng: random.Random) -> bytes:
    wrong = rng.choice(
        (
            b"\xc0\x80",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\xfe",
            b"\x80",
            b"\xe2\x28\xa1",
            b"\xf8\x88\x80\x80\x80",
        )
    )
    return b"MSG a" + wrong + b"b\n" + b'{"type": "chat", "message": "' + wrong + b'"}\n'


def _nul(rng: random.Random) -> bytes:
    return b"\0" * rng.randrange(1, 5000) + b"\n" + b"MSG a\0b\nLOGIN \0\n"


def _megabyte(rng: random.Random) -> bytes:
    return rng.choice((b"x", b"MSG ", b"\xff\xfa", b"[", b"\0", b"\xc3")) * (_MEGABYTE // 4) + b"\n"


def _half_lines(rng: random.Random) -> bytes:
    return b"MSG " + b"y" * rng.choice((100, 4090, 4091, 4092, 4093, 4096, 4097, 5000, 65_535, 65_536))


def _telnet(rng: random.Random) -> bytes:
    pieces = [
        bytes([255, rng.randrange(240, 256), rng.randrange(256)])
        if rng.random() < 0.7
        else b"\xff\xfa\x18\0VT100"
        for _ in range(rng.randrange(1, 20))
    ]
    return (
        rng.choice((b"", b"LOGIN t", b"MSG "))
        + b"".join(pieces)
        + rng.choice((b"\n", b"\xff\xf0\n", b"\xff"))
    )


def _http(rng: random.Random) -> bytes:
    method = rng.choice(("GET", "POST", "OPTIONS", "PUT", "CONNECT", "PRI", "BREW"))
    path = "/" + "a" * rng.choice((0, 10, 5000))
    body = "LOGIN evil\nMSG from a web page\n" + '{"type": "join", "username": "evil"}\n'
    return f"{method} {path} HTTP/1.1\r\nHost: chat\r\nOrigin: http://evil\r\n\r\n{body}".encode()


def _tls(rng: random.Random) -> bytes:
    hello = rng.randbytes(rng.randrange(40, 500))
    return b"\x16\x03" + bytes([rng.randrange(5)]) + len(hello).to_bytes(2, "big") + hello + b"LOGIN evil\n"


def _other_protocols(rng: random.Random) -> bytes:
    return rng.choice(
        (
            b"SSH-2.0-OpenSSH_9.2\r\n", b"EHLO me\r\nMAIL FROM:<a@b>\r\n", b"\x05\x01\x00", b"\x04\x01\x00\x50\x7f\0\0\1\0",
            b"NICK a\r\nUSER a 0 * :a\r\n", b"*1\r\n$4\r\nPING\r\n", b"\x00\x00\x00\x54\xff\x53\x4d\x42\x72",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            b"\0\0\0\x08\x04\xd2\x16\x2f", b"stats\r\nget x\r\n", b"\x03\0\0\x13\x0e\xe0\0\0", b"{}" * 50 + b"\n",
        )
    )  # fmt: skip


def _bad_json(rng: random.Random) -> bytes:
    kinds: tuple[str, ...] = (
        "{", "}", "[]", "null", "true", "1", '"x"', "{}", '{"type": 1}', '{"type": null}', '{"type": []}', '{"type": {}}',
        '{"type": "join"}', '{"type": "join", "username": 5}', '{"type": "join", "username": null}',
        '{"type": "chat", "message": ["x"]}', '{"type": "chat", "message": {"a": 1}}', '{"type": "chat", "type": "quit"}',
        '{"type": "dm", "to": 1, "message": "x"}', '{"type": "chat" "message": "x"}', "{'type': 'chat'}", '{"type": "chat",}',
        '{"type": "chat", "message": NaN}', '{"type": "chat", "message": Infinity}', '{"type": "chat", "x": -Infinity}',
        '{"type": "chat", "message": "\\ud800"}', '{"type": "chat", "message": "\\udc00\\ud800"}', '{"type": "\\u0063hat"}',
        '{"type": "join", "username": "\\u0000"}', '{"type": "chat", "message": "\\x41"}', '{"type": "chat"} trailing',
        '{"type": "chat"}{"type": "quit"}', "// comment", '\ufeff{"type": "ping"}', '{"type": "ping", "token": {}}',
        "[" * 1000, "[" * 2000 + "]" * 2000, '{"a":' * 600, '{"type": "chat", "n": ' + "9" * 4000 + "}",
        '{"type": "chat", "n": 1e999999}', '{"type": "chat", "n": -' + "1" * 150 + "." + "1" * 150 + "}",
        '{"n": 1' + "0" * 90 + "}",
        '{"type": "chat", "x": [' + "1," * 1500 + "1]}", '{"type": "chat", "message": "' + ",[{" * 900 + '"}',
        '{"type": "users", "' + "k" * 3000 + '": 1}', "{" + ", ".join(f'"k{n}": {n}' for n in range(300)) + "}", '{"": ""}',
    )  # fmt: skip
    return rng.choice(kinds).encode() + b"\n"


def _json_with_anything(rng: random.Random) -> bytes:
    kinds = ("join", "chat", "dm", "users", "ping", "quit", "JOIN", "", *_TYPES_OF_VERSION_2)
    fields = ("username", "message", "to", "token", "type", *_FIELDS_OF_VERSION_2)
    one: dict[str, object] = {"type": rng.choice(kinds)}
    for _ in range(rng.randrange(1, 4)):
        text = "".join(rng.choice(_AWKWARD) for _ in range(rng.randrange(6)))
        one[rng.choice(fields)] = rng.choice(
            (text, text, text, 0, -1, 2, 2**60, None, [], {text: None}, {"a": {text: 1}})
        )
    return json.dumps(one, ensure_ascii=rng.random() < 0.5).encode() + b"\n"


def _version_2(rng: random.Random) -> bytes:
    rooms = {
        f"garbage{rng.randrange(60)}": rng.choice((None, 0, 3, {}, {"after": 1}))
        for _ in range(rng.randrange(60))
    }
    name = f"v2-{rng.randrange(1_000_000)}"
    requests: list[object] = [
        {"type": "join", "v": rng.choice((2, 2, 2, 1, 3)), "username": name, "rooms": rooms}
    ]
    for n in range(rng.randrange(20)):
        kind = rng.choice(("users", "ping", "rooms", "quit", *_TYPES_OF_VERSION_2))
        fields = {
            key: rng.choice(("", 3, None, True, *_ARGUMENTS)) for key in rng.sample(_FIELDS_OF_VERSION_2, 3)
        }
        requests.append({"type": kind, **fields, "ref": str(n)})
    return "".join([json.dumps(request) + "\n" for request in requests]).encode()


def _awkward_words(rng: random.Random) -> bytes:
    text = "".join(
        rng.choice(_AWKWARD) if rng.random() < 0.5 else rng.choice("ab 1_-.")
        for _ in range(rng.randrange(30))
    )
    return f"{rng.choice(_VERBS)} {text}\n".encode()


def _rooms_and_accounts(rng: random.Random) -> bytes:
    lines = []
    for _ in range(rng.randrange(1, 30)):
        verb = rng.choice(_COMMON)
        verb = rng.choice((verb.upper(), f"/{verb}"))
        lines.append(" ".join([verb, *rng.choices(_ARGUMENTS, k=rng.randrange(4))]))
    return "\n".join(lines).encode() + b"\n"


def _many_commands(rng: random.Random) -> bytes:
    words = ("", "a", "a b", "a  b ", "x" * 21, "\u202eabc")
    lines = [f"{rng.choice(_VERBS)} {rng.choice(words)}" for _ in range(rng.randrange(1, 40))]
    return "\n".join(lines).encode() + b"\n" * rng.randrange(3)


def _flood(rng: random.Random) -> bytes:
    return rng.choice((b"PING\n", b"WHO\n", b"/users\n", b'{"type": "users"}\n', b"\n", b"x\n")) * 400


KINDS: dict[str, Kind] = {
    "noise": _noise,
    "line ends": _line_ends,
    "truncated UTF-8": _truncated_utf8,
    "not UTF-8": _not_utf8,
    "NUL": _nul,
    "megabyte lines": _megabyte,
    "half lines": _half_lines,
    "telnet sequences": _telnet,
    "HTTP requests": _http,
    "TLS hellos": _tls,
    "other protocols": _other_protocols,
    "bad JSON": _bad_json,
    "JSON with anything": _json_with_anything,
    "version 2": _version_2,
    "awkward words": _awkward_words,
    "many commands": _many_commands,
    "rooms and accounts": _rooms_and_accounts,
    "floods": _flood,
}
_FREQUENCY = {"megabyte lines": 0.1, "floods": 0.1}


def random_garbage(rng: random.Random) -> tuple[str, bytes]:
    """One byte string, and its kind."""
    while True:
        name = rng.choice(list(KINDS))
        if rng.random() < _FREQUENCY.get(name, 1.0):
            return name, KINDS[name](rng)


def random_cuts(rng: random.Random, data: bytes) -> list[bytes]:
    """The data in one piece, byte by byte, or in pieces of any size."""
    how = rng.randrange(4)
    if how < 2 or len(data) < 2:
        return [data]
    if how == 2 and len(data) <= 120:
        return [data[n : n + 1] for n in range(len(data))]
    at = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(rng.randrange(1, 5)))})
    return [data[a:b] for a, b in pairwise(at)]
