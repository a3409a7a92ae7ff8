"""The kernel's view of a connection: how much is in flight, and how much the other side has not read.

It proves that a split write was read in parts, and tells a fence that no byte is between two sockets. It uses the kernel's
sock_diag interface, which covers sockets of other processes and sockets already closed, if both ends are on this machine
and in this network namespace. Linux only; elsewhere nothing is known.
"""

from __future__ import annotations

import enum
import fcntl
import importlib
import os
import signal
import socket
import stat
import struct
import sys
import termios
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple


def original(module: str, name: str) -> Any:
    """A function or class of the standard library, also where gevent has replaced it: its replacements need the main
    hub, which does not run while a stage does."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back the signals whose handlers raise, such as Ctrl-C, until what is done inside is complete."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGALRM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


RealSocket: Any = original("socket", "socket")

_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR = 2
_ACCEPTS = 0x10000
"""A listening Unix socket: __SO_ACCEPTCON."""
_NLM_F_REQUEST = 1
_INET_DIAG_INFO = 2
_WITH_TCP_INFO = 1 << (_INET_DIAG_INFO - 1)
_ATTRIBUTES_AT = 88
_BYTES_RECEIVED_AT = 128
"""The offset of tcpi_bytes_received in the kernel's struct tcp_info, to which fields are only ever appended."""

_NOT_SENT_AT, _SENT_AT = 144, 200
"""The same for tcpi_notsent_bytes, and for tcpi_bytes_sent and tcpi_bytes_retrans behind it."""
_TCP_INFO_BYTES = 216

_UDIAG_SHOW_PEER = 4
_UNIX_DIAG_PEER = 2
_UNIX_ATTRIBUTES_AT = 32

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
_PEER_PROCESS: int | None = getattr(socket, "SO_PEERCRED", None)
_ANY_COOKIE = b"\xff" * 8
_KIND, _QUEUES, _INT = struct.Struct("=H"), struct.Struct("=IIII"), struct.Struct("=i")
_INODE = struct.Struct("=I")
_ROOM = bytes(4)

SocketAddress = tuple[Any, ...]
"""An address of the `socket` module for TCP; a tuple with the path for a Unix socket."""

UNIX = "unix:"


def is_unix(address: SocketAddress) -> bool:
    return len(address) == 1


def address_text(address: SocketAddress) -> str:
    """HOST:PORT or unix:/PATH."""
    return f"{UNIX}{address[0]}" if is_unix(address) else f"{address[0]}:{address[1]}"


def parse_unix(text: str) -> SocketAddress:
    """The address of unix:/PATH; ValueError where this is none."""
    path = text.removeprefix(UNIX)
    if not text.startswith(UNIX) or not path.startswith("/"):
        raise ValueError(f"{text!r} is not a Unix socket; expected unix:/PATH")
    if len(path.encode()) > UNIX_PATH_BYTES:
        raise ValueError(f"{path!r} is longer than the {UNIX_PATH_BYTES} bytes of a Unix socket's path")
    return (path,)


UNIX_PATH_BYTES = 107


class TcpState(enum.IntEnum):
    """As in the kernel's tcp_states.h."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12
    BOUND_INACTIVE = 13


_STATES = {int(state): state for state in TcpState}


class PeerState(NamedTuple):
    """The server's side of one connection. An end of stream counts as one byte in both counts."""

    state: TcpState
    unread: int = 0
    unacknowledged: int = 0
    owned: bool = False
    """Whether a process still holds the socket."""


GONE = PeerState(TcpState.CLOSE)


class SocketDiagnostics:
    """Queries the kernel about connections; None where this is not supported."""

    def __init__(self) -> None:
        self._netlink: Any = None
        try:
            self._netlink = RealSocket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG)
            self._netlink.settimeout(1.0)
        except (AttributeError, OSError):
            self._netlink = None

    def listens(self, address: SocketAddress) -> bool:
        """Whether a process on this machine listens there."""
        if is_unix(address):
            return _listens_at_path(address[0])
        answer = self.query(_question(address, ("::" if ":" in address[0] else "0.0.0.0", 0), 0))
        return answer is not None and _peer_state(answer).state is TcpState.LISTEN

    def query(self, question: bytes) -> bytes | None:
        if self._netlink is None:
            return None
        try:
            self._netlink.send(question)
            return bytes(self._netlink.recv(8192))
        except OSError:
            self.close()
            return None

    def close(self) -> None:
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None


def _listens_at_path(path: str) -> bool:
    """Whether a process listens on this Unix socket, from the kernel's list of them."""
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields = line.rstrip("\n").split(maxsplit=7)
                if len(fields) == 8 and fields[7] == path and int(fields[3], 16) & _ACCEPTS:
                    return True
    except FileNotFoundError:
        return False
    return False


