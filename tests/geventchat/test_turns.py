"""Turns: each iteration of the event loop lets a few go on, in the order in which they asked."""

from __future__ import annotations

from typing import Any

import gevent

from geventchat.net.turns import Turns


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
        """Somebody waits for a turn."""

        def body() -> None:
            self.turns.wait(self, share)
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


def test_whoever_leaves_does_not_take_a_turn():
    scene = Scene()
    clients = [scene.ask(name) for name in "abc"]
    gevent.sleep(0)
    clients[1].kill()
    gevent.joinall(clients)
    assert scene.groups() == ["a", "c"]
    assert not scene.turns._waiting


def test_no_timer_runs_while_nobody_waits():
    scene = Scene()
    assert scene.ask_all("a") == ["a"]
    assert scene.turns._timer is None
    assert scene.ask_all("b") == ["a", "b"]
