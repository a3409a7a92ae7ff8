"""The state of a server as metrics. Reads what is there when Prometheus asks; knows no HTTP.

Invariants:
- Names begin with `geventchat_`. Labels have few values, all known beforehand: neither names nor rooms nor addresses.
- Counting costs the server next to nothing: what is not in its state anyway is one addition for each batch, read or command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from geventchat.chat.events import Rejection
from geventchat.chat.storage import Storage
from geventchat.dialects.words import error_word
from geventchat.net.admission import Refusal
from geventchat.net.connection import Connection, ServerContext
from geventchat.net.loop_delay import BOUNDS_S, LoopDelay
from geventchat.net.waiter import CloseReason

# Why a login can fail.
LOGIN_FAILURES = tuple(
    dict.fromkeys(
        map(
            error_word,
            (
                Rejection.NAME_INVALID,
                Rejection.NAME_TAKEN,
                Rejection.PASSWORD_REQUIRED,
                Rejection.WRONG_PASSWORD,
                Rejection.TOO_MANY_ATTEMPTS,
            ),
        )
    )
)


class Watched(Protocol):
    """The parts of a server that the metrics need."""

    @property
    def context(self) -> ServerContext:
        """The parts that all connections share."""

    @property
    def connections(self) -> list[Connection]:
        """The connections of the chat."""

    @property
    def storage(self) -> Storage:
        """The storage."""

    @property
    def unready(self) -> str:
        """Why new clients should not come now; empty if they can."""


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"geventchat_{name}", what, value=value)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(f"geventchat_{name}", what, value=value)


class ServerCollector:
    """Makes the metrics of one server."""

    def __init__(self, server: Watched, delay: LoopDelay) -> None:
        self._server = server
        self._delay = delay
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector("geventchat", registry=self._registry)

    def page(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing: the registry would otherwise collect everything once to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics at this moment."""
        info = GaugeMetricFamily("geventchat_info", "The version of the server.", labels=["version"])
        info.add_metric([_version()], 1)
        yield info
        yield from self._of_connections()
        yield from self._of_chat()
        yield from self._of_storage()
        yield from self._of_log()
        yield self._loop_delay()

    def _of_connections(self) -> Iterator[Metric]:
        context = self._server.context
        counts, delivery = context.counts, context.delivery
        by_dialect = Counter(dict.fromkeys(context.encodings, 0))
        waiting_bytes = most_bytes = clients = 0
        for connection in self._server.connections:
            by_dialect[connection.dialect] += 1
            backlog_bytes = connection.backlog_bytes
            if backlog_bytes:
                clients += 1
                waiting_bytes += backlog_bytes
                most_bytes = max(most_bytes, backlog_bytes)
        connections = GaugeMetricFamily(
            "geventchat_connections", "Clients that are connected, logged in or not.", labels=["dialect"]
        )
        for dialect, number in by_dialect.items():
            connections.add_metric([dialect], number)
        yield connections
        yield _gauge(
            "slots", "Clients of any kind that count for --max-clients.", context.admission.connected
        )
        yield _gauge("slots_max", "How many there can be.", context.limits.clients)
        yield _gauge(
            "addresses", "Addresses that are remembered for their limits.", context.admission.addresses
        )
        yield _counter("accepted", "Connections that were accepted, refused ones included.", counts.accepted)
        refused = CounterMetricFamily(
            "geventchat_refused",
            "Connections that were refused, by the reason in the log.",
            labels=["reason"],
        )
        for refusal in Refusal:
            refused.add_metric([refusal.value], counts.refused[refusal])
        yield refused
        closed = CounterMetricFamily(
            "geventchat_closed", "Connections that have ended, by the reason in the log.", labels=["reason"]
        )
        for reason in CloseReason:
            if reason is not CloseReason.REFUSED:
                closed.add_metric([reason.value], counts.closed[reason])
        yield closed
        yield _counter("received_bytes", "Bytes that clients have sent.", counts.received_bytes)
        yield _counter("sent_bytes", "Bytes that sockets of clients have taken.", delivery.sent_bytes)
        yield _gauge("waiting_bytes", "Bytes that wait for clients to read them.", waiting_bytes)
        yield _gauge("waiting_bytes_max", "The most that waits for one client.", most_bytes)
        yield _gauge("waiting_clients", "Clients for which something waits.", clients)
        yield _gauge("slow_readers", "Clients that are a quarter of their queue behind.", delivery.behind)

    def _of_chat(self) -> Iterator[Metric]:
        chat = self._server.context.chat
        history = chat.rooms.history
        yield _gauge("people", "People who are logged in.", len(chat))
        yield _gauge("rooms", "Rooms that exist.", len(chat.rooms))
        yield _gauge("accounts", "Accounts.", chat.accounts)
        yield _gauge("bans", "Bans from the server.", len(chat.lobby.bans.by_label))
        yield _counter("logins", "Logins that succeeded.", chat.logins)
        failures: Counter[str] = Counter()
        for reason, count in chat.login_failures.items():
            failures[error_word(reason)] += count
        failed = CounterMetricFamily(
            "geventchat_login_failures",
            "Logins that were refused, by the word of the error.",
            labels=["reason"],
        )
        for word in LOGIN_FAILURES:
            failed.add_metric([word], failures[word])
        yield failed
        yield _counter("messages", "Messages that were said in rooms.", history.said)
        yield _counter("deliveries", "Messages times the other people in their rooms.", history.heard)
        yield _counter("direct_messages", "Direct messages that were sent.", chat.direct_messages)
        yield _gauge("history_bytes", "Memory that the history of all rooms takes.", history.bytes)

    def _of_storage(self) -> Iterator[Metric]:
        storage = self._server.storage
        yield _gauge("storage_behind_bytes", "Bytes that wait to be written.", storage.behind_bytes)
        yield _gauge("storage_lag_seconds", "How long the present write has taken.", storage.lag_s)
        yield _gauge("storage_stopped", "1 while nothing can be written.", storage.is_stopped)
        yield _counter("storage_lost_messages", "Messages that were not kept.", storage.lost_messages)

    def _of_log(self) -> Iterator[Metric]:
        log = self._server.context.log
        yield _counter("log_lost", "Events that did not fit into the log's queue.", log.lost)
        yield _counter(
            "log_suppressed",
            "Events of addresses and networks beyond their limits on log lines.",
            log.suppressed,
        )

    def _loop_delay(self) -> Metric:
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound_s, count in zip(BOUNDS_S, self._delay.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound_s == BOUNDS_S[-1] else str(bound_s), total))
        return HistogramMetricFamily(
            "geventchat_loop_delay_seconds",
            "How late the event loop ran a timer, sampled twice a second.",
            buckets=buckets,
            sum_value=self._delay.total_s,
        )


def _version() -> str:
    try:
        return version("geventchat")
    except PackageNotFoundError:
        return "unknown"
