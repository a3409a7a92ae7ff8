"""The server as a library, and how it stops: observed by clients on a stage of the harness."""

from __future__ import annotations

import logging
import re
import socket as plain_socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gevent
import pytest
from gevent import socket

from geventchat import CannotListen, Config, ConfigError, Limits, Listen, Server
from geventchat.chat.chat import Chat
from geventchat.chat.commands import Ping
from geventchat.log import LogEvent
from geventchat.services.passwords import Cost, Hasher
from geventchat.settings import SERVICES
from harness import InProcess, ServerSpec, Stage
from tests.app import serve
from tests.certificates import made_certificate
from tests.patience import HANG_S


class RememberingFactory:
    """Makes the server that a stage asks for, and remembers it."""

    def __init__(self) -> None:
        self.server: Server | None = None

    def __call__(self, spec: ServerSpec) -> Server:
        self.server = serve(spec)
        return self.server


def config(*dialects: str, **more: object) -> Config:
    return Config(listen=tuple(Listen(dialect, "127.0.0.1", 0) for dialect in dialects), **more)


def test_on_shutdown_everyone_gets_a_notice_and_no_news_of_others_leaving():
    factory = RememberingFactory()
    with Stage(InProcess(factory), ServerSpec(endpoints=("line", "json", "slash"))) as stage:
        alice, bob, carol, unnamed = stage.clients("alice", "bob", "carol", "unnamed")
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
        unnamed.connect("line")
        stopping = gevent.spawn(factory.server.stop)
        stage.fence()
        alice.expect("INFO server-shutdown")
        bob.expect('{"type": "error", "message": "Server shutting down"}')
        carol.expect("[info] Server is shutting down.")
        unnamed.expect("INFO server-shutdown")
        for client in (alice, bob, carol, unnamed):
            client.expect_closed()
            client.close()
        stage.settle()
        assert stopping.get(block=False) is True
        assert factory.server.clients == 0


def test_messages_before_the_shutdown_arrive_before_the_notice():
    factory = RememberingFactory()
    with Stage(InProcess(factory)) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.send("LOGIN alice")
        alice.expect("OK")
        bob.send("LOGIN bob")
        bob.expect("OK")
        alice.post(b"MSG one\nPING x\nMSG two\n")
        stage.fence()
        stopping = gevent.spawn(factory.server.stop)
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


def test_a_client_that_does_not_read_is_dropped_at_the_deadline_and_stop_returns_false():
    factory = RememberingFactory()
    with Stage(InProcess(factory), ServerSpec(options={"rate": "0", "idle": "0"})) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.send("LOGIN alice")
        alice.expect("OK")
        bob.send("LOGIN bob")
        bob.expect("OK")
        bob.stop_reading()
        for _ in range(8):
            alice.send("MSG " + "x" * 4000)
        connection = list(factory.server._connections.open.values())[1]
        while connection._subscriber.all_sent:
            alice.send("MSG " + "x" * 4000)
        stopping = gevent.spawn(factory.server.stop, 3)
        stage.fence()
        alice.expect("INFO server-shutdown")
        alice.close()
        stage.wait(2.999)
        assert not stopping.ready()
        stage.wait(0.001)
        assert stopping.get(block=False) is False
        assert factory.server.clients == 0


def test_a_refused_client_gets_its_refusal_alone_even_if_the_server_stops_at_that_moment():
    with Server(config("line", limits=Limits(clients=1))) as server:
        connected = socket.create_connection(server.addresses["line"])
        connected.sendall(b"LOGIN alice\n")
        assert connected.recv(10) == b"OK\n"
        ours, theirs = plain_socket.socketpair()
        theirs.setblocking(False)
        # Accepted, refused, and the server stopped before the greenlet that says so has run.
        server._listeners[0][1]._on_connect(theirs, "127.0.0.1")
        connected.close()
        ours.shutdown(plain_socket.SHUT_WR)
        assert server.stop()
        assert ours.makefile("rb").read() == b"ERR server-full\n"
        ours.close()


def test_a_client_that_is_dropped_does_not_linger():
    with Server(config("line", limits=Limits(linger_s=60))) as server:
        client = socket.create_connection(server.addresses["line"])
        client.sendall(b"LOGIN alice\n")
        assert client.recv(10) == b"OK\n"
        # Dropped before its greenlet has run after the notice, as can happen with thousands of clients.
        connection = next(iter(server._connections.open.values()))
        connection.shut_down()
        connection.drop()
        assert server._connections.wait_until_empty(HANG_S)
        client.close()


