"""The terminal client: `python -m geventchat connect`.

It speaks the three wire dialects from the other end of the wire and knows nothing of the server: neither
gevent nor any module of `geventchat` outside this folder is imported here.
"""
