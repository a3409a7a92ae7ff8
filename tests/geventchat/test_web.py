"""The chat in a browser as the server serves it: pages, WebSockets, time-outs, limits and ends; in virtual time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import gevent
import pytest
from websockets.frames import Close, Opcode

from geventchat import Config, ConfigError, Limits, Listen, Server
from geventchat.admin.acts import ACTOR
from geventchat.chat.commands import Impose, Sanction
from geventchat.chat.events import Broadcast, NoticeReason, Said
from geventchat.dialects.json2 import Json2Dialect
from geventchat.web import connection
from geventchat.web.http import Response, written
from tests.certificates import made_certificate
from tests.fire.clients import State
from tests.fire.simulation import SimulatedClient, simulate
from tests.geventchat.web_client import HANDSHAKE, Socket, answers, ask, frame, frames_of, request, web
from tests.tls_client import EncryptedClient, TlsClient

# --- TLS -------------------------------------------------------------------------------------------------------------


def test_pages_and_sockets_are_served_over_tls_and_its_end_is_announced():
    cert, key = map(str, made_certificate())
    listen = (Listen("web+tls", "127.0.0.1", 0), Listen("line", "127.0.0.1", 0))
    with simulate(Config(listen=listen, tls_cert=cert, tls_key=key)) as server:
        pages, sockets = (EncryptedClient.connect(server, "web+tls") for _ in range(2))
        for _ in range(2):
            page = ask(server, client=pages)
            assert (page.status, len(page.body)) == (200, int(page.fields["content-length"]))
        # A record of more bytes than one read takes.
        pages.send(request("/missing") * 100 + b"NONSENSE\r\n\r\n")
        server.run_until_idle()
        assert [answer.status for answer in answers(pages)] == [404] * 100 + [400]
        assert pages.announced
        alice = Socket(server, client=sockets)
        bob = server.connect("line")
        bob.send_lines("LOGIN bob")
        assert alice.say(type="join", username="alice", v=2)[0]["type"] == "welcome"
        sockets.send_each([frame('{"type": "chat", "room": "lobby", "message": "hi"}')] * 150)
        server.run_until_idle()
        assert bob.received.count(b"MSG alice hi\n") == 150


@pytest.mark.parametrize(("announces", "reason"), [(True, "closed"), (False, "reset")])
def test_the_end_of_a_client_that_is_held_back_is_looked_for_behind_its_requests(
    announces: bool, reason: str
):
    cert, key = map(str, made_certificate())
    listen = (Listen("web+tls", "127.0.0.1", 0),)
    limits = Limits(lines_per_s=1, burst_lines=2)
    with simulate(Config(listen=listen, tls_cert=cert, tls_key=key, limits=limits)) as server:
        client = EncryptedClient.connect(server, "web+tls")
        client.send_each([request("/missing")] * 100)
        server.run_until_idle()
        assert len(answers(client)) == 2
        client.half_close() if announces else SimulatedClient.half_close(client)
        server.advance(0.1)
        assert (server.logged["disconnected"], server.logged[reason]) == (1, 1)


def test_a_websocket_over_tls_gets_the_code_of_a_stop_when_another_program_takes_over():
    cert, key = map(str, made_certificate())
    listen = (Listen("web+tls", "127.0.0.1", 0),)
    with simulate(Config(listen=listen, tls_cert=cert, tls_key=key)) as server:
        alice = Socket(server, client=EncryptedClient.connect(server, "web+tls"))
        alice.join("alice")
        (left,) = server.server.state.leave_behind()
        left.send_away()
        assert alice.close_code() == 1001


# --- Requests --------------------------------------------------------------------------------------------------------


def test_the_page_has_a_strict_policy_and_is_not_sent_again_to_a_browser_that_has_it():
    with web() as server:
        page = ask(server)
        assert (page.status, page.fields["content-type"]) == (200, "text/html; charset=utf-8")
        policy = page.fields["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert page.fields["x-content-type-options"] == "nosniff"
        # Asked for again each time, so that a new version of the server has its own page at once.
        assert (page.fields["cache-control"], page.fields["vary"]) == ("no-cache", "Accept-Encoding")
        again = ask(server, fields=f"If-None-Match: W/{page.fields['etag']}\n")
        assert (again.status, again.body) == (304, b"")
        assert ask(server, fields="If-None-Match: *\n").status == 304
        compressed = ask(server, fields="Accept-Encoding: br, gzip;q=0.5\n")
        assert compressed.fields["content-encoding"] == "gzip"
        assert compressed.fields["etag"] != page.fields["etag"]
        assert "content-encoding" not in ask(server, fields="Accept-Encoding: gzip;q=0\n").fields


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        ("/", "HEAD", 200),
        ("/?theme=dark", "GET", 200),
        ("/", "POST", 405),
        ("/missing", "GET", 404),
        ("/../chat.js", "GET", 404),
        ("/static/chat.js", "GET", 404),
        ("/%2e%2e/service.py", "GET", 404),
        ("/ws", "GET", 426),
        ("/ws", "POST", 405),
        ("/api", "GET", 404),
        ("/api/rooms/lobby/messages", "DELETE", 405),
    ],
)
def test_each_address_has_its_answer(target: str, method: str, status: int):
    with web() as server:
        answer = ask(server, target, method=method)
        assert answer.status == status
        reading = "GET, HEAD" if target == "/" else "GET, HEAD, POST" if "api" in target else "GET"
        assert answer.fields.get("allow") == (reading if status == 405 else None)
        assert answer.fields.get("upgrade") == ("websocket" if status == 426 else None)
        assert answer.fields["connection"] == "keep-alive"


def test_every_response_has_the_policy_whatever_it_answers(tmp_path: Path):
    bans = tmp_path / "bans"
    bans.write_text("192.0.2.1\n")
    with web(ban_list=str(bans)) as server:
        slow, banned = server.connect("web"), server.connect("web", "192.0.2.1")
        slow.send(b"GET /")
        server.advance(20.1)
        found = [*answers(slow), *answers(banned), ask(server), ask(server, "/missing"), ask(server, "/ws")]
        found += [ask(server, "/api/rooms/lobby/messages"), ask(server, "/", method="POST")]
        client = server.connect("web")
        client.send(b"NONSENSE\r\n")
        server.run_until_idle()
        found += answers(client)
        assert [answer.status for answer in found] == [408, 403, 200, 404, 426, 401, 405, 400]
        for answer in found:
            assert answer.fields["content-security-policy"] == (
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
                "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
            )
            assert answer.fields["x-frame-options"] == "DENY"
            assert answer.fields["x-content-type-options"] == "nosniff"
            assert answer.fields["referrer-policy"] == "no-referrer"
            assert answer.fields["cross-origin-opener-policy"] == "same-origin"
            assert answer.fields["cross-origin-resource-policy"] == "same-origin"


def test_requests_on_one_connection_are_answered_in_order_and_a_bad_one_ends_it():
    with web() as server:
        client = server.connect("web")
        client.send(request("/missing") + request("/ws") + b"NONSENSE\r\n" + request("/"))
        server.run_until_idle()
        assert [answer.status for answer in answers(client)] == [404, 426, 400]
        assert client.state is State.FIN


def test_a_client_that_asks_for_it_or_has_asked_a_thousand_times_is_closed():
    with web(lines_per_s=0) as server:
        client = server.connect("web")
        client.send(request("/", "Connection: close\n") + request("/"))
        server.run_until_idle()
        assert [answer.fields["connection"] for answer in answers(client)] == ["close"]
        assert client.state is State.FIN
        client = server.connect("web")
        client.send(request("/missing") * 1001)
        server.run_until_idle()
        connection = [answer.fields["connection"] for answer in answers(client)]
        assert connection == ["keep-alive"] * 999 + ["close"]


def test_a_request_that_trickles_in_is_given_up_and_a_connection_without_one_is_closed():
    with web() as server:
        slow, silent = server.connect("web"), server.connect("web")
        for part in (b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"A: b\r\n", b"C: d\r\n"):
            slow.send(part)
            server.advance(4.9)
        assert (slow.state, silent.state) == (State.OPEN, State.OPEN)
        server.advance(0.4)
        (answer,) = answers(slow)
        assert (answer.status, answer.body) == (408, b"the request took too long\n")
        assert (slow.state, bytes(silent.received), silent.state) == (State.FIN, b"", State.FIN)


def test_a_body_that_trickles_in_has_the_same_time_and_so_has_the_request_for_a_websocket():
    with web() as server:
        body, upgrade = server.connect("web"), server.connect("web")
        body.send(b"POST /api/rooms/lobby/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
        for byte in request("/ws", HANDSHAKE)[:19]:
            body.send(b" ")
            upgrade.send(bytes([byte]))
            server.advance(1)
        assert (body.state, upgrade.state) == (State.OPEN, State.OPEN)
        server.advance(1.1)
        assert [answers(client)[0].status for client in (body, upgrade)] == [408, 408]
        assert (body.state, upgrade.state) == (State.FIN, State.FIN)


def test_a_connection_is_kept_for_the_next_request():
    with web() as server:
        client = server.connect("web")
        for _ in range(3):
            assert ask(server, "/missing", client=client).status == 404
            server.advance(19.9)
        server.advance(0.2)
        assert client.state is State.FIN


def test_a_client_that_does_not_read_its_answer_is_reset():
    with web() as server:
        client = server.connect("web", buffer_bytes=1)
        client.stop_reading()
        client.send(request("/chat.js") * 20)
        server.advance(9)
        assert not client.server_closed
        server.advance(21)
        assert client.server_closed
        assert server.logged["slow"] == 1


def test_a_client_that_does_not_read_its_answer_does_not_keep_another_program_from_taking_over():
    with web() as server:
        client = server.connect("web", buffer_bytes=1)
        client.stop_reading()
        client.send(request("/chat.js") * 20)
        server.run_until_idle()
        assert server.server.state.can_be_handed_over
        opened = server.connect("web", buffer_bytes=1)
        opened.send(request("/ws", HANDSHAKE))
        server.run_until_idle()
        assert server.server.state.can_be_handed_over


def test_a_body_that_is_too_large_is_refused_before_it_is_sent():
    with web() as server:
        client = server.connect("web")
        client.send(b"POST /api/rooms/lobby/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 4097\r\n\r\n")
        server.run_until_idle()
        assert [answer.status for answer in answers(client)] == [413]


def test_a_client_that_waits_for_it_is_asked_for_the_body():
    with web() as server:
        client = server.connect("web")
        head = "POST /api/rooms/lobby/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        client.send(head.encode())
        server.run_until_idle()
        assert bytes(client.received) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.received.clear()
        client.send(b"{}")
        server.run_until_idle()
        assert [answer.status for answer in answers(client)] == [400]


def test_the_requests_of_a_client_have_the_rate_of_lines():
    with web(lines_per_s=10, burst_lines=5) as server:
        client = server.connect("web")
        client.send(request("/missing") * 7)
        server.run_until_idle()
        assert len(answers(client)) == 5
        server.advance(0.2)
        assert len(answers(client)) == 2


def test_however_many_ask_at_the_same_moment_others_are_served_in_between(monkeypatch: pytest.MonkeyPatch):
    wrote: list[int] = []

    def noted(response: Response, *args: Any, **more: Any) -> bytes:
        wrote.append(gevent.get_hub().loop.iteration)
        return written(response, *args, **more)

    monkeypatch.setattr(connection, "written", noted)
    with web(lines_per_s=0) as server:
        clients = [server.connect("web") for _ in range(100)]
        server.run_until_idle()
        for client in clients:
            client.send(request("/missing"))
        # Some of those that come together, too.
        clients[0].send(request("/missing") * 100)
        server.run_until_idle()
        assert len(wrote) == 200
        assert max(Counter(wrote).values()) <= 9


def test_those_that_are_given_up_at_the_same_moment_have_turns_too():
    shares: list[float] = []
    with web() as server:
        turns = server.context.handshake_turns

        class NotedTurns:
            def wait(self, waiter: Any, share: float) -> None:
                shares.append(share)
                turns.wait(waiter, share)

        # The context is frozen.
        object.__setattr__(server.context, "handshake_turns", NotedTurns())
        for _ in range(10):
            server.connect("web").send(b"GET /")
        server.advance(20.1)
        assert shares == [1 / 8] * 10
        assert server.logged["idle"] == 10


def test_requests_are_charged_to_their_address():
    with web(
        address_bytes_per_s=1000, address_burst_bytes=10_000, lines_per_s=1e6, burst_lines=10_000
    ) as server:
        client, other = server.connect("web"), server.connect("web", host="127.0.0.2")
        # More than its first bytes, which do not wait.
        client.send(request("/missing") * 100)
        server.run_until_idle()
        # Reading them costs their bytes, and answering each one the rest up to 512.
        assert len(answers(client)) == 12
        assert ask(server, client=other).status == 200
        server.advance(10)
        assert len(answers(client)) in {20, 21}


def test_a_request_in_single_bytes_is_read_no_faster_than_its_address_pays_for_it():
    with web(address_bytes_per_s=32.0, address_burst_bytes=6_400) as server:
        client = server.connect("web")
        client.send(b"GET / HTTP/1.1\r\nX: ")
        connection = server.server._connections.open[max(server.server._connections.open)]
        for _ in range(400):
            client.send(b"x")
            server.run_until_idle()
        assert 6_400 <= connection._costs.charged_bytes < 6_500
        # It has no more time for that.
        server.advance(19.9)
        assert client.state is State.OPEN
        server.advance(0.2)
        assert [answer.status for answer in answers(client)] == [408]


def test_what_a_client_sends_over_tls_is_charged_when_it_is_taken_from_the_socket():
    cert, key = map(str, made_certificate())
    with simulate(Config(listen=(Listen("web+tls", "127.0.0.1", 0),), tls_cert=cert, tls_key=key)) as server:
        client = TlsClient(server, "web+tls").shake_hands()
        connection = server.server._connections.open[max(server.server._connections.open)]
        before = connection._costs.charged_bytes
        record = client.memory.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 7_000)
        client.wire.send(record[:-1])
        server.run_until_idle()
        assert connection._costs.charged_bytes - before == len(record) - 1
        client.wire.send(record[-1:])
        server.run_until_idle()
        # Two reads, which take the last byte and what has been decrypted.
        assert connection._costs.charged_bytes - before == len(record) - 1 + 2 * 32


def test_clients_that_are_too_many_are_refused_with_the_reason():
    with web(clients_per_address=1) as server:
        first, second = server.connect("web"), server.connect("web")
        server.run_until_idle()
        (answer,) = answers(second)
        assert (answer.status, answer.body) == (503, b"too many connections from this address\n")
        server.advance(2)
        assert second.state is State.FIN
        first.close()
        server.run_until_idle()
        assert ask(server).status == 200


def test_the_log_has_both_ends_of_a_connection_and_every_slot_is_freed():
    with web() as server:
        clients = [server.connect("web") for _ in range(4)]
        clients[0].send(request())
        clients[1].send(b"\xff\r\n")
        clients[2].send(b"GET /")
        server.run_until_idle()
        for client in clients:
            client.close()
        server.advance(3)
        assert (server.logged["connected"], server.logged["disconnected"]) == (4, 4)
        assert server.context.admission.connected == server.context.admission.lingering == 0
        assert not server.faults


# --- WebSockets ------------------------------------------------------------------------------------------------------


def test_everyone_is_in_one_chat():
    with web() as server:
        alice, bob, carol = Socket(server), Socket(server), server.connect()
        assert alice.join("alice")["rooms"]["lobby"]["users"] == ["alice"]
        bob.join("bob")
        carol.send_lines("LOGIN carol", "MSG hello")
        server.run_until_idle()
        (joined_bob, joined, said) = alice.objects()
        assert (joined_bob["username"], joined["username"], said["message"]) == ("bob", "carol", "hello")
        bob.objects()
        alice.send('{"type": "chat", "message": "hi"}' + " " * 150)
        assert [one["message"] for one in alice.objects() + bob.objects()] == ["hi", "hi"]
        assert bytes(carol.received) == b"OK\nMSG alice hi\n"


def test_lines_that_are_sent_together_are_messages_of_their_own():
    with web() as server:
        alice, bob = Socket(server), Socket(server)
        alice.join("alice")
        bob.join("bob")
        alice.client.send(b"".join(frame(f'{{"type": "chat", "message": "{n}"}}') for n in range(3)))
        assert [one["message"] for one in bob.objects()] == ["0", "1", "2"]


def test_what_comes_with_the_handshake_is_read():
    with web() as server:
        client = server.connect("web")
        client.send(request("/ws", HANDSHAKE) + frame('{"type": "join", "v": 2, "username": "alice"}'))
        server.run_until_idle()
        assert b"welcome" in client.received


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:81"])
def test_foreign_pages_open_no_websocket(origin: str):
    with web() as server:
        assert ask(server, "/ws", f"{HANDSHAKE}Origin: {origin}\n").status == 403
        assert ask(server, "/ws", f"{HANDSHAKE}Origin: http://localhost\n").status == 101


def test_a_page_can_learn_why_it_cannot_open_a_websocket():
    with web(web_origins=("chat.example",)) as server:
        answer = ask(server, "/ws", host="mine.example")
        assert answer.status == 403
        assert b"--web-origin" in answer.body
        assert ask(server, "/ws", host="chat.example").status == 426


def test_pings_are_answered_between_messages():
    with web() as server:
        alice = Socket(server)
        alice.join("alice")
        alice.client.send(frame("1", Opcode.PING) + frame('{"type": "ping"}') + frame("2", Opcode.PING))
        first, pong, second = alice.frames()
        assert (first, second) == ((Opcode.PONG, b"1"), (Opcode.PONG, b"2"))
        assert pong[0] is Opcode.TEXT


def test_pings_do_not_keep_an_idle_client_connected_and_messages_do():
    with web(idle_s=10) as server:
        alice, bob = Socket(server), Socket(server)
        alice.join("alice")
        bob.join("bob")
        for _ in range(3):
            server.advance(4)
            alice.send("", Opcode.PING)
            bob.send('{"type": "ping"}')
        *_, error, (opcode, close) = alice.frames()
        assert b'"code": "idle-timeout"' in error[1]
        assert (opcode, close[:2]) == (Opcode.CLOSE, (4002).to_bytes(2, "big"))
        assert bob.client.state is State.OPEN


def test_an_unfinished_message_is_not_activity_either():
    with web(idle_s=10) as server:
        alice = Socket(server)
        alice.join("alice")
        alice.send("{", fin=False)
        for _ in range(12):
            alice.send(" ", Opcode.CONT, fin=False)
            server.advance(1)
        assert alice.close_code() == 4002


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame("x" * 4097), 1009, "protocol"),
        (frame(b"\xff"), 1007, "protocol"),
        (frame("x", Opcode.BINARY), 1003, "protocol"),
        (b"\x81\x05hello", 1002, "protocol"),
        (frame('{"type": "quit"}'), 1000, "quit"),
        (frame((1001).to_bytes(2, "big"), Opcode.CLOSE), 1001, "closed"),
    ],
)
def test_the_close_code_says_what_the_client_did_and_nothing_comes_behind_it(
    data: bytes, code: int, reason: str
):
    with web() as server:
        alice, bob = Socket(server), Socket(server)
        alice.join("alice")
        bob.join("bob")
        bob.client.send(frame('{"type": "chat", "message": "hi"}'))
        alice.client.send(data + frame('{"type": "ping"}'))
        assert alice.close_code() == code
        assert alice.client.state is State.FIN
        assert server.logged[reason] == 1
        assert "user_left" in [one["type"] for one in bob.objects()]


def test_a_kicked_replaced_or_shut_down_client_gets_its_close_code():
    with web(operators=("root-1",), reserved_names=()) as server:
        first, second, third = Socket(server), Socket(server, host="127.0.0.2"), Socket(server)
        first.join("alice")
        first.say(type="register", password="correct horse")
        second.join("alice", password="correct horse")
        assert first.close_code() == 4001
        gevent.spawn(server.server.kick, "alice").get()
        assert second.close_code() == 4003
        third.join("carol")
        stopping = gevent.spawn(server.server.stop)
        assert third.close_code() == 1001
        server.advance(2)
        assert stopping.get(block=False) is True


def test_a_client_that_is_refused_gets_a_status_in_place_of_the_handshake(tmp_path: Path):
    bans = tmp_path / "bans"
    bans.write_text("192.0.2.1\n")
    with web(clients=1, ban_list=str(bans)) as server:
        banned = ask(server, "/ws", HANDSHAKE, client=server.connect("web", "192.0.2.1"))
        assert (banned.status, banned.body) == (403, b"banned\n")
        Socket(server)
        full = ask(server, "/ws", HANDSHAKE)
        assert (full.status, full.body) == (503, b"the server is full\n")


def test_someone_who_is_banned_gets_a_code_of_that():
    with web() as server:
        alice = Socket(server)
        alice.join("alice")
        command = Impose(Sanction.BAN, "alice", None, "floods")
        gevent.spawn(server.server.administer, ACTOR, "lobby", command).get()
        assert alice.close_code() == 4004


def test_a_fault_has_a_code(monkeypatch: pytest.MonkeyPatch):
    def broken(*args: Any) -> None:
        raise RuntimeError("broken")

    with web() as server:
        alice = Socket(server)
        alice.join("alice")
        monkeypatch.setattr(type(server.context.chat), "handle", broken)
        alice.send('{"type": "ping"}')
        assert alice.close_code() == 1011
        assert "RuntimeError: broken" in server.faults[0]


def test_a_websocket_that_is_not_read_is_reset_without_a_code():
    with web(queue_bytes=65_536, floor_bytes_per_s=0.0, lines_per_s=0) as server:
        alice, bob = Socket(server, client=server.connect("web", buffer_bytes=1)), Socket(server)
        alice.join("alice")
        bob.join("bob")
        alice.objects()
        alice.client.stop_reading()
        for _ in range(40):
            bob.say(type="chat", message="x" * 4_000)
        assert server.logged["slow"] == 1
        alice.client.resume_reading()
        assert {opcode for opcode, _ in alice.frames()} == {Opcode.TEXT}


def test_a_stopping_server_answers_the_request_that_waits_and_closes_the_others():
    with web() as server:
        waiting, silent = server.connect("web"), server.connect("web")
        waiting.send(request("/api/rooms/lobby/messages", method="POST", body=b"{"))
        silent.send(b"GET /")
        server.run_until_idle()
        answers(waiting)
        stopping = gevent.spawn(server.server.stop)
        server.advance(2)
        assert (waiting.state, silent.state) == (State.FIN, State.FIN)
        assert stopping.get(block=False) is True


def test_a_stop_while_a_websocket_is_being_opened_is_announced_there():
    with web() as server:
        full, client = (server.connect("web", buffer_bytes=1) for _ in range(2))
        full.stop_reading()
        client.stop_reading()
        connection = server.server._connections.open[1]
        fitting = -1
        while not connection._answering:
            full.send(request("/missing"))
            server.run_until_idle()
            fitting += 1
        # After these, the kernel takes nothing more, and the answer to the handshake waits.
        client.send(request("/missing") * fitting + request("/ws", HANDSHAKE))
        server.run_until_idle()
        stopping = gevent.spawn(server.server.stop)
        server.run_until_idle()
        full.close()
        client.resume_reading()
        server.advance(2)
        opened = bytes(client.received).partition(b"HTTP/1.1 101 ")[2].partition(b"\r\n\r\n")[2]
        *_, (opcode, data) = frames_of(bytearray(opened))
        assert (opcode, Close.parse(data).code) == (Opcode.CLOSE, 1001)
        assert stopping.get(block=False) is True


def test_frames_have_the_rates_of_lines():
    with web(lines_per_s=10, burst_lines=20) as server:
        alice = Socket(server)
        alice.client.send(frame("", Opcode.PING) * 25)
        assert len(alice.frames()) == 20
        server.advance(0.5)
        assert len(alice.frames()) == 5


def test_a_frame_costs_32_bytes_besides_its_own():
    with web(lines_per_s=1e6, burst_lines=10_000, bytes_per_s=1000, burst_bytes=10_000) as server:
        alice = Socket(server)
        alice.client.send(frame("x", fin=False) + frame("", Opcode.CONT, fin=False) * 500)
        connection = next(iter(server.server._connections.open.values())).successor
        server.run_until_idle()
        assert 38 * 250 < connection._costs.charged_bytes < 38 * 502


def test_a_websocket_has_to_log_in_in_time():
    with web(login_s=5) as server:
        alice = Socket(server)
        server.advance(5.1)
        assert alice.close_code() == 4002


def test_a_version_1_client_goes_on_in_version_1():
    with web() as server:
        alice = Socket(server)
        (full,) = alice.say(type="join", username="alice")
        assert (full["type"], "v" in full) == ("welcome", False)


def test_a_message_is_encoded_and_framed_once_for_all_websockets(monkeypatch: pytest.MonkeyPatch):
    from geventchat.dialects.websocket import WebSocketFraming

    encoded: list[Broadcast] = []
    framed: list[bytes] = []
    encode, wrap = Json2Dialect.encode, WebSocketFraming.wrap

    def counted_encode(dialect: Json2Dialect, event: Broadcast) -> bytes:
        encoded.append(event)
        return encode(dialect, event)

    def counted_wrap(payload: bytes) -> bytes:
        framed.append(payload)
        return wrap(payload)

    monkeypatch.setattr(Json2Dialect, "encode", counted_encode)
    monkeypatch.setattr(WebSocketFraming, "wrap", staticmethod(counted_wrap))
    with web() as server:
        clients = [Socket(server) for _ in range(20)]
        for number, client in enumerate(clients):
            client.join(f"c{number}")
        encoded.clear()
        framed.clear()
        clients[0].send('{"type": "chat", "message": "once"}')
        assert all(client.objects()[-1]["message"] == "once" for client in clients)
        assert [type(event) for event in encoded] == [Said]
        assert len(framed) == 1


# --- The server ------------------------------------------------------------------------------------------------------


def test_a_refusal_of_each_kind_can_be_answered():
    from geventchat.web.connection import _REFUSALS

    connecting = {NoticeReason.SERVER_FULL, NoticeReason.ADDRESS_FULL, NoticeReason.BANNED}
    assert set(_REFUSALS) == connecting


def test_a_page_without_its_package_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("websockets")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("geventchat.web.service", "geventchat.dialects.websocket"):
        monkeypatch.delitem(sys.modules, name)
    server = Server(Config(listen=(Listen("web", "127.0.0.1", 0),)))
    with pytest.raises(
        ConfigError, match=r"listen: web:// needs the package websockets: pip install 'geventchat\[web\]'"
    ):
        server.start()
