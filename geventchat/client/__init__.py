"""The terminal client: `geventchat connect`.

It is built on `geventchat.dialects` and `geventchat.chat`, and talks to a server over the network only. `session` makes the
decisions and knows no sockets, terminals or clocks; `app` puts the parts together.
"""
