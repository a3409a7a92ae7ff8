"""The chat: who is here, what they may ask, what they hear.

Knows no bytes, no sockets and no gevent. It cannot yield, so a command is handled whole before the next and nothing here
needs a lock.
"""
