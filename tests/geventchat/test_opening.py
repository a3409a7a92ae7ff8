"""Clients between accept and their service: the handshake, its deadline, its turns and its cost; in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import gevent
import pytest

from geventchat import Config, Limits, Listen
from geventchat.net.connection import Connection
from geventchat.net.opening import Opening
from geventchat.net.tls import ACCESS_DENIED, UNEXPECTED_MESSAGE, TlsTransport
from geventchat.net.turns import Turns, _Input
from tests.certificates import Files, made_certificate, make
from tests.fire.clients import State
from tests.fire.leaks import leftovers
from tests.fire.simulation import Simulation, simulate
from tests.geventchat.key_changer import KeyChanger
from tests.tls_client import EncryptedClient, MemoryClient, TlsClient, client_context


@contextmanager
def server(*schemes: str, idle_s: float | None = 0, **limits: Any) -> Iterator[Simulation]:
    cert, key = map(str, made_certificate())
    listen = tuple(Listen(scheme, "127.0.0.1", 0) for scheme in schemes or ("line+tls", "line"))
    with simulate(
        Config(listen=listen, idle_s=idle_s, tls_cert=cert, tls_key=key, limits=Limits(**limits))
    ) as simulation:
        yield simulation
        assert not simulation.faults, simulation.faults


def test_people_with_and_without_tls_chat_with_each_other():
    with server() as simulation:
        alice = TlsClient(simulation).shake_hands()
        bob = simulation.connect("line")
        alice.say("LOGIN alice")
        bob.send_lines("LOGIN bob")
        assert alice.taken() == b"OK\n"
        alice.say("MSG hi")
        bob.send_lines("MSG hello")
        simulation.run_until_idle()
        assert bob.received == b"OK\nMSG alice hi\n"
        assert alice.taken() == b"MSG bob hello\n"


def test_a_client_that_leaves_and_one_that_is_cut_off_are_told_apart():
    with server() as simulation:
        for closes, reason in ((True, "closed"), (False, "reset")):
            client = TlsClient(simulation).shake_hands()
            client.say("LOGIN alice")
            if closes:
                client.wire.send(client.memory.close_notify())
                client.pump()
                assert client.memory.ended, "the server announces its end too"
            client.wire.close()
            simulation.run_until_idle()
            assert simulation.logged[reason] == 1


@pytest.mark.parametrize(
    ("announces", "lines", "reason"),
    [(True, 300, "closed"), (False, 300, "reset"), (True, 1_500, "reset"), (False, 1_500, "reset")],
)
def test_the_end_of_a_client_that_is_held_back_is_looked_for_behind_what_it_has_sent(
    announces: bool, lines: int, reason: str
):
    with server(burst_lines=5, lines_per_s=1.0, burst_bytes=16_384) as simulation:
        client = TlsClient(simulation).shake_hands()
        client.say("LOGIN alice")
        client.wire.send(b"".join([client.memory.send(b"PING\n") for _ in range(lines)]))
        if announces:
            client.wire.send(client.memory.close_notify())
        client.pump()
        assert client.open
        client.wire.half_close()
        simulation.run_until_idle()
        assert (simulation.logged["disconnected"], simulation.logged[reason]) == (1, 1)
        simulation.advance(2)
        assert not leftovers(simulation), leftovers(simulation)


def test_a_client_that_asks_to_leave_receives_an_end_that_is_announced():
    with server() as simulation:
        client = TlsClient(simulation).shake_hands()
        client.say("LOGIN alice", "QUIT")
        assert client.taken() == b"OK\nGoodbye!\n"
        assert client.memory.ended
        client.wire.close()
        simulation.run_until_idle()
        assert simulation.logged["quit"] == 1
        assert not leftovers(simulation), leftovers(simulation)


def test_plain_text_gets_an_alert():
    with server() as simulation:
        client = simulation.connect("line+tls")
        client.send_lines("LOGIN alice")
        simulation.run_until_idle()
        assert client.received == UNEXPECTED_MESSAGE
        assert client.state is State.FIN
        assert simulation.logged["no_tls"] == 1


def test_http_is_recognised_inside_tls_too():
    with server() as simulation:
        client = TlsClient(simulation).shake_hands()
        client.say("GET / HTTP/1.1")
        assert simulation.logged["http"] == 1


def test_half_a_handshake_has_a_deadline_and_so_has_the_other_half():
    hello = MemoryClient(client_context()).take()
    with server(handshake_s=10.0) as simulation:
        silent, slow, half = (simulation.connect("line+tls") for _ in range(3))
        half.send(hello)
        for n in range(99):
            slow.send(hello[n : n + 1])
            simulation.advance(0.1)
        assert (silent.state, slow.state, half.state) == (State.OPEN, State.OPEN, State.OPEN)
        simulation.advance(0.2)
        assert (silent.state, slow.state, half.state) == (State.FIN, State.FIN, State.FIN)
        assert simulation.logged["idle"] == 3
        assert not leftovers(simulation), leftovers(simulation)


def test_a_client_that_waits_for_its_turn_has_time(monkeypatch: pytest.MonkeyPatch):
    with server(handshake_s=10.0) as simulation:
        turns = simulation.context.handshake_turns
        wait = turns.wait

        class SlowTurns:
            def wait(self, waiter: Any) -> None:
                waiter.pause(30)
                wait(waiter)

        # The context is frozen.
        object.__setattr__(simulation.context, "handshake_turns", SlowTurns())
        client = TlsClient(simulation)
        client.pump()
        simulation.advance(31)
        client.shake_hands()
        client.say("LOGIN alice")
        assert client.taken() == b"OK\n"


def test_a_handshake_is_computed_when_its_first_record_is_complete(monkeypatch: pytest.MonkeyPatch):
    computed = 0
    shake_hands = TlsTransport.shake_hands

    def counted(transport: TlsTransport, received: bytes) -> bool:
        nonlocal computed
        computed += 1
        return shake_hands(transport, received)

    monkeypatch.setattr(TlsTransport, "shake_hands", counted)
    hello = MemoryClient(client_context()).take()
    with server() as simulation:
        client = simulation.connect("line+tls")
        for piece in (hello[:1], hello[1:4], hello[4:100], hello[100:-1]):
            client.send(piece)
            simulation.run_until_idle()
        assert computed == 0
        client.send(hello[-1:])
        simulation.run_until_idle()
        assert computed == 1


def test_a_handshake_takes_a_whole_turn():
    shares: list[float] = []
    with server() as simulation:
        turns = simulation.context.handshake_turns

        class NotedTurns:
            def wait(self, waiter: Any, share: float = 1.0) -> None:
                shares.append(share)
                turns.wait(waiter, share)

        # The context is frozen.
        object.__setattr__(simulation.context, "handshake_turns", NotedTurns())
        clients = [TlsClient(simulation).shake_hands() for _ in range(3)]
        assert shares == [1.0] * 3
        for n, client in enumerate(clients):
            client.say(f"LOGIN p{n}")
        # Nor do those who log in wait for them.
        assert shares == [1.0] * 3


def record(body: bytes) -> bytes:
    """A record of a handshake."""
    return b"\x16\x03\x01" + len(body).to_bytes(2, "big") + body


def without_key_share(hello: bytes) -> bytes:
    """A hello with nothing in its extension `key_share`, so that the server asks for another one."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    extensions, at = b"", at + 2
    begin = at
    while at < len(hello):
        kind, size = hello[at : at + 2], int.from_bytes(hello[at + 2 : at + 4], "big")
        extensions += b"\x00\x33\x00\x02\x00\x00" if kind == b"\x00\x33" else hello[at : at + 4 + size]
        at += 4 + size
    body = hello[9 : begin - 2] + len(extensions).to_bytes(2, "big") + extensions
    return record(b"\x01" + len(body).to_bytes(3, "big") + body)


