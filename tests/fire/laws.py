"""Hundreds of clients of every dialect talk to a real server, leave, come back and claim each other's names, in real time. The
order of what they receive is not known, so it is judged by laws.

Knows the server as a process, and leaves the traffic and the judging to the harness.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from harness import Address
from harness.laws.traffic import DialectsModel, check_laws, report, silent
from harness.report.styled_text import plain
from tests.fire.process import NO_ADDRESS_RATES, ServerProcess, wait_for
from tests.geventchat.model.laws import RunningServer


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one run was, in which no law was broken."""

    seconds: float
    clients: int
    connections: int
    said: int
    received: int
    resident_mb_before: float
    resident_mb_after: float


def traffic(
    clients: int,
    seconds: float,
    rate: float,
    seed: int,
    make_model: Callable[[], DialectsModel] = RunningServer,
) -> Traffic:
    """Let them talk for this long; no law is broken, and the server has nothing left of them and logged no error."""
    options = (
        "--rate=0",
        "--idle-timeout=0",
        *NO_ADDRESS_RATES,
        f"--max-clients={2 * clients}",
        f"--max-per-address={2 * clients}",
    )
    with ServerProcess(*options, dialects=("line", "json", "slash")) as server:
        descriptors, resident = server.descriptors, server.resident_bytes
        running = Address({dialect: server.address(dialect) for dialect in server.ports})
        judged = check_laws(make_model, running, clients=clients, seconds=seconds, rate=rate, seed=seed)
        history = judged.history
        assert not judged.broken, plain(report(judged))
        assert not silent(judged), silent(judged)
        wait_for("every connection is closed", lambda: server.descriptors <= descriptors)
        after = server.resident_bytes
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
        assert "Traceback" not in server.log(), server.log()
    return Traffic(
        seconds=round(history.ended_s, 1),
        clients=clients,
        connections=len(history.sessions),
        said=history.said,
        received=history.heard,
        resident_mb_before=round(resident / 1e6, 1),
        resident_mb_after=round(after / 1e6, 1),
    )
