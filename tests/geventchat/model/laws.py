"""The line protocol as far as its laws need it: how a client logs in and talks, and what the lines that it receives mean."""

from __future__ import annotations

from harness.laws.traffic import Granted, Message, Refused


class LineChat:
    """The rules of docs/protocols.md for LOGIN and MSG; the limits on rates are off."""

    def __init__(self) -> None:
        unlimited = "rate=0 address-connection-rate=0 address-login-rate=0 address-byte-rate=0"
        self.header = {"server": f"line {unlimited}", "fence": "PING -> PONG | ERR must-login-first"}

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
