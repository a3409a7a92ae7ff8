"""Random traffic is judged by laws: a correct server breaks none, each planted mistake is found, the judge is never unfair."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from harness import Command, InProcess
from harness.cli import main
from harness.laws.history import ALL, Breach, History, Law, Session, breaches, shortest
from harness.laws.traffic import Granted, Judgement, Message, check_laws, report
from harness.report.styled_text import plain
from tests.harness.servers.lawless import FAULTS, Chat, Late, LineChat, faulty, serve
from tests.harness.test_transports import certificate_for

ROOT = Path(__file__).parents[2]
MISTAKES = [name for name, (_, law) in FAULTS.items() if law is not None]


def judged(fault: str, seed: int = 1) -> Judgement:
    return check_laws(faulty(fault), InProcess(serve), clients=60, seconds=2, rate=300, seed=seed)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_right_server_breaks_no_law(seed: int) -> None:
    found = judged("none", seed)
    assert not found.broken, plain(report(found))
    history = found.history
    assert history.heard > 20_000
    assert len(history.sessions) > 65  # some have left and come back
    assert {session.stayed for session in history.sessions} == {True, False}
    assert max(len(session.said) for session in history.sessions) > 20


@pytest.mark.parametrize("fault", MISTAKES)
def test_each_planted_mistake_breaks_its_law(fault: str) -> None:
    found = judged(fault)
    assert FAULTS[fault][1] in found.broken, plain(report(found))
    _, breach = found.broken[FAULTS[fault][1]]
    assert 1 <= len(breach.evidence) <= 7


def test_the_same_seed_is_the_same_traffic() -> None:
    def said(seed: int) -> list[tuple[float, str]]:
        found = check_laws(LineChat, InProcess(serve), clients=10, seconds=1, seed=seed)
        return [line for session in found.history.sessions for line in session.said]

    assert said(4) == said(4) != said(5)


def command(kind: str) -> Command:
    program = (
        f"import sys; from tests.harness.servers.lawless import {kind};"
        f"s = {kind}(); s.address = ('127.0.0.1', int(sys.argv[1])); s.serve_forever()"
    )
    return Command([sys.executable, "-c", program, "{port}"])


def test_a_command_is_judged_too() -> None:
    found = check_laws(LineChat, command("Doubles"), clients=60, seconds=2, rate=200)
    assert set(found.broken) == {Law.DOUBLED}


def test_a_server_may_deliver_late() -> None:
    found = check_laws(LineChat, InProcess(lambda _spec: Late()), clients=20, seconds=2)
    assert not found.broken, plain(report(found))


def test_a_server_may_be_behind_when_the_talking_ends() -> None:
    found = check_laws(LineChat, command("Slow"), clients=5, seconds=2, rate=100)
    assert not found.broken, plain(report(found))
    assert found.history.ended_s > 3.2


# --- the judge ----------------------------------------------------------------------------------------------


def talking(*, left_s: float | None = None) -> tuple[History, Session, Session, Session]:
    """A history in which ann says three things at 2, 3 and 4, to bob and to cat, who came at 1."""
    history = History(ended_s=10.0)
    ann, bob, cat = (history.session() for _ in range(3))
    for name, session in (("ann", ann), ("bob", bob), ("cat", cat)):
        session.granted, session.grant_line = (1.0, name), "OK"
    ann.said = [(2.0, "MSG 0.0"), (3.0, "MSG 0.1"), (4.0, "MSG 0.2")]
    if left_s is not None:
        ann.left_s = left_s
    for session in (bob, cat):
        hear(session, 0, 1, 2)
    return history, ann, bob, cat


def hear(session: Session, *serials: int) -> None:
    session.heard = [(5.0 + at, 0, serial, "ann", f"MSG ann 0.{serial}") for at, serial in enumerate(serials)]


def found(history: History) -> list[tuple[Law, str]]:
    return [(one.law, one.what) for one in breaches(history)]


def test_a_client_that_receives_everything_breaks_no_law() -> None:
    assert found(talking()[0]) == []


@pytest.mark.parametrize(
    ("serials", "expected"),
    [
        ((0, 2), [(Law.LOST, "c1 never received a message of c0")]),
        ((0, 1), [(Law.LOST, "c1 never received a message of c0")]),
        ((0, 1, 2, 1), [(Law.DOUBLED, "c1 received a message of c0 twice")]),
        ((1, 0, 2), [(Law.REORDERED, "c1 received two messages of c0 in the wrong order")]),
    ],
)
def test_what_one_client_receives_is_compared_with_what_was_sent(serials, expected) -> None:
    history, _, bob, _ = talking()
    hear(bob, *serials)
    assert found(history) == expected


def test_messages_before_a_client_came_are_not_due_to_it() -> None:
    history, _, bob, _ = talking()
    bob.granted = (3.0, "bob")  # told so at the moment in which the second was sent
    hear(bob, 2)
    assert found(history) == []
    hear(bob, 0, 1, 2)  # nor forbidden
    assert found(history) == []


def test_what_a_client_said_last_before_it_left_need_not_arrive_but_at_all_or_at_none() -> None:
    history, _, bob, cat = talking(left_s=4.5)
    hear(bob, 0, 1)
    hear(cat, 0, 1)
    assert found(history) == []
    hear(cat, 0, 1, 2)
    assert found(history) == [(Law.LOST, "c1 never received a message of c0")]


def test_a_client_that_leaves_need_not_receive_the_last_messages_but_has_no_gap() -> None:
    history, _, bob, _ = talking()
    bob.left_s = 6.0
    hear(bob, 0)
    assert found(history) == []
    hear(bob, 0, 2)
    assert found(history) == [(Law.LOST, "c1 never received a message of c0")]


def test_a_text_that_was_changed_breaks_a_law_of_its_own() -> None:
    history, _, bob, _ = talking()
    history.changed.append((5.0, bob, 0, 1, "MSG ann 0.1 y"))
    assert found(history) == [(Law.CHANGED, "c1 received a message of c0 with another text")]
    assert list(breaches(history, ALL - {Law.CHANGED})) == []


def test_a_model_says_whether_its_server_changes_texts() -> None:
    class Shouted(LineChat):
        laws = ALL - {Law.CHANGED}

    def shouts(_spec: object) -> Chat:
        server = Chat()
        server.deliver = lambda to, line, mistaken: server.send(to, line.replace(" x", " X"))
        return server

    for model, broken in ((LineChat, {Law.CHANGED}), (Shouted, set())):
        assert set(check_laws(model, InProcess(shouts), clients=5, seconds=1).broken) == broken


def test_a_client_without_a_name_receives_nothing_that_is_due() -> None:
    history, _, bob, _ = talking()
    bob.granted = None
    bob.heard = []
    assert found(history) == []


def test_a_name_that_was_given_back_can_be_given_again() -> None:
    history, _, bob, cat = talking()
    bob.left_s, cat.granted = 6.0, (6.5, "bob")
    assert found(history) == []
    cat.granted = (5.5, "bob")  # bob has begun to leave only afterwards
    assert (Law.HOLDERS, "c1 and c2 both had the name bob for 0.500 s") in found(history)
    bob.left_s = float("inf")
    bob.ended_s, bob.last_s = 7.0, 5.2  # the server can have taken it away at 5.3
    assert Law.HOLDERS not in {law for law, _ in found(history)}


def test_only_the_laws_of_the_model_are_judged() -> None:
    history, _, bob, _ = talking()
    hear(bob, 0, 0, 2)
    assert {one.law for one in breaches(history)} == {Law.DOUBLED, Law.LOST}
    assert {one.law for one in breaches(history, frozenset({Law.LOST}))} == {Law.LOST}
    assert list(breaches(history, frozenset())) == []


def test_the_shortest_evidence_is_named() -> None:
    history, _, bob, cat = talking()
    hear(bob, 0, 2)
    hear(cat, 1, 2)
    ((law, (number, breach)),) = shortest(breaches(history)).items()
    assert (law, number) == (Law.LOST, 2)
    assert isinstance(breach, Breach)
    assert breach.what == "c2 never received a message of c0"
    assert [(one.session, one.text) for one in breach.evidence] == [
        (2, "< OK"),
        (0, "> MSG 0.0"),
        (0, "> MSG 0.1"),
        (2, "< MSG ann 0.1"),
        (1, "< MSG ann 0.0"),
    ]


# --- the command --------------------------------------------------------------------------------------------

MODEL = "tests.harness.servers.lawless:LineChat"
SHORT = ["--clients", "20", "--seconds", "1", "--rate", "200"]


def test_the_command_says_what_it_has_judged(capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    app = ["--app", "tests.harness.servers.lawless:serve"]
    assert main(["laws", "--model", MODEL, *app, *SHORT, "--seed", "7"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("no law was broken: ")
    assert " of 20 clients, " in shown
    assert shown.endswith(", seed 7\n")


def test_a_model_with_dialects_needs_no_words_besides(capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    app = ["--app", "tests.harness.servers.lawless:serve"]
    assert main(["laws", "--model", f"{__name__}:SpokenByDialects", *app, *SHORT]) == 0
    assert capsys.readouterr().out.startswith("no law was broken: ")


def test_the_command_shows_the_evidence(capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    app = ["--app", f"{__name__}:hangs_up"]
    assert main(["laws", "--model", MODEL, *app, *SHORT]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("BROKEN clients stay connected until they leave  ")
    assert "is disconnected" in shown
    assert "\n1 law broken: " in shown


def hangs_up(spec):
    server = serve(spec)
    server.deliveries = 4_000  # the mistake is 1,000 deliveries away
    server.__class__ = FAULTS["hangs-up"][0]
    return server


DIES = """
import socketserver, sys, os, threading
said = []
class Client(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            said.append(line)
            if len(said) > 60:
                os._exit(3)
            self.wfile.write(b"OK\\n")
class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 100
Server(("127.0.0.1", int(sys.argv[1])), Client).serve_forever()
"""


def test_a_server_that_dies_has_failed(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "dies.py").write_text(DIES)
    assert (
        main(["laws", "--model", MODEL, "--server", f"{sys.executable} {tmp_path}/dies.py {{port}}", *SHORT])
        == 1
    )
    assert "exited with status 3" in capsys.readouterr().out


class GrantsAll:
    """The protocol of `streams.py`, in which everyone hears every line, and names mean nothing."""

    header = {"fence": "PING ${token} -> PONG ${token}"}  # noqa: RUF012
    laws = frozenset({Law.LOST, Law.DOUBLED, Law.CHANGED, Law.DISCONNECTED})

    def login(self, name):
        return f"PING {name}"

    def say(self, text):
        return text

    def read(self, line):
        return Granted() if line.startswith("PONG ") else Message("", line)


STREAMS = f"{sys.executable} {Path(__file__).parent / 'servers' / 'streams.py'} {{port}}"


@pytest.mark.parametrize("transport", ["websocket", "tls"])
def test_clients_talk_over_every_transport(transport, capsys, monkeypatch, tmp_path) -> None:
    """A half of a message would be another message, so it is never sent over a WebSocket."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    word = f"tls={certificate_for('127.0.0.1', tmp_path)}" if transport == "tls" else transport
    arguments = ["laws", "--model", f"{__name__}:GrantsAll", "--server", f"{STREAMS} {word}", *SHORT]
    assert main([*arguments, "--transport", transport, "--tls-insecure"]) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.startswith("no law was broken: ")


@pytest.mark.parametrize(
    ("words", "transport", "message"),
    [
        ("tls={}", "tls", "the server's certificate is not accepted"),
        ("websocket garbage", "websocket", "did not answer the WebSocket handshake with HTTP"),
    ],
)
def test_a_handshake_that_fails_is_a_failure(
    words, transport, message, capsys, monkeypatch, tmp_path
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = words.format(certificate_for("127.0.0.1", tmp_path)) if "{}" in words else words
    arguments = ["--model", f"{__name__}:GrantsAll", "--transport", transport, *SHORT]
    assert main(["laws", *arguments, "--server", f"{STREAMS} {words}"]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("FAILED ")
    assert message in shown


def test_a_refused_handshake_is_named_with_its_status(capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    arguments = ["--model", f"{__name__}:GrantsAll", "--transport", "websocket", *SHORT]
    assert main(["laws", *arguments, "--server", f"{STREAMS} websocket status=403"]) == 2
    assert "TARGET ERROR connection refused with 403" in capsys.readouterr().out


AT_A_PATH = """
import socketserver, sys
people = {}
class Client(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            if line.startswith(b"PING "):
                people[self] = self.wfile
                self.wfile.write(line.replace(b"PING", b"PONG"))
                continue
            for other in list(people.values()):
                try:
                    other.write(line)
                except OSError:
                    pass
    def finish(self):
        people.pop(self, None)
class Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 100
    daemon_threads = True
Server(sys.argv[1], Client).serve_forever()
"""


def test_a_server_at_a_unix_socket_is_judged(tmp_path, capsys, monkeypatch) -> None:
    """Its clients close their connections when they leave: a reset is not possible there."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "path.py").write_text(AT_A_PATH)
    model = ["--model", f"{__name__}:GrantsAll", "--server"]
    assert main(["laws", *model, f"{sys.executable} {tmp_path}/path.py {{socket}}", *SHORT]) == 0
    shown = capsys.readouterr().out
    connections = re.match(r"no law was broken: (\d+) connections of 20 clients", shown)
    assert connections, shown
    assert int(connections[1]) > 20


def mute(spec):
    return FAULTS["mute"][0]()


class Elsewhere(LineChat):
    """Some of its clients connect to an endpoint that the server does not have."""

    dialects = ((None, LineChat()), ("nosuch", LineChat()))


class Rude(LineChat):
    """Its clients never log in."""

    def login(self, name):
        return f"HI {name}"


class IgnoresMessages(LineChat):
    """Knows no message."""

    def read(self, line):
        return None if line.startswith("MSG ") else super().read(line)


class OneIsRude(LineChat):
    dialects = ((None, LineChat()), (None, Rude()))


class OneIgnoresMessages(LineChat):
    dialects = ((None, LineChat()), (None, LineChat()), (None, IgnoresMessages()))


class SpokenByDialects:
    """Says itself neither how to log in nor what a line means."""

    header = {}  # noqa: RUF012
    dialects = ((None, LineChat()), (None, LineChat()))


class Pairless(SpokenByDialects):
    dialects = (None,)


class Speechless(SpokenByDialects):
    dialects = ((None, LineChat()), (None, object()))


class Headless:
    dialects = ((None, LineChat()),)


class Oblivious(LineChat):
    """Does not know the answer to its own login."""

    def read(self, line):
        return None


class Unfenced(LineChat):
    header = {"fence": "PING"}  # noqa: RUF012


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", MODEL], "name the server: --server"),
        (["--model", MODEL, "--connect", "127.0.0.1:1"], "TARGET ERROR connection refused"),
        (["--model", MODEL, "--server", "false {port}"], "TARGET ERROR"),
        (
            ["--model", "tests.harness.servers.lawless:FAULTS", "--connect", "127.0.0.1:1"],
            "it cannot be called",
        ),
        (
            ["--model", "tests.harness.servers.talkers:Talkers", "--connect", "127.0.0.1:1"],
            "Talkers has no login, say and read; a model here has header, login, say and read",
        ),
        (["--model", f"{__name__}:Oblivious", "--app", f"{__name__}:mute"], "no client was granted a name"),
        (["--model", MODEL, "--app", f"{__name__}:mute"], "no message was received"),
        (
            ["--model", f"{__name__}:Pairless", "--connect", "127.0.0.1:1"],
            "dialect 1 of tests.harness.test_judging_by_laws:Pairless is not a pair of an endpoint and an object",
        ),
        (
            ["--model", f"{__name__}:Speechless", "--connect", "127.0.0.1:1"],
            "dialect 2 of tests.harness.test_judging_by_laws:Speechless has no login, say and read; a dialect has login",
        ),
        (["--model", f"{__name__}:Headless", "--connect", "127.0.0.1:1"], "Headless has no header"),
        (
            ["--model", f"{__name__}:OneIsRude", "--app", "tests.harness.servers.lawless:serve"],
            "no client of dialect 2 (Rude) was granted a name",
        ),
        (
            ["--model", f"{__name__}:OneIgnoresMessages", "--app", "tests.harness.servers.lawless:serve"],
            "no message was received by a client of dialect 3 (IgnoresMessages)",
        ),
        (
            ["--model", MODEL, "--app", "tests.harness.servers.lawless:serve", "--rate", "1"],
            "no message was said",
        ),
        (["--model", f"{__name__}:Elsewhere", "--app", f"{__name__}:mute"], "no endpoint 'nosuch'"),
        (["--model", f"{__name__}:Unfenced", "--app", f"{__name__}:mute"], "a line without its answer"),
    ],
)
def test_a_run_that_proves_nothing_is_an_error(words, message, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["laws", *SHORT, *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.out + captured.err


class CannotBeMade(LineChat):
    def __init__(self) -> None:
        raise LookupError("no words")


class CannotLogIn(LineChat):
    def login(self, name: str) -> str:
        raise LookupError("no words")


class Exits(LineChat):
    def login(self, name: str) -> str:
        sys.exit()


class CannotSay(LineChat):
    def say(self, text: str) -> str:
        raise LookupError("no words")


class CannotRead(LineChat):
    def read(self, line: str) -> None:
        raise LookupError("no words")


class ReadsTrue(LineChat):
    def read(self, line: str) -> bool:  # type: ignore[override]
        return True


class NamesALaw(LineChat):
    laws = {"lost"}  # noqa: RUF012


class HasNoLaw(LineChat):
    laws: frozenset[Law] = frozenset()


RAISED = "the model raised LookupError: no words"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("CannotBeMade", RAISED),
        ("CannotLogIn", RAISED),
        ("Exits", "the model raised SystemExit"),
        ("CannotSay", RAISED),
        ("CannotRead", RAISED),
        ("ReadsTrue", "`read` of the model returned True for"),
        ("NamesALaw", "`laws` of the model is {'lost'}; expected a set of laws, such as {Law.LOST,"),
        ("HasNoLaw", "`laws` of the model is frozenset(); expected a set of laws"),
    ],
)
def test_a_mistake_of_the_model_is_an_error(model, message, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    words = ["--model", f"{__name__}:{model}", "--app", "tests.harness.servers.lawless:serve"]
    assert main(["laws", *SHORT, *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
    if message == RAISED:
        assert 'raise LookupError("no words")' in told
