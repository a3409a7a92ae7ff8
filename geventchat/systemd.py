"""The interface to systemd: notifications, the watchdog, sockets. Imports no gevent.

See sd_notify(3) and sd_listen_fds(3). Without systemd every function here does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

from geventchat.settings import SCHEME, ConfigError

_FIRST_DESCRIPTOR = 3


class Notifier:
    """Tells systemd how the server is. Never waits and never fails."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")

    def notify(self, *assignments: str) -> None:
        """Send assignments, such as `READY=1`."""
        if not self._address.startswith(("/", "@")):
            return
        # A leading @ stands for a zero byte: an address that is not in the file system.
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        # If systemd does not listen, nothing has to be sent.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(assignments).encode(), address)


def watchdog_s(environment: Mapping[str, str]) -> float | None:
    """How long the server can be silent before systemd kills it; None if it can be silent forever."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6 or None


def inherited_sockets(environment: Mapping[str, str]) -> list[tuple[str, socket.socket]]:
    """The listening sockets that systemd has opened, each with the scheme that its FileDescriptorName= is.

    Raises ConfigError for one with another name or of another kind.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environment.get("LISTEN_FDS", "")
    number = int(count) if count.isdecimal() else 0
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for at in range(number):
        name = names[at] if at < len(names) else ""
        if not SCHEME.accepts(name):
            raise ConfigError(
                "listen", f"listen: FileDescriptorName={name} of a socket of systemd is not {SCHEME.wanted}"
            )
        os.set_inheritable(_FIRST_DESCRIPTOR + at, False)
        sock = socket.socket(fileno=_FIRST_DESCRIPTOR + at)
        if (
            (sock.family == socket.AF_UNIX) != name.endswith("+unix")
            or sock.type != socket.SOCK_STREAM
            or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        ):
            sock.close()
            raise ConfigError(
                "listen", f"listen: the socket of systemd for {name} does not listen, or is of another kind"
            )
        found.append((name, sock))
    return found
