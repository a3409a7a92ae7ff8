"""The server as a library, and how it stops: on the wire through the harness' stage."""

from __future__ import annotations

import logging
import socket as plain_socket
import subprocess
import sys

import gevent
import pytest
from gevent import socket

from geventchat import CannotListen, Config, ConfigError, Limits, Listen, Server
from geventchat.chat.hub import Hub
from harness import InProcess, ServerSpec, Stage
from tests.app import serve


class Kept:
    """A factory that remembers the server it made."""

    def __init__(self) -> None:
        self.server: Server | None = None

    def __call__(self, spec: ServerSpec) -> Server:
        self.server = serve(spec)
        return self.server


def on(*dialects: str, **more: object) -> Config:
    return Config(listen=tuple(Listen(dialect, "127.0.0.1", 0) for dialect in dialects), **more)


def test_when_the_server_stops_everyone_is_told_and_nobody_hears_of_anyone_leaving():
    kept = Kept()
    with Stage(InProcess(kept), ServerSpec(endpoints=("line", "json", "slash"))) as stage:
        alice, bob, carol, lurker = stage.clients("alice", "bob", "carol", "lurker")
        alice.connect("line")
        alice.send("LOGIN alice")
        alice.expect("OK")
        bob.connect("json")
        bob.send('{"type": "join", "username": "bob"}')
        bob.take(len(bob.inbox))
        carol.connect("slash")
        carol.send("carol")
        for client in (bob, carol):
            client.take(len(client.inbox))
        lurker.connect("line")
        stopping = gevent.spawn(kept.server.stop)
        stage.fence()
        alice.expect("INFO server-shutdown")
        bob.expect('{"type": "error", "message": "Server shutting down"}')
        carol.expect("[info] Server is shutting down.")
        lurker.expect("INFO server-shutdown")
        for client in (alice, bob, carol, lurker):
            client.expect_closed()
            client.close()
        stage.settle()
        assert stopping.get(block=False) is True
        assert kept.server.clients == 0


def test_what_was_said_before_the_stop_is_heard_before_the_notice():
    kept = Kept()
    with Stage(InProcess(kept)) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.send("LOGIN alice")
        alice.expect("OK")
        bob.send("LOGIN bob")
        bob.expect("OK")
        alice.post(b"MSG one\nPING x\nMSG two\n")
        stage.fence()
        stopping = gevent.spawn(kept.server.stop)
        stage.fence()
        alice.expect("PONG x")
        alice.expect("INFO server-shutdown")
        bob.expect("MSG alice one")
        bob.expect("MSG alice two")
        bob.expect("INFO server-shutdown")
        for client in (alice, bob):
            client.expect_closed()
            client.close()
        stage.settle()
        assert stopping.get(block=False) is True


def test_who_does_not_read_is_dropped_at_the_deadline_and_the_stop_says_so():
    kept = Kept()
    with Stage(InProcess(kept), ServerSpec(options={"rate": "0", "idle": "0"})) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.send("LOGIN alice")
        alice.expect("OK")
        bob.send("LOGIN bob")
        bob.expect("OK")
        bob.stop_reading()
        for _ in range(8):
            alice.send("MSG " + "x" * 4000)
        connection = list(kept.server._connections.values())[1]
        while connection._outbox.idle:
            alice.send("MSG " + "x" * 4000)
        stopping = gevent.spawn(kept.server.stop, 3)
        stage.fence()
        alice.expect("INFO server-shutdown")
        alice.close()
        stage.wait(2.999)
        assert not stopping.ready()
        stage.wait(0.001)
        assert stopping.get(block=False) is False
        assert kept.server.clients == 0


def test_who_was_refused_is_told_that_alone_though_the_server_stops_at_that_moment():
    with Server(on("line", limits=Limits(clients=1))) as server:
        inside = socket.create_connection(server.addresses["line"])
        inside.sendall(b"LOGIN alice\n")
        assert inside.recv(10) == b"OK\n"
        ours, theirs = plain_socket.socketpair()
        theirs.setblocking(False)
        # Accepted, refused, and the server stopped before the greenlet that says so has had its turn.
        server._listeners[0][1]._arrive(theirs, "127.0.0.1")
        inside.close()
        ours.shutdown(plain_socket.SHUT_WR)
        assert server.stop()
        assert ours.makefile("rb").read() == b"ERR server-full\n"
        ours.close()


