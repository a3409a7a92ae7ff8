"""The script that extracts the test command for CI from README.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "readme_command.py"

PAGE = """\
# A page

```sh
not this
```

<!-- run the tests -->
All of them:

```python
nor this
```

```sh
first line
second line
```

```sh
nor this one
```

<!-- nothing to run -->
# Another heading

```sh
under another heading
```

<!-- no end -->
```sh
cut off
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return str(path)


def test_it_prints_the_first_sh_block_after_the_marker(page: str) -> None:
    done = run(page, "run the tests")
    assert (done.returncode, done.stdout, done.stderr) == (0, "first line\nsecond line\n", "")


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("no such marker", "no line <!-- no such marker -->"),
        ("nothing to run", "no complete sh code block after <!-- nothing to run -->"),
        ("no end", "no complete sh code block after <!-- no end -->"),
    ],
)
def test_a_page_without_the_command_is_an_error(page: str, marker: str, message: str) -> None:
    done = run(page, marker)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{page}: {message}\n"


def test_a_missing_file_and_wrong_usage_are_errors(tmp_path: Path) -> None:
    assert "No such file" in run(str(tmp_path / "none.md"), "x").stderr
    assert run("one argument").returncode == 2


def test_the_readme_has_one_test_command_that_runs_pytest() -> None:
    done = run(str(ROOT / "README.md"), "the test suite")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert "-m pytest" in done.stdout
