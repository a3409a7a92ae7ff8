"""The scripts that the servers of the zoo are played with, and what the verdict on each must be.

Each play of a script has its own room, so one server can serve any number of plays.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from tests.harness.zoo import BEHIND, ZooServer

MOMENT_MS, SETTLE_MS = 5.0, 100.0
"""How long the harness waits after the answers of most turns, and after the others and where there are none."""

_EXPECTS = re.compile(r"in any order|\w+(<| receives | is closed)")

FENCES = {
    "exact": "",
    "SYNC": "SYNC ${token} -> SYNCED ${token}",
    "MSG": "MSG ${token} heard as MSG ${_} ${token}",
    "PING": "PING -> PONG",
    "none": "none",
}
"""SYNC is answered on the way of messages, and MSG is a message. In process no fence line is sent."""


class WrongPass(enum.Enum):
    """Whether a script that must fail can pass; docs/verdicts.md explains it."""

    NEVER = "no: nothing is late, or it comes before the fence"
    IN_SETTLE = f"rarely: late by less than the {SETTLE_MS:g} ms that the harness waits"
    IN_MOMENT = f"rarely: late by less than the {MOMENT_MS:g} ms that the harness waits"
    """`RULE` in measure.py says how rarely."""
    EXPECTED = "yes: late by more than the harness waits"


@dataclass(frozen=True)
class Script:
    """`breaks`: the flaws under which it must fail. `asks`: what it demands that no server does; `unwatched`: in a turn after
    which the harness waits a moment only."""

    name: str
    steps: str
    clients: tuple[str, ...] = ("ann", "bob", "carol")
    breaks: frozenset[str] = frozenset({"dup", "echo"})
    asks: str = ""
    unwatched: bool = False
    header: str = ""

    def must_fail(self, server: ZooServer) -> bool:
        if self.name == "farewell" and server.flaw == "echo" and server.delay_ms:
            return False  # its sender has left
        return bool(self.asks) or server.flaw in self.breaks

    def suits(self, server: ZooServer) -> bool:
        """True if the outcome of the script with this server is certain."""
        match self.name:
            case "relay":
                # Lines of two clients that are handled by two workers, or read from two pipes, have no order.
                return server.flaw != "reverse" and not (server.kind in ("pool", "fork") and server.early)
            case "twice":
                return server.flaw != "dup"
            case "backwards":
                return server.flaw != "reverse"
            case "unaware":
                return server.flaw == "greet"
            case _:
                return True

    def late_ms(self, server: ZooServer) -> float:
        """How much later the line comes that the script does not expect, or not there."""
        behind = server.flaw in BEHIND
        match self.asks:
            case "silence":
                return server.delay_ms if behind else 0.0
            case "silent leaving":
                return server.delay_ms if behind or server.flaw == "part" else 0.0
            case _:
                return server.delay_ms

    def wrong_pass(self, server: ZooServer, fence: str, grade: str) -> WrongPass:
        """When it can pass with this grade, although it must fail."""
        late_ms = self.late_ms(server)
        # Nothing comes late: something never comes, or comes in the wrong order.
        never_right = (
            self.asks == "a missing line"
            or (self.asks == "a late copy" and server.flaw != "dup")
            or (not self.asks and server.flaw in ("drop", "reverse"))
        )
        behind = server.flaw in BEHIND or server.flaw == "batch" or not late_ms
        ordered = (fence == "SYNC" and behind) or (fence == "PING" and not late_ms and not server.early)
        # Messages in reverse come after a fence line that was sent after them.
        ordered = ordered or (fence == "MSG" and behind and server.flaw != "reverse")
        if grade == "exact" or never_right or (grade in ("answered", "heard") and ordered):
            return WrongPass.NEVER
        # In a run that is settled because a client could not be asked, the turn in question can be answered.
        asked = fence != "none" and self.asks != "silent leaving"
        window_ms = MOMENT_MS if self.unwatched and asked else SETTLE_MS
        if late_ms >= window_ms:
            return WrongPass.EXPECTED
        return WrongPass.IN_SETTLE if window_ms == SETTLE_MS else WrongPass.IN_MOMENT

    def text(self, server: ZooServer, fence: str, room: str) -> str:
        """The script for one play in this room."""
        within = "1s" if self.must_fail(server) else "10s"
        lines = [self.header, f"within: {within}", f"fence: {FENCES[fence]}" if FENCES[fence] else ""]
        steps = []
        for client in self.clients:
            if server.flaw == "greet" and self.name != "unaware":
                steps += [f"{client} connects", f"{client}< WELCOME", ""]
            login = client != "carol" or self.name != "outsider"
            steps += [f"{client}> {'LOGIN ' + client + '@' if login else 'JOIN '}{room}"]
            steps += [f"{client}< OK", ""] if login else [f"{client} receives nothing", ""]
        steps += self.steps.strip("\n").splitlines()
        if fence == "exact" and server.delay_ms:
            steps = _with_waits(steps, server.delay_ms + 1)
        return "\n".join([*filter(None, lines), "", *steps, ""])


def _with_waits(steps: list[str], ms: float) -> list[str]:
    """In virtual time nothing comes later unless time passes: let it pass at the end of each turn's actions."""
    found: list[str] = []
    acting = False
    for step in steps:
        if not step.startswith(" "):
            expects = _EXPECTS.match(step) is not None
            if expects and acting:
                found.append(f"wait {ms * 1000:.0f}us")
            acting = bool(step) and not expects
        found.append(step)
    return found


