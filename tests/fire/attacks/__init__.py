"""Attacks on the documented bounds of the server, each bounded in count and time.

A module is one family. An attack starts a server process of its own, plays its clients from this process, and returns what it
measured. `python -m tests.fire attack NAME` runs the long forms.
"""
