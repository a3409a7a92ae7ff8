"""Clients that have gone are freed at once. A collection of cycles, after thousands of them, would stop everybody else."""

from __future__ import annotations

import gc

import pytest
from websockets.frames import Opcode
from websockets.server import ServerProtocol

from tests.geventchat.web_client import HANDSHAKE, frame, request, web

CLIENTS = 20
OPEN = request("/ws", HANDSHAKE)
JOIN = frame('{"type": "join", "v": 2, "username": "alice"}')
KINDS = {
    "line": ("line", b"LOGIN alice\nMSG hi\nJOIN dev\nKICK x\nnonsense\n"),
    "line that quits": ("line", b"LOGIN alice\nQUIT\n"),
    "line that is HTTP": ("line", b"GET / HTTP/1.1\r\n"),
    "page": ("web", request("/", "Connection: close\n")),
    "not a request": ("web", b"GET /\r\n"),
    "half a request": ("web", b"GET /"),
    "wrong token": ("web", request("/api/rooms/lobby/messages", "Authorization: Bearer x\n")),
    "refused handshake": ("web", request("/ws", HANDSHAKE.replace("13", "12"))),
    "handshake": ("web", OPEN),
    "WebSocket": ("web", OPEN + JOIN + frame("{", fin=False)),
    "WebSocket that quits": ("web", OPEN + JOIN + frame('{"type": "quit"}')),
    "WebSocket that closes": ("web", OPEN + JOIN + frame("", Opcode.CLOSE)),
    "not a frame": ("web", OPEN + JOIN + b"\x81\x05hello"),
    "not UTF-8": ("web", OPEN + JOIN + frame(b"\xff", fin=False)),
    "wrong close": ("web", OPEN + JOIN + frame("x", Opcode.CLOSE)),
}


def parsers() -> int:
    return sum(isinstance(one, ServerProtocol) for one in gc.get_objects())


# How long a client stays: not at all, until the server no longer waits for it to close its side, or until it has to read.
STAYS = {"closes": 0, "does not close": 1.1, "does not read": 40}


@pytest.mark.parametrize("stays", STAYS)
@pytest.mark.parametrize(("scheme", "data"), KINDS.values(), ids=KINDS)
def test_a_client_that_has_gone_leaves_nothing_to_the_garbage_collector(scheme: str, data: bytes, stays: str):
    with web() as server:

        def come_and_go() -> None:
            client = server.connect(scheme, buffer_bytes=stays == "does not read")
            if STAYS[stays]:
                # It does not notice that the server has closed its side.
                client.stop_reading()
            client.send(data)
            server.run_until_idle()
            server.advance(STAYS[stays])
            client.close()
            server.run_until_idle()

        # Create the objects that are made only once.
        come_and_go()
        gc.collect()
        before = parsers()
        gc.disable()
        try:
            for _ in range(CLIENTS):
                come_and_go()
            server.advance(2)
            assert server.server.clients == 0
            # A collection does not count generators and what they lead to, such as the parser of a WebSocket.
            assert parsers() == before
            assert gc.collect() < CLIENTS
        finally:
            gc.enable()
