"""Metrics: what they count, that labels are few, that no client is delayed, and that dashboards ask for what exists."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from prometheus_client.parser import text_string_to_metric_families

from geventchat import Config, ConfigError, Limits, Listen, Server
from geventchat.chat.events import NoticeReason, Rejection
from geventchat.clock import SystemClock
from geventchat.dialects.words import error_word
from geventchat.log import LogEvent, LogWriter
from geventchat.metrics import service as metrics_service
from geventchat.metrics.collector import LOGIN_FAILURES
from geventchat.net.admission import Refusal
from geventchat.net.loop_delay import BOUNDS_S, INTERVAL_S, LoopDelay
from geventchat.net.turns import Turns
from tests.certificates import made_certificate
from tests.fire.simulation import simulate
from tests.geventchat.processes import full_pipe
from tests.geventchat.virtual_time import virtual_time
from tests.patience import HANG_S
from tests.tls_client import MemoryClient, client_context

DOCS = Path(__file__).resolve().parents[2] / "docs"
DEPLOY = DOCS / "deploy"
OPERATIONS = (DOCS / "operations.md").read_text()


class World:
    """A server with metrics, and people in the line dialect."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._open: list[Any] = []

    def connect(self, scheme: str = "metrics") -> tuple[Any, Any]:
        sock = socket.create_connection(self.server.addresses[scheme], HANG_S)
        lines = sock.makefile("rwb")
        self._open += [sock, lines]
        return sock, lines

    def person(self, name: str) -> Any:
        _, lines = self.connect("line")
        assert self.ask(lines, f"LOGIN {name}") == "OK"
        return lines

    def ask(self, lines: Any, line: str) -> str:
        lines.write(line.encode() + b"\n")
        lines.flush()
        return lines.readline().decode().rstrip("\n")

    def get(self, request: bytes) -> tuple[bytes, bytes]:
        """The head and the body of the answer, after which the connection ends."""
        sock, lines = self.connect()
        sock.sendall(request)
        head, _, body = lines.read().partition(b"\r\n\r\n")
        return head, body

    def page(self) -> str:
        head, body = self.get(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in head
        return body.decode()

    def values(self) -> dict[str, float]:
        """Every sample, with its labels as they are written."""
        return {
            sample.name + "".join(f"{{{key}={value}}}" for key, value in sample.labels.items()): sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
        }

    def close(self) -> None:
        for one in reversed(self._open):
            one.close()


@pytest.fixture
def world() -> Iterator[World]:
    listen = (Listen("line", "127.0.0.1", 0), Listen("metrics", "127.0.0.1", 0))
    config = Config(listen=listen, limits=Limits(clients=3, linger_s=0))
    with Server(config, log=lambda event, **fields: None) as server:
        world = World(server)
        yield world
        world.close()


def test_what_happens_is_counted(world: World):
    alice, bob = world.person("alice"), world.person("bob")
    alice.write(b"MSG one\nMSG two\nMSG three\nDM bob psst\n")
    assert world.ask(alice, "PING") == "PONG"
    assert [bob.readline() for _ in range(4)][-1] == b"DM alice psst\n"
    _, stranger = world.connect("line")
    assert world.ask(stranger, "LOGIN alice") == "ERR username-taken"
    assert world.connect("line")[1].readline() == b"ERR server-full\n"
    assert world.ask(bob, "QUIT") == "Goodbye!"
    bob.read()
    values = world.values()
    sent = len("OK\n" * 2 + "PONG\nMSG alice one\nMSG alice two\nMSG alice three\nDM alice psst\nGoodbye!\n")
    sent += len("ERR username-taken\nERR server-full\nINFO bob disconnected\n")
    assert {name: values[f"geventchat_{name}"] for name in EXPECTED} == {**EXPECTED, "sent_bytes_total": sent}


EXPECTED = {
    "connections{dialect=line}": 2,
    "connections{dialect=json2}": 0,
    "people": 1,
    "rooms": 1,
    "accepted_total": 4,
    "refused_total{reason=full}": 1,
    "refused_total{reason=banned}": 0,
    "refused_total{reason=proxy_header}": 0,
    "closed_total{reason=quit}": 1,
    "closed_total{reason=slow}": 0,
    "logins_total": 2,
    "login_failures_total{reason=username-taken}": 1,
    "login_failures_total{reason=wrong-password}": 0,
    "messages_total": 3,
    "deliveries_total": 3,
    "direct_messages_total": 1,
    "received_bytes_total": len(
        "LOGIN alice\nLOGIN bob\nMSG one\nMSG two\nMSG three\nDM bob psst\nPING\nLOGIN alice\nQUIT\n"
    ),
    "sent_bytes_total": 0,
    "waiting_bytes": 0,
    "storage_stopped": 0,
    "log_lost_total": 0,
    "log_suppressed_total": 0,
}


def test_clients_of_every_kind_are_counted_as_the_log_counts_them():
    cert, key = map(str, made_certificate())
    listen = tuple(Listen(scheme, "127.0.0.1", 0) for scheme in ("line", "line+tls", "web", "metrics"))
    ended: Counter[str] = Counter()

    def log(event: LogEvent, /, **fields: object) -> None:
        if event is LogEvent.DISCONNECTED:
            ended[str(fields["reason"])] += 1

    config = Config(listen=listen, tls_cert=cert, tls_key=key, limits=Limits(linger_s=0))
    with Server(config, log=log) as server:
        world = World(server)
        answered = 0
        requests = [b"GET /missing HTTP/1.0\r\n\r\n", b"NONSENSE\r\n"]
        for scheme, said in [
            ("line", b"QUIT\n"),
            ("line+tls", b"QUIT\n"),
            *(("web", one) for one in requests),
        ]:
            sock, lines = world.connect(scheme)
            sock.sendall(said)
            answered += len(lines.read()) * (scheme != "line+tls")
        world.connect("web")
        while sum(ended.values()) < 4:
            gevent.sleep(0.01)
        values = world.values()
        counted = {reason: values[f"geventchat_closed_total{{reason={reason}}}"] for reason in ended}
        assert counted == ended == {"quit": 1, "no_tls": 1, "closed": 1, "protocol": 1}
        assert (values["geventchat_slots"], values["geventchat_slots_max"]) == (1, 10_000)
        assert values["geventchat_received_bytes_total"] == len("QUIT\n") + len(requests[0])
        assert values["geventchat_sent_bytes_total"] == answered
        world.close()


def test_names_begin_with_that_of_the_program_and_every_label_is_known_beforehand(world: World):
    before = set(world.values())
    assert all(name.startswith("geventchat_") for name in before)
    world.person("alice")
    world.ask(world.person("bob"), "JOIN dev")
    assert set(world.values()) == before


def test_every_reason_has_its_label():
    refusals = {
        Rejection.NAME_INVALID, Rejection.NAME_LENGTH, Rejection.NAME_TAKEN, Rejection.PASSWORD_REQUIRED,
        Rejection.WRONG_PASSWORD, Rejection.TOO_MANY_ATTEMPTS,
    }  # fmt: skip
    assert set(LOGIN_FAILURES) == set(map(error_word, refusals))
    closed = {NoticeReason.IDLE, NoticeReason.SHUTDOWN, NoticeReason.KICKED, NoticeReason.REPLACED}
    noticed = {reason.value for reason in set(NoticeReason) - closed}
    assert noticed == {reason.value for reason in Refusal} - {"proxy_header"}


def test_refusals_of_every_kind_are_counted_as_the_log_counts_them(tmp_path: Path):
    bans = tmp_path / "bans"
    bans.write_text("192.0.2.9\n")
    listen = (Listen("line", "127.0.0.1", 0), Listen("metrics", "127.0.0.1", 0))
    limits = Limits(clients=3, lingering=2, clients_per_address=2, linger_s=0, handshake_s=0)
    config = Config(listen=listen, limits=limits, ban_list=str(bans), proxy_from=(ip_network("10.0.0.0/8"),))
    with simulate(config) as server:
        # Three without a proxy, two of which are refused, and two with one, whose header is read.
        for host in ("192.0.2.9", "192.0.2.1", "192.0.2.1", "192.0.2.1"):
            server.connect("line", host)
            server.run_until_idle()
        for sent in (
            b"nonsense\n",
            b"PROXY TCP4 192.0.2.2 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.3 10.0.0.1 1 2\r\n",
        ):
            server.connect("line", "10.0.0.1").send(sent)
            server.run_until_idle()
        # More without a header than there can be, and one that never ends it.
        for _ in range(3):
            server.connect("line", "10.0.0.1")
        client = server.connect("metrics")
        client.send(b"GET /metrics HTTP/1.0\r\n\r\n")
        server.run_until_idle()
        page = client.received.decode()
        counted = {
            f"refused {reason}": int(count) for reason, count in re.findall(REFUSED, page, re.MULTILINE)
        }
        assert counted == {one: count for one, count in server.logged.items() if one.startswith("refused ")}
        assert counted == {
            "refused full": 2,
            "refused address_full": 1,
            "refused banned": 1,
            "refused proxy_header": 1,
        }
        assert "\ngeventchat_accepted_total 10.0\n" in page
    row = re.search(r"^\| `refused` \| .*$", OPERATIONS, re.MULTILINE)
    assert row is not None
    assert set(re.findall("`(\\w+)`", row[0])) - {"refused", "error"} == {reason.value for reason in Refusal}


REFUSED = r'^geventchat_refused_total\{reason="(\w+)"\} (\d+)\.0$'


def test_events_that_the_log_loses_or_leaves_out_are_counted():
    listen = (Listen("line", "127.0.0.1", 0), Listen("metrics", "127.0.0.1", 0))
    limits = Limits(address_burst_log_lines=4, address_log_lines_per_s=0.001)
    read, full = full_pipe()
    log = LogWriter(full, "text", "info", SystemClock())
    with Server(Config(listen=listen, limits=limits), log=log) as server, closing(World(server)) as world:
        for number in range(3):
            world.person(f"n{number}")
        values = world.values()
        # Each has connected and logged in, and four lines are written.
        assert (values["geventchat_log_lost_total"], values["geventchat_log_suppressed_total"]) == (0, 2)
        for _ in range(30_000):
            log(LogEvent.STOPPING)
        lost = world.values()["geventchat_log_lost_total"]
        assert lost == log.lost > 10_000
    os.close(read)
    # Its thread ends first: it would write to what has the number of the descriptor next.
    assert not log.close(HANG_S)
    os.close(full)


def test_one_connection_can_ask_again_and_other_requests_are_refused(world: World):
    sock, lines = world.connect()
    for _ in range(2):
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert lines.readline() == b"HTTP/1.1 200 OK\r\n"
        while (line := lines.readline()) != b"\r\n":
            assert line, "the connection has ended"
        assert lines.read(3) == b"ok\n"
    for request, status in [
        (b"GET /metrics/ HTTP/1.0\r\n\r\n", b"404"),
        (b"GET / HTTP/1.0\r\n\r\n", b"404"),
        (b"DELETE /metrics HTTP/1.0\r\n\r\n", b"405"),
        (b"POST /metrics HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", b"413"),
        (b"LOGIN alice\n", b"400"),
        (b"GET /" + b"x" * 9000, b"414"),
    ]:
        head, _ = world.get(request)
        assert head.split(b" ")[1] == status
    head, body = world.get(b"HEAD /metrics HTTP/1.0\r\n\r\n")
    assert re.search(rb"Content-Length: [1-9]", head)
    assert body == b""


def test_a_server_that_is_full_can_still_be_watched_by_a_bounded_number_of_clients(world: World):
    people = [world.person(f"n{number}") for number in range(3)]
    silent = [world.connect() for _ in range(metrics_service.MOST_CLIENTS)]
    gevent.sleep(0)
    assert world.connect()[1].read() == b""
    assert world.server.context.admission.connected == len(people)
    sock, lines = silent[0]
    sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert lines.read().endswith(b"ok\n")


def test_metrics_are_served_over_tls_to_a_bounded_number_of_clients():
    cert, key = map(str, made_certificate())
    listen = (Listen("metrics+tls", "127.0.0.1", 0),)
    config = Config(listen=listen, tls_cert=cert, tls_key=key, limits=Limits(clients=5, lingering=3))
    with Server(config, log=lambda event, **fields: None) as server:
        world = World(server)
        client = MemoryClient(client_context())
        sock, _ = world.connect("metrics+tls")
        sock.sendall(client.take())
        while not client.secure:
            client.feed(sock.recv(65_536))
        # A request in one segment with the end of the handshake.
        sock.sendall(client.take() + client.send(b"GET /healthz HTTP/1.0\r\n\r\n"))
        while not client.ended:
            client.feed(sock.recv(65_536))
        assert client.received.endswith(b"ok\n")
        sock.close()
        silent = [world.connect("metrics+tls") for _ in range(8)]
        assert world.connect("metrics+tls")[1].read() == b""
        assert server.clients == len(silent)
        world.close()


def test_a_client_that_does_not_shake_hands_is_neither_counted_nor_logged():
    cert, key = map(str, made_certificate())
    listen = (Listen("metrics+tls", "127.0.0.1", 0),)
    with simulate(Config(listen=listen, tls_cert=cert, tls_key=key)) as server:
        for sent in (b"GET /metrics HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x02xx", b"\x16"):
            server.connect("metrics+tls").send(sent)
        server.advance(11)
        assert server.server.clients == 0
        assert not server.logged["disconnected"]
        assert not server.context.counts.closed


def test_no_header_of_a_proxy_is_expected_from_a_program_that_asks_for_metrics():
    listen = (Listen("metrics", "127.0.0.1", 0),)
    config = Config(listen=listen, proxy_from=(ip_network("127.0.0.0/8"),))
    with Server(config, log=lambda event, **fields: None) as server:
        world = World(server)
        assert world.get(b"GET /healthz HTTP/1.0\r\n\r\n")[1] == b"ok\n"
        world.close()


def test_a_client_that_sends_no_request_is_closed_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(metrics_service, "REQUEST_S", 0.05)
    sock, lines = world.connect()
    sock.sendall(b"GET /metrics HTTP/1.1\r\n")
    assert lines.read() == b""


@pytest.mark.parametrize("sent", ["", "GET /metr", "NONSENSE\n", "GET /healthz HTTP/1.1\nHost: x\n\n"])
def test_a_client_that_has_gone_leaves_no_timer(sent: str):
    with simulate(Config(listen=(Listen("metrics", "127.0.0.1", 0),))) as server:
        timers = server.timers
        client = server.connect("metrics")
        server.run_until_idle()
        assert server.timers > timers
        client.send(sent.replace("\n", "\r\n").encode())
        server.run_until_idle()
        client.close()
        server.run_until_idle()
        assert (server.server.clients, server.timers) == (0, timers)


def test_what_comes_together_is_read_and_answered_one_by_one_in_each_iteration_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
):
    shares: list[float] = []
    wait = Turns.wait

    def noted(turns: Turns, waiter: Any, share: float = 1.0) -> None:
        shares.append(share)
        wait(turns, waiter, share)

    monkeypatch.setattr(Turns, "wait", noted)
    with simulate(Config(listen=(Listen("metrics", "127.0.0.1", 0),))) as server:
        clients = [server.connect("metrics") for _ in range(3)]
        server.run_until_idle()
        for client in clients:
            client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        server.run_until_idle()
        # Each takes a whole turn, and so does each read.
        assert shares == [1.0] * (3 + 60)
        assert all(client.received.count(b"HTTP/1.1 200 OK\r\n") == 20 for client in clients)


