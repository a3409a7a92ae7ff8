"""python -m tests.fuzz TARGET ... [--seconds N] [--runs N] [--seed N]: fuzz targets with atheris, each from its corpus.

Inputs that reach new code are kept in --keep DIR, in a folder for each target (nowhere by default: the corpus in the tree is
changed by hand only).
An input that fails is written to the current directory and printed. The exit code is 0 when none did.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"
NAMES = ("framing", "sniffing", "proxy", "http", "websocket", "line", "json", "slash", "json2")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", choices=NAMES, nargs="+", metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=60, help="how long to run each (default: 60)")
    parser.add_argument("--runs", type=int, default=-1, help="most inputs to try of each (default: no limit)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the fuzzer (default: 1)")
    parser.add_argument("--keep", type=Path, help="where to keep inputs that reach new code")
    args = parser.parse_args()
    try:
        import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        print("atheris is not installed: pip install 'geventchat[fuzz]'", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["geventchat", "json", "websockets"]):
        from tests.fuzz.targets import TARGETS
    with tempfile.TemporaryDirectory() as temporary:
        for target in args.targets:
            keep = (args.keep or Path(temporary)) / target
            keep.mkdir(parents=True, exist_ok=True)
            options = [
                f"-max_total_time={args.seconds}",
                f"-runs={args.runs}",
                f"-seed={args.seed}",
                "-max_len=6000",
                "-timeout=10",
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
            ]
            print(f"target {target}", file=sys.stderr, flush=True)
            # The fuzzer ends its process, and to instrument the code again would take three seconds.
            process = os.fork()
            if not process:
                atheris.Setup([sys.argv[0], *options, str(keep), str(CORPUS / target)], TARGETS[target])
                atheris.Fuzz()
            if code := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
                return abs(code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