def sent_in_time(client: socket.socket, data: bytes) -> int:
    try:
        return client.send(data)
    except TimeoutError:
        return 0


def request_until_not_read(client: socket.socket, request: bytes, most: int) -> int:
    """Send the same request, reading nothing, until the server reads no more; how many bytes it took."""
    client.settimeout(0.25)
    many = request * 100
    sent = refused = 0
    # A busy machine can keep this process, which is the server's, from running for the whole of one time-out.
    while sent < most and refused < 2:
        taken = sent_in_time(client, many[sent % len(request) :])
        sent += taken
        refused = 0 if taken else refused + 1
    client.settimeout(None)
    return sent


@pytest.mark.parametrize(
    ("request_line", "members", "most"),
    [
        (b"x" * 99 + b"\n", 1, 100_000_000),
        (b"PING " + b"x" * 4000 + b"\n", 1, 100_000_000),
        (b"WHO\n", 60, 65_536),
    ],
    ids=["answers shorter than requests", "answers as long", "answers much longer"],
)
def test_a_client_that_requests_faster_than_it_reads_is_read_more_slowly_and_gets_every_answer(
    request_line: bytes, members: int, most: int
):
    limits = Limits(lines_per_s=0, queue_bytes=200_000)
    with Server(config("line", limits=limits)) as server:
        clients = [socket.create_connection(server.addresses["line"]) for _ in range(members)]
        for number, other in enumerate(clients):
            other.sendall(b"LOGIN somebody-called-%03d\n" % number)
            assert other.recv(10) == b"OK\n"
        client = clients[0]
        sent = request_until_not_read(client, request_line, most)
        connection = next(iter(server._connections.open.values()))
        assert connection._subscriber.backlog_bytes < 200_000
        rest = request_line[sent % len(request_line) :] if sent % len(request_line) else b""
        requests = (sent + len(rest)) // len(request_line)
        answer = b"".join(b"USER somebody-called-%03d\n" % n for n in range(members))
        if request_line != b"WHO\n":
            is_ping = b"PING" in request_line
            answer = request_line.replace(b"PING", b"PONG") if is_ping else b"ERR unknown-command\n"
        wanted = requests * len(answer) + len(b"Goodbye!\n")
        gevent.spawn(client.sendall, rest + b"QUIT\n")
        received = 0
        while chunk := client.recv(1 << 20):
            received += len(chunk)
        assert received == wanted
        for other in clients:
            other.close()


def test_telnets_interrupt_is_answered_at_once_and_its_urgent_byte_is_removed_from_the_line_behind_it():
    with Server(config("line")) as server, socket.create_connection(server.addresses["line"]) as client:
        client.sendall(b"LOGIN alice\n")
        assert client.recv(10) == b"OK\n"
        # Interrupt process, do timing mark; with `toggle autosynch` also a data mark with a byte out of band.
        client.sendall(b"\xff\xf4\xff\xfd\x06")
        client.send(b"\xff\xf2", plain_socket.MSG_OOB)
        assert client.recv(10) == b"\xff\xfb\x06"
        client.sendall(b"PING still here\n")
        assert client.recv(100) == b"PONG still here\n"


def test_what_is_piped_into_nc_is_handled_although_its_side_has_ended():
    with Server(config("line")) as server:
        # The login waits for an iteration, in which the end is noticed before or after its turn comes.
        for _ in range(20):
            with socket.create_connection(server.addresses["line"]) as client:
                client.sendall(b"LOGIN alice\nPING\nQUIT\n")
                client.shutdown(plain_socket.SHUT_WR)
                received = b""
                while chunk := client.recv(100):
                    received += chunk
            assert received == b"OK\nPONG\nGoodbye!\n"


def test_servers_in_one_process_are_independent():
    with Server(config("line")) as one, Server(config("line", "json")) as other:
        assert set(one.addresses) == {"line"}
        assert set(other.addresses) == {"line", "json"}
        assert one.addresses["line"] != other.addresses["line"]
        clients = [socket.create_connection(server.addresses["line"]) for server in (one, other)]
        for client in clients:
            client.sendall(b"LOGIN alice\n")
            assert client.recv(10) == b"OK\n"
        for client in clients:
            client.close()


