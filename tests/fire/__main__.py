"""python -m tests.fire SCENARIO [options]: the long forms of what the tests do briefly, with the figures they find.

Each is bounded by what it is asked for, keeps to loopback, and ends with exit code 1 where the server did wrong.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tests.fire import exhausting, holding, pelting, rudeness, soaking, stalling, stopping, storming

_WEEK_HOURS = 168.0
Figures = dict[str, Any]


def _pelt(asked: argparse.Namespace) -> Figures:
    runs = {dialect: pelting.pelt(asked.strings, asked.seed, dialect) for dialect in pelting.DIALECTS}
    return {dialect: asdict(run) for dialect, run in runs.items()}


def _hold(asked: argparse.Namespace) -> Figures:
    return asdict(
        holding.hold(
            asked.clients, asked.idle, named=not asked.unnamed, watch_s=asked.watch, spread_s=asked.spread
        )
    )


def _cut(asked: argparse.Namespace) -> Figures:
    holding.cut_exactly(asked.clients, asked.idle)
    return {"clients": asked.clients, "cut": "each at its microsecond"}


def _stall(asked: argparse.Namespace) -> Figures:
    return asdict(stalling.beside_stalled(asked.readers, asked.stalled, asked.queue, asked.round))


def _stop(asked: argparse.Namespace) -> Figures:
    return {
        signum.name: asdict(stopping.in_traffic(asked.clients, signum, asked.lines))
        for signum in (signal.SIGTERM, signal.SIGINT)
    }


def _soak(asked: argparse.Namespace) -> Figures:
    hours = asked.hours if asked.hours is not None else asked.weeks * _WEEK_HOURS
    return asdict(soaking.soak(hours, asked.clients, asked.seed))


def _rude(asked: argparse.Namespace) -> Figures:
    return asdict(rudeness.endure(asked.connections, asked.rounds, asked.polite, asked.seed))


def _exhaust(asked: argparse.Namespace) -> Figures:
    exhausting.room_by_leaving(20)
    return {
        "out of files": asdict(exhausting.out_of_files(asked.clients, asked.newcomers)),
        "full queue": asdict(exhausting.full_queue(20)),
        "clients with 120 files": exhausting.too_few_from_the_start(120, 100),
    }


def _storm(asked: argparse.Namespace) -> Figures:
    run = storming.login_storm(asked.logins)
    return {**asdict(run), "growth": run.growth}


def _reconnect(asked: argparse.Namespace) -> Figures:
    return asdict(storming.reconnect_storm(asked.clients, asked.times))


def main() -> int:
    """Run one scenario and print what it found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fire", description=__doc__)
    scenarios = parser.add_subparsers(dest="scenario", required=True, metavar="SCENARIO")

    def scenario(name: str, run: Callable[[argparse.Namespace], Figures], about: str, **options: Any) -> None:
        one = scenarios.add_parser(name, help=about, description=about)
        one.set_defaults(run=run)
        for option, default in options.items():
            if default is False:
                one.add_argument(f"--{option}", action="store_true")
            else:
                one.add_argument(
                    f"--{option}", type=type(default), default=default, help=f"default: {default}"
                )

    scenario("pelt", _pelt, "garbage in every dialect, in virtual time", strings=10_000, seed=1)
    scenario(
        "hold",
        _hold,
        "idle connections on real sockets",
        clients=5_000,
        idle=8.0,
        unnamed=False,
        watch=0.0,
        spread=0.0,
    )
    scenario("cut", _cut, "idle connections in virtual time", clients=5_000, idle=60.0)
    scenario("stall", _stall, "clients that stop reading", readers=99, stalled=1, queue=1_048_576, round=40)
    scenario("stop", _stop, "SIGTERM and SIGINT in traffic", clients=100, lines=2_000)
    scenario("soak", _soak, "virtual weeks against a model", weeks=1.0, clients=200, seed=7)
    scenarios.choices["soak"].add_argument("--hours", type=float, help="instead of weeks")
    scenario("rude", _rude, "connections torn down rudely", connections=10_000, rounds=10, polite=50, seed=3)
    scenario("exhaust", _exhaust, "no more files; a full queue", clients=100, newcomers=200)
    scenario("storm", _storm, "logins in a row", logins=10_000)
    scenario("reconnect", _reconnect, "all break off and all come back", clients=2_000, times=10)

    asked = parser.parse_args()
    began = time.monotonic()
    try:
        figures = asked.run(asked)
    except AssertionError as error:
        print(f"the server did wrong: {error}", file=sys.stderr)
        return 1
    for name, figure in figures.items():
        print(f"{name}: {figure}")
    print(f"took: {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
