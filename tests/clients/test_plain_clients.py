"""Clients written from the documents alone work with the server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.raw_client import RawClient
from tests.client.real_server import RealServer
from tests.patience import HANG_S

FOLDER = Path(__file__).parent
STAMP = re.compile(r"\[\d\d:\d\d:\d\d\]")


class PlainClient:
    """One of the clients, its input and its output."""

    def __init__(self, dialect: str, server: RealServer) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(FOLDER / f"{dialect}_client.py"), server.host, str(server.ports[dialect])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONUTF8": "1"},
        )

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def expect(self, *lines: str) -> None:
        """Exactly these lines are printed next."""
        assert self._process.stdout is not None
        for line in lines:
            assert STAMP.sub("[..:..:..]", self._process.stdout.readline()) == f"{line}\n"

    def expect_end(self) -> None:
        """Nothing more is printed, and the program succeeds."""
        rest, _ = self._process.communicate(timeout=HANG_S)
        assert (rest, self._process.returncode) == ("", 0)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@pytest.fixture
def server() -> Iterator[RealServer]:
    running = RealServer()
    yield running
    running.stop()


@pytest.fixture
def start(server: RealServer) -> Iterator[Callable[[str], PlainClient]]:
    clients: list[PlainClient] = []

    def start_client(dialect: str) -> PlainClient:
        clients.append(PlainClient(dialect, server))
        return clients[-1]

    yield start_client
    for client in clients:
        client.close()


def test_a_line_client_from_the_documents_works(start: Callable[[str], PlainClient]) -> None:
    alice, bob = start("line"), start("line")
    alice.type("LOGIN alice")
    alice.expect("OK")
    bob.type("LOGIN alice")
    bob.expect("ERR username-taken")
    bob.type("LOGIN bob")
    bob.expect("OK")
    alice.type("MSG hi everyone")
    bob.expect("MSG alice hi everyone")
    bob.type("WHO")
    bob.expect("USER alice", "USER bob")
    bob.type("DM alice psst ünïcode 🎉")
    alice.expect("DM bob psst ünïcode 🎉")
    alice.type("PING")
    alice.expect("PONG")
    bob.type("QUIT")
    bob.expect("Goodbye!", "Connection closed.")
    bob.expect_end()
    alice.expect("INFO bob disconnected")


def test_a_json_client_from_the_documents_works(start: Callable[[str], PlainClient]) -> None:
    alice, bob = start("json"), start("json")
    alice.type("alice")
    alice.expect("✅ Welcome to the chat, alice! (alice)")
    bob.type("alice")
    bob.expect("❌ Username already taken")
    bob.type("bob")
    bob.expect("✅ Welcome to the chat, bob! (alice, bob)")
    alice.expect("🟢 bob joined the chat")
    alice.type("Hello everyone!")
    alice.expect("[..:..:..] alice: Hello everyone!")
    bob.expect("[..:..:..] alice: Hello everyone!")
    bob.type("/dm alice psst ünïcode 🎉")
    alice.expect("(private) bob to alice: psst ünïcode 🎉")
    bob.expect("(private) bob to alice: psst ünïcode 🎉")
    bob.type("/users")
    bob.expect("Users: alice, bob")
    bob.type("/ping")
    bob.expect("Pong!")
    bob.type("/quit")
    bob.expect("Disconnected.")
    bob.expect_end()
    alice.expect("🔴 bob left the chat")


def test_a_slash_client_from_the_documents_works(start: Callable[[str], PlainClient]) -> None:
    alice, bob = start("slash"), start("slash")
    for client in (alice, bob):
        client.expect("Enter username (1-20 chars): ")
    alice.type("alice")
    alice.expect("[join] alice has joined the chat.", "Connected! Type /help for commands", "")
    alice.type("/users")
    alice.expect("=== Online Users (1) ===", "alice", "")
    bob.type("alice")
    bob.expect("[error] Username already taken. Try another.")
    bob.type("bob")
    bob.expect("[join] bob has joined the chat.", "Connected! Type /help for commands", "")
    alice.expect("[join] bob has joined the chat.")
    alice.type("hello everyone!")
    bob.expect("alice: hello everyone!")
    bob.type("/dm alice hi alice! welcome")
    bob.expect("[DM to alice] hi alice! welcome")
    alice.expect("[DM from bob] hi alice! welcome")
    bob.type("/ping")
    bob.expect("pong")
    bob.type("/quit")
    bob.expect("Disconnecting...", "Disconnected from server.")
    bob.expect_end()
    alice.expect("[leave] bob has left the chat.")


def test_clients_of_all_dialects_talk_to_each_other(start: Callable[[str], PlainClient]) -> None:
    lina, json, slash = start("line"), start("json"), start("slash")
    lina.type("LOGIN lina")
    lina.expect("OK")
    json.type("jason")
    json.expect("✅ Welcome to the chat, jason! (lina, jason)")
    slash.expect("Enter username (1-20 chars): ")
    slash.type("sally")
    slash.expect("[join] sally has joined the chat.", "Connected! Type /help for commands", "")
    json.expect("🟢 sally joined the chat")
    lina.type("MSG hi from line")
    json.expect("[..:..:..] lina: hi from line")
    slash.expect("lina: hi from line")
    json.type("hi from json")
    lina.expect("MSG jason hi from json")
    json.expect("[..:..:..] jason: hi from json")
    slash.expect("jason: hi from json")
    slash.type("hi from slash")
    lina.expect("MSG sally hi from slash")
    json.expect("[..:..:..] sally: hi from slash")
    slash.type("/quit")
    slash.expect("Disconnecting...", "Disconnected from server.")
    lina.expect("INFO sally disconnected")
    json.expect("🔴 sally left the chat")


def test_a_long_roster_reaches_a_client_that_reads_small_pieces(
    server: RealServer, start: Callable[[str], PlainClient]
) -> None:
    names = [f"user-{number:03}" for number in range(150)]
    crowd = [RawClient(server.host, server.ports["line"], name) for name in names]
    alice = start("json")
    alice.type("alice")
    alice.expect(f"✅ Welcome to the chat, alice! ({', '.join([*names, 'alice'])})")
    for client in crowd:
        client.close()