def test_a_stopped_server_can_be_started_again():
    server = Server(config("line"))
    for _ in range(2):
        server.start()
        with socket.create_connection(server.addresses["line"]) as client:
            client.sendall(b"LOGIN alice\n")
            assert client.recv(10) == b"OK\n"
        assert server.stop()
    with server, pytest.raises(RuntimeError, match="has already been started"):
        server.start()


@pytest.mark.parametrize(
    "hasher", [None, Hasher(Cost(4, 1, 1))], ids=["its own hasher", "that of the program"]
)
def test_a_server_that_was_started_again_hashes_passwords(hasher: Hasher | None):
    server = Server(config("line"), hasher=hasher)
    for _ in range(2):
        with server, socket.create_connection(server.addresses["line"], HANG_S) as client:
            client.sendall(b"LOGIN alice\nREGISTER correct horse battery staple\n")
            with client.makefile("rb") as lines:
                assert [lines.readline(), lines.readline()] == [b"OK\n", b"OK\n"]


def test_every_service_in_the_table_serves_the_clients_of_its_listener():
    # The chat page needs a package.
    services = [name for name in SERVICES if name != "web" or find_spec("websockets") is not None]
    with Server(config(*services)) as server:
        for scheme, address in server.addresses.items():
            with socket.create_connection(address) as client:
                client.shutdown(plain_socket.SHUT_WR)
                assert client.recv(1) == b"", scheme


def test_stopping_twice_stops_once():
    logged: list[str] = []
    server = Server(config("line"), log=lambda event, **_: logged.append(event.value))
    server.start()
    assert server.stop()
    assert server.stop()
    assert logged == ["listening", "stopping", "stopped"]


def test_an_address_in_use_is_named_in_the_error_and_nothing_stays_open():
    with Server(config("line")) as one:
        taken = Listen("json", *one.addresses["line"])
        other = Server(Config(listen=(Listen("line", "127.0.0.1", 0), taken)))
        with pytest.raises(CannotListen) as refused:
            other.start()
        assert refused.value.listen == taken
        assert refused.value.in_use
        assert other.addresses == {}


def test_stopping_a_server_that_did_not_start_closes_nothing_a_second_time(tmp_path: Path):
    logged: list[str] = []

    def other() -> Server:
        return Server(
            Config(listen=(taken,), data=str(tmp_path)), log=lambda event, **_: logged.append(event.value)
        )

    with Server(config("line")) as one:
        taken = Listen("line", *one.addresses["line"])
        failed = other()
        with pytest.raises(CannotListen):
            failed.start()
        # It gets the numbers of the descriptors that are free again.
        files = [(tmp_path / "chat.db").open("rb") for _ in range(10)]
        logged.clear()
        assert failed.stop()
        for file in files:
            # This fails if something else has closed the descriptor.
            file.close()
        assert logged == []
    with other() as started:
        assert started.clients == 0


def test_every_interface_means_ipv4_and_ipv6_and_each_is_logged_in_its_own_notation():
    logged: list[object] = []

    def log(event, **fields):
        if event.value == "connected":
            logged.append(fields["address"])

    with Server(Config(listen=(Listen("line", "", 0),)), log=log) as server:
        _, port = server.addresses["line"]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port)) as client:
                client.sendall(b"LOGIN alice\nQUIT\n")
                assert client.makefile("rb").read() == b"OK\nGoodbye!\n"
    assert logged == ["127.0.0.1", "::1"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Listen("irc"),
            "scheme: 'irc' is not line, json, slash, metrics or web, alone or with +tls or +unix",
        ),
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
def test_an_invalid_configuration_is_refused(make, message: str):
    with pytest.raises(ConfigError) as refused:
        make()
    assert message in str(refused.value)


def test_only_what_the_network_can_read_is_warned_of(tmp_path: Path):
    logged: list[dict[str, object]] = []
    cert = str(made_certificate().cert), str(made_certificate().key)
    listen = (
        *(Listen("line", host, 0) for host in ("127.0.0.1", "0.0.0.0")),
        Listen("line+tls", "0.0.0.0", 0),
        Listen("line+unix", path=str(tmp_path / "chat.sock")),
    )
    config = Config(listen=listen, tls_cert=cert[0], tls_key=cert[1])
    with Server(config, log=lambda event, **fields: logged.append({"event": event.value, **fields})):
        pass
    warned = [fields["listen"] for fields in logged if fields["event"] == "passwords-in-clear"]
    assert warned == ["line://0.0.0.0:0"]


