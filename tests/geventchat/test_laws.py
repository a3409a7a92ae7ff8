"""Two hundred clients talk, leave and take each other's names; nothing is lost, doubled, reordered or given to two."""

from __future__ import annotations

from collections import Counter

from harness import InProcess
from harness.interception.schedule import Schedule
from harness.laws.history import Law
from harness.laws.traffic import Granted, Message, Refused, check_laws, report
from harness.report.styled_text import plain
from tests.app import serve
from tests.geventchat.model.laws import EveryDialect, LineChat, SlashChat


def test_two_hundred_clients_see_no_law_broken() -> None:
    judged = check_laws(LineChat, InProcess(serve), clients=200, seconds=3, rate=200)
    assert not judged.broken, plain(report(judged))
    assert judged.history.heard > 100_000


def test_no_law_is_broken_under_a_perturbed_schedule() -> None:
    target = InProcess(serve).intercepted_by(Schedule(3))
    judged = check_laws(LineChat, target, clients=40, seconds=4, rate=100)
    assert not judged.broken, plain(report(judged))
    assert judged.history.heard > 5_000


SAID = {
    "line": "MSG ",
    "json": '{"type": "chat", "username": ',
    "json, version 2": '{"type": "chat", "room": ',
    "slash": "",
}
"""How what someone said begins in each dialect."""


def test_clients_of_every_dialect_in_one_room_see_no_law_broken() -> None:
    judged = check_laws(EveryDialect, InProcess(serve), clients=80, seconds=3, rate=200)
    assert not judged.broken, plain(report(judged))
    received = Counter(_dialect(one[-1]) for session in judged.history.sessions for one in session.heard)
    assert set(received) == set(SAID)
    assert min(received.values()) > 5_000


def _dialect(line: str) -> str:
    return next(name for name, beginning in SAID.items() if line.startswith(beginning))


class LossySlashChat(SlashChat):
    """Misses one message in a hundred."""

    def __init__(self) -> None:
        self._received = 0

    def read(self, line: str) -> Granted | Refused | Message | None:
        meaning = super().read(line)
        self._received += isinstance(meaning, Message)
        return None if isinstance(meaning, Message) and self._received % 100 == 99 else meaning


def test_what_is_lost_in_one_dialect_is_found() -> None:
    class Model(EveryDialect):
        dialects = (("line", LineChat()), ("slash", LossySlashChat()))

    judged = check_laws(Model, InProcess(serve), clients=20, seconds=2, rate=200)
    assert set(judged.broken) == {Law.LOST}
    _, breach = judged.broken[Law.LOST]
    assert breach.evidence[0].text == "< Connected! Type /help for commands"
