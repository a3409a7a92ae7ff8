"""The client over TLS: what it sends and receives, which certificates it accepts, and what it says about the others."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from geventchat.client.address import Address
from geventchat.client.connection import (
    Connected,
    ConnectFailed,
    ConnectionEvent,
    Disconnected,
    LineReceived,
)
from geventchat.client.loop import Loop
from geventchat.client.network import Network
from tests.certificates import Files, made_certificate, make, run
from tests.client.raw_client import RawClient
from tests.client.real_server import RealServer
from tests.client.scripted_server import Script, ScriptedServer
from tests.patience import HANG_S

Pipe = Callable[..., "subprocess.CompletedProcess[bytes]"]
StartScripted = Callable[..., ScriptedServer]


@pytest.fixture(scope="module")
def secure_server() -> Iterator[RealServer]:
    """A server with and without TLS, under an address that is in its certificate."""
    files = made_certificate()
    server = RealServer(
        f"--tls-cert={files.cert}",
        f"--tls-key={files.key}",
        schemes=("line", "line+tls", "json+tls"),
        host="127.0.0.1",
    )
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("scheme", "listener"), [("line+tls", "line+tls"), ("json+tls", "json+tls"), ("chats", "json+tls")]
)
def test_a_line_is_delivered(secure_server: RealServer, pipe: Pipe, scheme: str, listener: str) -> None:
    carol = RawClient(secure_server.host, secure_server.ports["line"], "carol")
    address = f"{scheme}://ci@{secure_server.at(listener)}"
    done = pipe(address, "--tls-ca", str(made_certificate().cert), stdin=b"deploy done\n")
    carol.expect("MSG ci deploy done")
    carol.leave()
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b" ci: deploy done\n")


def test_a_certificate_of_an_unknown_authority_is_refused(secure_server: RealServer, pipe: Pipe) -> None:
    address = secure_server.at("line+tls")
    done = pipe(f"chats://ci@{address}", stdin=b"secret\n")
    assert done.returncode == 1
    assert done.stderr.decode() == (
        f"geventchat: The certificate of {address} is not from an authority that this machine trusts. "
        "--tls-ca FILE names the certificates to trust instead.\n"
    )


def test_tls_to_a_plain_port_and_plain_text_to_a_tls_port_are_explained(
    secure_server: RealServer, pipe: Pipe
) -> None:
    plain, secure = secure_server.at("line"), secure_server.at("json+tls")
    done = pipe(f"chats://ci@{plain}", stdin=b"hello\n")
    assert (done.returncode, done.stderr.decode()) == (
        1,
        f"geventchat: {plain} does not answer in TLS. Without encryption: chat://{plain}.\n",
    )
    done = pipe(f"chat://ci@{secure}", stdin=b"hello\n")
    assert (done.returncode, done.stderr.decode()) == (
        1,
        f"geventchat: {secure} speaks TLS: use chats://{secure}.\n",
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot read {}: no such file or directory"), ("x", "{} contains no certificate in PEM format")],
)
def test_a_file_without_certificates_is_named(
    tmp_path: Path, pipe: Pipe, content: str | None, complaint: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    done = pipe("chats://ci@127.0.0.1:1", "--tls-ca", str(path), stdin=b"hello\n")
    assert (done.returncode, done.stderr.decode()) == (
        1,
        f"geventchat: tls-ca: {complaint.format(path)}.\n",
    )


# One connection to a server that does what the test says.


class Client:
    """A network over TLS and its events."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.events: list[ConnectionEvent] = []
        self.network: Network

    def connect(self, address: str, authority: Path | None, timeout_s: float = HANG_S) -> ConnectionEvent:
        """Connect; the outcome."""
        host, _, port = address.rpartition(":")
        self.network = Network(self.loop, self.events.append, str(authority or ""))
        self.network.connect(Address(host, int(port), tls=True), timeout_s)
        self.loop.run(until=lambda: bool(self.events))
        return self.events[0]


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.network.close()
    client.loop.run(until=lambda: client.network.is_closed)
    client.loop.close()


def over_tls(files: Files, talk: Callable[[ssl.SSLSocket], None] = lambda _: None) -> Script:
    """A server that shakes hands and then talks."""

    def script(client: socket.socket, _: BinaryIO) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key)
        try:
            secure = context.wrap_socket(client, server_side=True, suppress_ragged_eofs=False)
        except OSError:
            # The client has refused the certificate.
            return
        with secure:
            talk(secure)

    return script


