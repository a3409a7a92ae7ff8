"""The requirements of the server, each a comparison of two metrics of the same benchmark.

Pure arithmetic over `Results`. A requirement whose metrics are missing is neither met nor violated, and is shown so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from bench.metrics import Results, ratio
from bench.servers import OURS, OURS_BARE
from bench.workloads import SCALE_CLIENTS, scale_key

NOISE_AT_LEAST, NOISE_AT_MOST = 0.10, 0.50
"""With more noise than this, a requirement of equality within noise says nothing and counts as not measured."""
IDLE_KB = 10.0
IDLE_CPU_SHARE = 0.001
"""A thousandth of a core: the resolution of the clock and the kernel's own work come to about this."""
LOGIN_GROWTH = 1.25
FLAT = 1.5
DROPPED_S = 8.0
"""Until then a client that does not read slows the others down, because it could be one that reads slowly."""
QUEUE_LIMIT_KB = 1024
QUEUE_OVERHEAD = 4.0
"""The queue is limited in bytes. As Python objects, and in the allocator's units, the same bytes take more memory."""


class Outcome(Enum):
    MET = "met"
    NOT_MET = "NOT MET"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Requirement:
    workload: str
    text: str
    outcome: Outcome
    numbers: str


def _at_most(workload: str, text: str, value: float | None, limit: float, numbers: str) -> Requirement:
    if value is None:
        return Requirement(workload, text, Outcome.NOT_MEASURED, "")
    return Requirement(workload, text, Outcome.MET if value <= limit else Outcome.NOT_MET, numbers)


def _at_least(workload: str, text: str, value: float | None, limit: float, numbers: str) -> Requirement:
    if value is None:
        return Requirement(workload, text, Outcome.NOT_MEASURED, "")
    return Requirement(workload, text, Outcome.MET if value >= limit else Outcome.NOT_MET, numbers)


def _number(value: float | None, form: str = ".3g") -> str:
    return "?" if value is None else format(value, form)


SATURATED = (("asyncio", 20.0), ("threads", 20.0), ("uvloop", 15.0), ("redis", 6.0))


def _saturated(results: Results, workload: str) -> Iterator[Requirement]:
    ours = results.of(workload, OURS).deliveries_per_cpu_s
    for peer, times in SATURATED:
        theirs = results.of(workload, peer).deliveries_per_cpu_s
        value = ratio(ours, theirs)
        numbers = f"{_number(value)} x ({_number(ours)} and {_number(theirs)} per CPU second)"
        text = f"deliveries per second of server CPU: at least {times:g} x {peer}"
        yield _at_least(workload, text, value, times, numbers)


def _one_at_a_time(results: Results) -> Iterator[Requirement]:
    workload = "one-at-a-time"
    ours = results.of(workload, OURS).cpu_per_delivery_us
    theirs = results.of(workload, "uvloop").cpu_per_delivery_us
    value = ratio(ours, theirs)
    numbers = f"{_number(value)} x ({_number(ours)} and {_number(theirs)} us)"
    yield _at_most(workload, "CPU per delivery: at most 1.25 x uvloop", value, 1.25, numbers)


def _paced(results: Results) -> Iterator[Requirement]:
    workload = "paced-500"
    ours = results.of(workload, OURS).p99_us
    for peer, times in (("redis", 1.5), ("uvloop", 1.25)):
        theirs = results.of(workload, peer).p99_us
        value = ratio(ours, theirs)
        numbers = f"{_number(value)} x ({_number(ours, '.0f')} and {_number(theirs, '.0f')} us)"
        text = f"p99 latency to the last client: at most {times:g} x {peer}"
        yield _at_most(workload, text, value, times, numbers)


def _idle_and_logins(results: Results, workload: str) -> Iterator[Requirement]:
    ours, uvloop = results.of(workload, OURS), results.of(workload, "uvloop")
    memory, share, growth = ours.memory_per_client_kb, ours.idle_cpu_share, ours.login_growth
    text = f"memory per idle client: at most {IDLE_KB:g} KB"
    yield _at_most(workload, text, memory, IDLE_KB, f"{_number(memory)} KB")
    numbers = f"{_number(None if share is None else share * 100)} % of a core"
    text = f"CPU when idle: at most {IDLE_CPU_SHARE:.1%} of a core"
    yield _at_most(workload, text, share, IDLE_CPU_SHARE, numbers)
    text = f"CPU per login with many clients: at most {LOGIN_GROWTH:g} x that with few"
    yield _at_most(workload, text, growth, LOGIN_GROWTH, f"{_number(growth)} x")
    login, their_login = ours.cpu_per_login_us, uvloop.cpu_per_login_us
    value = ratio(login, their_login)
    numbers = f"{_number(value)} x ({_number(login)} and {_number(their_login)} us)"
    yield _at_most(workload, "CPU per login: at most 3 x uvloop", value, 3.0, numbers)