_ALL = """
in any order, the same for carol dave:
    < MSG ann one
    < MSG bob two
in any order:
    ann< MSG bob two
    bob< MSG ann one
"""

SMALL_TALK = "ann> HELLO\nann< HI\n\n" * 3
"""Turns that reach no other client, as many as are watched for longer."""

SCRIPTS = [
    # Behaviour of every correct server, however late it is.
    Script("talk", "ann> MSG one\nbob< MSG ann one\ncarol< MSG ann one\n\nbob> MSG two\nann< MSG bob two\ncarol< MSG bob two"),
    Script(
        "order",
        "ann>> MSG one\\nMSG two\\n\nbob< MSG ann one\nbob< MSG ann two",
        clients=("ann", "bob"),
        breaks=frozenset({"dup", "echo", "reverse"}),
    ),
    Script(
        "relay",
        "ann> MSG one\nbob> MSG two\nann< MSG bob two\nbob< MSG ann one\ncarol< MSG ann one\ncarol< MSG bob two",
    ),
    Script(
        "farewell",
        "ann>> MSG bye\\nQUIT\\n\nann< Goodbye!\nann is closed\nbob< MSG ann bye\nbob< INFO ann left",
        clients=("ann", "bob"),
        breaks=frozenset({"dup", "echo", "partdup", "drop"}),
    ),
    Script(
        "leaving",
        "ann closes\nbob< INFO ann left\ncarol< INFO ann left\n\nbob> MSG one\ncarol< MSG bob one",
        breaks=frozenset({"dup", "echo", "partdup"}),
    ),
    Script(
        "pings",
        "ann> PING\nann< PONG\n\nann> MSG one\nbob< MSG ann one\n\nann> PING\nann< PONG",
        clients=("ann", "bob"),
    ),
    Script(
        "together",
        "together:\n    ann> MSG one\n    bob> MSG two\n" + _ALL.strip("\n"),
        clients=("ann", "bob", "carol", "dave"),
    ),
    Script(
        "outsider",
        "ann> MSG one\nbob< MSG ann one",
        breaks=frozenset({"dup", "echo", "stranger"}),
        header="fence-after: LOGIN",
    ),
    Script(
        "half-close",
        "ann half-closes\nann is closed\nbob< INFO ann left",
        clients=("ann", "bob"),
        breaks=frozenset({"partdup"}),
    ),
    Script("abort", "ann aborts\nbob< INFO ann left", clients=("ann", "bob"), breaks=frozenset({"partdup"})),
    Script(
        "slow reader",
        "ann stops reading\nbob> MSG one\ncarol< MSG bob one\n\nann reads again\nann< MSG bob one",
    ),
    Script("split", "ann>> MSG o\nann>> ne\\n\nbob< MSG ann one", clients=("ann", "bob")),
    # Behaviour of no server of the zoo, except those with exactly this flaw.
    Script("twice", "ann> MSG one\nbob< MSG ann one\nbob< MSG ann one", clients=("ann", "bob"), asks="a missing line"),
    Script(
        "backwards",
        "ann>> MSG one\\nMSG two\\n\nbob< MSG ann two\nbob< MSG ann one",
        clients=("ann", "bob"),
        asks="a missing line",
    ),
    Script("silence", "ann> MSG one\nbob receives nothing", clients=("ann", "bob"), asks="silence"),
    Script(
        "a turn late",
        "ann> MSG one\nbob receives nothing\n\nann> HELLO\nann< HI\nbob< MSG ann one",
        clients=("ann", "bob"),
        asks="silence",
    ),
    Script("silent leaving", "ann closes\nbob receives nothing", clients=("ann", "bob"), asks="silent leaving"),
    Script(
        "late leaving",
        "ann closes\nbob receives nothing\n\nbob> HELLO\nin any order:\n    bob< HI\n    bob< INFO ann left",
        clients=("ann", "bob"),
        asks="silent leaving",
    ),
    Script(
        "late after leaving",
        "ann closes\nbob< INFO ann left\ncarol< INFO ann left\n\nbob> MSG one\ncarol receives nothing\n\n"
        "bob> HELLO\nbob< HI\ncarol< MSG bob one",
        asks="silence",
    ),
    Script(
        "late in a crowd",
        "ann> MSG one\nbob receives nothing\n\nann> HELLO\nann< HI\n"
        "in any order:\n    bob< MSG ann one\n    carol< MSG ann one\n    dave< MSG ann one\n    eve< MSG ann one",
        clients=("ann", "bob", "carol", "dave", "eve"),
        asks="silence",
    ),
    Script(
        "late after small talk",
        f"{SMALL_TALK}ann> MSG one\nbob receives nothing\n\nann> HELLO\nann< HI\n"
        "in any order:\n    bob< MSG ann one\n    carol< MSG ann one\n    dave< MSG ann one\n    eve< MSG ann one",
        clients=("ann", "bob", "carol", "dave", "eve"),
        asks="silence",
        unwatched=True,
    ),
    Script(
        "late copy",
        "ann> MSG one\nbob< MSG ann one\n\nann> HELLO\nann< HI\nbob< MSG ann one",
        clients=("ann", "bob"),
        asks="a late copy",
        unwatched=True,
    ),
    Script("unaware", "ann> HELLO\nann< HI", clients=("ann",), asks="no greeting"),
]  # fmt: skip
