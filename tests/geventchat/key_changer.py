"""A client of TLS 1.3 that changes its keys, which the module `ssl` cannot do: with OpenSSL's own library."""

from __future__ import annotations

import ctypes
from ctypes.util import find_library
from functools import cache
from typing import Any

import pytest

from tests.fire.simulation import SimulatedClient, Simulation

_BYTES = 65_536


@cache
def _libraries() -> tuple[Any, Any]:
    names = [find_library(name) for name in ("ssl", "crypto")]
    if None in names:
        pytest.skip("OpenSSL's library is not found")
    ssl, crypto = (ctypes.CDLL(name) for name in names)
    for function in (ssl.TLS_client_method, ssl.SSL_CTX_new, ssl.SSL_new, crypto.BIO_s_mem, crypto.BIO_new):
        function.restype = ctypes.c_void_p
    return ssl, crypto


class KeyChanger:
    """One client, which has shaken hands."""

    def __init__(self, wire: SimulatedClient, simulation: Simulation) -> None:
        self._ssl, self._crypto = _libraries()
        self._wire = wire
        self._simulation = simulation
        method = ctypes.c_void_p(self._ssl.TLS_client_method())
        self._context = ctypes.c_void_p(self._ssl.SSL_CTX_new(method))
        self._tls = ctypes.c_void_p(self._ssl.SSL_new(self._context))
        memory = ctypes.c_void_p(self._crypto.BIO_s_mem())
        self._in, self._out = (ctypes.c_void_p(self._crypto.BIO_new(memory)) for _ in range(2))
        # It owns them from now on.
        self._ssl.SSL_set_bio(self._tls, self._in, self._out)
        self._ssl.SSL_set_connect_state(self._tls)
        while self._ssl.SSL_do_handshake(self._tls) != 1:
            assert self._exchange(), "the handshake has failed"
        self._exchange()

    def send(self, data: bytes) -> None:
        """Send this, encrypted."""
        assert self._ssl.SSL_write(self._tls, data, len(data)) == len(data)
        self._exchange()

    def change_keys(self, times: int) -> None:
        """Change the keys this often, and send all of that together."""
        for _ in range(times):
            assert self._ssl.SSL_key_update(self._tls, 0) == 1
            assert self._ssl.SSL_do_handshake(self._tls) == 1
        self._exchange()

    def received(self) -> bytes:
        """What it has received."""
        self._exchange()
        found = bytearray()
        buffer = ctypes.create_string_buffer(_BYTES)
        while (size := self._ssl.SSL_read(self._tls, buffer, _BYTES)) > 0:
            found += buffer.raw[:size]
        return bytes(found)

    def close(self) -> None:
        """Free what OpenSSL has allocated."""
        self._ssl.SSL_free(self._tls)
        self._ssl.SSL_CTX_free(self._context)

    def _exchange(self) -> bool:
        """Send what has to be sent, and take in what has come; False if there was neither."""
        buffer = ctypes.create_string_buffer(_BYTES)
        out = bytearray()
        while (size := self._crypto.BIO_read(self._out, buffer, _BYTES)) > 0:
            out += buffer.raw[:size]
        if out:
            self._wire.send(bytes(out))
        self._simulation.run_until_idle()
        came = bytes(self._wire.received)
        self._wire.received.clear()
        if came:
            self._crypto.BIO_write(self._in, came, len(came))
        return bool(out or came)
