"""geventchat as a target of the harness: a server built from a script's `server:` line.

`server: line json idle=60` asks for two endpoints and an option. Options are the settings of the command line by name, and
`idle` for short; the defaults are those of the program, with one listener on loopback for each endpoint.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cache
from importlib.util import find_spec

from geventchat import Config, ConfigError, Listen, Server
from geventchat.services.passwords import Cost, Hasher, derive_here
from geventchat.settings import SETTINGS, RawSetting, resolve
from harness import ServerSpec, UnsupportedSpec
from tests.certificates import made_certificate

SHORT = {"idle": "idle-timeout"}
EPOCH = "5f3a0c9d2b7e6418"


def serve(spec: ServerSpec) -> Server:
    """The factory that the harness calls for each script."""
    return _serve(spec, Server, "")


@cache
def _config(endpoints: tuple[str, ...], options: tuple[tuple[str, str], ...], carrier: str) -> Config:
    """The settings of all servers with these endpoints and options."""
    settings = {}
    for option, text in options:
        key = SHORT.get(option, option)
        if key not in SETTINGS or key in {"listen", "port", "host"}:
            raise UnsupportedSpec(f"unknown option {option!r}; known: {', '.join([*SHORT, *SETTINGS])}")
        settings[key] = RawSetting(text, f"server: {option}={text}")
    if "web" in endpoints and find_spec("websockets") is None:
        raise UnsupportedSpec("web needs the package websockets (pip install -e '.[test]')")
    try:
        config = resolve(settings, {}, None).config
        if carrier:
            certificate = made_certificate()
            config = replace(config, tls_cert=str(certificate.cert), tls_key=str(certificate.key))
        listen = tuple(Listen(endpoint + carrier, "127.0.0.1", 0) for endpoint in endpoints or ("line",))
        return replace(config, listen=listen)
    except ConfigError as error:
        raise UnsupportedSpec(str(error)) from error


def _serve(spec: ServerSpec, make: type[Server], carrier: str) -> Server:
    config = _config(spec.endpoints, tuple(spec.options.items()), carrier)
    # A server that reads its settings again changes the limits that all its parts hold.
    config = replace(config, limits=copy(config.limits))
    # Quick, and in this process, so that nothing happens outside it.
    hasher = Hasher(Cost(4, 1, 1), derive=derive_here)
    return make(config, clock=spec.clock, new_epoch=lambda: EPOCH, hasher=hasher)


class _TlsServer(Server):
    """Its endpoints have the names that scripts know them by."""

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        return {scheme.removesuffix("+tls"): address for scheme, address in super().addresses.items()}


def serve_tls(spec: ServerSpec) -> Server:
    """The same over TLS, with `--transport tls --tls-insecure`, or with the certificate of `tests.certificates`."""
    return _serve(spec, _TlsServer, "+tls")


class _WebServer(Server):
    """Its endpoint has the name that scripts know it by."""

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        return {scheme.replace("web", "json"): address for scheme, address in super().addresses.items()}


def serve_web(spec: ServerSpec) -> Server:
    """The dialect `json` over WebSockets, for scripts with `--transport "websocket /ws"`."""
    if spec.endpoints != ("json",):
        raise UnsupportedSpec("only json is spoken over WebSockets")
    return _serve(replace(spec, endpoints=("web",)), _WebServer, "")
