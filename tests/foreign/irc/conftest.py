"""ngIRCd, which reads its port from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import Command
from tests.foreign import installed

SETTINGS = Path(__file__).parent / "ngircd.conf"


@pytest.fixture
def harness_target(tmp_path: Path) -> Command:
    ngircd = installed.program("ngircd", "ngircd")
    fill_in = 'sed "s/PORT/$1/" "$2" > "$3" && exec "$4" -n -f "$3"'
    return Command(
        ["sh", "-c", fill_in, "sh", "{port}", str(SETTINGS), str(tmp_path / "ngircd.conf"), ngircd]
    )
