"""Hours of virtual time with two hundred clients, each byte they receive compared with a model."""

from __future__ import annotations

from tests.fire.soak import soak


def test_an_hour_over_tls_agrees_with_the_model_too() -> None:
    run = soak(hours=1, clients=60, seed=1, over="tls")
    assert {"stall", "vanish", "half-close", "paste"} <= set(run.actions)
    assert run.compared_bytes > 500_000


def test_an_hour_over_websockets_agrees_with_the_model_too() -> None:
    run = soak(hours=1, clients=60, seed=2, over="websocket")
    assert {"stall", "vanish", "half-close", "paste", "half a line"} <= set(run.actions)
    assert run.compared_bytes > 500_000


def test_three_hours_agree_with_the_model_and_leave_nothing_behind() -> None:
    run = soak(hours=3, clients=200, seed=20)
    # The seed makes sure that everything happens.
    expected = {"be disconnected as idle", "be disconnected without login", "be dropped as slow", "paste"}
    assert expected | {"stall", "vanish", "half-close", "find out about the disconnect"} <= set(run.actions)
    assert run.compared_bytes > 10_000_000
