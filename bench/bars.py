"""The bars: what must hold, each as a comparison of two figures of the same benchmark, with the numbers.

Pure arithmetic over `Results`. A bar whose figures are missing is neither met nor failed, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from bench.figures import Results, ratio
from bench.servers import OURS, OURS_BARE
from bench.workloads import SCALE_CLIENTS, scale_key

NOISE_AT_LEAST = 0.10
IDLE_KB = 10.0
IDLE_CPU_SHARE = 0.001
"""Under a thousandth of a core: what the clock's own grain and the kernel's housekeeping come to."""
LOGIN_GROWTH = 1.25
FLAT = 1.5
QUEUE_LIMIT_KB = 1024
QUEUE_OVERHEAD = 4.0
"""What waits is bounded in bytes; as objects, and as the allocator rounds, it may weigh this much more."""


class Outcome(Enum):
    MET = "met"
    NOT_MET = "NOT MET"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Bar:
    workload: str
    must: str
    outcome: Outcome
    numbers: str


def _at_most(workload: str, must: str, value: float | None, limit: float, numbers: str) -> Bar:
    if value is None:
        return Bar(workload, must, Outcome.NOT_MEASURED, "")
    return Bar(workload, must, Outcome.MET if value <= limit else Outcome.NOT_MET, numbers)


def _at_least(workload: str, must: str, value: float | None, limit: float, numbers: str) -> Bar:
    if value is None:
        return Bar(workload, must, Outcome.NOT_MEASURED, "")
    return Bar(workload, must, Outcome.MET if value >= limit else Outcome.NOT_MET, numbers)


def _number(value: float | None, form: str = ".3g") -> str:
    return "?" if value is None else format(value, form)


SATURATED = (("asyncio", 20.0), ("threads", 20.0), ("uvloop", 15.0), ("redis", 6.0))


def _saturated(results: Results, workload: str) -> Iterator[Bar]:
    ours = results.of(workload, OURS).deliveries_per_cpu_s
    for peer, times in SATURATED:
        theirs = results.of(workload, peer).deliveries_per_cpu_s
        value = ratio(ours, theirs)
        numbers = f"{_number(value)} x ({_number(ours)} against {_number(theirs)} a second of CPU)"
        must = f"deliveries per second of server CPU at least {times:g} x {peer}"
        yield _at_least(workload, must, value, times, numbers)


def _one_at_a_time(results: Results) -> Iterator[Bar]:
    workload = "one-at-a-time"
    ours = results.of(workload, OURS).cpu_per_delivery_us
    theirs = results.of(workload, "uvloop").cpu_per_delivery_us
    value = ratio(ours, theirs)
    numbers = f"{_number(value)} x ({_number(ours)} us against {_number(theirs)} us)"
    yield _at_most(workload, "CPU per delivery at most 1.25 x uvloop", value, 1.25, numbers)


def _paced(results: Results) -> Iterator[Bar]:
    workload = "paced-500"
    ours = results.of(workload, OURS).p99_us
    for peer, times in (("redis", 1.5), ("uvloop", 1.25)):
        theirs = results.of(workload, peer).p99_us
        value = ratio(ours, theirs)
        numbers = f"{_number(value)} x ({_number(ours, '.0f')} us against {_number(theirs, '.0f')} us)"
        must = f"p99 to the last listener at most {times:g} x {peer}"
        yield _at_most(workload, must, value, times, numbers)


def _idle_and_logins(results: Results, workload: str) -> Iterator[Bar]:
    ours, uvloop = results.of(workload, OURS), results.of(workload, "uvloop")
    memory, share, growth = ours.memory_per_client_kb, ours.idle_cpu_share, ours.login_growth
    yield _at_most(
        workload, f"an idle client at most {IDLE_KB:g} KB", memory, IDLE_KB, f"{_number(memory)} KB"
    )
    numbers = f"{_number(None if share is None else share * 100)} % of a core"
    yield _at_most(
        workload,
        f"no measurable CPU when idle (at most {IDLE_CPU_SHARE:.1%})",
        share,
        IDLE_CPU_SHARE,
        numbers,
    )
    must = f"CPU per login does not grow with those present (late at most {LOGIN_GROWTH:g} x early)"
    yield _at_most(workload, must, growth, LOGIN_GROWTH, f"{_number(growth)} x")
    login, their_login = ours.cpu_per_login_us, uvloop.cpu_per_login_us
    value = ratio(login, their_login)
    numbers = f"{_number(value)} x ({_number(login)} us against {_number(their_login)} us)"
    yield _at_most(workload, "CPU per login at most 3 x uvloop", value, 3.0, numbers)


def _stalled(results: Results) -> Iterator[Bar]:
    workload, calm = "stalled-100", "saturated-100"
    with_it, without = results.of(workload, OURS), results.of(calm, OURS)
    for name, what in (("cpu_per_delivery_us", "CPU per delivery"), ("p99_us", "p99")):
        noise = max(NOISE_AT_LEAST, results.spread(calm, OURS, name), results.spread(workload, OURS, name))
        here, there = getattr(with_it, name), getattr(without, name)
        value = ratio(here, there)
        numbers = f"{_number(value)} x ({_number(here)} us against {_number(there)} us)"
        must = f"{what} of the others within noise ({noise:.0%}) of a room without it"
        yield _at_most(workload, must, value, 1 + noise, numbers)
    limit_kb = QUEUE_LIMIT_KB * QUEUE_OVERHEAD
    growth, usual = with_it.peak_growth_kb, without.peak_growth_kb
    more = None if growth is None or usual is None else growth - usual
    numbers = f"{_number(more, '.0f')} KB more than without it"
    must = f"memory bounded (at most {QUEUE_OVERHEAD:g} x the limit of {QUEUE_LIMIT_KB} KB)"
    yield _at_most(workload, must, more, limit_kb, numbers)


def _rooms(results: Results) -> Iterator[Bar]:
    line = results.of("saturated-100", OURS).cpu_per_delivery_us
    for workload in ("json-100", "slash-100", "mixed-100"):
        here = results.of(workload, OURS).cpu_per_delivery_us
        value = ratio(here, line)
        numbers = f"{_number(value)} x ({_number(here)} us against {_number(line)} us)"
        yield _at_most(workload, "CPU per delivery at most 2 x line", value, 2.0, numbers)


def _limits(results: Results) -> Iterator[Bar]:
    workload = "saturated-100"
    on = results.of(workload, OURS).cpu_per_delivery_us
    off = results.of(workload, OURS_BARE).cpu_per_delivery_us
    value = ratio(on, off)
    numbers = f"{_number(value)} x ({_number(on)} us against {_number(off)} us)"
    yield _at_most(workload, "limits and logs on within 10 % of off", value, 1.10, numbers)


def _flat(results: Results) -> Iterator[Bar]:
    """Growth is what is asked about: a cost that falls, as more share the reading of a message, is none."""
    costs = {clients: results.of(scale_key(clients), OURS).cpu_per_delivery_us for clients in SCALE_CLIENTS}
    known = {clients: cost for clients, cost in costs.items() if cost is not None}
    value = None
    if len(known) == len(SCALE_CLIENTS):
        value = max(known[n] / min(known[m] for m in SCALE_CLIENTS if m <= n) for n in SCALE_CLIENTS)
    numbers = f"{_number(value)} x (" + ", ".join(f"{n:,}: {known[n]:.3g}" for n in known) + " us)"
    must = f"cost per delivery flat from 10 to 5,000 clients (never {FLAT:g} x that of fewer)"
    yield _at_most("saturated-10…5000", must, value, FLAT, numbers)


def bars(results: Results) -> list[Bar]:
    """Every bar, in the order in which they are stated."""
    measured = results.workloads()
    idle = next((workload for workload in measured if workload.startswith("idle-")), "idle-8000")
    return [
        *_saturated(results, "saturated-100"),
        *_saturated(results, "saturated-1000"),
        *_one_at_a_time(results),
        *_paced(results),
        *_idle_and_logins(results, idle),
        *_stalled(results),
        *_rooms(results),
        *_limits(results),
        *_flat(results),
    ]
