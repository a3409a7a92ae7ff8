"""The history file: its path, its lines, its permissions and its size."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from geventchat.client.history import GROWN_LINES, KEPT_LINES, HistoryFile, history_path


def test_the_history_is_kept_in_the_state_directory() -> None:
    assert history_path(Path("/var/alice")) == Path("/var/alice/geventchat/history")


def test_lines_are_there_in_the_next_session_without_repetitions(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "history"
    first = HistoryFile(path)
    assert first.lines() == []
    for line in ["hello", "hello", "  ", "/dm bob psst", "grüße 🎉"]:
        first.append(line)
    second = HistoryFile(path)
    assert second.lines() == ["hello", "/dm bob psst", "grüße 🎉"]
    second.append("grüße 🎉")
    assert HistoryFile(path).lines() == ["hello", "/dm bob psst", "grüße 🎉"]


def test_no_line_with_a_password_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "history"
    history = HistoryFile(path)
    for line in (
        "/login alice secret",
        " /LOGIN alice secret",
        "/register secret",
        "/password secret secret2",
        "/token secret",
    ):
        history.append(line)
    history.append("/loginfo secrets")
    assert path.read_text() == "/loginfo secrets\n"


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "history"
    HistoryFile(path).append("secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_grown_file_is_cut_back_to_the_latest_lines(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("".join(f"line {number}\n" for number in range(GROWN_LINES)))
    lines = HistoryFile(path).lines()
    assert lines == [f"line {number}" for number in range(GROWN_LINES - KEPT_LINES, GROWN_LINES)]
    assert len(path.read_text().splitlines()) == KEPT_LINES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["history"]


def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        HistoryFile(tmp_path / "file" / "history")