def test_limits_of_an_address_above_its_networks_are_warned_of_at_the_start_and_at_each_reload():
    warned: list[object] = []

    def log(event: LogEvent, /, **fields: object) -> None:
        if event is LogEvent.LIMITS_ABOVE_NETWORK:
            warned.append(fields["limits"])

    high = config("line", limits=Limits(address_logins_per_s=21, clients_per_network=9))
    with Server(high, log=log) as server:
        assert warned == ["max-per-address address-login-rate"]
        server.change(config("line"))
        assert len(warned) == 1
        server.change(config("line", limits=Limits(address_burst_rooms=500)))
        assert warned[1:] == ["address-room-burst"]


def test_an_embedding_program_finds_the_log_in_the_standard_library(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="geventchat")
    with Server(config("line")) as server, socket.create_connection(server.addresses["line"]) as client:
        client.sendall(b"LOGIN alice\nQUIT\n")
        client.makefile("rb").read()
    assert "login conn=1 name=alice" in caplog.messages


def test_a_fault_ends_one_connection_and_is_logged(monkeypatch: pytest.MonkeyPatch):
    logged: list[tuple[str, dict[str, object]]] = []
    handle = Chat.handle

    def faulty_handle(self, session, command):
        if isinstance(command, Ping):
            raise ZeroDivisionError("planted")
        return handle(self, session, command)

    monkeypatch.setattr(Chat, "handle", faulty_handle)
    with Server(config("line"), log=lambda event, **fields: logged.append((event.value, fields))) as server:
        alice, bob = (socket.create_connection(server.addresses["line"]) for _ in range(2))
        for name, client in ((b"alice", alice), (b"bob", bob)):
            client.sendall(b"LOGIN " + name + b"\n")
            assert client.recv(10) == b"OK\n"
        alice.sendall(b"MSG before\nPING\nMSG after\n")
        assert alice.makefile("rb").read() == b""
        alice.close()
        lines = bob.makefile("rb")
        assert lines.readline() == b"MSG alice before\n"
        assert lines.readline() == b"INFO alice disconnected\n"
        bob.sendall(b"WHO\n")
        assert lines.readline() == b"USER bob\n"
        bob.close()
    faults = [fields for event, fields in logged if event == "fault"]
    assert len(faults) == 1
    assert "planted" in str(faults[0]["error"])
    assert faults[0]["name"] == "alice"


def test_importing_the_package_patches_nothing():
    program = "import geventchat; from gevent import monkey; assert not monkey.saved, monkey.saved"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=HANG_S)


def converse(directory: Path, *lines: str) -> list[str]:
    """The answer of a server with this data directory to one client."""
    with (
        Server(config("line", data=str(directory))) as server,
        socket.create_connection(server.addresses["line"], timeout=HANG_S) as client,
    ):
        client.sendall("".join([f"{line}\n" for line in (*lines, "QUIT")]).encode())
        answers = client.makefile("r", encoding="utf-8", newline="\n").read()
    return [re.sub(r"\d{4}-\S+Z", "TIME", answer) for answer in answers.splitlines()]


def test_a_deleted_message_keeps_its_place_and_has_no_text_after_a_restart(tmp_path: Path):
    converse(tmp_path, "LOGIN ann", "JOIN dev", "MSG secret one", "MSG secret two", "MSG fine")
    # One of them is deleted where it is in memory, one where only the storage has it.
    assert converse(tmp_path, "LOGIN ann", "JOIN dev", "DELETE 1", "MSG secret three", "DELETE 4")[2:] == [
        "OK",
        "OK",
        "Goodbye!",
    ]
    answers = converse(tmp_path, "LOGIN ann", "JOIN dev", "HISTORY", "DELETE 1", "DELETE 5")
    assert answers[2:] == [
        "HIST 1 TIME ann",
        "HIST 2 TIME ann secret two",
        "HIST 3 TIME ann fine",
        "HIST 4 TIME ann",
        "OK",
        "OK",
        "ERR no-such-message",
        "Goodbye!",
    ]
    kept = b"".join([path.read_bytes() for path in tmp_path.iterdir()])
    assert [text for text in (b"secret one", b"secret two", b"secret three") if text in kept] == [
        b"secret two"
    ]
