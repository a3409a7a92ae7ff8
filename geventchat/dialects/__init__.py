"""Bytes to commands and events to bytes: one file for each dialect. Knows no sockets and no gevent.

This is the registry: a new dialect is one file, and one entry here.
"""

from geventchat.dialects import json, json2, line, slash
from geventchat.dialects.dialect import Dialect

# The dialects that a listener can have.
DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (line.DIALECT, json.DIALECT, slash.DIALECT)
}
# These, and what a client can go on in.
ALL_DIALECTS: dict[str, Dialect] = {**DIALECTS, json2.DIALECT.name: json2.DIALECT}
