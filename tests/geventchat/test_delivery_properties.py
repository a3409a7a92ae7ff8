"""Random histories of delivery, compared with a model that writes everything to every client at once.

The fast path (one join per batch, shared bytes, holes, backlogs, gates) must produce the same bytes as the model, whichever
clients join, leave, stall, wait, fail or take one byte at a time. The invariants of delivery.py are checked after each step.
"""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from geventchat.dialects import DIALECTS
from geventchat.net.waiter import CloseReason
from tests.geventchat.delivery_world import World, in_world

MOST_CLIENTS = 8
CLIENT = st.integers(0, MOST_CLIENTS - 1)
TEXT = st.text("abc", min_size=1, max_size=20)
LONG_TEXT = st.sampled_from(["d" * 90, "e" * 300, "f" * 700])
CONNECT = st.tuples(
    st.just("connect"),
    st.sampled_from(sorted(DIALECTS)),
    st.sampled_from([0, 7, 60, 500, 10**9, 10**9]),
    st.sampled_from(["login", "login", "login_invalid"]),
)
STEPS = st.one_of(
    CONNECT,
    st.tuples(st.just("login"), CLIENT),
    st.tuples(st.just("login_invalid"), CLIENT),
    st.tuples(st.just("say"), CLIENT, TEXT),
    st.tuples(st.just("say"), CLIENT, *[TEXT] * 3),
    st.tuples(st.just("say"), CLIENT, LONG_TEXT),
    st.tuples(st.just("send_direct"), CLIENT, CLIENT, st.one_of(TEXT, LONG_TEXT)),
    st.tuples(st.just("send_direct"), CLIENT, CLIENT, TEXT),
    st.tuples(st.just("ping"), CLIENT, st.one_of(st.just("x"), LONG_TEXT)),
    st.tuples(st.just("who"), CLIENT),
    st.tuples(st.just("enter"), CLIENT, st.sampled_from(["lobby", "dev", "dev", "dev", "tea"])),
    st.tuples(st.just("leave_room"), CLIENT),
    st.tuples(st.just("list_rooms"), CLIENT),
    st.tuples(st.just("set_topic"), CLIENT, TEXT),
    st.tuples(st.just("quit"), CLIENT),
    st.tuples(st.just("hang_up"), CLIENT, st.booleans()),
    st.tuples(st.just("flush")),
    st.tuples(st.just("flush")),
    st.tuples(st.just("advance"), st.sampled_from([0.05, 0.5, 2.0, 10.0])),
    st.tuples(st.just("free_space"), CLIENT, st.sampled_from([1, 13, 100, 500, 10**6])),
    st.tuples(st.just("fail"), CLIENT, st.sampled_from([BrokenPipeError, MemoryError, ZeroDivisionError])),
)
HISTORIES = st.tuples(
    st.lists(CONNECT, max_size=5),
    st.one_of(st.lists(STEPS, max_size=80), st.lists(STEPS, min_size=30, max_size=80)),
).map(lambda parts: parts[0] + parts[1])
# A client that cannot be sent what a batch holds that stays open.
FAILS_IN_AN_OPEN_BATCH = [*[("connect", "json", 0, "login")] * 3, ("fail", 3, MemoryError)]
# Departures that had to wait fill a batch that is open.
FILLS_AN_OPEN_BATCH = [
    *[("connect", "json", 0, "login")] * 6,
    *[("quit", 0), ("flush",), ("connect", "json", 0, "login"), ("quit", 1), ("quit", 2)],
]
# A client that quits, which lets a departure be announced that had to wait.
QUITS_BEHIND_A_DEPARTURE = [
    *[("connect", "json", 0, "login"), ("connect", "line", 0, "login"), ("quit", 0), ("quit", 1)],
]
# A client that logs in while an answer from before its login is still waiting.
ANSWERED_BEFORE_LOGIN = [("connect", "line", 0, "login_invalid"), ("flush",)]
LOSS = {
    BrokenPipeError: CloseReason.RESET,
    MemoryError: CloseReason.FAULT,
    ZeroDivisionError: CloseReason.FAULT,
}


def play(world: World, history: list[tuple]) -> None:
    world.member()
    for action, *details in history:
        clients = [world.clients[item % len(world.clients)] for item in details if type(item) is int]
        match action:
            case "connect":
                if len(world.clients) < MOST_CLIENTS:
                    dialect, free_bytes, first = details
                    getattr(world, first)(world.connect(dialect, free_bytes))
            case "free_space":
                world.free_space(clients[0], details[1])
            case "fail":
                clients[0].socket.error = clients[0].socket.error or details[1]()
            case "hang_up":
                world.hang_up(clients[0], details[1])
            case "flush":
                world.flush()
            case "advance":
                world.advance(details[0])
            case _:
                getattr(world, action)(*clients, *[item for item in details if type(item) is str])
        world.check()
    for client in world.clients:
        if client.socket.error is not None and client.lost not in {None, CloseReason.SLOW}:
            assert client.lost is LOSS[type(client.socket.error)]
    world.check_end()


@settings(max_examples=400)
@given(history=HISTORIES, large_room=st.sampled_from([500, 3]))
@example(history=FAILS_IN_AN_OPEN_BATCH, large_room=1)
@example(history=FILLS_AN_OPEN_BATCH, large_room=1)
@example(history=QUITS_BEHIND_A_DEPARTURE, large_room=500)
@example(
    history=[*ANSWERED_BEFORE_LOGIN, ("login", 1), ("flush",), ("say", 0, "a"), ("flush",)], large_room=500
)
@example(
    history=[*ANSWERED_BEFORE_LOGIN, ("say", 0, "a"), ("login", 1), ("say", 0, "b"), ("flush",)],
    large_room=500,
)
def test_everyone_receives_what_the_model_says(history: list[tuple], large_room: int):
    in_world(lambda world: play(world, history), large_room=large_room)
