"""Programs replace each other while people chat in lines, over WebSocket and over TLS; one of the programs is broken."""

from __future__ import annotations

from tests.fire.upgrades import upgrades
from tests.patience import STANDSTILL_MS


def test_no_client_loses_anything_while_programs_replace_each_other() -> None:
    run = upgrades(46, per_s=100, times=2, stored=True, between_s=0.2)
    assert len(run.pauses_ms) == 1
    assert (run.websockets, run.tls, run.resumed) == (3, 1, 1)
    assert run.received > run.messages
    assert max(run.longest_ms, run.failed_ms) < STANDSTILL_MS, run
