"""A chat server that anyone can reach with nc. Only the public names."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geventchat.clock import Clock, SystemClock
    from geventchat.embedding import (
        Event,
        Joined,
        Left,
        LoggedIn,
        LoggedOut,
        Message,
        MessageDeleted,
        RoomInfo,
        Subscription,
        TopicChanged,
    )
    from geventchat.net.listener import CannotListen
    from geventchat.server import Server
    from geventchat.settings import Config, ConfigError, IdleNotice, Limits, Listen

__all__ = [
    "CannotListen",
    "Clock",
    "Config",
    "ConfigError",
    "Event",
    "IdleNotice",
    "Joined",
    "Left",
    "Limits",
    "Listen",
    "LoggedIn",
    "LoggedOut",
    "Message",
    "MessageDeleted",
    "RoomInfo",
    "Server",
    "Subscription",
    "SystemClock",
    "TopicChanged",
]

# Imported when they are used. Most need gevent, which the client, the health check and `--help` do without; and the client
# starts in half the time without the settings of the server.
_MODULES = {
    **dict.fromkeys(("Clock", "SystemClock"), "geventchat.clock"),
    **dict.fromkeys(("Config", "ConfigError", "IdleNotice", "Limits", "Listen"), "geventchat.settings"),
    "CannotListen": "geventchat.net.listener",
    "Server": "geventchat.server",
    **dict.fromkeys(
        (
            "Event",
            "Joined",
            "Left",
            "LoggedIn",
            "LoggedOut",
            "Message",
            "MessageDeleted",
            "RoomInfo",
            "Subscription",
            "TopicChanged",
        ),
        "geventchat.embedding",
    ),
}

if not TYPE_CHECKING:
    # Hidden from type checkers, for which any name would exist.
    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)
