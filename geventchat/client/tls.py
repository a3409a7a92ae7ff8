"""TLS for a connection. Imported only for an address that asks for it, because loading `ssl` delays the start.

`SSLContext.wrap_bio` keeps TLS a transformation of bytes between the socket and the lines.

Invariants of TlsConnection:
- Its first event is Connected, once both sides have agreed and the certificate was accepted; or its only one is ConnectFailed.
- The session sends and receives nothing before Connected.
"""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress

from geventchat.client.address import Address
from geventchat.client.connection import (
    TLS_ALERT,
    Connected,
    ConnectFailed,
    Connection,
    ConnectionHandler,
    reason_of,
)
from geventchat.client.loop import Loop

READ_BYTES = 64 * 1024
# How the first record of a server that speaks TLS begins, unless it is an alert.
_HANDSHAKE = b"\x16\x03"
# The head of a record, and an alert behind it. Before the handshake alerts are not encrypted.
_RECORD_HEAD_BYTES, _ALERT_BYTES = 5, 2
_ACCESS_DENIED = bytes([2, 49])
# What is wrong with a certificate, by OpenSSL's numbers.
_NOT_YET_VALID, _EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 9, 10, 62, 64
_UNKNOWN_AUTHORITY = {2, 18, 19, 20, 21}


class InvalidAuthorities(Exception):
    """The file of certificates cannot be used; the message is a sentence."""


def client_context(authorities: str) -> ssl.SSLContext:
    """A context that trusts the authorities of the system, or only those in a file. Raises InvalidAuthorities."""
    try:
        return ssl.create_default_context(cafile=os.path.expanduser(authorities) or None)
    except ssl.SSLError:
        raise InvalidAuthorities(f"tls-ca: {authorities} contains no certificate in PEM format.") from None
    except OSError as error:
        raise InvalidAuthorities(f"tls-ca: cannot read {authorities}: {reason_of(error)}.") from None


class TlsConnection(Connection):
    """One encrypted connection to a server, over a socket that is connected and does not block."""

    def __init__(
        self,
        loop: Loop,
        connected: socket.socket,
        handle: ConnectionHandler,
        context: ssl.SSLContext,
        address: Address,
    ) -> None:
        super().__init__(loop, connected, handle)
        self._address = address
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        # Certificates contain neither the zone of an address nor the dot at the end of a complete name.
        host = address.host.partition("%")[0].removesuffix(".")
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._agreed = False
        self._first = b""
        self._problem = ""
        self._shake_hands()

    def send(self, data: bytes) -> None:
        """Encrypt and send, without waiting."""
        if not self.is_closed and not self._closing:
            self._tls.write(data)
            self._send_encrypted()

    def close(self) -> None:
        """Send what is left, announce the end, and close."""
        if self._agreed and not self.is_closed and not self._closing:
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._send_encrypted()
        super().close()

    def _send_encrypted(self) -> None:
        if self._outgoing.pending:
            super().send(self._outgoing.read())

    def _arrived(self, data: bytes) -> None:
        self._incoming.write(data)
        if not self._agreed:
            self._first += data[: _RECORD_HEAD_BYTES + _ALERT_BYTES - len(self._first)]
            self._shake_hands()
        if not self._agreed or self._closing:
            return
        lines, ended = b"", False
        try:
            while part := self._tls.read(READ_BYTES):
                lines += part
            ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._end(f"the encryption failed: {_in_words(error)}")
            return
        # Such as the answer to new keys.
        self._send_encrypted()
        super()._arrived(lines)
        if ended:
            self._end("the server closed it")

    def _shake_hands(self) -> None:
        """Go on with the handshake."""
        try:
            self._tls.do_handshake()
            self._agreed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._problem = self._explain(error)
        # In case of a problem, this is an alert.
        self._send_encrypted()
        if self._problem:
            self._end(self._problem)
        elif self._agreed:
            self._handle(Connected(self))

    def _end(self, reason: str) -> None:
        if self._agreed or self.is_closed:
            super()._end(reason)
            return
        handle, self._handle = self._handle, lambda _: None
        super()._end(reason)
        handle(ConnectFailed(self._problem or self._no_tls(), final=True))

    def _explain(self, error: ssl.SSLError) -> str:
        """Why the handshake failed, in a sentence."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._explain_certificate(error)
        if self._first.startswith(TLS_ALERT) and self._first[_RECORD_HEAD_BYTES:] == _ACCESS_DENIED:
            return f"{self._address} refuses this client: the server is full, or the address is banned."
        if not self._first.startswith((_HANDSHAKE, TLS_ALERT)):
            return self._no_tls()
        return f"No encrypted connection to {self._address}: {_in_words(error)}."

    def _explain_certificate(self, error: ssl.SSLCertVerificationError) -> str:
        certificate = f"The certificate of {self._address}"
        if error.verify_code in _UNKNOWN_AUTHORITY:
            return (
                f"{certificate} is not from an authority that this machine trusts. "
                "--tls-ca FILE names the certificates to trust instead."
            )
        if error.verify_code in {_OTHER_HOST, _OTHER_ADDRESS}:
            return f"{certificate} is not for {self._address.host} but for another host."
        if error.verify_code == _EXPIRED:
            return f"{certificate} has expired."
        if error.verify_code == _NOT_YET_VALID:
            return f"{certificate} is not valid yet, according to the clock of this machine."
        return f"{certificate} cannot be trusted: {error.verify_message}."

    def _no_tls(self) -> str:
        return f"{self._address} does not answer in TLS. Without encryption: chat://{self._address}."


def _in_words(error: ssl.SSLError) -> str:
    return (error.reason or "unknown error").replace("_", " ").lower()
