"""The chat: people, rooms, commands and events.

Knows no bytes, no sockets and no gevent. It never waits, so a command is handled completely before the next one and
nothing here needs a lock.
"""
