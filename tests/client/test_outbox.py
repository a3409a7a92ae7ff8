"""The outbox: in order, a bounded number unanswered, and nothing said twice after a lost connection."""

from __future__ import annotations

from geventchat.client.outbox import MAX_UNDER_WAY, OutgoingQueue
from geventchat.client.windows import Outgoing, Window

LOBBY = Window("lobby", "lobby", joined=True)


def filled(count: int) -> tuple[OutgoingQueue, list[Outgoing]]:
    outbox, typed = OutgoingQueue(), [Outgoing(LOBBY, f"text {number}") for number in range(count)]
    LOBBY.pending.clear()
    for outgoing in typed:
        outbox.add(outgoing)
    return outbox, typed


def sent(outbox: OutgoingQueue) -> list[Outgoing]:
    """Everything that can be sent now."""
    return list(iter(lambda: outbox.next(lambda _: True), None))


def test_messages_are_sent_in_order_and_a_bounded_number_is_unanswered() -> None:
    outbox, typed = filled(MAX_UNDER_WAY + 2)
    assert sent(outbox) == typed[:MAX_UNDER_WAY]
    outbox.decide(typed[0])
    assert sent(outbox) == [typed[MAX_UNDER_WAY]]
    assert (outbox.sends_itself, outbox.unsent) == (MAX_UNDER_WAY + 1, 1)
    assert typed[0] not in LOBBY.pending


def test_a_message_that_has_to_wait_is_not_overtaken() -> None:
    outbox, typed = filled(2)
    assert outbox.next(lambda outgoing: outgoing is not typed[0]) is None
    assert sent(outbox) == typed


def test_what_was_under_way_is_doubtful_after_a_lost_connection_and_comes_first() -> None:
    outbox, typed = filled(3)
    outbox.next(lambda _: True)
    outbox.next(lambda _: True)
    outbox.arrived([LOBBY], "text 1", "")
    outbox.offline()
    assert (typed[0].doubtful, typed[1].doubtful, typed[2].doubtful) == (True, False, False)
    assert LOBBY.pending == [typed[0], typed[2]]
    assert sent(outbox) == [typed[0], typed[2]]


def test_a_doubtful_message_that_has_arrived_is_not_sent_again() -> None:
    outbox, typed = filled(2)
    sent(outbox)
    outbox.offline()
    outbox.arrived([LOBBY], "text 0", "")
    assert sent(outbox) == typed[1:]


def test_what_is_held_waits_for_a_decision() -> None:
    outbox, typed = filled(2)
    outbox.next(lambda _: True)
    outbox.offline()
    assert outbox.hold_doubtful() == 1
    assert (outbox.held, outbox.sends_itself) == (1, 1)
    assert sent(outbox) == typed[1:]
    assert outbox.release(drop=True) == 1
    assert (outbox.release(drop=True), LOBBY.pending) == (0, typed[1:])
