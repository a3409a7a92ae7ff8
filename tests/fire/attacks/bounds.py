"""The promises of SECURITY.md as numbers, and which of them a trial has broken. Pure: knows no process and no clock.

The only place for these formulas: SECURITY.md, the tests of single attacks and the search all use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geventchat import Limits

if TYPE_CHECKING:
    from tests.fire.attacks.play import Measured

# A connection in use: its greenlet, its socket, its token buckets and its objects. An idle one costs about 10 KB.
CONNECTION_BYTES = 16_384
# The longest name, 20 letters of twelve bytes each in JSON, with its quotation marks, comma and space.
PERSON_BYTES = 244
# The largest answer that does not list everyone: a page of history, or a login to 50 rooms.
ANSWER_BYTES = 900_000
# A name that a client has written to, 20 letters of four bytes, and its entry in a dictionary: 208 bytes were measured.
CONTACT_BYTES = 256
# A view holds on to at most twice its bytes, and small pieces are objects.
OUTPUT_FACTOR = 3
# Everything that happens "at once" according to SECURITY.md, with room for a busy machine.
NAME_FREE_S = 0.1
# A busy machine adds this to every wait.
UNHURRIED_S = 5.0
# The remaining work for clients that have gone, in seconds of CPU per second.
CPU_AFTER_PER_S = 0.5
# One piece of input grows by this in the dialect that spells it with the most bytes: 64 lines, each with the longest name.
_GROWTH = 8
# A connection is connected, logged in and disconnected; a few lines are the server's own.
_OWN_LOG_LINES = 100
# A process that was not given the processor for this long has measured nothing about the server.
STARVED_S = 1.0


def worst_memory_bytes(
    limits: Limits, clients: int, *, people: int | None = None, behind: int | None = None
) -> int:
    """The most memory that these clients can cost.

    `people` of them are logged in, and `behind` of them have output waiting; by default all.
    """
    people = clients if people is None else people
    behind = clients if behind is None else behind
    each = CONNECTION_BYTES + limits.line_bytes + limits.chunk_bytes + limits.piece_bytes
    each += CONTACT_BYTES * min(limits.contacts, people)
    answer = max(ANSWER_BYTES, PERSON_BYTES * people)
    output = OUTPUT_FACTOR * (limits.queue_bytes + limits.answer_bytes + answer)
    return clients * each + behind * output


def worst_wait_s(limits: Limits, addresses: int) -> float:
    """How long a speaker or a newcomer can wait at the room's gate: a piece of input per address, at the floor rate."""
    if not limits.floor_bytes_per_s:
        return 0.0
    return addresses * _GROWTH * limits.piece_bytes / limits.floor_bytes_per_s


def worst_log_lines(limits: Limits, addresses: int, seconds: float) -> float:
    """The most lines that clients of this many addresses can write to the log in this time."""
    each = limits.address_burst_log_lines + limits.address_log_lines_per_s * seconds
    return addresses * each + _OWN_LOG_LINES


@dataclass(frozen=True, slots=True)
class Broken:
    """A bound that was exceeded: its name, what was measured, and what is allowed."""

    bound: str
    measured: str
    allowed: str
    # False if a busy machine alone can be the cause.
    strict: bool = True

    def __str__(self) -> str:
        return f"{self.bound}: {self.measured}, allowed: {self.allowed}"


def broken(measured: Measured, limits: Limits | None = None) -> list[Broken]:
    """Every bound that this trial has exceeded."""
    limits = limits or Limits()
    found = []
    if measured.died:
        found.append(Broken("the server runs on", "it died", "nothing ends it but a signal"))
    if measured.tracebacks:
        found.append(Broken("no input raises", f"{measured.tracebacks} tracebacks in the log", "none"))
    if measured.memory_bytes > measured.promised_bytes:
        found.append(
            Broken(
                "worst case of memory",
                f"{measured.memory_bytes:,} bytes",
                f"{measured.promised_bytes:,} for {measured.connected} clients",
            )
        )
    if measured.disconnected:
        found.append(
            Broken(
                "who keeps reading is not disconnected",
                ", ".join(measured.disconnected),
                "none",
                strict=measured.readers_paused_s < STARVED_S,
            )
        )
    if measured.names_taken:
        found.append(
            Broken("a name is free at once", f"{measured.names_taken} taken after {NAME_FREE_S} s", "none")
        )
    if measured.connections_left:
        found.append(
            Broken(
                "clients that have gone are not connected",
                f"{measured.connections_left} connections",
                "none",
                strict=False,
            )
        )
    lines = worst_log_lines(limits, measured.addresses, measured.log_s)
    if measured.log_lines > lines:
        found.append(Broken("log lines per address", f"{measured.log_lines:,} lines", f"{lines:,.0f}"))
    # A server that was starved during the attack still has to do what it could not do then.
    if measured.cpu_after_per_s > CPU_AFTER_PER_S and measured.starved_s < STARVED_S:
        found.append(
            Broken(
                "no work for clients that have gone",
                f"{measured.cpu_after_per_s:.2f} s of CPU per second",
                f"{CPU_AFTER_PER_S}",
                strict=False,
            )
        )
    wait_ms = 1000 * (
        worst_wait_s(limits, measured.addresses) + UNHURRIED_S + measured.stopped_s + measured.starved_s
    )
    if measured.newcomer_ms > wait_ms:
        found.append(
            Broken(
                "a newcomer can log in",
                f"{measured.newcomer_ms:.0f} ms",
                f"{wait_ms:.0f} ms",
                strict=False,
            )
        )
    if measured.latency_p99_ms > wait_ms:
        found.append(
            Broken(
                "speakers wait one address after the other",
                f"{measured.latency_p99_ms:.0f} ms",
                f"{wait_ms:.0f} ms",
                strict=False,
            )
        )
    return found
