"""Turns: each iteration of the event loop lets a few go on, in the order in which they asked."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import gevent
import gevent.socket
import pytest

from geventchat import Config, Listen, Server
from geventchat.chat.commands import Command, Login, Say
from geventchat.chat.sessions import Session
from geventchat.net.connection import _LOGINS_IN_TURN
from geventchat.net.turns import _INPUTS_AT_ONCE, InputTurns, Turns
from tests.patience import HANG_S


class Scene:
    """Everyone who has gone on, with the number of the iteration."""

    def __init__(self) -> None:
        self._hub = gevent.get_hub()
        self.turns = Turns(self._hub)
        self.went: list[tuple[str, int]] = []

    def until_turn(self, watcher: Any) -> None:
        """Wait as a connection would."""
        self._hub.wait(watcher)

    def ask(self, name: str, share: float = 1.0) -> gevent.Greenlet[..., None]:
        """A client waits for a turn."""

        def body() -> None:
            self.turns.wait(self, share)
            self.went.append((name, self._hub.loop.iteration))

        return gevent.spawn(body)

    def take(self, name: str, share: float = 1.0) -> gevent.Greenlet[..., None]:
        """A client takes a turn."""

        def body() -> None:
            self.turns.take(self, share)
            self.went.append((name, self._hub.loop.iteration))

        return gevent.spawn(body)

    def ask_all(self, names: str, share: float = 1.0) -> list[str]:
        """All of these at once; returns who went on in each iteration."""
        gevent.joinall([self.ask(name, share) for name in names])
        return self.groups()

    def groups(self) -> list[str]:
        groups: dict[int, str] = {}
        for name, iteration in self.went:
            groups[iteration] = groups.get(iteration, "") + name
        return ["".join(sorted(group)) for group in groups.values()]


def test_each_iteration_lets_one_go_on_in_the_order_in_which_they_asked():
    assert Scene().ask_all("abc") == ["a", "b", "c"]


def test_small_shares_go_on_together_up_to_one_turn():
    assert Scene().ask_all("abcde", 1 / 2) == ["ab", "cd", "e"]


def test_a_client_that_leaves_does_not_take_a_turn():
    scene = Scene()
    clients = [scene.ask(name) for name in "abc"]
    gevent.sleep(0)
    clients[1].kill()
    gevent.joinall(clients)
    assert scene.groups() == ["a", "c"]
    assert not scene.turns._waiting


def test_no_timer_runs_while_no_client_waits():
    scene = Scene()
    assert scene.ask_all("a") == ["a"]
    assert scene.turns._timer is None
    assert scene.ask_all("b") == ["a", "b"]


@pytest.mark.parametrize(
    ("share", "groups"), [(5.0, ["a", "b", "c", "d"]), (1.0, ["a", "b", "c", "d"]), (0.5, ["ab", "cd"])]
)
def test_whoever_takes_a_turn_goes_on_at_once_if_something_is_left_of_it(share: float, groups: list[str]):
    scene = Scene()
    for _ in range(2):
        scene.went.clear()
        first = gevent.get_hub().loop.iteration
        gevent.joinall([scene.take(name, share) for name in "abcd"])
        assert scene.groups() == groups
        # The spawned greenlets begin in the iteration that comes.
        assert scene.went[0][1] <= first + 1
        gevent.sleep(0.001)
    assert scene.turns._timer is None


def test_nobody_overtakes_those_who_wait():
    scene = Scene()
    clients = [scene.take("a"), scene.ask("b"), scene.take("c", 0.1), scene.take("d", 0.1)]
    gevent.joinall(clients)
    assert scene.groups() == ["a", "b", "cd"]


# --- Logins ----------------------------------------------------------------------------------------------------------


def test_logins_that_come_at_the_same_moment_are_few_in_each_iteration_and_those_who_chat_go_on_in_between(
    monkeypatch: pytest.MonkeyPatch,
):
    logins: list[int] = []
    said: list[int] = []
    # On the real loop: in virtual time, a timer that is due at once does not wait for the next iteration.
    with ExitStack() as stack:
        config = Config(listen=(Listen("line", "127.0.0.1", 0),))
        server = stack.enter_context(Server(config, log=lambda *_, **__: None))
        handle = server.context.chat.handle

        def noted(session: Session, command: Command) -> Any:
            if isinstance(command, Login | Say):
                (logins if isinstance(command, Login) else said).append(gevent.get_hub().loop.iteration)
            return handle(session, command)

        def connect() -> gevent.socket.socket:
            address = server.addresses["line"]
            return stack.enter_context(gevent.socket.create_connection(address, HANG_S))

        talker = connect()
        talker.sendall(b"LOGIN talker\n")
        assert talker.recv(3) == b"OK\n"
        crowd = [connect() for _ in range(5 * _LOGINS_IN_TURN)]
        monkeypatch.setattr(server.context.chat, "handle", noted)
        with gevent.Timeout(HANG_S):
            while len(server._connections.open) <= len(crowd):
                gevent.sleep(0)
            for number, client in enumerate(crowd):
                client.sendall(f"LOGIN p{number}\n".encode())
            talker.sendall(b"MSG hi\n")
            while len(logins) < len(crowd):
                gevent.sleep(0)
    assert max(Counter(logins).values()) == _LOGINS_IN_TURN
    assert len(said) == 1
    assert sum(one > said[0] for one in logins) >= 3 * _LOGINS_IN_TURN


# --- Input -----------------------------------------------------------------------------------------------------------


class Crowd:
    """Pairs of sockets whose ends wait for input, and who has gone on in which iteration."""

    def __init__(self, size: int) -> None:
        self.hub = gevent.get_hub()
        self.turns = InputTurns(self.hub)
        self.pairs = [socket.socketpair() for _ in range(size)]
        self.watchers = [self.turns.watcher(theirs.fileno()) for _, theirs in self.pairs]
        self.went: list[tuple[int, int]] = []

    def wait(self, number: int) -> gevent.Greenlet[..., None]:
        def body() -> None:
            self.hub.wait(self.watchers[number])
            self.pairs[number][1].recv(100)
            self.went.append((number, self.hub.loop.iteration))

        return gevent.spawn(body)

    def close(self) -> None:
        for watcher, pair in zip(self.watchers, self.pairs, strict=True):
            watcher.close()
            for sock in pair:
                sock.close()
        assert not self.turns._waiting
        self.turns.close()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    crowd = Crowd(3 * _INPUTS_AT_ONCE + 1)
    yield crowd
    crowd.close()


def test_those_whose_input_has_arrived_go_on_a_few_at_a_time_in_its_order(crowd: Crowd):
    everyone = range(len(crowd.pairs))
    for _ in range(2):
        crowd.went.clear()
        waiting = [crowd.wait(number) for number in everyone]
        gevent.sleep(0)
        for number in reversed(everyone):
            crowd.pairs[number][0].send(b"x")
        gevent.joinall(waiting)
        assert [number for number, _ in crowd.went] == list(reversed(everyone))
        each = Counter(iteration for _, iteration in crowd.went)
        assert sorted(each.values()) == [1, *[_INPUTS_AT_ONCE] * 3]


def test_an_end_and_an_error_are_input(crowd: Crowd):
    ended = crowd.wait(0), crowd.wait(1)
    gevent.sleep(0)
    crowd.pairs[0][0].shutdown(socket.SHUT_WR)
    crowd.pairs[1][0].close()
    gevent.joinall(ended, HANG_S)
    assert {number for number, _ in crowd.went} == {0, 1}


def test_a_wait_that_is_given_up_is_not_ended_by_what_arrives_later_and_the_next_one_is(crowd: Crowd):
    given_up = crowd.wait(0)
    gevent.sleep(0)
    given_up.kill()
    crowd.pairs[0][0].send(b"x")
    other = crowd.wait(1)
    gevent.sleep(0)
    crowd.pairs[1][0].send(b"x")
    other.join()
    assert [number for number, _ in crowd.went] == [1]
    crowd.wait(0).join()
    assert [number for number, _ in crowd.went] == [1, 0]
