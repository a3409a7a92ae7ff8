"""The same chat server as in asyncio_protocols, on uvloop: libuv's loop and sockets instead of Python's.

A peer for the benchmark. It knows neither geventchat nor the benchmark.
"""

from __future__ import annotations

import sys

import uvloop
from asyncio_protocols import serve  # type: ignore[import-not-found]

if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), *sys.argv[2:]))
