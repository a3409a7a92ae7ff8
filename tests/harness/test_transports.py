"""Clients over TLS and WebSocket: what passes, what a handshake or a frame that is wrong says, and which fences hold."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import gevent
import gevent.ssl
import pytest
from gevent.server import StreamServer

from harness import (
    Address,
    Command,
    InProcess,
    InProcessAsyncio,
    PlayOptions,
    ServerSpec,
    Stage,
    Verdict,
    parse,
    play,
)
from harness.cli import main
from harness.language.expansion import expand
from harness.language.fences import Fence
from harness.language.problems import ScriptError
from harness.language.steps import Transport
from harness.playing.verdict import FailureKind, Outcome
from harness.report.styled_text import plain
from harness.report.text import report
from harness.stage.fence import Grade
from harness.stage.tls import Tls
from harness.stage.transport import HandshakeFailed, Plain, TlsTrust
from harness.stage.websocket import WebSocket
from tests.harness.servers import streams

SERVER = Path(__file__).parent / "servers" / "streams.py"
ROOT = Path(__file__).parents[2]
REPLY = "reply: PING ${t} -> PONG ${t}\n"
PING = "fence: PING ${token} -> PONG ${token}\n"
TALK = """
alice> hello there
alice< hello there
bob< hello there
bob> Grüße
alice< Grüße
bob< Grüße
bob> QUIT
bob is closed
alice> all alone
alice< all alone
"""
DEFAULT = "\nalice connects\nbob connects\n" + TALK
BOTH = "\nalice connects with {0}\nbob connects with {0}\n" + TALK


def server(*options: str) -> Command:
    return Command([sys.executable, str(SERVER), "{port}", *options], environment={"PYTHONPATH": str(ROOT)})


def certificate_for(address: str, folder: Path) -> str:
    """A file with a key and a certificate for this address that signs itself."""
    openssl = shutil.which("openssl") or pytest.skip("openssl is not installed")
    command = (
        f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=harness -addext subjectAltName=IP:{address} "
        f"-addext keyUsage=critical,digitalSignature,keyCertSign -keyout {folder}/key -out {folder}/certificate"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key").read_text() + (folder / "certificate").read_text())
    return str(both)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return certificate_for("127.0.0.1", tmp_path_factory.mktemp("certificate"))


def trusting(certificate: str) -> PlayOptions:
    return PlayOptions(tls=TlsTrust(certificate), within_s=2)


def in_process(*options: str, certificate: str = "") -> InProcessAsyncio:
    """The same server in this process."""
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)

    async def serve(spec: ServerSpec) -> Any:
        chat = streams.Server({word.partition("=")[0]: word.partition("=")[2] for word in options})
        return await asyncio.start_server(chat.accept, "127.0.0.1", 0, ssl=context)

    return InProcessAsyncio(serve)


def played(script: str, target: Any, options: PlayOptions = PlayOptions(within_s=2)) -> Verdict:  # noqa: B008
    return play(parse(script.lstrip(), "talk.chat"), target, options)


def passes(script: str, target: Any, options: PlayOptions = PlayOptions(within_s=2)) -> Verdict:  # noqa: B008
    verdict = played(script, target, options)
    assert verdict.passed, plain(report(verdict)) + verdict.reason
    return verdict


def fails(script: str, target: Any, options: PlayOptions = PlayOptions(within_s=2)) -> str:  # noqa: B008
    verdict = played(script, target, options)
    assert verdict.outcome is Outcome.FAILED, verdict.reason
    return plain(report(verdict))


# --- TLS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["tls", "tls websocket", "tls websocket /chat"])
def test_clients_talk_over_tls(certificate: str, words: str) -> None:
    target = server(f"tls={certificate}", *words.split()[1:2])
    passes(PING + BOTH.format(words), target, trusting(certificate))
    passes(f"{PING}transport: {words}\n{DEFAULT}", target, trusting(certificate))


def test_a_certificate_is_checked_unless_told_otherwise(certificate: str) -> None:
    target = server(f"tls={certificate}")
    text = fails("alice connects with tls\n", target)
    assert "could not finish the handshake" in text
    assert "the server's certificate is not accepted: self-signed certificate" in text
    passes(BOTH.format("tls"), target, PlayOptions(tls=TlsTrust(insecure=True)))


def test_a_certificate_for_another_address_is_not_accepted(tmp_path: Path) -> None:
    other = certificate_for("127.0.0.2", tmp_path)
    text = fails("alice connects with tls\n", server(f"tls={other}"), trusting(other))
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in text


def test_a_server_without_tls_is_shown_with_what_it_said() -> None:
    text = fails("alice connects with tls\n", server("websocket", "banner"))
    assert "the TLS handshake failed: wrong version number; it began with `220 welcome`" in text
    text = fails("alice connects with tls\n", server("websocket", "leaves"))
    assert "the server closed the connection during the TLS handshake" in text


def test_lines_in_the_middle_of_a_line_are_halves_over_tls_too(certificate: str) -> None:
    script = "alice connects with tls\nalice>> hel\nalice receives nothing\nalice>> lo\\n\nalice< hello\n"
    passes(PING + "\n" + script, server(f"tls={certificate}"), trusting(certificate))


def test_a_client_can_half_close_over_tls(certificate: str) -> None:
    target = server(f"tls={certificate}")
    passes("alice connects with tls\nalice half-closes\nalice is closed\n", target, trusting(certificate))


def test_the_fence_is_exact_over_tls_and_websocket_in_process(certificate: str) -> None:
    target = in_process("websocket", certificate=certificate)
    verdict = passes(BOTH.format("tls websocket"), target, trusting(certificate))
    assert verdict.grade is Grade.EXACT


def test_a_close_notify_is_the_end_whatever_its_connection_does(certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    finished = threading.Event()

    def serve(listener: socket.socket) -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as secure:
            secure.recv(100)
            with secure.unwrap():
                finished.wait(10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        target = Address(*listener.getsockname())
        try:
            passes("transport: tls\n\nalice> bye\nalice is closed\n", target, trusting(certificate))
        finally:
            finished.set()
            server.join()


class HangingUp(streams.Talker):
    """Says something that the client answers, and hangs up at once."""

    def leave(self, code: int = 1000, reason: bytes = b"") -> None:
        self.say(b"PING x")
        super().leave(code, reason)


def test_a_line_before_a_close_notify_is_not_replied_to(
    certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "Talker", HangingUp)
    script = f"{REPLY}transport: tls\n\nalice> QUIT\nalice is closed\n"
    passes(script, in_process(certificate=certificate), trusting(certificate))


def test_a_close_notify_during_the_handshake_of_a_websocket_is_reported_in_gevent_too(
    certificate: str,
) -> None:
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def hang_up(sock: Any, address: object) -> None:
        with context.wrap_socket(sock, server_side=True) as secure:
            secure.recv(1000)
            secure.unwrap()

    target = InProcess(lambda spec: StreamServer(("127.0.0.1", 0), hang_up))
    text = fails("alice connects with tls websocket\n", target, trusting(certificate))
    assert (
        "actual    the server closed the connection during the WebSocket handshake; it had sent nothing"
        in text
    )


# --- WebSocket ----------------------------------------------------------------------------------------------


def test_clients_talk_over_websockets() -> None:
    passes(PING + BOTH.format("websocket"), server("websocket"))


@pytest.mark.parametrize("words", ["tls", "websocket", "tls websocket"])
def test_the_fence_line_is_answered_over_every_transport(certificate: str, words: str) -> None:
    options = [f"tls={certificate}"] * ("tls" in words) + ["websocket"] * ("websocket" in words)
    script = f"{PING}transport: {words}\n\nalice> hi\nalice< hi\nbob> hi\nalice< hi\nbob< hi\n"
    assert passes(script, server(*options), trusting(certificate)).grade is Grade.ANSWERED


def test_a_binary_message_is_whole_so_a_fence_line_can_follow() -> None:
    script = f"{PING}transport: websocket\n\nalice> hi\nalice< hi\nalice>> \\x00\\xff\nalice< binary 00ff\n"
    assert passes(script, server("websocket")).grade is Grade.ANSWERED


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 200_000])
def test_messages_of_every_size_pass(size: int) -> None:
    text = "x" * size
    passes(f"transport: websocket\n\nalice> {text}\nalice< {text}\n", server("websocket"))


@pytest.mark.parametrize(
    "script",
    [
        "alice> FRAGMENT fragments\nalice< fragments\nalice< pong between\n",
        "alice> PINGS\nalice< pong 0\nalice< pong 1\nalice< pong 2\n",
        "alice> BINARY \\x00\\xff\nalice<< \\x00\\xff\n",
        "alice>> \\x00\\xff\nalice< binary 00ff\n",
        "alice>> two\\nlines\\n\nalice< two\nalice< lines\n",
        "alice> CLOSE 1000\nalice is closed\n",
        "alice> CLOSE\nalice is closed\n",
        "alice> CLOSE 1001\nalice is closed with 1001\n",
        "alice> CLOSE 1008 not here\nalice is closed with 1008 not here\n",
        "alice> CLOSE 1008 not here\nalice is disconnected\n",
        "alice> VANISH\nalice is closed with 1006\n",
        "alice connects\nalice half-closes\nalice is closed\n",
        "alice connects with websocket /missing\nalice is refused with 404\n",
        "alice connects with websocket\nbob connects with websocket\nbob closes\nalice> hi\nalice< hi\n",
    ],
)
def test_what_a_websocket_can_do_is_a_line_of_a_transcript(script: str) -> None:
    passes(f"transport: websocket\n\n{script}", server("websocket"))


@pytest.mark.parametrize(
    ("raw", "violation"),
    [
        (r"\x81\x81abcd!", "a masked frame"),
        (r"\xc1\x01a", "a frame with a reserved bit"),
        (r"\x83\x01a", "a frame of the unknown kind 3"),
        (r"\x09\x00", "a control frame that is fragmented or longer than 125 bytes"),
        (r"\x80\x01a", "a continuation of no message"),
        (r"\x01\x01a\x81\x01b", "a message inside another one"),
        (r"\x81\x01\xff", r"text that is not UTF-8: `\xff`"),
        (r"\x88\x01a", "a Close frame with half a code"),
        (r"\x88\x02\x00\x01", "a Close frame with the code 1"),
        (r"\x88\x02\x03\xec", "a Close frame with the code 1004"),
        (r"\x88\x02\x03\xed", "a Close frame with the code 1005"),
        (r"\x88\x02\x03\xee", "a Close frame with the code 1006"),
        (r"\x88\x02\x03\xf7", "a Close frame with the code 1015"),
        (r"\x88\x02\x13\x88", "a Close frame with the code 5000"),
        (r"\x81\x7e\x00\x02hi", "a length of 2 in 2 bytes"),
        (r"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff", "a length of 65535 in 8 bytes"),
        (r"\x88\x02\x03\xe8\x81\x01a", "a frame after the Close frame"),
        (r"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", "a message of more than 67108864 bytes"),
    ],
)
def test_a_frame_that_is_forbidden_ends_the_connection_and_is_named(raw: str, violation: str) -> None:
    text = fails(f"transport: websocket\n\nalice> RAW {raw}\n", server("websocket"))
    assert f"alice is closed with violation: {violation}" in text


@pytest.mark.parametrize("words", ["websocket", "tls websocket"])
def test_a_message_before_a_forbidden_frame_is_received(certificate: str, words: str) -> None:
    target = server("websocket", *[f"tls={certificate}"] * ("tls" in words))
    both = f"transport: {words}\n\nalice> RAW \\x81\\x06secret\\x81\\x81abcd!\n"
    end = "alice is closed with violation: a masked frame\n"
    passes(f"{both}alice< secret\n{end}", target, trusting(certificate))
    assert "alice received something unexpected" in fails(f"{both}{end}", target, trusting(certificate))


def test_a_line_before_a_record_that_is_no_tls_is_received(certificate: str) -> None:
    client = Tls(TlsTrust(certificate).context(), "127.0.0.1", Plain())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    own = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(client.begin())
    while not client.ready:
        with contextlib.suppress(ssl.SSLWantReadError):
            own.do_handshake()
        client.receive(outgoing.read(), b"\n")
        incoming.write(client.take_reply())
    own.do_handshake()
    own.write(b"hello\n")
    assert client.receive(outgoing.read() + b"this is no record of TLS", b"\n") == b"hello\n"
    assert client.violation.startswith("TLS: ")


def test_a_line_is_sent_after_a_new_handshake_that_the_server_has_asked_for(certificate: str) -> None:
    client = Tls(TlsTrust(certificate).context(), "127.0.0.1", Plain())
    command = [
        "openssl",
        "s_server",
        "-accept",
        "127.0.0.1:0",
        "-cert",
        certificate,
        "-tls1_2",
        "-naccept",
        "1",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as own:
        assert own.stdin is not None
        assert own.stdout is not None
        port = next(line for line in own.stdout if line.startswith(b"ACCEPT")).rpartition(b":")[2]
        with socket.create_connection(("127.0.0.1", int(port))) as sock:
            sock.sendall(client.begin())
            while not client.ready:
                client.receive(sock.recv(65536), b"\n")
                sock.sendall(client.take_reply())
            sock.sendall(client.send(b"before\n", b"\n"))
            assert b"before\n" in own.stdout
            own.stdin.write(b"r\n")
            client.receive(sock.recv(65536), b"\n")
            waiting = client.send(b"behind\n", b"\n")
            assert client.send(b"it\n", b"\n") == b""
            sock.sendall(waiting)
            heard = b""
            while b"it\n" not in heard:
                readable, _, _ = select.select([sock, own.stdout], [], [])
                if own.stdout in readable:
                    heard += os.read(own.stdout.fileno(), 65536)
                if sock in readable:
                    client.receive(sock.recv(65536), b"\n")
                    sock.sendall(client.take_reply())
            assert b"behind\nit\n" in heard
            assert client.violation == ""
            own.stdin.write(b"Q\n")
            own.stdout.read()


@pytest.mark.parametrize("words", ["websocket", "tls websocket"])
def test_a_part_of_a_frame_has_been_received(certificate: str, words: str) -> None:
    target = server("websocket", *[f"tls={certificate}"] * ("tls" in words))
    begun = fails(f"transport: {words}\n\nalice> RAW \\x81\\x05he\n", target, trusting(certificate))
    assert "alice received something unexpected" in begun
    assert "received  << \\x81\\x05he" in begun
    unfinished = fails(f"transport: {words}\n\nalice> RAW \\x01\\x02he\n", target, trusting(certificate))
    assert "received  << he" in unfinished


@pytest.mark.parametrize("end", ["alice> VANISH", "alice> CLOSE 1006"])
@pytest.mark.parametrize("words", ["websocket", "tls websocket"])
def test_what_is_incomplete_when_the_connection_ends_has_been_received(
    certificate: str, words: str, end: str
) -> None:
    target = server("websocket", *[f"tls={certificate}"] * ("tls" in words))
    begins = f"transport: {words}\n\nalice> RAW \\x01\\x02he\n"
    text = fails(f"{begins}{end}\nalice is disconnected\n", target, trusting(certificate))
    assert "received  << he" in text
    ends = {"alice> VANISH": "1006", "alice> CLOSE 1006": "violation: a Close frame with the code 1006"}
    passes(f"{begins}{end}\nalice<< he\nalice is closed with {ends[end]}\n", target, trusting(certificate))


@pytest.mark.parametrize(
    ("first", "received", "rest", "then"),
    [
        (r"\x01\x02he", "<< he", r"\x80\x03llo", "< llo"),
        (r"\x02\x02he", "<< he", r"\x80\x03llo", "<< llo"),
        (r"\x01\x02he\x80", r"<< he\x80", r"\x03llo", "< llo"),
        (r"\x81", r"<< \x81", r"\x05hello", "< hello"),
        (r"\x81\x05he", r"<< \x81\x05he", "llo", "< llo"),
        (r"\x01\x02he\x8a\x03ab", r"<< he\x8a\x03ab", r"c\x80\x03llo", "< llo"),
        (r"\x01\x01\xc3", r"<< \xc3", r"\x80\x01\xbc", r"<< \xbc\n"),
    ],
)
@pytest.mark.parametrize("words", ["websocket", "tls websocket"])
def test_what_completes_a_message_is_received_without_what_an_earlier_turn_received(
    certificate: str, words: str, first: str, received: str, rest: str, then: str
) -> None:
    target = in_process("websocket", certificate=certificate if "tls" in words else "")
    script = (
        f"transport: {words}\n\nalice> RAW {first}\nalice{received}\nbob connects\nalice receives nothing\n"
        f"alice> RAW {rest}\nalice{then}\nalice> RAW {first}\nalice{received}\nalice> VANISH\n"
        "alice is closed with 1006\n"
    )
    passes(script, target, trusting(certificate))


def test_a_part_of_a_message_is_received_once_by_clients_in_python_too() -> None:
    with Stage(in_process("websocket"), transport=Transport(websocket=True)) as stage:
        alice = stage.client("alice")
        alice.send(r"RAW \x01\x02he")
        alice.expect_bytes(b"he")
        stage.settle()
        alice.send(r"RAW \x80\x03llo")
        alice.expect("llo")
        stage.settle()


def test_a_part_of_a_message_was_received_when_it_came() -> None:
    with Stage(in_process("websocket"), transport=Transport(websocket=True)) as stage:
        alice = stage.client("alice")
        stage.wait(1)
        alice.send(r"RAW \x01\x02he")
        stage.wait(1)
        alice.connection.release()
        assert (alice.received, alice.arrived_at(0)) == (b"he", 1.0)


def test_a_line_in_a_part_of_a_message_can_be_ignored() -> None:
    script = "transport: websocket\nignore: he\n\nalice> RAW \\x01\\x04he\\nl\nalice<< l\n"
    passes(script, in_process("websocket"))


class Rude(streams.WebSocketTalker):
    """Answers a Close frame with a frame that is forbidden."""

    def frame(self, opcode: int, payload: bytes, final: bool = True) -> None:
        if opcode == 8:
            self.writer.write(b"\xc1\x00")
        else:
            super().frame(opcode, payload, final)


def test_a_farewell_that_is_answered_with_a_forbidden_frame_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WebSocketTalker", Rude)

    with Stage(in_process("websocket"), transport=Transport(websocket=True)) as stage:
        alice = stage.client("alice")
        alice.send("hello")
        alice.expect("hello")
        alice.close()
        assert (alice.end.value, alice.end_detail) == ("closed", "violation: a frame with a reserved bit")


class Final(streams.WebSocketTalker):
    """Says something that the client answers, together with a Close frame, and notes what it receives from then on."""

    heard: ClassVar[list[bytes]] = []

    async def line(self) -> bytes | None:
        opcode, payload = await self.read_frame()
        if opcode != 8 and payload != b"QUIT":
            return payload
        self.say(b"PING x")
        self.frame(8, b"")
        self.writer.write_eof()
        self.heard.append(await self.reader.read())
        return None


@pytest.mark.parametrize(
    ("steps", "heard"),
    [("alice> QUIT\nalice is closed\n", [b"\x88"]), ("alice connects\nalice closes\n", [])],
)
def test_nothing_is_sent_after_a_close_frame(
    monkeypatch: pytest.MonkeyPatch, steps: str, heard: list[bytes]
) -> None:
    monkeypatch.setattr(streams, "WebSocketTalker", Final)
    Final.heard.clear()
    passes(f"{REPLY}transport: websocket\n\n{steps}", in_process("websocket"))
    (came,) = Final.heard
    # A Close frame without a code: two bytes and a mask.
    assert [came[at : at + 1] for at in range(0, len(came), 6)] == heard


@pytest.mark.parametrize(
    ("option", "came"),
    [
        (
            "garbage",
            "the server did not answer the WebSocket handshake with HTTP, but `ERR unknown command GET`",
        ),
        ("answer=", "did not answer the WebSocket handshake with HTTP, but ``"),
        ("answer=HTTP/1.1", "did not answer the WebSocket handshake with HTTP, but `HTTP/1.1`"),
        ("hang-up", "closed the connection during the WebSocket handshake; it had sent nothing"),
        ("answer=HTTP/1.1 4x3 No", "did not answer the WebSocket handshake with HTTP, but `HTTP/1.1 4x3 No`"),
        ("answer=HTTP/2 403", "did not answer the WebSocket handshake with HTTP, but `HTTP/2 403`"),
        (
            "http=1.0",
            "accepted the WebSocket handshake with `HTTP/1.0 101 Switching Protocols`; expected HTTP/1.1",
        ),
        ("header=Sec-WebSocket-Accept: x\x1b", r"=, x\x1b`; expected `"),
        ("mute", "the handshake was not over within 0.5 s"),
        ("accept=x", "`sec-websocket-accept` is `x`; expected `"),
        ("upgrade=h2c", "`upgrade` is `h2c`; expected `websocket`"),
        (
            "header=Sec-WebSocket-Protocol: chat",
            "chose `sec-websocket-protocol: chat`, which was not offered",
        ),
        ("header=Sec-WebSocket-Extensions: x", "chose `sec-websocket-extensions: x`, which was not offered"),
    ],
)
def test_a_handshake_that_is_wrong_says_what_came(option: str, came: str) -> None:
    text = fails("alice connects with websocket\n", server("websocket", option), PlayOptions(within_s=0.5))
    assert " ".join(came.split()) in " ".join(text.split())


def test_a_refused_handshake_is_a_refusal_with_its_status() -> None:
    target = server("websocket", "status=403 Forbidden")
    passes("alice connects with websocket\nalice is refused with 403\n", target)
    text = fails("alice connects with websocket\n", target)
    assert "alice is refused with 403" in text
    text = fails("alice connects with websocket\nalice is refused with 401\n", target)
    assert "expected  alice is refused with 401" in text
    assert "actual    alice is refused with 403" in text


@pytest.mark.parametrize("http", ["1.0", "1.1"])
def test_a_handshake_is_refused_in_each_version_of_http(http: str) -> None:
    target = in_process("websocket", "status=403 Forbidden", f"http={http}")
    passes("alice connects with websocket\nalice is refused with 403\n", target)


@pytest.mark.parametrize("answer", ["HTTP/1.0 403", "HTTP/1.1 403 ", "HTTP/1.1 403 \x1b[2J"])
def test_a_refused_handshake_can_have_any_reason(answer: str) -> None:
    target = in_process("websocket", f"answer={answer}")
    passes("alice connects with websocket\nalice is refused with 403\n", target)


def test_time_passes_during_a_handshake_in_asyncio() -> None:
    with Stage(in_process("websocket", "delay=1.5"), transport=Transport(websocket=True)) as stage:
        alice, bob = stage.clients("alice", "bob")
        alice.send("hello")
        alice.expect("hello")
        assert stage.now() == 1.5
        bob.send("hello")
        assert (stage.now(), bob.arrived_at(0)) == (3, 3)


def test_time_passes_during_a_handshake_in_gevent() -> None:
    def refuse(sock: Any, address: object) -> None:
        sock.recv(1000)
        gevent.sleep(1)
        sock.sendall(b"HTTP/1.1 401 Unauthorized\r\n\r\n")

    target = InProcess(lambda spec: StreamServer(("127.0.0.1", 0), refuse))
    passes("alice connects with websocket\nalice is refused with 401\n", target)


@pytest.mark.parametrize("option", ["mute", "delay=1001"])
def test_a_handshake_in_process_is_given_up_without_waiting(option: str) -> None:
    options = PlayOptions(within_s=1000)  # longer than a test can take
    text = fails("alice connects with websocket\n", in_process("websocket", option), options)
    assert "the handshake was not over within 1000 s" in text


def test_a_header_of_the_handshake_can_stand_in_several_lines() -> None:
    script = "transport: websocket\n\nalice> hello\nalice< hello\n"
    passes(script, in_process("websocket", "header=Connection: keep-alive"))


def test_an_end_with_another_code_is_shown_with_both() -> None:
    verdict = played("transport: websocket\n\nalice> CLOSE 1011 oh\nalice is closed\n", server("websocket"))
    assert verdict.failures[0].kind is FailureKind.WRONG_END
    text = plain(report(verdict))
    assert "expected  alice is closed\n" in text
    assert "actual    alice is closed with 1011 oh" in text
    assert "\nalice is closed with 1011 oh\n" in text, "to be pasted"


@pytest.mark.parametrize(
    ("reason", "detail"),
    [
        (r"bye\x20", r"1008 bye\x20"),
        (r"\x20bye", "1008  bye"),
        (r"a\nb", r"1008 a\nb"),
        (r"\x1b[2J", r"1008 \x1b[2J"),
        (r"a\\b", r"1008 a\\b"),
        ("Grüße", "1008 Grüße"),
    ],
)
def test_the_reason_of_an_end_is_visible_text(reason: str, detail: str) -> None:
    script = f"transport: websocket\n\nalice> SAY-WHY {reason}\n"
    target = in_process("websocket")
    text = fails(f"{script}alice is closed with 1008 bye\n", target)
    assert text.endswith(f"paste:\nalice is closed with {detail}\n")
    passes(f"{script}alice is closed with {detail}\n", target)


def test_the_handshake_accepts_the_example_of_the_standard() -> None:
    made = WebSocket("server.example.com", "/chat")
    made._key = "dGhlIHNhbXBsZSBub25jZQ=="
    made.begin()
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    # The unmasked examples of section 5.7, in pieces of one byte.
    frames = bytes.fromhex("810548656c6c6f010348656c80026c6f890548656c6c6f")
    heard = b"".join(made.receive(bytes([byte]), b"\n") for byte in answer + frames)
    assert heard == b"Hello\nHello\n"
    pong = made.take_reply()
    assert pong[:2] == b"\x8a\x85"
    assert bytes(byte ^ pong[2 + at % 4] for at, byte in enumerate(pong[6:])) == b"Hello"


def test_clients_in_python_choose_their_transport() -> None:
    with Stage(server("websocket"), fence=Fence("PING ${token}", ("PONG ${token}",))) as stage:
        alice = stage.client("alice")
        alice.connect(transport=Transport(websocket=True))
        alice.send("hello")
        alice.expect("hello")
        alice.post(b"CLOSE 1001\n")
        alice.connection.expects_close = True
        stage.fence()
        assert (alice.end.value, alice.end_detail) == ("closed", "1001")


def test_clients_in_python_expect_the_detail_of_an_end() -> None:
    with Stage(server("websocket"), transport=Transport(websocket=True)) as stage:
        alice = stage.client("alice")
        for line, detail in (
            ("CLOSE 1000", ""),
            ("CLOSE 1011 internal error", "1011 internal error"),
            ("VANISH", "1006"),
            (r"RAW \x81\x81abcd!", "violation: a masked frame"),
        ):
            alice.connect()
            alice.post(f"{line}\n".encode())
            if detail:
                with pytest.raises(
                    AssertionError, match=f"alice is closed with {detail}, and not as expected"
                ):
                    alice.expect_closed()
            alice.expect_closed(detail)
        with pytest.raises(AssertionError, match="and not as expected: is closed with 1001"):
            alice.expect_closed("1001")


def test_a_client_whose_handshake_has_failed_can_connect_again() -> None:
    with Stage(server("websocket", "garbage")) as stage:
        alice = stage.client("alice")
        with pytest.raises(HandshakeFailed, match="did not answer the WebSocket handshake"):
            alice.connect(transport=Transport(websocket=True))
        alice.connect()
        alice.close()
        stage.settle()


def test_clients_in_python_expect_a_refused_handshake() -> None:
    target = server("websocket", "status=403 Forbidden")
    with Stage(target, transport=Transport(websocket=True)) as stage:
        alice = stage.client("alice")
        with pytest.raises(AssertionError, match="alice is refused with 403"):
            alice.send("hello")
        with pytest.raises(
            AssertionError, match="alice is refused with 403, and not as expected: is refused"
        ):
            alice.expect_refused()
        alice.expect_refused("403")
        stage.settle()


# --- scripts and options that are wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("alice connects with tsl\n", "'tsl' is not a transport"),
        ("alice connects with websocket chat\n", "'websocket chat' is not a transport"),
        ("alice connects with tls /chat\n", "'tls /chat' is not a transport"),
        ("transport: carrier pigeon\n\nalice connects\n", "'carrier pigeon' is not a transport"),
        ("alice is reset with 1001\n", "unrecognised step"),
    ],
)
def test_a_transport_that_does_not_exist_is_an_error(script: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        expand(parse(script))


def test_options_choose_the_transport_and_the_certificates(
    certificate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = tmp_path / "talk.chat"
    path.write_text(PING + DEFAULT)
    command = ["play", str(path), "--server", f"{sys.executable} {SERVER} {{port}} tls={certificate}"]
    assert main([*command, "--transport", "tls", "--tls-ca", certificate]) == 0
    assert main([*command, "--transport", "tls", "--tls-insecure"]) == 0
    assert main([*command, "--transport", "tls"]) == 1
    capsys.readouterr()
    for wrong, message in (
        (["--transport", "pigeon"], "'pigeon' is not a transport"),
        (["--tls-ca", str(path)], "no certificates can be read from it"),
        (["--tls-ca", "/no/such/file"], "--tls-ca /no/such/file: no certificates can be read from it"),
        (["--tls-ca", certificate, "--tls-insecure"], "--tls-ca and --tls-insecure contradict each other"),
    ):
        assert main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err
