"""What was read of each room, kept between sessions."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from geventchat.client.conversation import ReadMarks
from geventchat.client.marks import MAX_PLACES, MarksFile, marks_path, state_directory


def test_the_file_is_in_the_state_directory() -> None:
    home = Path("/home/alice")
    assert marks_path(state_directory({}, home)) == home / ".local/state/geventchat/read.json"
    assert state_directory({"XDG_STATE_HOME": "/var/alice"}, home) == Path("/var/alice")
    assert state_directory({"XDG_STATE_HOME": "not/absolute"}, home) == home / ".local/state"


def test_what_was_read_is_there_in_the_next_session(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "read.json"
    marks = ReadMarks("e1", {"lobby": 17, "dev": 0})
    MarksFile(path).write("h:1 alice", marks)
    MarksFile(path).write("h:1 bob", ReadMarks("e1", {"lobby": 3}))
    assert MarksFile(path).read("h:1 alice") == marks
    assert MarksFile(path).read("h:2 alice") == ReadMarks()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["read.json"]


def test_nothing_read_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "read.json"
    MarksFile(path).write("h:1 alice", ReadMarks("", {"lobby": 1}))
    MarksFile(path).write("h:1 alice", ReadMarks("e1", {}))
    assert not path.exists()


def test_the_oldest_places_are_forgotten(tmp_path: Path) -> None:
    file = MarksFile(tmp_path / "read.json")
    for number in range(MAX_PLACES + 1):
        file.write(f"h:{number} alice", ReadMarks("e1", {"lobby": number}))
    assert file.read("h:0 alice") == ReadMarks()
    assert file.read(f"h:{MAX_PLACES} alice") == ReadMarks("e1", {"lobby": MAX_PLACES})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"p": 7}',
        b'{"p": {"epoch": 1, "rooms": {}}}',
        b'{"p": {"epoch": "e", "rooms": []}}',
    ],
)
def test_a_damaged_file_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "read.json"
    path.write_bytes(content)
    assert MarksFile(path).read("p") == ReadMarks()
    MarksFile(path).write("p", ReadMarks("e", {"lobby": 1}))
    assert MarksFile(path).read("p") == ReadMarks("e", {"lobby": 1})


def test_ids_that_cannot_be_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "read.json"
    path.write_text('{"p": {"epoch": "e", "rooms": {"a": 1, "b": "2", "c": -1, "d": true}}}')
    assert MarksFile(path).read("p") == ReadMarks("e", {"a": 1})