def in_two_records(hello: bytes) -> tuple[bytes, bytes]:
    return record(hello[5:105]), record(hello[105:])


def after_another(hello: bytes) -> tuple[bytes, bytes]:
    return without_key_share(hello), b"\x14\x03\x03\x00\x01\x01" + hello


@pytest.mark.parametrize("divided", [in_two_records, after_another])
def test_one_hello_is_answered_in_each_iteration_of_the_loop_however_it_comes(
    divided: Callable[[bytes], tuple[bytes, bytes]], monkeypatch: pytest.MonkeyPatch
):
    # Of the turns of those that have been answered, with a certificate, by then.
    turns, answered = 0, list[int]()
    wait, shake_hands = Turns.wait, TlsTransport.shake_hands

    def noted_turn(waiting: Turns, waiter: Any, share: float = 1.0) -> None:
        nonlocal turns
        assert share == 1.0
        wait(waiting, waiter, share)
        turns += 1

    def noted_answer(transport: TlsTransport, received: bytes) -> bool:
        complete = shake_hands(transport, received)
        if len(transport._rest) > 300:
            answered.append(turns)
        return complete

    monkeypatch.setattr(Turns, "wait", noted_turn)
    monkeypatch.setattr(TlsTransport, "shake_hands", noted_answer)
    first, second = divided(MemoryClient(client_context()).take())
    with server() as simulation:
        clients = [simulation.connect("line+tls") for _ in range(40)]
        for client in clients:
            client.send(first)
        simulation.run_until_idle()
        assert (turns, answered) == (40, [])
        for client in clients:
            client.send(second)
        simulation.run_until_idle()
        # Each in another turn.
        assert answered == list(range(41, 81))


