"""Bytes to commands and events to bytes: one file for each dialect. Knows no sockets and no gevent.

This is the registry: a new dialect is one file, and one entry here.
"""

from geventchat.dialects import json, line, slash
from geventchat.dialects.dialect import Dialect

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (line.DIALECT, json.DIALECT, slash.DIALECT)
}
