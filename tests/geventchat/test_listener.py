"""Unix sockets: whose file is replaced, who can connect, and how peers are counted."""

from __future__ import annotations

import errno
import os
import socket as plain
import stat
from pathlib import Path

import gevent
import pytest
from gevent import socket

from geventchat import CannotListen, Config, Limits, Listen, Server
from tests.patience import HANG_S


def at(path: Path, **more: int) -> Config:
    return Config(listen=(Listen("line+unix", path=str(path), **more),))


def connect(path: Path) -> socket.socket:
    client = socket.socket(plain.AF_UNIX)
    client.settimeout(HANG_S)
    client.connect(str(path))
    return client


def conversation(client: socket.socket) -> bytes:
    with client:
        client.sendall(b"LOGIN alice\nQUIT\n")
        return client.makefile("rb").read()


def test_people_chat_over_a_unix_socket_and_its_file_goes_with_the_server(tmp_path: Path):
    path = tmp_path / "chat.sock"
    with Server(at(path)) as server:
        assert conversation(connect(path)) == b"OK\nGoodbye!\n"
        assert (server.addresses, server.listening) == ({}, [(server.config.listen[0], (str(path), 0))])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("options", "mode"), [({}, 0o600), ({"mode": 0o660}, 0o660)])
def test_the_file_has_its_mode_whatever_the_umask(tmp_path: Path, options: dict[str, int], mode: int):
    path = tmp_path / "chat.sock"
    before = os.umask(0o077)
    try:
        with Server(at(path, **options)):
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


def test_the_file_of_a_dead_server_is_replaced(tmp_path: Path):
    path = tmp_path / "chat.sock"
    dead = plain.socket(plain.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with Server(at(path)):
        assert conversation(connect(path)) == b"OK\nGoodbye!\n"


def test_the_file_of_a_server_that_runs_is_not(tmp_path: Path):
    path = tmp_path / "chat.sock"
    with Server(at(path)):
        with pytest.raises(CannotListen, match=f"cannot listen on {path}: Address already in use") as refused:
            Server(at(path)).start()
        assert refused.value.in_use
        assert conversation(connect(path)) == b"OK\nGoodbye!\n"
    assert [one.name for one in tmp_path.iterdir()] == []


def test_a_file_that_is_not_a_socket_is_left_alone(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(CannotListen, match="it exists and is not a socket"):
        Server(at(path)).start()
    assert path.read_text() == "mine"


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path):
    with pytest.raises(CannotListen, match="No such file or directory"):
        Server(at(tmp_path / "missing" / "chat.sock")).start()


def test_a_file_that_another_server_has_put_there_stays(tmp_path: Path):
    path = tmp_path / "chat.sock"
    first = Server(at(path))
    first.start()
    path.unlink()
    with Server(at(path)):
        first.stop()
        assert conversation(connect(path)) == b"OK\nGoodbye!\n"


def test_a_server_whose_file_cannot_be_removed_stops_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "chat.sock"
    with Server(at(path)) as server:
        client = connect(path)
        client.sendall(b"LOGIN alice\n")
        assert client.recv(10) == b"OK\n"

        def refuse(removed: str) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), removed)

        with monkeypatch.context() as read_only:
            read_only.setattr(os, "unlink", refuse)
            stopped = gevent.spawn(server.stop)
            with client, client.makefile("rb") as lines:
                assert lines.read() == b"INFO server-shutdown\n"
            assert stopped.get()
    with Server(at(path)):
        assert conversation(connect(path)) == b"OK\nGoodbye!\n"


def test_all_connections_of_a_user_count_as_those_of_one_address(tmp_path: Path):
    logged: list[dict[str, object]] = []
    path = tmp_path / "chat.sock"
    config = Config(listen=at(path).listen, limits=Limits(clients_per_address=1))
    with Server(config, log=lambda event, **fields: logged.append({"event": event.value, **fields})):
        with connect(path) as first, connect(path) as second:
            first.sendall(b"LOGIN alice\n")
            assert first.recv(10) == b"OK\n"
            assert second.recv(100) == b"ERR too-many-connections\n"
        gevent.sleep(0)
    found = [(fields["event"], fields["address"]) for fields in logged if "address" in fields]
    assert found[:2] == [("connected", f"uid:{os.getuid()}"), ("refused", f"uid:{os.getuid()}")]
