"""TLS as a client, with another transport inside. Sans-I/O: the bytes go through memory."""

from __future__ import annotations

import ssl
from contextlib import suppress

from harness.stage.transport import HandshakeFailed, Plain, first_line

_FIRST_BYTES = 80


class Tls(Plain):
    """TLS as a client, with another transport inside."""

    def __init__(self, context: ssl.SSLContext, server_name: str, inside: Plain) -> None:
        self.ready = False
        self.messages = inside.messages
        self._inside = inside
        self._wire_in, self._wire_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._wire_in, self._wire_out, server_hostname=server_name)
        self._secure = self.over = False
        self._first = b""
        self._unwritten = bytearray()
        """What cannot be encrypted before the server has answered a new handshake, for which TLS 1.2 lets it ask."""
        self._own_violation = ""

    @property
    def ended(self) -> bool:  # type: ignore[override]
        return self._inside.ended or self.over

    @property
    def unfinished(self) -> bytes:  # type: ignore[override]
        return self._inside.unfinished

    @property
    def end_detail(self) -> str:  # type: ignore[override]
        return self._inside.end_detail

    @property
    def violation(self) -> str:  # type: ignore[override]
        return self._own_violation or self._inside.violation

    def begin(self) -> bytes:
        self._shake_hands()
        return self.take_reply()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLCertVerificationError as wrong:
            raise HandshakeFailed(
                f"the server's certificate is not accepted: {wrong.verify_message}"
            ) from None
        except ssl.SSLError as wrong:
            came = f"; it began with {first_line(self._first)}" if self._first else ""
            raise HandshakeFailed(f"the TLS handshake failed: {_reason(wrong)}{came}") from None
        self._secure = True
        self._write(self._inside.begin())
        self.ready = self._inside.ready

    def send(self, data: bytes, eol: bytes) -> bytes:
        self._write(self._inside.send(data, eol))
        return self._wire_out.read()

    def _write(self, data: bytes) -> None:
        self._unwritten += data
        with suppress(ssl.SSLWantReadError):
            while self._unwritten:
                del self._unwritten[: self._tls.write(self._unwritten)]

    def receive(self, data: bytes, eol: bytes) -> bytes:
        self._first = self._first or data[:_FIRST_BYTES]
        self._wire_in.write(data)
        if not self._secure:
            self._shake_hands()
        received = bytearray()
        while self._secure and not (self.over or self.violation):
            try:
                piece = self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._write(b"")
                break
            except ssl.SSLZeroReturnError:
                piece = b""
            except ssl.SSLError as wrong:
                self._own_violation = f"TLS: {_reason(wrong)}"
                break
            if not piece:
                # Many servers wait for the answer to this before they close the connection.
                self.over = True
                with suppress(ssl.SSLError):
                    self._tls.unwrap()
                break
            received += self._inside.receive(piece, eol)
            self._write(self._inside.take_reply())
        self.ready = self._secure and self._inside.ready
        return bytes(received)

    def release(self) -> bytes:
        return self._inside.release()

    def take_reply(self) -> bytes:
        return self._wire_out.read()

    def end(self) -> bytes:
        if self._secure:
            self._write(self._inside.end())
            if not self.messages:
                # Raises because the other side's close_notify has not come; ours has been written.
                with suppress(ssl.SSLError):
                    self._tls.unwrap()
        return self._wire_out.read()

    def closed(self) -> None:
        if not self._secure:
            raise HandshakeFailed("the server closed the connection during the TLS handshake")
        self._inside.closed()


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
