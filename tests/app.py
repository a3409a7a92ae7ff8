"""geventchat as a target of the harness: a server built from a script's `server:` line.

`server: line json idle=60` asks for two endpoints and an option. Options are the settings of the command line by name, and
`idle` for short; the defaults are those of the program, with one listener on loopback for each endpoint.
"""

from __future__ import annotations

from dataclasses import replace

from geventchat import ConfigError, Listen, Server
from geventchat.services.passwords import Cost, Hasher, derive_here
from geventchat.settings import SETTINGS, RawSetting, resolve
from harness import ServerSpec, UnsupportedSpec

SHORT = {"idle": "idle-timeout"}
EPOCH = "5f3a0c9d2b7e6418"


def serve(spec: ServerSpec) -> Server:
    """The factory that the harness calls for each script."""
    settings = {}
    for option, text in spec.options.items():
        key = SHORT.get(option, option)
        if key not in SETTINGS or key in {"listen", "port", "host"}:
            raise UnsupportedSpec(f"unknown option {option!r}; known: {', '.join([*SHORT, *SETTINGS])}")
        settings[key] = RawSetting(text, f"server: {option}={text}")
    try:
        config = resolve(settings, {}, None).config
        listen = tuple(Listen(endpoint, "127.0.0.1", 0) for endpoint in spec.endpoints or ("line",))
    except ConfigError as error:
        raise UnsupportedSpec(str(error)) from error
    # Quick, and in this process, so that nothing happens outside it.
    hasher = Hasher(Cost(4, 1, 1), derive=derive_here)
    return Server(replace(config, listen=listen), clock=spec.clock, new_epoch=lambda: EPOCH, hasher=hasher)