class UnixProbe:
    """Observes the server's side of one Unix socket: how much of what was written it has not read, and after this side has
    closed, whether a process still holds it. Nothing is ever in flight on one."""

    def __init__(self, kernel: SocketDiagnostics, sock: Any) -> None:
        self._kernel = kernel
        self._socket = sock
        self._peer_inode = 0

    def before_close(self) -> None:
        """Note which socket the other side is: the kernel tells that only while both exist."""
        answer = self._kernel.query(_unix_question(os.fstat(self._socket.fileno()).st_ino, _UDIAG_SHOW_PEER))
        if answer is not None and not _is_error(answer):
            at = _attribute(answer, _UNIX_ATTRIBUTES_AT, _UNIX_DIAG_PEER, 4)
            self._peer_inode = _INODE.unpack_from(answer, at)[0] if at else 0

    def peer_state(self) -> PeerState | None:
        # A state in which no fence waits for an end of stream to arrive: it is there at once.
        if self._socket.fileno() >= 0:
            return PeerState(TcpState.CLOSE_WAIT, unread=unacknowledged(self._socket.fileno()))
        answer = self._kernel.query(_unix_question(self._peer_inode, 0)) if self._peer_inode else None
        if answer is None or _is_error(answer):
            self._peer_inode = 0
            return GONE
        return PeerState(TcpState.CLOSE_WAIT, owned=True)

    def received(self) -> int:
        return sys.maxsize


class PeerProbe:
    """Observes the server's side of one connection, even after either side has closed it."""

    def __init__(self, kernel: SocketDiagnostics, near: SocketAddress, far: SocketAddress) -> None:
        self._kernel = kernel
        self._question = _question(far, near, 0)
        self._long_question = _question(far, near, _WITH_TCP_INFO)

    def peer_state(self) -> PeerState | None:
        """GONE when the connection no longer exists, None when it is unknown."""
        answer = self._kernel.query(self._question)
        if answer is None:
            return None
        found = _peer_state(answer)
        # Without such a connection the kernel answers with the listening socket that would accept it.
        return GONE if found.state is TcpState.LISTEN else found

    def received(self) -> int:
        """Total bytes that have arrived at the server's kernel, acknowledged or not."""
        answer = self._kernel.query(self._long_question) or b""
        at = _attribute(answer, _ATTRIBUTES_AT, _INET_DIAG_INFO, _BYTES_RECEIVED_AT + 8)
        return int(struct.unpack_from("=Q", answer, at + _BYTES_RECEIVED_AT)[0]) if at else 0


def _is_error(answer: bytes) -> bool:
    return bool(_KIND.unpack_from(answer, 4)[0] == _NLMSG_ERROR)


def _attribute(answer: bytes, start: int, kind: int, size: int) -> int:
    """Where the content of this attribute of at least this size begins; 0 without one."""
    at = start
    while at + 4 <= len(answer):
        found_size, found = struct.unpack_from("=HH", answer, at)
        if found == kind and found_size >= 4 + size:
            return at + 4
        at += max(4, found_size + 3 & ~3)
    return 0