def test_the_rest_of_a_hello_has_no_more_time_however_it_is_divided():
    hello = MemoryClient(client_context()).take()[5:]
    with server(handshake_s=10.0) as simulation:
        client = simulation.connect("line+tls")
        for n in range(11):
            client.send(record(hello[n : n + 1]))
            simulation.advance(0.9)
        assert client.state is State.OPEN
        simulation.advance(0.2)
        assert client.state is State.FIN
        assert simulation.logged["idle"] == 1
        assert not leftovers(simulation), leftovers(simulation)


def test_those_who_begin_a_handshake_at_the_same_moment_are_read_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
):
    iterations: list[int] = []
    read = Opening._read

    def noted(opening: Opening, *args: Any) -> bytes:
        data = read(opening, *args)
        iterations.append(gevent.get_hub().loop.iteration)
        return data

    monkeypatch.setattr(Opening, "_read", noted)
    with server() as simulation:
        clients = [simulation.connect("line+tls") for _ in range(40)]
        simulation.run_until_idle()
        for client in clients:
            client.send(b"\x16")
        simulation.run_until_idle()
        assert len(iterations) == 40
        assert max(Counter(iterations).values()) <= 8


def test_what_a_client_sends_before_its_handshake_is_complete_is_charged_to_its_address():
    hello = MemoryClient(client_context()).take()
    with server(address_burst_bytes=4_096, address_bytes_per_s=32.0, handshake_s=0.0) as simulation:
        client = simulation.connect("line+tls")
        reads = 0
        for n in range(len(hello)):
            client.send(hello[n : n + 1])
            simulation.run_until_idle()
        # The first 4,096 bytes of each connection do not wait, and each read costs 32.
        number = max(simulation.server._connections.open)
        opening: Any = simulation.server._connections.open[number]
        reads = opening._charged_bytes // 32
        assert reads < 140 < len(hello)
        simulation.advance(100)
        assert opening._charged_bytes // 32 > reads


def test_a_refused_client_gets_an_alert_instead_of_a_handshake():
    with server(clients=1) as simulation:
        TlsClient(simulation).shake_hands()
        refused = simulation.connect("line+tls")
        refused.send(MemoryClient(client_context()).take())
        simulation.run_until_idle()
        assert refused.received == ACCESS_DENIED
        refused.half_close()
        simulation.run_until_idle()
        assert refused.state is State.FIN
        assert simulation.logged["refused"] == 1
        assert simulation.context.admission.lingering == 0


