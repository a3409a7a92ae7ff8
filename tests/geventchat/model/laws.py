"""The dialects as far as their laws need them: how a client logs in and talks, and what the lines that it receives mean."""

from __future__ import annotations

import json

from harness.laws.traffic import Granted, Message, Refused

_UNLIMITED = "rate=0 address-connection-rate=0 address-login-rate=0 address-byte-rate=0"


class LineChat:
    """The rules of docs/protocols.md for LOGIN and MSG; the limits on rates are off."""

    def __init__(self) -> None:
        self.header = {"server": f"line {_UNLIMITED}", "fence": "PING -> PONG | ERR must-login-first"}

    def login(self, name: str) -> str:
        return f"LOGIN {name}"

    def say(self, text: str) -> str:
        return f"MSG {text}"

    def read(self, line: str) -> Granted | Refused | Message | None:
        match line.split(" ", 2):
            case ["OK"]:
                return Granted()
            case ["ERR", "username-taken"]:
                return Refused()
            case ["MSG", sender, text]:
                return Message(sender, text)
            case _:
                return None


class SlashChat:
    """The rules of docs/protocols.md for names and messages."""

    def login(self, name: str) -> str:
        return name

    def say(self, text: str) -> str:
        return text

    def read(self, line: str) -> Granted | Refused | Message | None:
        if line == "Connected! Type /help for commands":
            return Granted()
        if line == "[error] Username already taken. Try another.":
            return Refused()
        sender, colon, text = line.partition(": ")
        return Message(sender, text) if colon and not line.startswith("[") else None


class JsonChat:
    """Version 1 of `json`, or version 2, which docs/json.md describes. Clients hear themselves."""

    def __init__(self, version: int) -> None:
        self._version = version

    def login(self, name: str) -> str:
        return json.dumps({"type": "join", "username": name, "v": self._version})

    def say(self, text: str) -> str:
        return json.dumps({"type": "chat", "message": text})

    def read(self, line: str) -> Granted | Refused | Message | None:
        match json.loads(line):
            case {"type": "welcome"}:
                return Granted()
            case {"type": "error", "message": "Username already taken"}:
                return Refused()
            case {"type": "chat", "username": str(sender), "message": str(text)}:
                return Message(sender, text)
            case _:
                return None


class EveryDialect:
    """Clients of all dialects in one room."""

    dialects = (
        ("line", LineChat()),
        ("json", JsonChat(1)),
        ("json", JsonChat(2)),
        ("slash", SlashChat()),
    )

    def __init__(self) -> None:
        self.header = {"server": f"line json slash {_UNLIMITED}", "fence": "none"}


class RunningServer(EveryDialect):
    """The same, for a server that runs already and was given its options."""

    def __init__(self) -> None:
        super().__init__()
        self.header = {"fence": "none"}
