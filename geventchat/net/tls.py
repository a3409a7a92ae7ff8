"""TLS: the certificates of the server, and a transport that encrypts. Knows no greenlets.

`SSLContext.wrap_bio` keeps TLS a transformation of bytes: the socket stays a plain non-blocking one, and watchers, the
kernel's queues and `send` work for it as for any other.

Invariants of TlsTransport:
- Everything goes to the socket in the order in which OpenSSL has made it.
- As with OpenSSL itself, bytes count as taken when all of their ciphertext is in the kernel. Until then a caller passes
  them again, before any others: what they were encrypted to is kept, and not made again. So what waits for a client counts
  as its backlog and is shared with others, and here at most one block is kept.
- It writes by itself only what TLS has to answer: alerts and new keys, before the next bytes of its caller.
- An end of the stream that the peer has not announced with close_notify is an error: somebody can have cut it off.
"""

from __future__ import annotations

import os
import socket
import ssl
import stat
from datetime import datetime, timezone
from typing import Any

from geventchat.settings import ConfigError

# The most bytes that are encrypted before they are sent; their ciphertext can wait in addition to the backlog.
_BLOCK_BYTES = 16_384
# How much of several buffers is joined at once.
_MOST_JOINED_BYTES = 8 * _BLOCK_BYTES
# The size of a record. OpenSSL's buffer for output never becomes smaller, so larger ones would cost memory.
_RECORD_BYTES = 4_096
# How much is read from the socket at once, for the same reason.
_READ_BYTES = 4_096
# Records that one read takes: decrypting an almost empty one costs about as much as decrypting a line.
_MOST_RECORDS = 64
# The most bytes that OpenSSL can send on its own, such as answers to a peer that changes its keys very often.
_MOST_UNASKED_BYTES = 16_384
# A ticket contains the session, so resuming it costs the server no memory. One ticket is enough to reconnect.
_TICKETS = 1
_WANT_READ = ssl.SSLWantReadError
_HANDSHAKE_RECORD = 0x16
# In place of random bytes, in the answer to a hello that asks for another one (RFC 8446, 4.1.3).
_ANOTHER_HELLO = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
# The longest record that earlier versions allowed. A longer one is passed to OpenSSL, which refuses it.
MOST_HELLO_BYTES = 18_432
_RECORD_HEAD_BYTES = 5
# A fatal alert in a separate record, for a client whose handshake does not even begin.
_ALERT = b"\x15\x03\x01\x00\x02\x02"
UNEXPECTED_MESSAGE = _ALERT + bytes([10])
ACCESS_DENIED = _ALERT + bytes([49])


