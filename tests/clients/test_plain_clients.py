"""Clients written from the documents alone work with the server: login, chat, private, roster, ping and quit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.people import RawPerson
from tests.client.real_server import RealServer

FOLDER = Path(__file__).parent
STAMP = re.compile(r"\[\d\d:\d\d:\d\d\]")


class PlainClient:
    """One of the clients, with someone who types and reads."""

    def __init__(self, dialect: str, server: RealServer) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(FOLDER / f"{dialect}_client.py"), server.host, str(server.ports[dialect])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONUTF8": "1"},
        )

    def types(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def reads(self, *lines: str) -> None:
        """Exactly these lines come next."""
        assert self._process.stdout is not None
        for line in lines:
            assert STAMP.sub("[..:..:..]", self._process.stdout.readline()) == f"{line}\n"

    def ends(self) -> None:
        """Nothing more comes, and the program ends well."""
        rest, _ = self._process.communicate(timeout=20)
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

    def begin(dialect: str) -> PlainClient:
        clients.append(PlainClient(dialect, server))
        return clients[-1]

    yield begin
    for client in clients:
        client.close()


def test_a_line_client_from_the_documents_works(start: Callable[[str], PlainClient]) -> None:
    alice, bob = start("line"), start("line")
    alice.types("LOGIN alice")
    alice.reads("OK")
    bob.types("LOGIN alice")
    bob.reads("ERR username-taken")
    bob.types("LOGIN bob")
    bob.reads("OK")
    alice.types("MSG hi everyone")
    bob.reads("MSG alice hi everyone")
    bob.types("WHO")
    bob.reads("USER alice", "USER bob")
    bob.types("DM alice psst ünïcode 🎉")
    alice.reads("DM bob psst ünïcode 🎉")
    alice.types("PING")
    alice.reads("PONG")
    bob.types("QUIT")
    bob.reads("Goodbye!", "Connection closed.")
    bob.ends()
    alice.reads("INFO bob disconnected")


def test_a_json_client_from_the_document_works(start: Callable[[str], PlainClient]) -> None:
    alice, bob = start("json"), start("json")
    alice.types("alice")
    alice.reads("✅ Welcome to the chat, alice! (alice)")
    bob.types("alice")
    bob.reads("❌ Username already taken")
    bob.types("bob")
    bob.reads("✅ Welcome to the chat, bob! (alice, bob)")
    alice.reads("🟢 bob joined the chat")
    alice.types("Hello everyone!")
    alice.reads("[..:..:..] alice: Hello everyone!")
    bob.reads("[..:..:..] alice: Hello everyone!")
    bob.types("/dm alice psst ünïcode 🎉")
    alice.reads("(private) bob to alice: psst ünïcode 🎉")
    bob.reads("(private) bob to alice: psst ünïcode 🎉")
    bob.types("/users")
    bob.reads("Users: alice, bob")
    bob.types("/ping")
    bob.reads("Pong!")
    bob.types("/quit")
    bob.reads("Disconnected.")
    bob.ends()
    alice.reads("🔴 bob left the chat")


def test_a_slash_client_from_the_document_works(start: Callable[[str], PlainClient]) -> None:
    alice, bob = start("slash"), start("slash")
    for client in (alice, bob):
        client.reads("Enter username (1-20 chars): ")
    alice.types("alice")
    alice.reads("[join] alice has joined the chat.", "Connected! Type /help for commands", "")
    alice.types("/users")
    alice.reads("=== Online Users (1) ===", "alice", "")
    bob.types("alice")
    bob.reads("[error] Username already taken. Try another.")
    bob.types("bob")
    bob.reads("[join] bob has joined the chat.", "Connected! Type /help for commands", "")
    alice.reads("[join] bob has joined the chat.")
    alice.types("hello everyone!")
    bob.reads("alice: hello everyone!")
    bob.types("/dm alice hi alice! welcome")
    bob.reads("[DM to alice] hi alice! welcome")
    alice.reads("[DM from bob] hi alice! welcome")
    bob.types("/ping")
    bob.reads("pong")
    bob.types("/quit")
    bob.reads("Disconnecting...", "Disconnected from server.")
    bob.ends()
    alice.reads("[leave] bob has left the chat.")


def test_the_three_of_them_talk_to_each_other(start: Callable[[str], PlainClient]) -> None:
    lina, json, slash = start("line"), start("json"), start("slash")
    lina.types("LOGIN lina")
    lina.reads("OK")
    json.types("jason")
    json.reads("✅ Welcome to the chat, jason! (lina, jason)")
    slash.reads("Enter username (1-20 chars): ")
    slash.types("sally")
    slash.reads("[join] sally has joined the chat.", "Connected! Type /help for commands", "")
    json.reads("🟢 sally joined the chat")
    lina.types("MSG hi from line")
    json.reads("[..:..:..] lina: hi from line")
    slash.reads("lina: hi from line")
    json.types("hi from json")
    lina.reads("MSG jason hi from json")
    json.reads("[..:..:..] jason: hi from json")
    slash.reads("jason: hi from json")
    slash.types("hi from slash")
    lina.reads("MSG sally hi from slash")
    json.reads("[..:..:..] sally: hi from slash")
    slash.types("/quit")
    slash.reads("Disconnecting...", "Disconnected from server.")
    lina.reads("INFO sally disconnected")
    json.reads("🔴 sally left the chat")


def test_a_long_roster_reaches_a_client_that_reads_a_little_at_a_time(
    server: RealServer, start: Callable[[str], PlainClient]
) -> None:
    names = [f"somebody-{number:03}" for number in range(150)]
    crowd = [RawPerson(server.host, server.ports["line"], name) for name in names]
    alice = start("json")
    alice.types("alice")
    alice.reads(f"✅ Welcome to the chat, alice! ({', '.join([*names, 'alice'])})")
    for person in crowd:
        person.close()