# With many of them there is more to read all the while.
@pytest.mark.parametrize("requests", [20, 400])
def test_a_client_that_does_not_read_the_answer_is_closed_after_a_while(requests: int):
    with simulate(Config(listen=(Listen("metrics", "127.0.0.1", 0),))) as server:
        client = server.connect("metrics", buffer_bytes=1)
        client.stop_reading()
        client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * requests)
        server.advance(metrics_service.IDLE_S - 1)
        assert not client.server_closed
        server.advance(2)
        assert client.server_closed
        assert server.server.clients == 0


def test_a_server_that_stops_accepts_no_connections_and_ends_those_that_it_has(world: World):
    sock, lines = world.connect()
    sock.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    while lines.readline() != b"ok\n":
        pass
    address = world.server.addresses["metrics"]
    assert world.server.stop()
    assert lines.read() == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, HANG_S)


def test_a_server_is_not_ready_while_its_storage_is_too_far_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    request = b"GET /readyz HTTP/1.0\r\n\r\n"
    assert world.get(request)[1] == b"ok\n"
    monkeypatch.setattr(type(world.server.storage), "is_ready", lambda *_: False)
    head, body = world.get(request)
    assert (head.split(b" ")[1], body) == (b"503", b"the storage is too far behind\n")


def test_the_delay_of_the_loop_is_how_late_a_timer_is():
    with virtual_time() as time:
        delay = time.finish(gevent.spawn(LoopDelay, time.hub, time.clock))
        time.advance(2 * INTERVAL_S)
        time.stand_still(INTERVAL_S + 0.02)
        time.run_until_idle()
        delay.close()
    assert sum(delay.counts) == 3
    assert delay.counts[0] == 2
    assert delay.counts[BOUNDS_S.index(0.025)] == 1
    assert delay.total_s == pytest.approx(0.02)


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    for module in ("service", "collector"):
        monkeypatch.delitem(sys.modules, f"geventchat.metrics.{module}")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    server = Server(Config(listen=(Listen("metrics", "127.0.0.1", 0),)), log=lambda event, **fields: None)
    with pytest.raises(ConfigError, match=r"pip install 'geventchat\[metrics\]'"):
        server.start()


