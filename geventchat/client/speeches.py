"""The dialects that there are, and the one that a port suggests.

The registry: a new dialect is a file of its own and a line here.
"""

from __future__ import annotations

from geventchat.client.json_speech import JsonSpeech
from geventchat.client.line_speech import LineSpeech
from geventchat.client.slash_speech import SlashSpeech
from geventchat.client.speech import DEFAULT_PORTS, Dialect, Speech


def speak(dialect: Dialect) -> Speech:
    """A speech for one new connection."""
    match dialect:
        case Dialect.LINE:
            return LineSpeech()
        case Dialect.JSON:
            return JsonSpeech()
        case Dialect.SLASH:
            return SlashSpeech()


def dialect_of_port(port: int) -> Dialect:
    """The dialect whose own port this is; `line` for any other."""
    for dialect, its_port in DEFAULT_PORTS.items():
        if its_port == port:
            return dialect
    return Dialect.LINE
