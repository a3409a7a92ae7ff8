"""Compile C programs into a cache, once for each content of their sources."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror=format")


class CompilationFailed(Exception):
    """No C compiler is installed, or it rejects the program."""


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geventchat-bench"


def compiler() -> str | None:
    return os.environ.get("CC") or shutil.which("cc")


def compiled(name: str, sources: Sequence[Path], *more: str) -> Path:
    """The program made of these sources (headers among them), compiled unless the cache already has it.

    More flags, such as those that name libraries, stand behind the sources.
    """
    flags = repr(FLAGS) + repr(more or "")
    content = hashlib.sha256(b"".join(source.read_bytes() for source in sources) + flags.encode())
    program = cache_folder() / f"{name}-{content.hexdigest()[:16]}"
    if program.exists():
        return program
    command = compiler()
    if command is None:
        raise CompilationFailed(f"{name} is a C program: install a C compiler, or set CC to the one to use")
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        fresh = Path(folder) / name
        c_files = [str(source) for source in sources if source.suffix == ".c"]
        done = subprocess.run(
            [command, *FLAGS, "-o", str(fresh), *c_files, *more], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise CompilationFailed(f"{name} does not compile:\n{done.stderr}")
        fresh.replace(program)  # atomic, because other processes can compile the same program
    return program
