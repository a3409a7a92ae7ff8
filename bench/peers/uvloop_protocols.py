"""The same chat server as in asyncio_protocols, on uvloop: libuv's loop and sockets in place of Python's.

A peer for the benchmark. It must not know geventchat or the benchmark.
"""

from __future__ import annotations

import sys

import uvloop
from asyncio_protocols import serve  # type: ignore[import-not-found]

if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
