"""python -m tests.fire SCENARIO [options]: the long forms of the stress tests, with what they measure.

Each is bounded, keeps to the loopback interface, and exits with code 1 if the server did something wrong.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.fire import (
    churn,
    costs,
    crash,
    disconnects,
    exhaustion,
    garbage_clients,
    idle,
    laws,
    logins,
    passwords,
    replays,
    resume,
    rosters,
    shutdown,
    slow_readers,
    soak,
    tls,
    upgrade_kills,
    upgrades,
    websockets,
)
from tests.fire.attacks import bounds, plan, play, search

_WEEK_HOURS = 168.0
Figures = dict[str, Any]


def _garbage(args: argparse.Namespace) -> Figures:
    runs = {
        name: garbage_clients.send_garbage(args.strings, args.seed, name)
        for name in garbage_clients.LISTENERS
    }
    return {dialect: asdict(run) for dialect, run in runs.items()}


def _idle(args: argparse.Namespace) -> Figures:
    return asdict(
        idle.idle_clients(
            args.clients, args.idle, logged_in=not args.unnamed, watch_s=args.watch, spread_s=args.spread
        )
    )


def _handshakes(args: argparse.Namespace) -> Figures:
    run = tls.handshakes(args.clients)
    assert run.meanwhile.p99 <= args.bar or run.meanwhile.busy_p99 <= args.bar, str(run.meanwhile)
    return asdict(run)


def _broken_handshakes(args: argparse.Namespace) -> Figures:
    run = tls.broken_handshakes(args.connections, args.seed)
    assert run.meanwhile.p99 <= args.bar or run.meanwhile.busy_p99 <= args.bar, str(run.meanwhile)
    return asdict(run)


def _broken_upgrades(args: argparse.Namespace) -> Figures:
    run = websockets.broken_upgrades(args.connections, args.seed)
    assert run.meanwhile.p99 <= args.bar or run.meanwhile.busy_p99 <= args.bar, str(run.meanwhile)
    return asdict(run)


def _half_open_upgrades(args: argparse.Namespace) -> Figures:
    run = websockets.half_open_upgrades(args.connections, args.seed)
    for seen in (run.meanwhile, run.given_up):
        assert seen.p99 <= args.bar or seen.busy_p99 <= args.bar, str(run)
    return asdict(run)


def _upgrades(args: argparse.Namespace) -> Figures:
    run = upgrades.upgrades(args.clients, args.rate, args.times, bool(args.stored))
    assert run.longest_ms <= args.bar, f"a pause of {run.longest_ms} ms: {run}"
    return asdict(run)


def _upgrade_kills(args: argparse.Namespace) -> Figures:
    return dict(upgrade_kills.kills(args.rounds, args.seed))


def _tls_memory(args: argparse.Namespace) -> Figures:
    return asdict(tls.memory(args.clients))


def _idle_exact(args: argparse.Namespace) -> Figures:
    idle.exact_idle_timeouts(args.clients, args.idle)
    return {"clients": args.clients, "disconnected": "each at its microsecond"}


def _slow_readers(args: argparse.Namespace) -> Figures:
    return asdict(slow_readers.slow_readers(args.readers, args.stalled, args.queue, args.round))


def _shutdown(args: argparse.Namespace) -> Figures:
    return {
        signum.name: asdict(shutdown.signal_in_traffic(args.clients, signum, args.lines))
        for signum in (signal.SIGTERM, signal.SIGINT)
    }


def _soak(args: argparse.Namespace) -> Figures:
    hours = args.hours if args.hours is not None else args.weeks * _WEEK_HOURS
    return asdict(soak.soak(hours, args.clients, args.seed, args.over))


def _laws(args: argparse.Namespace) -> Figures:
    return asdict(laws.traffic(args.clients, args.minutes * 60, args.rate, args.seed))


def _disconnects(args: argparse.Namespace) -> Figures:
    return asdict(disconnects.disconnects(args.connections, args.rounds, args.members, args.seed))


def _exhaustion(args: argparse.Namespace) -> Figures:
    exhaustion.descriptor_freed(20)
    return {
        "out of files": asdict(exhaustion.out_of_files(args.clients, args.newcomers)),
        "full accept queue": asdict(exhaustion.full_accept_queue(20)),
        "clients with 120 files": exhaustion.lowered_client_limit(120, 100),
    }


def _logins(args: argparse.Namespace) -> Figures:
    run = logins.logins(args.logins)
    return {**asdict(run), "growth": run.growth}


def _reconnects(args: argparse.Namespace) -> Figures:
    return asdict(logins.reconnects(args.clients, args.times))


def _storm(args: argparse.Namespace) -> Figures:
    run = logins.storm(args.clients, args.rounds)
    return {**asdict(run), "busy_p50": run.busy_p50, "busy_p99": run.busy_p99}


def _passwords(args: argparse.Namespace) -> Figures:
    with passwords.server_with_accounts(args.logins) as target:
        run = passwords.password_logins(target, args.logins, args.rounds, args.window)
    figures = {**asdict(run), "p99_rise": round(run.p99_rise, 2)}
    if run.p99_rise >= args.bar:
        raise AssertionError(f"p99 rose by {run.p99_rise:.1f} ms: {figures}")
    return figures


def _replays(args: argparse.Namespace) -> Figures:
    run = replays.replays(args.clients, args.messages, args.rounds)
    figures = {
        **asdict(run),
        "p99_rise": round(run.p99_rise, 2),
        "busy_p99_rise": round(run.busy_p99_rise, 2),
    }
    if run.p99_rise >= args.bar:
        raise AssertionError(f"p99 rose by {run.p99_rise:.1f} ms: {figures}")
    return figures


def _rosters(args: argparse.Namespace) -> Figures:
    run = rosters.rosters(args.people, args.askers, args.rounds)
    if run.most_mb > args.bar:
        raise AssertionError(f"the answers took {run.most_mb} MB: {run}")
    return asdict(run)


def _churn(args: argparse.Namespace) -> Figures:
    run = churn.churn(args.listeners, args.rounds, args.window, args.rate, args.starved)
    figures = {
        **asdict(run),
        "p99_rise": round(run.p99_rise, 2),
        "busy_p99_rise": round(run.busy_p99_rise, 2),
    }
    # Where other programs disturb the measurement, only the processor time says anything.
    rise = run.p99_rise if args.starved < 1 else run.busy_p99_rise
    if rise >= args.bar:
        raise AssertionError(f"p99 rose by {rise:.1f} ms: {figures}")
    return figures


def _crash(args: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory() as directory:
        return asdict(crash.crash(Path(directory) / "data", args.rounds, args.seed, args.window))


def _resume(args: argparse.Namespace) -> Figures:
    return asdict(resume.resume(args.clients, args.loops, args.seed, args.kept))


def _costs(args: argparse.Namespace) -> Figures:
    return costs.costs(args.seconds, args.seed, args.keep)


def _search(args: argparse.Namespace) -> int:
    if args.jobs < 1:
        raise ValueError(f"--jobs {args.jobs}: at least 1")
    # A search that is ended from outside keeps what it has found, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    starts = {**search.attacks_in(args.into), **search.attacks_in(search.SEEDS)}
    trial = play.play if args.jobs == 1 else play.play_elsewhere
    searching = search.Search(trial, args.seed, starts, args.into, jobs=args.jobs, say=_say)
    outcome = searching.run(args.seconds, args.trials)
    _say(search.summary(outcome))
    return 1 if outcome.findings else 0


def _replay(args: argparse.Namespace) -> int:
    attack = plan.from_json(json.load(sys.stdin)) if args.file == "-" else plan.load(Path(args.file))
    measured = play.play(attack.short() if args.short else attack, *args.server_option)
    exceeded = bounds.broken(measured)
    if args.json:
        print(json.dumps(play.to_json(measured)))
        return 0
    for name, figure in play.to_json(measured).items():
        print(f"{name}: {figure}")
    for one in exceeded:
        print(f"EXCEEDED {one}")
    return 1 if exceeded else 0


def _say(line: str) -> None:
    print(line, flush=True)


def _attack_parser(one: argparse.ArgumentParser) -> None:
    commands = one.add_subparsers(dest="command", required=True, metavar="COMMAND")
    help = "search for attacks that cost the most; exits with 1 if a documented bound is exceeded"
    searching = commands.add_parser("search", help=help, description=help)
    searching.set_defaults(attack=_search)
    searching.add_argument("--seconds", type=float, default=600.0, help="default: 600")
    searching.add_argument("--seed", type=int, default=1, help="decides which attacks are tried; default: 1")
    searching.add_argument("--trials", type=int, help="stop after this many attacks")
    searching.add_argument("--jobs", type=int, default=1, help="trials at the same time; default: 1")
    searching.add_argument(
        "--into", type=Path, default=search.BEST, help="where the best attacks are kept; default: %(default)s"
    )
    help = "play one attack and print what it measured"
    replaying = commands.add_parser("replay", help=help, description=help)
    replaying.set_defaults(attack=_replay)
    replaying.add_argument("file", metavar="FILE", help="an attack as JSON; - is the standard input")
    replaying.add_argument("--short", action="store_true", help="in as little time as the tests")
    replaying.add_argument("--json", action="store_true", help="print the figures as JSON, and exit with 0")
    replaying.add_argument(
        "--server-option", action="append", default=[], metavar="OPTION", help="an option for the server"
    )


def main() -> int:
    """Run one scenario and print what it measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.fire", description=__doc__)
    scenarios = parser.add_subparsers(dest="scenario", required=True, metavar="SCENARIO")

    def scenario(name: str, run: Callable[[argparse.Namespace], Figures], help: str, **options: Any) -> None:
        one = scenarios.add_parser(name, help=help, description=help)
        one.set_defaults(run=run)
        for option, default in options.items():
            if default is False:
                one.add_argument(f"--{option}", action="store_true")
            else:
                one.add_argument(
                    f"--{option}", type=type(default), default=default, help=f"default: {default}"
                )

    scenario("garbage", _garbage, "garbage in every dialect, in virtual time", strings=10_000, seed=1)
    scenario(
        "idle",
        _idle,
        "idle connections on real sockets",
        clients=5_000,
        idle=8.0,
        unnamed=False,
        watch=0.0,
        spread=0.0,
    )
    scenario("idle-exact", _idle_exact, "idle time-outs in virtual time", clients=5_000, idle=60.0)
    scenario(
        "slow-readers",
        _slow_readers,
        "clients that stop reading",
        readers=99,
        stalled=1,
        queue=1_048_576,
        round=40,
    )
    scenario("shutdown", _shutdown, "SIGTERM and SIGINT in traffic", clients=100, lines=2_000)
    scenario("soak", _soak, "weeks of virtual time against a model", weeks=1.0, clients=200, seed=7)
    scenarios.choices["soak"].add_argument("--hours", type=float, help="instead of weeks")
    scenarios.choices["soak"].add_argument(
        "--over",
        choices=list(soak.CARRIERS),
        default="tcp",
        help="what carries the lines; websocket is for json, beside the other dialects over tcp",
    )
    scenario(
        "laws",
        _laws,
        "clients of every dialect talk and come and go in real time, judged by laws; --rate is messages per second",
        clients=300,
        minutes=2.5,
        rate=40.0,
        seed=1,
    )
    scenario(
        "disconnects",
        _disconnects,
        "connections torn down abruptly",
        connections=10_000,
        rounds=10,
        members=50,
        seed=3,
    )
    scenario("exhaustion", _exhaustion, "no free descriptor; a full accept queue", clients=100, newcomers=200)
    scenario(
        "churn",
        _churn,
        "clients that come and go beside listeners; with --starved 1 in the server's processor time",
        listeners=3_000,
        rounds=5,
        window=6.0,
        rate=200.0,
        starved=0.1,
        bar=20.0,
    )
    scenario(
        "handshakes",
        _handshakes,
        "clients that begin TLS at the same moment, beside two who chat; --bar is in ms",
        clients=1_000,
        bar=50.0,
    )
    scenario(
        "broken-handshakes",
        _broken_handshakes,
        "half and broken TLS handshakes, beside two who chat; --bar is in ms",
        connections=10_000,
        seed=1,
        bar=50.0,
    )
    scenario(
        "broken-upgrades",
        _broken_upgrades,
        "half, broken and hostile HTTP and WebSockets, beside two who chat; --bar is in ms",
        connections=10_000,
        seed=1,
        bar=50.0,
    )
    scenario(
        "half-open-upgrades",
        _half_open_upgrades,
        "clients that begin to open a WebSocket at the same moment and do not go on, beside two who chat; --bar is in ms",
        connections=10_000,
        seed=1,
        bar=50.0,
    )
    scenario("tls-memory", _tls_memory, "what a client takes of memory, with and without TLS", clients=2_000)
    scenario(
        "upgrades",
        _upgrades,
        "programs that replace each other while everyone chats; with --stored 1 in a data directory; --bar is in ms",
        clients=2_000,
        rate=500.0,
        times=10,
        stored=0,
        bar=500.0,
    )
    scenario(
        "upgrade-kills",
        _upgrade_kills,
        "kills or stops one of two programs while one replaces the other",
        rounds=100,
        seed=1,
    )
    scenario("logins", _logins, "logins in a row", logins=10_000)
    scenario("reconnects", _reconnects, "everyone breaks off and comes back", clients=2_000, times=10)
    scenario(
        "storm", _storm, "logins from many networks at once, beside two who chat", clients=2_000, rounds=3
    )
    scenario(
        "passwords",
        _passwords,
        "logins with passwords beside two who chat",
        logins=100,
        rounds=3,
        window=5.0,
        bar=20.0,
    )
    scenario(
        "replays",
        _replays,
        "clients that come back at once, beside two who chat",
        clients=1_000,
        messages=1_000,
        rounds=3,
        bar=50.0,
    )
    scenario(
        "rosters",
        _rosters,
        "clients that send WHO and read no answers, beside two who chat; --bar is in MB",
        people=9_000,
        askers=1_000,
        rounds=100,
        bar=1_000.0,
    )
    scenario(
        "costs",
        _costs,
        "a search for the line that costs most beside a plain message",
        seconds=60.0,
        seed=1,
        keep=False,
    )

    scenario(
        "crash",
        _crash,
        "kills a server with a data directory while people talk; --window is what a kill can lose, in seconds",
        rounds=100,
        seed=1,
        window=1.0,
    )

    scenario(
        "resume",
        _resume,
        "clients lose their connections while everyone talks, and resume; --clients of each dialect",
        clients=10,
        loops=3_000,
        seed=1,
        kept=1_000,
    )

    help = "attacks on a real server with default settings"
    _attack_parser(scenarios.add_parser("attack", help=help, description=help))

    args = parser.parse_args()
    if args.scenario == "attack":
        try:
            return int(args.attack(args))
        except (AssertionError, OSError, ValueError) as error:
            print(f"attack: {error}", file=sys.stderr)
            return 2
    began = time.monotonic()
    try:
        figures = args.run(args)
    except AssertionError as error:
        print(f"the server failed: {error}", file=sys.stderr)
        return 1
    for name, figure in figures.items():
        print(f"{name}: {figure}")
    print(f"took: {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
