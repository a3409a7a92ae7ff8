"""Bots over HTTP: they say something, read messages, and get errors that say why not."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from typing import Any

import gevent
import pytest
from gevent import socket

from geventchat import Config, Listen, Server
from geventchat.chat.bans import Ban
from geventchat.chat.commands import AskHistory, Command, ListRooms, ReadMessages, Who
from geventchat.chat.records import Restriction, RestrictionKind
from geventchat.chat.sessions import Session
from geventchat.net import connection as net_connection
from geventchat.services.passwords import Cost, Hasher, derive_here
from tests.fire.clients import State
from tests.fire.simulation import Simulation
from tests.geventchat.web_client import Answer, Socket, answers, ask, frame, request, web
from tests.patience import HANG_S

LOBBY = "/api/rooms/lobby/messages"


def registered(server: Simulation, name: str, host: str = "127.0.0.9", leaves: bool = True) -> str:
    """A token of a new account. By default its owner logs out, so that the name is not in the chat."""
    owner = Socket(server, host=host)
    owner.join(name)
    owner.say(type="register", password="correct horse")
    (issued,) = owner.say(type="token")
    if leaves:
        owner.quit()
    return str(issued["token"])


def post(server: Simulation, token: str, target: str = LOBBY, fields: str = "", **body: object) -> Answer:
    return ask(server, target, f"Authorization: Bearer {token}\n{fields}", "POST", json.dumps(body).encode())


def get(server: Simulation, token: str, target: str = LOBBY) -> dict[str, Any]:
    answer = ask(server, target, f"Authorization: bearer {token}\n")
    assert answer.status == 200
    return answer.object


def error(answer: Answer) -> tuple[int, str]:
    assert answer.object["type"] == "error"
    assert answer.fields["content-type"] == "application/json"
    assert answer.fields["cache-control"] == "no-store"
    return answer.status, answer.object["code"]


def test_a_bot_says_something_without_being_there():
    with web() as server:
        token = registered(server, "ci")
        alice, bob = Socket(server), server.connect()
        assert alice.join("alice")["rooms"]["lobby"]["users"] == ["alice"]
        bob.send_lines("LOGIN bob")
        server.run_until_idle()
        answer = post(server, token, message="deploy done")
        assert answer.object == {"type": "ok", "room": "lobby", "id": 1}
        (_, said) = alice.objects()
        assert (said["username"], said["message"], said["id"]) == ("ci", "deploy done", 1)
        assert bytes(bob.received) == b"OK\nMSG ci deploy done\n"
        assert alice.say(type="users")[0]["users"] == ["alice", "bob"]
        assert server.logged["fault"] == 0


def test_a_bot_that_is_logged_in_stays_so_and_hears_itself():
    with web() as server:
        token = registered(server, "ci")
        present = server.connect()
        present.send_lines("LOGIN ci correct horse")
        server.run_until_idle()
        post(server, token, message="hi")
        assert bytes(present.received) == b"OK\nMSG ci hi\n"


def test_a_message_that_is_posted_again_with_its_key_is_said_once():
    with web() as server:
        token = registered(server, "ci")
        first = post(server, token, message="once", key="k1").object
        assert post(server, token, message="once", key="k1").object == first
        assert post(server, token, message="once", key="k2").object["id"] == 2


def test_history_is_read_from_an_id_on_or_from_the_end():
    with web() as server:
        token = registered(server, "ci")
        for number in range(1, 6):
            post(server, token, message=f"m{number}")
        page = get(server, token, f"{LOBBY}?after=1&limit=2")
        assert [(one["id"], one["message"], one["username"]) for one in page["messages"]] == [
            (2, "m2", "ci"),
            (3, "m3", "ci"),
        ]
        assert (page["type"], page["room"], page["more"]) == ("history", "lobby", True)
        assert [one["id"] for one in get(server, token, f"{LOBBY}?limit=2")["messages"]] == [4, 5]
        rest = get(server, token, f"{LOBBY}?after=3")
        assert ([one["id"] for one in rest["messages"]], rest["more"]) == ([4, 5], False)
        assert get(server, token, f"{LOBBY}?after=99")["messages"] == []
        head = ask(server, LOBBY, f"Authorization: Bearer {token}\n", "HEAD")
        assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(
    "query",
    ["after=-1", "after=x", "limit=1.5", "after=%ff", "limit=1&limit=2", "befor=1", f"after={2**53}"],
)
def test_parameters_that_are_wrong_or_unknown_are_refused(query: str):
    with web() as server:
        token = registered(server, "ci")
        answer = ask(server, f"{LOBBY}?{query}", f"Authorization: Bearer {token}\n")
        assert error(answer) == (400, "invalid-field")
        wrong = "query" if query in {"after=%ff", "limit=1&limit=2"} else query.partition("=")[0]
        assert answer.object["message"] == f"Invalid field: {wrong}"


def test_twenty_messages_are_read_unless_more_are_asked_for_and_two_hundred_at_most():
    with web(lines_per_s=0) as server:
        token = registered(server, "ci")
        alice = Socket(server)
        alice.join("alice")
        alice.client.send(
            b"".join([frame(f'{{"type": "chat", "message": "m{number}"}}') for number in range(1, 251)])
        )
        server.run_until_idle()
        for query, first, last, more in [
            ("", 231, 250, True),
            ("?limit=1000", 51, 250, True),
            ("?after=0&limit=1000", 1, 200, True),
            ("?after=200&limit=1000", 201, 250, False),
        ]:
            page = get(server, token, LOBBY + query)
            assert [one["id"] for one in page["messages"]] == list(range(first, last + 1)), query
            assert page["more"] is more


def test_a_room_is_named_as_in_a_url_and_is_never_made():
    with web() as server:
        token = registered(server, "ci")
        owner = Socket(server)
        owner.join("alice", rooms={"Café": None})
        cafe = "/api/rooms/caf%C3%A9/messages"
        assert post(server, token, cafe, message="hi").object == {"type": "ok", "room": "Café", "id": 1}
        assert get(server, token, cafe)["room"] == "Café"
        rooms = len(server.context.chat.rooms)
        for nowhere in (
            "/api/rooms/nowhere/messages",
            "/api/rooms/caf%C3%A9%2F/messages",
            "/api/rooms//messages",
        ):
            answer = post(server, token, nowhere, message="hi")
            assert answer.status in {400, 404}
            assert answer.object["code"] in {"no-such-room", "invalid-room-name"}
        assert error(post(server, token, "/api/rooms/nowhere/messages", message="hi")) == (
            404,
            "no-such-room",
        )
        assert len(server.context.chat.rooms) == rooms


def test_a_bot_that_has_been_invited_is_let_into_a_private_room():
    with web() as server:
        token = registered(server, "ci")
        owner, bot = Socket(server), Socket(server)
        owner.join("alice", rooms={"dev": None})
        owner.say(type="private", room="dev", on=True)
        dev = "/api/rooms/dev/messages"
        assert error(post(server, token, dev, message="hi")) == (404, "no-such-room")
        bot.join("ci", password="correct horse")
        owner.say(type="invite", room="dev", username="ci")
        bot.send('{"type": "quit"}')
        assert post(server, token, dev, message="hi").status == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid-json"),
        (b"[" * 4_000, "invalid-json"),
        (b"[]", "invalid-json"),
        (b"\xff", "invalid-utf8"),
        (b'{"message": 7}', "invalid-field"),
        (b'{"text": "hi"}', "invalid-field"),
        (b'{"message": "hi", "key": "' + b"k" * 65 + b'"}', "invalid-field"),
        (b'{"message": "\\u200b"}', "empty-message"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_not_a_message_is_refused_with_the_code_of_that(body: bytes, code: str):
    with web() as server:
        token = registered(server, "ci")
        answer = ask(server, LOBBY, f"Authorization: Bearer {token}\n", "POST", body)
        assert error(answer) == (400, code)


def test_without_a_token_that_exists_nothing_is_said_or_read():
    with web() as server:
        token = registered(server, "ci", leaves=False)
        for fields in ("", "Authorization: Basic Y2k6Y29ycmVjdCBob3JzZQ==\n"):
            answer = ask(server, LOBBY, fields)
            assert error(answer) == (401, "password-required")
            assert answer.fields["www-authenticate"] == "Bearer"
        wrong = "gct_" + "A" * 43
        assert error(post(server, wrong, message="hi")) == (401, "wrong-password")
        assert error(post(server, "correct horse", message="hi")) == (401, "wrong-password")
        owner = Socket(server)
        owner.join("ci", password="correct horse")
        owner.say(type="token", revoke=True)
        assert error(post(server, token, message="hi")) == (401, "wrong-password")


def test_the_roles_bans_and_mutes_of_a_room_concern_a_bot_as_they_concern_everyone():
    with web() as server:
        token = registered(server, "ci")
        owner = Socket(server)
        owner.join("alice", rooms={"dev": None})
        owner.say(type="register", password="correct horse")
        dev = "/api/rooms/dev/messages"
        assert post(server, token, dev, message="hi").status == 200
        owner.say(type="moderated", room="dev", on=True)
        answer = post(server, token, dev, message="hi")
        assert error(answer) == (403, "muted")
        assert (answer.object["room"], answer.object["message"]) == ("dev", "The room is moderated")
        owner.say(type="moderated", room="dev", on=False)
        owner.say(type="key", room="dev", key="sesame")
        assert error(post(server, token, dev, message="hi")) == (403, "wrong-key")
        owner.say(type="private", room="dev", on=True)
        assert error(post(server, token, dev, message="hi")) == (404, "no-such-room")
        assert error(ask(server, dev, f"Authorization: Bearer {token}\n")) == (404, "no-such-room")
        bot = Socket(server)
        bot.join("ci", password="correct horse")
        owner.objects()
        owner.say(type="mod", room="dev", username="ci")
        bot.quit()
        assert post(server, token, dev, message="hi").status == 200
        owner.say(type="unmod", room="dev", username="ci")
        assert post(server, token, dev, message="hi").status == 404


@pytest.mark.parametrize(
    ("restrictions", "status", "code"), [("bans", 403, "banned"), ("mutes", 403, "muted")]
)
def test_a_bot_that_is_banned_from_the_server_or_muted_there_says_nothing(
    restrictions: str, status: int, code: str
):
    with web() as server:
        token = registered(server, "ci")
        kind = RestrictionKind.BAN if restrictions == "bans" else RestrictionKind.MUTE
        ban = Ban(Restriction(kind, "", "", "ci", "", "ci", None, "", "", 0))
        getattr(server.context.chat.lobby, restrictions).put(ban)
        assert error(post(server, token, message="hi")) == (status, code)


def test_someone_who_ignores_a_bot_does_not_hear_it():
    with web() as server:
        token = registered(server, "ci", leaves=False)
        alice = Socket(server)
        alice.join("alice")
        alice.say(type="ignore", username="ci")
        alice.objects()
        post(server, token, message="hi")
        assert alice.objects() == []


def test_a_bot_waits_until_the_room_can_follow():
    with web() as server:
        token = registered(server, "ci")
        lobby = server.context.chat.lobby
        lobby._history.storage.is_ready = lambda *args: False
        client = server.connect("web")
        body = b'{"message": "hi"}'
        client.send(request(LOBBY, f"Authorization: Bearer {token}\n", "POST", body))
        server.run_until_idle()
        assert not client.received
        del lobby._history.storage.is_ready
        lobby.gate.pump()
        server.run_until_idle()
        assert [answer.status for answer in answers(client)] == [200]


def test_a_bot_that_waits_does_not_keep_another_program_from_taking_over_and_is_told_to_ask_again():
    with web() as server:
        token = registered(server, "ci")
        server.context.chat.lobby._history.storage.is_ready = lambda *args: False
        waiting, idle = server.connect("web"), server.connect("web")
        waiting.send(request(LOBBY, f"Authorization: Bearer {token}\n", "POST", b'{"message": "hi"}'))
        idle.send(request(LOBBY))
        server.run_until_idle()
        assert server.server.state.can_be_handed_over
        for left in server.server.state.leave_behind():
            left.send_away()
        server.run_until_idle()
        (answer,) = answers(waiting)
        assert (answer.status, answer.fields["connection"], waiting.state) == (503, "close", State.FIN)
        assert [answer.status for answer in answers(idle)] == [401]


def test_a_server_that_stops_tells_a_bot_that_waits():
    with web() as server:
        token = registered(server, "ci")
        server.context.chat.lobby._history.storage.is_ready = lambda *args: False
        client = server.connect("web")
        client.send(request(LOBBY, f"Authorization: Bearer {token}\n", "POST", b'{"message": "hi"}'))
        server.run_until_idle()
        stopping = gevent.spawn(server.server.stop)
        server.run_until_idle()
        (answer,) = answers(client)
        assert (answer.status, answer.fields["connection"]) == (503, "close")
        server.advance(2)
        assert stopping.get(block=False) is True


@pytest.mark.parametrize(("limit", "at_once"), [(200, 1), (50, 4)])
def test_pages_that_are_asked_for_at_the_same_moment_are_made_few_in_each_iteration_of_the_loop(
    limit: int, at_once: int, monkeypatch: pytest.MonkeyPatch
):
    listen = (Listen("line", "127.0.0.1", 0), Listen("web", "127.0.0.1", 0))
    hasher = Hasher(Cost(1, 1, 1), derive=derive_here)
    made: list[int] = []
    # On the real loop: in virtual time, a timer that is due at once does not wait for the next iteration.
    with ExitStack() as stack:
        server = stack.enter_context(Server(Config(listen=listen), log=lambda *_, **__: None, hasher=hasher))
        handle = server.context.chat.handle

        def noted(session: Session, command: Command) -> Any:
            if isinstance(command, AskHistory | ListRooms | ReadMessages | Who):
                made.append(gevent.get_hub().loop.iteration)
            return handle(session, command)

        def connect(scheme: str) -> Any:
            client = stack.enter_context(socket.create_connection(server.addresses[scheme], HANG_S))
            return client, stack.enter_context(client.makefile("rb"))

        def ask(questions: dict[Any, bytes]) -> int:
            """Ask all of this at the same moment; returns how many were answered in one iteration at most."""
            made.clear()
            for (client, _), question in questions.items():
                client.sendall(question)
            deadline = gevent.Timeout(HANG_S)
            with deadline:
                while len(made) < len(questions):
                    gevent.sleep(0)
            return max(Counter(made).values())

        monkeypatch.setattr(server.context.chat, "handle", noted)
        people = [connect("line") for _ in range(20)]
        for number, (client, lines) in enumerate(people):
            client.sendall(f"LOGIN p{number}\n".encode())
            assert lines.readline() == b"OK\n"
        people[0][0].sendall(b"REGISTER correct horse\nTOKEN\n")
        while not (line := people[0][1].readline()).startswith(b"TOKEN "):
            pass
        bearer = f"Authorization: Bearer {line.split()[1].decode()}\n"
        bots = [connect("web") for _ in range(20)]
        page = request(f"{LOBBY}?limit={limit}", bearer)
        history = f"HISTORY {limit}\n".encode()
        assert ask({**dict.fromkeys(people, history), **dict.fromkeys(bots, page)}) == at_once
        # A list of thousands takes as long.
        monkeypatch.setattr(net_connection, "_PEOPLE_IN_TURN", 20)
        assert ask(dict.fromkeys(people, b"WHO\n")) == 1
        # So does going through all rooms, which clients that only wait for their turn do not need.
        monkeypatch.setattr(net_connection, "_ROOMS_IN_TURN", 1)
        rooms, counted = server.context.chat.rooms, []
        go_through = type(rooms).__iter__
        monkeypatch.setattr(type(rooms), "__iter__", lambda self: (counted.append(self), go_through(self))[1])
        assert ask(dict.fromkeys(people, b"ROOMS\n")) == 1
        assert len(counted) <= 1


def test_foreign_pages_get_nothing():
    with web() as server:
        token = registered(server, "ci")
        answer = post(server, token, fields="Origin: http://evil.example\n", message="hi")
        assert error(answer) == (403, "foreign-origin")
        assert post(server, token, fields="Origin: http://localhost\n", message="hi").status == 200
        assert error(ask(server, "/api/nothing")) == (404, "not-found")
        assert error(ask(server, LOBBY, method="PUT", body=b"{}")) == (405, "method-not-allowed")


def test_connections_that_read_one_page_each_get_no_more_than_the_bytes_of_their_address():
    with web(address_bytes_per_s=1_000, address_burst_bytes=100_000, bytes_per_s=0) as server:
        token = registered(server, "ci")
        for _ in range(20):
            post(server, token, message="x" * 1_000)
        bots = [server.connect("web", host="127.0.0.2") for _ in range(30)]
        for bot in bots:
            bot.send(request(LOBBY, f"Authorization: Bearer {token}\n"))
            server.run_until_idle()
        page = max(len(bot.received) for bot in bots)
        answered = sum(1 for bot in bots if bot.received)
        assert page > 20_000
        # One more than there is room for leaves a debt.
        assert 3 <= answered <= 100_000 / page + 1
        server.advance(2 * page / 1_000 + 200)
        assert sum(1 for bot in bots if bot.received) > answered


def test_answers_are_charged():
    with web(lines_per_s=0) as server:
        token = registered(server, "ci")
        for _ in range(20):
            post(server, token, message="x" * 3000)
        client = server.connect("web")
        ask(server, LOBBY, f"Authorization: Bearer {token}\n", client=client)
        connection = server.server._connections.open[max(server.server._connections.open)]
        assert connection._costs.charged_bytes > 60_000