class TlsTransport:
    """The byte stream of a client that speaks TLS, as `transport.Transport`."""

    __slots__ = (
        "_encrypted",
        "_incoming",
        "_more",
        "_outgoing",
        "_rest",
        "_shut",
        "_sock",
        "_tls",
        "has_answered",
        "taken_bytes",
    )

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        # Ciphertext that the socket has not taken, and how many bytes of its caller's it contains.
        self._rest: bytes | memoryview = b""
        self._encrypted = 0
        # True while something can be left that the socket no longer has.
        self._more = True
        # True once close_notify is on its way.
        self._shut = False
        self.taken_bytes = 0
        # True once the hello of the client is answered, which is most of the work of a handshake.
        self.has_answered = False

    # --- The handshake -----------------------------------------------------------------------------------------------

    def shake_hands(self, received: bytes) -> bool:
        """Go on with the handshake; True when it is complete. Raises SSLError. In any case `flush` sends the answer."""
        self._incoming.write(received)
        try:
            self._tls.do_handshake()
        except _WANT_READ:
            return False
        finally:
            answer = self._outgoing.read()
            if answer and _ANOTHER_HELLO not in answer:
                self.has_answered = True
            self._rest = bytes(self._rest) + answer
        return True

    def flush(self) -> bool:
        """Send what is left; False if the socket has not taken all of it."""
        while self._rest:
            try:
                sent = self._sock.send(self._rest)
            except BlockingIOError:
                return False
            # Not an empty view, which would hold on to what has been sent.
            self._rest = memoryview(self._rest)[sent:] if sent < len(self._rest) else b""
        return True

    # --- The transport -----------------------------------------------------------------------------------------------

    def has_input(self) -> bool:
        """True if `recv` can have something to return although nothing more arrives."""
        return self._more

    def recv(self, size: int, /) -> bytes:
        """At most this many bytes, from a bounded number of records; empty after close_notify."""
        if self._shut:
            # Only the end of the stream still matters.
            return self._sock.recv(size)
        parts: list[bytes] = []
        left, has_read = size, False
        self._more = False
        for _ in range(_MOST_RECORDS):
            try:
                part = self._tls.read(left)
            except _WANT_READ:
                if parts:
                    break
                if has_read:
                    if self._outgoing.pending:
                        # The peer waits for that, or could have it pile up.
                        self._send_unasked()
                    raise BlockingIOError from None
                self._read_socket()
                has_read = True
                continue
            except ssl.SSLZeroReturnError:
                part = b""
            except ssl.SSLError:
                if not parts:
                    self._send_unasked()
                    raise
                part = b""
            if not part:
                # The next call finds it again, after what came before it.
                self._more = True
                break
            parts.append(part)
            left -= len(part)
            if not left:
                self._more = True
                break
        else:
            self._more = True
        if self._outgoing.pending:
            self._send_unasked()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def send(self, data: Any, /) -> int:
        """Take as much as possible, block by block. Raises BlockingIOError if that is nothing."""
        size = len(data)
        taken = 0
        while not self._rest or self.flush():
            taken += self._encrypted
            self._encrypted = 0
            if taken >= size:
                return taken
            whole = size <= _BLOCK_BYTES and not taken
            self._encrypt(data if whole else memoryview(data)[taken : taken + _BLOCK_BYTES])
        if not taken:
            raise BlockingIOError
        return taken

    def sendmsg(self, buffers: Any, /) -> int:
        """Take as much as possible of several buffers, as `send` does."""
        joined = bytearray()
        for buffer in buffers:
            joined += buffer[: _MOST_JOINED_BYTES - len(joined)]
            if len(joined) == _MOST_JOINED_BYTES:
                break
        return self.send(joined)

    def shutdown(self, how: int, /) -> None:
        """End the output with close_notify. Raises BlockingIOError while that does not fit; then call it again."""
        if not self._shut:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # It waits for the peer's, or the peer has broken the protocol and gets an alert instead.
            self._rest = bytes(self._rest) + self._outgoing.read()
            self._shut = True
            self._more = False
        if not self.flush():
            raise BlockingIOError
        self._sock.shutdown(how)

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self._sock.fileno()

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        """Set an option of the socket."""
        self._sock.setsockopt(level, option, value)

    def close(self) -> None:
        """Close the socket, without close_notify."""
        self._sock.close()

    def _read_socket(self) -> None:
        chunk = self._sock.recv(_READ_BYTES)
        if not chunk:
            raise ConnectionResetError("the stream ended without close_notify")
        self.taken_bytes += len(chunk)
        self._incoming.write(chunk)

    def _encrypt(self, block: Any) -> None:
        write, read = self._tls.write, self._outgoing.read
        size = len(block)
        if size <= _RECORD_BYTES:
            write(block)
            self._rest = read()
        else:
            records = []
            for start in range(0, size, _RECORD_BYTES):
                write(block[start : start + _RECORD_BYTES])
                records.append(read())
            self._rest = b"".join(records)
        self._encrypted = size

    def _send_unasked(self) -> None:
        """Try to send what OpenSSL answers by itself. What does not fit goes before the next record."""
        if self._outgoing.pending > _MOST_UNASKED_BYTES:
            raise ConnectionResetError("the peer does not read what it asks of TLS")
        if not self._rest:
            self._rest = self._outgoing.read()
            self.flush()


def speaks_tls(head: bytes) -> bool:
    """True if the first bytes of a client can begin a handshake."""
    return head[0] == _HANDSHAKE_RECORD and head[1:2] in {b"", b"\x03"}


