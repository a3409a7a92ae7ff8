"""The transport that encrypts, without a server; and certificates: which are refused, with which words."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest

from geventchat.net import tls
from geventchat.net.tls import Certificate, TlsTransport, is_whole_record, speaks_tls
from geventchat.settings import ConfigError
from tests.certificates import Files, made_certificate, make, run
from tests.tls_client import MemoryClient, client_context

EACH_VERSION = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)


class Wire:
    """A non-blocking socket that takes as many bytes as it has free, and gives what has arrived."""

    def __init__(self) -> None:
        self.free_bytes = 10**9
        self.sent = bytearray()
        self.sends = 0
        self.arrived = bytearray()
        self.ended = False
        self.shut = False

    def send(self, data: Any) -> int:
        self.sends += 1
        taken = min(len(data), self.free_bytes)
        if not taken:
            raise BlockingIOError
        self.free_bytes -= taken
        self.sent += bytes(data)[:taken]
        return taken

    def recv(self, size: int) -> bytes:
        chunk = bytes(self.arrived[:size])
        del self.arrived[:size]
        if not chunk and not self.ended:
            raise BlockingIOError
        return chunk

    def shutdown(self, how: int) -> None:
        self.shut = True


class Pair:
    """A transport after its handshake, with a client at the other end of its wire."""

    def __init__(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.wire = Wire()
        self.transport = TlsTransport(self.wire, Certificate(*map(str, made_certificate())).context)  # type: ignore[arg-type]
        self.client = MemoryClient(client_context(version))
        while not self.transport.shake_hands(self.client.take()):
            assert self.transport.flush()
            self.deliver()
        assert self.transport.flush()
        self.deliver()
        self.wire.arrived += self.client.take()

    def deliver(self) -> None:
        """Pass on to the client what has been sent."""
        sent = bytes(self.wire.sent)
        self.wire.sent.clear()
        self.client.feed(sent)

    def received(self) -> bytes:
        self.deliver()
        received = bytes(self.client.received)
        self.client.received.clear()
        return received


@pytest.fixture
def pair() -> Pair:
    return Pair()


# --- The transport ---------------------------------------------------------------------------------------------------


@EACH_VERSION
def test_bytes_go_both_ways(version: ssl.TLSVersion):
    pair = Pair(version)
    assert pair.transport.send(b"to the client") == 13
    assert pair.received() == b"to the client"
    pair.wire.arrived += pair.client.send(b"to the server")
    assert pair.transport.recv(100) == b"to the server"
    with pytest.raises(BlockingIOError):
        pair.transport.recv(100)


def test_a_batch_is_one_send(pair: Pair):
    pair.wire.sends = 0
    assert pair.transport.send(bytes(16_384)) == 16_384
    assert pair.wire.sends == 1


def test_bytes_count_as_taken_when_their_ciphertext_is_in_the_kernel(pair: Pair):
    pair.wire.free_bytes = 10
    with pytest.raises(BlockingIOError):
        pair.transport.send(b"hello")
    pair.wire.free_bytes = 1_000
    # The caller passes them again, with more behind them, and the client receives them once.
    assert pair.transport.sendmsg([b"hel", b"lo, ", memoryview(b"world")]) == 12
    assert pair.received() == b"hello, world"


def test_a_large_batch_is_taken_block_by_block_and_waits_unencrypted(pair: Pair):
    batch = bytes(range(256)) * 400
    pair.wire.free_bytes = 40_000
    taken = pair.transport.send(batch)
    assert taken == 2 * 16_384
    pair.wire.free_bytes = 10**9
    assert pair.transport.send(memoryview(batch)[taken:]) == len(batch) - taken
    assert pair.received() == batch


def test_many_buffers_are_taken_at_once_while_they_fit(pair: Pair):
    buffers = [bytes([n]) * 3_000 for n in range(60)]
    taken = pair.transport.sendmsg(buffers)
    assert taken == 131_072
    assert pair.received() == b"".join(buffers)[:taken]


def test_what_is_decrypted_and_has_not_been_asked_for_is_input_that_is_there(pair: Pair):
    pair.wire.arrived += pair.client.send(b"x" * 1_000)
    assert pair.transport.recv(600) == b"x" * 600
    assert pair.transport.has_input()
    assert pair.transport.recv(600) == b"x" * 400
    with pytest.raises(BlockingIOError):
        pair.transport.recv(600)
    assert not pair.transport.has_input()


def test_one_read_takes_a_bounded_number_of_records(pair: Pair):
    for _ in range(100):
        pair.wire.arrived += pair.client.send(b"x")
    # The first of them goes to the socket.
    assert len(pair.transport.recv(1_000)) == 63
    assert pair.transport.has_input()
    assert len(pair.transport.recv(1_000)) == 37


def test_a_record_in_pieces_is_read_when_it_is_complete(pair: Pair):
    record = pair.client.send(b"hello")
    for byte in record[:-1]:
        pair.wire.arrived.append(byte)
        with pytest.raises(BlockingIOError):
            pair.transport.recv(100)
    pair.wire.arrived.append(record[-1])
    assert pair.transport.recv(100) == b"hello"


def test_what_openssl_answers_by_itself_is_bounded_while_the_peer_does_not_read(pair: Pair):
    pair.wire.free_bytes = 5
    with pytest.raises(BlockingIOError):
        pair.transport.send(b"hello")
    # As when the peer changes its keys again and again.
    pair.transport._outgoing.write(bytes(16_384))
    pair.wire.arrived += pair.client.send(b"x")
    assert pair.transport.recv(100) == b"x"
    pair.transport._outgoing.write(b"x")
    pair.wire.arrived += pair.client.send(b"x")
    with pytest.raises(ConnectionResetError):
        pair.transport.recv(100)


def test_what_openssl_answers_by_itself_is_sent_at_once_and_bounded_without_any_input(pair: Pair):
    def receive(answer: bytes) -> None:
        # As to a record that is none of its caller's, such as a new handshake, which is refused.
        pair.transport._outgoing.write(answer)
        pair.wire.arrived.append(record.pop(0))
        pair.transport.recv(100)

    record = list(pair.client.send(b"hello"))
    with pytest.raises(BlockingIOError):
        receive(b"an answer")
    assert pair.wire.sent == b"an answer"
    pair.wire.free_bytes = 0
    with pytest.raises(BlockingIOError):
        receive(b"x")
    with pytest.raises(ConnectionResetError):
        receive(bytes(16_385))


def test_the_end_that_the_peer_announces_comes_after_its_last_bytes(pair: Pair):
    pair.wire.arrived += pair.client.send(b"last") + pair.client.close_notify()
    assert pair.transport.recv(100) == b"last"
    assert pair.transport.has_input()
    assert pair.transport.recv(100) == b""
    assert pair.transport.recv(100) == b""
    # It can still be sent something.
    assert pair.transport.send(b"bye") == 3


def test_an_end_that_is_not_announced_is_an_error(pair: Pair):
    pair.wire.arrived += pair.client.send(b"last")
    pair.wire.ended = True
    assert pair.transport.recv(100) == b"last"
    with pytest.raises(ConnectionResetError):
        pair.transport.recv(100)


@EACH_VERSION
def test_a_record_that_has_been_changed_is_an_error_with_an_alert_after_what_came_before(
    version: ssl.TLSVersion,
):
    pair = Pair(version)
    pair.wire.arrived += pair.client.send(b"first") + pair.client.send(b"second")
    pair.wire.arrived[-1] ^= 1
    assert pair.transport.recv(100) == b"first"
    for _ in range(2):
        with pytest.raises(OSError, match=r"(?i)mac|protocol") as failed:
            pair.transport.recv(100)
        assert not isinstance(failed.value, BlockingIOError)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
        pair.deliver()


@EACH_VERSION
def test_the_end_of_the_output_is_announced(version: ssl.TLSVersion):
    pair = Pair(version)
    pair.transport.send(b"bye")
    pair.transport.shutdown(1)
    assert pair.wire.shut
    assert pair.received() == b"bye"
    assert pair.client.ended
    # Only what still arrives is to be waited for.
    assert not pair.transport.has_input()


def test_the_announcement_waits_until_it_fits(pair: Pair):
    pair.wire.free_bytes = 5
    with pytest.raises(BlockingIOError):
        pair.transport.shutdown(1)
    assert not pair.wire.shut
    pair.wire.free_bytes = 100
    pair.transport.shutdown(1)
    assert pair.wire.shut
    pair.deliver()
    assert pair.client.ended


@pytest.mark.parametrize(
    ("head", "verdict"),
    [
        (b"\x16", True),
        (b"\x16\x03", True),
        (b"\x16\x03\x01\x02", True),
        (b"\x16\x02", False),
        (b"LOGIN alice\n", False),
        (b"\x80\x2e\x01", False),
        (b"\x17\x03\x03", False),
    ],
)
def test_what_begins_like_a_handshake(head: bytes, verdict: bool):
    assert speaks_tls(head) is verdict


def test_a_record_is_complete_with_its_last_byte():
    record = b"\x16\x03\x01\x00\x03abc"
    assert [is_whole_record(record[:end]) for end in range(1, 10)] == [False] * 7 + [True, True]


# --- Certificates ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files() -> Files:
    return made_certificate()


def error_of(cert: Path, key: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        Certificate(str(cert), str(key))
    return str(refused.value)


def test_a_certificate_says_when_it_expires(files: Files):
    assert Certificate(*map(str, files)).expires[:2] == "20"


def test_one_file_can_hold_both(files: Files, tmp_path: Path):
    both = tmp_path / "both.pem"
    both.write_bytes(files.cert.read_bytes() + files.key.read_bytes())
    both.chmod(0o600)
    assert Certificate(str(both), str(both)).expires


def test_a_file_that_is_missing_is_named(files: Files, tmp_path: Path):
    missing = tmp_path / "missing.pem"
    reason = f"cannot read {missing}: No such file or directory"
    assert error_of(missing, files.key) == f"tls-cert: {reason}"
    assert error_of(files.cert, missing) == f"tls-key: {reason}"


def test_a_key_that_everyone_can_read_is_refused(files: Files, tmp_path: Path):
    key = tmp_path / "open.key"
    shutil.copy(files.key, key)
    for mode, refused in ((0o644, True), (0o602, True), (0o640, False), (0o600, False)):
        key.chmod(mode)
        if refused:
            assert error_of(files.cert, key) == (
                f"tls-key: every user can read or write {key} (mode {mode:o}); run chmod o= {key}"
            )
        else:
            Certificate(str(files.cert), str(key))


def test_a_key_of_another_certificate_is_refused(files: Files, tmp_path: Path):
    other = make(tmp_path, "other")
    assert (
        error_of(files.cert, other.key)
        == f"tls-key: {other.key} is not the key of the certificate {files.cert}"
    )


def test_files_that_hold_something_else_are_refused(files: Files, tmp_path: Path):
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    text.chmod(0o600)
    for cert, key in ((text, files.key), (files.cert, text), (files.key, files.cert)):
        key.chmod(0o600)
        assert error_of(cert, key).startswith(
            f"tls-key: {cert} and {key} are not a certificate and a key in PEM: "
        )


def test_an_encrypted_key_is_refused_without_asking_for_its_password(files: Files, tmp_path: Path):
    encrypted = tmp_path / "encrypted.key"
    run("pkey", "-in", str(files.key), "-aes128", "-passout", "pass:secret", "-out", str(encrypted))
    encrypted.chmod(0o600)
    assert error_of(files.cert, encrypted).startswith(
        "tls-key: the key is encrypted with a password; store it without"
    )


def test_a_certificate_outside_its_time_is_refused(files: Files, tmp_path: Path):
    expired = tmp_path / "expired.pem"
    request = tmp_path / "request"
    run("req", "-new", "-key", str(files.key), "-subj", "/CN=localhost", "-out", str(request))
    run("x509", "-req", "-in", str(request), "-signkey", str(files.key), "-days", "-1", "-out", str(expired))
    assert error_of(expired, files.key) == f"tls-cert: {expired} cannot be used: certificate has expired"


def test_a_certificate_that_no_client_can_use_is_refused(tmp_path: Path):
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1", "-nodes", "-days", "2")
    cert, key = tmp_path / "rare.pem", tmp_path / "rare.key"
    run("req", "-x509", *curve, "-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost")
    assert error_of(cert, key).startswith(f"tls-cert: {cert} cannot be used: ")


@pytest.mark.parametrize("gone", ["cert.pem", "key.pem"])
def test_a_file_that_goes_while_it_is_read_is_an_error(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(files.cert, cert)
    shutil.copy(files.key, key)
    key.chmod(0o600)
    check = tls._check_private

    def check_and_remove(path: str) -> None:
        check(path)
        (tmp_path / gone).unlink()

    monkeypatch.setattr(tls, "_check_private", check_and_remove)
    assert error_of(cert, key) == f"tls-cert: cannot read {cert} or {key}: No such file or directory"


def test_versions_before_1_2_are_refused(files: Files):
    context = Certificate(*map(str, files)).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION


def test_a_certificate_that_is_read_again_is_used_unless_it_is_broken(files: Files, tmp_path: Path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(files.cert, cert)
    shutil.copy(files.key, key)
    certificate = Certificate(str(cert), str(key))
    first = certificate.context
    other = make(tmp_path, "renewed")
    shutil.copy(other.cert, cert)
    with pytest.raises(ConfigError, match="is not the key of the certificate"):
        certificate.reload()
    assert certificate.context is first
    shutil.copy(other.key, key)
    certificate.reload()
    assert certificate.context is not first
