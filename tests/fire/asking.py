"""Those who ask for much and hear nothing, those who begin lines and never end them: what they make the server keep."""

from __future__ import annotations

from dataclasses import dataclass

from geventchat import Config, Limits, Listen
from tests.fire.arena import arena
from tests.fire.crowd import Crowd
from tests.fire.leaks import kept
from tests.fire.process import ServerProcess, eventually

_SOCKET_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Asked:
    """What one run has shown."""

    questions: int
    answer_bytes: int
    most_kept_bytes: int


def who_without_listening(present: int, questions: int) -> Asked:
    """One asks who is there again and again and reads no answer, while two others chat; in virtual time."""
    limits = Limits(clients_per_address=present + 10, lines_per_s=0)
    config = Config(listen=(Listen("line", "127.0.0.1", 0),), idle_s=0, limits=limits)
    with arena(config) as scene:
        people = [scene.come() for _ in range(present)]
        for n, guest in enumerate(people):
            guest.say(f"LOGIN p{n}")
        scene.settle()
        asker = scene.come(buffer_bytes=_SOCKET_BYTES)
        asker.say("LOGIN asker")
        scene.settle()
        outboxes = [connection._outbox for connection in scene.server._connections.values()]
        asker.stop_reading()
        most = 0
        for n in range(questions):
            asker.try_to_say("WHO")
            scene.settle()
            most = max(most, sum(outbox.backlog_bytes for outbox in outboxes))
            if not n % 100:
                mark = len(people[1].heard)
                people[0].say(f"MSG {n}")
                scene.settle()
                assert people[1].heard[mark:] == f"MSG p0 {n}\n".encode()
        answer = sum(len(f"USER p{n}\n") for n in range(present)) + len("USER asker\n")
        for guest in (*people, asker):
            guest.close()
        scene.pass_s(60)
        assert not kept(scene), kept(scene)
        return Asked(questions, answer, most)


@dataclass(frozen=True, slots=True)
class Begun:
    """What one run has shown: what the server keeps for each line that was begun, above what a connection costs."""

    clients: int
    begun_bytes: int
    kept_bytes_each: int


def lines_without_end(clients: int, begun_bytes: int) -> Begun:
    """All begin a line, one piece after another, and none ends it; on real sockets."""
    options = (f"--max-clients={clients + 10}", f"--max-per-address={clients + 10}", "--idle-timeout=0")
    with ServerProcess(*options) as server, Crowd() as crowd:
        peers = [crowd.join(server.at()) for _ in range(clients)]
        for peer in peers:
            peer.say("PING")
        crowd.until("everyone was answered", lambda: all(peer.heard for peer in peers))
        before = server.resident_bytes
        for _ in range(4):
            for peer in peers:
                peer.send(b"MSG " + b"x" * (begun_bytes // 4 - 4))
        # The last of all is read last; when it is answered, the others have been read.
        last = crowd.join(server.at())
        last.say("PING")
        crowd.until("the last was answered", lambda: bool(last.heard))
        kept_each = (server.resident_bytes - before) // clients
        for peer in peers:
            peer.close()
        eventually("all are gone", lambda: server.descriptors < 20)
        return Begun(clients, begun_bytes, kept_each)
