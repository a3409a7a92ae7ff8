"""Two hundred clients talk, leave and take each other's names; nothing is lost, doubled, reordered or given to two."""

from __future__ import annotations

from harness import InProcess
from harness.interception.schedule import Schedule
from harness.laws.traffic import check_laws, report
from harness.report.styled_text import plain
from tests.app import serve
from tests.geventchat.model.laws import LineChat


def test_two_hundred_clients_see_no_law_broken() -> None:
    judged = check_laws(LineChat, InProcess(serve), clients=200, seconds=3, rate=200)
    assert not judged.broken, plain(report(judged))
    assert judged.history.heard > 100_000


def test_no_law_is_broken_under_a_perturbed_schedule() -> None:
    target = InProcess(serve).intercepted_by(Schedule(3))
    judged = check_laws(LineChat, target, clients=40, seconds=4, rate=100)
    assert not judged.broken, plain(report(judged))
    assert judged.history.heard > 5_000
