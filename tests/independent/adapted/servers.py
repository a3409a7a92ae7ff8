"""The servers of other dialects: how each is started, and its adapter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness.compare.compare import ComparedServer
from harness.language.adapter import load_adapter
from harness.targets.choice import TargetChoice

HERE = Path(__file__).parent
BASELINE = HERE / "known.txt"
NAMES = sorted(path.stem for path in HERE.glob("*.adapter"))
# All but one need nothing that is installed, and start sooner without a look at it.
_RUN = {"lobby": sys.executable, ".py": f"{sys.executable} -S", ".js": "node", ".pl": "perl"}


def _source(name: str) -> Path:
    return next(path for path in HERE.glob(f"{name}.*") if path.suffix != ".adapter")


def tool(name: str) -> str:
    """The program that builds or runs it."""
    return "gcc" if _source(name).suffix == ".c" else _RUN[_source(name).suffix].split()[0]


def compared(name: str, folder: Path) -> ComparedServer:
    """The server and its adapter; if it has to be built, the folder is for that."""
    source = _source(name)
    if source.suffix == ".c":
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-o", str(folder / name), str(source)], check=True)
        command = str(folder / name)
    else:
        command = f"{_RUN.get(name) or _RUN[source.suffix]} {source}"
    return ComparedServer(
        name, TargetChoice(server=f"{command} {{port}}"), load_adapter(HERE / f"{name}.adapter")
    )
