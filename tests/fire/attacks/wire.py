"""The requests of attacks in each dialect: the shortest ones, the longest ones, and names that take the most bytes."""

from __future__ import annotations

import json

from tests.fire.attacks.load import Client, Load

# A letter that takes four bytes in UTF-8 and twelve in ASCII-only JSON.
WIDE = "\U00020000"
LONGEST_NAME = 20


def login(dialect: str, name: str) -> bytes:
    """The request to log in."""
    match dialect:
        case "line":
            return f"LOGIN {name}\n".encode()
        case "json":
            return _request(type="join", username=name)
        case "json2":
            return _request(type="join", v=2, username=name)
        case _:
            return f"{name}\n".encode()


def say(dialect: str, text: str) -> bytes:
    """The request to say something."""
    match dialect:
        case "line":
            return f"MSG {text}\n".encode()
        case "json" | "json2":
            return _request(type="chat", message=text)
        case _:
            return f"{text}\n".encode()


def direct(dialect: str, to: str, text: str) -> bytes:
    """The request to send a direct message."""
    match dialect:
        case "line":
            return f"DM {to} {text}\n".encode()
        case "json" | "json2":
            return _request(type="dm", to=to, message=text)
        case _:
            return f"/dm {to} {text}\n".encode()


def who(dialect: str) -> bytes:
    """The request for the list of people."""
    return {"line": b"WHO\n", "slash": b"/users\n"}.get(dialect, b'{"type":"users"}\n')


def ping(dialect: str, token: str = "") -> bytes:
    """The request for a sign of life."""
    match dialect:
        case "line":
            return f"PING {token}\n".encode()
        case "json" | "json2":
            return _request(type="ping", token=token)
        case _:
            return b"/ping\n"


def quit_request(dialect: str) -> bytes:
    """The request to leave."""
    return {"line": b"QUIT\n", "slash": b"/quit\n"}.get(dialect, b'{"type":"quit"}\n')


def command(dialect: str, verb: str, argument: str = "", text: str = "") -> bytes:
    """A request about rooms, accounts or moderation: what or whom it is about, and a text."""
    match dialect:
        case "line":
            return " ".join([verb.upper(), *filter(None, (argument, text))]).encode() + b"\n"
        case "slash":
            return " ".join([f"/{verb}", *filter(None, (argument, text))]).encode() + b"\n"
        case _:
            field = _FIELDS.get(verb, "username")
            kind = "enter" if verb == "join" else verb
            fields = {field: argument, _TEXTS.get(verb, "reason"): text}
            return _request(type=kind, **{key: value for key, value in fields.items() if value})


# The fields of version 2 of json for the target of a command and for its text.
_FIELDS = {"join": "room", "leave": "room", "key": "room", "topic": "room", "register": "room"}
_TEXTS = {"key": "key", "topic": "topic", "register": "password"}
# The answer to a successful login contains this.
WELCOME = {"line": b"OK\n", "json": b'"welcome"', "json2": b'"welcome"', "slash": b"Connected!"}


def wide_name(number: int) -> str:
    """A name with the most bytes, different for each number."""
    digits = ""
    for _ in range(4):
        digits += chr(0x20000 + number % 16)
        number //= 16
    return WIDE * (LONGEST_NAME - 4) + digits


def log_in_all(
    load: Load, clients: list[Client], dialect: str, names: list[str], within_s: float = 60.0
) -> None:
    """Log all of these in, and wait until the server has said so."""
    waiting = set(clients)
    for client, name in zip(clients, names, strict=True):
        client.name = name
        client.send(login(dialect, name))
    welcome = WELCOME[dialect]

    def done() -> bool:
        for client in list(waiting):
            if client.received or not client.open:
                assert client.open, f"{client.name} was disconnected before it was logged in"
                waiting.discard(client)
                assert welcome in client.tail or client.received > 4_096, client.tail[:200]
        return not waiting

    load.wait(f"{len(clients)} logins", done, within_s)


def _request(**fields: str) -> bytes:
    return (json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
