"""The queue of outgoing messages: in order, a bounded number unanswered, and nothing said twice after a lost connection."""

from __future__ import annotations

from geventchat.client.outgoing_queue import MAX_UNDER_WAY, OutgoingQueue
from geventchat.client.windows import Outgoing, Window

LOBBY = Window("lobby", "lobby", joined=True)


def filled(count: int) -> tuple[OutgoingQueue, list[Outgoing]]:
    queue, typed = OutgoingQueue(), [Outgoing(LOBBY, f"text {number}") for number in range(count)]
    LOBBY.pending.clear()
    for outgoing in typed:
        queue.add(outgoing)
    return queue, typed


def sent(queue: OutgoingQueue) -> list[Outgoing]:
    """Everything that can be sent now."""
    return list(iter(lambda: queue.next(lambda _: True), None))


def test_messages_are_sent_in_order_and_a_bounded_number_is_unanswered() -> None:
    queue, typed = filled(MAX_UNDER_WAY + 2)
    assert sent(queue) == typed[:MAX_UNDER_WAY]
    queue.decide(typed[0])
    assert sent(queue) == [typed[MAX_UNDER_WAY]]
    assert (queue.sends_itself, queue.unsent) == (MAX_UNDER_WAY + 1, 1)
    assert typed[0] not in LOBBY.pending


def test_a_message_that_has_to_wait_is_not_overtaken() -> None:
    queue, typed = filled(2)
    assert queue.next(lambda outgoing: outgoing is not typed[0]) is None
    assert sent(queue) == typed


def test_what_was_under_way_is_doubtful_after_a_lost_connection_and_comes_first() -> None:
    queue, typed = filled(3)
    queue.next(lambda _: True)
    queue.next(lambda _: True)
    queue.arrived([LOBBY], "text 1", "")
    queue.offline()
    assert (typed[0].doubtful, typed[1].doubtful, typed[2].doubtful) == (True, False, False)
    assert LOBBY.pending == [typed[0], typed[2]]
    assert sent(queue) == [typed[0], typed[2]]


def test_a_doubtful_message_that_has_arrived_is_not_sent_again() -> None:
    queue, typed = filled(2)
    sent(queue)
    queue.offline()
    queue.arrived([LOBBY], "text 0", "")
    assert sent(queue) == typed[1:]


def test_what_is_held_waits_for_a_decision() -> None:
    queue, typed = filled(2)
    queue.next(lambda _: True)
    queue.offline()
    assert queue.hold_doubtful() == 1
    assert (queue.held, queue.sends_itself) == (1, 1)
    assert sent(queue) == typed[1:]
    assert queue.release(drop=True) == 1
    assert (queue.release(drop=True), LOBBY.pending) == (0, typed[1:])
