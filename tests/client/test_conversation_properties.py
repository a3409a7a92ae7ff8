"""Whatever a server sends, no control character is shown, and every message that was typed arrives once."""

from __future__ import annotations

import json
from unicodedata import category

from hypothesis import given
from hypothesis import strategies as st

from tests.client.test_conversation import Many, one_room, state


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["MSG", "DM", "INFO", "ERR", "USER", "PONG", "OK", "HIST", "TOPIC", ""]),
            st.text(),
        )
    ),
)
def test_nothing_that_a_server_sends_acts_on_the_terminal(lines: list[tuple[str, str]]) -> None:
    run = one_room()
    for word, text in lines:
        shown = run.receive(f"{word} {text}".replace("\n", " "))
        for seen in [*shown, *run.session.conversation.others]:
            assert not any(category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in seen)


ACTIONS = st.lists(
    st.one_of(
        st.just("type"),
        st.tuples(st.just("handle"), st.integers(1, 5)),
        st.tuples(st.just("answer"), st.integers(1, 5)),
        st.just("lose"),
        st.just("other"),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_every_message_is_said_once_and_in_order_whenever_the_connection_is_lost(
    actions: list[object],
) -> None:
    """A server that handles what it received, answers later, and can lose the connection at any moment in between."""
    many = Many()
    said: list[tuple[str, str]] = []
    keys: set[str] = set()
    unhandled: list[dict[str, str]] = []
    answers: list[dict[str, object]] = []
    typed = 0

    def handle(request: dict[str, str]) -> None:
        if request["type"] != "chat":
            return
        if request["key"] not in keys:
            keys.add(request["key"])
            said.append(("alice", request["message"]))
            answers.append(chat(len(said)))
        answers.append({"type": "ok", "ref": request["ref"], "room": "lobby", "id": 1})

    def chat(id: int) -> dict[str, object]:
        name, text = said[id - 1]
        return {"type": "chat", "room": "lobby", "id": id, "username": name, "message": text}

    def take() -> None:
        unhandled.extend(many.sent())

    def reconnect() -> None:
        nonlocal unhandled, answers
        take()
        # What the server had received it still handles, or not; the answers are lost.
        for request in unhandled[: len(unhandled) // 2]:
            handle(request)
        unhandled, answers = [], []
        many.run.hang_up()
        many.run.wait(1)
        after = json.loads(many.run.accept())["rooms"]["lobby"]
        many.welcome({"lobby": state(len(said), replay_from=after + 1)})
        for id in range(after + 1, len(said) + 1):
            many.receive(**chat(id))
        take()

    for action in actions:
        match action:
            case "type":
                typed += 1
                many.type(f"text {typed}")
            case ("handle", int(count)):
                take()
                for _ in range(min(count, len(unhandled))):
                    handle(unhandled.pop(0))
            case ("answer", int(count)):
                for _ in range(min(count, len(answers))):
                    many.receive(**answers.pop(0))
            case "lose":
                reconnect()
            case _:
                said.append(("bob", "hello"))
                answers.append(chat(len(said)))
    for _ in range(200):
        take()
        if not unhandled and not answers:
            break
        while unhandled:
            handle(unhandled.pop(0))
        while answers:
            many.receive(**answers.pop(0))
    expected = [f"text {number}" for number in range(1, typed + 1)]
    assert [text for name, text in said if name == "alice"] == expected
    assert [text for text in many.texts() if text != "hello"] == expected
    assert many.texts() == [text for _, text in said]
    assert many.talk.waiting == 0
    assert many.talk.current.pending == []