def test_when_there_is_no_time_for_goodbyes_nobody_lingers():
    with Server(on("line", limits=Limits(linger_s=60))) as server:
        client = socket.create_connection(server.addresses["line"])
        client.sendall(b"LOGIN alice\n")
        assert client.recv(10) == b"OK\n"
        # Dropped before it has had its turn to take its dismissal, as may be where thousands are told to go.
        connection = next(iter(server._connections.values()))
        connection.dismiss()
        connection.drop()
        assert server._empty.wait(20)
        client.close()


def ask_until_not_heard(client: socket.socket, question: bytes, most: int) -> int:
    """Ask the same again and again, reading nothing, until the server takes no more; how many bytes it took."""
    client.settimeout(0.5)
    many = question * 100
    asked = 0
    try:
        while asked < most:
            asked += client.send(many[asked % len(question) :])
    except TimeoutError:
        pass
    client.settimeout(None)
    return asked


@pytest.mark.parametrize(
    ("question", "people", "most"),
    [
        (b"x" * 99 + b"\n", 1, 100_000_000),
        (b"PING " + b"x" * 4000 + b"\n", 1, 100_000_000),
        (b"WHO\n", 60, 65_536),
    ],
    ids=["answers shorter than questions", "answers as long", "answers much longer"],
)
def test_who_asks_faster_than_it_reads_is_read_more_slowly_and_gets_every_answer(
    question: bytes, people: int, most: int
):
    limits = Limits(lines_per_s=0, queue_bytes=200_000)
    with Server(on("line", limits=limits)) as server:
        clients = [socket.create_connection(server.addresses["line"]) for _ in range(people)]
        for number, other in enumerate(clients):
            other.sendall(b"LOGIN somebody-called-%03d\n" % number)
            assert other.recv(10) == b"OK\n"
        client = clients[0]
        asked = ask_until_not_heard(client, question, most)
        connection = next(iter(server._connections.values()))
        assert connection._outbox.backlog_bytes + connection._outbox.own_bytes < 200_000
        rest = question[asked % len(question) :] if asked % len(question) else b""
        whole = (asked + len(rest)) // len(question)
        answer = b"".join(b"USER somebody-called-%03d\n" % n for n in range(people))
        if question != b"WHO\n":
            answer = question.replace(b"PING", b"PONG") if b"PING" in question else b"ERR unknown-command\n"
        wanted = whole * len(answer) + len(b"Goodbye!\n")
        gevent.spawn(client.sendall, rest + b"QUIT\n")
        heard = 0
        while chunk := client.recv(1 << 20):
            heard += len(chunk)
        assert heard == wanted
        for other in clients:
            other.close()


def test_the_urgent_byte_of_telnet_s_interrupt_takes_nothing_of_the_line_behind_it():
    with Server(on("line")) as server, socket.create_connection(server.addresses["line"]) as client:
        client.sendall(b"LOGIN alice\n")
        assert client.recv(10) == b"OK\n"
        # Interrupt process, then a data mark whose second byte is out of band.
        client.sendall(b"\xff\xf4")
        client.send(b"\xff\xf2", plain_socket.MSG_OOB)
        client.sendall(b"PING still here\n")
        assert client.recv(100) == b"PONG still here\n"


def test_several_live_in_one_process_and_know_nothing_of_each_other():
    with Server(on("line")) as one, Server(on("line", "json")) as other:
        assert set(one.addresses) == {"line"}
        assert set(other.addresses) == {"line", "json"}
        assert one.addresses["line"] != other.addresses["line"]
        clients = [socket.create_connection(server.addresses["line"]) for server in (one, other)]
        for client in clients:
            client.sendall(b"LOGIN alice\n")
            assert client.recv(10) == b"OK\n"
        for client in clients:
            client.close()