def _stalled(results: Results) -> Iterator[Requirement]:
    workload, usual = "stalled-100", "saturated-100"
    stalled, without = results.of(workload, OURS), results.of(usual, OURS)
    for name, label in (("cpu_per_delivery_us", "CPU per delivery"), ("p99_us", "p99 latency")):
        spreads = [results.spread(one, OURS, name) or 0.0 for one in (usual, workload)]
        noise = max(NOISE_AT_LEAST, *spreads)
        here, there = getattr(stalled, name), getattr(without, name)
        value = ratio(here, there) if noise <= NOISE_AT_MOST else None
        numbers = f"{_number(value)} x ({_number(here)} and {_number(there)} us)"
        text = (
            f"{label} of the other clients: within noise ({noise:.0%}) of a chat without the stalled client"
        )
        yield _at_most(workload, text, value, 1 + noise, numbers)
    dropped_s = stalled.stalled_dropped_s
    text = f"a client that does not read is dropped after {DROPPED_S:g} s at most"
    yield _at_most(workload, text, dropped_s, DROPPED_S, f"{_number(dropped_s)} s")
    limit_kb = QUEUE_LIMIT_KB * QUEUE_OVERHEAD
    growth, usual_growth = stalled.peak_growth_kb, without.peak_growth_kb
    more = None if growth is None or usual_growth is None else growth - usual_growth
    numbers = f"{_number(more, '.0f')} KB more"
    text = f"memory for a stalled client: at most {QUEUE_OVERHEAD:g} x the queue limit of {QUEUE_LIMIT_KB} KB"
    yield _at_most(workload, text, more, limit_kb, numbers)


def _dialects(results: Results) -> Iterator[Requirement]:
    line = results.of("saturated-100", OURS).cpu_per_delivery_us
    for workload in ("json-100", "slash-100", "mixed-100"):
        here = results.of(workload, OURS).cpu_per_delivery_us
        value = ratio(here, line)
        numbers = f"{_number(value)} x ({_number(here)} and {_number(line)} us)"
        yield _at_most(workload, "CPU per delivery: at most 2 x line", value, 2.0, numbers)


WEB_TIMES = 1.3


def _web(results: Results) -> Iterator[Requirement]:
    # Compared with json, only the frames remain.
    for workload, label in (("web-100", "line"), ("web-100", "json"), ("web-1000", "line")):
        found = results.of(f"{workload}-to-{label}", OURS)
        here, there = found.cpu_per_delivery_us, found.beside_cpu_us
        numbers = f"{_number(found.cpu_ratio)} x ({_number(here)} and {_number(there)} us, in pairs)"
        text = f"CPU per delivery: at most {WEB_TIMES:g} x {label}"
        yield _at_most(workload, text, found.cpu_ratio, WEB_TIMES, numbers)


TLS_TIMES = 1.5


def _tls(results: Results) -> Iterator[Requirement]:
    workload = "tls-100"
    ours = results.of(workload, OURS).deliveries_per_cpu_s
    for peer in ("asyncio", "uvloop"):
        theirs = results.of(workload, peer).deliveries_per_cpu_s
        value = ratio(ours, theirs)
        numbers = f"{_number(value)} x ({_number(ours)} and {_number(theirs)} per CPU second)"
        text = f"deliveries per second of server CPU over TLS: at least {TLS_TIMES:g} x {peer}"
        yield _at_least(workload, text, value, TLS_TIMES, numbers)


def _limits(results: Results) -> Iterator[Requirement]:
    workload = "saturated-100"
    on = results.of(workload, OURS).cpu_per_delivery_us
    off = results.of(workload, OURS_BARE).cpu_per_delivery_us
    value = ratio(on, off)
    numbers = f"{_number(value)} x ({_number(on)} and {_number(off)} us)"
    text = "CPU per delivery with limits and logs: at most 1.1 x that without"
    yield _at_most(workload, text, value, 1.10, numbers)


def _flat(results: Results) -> Iterator[Requirement]:
    """Only growth counts. The cost can fall, because more clients share the work of reading a message."""
    costs = {clients: results.of(scale_key(clients), OURS).cpu_per_delivery_us for clients in SCALE_CLIENTS}
    known = {clients: cost for clients, cost in costs.items() if cost is not None}
    value = None
    if len(known) == len(SCALE_CLIENTS):
        value = max(known[n] / min(known[m] for m in SCALE_CLIENTS if m <= n) for n in SCALE_CLIENTS)
    numbers = f"{_number(value)} x (" + ", ".join(f"{n:,}: {known[n]:.3g}" for n in known) + " us)"
    text = f"CPU per delivery from 10 to 5,000 clients: never {FLAT:g} x that with fewer clients"
    yield _at_most("saturated-10…5000", text, value, FLAT, numbers)


def requirements(results: Results) -> list[Requirement]:
    """Every requirement with its outcome."""
    return [
        *_saturated(results, "saturated-100"),
        *_saturated(results, "saturated-1000"),
        *_one_at_a_time(results),
        *_paced(results),
        *_idle_and_logins(results, results.idle_workload()),
        *_stalled(results),
        *_dialects(results),
        *_tls(results),
        *_web(results),
        *_limits(results),
        *_flat(results),
    ]
