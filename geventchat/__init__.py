"""A chat server that anyone can reach with nc. The public names, nothing else."""

from geventchat.clock import Clock, SystemClock
from geventchat.config import Config, ConfigError, IdleNotice, Limits, Listen
from geventchat.net.listener import CannotListen
from geventchat.server import Server

__all__ = [
    "CannotListen",
    "Clock",
    "Config",
    "ConfigError",
    "IdleNotice",
    "Limits",
    "Listen",
    "Server",
    "SystemClock",
]