def test_a_server_can_be_started_again_once_it_has_stopped():
    server = Server(on("line"))
    for _ in range(2):
        server.start()
        with socket.create_connection(server.addresses["line"]) as client:
            client.sendall(b"LOGIN alice\n")
            assert client.recv(10) == b"OK\n"
        assert server.stop()
    with server, pytest.raises(RuntimeError, match="has been started"):
        server.start()


def test_stopping_twice_is_stopping_once():
    told: list[str] = []
    server = Server(on("line"), log=lambda happening, **_: told.append(happening.value))
    server.start()
    assert server.stop()
    assert server.stop()
    assert told == ["listening", "stopping", "stopped"]


def test_a_place_that_is_taken_is_an_error_that_names_it_and_leaves_nothing_open():
    with Server(on("line")) as one:
        taken = Listen("json", *one.addresses["line"])
        other = Server(Config(listen=(Listen("line", "127.0.0.1", 0), taken)))
        with pytest.raises(CannotListen) as refused:
            other.start()
        assert refused.value.listen == taken
        assert refused.value.in_use
        assert other.addresses == {}


def test_every_interface_is_both_kinds_of_address_and_each_is_logged_as_what_it_is():
    told: list[object] = []

    def log(happening, **fields):
        if happening.value == "connected":
            told.append(fields["address"])

    with Server(Config(listen=(Listen("line", "", 0),)), log=log) as server:
        _, port = server.addresses["line"]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port)) as client:
                client.sendall(b"LOGIN alice\nQUIT\n")
                assert client.makefile("rb").read() == b"OK\nGoodbye!\n"
    assert told == ["127.0.0.1", "::1"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Listen("irc"), "dialect: 'irc' is not line, json or slash"),
        (lambda: Listen("line", "", 70_000), "port: 70000 is not a port"),
        (lambda: Limits(clients=0), "clients: 0 is not"),
        (lambda: Limits(queue_bytes=10), "queue_bytes: 10 is not"),
        (lambda: Limits(lines_per_s=-1), "lines_per_s: -1 is not"),
        (lambda: Limits(burst_lines=0), "burst_lines: 0 is not"),
        (lambda: Config(listen=()), "listen: () is not one or more of"),
        (lambda: Config(idle_s=-1.0), "idle_s: -1.0 is not"),
        (lambda: Config(shutdown_s=-1.0), "shutdown_s: -1.0 is not"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(make, said: str):
    with pytest.raises(ConfigError) as refused:
        make()
    assert said in str(refused.value)


def test_a_program_around_it_finds_the_log_where_it_expects_it(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="geventchat")
    with Server(on("line")) as server, socket.create_connection(server.addresses["line"]) as client:
        client.sendall(b"LOGIN alice\nQUIT\n")
        client.makefile("rb").read()
    assert "login conn=1 name=alice" in caplog.messages


def test_a_fault_in_the_server_ends_one_conversation_and_is_logged(monkeypatch: pytest.MonkeyPatch):
    told: list[tuple[str, dict[str, object]]] = []

    def log(happening, **fields):
        told.append((happening.value, fields))

    def broken(self, session, command):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Hub, "_ping", broken)
    with Server(on("line"), log=log) as server:
        alice, bob = (socket.create_connection(server.addresses["line"]) for _ in range(2))
        for name, client in ((b"alice", alice), (b"bob", bob)):
            client.sendall(b"LOGIN " + name + b"\n")
            assert client.recv(10) == b"OK\n"
        alice.sendall(b"MSG before\nPING\nMSG after\n")
        assert alice.makefile("rb").read() == b""
        alice.close()
        heard = bob.makefile("rb")
        assert heard.readline() == b"MSG alice before\n"
        assert heard.readline() == b"INFO alice disconnected\n"
        bob.sendall(b"WHO\n")
        assert heard.readline() == b"USER bob\n"
        bob.close()
    faults = [fields for happening, fields in told if happening == "fault"]
    assert len(faults) == 1
    assert "planted" in str(faults[0]["error"])
    assert faults[0]["name"] == "alice"


def test_importing_it_patches_nothing():
    program = "import geventchat; from gevent import monkey; assert not monkey.saved, monkey.saved"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
