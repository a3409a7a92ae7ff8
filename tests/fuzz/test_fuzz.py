"""The corpus passes everywhere; an installed fuzzer also runs for a moment."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import CORPUS, NAMES
from tests.fuzz.targets import TARGETS
from tests.patience import HANG_S

ROOT = Path(__file__).resolve().parents[2]
INPUTS = sorted(CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", INPUTS, ids=[f"{path.parent.name}/{path.name}" for path in INPUTS])
def test_corpus_input_passes(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_a_corpus() -> None:
    assert tuple(TARGETS) == NAMES
    assert {path.parent.name for path in INPUTS} == set(NAMES)


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed; it has no wheel for every Python (pip install 'geventchat[fuzz]')",
)
@pytest.mark.timeout(600)
def test_fuzzer_finds_nothing_in_five_hundred_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", *NAMES, "--runs=500"]
    run = subprocess.run(
        [*command, f"--keep={tmp_path / 'kept'}"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        # It uses a processor for all of this time, of which a busy machine leaves it a tenth.
        timeout=6 * HANG_S,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    # All of them have run, whatever the speed of the machine.
    assert re.findall(r"^target (\w+)$", run.stderr, re.MULTILINE) == list(NAMES)
    assert run.stderr.count("stat::number_of_executed_units: 500\n") == len(NAMES), run.stderr[-2000:]