def test_a_handshake_that_fails_is_logged_with_its_reason():
    logged: list[dict[str, object]] = []
    with server() as simulation:
        simulation.server._address_log._log = lambda event, **fields: logged.append(fields)  # type: ignore[union-attr]
        client = simulation.connect("line+tls")
        client.send(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
        simulation.run_until_idle()
        assert client.received[:2] == b"\x15\x03"
        assert client.state is State.FIN
    (failed,) = [fields for fields in logged if fields.get("reason") == "handshake"]
    assert "length" in str(failed["error"])


def test_a_stop_ends_those_who_shake_hands():
    with server() as simulation:
        client = simulation.connect("line+tls")
        simulation.run_until_idle()
        stopping = gevent.spawn(simulation.server.stop)
        simulation.run_until_idle()
        assert stopping.get(block=False)
        assert client.state is State.FIN
        assert simulation.logged["shutdown"] == 1


def test_everyone_learns_why_the_server_stops():
    with server() as simulation:
        client = TlsClient(simulation).shake_hands()
        client.say("LOGIN alice")
        stopping = gevent.spawn(simulation.server.stop)
        simulation.run_until_idle()
        assert client.taken() == b"OK\nINFO server-shutdown\n"
        assert client.memory.ended
        client.wire.close()
        simulation.run_until_idle()
        assert stopping.get(block=False)


def test_a_reader_that_stops_gets_everything_when_it_goes_on():
    with server(line_bytes=4_096, lines_per_s=0) as simulation:
        reader = TlsClient(simulation, buffer_bytes=4_096).shake_hands()
        reader.say("LOGIN reader")
        assert reader.taken() == b"OK\n"
        speaker = simulation.connect("line")
        speaker.send_lines("LOGIN speaker")
        simulation.run_until_idle()
        reader.wire.stop_reading()
        texts = [f"{n} " + "x" * 3_000 for n in range(100)]
        for text in texts:
            speaker.send_lines(f"MSG {text}")
            simulation.run_until_idle()
        reader.wire.resume_reading()
        wanted = "".join([f"MSG speaker {text}\n" for text in texts]).encode()
        received = b""
        for _ in range(1_000):
            received += reader.taken()
            if len(received) >= len(wanted):
                break
        assert received == wanted


def test_a_reader_that_stays_behind_is_disconnected_and_costs_the_others_nothing():
    with server(queue_bytes=65_536, lines_per_s=0, floor_bytes_per_s=0.0) as simulation:
        reader = TlsClient(simulation, buffer_bytes=4_096).shake_hands()
        reader.say("LOGIN reader")
        speaker, other = simulation.connect("line"), simulation.connect("line")
        speaker.send_lines("LOGIN speaker")
        other.send_lines("LOGIN other")
        simulation.run_until_idle()
        reader.wire.stop_reading()
        other.received.clear()
        for _ in range(40):
            speaker.send_lines("MSG " + "x" * 4_000)
            simulation.run_until_idle()
        assert simulation.logged["slow"] == 1
        assert other.received.count(b"MSG speaker") == 40


def test_input_that_is_decrypted_at_once_is_handled_without_more_arriving():
    with server() as simulation:
        client = TlsClient(simulation).shake_hands()
        client.say("LOGIN alice")
        client.taken()
        # More records than one read takes, in one segment.
        client.wire.send(b"".join([client.memory.send(b"PING\n") for _ in range(150)]))
        assert client.taken() == b"PONG\n" * 150


@pytest.mark.parametrize("records", [1, 440])
def test_what_was_sent_before_a_kick_is_told_apart_from_what_comes_after_it(records: int):
    with server(burst_lines=20, lines_per_s=10.0) as simulation:
        bob = EncryptedClient.connect(simulation, "line+tls")
        alice, carol = (simulation.connect("line") for _ in range(2))
        for client, name in ((alice, "alice"), (bob, "bob"), (carol, "carol")):
            client.send_lines(f"LOGIN {name}")
            simulation.run_until_idle()
        for client in (alice, bob):
            client.send_lines("JOIN dev")
            simulation.run_until_idle()
        lines = [f"MSG flood {n}\n".encode() for n in range(440)]
        bob.send_each([b"".join(lines[n::records]) for n in range(records)])
        simulation.run_until_idle()
        alice.send_lines("KICK bob")
        simulation.advance(60)
        said = alice.received.count(b"MSG bob flood")
        assert 0 < said < 440
        assert bob.received.count(b"ERR not-in-room\n") == 440 - said
        bob.send_lines("MSG sorry")
        simulation.run_until_idle()
        assert b"flood" not in carol.received
        assert carol.received.endswith(b"MSG bob sorry\n")


def test_what_is_decrypted_and_has_not_been_handled_counts_as_input_that_has_arrived():
    with server() as simulation:
        EncryptedClient.connect(simulation, "line+tls")
        (connection,) = simulation.server._connections.open.values()
        assert isinstance(connection, Connection)
        assert isinstance(connection._transport, TlsTransport)
        assert not connection.mark_input()
        connection._transport._more = True
        assert connection.mark_input()


def test_a_read_that_completes_no_record_costs_as_much_as_a_line():
    with server(burst_bytes=3_200, bytes_per_s=32.0) as simulation:
        client = TlsClient(simulation).shake_hands()
        client.say("LOGIN alice")
        client.taken()
        # A record of more bytes than the burst pays for, if each comes by itself.
        for byte in client.memory.send(b"PING\n" + b"x" * 200):
            client.wire.send(bytes([byte]))
            simulation.run_until_idle()
        assert client.taken() == b""
        simulation.advance(200)
        assert client.taken() == b"PONG\n"


def test_what_is_taken_from_the_socket_is_charged_also_when_it_completes_nothing():
    with server() as simulation:
        client = TlsClient(simulation).shake_hands()
        client.say("LOGIN alice")
        client.taken()
        (connection,) = simulation.server._connections.open.values()
        assert isinstance(connection, Connection)
        before = connection._costs.charged_bytes
        secret = client.memory.send(b"PING " + b"x" * 16_000)
        client.wire.send(secret[:-1])
        simulation.run_until_idle()
        assert connection._costs.charged_bytes - before == len(secret) - 1
        client.wire.send(secret[-1:])
        simulation.run_until_idle()
        assert connection._costs.charged_bytes - before == len(secret) - 1 + 32


def test_new_keys_without_end_cost_as_much_as_their_bytes():
    with server() as simulation:
        client = KeyChanger(simulation.connect("line+tls"), simulation)
        client.send(b"LOGIN alice\n")
        (connection,) = simulation.server._connections.open.values()
        assert isinstance(connection, Connection)
        before, taken = connection._costs.charged_bytes, connection._transport.taken_bytes  # type: ignore[attr-defined]
        client.change_keys(300)
        simulation.run_until_idle()
        taken = connection._transport.taken_bytes - taken  # type: ignore[attr-defined]
        assert taken > 300 * 20
        assert connection._costs.charged_bytes - before >= taken
        # Nothing else has happened to it.
        client.send(b"PING\n")
        assert client.received().endswith(b"OK\nPONG\n")
        client.close()


def test_a_new_certificate_is_for_new_connections_and_a_broken_one_is_refused(tmp_path: Path):
    cert, key = tmp_path / "cert.pem", tmp_path / "cert.key"
    first, second = made_certificate(), make(tmp_path, "localhost")

    def install(files: Files) -> None:
        for source, target in zip(files, (cert, key), strict=True):
            target.write_bytes(source.read_bytes())
            target.chmod(0o600)

    def seen(client: TlsClient) -> bytes | None:
        return client.memory.tls.getpeercert(binary_form=True)

    install(first)
    listen = (Listen("line+tls", "127.0.0.1", 0, cert=str(cert), key=str(key)),)
    with simulate(Config(listen=listen)) as simulation:
        alice = TlsClient(simulation).shake_hands()
        alice.say("LOGIN alice")
        cert.write_bytes(second.cert.read_bytes())
        (error,) = simulation.server.reload_certificates()
        assert error == f"tls-key: {key} is not the key of the certificate {cert}"
        assert simulation.logged["certificate-refused"] == 1
        assert seen(TlsClient(simulation).shake_hands()) == seen(alice)
        install(second)
        assert simulation.server.reload_certificates() == []
        assert simulation.logged["certificate-loaded"] == 2
        bob = TlsClient(simulation, authority=second.cert).shake_hands()
        assert seen(bob) != seen(alice)
        bob.say("LOGIN bob", "MSG hi")
        assert alice.taken() == b"OK\nMSG bob hi\n"


@pytest.mark.parametrize("scheme", ["json+tls", "slash+tls"])
def test_each_dialect_is_served(scheme: str):
    with server(scheme) as simulation:
        client = TlsClient(simulation, scheme).shake_hands()
        client.say('{"type": "ping"}' if scheme == "json+tls" else "alice")
        assert client.taken()


# --- Proxies ---------------------------------------------------------------------------------------------------------

PROXY = "10.0.0.1"


@contextmanager
def behind_a_proxy(**limits: Any) -> Iterator[Simulation]:
    cert, key = map(str, made_certificate())
    listen = tuple(Listen(scheme, "127.0.0.1", 0) for scheme in ("line", "line+tls"))
    proxies = (ip_network("10.0.0.0/24"),)
    with simulate(
        Config(listen=listen, tls_cert=cert, tls_key=key, proxy_from=proxies, limits=Limits(**limits))
    ) as simulation:
        yield simulation
        assert not simulation.faults, simulation.faults


def header(source: str) -> bytes:
    return f"PROXY TCP4 {source} 10.0.0.1 50000 4000\r\n".encode()


def test_a_client_behind_a_proxy_has_its_own_address():
    with behind_a_proxy(clients_per_address=1) as simulation:
        for source in ("192.0.2.1", "192.0.2.2"):
            client = simulation.connect("line", PROXY)
            # Bytes after the header in the same segment belong to the client.
            client.send(header(source) + b"LOGIN p" + source[-1:].encode() + b"\n")
            simulation.run_until_idle()
            assert client.received == b"OK\n"
        third = simulation.connect("line", PROXY)
        third.send(header("192.0.2.1"))
        simulation.run_until_idle()
        assert third.received == b"ERR too-many-connections\n"
        third.close()
        simulation.run_until_idle()
        hosts = [getattr(one, "host", None) for one in simulation.server._connections.open.values()]
        assert hosts == ["192.0.2.1", "192.0.2.2"]


def test_a_ban_is_about_the_address_in_the_header_and_not_about_the_proxy(tmp_path: Path):
    bans = tmp_path / "bans"
    bans.write_text("192.0.2.1\n")
    listen = (Listen("line", "127.0.0.1", 0),)
    proxies = (ip_network("10.0.0.0/24"),)
    with simulate(Config(listen=listen, proxy_from=proxies, ban_list=str(bans))) as simulation:
        for source, answer in (("192.0.2.1", b"ERR banned\n"), ("192.0.2.2", b"OK\n")):
            client = simulation.connect("line", PROXY)
            client.send(header(source) + b"LOGIN alice\n")
            simulation.run_until_idle()
            assert client.received == answer


def test_the_header_comes_before_the_handshake():
    with behind_a_proxy() as simulation:
        client = TlsClient(simulation, host=PROXY)
        client.wire.send(header("192.0.2.1"))
        client.shake_hands()
        client.say("LOGIN alice")
        assert client.taken() == b"OK\n"
        assert {getattr(one, "host", None) for one in simulation.server._connections.open.values()} == {
            "192.0.2.1"
        }


def test_a_check_by_the_proxy_itself_is_a_client_like_any_other():
    with behind_a_proxy() as simulation:
        for own in (b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"):
            client = simulation.connect("line", PROXY)
            client.send(own + b"QUIT\n")
            simulation.run_until_idle()
            assert client.received == b"Goodbye!\n"
            client.close()
        simulation.run_until_idle()
        assert simulation.server.clients == 0
        assert simulation.logged["quit"] == 2


def test_from_any_other_address_a_header_is_a_line_like_any_other():
    with behind_a_proxy() as simulation:
        client = simulation.connect("line", "10.0.1.1")
        client.send(header("192.0.2.1"))
        simulation.run_until_idle()
        assert client.received == b"ERR must-login-first\n"


@pytest.mark.parametrize(
    "sent", [b"LOGIN alice\n", header("192.0.2.300"), b"\x16\x03\x01", b"PROXY " + b"x" * 200]
)
def test_a_proxy_that_sends_no_header_is_refused(sent: bytes):
    with behind_a_proxy() as simulation:
        client = simulation.connect("line", PROXY)
        client.send(sent)
        simulation.run_until_idle()
        assert client.received == b""
        assert client.state is not State.OPEN
        assert simulation.logged["refused"] == 1
        assert simulation.server.clients == 0


def test_a_header_that_has_arrived_is_read_in_one_turn(monkeypatch: pytest.MonkeyPatch):
    fired: list[Any] = []
    fire = _Input.fire
    monkeypatch.setattr(_Input, "fire", lambda turn: (fired.append(turn), fire(turn))[1])
    with behind_a_proxy() as simulation:
        client = simulation.connect("line", PROXY)
        client.send(b"PROXY TCP6 2001:db8::1 " + b"ffff:" * 7 + b"ffff 65535 65535\r\nLOGIN alice\n")
        simulation.run_until_idle()
        assert (client.received, len(fired)) == (b"OK\n", 1)


def test_a_header_has_a_deadline_however_it_trickles():
    with behind_a_proxy(handshake_s=10.0) as simulation:
        client = simulation.connect("line", PROXY)
        whole = header("192.0.2.1")
        for n in range(len(whole) - 1):
            client.send(whole[n : n + 1])
            simulation.advance(0.2)
        assert client.state is State.OPEN
        simulation.advance(2)
        assert client.state is State.FIN
        assert simulation.logged["refused"] == 1


def test_a_proxy_that_ends_before_its_header_leaves_nothing_behind():
    with behind_a_proxy() as simulation:
        client = simulation.connect("line", PROXY)
        client.send(b"PROXY ")
        simulation.run_until_idle()
        client.close()
        simulation.run_until_idle()
        assert simulation.server.clients == 0
        assert simulation.logged["refused"] == 1
        assert not leftovers(simulation), leftovers(simulation)


def test_headers_that_have_yet_to_come_are_bounded():
    with behind_a_proxy(clients=2, lingering=1) as simulation:
        waiting = [simulation.connect("line", PROXY) for _ in range(5)]
        simulation.run_until_idle()
        assert [client.state for client in waiting] == [State.OPEN] * 3 + [State.FIN] * 2
        assert simulation.logged["refused"] == 2