def _unix_question(inode: int, shown: int) -> bytes:
    request = struct.pack("=BBHIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, shown) + _ANY_COOKIE
    return _asked(request)


def _question(here: SocketAddress, there: SocketAddress, extensions: int) -> bytes:
    family = socket.AF_INET6 if ":" in here[0] else socket.AF_INET
    request = (
        struct.pack("=BBBBI", family, socket.IPPROTO_TCP, extensions, 0, 0xFFFFFFFF)
        + struct.pack("!HH", here[1], there[1])
        + socket.inet_pton(family, here[0].partition("%")[0]).ljust(16, b"\0")
        + socket.inet_pton(family, there[0].partition("%")[0]).ljust(16, b"\0")
        + struct.pack("=I", 0)
        + _ANY_COOKIE
    )
    return _asked(request)


def _asked(request: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + request


def _peer_state(answer: bytes) -> PeerState:
    if _is_error(answer):
        return GONE
    unread, unacknowledged, _, inode = _QUEUES.unpack_from(answer, 72)
    return PeerState(_STATES[answer[17]], unread, unacknowledged, inode != 0)


class Ends(NamedTuple):
    """Both ends of a socket: the port, or the path of a Unix socket, which can be empty."""

    listens: bool
    near: object
    far: object
    """None where it is being connected, empty where it is not connected."""
    here: bool
    """Whether the far end is at the same address as this one."""
    is_open: bool
    """Whether something can come from the far end."""
    of_another: bool | None = None
    """Whether another process has the far end; None where the kernel does not say so, as of TCP."""

    @property
    def is_unconnected(self) -> bool:
        """Whether it neither listens nor has, or waits for, a far end: both can still come."""
        return not self.listens and self.far == "" and self.of_another is None

    @property
    def both(self) -> tuple[object, object, bool]:
        return self.near, self.far, self.here

    @property
    def both_from_there(self) -> tuple[object, object, bool]:
        """What the far end has as `both`."""
        return self.far, self.near, self.here


def ends_of(fileno: int) -> Ends | None:
    """The ends of this socket; None where it is none, or is not for connections, as one for datagrams."""
    try:
        found = RealSocket(fileno=fileno)
    except OSError:
        return None
    try:
        if found.family not in _KNOWN_FAMILIES or found.type not in _CONNECTED:
            return None
        listens = bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        near, far = found.getsockname(), None
        with suppress(OSError):
            far = found.getpeername()
        if not isinstance(near, tuple):
            return Ends(listens, near, far or "", True, far is not None, _is_of_another(found, far))
        state = _tcp_state(found)
        if far is not None:
            return Ends(listens, near[1], far[1], far[0] == near[0], state not in _NOTHING_COMES)
        connecting = not listens and (bool(near[1]) if state is None else state == TcpState.SYN_SENT)
        return Ends(listens, near[1], None if connecting else "", False, connecting)
    finally:
        found.detach()


_KNOWN_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_CONNECTED = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
_NOTHING_COMES = (
    TcpState.CLOSE_WAIT,
    TcpState.LAST_ACK,
    TcpState.CLOSING,
    TcpState.TIME_WAIT,
    TcpState.CLOSE,
)


def _tcp_state(sock: Any) -> int | None:
    """The state of this TCP socket; None where the system does not tell, or the protocol is another one, such as SCTP."""
    if _TCP_INFO is None:
        return None
    try:
        return int(sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0])
    except OSError:
        return None


def written_and_arrived(fileno: int) -> tuple[int, int]:
    """How many bytes were ever written to this TCP socket, and how many have arrived at it, where an end of stream counts as
    one; zero where the system does not tell."""
    sock = RealSocket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno)
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _TCP_INFO_BYTES)
    except (OSError, TypeError):
        return 0, 0
    finally:
        sock.detach()
    if len(info) < _TCP_INFO_BYTES:
        return 0, 0
    sent, sent_again = struct.unpack_from("=QQ", info, _SENT_AT)
    (not_sent,) = struct.unpack_from("=I", info, _NOT_SENT_AT)
    (arrived,) = struct.unpack_from("=Q", info, _BYTES_RECEIVED_AT)
    return sent - sent_again + not_sent, arrived


def _is_of_another(sock: Any, far: object) -> bool | None:
    """Whether another process has connected this Unix socket, or listened for it; None where none has."""
    if far is None:
        return None
    if _PEER_PROCESS is None:
        return bool(far)
    return bool(_INT.unpack(sock.getsockopt(socket.SOL_SOCKET, _PEER_PROCESS, 4))[0] != os.getpid())


def is_held_here(ends: Ends) -> bool:
    """Whether this process has the other end of this connection."""
    try:
        descriptors = [int(one) for one in os.listdir("/proc/self/fd")]
    except OSError:
        return False
    return any(
        (other := ends_of(one)) is not None and other.both == ends.both_from_there for one in descriptors
    )


def source_of(fileno: int) -> str:
    """From where something can come to this descriptor, which is no connection, in words; empty where it is this process, or
    the descriptor is a socket for datagrams."""
    link = f"/proc/self/fd/{fileno}"
    try:
        mode, name = os.fstat(fileno).st_mode, os.readlink(link)
        if stat.S_ISSOCK(mode):
            return _source_of_socket(fileno)
        others = (one for one in os.listdir("/proc/self/fd") if one != str(fileno))
    except OSError:
        return ""
    if stat.S_ISFIFO(mode):
        has_both_ends = any(_link(f"/proc/self/fd/{one}") == name for one in others)
        return "" if has_both_ends else "a pipe to another process"
    kind = name.removeprefix("anon_inode:").strip("[]")
    if kind in _SIGNALLED_HERE:
        return ""
    return f"the device {kind}" if kind.startswith("/") else f"a descriptor of the kind {kind}"


_SIGNALLED_HERE = ("eventfd", "eventpoll")


def _source_of_socket(fileno: int) -> str:
    found = RealSocket(fileno=fileno)
    try:
        family = found.family
        return (
            "" if family in _KNOWN_FAMILIES else f"a socket of the family {getattr(family, 'name', family)}"
        )
    finally:
        found.detach()


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""  # it has just been closed


def unacknowledged(fileno: int) -> int:
    """Bytes written to this socket that the other side's kernel has not acknowledged."""
    return _count(fileno, termios.TIOCOUTQ)


def unread(fileno: int) -> int:
    """How many bytes wait to be read from this socket."""
    return _count(fileno, termios.FIONREAD)


def are_drained(sockets: Collection[int]) -> bool:
    """Whether everything that was written to these sockets is acknowledged, and everything that has arrived is read."""
    try:
        # In this order: what is acknowledged has arrived.
        return not (any(map(unacknowledged, sockets)) or any(map(unread, sockets)))
    except OSError:
        return False  # one of them is none any more


def _count(fileno: int, request: int) -> int:
    return int(_INT.unpack(fcntl.ioctl(fileno, request, _ROOM))[0])
