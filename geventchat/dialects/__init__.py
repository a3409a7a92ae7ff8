"""Bytes to commands and events to bytes: one file for each way of speaking. Knows no sockets and no gevent.

This is the registry, the only other place that a new dialect touches.
"""

from geventchat.dialects import json, line, slash
from geventchat.dialects.dialect import Dialect

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (line.DIALECT, json.DIALECT, slash.DIALECT)
}
