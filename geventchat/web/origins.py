"""Which web pages may use the chat in a browser. Pure.

A browser sends the origin of a page with every request that changes something and with every WebSocket. Two kinds of foreign
pages have to be kept out. One has another origin than the host that it asks. The other has the same: its name was made to
point to this server after the page was loaded (DNS rebinding), so the host has to be a name of this server, too.

A program that is not a browser sends no origin, and could send any.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

_ORIGIN = re.compile(r"(https?)://([^/?#@\s]+)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_LISTED = re.compile(r"(?:(https?)://)?(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:[0-9]{1,5})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ListedOrigin:
    """An origin, or a name: that is every origin with this name."""

    scheme: str
    # With the port, if there is one.
    host: str

    def includes(self, scheme: str, host: str) -> bool:
        """True for an origin that is meant; the host is without the default port of the scheme."""
        if not self.scheme:
            return self.host in (host, name_of(host))
        return (self.scheme, self.host) == (scheme, host)


def is_origin(text: str) -> bool:
    """True for what `read_origin` can read."""
    return _LISTED.fullmatch(text) is not None


def read_origin(text: str) -> ListedOrigin:
    """Read `https://chat.example`, `http://chat.example:8080` or `chat.example`; raise ValueError if it is none of these."""
    matched = _LISTED.fullmatch(text)
    if matched is None:
        raise ValueError(f"{text!r} is not an origin")
    scheme, name, port = (matched[1] or "").lower(), matched[2].lower(), matched[3] or ""
    return ListedOrigin(scheme, without_default_port(scheme, name + port))


def name_of(host: str) -> str:
    """The host without its port."""
    return host[: host.index("]") + 1] if host.startswith("[") else host.partition(":")[0]


def without_default_port(scheme: str, host: str) -> str:
    """The host without the port that the scheme implies."""
    port = _DEFAULT_PORTS.get(scheme)
    return host.removesuffix(port) if port is not None else host


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


class Origins:
    """Decides which origins are those of this server."""

    def __init__(self, bound: Collection[str], listed: Iterable[ListedOrigin]) -> None:
        """`bound` are the hosts that it was told to listen on, `listed` the origins that the operator allows."""
        self._bound = frozenset(host.lower() for host in bound)
        self.listed = tuple(listed)

    def refuse(self, origin: str | None, host: str, local_host: Callable[[], str]) -> str | None:
        """Why a request with this origin and this host is refused; None if it is not. `local_host` is where it arrived."""
        if origin is None:
            return None
        matched = _ORIGIN.fullmatch(origin)
        if matched is None:
            return f"foreign origin {origin[:100]}"
        scheme = matched[1].lower()
        own = without_default_port(scheme, host)
        if without_default_port(scheme, matched[2].lower()) != own:
            return f"foreign origin {origin[:100]}"
        return self._refuse_host(scheme, own, local_host)

    def refuse_host(self, host: str, local_host: Callable[[], str]) -> str | None:
        """Why no page at this host could use the chat; None if one could."""
        refusals = [
            self._refuse_host(scheme, without_default_port(scheme, host), local_host)
            for scheme in _DEFAULT_PORTS
        ]
        return refusals[0] if None not in refusals else None

    def _refuse_host(self, scheme: str, host: str, local_host: Callable[[], str]) -> str | None:
        name = name_of(host)
        if _is_loopback(name) or name.strip("[]") in self._bound:
            return None
        if any(listed.includes(scheme, host) for listed in self.listed):
            return None
        address = _address(name)
        if address is not None and address == _address(local_host().partition("%")[0]):
            return None
        return (
            f"this server does not know itself as {name[:100]}; its operator can allow that with --web-origin"
        )
