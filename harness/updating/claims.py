"""One writer per file: among the workers of one test run, the first that rewrites a transcript is the only one."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.updating.rewriting import Refused


class Claims:
    """A folder that all workers of one run share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def of(self, path: Path, who: str) -> Iterator[Callable[[], None]]:
        """Nobody else plays this file for an update meanwhile. What is yielded is called before the file is written;
        it raises Refused when someone else has written it in this run, at a target that may differ."""
        name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
        with (self._folder / name).open("a+", encoding="utf-8") as claim:
            fcntl.flock(claim, fcntl.LOCK_EX)

            def write() -> None:
                claim.seek(0)
                writer = claim.read()
                if writer and writer != who:
                    raise Refused(f"{writer} has rewritten this file already, in this very run")
                if not writer:
                    claim.write(who)
                    claim.flush()

            yield write