def is_whole_record(head: bytes) -> bool:
    """True if the first record is complete: before that OpenSSL does nothing with it."""
    size = _RECORD_HEAD_BYTES + int.from_bytes(head[3:_RECORD_HEAD_BYTES], "big")
    return len(head) >= _RECORD_HEAD_BYTES and len(head) >= size


# --- Certificates ----------------------------------------------------------------------------------------------------


class Certificate:
    """A certificate and its key in files, and what new connections use of it. Raises ConfigError if they are unusable."""

    def __init__(self, cert: str, key: str) -> None:
        self.cert = cert
        self.key = key
        self.context, self.expires = _load(cert, key)

    def reload(self) -> None:
        """Read the files again. If they are unusable, the old ones stay in use. Connections keep what they began with."""
        self.context, self.expires = _load(self.cert, self.key)


def _load(cert: str, key: str) -> tuple[ssl.SSLContext, str]:
    """A context for servers, and the time at which its certificate expires."""
    _check_readable("tls-cert", cert)
    _check_private(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = _TICKETS
    try:
        context.load_cert_chain(cert, key, _refuse_password)
    except ssl.SSLError as error:
        raise ConfigError("tls-key", f"tls-key: {_explanation(error, cert, key)}") from None
    except OSError as error:
        # They are being replaced.
        raise ConfigError("tls-cert", f"tls-cert: cannot read {cert} or {key}: {error.strerror}") from None
    return context, _expiry(context, cert)


def _check_readable(setting: str, path: str) -> os.stat_result:
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno())
    except OSError as error:
        raise ConfigError(setting, f"{setting}: cannot read {path}: {error.strerror}") from None


def _check_private(key: str) -> None:
    mode = stat.S_IMODE(_check_readable("tls-key", key).st_mode)
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(
            "tls-key", f"tls-key: every user can read or write {key} (mode {mode:o}); run chmod o= {key}"
        )


def _refuse_password() -> str:
    # Without this, OpenSSL would ask for it on the terminal.
    raise ConfigError(
        "tls-key",
        "tls-key: the key is encrypted with a password; store it without one: openssl pkey -in KEY -out NEW",
    )


def _explanation(error: ssl.SSLError, cert: str, key: str) -> str:
    match error.reason:
        case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH":
            return f"{key} is not the key of the certificate {cert}"
        case "EE_KEY_TOO_SMALL" | "CA_MD_TOO_WEAK" | "CA_KEY_TOO_SMALL":
            return f"{cert} is too weak: {reason_of(error)}"
    return f"{cert} and {key} are not a certificate and a key in PEM: {reason_of(error)}"


def reason_of(error: ssl.SSLError) -> str:
    """The reason in OpenSSL's words."""
    return error.reason.lower().replace("_", " ") if error.reason else str(error.strerror or error)


# OpenSSL's numbers for results of a verification.
_NOT_YET_VALID, _EXPIRED = 9, 10


def _expiry(server: ssl.SSLContext, cert: str) -> str:
    """When the certificate expires for a client that trusts only this certificate."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        client.load_verify_locations(cert)
        peer = _shake_hands(client, server)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in {_NOT_YET_VALID, _EXPIRED}:
            raise ConfigError(
                "tls-cert", f"tls-cert: {cert} cannot be used: {error.verify_message}"
            ) from None
        # Only clients can judge other problems of the certificate.
        return "unknown"
    except OSError as error:
        # Such as a key on a curve that no client offers by itself, or a file that is being replaced.
        reason = reason_of(error) if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError("tls-cert", f"tls-cert: {cert} cannot be used: {reason}") from None
    seconds = ssl.cert_time_to_seconds(str(peer["notAfter"]))
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, Any]:
    """The certificate of this server, after a handshake without a network."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    while True:
        try:
            asking.do_handshake()
            return asking.getpeercert() or {}
        except _WANT_READ:
            pass
        try:
            answering.do_handshake()
        except _WANT_READ:
            pass
