"""What each dialect says of each thing that happens, written anew from the protocol's tables. Imports nothing of the server."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Protocol


class Wording(Protocol):
    """One dialect: how its client asks, and what its client hears."""

    echoes: bool

    def ask_in(self, name: str) -> str: ...
    def ask_say(self, text: str) -> str: ...
    def ask_tell(self, to: str, text: str) -> str: ...
    def ask_who(self) -> str: ...
    def ask_ping(self) -> str: ...
    def ask_out(self) -> str: ...
    def joined(self, name: str, at: int) -> str: ...
    def said(self, name: str, text: str, at: int) -> str: ...
    def left(self, name: str, at: int) -> str: ...
    def told(self, name: str, to: str, text: str, at: int) -> str: ...
    def relayed(self, name: str, to: str, typed: str, text: str, at: int) -> str: ...
    def welcome(self, name: str, users: Iterable[str], at: int) -> str: ...
    def taken(self) -> str: ...
    def nobody(self, typed: str) -> str: ...
    def roster(self, users: Iterable[str]) -> str: ...
    def pong(self) -> str: ...
    def goodbye(self) -> str: ...
    def idle(self) -> str: ...


class Line:
    """The `line` dialect."""

    echoes = False

    def ask_in(self, name: str) -> str:
        return f"LOGIN {name}\n"

    def ask_say(self, text: str) -> str:
        return f"MSG {text}\n"

    def ask_tell(self, to: str, text: str) -> str:
        return f"DM {to} {text}\n"

    def ask_who(self) -> str:
        return "WHO\n"

    def ask_ping(self) -> str:
        return "PING\n"

    def ask_out(self) -> str:
        return "QUIT\n"

    def joined(self, name: str, at: int) -> str:
        return ""

    def said(self, name: str, text: str, at: int) -> str:
        return f"MSG {name} {text}\n"

    def left(self, name: str, at: int) -> str:
        return f"INFO {name} disconnected\n"

    def told(self, name: str, to: str, text: str, at: int) -> str:
        return f"DM {name} {text}\n"

    def relayed(self, name: str, to: str, typed: str, text: str, at: int) -> str:
        return ""

    def welcome(self, name: str, users: Iterable[str], at: int) -> str:
        return "OK\n"

    def taken(self) -> str:
        return "ERR username-taken\n"

    def nobody(self, typed: str) -> str:
        return "ERR user-not-found\n"

    def roster(self, users: Iterable[str]) -> str:
        return "".join(f"USER {name}\n" for name in users)

    def pong(self) -> str:
        return "PONG\n"

    def goodbye(self) -> str:
        return "Goodbye!\n"

    def idle(self) -> str:
        return "INFO idle-timeout\n"


def _object(**fields: object) -> str:
    return json.dumps(fields) + "\n"


class Json:
    """The `json` dialect."""

    echoes = True

    def ask_in(self, name: str) -> str:
        return _object(type="join", username=name)

    def ask_say(self, text: str) -> str:
        return _object(type="chat", message=text)

    def ask_tell(self, to: str, text: str) -> str:
        return _object(type="dm", to=to, message=text)

    def ask_who(self) -> str:
        return _object(type="users")

    def ask_ping(self) -> str:
        return _object(type="ping")

    def ask_out(self) -> str:
        return _object(type="quit")

    def joined(self, name: str, at: int) -> str:
        return _object(type="user_joined", username=name, message=f"{name} joined the chat", timestamp=at)

    def said(self, name: str, text: str, at: int) -> str:
        return _object(type="chat", username=name, message=text, timestamp=at)

    def left(self, name: str, at: int) -> str:
        return _object(type="user_left", username=name, message=f"{name} left the chat", timestamp=at)

    def told(self, name: str, to: str, text: str, at: int) -> str:
        return _object(type="dm", username=name, to=to, message=text, timestamp=at)

    def relayed(self, name: str, to: str, typed: str, text: str, at: int) -> str:
        # To oneself it is told once.
        return "" if name == to else self.told(name, to, text, at)

    def welcome(self, name: str, users: Iterable[str], at: int) -> str:
        message = f"Welcome to the chat, {name}!"
        return _object(type="welcome", message=message, users=list(users), timestamp=at)

    def taken(self) -> str:
        return _object(type="error", message="Username already taken")

    def nobody(self, typed: str) -> str:
        return _object(type="error", message="User not found")

    def roster(self, users: Iterable[str]) -> str:
        return _object(type="users", users=list(users))

    def pong(self) -> str:
        return _object(type="pong")

    def goodbye(self) -> str:
        return _object(type="goodbye")

    def idle(self) -> str:
        return _object(type="error", message="Idle timeout")


class Slash:
    """The `slash` dialect."""

    echoes = False

    def ask_in(self, name: str) -> str:
        return f"{name}\n"

    def ask_say(self, text: str) -> str:
        return f"{text}\n"

    def ask_tell(self, to: str, text: str) -> str:
        return f"/dm {to} {text}\n"

    def ask_who(self) -> str:
        return "/users\n"

    def ask_ping(self) -> str:
        return "/ping\n"

    def ask_out(self) -> str:
        return "/quit\n"

    def joined(self, name: str, at: int) -> str:
        return f"[join] {name} has joined the chat.\n"

    def said(self, name: str, text: str, at: int) -> str:
        return f"{name}: {text}\n"

    def left(self, name: str, at: int) -> str:
        return f"[leave] {name} has left the chat.\n"

    def told(self, name: str, to: str, text: str, at: int) -> str:
        return f"[DM from {name}] {text}\n"

    def relayed(self, name: str, to: str, typed: str, text: str, at: int) -> str:
        return f"[DM to {typed}] {text}\n"

    def welcome(self, name: str, users: Iterable[str], at: int) -> str:
        return self.joined(name, at) + "Connected! Type /help for commands\n\n"

    def taken(self) -> str:
        return "[error] Username already taken. Try another.\n"

    def nobody(self, typed: str) -> str:
        return f"No user named '{typed}'. Use /users to see online users.\n"

    def roster(self, users: Iterable[str]) -> str:
        names = list(users)
        return f"=== Online Users ({len(names)}) ===\n" + "".join(f"{name}\n" for name in names) + "\n"

    def pong(self) -> str:
        return "pong\n"

    def goodbye(self) -> str:
        return "Disconnecting...\n"

    def idle(self) -> str:
        return "[error] Idle timeout.\n"


WORDINGS: dict[str, Wording] = {"line": Line(), "json": Json(), "slash": Slash()}