# --- docs/deploy -----------------------------------------------------------------------------------------------------


def test_the_dashboard_is_json_and_asks_for_metrics_that_exist(world: World):
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries.append(dashboard["templating"]["list"][1]["query"]["query"])
    assert len(queries) > 20
    check_queries(queries, world.page())
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_the_alerts_ask_for_metrics_that_exist(world: World):
    rules = (DEPLOY / "alerts.yml").read_text()
    queries = re.findall(r"^ +expr: (.+)$", rules, re.MULTILINE)
    assert len(queries) == len(re.findall(r"^ +- alert: \w+$", rules, re.MULTILINE)) > 5
    assert queries[0] == 'up{job="geventchat"} == 0'
    check_queries(queries[1:], world.page())


def check_queries(queries: list[str], page: str) -> None:
    names = set(re.findall(r"^(\w+)", re.sub("^#.*\n", "", page, flags=re.MULTILINE), re.MULTILINE))
    labels = set(re.findall(r'[{,](\w+)="', page)) | {"instance", "dialect", "reason"}
    values = set(re.findall(r'reason="([\w-]+)"', page))
    for query in queries:
        asked = re.findall(r"\bgeventchat_\w+", query)
        assert asked, query
        assert not set(asked) - names, query
        assert not set(re.findall(r"(\w+)=~?\"", query)) - labels, query
        for reasons in re.findall(r'reason=~?"([^"]+)"', query):
            assert not set(reasons.split("|")) - values, query
        assert query.count("(") == query.count(")")