def sends(data: bytes) -> Script:
    """A server that sends this whatever it receives, and hangs up when the client does."""

    def script(client: socket.socket, _: BinaryIO) -> None:
        client.recv(65536)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        client.recv(65536)

    return script


def test_lines_go_both_ways_and_the_end_is_announced(scripted_server: StartScripted, client: Client) -> None:
    received = bytearray()
    may_read = threading.Event()

    def talk(secure: ssl.SSLSocket) -> None:
        secure.sendall(b"hel")
        secure.sendall(b"lo\r\n" + b"x" * 100_000 + b"\n")
        assert may_read.wait(HANG_S)
        while data := secure.recv(65536):
            received.extend(data)

    server = scripted_server(over_tls(made_certificate(), talk))
    connected = client.connect(server.address, made_certificate().cert)
    assert isinstance(connected, Connected)
    # More than the buffers of both ends take.
    connected.connection.send(b"y" * 20_000_000 + b"\n")
    assert connected.connection.blocked
    may_read.set()
    client.loop.run(until=lambda: sum(isinstance(event, LineReceived) for event in client.events) == 2)
    lines = [event.line for event in client.events if isinstance(event, LineReceived)]
    assert lines == [b"hello", b"x" * 100_000]
    client.loop.run(until=lambda: not connected.connection.blocked)
    connected.connection.send(b"QUIT\n")
    connected.connection.close()
    client.loop.run(until=lambda: connected.connection.is_closed)
    # Its `recv` fails at an end that is not announced.
    server.stop()
    assert received.endswith(b"y\nQUIT\n")
    assert len(received) == 20_000_006


def test_the_servers_end_is_an_end(scripted_server: StartScripted, client: Client) -> None:
    def talk(secure: ssl.SSLSocket) -> None:
        secure.sendall(b"Goodbye!\n")
        # The client does not announce its own end to a server that has left.
        with suppress(OSError):
            secure.unwrap()

    server = scripted_server(over_tls(made_certificate(), talk))
    connected = client.connect(server.address, made_certificate().cert)
    assert isinstance(connected, Connected)
    client.loop.run(until=lambda: connected.connection.is_closed)
    assert client.events[-2:] == [
        LineReceived(connected.connection, b"Goodbye!"),
        Disconnected(connected.connection, "the server closed it"),
    ]


def expired(folder: Path) -> Files:
    """A certificate that has expired."""
    files, request, cert = make(folder), folder / "request.pem", folder / "expired.pem"
    names = folder / "names"
    names.write_text("subjectAltName=IP:127.0.0.1")
    run("req", "-new", "-key", str(files.key), "-subj", "/CN=localhost", "-out", str(request))
    signed = ("-signkey", str(files.key), "-days", "-1", "-extfile", str(names), "-out", str(cert))
    run("x509", "-req", "-in", str(request), *signed)
    return Files(cert, files.key)


@pytest.mark.parametrize(
    ("made", "host", "complaint"),
    [
        (
            lambda folder: make(folder, "other.example"),
            "localhost",
            " is not for localhost but for another host.",
        ),
        (expired, "127.0.0.1", " has expired."),
    ],
)
def test_a_wrong_certificate_is_explained(
    scripted_server: StartScripted,
    client: Client,
    tmp_path: Path,
    made: Callable[[Path], Files],
    host: str,
    complaint: str,
) -> None:
    files = made(tmp_path)
    address = scripted_server(over_tls(files)).address.replace("127.0.0.1", host)
    failed = client.connect(address, files.cert)
    assert failed == ConnectFailed(f"The certificate of {address}{complaint}", final=True)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (sends(b"220 mail\r\n"), "{0} does not answer in TLS. Without encryption: chat://{0}."),
        (sends(b""), "{0} does not answer in TLS. Without encryption: chat://{0}."),
        (
            sends(b"\x15\x03\x01\x00\x02\x02\x31"),
            "{0} refuses this client: the server is full, or the address is banned.",
        ),
        (sends(b"\x15\x03\x01\x00\x02\x02\x46"), "No encrypted connection to {0}: "),
    ],
)
def test_a_handshake_that_fails_is_explained(
    scripted_server: StartScripted, client: Client, script: Script, complaint: str
) -> None:
    address = scripted_server(script).address
    failed = client.connect(address, None)
    assert isinstance(failed, ConnectFailed)
    assert failed.final
    assert failed.reason.startswith(complaint.format(address))
    assert failed.reason.endswith(".")


def test_a_handshake_without_an_answer_has_a_deadline(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert client.connect(address, None, 0.05) == ConnectFailed(f"{address} did not answer within 0 s.")
    assert len(client.events) == 1
