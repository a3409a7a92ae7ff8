"""The terminal client: `geventchat connect`.

It is built on `geventchat.dialects` and `geventchat.chat`, and reaches a server through the wire alone. `session` decides,
and knows neither sockets nor terminals nor clocks; `app` puts the parts together.
"""
